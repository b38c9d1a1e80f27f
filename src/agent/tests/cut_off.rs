//! An arbiter that cannot be read or written, or has lost its memory.

use tokio::net::TcpListener;

use super::*;

/// A port on which nobody listens. It stays taken, so that nobody else can begin to.
fn closed_port() -> (tokio::net::TcpSocket, u16) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((LOCAL, 0).into()).expect("a free port");
    let port = socket.local_addr().expect("it is bound").port();
    (socket, port)
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
    let world = world(Power::Replica, 4, WEST);
    let mut bench = Bench::new(world, isolated());
    bench.tick().await;
    bench.world.inside().unreadable = true;
    assert_eq!(bench.next().await, [""; 0]);
    // Opened by somebody who does not know the epoch.
    bench.world.inside().engine = Power::Writable;
    assert_eq!(bench.next().await, ["stop"]);
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
