//! Files that follow the primary site: what their servers are told, and what they report. Who acts on it is in
//! [`crate::files`].

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{FilesName, ServerName, SiteName};
use super::units::{Bytes, Span};

/// The service that keeps them in step.
pub const FILES_SERVICE: &str = "hafog-files";
/// Below the folder of the configuration.
pub const CONFIG: &str = "config.json";
/// A server's own key for the others.
pub const KEY: &str = "id_ed25519";
/// In the folder of the files: it is the one, and it was whole once.
pub const MARK: &str = ".hafog-files";

/// What a server is told. No secret in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub server: ServerName,
    pub site: SiteName,
    /// It gives its files out while its site is primary.
    pub first: bool,
    /// Where it is told its role.
    pub role_file: PathBuf,
    /// This program, as the others' keys start it.
    pub program: String,
    /// A whole machine, which others reach by SSH.
    pub machine: bool,
    pub files: Vec<Kept>,
    /// The other servers of the group, at every site.
    pub peers: Vec<Peer>,
    /// Of the hafog that wrote this.
    pub version: String,
}

/// One entry of the spec's `files`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub name: FilesName,
    /// Where they are.
    pub folder: PathBuf,
    /// Where applications look for them, when that is another place: a link to the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<PathBuf>,
    /// Whose folder it is, when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Time from the end of one copy to the beginning of the next.
    pub every: Span,
    /// Bytes a second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// Files that may go in one copy.
    pub most_deleted: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub server: ServerName,
    pub site: SiteName,
    pub first: bool,
    pub address: IpAddr,
    /// Of its SSH server.
    pub port: u16,
    /// As OpenSSH writes it. Empty where it is no machine.
    pub host_key: String,
    /// With which it comes to others.
    pub key: String,
    /// Where its configuration is, when it is no machine but a folder of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// What somebody wants done now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Of whoever asks; the report says it back.
    pub id: String,
    /// Compare contents, not only sizes and times.
    #[serde(default)]
    pub verify: bool,
    /// From this server, whatever its role: the folder here was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<ServerName>,
    /// Instead of the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_deleted: Option<u64>,
}

/// What became of the copies, as the server that made them writes it down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the last copy that was whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
    /// Why nothing was copied since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<TroubleSince>,
    /// The last ask that was answered, also by a trouble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
    /// The newest epoch of a source that was seen.
    #[serde(default)]
    pub epoch: u64,
    /// Folders with what was put aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    pub source: ServerName,
    pub epoch: u64,
    /// When the copy began, by the clock of the server that made it: what the source had then is here.
    pub began: Timestamp,
    pub ended: Timestamp,
    /// All that there are.
    pub files: u64,
    /// Those that came.
    pub copied: u64,
    pub deleted: u64,
    /// When contents were compared last, and how many had the right size and time and were other ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    pub at: Timestamp,
    pub mended: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TroubleSince {
    pub since: Timestamp,
    pub why: String,
    /// More files would go than may: nothing goes until somebody says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_delete: Option<u64>,
}

/// Paths of one server's documents, below the folder of its configuration.
pub fn ask_path(name: &FilesName) -> String {
    format!("{name}.ask.json")
}

pub fn report_path(name: &FilesName) -> String {
    format!("{name}.report.json")
}

impl Kept {
    pub fn mark(&self) -> PathBuf {
        self.folder.join(MARK)
    }

    /// Beside the files, on the same file system: parts of copies, and what is put aside.
    pub fn beside(&self) -> PathBuf {
        let mut name = self.folder.clone().into_os_string();
        name.push(".hafog");
        PathBuf::from(name)
    }
}

/// What the mark says.
pub fn mark_of(name: &FilesName) -> String {
    format!("files {name}\n")
}
