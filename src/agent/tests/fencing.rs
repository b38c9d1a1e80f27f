//! Whoever is no longer the writer is stopped, and nobody else.

use super::*;

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
async fn a_replica_of_another_writer_is_left_alone() {
    let world = world(Power::Replica, 4, WEST);
    let mut bench = Bench::new(world, strict());
    assert_eq!(bench.tick().await, [""; 0]);
    assert_eq!(bench.engine(), Power::Replica);
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
    let world = world(Power::Replica, 4, WEST);
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

/// A run stops the old writer after its status was asked and before its process was, and starts it as a replica.
#[tokio::test]
async fn a_replica_that_is_started_where_a_writer_was_seen_to_go_is_not_stopped() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.during("services", |inside| {
        inside.engine = Power::Stopped;
        inside.name_writer(4, Some(WEST));
    });
    assert_eq!(bench.next().await, [""; 0]);
    bench.world.inside().engine = Power::Replica;
    bench.world.inside().hung = true;
    bench.world.inside().pid += 1;
    assert_eq!(bench.next().await, [""; 0]);
}

#[tokio::test]
async fn what_somebody_started_by_hand_is_stopped_too() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().name_writer(4, Some(WEST));
    bench.world.inside().by_hand = true;
    assert_eq!(bench.next().await, ["stop"]);
    assert_eq!(bench.engine(), Power::Stopped);
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
