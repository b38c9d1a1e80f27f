//! Which cases run: all, a sample that has every kind of step and every fault, or the ones that are named.

use std::collections::BTreeSet;

use crate::bench::Bench;
use crate::cuts::{FAULTS, Verb};
use crate::random::Random;
use crate::results::{Results, kind};
use crate::stack::Wrong;
use crate::{faults, verbs, writers};

pub enum What {
    Cut(&'static Verb, usize),
    Fault(fn(&mut Bench, &mut Random) -> Result<String, Wrong>),
    /// One of so many, which begin somewhere else each.
    Writer(fn(u64) -> Result<String, String>, usize),
}

pub struct Case {
    pub verb: String,
    /// What the line of the journal is about, or where the fault hits.
    pub step: String,
    pub fault: String,
    pub what: What,
}

impl Case {
    pub fn name(&self) -> String {
        let (verb, fault, step) = (&self.verb, &self.fault, self.step.replace(' ', "-"));
        match &self.what {
            What::Cut(_, line) => format!("{verb}/{fault}/{line}"),
            What::Writer(_, part) if *part > 1 => format!("{verb}/{fault}/{step}/{part}"),
            _ => format!("{verb}/{fault}/{step}"),
        }
    }
}

pub struct Options {
    /// Everything, and not a sample.
    pub all: bool,
    pub seed: u64,
    pub list: bool,
    /// How many cases at a time.
    pub jobs: usize,
    exact: bool,
    filters: Vec<String>,
    skip: Vec<String>,
    /// `--ignored`: there are none.
    none: bool,
}

impl Options {
    pub fn read() -> Options {
        let seed = std::env::var("HAFOG_SEED").ok().map(|seed| {
            seed.parse()
                .unwrap_or_else(|_| panic!("HAFOG_SEED is a number, not `{seed}`"))
        });
        let all = std::env::var_os("HAFOG_TORTURE").is_some_and(|what| what == "all");
        // The sample of `make test` is the same every time; everything begins somewhere else each time.
        let chance = || match all {
            true => u64::from(std::process::id()) ^ (now() % 1_000_000),
            false => 1,
        };
        let mut options = Options {
            all,
            seed: seed.unwrap_or_else(chance),
            list: false,
            jobs: jobs(),
            exact: false,
            filters: Vec::new(),
            skip: Vec::new(),
            none: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => options.list = true,
                "--exact" => options.exact = true,
                "--ignored" => options.none = true,
                "--skip" => options.skip.extend(words.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z"
                | "--shuffle-seed" => drop(words.next()),
                flag if flag.starts_with('-') => {}
                _ => options.filters.push(word),
            }
        }
        options
    }

    fn takes(&self, name: &str) -> bool {
        let hit = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        (self.filters.is_empty() || self.filters.iter().any(hit)) && !self.skip.iter().any(hit)
    }

    /// No case has such a name, whatever is learned: an uncut run of every verb would be for nothing.
    pub fn cannot_match(&self) -> bool {
        self.none
            || !self.cuts()
                && others(self.all)
                    .iter()
                    .all(|case| !self.takes(&case.name()))
    }

    /// Whether a case of a cut may be meant.
    fn cuts(&self) -> bool {
        let names = verbs()
            .iter()
            .flat_map(|verb| FAULTS.iter().map(move |fault| (verb, fault)));
        let mut names = names.flat_map(|(verb, fault)| {
            (1..200).map(move |line| format!("{}/{fault}/{line}", verb.name))
        });
        names.any(|name| self.takes(&name))
    }
}

/// `HAFOG_JOBS`, or half as many again as the machine has cores: a case mostly waits.
fn jobs() -> usize {
    match std::env::var("HAFOG_JOBS") {
        Ok(jobs) => jobs
            .parse()
            .ok()
            .filter(|jobs| *jobs > 0)
            .unwrap_or_else(|| panic!("HAFOG_JOBS is a number from 1 on, not `{jobs}`")),
        Err(_) => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            cores + cores.div_ceil(2)
        }
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// In the order in which they run.
pub fn cases(
    options: &Options,
    bench: &mut Bench,
    results: &mut Results,
) -> Result<Vec<Case>, Wrong> {
    if options.exact {
        return Ok(options
            .filters
            .iter()
            .filter_map(|name| named(name))
            .collect());
    }
    let mut cases = match options.cuts() {
        true => cuts(options, bench, results)?,
        false => Vec::new(),
    };
    cases.extend(others(options.all));
    cases.retain(|case| options.takes(&case.name()));
    if !options.all {
        sample(&mut cases, options.seed);
    }
    Ok(cases)
}

fn named(name: &str) -> Option<Case> {
    if let Some(case) = others(true).into_iter().find(|case| case.name() == name) {
        return Some(case);
    }
    let mut parts = name.split('/');
    let verb = Verb::find(parts.next()?)?;
    let fault = FAULTS
        .iter()
        .find(|fault| Some(**fault) == name.split('/').nth(1))?;
    let line: usize = name.split('/').nth(2)?.parse().ok()?;
    Some(cut(verb, fault, line, format!("line {line}")))
}

fn cut(verb: &'static Verb, fault: &str, line: usize, step: String) -> Case {
    Case {
        verb: verb.name.to_owned(),
        step,
        fault: fault.to_owned(),
        what: What::Cut(verb, line),
    }
}

/// Every line of every verb, with every way to be killed there. Verbs that follow one another take turns, so that a
/// case mostly begins where the one before it ended.
fn cuts(options: &Options, bench: &mut Bench, results: &mut Results) -> Result<Vec<Case>, Wrong> {
    let _ = options;
    let mut cases = Vec::new();
    for verb in verbs() {
        let lines = match results.learned(verb.name) {
            Some(lines) => lines,
            None => {
                let lines = verb
                    .learn(bench)
                    .map_err(|why| format!("{}: {why}", verb.name))?;
                crate::say(&format!("{}: {} lines\n", verb.name, lines.len()));
                results.learn(verb.name, lines.clone());
                lines
            }
        };
        for (index, label) in lines.iter().enumerate() {
            let all = FAULTS
                .iter()
                .map(|fault| cut(verb, fault, index + 1, label.clone()));
            cases.extend(all);
        }
    }
    cases.sort_by_key(order);
    Ok(cases)
}

fn order(case: &Case) -> (u8, usize, usize) {
    let fault = FAULTS
        .iter()
        .position(|fault| *fault == case.fault)
        .unwrap_or_default();
    match case.what {
        What::Cut(verb, line) => (verb.group, line, fault),
        _ => (u8::MAX, 0, 0),
    }
}

fn others(all: bool) -> Vec<Case> {
    let case = |verb: &str, step: &str, fault: &str, what| Case {
        verb: verb.to_owned(),
        step: step.to_owned(),
        fault: fault.to_owned(),
        what,
    };
    let faults = faults::CASES
        .iter()
        .map(|(verb, step, fault, run)| case(verb, step, fault, What::Fault(*run)));
    let (long, often) = match all {
        true => (writers::LONG, writers::OFTEN),
        false => (&[][..], &[][..]),
    };
    let once = writers::CASES.iter().chain(long).map(|row| (row, 1));
    let often = (1..=writers::PARTS).flat_map(|part| often.iter().map(move |row| (row, part)));
    let writers = once
        .chain(often)
        .map(|((verb, step, fault, run), part)| case(verb, step, fault, What::Writer(*run, part)));
    faults.chain(writers).collect()
}

/// Chance, by the seed, until every kind of step, every verb with every way to be killed, and every other fault is in.
fn sample(cases: &mut Vec<Case>, seed: u64) {
    let mut random = Random::of(seed, "sample");
    random.shuffle(cases);
    let mut seen = BTreeSet::new();
    cases.retain(|case| {
        let step = kind(&case.step);
        let step = step.split(' ').next_back().unwrap_or_default().to_owned();
        let of_verb = format!("{} {}", case.verb, case.fault);
        let new_step = seen.insert(step);
        let new_fault = match case.what {
            What::Cut(..) => seen.insert(of_verb),
            _ => seen.insert(case.fault.clone()),
        };
        new_step || new_fault
    });
    cases.sort_by_key(order);
}
