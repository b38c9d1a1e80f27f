//! The way between two places is cut while a switchover is under way, and clients write on both sides all the time.
//! What they were told is the judge: never two nodes that acknowledge, and nothing lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::{Pair, cloud, lab};
use crate::random::Random;

/// During which step it is cut: all that a switchover has here. The last is while nothing moves.
const STEPS: [&str; 15] = [
    "vet-standby",
    "lower-ttl",
    "stop-writes",
    "await-replay",
    "promote-standby",
    "open-app",
    "smoke-test",
    "reopen-zone",
    "set-record",
    "see-record",
    "provisional",
    "recreate-replica",
    "reverse-replication",
    "close-app",
    "",
];
const SECONDS: [u64; 3] = [1, 10, 60];
/// The clouds from each other, and the old and the new primary's from the arbiter and from whoever moves; also one way.
const CUTS: [[&str; 3]; 9] = [
    ["from", "to", ""],
    ["from", "to", "one-way"],
    ["to", "from", "one-way"],
    ["from", "c", ""],
    ["to", "c", ""],
    ["from", "c", "one-way"],
    ["c", "to", "one-way"],
    ["here", "from", ""],
    ["here", "to", ""],
];
/// A write that was not acknowledged by then is not.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);
/// docs/exit-codes.md.
const REFUSED: i32 = 3;
const UNAVAILABLE: i32 = 69;
/// Of a move that failed, for whoever reads why.
const EVENTS: usize = 20;

#[derive(Clone, Debug)]
struct Ack {
    id: String,
    site: &'static str,
    sent: Instant,
    told: Instant,
}

/// A client at each site's balancer.
struct Writers {
    acks: Arc<Mutex<Vec<Ack>>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(pair: &Pair) -> Writers {
        let acks: Arc<Mutex<Vec<Ack>>> = Arc::default();
        let ended = Arc::new(AtomicBool::new(false));
        let start = |site: &'static str| {
            let address: SocketAddr = format!("{}:80", pair.address(site))
                .parse()
                .expect("an address");
            let (acks, ended) = (acks.clone(), ended.clone());
            std::thread::spawn(move || {
                for number in 0.. {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let (id, sent) = (format!("{site}-{number}"), Instant::now());
                    if order(address, &id).is_some_and(|status| status == 201) {
                        let told = Instant::now();
                        let ack = Ack {
                            id,
                            site,
                            sent,
                            told,
                        };
                        acks.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(ack);
                    }
                    std::thread::sleep(PAUSE);
                }
            })
        };
        let threads = ["east", "west"].map(start).into_iter().collect();
        Writers {
            acks,
            ended,
            threads,
        }
    }

    fn acks(&self) -> MutexGuard<'_, Vec<Ack>> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn order(address: SocketAddr, id: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!(
        "POST /orders HTTP/1.1\r\nHost: www.shop.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{id}",
        id.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn other(site: &str) -> &'static str {
    if site == "east" { "west" } else { "east" }
}

#[derive(Clone, Debug, PartialEq)]
struct Case {
    step: &'static str,
    cut: [&'static str; 3],
    seconds: u64,
}

/// Whatever the seed: the agent of the new primary cannot read that it is one. What it read last is that the old one
/// is, or that nobody is.
const UNHEARD: [Case; 2] = [unheard("await-replay"), unheard("promote-standby")];

const fn unheard(step: &'static str) -> Case {
    Case {
        step,
        cut: ["to", "c", ""],
        seconds: 10,
    }
}

impl Case {
    /// Each step with each cut before any of them comes again.
    fn sample(random: &mut Random, count: usize) -> Vec<Case> {
        let mut cases = Vec::new();
        while cases.len() < count {
            let mut all: Vec<_> = STEPS
                .iter()
                .flat_map(|step| CUTS.map(|cut| (*step, cut)))
                .collect();
            random.shuffle(&mut all);
            cases.extend(all.into_iter().map(|(step, cut)| Case {
                step,
                cut,
                seconds: SECONDS[random.below(SECONDS.len() as u64) as usize],
            }));
        }
        cases.truncate(count);
        cases
    }

    /// Cuts, and heals after its time.
    fn cut(&self, from: &str) -> JoinHandle<()> {
        let place = |word: &'static str| match word {
            "from" => cloud(from),
            "to" => cloud(other(from)),
            word => word,
        };
        let words = self.cut.map(place);
        let words: Vec<&str> = ["cut"]
            .into_iter()
            .chain(words)
            .filter(|word| !word.is_empty())
            .collect();
        lab(&words);
        let seconds = self.seconds;
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(seconds));
            lab(&["heal"]);
        })
    }

    fn play(&self, pair: &Pair, from: &str) {
        if self.step.is_empty() {
            let healed = self.cut(from);
            healed.join().expect("it heals");
            return;
        }
        // What was ready a moment ago may not answer a busy machine in time: then the move is refused.
        let begun = format!("{self:?}: a move is not refused");
        pair.until(&begun, || self.moves(pair, from));
    }

    /// Moves to the other site, and cuts when the step begins. `false`: it was refused, and nothing was cut.
    fn moves(&self, pair: &Pair, from: &str) -> bool {
        let mut command = pair.command("switchover --yes --events");
        let mut moving = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = moving.stderr.take().expect("a pipe");
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text)
        });
        // What is true already is not started: it is cut when that is found.
        let names = format!("\"step\":\"{}", self.step);
        let mut healed = None;
        let mut events = Vec::new();
        for line in BufReader::new(moving.stdout.take().expect("a pipe")).lines() {
            let line = line.expect("a line");
            // The first is the plan, which names all of them.
            if healed.is_none() && !events.is_empty() && line.contains(&names) {
                healed = Some(self.cut(from));
            }
            events.push(line);
        }
        let ended = moving.wait().expect("it ends");
        let said = said.join().expect("a thread").expect("text");
        if UNHEARD.contains(self) && healed.is_some() {
            assert!(
                ended.success(),
                "{self:?}: the switchover left something\n{}\n{said}",
                events[events.len().saturating_sub(EVENTS)..].join("\n")
            );
        }
        match healed {
            Some(healed) => healed.join().expect("it heals"),
            None if ended.code() == Some(REFUSED) => return false,
            // Also the arbiter may answer late, before there is a plan.
            None if ended.code() == Some(UNAVAILABLE) && events.is_empty() => return false,
            None => panic!("{self:?}: nothing was cut, {ended}\n{said}"),
        }
        true
    }
}

/// The site that is primary when everything is done or taken back, ready to move again.
fn settle(pair: &Pair, case: &Case) -> &'static str {
    let over = format!("after {case:?} no run is unfinished");
    pair.until_says(&over, "resume --yes", |ran| {
        ran.code == 0 && ran.stdout.contains("no run is unfinished")
    });
    let mut open = Vec::new();
    pair.until(&format!("after {case:?} one node is open"), || {
        open = pair.writable();
        assert!(open.len() <= 1, "after {case:?} several are open: {open:?}");
        open.len() == 1
    });
    let site = match open[0].as_str() {
        "shop-east-db-1" => "east",
        "shop-west-db-1" => "west",
        other => panic!("after {case:?} {other} is open"),
    };
    let _ = pair.run("commit --yes");
    let ready = format!("after {case:?} the other site is ready");
    let preflight = format!("preflight {}", other(site));
    pair.until_says(&ready, &preflight, |ran| {
        // A move that was cut may have left this to whoever reads what it says.
        let said = ran
            .stdout
            .lines()
            .filter_map(|line| line.split_once("→ hafog "));
        for (_, command) in said.filter(|(_, command)| command.starts_with("replicate setup ")) {
            pair.run(&format!("{} --yes", command.trim()));
        }
        ran.code == 0
    });
    site
}

fn judge(
    pair: &Pair,
    case: &Case,
    (from, now): (&'static str, &str),
    began: Instant,
    acks: &[Ack],
) {
    let here = |site: &'static str| {
        acks.iter()
            .filter(move |ack| ack.site == site && ack.told >= began)
    };
    let opened = here(other(from)).map(|ack| ack.told).min();
    if now == from {
        assert_eq!(opened, None, "{case:?}: the standby acknowledged");
    }
    if let Some(opened) = opened {
        let late: Vec<&Ack> = here(from).filter(|ack| ack.sent > opened).collect();
        assert!(
            late.is_empty(),
            "{case:?}: two nodes acknowledged: {late:?}"
        );
    }
    let there = pair.orders(&pair.address(now));
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    let told = acks.iter().map(|ack| ack.id.as_str());
    let lost: Vec<&str> = told.filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "{case:?}: lost {lost:?}");
}

/// Past the test runner's capture: it takes minutes.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// What was played, so that the long road goes on where it was. `tests/torture/seen/partitions-SEED` is what was played on
/// other machines. To keep a run: `cat target/torture/partitions-SEED >>tests/torture/seen/partitions-SEED`.
struct Book {
    path: Option<PathBuf>,
    lines: Vec<String>,
    /// How many of them were played elsewhere.
    before: usize,
}

impl Book {
    fn open(seed: u64, keep: bool) -> Book {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let book = |folder: &str| root.join(folder).join(format!("partitions-{seed}"));
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let path = keep.then(|| book("target/torture"));
        let before = keep.then(|| read(book("tests/torture/seen")));
        let mut lines = before.unwrap_or_default();
        let before = lines.len();
        lines.extend(path.iter().flat_map(|path| read(path.clone())));
        Book {
            path,
            lines,
            before,
        }
    }

    fn add(&mut self, case: &Case) {
        let cut = case.cut.join(" ");
        let step = if case.step.is_empty() {
            "none"
        } else {
            case.step
        };
        self.lines.push(format!(
            "{step:<20} {:<16} {:>2} s",
            cut.trim(),
            case.seconds
        ));
        if let Some(path) = &self.path {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let own = self.lines[self.before..].join("\n");
            std::fs::write(path, format!("{own}\n")).expect("it is written");
        }
    }

    fn table(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for line in &self.lines {
            *counts.entry(line).or_default() += 1;
        }
        let rows = counts
            .iter()
            .map(|(line, count)| format!("{line} {count:>4} one writer, nothing lost\n"));
        format!(
            "STEP                 CUT              FOR  CASES\n{}{} partitions\n",
            rows.collect::<String>(),
            self.lines.len()
        )
    }
}

/// Moves with the same data, at most: who asks for all orders gets all of them.
const ROUND: usize = 25;

#[test]
fn a_cut_in_the_middle_of_a_move_makes_no_second_writer_and_loses_nothing() {
    let Some(pair) = Pair::new() else {
        return;
    };
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let long = std::env::var("HAFOG_TORTURE").is_ok_and(|which| which == "all");
    let seed = number("HAFOG_SEED", 1);
    let count = number("HAFOG_PARTITIONS", if long { 300 } else { 4 });
    let mut random = Random::of(seed, "partitions");
    let mut cases = UNHEARD.to_vec();
    cases.extend(Case::sample(&mut random, count as usize));
    // Whoever names the seed goes on with it; else everything is played.
    let mut book = Book::open(seed, long && std::env::var_os("HAFOG_SEED").is_some());
    let done = book.lines.len().min(cases.len());
    for round in cases[done..].chunks(ROUND) {
        pair.must("up --yes");
        pair.must("clone west --yes");
        pair.until_ready("the standby is ready", "preflight");
        let writers = Writers::start(&pair);
        let mut primary = "east";
        for case in round {
            let began = Instant::now();
            case.play(&pair, primary);
            let now = settle(&pair, case);
            let acks = writers.acks().clone();
            judge(&pair, case, (primary, now), began, &acks);
            book.add(case);
            say(&format!(
                "partition {} (HAFOG_SEED={seed}): {case:?}: {primary} → {now}, {} acknowledged, {:.0} s",
                book.lines.len(),
                acks.len(),
                began.elapsed().as_secs_f64()
            ));
            primary = now;
        }
        drop(writers);
        pair.must("destroy --yes");
    }
    say(&book.table());
}
