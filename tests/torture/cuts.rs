//! Kill -9 at every line of every verb's journal: before it, in the middle of it, after it, and a while later, in the
//! middle of an act. Then `resume` or the same command, and the world is as after the uncut run, or as before it.

use std::time::Duration;

use crate::bench::{Bench, Standing, expect, other};
use crate::random::Random;
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
}

use Standing::*;

pub const VERBS: &[Verb] = &[
    verb("up", Bare, Up, 0),
    verb("clone", Up, Pair, 0),
    verb("deploy", Pair, Pair, 0),
    verb("destroy", Pair, Bare, 0),
    moving("switchover", Pair, Provisional, 1),
    moving("rollback", Provisional, Pair, 1),
    moving("failover", Dark, Fallen, 2),
    moving("failback", LeftBehind, Provisional, 2),
    verb("commit", Provisional, Pair, 2),
];

const fn verb(name: &'static str, from: Standing, to: Standing, group: u8) -> Verb {
    Verb {
        name,
        from,
        to,
        moves: false,
        directional: false,
        group,
    }
}

const fn moving(name: &'static str, from: Standing, to: Standing, group: u8) -> Verb {
    Verb {
        moves: true,
        directional: true,
        ..verb(name, from, to, group)
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

    fn prepare(&self, bench: &mut Bench) -> Result<(String, &'static str, &'static str), Wrong> {
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
        Ok((self.words(before), before, after))
    }

    /// Runs the verb without a cut. What its journal says, a line each: event and step.
    pub fn learn(&self, bench: &mut Bench) -> Result<Vec<String>, Wrong> {
        let (words, _, after) = self.prepare(bench)?;
        let known = bench.stack().journals();
        bench.stack().must(&words)?;
        let lines = bench.stack().new_lines(&known);
        bench.is_now(self.to, after, true)?;
        Ok(lines.iter().map(|line| label(line)).collect())
    }

    /// One case. Returns the end state in words.
    pub fn cut(
        &self,
        bench: &mut Bench,
        fault: &str,
        line: usize,
        random: &mut Random,
    ) -> Result<String, Wrong> {
        let (words, before, after) = self.prepare(bench)?;
        let cut = match fault {
            "kill-before" => Cut::Line("before", line),
            "kill-torn" => Cut::Line("torn", line),
            "kill-after" => Cut::Line("after", line),
            _ => Cut::Later(line, Duration::from_micros(random.below(200_000))),
        };
        if !bench.stack().cut(&words, &cut)? {
            bench.is_now(self.to, after, false)?;
            return Ok("was over before".to_owned());
        }
        at_most_one_writer(bench)?;
        let again = match self.directional && random.below(2) == 0 || random.below(4) == 0 {
            true => "resume --yes",
            false => words.as_str(),
        };
        let ran = bench.stack().run(again);
        let said = format!("killed, then `hafog {again}`:\n{}", ran.all());
        if self.directional && self.is_as_before(bench, before) {
            bench.stack().must(&words)?;
            bench
                .is_now(self.to, after, false)
                .map_err(|why| format!("{why}\n{said}"))?;
            return Ok("as before".to_owned());
        }
        // A directional verb or a commit that was over already is not there to be repeated, and says so.
        if ran.code != 0 && !self.directional && !(self.name == "commit" && ran.code == 3) {
            return Err(said);
        }
        // What was committed cannot be committed again.
        if again == "resume --yes" && !self.directional && self.name != "commit" {
            bench.stack().must(&words)?;
        }
        let now = bench.is_now(self.to, after, false);
        now.map_err(|why| format!("{why}\n{said}"))?;
        Ok("as uncut".to_owned())
    }

    /// Whether nothing was begun: seen by what a name leads to, and by who takes rows.
    fn is_as_before(&self, bench: &mut Bench, before: &'static str) -> bool {
        match self.from {
            // Where the primary is dark there is nothing to compare with but the record.
            Dark => bench.world().leads_to(before),
            from => bench.world().leads_to(before) && bench.world().is(&expect(from, before)),
        }
    }
}

fn at_most_one_writer(bench: &mut Bench) -> Result<(), Wrong> {
    let writers = bench.world().writers()?;
    match writers.len() {
        0 | 1 => Ok(()),
        _ => Err(format!(
            "DOUBLE WRITER right after the cut: {}",
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
