//! Generations on disk and in memory.
//!
//! `zones.json` in the folder holds the last generation, with a digest. A generation is written beside it, fsynced and
//! renamed before anybody is answered from it, so a server that was killed serves the same generation when it is
//! started again. The data of a generation never changes: a change makes the one with the next number. A file that is
//! torn or was edited is a fault, and never an empty zone.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::{ArcSwap, Guard};
use serde::{Deserialize, Serialize};

use crate::dns::serve_control::Generation;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::digest::sha256;

use super::snapshot::Snapshot;

pub const FILE: &str = "zones.json";
const BESIDE: &str = "zones.json.new";
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    digest: String,
    generation: Generation,
}

/// Held by the one who makes the next generation.
struct Writing {
    /// The file is gone and the server is about to be: a change now would be lost.
    over: bool,
}

pub struct Store {
    folder: PathBuf,
    held: ArcSwap<Snapshot>,
    writing: Mutex<Writing>,
}

impl Store {
    /// Reads the last generation; no file is the empty generation 0.
    pub fn open(folder: &Path) -> Result<Store, Fault> {
        let generation = match fs::read(folder.join(FILE)) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Generation::default()),
            Err(error) => Err(Fault::new("unreadable").because(error)),
        };
        let snapshot = generation.and_then(Snapshot::build).map_err(|fault| {
            fault.while_doing(format!(
                "cannot serve `{}`: restore it, or remove it to begin without zones",
                folder.join(FILE).display()
            ))
        })?;
        Ok(Store {
            folder: folder.to_owned(),
            held: ArcSwap::from_pointee(snapshot),
            writing: Mutex::new(Writing { over: false }),
        })
    }

    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.held.load()
    }

    /// Makes the next generation from the current one. `change` may refuse, or return `None` for nothing to do.
    /// Returns the generation that holds afterwards.
    pub fn change(
        &self,
        change: impl FnOnce(&Generation) -> Result<Option<Generation>, Fault>,
    ) -> Result<Arc<Snapshot>, Trouble> {
        let writing = self.writing()?;
        let now = self.held.load_full();
        match change(&now.generation).nothing_changed()? {
            None => Ok(now),
            Some(next) => self.put(
                &writing,
                Generation {
                    number: now.generation.number + 1,
                    ..next
                },
            ),
        }
    }

    fn writing(&self) -> Result<MutexGuard<'_, Writing>, Trouble> {
        let writing = self.writing.lock().expect("no writer panics");
        if writing.over {
            return Err(Trouble::NothingChanged(Fault::unavailable(
                "the name server is stopping",
            )));
        }
        Ok(writing)
    }

    /// Only for who holds the lock.
    fn put(&self, _: &MutexGuard<'_, Writing>, next: Generation) -> Result<Arc<Snapshot>, Trouble> {
        let snapshot = Arc::new(Snapshot::build(next).nothing_changed()?);
        self.write(&snapshot.generation)?;
        self.held.store(snapshot.clone());
        Ok(snapshot)
    }

    fn write(&self, generation: &Generation) -> Result<(), Trouble> {
        let path = self.folder.join(FILE);
        let fault = |error: std::io::Error| {
            Fault::new(format!("cannot write `{}`", path.display())).because(error)
        };
        let beside = self.folder.join(BESIDE);
        let prepare = || {
            let mut file = File::create(&beside)?;
            file.write_all(&render(generation))?;
            file.sync_all()
        };
        prepare().map_err(fault).nothing_changed()?;
        fs::rename(&beside, &path)
            .map_err(fault)
            .nothing_changed()?;
        // From here a restart may serve it, although this process does not: the caller has to look.
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(fault)
            .unknown()
    }

    /// Removes the file of an empty last generation, so that nothing is left behind. No change is taken afterwards.
    pub fn remove_if_empty(&self) -> Result<(), Fault> {
        let mut writing = self.writing.lock().expect("no writer panics");
        let zones = &self.held.load().generation.zones;
        if !zones.is_empty() {
            let names: Vec<String> = zones
                .iter()
                .map(|zone| format!("`{}`", zone.name))
                .collect();
            return Err(Fault::refused(format!(
                "{} still served",
                names.join(" and ")
            )));
        }
        for name in [BESIDE, FILE] {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Fault::new(format!("cannot remove `{name}`")).because(error));
                }
                _ => {}
            }
        }
        writing.over = true;
        Ok(())
    }
}

fn digest(generation: &Generation) -> String {
    let bytes = serde_json::to_vec(generation).expect("a generation is plain data");
    sha256(&bytes)
}

fn render(generation: &Generation) -> Vec<u8> {
    let document = Document {
        format: FORMAT,
        digest: digest(generation),
        generation: generation.clone(),
    };
    let mut bytes = serde_json::to_vec_pretty(&document).expect("a generation is plain data");
    bytes.push(b'\n');
    bytes
}

fn parse(bytes: &[u8]) -> Result<Generation, Fault> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| Fault::new("the file is torn or no generation").because(error))?;
    if document.format != FORMAT {
        return Err(Fault::new(format!(
            "format {} is not known, only {FORMAT}",
            document.format
        )));
    }
    if digest(&document.generation) != document.digest {
        return Err(Fault::new("the digest does not fit the content"));
    }
    Ok(document.generation)
}

/// For `fuzz`.
#[cfg(test)]
pub(crate) fn hostile(bytes: &[u8]) {
    let _ = parse(bytes).map(Snapshot::build);
    // Behind the digest too.
    if let Ok(document) = serde_json::from_slice::<Document>(bytes) {
        let _ = Snapshot::build(document.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::serve_control::ServedZone;

    fn generation(number: u64, zone: &str) -> Generation {
        Generation {
            number,
            zones: vec![ServedZone {
                name: zone.into(),
                server: format!("ns1.{zone}").as_str().into(),
                addresses: vec![],
                sets: vec![],
            }],
        }
    }

    #[test]
    fn each_change_is_on_disk_under_the_next_number() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let read = || Store::open(folder.path()).unwrap();
        for (number, zone) in [(1, "shop.test"), (2, "other.test")] {
            let next = generation(0, zone);
            store.change(|_| Ok(Some(next))).unwrap();
            assert_eq!(store.snapshot().generation, generation(number, zone));
            // What is served is what is on disk.
            assert_eq!(read().snapshot().generation, generation(number, zone));
        }
        let refused = store.change(|_| Err(Fault::refused("no")));
        assert!(matches!(refused, Err(Trouble::NothingChanged(_))));
        store.change(|_| Ok(None)).unwrap();
        assert_eq!(read().snapshot().generation, generation(2, "other.test"));
    }
}
