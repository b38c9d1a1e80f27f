//! One stack for many cases: brought, by ordinary commands, to where a case begins, and thrown away after a case that
//! failed.

use crate::stack::{Stack, Wrong};
use crate::world::{Expect, Ledger, World};

/// Where a stack stands between two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is there.
    Bare,
    /// The primary site alone.
    Up,
    /// Primary and a standby that is ready.
    Pair,
    /// After a planned move, before its commit.
    Provisional,
    /// A pair whose primary site has no power.
    Dark,
    /// After a failover, with the old primary still without power.
    Fallen,
    /// After its commit, and with the power back: the old primary follows nobody.
    LeftBehind,
}

use Standing::*;

#[derive(Default)]
pub struct Bench {
    stack: Option<Stack>,
    at: Option<(Standing, &'static str)>,
    pub ledger: Ledger,
}

pub fn other(site: &str) -> &'static str {
    if site == "east" { "west" } else { "east" }
}

pub fn expect(standing: Standing, primary: &'static str) -> Expect {
    let (on, follow) = match standing {
        Bare => (vec![], vec![]),
        Up | Fallen => (vec![primary], vec![primary]),
        Pair | Provisional => (vec!["east", "west"], vec!["east", "west"]),
        LeftBehind => (vec!["east", "west"], vec![primary]),
        Dark => (vec![other(primary)], vec![]),
    };
    Expect {
        on,
        primary: (standing != Bare).then_some(primary),
        follow,
        short_ttl: matches!(standing, Provisional | Fallen),
    }
}

impl Bench {
    pub fn stack(&mut self) -> &mut Stack {
        self.stack.get_or_insert_with(Stack::new)
    }

    pub fn primary(&self) -> &'static str {
        self.at.map_or("east", |(_, primary)| primary)
    }

    pub fn world(&mut self) -> World<'_> {
        World {
            stack: self.stack.get_or_insert_with(Stack::new),
            ledger: &mut self.ledger,
        }
    }

    /// Says that a command brought the stack there, once the world agrees.
    pub fn is_now(
        &mut self,
        standing: Standing,
        primary: &'static str,
        uncut: bool,
    ) -> Result<(), Wrong> {
        if standing == Bare {
            self.ledger.forget_orders();
        }
        self.world().judge(&expect(standing, primary), uncut)?;
        self.at = Some((standing, primary));
        Ok(())
    }

    /// Another bench, with a stack of its own, that knows what uncut runs leave.
    pub fn beside(&self) -> Bench {
        Bench {
            ledger: self.ledger.beside(),
            ..Bench::default()
        }
    }

    /// After a failure nobody knows where the stack is.
    pub fn throw_away(&mut self) {
        self.stack = None;
        self.at = None;
        self.ledger.forget_orders();
    }

    /// Brings the stack to where a case begins.
    pub fn arrive(&mut self, wanted: Standing) -> Result<(), Wrong> {
        // The longest way has six stations.
        for _ in 0..8 {
            let (at, primary) = self.at.unwrap_or((Bare, "east"));
            if at == wanted {
                if at == Pair {
                    self.stack().ready()?;
                }
                return Ok(());
            }
            self.walk(at, primary, wanted)
                .map_err(|why| format!("on the way from {at:?} to {wanted:?}: {why}"))?;
        }
        Err(format!("there is no way to {wanted:?}"))
    }

    fn walk(&mut self, at: Standing, primary: &'static str, wanted: Standing) -> Result<(), Wrong> {
        let away = other(primary);
        match (at, wanted) {
            (Bare, _) => {
                self.stack().must("up --yes")?;
                self.is_now(Up, "east", true)
            }
            (_, Bare) if at != Fallen && at != Dark => {
                self.stack().must("destroy --yes")?;
                self.is_now(Bare, "east", true)
            }
            (Up, _) => {
                self.stack().must(&format!("clone {away} --yes"))?;
                self.is_now(Pair, primary, true)
            }
            (Pair, Up) => {
                self.stack().must(&format!("destroy {away} --yes"))?;
                // Keys and configuration of the site that was there remain: no picture of an uncut run.
                self.is_now(Up, primary, false)
            }
            (Pair, Provisional) => {
                self.stack().ready()?;
                self.stack().must(&format!("switchover {away} --yes"))?;
                self.is_now(Provisional, away, true)
            }
            (Pair, _) => {
                self.stack().ready()?;
                self.stack().must(&format!("local power {primary} off"))?;
                self.at = Some((Dark, primary));
                Ok(())
            }
            (Provisional, _) => {
                self.stack().must("commit --yes")?;
                self.is_now(Pair, primary, true)
            }
            (Dark, _) => {
                self.stack().must(&format!("failover {away} --yes"))?;
                self.is_now(Fallen, away, true)
            }
            (Fallen, _) => {
                self.stack().must("commit --yes")?;
                self.stack().must(&format!("local power {away} on"))?;
                self.is_now(LeftBehind, primary, true)
            }
            (LeftBehind, _) => {
                self.stack()
                    .must(&format!("failback {away} --rejoin-only --yes"))?;
                self.is_now(Pair, primary, true)
            }
        }
    }
}
