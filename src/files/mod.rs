//! Files that follow the primary site, on the servers of their group.
//!
//! One server has them: the first of its group at the primary site. Every other server of the group copies from it,
//! with rsync over SSH, by itself ([`keep`]). Who copies asks, and who is asked decides ([`give`]): a server gives its files
//! out only while it was told that its site is primary, is the first there, and finds its mark in the folder, so that
//! an empty mount is no source. So two servers that take each other for the primary change nothing, and neither do two
//! standbys.
//!
//! What a server alone has is never removed. While it follows the same server as before, under the same epoch, it is a
//! copy and nothing else, and files that went there go here, up to a bound. Whenever it follows another one, everything
//! that differs is put aside first ([`pull`]).

mod give;
mod keep;
mod pull;
mod way;

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::durable;
use crate::error::Fault;
use crate::model::files::{CONFIG, Config, Kept, Peer};
use crate::model::roles::SiteRole;

pub use give::give;
pub use keep::{keep, prepare};
pub use way::way;

/// `folder` is where the configuration is.
pub fn read(folder: &Path) -> Result<Config, Fault> {
    let path = folder.join(CONFIG);
    document(&path)?.ok_or_else(|| {
        let fault = Fault::new(format!("there is no `{}`", path.display()));
        fault.hint("hafog up, where the spec is")
    })
}

fn document<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Fault> {
    let Some(bytes) = durable::read(path)? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some)
        .map_err(|error| durable::fault("understand", path, error))
}

fn kept<'a>(config: &'a Config, name: &str) -> Option<&'a Kept> {
    config.files.iter().find(|kept| kept.name.as_str() == name)
}

fn peer<'a>(config: &'a Config, server: &str) -> Option<&'a Peer> {
    let mut peers = config.peers.iter();
    peers.find(|peer| peer.server.as_str() == server)
}

/// What this server was told, and of which epoch.
fn told(config: &Config) -> Option<(SiteRole, u64)> {
    SiteRole::of_token(&std::fs::read_to_string(&config.role_file).ok()?)
}
