//! What a journal holds: events, and the one function that says which may follow which.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::id::{RunId, SiteName, StepName};
use crate::model::stack::Stack;
use crate::model::units::Ttl;
use crate::plan::Plan;

/// Format of a journal line. Readers accept this and older ones, and refuse newer ones.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub v: u32,
    /// From 0, without a gap.
    pub n: u64,
    pub at: Timestamp,
    /// SHA-256 of the line before, as written (first 16 bytes in hex); empty on the first.
    pub prev: String,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Opened(Box<Opened>),
    /// Another process took the run up.
    Resumed {
        holder: String,
        epoch: u64,
    },
    Started {
        step: StepName,
    },
    /// Something exists now that later steps or a clean-up need; written before any waiting.
    Made {
        step: StepName,
        output: Output,
    },
    Finished {
        step: StepName,
        how: How,
        evidence: String,
    },
    Failed {
        step: StepName,
        world: World,
        why: String,
    },
    Blocked {
        step: StepName,
        why: String,
    },
    Undoing {
        step: StepName,
    },
    Undone {
        step: StepName,
        evidence: String,
    },
    UndoFailed {
        step: StepName,
        why: String,
    },
    /// The process leaves on purpose (Ctrl-C).
    Paused {
        why: String,
    },
    Closed {
        outcome: Outcome,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    pub run: RunId,
    /// Version of the program that wrote it.
    pub hafog: String,
    pub holder: String,
    pub epoch: u64,
    pub plan: Plan,
    pub digest: String,
    /// The stack that the plan was made for: a resume does not depend on a spec that was edited since.
    pub stack: Stack,
    /// Sites of which nothing is asked, also by a resume.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub assumed_down: BTreeSet<SiteName>,
    pub accepted: Vec<String>,
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    Acted,
    AlreadyTrue,
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    NothingChanged,
    Unknown,
    Partial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    /// Everything that was done and has a way back has been undone, also by `hafog abort`.
    Unwound,
    /// A converging run that was planned anew by a later one.
    Superseded,
}

/// What later steps need. One variant a kind; read by the name of the step that made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// The last position of a primary that stopped.
    Position { position: String },
    /// Which rung of the fencing ladder held.
    Fence { rung: String },
    /// A server that was asked for.
    Server { name: String, id: String },
    /// Every cache has lost what had this TTL.
    WaitedOut { ttl: Ttl },
}

/// Where one step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Waiting,
    Started,
    Finished,
    Skipped,
    Failed,
    Blocked,
    Undoing,
    Undone,
    UndoFailed,
}

/// The status after an event, or nothing when that event may not come then.
pub fn next_status(status: Status, event: &Event) -> Option<Status> {
    use Status::{
        Blocked, Failed, Finished, Skipped, Started, UndoFailed, Undoing, Undone, Waiting,
    };
    match (status, event) {
        // A step may be tried again after a failure, a block, or a crash in the middle.
        (Waiting | Started | Failed | Blocked, Event::Started { .. }) => Some(Started),
        (Started, Event::Made { .. }) => Some(Started),
        (
            Waiting | Failed | Blocked,
            Event::Finished {
                how: How::Skipped, ..
            },
        ) => Some(Skipped),
        (
            Waiting | Started | Failed | Blocked,
            Event::Finished {
                how: How::AlreadyTrue,
                ..
            },
        ) => Some(Finished),
        (
            Started,
            Event::Finished {
                how: How::Acted, ..
            },
        ) => Some(Finished),
        (Waiting | Started | Failed | Blocked, Event::Failed { .. }) => Some(Failed),
        (Waiting | Started | Failed | Blocked, Event::Blocked { .. }) => Some(Blocked),
        (Started | Finished | Failed | Blocked | Undoing | UndoFailed, Event::Undoing { .. }) => {
            Some(Undoing)
        }
        (Undoing, Event::Undone { .. }) => Some(Undone),
        (Undoing, Event::UndoFailed { .. }) => Some(UndoFailed),
        _ => None,
    }
}

impl Event {
    pub fn step(&self) -> Option<&StepName> {
        match self {
            Event::Started { step }
            | Event::Made { step, .. }
            | Event::Finished { step, .. }
            | Event::Failed { step, .. }
            | Event::Blocked { step, .. }
            | Event::Undoing { step }
            | Event::Undone { step, .. }
            | Event::UndoFailed { step, .. } => Some(step),
            Event::Opened(_)
            | Event::Resumed { .. }
            | Event::Paused { .. }
            | Event::Closed { .. } => None,
        }
    }
}

/// What the events of a run add up to.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub opened: Option<Box<Opened>>,
    pub steps: BTreeMap<StepName, Status>,
    pub outputs: BTreeMap<StepName, Vec<Output>>,
    pub closed: Option<Outcome>,
    /// Started and not undone, in the order in which they began; the way back is the reverse.
    pub begun: Vec<(StepName, Trace)>,
    pub unwinding: bool,
}

/// What a step that was started has left in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Whatever the process that is at it has done: it will say.
    Ours,
    /// Nothing: whatever was tried failed, and said so.
    Nothing,
    /// Something, or as much as a process did that is gone.
    Something,
}

impl Progress {
    /// Whether the event may come now; the error says which rule of the journal it breaks.
    pub fn allows(&self, event: &Event) -> Result<(), String> {
        if self.closed.is_some() {
            return Err("an event after the end of the run".to_owned());
        }
        if matches!(event, Event::Opened(_)) && self.opened.is_some() {
            return Err("the run is opened twice".to_owned());
        }
        if let Some(step) = event.step() {
            let before = self.status(step);
            next_status(before, event).ok_or_else(|| {
                format!("`{step}` was {before:?} and cannot have this event: {event:?}")
            })?;
        }
        Ok(())
    }

    /// Adds one event.
    pub fn add(&mut self, event: &Event) -> Result<(), String> {
        self.allows(event)?;
        if let Some(step) = event.step() {
            let after = next_status(self.status(step), event).expect("it was just allowed");
            self.steps.insert(step.clone(), after);
        }
        self.trace(event);
        match event {
            Event::Opened(opened) => self.opened = Some(opened.clone()),
            Event::Made { step, output } => self
                .outputs
                .entry(step.clone())
                .or_default()
                .push(output.clone()),
            Event::Undoing { .. } => self.unwinding = true,
            Event::Closed { outcome } => self.closed = Some(*outcome),
            _ => {}
        }
        Ok(())
    }

    /// That a step is found done does not say who did it: one that was started before counts as its doer.
    fn trace(&mut self, event: &Event) {
        use Trace::{Nothing, Ours, Something};
        if let Event::Resumed { .. } = event {
            // How far the process before got, nobody knows.
            let ours = self.begun.iter_mut().filter(|(_, trace)| *trace == Ours);
            ours.for_each(|(_, trace)| *trace = Something);
        }
        let Some(step) = event.step() else { return };
        let Some(at) = self.begun.iter().position(|(name, _)| name == step) else {
            if let Event::Started { .. } = event {
                self.begun.push((step.clone(), Ours));
            }
            return;
        };
        let trace = &mut self.begun[at].1;
        *trace = match (event, *trace) {
            (Event::Undone { .. }, _) => return drop(self.begun.remove(at)),
            (Event::Started { .. }, Nothing) => Ours,
            (Event::Blocked { .. }, Ours) => Nothing,
            (Event::Failed { world, .. }, Ours) if *world == World::NothingChanged => Nothing,
            (Event::Failed { world, .. }, Nothing) if *world == World::NothingChanged => Nothing,
            (Event::Failed { .. } | Event::Finished { .. }, _) => Something,
            (_, trace) => trace,
        };
    }

    pub fn status(&self, step: &StepName) -> Status {
        self.steps.get(step).copied().unwrap_or(Status::Waiting)
    }

    /// What the step has left in the world; nothing when it was never started, or is undone.
    pub fn left_by(&self, step: &StepName) -> Option<Trace> {
        let mut begun = self.begun.iter();
        let found = begun.find(|(name, _)| name == step);
        found.map(|(_, trace)| *trace)
    }

    /// Whether the run may have changed the world, as far as it is not taken back.
    pub fn has_changed(&self) -> bool {
        let mut begun = self.begun.iter();
        begun.any(|(_, trace)| *trace != Trace::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<(&'static str, Event)> {
        let step = || StepName::new("s");
        vec![
            ("started", Event::Started { step: step() }),
            (
                "made",
                Event::Made {
                    step: step(),
                    output: Output::Fence {
                        rung: String::new(),
                    },
                },
            ),
            (
                "acted",
                Event::Finished {
                    step: step(),
                    how: How::Acted,
                    evidence: String::new(),
                },
            ),
            (
                "already",
                Event::Finished {
                    step: step(),
                    how: How::AlreadyTrue,
                    evidence: String::new(),
                },
            ),
            (
                "skipped",
                Event::Finished {
                    step: step(),
                    how: How::Skipped,
                    evidence: String::new(),
                },
            ),
            (
                "failed",
                Event::Failed {
                    step: step(),
                    world: World::Unknown,
                    why: String::new(),
                },
            ),
            (
                "blocked",
                Event::Blocked {
                    step: step(),
                    why: String::new(),
                },
            ),
            ("undoing", Event::Undoing { step: step() }),
            (
                "undone",
                Event::Undone {
                    step: step(),
                    evidence: String::new(),
                },
            ),
            (
                "undo-failed",
                Event::UndoFailed {
                    step: step(),
                    why: String::new(),
                },
            ),
        ]
    }

    /// The whole table, so that a change of a rule is a change of this text.
    #[test]
    fn which_event_may_follow_which_status() {
        use Status::{
            Blocked, Failed, Finished, Skipped, Started, UndoFailed, Undoing, Undone, Waiting,
        };
        let mut table = String::new();
        for status in [
            Waiting, Started, Finished, Skipped, Failed, Blocked, Undoing, Undone, UndoFailed,
        ] {
            let allowed: Vec<String> = events()
                .iter()
                .filter_map(|(name, event)| {
                    next_status(status, event).map(|next| format!("{name}→{next:?}"))
                })
                .collect();
            table.push_str(&format!("{status:?}: {}\n", allowed.join(" ")));
        }
        insta::assert_snapshot!(table, @r"
        Waiting: started→Started already→Finished skipped→Skipped failed→Failed blocked→Blocked
        Started: started→Started made→Started acted→Finished already→Finished failed→Failed blocked→Blocked undoing→Undoing
        Finished: undoing→Undoing
        Skipped: 
        Failed: started→Started already→Finished skipped→Skipped failed→Failed blocked→Blocked undoing→Undoing
        Blocked: started→Started already→Finished skipped→Skipped failed→Failed blocked→Blocked undoing→Undoing
        Undoing: undoing→Undoing undone→Undone undo-failed→UndoFailed
        Undone: 
        UndoFailed: undoing→Undoing
        ");
    }

    #[test]
    fn what_a_step_was_begun_for_counts_until_it_says_that_it_did_nothing() {
        let all = events();
        let event = |name: &&str| match *name {
            "resumed" => Event::Resumed {
                holder: String::new(),
                epoch: 1,
            },
            "nothing" => Event::Failed {
                step: StepName::new("s"),
                world: World::NothingChanged,
                why: String::new(),
            },
            name => {
                let mut all = all.iter();
                all.find(|(other, _)| *other == name).unwrap().1.clone()
            }
        };
        let mut table = String::new();
        for story in [
            "started",
            "started acted",
            "started already",
            "started nothing",
            "started failed",
            "started nothing resumed",
            "started nothing resumed started",
            "started nothing resumed started nothing",
            "started resumed",
            "started resumed already",
            "started resumed nothing",
            "started resumed started nothing",
            "started resumed blocked",
            "started blocked",
            "started undoing",
            "started undoing undo-failed",
            "started undoing undone",
            "already",
            "nothing",
            "blocked",
        ] {
            let mut progress = Progress::default();
            let names: Vec<&str> = story.split(' ').collect();
            names
                .iter()
                .for_each(|name| progress.add(&event(name)).unwrap());
            let left = progress.left_by(&StepName::new("s"));
            let left = left.map_or("-".to_owned(), |left| format!("{left:?}"));
            table.push_str(&format!("{story}: {left}\n"));
        }
        insta::assert_snapshot!(table, @r"
        started: Ours
        started acted: Something
        started already: Something
        started nothing: Nothing
        started failed: Something
        started nothing resumed: Nothing
        started nothing resumed started: Ours
        started nothing resumed started nothing: Nothing
        started resumed: Something
        started resumed already: Something
        started resumed nothing: Something
        started resumed started nothing: Something
        started resumed blocked: Something
        started blocked: Nothing
        started undoing: Ours
        started undoing undo-failed: Ours
        started undoing undone: -
        already: -
        nothing: -
        blocked: -
        ");
    }
}
