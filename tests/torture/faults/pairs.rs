//! Two commands for one stack at the same time: one has the lease, the other is told who has it, or waits for its
//! turn. The world is that of one of the orders.

use std::time::Duration;

use crate::bench::{Bench, Standing, Standing::*, other};
use crate::harness::Ran;
use crate::harness::wait::wait_until;
use crate::instants::let_pass;
use crate::random::Random;
use crate::stack::{Cut, LIMIT, Running, Wrong};

/// Where the stack is afterwards, and whether the other site is primary.
type End = (Standing, bool);

pub struct TwoCommands {
    /// As the row of a case names them.
    names: [&'static str; 2],
    from: Standing,
    /// `AWAY` is the site that is not primary.
    commands: [&'static str; 2],
    /// After the first alone, and after the second alone.
    alone: [End; 2],
    /// After the first and then the second, and the other way round.
    both: [End; 2],
}

#[rustfmt::skip]
const PAIRS: &[TwoCommands] = &[
    two(["switchover", "deploy"], Pair, ["switchover AWAY", "deploy"],
        [(Provisional, true), (Pair, false)], [(Provisional, true); 2]),
    two(["up", "up"], Bare, ["up", "up"],
        [(Up, false); 2], [(Up, false); 2]),
    // A planned move away from a dead site is refused.
    two(["switchover", "failover"], Dark, ["switchover AWAY", "failover AWAY"],
        [(Dark, false), (Fallen, true)], [(Fallen, true); 2]),
    two(["failover", "failover"], Dark, ["failover AWAY", "failover AWAY"],
        [(Fallen, true); 2], [(Fallen, true); 2]),
    two(["destroy", "deploy"], Pair, ["destroy", "deploy"],
        [(Bare, false), (Pair, false)], [(Bare, false); 2]),
    two(["commit", "rollback"], Provisional, ["commit", "rollback"],
        [(Pair, false), (Pair, true)], [(Pair, false), (Pair, true)]),
    two(["switchover", "dns lower"], Pair, ["switchover AWAY", "dns lower"],
        [(Provisional, true), (Pair, false)], [(Provisional, true); 2]),
    two(["build", "build"], Pair, ["build", "build"],
        [(Pair, false); 2], [(Pair, false); 2]),
    // Of a switchover that was killed.
    two(["switchover", "resume"], Pair, ["resume", "resume"],
        [(Provisional, true); 2], [(Provisional, true); 2]),
];

const fn two(
    names: [&'static str; 2],
    from: Standing,
    commands: [&'static str; 2],
    alone: [End; 2],
    both: [End; 2],
) -> TwoCommands {
    TwoCommands {
        names,
        from,
        commands,
        alone,
        both,
    }
}

pub fn find(one: &str, two: &str) -> &'static TwoCommands {
    let found = PAIRS.iter().find(|pair| pair.names == [one, two]);
    found.expect("a row names a pair of `PAIRS`")
}

/// The stack where it begins, and the two commands as a person types them, in any order.
fn prepare(
    pair: &TwoCommands,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<([String; 2], [usize; 2]), Wrong> {
    bench.arrive(pair.from)?;
    let away = other(bench.primary());
    let typed = |words: &str| format!("{} --yes", words.replace("AWAY", away));
    let commands = pair.commands.map(typed);
    if commands
        .iter()
        .any(|words| words.starts_with("deploy") || words.starts_with("build"))
    {
        bench.stack().change_app();
    }
    if commands[0].starts_with("resume") {
        let line = 2 + random.below(20) as usize;
        let words = format!("switchover {away} --yes");
        if !bench.stack().cut(&words, &Cut::Line("after", line))? {
            return Err(format!("`{words}` has fewer than {line} lines"));
        }
    }
    let order = [[0, 1], [1, 0]][random.below(2) as usize];
    Ok((commands, order))
}

/// Both begin in the same instant.
pub fn at_once(
    pair: &TwoCommands,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<String, Wrong> {
    let (commands, [one, two]) = prepare(pair, bench, random)?;
    let known = bench.stack().journals();
    let stack = bench.stack();
    let first = Running::begin(stack, &commands[one], &[]);
    // Where in the first one the second begins is up to chance.
    let_pass(Duration::from_micros(random.below(60_000)));
    let second = Running::begin(stack, &commands[two], &[]);
    let (first, second) = (first.finish(), second.finish());
    let said = format!(
        "`{}`:\n{}\n`{}`:\n{}",
        commands[one],
        first.all(),
        commands[two],
        second.all()
    );
    let told = |why: Wrong| format!("{why}\n{said}");
    let (end, words) = match (first.code, second.code) {
        (5, 5) => return Err(told("each was kept out by the other".to_owned())),
        (5, _) => (pair.alone[two], kept_out(&first)?),
        (_, 5) => (pair.alone[one], kept_out(&second)?),
        (0 | 3, 0 | 3) if overlap(bench, &known).map_err(told)? => {
            return Err(told("both ran at the same time".to_owned()));
        }
        // The one was over before the other began; which one is not known.
        (0 | 3, 0 | 3) => {
            let ends = [pair.both[one], pair.both[two]];
            let away = other(bench.primary());
            let moved = bench.world().leads_to(away);
            let end = ends.into_iter().find(|end| end.1 == moved);
            (end.unwrap_or(ends[0]), "one after the other")
        }
        _ => {
            return Err(told(
                "neither was kept out, and one did not go well".to_owned(),
            ));
        }
    };
    is_now(bench, &commands, end).map_err(told)?;
    Ok(words.to_owned())
}

/// The second waits for the lease of the first.
pub fn in_turn(
    pair: &TwoCommands,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<String, Wrong> {
    let (commands, [one, two]) = prepare(pair, bench, random)?;
    let known = bench.stack().journals();
    let stack = bench.stack();
    let mut first = Running::begin(stack, &commands[one], &[]);
    let lease = stack.home.path().join("arbiter/docs/lease.json");
    let verb = commands[one].split(' ').next().unwrap_or_default();
    let reason = format!("\"{verb}");
    wait_until(LIMIT, "the first command has the lease", || {
        first.is_over() || std::fs::read_to_string(&lease).is_ok_and(|text| text.contains(&reason))
    })?;
    let waits = format!("{} --lock-timeout 2m", commands[two]);
    let second = Running::begin(stack, &waits, &[]);
    let (first, second) = (first.finish(), second.finish());
    let said = format!(
        "`{}`:\n{}\n`{waits}`:\n{}",
        commands[one],
        first.all(),
        second.all()
    );
    let told = |why: Wrong| format!("{why}\n{said}");
    if !matches!((first.code, second.code), (0 | 3, 0 | 3)) {
        return Err(told("each should have had its turn".to_owned()));
    }
    if overlap(bench, &known).map_err(told)? {
        return Err(told("both ran at the same time".to_owned()));
    }
    is_now(bench, &commands, pair.both[one]).map_err(told)?;
    Ok(format!("{}, then {}", words_of(&first), words_of(&second)))
}

/// Whether a new journal begins before another one ends.
fn overlap(bench: &mut Bench, known: &[String]) -> Result<bool, Wrong> {
    let stack = bench.stack();
    let new = stack
        .journals()
        .into_iter()
        .filter(|name| !known.contains(name));
    let mut spans = new
        .map(|name| {
            let text = std::fs::read_to_string(stack.journal_folder().join(&name));
            let text = text.map_err(super::io)?;
            let at = |line: Option<&str>| -> Option<jiff::Timestamp> {
                let line: serde_json::Value = serde_json::from_str(line?).ok()?;
                line["at"].as_str()?.parse().ok()
            };
            let span = (at(text.lines().next()), at(text.lines().last()));
            match span {
                (Some(begin), Some(end)) => Ok((begin, end)),
                _ => Err(format!("journal {name} has no times")),
            }
        })
        .collect::<Result<Vec<_>, Wrong>>()?;
    spans.sort();
    Ok(spans.windows(2).any(|two| two[1].0 < two[0].1))
}

fn words_of(ran: &Ran) -> &'static str {
    match ran.code {
        0 => "done",
        3 => "refused",
        _ => "stopped",
    }
}

fn kept_out(ran: &Ran) -> Result<&'static str, Wrong> {
    let is_told = ran.stderr.contains("is locked by") && ran.stderr.contains("hafog lock status");
    match is_told {
        true => Ok("one was kept out"),
        false => Err(format!("it is not told who has the lease:\n{}", ran.all())),
    }
}

fn is_now(bench: &mut Bench, commands: &[String; 2], (standing, moved): End) -> Result<(), Wrong> {
    let before = bench.primary();
    let primary = match (standing, moved) {
        (Bare, _) => "east",
        (_, true) => other(before),
        (_, false) => before,
    };
    // There is nothing to see in the dark.
    if standing == Dark {
        return Ok(());
    }
    // What was only built is not what the next case expects; what was only lowered neither.
    if standing == Pair {
        bench.stack().must("dns restore --yes")?;
        if commands.iter().any(|words| words.starts_with("build")) {
            bench.stack().must("deploy --yes")?;
        }
    }
    bench.is_now(standing, primary, false)?;
    // Nor is a release whose deploy was kept out.
    if standing == Provisional && commands.iter().any(|words| words.starts_with("deploy")) {
        bench.stack().must("commit --yes")?;
        bench.stack().must("deploy --yes")?;
        bench.is_now(Pair, primary, false)?;
    }
    Ok(())
}
