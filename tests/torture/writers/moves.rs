//! Moves under writers, planned and after an outage: nothing is lost, or no more than was said.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::clients::Acknowledged;
use super::rig::{BESIDE, Rig, node, note, until};
use crate::bench::other;
use crate::harness::Ran;
use crate::instants::let_pass;
use crate::processes::{kill_hard, stop, words, works_below};

/// There and back again, under writers.
pub fn switchovers(seed: u64, times: usize) -> Result<String, String> {
    let after = ["commit --yes"];
    let count = there_and_back(seed, times, &after, |rig, one| {
        let_pass(rig.instant(0..300));
        rig.must("switchover --yes")?;
        rig.writes(one.to)?;
        let lost = rig.lost(one.from, one.to)?;
        match lost.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "LOST in switchover {}: {} writes, first `{}`",
                one.round,
                lost.len(),
                first.id
            )),
        }
    })?;
    note(&format!(
        "switchovers: {times}, acknowledged {count}, lost 0"
    ));
    Ok("moved, nothing lost".to_owned())
}

/// The plug is pulled while writing; the bound that was printed is compared with what was lost.
pub fn failovers(seed: u64, times: usize) -> Result<String, String> {
    let after = ["commit --yes", "failback --rejoin-only --yes"];
    let count = there_and_back(seed, times, &after, |rig, one| {
        // Every second time the stream is dead for a while, so that there is something to lose.
        let behind = one.round % 2 == 0;
        if behind {
            let stopped = receivers(&rig.folder(one.to));
            stopped.iter().for_each(|pid| stop(*pid));
        }
        let_pass(rig.instant(500..3500));
        let how = ["off", "freeze"][rig.random.below(2) as usize];
        rig.must(&format!("local power {} {how}", node(one.from)))?;
        let dead = Instant::now();
        if behind {
            // What is in the socket's buffer must not arrive after all.
            receivers(&rig.folder(one.to))
                .into_iter()
                .for_each(kill_hard);
        }
        // The time since the outage must not count.
        let_pass(rig.instant(0..4000));
        let said = failover(rig)?;
        rig.writes(one.to)?;
        bound_holds(rig, one.from, one.to, dead, &said)
            .map_err(|why| format!("failover {}: {why}", one.round))
    })?;
    note(&format!("failovers: {times}, acknowledged {count}"));
    Ok("moved, lost what was said".to_owned())
}

/// From node to node of one site, planned and forced, and planned by a command that is killed and typed again.
pub fn takeovers(seed: u64, times: usize) -> Result<String, String> {
    let mut rig = Rig::beside(seed)?;
    let mut nodes = vec!["east"];
    for round in 1..=times {
        let from = *nodes.last().expect("there is one");
        let to = if from == "east" { BESIDE } else { "east" };
        rig.writes(from)?;
        let what = match round % 3 {
            0 => switched_though_killed(&mut rig, from, to),
            1 => taken_over(&mut rig, from, to),
            _ => switched(&mut rig, from, to),
        };
        what.map_err(|why| format!("takeover {round}: {why}"))?;
        nodes.push(to);
        rig.reigns(&nodes)?;
        rig.is_the_only_one(to)?;
        rig.takes_orders()?;
        rig.must("heal --yes")?;
        rig.ready()?;
    }
    let count = rig.reigns(&nodes)?;
    note(&format!("takeovers: {times}, acknowledged {count}"));
    Ok("taken over, lost what was said".to_owned())
}

fn switched(rig: &mut Rig, from: &str, to: &'static str) -> Result<(), String> {
    let_pass(rig.instant(0..300));
    rig.must(&format!("switchover {} --yes", node(to)))?;
    nothing_lost(rig, from, to)
}

fn switched_though_killed(rig: &mut Rig, from: &str, to: &'static str) -> Result<(), String> {
    let words = format!("switchover {} --yes", node(to));
    let mut killed = rig.lab.start(&words);
    let_pass(rig.instant(0..2000));
    let _ = killed.kill();
    killed.wait().map_err(|error| error.to_string())?;
    let again = rig.lab.run(&words);
    let is_done = again.code == 3 && again.stderr.contains("is the primary of");
    if again.code != 0 && !is_done {
        return Err(format!("`hafog {words}`, again\n{}", again.all()));
    }
    nothing_lost(rig, from, to)
}

fn nothing_lost(rig: &Rig, from: &str, to: &'static str) -> Result<(), String> {
    rig.writes(to)?;
    let lost = rig.lost_last(from, to)?;
    match lost.first() {
        None => Ok(()),
        Some(first) => Err(format!("LOST: {} writes, first `{}`", lost.len(), first.id)),
    }
}

fn taken_over(rig: &mut Rig, from: &str, to: &'static str) -> Result<(), String> {
    let_pass(rig.instant(500..2500));
    let how = ["off", "freeze"][rig.random.below(2) as usize];
    rig.must(&format!("local power {} {how}", node(from)))?;
    let dead = Instant::now();
    let_pass(rig.instant(0..3000));
    let said = rig.must(&format!("failover {} --yes --json", node(to)))?;
    rig.writes(to)?;
    bound_holds(rig, from, to, dead, &said)
}

/// Again while the standby's application does not answer: on a busy machine its balancer may have lost it for a moment.
fn failover(rig: &Rig) -> Result<Ran, String> {
    let mut last = None;
    let moved = until("the standby passes its health checks", || {
        let ran = rig.lab.run("failover --yes --json");
        let refused = ran.code == 3 && ran.stdout.contains("standby-not-ready");
        last = Some(ran);
        !refused
    });
    match last {
        Some(ran) if moved.is_ok() && ran.code == 0 => Ok(ran),
        Some(ran) => Err(format!("`hafog failover --yes`\n{}", ran.all())),
        None => Err("there was no failover".to_owned()),
    }
}

/// One of many moves.
struct Move {
    round: usize,
    from: &'static str,
    to: &'static str,
}

/// Moves from site to site, so many times, with one writer at any moment. How much was acknowledged.
fn there_and_back(
    seed: u64,
    times: usize,
    after: &[&str],
    mut moves: impl FnMut(&mut Rig, &Move) -> Result<(), String>,
) -> Result<usize, String> {
    let mut rig = Rig::new(seed, false)?;
    let mut sites = vec!["east"];
    for round in 1..=times {
        let from = *sites.last().expect("there is one");
        let to = other(from);
        rig.writes(from)?;
        moves(&mut rig, &Move { round, from, to })?;
        sites.push(to);
        rig.reigns(&sites)?;
        rig.is_the_only_one(to)?;
        for words in after {
            rig.must(words)?;
        }
        rig.ready()?;
    }
    rig.reigns(&sites)
}

/// The processes that receive the log on a replica: they rename themselves.
fn receivers(folder: &Path) -> Vec<i32> {
    let mut found = works_below(folder);
    found.retain(|pid| words(*pid).concat().contains("walreceiver"));
    found
}

/// `dead`: from then on the old primary did nothing.
fn bound_holds(rig: &Rig, from: &str, to: &str, dead: Instant, said: &Ran) -> Result<(), String> {
    const HEARTBEATS: f64 = 2.0;
    let loss = loss_of(said)?;
    let seconds = loss["seconds"]
        .as_f64()
        .ok_or_else(|| format!("no bound: {loss}"))?;
    let lost = rig.lost_last(from, to)?;
    let book = rig.writing.book();
    let of_it = |one: &&Acknowledged| {
        let before = lost.first().is_none_or(|first| one.at < first.at);
        one.site == from && before && one.at < dead
    };
    let mut kept = book.iter().rev().filter(of_it);
    let truth = match (lost.first(), lost.last()) {
        (Some(_), Some(last)) => {
            let kept = kept.clone().next().ok_or("nothing was kept")?;
            (last.at - kept.at).as_secs_f64()
        }
        _ => 0.0,
    };
    // A busy machine's clients are slow to send and to hear: what was lost could have been so much more.
    let committed = kept.find_map(|one| one.sent).ok_or("nothing was kept")?;
    let most = (dead - committed).as_secs_f64();
    note(&format!(
        "failover to {to}: lost {} in {truth:.3} s; said {loss}",
        lost.len()
    ));
    if seconds < truth {
        return Err(format!(
            "the bound is too small: lost {truth:.3} s, said {loss}"
        ));
    }
    if seconds > most + HEARTBEATS {
        return Err(format!(
            "the bound is too big: lost {truth:.3} s, {most:.3} s at most, said {loss}"
        ));
    }
    let known = loss["transactions"]
        .as_u64()
        .ok_or_else(|| format!("no transactions: {loss}"))?;
    // The heartbeats themselves and failed statements count too.
    let spare = 10 + lost.len() as u64 / 5;
    if known > lost.len() as u64 + spare {
        return Err(format!(
            "lost {} transactions, and said at least {known}",
            lost.len()
        ));
    }
    Ok(())
}

fn loss_of(said: &Ran) -> Result<Value, String> {
    let report: Value = serde_json::from_slice(&said.raw)
        .map_err(|error| format!("no JSON: {error}\n{}", said.all()))?;
    let loss = report["loss"]
        .get(0)
        .or_else(|| report["report"]["loss"].get(0));
    loss.cloned().ok_or_else(|| format!("no loss in {report}"))
}
