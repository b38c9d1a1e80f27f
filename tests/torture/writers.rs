//! Never two writers, and moves without loss: clients write at both sites all the time, and what they were told is
//! the judge.

#[path = "clients.rs"]
mod clients;
#[path = "../real/lab.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod lab;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use clients::{Acknowledged, Door, Writing};
use hafog::dns::ZoneSettings;
use lab::{Lab, SPEC};

use crate::harness::Home;

const PASSWORD: &str = "a-password-of-the-tests";
/// The default.
const LEASE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);
/// In a server's folder: where all of its database works, and nobody else.
const PGDATA: &str = "data/postgres-main/main";

/// Verb, step, fault, and what runs it: the end state in words, or what is wrong.
pub type Row = (
    &'static str,
    &'static str,
    &'static str,
    fn(seed: u64) -> Result<String, String>,
);

pub const CASES: &[Row] = &[
    ("switchover", "all", "writers", |seed| switchovers(seed, 2)),
    ("failover", "all", "writers", |seed| failovers(seed, 2)),
    ("failover", "stop-writes", "frozen 5 s", |seed| {
        frozen(seed, 5)
    }),
    ("failover", "stop-writes", "frozen 30 s", |seed| {
        frozen(seed, 30)
    }),
    (
        "failover",
        "stop-writes",
        "restarted meanwhile",
        restarted_meanwhile,
    ),
    (
        "failover",
        "done",
        "engine restarted by hand",
        restarted_by_hand,
    ),
    ("failover", "stop-writes", "agent killed", agent_killed),
    (
        "failover",
        "stop-writes",
        "agent kept dead",
        agent_kept_dead,
    ),
    ("agent", "hold", "store unreachable, isolated", |_| {
        store_away(false)
    }),
    ("agent", "hold", "store unreachable, strict", |_| {
        store_away(true)
    }),
    ("agent", "hold", "killed after its own stop", |_| {
        killed_after_its_own_stop()
    }),
    ("failover", "stop-writes", "unfenced, as accepted", unfenced),
    (
        "failover",
        "stop-writes",
        "frozen past its lease, strict",
        frozen_past_its_lease,
    ),
];

/// Only in `make torture`: they take minutes or hours.
#[allow(dead_code, reason = "the runner of everything uses them")]
pub const LONG: &[Row] = &[
    ("switchover", "all", "writers, 200 times", |seed| {
        switchovers(seed, 200)
    }),
    ("failover", "all", "writers, 200 times", |seed| {
        failovers(seed, 200)
    }),
    ("failover", "stop-writes", "frozen 120 s", |seed| {
        frozen(seed, 120)
    }),
];

/// A stack with a standby that is ready, and clients at work.
struct Rig {
    // Dropped first: the clients end before what they write to.
    writing: Writing,
    lab: Lab,
    doors: [Door; 2],
    /// Decides what the seed decides.
    random: u64,
}

fn other(site: &str) -> &'static str {
    if site == "east" { "west" } else { "east" }
}

fn node(site: &str) -> String {
    format!("shop-{site}-db-1")
}

impl Rig {
    fn new(seed: u64, strict: bool) -> Result<Rig, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut spec = SPEC.replace("ttl: 5s", "ttl: 2s");
        if strict {
            spec.push_str("self_fence: strict\n");
        }
        let lab = Lab {
            home: Home::with(&spec),
        };
        must(&lab, "up --yes")?;
        must(&lab, "clone west --yes")?;
        let facts = lab.facts();
        let ca = folder_of(&facts, "east", "shop-east-web-1").join("etc/database-ca.crt");
        let door = |site| Door::new(site, address(&facts, site, &node(site)), PASSWORD, &ca);
        let doors = [door("east"), door("west")];
        clients::make_table(&doors[0])?;
        let balancers = ["east", "west"].map(|site| {
            (
                site,
                address(&facts, site, &format!("shop-{site}-balancer-1")),
            )
        });
        let authorities = authorities(lab.home.path());
        let rig = Rig {
            writing: Writing::start(&doors, balancers.to_vec(), &authorities),
            lab,
            doors,
            random: seed | 1,
        };
        rig.ready()?;
        Ok(rig)
    }

    /// xorshift: enough to spread instants.
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    fn door(&self, site: &str) -> &Door {
        self.doors
            .iter()
            .find(|door| door.site == site)
            .expect("a site")
    }

    fn must(&self, words: &str) -> Result<String, String> {
        must(&self.lab, words)
    }

    fn ready(&self) -> Result<(), String> {
        until("the standby is ready", || {
            self.lab.run("preflight").code == 0
        })
        .map_err(|why| format!("{why}\n{}", self.lab.run("preflight").all()))
    }

    /// Waits until the site's database acknowledges something after now.
    fn writes(&self, site: &str) -> Result<(), String> {
        let began = Instant::now();
        until(&format!("{site} acknowledges"), || {
            let book = self.writing.book();
            book.iter()
                .rev()
                .take_while(|one| one.at > began)
                .any(|one| one.site == site)
        })
    }

    /// The sites in the order in which they acknowledged. Two writers show as a change too many.
    fn reigns(&self, expected: &[&str]) -> Result<usize, String> {
        let book = self.writing.book();
        let mut reigns: Vec<&Acknowledged> = Vec::new();
        for one in &book {
            if reigns.last().is_none_or(|last| last.site != one.site) {
                reigns.push(one);
            }
        }
        let sites: Vec<&str> = reigns.iter().map(|one| one.site).collect();
        if sites == expected {
            return Ok(book.len());
        }
        let began = book.first().map(|one| one.at).unwrap_or_else(Instant::now);
        let told = reigns.iter().map(|one| {
            format!(
                "{} from {:.3} s ({})",
                one.site,
                (one.at - began).as_secs_f64(),
                one.id
            )
        });
        let told = told.collect::<Vec<_>>().join(", ");
        Err(format!(
            "DOUBLE WRITER: expected {expected:?}, and acknowledged: {told}"
        ))
    }

    fn is_the_only_one(&self, site: &str) -> Result<(), String> {
        let writable = self.lab.writable();
        match writable == [node(site)] {
            true => Ok(()),
            false => Err(format!(
                "writable are {writable:?}, and not only {}",
                node(site)
            )),
        }
    }

    /// Acknowledged by `old` before `to` was opened, and not in `to`.
    fn lost(&self, old: &str, to: &str) -> Result<Vec<Acknowledged>, String> {
        let held = self.writing.held(self.door(to))?;
        let book = self.writing.book();
        let lost = book
            .into_iter()
            .filter(|one| one.site == old && !held.contains(&one.id));
        Ok(lost.collect())
    }

    fn folder(&self, site: &str) -> PathBuf {
        folder_of(&self.lab.facts(), site, &node(site))
    }
}

fn must(lab: &Lab, words: &str) -> Result<String, String> {
    let ran = lab.run(words);
    match ran.code {
        0 => Ok(ran.all()),
        _ => Err(format!("`hafog {words}`\n{}", ran.all())),
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let give_up = Instant::now() + LIMIT;
    while !holds() {
        if Instant::now() > give_up {
            return Err(format!("{what}: not within {} s", LIMIT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn server<'a>(facts: &'a Value, site: &str, name: &str) -> &'a Value {
    &facts["sites"][site]["servers"][name]["host"]
}

fn address(facts: &Value, site: &str, name: &str) -> IpAddr {
    let text = server(facts, site, name)["address"].as_str();
    text.and_then(|text| text.parse().ok())
        .expect("the server has an address")
}

fn folder_of(facts: &Value, site: &str, name: &str) -> PathBuf {
    let data = server(facts, site, name)["dirs"]["data"]
        .as_str()
        .expect("the server has a folder");
    Path::new(data.trim_end_matches("/data")).to_owned()
}

fn authorities(home: &Path) -> Vec<SocketAddr> {
    let about = hafog::dns::registry::find("serve").expect("hafog's own name server is built in");
    let settings = ZoneSettings {
        zone: "shop.test".into(),
        settings: Default::default(),
        home: home.join(".hafog"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime can be made");
    let host = (about.open)(&settings).expect("the zone opens");
    runtime
        .block_on(host.authorities())
        .expect("it has authorities")
}

/// Processes whose working folder is `folder` or below, and whose command line has the word.
fn processes(folder: &Path, word: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("this is Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        cwd.is_ok_and(|cwd| cwd.starts_with(folder))
            && words.any(|found| {
                found == word.as_bytes() || found.ends_with(format!("/{word}").as_bytes())
            })
    })
    .collect()
}

/// Processes whose working folder is `folder` or below.
fn works_below(folder: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("this is Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
        cwd.is_ok_and(|cwd| cwd.starts_with(folder))
    })
    .collect()
}

/// Figures, for whoever reads along.
fn note(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn stop(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
}

fn go_on(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
}

fn kill_hard(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// There and back again, under writers.
fn switchovers(seed: u64, times: usize) -> Result<String, String> {
    let mut rig = Rig::new(seed, false)?;
    let mut sites = vec!["east"];
    for round in 1..=times {
        let from = *sites.last().expect("there is one");
        let to = other(from);
        rig.writes(from)?;
        std::thread::sleep(Duration::from_millis(rig.below(300)));
        rig.must("switchover --yes")?;
        sites.push(to);
        rig.writes(to)?;
        let lost = rig.lost(from, to)?;
        if let Some(first) = lost.first() {
            return Err(format!(
                "LOST in switchover {round}: {} writes, first `{}`",
                lost.len(),
                first.id
            ));
        }
        rig.reigns(&sites)?;
        rig.is_the_only_one(to)?;
        rig.must("commit --yes")?;
        rig.ready()?;
    }
    let count = rig.reigns(&sites)?;
    note(&format!(
        "switchovers: {times}, acknowledged {count}, lost 0"
    ));
    Ok("moved, nothing lost".to_owned())
}

/// The plug is pulled while writing; the bound that was printed is compared with what was lost.
fn failovers(seed: u64, times: usize) -> Result<String, String> {
    let mut rig = Rig::new(seed, false)?;
    let mut sites = vec!["east"];
    for round in 1..=times {
        let from = *sites.last().expect("there is one");
        let to = other(from);
        rig.writes(from)?;
        // Every second time the stream is dead for a while, so that there is something to lose.
        let behind = round % 2 == 0;
        if behind {
            let stopped = receivers(&rig.folder(to));
            stopped.iter().for_each(|pid| stop(*pid));
        }
        std::thread::sleep(Duration::from_millis(500 + rig.below(3000)));
        let how = ["off", "freeze"][rig.below(2) as usize];
        rig.must(&format!("local power {} {how}", node(from)))?;
        if behind {
            // What is in the socket's buffer must not arrive after all.
            receivers(&rig.folder(to)).into_iter().for_each(kill_hard);
        }
        // The time since the outage must not count.
        std::thread::sleep(Duration::from_millis(rig.below(4000)));
        let said = rig.must("failover --yes --json")?;
        sites.push(to);
        rig.writes(to)?;
        bound_holds(&rig, from, to, &said).map_err(|why| format!("failover {round}: {why}"))?;
        rig.reigns(&sites)?;
        rig.is_the_only_one(to)?;
        rig.must("commit --yes")?;
        rig.must("failback --rejoin-only --yes")?;
        rig.ready()?;
    }
    let count = rig.reigns(&sites)?;
    note(&format!("failovers: {times}, acknowledged {count}"));
    Ok("moved, lost what was said".to_owned())
}

/// The processes that receive the log on a replica: they rename themselves.
fn receivers(folder: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("this is Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        cwd.is_ok_and(|cwd| cwd.starts_with(folder))
            && String::from_utf8_lossy(&line).contains("walreceiver")
    })
    .collect()
}

fn bound_holds(rig: &Rig, from: &str, to: &str, said: &str) -> Result<(), String> {
    const HEARTBEATS: f64 = 2.0;
    let loss = loss_of(said)?;
    let seconds = loss["seconds"]
        .as_f64()
        .ok_or_else(|| format!("no bound: {loss}"))?;
    let lost = rig.lost(from, to)?;
    let book = rig.writing.book();
    let truth = match (lost.first(), lost.last()) {
        (Some(first), Some(last)) => {
            let kept = book
                .iter()
                .rev()
                .find(|one| one.site == from && one.at < first.at);
            let kept = kept.ok_or("nothing was kept")?;
            (last.at - kept.at).as_secs_f64()
        }
        _ => 0.0,
    };
    let known = loss["transactions"]
        .as_u64()
        .ok_or_else(|| format!("no transactions: {loss}"))?;
    note(&format!(
        "failover to {to}: lost {} in {truth:.3} s; said {loss}",
        lost.len()
    ));
    if seconds < truth {
        return Err(format!(
            "the bound is too small: lost {truth:.3} s, said {loss}"
        ));
    }
    if seconds > truth + HEARTBEATS + 0.05 {
        return Err(format!(
            "the bound is too big: lost {truth:.3} s, said {loss}"
        ));
    }
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

fn loss_of(said: &str) -> Result<Value, String> {
    let begin = said.find('{').ok_or("no JSON")?;
    let mut values = serde_json::Deserializer::from_str(&said[begin..]).into_iter::<Value>();
    let report = values
        .next()
        .and_then(Result::ok)
        .ok_or_else(|| format!("no JSON: {said}"))?;
    let loss = report["loss"]
        .get(0)
        .or_else(|| report["report"]["loss"].get(0));
    loss.cloned().ok_or_else(|| format!("no loss in {report}"))
}

/// A machine that hangs while it writes; a failover; it goes on.
fn frozen(seed: u64, seconds: u64) -> Result<String, String> {
    let mut rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    std::thread::sleep(Duration::from_millis(rig.below(1000)));
    rig.must("local power shop-east-db-1 freeze")?;
    let thaw = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let lab = &rig.lab;
        let thawing = scope.spawn(move || {
            std::thread::sleep(thaw.saturating_duration_since(Instant::now()));
            // It is off when the fence was faster: then somebody switches it on.
            if lab.run("local power shop-east-db-1 thaw").code != 0 {
                lab.run("local power shop-east-db-1 on");
            }
        });
        let moved = rig.must("failover --yes");
        thawing.join().map_err(|_| "the thaw panicked".to_owned())?;
        moved
    })?;
    rig.writes("west")?;
    comes_back_closed(&rig)
}

/// The old primary's machine is on again, and its database accepts nothing.
fn comes_back_closed(rig: &Rig) -> Result<String, String> {
    until("the old primary answers", || {
        rig.lab.run("local power shop-east-db-1 on");
        rig.lab.facts()["nodes"]["shop-east-db-1"]["status"]["known"].is_object()
    })?;
    rig.writes("west")?;
    rig.is_the_only_one("west")?;
    rig.reigns(&["east", "west"])?;
    rig.must("commit --yes")?;
    rig.must("failback --rejoin-only --yes")?;
    rig.ready()?;
    rig.reigns(&["east", "west"])?;
    Ok("moved, one writer".to_owned())
}

/// Nobody can look at the old site, whose machine hangs until its lease is long over; then it goes on, and its
/// database is up before its agent has looked at anything.
fn frozen_past_its_lease(seed: u64) -> Result<String, String> {
    let mut rig = Rig::new(seed, true)?;
    rig.writes("east")?;
    std::thread::sleep(Duration::from_millis(rig.below(1000)));
    rig.must("local power shop-east-db-1 freeze")?;
    rig.must("failover --yes --assume-down east")?;
    rig.writes("west")?;
    let thawed = Instant::now();
    // The worst order: all of its database before anybody else on the machine.
    let database = works_below(&rig.folder("east").join(PGDATA));
    if database.is_empty() {
        return Err("there is no database to thaw".to_owned());
    }
    database.iter().for_each(|pid| go_on(*pid));
    std::thread::sleep(Duration::from_secs(2));
    rig.must("local power shop-east-db-1 thaw")?;
    until("the old primary is closed", || {
        rig.lab.writable() == [node("west")]
    })?;
    rig.writes("west")?;
    nothing_alone(&rig, thawed)?;
    rig.must("commit --yes")?;
    rig.must("failback --rejoin-only --yes")?;
    rig.ready()?;
    nothing_alone(&rig, thawed)?;
    Ok("moved, one writer".to_owned())
}

/// The old primary acknowledged nothing that the new one lacks, neither before the move nor after the thaw. An answer
/// that was on its way when the machine froze may arrive late, one a session: what it speaks of is in the new primary.
fn nothing_alone(rig: &Rig, thawed: Instant) -> Result<(), String> {
    const SESSIONS: usize = 5;
    let lost = rig.lost("east", "west")?;
    let after = |one: &&Acknowledged| one.at > thawed;
    if let Some(first) = lost.first() {
        return Err(format!(
            "DOUBLE WRITER: {} writes were acknowledged by the old primary alone, {} of them after the thaw, first `{}`",
            lost.len(),
            lost.iter().filter(after).count(),
            first.id
        ));
    }
    let book = rig.writing.book();
    let late = book.iter().filter(|one| one.site == "east").filter(after);
    let late = late.count();
    note(&format!("answers that came late: {late}"));
    match late {
        0..=SESSIONS => Ok(()),
        _ => Err(format!(
            "{late} late answers of {SESSIONS} sessions: the old primary acknowledged anew"
        )),
    }
}

/// Somebody switches the old primary's machine on again and again while the failover is under way.
fn restarted_meanwhile(seed: u64) -> Result<String, String> {
    let rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    rig.must("local power shop-east-db-1 off")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let lab = &rig.lab;
        let done = &over;
        scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                lab.run("local power shop-east-db-1 on");
            }
        });
        let moved = rig.must("failover --yes --accept primary-healthy");
        over.store(true, Ordering::SeqCst);
        moved
    })?;
    rig.writes("west")?;
    comes_back_closed(&rig)
}

/// After the failover somebody restarts the old primary's engine, abruptly and through its service.
fn restarted_by_hand(seed: u64) -> Result<String, String> {
    let rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    rig.must("failover --yes --accept primary-healthy")?;
    rig.writes("west")?;
    rig.must("local power shop-east-db-1 on")?;
    let folder = rig.folder("east");
    for _ in 0..3 {
        until("the old engine runs", || {
            !processes(&folder, "postgres").is_empty()
        })?;
        processes(&folder, "postgres")
            .into_iter()
            .for_each(kill_hard);
        rig.writes("west")?;
    }
    comes_back_closed(&rig)
}

/// The agent is killed again and again, and its supervisor restarts it, through both kinds of move.
fn agent_killed(seed: u64) -> Result<String, String> {
    let mut rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    let killed = Killing::start(
        rig.folder("east"),
        Duration::from_millis(500 + rig.below(1500)),
    );
    rig.must("switchover --yes")?;
    rig.writes("west")?;
    rig.must("commit --yes")?;
    rig.ready()?;
    rig.must("switchover --yes")?;
    rig.writes("east")?;
    rig.reigns(&["east", "west", "east"])?;
    killed.stop()?;
    Ok("moved there and back, one writer".to_owned())
}

/// It never lives long enough for a round.
fn agent_kept_dead(seed: u64) -> Result<String, String> {
    let rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    let killed = Killing::start(rig.folder("east"), Duration::ZERO);
    // Longer than its write lease.
    std::thread::sleep(LEASE + LEASE / 2);
    rig.writes("east")?;
    rig.must("failover --yes --accept primary-healthy")?;
    rig.writes("west")?;
    rig.must("local power shop-east-db-1 on")?;
    rig.writes("west")?;
    rig.is_the_only_one("west")?;
    killed.stop()?;
    comes_back_closed(&rig)
}

/// Kills a node's agent whenever it is there, with a pause after each time.
struct Killing {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Killing {
    fn start(folder: PathBuf, pause: Duration) -> Killing {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            let mut killed = 0;
            while !stop.load(Ordering::SeqCst) {
                for pid in processes(&folder, "agent") {
                    kill_hard(pid);
                    killed += 1;
                }
                std::thread::sleep(pause.max(Duration::from_millis(2)));
            }
            killed
        });
        Killing {
            over,
            thread: Some(thread),
        }
    }

    /// An agent that was never found was never killed.
    fn stop(mut self) -> Result<(), String> {
        self.over.store(true, Ordering::SeqCst);
        let killed = self.thread.take().map(std::thread::JoinHandle::join);
        match killed {
            Some(Ok(1..)) => Ok(()),
            _ => Err("the agent was never killed".to_owned()),
        }
    }
}

impl Drop for Killing {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// The arbiter's folder is away for longer than a write lease, and comes back.
fn store_away(strict: bool) -> Result<String, String> {
    let rig = Rig::new(1, strict)?;
    rig.writes("east")?;
    let (here, away) = (
        rig.lab.home.path().join("arbiter"),
        rig.lab.home.path().join("away"),
    );
    std::fs::rename(&here, &away).map_err(|error| error.to_string())?;
    let gone = Instant::now();
    std::thread::sleep(LEASE * 2);
    let late = rig
        .writing
        .book()
        .into_iter()
        .rev()
        .find(|one| one.at > gone + LEASE);
    // Somebody's `mkdir` may have made an empty one: that is no arbiter.
    let _ = std::fs::remove_dir_all(&here);
    std::fs::rename(&away, &here).map_err(|error| error.to_string())?;
    match (strict, late) {
        (true, Some(late)) => {
            let after = (late.at - gone).as_secs_f64();
            return Err(format!(
                "acknowledged {after:.1} s after the store was gone, with a lease of {} s",
                LEASE.as_secs()
            ));
        }
        (false, None) => {
            return Err("an outage of the arbiter alone stopped a healthy primary".to_owned());
        }
        _ => {}
    }
    rig.writes("east")?;
    rig.reigns(&["east"])?;
    rig.is_the_only_one("east")?;
    Ok(if strict {
        "stopped, and open again"
    } else {
        "went on"
    }
    .to_owned())
}

/// The agent stops its engine because its lease is over, and is killed. The next one brings the engine back when the
/// arbiter is there again.
fn killed_after_its_own_stop() -> Result<String, String> {
    let rig = Rig::new(1, true)?;
    rig.writes("east")?;
    let (here, away) = (
        rig.lab.home.path().join("arbiter"),
        rig.lab.home.path().join("away"),
    );
    std::fs::rename(&here, &away).map_err(|error| error.to_string())?;
    let data = rig.folder("east").join(PGDATA);
    until("the agent has stopped its engine", || {
        works_below(&data).is_empty()
    })?;
    let agents = processes(&rig.folder("east"), "agent");
    agents.iter().for_each(|pid| kill_hard(*pid));
    until("there is another agent", || {
        let now = processes(&rig.folder("east"), "agent");
        !now.is_empty() && now.iter().all(|pid| !agents.contains(pid))
    })?;
    let _ = std::fs::remove_dir_all(&here);
    std::fs::rename(&away, &here).map_err(|error| error.to_string())?;
    rig.writes("east")?;
    rig.reigns(&["east"])?;
    rig.is_the_only_one("east")?;
    Ok("stopped, and open again".to_owned())
}

/// Nobody can look at the old site and its agent is dead: both acknowledge, as accepted. The way back names what
/// only the old one has.
fn unfenced(seed: u64) -> Result<String, String> {
    let rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    // Frozen, and not killed: an agent that was restarted may fence before it is killed again.
    let frozen = processes(&rig.folder("east"), "agent");
    if frozen.is_empty() {
        return Err("there is no agent to freeze".to_owned());
    }
    frozen.iter().for_each(|pid| stop(*pid));
    rig.must("failover --yes --assume-down east --accept unfenced-primary")?;
    rig.writes("west")?;
    rig.writes("east")?;
    frozen.into_iter().for_each(go_on);
    // Its agent is back, and fences it.
    until("the old primary is closed", || {
        rig.lab.writable() == [node("west")]
    })?;
    rig.reigns(&["east", "west"])
        .err()
        .ok_or("nobody acknowledged twice: the case is empty")?;
    let lost = rig.lost("east", "west")?;
    let direct = lost
        .iter()
        .filter(|one| !one.id.starts_with("order "))
        .count() as u64;
    let ran = rig.lab.run("failback --rejoin-only --dry-run --json");
    let said: Value = serde_json::from_slice(&ran.raw).map_err(|_| ran.all())?;
    let apart = &said["plan"]["forecast"]["apart"]["shop-east-db-1"]["known"];
    let contents = &apart["contents"]["known"];
    note(&format!(
        "acknowledged twice: {} writes; said {}",
        lost.len(),
        said["plan"]["forecast"]["notes"]
    ));
    let tables = contents["different"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let written = tables
        .iter()
        .find(|table| table["table"] == "public.written");
    let written = written.ok_or_else(|| format!("no rows are named: {apart}"))?;
    let named = written["only_old"].as_u64().unwrap_or_default();
    // A write whose answer was cut off may be there too.
    if named < direct || named > direct + 10 {
        return Err(format!(
            "{direct} were acknowledged by the old primary alone, and {named} are named"
        ));
    }
    let first = written["keys"][0]
        .as_str()
        .unwrap_or_default()
        .trim_matches(['(', ')', '"'])
        .to_owned();
    let held = rig.writing.held(rig.door("west"))?;
    if first.is_empty() || held.contains(&first) {
        return Err(format!("`{first}` is named, and the new primary has it"));
    }
    if contents["transactions"].as_u64() < Some(direct) {
        return Err(format!("too few transactions: {contents}"));
    }
    rig.must("commit --yes")?;
    rig.must("failback --rejoin-only --yes")?;
    rig.ready()?;
    Ok("two writers as accepted, and named".to_owned())
}
