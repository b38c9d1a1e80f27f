//! What each host was when it last answered: kept here, for when it does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cloud::Server;
use crate::durable;
use crate::error::Fault;
use crate::model::id::SiteName;

/// By host; `None` is no server of ours.
pub(super) type Noted = BTreeMap<String, Option<Server>>;

pub(super) struct Note {
    path: PathBuf,
}

impl Note {
    pub(super) fn at(home: &Path, site: &SiteName) -> Note {
        Note {
            path: home.join("hosts").join(format!("{site}.json")),
        }
    }

    /// What cannot be read was never noted.
    pub(super) async fn read(&self) -> Result<Noted, Fault> {
        let path = self.path.clone();
        let bytes = durable::blocking(move || durable::read(&path)).await?;
        Ok(bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default())
    }

    /// Writes nothing where nothing changed, and keeps nothing of a site without servers.
    pub(super) async fn write(&self, before: &Noted, now: Noted) -> Result<(), Fault> {
        if now.values().all(Option::is_none) {
            return self.remove().await;
        }
        if *before == now {
            return Ok(());
        }
        let path = self.path.clone();
        let bytes = serde_json::to_vec_pretty(&now).expect("servers are JSON");
        durable::blocking(move || {
            durable::make_folders(path.parent().expect("it is in a folder"), 0o700)?;
            durable::replace(&path, &bytes, 0o600, None)
        })
        .await
    }

    /// With its folder, when it is the last one.
    pub(super) async fn remove(&self) -> Result<(), Fault> {
        let path = self.path.clone();
        durable::blocking(move || {
            durable::remove(&path)?;
            if let Some(folder) = path.parent() {
                let _ = std::fs::remove_dir(folder);
            }
            Ok(())
        })
        .await
    }
}
