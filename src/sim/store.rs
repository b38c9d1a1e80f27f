//! A simulated state store.

use async_trait::async_trait;

use super::SimWorld;
use super::call::{Call, Part};
use super::world::{Kept, World};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::RunId;
use crate::state::{PutError, StateStore, Version, chain};

/// A line that follows a torn one begins on a line of its own, as durability demands.
pub struct SimStore {
    world: SimWorld,
    index: usize,
}

impl SimStore {
    pub(super) fn new(world: SimWorld, index: usize) -> SimStore {
        SimStore { world, index }
    }

    /// The argument begins with the store's index, `0 roles`, so that a script can mean one store.
    fn call(&self, name: &'static str, argument: impl std::fmt::Display) -> Call {
        Call::new(name, format!("{} {argument}", self.index))
    }
}

#[async_trait]
impl StateStore for SimStore {
    fn name(&self) -> String {
        self.world
            .with(|world| world.stores[self.index].name.clone())
    }

    /// One change a line, so that each can go wrong.
    async fn append_all(&self, run: &RunId, lines: &[String]) -> Result<(), (usize, PutError)> {
        let known = {
            let world = self.world.lock();
            chain::known(chain::last(world.stores[self.index].journal(run)), lines)
        };
        // Nothing of it is known: then the first of them says why.
        let known = known.unwrap_or(0);
        for (written, line) in lines.iter().enumerate().skip(known) {
            let call = self.call("store.append", format!("{run} {line}")).halves();
            let done = self
                .world
                .change(call, |world, part| {
                    let store = world.store_for_writing(self.index).nothing_changed()?;
                    Ok(store.append(run, line, part))
                })
                .await;
            let done = done.unwrap_or_else(|trouble| Err(into_fault(trouble).into()));
            done.map_err(|error| (written, error))?;
        }
        Ok(())
    }

    async fn read(&self, run: &RunId) -> Result<Option<Vec<u8>>, Fault> {
        let call = self.call("store.read", run);
        self.world
            .look(call, |world| {
                let store = world.store(self.index)?;
                let journal = store.journals.iter().find(|(id, _)| id == run);
                Ok(journal.map(|(_, bytes)| bytes.clone()))
            })
            .await
    }

    async fn replace_journal(&self, run: &RunId, lines: &[String]) -> Result<(), Fault> {
        let call = self.call("store.replace_journal", run);
        let done = self
            .world
            .change(call, |world, _| {
                let store = world.store_for_writing(self.index).nothing_changed()?;
                store.journals.retain(|(id, _)| id != run);
                let whole: String = lines.iter().map(|line| format!("{line}\n")).collect();
                store.journals.push((run.clone(), whole.into_bytes()));
                Ok(())
            })
            .await;
        done.map_err(into_fault)
    }

    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        let call = self.call("store.runs", "");
        self.world
            .look(call, |world| {
                let store = world.store(self.index)?;
                Ok(store.journals.iter().map(|(run, _)| run.clone()).collect())
            })
            .await
    }

    async fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, Fault> {
        let call = self.call("store.get", key);
        self.world
            .look(call, |world| {
                let store = world.store(self.index)?;
                Ok(store
                    .documents
                    .get(key)
                    .map(|(bytes, number)| (bytes.clone(), version(*number))))
            })
            .await
    }

    async fn put(
        &self,
        key: &str,
        bytes: &[u8],
        expect: Option<&Version>,
    ) -> Result<Version, PutError> {
        let call = self.call("store.put", key);
        let done = self
            .world
            .change(call, |world, _| {
                let store = world.store_for_writing(self.index).nothing_changed()?;
                let current = store.documents.get(key).map(|(_, number)| version(*number));
                if current.as_ref() != expect {
                    return Ok(None);
                }
                Ok(Some(version(world.set_document(self.index, key, bytes))))
            })
            .await;
        match done {
            Ok(Some(version)) => Ok(version),
            Ok(None) => Err(PutError::Changed),
            Err(trouble) => Err(PutError::Fault(into_fault(trouble))),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), Fault> {
        let call = self.call("store.delete", key);
        let done = self
            .world
            .change(call, |world, _| {
                let store = world.store_for_writing(self.index).nothing_changed()?;
                store.documents.remove(key);
                Ok(())
            })
            .await;
        done.map_err(into_fault)
    }
}

fn version(number: u64) -> Version {
    Version(format!("v{number}"))
}

fn into_fault(trouble: Trouble) -> Fault {
    trouble.fault().clone()
}

impl World {
    fn store(&mut self, index: usize) -> Result<&mut Kept, Fault> {
        self.reach(None)?;
        let store = &mut self.stores[index];
        if store.lit {
            Ok(store)
        } else {
            Err(Fault::unavailable(format!(
                "no answer from store `{}` within 2 s",
                store.name
            )))
        }
    }

    fn store_for_writing(&mut self, index: usize) -> Result<&mut Kept, Fault> {
        let store = self.store(index)?;
        if store.full {
            let message = format!("no space left in store `{}`", store.name);
            return Err(Fault::new(message));
        }
        Ok(store)
    }
}

impl Kept {
    fn journal(&self, run: &RunId) -> &[u8] {
        let mut journals = self.journals.iter();
        let found = journals.find(|(id, _)| id == run);
        found.map_or(&[], |(_, bytes)| bytes)
    }

    fn append(&mut self, run: &RunId, line: &str, part: Part) -> Result<(), PutError> {
        if chain::known(chain::last(self.journal(run)), &[line])? > 0 {
            return Ok(());
        }
        let at = self.journals.iter().position(|(id, _)| id == run);
        let at = at.unwrap_or_else(|| {
            self.journals.push((run.clone(), Vec::new()));
            self.journals.len() - 1
        });
        let bytes = &mut self.journals[at].1;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
        match part {
            Part::Whole => {
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
            }
            Part::Half => bytes.extend_from_slice(&line.as_bytes()[..line.len() / 2]),
        }
        Ok(())
    }
}
