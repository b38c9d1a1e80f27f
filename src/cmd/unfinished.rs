//! A run that was left in the middle, found before any world is built: it goes on with the stack, and with the sites
//! assumed down, that it was begun with, whatever became of the spec since.

use std::path::Path;
use std::sync::Arc;

use super::{Call, Faults, open};
use crate::error::{Fault, Kind};
use crate::journal::event::Opened;
use crate::model::stack::Stack;
use crate::plan::PlanKind;
use crate::run::open::{OpenOptions, Session, Unfinished};
use crate::state::StateStore;
use crate::state::dir::DirStore;
use crate::state::stores::Stores;
use crate::world::World;

/// An unfinished run, as it was begun.
pub struct Found {
    pub opened: Unfinished,
    /// What became of the spec since then, if anything did.
    pub note: Option<String>,
    /// The spec names other stores by now.
    pub in_former_stores: bool,
}

impl Found {
    pub fn is_directional(&self) -> bool {
        self.opened.plan.kind == PlanKind::Directional
    }

    /// The world that the run was begun in. Recipes are not read: what its steps need of them is in the plan.
    pub fn world(&self, call: &Call) -> Result<World, Vec<Fault>> {
        open::world_of(call, &self.opened.stack, &self.opened.assumed_down)
    }

    pub fn options(&self, options: OpenOptions) -> OpenOptions {
        OpenOptions {
            assume_down: self.opened.assumed_down.clone(),
            ..options
        }
    }

    pub fn say(&self, call: &Call) {
        if let Some(note) = &self.note {
            call.ui.say(&format!("{note}\n"));
        }
    }
}

/// Looks in the stores that the spec names. When it names none that can be read, looks beside it.
///
/// # Errors
/// The spec is broken, and no run is unfinished that could do without it.
pub async fn find(call: &Call) -> Result<Option<Found>, Faults> {
    let base = open::base(call)?;
    let file = call.file.display();
    let broken = match open::load(call) {
        Ok(loaded) => {
            let stack = loaded.stack;
            let mut opened = crate::run::open::unfinished(&open::stores(&stack, &base)).await?;
            let in_former_stores = opened.is_none();
            if in_former_stores {
                let beside = beside(&base).await?;
                opened = beside.filter(|opened| opened.stack.name == stack.name);
            }
            let found = |opened: Unfinished| {
                Found {
                note: (opened.stack != stack).then(|| {
                    let run = &opened.run;
                    format!("`{file}` says something else than when run {run} was begun: the run keeps to what it said then")
                }),
                opened,
                in_former_stores,
            }
            };
            return Ok(opened.map(found));
        }
        Err(faults) => faults,
    };
    match beside(&base).await {
        Ok(Some(opened)) if is_of(call, &opened.stack) => Ok(Some(Found {
            note: Some(format!(
                "`{file}` cannot be used as it is (`hafog check`): run {} keeps to what it said when the run was begun",
                opened.run
            )),
            opened,
            in_former_stores: false,
        })),
        _ => Err(broken.into()),
    }
}

/// The run that the folders which hafog keeps beside a spec know of.
async fn beside(base: &Path) -> Result<Option<Unfinished>, Fault> {
    let folders = std::collections::BTreeSet::from([base.join(".hafog"), open::home(base)]);
    for folder in folders {
        let store = Arc::new(DirStore::new(folder)) as Arc<dyn StateStore>;
        let found = crate::run::open::unfinished(&Stores::new(vec![store], 0)).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Whether a spec that cannot be used may be the stack's: it does not name another.
fn is_of(call: &Call, stack: &Stack) -> bool {
    let Ok(text) = std::fs::read(&call.file) else {
        // One that is mistyped is nobody's.
        return call.file == Path::new(crate::spec::FILE);
    };
    let text = String::from_utf8_lossy(&text);
    let named = text.lines().find_map(|line| line.strip_prefix("stack:"));
    let named = named.map(|name| name.split(" #").next().unwrap_or_default());
    let named = named.map(|name| name.trim().trim_matches(['"', '\'']));
    named.is_none_or(|name| name.is_empty() || name == stack.name.as_str())
}

/// The run that is unfinished now that the lease is held, if it is still the one that the world was built for.
///
/// # Errors
/// Somebody else ended it, or began another, in between.
pub async fn still(session: &Session, found: Option<&Found>) -> Result<Option<Unfinished>, Fault> {
    let now = crate::run::open::unfinished(&session.world.stores).await?;
    match (&now, found) {
        (Some(now), Some(found)) if now.run != found.opened.run => Err(moved(&found.opened)),
        (None, Some(found)) => Err(moved(&found.opened)),
        _ => Ok(now),
    }
}

fn moved(opened: &Opened) -> Fault {
    let fault = Fault::of(
        Kind::Refused,
        format!("run {} was ended by somebody else meanwhile", opened.run),
    );
    fault.hint("hafog status")
}
