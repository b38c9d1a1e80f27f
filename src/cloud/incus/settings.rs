//! Where an Incus server is and who we are for it: as its own client, `incus`, keeps it (`incus remote add`).
//!
//! `$INCUS_CONF`, or `~/.config/incus`: `config.yml`, `client.crt`, `client.key` and `servercerts/REMOTE.crt`. A
//! site's `region` is the name of the remote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Fault;
use crate::http::{Api, Mutual};

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    remotes: BTreeMap<String, Remote>,
}

#[derive(Deserialize)]
struct Remote {
    addr: String,
}

pub(super) fn open(remote: &str, folder: &Path) -> Result<Api, Fault> {
    let path = folder.join("config.yml");
    let config: Config = serde_yaml::from_slice(&read(&path)?).map_err(|error| {
        Fault::new(format!("cannot understand `{}`", path.display())).because(error)
    })?;
    let Some(Remote { addr }) = config.remotes.get(remote) else {
        let known: Vec<&str> = config.remotes.keys().map(String::as_str).collect();
        let why = format!("`{}` has: {}", path.display(), known.join(", "));
        return Err(Fault::new(format!("there is no remote `{remote}`"))
            .because(why)
            .hint(format!("incus remote add {remote} ADDRESS")));
    };
    if !addr.starts_with("https://") {
        let why = "hafog reaches Incus over HTTPS with a client certificate";
        return Err(Fault::new(format!("remote `{remote}` is at `{addr}`")).because(why));
    }
    let server = folder.join("servercerts").join(format!("{remote}.crt"));
    Api::mutual(
        addr,
        &Mutual {
            server: &read(&server)?,
            certificate: &read(&folder.join("client.crt"))?,
            key: &read(&folder.join("client.key"))?,
        },
    )
}

/// Where the client keeps its files.
pub(super) fn folder() -> Result<PathBuf, Fault> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config/incus"));
    std::env::var_os("INCUS_CONF")
        .map(PathBuf::from)
        .or_else(home)
        .ok_or_else(|| Fault::new("neither `INCUS_CONF` nor `HOME` is set"))
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path).map_err(|error| {
        Fault::new(format!("cannot read `{}`", path.display()))
            .because(error)
            .hint("incus remote add NAME ADDRESS")
    })
}
