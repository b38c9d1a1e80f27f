//! The stack's stores together: the first is local, one is the arbiter, the rest are mirrors.
//!
//! A journal line is durable when it is on the local disk and on one other store that can be reached. A mirror that
//! cannot be reached never stops a run; what it missed is kept and sent when it answers again.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{PutError, StateStore, Version};
use crate::error::Fault;
use crate::model::id::RunId;

/// How long one store may take before it counts as unreachable.
const LIMIT: Duration = Duration::from_secs(5);

pub struct Stores {
    all: Vec<Arc<dyn StateStore>>,
    arbiter: usize,
}

impl Stores {
    /// `all` is not empty; `all[0]` is local; `arbiter` is an index into it.
    pub fn new(all: Vec<Arc<dyn StateStore>>, arbiter: usize) -> Stores {
        assert!(arbiter < all.len(), "the arbiter is one of the stores");
        Stores { all, arbiter }
    }

    pub fn arbiter(&self) -> &Arc<dyn StateStore> {
        &self.all[self.arbiter]
    }

    pub fn all(&self) -> &[Arc<dyn StateStore>] {
        &self.all
    }

    /// Reads a document of the arbiter.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Version)>, Fault> {
        read(self.arbiter().as_ref(), key).await
    }

    /// Compare-and-set of a document of the arbiter.
    pub async fn put<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        expect: Option<&Version>,
    ) -> Result<Version, PutError> {
        let bytes = serde_json::to_vec_pretty(value).map_err(|error| {
            PutError::Fault(Fault::new("cannot write a document").because(error))
        })?;
        within(
            self.arbiter().as_ref(),
            self.arbiter().put(key, &bytes, expect),
        )
        .await
    }

    /// Reads a mirrored document: the copy with the highest serial among the stores that answer. An error only when
    /// none answers.
    pub async fn newest<T: DeserializeOwned>(
        &self,
        key: &str,
        serial: impl Fn(&T) -> u64,
    ) -> Result<Option<T>, Fault> {
        let copies = futures_util::future::join_all(
            self.all.iter().map(|store| read::<T>(store.as_ref(), key)),
        )
        .await;
        let mut best: Option<T> = None;
        let mut fault = None;
        let mut answered = false;
        for copy in copies {
            match copy {
                Ok(found) => {
                    answered = true;
                    if let Some((found, _)) = found
                        && best
                            .as_ref()
                            .is_none_or(|best| serial(&found) > serial(best))
                    {
                        best = Some(found);
                    }
                }
                Err(error) => fault = Some(error),
            }
        }
        match (answered, fault) {
            (false, Some(fault)) => Err(fault),
            _ => Ok(best),
        }
    }

    /// Writes a mirrored document everywhere. Counts as written when the local store and, if any other answers, one
    /// other have it. Returns what could not be written.
    pub async fn write_everywhere<T: Serialize>(
        &self,
        key: &str,
        value: &T,
    ) -> Result<Vec<Fault>, Fault> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| Fault::new("cannot write a document").because(error))?;
        let writes = self
            .all
            .iter()
            .map(|store| overwrite(store.as_ref(), key, &bytes));
        let mut missed = Vec::new();
        for (index, written) in futures_util::future::join_all(writes)
            .await
            .into_iter()
            .enumerate()
        {
            match written {
                Ok(()) => {}
                Err(fault) if index == 0 => return Err(fault),
                Err(fault) => missed.push(fault),
            }
        }
        Ok(missed)
    }

    /// Removes a document everywhere.
    pub async fn delete_everywhere(&self, key: &str) -> Result<(), Fault> {
        for store in &self.all {
            store.delete(key).await?;
        }
        Ok(())
    }

    /// Every copy of a journal in the stores that answer. An error only when none answers.
    pub async fn journals(&self, run: &RunId) -> Result<Vec<Vec<u8>>, Fault> {
        let reads = self
            .all
            .iter()
            .map(|store| within_fault(store.as_ref(), store.read(run)));
        let (mut copies, mut fault, mut answered) = (Vec::new(), None, false);
        for copy in futures_util::future::join_all(reads).await {
            match copy {
                Ok(copy) => {
                    answered = true;
                    copies.extend(copy);
                }
                Err(error) => fault = Some(error),
            }
        }
        match (answered, fault) {
            (false, Some(fault)) => Err(fault),
            _ => Ok(copies),
        }
    }

    /// Every run that any reachable store knows, oldest first.
    pub async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        let lists = futures_util::future::join_all(
            self.all
                .iter()
                .map(|store| within_fault(store.as_ref(), store.runs())),
        )
        .await;
        let mut runs = std::collections::BTreeSet::new();
        let mut fault = None;
        let mut answered = false;
        for list in lists {
            match list {
                Ok(list) => {
                    answered = true;
                    runs.extend(list);
                }
                Err(error) => fault = Some(error),
            }
        }
        match (answered, fault) {
            (false, Some(fault)) => Err(fault),
            _ => Ok(runs.into_iter().collect()),
        }
    }
}

async fn read<T: DeserializeOwned>(
    store: &dyn StateStore,
    key: &str,
) -> Result<Option<(T, Version)>, Fault> {
    let Some((bytes, version)) = within_fault(store, store.get(key)).await? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes).map_err(|error| {
        Fault::new(format!(
            "document `{key}` in {} cannot be read by this version of hafog",
            store.name()
        ))
        .because(error)
    })?;
    Ok(Some((value, version)))
}

async fn overwrite(store: &dyn StateStore, key: &str, bytes: &[u8]) -> Result<(), Fault> {
    // Only the holder of the lease writes these documents, so a lost race is retried; it is bounded all the same.
    for _ in 0..8 {
        let version = within_fault(store, store.get(key))
            .await?
            .map(|(_, version)| version);
        match within(store, store.put(key, bytes, version.as_ref())).await {
            Ok(_) => return Ok(()),
            Err(PutError::Changed) => {}
            Err(PutError::Fault(fault)) => return Err(fault),
        }
    }
    Err(Fault::new(format!(
        "document `{key}` in {} changed 8 times while it was being written",
        store.name()
    )))
}

async fn within<T>(
    store: &dyn StateStore,
    call: impl Future<Output = Result<T, PutError>>,
) -> Result<T, PutError> {
    tokio::time::timeout(LIMIT, call)
        .await
        .unwrap_or_else(|_| Err(PutError::Fault(silent(store))))
}

async fn within_fault<T>(
    store: &dyn StateStore,
    call: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::time::timeout(LIMIT, call)
        .await
        .unwrap_or_else(|_| Err(silent(store)))
}

fn silent(store: &dyn StateStore) -> Fault {
    Fault::unavailable(format!(
        "state store {} did not answer within {} s",
        store.name(),
        LIMIT.as_secs()
    ))
}
