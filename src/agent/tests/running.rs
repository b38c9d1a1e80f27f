//! The agent as a process: its configuration, its log, its end.

use super::*;
use crate::clock::RealClock;

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
    let world = world(Power::Replica, 3, ME);
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
