//! The agent on a database server: a loop that keeps the node's right to write and its ability to write the same.
//!
//! About once a second it reads the writer record in the arbiter, looks at the engine, judges ([`judge`]) and acts:
//! it renews the write lease and writes heartbeats while its node is the writer, opens the engine only after a
//! renewal, and stops it at once when another epoch exists or when the node is isolated.
//!
//! Promises: every call has a limit well below the lease; the lease is looked at, by the wall clock and by the
//! one since boot, right before anything that depends on it, so that a process that was frozen notices. It counts as
//! over while there is still time to stop the engine ([`Pace`]).
//!
//! Under `self_fence: strict` the engine acknowledges no commit before the nodes at the other site have it, so that a
//! machine that was frozen and goes on acknowledges nothing that the new writer lacks, before the agent looks at
//! anything. The writer record says when that is so ([`Writer::confirmed_by`]).
//!
//! That it stopped the engine itself is on the disk, for the agent that comes after it.
//!
//! It does not choose a writer, start an engine that somebody else stopped, or touch another node. Ending the agent
//! leaves the engine as it is.

pub mod judge;
mod node;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::db::{Engine, Reach};
use crate::error::Fault;
use crate::model::id::{ServerName, SiteName};
use crate::model::roles::{Beat, Writer};
use crate::model::stack::{Database, Remote, SelfFence};
use crate::model::units::{self, Span};
use crate::shell::{File, Host};
use crate::state::{PutError, StateStore, Version};
use judge::{Document, Named, Observation, Others, Seen, Verdict, judge};
use node::{Confirmation, LocalNode};

/// The agent's private key for the machine that keeps the arbiter, beside its configuration.
pub const ARBITER_KEY: &str = "arbiter_ed25519";

/// What whoever opens `node` leaves with its agent before: the writer record that was just written, which the agent may
/// be unable to read.
pub fn told(host: &Host, node: &ServerName, epoch: u64) -> File {
    let named = Named {
        epoch,
        node: Some(node.clone()),
    };
    File {
        path: told_path(host),
        bytes: serde_json::to_vec(&named).expect("a name and a number serialise"),
        mode: 0o644,
        for_service_user: false,
    }
}

fn told_path(host: &Host) -> String {
    format!("{}/agent/writer.json", host.dirs.etc)
}

/// The file that a step writes beside the agent's keys. No secret in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Name of the engine's service.
    pub service: String,
    pub database: Database,
    /// Every address that may connect to the node.
    pub peers: Vec<IpAddr>,
    /// Folder of the arbiter.
    pub arbiter: String,
    /// The machine that keeps it, where it is another one; its host key is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arbiter_at: Option<Remote>,
    /// The node is a whole machine, whose services are systemd's.
    #[serde(default)]
    pub machine: bool,
    /// Of the hafog that wrote this.
    #[serde(default)]
    pub version: String,
    pub self_fence: SelfFence,
    /// Time from one look to the next; shortened where the write lease is short.
    pub every: Span,
    /// The database's other nodes, at all sites.
    pub others: Vec<Peer>,
    pub host: Host,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub node: ServerName,
    pub site: SiteName,
    pub address: IpAddr,
    pub port: u16,
}

pub struct AgentPorts {
    /// The arbiter.
    pub store: Arc<dyn StateStore>,
    pub engine: Arc<dyn Engine>,
    pub reach: Reach,
    pub clock: Arc<dyn Clock>,
    /// Called with one line whenever the verdict or what came of it changes.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
}

/// Every time limit, as a part of the write lease.
#[derive(Clone, Copy, Debug)]
struct Pace {
    every: Duration,
    /// For one call.
    limit: Duration,
    lease: Duration,
    /// With less than this left the lease counts as over: a pause and a whole round (three calls) plus the time to
    /// stop the engine.
    reserve: Duration,
}

impl Pace {
    fn of(config: &AgentConfig) -> Result<Pace, Fault> {
        let lease = config.database.write_lease.0;
        let every = config.every.0.min(lease / 10);
        if every < Duration::from_millis(1) {
            let message = format!(
                "a write lease of {} looked at every {} leaves no time",
                config.database.write_lease, config.every
            );
            return Err(Fault::new(message));
        }
        Ok(Pace {
            every,
            limit: (lease / 12).min(Duration::from_secs(5)),
            lease,
            reserve: lease * 2 / 5,
        })
    }
}

/// A renewal that succeeded, by both clocks, counted from before it was sent.
#[derive(Clone, Copy)]
struct Renewal {
    epoch: u64,
    until: Timestamp,
    /// By the clock that goes on while the machine sleeps.
    since: Duration,
}

impl Renewal {
    /// What is left of it, by both clocks: the one since boot does not jump back, and the wall clock is what others
    /// go by.
    fn left(&self, clock: &dyn Clock, lease: Duration) -> Duration {
        let by_wall = Duration::try_from(self.until.duration_since(clock.now()));
        let elapsed = clock.since_boot().saturating_sub(self.since);
        by_wall
            .unwrap_or_default()
            .min(lease.saturating_sub(elapsed))
    }
}

/// How a round ended.
#[derive(Debug, PartialEq)]
enum Round {
    Done,
    /// The world moved on while this round was under way: look again before doing anything.
    Again,
}

/// Runs until `shutdown`. A round that has begun is finished.
pub async fn run(
    config: AgentConfig,
    ports: AgentPorts,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Fault> {
    let mut agent = Agent::new(config, ports)?;
    let clock = agent.clock.clone();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut next = Instant::now();
    loop {
        agent.tick().await;
        // From the last due time, not from now, so that slow rounds do not add up; what was missed is not made up.
        next = (next + agent.pace.every).max(Instant::now());
        let pause = next.saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            () = clock.sleep(pause) => {}
        }
    }
}

struct Agent {
    me: ServerName,
    key: String,
    self_fence: SelfFence,
    pace: Pace,
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    node: LocalNode,
    /// The newest record that was read, or that a run which opens this node left here.
    last: Option<Named>,
    renewal: Option<Renewal>,
    /// When the tick before this one began, by both clocks.
    before: Option<(Timestamp, Duration)>,
    /// The last heartbeat that was tried.
    seq: u64,
    log: Box<dyn Fn(&str) + Send + Sync>,
    said: String,
}

impl Agent {
    fn new(config: AgentConfig, ports: AgentPorts) -> Result<Agent, Fault> {
        let pace = Pace::of(&config)?;
        Ok(Agent {
            me: config.host.name.clone(),
            key: format!("writer/{}", config.database.name),
            self_fence: config.self_fence,
            pace,
            store: ports.store,
            clock: ports.clock,
            node: LocalNode::new(config, ports.engine, ports.reach, pace.limit),
            last: None,
            renewal: None,
            before: None,
            seq: 0,
            log: ports.log,
            said: String::new(),
        })
    }

    async fn tick(&mut self) {
        let began = (self.clock.now(), self.clock.since_boot());
        self.wake().await;
        // Renew, then beat; and once more for a race that was lost. The next tick is soon enough for the rest.
        for _ in 0..3 {
            if self.round().await == Round::Done {
                break;
            }
        }
        self.before = Some(began);
    }

    /// Under `strict`, an agent that slept through the end of its lease stops its engine before it looks at anything:
    /// every question takes time in which the engine answers.
    async fn wake(&mut self) {
        let over = self.lease_left().is_some_and(|left| left.is_zero());
        let may_write = matches!(self.node.seen, Seen::Writable | Seen::Opening);
        if !over || !may_write || self.self_fence != SelfFence::Strict {
            return;
        }
        let verdict = Verdict::Fence {
            me: self.me.clone(),
            because: "it was asleep when its write lease ended, and `self_fence` is `strict`"
                .to_owned(),
        };
        let trouble = self.act(&verdict, None, false).await.err();
        self.say(&verdict, trouble);
    }

    async fn round(&mut self) -> Round {
        // The engine first: a record read later cannot be older than the engine's state that is judged by it.
        self.node.look().await;
        let found = read(self.store.as_ref(), &self.key, self.pace.limit).await;
        let mut document = self.believe(&found);
        if let Document::Unreachable { last, .. } = &mut document {
            self.hear().await;
            last.clone_from(&self.last);
        }
        let mut seen = Observation {
            me: self.me.clone(),
            document,
            engine: self.node.seen,
            opened_under: self.node.opened_under,
            stopped_here: self.node.stopped_here,
            lease: false,
            self_fence: self.self_fence,
            others: Others::NotAsked,
        };
        seen.lease = self.lease_holds();
        let mut verdict = judge(&seen);
        if matches!(verdict, Verdict::Ask { .. }) {
            seen.others = self.node.ask_others().await;
            verdict = judge(&seen);
        }
        let record = found.ok().flatten();
        let mut acted = self.act(&verdict, record, seen.lease).await;
        if let (Err(why), Verdict::Renew { .. } | Verdict::Opening { .. }) = (&acted, &verdict)
            && !self.lease_holds()
        {
            // An arbiter that can be read and not written.
            match self.self_fence {
                SelfFence::Strict => {
                    let because =
                        format!("its write lease is over, and `self_fence` is `strict` ({why})");
                    verdict = Verdict::Fence {
                        me: self.me.clone(),
                        because,
                    };
                    acted = self.act(&verdict, None, false).await;
                }
                // It was just read that this node is the writer: the replicas go on measuring their lag.
                SelfFence::Isolated if seen.engine == Seen::Writable => drop(self.beat(None).await),
                SelfFence::Isolated => {}
            }
        }
        let (round, trouble) = match acted {
            Ok(round) => (round, None),
            Err(why) => (Round::Done, Some(why)),
        };
        if round == Round::Done {
            self.say(&verdict, trouble);
        }
        round
    }

    /// Turns an answer into something to rely on. An arbiter whose record vanished or went back in time (an empty
    /// mount, an old backup) is no arbiter.
    fn believe(&mut self, found: &Result<Option<(Writer, Version)>, String>) -> Document {
        let doubt = match (found, &self.last) {
            (Err(why), _) => why.clone(),
            (Ok(None), None) => return Document::Absent,
            (Ok(None), Some(last)) => format!(
                "the arbiter lost the writer record, which had epoch {}",
                last.epoch
            ),
            (Ok(Some((writer, _))), Some(last)) if writer.epoch < last.epoch => {
                format!(
                    "the writer record went back from epoch {} to {}",
                    last.epoch, writer.epoch
                )
            }
            (Ok(Some((writer, _))), _) => {
                let named = Named {
                    epoch: writer.epoch,
                    node: writer.node.clone(),
                };
                if named.node.as_ref() != Some(&self.me)
                    || self.renewal.is_some_and(|held| held.epoch != named.epoch)
                {
                    self.renewal = None;
                }
                self.last = Some(named.clone());
                return Document::Read(named);
            }
        };
        Document::Unreachable {
            why: doubt,
            last: self.last.clone(),
        }
    }

    /// The run that opened this node may have reached the arbiter while this agent does not.
    async fn hear(&mut self) {
        let Some(last) = &self.last else { return };
        if last.node.as_ref() == Some(&self.me) {
            return;
        }
        let told = self.node.told().await;
        let Some(told) = told.filter(|told| told.is_later_than(last)) else {
            return;
        };
        // The other site may have nobody who answers: its node is being fenced or stopped. It was not here at the tick
        // before, which may be long ago on a machine that was frozen. Under `strict` only what the arbiter knows of is a
        // lease.
        if let Some((at, since)) = self.before
            && self.self_fence == SelfFence::Isolated
        {
            let lease = jiff::SignedDuration::try_from(self.pace.lease).unwrap_or_default();
            self.renewal = Some(Renewal {
                epoch: told.epoch,
                until: at + lease,
                since,
            });
        }
        self.last = Some(told);
    }

    fn lease_left(&self) -> Option<Duration> {
        let held = self.renewal?;
        Some(held.left(self.clock.as_ref(), self.pace.lease))
    }

    fn lease_holds(&self) -> bool {
        self.lease_left()
            .is_some_and(|left| left > self.pace.reserve)
    }

    /// Whether the lease that was just renewed is not over yet.
    fn still(&self) -> impl Fn() -> Result<(), Fault> + Send + Sync + use<> {
        let (clock, held, lease) = (self.clock.clone(), self.renewal, self.pace.lease);
        move || {
            let left = held.map(|held| held.left(clock.as_ref(), lease));
            match left.is_some_and(|left| !left.is_zero()) {
                true => Ok(()),
                false => Err(Fault::new("its write lease was over before it was opened")),
            }
        }
    }

    /// `Err`: why it did not work; the next tick tries again.
    async fn act(
        &mut self,
        verdict: &Verdict,
        record: Option<(Writer, Version)>,
        lease: bool,
    ) -> Result<Round, String> {
        match verdict {
            Verdict::Idle { .. } | Verdict::Leave { .. } | Verdict::Ask { .. } => {
                return Ok(Round::Done);
            }
            Verdict::Fence { .. } => {
                self.renewal = None;
                return self.node.fence().await.map(|()| Round::Done);
            }
            // Thawed after a long time: what was judged is no longer true.
            _ if lease && !self.lease_holds() => return Ok(Round::Again),
            Verdict::Continue { .. } if self.node.seen == Seen::Writable => {
                return self.beat(None).await.map(|_| Round::Done);
            }
            Verdict::Continue { .. } => return Ok(Round::Done),
            _ => {}
        }
        let Some((writer, version)) = record else {
            return Ok(Round::Done);
        };
        let epoch = writer.epoch;
        let (beat, trouble) = match verdict {
            Verdict::Beat { .. } => match self.beat(writer.beat.as_ref()).await {
                Ok(beat) if self.lease_holds() => (Some(beat), None),
                Ok(_) => return Ok(Round::Again),
                // The right to write does not depend on a heartbeat that was late.
                Err(why) => (None, Some(why)),
            },
            _ => (None, None),
        };
        let beat = beat.or(writer.beat);
        let confirmation = match verdict {
            Verdict::Beat { .. } => {
                let strict = self.self_fence == SelfFence::Strict;
                self.node.confirmation(strict, &writer.confirmed_by)
            }
            _ => Confirmation {
                claim: writer.confirmed_by,
                change: None,
            },
        };
        if self
            .renew(
                Writer {
                    epoch,
                    node: Some(self.me.clone()),
                    lease_until: None,
                    confirmed_by: confirmation.claim,
                    beat,
                },
                &version,
            )
            .await?
            == Round::Again
        {
            return Ok(Round::Again);
        }
        match verdict {
            Verdict::Renew { .. } => return Ok(Round::Again),
            // Frozen since the renewal was sent?
            Verdict::Open { .. } | Verdict::Start { .. } if !self.lease_holds() => {
                return Ok(Round::Again);
            }
            Verdict::Open { .. } => self.node.open(epoch, self.still()).await?,
            Verdict::Start { .. } => self.node.start().await?,
            Verdict::Beat { .. } => self.node.adopt(epoch),
            _ => {}
        }
        // After the record: it never names one that the engine does not wait for.
        if let Some(by) = confirmation.change {
            self.node.confirm_by(&by).await?;
        }
        trouble.map_or(Ok(Round::Done), Err)
    }

    async fn beat(&mut self, stored: Option<&Beat>) -> Result<Beat, String> {
        // A heartbeat that was tried may be there although no answer came: never the same number twice.
        self.seq = self
            .seq
            .max(stored.map_or(0, |beat| beat.seq))
            .max(self.node.heartbeat)
            + 1;
        let at = self.clock.now();
        let (position, transactions) = self.node.beat(self.seq, at).await?;
        Ok(Beat {
            seq: self.seq,
            at,
            position: position.0,
            transactions,
        })
    }

    /// Compare-and-set of the lease's new end, with the heartbeat. A lost race is no fault: somebody changed the writer.
    async fn renew(&mut self, mut writer: Writer, version: &Version) -> Result<Round, String> {
        let (until, since) = (self.clock.now() + self.pace.lease, self.clock.since_boot());
        writer.lease_until = Some(until);
        let bytes = serde_json::to_vec_pretty(&writer)
            .map_err(|error| format!("cannot write the writer record: {error}"))?;
        match timeout(
            self.pace.limit,
            self.store.put(&self.key, &bytes, Some(version)),
        )
        .await
        {
            Ok(Ok(_)) => {
                self.renewal = Some(Renewal {
                    epoch: writer.epoch,
                    until,
                    since,
                });
                Ok(Round::Done)
            }
            Ok(Err(PutError::Changed)) => Ok(Round::Again),
            Ok(Err(PutError::Fault(fault))) => Err(format!("lease not renewed: {fault}")),
            // It may have happened: then the arbiter believes in a longer lease than this agent does, which is safe.
            Err(_) => Err(format!(
                "lease not renewed: {}",
                silent(self.store.as_ref(), self.pace.limit)
            )),
        }
    }

    fn say(&mut self, verdict: &Verdict, trouble: Option<String>) {
        let line = match trouble.or_else(|| self.node.failure.clone()) {
            Some(why) => format!("{verdict}; failed: {why}"),
            None => verdict.to_string(),
        };
        if line != self.said {
            (self.log)(&line);
            self.said = line;
        }
    }
}

async fn read(
    store: &dyn StateStore,
    key: &str,
    limit: Duration,
) -> Result<Option<(Writer, Version)>, String> {
    let found = timeout(limit, store.get(key))
        .await
        .map_err(|_| silent(store, limit))?;
    let Some((bytes, version)) = found.map_err(|fault| fault.to_string())? else {
        return Ok(None);
    };
    let writer = serde_json::from_slice(&bytes).map_err(|error| {
        format!(
            "document `{key}` in {} cannot be read by this version of hafog: {error}",
            store.name()
        )
    })?;
    Ok(Some((writer, version)))
}

fn silent(store: &dyn StateStore, limit: Duration) -> String {
    format!(
        "state store {} did not answer within {}",
        store.name(),
        units::short(limit)
    )
}

#[cfg(test)]
#[path = "fake_tests.rs"]
mod fake;
#[cfg(test)]
mod tests;
