//! The way into a real machine: OpenSSH, one connection a machine for many commands, and no host key but the known one.
//!
//! The system's own `ssh` does the work, so that agents, hardware keys, jump hosts and a person's `~/.ssh/config` count
//! as everywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::Host;
use super::systemd::{Output, Wire};
use super::tunnel::{Stream, Tunnel};
use crate::durable;
use crate::error::{Fault, Trouble, TroubleExt, innermost};
use crate::model::id::ServerName;
use crate::model::stack::Registered;

/// Where a server's own files are: what survives a change of its image.
pub const SERVER_DIRS: &str = "/var/lib/hafog";

/// Until a connection stands. A command with a shorter limit waits no longer than that.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The same, for who only wants to reach a port.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// How long a machine that boots may refuse connections.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// For how many seconds without a command a connection stands, also when whoever made it was killed.
const KEPT: NonZeroUsize = NonZeroUsize::new(60).expect("it is not zero");
/// How much of each output is kept.
const OUTPUT_MOST: usize = 64 << 20;

/// Before a server's name: the file with its host key.
const KNOWN: &str = "known-";

/// The public half of a machine's host key.
#[derive(Clone, Debug, PartialEq)]
pub struct HostKey(pub String);

/// Both halves of a new one.
pub struct HostKeyPair {
    pub public: String,
    pub private: String,
}

impl HostKeyPair {
    pub async fn make(name: &ServerName) -> Result<HostKeyPair, Fault> {
        let name = name.clone();
        durable::blocking(move || HostKeyPair::make_now(&name)).await
    }

    fn make_now(name: &ServerName) -> Result<HostKeyPair, Fault> {
        let cannot = |error: std::io::Error| {
            Fault::new(format!("cannot make a host key for `{name}`")).because(error)
        };
        let folder = tempfile::tempdir().map_err(cannot)?;
        let path = folder.path().join("key");
        generate(&path, name.as_str())?;
        let read = |path: &Path| std::fs::read_to_string(path).map_err(cannot);
        Ok(HostKeyPair {
            private: read(&path)?,
            public: read(&path.with_extension("pub"))?.trim().to_owned(),
        })
    }
}

fn generate(path: &Path, comment: &str) -> Result<(), Fault> {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Fault::new("cannot run `ssh-keygen`")
                .because(error)
                .hint("apt-get install openssh-client")
        })?;
    match made.status.success() {
        true => Ok(()),
        false => {
            Err(Fault::new("`ssh-keygen` failed")
                .because(String::from_utf8_lossy(&made.stderr).trim()))
        }
    }
}

/// How to come into a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    /// As root, with the stack's own key. No host key but this one is believed.
    Ours(HostKey),
    /// As a person's `ssh` does.
    Theirs(Registered),
}

#[derive(Default)]
struct Known {
    logins: BTreeMap<ServerName, (IpAddr, Login)>,
    sealed: BTreeSet<ServerName>,
    sessions: BTreeMap<ServerName, Slot>,
}

/// Whoever makes the connection holds it; the others wait for that one.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Session>>>>;

/// Connections to the servers of one site.
pub struct Ssh {
    folder: PathBuf,
    known: Mutex<Known>,
}

impl Ssh {
    /// `home` is where hafog keeps local files of the stack.
    pub fn open(home: &Path) -> Ssh {
        Ssh {
            folder: home.join("ssh"),
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a cloud says of a server.
    pub fn know(&self, name: &ServerName, address: IpAddr, login: Login, sealed: bool) {
        let now = (address, login);
        let mut known = self.known();
        match sealed {
            true => drop(known.sealed.insert(name.clone())),
            false => drop(known.sealed.remove(name)),
        }
        if known.logins.get(name) != Some(&now) {
            known.sessions.remove(name);
            known.logins.insert(name.clone(), now);
        }
    }

    pub async fn forget(&self, name: &ServerName) -> Result<(), Fault> {
        {
            let mut known = self.known();
            known.sessions.remove(name);
            known.logins.remove(name);
        }
        let hosts = self.hosts_path(name);
        durable::blocking(move || durable::remove(&hosts)).await
    }

    fn hosts_path(&self, name: &ServerName) -> PathBuf {
        self.folder.join(format!("{KNOWN}{name}"))
    }

    /// Removes the key with which hafog comes in, when there is no server left that knows it.
    pub async fn leave(&self) -> Result<(), Fault> {
        let folder = self.folder.clone();
        durable::blocking(move || {
            let names = durable::names(&folder)?;
            if names.is_empty() || names.iter().any(|name| name.starts_with(KNOWN)) {
                return Ok(());
            }
            durable::remove(&folder)
        })
        .await
    }

    /// Ends the connection: the machine behind it is another one from now on.
    pub fn hang_up(&self, name: &ServerName) {
        self.known().sessions.remove(name);
    }

    fn key_path(&self) -> PathBuf {
        self.folder.join("id_ed25519")
    }

    /// The public half of the key with which hafog comes in, made when there is none.
    pub async fn public_key(&self) -> Result<String, Fault> {
        let (folder, path) = (self.folder.clone(), self.key_path());
        durable::blocking(move || {
            durable::make_folders(&folder, 0o700)?;
            let _lock = durable::lock_in(&folder, "lock", Duration::from_secs(10))?;
            let public = path.with_extension("pub");
            if durable::read(&public)?.is_none() {
                durable::remove(&path)?;
                generate(&path, "hafog")?;
            }
            let bytes = durable::read(&public)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        })
        .await
    }

    async fn session(&self, on: &Host, limit: Duration) -> Result<Arc<Session>, Fault> {
        let (slot, login) = {
            let mut known = self.known();
            let slot = known.sessions.entry(on.name.clone()).or_default().clone();
            (slot, known.logins.get(&on.name).cloned())
        };
        let began = Instant::now();
        let Ok(mut kept) = tokio::time::timeout(limit, slot.lock()).await else {
            let limit = limit.as_secs_f64();
            let message = format!("server `{}` does not answer within {limit} s", on.name);
            return Err(Fault::unavailable(message));
        };
        if let Some(session) = kept.take()
            && session.check().await.is_ok()
        {
            *kept = Some(session.clone());
            return Ok(session);
        }
        let Some((address, login)) = login.filter(|(address, _)| *address == on.address) else {
            return Err(Fault::unavailable(format!(
                "no way is known into `{}` at {}",
                on.name, on.address
            )));
        };
        let until = (began, began + limit.min(BOOT_LIMIT));
        let session = Arc::new(self.connect(&on.name, address, &login, until).await?);
        *kept = Some(session.clone());
        Ok(session)
    }

    /// A machine that refuses is booting, for a while; one that is silent is waited for once.
    async fn connect(
        &self,
        name: &ServerName,
        address: IpAddr,
        login: &Login,
        (began, until): (Instant, Instant),
    ) -> Result<Session, Fault> {
        let hosts = self.hosts_path(name);
        let host_key = match login {
            Login::Ours(HostKey(key)) => Some(key),
            Login::Theirs(host) => host.host_key.as_ref(),
        };
        // The file is for this server alone.
        let line = host_key.map(|key| format!("* {key}\n"));
        let (folder, written) = (self.folder.clone(), hosts.clone());
        durable::blocking(move || {
            durable::make_folders(&folder, 0o700)?;
            match line {
                Some(line) => durable::replace(&written, line.as_bytes(), 0o600, None),
                None => Ok(()),
            }
        })
        .await?;
        let destination = match login {
            Login::Ours(_) => address.to_string(),
            Login::Theirs(host) => host.host.clone(),
        };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let late = |cause: &dyn std::fmt::Display| {
                let limit = (until - began).as_secs_f64();
                Fault::unavailable(format!("server `{name}` does not answer within {limit} s"))
                    .because(cause)
            };
            let mut builder = SessionBuilder::default();
            match login {
                Login::Ours(_) => {
                    builder.user("root".to_owned()).keyfile(self.key_path());
                }
                Login::Theirs(host) => {
                    if let Some(user) = &host.user {
                        builder.user(user.clone());
                    }
                    if let Some(port) = host.port {
                        builder.port(port);
                    }
                }
            }
            if host_key.is_some() {
                builder.user_known_hosts_file(&hosts);
            }
            builder
                .known_hosts_check(KnownHosts::Strict)
                .control_persist(ControlPersist::IdleFor(KEPT))
                .control_directory(&self.folder)
                .connect_timeout(left.min(CONNECT_LIMIT).max(Duration::from_secs(1)))
                .server_alive_interval(Duration::from_secs(5));
            let connecting = builder.connect(&destination);
            let error = match tokio::time::timeout(left, connecting).await {
                Err(_) => return Err(late(&"the connection does not come to stand")),
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => error,
            };
            let why = innermost(&error);
            // One that was there before us does not boot because of us.
            let boots = matches!(login, Login::Ours(_));
            let passing = boots
                && ["refused", "reset", "closed"]
                    .iter()
                    .any(|word| why.contains(word));
            if !passing {
                let message = format!("cannot connect to server `{name}` at {address}");
                let fault = Fault::unavailable(message).because(&why);
                let hint = self.remedy(login, &why);
                return Err(hint.into_iter().fold(fault, Fault::hint));
            }
            if Instant::now() + POLL >= until {
                return Err(late(&why));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Ssh {
    fn remedy(&self, login: &Login, why: &str) -> Option<String> {
        match login {
            Login::Ours(_) if why.contains("Permission denied") => Some(format!(
                "put back `{}`, the key that the servers of this stack let in",
                self.key_path().display()
            )),
            Login::Ours(_) => None,
            Login::Theirs(host) => {
                let port = host.port.map(|port| format!("-p {port} "));
                let user = host.user.as_ref().map(|user| format!("{user}@"));
                let (port, user) = (port.unwrap_or_default(), user.unwrap_or_default());
                Some(format!(
                    "ssh {port}{user}{} true, and see what it says",
                    host.host
                ))
            }
        }
    }
}

/// As `ssh -W` takes it.
fn target(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// Reads to the end and keeps the beginning.
async fn collect(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from else { return kept };
    let mut part = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut part).await {
        let room = OUTPUT_MOST - kept.len();
        kept.extend_from_slice(&part[..count.min(room)]);
    }
    kept
}

#[async_trait]
impl Wire for Ssh {
    async fn dial(&self, on: &Host, port: u16) -> io::Result<Stream> {
        let session = self.session(on, DIAL_LIMIT).await;
        let session = session.map_err(|fault| io::Error::new(ErrorKind::HostUnreachable, fault))?;
        let child = tokio::process::Command::new("ssh")
            .arg("-S")
            .arg(session.control_socket())
            // Were the connection gone, `ssh` would make a new one to what is no host.
            .args(["-o", "BatchMode=yes", "-o", "ProxyCommand=none", "-p", "9"])
            .args(["-W", &target(on.address, port)])
            .args(["--", "none"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Stream::Tunnel(Box::new(Tunnel::new(child, session)?)))
    }

    fn is_sealed(&self, on: &Host) -> bool {
        self.known().sealed.contains(&on.name)
    }

    async fn exec(
        &self,
        on: &Host,
        argv: &[String],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<Output, Trouble> {
        let session = self.session(on, limit).await.nothing_changed()?;
        let [program, arguments @ ..] = argv else {
            return Err(Trouble::NothingChanged(Fault::new("the command is empty")));
        };
        let lost = |error: &dyn std::error::Error| {
            let message = format!("the connection to `{}` was lost", on.name);
            Trouble::Unknown(Fault::unavailable(message).because(innermost(error)))
        };
        let mut child = session
            .command(program.as_str())
            .args(arguments)
            .stdin(openssh::Stdio::piped())
            .stdout(openssh::Stdio::piped())
            .stderr(openssh::Stdio::piped())
            .spawn()
            .await
            .map_err(|error| lost(&error))?;
        let stdin = child.stdin().take();
        let (stdout, stderr) = (child.stdout().take(), child.stderr().take());
        let talk = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // Who does not read it all has ended, and says so with its code.
                    let _ = stdin.write_all(&input).await;
                    let _ = stdin.shutdown().await;
                }
            };
            let ((), out, err, ended) =
                tokio::join!(feed, collect(stdout), collect(stderr), child.wait());
            (out, err, ended)
        };
        let Ok((stdout, stderr, ended)) = tokio::time::timeout(limit, talk).await else {
            return Err(Trouble::Unknown(Fault::unavailable(format!(
                "`{program}` on `{}` did not end within {} s",
                on.name,
                limit.as_secs_f64()
            ))));
        };
        let code = match ended {
            Ok(status) => status.code().unwrap_or(-1),
            // Any command that ends with 127 is taken for one that is not there.
            Err(openssh::Error::Remote(error)) if error.kind() == ErrorKind::NotFound => 127,
            Err(error) => {
                self.hang_up(&on.name);
                return Err(lost(&error));
            }
        };
        Ok(Output {
            code,
            stdout,
            stderr,
        })
    }
}
