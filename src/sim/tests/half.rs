//! A change of a database that is cut in its middle.

use super::*;

#[tokio::test]
async fn a_half_copy_is_no_data_and_a_copy_over_the_primary_is_noticed() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (east, west) = (node(&world, EAST), node(&world, WEST));
    world.script(Script::on("engine.seed", Mishap::Half).about(WEST));
    let half = engine.seed(&east, &west, &reach).await;
    assert!(matches!(half, Err(Trouble::Partial(_))), "{half:?}");
    assert!(!engine.has_data(&west, &reach).await.unwrap());
    assert!(engine.start(&west, &reach).await.is_err());
    engine.seed(&east, &west, &reach).await.unwrap();
    assert!(engine.has_data(&west, &reach).await.unwrap());
    engine.seed(&west, &east, &reach).await.unwrap();
    assert_eq!(
        world.violations(),
        ["a copy of `main` over the writable `shop-east-db-1`"]
    );
}

#[tokio::test]
async fn a_half_creation_is_completed_by_the_next() {
    let world = empty();
    world.set_boot_time(Duration::ZERO);
    let cloud = world.cloud(&east());
    cloud
        .create_server(&want(EAST, None), &key("1"))
        .await
        .unwrap();
    let (engine, reach, east) = (world.engine("postgres"), reach(&world), node(&world, EAST));
    world.script(Script::on("engine.create", Mishap::Half));
    assert!(engine.create(&east, None, &reach).await.is_err());
    assert!(!engine.has_data(&east, &reach).await.unwrap());
    engine.create(&east, None, &reach).await.unwrap();
    write(&world, EAST, "a");
    engine.create(&east, None, &reach).await.unwrap();
    assert_eq!(rows(&world, EAST), ["a"]);
    let cloud = world.cloud(&self::east());
    cloud.power(&EAST.into(), Power::Off).await.unwrap();
    cloud.power(&EAST.into(), Power::On).await.unwrap();
    engine.create(&east, None, &reach).await.unwrap();
    assert!(world.writable(&main()).is_empty());
}

#[tokio::test]
async fn a_half_stop_bars_the_sessions_and_opening_again_keeps_the_timeline() {
    let world = stood().await;
    let (engine, reach, east) = (world.engine("postgres"), reach(&world), node(&world, EAST));
    world.script(Script::on("engine.stop_clean", Mishap::Half));
    let half = engine.stop_clean(&east, &reach).await;
    assert!(matches!(half, Err(Trouble::Partial(_))), "{half:?}");
    let status = engine.status(&east, &reach).await.unwrap();
    assert_eq!((status.role, status.writable), (NodeRole::Primary, false));
    assert!(engine.write_refused(&east, &reach).await.unwrap().is_some());
    assert!(world.write(&EAST.into(), &main(), "a").is_err());
    assert_eq!(engine.promote(&east, &reach, &always).await.unwrap(), 1);
    write(&world, EAST, "a");
}

#[tokio::test]
async fn a_half_rewind_leaves_only_a_copy() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (old, new) = (node(&world, EAST), node(&world, WEST));
    world.cut_stream(&WEST.into(), &main(), true);
    write(&world, EAST, "b");
    engine.stop_now(&old, &reach).await.unwrap();
    engine.promote(&new, &reach, &always).await.unwrap();
    world.script(Script::on("engine.rejoin", Mishap::CrashDuring));
    let cut = world.until_death(engine.rejoin(&old, &new, &reach)).await;
    assert_eq!(cut, None);
    let engine = world.restart().engine("postgres");
    assert!(!engine.has_data(&old, &reach).await.unwrap());
    let how = engine.rejoin(&old, &new, &reach).await.unwrap();
    assert!(matches!(how, Rejoined::Reseeded { .. }), "{how}");
}

#[tokio::test]
async fn a_half_promotion_replays_and_does_not_open() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    world.set_delays(&WEST.into(), &main(), secs(0), secs(60));
    write(&world, EAST, "a");
    world.script(Script::on("engine.promote", Mishap::Half));
    assert!(
        engine
            .promote(&node(&world, WEST), &reach, &always)
            .await
            .is_err()
    );
    assert_eq!(rows(&world, WEST), ["a"]);
    assert_eq!(world.writable(&main()), [ServerName::from(EAST)]);
}
