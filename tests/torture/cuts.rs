//! Kill -9 at every line of every verb's journal: before it, in the middle of it, after it, and a while later, in the
//! middle of an act. Then `resume` or the same command, and the world is as after the uncut run, or as before it.

use std::time::Duration;

use crate::bench::{Bench, Standing, expect, other};
use crate::random::Random;
use crate::results::DOUBLE;
use crate::stack::{Cut, Wrong};

pub struct Verb {
    pub name: &'static str,
    from: Standing,
    to: Standing,
    /// The other site is the primary afterwards.
    moves: bool,
    /// Carries on with the list of its steps; the others are planned again.
    directional: bool,
    /// Verbs of one group follow one another without a detour.
    pub group: u8,
    /// A line of its journal that is in its middle for sure.
    pub middle: u64,
}

use Standing::*;

pub const VERBS: &[Verb] = &[
    verb("up", Bare, Up, 0, 60),
    verb("clone", Up, Pair, 0, 60),
    verb("deploy", Pair, Pair, 0, 24),
    verb("destroy", Pair, Bare, 0, 40),
    moving("switchover", Pair, Provisional, 1, 24),
    moving("rollback", Provisional, Pair, 1, 24),
    moving("failover", Dark, Fallen, 2, 20),
    // The first of its two runs.
    moving("failback", LeftBehind, Provisional, 2, 8),
    verb("commit", Provisional, Pair, 2, 4),
];

const fn verb(name: &'static str, from: Standing, to: Standing, group: u8, middle: u64) -> Verb {
    Verb {
        name,
        from,
        to,
        moves: false,
        directional: false,
        group,
        middle,
    }
}

const fn moving(name: &'static str, from: Standing, to: Standing, group: u8, middle: u64) -> Verb {
    Verb {
        moves: true,
        directional: true,
        ..verb(name, from, to, group, middle)
    }
}

pub const FAULTS: [&str; 4] = ["kill-before", "kill-torn", "kill-after", "kill-later"];

impl Verb {
    pub fn find(name: &str) -> Option<&'static Verb> {
        VERBS.iter().find(|verb| verb.name == name)
    }

    fn words(&self, primary: &str) -> String {
        let away = other(primary);
        match self.name {
            "clone" | "switchover" | "failover" | "failback" => {
                format!("{} {away} --yes", self.name)
            }
            name => format!("{name} --yes"),
        }
    }

    pub fn is_directional(&self) -> bool {
        self.directional
    }

    /// Brings the stack to where the verb begins.
    pub fn prepare(&'static self, bench: &mut Bench) -> Result<Turn, Wrong> {
        bench.arrive(self.from)?;
        if self.name == "deploy" {
            bench.stack().change_app();
        }
        let before = bench.primary();
        let after = match (self.moves, self.to) {
            (true, _) => other(before),
            (_, Bare) => "east",
            _ => before,
        };
        Ok(Turn {
            verb: self,
            words: self.words(before),
            before,
            after,
        })
    }

    /// Runs the verb without a cut. What its journal says, a line each: event and step.
    pub fn learn(&'static self, bench: &mut Bench) -> Result<Vec<String>, Wrong> {
        let turn = self.prepare(bench)?;
        let known = bench.stack().journals();
        bench.stack().must(&turn.words)?;
        let lines = bench.stack().new_lines(&known);
        turn.is_over(bench, true)?;
        Ok(lines.iter().map(|line| label(line)).collect())
    }

    /// One case. Returns the end state in words.
    pub fn cut(
        &'static self,
        bench: &mut Bench,
        fault: &str,
        line: usize,
        random: &mut Random,
    ) -> Result<String, Wrong> {
        let turn = self.prepare(bench)?;
        let cut = match fault {
            "kill-before" => Cut::Line("before", line),
            "kill-torn" => Cut::Line("torn", line),
            "kill-after" => Cut::Line("after", line),
            _ => Cut::Later(line, Duration::from_micros(random.below(200_000))),
        };
        if !bench.stack().cut(&turn.words, &cut)? {
            turn.is_over(bench, false)?;
            return Ok("was over before".to_owned());
        }
        at_most_one_writer(bench)?;
        turn.goes_on(bench, random)
    }
}

/// A verb on a stack that stands where it begins.
pub struct Turn {
    verb: &'static Verb,
    /// As a person types it.
    pub words: String,
    pub before: &'static str,
    pub after: &'static str,
}

impl Turn {
    /// The world is as after an uncut run.
    pub fn is_over(&self, bench: &mut Bench, uncut: bool) -> Result<(), Wrong> {
        bench.is_now(self.verb.to, self.after, uncut)
    }

    /// What somebody does after it stopped: `resume` or the verb again. Returns the end state in words.
    pub fn goes_on(&self, bench: &mut Bench, random: &mut Random) -> Result<String, Wrong> {
        let directional = self.verb.directional;
        let again = match directional && random.below(2) == 0 || random.below(4) == 0 {
            true => "resume --yes",
            false => self.words.as_str(),
        };
        let ran = bench.stack().run(again);
        let said = format!("stopped, then `hafog {again}`:\n{}", ran.all());
        let told = |why: Wrong| format!("{why}\n{said}");
        if directional && self.is_as_before(bench) {
            if self.verb.from == Pair {
                bench.stack().ready().map_err(told)?;
            }
            bench.stack().must(&self.words).map_err(told)?;
            self.is_over(bench, false).map_err(told)?;
            return Ok("as before".to_owned());
        }
        // A directional verb or a commit that was over already is not there to be repeated, and says so.
        let is_commit = self.verb.name == "commit";
        if ran.code != 0 && !directional && !(is_commit && ran.code == 3) {
            return Err(said);
        }
        if again == "resume --yes" && !directional {
            self.repeat(bench).map_err(told)?;
        }
        self.is_over(bench, false).map_err(told)?;
        Ok("as uncut".to_owned())
    }

    /// After a `resume` that went well: what it does not finish is the verb's own.
    pub fn goes_on_after_resume(&self, bench: &mut Bench) -> Result<(), Wrong> {
        if !self.verb.directional || self.is_as_before(bench) {
            self.repeat(bench)?;
        }
        self.is_over(bench, false)
    }

    /// The verb once more, where nobody knows whether there is anything left to do. What was committed cannot be
    /// committed again, and says so.
    fn repeat(&self, bench: &mut Bench) -> Result<(), Wrong> {
        let ran = bench.stack().run(&self.words);
        match ran.code {
            0 => Ok(()),
            3 if self.verb.name == "commit" => Ok(()),
            _ => Err(format!("`hafog {}` failed:\n{}", self.words, ran.all())),
        }
    }

    /// The world is as before it.
    pub fn is_back(&self, bench: &mut Bench) -> Result<(), Wrong> {
        match self.verb.from {
            Dark if bench.world().leads_to(self.before) => Ok(()),
            Dark => Err(format!("the name does not lead to {}", self.before)),
            from => bench.is_now(from, self.before, false),
        }
    }

    /// Whether nothing was begun: seen by what a name leads to, and by who takes rows.
    pub fn is_as_before(&self, bench: &mut Bench) -> bool {
        match self.verb.from {
            // Where the primary is dark there is nothing to compare with but the record.
            Dark => bench.world().leads_to(self.before),
            from => {
                bench.world().leads_to(self.before) && bench.world().is(&expect(from, self.before))
            }
        }
    }
}

pub fn at_most_one_writer(bench: &mut Bench) -> Result<(), Wrong> {
    let writers = bench.world().writers()?;
    match writers.len() {
        0 | 1 => Ok(()),
        _ => Err(format!(
            "{DOUBLE} right after the cut: {}",
            writers.join(" and ")
        )),
    }
}

/// `finished create-server shop-east-web-1`.
fn label(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let Some((event, fields)) = line["event"]
        .as_object()
        .and_then(|event| event.iter().next())
    else {
        return "unreadable".to_owned();
    };
    match fields["step"].as_str() {
        Some(step) => format!("{event} {step}"),
        None => event.clone(),
    }
}
