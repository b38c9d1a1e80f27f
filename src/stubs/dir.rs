// STUB(lead): state::dir is merged later. No locks and no fsync here.

use std::path::PathBuf;

use async_trait::async_trait;

use super::{PutError, StateStore, Version};
use crate::error::Fault;
use crate::model::id::RunId;

pub struct DirStore(PathBuf);

impl DirStore {
    pub fn new(folder: PathBuf) -> DirStore {
        DirStore(folder)
    }
    fn run(&self, run: &RunId) -> PathBuf {
        self.0.join("journals").join(format!("{run}.ndjson"))
    }
    fn document(&self, key: &str) -> PathBuf {
        self.0.join("documents").join(key)
    }
}

fn failed(error: std::io::Error) -> Fault {
    Fault::new("the folder cannot be used").because(error)
}

fn read(path: PathBuf) -> Result<Option<Vec<u8>>, Fault> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[async_trait]
impl StateStore for DirStore {
    fn name(&self) -> String {
        self.0.display().to_string()
    }
    async fn append(&self, run: &RunId, line: &str) -> Result<(), Fault> {
        let path = self.run(run);
        std::fs::create_dir_all(path.parent().expect("below the folder")).map_err(failed)?;
        let mut bytes = read(path.clone())?.unwrap_or_default();
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        std::fs::write(path, bytes).map_err(failed)
    }
    async fn read(&self, run: &RunId) -> Result<Option<Vec<u8>>, Fault> {
        read(self.run(run))
    }
    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        let Ok(entries) = std::fs::read_dir(self.0.join("journals")) else {
            return Ok(Vec::new());
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut runs: Vec<RunId> = names
            .filter_map(|name| Some(RunId::new(name.to_str()?.strip_suffix(".ndjson")?)))
            .collect();
        runs.sort();
        Ok(runs)
    }
    async fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, Fault> {
        let bytes = read(self.document(key))?;
        Ok(bytes.map(|bytes| {
            let version = Version(String::from_utf8_lossy(&bytes).into_owned());
            (bytes, version)
        }))
    }
    async fn put(
        &self,
        key: &str,
        bytes: &[u8],
        expect: Option<&Version>,
    ) -> Result<Version, PutError> {
        let now = self.get(key).await.map_err(PutError::Fault)?;
        if now.map(|(_, version)| version).as_ref() != expect {
            return Err(PutError::Changed);
        }
        let path = self.document(key);
        let write = || {
            std::fs::create_dir_all(path.parent().expect("below the folder"))?;
            std::fs::write(&path, bytes)
        };
        write().map_err(|error| PutError::Fault(failed(error)))?;
        Ok(Version(String::from_utf8_lossy(bytes).into_owned()))
    }
    async fn delete(&self, key: &str) -> Result<(), Fault> {
        match std::fs::remove_file(self.document(key)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}
