//! Everything that goes wrong besides a kill: disks, clocks, journals, stores, signals, and two people at once.
//!
//! A row is a verb and a fault; where the verb begins and ends stands in `cuts::VERBS`.

mod disk;
mod pairs;
mod stop;
mod store;

use crate::bench::Bench;
use crate::cuts::{Turn, Verb};
use crate::harness::Ran;
use crate::random::Random;
use crate::stack::{Cut, Running, Stack, Wrong};

type Run = fn(&mut Bench, &mut Random) -> Result<String, Wrong>;
type Row = (&'static str, &'static str, &'static str, Run);

/// One row: a fault, at any line of a verb.
macro_rules! row {
    ($fault:literal, $run:path, $verb:literal) => {
        ($verb, "any line", $fault, |bench, random| {
            $run(verb($verb), bench, random)
        })
    };
}

/// Verb, step, fault, and what runs it.
#[rustfmt::skip]
pub const CASES: &[Row] = &[
    row!("newer-journal", store::newer_journal, "switchover"),
    row!("newer-journal", store::newer_journal, "rollback"),
    row!("newer-journal", store::newer_journal, "up"),
    row!("newer-journal", store::newer_journal, "deploy"),
    row!("newer-journal", store::newer_journal, "destroy"),
    row!("newer-journal", store::newer_journal, "failover"),
    row!("newer-journal", store::newer_journal, "failback"),
    row!("newer-journal", store::newer_journal, "commit"),
    row!("torn-journal", store::torn_journal, "switchover"),
    row!("torn-journal", store::torn_journal, "rollback"),
    row!("torn-journal", store::torn_journal, "up"),
    row!("torn-journal", store::torn_journal, "deploy"),
    row!("torn-journal", store::torn_journal, "destroy"),
    row!("torn-journal", store::torn_journal, "failover"),
    row!("torn-journal", store::torn_journal, "failback"),
    row!("torn-journal", store::torn_journal, "commit"),
    row!("arbiter-unreachable", store::arbiter_gone, "switchover"),
    row!("arbiter-unreachable", store::arbiter_gone, "rollback"),
    row!("arbiter-unreachable", store::arbiter_gone, "up"),
    row!("arbiter-unreachable", store::arbiter_gone, "deploy"),
    row!("arbiter-unreachable", store::arbiter_gone, "destroy"),
    row!("arbiter-unreachable", store::arbiter_gone, "failover"),
    row!("arbiter-unreachable", store::arbiter_gone, "failback"),
    row!("arbiter-unreachable", store::arbiter_gone, "commit"),
    row!("clock-forward", stop::clock_forward, "switchover"),
    row!("clock-forward", stop::clock_forward, "rollback"),
    row!("clock-forward", stop::clock_forward, "up"),
    row!("clock-forward", stop::clock_forward, "deploy"),
    row!("clock-forward", stop::clock_forward, "destroy"),
    row!("clock-forward", stop::clock_forward, "failover"),
    row!("clock-forward", stop::clock_forward, "failback"),
    row!("clock-forward", stop::clock_forward, "commit"),
    row!("clock-backward", stop::clock_backward, "switchover"),
    row!("clock-backward", stop::clock_backward, "rollback"),
    row!("clock-backward", stop::clock_backward, "up"),
    row!("clock-backward", stop::clock_backward, "deploy"),
    row!("clock-backward", stop::clock_backward, "destroy"),
    row!("clock-backward", stop::clock_backward, "failover"),
    row!("clock-backward", stop::clock_backward, "failback"),
    row!("clock-backward", stop::clock_backward, "commit"),
    row!("disk-full", disk::full, "switchover"),
    row!("disk-full", disk::full, "failover"),
    row!("disk-full", disk::full, "deploy"),
    row!("disk-full", disk::full, "up"),
    row!("disk-full", disk::full, "destroy"),
    row!("arbiter-disk-full", disk::arbiter_full, "switchover"),
    row!("arbiter-disk-full", disk::arbiter_full, "failover"),
    row!("arbiter-disk-full", disk::arbiter_full, "up"),
    row!("journals-lost", store::journals_lost, "failover"),
    row!("journals-lost", store::journals_lost, "switchover"),
    row!("site-lost", store::site_lost, "failover"),
    row!("killed-twice", stop::killed_twice, "switchover"),
    row!("killed-twice", stop::killed_twice, "failover"),
    row!("killed-twice", stop::killed_twice, "rollback"),
    row!("killed-twice", stop::killed_twice, "up"),
    row!("interrupted", stop::interrupted, "switchover"),
    row!("interrupted", stop::interrupted, "rollback"),
    row!("interrupted", stop::interrupted, "up"),
    row!("interrupted", stop::interrupted, "deploy"),
    row!("interrupted", stop::interrupted, "destroy"),
    row!("interrupted", stop::interrupted, "failover"),
    row!("interrupted", stop::interrupted, "failback"),
    row!("interrupted", stop::interrupted, "commit"),
    row!("aborted", stop::aborted, "switchover"),
    row!("aborted", stop::aborted, "rollback"),
    row!("aborted", stop::aborted, "failover"),
    row!("interrupted-twice", stop::interrupted_twice, "switchover"),
    row!("interrupted-twice", stop::interrupted_twice, "deploy"),
    ("switchover", "deploy", "two-commands", |bench, random| pairs::at_once(0, bench, random)),
    ("up", "up", "two-commands", |bench, random| pairs::at_once(1, bench, random)),
    ("switchover", "failover", "two-commands", |bench, random| pairs::at_once(2, bench, random)),
    ("failover", "failover", "two-commands", |bench, random| pairs::at_once(3, bench, random)),
    ("destroy", "deploy", "two-commands", |bench, random| pairs::at_once(4, bench, random)),
    ("commit", "rollback", "two-commands", |bench, random| pairs::at_once(5, bench, random)),
    ("switchover", "dns lower", "two-commands", |bench, random| pairs::at_once(6, bench, random)),
    ("build", "build", "two-commands", |bench, random| pairs::at_once(7, bench, random)),
    ("switchover", "resume", "two-commands", |bench, random| pairs::at_once(8, bench, random)),
    ("switchover", "deploy", "in-turn", |bench, random| pairs::in_turn(0, bench, random)),
    ("up", "up", "in-turn", |bench, random| pairs::in_turn(1, bench, random)),
    ("switchover", "failover", "in-turn", |bench, random| pairs::in_turn(2, bench, random)),
    ("failover", "failover", "in-turn", |bench, random| pairs::in_turn(3, bench, random)),
    ("destroy", "deploy", "in-turn", |bench, random| pairs::in_turn(4, bench, random)),
    ("commit", "rollback", "in-turn", |bench, random| pairs::in_turn(5, bench, random)),
    ("switchover", "dns lower", "in-turn", |bench, random| pairs::in_turn(6, bench, random)),
    ("build", "build", "in-turn", |bench, random| pairs::in_turn(7, bench, random)),
    ("switchover", "resume", "in-turn", |bench, random| pairs::in_turn(8, bench, random)),
];

fn verb(name: &str) -> &'static Verb {
    Verb::find(name).expect("a row names a verb of `VERBS`")
}

/// A line in the middle of the verb.
fn some_line(verb: &Verb, random: &mut Random) -> usize {
    2 + random.below(verb.middle - 1) as usize
}

/// The verb, killed when the line was durable.
fn killed(
    verb: &'static Verb,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<(Turn, usize), Wrong> {
    let turn = verb.prepare(bench)?;
    let line = some_line(verb, random);
    match bench.stack().cut(&turn.words, &Cut::Line("after", line))? {
        true => Ok((turn, line)),
        false => Err(format!("`{}` has fewer than {line} lines", turn.words)),
    }
}

/// Runs a command, and does something once its journal has so many lines.
fn during(
    stack: &Stack,
    words: &str,
    line: usize,
    environment: &[(&str, &str)],
    does: impl FnOnce(&Running<'_>) -> Result<(), Wrong>,
) -> Result<Ran, Wrong> {
    let known = stack.journals();
    let mut running = Running::begin(stack, words, environment);
    while !running.is_over() && stack.lines_besides(&known) < line {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    does(&running)?;
    Ok(running.finish())
}

fn io(error: std::io::Error) -> Wrong {
    error.to_string()
}
