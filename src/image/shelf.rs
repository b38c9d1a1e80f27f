//! What is kept here of an image that was made: how it was made, and what is in it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::Fault;
use crate::model::id::{ImageName, SiteName};

const MODE: u32 = 0o600;

pub struct Shelf {
    log: PathBuf,
    sbom: PathBuf,
}

impl Shelf {
    /// `home` is where hafog keeps local files of the stack.
    pub fn of(home: &Path, site: &SiteName, image: &ImageName) -> Shelf {
        let folder = home.join("images").join(site.as_str());
        Shelf {
            log: folder.join(format!("{image}.log")),
            sbom: folder.join(format!("{image}.cdx.json")),
        }
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub fn sbom(&self) -> &Path {
        &self.sbom
    }

    /// `None`: there is none here.
    pub fn read_sbom(&self) -> Result<Option<Vec<u8>>, Fault> {
        match std::fs::read(&self.sbom) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(durable::fault("read", &self.sbom, error)),
        }
    }

    /// Adds to the log, after whatever earlier attempts said.
    pub async fn say(&self, text: String) -> Result<(), Fault> {
        let path = self.log.clone();
        durable::blocking(move || {
            make_folder(&path)?;
            let mut options = OpenOptions::new();
            let file = options.append(true).create(true).mode(MODE).open(&path);
            let wrote = file.and_then(|mut file| file.write_all(text.as_bytes()));
            wrote.map_err(|error| durable::fault("write", &path, error))
        })
        .await
    }

    pub async fn put_sbom(&self, bytes: Vec<u8>) -> Result<(), Fault> {
        let path = self.sbom.clone();
        durable::blocking(move || {
            make_folder(&path)?;
            durable::replace(&path, &bytes, MODE, None)
        })
        .await
    }

    /// Nothing there already is success.
    pub async fn clear(&self) -> Result<(), Fault> {
        let (log, sbom) = (self.log.clone(), self.sbom.clone());
        durable::blocking(move || {
            durable::remove(&log)?;
            durable::remove(&sbom)?;
            // The last one takes the folders along; one that is in use stays.
            let folder = log.parent();
            for folder in folder.into_iter().chain(folder.and_then(Path::parent)) {
                let _ = std::fs::remove_dir(folder);
            }
            Ok(())
        })
        .await
    }
}

fn make_folder(path: &Path) -> Result<(), Fault> {
    durable::make_folders(path.parent().expect("it is in a folder"), 0o700)
}
