//! Database engines behind one trait. An engine is given a [`Reach`] (shell and keys) and nothing else.
//!
//! Every node boots non-writable: its service starts it as a replica, and only its agent, under the write lease of
//! the current epoch, or a step of a run that holds the lease, opens it.

pub mod certificate;
pub mod keys;
pub mod postgres;
pub mod registry;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, Trouble};
use crate::model::id::{DatabaseName, ServerName};
use crate::model::stack::Database;
use crate::shell::{Host, Shell};
pub use certificate::Certificate;
use keys::Keys;

/// The role that agents log in with.
pub const AGENT_ROLE: &str = "hafog_agent";
/// The service that runs it.
pub const AGENT_SERVICE: &str = "hafog-agent";

pub struct EngineAbout {
    pub name: &'static str,
    pub about: &'static str,
    pub port: u16,
    /// Major versions that it can run.
    pub versions: &'static RangeInclusive<u32>,
    /// Of the URLs that applications are given.
    pub scheme: &'static str,
    /// Whether what such a URL leads to takes writes, asked as its application would. The path is that of the authority
    /// that vouches for it.
    pub takes_writes: fn(String, PathBuf) -> BoxFuture<'static, Result<bool, Fault>>,
    pub open: fn() -> Arc<dyn Engine>,
}

/// One server's copy of a database.
#[derive(Clone, Debug)]
pub struct Node {
    pub database: Database,
    pub host: Host,
    /// Every address that may connect: the stack's servers at all sites, and the machine that the command runs on.
    pub peers: Vec<std::net::IpAddr>,
    /// `peers` may lack somebody, because a cloud is silent: whoever is let in already stays let in.
    pub lacks_peers: bool,
}

/// How to get to a node.
pub struct Reach {
    pub shell: Arc<dyn Shell>,
    /// The stack's private certificate authority and what it signs.
    pub keys: Arc<Keys>,
}

/// A point in a database's log, written as the engine writes it. Compare with [`Engine::bytes_between`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub String);

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub role: NodeRole,
    /// A write would be accepted.
    pub writable: bool,
    /// Which history the node is on (PostgreSQL: timeline).
    pub timeline: u32,
    /// Names the database cluster; copies share it.
    pub system: String,
    pub version: String,
    /// Primary: written so far. Replica: replayed so far.
    pub position: Position,
    /// Replica: received so far.
    pub received: Option<Position>,
    /// Replica: the stream from its upstream.
    pub link: Option<Link>,
    /// Replica: it has log that it has not replayed yet. What `position` and `received` say is too little until it has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaying: bool,
    /// The newest heartbeat row that this node has.
    pub heartbeat: Option<Heartbeat>,
    /// When the newest transaction that a replica has replayed was committed, by the primary's clock.
    pub committed: Option<Timestamp>,
    /// Transactions that the node has, counted as [`Engine::beat`] does; `None` while it replays what it received.
    pub transactions: Option<u64>,
    /// Who streams from this node.
    pub followers: Vec<Follower>,
    /// The nodes that must have a commit on disk before it is acknowledged, as set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirmed_by: Vec<ServerName>,
    /// Whether every part of the engine is known to obey `confirmed_by`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirming: bool,
    pub seen: Timestamp,
}

impl NodeStatus {
    /// It gets nothing more and still reads what it has: how much that is is not known yet.
    pub fn is_unsettled(&self) -> bool {
        self.replaying && !matches!(self.link, Some(Link::Up { .. }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    Primary,
    Replica,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// Streaming, and something was received within the time limit. `from` is the upstream server's name.
    Up { from: String },
    /// Trying; or silent for longer than the time limit.
    Down { why: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub seq: u64,
    /// When the primary's agent wrote it, by that agent's clock.
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Follower {
    pub node: ServerName,
    pub streaming: bool,
    pub replayed: Option<Position>,
    /// Bytes of log that may still be written before this follower must be seeded again; `None` is without bound.
    pub headroom: Option<i64>,
}

/// How an old primary came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rejoined {
    /// It had nothing that the new primary lacks.
    Followed,
    /// Its extra log was taken back.
    Rewound,
    /// Copied anew, because it could not come back with what it had.
    Reseeded { because: String },
}

impl std::fmt::Display for Rejoined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rejoined::Followed => f.write_str("follows with what it had"),
            Rejoined::Rewound => f.write_str("was rewound"),
            Rejoined::Reseeded { because } => write!(f, "was copied anew: {because}"),
        }
    }
}

/// Whether two copies share one history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    None,
    /// `extra` bytes of log exist only on the old node, after `fork`.
    Diverged {
        fork: Position,
        extra: u64,
    },
    Unknown {
        why: String,
    },
}

/// What an old primary acknowledged and the current one lacks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// Commits in the log that only the old node has, heartbeats included; `None` where that log cannot be read.
    pub transactions: Option<u64>,
    /// When the first and the last of them were, by the old node's clock.
    pub first_commit: Option<String>,
    pub last_commit: Option<String>,
    /// Tables that were compared, and their rows on the old node.
    pub tables: u64,
    pub rows: u64,
    pub different: Vec<TableContents>,
    /// Tables that were not compared, each with the reason.
    pub not_compared: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableContents {
    pub table: String,
    /// Rows that only the old node has.
    pub only_old: u64,
    /// Rows that both have, with other values.
    pub changed: u64,
    /// The first of their primary keys. A row that the old node deleted cannot be told from one that the new primary added.
    pub keys: Vec<String>,
}

/// Whether whoever opens a node still may: it may have been frozen since it looked, and another node be the writer.
pub type Still<'a> = &'a (dyn Fn() -> Result<(), Fault> + Send + Sync);

/// For tests in which nobody is frozen.
#[cfg(test)]
pub fn always() -> Result<(), Fault> {
    Ok(())
}

#[async_trait]
pub trait Engine: Send + Sync {
    /// Name of the engine's service on a node.
    fn service(&self, database: &DatabaseName) -> String;
    /// Makes an empty database that boots non-writable: files, services (engine and agent's needs), roles, heartbeat table.
    /// Returns with the node up and writable once, so that the roles could be made. Running it again completes it.
    async fn create(
        &self,
        node: &Node,
        password: Option<&str>,
        reach: &Reach,
    ) -> Result<(), Trouble>;
    /// Whether there are data files on the node at all (of any age), and whether they are complete.
    async fn has_data(&self, node: &Node, reach: &Reach) -> Result<bool, Fault>;
    async fn status(&self, node: &Node, reach: &Reach) -> Result<NodeStatus, Fault>;
    /// Copies `from` (in use) to `to` and starts `to` following it. An interrupted copy is thrown away by the next one.
    /// Data of `to` that are not known to be in `from` too are never removed: they are put where `kept` finds them.
    async fn seed(&self, from: &Node, to: &Node, reach: &Reach) -> Result<(), Trouble>;
    /// The folders on the node with data that were put aside because nobody else may have them.
    async fn kept(&self, node: &Node, reach: &Reach) -> Result<Vec<String>, Fault>;
    /// Points a replica at another upstream of the same history.
    async fn follow(&self, replica: &Node, upstream: &Node, reach: &Reach) -> Result<(), Trouble>;
    /// Planned: bars sessions, stops the engine cleanly with everything sent, and returns the position that a
    /// replica which has everything has reached.
    async fn stop_clean(&self, node: &Node, reach: &Reach) -> Result<Position, Trouble>;
    /// Emergency rung: stops the engine at once. `Ok` when the machine itself shows nothing of it any more, whatever
    /// its supervisor says, also when it says nothing. It takes 10 s at most, beside the looks at the machine.
    async fn stop_now(&self, node: &Node, reach: &Reach) -> Result<(), Trouble>;
    /// Whether the machine shows no process that works on the node's data.
    async fn is_stopped(&self, node: &Node, reach: &Reach) -> Result<bool, Fault>;
    /// Tries a write as the application would, straight at the node. `Ok(Some(reason))` is the proof that it was refused;
    /// `Ok(None)` means that it was accepted. A closed port is proof only beside a machine that shows no process.
    async fn write_refused(&self, node: &Node, reach: &Reach) -> Result<Option<String>, Fault>;
    /// Starts the engine non-writable, as at boot.
    async fn start(&self, node: &Node, reach: &Reach) -> Result<(), Trouble>;
    /// Opens a node for writes. Idempotent. Returns the timeline. `still` is asked right before the node is opened.
    async fn promote(&self, node: &Node, reach: &Reach, still: Still<'_>) -> Result<u32, Trouble>;
    /// From when `status` says `confirming`, a commit of an application is acknowledged only after each of `by` has
    /// it on disk. hafog's own sessions do not wait.
    async fn confirm_by(
        &self,
        node: &Node,
        by: &[ServerName],
        reach: &Reach,
    ) -> Result<(), Trouble>;
    /// Compares the stopped or non-writable `old` with the current primary.
    async fn divergence(
        &self,
        old: &Node,
        primary: &Node,
        reach: &Reach,
    ) -> Result<Divergence, Fault>;
    /// Compares what the non-writable `old` has after `fork` with the current primary: transactions, and rows of
    /// tables with a primary key, within limits.
    async fn contents(
        &self,
        old: &Node,
        primary: &Node,
        fork: &Position,
        reach: &Reach,
    ) -> Result<Contents, Fault>;
    /// Makes `old` a replica of `primary`, by the gentlest way that is safe.
    async fn rejoin(&self, old: &Node, primary: &Node, reach: &Reach) -> Result<Rejoined, Trouble>;
    /// Compares the contents of a replica with its primary at one common position, under load.
    async fn verify(
        &self,
        primary: &Node,
        replica: &Node,
        reach: &Reach,
    ) -> Result<Verified, Fault>;
    /// Forgets everything that `primary` keeps for a replica that is gone (slots).
    async fn forget(
        &self,
        primary: &Node,
        replica: &ServerName,
        reach: &Reach,
    ) -> Result<(), Trouble>;
    /// Lets in exactly `node.peers` from now on, or these as well where the list may lack somebody. Nothing happens when
    /// they are let in already.
    async fn admit(&self, node: &Node, reach: &Reach) -> Result<(), Trouble>;
    /// The certificates that are on the node, and until when they are good. None where the engine has none there.
    async fn certificates(&self, node: &Node, reach: &Reach) -> Result<Vec<Certificate>, Fault>;
    /// `ahead - behind` in bytes of log; negative when `behind` is further. `None` when the two cannot be compared.
    fn bytes_between(&self, ahead: &Position, behind: &Position) -> Option<i64>;
    /// Used by the agent on the node itself: writes heartbeat `seq` and returns position and transaction count.
    async fn beat(
        &self,
        node: &Node,
        seq: u64,
        at: Timestamp,
        reach: &Reach,
    ) -> Result<(Position, Option<u64>), Fault>;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    pub at: Position,
    pub tables: u64,
    pub rows: u64,
    /// Tables whose contents differ.
    pub different: Vec<String>,
    pub took: Duration,
}
