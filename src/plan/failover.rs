//! `failover` and `switchover`: one list for both. A step that does not apply is listed and skipped with its reason.

mod after;
mod before;
mod ready;
mod review;

use super::facts::Facts;
use super::{Intent, Plan, PlanKind};
use crate::model::id::*;
use crate::model::stack::{Database, Server, Stack, Zone};
pub(super) use ready::no_servers;

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub planned: bool,
    /// Ask nothing of the old primary's site.
    pub assume_down: bool,
    /// Accepted refusals, by name.
    pub accept: Vec<String>,
    /// A switchover that goes back within the provisional phase.
    pub rollback: bool,
}

impl Options {
    fn accepts(&self, name: &str) -> bool {
        self.accept.iter().any(|accepted| accepted == name)
    }
}

/// Moves the stack from its primary to `to`.
pub fn failover(stack: &Stack, facts: &Facts, to: &SiteName, options: &Options) -> Plan {
    let flip = Flip::of(stack, facts, to, options);
    let mut plan = Plan::new(PlanKind::Directional, flip.intent());
    before::prepare(&mut plan, &flip);
    before::point_of_no_return(&mut plan, &flip);
    after::traffic(&mut plan, &flip);
    after::roles(&mut plan, &flip);
    after::the_rest(&mut plan, &flip);
    review::review(&mut plan, &flip);
    plan
}

/// What is moved, from where to where, and what is known of it.
struct Flip<'a> {
    stack: &'a Stack,
    facts: &'a Facts,
    from: &'a SiteName,
    to: &'a SiteName,
    moves: Vec<Move<'a>>,
    options: &'a Options,
}

/// One database's move.
struct Move<'a> {
    database: &'a Database,
    old: ServerName,
    new: &'a Server,
    epoch: u64,
}

impl<'a> Flip<'a> {
    fn of(stack: &'a Stack, facts: &'a Facts, to: &'a SiteName, options: &'a Options) -> Flip<'a> {
        let from = facts.primary(&stack.primary);
        let moves = stack.databases.iter().filter_map(|database| {
            let new = stack.nodes_at(to, database).next()?;
            let born = || Some(&stack.nodes_at(from, database).next()?.name);
            let old = facts.writer_node(&database.name).or_else(born)?.clone();
            Some(Move {
                database,
                old,
                new,
                epoch: facts.epoch(&database.name) + 1,
            })
        });
        Flip {
            stack,
            facts,
            from,
            to,
            moves: moves.collect(),
            options,
        }
    }

    fn intent(&self) -> Intent {
        let (from, to) = (self.from.clone(), self.to.clone());
        match self.options.rollback {
            true => Intent::Rollback { from, to },
            false => Intent::Failover {
                from,
                to,
                planned: self.options.planned,
            },
        }
    }

    /// Zones that the move writes to.
    fn zones(&self) -> impl Iterator<Item = &'a Zone> {
        let names = &self.stack.names;
        let moved = |zone: &&Zone| names.iter().any(|name| name.zone == zone.name);
        self.stack.zones.iter().filter(moved)
    }

    /// Why nobody waits for the health checks of the new site.
    fn accepted_as_it_is(&self) -> Option<String> {
        let why = ready::not_ready(self.stack, self.facts, self.to)?;
        let accepted = self.options.accepts("standby-not-ready");
        accepted.then(|| format!("accepted: {why}"))
    }
}
