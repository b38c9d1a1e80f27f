//! The process itself: it listens, boots the services, hears of every child's end, and stops all of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::children::Exits;
use super::keeper::Keeper;
use super::{Answer, Ask, KILL_LIMIT, MARKER_PORT, PURPOSE, read_service, search, service_path};
use crate::cloud::local::processes::Identity;
use crate::error::Fault;
use crate::shell::{Service, ServiceChange, ServiceState};
use crate::{control, durable};

/// Signals that services are reloaded and stopped with, besides TERM.
const RELOADS_AND_STOPS: [fn() -> SignalKind; 5] = [
    SignalKind::hangup,
    SignalKind::interrupt,
    SignalKind::quit,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];

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
pub(super) struct Address {
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

pub(super) type Reply = oneshot::Sender<Answer>;

pub(super) struct Order {
    pub(super) change: ServiceChange,
    pub(super) reply: Reply,
}

/// A service as the others see it: what it is doing, and where orders go.
#[derive(Clone)]
pub(super) struct Entry {
    state: Arc<Mutex<ServiceState>>,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Clone)]
pub(super) struct Supervisor {
    pub(super) folder: PathBuf,
    pub(super) exits: Exits,
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

    pub(super) fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries
            .lock()
            .expect("no holder of the entries panics")
    }

    async fn keep(self) -> Result<(), Fault> {
        let cannot = |error: std::io::Error| Fault::new("cannot listen for signals").because(error);
        let mut children = signal(SignalKind::child()).map_err(cannot)?;
        let mut end = signal(SignalKind::terminate()).map_err(cannot)?;
        // What `nohup` or a script's `&` had ignored would be ignored by every service, and no shell can undo that. A
        // signal that is listened for is back at its default in what is started (signal(7)).
        for kind in RELOADS_AND_STOPS {
            let _ = signal(kind()).map_err(cannot)?;
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
        tokio::spawn(Keeper::new(self.clone(), service, orders, state).keep());
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

/// Who asked may be gone.
pub(super) fn answer(reply: Reply, answer: Answer) {
    let _ = reply.send(answer);
}
