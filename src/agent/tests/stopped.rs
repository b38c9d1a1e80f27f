//! An engine that was stopped by a crash, by a person, or by its agent: who brings it back.

use super::*;

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
