//! The long-running process of one local server: it keeps the server's services up, as systemd does on a real one.
//!
//! It outlives the command that started it, restarts what crashes with a growing pause, adopts and reaps what loses
//! its parent, and is asked over a control socket. Nothing of the caller's environment reaches a service. It ends by
//! itself when the server's folder is gone. Being killed abruptly is ordinary: a boot starts from the definitions.
//!
//! One thread: a child is entered in `children::Exits` before anybody can reap it.

mod body;
mod children;
mod keeper;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use body::run;

use super::processes::{self, Identity, Search};
use crate::durable;
use crate::error::{Fault, Trouble};
use crate::shell::{Service, ServiceChange, ServiceState};

/// Name of the environment variable that marks every process of a server; its value is the server's folder.
pub const MARK: &str = "HAFOG_SERVER";
pub(super) const PURPOSE: &str = "server";

/// Each supervisor holds this UDP port of its address, so that two sites cannot use one address.
/// It is outside of the ports that the kernel gives out, and a query never gets an answer.
pub const MARKER_PORT: u16 = 64_617;

/// How long a command of `before` may run.
const BEFORE_LIMIT: Duration = Duration::from_secs(60);
/// How long the kernel may take to end a process after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long a new supervisor may take until it listens. One that cannot ends at once; this is for a slow disk.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What a server's processes find in their environment besides their own settings.
pub(super) fn environment(folder: &Path) -> [(&'static str, String); 4] {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    [
        ("PATH", path.to_owned()),
        ("HOME", folder.join("data").display().to_string()),
        ("LANG", "C.UTF-8".to_owned()),
        (MARK, folder.display().to_string()),
    ]
}

/// How a server is, by its supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// There is no supervisor. Leftovers of a killed one may run: [`search`] finds them.
    Off,
    Running,
    Frozen,
}

pub fn life(folder: &Path) -> Life {
    match recorded(folder).and_then(|identity| identity.alive()) {
        None => Life::Off,
        Some(process) if process.is_stopped() => Life::Frozen,
        Some(_) => Life::Running,
    }
}

/// The supervisor that wrote its record when it began to listen; it may be dead.
fn recorded(folder: &Path) -> Option<Identity> {
    let bytes = std::fs::read(folder.join("supervisor.json")).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// All processes of a server.
pub fn search(folder: &Path) -> Search {
    Search {
        folders: vec![folder.to_owned()],
        marks: vec![format!("{MARK}={}", folder.display())],
        known: recorded(folder).into_iter().collect(),
    }
}

/// Closes every descriptor that the starting command inherited from somebody. First thing in a process: nothing of its
/// own is open yet.
pub fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let open: Vec<i32> = names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The descriptor of the listing itself is among them and closed by now.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Starts the supervisor of a server that has none, and waits until it listens. Blocking.
pub fn start(folder: &Path) -> Result<(), Trouble> {
    let failed = |error: std::io::Error| {
        Trouble::NothingChanged(durable::fault("start the supervisor of", folder, error))
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log/supervisor.log"))
        .map_err(failed)?;
    let mut child = std::process::Command::new(crate::program::path().map_err(failed)?)
        .arg("supervise")
        .arg(folder)
        .env_clear()
        .envs(environment(folder))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let until = Instant::now() + START_LIMIT;
    loop {
        if life(folder) == Life::Running {
            break;
        }
        // It ends at once when another command was faster, or when its address is taken.
        if let Ok(Some(status)) = child.try_wait() {
            if life(folder) == Life::Running {
                return Ok(());
            }
            return Err(Trouble::NothingChanged(
                Fault::new(format!(
                    "the supervisor of `{}` ended with {status}",
                    folder.display()
                ))
                .because(last_line(&folder.join("log/supervisor.log"))),
            ));
        }
        if Instant::now() >= until {
            let message = format!(
                "the supervisor of `{}` does not listen after {} s",
                folder.display(),
                START_LIMIT.as_secs()
            );
            let seen = processes::look(child.id() as i32);
            let seen = seen.map(|process| {
                format!("its process {} is in state {}", process.pid, process.state)
            });
            return Err(Trouble::Unknown(
                Fault::unavailable(message)
                    .because(seen.unwrap_or_else(|| "it has no process".to_owned())),
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // It is our child while we live: somebody must take its exit status, or it stays as a corpse.
    std::thread::spawn(move || child.wait());
    Ok(())
}

fn last_line(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().last().unwrap_or("it wrote nothing").to_owned()
}

#[derive(Serialize, Deserialize)]
pub(super) enum Ask {
    States,
    Change { name: String, change: ServiceChange },
}

#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    States(Vec<ServiceState>),
    Done,
    /// Nothing changed.
    Refused(String),
    /// Some of it happened.
    Failed(String),
}

/// How long an answer may take: a change may first wait for an orderly stop, then run what comes before a start.
pub(super) fn answer_limit(folder: &Path, name: &str, change: &ServiceChange) -> Duration {
    let definition = match change {
        ServiceChange::Install(_) | ServiceChange::Reload => return Duration::from_secs(10),
        _ => read_service(&service_path(folder, name)).ok(),
    };
    definition.map_or(KILL_LIMIT + Duration::from_secs(10), |service| {
        limit_of(&service)
    })
}

/// An orderly stop, and what comes before a start.
fn limit_of(service: &Service) -> Duration {
    let before = BEFORE_LIMIT.saturating_mul(service.before.len() as u32);
    let all = [
        service.stop_limit,
        before,
        KILL_LIMIT,
        Duration::from_secs(10),
    ];
    all.into_iter()
        .fold(Duration::ZERO, Duration::saturating_add)
}

fn service_path(folder: &Path, name: &str) -> PathBuf {
    folder.join("services").join(format!("{name}.json"))
}

fn read_service(path: &Path) -> Result<Service, Fault> {
    let bytes = durable::read(path)?.unwrap_or_default();
    serde_json::from_slice(&bytes).map_err(|error| durable::fault("understand", path, error))
}

/// For `fuzz`: both sides of the control socket, and the files of a server.
#[cfg(test)]
pub(crate) fn hostile(text: &str) {
    let folder = Path::new("/nonexistent");
    for line in text.lines() {
        if let Ok(Ask::Change { name, change }) = serde_json::from_str(line) {
            let _ = answer_limit(folder, &name, &change);
            if let ServiceChange::Install(service) = change {
                let _ = limit_of(&service);
            }
        }
        let _ = serde_json::from_str::<Answer>(line);
        let _ = serde_json::from_str::<Identity>(line);
        let _ = serde_json::from_str::<body::Address>(line);
    }
}
