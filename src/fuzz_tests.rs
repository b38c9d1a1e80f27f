//! Bytes that somebody else wrote, damaged in every way, against every reader that we wrote ourselves.
//!
//! One function a target; a seeded mutator drives them from `fuzz/corpus/TARGET/`. The same seed gives the same inputs.
//! `make test` does a few thousand for each target; `make fuzz HAFOG_FUZZ=60` goes on for 60 s a target, and
//! `HAFOG_FUZZ_SEED` repeats a run. An input that fails is left in `fuzz/failures/`; mended, it belongs to the corpus.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::dns::ttl::{self, Caching};
use crate::journal::{self, event::Line};
use crate::model::record::RecordType;
use crate::model::roles::{Published, Roles, Writer};
use crate::model::units::Ttl;
use crate::ui::snippet;
use crate::{agent, cloud, cmd, db, dns, run, serve, spec, state};

/// Executions of one target in an ordinary test.
const FEW: usize = 3_000;
/// No input may take longer; a hang is longer than any slow machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Longer inputs are cut: what large ones do is another test's question.
const LENGTH_MAX: usize = 64 << 10;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_spec(bytes: &[u8]) {
    const KNOWN: spec::Known = spec::Known {
        clouds: &[spec::CloudWord {
            name: "local",
            low_ports: false,
            seal: true,
            firewall: false,
            disks: false,
            copies: false,
            entry: false,
        }],
        engines: &[spec::EngineWord {
            name: "postgres",
            port: 5432,
            versions: &(14..=17),
        }],
        dns_hosts: &[spec::DnsWord {
            name: "serve",
            settings: &[],
        }],
    };
    match spec::load_bytes("hafog.yaml", bytes, &KNOWN) {
        Ok(loaded) => loaded
            .lints
            .iter()
            .for_each(|lint| drop(snippet::warning(&lint.fault(), false))),
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults.iter().take(50) {
                let place = fault.place().expect("a mistake has a place");
                assert!(place.line >= 1 && place.column >= 1 && place.width >= 1);
                let shown = snippet::render(fault, false);
                assert!(
                    !shown.contains(|c: char| c.is_control() && c != '\n'),
                    "{shown:?}"
                );
            }
        }
    }
}

fn read_journal(bytes: &[u8]) {
    let run = "20260101T000000-1-1".into();
    for bytes in [bytes.to_vec(), chained(bytes)] {
        if let Ok(read) = journal::read(&run, &bytes)
            && let Some(report) = cmd::report::of(&read.lines)
        {
            let _ = (
                report.summary(),
                report.render(),
                serde_json::to_string(&report),
            );
        }
    }
}

/// The lines that can be read, numbered and chained anew, so that damage behind the digests is seen too.
fn chained(bytes: &[u8]) -> Vec<u8> {
    let mut out = String::new();
    let mut before = String::new();
    let lines = text(bytes);
    let lines = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    for (number, mut line) in lines.enumerate() {
        line.n = number as u64;
        line.prev = before;
        let written = serde_json::to_string(&line).expect("a line serialises");
        before = journal::digest(&written);
        out.push_str(&format!("{written}\n"));
    }
    out.into_bytes()
}

fn dns_packet(bytes: &[u8]) {
    use std::sync::LazyLock;
    static SERVED: LazyLock<serve::snapshot::Snapshot> =
        LazyLock::new(|| serve::control::hostile(include_str!("../fuzz/served.jsonl")));
    serve::handler::hostile(&SERVED, bytes);
}

fn serve_control(bytes: &[u8]) {
    let snapshot = serve::control::hostile(&text(bytes));
    let question = include_bytes!("../fuzz/corpus/dns-packet/a");
    serve::handler::hostile(&snapshot, question);
    serve::store::hostile(bytes);
}

fn read_state(bytes: &[u8]) {
    let now = Timestamp::UNIX_EPOCH;
    let bytes = state::dir::hostile(bytes);
    let _ = serde_json::from_slice::<Roles>(&bytes);
    let _ = serde_json::from_slice::<Writer>(&bytes);
    let _ = serde_json::from_slice::<agent::AgentConfig>(&bytes);
    run::lease::hostile(&bytes, now);
    serve::store::hostile(&bytes);
    if let Ok(mut published) = serde_json::from_slice::<Published>(&bytes) {
        read_published(&mut published, now);
    }
}

fn read_published(published: &mut Published, now: Timestamp) {
    let caching = Caching {
        negative: Some(Ttl(5)),
        spread: Duration::from_secs(1),
    };
    let hosts: Vec<_> = published
        .versions
        .iter()
        .map(|version| version.set.host.clone())
        .collect();
    for host in &hosts {
        for kind in [RecordType::A, RecordType::Txt] {
            let _ = ttl::effective_at(published, host, kind, caching);
            let _ = published.current(host, kind);
        }
        let _ = ttl::restore(&mut published.clone(), host);
    }
    ttl::prune(published, now, caching);
}

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 8] = [
    ("spec", read_spec),
    ("journal", read_journal),
    ("dns-packet", dns_packet),
    ("dns-reply", |bytes| dns::ask::hostile(bytes)),
    ("serve-control", serve_control),
    ("local-control", |bytes| {
        cloud::local::supervisor::hostile(&text(bytes))
    }),
    ("postgres", |bytes| db::postgres::hostile(&text(bytes))),
    ("state", read_state),
];

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.roll() % most.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What readers stumble over.
const TOKENS: [&str; 30] = [
    "",
    "\0",
    "\n",
    "\r\n",
    "\t",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    ": ",
    "- ",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "18446744073709551615",
    "9223372036854775808",
    "4294967296",
    "FFFFFFFF/FFFFFFFF",
    "/",
    "\u{feff}",
    "\u{202e}",
    "é",
    "\\u0000",
    "-009999-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
];

fn mutated(dice: &mut Dice, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = dice.of(corpus).clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + 1 + dice.below(16)).min(bytes.len());
        match dice.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = *dice.of(&[0, 1, 0x7f, 0x80, 0xc0, 0xff]),
            2 => drop(bytes.drain(at.min(end)..end)),
            3 => {
                let part = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 => drop(bytes.splice(at..at, dice.of(&TOKENS).bytes())),
            5 => number(dice, &mut bytes, at),
            6 => lines(dice, &mut bytes),
            7 => {
                let other = dice.of(corpus);
                let from = dice.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.truncate(at.max(1)),
        }
        bytes.truncate(LENGTH_MAX);
    }
    bytes
}

/// Replaces the number that begins behind `at`.
fn number(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize) {
    let Some(start) = bytes[at..]
        .iter()
        .position(u8::is_ascii_digit)
        .map(|found| at + found)
    else {
        return;
    };
    let length = bytes[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    bytes.splice(start..start + length, dice.of(&TOKENS[16..22]).bytes());
}

/// Removes, doubles or swaps lines.
fn lines(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let mut lines: Vec<Vec<u8>> = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    if lines.is_empty() {
        return;
    }
    let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
    match dice.below(3) {
        0 => drop(lines.remove(one)),
        1 => lines.insert(one, lines[one].clone()),
        _ => lines.swap(one, other),
    }
    *bytes = lines.concat();
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Sorted, so that a seed means the same everywhere.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let own = root().join("fuzz/corpus").join(name);
    let folders = match name {
        // What was found besides is kept in a folder that need not be there.
        "spec" => {
            let mut folders = vec![
                root().join("fixtures/stacks"),
                root().join("fixtures/stacks/bad"),
            ];
            folders.extend(own.exists().then_some(own));
            folders
        }
        _ => vec![own],
    };
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).expect("the corpus is there"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a name").path()).collect();
    paths.retain(|path| {
        path.is_file() && path.extension().is_none_or(|ending| ending != "expected")
    });
    paths.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("a file of the corpus"));
    paths.into_iter().map(read).collect()
}

/// Until when or how often.
enum Length {
    Times(usize),
    Time(Duration),
}

fn length() -> Length {
    let Ok(wanted) = std::env::var("HAFOG_FUZZ") else {
        return Length::Times(FEW);
    };
    let (number, is_times) = match wanted.strip_suffix('x') {
        Some(number) => (number, true),
        None => (wanted.trim_end_matches('s'), false),
    };
    let number = number
        .parse()
        .expect("HAFOG_FUZZ is seconds for each target (60), or a count (1000x)");
    match is_times {
        true => Length::Times(number),
        false => Length::Time(Duration::from_secs(number as u64)),
    }
}

/// The same in every ordinary test; another in every longer run.
fn seed() -> u64 {
    match std::env::var("HAFOG_FUZZ_SEED") {
        Ok(seed) => seed.parse().expect("HAFOG_FUZZ_SEED is a number"),
        Err(_) if std::env::var_os("HAFOG_FUZZ").is_some() => {
            Timestamp::now().as_millisecond().unsigned_abs()
        }
        Err(_) => 1,
    }
}

/// Feeds one input; the name of the file that it was left in when it fails.
fn feed(target: &Target, bytes: &[u8], origin: &str) -> Result<Duration, String> {
    let began = Instant::now();
    let fed = catch_unwind(AssertUnwindSafe(|| target.1(bytes)));
    let took = began.elapsed();
    if fed.is_ok() && took <= LIMIT {
        return Ok(took);
    }
    let folder = root().join("fuzz/failures");
    let file = folder.join(format!("{}-{origin}", target.0));
    let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, bytes));
    Err(format!(
        "{} {}: {} ({kept:?})",
        target.0,
        if fed.is_ok() { "hangs" } else { "panics" },
        file.display()
    ))
}

#[expect(clippy::print_stdout, reason = "a run says how to repeat it")]
fn drive(target: &Target) {
    let (length, seed) = (length(), seed());
    let corpus = corpus(target.0);
    assert!(!corpus.is_empty(), "{} has no corpus", target.0);
    let mut slowest = Duration::ZERO;
    for (path, bytes) in &corpus {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        slowest = slowest.max(feed(target, bytes, &name).unwrap_or_else(|why| panic!("{why}")));
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let mut dice = Dice(seed);
    let began = Instant::now();
    let mut executions = 0;
    while match length {
        Length::Times(times) => executions < times,
        Length::Time(time) => began.elapsed() < time,
    } {
        let bytes = mutated(&mut dice, &inputs);
        let fed = feed(target, &bytes, &format!("{seed}-{executions}"));
        slowest = slowest.max(fed.unwrap_or_else(|why| panic!("{why}")));
        executions += 1;
    }
    println!(
        "fuzz {:<14} seed {seed}, {executions} executions in {:.1} s, slowest {} ms",
        target.0,
        began.elapsed().as_secs_f64(),
        slowest.as_millis()
    );
}

macro_rules! each {
    ($($name:ident: $index:literal,)*) => {$(
        #[test]
        fn $name() {
            drive(&TARGETS[$index]);
        }
    )*};
}

each! {
    specs: 0,
    journals: 1,
    dns_packets: 2,
    dns_replies: 3,
    the_control_socket_of_dns_serve: 4,
    the_control_socket_of_a_local_server: 5,
    what_postgres_prints: 6,
    state_documents: 7,
}

/// A driver that finds nothing would look the same as readers without mistakes.
#[test]
fn a_panic_is_found_and_its_input_kept() {
    let target: Target = ("broken", |bytes| assert!(!bytes.contains(&0x80)));
    let mut dice = Dice(1);
    let corpus = [b"stack: shop\n".to_vec()];
    let failed =
        (0..1_000).find_map(|n| feed(&target, &mutated(&mut dice, &corpus), &format!("{n}")).err());
    let failed = failed.expect("a byte 0x80 is among a thousand inputs");
    let path = failed.split_whitespace().nth(2).expect("a path");
    assert!(fs::read(path).expect("it was kept").contains(&0x80));
    fs::remove_file(path).expect("it was there");
}

/// Every target reads at least one file of its corpus to its end: otherwise only the first lines of a reader are tried.
#[test]
fn the_corpus_is_understood() {
    let is_json = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    let run = "20260101T000000-1-1".into();
    assert!(corpus("journal").iter().all(|(_, bytes)| {
        journal::read(&run, bytes).is_ok_and(|read| cmd::report::of(&read.lines).is_some())
    }));
    assert!(
        corpus("serve-control")
            .iter()
            .all(|(_, bytes)| text(bytes).lines().all(is_json))
    );
    let snapshot = serve::control::hostile(include_str!("../fuzz/served.jsonl"));
    assert_eq!(snapshot.generation.zones[0].sets.len(), 6);
    let names = corpus("state")
        .into_iter()
        .filter(|(path, _)| path.ends_with("docs-names.json"));
    for (_, bytes) in names {
        serde_json::from_slice::<Published>(&state::dir::hostile(&bytes)).expect("a history");
    }
}
