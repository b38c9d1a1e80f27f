//! What each action does: check, act, undo. One file a family; the dispatch is made from `plan::action`'s list.
//!
//! `check` reads the world and is called before `act`, after it, and on resume; a step whose `check` says `Done` is
//! done, whoever did it. Evidence is one line for people and never read back to decide.

mod agent;
mod apply;
mod apps;
mod balancer;
mod cache;
mod configure;
mod database;
mod entry;
mod fence;
mod files;
mod firewall;
mod health;
mod image;
mod name;
mod outage;
mod packages;
mod program;
mod promote;
mod proxy;
mod release;
mod replica;
mod role;
mod roles;
mod rotation;
mod server;
mod system;
mod trial;

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::error::{Fault, Trouble};
use crate::journal::Journal;
use crate::journal::event::{Event, Output};
use crate::model::id::{RunId, StepName};
use crate::plan::action::for_each_action;
use crate::plan::{Action, Step};
use crate::world::World;

pub use configure::{UsedNode, is_configured, used_nodes};
pub use files::{is_connected, look as look_at_files};
pub use health::{Door, front_door, works};
pub use promote::OPEN_LIMIT;

/// Whether a step's goal holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It holds; this is how we know.
    Done(String),
    /// It does not hold, and `act` may make it so.
    Ready,
    /// It does not hold and `act` must not be tried. A refusal that turned up in the middle of a run has a name.
    Blocked {
        why: String,
        refusal: Option<&'static str>,
    },
}

impl Standing {
    pub fn done(evidence: impl Into<String>) -> Standing {
        Standing::Done(evidence.into())
    }
    pub fn blocked(why: impl Into<String>) -> Standing {
        Standing::Blocked {
            why: why.into(),
            refusal: None,
        }
    }
}

/// What a step is given.
pub struct Context<'a> {
    pub world: &'a World,
    pub step: &'a Step,
    pub run: &'a RunId,
    /// Outputs of the steps before, and of this one in earlier attempts.
    pub journal: &'a Mutex<Journal>,
}

impl Context<'_> {
    /// Journals an output at once, before any waiting.
    pub async fn made(&self, output: Output) -> Result<(), Fault> {
        self.journal
            .lock()
            .await
            .add(Event::Made {
                step: self.step.name.clone(),
                output,
            })
            .await
    }

    pub async fn outputs_of(&self, step: &StepName) -> Vec<Output> {
        self.journal
            .lock()
            .await
            .progress
            .outputs
            .get(step)
            .cloned()
            .unwrap_or_default()
    }

    pub async fn own_outputs(&self) -> Vec<Output> {
        self.outputs_of(&self.step.name).await
    }

    /// Shown while the step runs; not journaled.
    pub async fn progress(&self, text: impl AsRef<str>) {
        let listener = self.journal.lock().await.listener().clone();
        listener.progress(self.step.name.as_str(), text.as_ref());
    }
}

#[async_trait]
pub trait Act: Send + Sync {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault>;
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble>;
    /// Takes the step back. Steps that are never undone keep this.
    async fn undo(&self, _: &Context<'_>) -> Result<String, Trouble> {
        Ok("left as it is".to_owned())
    }
}

pub fn behaviour(action: &Action) -> &dyn Act {
    for_each_action!(action, data => data)
}

/// Tags as the clouds take them.
pub(crate) type Tags = BTreeMap<String, String>;
