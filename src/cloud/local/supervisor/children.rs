//! Children: started in groups of their own, and reaped with what is left of their group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::KILL_LIMIT;
use crate::cloud::local::processes::{Identity, Search};

/// Who waits for the end of which child.
#[derive(Clone, Default)]
pub(super) struct Exits(Arc<Mutex<HashMap<i32, oneshot::Sender<String>>>>);

impl Exits {
    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<String>>> {
        self.0.lock().expect("no holder of the exits panics")
    }

    pub(super) fn spawn(&self, command: &mut std::process::Command) -> std::io::Result<Running> {
        let pid = command.spawn()?.id() as i32;
        let (sender, exit) = oneshot::channel();
        self.waiting().insert(pid, sender);
        Ok(Running { pid, exit })
    }

    /// Reaps all that ended. Of a child that we started, what is left of its group goes with it: workers without
    /// master would hold its ports. That comes before the reaping, while its id cannot be given to another process.
    pub(super) fn reap(&self) {
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
pub(super) struct Running {
    pub(super) pid: i32,
    exit: oneshot::Receiver<String>,
}

impl Running {
    pub(super) async fn ended(&mut self) -> String {
        (&mut self.exit)
            .await
            .unwrap_or_else(|_| "ended".to_owned())
    }

    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid), signal);
    }

    /// Asks it to end, and kills it with all its descendants when it has not after `limit`. `Err` when even that
    /// does not help in time.
    pub(super) async fn stop(&mut self, signal: Signal, limit: Duration) -> Result<(), String> {
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
