//! Whose confirmation a commit waits for: the record and the engine say the same.

use super::*;

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
