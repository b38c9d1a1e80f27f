//! The loop against a world in memory. Time is stepped by hand; only the other site's ports are real sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;

use super::fake::*;
use super::*;
use crate::clock::{RealClock, SteppedClock};
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

/// A port on which nobody listens. It stays taken, so that nobody else can begin to.
fn closed_port() -> (tokio::net::TcpSocket, u16) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((LOCAL, 0).into()).expect("a free port");
    let port = socket.local_addr().expect("it is bound").port();
    (socket, port)
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
        let world = World::new(Power::Writable);
        world.inside().name_writer(3, Some(ME));
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

/// Moves both clocks' idea of the lease: the wall clock in the middle of a call.
fn jump(clock: &Arc<SteppedClock>) -> impl FnOnce() + Send + 'static {
    let clock = Arc::clone(clock);
    move || clock.advance(Duration::from_secs(3600))
}

#[tokio::test]
async fn opens_after_boot_after_the_renewal_and_beats_from_then_on() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(3, Some(ME));
    let mut bench = Bench::new(world, isolated());
    assert_eq!(bench.tick().await, ["put: epoch 3, beat -", "promote"]);
    assert_eq!(bench.engine(), Power::Writable);
    assert_eq!(bench.next().await, ["beat 1", "put: epoch 3, beat 1"]);
    assert_eq!(bench.next().await, ["beat 2", "put: epoch 3, beat 2"]);
    let writer = bench.world.inside().writer();
    assert_eq!(
        writer.lease_until,
        Some(bench.clock.now() + Duration::from_secs(10))
    );
    let beat = writer.beat.expect("it beats");
    assert_eq!(
        (beat.seq, beat.at, beat.position.as_str()),
        (2, bench.clock.now(), "0/2")
    );
}

#[tokio::test]
async fn does_not_open_when_the_renewal_fails() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(3, Some(ME));
    world.inside().unwritable = true;
    let mut bench = Bench::new(world, isolated());
    for _ in 0..3 {
        assert_eq!(bench.next().await, [""; 0]);
    }
    assert!(
        bench
            .last_line()
            .ends_with("failed: lease not renewed: the arbiter cannot be written"),
        "{}",
        bench.last_line()
    );
    bench.world.inside().unwritable = false;
    assert_eq!(bench.next().await, ["put: epoch 3, beat -", "promote"]);
}

#[tokio::test]
async fn does_not_open_when_the_writer_moves_before_the_renewal_arrives() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(3, Some(ME));
    world.during("put", |world| world.name_writer(4, None));
    let mut bench = Bench::new(world, isolated());
    assert_eq!(bench.tick().await, ["put: changed"]);
    assert_eq!(bench.next().await, [""; 0]);
    assert_eq!(
        bench.last_line(),
        "leave: shop-east-db-1 is not writable: nobody may write at epoch 4"
    );
}

#[tokio::test]
async fn a_database_that_is_being_made_is_left_alone() {
    let mut bench = Bench::new(World::new(Power::Writable), strict());
    assert_eq!(bench.tick().await, [""; 0]);
    assert_eq!(bench.engine(), Power::Writable);
}

#[tokio::test]
async fn fences_when_the_epoch_grows() {
    for node in [None, Some(WEST)] {
        let mut bench = Bench::writing(isolated()).await;
        bench.world.inside().name_writer(4, node);
        assert_eq!(bench.next().await, ["stop"]);
        assert_eq!(bench.engine(), Power::Stopped);
        assert_eq!(bench.next().await, [""; 0], "it is stopped once");
    }
}

#[tokio::test]
async fn a_later_grant_ends_the_old_sessions_and_opens_anew() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().name_writer(5, Some(ME));
    assert_eq!(bench.next().await, ["stop"]);
    assert_eq!(bench.next().await, ["put: epoch 5, beat 1", "start"]);
    assert_eq!(bench.next().await, ["put: epoch 5, beat 1", "promote"]);
    assert_eq!(bench.next().await, ["beat 2", "put: epoch 5, beat 2"]);
}

#[tokio::test]
async fn a_replica_of_another_writer_is_left_alone() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(4, Some(WEST));
    let mut bench = Bench::new(world, strict());
    assert_eq!(bench.tick().await, [""; 0]);
    assert_eq!(bench.engine(), Power::Replica);
}

#[tokio::test]
async fn a_crashed_engine_is_opened_again_and_the_heartbeats_go_on() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().engine = Power::Stopped;
    assert_eq!(
        bench.next().await,
        ["put: epoch 3, beat 1"],
        "the supervisor starts it, not the agent"
    );
    bench.world.inside().engine = Power::Replica;
    assert_eq!(bench.next().await, ["put: epoch 3, beat 1", "promote"]);
    assert_eq!(bench.next().await, ["beat 2", "put: epoch 3, beat 2"]);
}

#[tokio::test]
async fn an_engine_that_somebody_stopped_stays_stopped() {
    let mut bench = Bench::writing(isolated()).await;
    // A planned switchover: stopped cleanly, and the record names this node for a little longer.
    bench.world.inside().engine = Power::Stopped;
    for _ in 0..5 {
        assert_eq!(bench.next().await, ["put: epoch 3, beat 1"]);
    }
    bench.world.inside().name_writer(4, None);
    assert_eq!(bench.next().await, [""; 0]);
    assert_eq!(bench.engine(), Power::Stopped);
}

#[tokio::test]
async fn a_strict_node_is_stopped_before_its_lease_ends() {
    let mut bench = Bench::writing(strict()).await;
    let lease_until = bench
        .world
        .inside()
        .writer()
        .lease_until
        .expect("it has a lease");
    bench.world.inside().unreadable = true;
    for seq in 2..=6 {
        assert_eq!(bench.next().await, [format!("beat {seq}")]);
    }
    assert_eq!(bench.next().await, ["stop"]);
    assert_eq!(bench.engine(), Power::Stopped);
    assert!(
        bench.clock.now() < lease_until,
        "stopped at {}, lease until {lease_until}",
        bench.clock.now()
    );
}

#[tokio::test]
async fn a_strict_node_needs_an_arbiter_that_can_be_written() {
    let mut bench = Bench::writing(strict()).await;
    bench.world.inside().unwritable = true;
    for seq in 2..=6 {
        assert_eq!(bench.next().await, [format!("beat {seq}")]);
    }
    assert_eq!(bench.next().await, ["stop"]);
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().unwritable = true;
    for seq in 2..=30 {
        assert_eq!(
            bench.next().await,
            [format!("beat {seq}")],
            "it read that it is the writer: it is not isolated"
        );
    }
}

#[tokio::test]
async fn a_node_that_stopped_itself_comes_back_with_the_arbiter() {
    let mut bench = Bench::writing(strict()).await;
    bench.world.inside().unreadable = true;
    while bench.engine() != Power::Stopped {
        bench.next().await;
        assert!(bench.clock.now() < Timestamp::from_second(1_800_000_010).expect("an instant"));
    }
    assert_eq!(bench.next().await, [""; 0]);
    let seq = bench.world.inside().heartbeat.expect("it beat");
    bench.world.inside().unreadable = false;
    assert_eq!(bench.next().await, ["put: epoch 3, beat 1", "start"]);
    assert_eq!(bench.next().await, ["put: epoch 3, beat 1", "promote"]);
    let next = seq + 1;
    assert_eq!(
        bench.next().await,
        [format!("beat {next}"), format!("put: epoch 3, beat {next}")]
    );
}

#[tokio::test]
async fn an_outage_of_the_arbiter_alone_stops_nobody() {
    let west = TcpListener::bind((LOCAL, 0)).await.expect("a port");
    let port = west.local_addr().expect("it listens").port();
    let mut bench =
        Bench::writing(config(SelfFence::Isolated, vec![peer(WEST, "west", port)])).await;
    bench.world.inside().west = Some(false);
    bench.world.inside().unreadable = true;
    for seq in 2..=60 {
        assert_eq!(bench.next().await, [format!("beat {seq}")]);
    }
    let because = "shop-west-db-1 answers and no other node is writable";
    assert!(bench.last_line().contains(because), "{}", bench.last_line());
    bench.world.inside().west = Some(true);
    assert_eq!(bench.next().await, ["stop"], "another node is writable");
}

#[tokio::test]
async fn an_isolated_node_is_stopped() {
    let (_taken, port) = closed_port();
    let mut bench =
        Bench::writing(config(SelfFence::Isolated, vec![peer(WEST, "west", port)])).await;
    // It would answer, if its port could be reached.
    bench.world.inside().west = Some(false);
    bench.world.inside().unreadable = true;
    for seq in 2..=6 {
        assert_eq!(bench.next().await, [format!("beat {seq}")]);
    }
    assert_eq!(bench.next().await, ["stop"]);
}

#[tokio::test]
async fn an_open_port_without_a_status_is_no_answer() {
    let west = TcpListener::bind((LOCAL, 0)).await.expect("a port");
    let port = west.local_addr().expect("it listens").port();
    let mut bench =
        Bench::writing(config(SelfFence::Isolated, vec![peer(WEST, "west", port)])).await;
    bench.world.inside().unreadable = true;
    bench.clock.advance(Duration::from_secs(20));
    assert_eq!(bench.tick().await, ["stop"]);
}

#[tokio::test]
async fn a_replica_next_door_does_not_speak_for_the_other_site() {
    let here = TcpListener::bind((LOCAL, 0)).await.expect("a port");
    let port = here.local_addr().expect("it listens").port();
    let (_taken, closed) = closed_port();
    // The fake answers for WEST alone, so WEST is the neighbour here.
    let both = vec![
        peer(WEST, "east", port),
        peer("shop-north-db-1", "north", closed),
    ];
    for (others, stays) in [(both, false), (vec![peer(WEST, "east", port)], true)] {
        let mut bench = Bench::writing(config(SelfFence::Isolated, others)).await;
        bench.world.inside().west = Some(false);
        bench.world.inside().unreadable = true;
        bench.clock.advance(Duration::from_secs(20));
        bench.tick().await;
        assert_eq!(bench.engine() == Power::Writable, stays);
    }
}

#[tokio::test]
async fn frozen_while_it_read_the_record_it_reads_again_before_any_heartbeat() {
    let mut bench = Bench::writing(isolated()).await;
    let thaw = jump(&bench.clock);
    bench.world.during("get", move |world| {
        thaw();
        world.name_writer(5, Some(WEST));
    });
    assert_eq!(bench.next().await, ["put: changed", "stop"]);
}

#[tokio::test]
async fn frozen_between_two_looks_it_fences_before_any_heartbeat() {
    let mut bench = Bench::writing(isolated()).await;
    let thaw = jump(&bench.clock);
    bench.world.during("status", move |world| {
        thaw();
        world.name_writer(5, Some(WEST));
    });
    assert_eq!(bench.next().await, ["stop"]);
}

#[tokio::test]
async fn frozen_after_the_renewal_it_does_not_open() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(3, Some(ME));
    let mut bench = Bench::new(world, isolated());
    let thaw = jump(&bench.clock);
    bench.world.during("put done", move |world| {
        thaw();
        world.name_writer(5, Some(WEST));
    });
    assert_eq!(bench.tick().await, ["put: epoch 3, beat -"]);
    assert_eq!(bench.engine(), Power::Replica);
}

#[tokio::test]
async fn frozen_during_a_heartbeat_it_reads_again_before_it_renews() {
    let mut bench = Bench::writing(isolated()).await;
    let thaw = jump(&bench.clock);
    bench.world.during("beat", move |world| {
        thaw();
        world.name_writer(5, Some(WEST));
    });
    assert_eq!(bench.next().await, ["beat 2", "stop"]);
}

#[tokio::test]
async fn frozen_and_still_the_writer_it_renews_before_it_beats() {
    let mut bench = Bench::writing(isolated()).await;
    bench.clock.advance(Duration::from_secs(3600));
    assert_eq!(
        bench.tick().await,
        ["put: epoch 3, beat 1", "beat 2", "put: epoch 3, beat 2"]
    );
}

#[tokio::test(start_paused = true)]
async fn renews_while_a_long_opening_goes_on_and_ends_it_when_the_epoch_grows() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(3, Some(ME));
    world.inside().slow_promote = true;
    let mut bench = Bench::new(world, isolated());
    assert_eq!(bench.tick().await, ["put: epoch 3, beat -", "promote"]);
    for _ in 0..20 {
        assert_eq!(bench.next().await, ["put: epoch 3, beat -"]);
    }
    bench.world.inside().hung = true;
    bench.world.inside().name_writer(4, None);
    assert_eq!(bench.next().await, ["stop"], "it may open at any moment");
    assert_eq!(bench.engine(), Power::Stopped);
    assert_eq!(bench.next().await, [""; 0]);
}

#[tokio::test]
async fn an_engine_that_is_too_busy_to_answer_is_stopped_all_the_same() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().hung = true;
    assert_eq!(
        bench.next().await,
        ["put: epoch 3, beat 1"],
        "the writer stays the writer"
    );
    assert!(
        bench
            .last_line()
            .ends_with("failed: no heartbeat: the engine does not answer"),
        "{}",
        bench.last_line()
    );
    bench.world.inside().name_writer(4, Some(WEST));
    assert_eq!(bench.next().await, ["stop"]);
}

#[tokio::test]
async fn a_replica_that_boots_slowly_is_not_stopped() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(4, Some(WEST));
    world.inside().hung = true;
    let mut bench = Bench::new(world, strict());
    assert_eq!(bench.tick().await, [""; 0]);
}

/// A run stops the old writer and starts it as a replica between two looks of its agent.
#[tokio::test]
async fn an_engine_that_was_started_anew_is_not_stopped() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().name_writer(4, Some(WEST));
    bench.world.inside().hung = true;
    bench.world.inside().pid += 1;
    assert_eq!(bench.next().await, [""; 0]);

    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().name_writer(4, Some(WEST));
    // The look has its answer; the process is asked for once in the look and once more before the stop.
    bench.world.during("services", |_| ());
    bench.world.during("services", |inside| {
        inside.engine = Power::Replica;
        inside.hung = true;
        inside.pid += 1;
    });
    assert_eq!(bench.next().await, [""; 0]);
    assert_eq!(bench.next().await, [""; 0]);
}

#[tokio::test]
async fn a_stop_that_does_not_stop_is_tried_until_it_does() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().deaf = true;
    bench.world.inside().name_writer(4, None);
    assert_eq!(bench.next().await, ["stop"]);
    assert_eq!(bench.next().await, ["stop"]);
    assert!(
        bench
            .last_line()
            .ends_with("failed: the engine is still writable after the stop"),
        "{}",
        bench.last_line()
    );
    bench.world.inside().deaf = false;
    assert_eq!(bench.next().await, ["stop"]);
    assert_eq!(bench.next().await, [""; 0]);
}

#[tokio::test]
async fn an_agent_that_starts_without_the_arbiter_goes_on_where_the_engine_is() {
    for (config, calls) in [(isolated(), "beat 8"), (strict(), "stop")] {
        let world = World::new(Power::Writable);
        world.inside().unreadable = true;
        world.inside().heartbeat = Some(7);
        let mut bench = Bench::new(world, config);
        assert_eq!(bench.tick().await, [calls]);
    }
}

#[tokio::test]
async fn an_arbiter_that_lost_its_memory_is_no_arbiter() {
    let mut bench = Bench::writing(strict()).await;
    bench.world.inside().document = None;
    assert_eq!(bench.next().await, ["beat 2"]);
    let why = "the arbiter lost the writer record, which had epoch 3";
    assert!(bench.last_line().contains(why), "{}", bench.last_line());
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(bench.tick().await, ["stop"]);

    let mut bench = Bench::writing(strict()).await;
    bench.world.inside().name_writer(2, Some(ME));
    assert_eq!(bench.next().await, ["beat 2"]);
    assert!(
        bench.last_line().contains("went back from epoch 3 to 2"),
        "{}",
        bench.last_line()
    );
}

#[tokio::test]
async fn who_is_not_the_writer_stays_closed_without_the_arbiter() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(4, Some(WEST));
    let mut bench = Bench::new(world, isolated());
    bench.tick().await;
    bench.world.inside().unreadable = true;
    assert_eq!(bench.next().await, [""; 0]);
    // Opened by somebody who does not know the epoch.
    bench.world.inside().engine = Power::Writable;
    assert_eq!(bench.next().await, ["stop"]);
}

#[tokio::test]
async fn says_each_change_once() {
    let mut bench = Bench::writing(isolated()).await;
    for _ in 0..5 {
        bench.next().await;
    }
    bench.world.inside().name_writer(4, Some(WEST));
    for _ in 0..5 {
        bench.next().await;
    }
    let lines = [
        "hold: shop-east-db-1 is the writer at epoch 3; lease renewed",
        "fence: shop-east-db-1 must not write: shop-west-db-1 is the writer at epoch 4",
        "leave: shop-east-db-1 is not writable: shop-west-db-1 is the writer at epoch 4",
    ];
    assert_eq!(*bench.log.lock().expect("the log"), lines);
}

#[tokio::test]
async fn runs_until_it_is_told_to_stop_and_leaves_the_engine_as_it_is() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(3, Some(ME));
    let mut config = isolated();
    config.every = Span(Duration::from_millis(5));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let log = Arc::default();
    let shutdown = async { drop(stopped.await) };
    let running = tokio::spawn(run(
        config,
        ports(&world, Arc::new(RealClock), Arc::clone(&log)),
        shutdown,
    ));
    let beats = async {
        while world.inside().heartbeat < Some(5) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(30), beats)
        .await
        .expect("five heartbeats within 30 s");
    stop.send(()).expect("it runs");
    let ended = timeout(Duration::from_secs(30), running)
        .await
        .expect("it ends within 30 s");
    ended.expect("it does not panic").expect("it ends well");
    assert_eq!(world.inside().engine, Power::Writable);
    let lease_until = world.inside().writer().lease_until.expect("a lease");
    assert!(lease_until > Timestamp::now() - Duration::from_secs(60));
}

#[test]
fn the_configuration_is_read_back_and_a_hopeless_one_is_refused() {
    let config = config(SelfFence::Strict, vec![peer(WEST, "west", 5433)]);
    let text = serde_json::to_string(&config).expect("it serialises");
    assert_eq!(
        serde_json::from_str::<AgentConfig>(&text).expect("it is read back"),
        config
    );
    let hopeless = AgentConfig {
        every: Span(Duration::ZERO),
        ..config
    };
    assert_eq!(
        Pace::of(&hopeless).expect_err("no pace").to_string(),
        "a write lease of 10s looked at every 0s leaves no time"
    );
}

#[tokio::test]
async fn a_wall_clock_that_stands_still_does_not_prolong_the_lease() {
    let mut bench = Bench::writing(strict()).await;
    bench.world.inside().unreadable = true;
    assert_eq!(bench.tick().await, ["beat 2"]);
    let renewal = bench.agent.renewal.as_mut().expect("it renewed");
    renewal.since -= Duration::from_secs(7);
    assert_eq!(bench.tick().await, ["stop"]);
}

/// Renewed, and asleep for longer than the lease.
async fn overslept(config: AgentConfig) -> Bench {
    let bench = Bench::writing(config).await;
    bench.clock.advance(Duration::from_secs(30));
    bench.world.inside().name_writer(4, None);
    bench
}

#[tokio::test]
async fn a_strict_node_that_slept_is_stopped_before_anything_is_asked() {
    let mut bench = overslept(strict()).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    for call in ["get", "status", "services"] {
        let asked = Arc::clone(&asked);
        bench.world.during(call, move |inside| {
            asked.lock().expect("the list").push((call, inside.engine))
        });
    }
    assert_eq!(bench.tick().await, ["stop"]);
    let asked = asked.lock().expect("the list").clone();
    assert!(
        asked
            .iter()
            .all(|(call, engine)| *call == "services" || *engine == Power::Stopped),
        "{asked:?}"
    );
    let mut bench = overslept(isolated()).await;
    bench.world.inside().name_writer(5, Some(ME));
    bench.world.during("status", |inside| {
        assert_eq!(inside.engine, Power::Writable);
    });
    bench.tick().await;
}

fn strict_pair() -> AgentConfig {
    config(SelfFence::Strict, vec![peer(WEST, "west", 5433)])
}

#[tokio::test]
async fn the_record_names_who_confirms_only_while_the_engine_obeys() {
    let mut bench = Bench::writing(strict_pair()).await;
    let claimed = |bench: &Bench| bench.world.inside().writer().confirmed_by;
    bench.world.inside().streams = true;
    let calls = bench.next().await;
    assert_eq!(calls[1..], ["put: epoch 3, beat 2", "confirm by 1"]);
    assert_eq!(claimed(&bench), [""; 0].map(ServerName::from));
    bench.next().await;
    assert_eq!(claimed(&bench), [""; 0].map(ServerName::from), "not yet");
    bench.world.inside().confirming = true;
    bench.next().await;
    assert_eq!(claimed(&bench), [ServerName::from(WEST)]);
    // Read anew for another reason: nobody changed it.
    bench.world.inside().confirming = false;
    bench.next().await;
    assert_eq!(claimed(&bench), [ServerName::from(WEST)]);
    bench.world.inside().streams = false;
    for _ in 0..2 {
        bench.next().await;
        assert_eq!(
            claimed(&bench),
            [ServerName::from(WEST)],
            "it may come back"
        );
    }
    let calls = bench.next().await;
    assert_eq!(calls[1..], ["put: epoch 3, beat 8", "confirm by 0"]);
    assert_eq!(claimed(&bench), [""; 0].map(ServerName::from));
}

#[tokio::test]
async fn nobody_is_taken_off_the_engine_before_the_record() {
    let mut bench = Bench::writing(strict_pair()).await;
    {
        let mut inside = bench.world.inside();
        (inside.confirmed_by, inside.confirming) = (vec![WEST.into()], true);
        inside.streams = true;
    }
    bench.next().await;
    bench.world.inside().streams = false;
    bench
        .world
        .during("put", |inside| inside.name_writer(4, None));
    for _ in 0..4 {
        let calls = bench.next().await;
        assert!(!calls.contains(&"confirm by 0".to_owned()), "{calls:?}");
    }
    assert_eq!(bench.engine(), Power::Stopped);
}

#[tokio::test]
async fn an_isolated_node_waits_for_nobody() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().streams = true;
    bench.world.inside().confirmed_by = vec![WEST.into()];
    let calls = bench.next().await;
    assert_eq!(calls.last().expect("a call"), "confirm by 0");
}

/// The agent was killed, and its supervisor started another.
fn restarted(bench: Bench, config: AgentConfig) -> Bench {
    let (world, clock, log) = (bench.world, bench.clock, bench.log);
    let agent = Agent::new(config, ports(&world, clock.clone(), Arc::clone(&log)));
    Bench {
        agent: agent.expect("a good configuration"),
        world,
        clock,
        log,
    }
}

/// Cut off from the arbiter until it has stopped its engine.
async fn stopped_itself() -> Bench {
    let mut bench = Bench::writing(strict()).await;
    bench.world.inside().unreadable = true;
    for _ in 0..7 {
        bench.next().await;
    }
    assert_eq!(bench.engine(), Power::Stopped);
    bench.world.inside().unreadable = false;
    bench
}

#[tokio::test]
async fn an_agent_that_was_killed_after_its_own_stop_brings_the_engine_back() {
    let mut bench = restarted(stopped_itself().await, strict());
    assert_eq!(bench.next().await, ["put: epoch 3, beat 1", "start"]);
    assert_eq!(bench.next().await, ["put: epoch 3, beat 1", "promote"]);
    assert_eq!(bench.world.inside().files.len(), 0, "it is over");
}

#[tokio::test]
async fn what_a_person_stopped_stays_stopped_whoever_was_killed() {
    // The person alone.
    let bench = Bench::writing(strict()).await;
    bench.world.inside().engine = Power::Stopped;
    let mut bench = restarted(bench, strict());
    assert_eq!(bench.next().await, ["put: epoch 3, beat 1"]);
    // The agent stopped it, was killed, and was away while a person started it and stopped it again.
    let bench = stopped_itself().await;
    bench.world.inside().starts += 1;
    let mut bench = restarted(bench, strict());
    assert_eq!(bench.next().await, ["put: epoch 3, beat 1"]);
    assert_eq!(bench.engine(), Power::Stopped);
    // The agent's stop was over, and another agent was there when the person came.
    let mut bench = stopped_itself().await;
    for _ in 0..3 {
        bench.next().await;
    }
    assert_eq!(bench.engine(), Power::Writable);
    bench.world.inside().engine = Power::Stopped;
    let mut bench = restarted(bench, strict());
    bench.next().await;
    bench.next().await;
    assert_eq!(bench.engine(), Power::Stopped);
}

#[tokio::test]
async fn frozen_on_the_way_to_the_opening_it_does_not_open() {
    let world = World::new(Power::Replica);
    world.inside().name_writer(4, Some(ME));
    let mut bench = Bench::new(world, isolated());
    let clock = bench.clock.clone();
    bench
        .world
        .during("promote", move |_| clock.advance(Duration::from_secs(11)));
    assert_eq!(bench.tick().await, ["put: epoch 4, beat -", "promote"]);
    assert_eq!(bench.engine(), Power::Replica);
    assert_eq!(bench.next().await, ["put: epoch 4, beat -", "promote"]);
    assert_eq!(bench.engine(), Power::Writable);
}
