//! The shell of servers that are folders and processes on this machine.
//!
//! A server that is off refuses, and a frozen one does not answer, as real ones would. Commands are started
//! directly, with nothing of the caller's environment.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::memory::Memory;
use super::processes::{Identity, Search};
use super::supervisor::{self, Answer, Ask, Life};
use super::user::service_user;
use crate::control;
use crate::durable::{self, blocking};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ServerName, SiteName};
use crate::shell::{Command, Dirs, File, Host, Ran, ServiceChange, ServiceState, Shell};

/// How long a frozen server is waited for, and how long a question to its supervisor may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How much of each output of a command is kept.
const OUTPUT_MOST: usize = 1 << 20;
/// How long what a command left in the background may hold its output open.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The host that a server's folder makes.
pub fn host(folder: &Path, name: &ServerName, site: &SiteName, address: IpAddr) -> Host {
    let below = |part: &str| folder.join(part).display().to_string();
    Host {
        name: name.clone(),
        site: site.clone(),
        address,
        dirs: Dirs {
            image: below("image"),
            etc: below("etc"),
            data: below("data"),
            log: below("log"),
        },
    }
}

fn folder_of(host: &Host) -> PathBuf {
    let data = Path::new(&host.dirs.data);
    data.parent().unwrap_or(data).to_owned()
}

#[derive(Clone, Debug, Default)]
pub struct LocalShell {
    here: Option<ServerName>,
}

impl LocalShell {
    pub fn new() -> LocalShell {
        LocalShell::default()
    }

    /// For a program that runs on `host` itself: that the host is up needs no asking.
    pub fn here(host: &Host) -> LocalShell {
        LocalShell {
            here: Some(host.name.clone()),
        }
    }

    /// Nothing was sent yet when this fails.
    async fn ready(&self, on: &Host, limit: Duration) -> Result<(), Fault> {
        if self.here.as_ref() == Some(&on.name) {
            return Ok(());
        }
        let folder = folder_of(on);
        let limit = limit.min(ANSWER_LIMIT);
        let until = Instant::now() + limit;
        loop {
            match supervisor::life(&folder) {
                Life::Running => return Ok(()),
                Life::Off => {
                    return Err(Fault::unavailable(format!("server `{}` is off", on.name)));
                }
                Life::Frozen if Instant::now() >= until => {
                    return Err(Fault::unavailable(format!(
                        "server `{}` does not answer within {} s",
                        on.name,
                        limit.as_secs_f64()
                    )));
                }
                Life::Frozen => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn ask(&self, on: &Host, ask: &Ask, limit: Duration) -> Result<Answer, Trouble> {
        self.ready(on, ANSWER_LIMIT).await.nothing_changed()?;
        control::ask(supervisor::PURPOSE, &folder_of(on), ask, limit).await
    }
}

/// Kills what a command started, unless it ended by itself: also when the caller stops waiting for it.
struct Tree {
    pid: i32,
    search: Search,
    ended: bool,
}

impl Tree {
    fn kill(&mut self) -> Result<(), String> {
        self.ended = true;
        let memory = Memory::of(self.search.find().into_iter().map(|process| process.pid));
        let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        let killed = self.search.kill(KILL_LIMIT);
        killed.map_err(|left| left.to_string())?;
        memory.remove();
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.ended {
            for process in self.search.find() {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
        }
    }
}

/// Distinguishes what one command started from all else on the machine.
fn next_mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let me = Identity::of(std::process::id() as i32);
    format!(
        "{}-{}-{count}",
        std::process::id(),
        me.map_or(0, |me| me.start)
    )
}

/// Reads to the end and keeps the beginning.
async fn collect(from: Option<impl AsyncRead + Unpin>, kept: &std::sync::Mutex<Vec<u8>>) {
    let Some(mut from) = from else { return };
    let mut part = [0; 8192];
    while let Ok(1..) = from.read(&mut part).await.inspect(|count| {
        let mut kept = kept.lock().expect("no holder of the output panics");
        let room = OUTPUT_MOST - kept.len();
        kept.extend_from_slice(&part[..(*count).min(room)]);
    }) {}
}

fn text(kept: &std::sync::Mutex<Vec<u8>>) -> String {
    let bytes = kept.lock().expect("no holder of the output panics");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn build(on: &Host, command: &Command, mark: &str) -> Result<tokio::process::Command, Fault> {
    let [program, arguments @ ..] = command.argv.as_slice() else {
        return Err(Fault::new("the command is empty"));
    };
    let mut build = tokio::process::Command::new(program);
    build
        .args(arguments)
        .env_clear()
        .envs(supervisor::environment(&folder_of(on)))
        .envs(&command.env)
        .env("HAFOG_COMMAND", mark)
        .current_dir(command.dir.as_ref().unwrap_or(&on.dirs.data))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let (true, Some(user)) = (command.as_service_user, service_user()) {
        build.uid(user.uid).gid(user.gid);
    }
    Ok(build)
}

/// The path, if it is below one of `roots` also after following the links on the way.
fn path_below<'a>(path: &str, roots: &[&'a str]) -> Option<(PathBuf, &'a str)> {
    let path = PathBuf::from(path);
    if path
        .components()
        .any(|part| matches!(part, Component::ParentDir))
    {
        return None;
    }
    let root = *roots
        .iter()
        .find(|root| path.starts_with(root) && path != Path::new(root))?;
    let there = path.ancestors().skip(1).find(|above| above.exists())?;
    let real = there.canonicalize().ok()?;
    let real_root = Path::new(root).canonicalize().ok()?;
    real.starts_with(real_root).then_some((path, root))
}

fn put_now(on: &Host, file: &File) -> Result<(), Trouble> {
    let dirs = &on.dirs;
    let outside = || {
        let message = format!(
            "`{}` is not below a folder of server `{}`",
            file.path, on.name
        );
        Trouble::NothingChanged(Fault::new(message))
    };
    let roots = [dirs.etc.as_str(), &dirs.data, &dirs.log, &dirs.image];
    let (path, root) = path_below(&file.path, &roots).ok_or_else(outside)?;
    if root == dirs.image && is_sealed(on) {
        let message = format!(
            "cannot write `{}`: the image of server `{}` is sealed",
            file.path, on.name
        );
        return Err(Trouble::NothingChanged(Fault::new(message)));
    }
    let owner = if file.for_service_user {
        service_user()
    } else {
        None
    };
    let folder = path.parent().unwrap_or(&path);
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|above| !above.exists())
        .collect();
    durable::make_folders(folder, 0o755).nothing_changed()?;
    for made in missing {
        durable::give(made, owner).nothing_changed()?;
    }
    durable::replace(&path, &file.bytes, file.mode, owner).unknown()
}

/// A builder's tree is in its own folder; an image's is not.
fn is_sealed(on: &Host) -> bool {
    match (
        Path::new(&on.dirs.image).canonicalize(),
        folder_of(on).canonicalize(),
    ) {
        (Ok(tree), Ok(folder)) => !tree.starts_with(folder),
        _ => true,
    }
}

#[async_trait]
impl Shell for LocalShell {
    async fn run(&self, on: &Host, command: &Command) -> Result<Ran, Trouble> {
        self.ready(on, command.limit).await.nothing_changed()?;
        let mark = next_mark();
        let mut command_line = build(on, command, &mark).nothing_changed()?;
        let program = &command.argv[0];
        let mut child = command_line.spawn().map_err(|error| {
            let message = format!("cannot run `{program}` on `{}`", on.name);
            Trouble::NothingChanged(Fault::new(message).because(error))
        })?;
        let pid = child.id().map_or(0, |pid| pid as i32);
        let mut tree = Tree {
            pid,
            search: Search {
                marks: vec![format!("HAFOG_COMMAND={mark}")],
                known: Identity::of(pid).into_iter().collect(),
                ..Search::default()
            },
            ended: false,
        };
        let (out, err) = Default::default();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let outputs = async { tokio::join!(collect(stdout, &out), collect(stderr, &err)) };
        tokio::pin!(outputs);
        let mut drained = false;
        let limit = tokio::time::sleep(command.limit);
        tokio::pin!(limit);
        let status = loop {
            tokio::select! {
                status = child.wait() => break Some(status),
                _ = &mut outputs, if !drained => drained = true,
                () = &mut limit => break None,
            }
        };
        let Some(status) = status else {
            let killed = tokio::task::spawn_blocking(move || tree.kill()).await;
            let mut fault = Fault::unavailable(format!(
                "`{program}` on `{}` did not end within {} s and was killed",
                on.name,
                command.limit.as_secs_f64()
            ));
            if let Ok(Err(left)) = killed {
                fault = fault.because(left);
            }
            let _ = tokio::time::timeout(KILL_LIMIT, child.wait()).await;
            return Err(Trouble::Unknown(fault));
        };
        tree.ended = true;
        if !drained {
            let _ = tokio::time::timeout(DRAIN_LIMIT, &mut outputs).await;
        }
        let status = status.map_err(|error| {
            let message = format!("lost sight of `{program}` on `{}`", on.name);
            Trouble::Unknown(Fault::new(message).because(error))
        })?;
        let killed = status.signal() == Some(Signal::SIGKILL as i32);
        if killed && self.here.is_none() && supervisor::life(&folder_of(on)) == Life::Off {
            let message = format!("server `{}` went off while `{program}` ran", on.name);
            return Err(Trouble::Unknown(Fault::unavailable(message)));
        }
        Ok(Ran {
            // As a POSIX shell says it.
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: text(&out),
            stderr: text(&err),
        })
    }

    async fn put(&self, on: &Host, file: &File) -> Result<(), Trouble> {
        self.ready(on, ANSWER_LIMIT).await.nothing_changed()?;
        let (on, file) = (on.clone(), file.clone());
        blocking(move || put_now(&on, &file)).await
    }

    async fn get(&self, on: &Host, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        self.ready(on, ANSWER_LIMIT).await?;
        let path = PathBuf::from(path);
        blocking(move || durable::read(&path)).await
    }

    async fn end_of(&self, on: &Host, path: &str, most: usize) -> Result<Vec<u8>, Fault> {
        self.ready(on, ANSWER_LIMIT).await?;
        let path = PathBuf::from(path);
        blocking(move || durable::read_end(&path, most)).await
    }

    async fn remove(&self, on: &Host, path: &str) -> Result<(), Trouble> {
        self.ready(on, ANSWER_LIMIT).await.nothing_changed()?;
        let roots = [on.dirs.etc.as_str(), &on.dirs.data, &on.dirs.log];
        let Some((path, _)) = path_below(path, &roots) else {
            let message = format!(
                "`{path}` is not below etc, data or log of server `{}`",
                on.name
            );
            return Err(Trouble::NothingChanged(Fault::new(message)));
        };
        blocking(move || {
            durable::remove(&path).partial()?;
            let folder = path.parent().unwrap_or(&path);
            match durable::sync_folder(folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(durable::fault("sync", folder, error)).unknown()
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn services(&self, on: &Host) -> Result<Vec<ServiceState>, Fault> {
        match self.ask(on, &Ask::States, ANSWER_LIMIT).await {
            Ok(Answer::States(states)) => Ok(states),
            Ok(_) => Err(Fault::new(format!(
                "the supervisor of `{}` gave another answer",
                on.name
            ))),
            Err(trouble) => Err(trouble.fault().clone()),
        }
    }

    async fn service(&self, on: &Host, name: &str, change: ServiceChange) -> Result<(), Trouble> {
        let limit = supervisor::answer_limit(&folder_of(on), name, &change);
        let name = name.to_owned();
        let said = |why: String| Fault::new(format!("server `{}`: {why}", on.name));
        match self.ask(on, &Ask::Change { name, change }, limit).await? {
            Answer::Done => Ok(()),
            Answer::Refused(why) => Err(Trouble::NothingChanged(said(why))),
            Answer::Failed(why) => Err(Trouble::Partial(said(why))),
            Answer::States(_) => Err(Trouble::Unknown(said(
                "its supervisor gave another answer".to_owned(),
            ))),
        }
    }
}
