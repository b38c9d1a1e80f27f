//! What an agent has seen, and what follows from it. Pure: no clock, no I/O, so that every combination is a row in a
//! table.
//!
//! Promises: a node that is not named by the newest writer record that was ever read never gets or keeps the right to
//! write; nothing is opened without a renewal; an outage of the arbiter alone stops nobody (unless `self_fence` is
//! `strict`). It does not know how anything is done: that is the loop's part.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::id::ServerName;
use crate::model::stack::SelfFence;

/// The part of the writer record that a verdict depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub epoch: u64,
    /// `None`: nobody may write.
    pub node: Option<ServerName>,
}

impl Named {
    /// A move names nobody first, and the one that it opens under the same epoch; never the other way round.
    pub(super) fn is_later_than(&self, other: &Named) -> bool {
        let opened = other.node.is_none() && self.node.is_some();
        self.epoch > other.epoch || (self.epoch == other.epoch && opened)
    }
}

/// What the arbiter said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// There never was a writer record: the database is being made.
    Absent,
    Read(Named),
    /// No answer, or none that can be believed. `last` is what this agent read or was told before, if anything.
    Unreachable {
        why: String,
        last: Option<Named>,
    },
}

/// What the engine on this node looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It accepts writes; or it does not answer, was writable when it last did, and its process is there.
    Writable,
    /// This agent asked it to open, and it may do so at any moment.
    Opening,
    Replica,
    Down,
}

/// The other database nodes, as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Others {
    /// Not asked: only an expired lease is a reason to.
    NotAsked,
    /// There is no other node that could write.
    Nobody,
    /// None of those that would have to answer did.
    Silent,
    /// `by` answered, and none of those that answered is writable.
    Answering {
        by: ServerName,
    },
    Writable {
        node: ServerName,
    },
}

#[derive(Clone, Debug)]
pub struct Observation {
    pub me: ServerName,
    pub document: Document,
    pub engine: Seen,
    /// The epoch under which this agent opened, or found open, the engine that is running now.
    pub opened_under: Option<u64>,
    /// This agent stopped the engine, and nobody started it since.
    pub stopped_here: bool,
    /// A renewal of this agent still holds, with enough time left to stop the engine.
    pub lease: bool,
    pub self_fence: SelfFence,
    pub others: Others,
}

/// What to do. Its `Display` is the sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The database is being made: hands off.
    Idle { me: ServerName },
    /// Write a heartbeat, then renew with it.
    Beat { me: ServerName, epoch: u64 },
    /// Renew before anything else.
    Renew { me: ServerName, epoch: u64 },
    /// Renew, then open.
    Open { me: ServerName, epoch: u64 },
    /// Renew while the engine is opening.
    Opening { me: ServerName, epoch: u64 },
    /// Renew, then start the engine non-writable: this agent stopped it, and the reason is gone.
    Start { me: ServerName, epoch: u64 },
    /// Renew. The engine is down: its supervisor restarts it if it crashed, and whoever stopped it had a reason.
    Wait { me: ServerName, epoch: u64 },
    /// Keep the engine writable without the arbiter; write heartbeats into it.
    Continue {
        me: ServerName,
        arbiter: String,
        because: String,
    },
    /// Ask the other nodes, then judge again.
    Ask { me: ServerName, arbiter: String },
    /// Not writable, and right so.
    Leave { me: ServerName, because: String },
    /// Stop the engine at once.
    Fence { me: ServerName, because: String },
}

pub fn judge(seen: &Observation) -> Verdict {
    match &seen.document {
        // Nothing is opened before there is a record: an arbiter without one (an empty mount) is not the one that was.
        Document::Absent
            if seen.self_fence == SelfFence::Strict
                && matches!(seen.engine, Seen::Writable | Seen::Opening) =>
        {
            not_writer(
                seen,
                "there is no writer record, and `self_fence` is `strict`",
            )
        }
        Document::Absent => Verdict::Idle {
            me: seen.me.clone(),
        },
        Document::Read(named) if named.node.as_ref() == Some(&seen.me) => {
            named_writer(seen, named.epoch)
        }
        Document::Read(named) => not_writer(seen, &not_me(named)),
        Document::Unreachable { why, last } => match last {
            Some(last) if last.node.as_ref() != Some(&seen.me) => not_writer(
                seen,
                &format!("{}, says what was heard last ({why})", not_me(last)),
            ),
            _ => alone(seen, why),
        },
    }
}

fn not_me(named: &Named) -> String {
    match &named.node {
        Some(node) => format!("{node} is the writer at epoch {}", named.epoch),
        None => format!("nobody may write at epoch {}", named.epoch),
    }
}

fn named_writer(seen: &Observation, epoch: u64) -> Verdict {
    let me = seen.me.clone();
    match (seen.engine, seen.opened_under) {
        // A whole change of writer was missed. Whatever is connected belongs to the old epoch: end it, open anew.
        (Seen::Writable | Seen::Opening, Some(opened)) if opened < epoch => Verdict::Fence {
            me,
            because: format!("it was opened under epoch {opened}, and the epoch is {epoch}"),
        },
        (Seen::Writable, _) if seen.lease => Verdict::Beat { me, epoch },
        (Seen::Writable, _) => Verdict::Renew { me, epoch },
        (Seen::Opening, _) => Verdict::Opening { me, epoch },
        (Seen::Replica, _) => Verdict::Open { me, epoch },
        (Seen::Down, _) if seen.stopped_here => Verdict::Start { me, epoch },
        (Seen::Down, _) => Verdict::Wait { me, epoch },
    }
}

fn not_writer(seen: &Observation, because: &str) -> Verdict {
    let (me, because) = (seen.me.clone(), because.to_owned());
    match seen.engine {
        Seen::Writable | Seen::Opening => Verdict::Fence { me, because },
        Seen::Replica | Seen::Down => Verdict::Leave { me, because },
    }
}

/// The arbiter does not answer, and nothing that was read says that another node may write.
fn alone(seen: &Observation, why: &str) -> Verdict {
    let (me, arbiter) = (seen.me.clone(), why.to_owned());
    if matches!(seen.engine, Seen::Replica | Seen::Down) {
        return Verdict::Leave {
            me,
            because: format!("nothing is opened without a renewal ({why})"),
        };
    }
    if seen.lease {
        return Verdict::Continue {
            me,
            arbiter,
            because: "its write lease is still good".to_owned(),
        };
    }
    if seen.self_fence == SelfFence::Strict {
        return Verdict::Fence {
            me,
            because: format!("its write lease is over, and `self_fence` is `strict` ({why})"),
        };
    }
    match &seen.others {
        Others::NotAsked => Verdict::Ask { me, arbiter },
        Others::Nobody => Verdict::Continue {
            me,
            arbiter,
            because: "there is no other node".to_owned(),
        },
        Others::Answering { by } => Verdict::Continue {
            me,
            arbiter,
            because: format!("{by} answers and no other node is writable"),
        },
        Others::Writable { node } => Verdict::Fence {
            me,
            because: format!("its write lease is over, and {node} is writable ({why})"),
        },
        Others::Silent => Verdict::Fence {
            me,
            because: format!(
                "its write lease is over, and neither the arbiter nor another site answers ({why})"
            ),
        },
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Idle { me } => {
                write!(f, "idle: the database of {me} has no writer record yet")
            }
            Verdict::Beat { me, epoch } => {
                write!(
                    f,
                    "hold: {me} is the writer at epoch {epoch}; lease renewed"
                )
            }
            Verdict::Renew { me, epoch } => {
                write!(
                    f,
                    "renew: {me} is the writer at epoch {epoch}, without a lease"
                )
            }
            Verdict::Open { me, epoch } => {
                write!(
                    f,
                    "open: {me} is the writer at epoch {epoch}, and its engine is not writable"
                )
            }
            Verdict::Opening { me, epoch } => {
                write!(
                    f,
                    "opening: {me} is the writer at epoch {epoch}; lease renewed"
                )
            }
            Verdict::Start { me, epoch } => {
                write!(
                    f,
                    "start: {me} is the writer at epoch {epoch}, and this agent had stopped its engine"
                )
            }
            Verdict::Wait { me, epoch } => {
                write!(
                    f,
                    "wait: {me} is the writer at epoch {epoch}, and its engine does not answer; lease renewed"
                )
            }
            Verdict::Continue {
                me,
                arbiter,
                because,
            } => {
                write!(
                    f,
                    "continue: {me} stays writable without the arbiter: {because} ({arbiter})"
                )
            }
            Verdict::Ask { me, arbiter } => {
                write!(
                    f,
                    "ask: {me} has no write lease, and the arbiter does not answer ({arbiter})"
                )
            }
            Verdict::Leave { me, because } => write!(f, "leave: {me} is not writable: {because}"),
            Verdict::Fence { me, because } => write!(f, "fence: {me} must not write: {because}"),
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
