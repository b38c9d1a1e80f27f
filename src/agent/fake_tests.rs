//! A world for the agent's tests: one arbiter, one engine here, one at another site, in memory. It keeps a list of the
//! calls that change or prove something, and a test may run something in the middle of a call ([`World::during`]).

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::db::*;
use crate::error::{Fault, Trouble};
use crate::model::id::*;
use crate::model::roles::Writer;
use crate::shell::{Command, File, Host, Ran, ServiceChange, ServiceState, Shell};
use crate::state::{PutError, StateStore, Version};

pub const ME: &str = "shop-east-db-1";
pub const WEST: &str = "shop-west-db-1";
pub const KEY: &str = "writer/main";
pub const SERVICE: &str = "postgres-main";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Power {
    Writable,
    Replica,
    Stopped,
}

type Hook = (&'static str, Box<dyn FnOnce(&mut Inside) + Send>);

pub struct Inside {
    pub document: Option<Vec<u8>>,
    pub version: u64,
    /// `get` fails; `put` fails.
    pub unreadable: bool,
    pub unwritable: bool,
    pub engine: Power,
    /// The engine's process is there and does not answer.
    pub hung: bool,
    /// Its supervisor knows nothing of the process.
    pub by_hand: bool,
    pub pid: u32,
    pub starts: u32,
    pub files: std::collections::BTreeMap<String, Vec<u8>>,
    /// `stop_now` returns and nothing is stopped.
    pub deaf: bool,
    /// `promote` does not return, and has done nothing yet.
    pub slow_promote: bool,
    /// Whether the node at the other site is writable; `None`: it does not answer.
    pub west: Option<bool>,
    pub heartbeat: Option<u64>,
    /// Whether the other site's node streams from here.
    pub streams: bool,
    pub confirmed_by: Vec<ServerName>,
    /// Whether the engine has had the time to obey.
    pub confirming: bool,
    pub calls: Vec<String>,
    hooks: Vec<Hook>,
}

#[derive(Clone)]
pub struct World(Arc<Mutex<Inside>>);

impl World {
    pub fn new(engine: Power) -> World {
        World(Arc::new(Mutex::new(Inside {
            document: None,
            version: 0,
            unreadable: false,
            unwritable: false,
            engine,
            hung: false,
            by_hand: false,
            pid: 100,
            starts: 1,
            files: Default::default(),
            deaf: false,
            slow_promote: false,
            west: None,
            heartbeat: None,
            streams: false,
            confirmed_by: Vec::new(),
            confirming: false,
            calls: Vec::new(),
            hooks: Vec::new(),
        })))
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().expect("no test panics while it looks inside")
    }

    /// Runs `hook` in the middle of the next call of this name.
    pub fn during(&self, call: &'static str, hook: impl FnOnce(&mut Inside) + Send + 'static) {
        self.inside().hooks.push((call, Box::new(hook)));
    }

    /// The calls since the last time.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.inside().calls)
    }

    fn enter(&self, call: &'static str) -> MutexGuard<'_, Inside> {
        let mut inside = self.inside();
        if let Some(at) = inside.hooks.iter().position(|(name, _)| *name == call) {
            let (_, hook) = inside.hooks.remove(at);
            hook(&mut inside);
        }
        inside
    }
}

impl Inside {
    pub fn writer(&self) -> Writer {
        serde_json::from_slice(self.document.as_ref().expect("there is a writer record"))
            .expect("it is one")
    }

    /// What a run does to move the writer.
    pub fn name_writer(&mut self, epoch: u64, node: Option<&str>) {
        let beat = self.document.as_ref().and_then(|_| self.writer().beat);
        let writer = Writer {
            epoch,
            node: node.map(ServerName::from),
            lease_until: None,
            confirmed_by: Vec::new(),
            beat,
        };
        self.set(&writer);
    }

    fn streaming(&self) -> Vec<Follower> {
        vec![Follower {
            node: WEST.into(),
            streaming: self.streams,
            replayed: None,
            headroom: None,
        }]
    }

    fn set(&mut self, writer: &Writer) {
        self.document = Some(serde_json::to_vec(writer).expect("a writer record serialises"));
        self.version += 1;
    }
}

#[async_trait]
impl StateStore for World {
    fn name(&self) -> String {
        "fake:arbiter".to_owned()
    }
    async fn append_all(&self, _: &RunId, _: &[String]) -> Result<(), (usize, PutError)> {
        unreachable!("an agent writes no journal")
    }
    async fn read(&self, _: &RunId) -> Result<Option<Vec<u8>>, Fault> {
        unreachable!("an agent reads no journal")
    }
    async fn replace_journal(&self, _: &RunId, _: &[String]) -> Result<(), Fault> {
        unreachable!("an agent keeps no journal")
    }
    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        unreachable!("an agent reads no journal")
    }
    async fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, Fault> {
        assert_eq!(key, KEY);
        let inside = self.inside();
        if inside.unreadable {
            return Err(Fault::unavailable("the arbiter is out"));
        }
        let found = inside
            .document
            .clone()
            .map(|bytes| (bytes, Version(inside.version.to_string())));
        drop(inside);
        // The hook runs after the answer was given: what the agent holds is old then.
        drop(self.enter("get"));
        Ok(found)
    }
    async fn put(
        &self,
        key: &str,
        bytes: &[u8],
        expect: Option<&Version>,
    ) -> Result<Version, PutError> {
        assert_eq!(key, KEY);
        let mut inside = self.enter("put");
        if inside.unreadable || inside.unwritable {
            return Err(PutError::Fault(Fault::unavailable(
                "the arbiter cannot be written",
            )));
        }
        if expect != Some(&Version(inside.version.to_string())) {
            inside.calls.push("put: changed".to_owned());
            return Err(PutError::Changed);
        }
        let writer: Writer = serde_json::from_slice(bytes).expect("agents write writer records");
        inside.set(&writer);
        let seq = writer
            .beat
            .map_or("-".to_owned(), |beat| beat.seq.to_string());
        inside
            .calls
            .push(format!("put: epoch {}, beat {seq}", writer.epoch));
        drop(inside);
        let inside = self.enter("put done");
        Ok(Version(inside.version.to_string()))
    }
    async fn delete(&self, _: &str) -> Result<(), Fault> {
        unreachable!("an agent deletes nothing")
    }
}

fn status(writable: bool, heartbeat: Option<u64>) -> NodeStatus {
    NodeStatus {
        role: if writable {
            NodeRole::Primary
        } else {
            NodeRole::Replica
        },
        writable,
        timeline: 1,
        system: "1".to_owned(),
        version: "15".to_owned(),
        position: Position("0/0".to_owned()),
        received: None,
        link: None,
        replaying: false,
        heartbeat: heartbeat.map(|seq| Heartbeat {
            seq,
            at: Timestamp::UNIX_EPOCH,
        }),
        committed: None,
        transactions: None,
        followers: Vec::new(),
        confirmed_by: Vec::new(),
        confirming: false,
        seen: Timestamp::UNIX_EPOCH,
    }
}

#[async_trait]
impl Engine for World {
    fn service(&self, _: &DatabaseName) -> String {
        SERVICE.to_owned()
    }
    async fn status(&self, node: &Node, _: &Reach) -> Result<NodeStatus, Fault> {
        if node.host.name.as_str() != ME {
            let west = self
                .inside()
                .west
                .filter(|_| node.host.name.as_str() == WEST);
            return west
                .map(|writable| status(writable, None))
                .ok_or_else(|| Fault::unavailable("no answer"));
        }
        let inside = self.enter("status");
        match inside.engine {
            _ if inside.hung => Err(Fault::unavailable("the engine does not answer")),
            Power::Stopped => Err(Fault::unavailable("connection refused")),
            engine => Ok(NodeStatus {
                followers: inside.streaming(),
                confirmed_by: inside.confirmed_by.clone(),
                confirming: inside.confirming,
                ..status(engine == Power::Writable, inside.heartbeat)
            }),
        }
    }
    async fn confirm_by(&self, _: &Node, by: &[ServerName], _: &Reach) -> Result<(), Trouble> {
        let mut inside = self.inside();
        let claimed = inside.writer().confirmed_by;
        assert!(
            claimed.iter().all(|one| by.contains(one)),
            "the record says {claimed:?}, and the engine is told {by:?}"
        );
        inside.calls.push(format!("confirm by {}", by.len()));
        (inside.confirmed_by, inside.confirming) = (by.to_vec(), false);
        Ok(())
    }
    async fn stop_now(&self, _: &Node, _: &Reach) -> Result<(), Trouble> {
        let mut inside = self.enter("stop");
        inside.calls.push("stop".to_owned());
        if !inside.deaf {
            inside.engine = Power::Stopped;
            inside.hung = false;
        }
        Ok(())
    }
    async fn is_stopped(&self, _: &Node, _: &Reach) -> Result<bool, Fault> {
        Ok(self.inside().engine == Power::Stopped)
    }
    async fn start(&self, _: &Node, _: &Reach) -> Result<(), Trouble> {
        let mut inside = self.enter("start");
        inside.calls.push("start".to_owned());
        inside.starts += 1;
        inside.engine = Power::Replica;
        Ok(())
    }
    async fn promote(&self, _: &Node, _: &Reach, still: Still<'_>) -> Result<u32, Trouble> {
        let slow = {
            let mut inside = self.enter("promote");
            inside.calls.push("promote".to_owned());
            let writer = inside.writer();
            assert_eq!(
                writer.node,
                Some(ME.into()),
                "opened while another node is the writer"
            );
            assert!(writer.lease_until.is_some(), "opened without a lease");
            inside.slow_promote
        };
        if slow {
            std::future::pending::<()>().await;
        }
        still().map_err(Trouble::NothingChanged)?;
        self.inside().engine = Power::Writable;
        Ok(1)
    }
    async fn beat(
        &self,
        _: &Node,
        seq: u64,
        _: Timestamp,
        _: &Reach,
    ) -> Result<(Position, Option<u64>), Fault> {
        let mut inside = self.enter("beat");
        assert_eq!(
            inside.engine,
            Power::Writable,
            "a heartbeat into an engine that is not writable"
        );
        inside.calls.push(format!("beat {seq}"));
        inside.heartbeat = Some(seq);
        Ok((Position(format!("0/{seq}")), Some(seq)))
    }
    async fn create(&self, _: &Node, _: Option<&str>, _: &Reach) -> Result<(), Trouble> {
        unreachable!("not an agent's")
    }
    async fn has_data(&self, _: &Node, _: &Reach) -> Result<bool, Fault> {
        unreachable!("not an agent's")
    }
    async fn seed(&self, _: &Node, _: &Node, _: &Reach) -> Result<(), Trouble> {
        unreachable!("not an agent's")
    }
    async fn kept(&self, _: &Node, _: &Reach) -> Result<Vec<String>, Fault> {
        unreachable!("not an agent's")
    }
    async fn follow(&self, _: &Node, _: &Node, _: &Reach) -> Result<(), Trouble> {
        unreachable!("not an agent's")
    }
    async fn stop_clean(&self, _: &Node, _: &Reach) -> Result<Position, Trouble> {
        unreachable!("not an agent's")
    }
    async fn write_refused(&self, _: &Node, _: &Reach) -> Result<Option<String>, Fault> {
        unreachable!("not an agent's")
    }
    async fn divergence(&self, _: &Node, _: &Node, _: &Reach) -> Result<Divergence, Fault> {
        unreachable!("not an agent's")
    }
    async fn contents(
        &self,
        _: &Node,
        _: &Node,
        _: &Position,
        _: &Reach,
    ) -> Result<crate::db::Contents, Fault> {
        unreachable!("an agent compares nothing")
    }
    async fn rejoin(&self, _: &Node, _: &Node, _: &Reach) -> Result<Rejoined, Trouble> {
        unreachable!("not an agent's")
    }
    async fn verify(&self, _: &Node, _: &Node, _: &Reach) -> Result<Verified, Fault> {
        unreachable!("not an agent's")
    }
    async fn forget(&self, _: &Node, _: &ServerName, _: &Reach) -> Result<(), Trouble> {
        unreachable!("not an agent's")
    }
    async fn admit(&self, _: &Node, _: &Reach) -> Result<(), Trouble> {
        unreachable!("not an agent's")
    }
    async fn certificates(
        &self,
        _: &Node,
        _: &Reach,
    ) -> Result<Vec<crate::db::Certificate>, Fault> {
        Ok(Vec::new())
    }

    fn bytes_between(&self, _: &Position, _: &Position) -> Option<i64> {
        None
    }
}

#[async_trait]
impl Shell for World {
    async fn services(&self, _: &Host) -> Result<Vec<ServiceState>, Fault> {
        let inside = self.enter("services");
        let running = inside.engine != Power::Stopped && !inside.by_hand;
        let name = SERVICE.to_owned();
        Ok(vec![ServiceState {
            name,
            running,
            wanted: running,
            pid: running.then_some(inside.pid),
            starts: inside.starts,
            trouble: None,
        }])
    }
    async fn run(&self, _: &Host, _: &Command) -> Result<Ran, Trouble> {
        unreachable!("not an agent's")
    }
    async fn put(&self, _: &Host, file: &File) -> Result<(), Trouble> {
        let (path, bytes) = (file.path.clone(), file.bytes.clone());
        self.inside().files.insert(path, bytes);
        Ok(())
    }
    async fn get(&self, _: &Host, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.inside().files.get(path).cloned())
    }
    async fn remove(&self, _: &Host, path: &str) -> Result<(), Trouble> {
        self.inside().files.remove(path);
        Ok(())
    }
    async fn service(&self, _: &Host, _: &str, _: ServiceChange) -> Result<(), Trouble> {
        unreachable!("not an agent's")
    }
}
