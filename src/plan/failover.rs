//! `failover` and `switchover`: one list for both. A step that does not apply is listed and skipped with its reason.

mod after;
mod before;
mod ready;
mod review;
mod within;

use super::facts::Facts;
use super::{Intent, Plan, PlanKind};
use crate::model::id::*;
use crate::model::stack::{Database, Server, Stack, Zone};
pub(super) use ready::no_servers;
pub use within::takeover;

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
    /// From one node to another of the same site.
    is_within: bool,
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
            let new = facts.head_at(stack, to, database)?;
            let born = || Some(&facts.head_at(stack, from, database)?.name);
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
            is_within: false,
        }
    }

    fn nodes_at(&self, site: &'a SiteName, one: &Move<'a>) -> Vec<&'a Server> {
        self.facts.ranked_at(self.stack, site, one.database)
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

    /// `verb`, as a person types it for this move.
    fn typed(&self, verb: &str) -> String {
        match self.moves.first() {
            Some(one) if self.is_within => format!("hafog {verb} {}", one.new.name),
            _ => format!("hafog {verb}"),
        }
    }

    /// What brings a site in order whose databases do not follow.
    fn mend(&self, site: &SiteName) -> String {
        match site == self.facts.primary(&self.stack.primary) {
            true if self.is_within => format!("hafog heal {site}"),
            _ => format!("hafog clone {site}"),
        }
    }

    /// Zones that the move writes to.
    fn zones(&self) -> impl Iterator<Item = &'a Zone> {
        let names = &self.stack.names;
        let moved = |zone: &&Zone| names.iter().any(|name| name.zone == zone.name);
        self.stack.zones.iter().filter(moved)
    }

    /// Nothing is copied from a site that nobody relies on.
    fn copies_files(&self) -> bool {
        self.options.planned && !self.is_within
    }

    /// Why nobody waits for the health checks of the new site.
    fn accepted_as_it_is(&self) -> Option<String> {
        let why = ready::not_ready(self.stack, self.facts, self.to)?;
        let accepted = self.options.accepts("standby-not-ready");
        accepted.then(|| format!("accepted: {why}"))
    }
}
