//! Replication: who receives what, who may write, and who comes back how.

use super::*;
use crate::db::Divergence;

#[tokio::test]
async fn replicas_receive_down_the_chain() {
    let world = stood().await;
    write(&world, EAST, "a");
    assert_eq!(rows(&world, WEST_2), ["a"]);
    assert!(world.write(&WEST.into(), &main(), "b").is_err());
    let engine = world.engine("postgres");
    let east = engine
        .status(&node(&world, EAST), &reach(&world))
        .await
        .unwrap();
    let west = engine
        .status(&node(&world, WEST), &reach(&world))
        .await
        .unwrap();
    assert_eq!(
        engine.bytes_between(&east.position, &west.position),
        Some(0)
    );
    assert_eq!(
        west.link,
        Some(Link::Up {
            from: EAST.to_owned()
        })
    );
    assert_eq!(west.heartbeat, east.heartbeat);
    assert_eq!(east.heartbeat.unwrap().at, world.clock().now());
    let followers: Vec<_> = east
        .followers
        .iter()
        .map(|one| (one.node.as_str(), one.streaming))
        .collect();
    assert_eq!(followers, [("shop-east-db-2", true), (WEST, true)]);
}

#[tokio::test]
async fn delays_hold_writes_and_heartbeats_back() {
    let world = stood().await;
    world.set_delays(&WEST.into(), &main(), secs(5), secs(8));
    write(&world, EAST, "a");
    assert_eq!(rows(&world, WEST), [""; 0]);
    world.clock().sleep(secs(5)).await;
    let engine = world.engine("postgres");
    let status = engine
        .status(&node(&world, WEST), &reach(&world))
        .await
        .unwrap();
    assert_eq!(
        engine.bytes_between(status.received.as_ref().unwrap(), &status.position),
        Some(0x40)
    );
    world.clock().sleep(secs(60)).await;
    let status = engine
        .status(&node(&world, WEST), &reach(&world))
        .await
        .unwrap();
    assert_eq!(status.heartbeat.unwrap().at, world.clock().now() - secs(8));
    assert_eq!(rows(&world, WEST), ["a"]);
}

#[tokio::test]
async fn a_dead_stream_lets_the_heartbeat_grow_old() {
    let world = stood().await;
    let cut_at = world.clock().now();
    world.cut_stream(&WEST.into(), &main(), true);
    world.clock().sleep(secs(30)).await;
    let engine = world.engine("postgres");
    let status = engine
        .status(&node(&world, WEST), &reach(&world))
        .await
        .unwrap();
    assert!(matches!(status.link, Some(Link::Down { .. })));
    assert_eq!(status.heartbeat.unwrap().at, cut_at);
}

#[tokio::test]
async fn a_clean_stop_sends_everything() {
    let world = stood().await;
    world.set_delays(&WEST.into(), &main(), secs(5), secs(0));
    write(&world, EAST, "a");
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let last = engine
        .stop_clean(&node(&world, EAST), &reach)
        .await
        .unwrap();
    assert_eq!(
        engine
            .stop_clean(&node(&world, EAST), &reach)
            .await
            .unwrap(),
        last
    );
    let west = engine.status(&node(&world, WEST), &reach).await.unwrap();
    assert_eq!(engine.bytes_between(&west.position, &last), Some(0));
    assert_eq!(
        engine
            .promote(&node(&world, WEST), &reach, &always)
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        engine
            .promote(&node(&world, WEST), &reach, &always)
            .await
            .unwrap(),
        2
    );
    assert_eq!(world.lost_writes(&main()).unwrap(), [""; 0]);
    let old = engine
        .rejoin(&node(&world, EAST), &node(&world, WEST), &reach)
        .await;
    assert_eq!(old.unwrap(), Rejoined::Followed);
    write(&world, WEST, "b");
    assert_eq!(rows(&world, EAST), ["a", "b"]);
    assert_eq!(world.violations(), [""; 0]);
}

#[tokio::test]
async fn a_promotion_beside_a_living_primary_is_noticed() {
    let world = stood().await;
    world.cut_off(&east());
    write(&world, EAST, "lost");
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    assert!(engine.stop_now(&node(&world, EAST), &reach).await.is_err());
    engine
        .promote(&node(&world, WEST), &reach, &always)
        .await
        .unwrap();
    assert_eq!(
        world.violations(),
        ["two writers of `main`: shop-east-db-1, shop-west-db-1"]
    );
}

#[tokio::test]
async fn a_lost_site_loses_what_was_not_sent() {
    let world = stood().await;
    write(&world, EAST, "a");
    world.set_delays(&WEST.into(), &main(), secs(5), secs(0));
    write(&world, EAST, "b");
    world.lose(&east());
    assert_eq!(world.lost_writes(&main()), None);
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    engine
        .promote(&node(&world, WEST), &reach, &always)
        .await
        .unwrap();
    assert_eq!(world.lost_writes(&main()).unwrap(), ["b"]);
    assert_eq!(world.acknowledged(&main()).len(), 2);
    assert_eq!(world.violations(), [""; 0]);

    world.reconnect(&east());
    let cloud = world.cloud(&east());
    cloud.power(&EAST.into(), Power::On).await.unwrap();
    let (old, new) = (node(&world, EAST), node(&world, WEST));
    let divergence = engine.divergence(&old, &new, &reach).await.unwrap();
    assert_eq!(
        divergence,
        Divergence::Diverged {
            fork: node::position(node::LOG_START + 0x40),
            extra: 0x40
        }
    );
    assert!(engine.follow(&old, &new, &reach).await.is_err());
    let how = engine.rejoin(&old, &new, &reach).await.unwrap();
    assert_eq!(how, Rejoined::Rewound);
    assert_eq!(rows(&world, EAST), ["a"]);
    assert_eq!(
        engine.divergence(&old, &new, &reach).await.unwrap(),
        Divergence::None
    );
    let again = engine.rejoin(&old, &new, &reach).await.unwrap();
    assert_eq!(again, Rejoined::Followed);
    let status = engine.status(&old, &reach).await.unwrap();
    assert_eq!((status.timeline, status.role), (2, NodeRole::Replica));
}

#[tokio::test]
async fn what_cannot_be_rewound_is_copied() {
    let world = stood().await;
    world.cut_stream(&WEST.into(), &main(), true);
    write(&world, EAST, "b");
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (old, new) = (node(&world, EAST), node(&world, WEST));
    engine.stop_now(&old, &reach).await.unwrap();
    engine.promote(&new, &reach, &always).await.unwrap();
    world.set_can_rewind(false);
    let how = engine.rejoin(&old, &new, &reach).await.unwrap();
    assert!(matches!(how, Rejoined::Reseeded { .. }), "{how}");
    // The old primary's replica has log that nobody has any more.
    let orphan = node(&world, "shop-east-db-2");
    assert!(engine.follow(&orphan, &old, &reach).await.is_err());
    engine.seed(&old, &orphan, &reach).await.unwrap();
    write(&world, WEST, "c");
    assert_eq!(rows(&world, "shop-east-db-2"), ["c"]);
}

#[tokio::test]
async fn a_replica_follows_another_of_its_history() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (east, replica) = (node(&world, EAST), node(&world, WEST_2));
    engine.follow(&replica, &east, &reach).await.unwrap();
    engine
        .forget(&node(&world, WEST), &replica.host.name, &reach)
        .await
        .unwrap();
    engine.stop_now(&node(&world, WEST), &reach).await.unwrap();
    write(&world, EAST, "a");
    assert_eq!(rows(&world, WEST_2), ["a"]);
    engine
        .forget(&east, &replica.host.name, &reach)
        .await
        .unwrap();
    let status = engine.status(&replica, &reach).await.unwrap();
    assert!(matches!(status.link, Some(Link::Down { .. })), "{status:?}");
    let primary = engine.follow(&east, &replica, &reach).await;
    assert!(matches!(primary, Err(Trouble::NothingChanged(_))));
}

#[tokio::test]
async fn a_stopped_node_is_not_promoted() {
    let world = stood().await;
    let (engine, reach, west) = (world.engine("postgres"), reach(&world), node(&world, WEST));
    engine.stop_now(&west, &reach).await.unwrap();
    let promoted = engine.promote(&west, &reach, &always).await;
    assert!(matches!(promoted, Err(Trouble::NothingChanged(_))));
    engine.start(&west, &reach).await.unwrap();
    engine.start(&west, &reach).await.unwrap();
    assert!(engine.write_refused(&west, &reach).await.unwrap().is_some());
}

#[tokio::test]
async fn writes_are_refused_and_accepted_as_they_would_be() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (east, west) = (node(&world, EAST), node(&world, WEST));
    assert_eq!(engine.write_refused(&east, &reach).await.unwrap(), None);
    assert!(engine.write_refused(&west, &reach).await.unwrap().is_some());
    assert!(engine.beat(&west, 1, start(), &reach).await.is_err());
    world.set_beats_alone(false);
    write(&world, EAST, "a");
    let (_, transactions) = engine.beat(&east, 900, start(), &reach).await.unwrap();
    assert_eq!(transactions, Some(1));
    let status = engine.status(&east, &reach).await.unwrap();
    assert_eq!(status.heartbeat.unwrap().seq, 900);
}

#[tokio::test]
async fn verify_finds_corruption() {
    let world = stood().await;
    write(&world, EAST, "a");
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (east, west) = (node(&world, EAST), node(&world, WEST));
    let verified = engine.verify(&east, &west, &reach).await.unwrap();
    assert_eq!((verified.rows, verified.different.len()), (1, 0));
    world.corrupt(&WEST.into(), &main());
    let verified = engine.verify(&east, &west, &reach).await.unwrap();
    assert_eq!(verified.different, ["writes"]);
}
