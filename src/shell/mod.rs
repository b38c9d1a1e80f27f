//! A server seen through a shell: commands, files, services and ports. `local` has them here; [`systemd`] has them on
//! whole machines.
//!
//! Commands are values, so that they can be printed, redacted and tested. A path inside a server is always made
//! from [`Dirs`], because on `local` a server's root is a folder.

pub mod here;
pub mod sites;
pub mod ssh;
pub mod systemd;
pub mod tunnel;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use self::tunnel::Stream;
use crate::error::{Fault, Trouble};
use crate::model::id::{ServerName, SiteName};

/// Where to reach a server and where its folders are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub name: ServerName,
    pub site: SiteName,
    pub address: IpAddr,
    pub dirs: Dirs,
}

/// Absolute paths on the machine that runs the server's processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dirs {
    /// The image's tree; read-only.
    pub image: String,
    /// Configuration that belongs to this server.
    pub etc: String,
    /// Data that survives a change of image.
    pub data: String,
    pub log: String,
}

/// A command as a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// `None`: the server's data folder.
    pub dir: Option<String>,
    /// Run as the server's unprivileged service user (databases refuse to run as root).
    pub as_service_user: bool,
    pub limit: Duration,
}

impl Command {
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Command {
        Command {
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            dir: None,
            as_service_user: false,
            limit: Duration::from_secs(60),
        }
    }
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Command {
        self.env.insert(name.to_owned(), value.into());
        self
    }
    pub fn service_user(mut self) -> Command {
        self.as_service_user = true;
        self
    }
    pub fn limit(mut self, limit: Duration) -> Command {
        self.limit = limit;
        self
    }
}

/// A command that ended. A non-zero code is not a fault of the shell.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A file to be put on a server.
#[derive(Clone, PartialEq)]
pub struct File {
    pub path: String,
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// Owned by the service user.
    pub for_service_user: bool,
}

/// A long-running program that the server keeps up: restarted when it crashes, started again at boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    /// Runs to completion before each start (systemd's ExecStartPre).
    pub before: Vec<Vec<String>>,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// `KEY=value` lines, mode 0600; read at each start. Where secrets are.
    pub env_file: Option<String>,
    pub as_service_user: bool,
    /// Signal that asks for a clean stop, and how long it is waited for before SIGKILL.
    pub stop_signal: StopSignal,
    pub stop_limit: Duration,
    /// Signal that asks to read the configuration again.
    #[serde(default)]
    pub reload_signal: ReloadSignal,
    /// Whether a boot of the server starts it.
    pub at_boot: bool,
}

impl Service {
    /// Started at boot, as root, stopped with SIGTERM and told with SIGHUP, with nothing in its environment.
    pub fn new(name: impl Into<String>, argv: Vec<String>, stop_limit: Duration) -> Service {
        Service {
            name: name.into(),
            before: Vec::new(),
            argv,
            env: BTreeMap::new(),
            env_file: None,
            as_service_user: false,
            stop_signal: StopSignal::Term,
            stop_limit,
            reload_signal: ReloadSignal::Hup,
            at_boot: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopSignal {
    Term,
    /// PostgreSQL's "fast" shutdown.
    Int,
    /// PostgreSQL's "immediate" shutdown.
    Quit,
    /// HAProxy's soft stop.
    Usr1,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadSignal {
    #[default]
    Hup,
    /// HAProxy's master.
    Usr2,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    pub name: String,
    pub running: bool,
    /// What the supervisor was told last.
    pub wanted: bool,
    pub pid: Option<u32>,
    /// Starts since the server booted; more than one means that it crashed or was restarted.
    pub starts: u32,
    /// Why it is not running, when it should be.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceChange {
    /// Writes the definition; does not start it. A definition that is there already is replaced.
    Install(Box<Service>),
    /// Returns when the process has been started (not when it answers).
    Start,
    /// Returns when the process is gone. `fast` gives another signal than the definition's.
    Stop {
        signal: Option<StopSignal>,
    },
    Restart,
    /// SIGHUP, or HAProxy's USR2 where the definition says so.
    Reload,
    /// Stops it and forgets the definition.
    Remove,
}

#[async_trait]
pub trait Shell: Send + Sync {
    /// Runs to completion. A command that outlives its limit is killed, with its children, and is `Unknown`.
    async fn run(&self, on: &Host, command: &Command) -> Result<Ran, Trouble>;
    /// Makes the server's folders and gives them to the service user, whom a package may have brought since.
    async fn prepare(&self, _: &Host) -> Result<(), Trouble> {
        Ok(())
    }
    /// Writes beside, fsyncs and renames, so that a reader sees the old or the new file.
    async fn put(&self, on: &Host, file: &File) -> Result<(), Trouble>;
    /// `None` when there is no such file.
    async fn get(&self, on: &Host, path: &str) -> Result<Option<Vec<u8>>, Fault>;
    /// The last bytes of a file that may be big; nothing when there is no such file.
    async fn end_of(&self, on: &Host, path: &str, most: usize) -> Result<Vec<u8>, Fault> {
        let bytes = self.get(on, path).await?.unwrap_or_default();
        Ok(bytes[bytes.len().saturating_sub(most)..].to_vec())
    }
    /// Removes a file or a folder with all that is in it; already gone is success. Only below `Dirs::etc`, `data`, `log`.
    async fn remove(&self, on: &Host, path: &str) -> Result<(), Trouble>;
    async fn services(&self, on: &Host) -> Result<Vec<ServiceState>, Fault>;
    async fn service(&self, on: &Host, name: &str, change: ServiceChange) -> Result<(), Trouble>;
    /// A connection to a port of the server's own address, within a limit of the way's own.
    async fn dial(&self, on: &Host, port: u16) -> io::Result<Stream> {
        straight(on, port).await
    }
}

/// For a connection without any detour.
const STRAIGHT_LIMIT: Duration = Duration::from_secs(2);

async fn straight(on: &Host, port: u16) -> io::Result<Stream> {
    let connect = TcpStream::connect((on.address, port));
    let stream = tokio::time::timeout(STRAIGHT_LIMIT, connect).await??;
    stream.set_nodelay(true)?;
    Ok(Stream::Straight(stream))
}
