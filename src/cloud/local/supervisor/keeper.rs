//! Keeps one service as it is wanted: started, restarted with a growing pause, stopped in order.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::body::{Order, Reply, Supervisor, answer};
use super::children::Running;
use super::{Answer, BEFORE_LIMIT, KILL_LIMIT, environment, service_path};
use crate::cloud::local::user::service_user;
use crate::durable;
use crate::model::posix::assignments;
use crate::shell::{ReloadSignal, Service, ServiceChange, ServiceState, StopSignal};

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(2);
/// A service that was up for so long starts again with the shortest pause.
const STEADY: Duration = Duration::from_secs(10);
/// A service's log is set aside at a start when it is longer.
const LOG_MOST: u64 = 16 << 20;

/// Keeps one service as it is wanted.
pub(super) struct Keeper {
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
    pub(super) fn new(
        of: Supervisor,
        service: Service,
        orders: mpsc::UnboundedReceiver<Order>,
        state: Arc<Mutex<ServiceState>>,
    ) -> Keeper {
        Keeper {
            of,
            service,
            orders,
            state,
            pause: PAUSE_FIRST,
        }
    }

    pub(super) async fn keep(mut self) {
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
        Ok(assignments(&text).collect())
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

fn number(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::SIGTERM,
        StopSignal::Int => Signal::SIGINT,
        StopSignal::Quit => Signal::SIGQUIT,
        StopSignal::Usr1 => Signal::SIGUSR1,
    }
}
