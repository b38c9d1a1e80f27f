//! The long-running process of one local server: it keeps the server's services up, as systemd does on a real one.
//!
//! It outlives the command that started it, restarts what crashes with a growing pause, adopts and reaps what loses
//! its parent, and is asked over a control socket. Nothing of the caller's environment reaches a service. It ends by
//! itself when the server's folder is gone. Being killed abruptly is ordinary: a boot starts from the definitions.
//!
//! One thread: a child is entered in [`Exits`] before anybody can reap it.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::processes::{self, Identity, Search};
use super::user::service_user;
use super::{ReloadSignal, Service, ServiceChange, ServiceState, StopSignal, control};
use crate::durable;
use crate::error::{Fault, Trouble};

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
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(2);
/// A service that was up for so long starts again with the shortest pause.
const STEADY: Duration = Duration::from_secs(10);
/// A service's log is set aside at a start when it is longer.
const LOG_MOST: u64 = 16 << 20;

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

/// The body of `hafog supervise FOLDER`. Returns when it is asked to end (SIGTERM) or the folder is gone.
pub fn run(folder: PathBuf) -> Result<(), Fault> {
    // Fails for the leader of a process group: then it is one already.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| Fault::new("cannot adopt orphaned processes").because(errno))?;
    // A thread of its own, so that it does not matter whether the caller is async.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Fault::new("cannot start the supervisor").because(error))?;
        runtime.block_on(Supervisor::new(folder)?.keep())
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The part of `server.json` that is needed here.
#[derive(Deserialize)]
struct Address {
    address: IpAddr,
}

fn hold_address(folder: &Path) -> Result<UdpSocket, Fault> {
    let path = folder.join("server.json");
    let bytes = durable::read(&path)?.unwrap_or_default();
    let Address { address } = serde_json::from_slice(&bytes)
        .map_err(|error| durable::fault("understand", &path, error))?;
    UdpSocket::bind((address, MARKER_PORT)).map_err(|error| {
        Fault::new(format!("address {address} is used by somebody else")).because(error)
    })
}

/// Who waits for the end of which child.
#[derive(Clone, Default)]
struct Exits(Arc<Mutex<HashMap<i32, oneshot::Sender<String>>>>);

impl Exits {
    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<String>>> {
        self.0.lock().expect("no holder of the exits panics")
    }

    fn spawn(&self, command: &mut std::process::Command) -> std::io::Result<Running> {
        let pid = command.spawn()?.id() as i32;
        let (sender, exit) = oneshot::channel();
        self.waiting().insert(pid, sender);
        Ok(Running { pid, exit })
    }

    /// Reaps all that ended. Of a child that we started, what is left of its group goes with it: workers without
    /// master would hold its ports. That comes before the reaping, while its id cannot be given to another process.
    fn reap(&self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(status) = waitid(Id::All, flags) {
            let Some(pid) = status.pid() else { return };
            let waiting = self.waiting().remove(&pid.as_raw());
            if waiting.is_some() {
                let _ = killpg(pid, Signal::SIGKILL);
            }
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            if let Some(waiting) = waiting {
                let _ = waiting.send(words(status));
            }
        }
    }
}

fn words(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exited with code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was ended by {signal}"),
        other => format!("ended: {other:?}"),
    }
}

/// A child, leader of its own process group.
struct Running {
    pid: i32,
    exit: oneshot::Receiver<String>,
}

impl Running {
    async fn ended(&mut self) -> String {
        (&mut self.exit)
            .await
            .unwrap_or_else(|_| "ended".to_owned())
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid), signal);
    }

    /// Asks it to end, and kills it with all its descendants when it has not after `limit`. `Err` when even that
    /// does not help in time.
    async fn stop(&mut self, signal: Signal, limit: Duration) -> Result<(), String> {
        self.signal(signal);
        if tokio::time::timeout(limit, self.ended()).await.is_ok() {
            return Ok(());
        }
        let tree = Search {
            known: Identity::of(self.pid).into_iter().collect(),
            ..Search::default()
        };
        for process in tree.find() {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        match tokio::time::timeout(KILL_LIMIT, self.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "process {} is still there {} s after SIGKILL",
                self.pid,
                KILL_LIMIT.as_secs()
            )),
        }
    }
}

type Reply = oneshot::Sender<Answer>;

struct Order {
    change: ServiceChange,
    reply: Reply,
}

/// A service as the others see it: what it is doing, and where orders go.
#[derive(Clone)]
struct Entry {
    state: Arc<Mutex<ServiceState>>,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Clone)]
struct Supervisor {
    folder: PathBuf,
    exits: Exits,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

impl Supervisor {
    fn new(folder: PathBuf) -> Result<Supervisor, Fault> {
        let folder = folder
            .canonicalize()
            .map_err(|error| durable::fault("find", &folder, error))?;
        Ok(Supervisor {
            folder,
            exits: Exits::default(),
            entries: Arc::default(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries
            .lock()
            .expect("no holder of the entries panics")
    }

    async fn keep(self) -> Result<(), Fault> {
        let cannot = |error: std::io::Error| Fault::new("cannot listen for signals").because(error);
        let mut children = signal(SignalKind::child()).map_err(cannot)?;
        let mut end = signal(SignalKind::terminate()).map_err(cannot)?;
        // What somebody ignores (`nohup`, `&` in a script) is ignored by all that they start. What has a handler begins
        // anew in a service.
        for kind in [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ] {
            drop(signal(kind).map_err(cannot)?);
        }
        let listener = control::listen(PURPOSE, &self.folder)?;
        let _address = hold_address(&self.folder)?;
        self.boot()?;
        self.write_record()?;
        let mut look = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = children.recv() => self.exits.reap(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if control::is_ours(&stream) => {
                        tokio::spawn(self.clone().talk(stream));
                    }
                    Ok(_) => {}
                    // Out of file descriptors: some will come back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                _ = look.tick() => if self.is_abandoned() {
                    let _ = search(&self.folder).kill(KILL_LIMIT);
                    return Ok(());
                },
                _ = end.recv() => break,
            }
        }
        let stopping = tokio::spawn(self.clone().stop_all());
        while !stopping.is_finished() {
            tokio::select! {
                _ = children.recv() => self.exits.reap(),
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
        Ok(())
    }

    fn boot(&self) -> Result<(), Fault> {
        for name in durable::names(&self.folder.join("services"))? {
            let service = read_service(&self.folder.join("services").join(&name))?;
            let at_boot = service.at_boot;
            let entry = self.add(service);
            if at_boot {
                let (reply, _) = oneshot::channel();
                let change = ServiceChange::Start;
                let _ = entry.orders.send(Order { change, reply });
            }
        }
        Ok(())
    }

    fn write_record(&self) -> Result<(), Fault> {
        let identity = Identity::of(std::process::id() as i32);
        let bytes = serde_json::to_vec(&identity).expect("an identity is always JSON");
        durable::replace(&self.folder.join("supervisor.json"), &bytes, 0o644, None)
    }

    fn is_abandoned(&self) -> bool {
        let look = std::fs::symlink_metadata(self.folder.join("server.json"));
        look.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    fn add(&self, service: Service) -> Entry {
        let (sender, orders) = mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new(ServiceState {
            name: service.name.clone(),
            running: false,
            wanted: false,
            pid: None,
            starts: 0,
            trouble: None,
        }));
        let entry = Entry {
            state: state.clone(),
            orders: sender,
        };
        self.entries().insert(service.name.clone(), entry.clone());
        let keeper = Keeper {
            of: self.clone(),
            service,
            orders,
            state,
            pause: PAUSE_FIRST,
        };
        tokio::spawn(keeper.keep());
        entry
    }

    async fn talk(self, mut stream: UnixStream) {
        let answer = match control::receive::<Ask>(&mut stream).await {
            None => return,
            Some(Err(why)) => Answer::Refused(format!("not understood: {why}")),
            Some(Ok(Ask::States)) => Answer::States(self.states()),
            Some(Ok(Ask::Change { name, change })) => self.change(name, change).await,
        };
        let _ = control::send(&mut stream, &answer).await;
    }

    fn states(&self) -> Vec<ServiceState> {
        let entries = self.entries();
        let states = entries.values().map(|entry| entry.state.lock());
        states
            .map(|state| state.expect("no holder of a state panics").clone())
            .collect()
    }

    async fn change(&self, name: String, change: ServiceChange) -> Answer {
        if let ServiceChange::Install(service) = &change
            && let Err(fault) = self.write_definition(&name, service)
        {
            return Answer::Refused(fault.to_string());
        }
        let entry = self.entries().get(&name).cloned();
        let entry = match (entry, &change) {
            (Some(entry), _) => entry,
            (None, ServiceChange::Install(service)) => {
                self.add(service.as_ref().clone());
                return Answer::Done;
            }
            (None, ServiceChange::Remove) => return Answer::Done,
            (None, _) => return Answer::Refused(format!("there is no service `{name}`")),
        };
        self.order(&entry, change).await
    }

    async fn order(&self, entry: &Entry, change: ServiceChange) -> Answer {
        let (reply, answer) = oneshot::channel();
        let _ = entry.orders.send(Order { change, reply });
        let gone = || Answer::Refused("the service was removed meanwhile".to_owned());
        answer.await.unwrap_or_else(|_| gone())
    }

    fn write_definition(&self, name: &str, service: &Service) -> Result<(), Fault> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name != service.name || name.is_empty() || !name.chars().all(good) {
            return Err(Fault::new(format!("`{name}` is no name for a service")));
        }
        if service.argv.is_empty() || service.before.iter().any(Vec::is_empty) {
            return Err(Fault::new(format!("service `{name}` has an empty command")));
        }
        let bytes = serde_json::to_vec_pretty(service).expect("a service is always JSON");
        durable::replace(&service_path(&self.folder, name), &bytes, 0o600, None)
    }

    async fn stop_all(self) {
        let entries: Vec<Entry> = self.entries().values().cloned().collect();
        let stops = entries.iter().map(|entry| {
            let change = ServiceChange::Stop { signal: None };
            self.order(entry, change)
        });
        futures_util::future::join_all(stops).await;
    }
}

/// Keeps one service as it is wanted.
struct Keeper {
    of: Supervisor,
    service: Service,
    orders: mpsc::UnboundedReceiver<Order>,
    state: Arc<Mutex<ServiceState>>,
    pause: Duration,
}

/// What a service is doing.
enum Phase {
    Down,
    /// With those who wait for the process to be started.
    Starting(Vec<Reply>),
    Up(Running),
    /// Crashed, or could not be started.
    Waiting,
    Removed,
}

impl Keeper {
    async fn keep(mut self) {
        let mut phase = Phase::Down;
        loop {
            phase = match phase {
                Phase::Down => self.down().await,
                Phase::Starting(replies) => self.start(replies).await,
                Phase::Up(running) => self.up(running).await,
                Phase::Waiting => self.wait().await,
                Phase::Removed => return,
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut ServiceState)) {
        change(&mut self.state.lock().expect("no holder of a state panics"));
    }

    /// The next order. Sending it is only impossible after the removal, which ends `keep`.
    async fn order(&mut self) -> Order {
        let order = self.orders.recv().await;
        order.expect("the entry holds a sender until the service is removed")
    }

    async fn down(&mut self) -> Phase {
        self.note(|state| state.wanted = false);
        let Order { change, reply } = self.order().await;
        match change {
            ServiceChange::Start | ServiceChange::Restart => {
                self.pause = PAUSE_FIRST;
                return Phase::Starting(vec![reply]);
            }
            ServiceChange::Install(service) => self.replace(*service, reply),
            ServiceChange::Stop { .. } => answer(reply, Answer::Done),
            ServiceChange::Reload => {
                let why = format!("service `{}` is not running", self.service.name);
                answer(reply, Answer::Refused(why));
            }
            ServiceChange::Remove => return self.forget(reply),
        }
        Phase::Down
    }

    async fn start(&mut self, mut replies: Vec<Reply>) -> Phase {
        self.note(|state| state.wanted = true);
        let before = self.service.before.clone();
        for argv in &before {
            let mut running = match self.spawn(argv) {
                Ok(running) => running,
                Err(why) => return self.not_started(replies, why),
            };
            let until = tokio::time::Instant::now() + BEFORE_LIMIT;
            let exit = loop {
                tokio::select! {
                    exit = running.ended() => break exit,
                    () = tokio::time::sleep_until(until) => {
                        let _ = running.stop(Signal::SIGKILL, KILL_LIMIT).await;
                        break format!("did not end within {} s", BEFORE_LIMIT.as_secs());
                    }
                    Order { change, reply } = self.order() => match change {
                        ServiceChange::Start => replies.push(reply),
                        ServiceChange::Install(service) => self.replace(*service, reply),
                        // It has not read its configuration yet, or will when it is started.
                        ServiceChange::Reload => answer(reply, Answer::Done),
                        change => {
                            for reply in replies {
                                answer(reply, Answer::Failed("it was stopped while it was being started".to_owned()));
                            }
                            return self.end(running, change, reply).await;
                        }
                    },
                }
            };
            if exit != "exited with code 0" {
                return self.not_started(replies, format!("`{}` {exit}", argv[0]));
            }
        }
        match self.spawn(&self.service.argv) {
            Err(why) => self.not_started(replies, why),
            Ok(running) => {
                self.note(|state| {
                    state.running = true;
                    state.pid = Some(running.pid as u32);
                    state.starts += 1;
                    state.trouble = None;
                });
                for reply in replies {
                    answer(reply, Answer::Done);
                }
                Phase::Up(running)
            }
        }
    }

    fn not_started(&mut self, replies: Vec<Reply>, why: String) -> Phase {
        let next = format!("{why}; tried again after {} s", self.pause.as_secs_f64());
        for reply in replies {
            let text = format!("service `{}` did not start: {next}", self.service.name);
            answer(reply, Answer::Failed(text));
        }
        self.note(|state| state.trouble = Some(next));
        Phase::Waiting
    }

    async fn up(&mut self, mut running: Running) -> Phase {
        let since = Instant::now();
        loop {
            tokio::select! {
                exit = running.ended() => {
                    let up = since.elapsed();
                    if up >= STEADY {
                        self.pause = PAUSE_FIRST;
                    }
                    self.note(|state| {
                        state.running = false;
                        state.pid = None;
                        state.trouble = Some(format!("{exit} after {:.1} s", up.as_secs_f64()));
                    });
                    return Phase::Waiting;
                }
                Order { change, reply } = self.order() => match change {
                    ServiceChange::Start => answer(reply, Answer::Done),
                    ServiceChange::Install(service) => self.replace(*service, reply),
                    ServiceChange::Reload => {
                        running.signal(match self.service.reload_signal {
                            ReloadSignal::Hup => Signal::SIGHUP,
                            ReloadSignal::Usr2 => Signal::SIGUSR2,
                        });
                        answer(reply, Answer::Done);
                    }
                    change => return self.end(running, change, reply).await,
                },
            }
        }
    }

    /// Stop, restart or removal of what runs.
    async fn end(&mut self, mut running: Running, change: ServiceChange, reply: Reply) -> Phase {
        let signal = match change {
            ServiceChange::Stop {
                signal: Some(signal),
            } => signal,
            _ => self.service.stop_signal,
        };
        if !matches!(change, ServiceChange::Restart) {
            self.note(|state| state.wanted = false);
        }
        if let Err(why) = running.stop(number(signal), self.service.stop_limit).await {
            answer(reply, Answer::Failed(why));
            return Phase::Up(running);
        }
        self.note(|state| {
            state.running = false;
            state.pid = None;
            state.trouble = None;
        });
        match change {
            ServiceChange::Restart => {
                self.pause = PAUSE_FIRST;
                Phase::Starting(vec![reply])
            }
            ServiceChange::Remove => self.forget(reply),
            _ => {
                answer(reply, Answer::Done);
                Phase::Down
            }
        }
    }

    async fn wait(&mut self) -> Phase {
        let until = tokio::time::Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MOST);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Phase::Starting(Vec::new()),
                Order { change, reply } = self.order() => match change {
                    ServiceChange::Start | ServiceChange::Restart => {
                        self.pause = PAUSE_FIRST;
                        return Phase::Starting(vec![reply]);
                    }
                    ServiceChange::Install(service) => self.replace(*service, reply),
                    ServiceChange::Reload => answer(reply, Answer::Done),
                    ServiceChange::Stop { .. } => {
                        self.note(|state| {
                            state.wanted = false;
                            state.trouble = None;
                        });
                        answer(reply, Answer::Done);
                        return Phase::Down;
                    }
                    ServiceChange::Remove => return self.forget(reply),
                },
            }
        }
    }

    /// The definition's file was written before the order was given.
    fn replace(&mut self, service: Service, reply: Reply) {
        self.service = service;
        answer(reply, Answer::Done);
    }

    fn forget(&mut self, reply: Reply) -> Phase {
        let name = &self.service.name;
        match durable::remove(&service_path(&self.of.folder, name)) {
            Err(fault) => {
                answer(reply, Answer::Failed(fault.to_string()));
                Phase::Down
            }
            Ok(()) => {
                self.of.entries().remove(name);
                answer(reply, Answer::Done);
                Phase::Removed
            }
        }
    }

    fn spawn(&self, argv: &[String]) -> Result<Running, String> {
        let folder = &self.of.folder;
        let mut command = std::process::Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .env_clear()
            .envs(environment(folder))
            .envs(&self.service.env)
            .envs(self.secrets()?)
            .current_dir(folder.join("data"))
            .stdin(Stdio::null())
            .process_group(0);
        match service_user().filter(|_| self.service.as_service_user) {
            Some(user) => command.uid(user.uid).gid(user.gid),
            // Asking for the user that it has anyway makes std fork. It would vfork, and a supervisor that waits for
            // the child of a vfork cannot be stopped: a freeze would not show.
            None => command.uid(nix::unistd::geteuid().as_raw()),
        };
        let log = self
            .log()
            .map_err(|error| format!("cannot open its log: {error}"))?;
        command.stdout(log.try_clone().map_err(|error| error.to_string())?);
        command.stderr(log);
        let failed = |error| format!("cannot run `{}`: {error}", argv[0]);
        self.of.exits.spawn(&mut command).map_err(failed)
    }

    fn secrets(&self) -> Result<Vec<(String, String)>, String> {
        let Some(path) = &self.service.env_file else {
            return Ok(Vec::new());
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read `{path}`: {error}"))?;
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        Ok(pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect())
    }

    fn log(&self) -> std::io::Result<std::fs::File> {
        let path = self
            .of
            .folder
            .join("log")
            .join(format!("{}.log", self.service.name));
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_MOST) {
            std::fs::rename(&path, path.with_extension("log.1"))?;
        }
        OpenOptions::new().create(true).append(true).open(path)
    }
}

/// Who asked may be gone.
fn answer(reply: Reply, answer: Answer) {
    let _ = reply.send(answer);
}

fn number(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::SIGTERM,
        StopSignal::Int => Signal::SIGINT,
        StopSignal::Quit => Signal::SIGQUIT,
        StopSignal::Usr1 => Signal::SIGUSR1,
    }
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
        let _ = serde_json::from_str::<Address>(line);
    }
}
