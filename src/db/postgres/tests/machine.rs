//! Real servers for the tests: folders below one temporary folder, processes of this machine, addresses on loopback.
//! Everything ends when the [`Machine`] is dropped.

use std::collections::HashMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use crate::db::keys::Keys;
use crate::db::{Node, Reach};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::stack::Database;
use crate::model::units::{Bytes, Span};
use crate::shell::{
    Command, Dirs, File, Host, Ran, Service, ServiceChange, ServiceState, Shell, StopSignal,
};

fn user() -> Option<(u32, u32)> {
    let root = nix::unistd::geteuid().is_root();
    let user = User::from_name("postgres")
        .ok()
        .flatten()
        .filter(|_| root)?;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

fn failed(error: std::io::Error) -> Fault {
    Fault::new("the test's shell failed").because(error)
}

struct Kept {
    service: Service,
    child: Option<Child>,
    wanted: bool,
    starts: u32,
}

impl Kept {
    fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let _ = kill(Pid::from_raw(child.id() as i32), signal);
        }
    }

    fn stop(&mut self, signal: Signal, limit: Duration) {
        self.signal(signal);
        let until = Instant::now() + limit;
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.is_running() {
            self.signal(Signal::SIGKILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

#[derive(Default)]
pub struct TestShell {
    services: Mutex<HashMap<String, Kept>>,
    /// As if PostgreSQL were not installed.
    pub bare: AtomicBool,
    /// Stops are refused.
    pub stuck: AtomicBool,
    /// The supervisor says nothing more.
    pub silent: AtomicBool,
    /// Every copy fails.
    pub no_copies: AtomicBool,
    /// What runs and is not known any more.
    lost: Mutex<Vec<Child>>,
}

impl Drop for TestShell {
    fn drop(&mut self) {
        for mut child in self.lost.lock().unwrap().drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn process(argv: &[String], on: &Host, as_user: bool) -> std::process::Command {
    let mut process = std::process::Command::new(&argv[0]);
    process
        .args(&argv[1..])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(&on.dirs.data)
        .stdin(Stdio::null())
        .process_group(0);
    if let (true, Some((uid, gid))) = (as_user, user()) {
        process.uid(uid).gid(gid);
    }
    process
}

impl TestShell {
    fn start(&self, on: &Host, kept: &mut Kept) -> std::io::Result<()> {
        let log = || {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(format!("{}/{}.log", on.dirs.log, kept.service.name))
        };
        for before in &kept.service.before {
            let status = process(before, on, kept.service.as_service_user).status()?;
            assert!(status.success(), "{before:?}");
        }
        let mut process = process(&kept.service.argv, on, kept.service.as_service_user);
        kept.child = Some(process.stdout(log()?).stderr(log()?).spawn()?);
        kept.starts += 1;
        kept.wanted = true;
        Ok(())
    }

    /// As a crash would end it: nobody starts it again.
    pub fn crash(&self, on: &Host) {
        let mut services = self.services.lock().unwrap();
        for (key, kept) in services.iter_mut() {
            if key.starts_with(&format!("{} ", on.name)) {
                kept.stop(Signal::SIGKILL, Duration::from_secs(10));
            }
        }
    }

    /// As a supervisor that was restarted and did not find what the one before had started.
    pub fn lose(&self, on: &Host) {
        let mut services = self.services.lock().unwrap();
        for (key, kept) in services.iter_mut() {
            if key.starts_with(&format!("{} ", on.name)) {
                self.lost.lock().unwrap().extend(kept.child.take());
                kept.wanted = false;
            }
        }
    }

    async fn hear(&self) {
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    pub fn signal(&self, on: &Host, signal: Signal) {
        for (key, kept) in self.services.lock().unwrap().iter() {
            if key.starts_with(&format!("{} ", on.name)) {
                kept.signal(signal);
            }
        }
    }
}

#[async_trait]
impl Shell for TestShell {
    async fn run(&self, on: &Host, command: &Command) -> Result<Ran, Trouble> {
        if self.bare.load(Ordering::Relaxed) && command.argv[0] == "sh" {
            return Ok(Ran {
                code: 0,
                stdout: String::new(),
                stderr: String::new(),
            });
        }
        if self.no_copies.load(Ordering::Relaxed) && command.argv[0].ends_with("/pg_basebackup") {
            return Ok(Ran {
                code: 1,
                stdout: String::new(),
                stderr: "No space left on device".to_owned(),
            });
        }
        let mut process = process(&command.argv, on, command.as_service_user);
        process
            .envs(&command.env)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = tokio::process::Command::from(process);
        let output = process.kill_on_drop(true).output();
        let output = tokio::time::timeout(command.limit, output).await;
        let output = output.map_err(|_| {
            Trouble::Unknown(Fault::new(format!("{:?} took too long", command.argv)))
        })?;
        let output = output.map_err(failed).nothing_changed()?;
        Ok(Ran {
            code: output
                .status
                .code()
                .unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    async fn put(&self, _: &Host, file: &File) -> Result<(), Trouble> {
        let put = || {
            let path = Path::new(&file.path);
            let beside = path.with_extension("put");
            std::fs::create_dir_all(path.parent().unwrap())?;
            std::fs::write(&beside, &file.bytes)?;
            std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(file.mode))?;
            if let (true, Some((uid, gid))) = (file.for_service_user, user()) {
                chown(&beside, Some(uid), Some(gid))?;
            }
            std::fs::rename(&beside, path)
        };
        put().map_err(failed).nothing_changed()
    }

    async fn get(&self, _: &Host, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn remove(&self, on: &Host, path: &str) -> Result<(), Trouble> {
        assert!(path.starts_with(&on.dirs.data), "{path}");
        let removed = if Path::new(path).is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(error)).partial()
            }
            _ => Ok(()),
        }
    }

    async fn services(&self, on: &Host) -> Result<Vec<ServiceState>, Fault> {
        self.hear().await;
        let mut states = Vec::new();
        for (key, kept) in self.services.lock().unwrap().iter_mut() {
            if key.starts_with(&format!("{} ", on.name)) {
                states.push(ServiceState {
                    name: kept.service.name.clone(),
                    running: kept.is_running(),
                    wanted: kept.wanted,
                    pid: kept.child.as_ref().map(Child::id),
                    starts: kept.starts,
                    trouble: None,
                });
            }
        }
        Ok(states)
    }

    async fn service(&self, on: &Host, name: &str, change: ServiceChange) -> Result<(), Trouble> {
        self.hear().await;
        let key = format!("{} {name}", on.name);
        let mut services = self.services.lock().unwrap();
        if let ServiceChange::Install(service) = change {
            let (child, wanted, starts) = services.remove(&key).map_or((None, false, 0), |kept| {
                (kept.child, kept.wanted, kept.starts)
            });
            services.insert(
                key,
                Kept {
                    service: *service,
                    child,
                    wanted,
                    starts,
                },
            );
            return Ok(());
        }
        let Some(kept) = services.get_mut(&key) else {
            return Err(Trouble::NothingChanged(Fault::new(format!(
                "there is no service `{name}`"
            ))));
        };
        match change {
            ServiceChange::Start if kept.is_running() => {}
            ServiceChange::Start => self.start(on, kept).map_err(failed).nothing_changed()?,
            ServiceChange::Stop { .. } if self.stuck.load(Ordering::Relaxed) => {
                return Err(Trouble::NothingChanged(Fault::new(
                    "the supervisor does not answer",
                )));
            }
            ServiceChange::Stop { signal } => {
                let signal = match signal.unwrap_or(kept.service.stop_signal) {
                    StopSignal::Int => Signal::SIGINT,
                    StopSignal::Quit => Signal::SIGQUIT,
                    StopSignal::Term | StopSignal::Usr1 => Signal::SIGTERM,
                };
                kept.wanted = false;
                let limit = kept.service.stop_limit;
                kept.stop(signal, limit);
            }
            ServiceChange::Reload if kept.is_running() => kept.signal(Signal::SIGHUP),
            _ => return Err(Trouble::NothingChanged(Fault::new("not now"))),
        }
        Ok(())
    }
}

/// Several servers, and the keys to them.
pub struct Machine<const N: usize> {
    pub shell: Arc<TestShell>,
    pub reach: Reach,
    pub nodes: [Node; N],
    folder: tempfile::TempDir,
}

impl<const N: usize> Drop for Machine<N> {
    fn drop(&mut self) {
        for kept in self.shell.services.lock().unwrap().values_mut() {
            kept.stop(Signal::SIGQUIT, Duration::from_secs(10));
        }
    }
}

impl Machine<1> {
    pub fn one(test: &str) -> Option<Self> {
        Machine::with(test, ["shop-east-db-1"])
    }
}

impl Machine<2> {
    pub fn pair(test: &str) -> Option<Self> {
        Machine::with(test, ["shop-east-db-1", "shop-west-db-1"])
    }
}

impl<const N: usize> Machine<N> {
    /// `None`, and a line that says so, where PostgreSQL cannot run.
    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    pub fn with(test: &str, names: [&str; N]) -> Option<Machine<N>> {
        let skip = |why: &str| {
            eprintln!("skipped: {test}: {why}");
            None
        };
        if nix::unistd::geteuid().is_root() && user().is_none() {
            return skip("root cannot run PostgreSQL and there is no user `postgres`");
        }
        let programs = std::process::Command::new("sh")
            .args(["-c", super::super::server::FIND])
            .output()
            .ok()?;
        if programs.stdout.is_empty() {
            return skip("PostgreSQL is not installed");
        }
        let folder = tempfile::Builder::new()
            .prefix("hafog-postgres-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let shell = Arc::new(TestShell::default());
        let keys = Arc::new(Keys::open(&folder.path().join("keys")).unwrap());
        let nodes = names.map(|name| node(folder.path(), name));
        let reach = Reach {
            shell: shell.clone(),
            keys,
        };
        Some(Machine {
            shell,
            reach,
            nodes,
            folder,
        })
    }

    pub fn keys(&self) -> std::path::PathBuf {
        self.folder.path().join("keys")
    }

    /// What the agent of a node has.
    pub fn agent(&self) -> Reach {
        let pair = self.reach.keys.client("hafog_agent").unwrap();
        let keys = Keys::of_role("hafog_agent", self.reach.keys.ca_pem().unwrap(), pair);
        self.with_keys(Arc::new(keys))
    }

    /// Somebody who has these keys.
    pub fn with_keys(&self, keys: Arc<Keys>) -> Reach {
        Reach {
            shell: self.shell.clone(),
            keys,
        }
    }
}

fn node(folder: &Path, name: &str) -> Node {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) as u8;
    let pid = std::process::id();
    // Test processes that run at the same time have addresses of their own.
    let address =
        std::net::Ipv4Addr::new(127, 70 + (pid % 100) as u8, (pid / 100 % 250) as u8, count);
    let part = |part: &str| {
        let path = folder.join(name).join(part);
        std::fs::create_dir_all(&path).unwrap();
        if let Some((uid, gid)) = user() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        path.display().to_string()
    };
    let dirs = Dirs {
        image: part("image"),
        etc: part("etc"),
        data: part("data"),
        log: part("log"),
    };
    let database = Database {
        name: "main".into(),
        engine: "postgres".to_owned(),
        on: "db".into(),
        replicas: 1,
        port: 25432,
        user: "shop".to_owned(),
        password: None,
        lag_warn: Span::secs(10),
        lag_critical: Span::secs(60),
        write_lease: Span::secs(15),
        keep_log: Bytes(256 << 20),
    };
    let host = Host {
        name: name.into(),
        site: "east".into(),
        address: address.into(),
        dirs,
    };
    Node {
        database,
        host,
        peers: Vec::new(),
        lacks_peers: false,
    }
}
