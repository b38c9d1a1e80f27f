//! The DNS host `serve`: hafog's own name server on this machine, driven through its control socket.
//!
//! `open_zone` starts `hafog dns serve` as a process of its own session when nobody answers; it outlives the command,
//! and several zones of one folder share it. After a crash the next `open_zone` starts it again, with the generation
//! that it had. The last `close_zone` stops it and removes its files.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::control;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{HostName, ZoneName};
use crate::model::record::{RecordSet, RecordType};
use crate::model::units::Ttl;

use super::ask::ask;
use super::canonical::canonical_zone;
use super::serve_control::{Generation, Hello, PURPOSE, Reply, Request};
use super::{DnsHost, DnsHostAbout, RecordChange, ZoneSettings, ZoneState};

pub const ABOUT: DnsHostAbout = DnsHostAbout {
    name: "serve",
    about: "hafog's own name server, on this machine",
    settings: &["listen", "folder"],
    open: |settings| Ok(Arc::new(ServeHost::new(settings)?)),
};

/// One request on the control socket.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// From the start of the process until it answers; and from "stop" until it is gone.
const START_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Unprivileged, so that it works for everybody.
const PORT: u16 = 5353;
/// In the server's folder.
const LOG: &str = "serve.log";

pub struct ServeHost {
    zone: ZoneName,
    folder: PathBuf,
    listen: SocketAddr,
    /// The spec says where to listen; otherwise any address that the folder's server has is fine.
    listen_is_set: bool,
}

impl ServeHost {
    pub fn new(settings: &ZoneSettings) -> Result<ServeHost, Fault> {
        let home = &settings.home;
        if !home.is_absolute() {
            return Err(Fault::new(format!("`{}` is not absolute", home.display())));
        }
        let set = settings.settings.get("listen");
        let listen = match set {
            None => default_listen(home.as_os_str().as_encoded_bytes()),
            Some(text) => text
                .parse()
                .ok()
                .filter(|address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified())
                .ok_or_else(|| {
                    Fault::new(format!(
                        "`listen` of zone `{}` should be an address and a port such as `127.0.0.1:5353`, got `{text}`",
                        settings.zone
                    ))
                })?,
        };
        Ok(ServeHost {
            zone: canonical_zone(&settings.zone),
            // Joining an absolute folder gives that folder.
            folder: home.join(
                settings
                    .settings
                    .get("folder")
                    .map_or("names", String::as_str),
            ),
            listen,
            listen_is_set: set.is_some(),
        })
    }

    async fn send(&self, request: &Request) -> Result<Reply, Trouble> {
        let reply = control::ask(PURPOSE, &self.folder, request, ASK_LIMIT).await?;
        match reply {
            Reply::Refused { why } => Err(Trouble::NothingChanged(
                Fault::refused(format!("the name server of zone `{}` refused", self.zone))
                    .because(why),
            )),
            Reply::Unknown { why } => Err(Trouble::Unknown(
                Fault::new(format!(
                    "the name server of zone `{}` may have done it",
                    self.zone
                ))
                .because(why),
            )),
            reply => Ok(reply),
        }
    }

    async fn hello(&self) -> Result<Hello, Trouble> {
        match self.send(&Request::Hello).await? {
            Reply::Hello(hello) => Ok(hello),
            other => Err(Trouble::Unknown(unexpected(&other))),
        }
    }

    /// The running server, or `None` when nobody listens.
    async fn running(&self) -> Result<Option<Hello>, Fault> {
        match self.hello().await {
            Ok(hello) => Ok(Some(hello)),
            Err(Trouble::NothingChanged(_)) if self.is_absent().await => Ok(None),
            Err(trouble) => Err(trouble.fault().clone()),
        }
    }

    async fn is_absent(&self) -> bool {
        control::is_absent(PURPOSE, &self.folder, ASK_LIMIT).await
    }

    /// Returns when a server of this folder answers on its control socket and to a DNS question.
    async fn start(&self) -> Result<Hello, Fault> {
        let mut child: Option<Child> = None;
        let deadline = Instant::now() + START_LIMIT;
        let mut why = Fault::unavailable("it was not asked yet");
        while Instant::now() < deadline {
            match self.running().await {
                Ok(Some(hello)) => match self.answers(&hello).await {
                    Ok(()) => return Ok(hello),
                    Err(fault) => why = fault,
                },
                Ok(None) => match &mut child {
                    None => child = Some(self.spawn()?),
                    Some(process) => {
                        // Its end is not ours: another command's server may have been quicker, and has the folder.
                        let ended = process.try_wait().ok().flatten();
                        if let Some(status) = ended
                            && let Ok(None) = self.running().await
                        {
                            return Err(self.did_not_start(&status.to_string()));
                        }
                    }
                },
                // It accepts and says nothing: it has the socket and is not ready, or it just ended.
                Err(fault) => why = fault,
            }
            sleep(POLL).await;
        }
        Err(self
            .did_not_start(&format!("not ready after {} s", START_LIMIT.as_secs()))
            .because(why))
    }

    fn did_not_start(&self, why: &str) -> Fault {
        let log = fs::read_to_string(self.folder.join(LOG)).unwrap_or_default();
        let fault = Fault::unavailable(format!(
            "the name server of `{}` did not start",
            self.folder.display()
        ))
        .because(why);
        match log.trim().lines().next_back() {
            Some(line) => fault.because(line),
            None => fault,
        }
    }

    async fn answers(&self, hello: &Hello) -> Result<(), Fault> {
        for server in &hello.listen {
            let host = HostName::new(self.zone.as_str());
            ask(*server, &host, RecordType::A, Duration::from_secs(2)).await?;
        }
        Ok(())
    }

    fn spawn(&self) -> Result<Child, Fault> {
        let fault =
            |error: std::io::Error| Fault::new("cannot start the name server").because(error);
        fs::create_dir_all(&self.folder).map_err(fault)?;
        let program = crate::program::path().map_err(fault)?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(LOG))
            .map_err(fault)?;
        Command::new(program)
            .args(["dns", "serve", "--folder"])
            .arg(&self.folder)
            .arg("--listen")
            .arg(self.listen.to_string())
            // It lives long: it gets none of the command's secrets and holds no folder that is not its own.
            .env_clear()
            .env("HAFOG_DETACH", "1")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(fault)?)
            .stderr(log)
            .kill_on_drop(false)
            .spawn()
            .map_err(fault)
    }

    fn has_zones_file(&self) -> bool {
        self.folder.join("zones.json").exists()
    }

    /// Stops the server unless it got another zone meanwhile, waits until it is gone, and tidies up.
    async fn stop_if_empty(&self, pid: u32) -> Result<(), Trouble> {
        match self.send(&Request::Stop { only_empty: true }).await {
            Ok(_) => {}
            Err(Trouble::NothingChanged(_))
                if self.running().await.is_ok_and(|running| running.is_some()) =>
            {
                return Ok(());
            }
            Err(trouble) => return Err(trouble),
        }
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_absent().await {
            // Another command opened a zone meanwhile, and has a new server.
            if let Ok(Some(hello)) = self.running().await
                && hello.pid != pid
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Trouble::Partial(Fault::unavailable(format!(
                    "zone `{}` is closed and its name server is not gone after {} s",
                    self.zone,
                    START_LIMIT.as_secs()
                ))));
            }
            sleep(POLL).await;
        }
        self.tidy();
        Ok(())
    }

    /// The server removed its generation itself. A folder that holds anything else is not ours to remove.
    fn tidy(&self) {
        if !self.has_zones_file() {
            let _ = fs::remove_file(self.folder.join(LOG));
            let _ = fs::remove_dir(&self.folder);
        }
    }

    async fn generation(&self) -> Result<Generation, Fault> {
        match self.send(&Request::Zones).await {
            Ok(Reply::Zones(generation)) => Ok(generation),
            Ok(other) => Err(unexpected(&other)),
            Err(trouble) => Err(trouble.fault().clone()),
        }
    }
}

fn unexpected(reply: &Reply) -> Fault {
    Fault::new("the name server gave another reply than the one asked for")
        .because(format!("{reply:?}"))
}

/// A loopback address for this home: the same each time, and unlikely to be another home's.
fn default_listen(home: &[u8]) -> SocketAddr {
    let digest = Sha256::digest(home);
    // Outside 127.0.x, where other programs are, and below 127.127.
    let third = 64 + digest[0] % 63;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, third, digest[1], 53)), PORT)
}

#[async_trait]
impl DnsHost for ServeHost {
    async fn open_zone(&self) -> Result<(), Trouble> {
        let hello = self.start().await.nothing_changed()?;
        if self.listen_is_set && !hello.listen.contains(&self.listen) {
            let listens: Vec<String> = hello.listen.iter().map(|at| format!("`{at}`")).collect();
            return Err(Trouble::NothingChanged(Fault::refused(format!(
                "the name server of `{}` listens on {} and zone `{}` wants `{}`",
                self.folder.display(),
                listens.join(" and "),
                self.zone,
                self.listen
            ))));
        }
        let zone = self.zone.clone();
        self.send(&Request::OpenZone { zone }).await.map(|_| ())
    }

    async fn close_zone(&self) -> Result<(), Trouble> {
        let hello = match self.running().await.nothing_changed()? {
            Some(hello) => hello,
            // It was killed: only the server changes its file.
            None if self.has_zones_file() => self.start().await.nothing_changed()?,
            None => {
                self.tidy();
                return Ok(());
            }
        };
        let zone = self.zone.clone();
        match self.send(&Request::CloseZone { zone }).await? {
            Reply::Done { zones_left: 0, .. } => self.stop_if_empty(hello.pid).await,
            _ => Ok(()),
        }
    }

    async fn state(&self) -> Result<ZoneState, Fault> {
        let Some(hello) = self.running().await? else {
            return Ok(ZoneState {
                open: false,
                closable: self.has_zones_file() || self.folder.join(LOG).exists(),
            });
        };
        let open = hello.zones.contains(&self.zone);
        Ok(ZoneState {
            open,
            // One that serves nothing is left from a closing that was cut.
            closable: open || hello.zones.is_empty(),
        })
    }

    async fn records(&self) -> Result<Vec<RecordSet>, Fault> {
        let generation = self.generation().await?;
        match generation.zone(&self.zone) {
            Some(zone) => Ok(zone.sets.clone()),
            None => Err(Fault::unavailable(format!(
                "zone `{}` is not served by `{}`",
                self.zone,
                self.folder.display()
            ))),
        }
    }

    async fn apply(&self, changes: &[RecordChange]) -> Result<(), Trouble> {
        let request = Request::Apply {
            zone: self.zone.clone(),
            changes: changes.to_vec(),
            // Each change names what it replaces, which is exact; another zone's change is none of its business.
            expect_generation: None,
        };
        self.send(&request).await.map(|_| ())
    }

    async fn authorities(&self) -> Result<Vec<SocketAddr>, Fault> {
        Ok(self
            .running()
            .await?
            .map_or_else(|| vec![self.listen], |hello| hello.listen))
    }

    fn ttl_floor(&self) -> Ttl {
        Ttl(1)
    }
}
