//! State stores: journals that only grow, and small documents that change by compare-and-set.
//!
//! One store is the arbiter: it holds the lease and the writer records. The others are mirrors.

pub mod dir;
pub mod stores;

use async_trait::async_trait;

use crate::error::Fault;
use crate::model::id::RunId;

/// Changes with every write of a document. Opaque: an ETag, a generation, a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

/// Why a document was not written.
#[derive(Clone, Debug)]
pub enum PutError {
    /// Somebody wrote it since it was read.
    Changed,
    Fault(Fault),
}

impl From<Fault> for PutError {
    fn from(fault: Fault) -> PutError {
        PutError::Fault(fault)
    }
}

#[async_trait]
pub trait StateStore: Send + Sync {
    /// What to call it in messages: a path or a URL without credentials.
    fn name(&self) -> String;
    /// Durable when it returns. `line` has no line break; the store adds it.
    async fn append(&self, run: &RunId, line: &str) -> Result<(), Fault>;
    /// The same for several lines. What fails says how many of them are durable all the same.
    async fn append_all(&self, run: &RunId, lines: &[String]) -> Result<(), (usize, Fault)> {
        for (written, line) in lines.iter().enumerate() {
            self.append(run, line)
                .await
                .map_err(|fault| (written, fault))?;
        }
        Ok(())
    }
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
}
