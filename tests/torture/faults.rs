//! Everything that goes wrong besides a kill: disks, clocks, journals, stores, signals, and two people at once.
//!
//! A row is a verb and a fault; where the verb begins and ends stands in `cuts::VERBS`.

mod disk;
mod pairs;
mod stop;
mod store;

use std::fmt::Display;

use crate::bench::Bench;
use crate::cuts::{Turn, Verb, at_most_one_writer};
use crate::harness::Ran;
use crate::random::Random;
use crate::stack::{Cut, Running, Wrong};

type Run = fn(&mut Bench, &mut Random) -> Result<String, Wrong>;
type Row = (&'static str, &'static str, &'static str, Run);

/// One row: a fault, at any line of a verb.
macro_rules! row {
    ($fault:literal, $run:path, $verb:literal) => {
        ($verb, "any line", $fault, |bench, random| {
            $run(Subject {
                verb: verb($verb),
                bench,
                random,
            })
        })
    };
}

/// One row: two commands.
macro_rules! pair {
    ($fault:literal, $run:path, $one:literal, $two:literal) => {
        ($one, $two, $fault, |bench, random| {
            $run(pairs::find($one, $two), bench, random)
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
    pair!("two-commands", pairs::at_once, "switchover", "deploy"),
    pair!("two-commands", pairs::at_once, "up", "up"),
    pair!("two-commands", pairs::at_once, "switchover", "failover"),
    pair!("two-commands", pairs::at_once, "failover", "failover"),
    pair!("two-commands", pairs::at_once, "destroy", "deploy"),
    pair!("two-commands", pairs::at_once, "commit", "rollback"),
    pair!("two-commands", pairs::at_once, "switchover", "dns lower"),
    pair!("two-commands", pairs::at_once, "build", "build"),
    pair!("two-commands", pairs::at_once, "switchover", "resume"),
    pair!("in-turn", pairs::in_turn, "switchover", "deploy"),
    pair!("in-turn", pairs::in_turn, "up", "up"),
    pair!("in-turn", pairs::in_turn, "switchover", "failover"),
    pair!("in-turn", pairs::in_turn, "failover", "failover"),
    pair!("in-turn", pairs::in_turn, "destroy", "deploy"),
    pair!("in-turn", pairs::in_turn, "commit", "rollback"),
    pair!("in-turn", pairs::in_turn, "switchover", "dns lower"),
    pair!("in-turn", pairs::in_turn, "build", "build"),
    pair!("in-turn", pairs::in_turn, "switchover", "resume"),
];

fn verb(name: &str) -> &'static Verb {
    Verb::find(name).expect("a row names a verb of `VERBS`")
}

/// A line in the middle of the verb.
fn some_line(verb: &Verb, random: &mut Random) -> usize {
    2 + random.below(verb.middle - 1) as usize
}

/// What a fault hits: a verb, on a stack, with the choices of the seed.
struct Subject<'a> {
    verb: &'static Verb,
    bench: &'a mut Bench,
    random: &'a mut Random,
}

impl Subject<'_> {
    /// A line before one in the middle of the verb: it is in its middle when somebody has seen that line.
    fn line_before(&mut self) -> usize {
        some_line(self.verb, self.random) - 1
    }

    fn prepare(&mut self) -> Result<Turn, Wrong> {
        self.verb.prepare(self.bench)
    }

    /// The verb, killed when the line was durable.
    fn killed(&mut self) -> Result<(Turn, usize), Wrong> {
        let turn = self.prepare()?;
        let line = some_line(self.verb, self.random);
        let cut = Cut::Line("after", line);
        match self.bench.stack().cut(&turn.words, &cut)? {
            true => Ok((turn, line)),
            false => Err(format!("`{}` has fewer than {line} lines", turn.words)),
        }
    }

    /// The verb, to which something happens once its journal has so many lines.
    fn struck(
        &mut self,
        what: &str,
        line: usize,
        environment: &[(&str, &str)],
        does: impl FnOnce(&Running<'_>) -> Result<(), Wrong>,
    ) -> Result<Struck, Wrong> {
        let turn = self.prepare()?;
        let mut running = Running::begin(self.bench.stack(), &turn.words, environment);
        running.reaches(line)?;
        does(&running)?;
        Ok(Struck {
            ran: running.finish(),
            what: format!("{what} at line {line}"),
            turn,
        })
    }
}

/// A verb to which something happened on its way, and what it said.
struct Struck {
    turn: Turn,
    what: String,
    ran: Ran,
}

impl Struck {
    fn told(&self, why: impl Display) -> Wrong {
        format!("{why}\n{}:\n{}", self.what, self.ran.all())
    }

    /// Whether the verb went well all the same; then the world is as after an uncut run.
    fn was_over(&self, bench: &mut Bench) -> Result<bool, Wrong> {
        if self.ran.code == 0 {
            let over = self.turn.is_over(bench, false);
            over.map_err(|why| self.told(why))?;
        }
        Ok(self.ran.code == 0)
    }

    /// It stopped: nobody writes twice, and somebody goes on. Returns the end state in words.
    fn goes_on(&self, bench: &mut Bench, random: &mut Random) -> Result<String, Wrong> {
        let end = at_most_one_writer(bench).and_then(|()| self.turn.goes_on(bench, random));
        end.map_err(|why| self.told(why))
    }
}

fn io(error: std::io::Error) -> Wrong {
    error.to_string()
}
