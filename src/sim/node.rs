//! One simulated copy of a database: its log, its history, and how a replica receives and replays.
//!
//! The log holds the clients' writes and nothing else that matters. Branches are what real engines call timelines,
//! with one difference: two nodes that were opened separately never share a branch, though their timelines may have
//! the same number. So the simulation knows whether two copies really share a history.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::db::{Heartbeat, Node, Position};
use crate::model::id::ServerName;

/// Where the log of a new database starts.
pub const LOG_START: u64 = 0x0300_0000;
/// Bytes of log that one client's write takes.
pub const WRITE_BYTES: u64 = 0x40;
/// Bytes of log that a clean stop writes.
pub const CHECKPOINT_BYTES: u64 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// A creation or a copy was interrupted.
    Incomplete,
    Complete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// How every node boots, with or without an upstream.
    Replica,
    /// A primary whose sessions are barred: it runs and refuses writes.
    Barred,
    Writable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub end: u64,
    pub at: Timestamp,
    /// `None` for a checkpoint.
    pub write: Option<String>,
}

/// A branch that was left at `until` for the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub branch: u64,
    pub timeline: u32,
    pub until: u64,
}

/// Whom a replica follows. The address is part of it: a server that was made anew has another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub name: ServerName,
    pub address: IpAddr,
}

#[derive(Clone, Debug)]
pub struct SimNode {
    /// The service that runs it, `postgres-main`.
    pub service: String,
    pub data: Data,
    pub mode: Mode,
    pub system: String,
    pub branch: u64,
    pub timeline: u32,
    /// Oldest first; the current branch is not in it.
    pub history: Vec<Ended>,
    /// What was received, replayed or not.
    pub log: Vec<Entry>,
    pub received: u64,
    pub replayed: u64,
    pub upstream: Option<Upstream>,
    /// Replicas that this node keeps log for.
    pub slots: BTreeSet<ServerName>,
    /// Who may connect. It belongs to the server, and no copy brings it.
    pub admitted: BTreeSet<IpAddr>,
    pub heartbeat: Option<Heartbeat>,
    /// How long an entry is on its way to this replica.
    pub network_delay: Duration,
    /// How long after its writing an entry is replayed at the earliest.
    pub replay_delay: Duration,
    /// The stream is dead although both ends are alive.
    pub stream_cut: bool,
    /// The contents differ from what the log says, for `verify` to find.
    pub corrupt: bool,
}

impl SimNode {
    /// An empty database; `branch` must be new.
    pub fn fresh(service: String, system: String, branch: u64) -> SimNode {
        SimNode {
            service,
            data: Data::Incomplete,
            mode: Mode::Replica,
            system,
            branch,
            timeline: 1,
            history: Vec::new(),
            log: Vec::new(),
            received: LOG_START,
            replayed: LOG_START,
            upstream: None,
            slots: BTreeSet::new(),
            admitted: BTreeSet::new(),
            heartbeat: None,
            network_delay: Duration::ZERO,
            replay_delay: Duration::ZERO,
            stream_cut: false,
            corrupt: false,
        }
    }

    /// Takes the contents of another node, and nothing of who it is.
    pub fn copy_contents(&mut self, from: &SimNode) {
        self.data = Data::Complete;
        self.mode = Mode::Replica;
        self.system = from.system.clone();
        self.branch = from.branch;
        self.timeline = from.timeline;
        self.history = from.history.clone();
        self.log = from.log.clone();
        self.received = from.received;
        self.replayed = from.received;
        self.upstream = None;
        self.slots.clear();
        self.heartbeat = from.heartbeat.clone();
        self.corrupt = false;
    }

    pub fn admit(&mut self, node: &Node) {
        if !node.lacks_peers {
            self.admitted.clear();
        }
        self.admitted.extend(&node.peers);
    }

    /// The clients' writes that a reader of this node sees.
    pub fn rows(&self) -> impl Iterator<Item = &str> {
        self.log
            .iter()
            .take_while(|entry| entry.end <= self.replayed)
            .filter_map(|entry| entry.write.as_deref())
    }

    /// Writes an entry on a primary.
    pub fn append(&mut self, bytes: u64, at: Timestamp, write: Option<String>) {
        self.received += bytes;
        self.replayed = self.received;
        self.log.push(Entry {
            end: self.received,
            at,
            write,
        });
    }

    /// Opens it as a new branch from all that it received. The branch begins with a checkpoint, so that a node which
    /// was opened is always ahead of the one that it parted from.
    pub fn open(&mut self, branch: u64, at: Timestamp) {
        self.replayed = self.received;
        self.history.push(Ended {
            branch: self.branch,
            timeline: self.timeline,
            until: self.received,
        });
        self.branch = branch;
        self.timeline += 1;
        self.mode = Mode::Writable;
        self.upstream = None;
        self.append(CHECKPOINT_BYTES, at, None);
    }

    fn path(&self) -> Vec<Ended> {
        let mut path = self.history.clone();
        path.push(Ended {
            branch: self.branch,
            timeline: self.timeline,
            until: self.received,
        });
        path
    }

    /// The last point that this copy and the other have in common; `None` when they never had one.
    pub fn fork_from(&self, other: &SimNode) -> Option<u64> {
        if self.system != other.system {
            return None;
        }
        self.path()
            .iter()
            .zip(&other.path())
            .take_while(|(mine, theirs)| mine.branch == theirs.branch)
            .last()
            .map(|(mine, theirs)| mine.until.min(theirs.until))
    }

    /// Takes back everything after `fork`, the last point in common with `other`.
    pub fn rewind(&mut self, fork: u64, other: &SimNode) {
        self.log.retain(|entry| entry.end <= fork);
        self.received = fork;
        self.replayed = fork;
        self.stand_on(&other.path(), fork);
    }

    /// Sets branch, timeline and history to those that `path` had at `position`.
    fn stand_on(&mut self, path: &[Ended], position: u64) {
        let left = path[..path.len() - 1]
            .iter()
            .take_while(|ended| ended.until <= position)
            .count();
        self.history = path[..left].to_vec();
        self.branch = path[left].branch;
        self.timeline = path[left].timeline;
    }

    /// Receives what `upstream` has and what was written until `until`. The caller checked that the histories fit.
    pub fn receive(&mut self, upstream: &SimNode, until: Timestamp) {
        let new: Vec<Entry> = upstream
            .log
            .iter()
            .filter(|entry| entry.end > self.received)
            .take_while(|entry| entry.at <= until)
            .cloned()
            .collect();
        self.log.extend(new);
        if let Some(last) = self.log.last() {
            self.received = self.received.max(last.end);
        }
        self.stand_on(&upstream.path(), self.received);
    }

    /// Whether the node stands where `upstream` does, so that there is nothing to receive or to hear.
    pub fn has_all_of(&self, upstream: &SimNode) -> bool {
        self.received == upstream.received
            && self.branch == upstream.branch
            && self.history == upstream.history
            && self.heartbeat == upstream.heartbeat
    }

    /// What changes whenever it receives, replays or hears something.
    pub fn mark(&self) -> (u64, u64, u64, Option<u64>) {
        let beat = self.heartbeat.as_ref().map(|beat| beat.seq);
        (self.branch, self.received, self.replayed, beat)
    }

    /// Replays what was written until `until`, in order.
    pub fn replay(&mut self, until: Timestamp) {
        for entry in &self.log {
            if entry.end <= self.replayed {
                continue;
            }
            if entry.at > until {
                return;
            }
            self.replayed = entry.end;
        }
        self.replayed = self.received;
    }

    /// The upstream's heartbeat as it arrives through this replica's delays. Never goes back.
    pub fn hear(&mut self, upstream: &SimNode) {
        let Some(theirs) = &upstream.heartbeat else {
            return;
        };
        let late = self.network_delay.max(self.replay_delay);
        let at = theirs.at - late;
        if self.heartbeat.as_ref().is_none_or(|mine| mine.at < at) {
            self.heartbeat = Some(Heartbeat {
                seq: theirs.seq.saturating_sub(late.as_secs()),
                at,
            });
        }
    }

    /// The primary's own heartbeat, a row a second, as its agent writes them.
    pub fn beat(&mut self, now: Timestamp) {
        let (seq, at) = match &self.heartbeat {
            None => (1, now),
            Some(last) => {
                let passed = now.duration_since(last.at).as_secs().max(0);
                if passed == 0 {
                    return;
                }
                let at = last.at + jiff::SignedDuration::from_secs(passed);
                (last.seq + passed.unsigned_abs(), at)
            }
        };
        self.heartbeat = Some(Heartbeat { seq, at });
    }
}

/// As PostgreSQL writes a log position.
pub fn position(at: u64) -> Position {
    Position(format!("{:X}/{:08X}", at >> 32, at & 0xFFFF_FFFF))
}

/// `None` when it is no position.
pub fn read_position(position: &Position) -> Option<u64> {
    let (high, low) = position.0.split_once('/')?;
    let high = u32::from_str_radix(high, 16).ok()?;
    let low = u32::from_str_radix(low, 16).ok()?;
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(branch: u64) -> SimNode {
        let mut node = SimNode::fresh("postgres-main".to_owned(), "one".to_owned(), branch);
        node.data = Data::Complete;
        node
    }

    #[test]
    fn positions_are_written_and_read_back() {
        assert_eq!(position(0x0300_0040).0, "0/03000040");
        assert_eq!(read_position(&position(0x1_0000_0001)), Some(0x1_0000_0001));
        assert_eq!(read_position(&Position("nonsense".to_owned())), None);
        assert_eq!(read_position(&Position("0/xyz".to_owned())), None);
    }

    #[test]
    fn copies_that_were_opened_separately_fork_where_they_parted() {
        let mut east = node(1);
        east.append(WRITE_BYTES, at(1), Some("a".to_owned()));
        let mut west = node(9);
        west.copy_contents(&east);
        west.open(2, at(2));
        east.append(WRITE_BYTES, at(2), Some("b".to_owned()));
        assert_eq!(east.fork_from(&west), Some(LOG_START + WRITE_BYTES));
        east.open(3, at(3));
        assert_eq!((east.timeline, west.timeline), (2, 2));
        assert_eq!(west.fork_from(&east), Some(LOG_START + WRITE_BYTES));
        east.rewind(LOG_START + WRITE_BYTES, &west);
        east.receive(&west, at(9));
        assert_eq!(east.branch, 2);
        assert_eq!(east.rows().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_replica_replays_later_than_it_receives() {
        let mut east = node(1);
        let mut west = node(9);
        west.copy_contents(&east);
        east.append(WRITE_BYTES, at(10), Some("a".to_owned()));
        east.append(WRITE_BYTES, at(12), Some("b".to_owned()));
        west.receive(&east, at(12));
        west.replay(at(11));
        assert_eq!(west.received, LOG_START + 2 * WRITE_BYTES);
        assert_eq!(west.rows().collect::<Vec<_>>(), ["a"]);
        west.open(2, at(13));
        assert_eq!(west.rows().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_heartbeat_is_counted_by_the_second() {
        let mut node = node(1);
        node.beat(at(100));
        node.beat(at(100));
        assert_eq!(
            node.heartbeat,
            Some(Heartbeat {
                seq: 1,
                at: at(100)
            })
        );
        node.beat(at(160));
        assert_eq!(
            node.heartbeat,
            Some(Heartbeat {
                seq: 61,
                at: at(160)
            })
        );
    }
}
