//! How every call of every port goes: the books, the fault script, the world.

use super::faults::Mishap;
use super::world::World;
use super::{Process, SimWorld};
use crate::error::{Fault, Trouble};
use crate::model::id::SiteName;

/// One line of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// `None` where the call goes to no site: a store, a zone, an authority. A call that concerns two sites has
    /// two lines.
    pub site: Option<SiteName>,
    pub call: &'static str,
    pub argument: String,
    /// Whether it was meant to change the world.
    pub changes: bool,
}

/// What a port is about to do.
pub(super) struct Call {
    pub name: &'static str,
    pub argument: String,
    pub sites: Vec<SiteName>,
    /// Whether a part of it can happen. What is atomic by its contract cannot.
    pub halves: bool,
}

impl Call {
    pub fn new(name: &'static str, argument: impl ToString) -> Call {
        Call {
            name,
            argument: argument.to_string(),
            sites: Vec::new(),
            halves: false,
        }
    }

    pub fn at(mut self, site: &SiteName) -> Call {
        if !self.sites.contains(site) {
            self.sites.push(site.clone());
        }
        self
    }

    pub fn halves(mut self) -> Call {
        self.halves = true;
        self
    }
}

/// How much of a change is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// Only asked of a call that [`Call::halves`]; what the body then returns is not seen by the caller.
    Half,
}

impl SimWorld {
    /// A call that only looks.
    pub(super) async fn look<T: Send>(
        &self,
        call: Call,
        body: impl FnOnce(&mut World) -> Result<T, Fault> + Send,
    ) -> Result<T, Fault> {
        match self.look_now(&call, body) {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// A call that is meant to change the world.
    pub(super) async fn change<T: Send>(
        &self,
        call: Call,
        body: impl FnMut(&mut World, Part) -> Result<T, Trouble> + Send,
    ) -> Result<T, Trouble> {
        match self.change_now(&call, body) {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    fn look_now<T>(
        &self,
        call: &Call,
        body: impl FnOnce(&mut World) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        if self.is_dead() {
            return None;
        }
        let mut world = self.caught_up();
        match self.enter(&mut world, call, false) {
            Some(mishap) if mishap.kills() => {
                self.kill();
                None
            }
            Some(Mishap::Hang) => None,
            Some(Mishap::FailBefore | Mishap::LoseReply | Mishap::Half) => {
                Some(Err(scripted("no answer to", call)))
            }
            _ => Some(body(&mut world)),
        }
    }

    fn change_now<T>(
        &self,
        call: &Call,
        mut body: impl FnMut(&mut World, Part) -> Result<T, Trouble>,
    ) -> Option<Result<T, Trouble>> {
        if self.is_dead() {
            return None;
        }
        self.with(|world| {
            let Some(mishap) = self.enter(world, call, true) else {
                return Some(body(world, Part::Whole));
            };
            if mishap.kills() {
                self.kill();
            }
            match mishap {
                Mishap::FailBefore => Some(Err(Trouble::NothingChanged(scripted("refused", call)))),
                Mishap::LoseReply => {
                    let _ = body(world, Part::Whole);
                    Some(Err(Trouble::Unknown(scripted("no reply to", call))))
                }
                Mishap::Half if call.halves => Some(
                    body(world, Part::Half)
                        .and(Err(Trouble::Partial(scripted("only a part of", call)))),
                ),
                Mishap::Half => Some(Err(Trouble::NothingChanged(scripted("refused", call)))),
                Mishap::Twice => {
                    let first = body(world, Part::Whole);
                    let _ = body(world, Part::Whole);
                    Some(first)
                }
                Mishap::Hang | Mishap::CrashAfter => {
                    let _ = body(world, Part::Whole);
                    None
                }
                Mishap::CrashBefore => None,
                Mishap::CrashDuring => {
                    if call.halves {
                        let _ = body(world, Part::Half);
                    }
                    None
                }
            }
        })
    }

    /// Writes the books and asks the script.
    fn enter(&self, world: &mut World, call: &Call, changes: bool) -> Option<Mishap> {
        let line = |site: Option<SiteName>| Called {
            site,
            call: call.name,
            argument: call.argument.clone(),
            changes,
        };
        if call.sites.is_empty() {
            world.calls.push(line(None));
        }
        for site in &call.sites {
            world.calls.push(line(Some(site.clone())));
        }
        match &self.process {
            Process::In(site) => {
                world.caller = Some(site.clone());
                None
            }
            Process::Outside { .. } => {
                world.caller = None;
                world.changes += u32::from(changes);
                world.faults.next(call.name, &call.argument, changes)
            }
        }
    }
}

fn scripted(what: &str, call: &Call) -> Fault {
    Fault::unavailable(format!("{what} `{} {}`", call.name, call.argument))
        .because("the fault script says so")
}
