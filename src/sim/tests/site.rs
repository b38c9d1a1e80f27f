//! Sites that are cut off, who sees what from where, and the book of calls.

use super::*;

#[tokio::test]
async fn a_dead_site_is_silent_and_every_call_to_it_is_booked() {
    let world = stood().await;
    world.cut_off(&east());
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    assert!(world.cloud(&east()).ping().await.is_err());
    assert!(engine.status(&node(&world, EAST), &reach).await.is_err());
    assert!(http(&world, "shop-east-balancer-1").await.is_err());
    engine.status(&node(&world, WEST), &reach).await.unwrap();
    let booked: Vec<&str> = world
        .calls_to(&east())
        .iter()
        .map(|call| call.call)
        .collect();
    assert_eq!(booked, ["cloud.ping", "engine.status", "probe.http"]);
    assert_eq!(world.calls_to(&west()).len(), 1);
    assert_eq!(world.changes(), 0);
    // What runs there runs on, and goes on alone.
    write(&world, EAST, "a");
    assert_eq!(rows(&world, "shop-east-db-2"), ["a"]);
    assert_eq!(rows(&world, WEST), [""; 0]);
    world.reconnect(&east());
    assert_eq!(rows(&world, WEST), ["a"]);
}

#[tokio::test]
async fn a_silent_cloud_leaves_its_servers_alone() {
    let world = stood().await;
    world.set_cloud_answers(&east(), false);
    assert!(world.cloud(&east()).servers().await.is_err());
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    engine.status(&node(&world, EAST), &reach).await.unwrap();
    assert_eq!(http(&world, "shop-east-balancer-1").await.unwrap(), 200);
}

#[tokio::test]
async fn an_agent_in_a_cut_off_site_sees_only_its_own() {
    let world = stood().await;
    world.cut_off(&east());
    let inside = world.seen_from(&east());
    let (engine, reach) = (inside.engine("postgres"), reach(&world));
    engine.status(&node(&world, EAST), &reach).await.unwrap();
    assert!(engine.status(&node(&world, WEST), &reach).await.is_err());
    assert!(inside.store(1).get("writer/main").await.is_err());
    engine.stop_now(&node(&world, EAST), &reach).await.unwrap();
    world.reconnect(&east());
    inside.store(1).get("writer/main").await.unwrap();
    assert_eq!(world.changes(), 0);
}
