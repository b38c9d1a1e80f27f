//! `hafog store`: a folder of this machine, for whoever comes by SSH.

use std::path::{Path, PathBuf};

use super::Ended;
use crate::error::Fault;
use crate::exit;
use crate::program;
use crate::state::dir::DirStore;
use crate::state::door::Door;
use crate::state::wire::{self, Rights};

/// Where sshd has its keys.
const SSHD: &str = "/etc/ssh";

/// Answers on standard output what is asked on standard input, until that ends. `only`: the documents that may be known.
pub async fn run(folder: &Path, only: &[String]) -> Ended {
    let rights = match only {
        [] => Rights::Everything,
        only => Rights::Documents(only.to_vec()),
    };
    let store = DirStore::behind(door(folder)?);
    wire::serve(&store, &rights, tokio::io::stdin(), tokio::io::stdout()).await?;
    Ok(exit::DONE)
}

fn door(folder: &Path) -> Result<Door, Fault> {
    let absolute = std::path::absolute(folder).map_err(|error| {
        Fault::new(format!("`{}` is no folder", folder.display())).because(error)
    })?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.ok_or_else(|| Fault::new("`HOME` is not set"))?;
    Ok(Door {
        folder: absolute,
        home: home.join(".ssh"),
        program: program::text()?,
        sshd: SSHD.into(),
    })
}
