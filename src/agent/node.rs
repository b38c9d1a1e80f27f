//! The agent's own node: what its engine looks like, and the few things that are done to it. And a look at the others.
//!
//! Opening and starting may take longer than a lease, so they run beside the loop, which goes on renewing; fencing
//! ends them first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::judge::{Named, Others, Seen};
use super::{AgentConfig, told_path};
use crate::db::{Engine, Node, NodeStatus, Position, Reach};
use crate::error::Fault;
use crate::model::id::ServerName;
use crate::model::units;
use crate::shell::{File, Host, ServiceState};

/// For a connection to another node, and for its answer.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// For stopping the engine at once. The lease is over by then, so nothing else waits for it.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// For how many looks one who confirms commits may be away: a stream that breaks comes back within a second.
const AWAY_LOOKS: u32 = 3;
/// For telling the engine who confirms.
const CONFIRM_LIMIT: Duration = Duration::from_secs(2);
/// For opening or starting an engine that has log to replay.
const WORK_LIMIT: Duration = Duration::from_secs(120);

pub(super) struct LocalNode {
    node: Node,
    service: String,
    /// With whether it is at another site.
    others: Vec<(Node, bool)>,
    engine: Arc<dyn Engine>,
    reach: Arc<Reach>,
    limit: Duration,
    work: Option<Work>,
    pub seen: Seen,
    /// `Some` when `seen` is `Writable` and the engine does not answer: why.
    silent: Option<String>,
    /// The process that was writable when it last answered. One that was started since then was started
    /// non-writable, however silent it is.
    was_writable: Option<Process>,
    pub opened_under: Option<u64>,
    pub stopped_here: bool,
    /// Whether what an agent before this one wrote about its stop was read.
    recalled: bool,
    /// The newest heartbeat in the engine.
    pub heartbeat: u64,
    /// What the engine said at the last look about who streams from it and who confirms its commits; `None` when it
    /// said nothing.
    confirming: Option<Confirming>,
    /// For how many looks somebody who should confirm has been away.
    away: u32,
    /// How the last opening or start failed.
    pub failure: Option<String>,
}

struct Confirming {
    streaming: Vec<ServerName>,
    by: Vec<ServerName>,
    in_force: bool,
}

/// Who confirms the writer's commits.
#[derive(Debug, PartialEq)]
pub(super) struct Confirmation {
    /// For the writer record: what the engine is sure to obey, also while it is being changed.
    pub claim: Vec<ServerName>,
    /// What the engine is to be told, once the record has the claim.
    pub change: Option<Vec<ServerName>>,
}

/// Written beside the agent's configuration when it stops the engine, and removed when the engine answers again: the
/// agent that comes after it must know that nobody else had a reason.
#[derive(Serialize, Deserialize)]
struct Stopped {
    /// Of the engine since the server booted. More by now: somebody started it, and what stopped it then is unknown.
    starts: u32,
}

/// What is known of an engine's process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Process {
    Gone,
    Started {
        pid: u32,
        starts: u32,
    },
    /// It is there, or may be there; which one it is was not found out.
    Unknown,
}

impl Process {
    /// Whether `now` can still be what this one was.
    fn may_be(self, now: Process) -> bool {
        match (self, now) {
            // Whatever its supervisor starts after that comes up non-writable.
            (_, Process::Gone) | (Process::Gone, _) => false,
            (Process::Started { .. }, Process::Started { .. }) => self == now,
            _ => true,
        }
    }
}

/// An opening (under an epoch) or a start that is under way.
struct Work {
    opens: Option<u64>,
    handle: JoinHandle<Result<(), String>>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl LocalNode {
    pub fn new(
        config: AgentConfig,
        engine: Arc<dyn Engine>,
        reach: Reach,
        limit: Duration,
    ) -> LocalNode {
        let others = config.others.iter().map(|peer| {
            let mut database = config.database.clone();
            database.port = peer.port;
            let host = Host {
                name: peer.node.clone(),
                site: peer.site.clone(),
                address: peer.address,
                dirs: config.host.dirs.clone(),
            };
            (
                Node {
                    database,
                    host,
                    peers: config.peers.clone(),
                    lacks_peers: false,
                },
                peer.site != config.host.site,
            )
        });
        LocalNode {
            others: others.collect(),
            node: Node {
                database: config.database,
                host: config.host,
                peers: config.peers,
                lacks_peers: false,
            },
            service: config.service,
            engine,
            reach: Arc::new(reach),
            limit,
            work: None,
            seen: Seen::Down,
            silent: None,
            was_writable: None,
            opened_under: None,
            stopped_here: false,
            recalled: false,
            heartbeat: 0,
            confirming: None,
            away: 0,
            failure: None,
        }
    }

    pub async fn look(&mut self) {
        self.collect().await;
        self.recall().await;
        let opening = self.work.as_ref().is_some_and(|work| work.opens.is_some());
        self.silent = None;
        self.confirming = None;
        self.seen = match limited(self.limit, self.engine.status(&self.node, &self.reach)).await {
            Ok(status) => {
                if self.stopped_here {
                    self.forget_stop().await;
                }
                self.heartbeat = status
                    .heartbeat
                    .as_ref()
                    .map_or(self.heartbeat, |heartbeat| heartbeat.seq);
                self.confirming = Some(Confirming {
                    streaming: status
                        .followers
                        .iter()
                        .filter(|follower| follower.streaming)
                        .map(|follower| follower.node.clone())
                        .collect(),
                    by: status.confirmed_by,
                    in_force: status.confirming,
                });
                // Asked after the status: should it have been replaced in between, the new one counts as writable.
                self.was_writable = match status.writable {
                    true => Some(self.process().await),
                    false => None,
                };
                match status.writable {
                    true => Seen::Writable,
                    false if opening => Seen::Opening,
                    false => Seen::Replica,
                }
            }
            Err(_) if opening => Seen::Opening,
            // Too busy to answer is not too busy to write: only a process that is gone cannot.
            Err(why) if self.may_still_write().await => {
                self.silent = Some(why);
                Seen::Writable
            }
            Err(_) => {
                self.was_writable = None;
                Seen::Down
            }
        };
        if matches!(self.seen, Seen::Replica | Seen::Down) {
            self.opened_under = None;
        }
    }

    /// Whether the process that was writable may still be there.
    async fn may_still_write(&self) -> bool {
        match self.was_writable {
            Some(was) => was.may_be(self.process().await),
            None => false,
        }
    }

    async fn answers_writable(&self) -> bool {
        let status = limited(self.limit, self.engine.status(&self.node, &self.reach)).await;
        status.is_ok_and(|status| status.writable)
    }

    fn mark(&self) -> String {
        format!("{}/agent/stopped.json", self.node.host.dirs.etc)
    }

    /// What the last run that opened this node left here.
    pub async fn told(&self) -> Option<Named> {
        let path = told_path(&self.node.host);
        let found = limited(self.limit, self.reach.shell.get(&self.node.host, &path)).await;
        serde_json::from_slice(&found.ok()??).ok()
    }

    /// What cannot be read is tried again at the next look.
    async fn recall(&mut self) {
        if self.recalled {
            return;
        }
        let path = self.mark();
        let found = limited(self.limit, self.reach.shell.get(&self.node.host, &path)).await;
        let Ok(found) = found else { return };
        if let Some(bytes) = found {
            let Some(service) = self.service().await else {
                return;
            };
            let stopped = serde_json::from_slice::<Stopped>(&bytes);
            let same = stopped.is_ok_and(|stopped| stopped.starts == service.starts);
            self.stopped_here = same && !service.running;
            if !self.stopped_here {
                self.forget_stop().await;
            }
        }
        self.recalled = true;
    }

    /// Before the stop is known to have worked: should this agent die in between, the engine is down, or answers.
    async fn note_stop(&self, starts: u32) {
        let file = File {
            path: self.mark(),
            bytes: serde_json::to_vec(&Stopped { starts }).expect("a number serialises"),
            mode: 0o644,
            for_service_user: false,
        };
        // Without it somebody must start the engine after both the stop and the death of this agent.
        let _ = limited(self.limit, self.reach.shell.put(&self.node.host, &file)).await;
    }

    async fn forget_stop(&mut self) {
        let path = self.mark();
        let gone = limited(self.limit, self.reach.shell.remove(&self.node.host, &path)).await;
        // One that stays says a number of starts that is over.
        drop(gone);
        self.stopped_here = false;
    }

    async fn service(&self) -> Option<ServiceState> {
        let services = limited(self.limit, self.reach.shell.services(&self.node.host)).await;
        let mut services = services.ok()?.into_iter();
        services.find(|service| service.name == self.service)
    }

    async fn process(&self) -> Process {
        match self.service().await {
            Some(service) if !service.running => Process::Gone,
            Some(service) => service
                .pid
                .map_or(Process::Unknown, |pid| Process::Started {
                    pid,
                    starts: service.starts,
                }),
            None => Process::Unknown,
        }
    }

    pub async fn beat(&self, seq: u64, at: Timestamp) -> Result<(Position, Option<u64>), String> {
        if let Some(why) = &self.silent {
            return Err(format!("no heartbeat: {why}"));
        }
        let wrote = limited(
            self.limit,
            self.engine.beat(&self.node, seq, at, &self.reach),
        )
        .await;
        wrote.map_err(|why| format!("no heartbeat: {why}"))
    }

    /// Under `strict` every node at another site that streams from here confirms; one that is away for a few looks is
    /// waited for no longer. `claimed` is what the record says.
    pub fn confirmation(&mut self, strict: bool, claimed: &[ServerName]) -> Confirmation {
        let Some(now) = &self.confirming else {
            // Nobody else changes the setting, and nothing is known to be wrong with it.
            return Confirmation {
                claim: claimed.to_vec(),
                change: None,
            };
        };
        let elsewhere = self.others.iter().filter(|(_, other_site)| *other_site);
        let elsewhere: Vec<&ServerName> = elsewhere.map(|(node, _)| &node.host.name).collect();
        let missing = |one: &&ServerName| !now.streaming.contains(one);
        let missing: Vec<&ServerName> = now.by.iter().filter(missing).collect();
        self.away = if missing.is_empty() { 0 } else { self.away + 1 };
        let mut wanted = Vec::new();
        if strict {
            let forgiven = self.away < AWAY_LOOKS;
            let counts = |one: &&ServerName| {
                now.streaming.contains(one) || (forgiven && missing.contains(one))
            };
            wanted.extend(elsewhere.into_iter().filter(counts).cloned());
        }
        if wanted != now.by {
            let kept = claimed.iter();
            let kept = kept.filter(|one| now.by.contains(one) && wanted.contains(one));
            return Confirmation {
                claim: kept.cloned().collect(),
                change: Some(wanted),
            };
        }
        let known = now.in_force || now.by == claimed;
        Confirmation {
            claim: if known { wanted } else { Vec::new() },
            change: None,
        }
    }

    pub async fn confirm_by(&self, by: &[ServerName]) -> Result<(), String> {
        let told = self.engine.confirm_by(&self.node, by, &self.reach);
        let told = limited(CONFIRM_LIMIT, told).await;
        told.map_err(|why| format!("not set who confirms commits: {why}"))
    }

    /// The engine was found writable while the node is the writer under `epoch`.
    pub fn adopt(&mut self, epoch: u64) {
        self.opened_under = Some(epoch);
        self.failure = None;
    }

    /// Opens the engine. The caller has just renewed. What takes longer goes on beside the loop.
    pub async fn open(
        &mut self,
        epoch: u64,
        still: impl Fn() -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Result<(), String> {
        if self.work.is_none() {
            let (engine, node, reach) =
                (self.engine.clone(), self.node.clone(), self.reach.clone());
            self.begin(Some(epoch), async move {
                engine.promote(&node, &reach, &still).await.map(drop)
            });
        }
        self.collect_soon().await
    }

    /// Starts the engine non-writable. It answers at some later look.
    pub async fn start(&mut self) -> Result<(), String> {
        if self.work.is_none() {
            let (engine, node, reach) =
                (self.engine.clone(), self.node.clone(), self.reach.clone());
            self.begin(None, async move { engine.start(&node, &reach).await });
        }
        self.collect_soon().await
    }

    fn begin<E: std::fmt::Display + 'static>(
        &mut self,
        opens: Option<u64>,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.work = Some(Work {
            opens,
            handle: tokio::spawn(limited(WORK_LIMIT, work)),
        });
    }

    /// Gives work that was just begun the time of one call.
    async fn collect_soon(&mut self) -> Result<(), String> {
        if let Some(work) = &mut self.work
            && let Ok(ended) = timeout(self.limit, &mut work.handle).await
        {
            self.ended(ended);
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Takes the result of work that has ended.
    async fn collect(&mut self) {
        if let Some(work) = &mut self.work
            && work.handle.is_finished()
        {
            let ended = (&mut work.handle).await;
            self.ended(ended);
        }
    }

    fn ended(&mut self, ended: Result<Result<(), String>, tokio::task::JoinError>) {
        let Some(work) = self.work.take() else { return };
        match ended.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => {
                self.failure = None;
                self.opened_under = work.opens.or(self.opened_under);
                // Should it fall silent now, it may be writable.
                if work.opens.is_some() && self.was_writable.is_none() {
                    self.was_writable = Some(Process::Unknown);
                }
            }
            Err(why) => self.failure = Some(why),
        }
    }

    /// Stops the engine at once and looks whether it is stopped. One that somebody started in the meantime is left
    /// to the next look.
    pub async fn fence(&mut self) -> Result<(), String> {
        if let Some(mut work) = self.work.take() {
            work.handle.abort();
            let _ = (&mut work.handle).await;
            self.was_writable = None;
        }
        if let Some(was) = self.was_writable {
            let now = self.process().await;
            // What answers without a process was started beside its supervisor, by hand.
            let by_hand = now == Process::Gone && self.answers_writable().await;
            if !was.may_be(now) && !by_hand {
                return Err("its process is gone or was started anew: looking again".to_owned());
            }
        }
        // An opening may have got through: until the stop is proved, the engine counts as writable.
        self.was_writable = Some(Process::Unknown);
        let stop = limited(STOP_LIMIT, self.engine.stop_now(&self.node, &self.reach));
        // Beside it, so that a disk that hangs does not keep the engine alive.
        let note = async {
            if let Some(service) = self.service().await {
                self.note_stop(service.starts).await;
            }
        };
        let (stopped, ()) = tokio::join!(stop, note);
        if let Err(first) = stopped {
            self.refuses_writes()
                .await
                .map_err(|why| format!("{why}; {first}"))?;
        } else {
            self.is_stopped().await?;
        }
        self.was_writable = None;
        self.opened_under = None;
        self.stopped_here = true;
        self.failure = None;
        Ok(())
    }

    /// The stop was a success. The supervisor agrees; or the machine shows nothing of the engine, and what a supervisor
    /// that was not told starts comes up non-writable.
    async fn is_stopped(&self) -> Result<(), String> {
        if matches!(self.process().await, Process::Gone) {
            return Ok(());
        }
        match limited(self.limit, self.engine.is_stopped(&self.node, &self.reach)).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => self.refuses_writes().await,
        }
    }

    async fn refuses_writes(&self) -> Result<(), String> {
        match limited(self.limit, self.engine.status(&self.node, &self.reach)).await {
            Ok(status) if !status.writable => Ok(()),
            Ok(_) => Err("the engine is still writable after the stop".to_owned()),
            Err(why) => Err(format!("nothing proves that the engine is stopped: {why}")),
        }
    }

    /// Whether anybody can be heard, and whether another node is writable. Where there is another site, only its
    /// nodes prove that this one is not cut off.
    pub async fn ask_others(&self) -> Others {
        if self.others.is_empty() {
            return Others::Nobody;
        }
        let elsewhere = self.others.iter().any(|(_, other_site)| *other_site);
        let answers = join_all(self.others.iter().map(|(node, _)| self.ask(node))).await;
        let mut answering = Others::Silent;
        for ((node, other_site), answer) in self.others.iter().zip(answers) {
            match answer {
                Some(status) if status.writable => {
                    return Others::Writable {
                        node: node.host.name.clone(),
                    };
                }
                Some(_) if answering == Others::Silent && (*other_site || !elsewhere) => {
                    answering = Others::Answering {
                        by: node.host.name.clone(),
                    };
                }
                _ => {}
            }
        }
        answering
    }

    /// An open port alone does not say whether the node is writable: that counts as silence.
    async fn ask(&self, node: &Node) -> Option<NodeStatus> {
        let address = SocketAddr::new(node.host.address, node.database.port);
        timeout(ASK_LIMIT, TcpStream::connect(address))
            .await
            .ok()?
            .ok()?;
        limited(ASK_LIMIT, self.engine.status(node, &self.reach))
            .await
            .ok()
    }
}

async fn limited<T, E: std::fmt::Display>(
    limit: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(limit, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", units::short(limit))),
    }
}
