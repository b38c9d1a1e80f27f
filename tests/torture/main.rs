//! `make torture`: every verb, cut or hindered at every step; the judge is the world. `make test` runs a sample.
//!
//! Without libtest, because a case is data: its number of lines is known only after an uncut run, and a long run is
//! taken up where it was. The flags of libtest are understood as far as they mean something here.

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod harness;

mod bench;
mod choose;
mod cuts;
mod faults;
mod instants;
mod processes;
mod random;
mod results;
mod stack;
mod tree;
mod world;
mod writers;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bench::Bench;
use choose::{Case, Options, What};
use cuts::Verb;
use harness::skip::{missing_program, skipped};
use random::Random;
use results::{Record, Results};

fn main() -> ExitCode {
    let options = Options::read();
    if options.cannot_match() {
        return ExitCode::SUCCESS;
    }
    if let Some(why) = missing() {
        skipped("torture", &why);
        return ExitCode::SUCCESS;
    }
    let mut bench = Bench::default();
    let failed = run(&options, &mut bench);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs what the options choose. How many failed.
fn run(options: &Options, bench: &mut Bench) -> usize {
    let seed = options.seed;
    let mut results = Results::open(options.all.then_some(seed));
    let cases = match choose::cases(options, bench, &mut results) {
        Ok(cases) => cases,
        Err(why) => {
            say(&format!("an uncut run failed:\n{why}\n"));
            return 1;
        }
    };
    if options.list {
        let names = cases.iter().map(|case| format!("{}: test\n", case.name()));
        say(&names.collect::<String>());
        return 0;
    }
    say(&format!(
        "\nrunning {} cases of torture, {} at a time, HAFOG_SEED={seed}\n",
        cases.len(),
        options.jobs
    ));
    let code = code();
    let work = Work {
        code: &code,
        next: AtomicUsize::new(0),
        cases: &cases,
        results: Mutex::new(&mut results),
        seed,
    };
    // Each has a stack of its own; what an uncut run leaves is the same for all.
    let others: Vec<Bench> = (1..options.jobs).map(|_| bench.beside()).collect();
    std::thread::scope(|scope| {
        for mut beside in others {
            let work = &work;
            scope.spawn(move || work.go(&mut beside));
        }
        work.go(bench);
    });
    say(&results.table());
    results.failures()
}

/// The cases, taken one by one in their order by as many as work on them.
struct Work<'a> {
    next: AtomicUsize,
    cases: &'a [Case],
    results: Mutex<&'a mut Results>,
    seed: u64,
    code: &'a str,
}

impl<'a> Work<'a> {
    fn go(&self, bench: &mut Bench) {
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(case) = self.cases.get(number) else {
                return;
            };
            if self.results().has(&case.name()) {
                continue;
            }
            let record = one(case, bench, self.seed, self.code);
            self.tell(number + 1, &record);
            self.results().add(record);
        }
    }

    fn results(&self) -> MutexGuard<'_, &'a mut Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, number: usize, record: &Record) {
        let verdict = match record.failed {
            true => "FAILED",
            false => record.end.as_str(),
        };
        let mut text = format!(
            "{number:>5}/{} {} ({}) ... {verdict} in {:.1} s\n",
            self.cases.len(),
            record.case,
            record.step,
            record.seconds
        );
        if record.failed {
            let alone = alone(self.seed, &record.case);
            text.push_str(&format!("{}\nalone: {alone}\n", record.end));
        }
        say(&text);
    }
}

fn one(case: &Case, bench: &mut Bench, seed: u64, code: &str) -> Record {
    let began = Instant::now();
    let name = case.name();
    let mut random = Random::of(seed, &name);
    let ended = catch_unwind(AssertUnwindSafe(|| match &case.what {
        What::Cut(verb, line) => verb.cut(bench, &case.fault, *line, &mut random),
        What::Fault(run) => run(bench, &mut random),
        What::Writer(run, _) => run(random.next()),
    }));
    let ended = ended.unwrap_or_else(|_| Err("it panicked".to_owned()));
    if ended.is_err() {
        bench.throw_away();
    }
    Record {
        case: name,
        verb: case.verb.clone(),
        step: case.step.clone(),
        fault: case.fault.clone(),
        failed: ended.is_err(),
        end: ended.unwrap_or_else(|why| why),
        seconds: began.elapsed().as_secs_f64(),
        code: code.to_owned(),
    }
}

/// The commit that is tested.
fn code() -> String {
    let asked = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let said = asked.ok().filter(|ran| ran.status.success());
    let said = said.map(|ran| String::from_utf8_lossy(&ran.stdout).trim().to_owned());
    said.unwrap_or_else(|| "an unknown commit".to_owned())
}

fn alone(seed: u64, name: &str) -> String {
    format!(
        "HAFOG_SEED={seed} cargo test --no-default-features --locked --test torture -- --exact '{name}'"
    )
}

/// Programs, and the code that only a debug build has.
fn missing() -> Option<String> {
    if !cfg!(debug_assertions) {
        return Some("a release build has no cuts".to_owned());
    }
    missing_program()
}

pub fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// The verbs whose journals have to be learned before their cases are known.
pub fn verbs() -> &'static [Verb] {
    cuts::VERBS
}
