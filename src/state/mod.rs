//! State stores: journals that only grow, and small documents that change by compare-and-set.
//!
//! One store is the arbiter: it holds the lease and the writer records. The others are mirrors. A store is a folder,
//! here ([`dir`]) or on another machine ([`ssh`]).

pub mod chain;
pub mod dir;
pub mod door;
pub mod ssh;
pub mod stores;
pub mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use self::dir::DirStore;
use self::ssh::SshStore;
use crate::error::Fault;
use crate::model::id::{RunId, ServerName};
use crate::model::stack::Remote;

/// Changes with every write of a document. Opaque: an ETag, a generation, a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

/// Why a document or a line was not written.
#[derive(Clone, Debug)]
pub enum PutError {
    /// Somebody else wrote there since it was read.
    Changed,
    Fault(Fault),
}

impl From<Fault> for PutError {
    fn from(fault: Fault) -> PutError {
        PutError::Fault(fault)
    }
}

/// A server whose agent comes to a store by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    pub server: ServerName,
    /// Its public key, as OpenSSH writes it.
    pub key: String,
    /// All that it may read and change.
    pub documents: Vec<String>,
}

#[async_trait]
pub trait StateStore: Send + Sync {
    /// What to call it in messages: a path or a URL without credentials.
    fn name(&self) -> String;
    /// How long an answer is waited for.
    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }
    /// Durable when it returns. `line` has no line break; the store adds it.
    async fn append(&self, run: &RunId, line: &str) -> Result<(), PutError> {
        let appended = self.append_all(run, &[line.to_owned()]).await;
        appended.map_err(|(_, error)| error)
    }
    /// The same for several lines. Those that are there already are not written again, and none is that does not continue
    /// the last one ([`chain`]). What fails says how many of them are durable all the same.
    async fn append_all(&self, run: &RunId, lines: &[String]) -> Result<(), (usize, PutError)>;
    /// `None` when the store has no such journal. The last line may be torn; the reader deals with it.
    async fn read(&self, run: &RunId) -> Result<Option<Vec<u8>>, Fault>;
    /// Puts a whole journal in the place of one that cannot be read, at once. What was there is kept beside it, under a
    /// name that is no run's.
    async fn replace_journal(&self, run: &RunId, lines: &[String]) -> Result<(), Fault>;
    /// Oldest first.
    async fn runs(&self) -> Result<Vec<RunId>, Fault>;
    /// `key` is a short path of `[a-z0-9-/]`. `None` when there is no such document.
    async fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, Fault>;
    /// Writes if the document's version is still `expect` (`None`: if there is none).
    async fn put(
        &self,
        key: &str,
        bytes: &[u8],
        expect: Option<&Version>,
    ) -> Result<Version, PutError>;
    /// Gone already is success.
    async fn delete(&self, key: &str) -> Result<(), Fault>;
    /// Lets a server come by itself, in place of its older key.
    async fn admit(&self, _: &Guest) -> Result<(), Fault> {
        Err(nobody_comes(&self.name()))
    }
    /// Whether the server is let in, with just this key and these documents.
    async fn admits(&self, _: &Guest) -> Result<bool, Fault> {
        Ok(false)
    }
    /// The server comes no more. Never let in is success.
    async fn dismiss(&self, _: &ServerName) -> Result<(), Fault> {
        Ok(())
    }
    /// The SSH host keys of the machine that keeps the store, as OpenSSH writes them.
    async fn host_keys(&self) -> Result<Vec<String>, Fault> {
        Err(nobody_comes(&self.name()))
    }
}

/// The store in a folder, which is absolute: of this machine, or of another one, with this key alone or with whatever
/// the user's own `ssh` goes with.
pub fn open(
    folder: &Path,
    remote: Option<&Remote>,
    identity: Option<&Path>,
) -> Arc<dyn StateStore> {
    match remote {
        Some(remote) => Arc::new(SshStore::open(remote, &folder.to_string_lossy(), identity)),
        // Without the dots in its middle, for whoever reads its name.
        None => Arc::new(DirStore::new(folder.components().collect())),
    }
}

/// Each line with its line break.
fn text_of<T: std::fmt::Display>(lines: &[T]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn nobody_comes(name: &str) -> Fault {
    Fault::new(format!("no server can come to state store {name}"))
}
