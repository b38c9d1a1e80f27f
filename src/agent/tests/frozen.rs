//! A machine that hangs or sleeps between any two calls.

use super::*;

/// The machine hangs in this call for an hour, and another site is the writer when it goes on.
fn hang_in(call: &'static str, bench: &Bench) {
    let clock = Arc::clone(&bench.clock);
    bench.world.during(call, move |world| {
        clock.advance(Duration::from_secs(3600));
        world.name_writer(5, Some(WEST));
    });
}

#[tokio::test]
async fn frozen_while_it_read_the_record_it_reads_again_before_any_heartbeat() {
    let mut bench = Bench::writing(isolated()).await;
    hang_in("get", &bench);
    assert_eq!(bench.next().await, ["put: changed", "stop"]);
}

#[tokio::test]
async fn frozen_between_two_looks_it_fences_before_any_heartbeat() {
    let mut bench = Bench::writing(isolated()).await;
    hang_in("status", &bench);
    assert_eq!(bench.next().await, ["stop"]);
}

#[tokio::test]
async fn frozen_after_the_renewal_it_does_not_open() {
    let world = world(Power::Replica, 3, ME);
    let mut bench = Bench::new(world, isolated());
    hang_in("put done", &bench);
    assert_eq!(bench.tick().await, ["put: epoch 3, beat -"]);
    assert_eq!(bench.engine(), Power::Replica);
}

#[tokio::test]
async fn frozen_during_a_heartbeat_it_reads_again_before_it_renews() {
    let mut bench = Bench::writing(isolated()).await;
    hang_in("beat", &bench);
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

#[tokio::test]
async fn frozen_on_the_way_to_the_opening_it_does_not_open() {
    let world = world(Power::Replica, 4, ME);
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
