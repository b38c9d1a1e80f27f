//! The loop against a world in memory. Time is stepped by hand; only the other site's ports are real sockets.

mod confirming;
mod cut_off;
mod fencing;
mod frozen;
mod opening;
mod running;
mod stopped;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::fake::*;
use super::*;
use crate::clock::SteppedClock;
use crate::db::keys::{Keys, Pair};
use crate::model::units::Bytes;
use crate::shell::Dirs;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn config(self_fence: SelfFence, others: Vec<Peer>) -> AgentConfig {
    let dirs = Dirs {
        image: "/i".into(),
        etc: "/e".into(),
        data: "/d".into(),
        log: "/l".into(),
    };
    AgentConfig {
        service: SERVICE.to_owned(),
        database: Database {
            name: "main".into(),
            engine: "postgres".to_owned(),
            on: "db".into(),
            replicas: 1,
            port: 5432,
            user: "main".to_owned(),
            password: None,
            lag_warn: Span::secs(10),
            lag_critical: Span::secs(60),
            write_lease: Span::secs(10),
            keep_log: Bytes(1 << 30),
        },
        arbiter_at: None,
        machine: false,
        version: "0.1.0".to_owned(),
        peers: vec![LOCAL],
        arbiter: "/arbiter".to_owned(),
        self_fence,
        every: Span::secs(1),
        others,
        host: Host {
            name: ME.into(),
            site: "east".into(),
            address: LOCAL,
            dirs,
        },
    }
}

fn peer(node: &str, site: &str, port: u16) -> Peer {
    Peer {
        node: node.into(),
        site: site.into(),
        address: LOCAL,
        port,
    }
}

struct Bench {
    world: World,
    clock: Arc<SteppedClock>,
    agent: Agent,
    log: Arc<Mutex<Vec<String>>>,
}

fn ports(world: &World, clock: Arc<dyn Clock>, log: Arc<Mutex<Vec<String>>>) -> AgentPorts {
    let pair = Pair {
        cert_pem: String::new(),
        key_pem: String::new(),
    };
    AgentPorts {
        store: Arc::new(world.clone()),
        engine: Arc::new(world.clone()),
        reach: Reach {
            shell: Arc::new(world.clone()),
            keys: Arc::new(Keys::of_role("agent", "", pair)),
        },
        clock,
        log: Box::new(move |line| log.lock().expect("the log").push(line.to_owned())),
    }
}

/// An engine in this state, and a record that names the writer.
fn world(engine: Power, epoch: u64, writer: &str) -> World {
    let world = World::new(engine);
    world.inside().name_writer(epoch, Some(writer));
    world
}

impl Bench {
    fn new(world: World, config: AgentConfig) -> Bench {
        let clock = Arc::new(SteppedClock::at(
            Timestamp::from_second(1_800_000_000).expect("an instant"),
        ));
        let log = Arc::default();
        let agent = Agent::new(config, ports(&world, clock.clone(), Arc::clone(&log)))
            .expect("a good configuration");
        Bench {
            world,
            clock,
            agent,
            log,
        }
    }

    /// The writer at epoch 3, with a lease and a first heartbeat.
    async fn writing(config: AgentConfig) -> Bench {
        let world = world(Power::Writable, 3, ME);
        let mut bench = Bench::new(world, config);
        assert_eq!(
            bench.tick().await,
            ["put: epoch 3, beat -", "beat 1", "put: epoch 3, beat 1"]
        );
        bench
    }

    /// One tick and the calls that it made.
    async fn tick(&mut self) -> Vec<String> {
        self.agent.tick().await;
        self.world.calls()
    }

    /// A second later.
    async fn next(&mut self) -> Vec<String> {
        self.clock.advance(Duration::from_secs(1));
        self.tick().await
    }

    fn engine(&self) -> Power {
        self.world.inside().engine
    }

    fn last_line(&self) -> String {
        self.log
            .lock()
            .expect("the log")
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

fn isolated() -> AgentConfig {
    config(SelfFence::Isolated, Vec::new())
}

fn strict() -> AgentConfig {
    config(SelfFence::Strict, Vec::new())
}
