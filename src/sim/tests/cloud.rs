//! Servers, images and their power.

use super::*;

#[tokio::test]
async fn a_server_boots_and_keeps_to_its_key() {
    let world = empty();
    let cloud = world.cloud(&east());
    let made = cloud
        .create_server(&want("a", None), &key("1"))
        .await
        .unwrap();
    assert_eq!((made.state, made.host), (ServerState::Pending, None));
    world.clock().sleep(secs(2)).await;
    let seen = cloud.servers().await.unwrap();
    assert_eq!(seen[0].state, ServerState::Running);
    assert!(seen[0].host.is_some());

    let again = cloud
        .create_server(&want("a", None), &key("1"))
        .await
        .unwrap();
    assert_eq!(again, seen[0]);
    let other = cloud.create_server(&want("a", None), &key("2")).await;
    assert!(
        matches!(other, Err(Trouble::NothingChanged(_))),
        "{other:?}"
    );
    let no_image = cloud
        .create_server(&want("b", Some("web-1")), &key("3"))
        .await;
    assert!(matches!(no_image, Err(Trouble::NothingChanged(_))));
    cloud.delete_server(&"a".into()).await.unwrap();
    cloud.delete_server(&"a".into()).await.unwrap();
    assert!(cloud.servers().await.unwrap().is_empty());
}

#[tokio::test]
async fn images_are_sealed_once_and_kept_while_used() {
    let world = empty();
    let cloud = world.cloud(&east());
    let (image, tags) = (ImageName::from("web-1"), BTreeMap::new());
    cloud
        .create_server(&want("b", None), &key("1"))
        .await
        .unwrap();
    let early = cloud.seal(&"b".into(), &image, &tags).await;
    assert!(matches!(early, Err(Trouble::NothingChanged(_))));
    world.advance(secs(2));
    let sealed = cloud.seal(&"b".into(), &image, &tags).await.unwrap();
    assert_eq!(world.server(&"b".into()).unwrap().state, ServerState::Off);
    cloud.delete_server(&"b".into()).await.unwrap();
    assert_eq!(
        cloud.seal(&"b".into(), &image, &tags).await.unwrap(),
        sealed
    );
    assert!(world.cloud(&west()).images().await.unwrap().is_empty());

    cloud
        .create_server(&want("s", Some("web-1")), &key("2"))
        .await
        .unwrap();
    assert!(cloud.delete_image(&image).await.is_err());
    assert!(cloud.remove_site().await.is_err());
    cloud.delete_server(&"s".into()).await.unwrap();
    cloud.delete_image(&image).await.unwrap();
    cloud.delete_image(&image).await.unwrap();
    assert_eq!(world.snapshot()["sites"]["east"]["network"], true);
    cloud.remove_site().await.unwrap();
    cloud.remove_site().await.unwrap();
    assert_eq!(world.snapshot()["sites"]["east"]["network"], false);
}

#[tokio::test]
async fn power_off_stops_all_and_a_boot_comes_up_non_writable() {
    let world = stood().await;
    let (cloud, engine, name) = (world.cloud(&east()), world.engine("postgres"), EAST.into());
    cloud.power(&name, Power::Freeze).await.unwrap();
    assert!(world.writable(&main()).is_empty());
    assert!(
        engine
            .status(&node(&world, EAST), &reach(&world))
            .await
            .is_err()
    );
    assert!(cloud.power(&name, Power::On).await.is_err());
    cloud.power(&name, Power::Thaw).await.unwrap();
    assert_eq!(world.writable(&main()), [ServerName::from(EAST)]);

    cloud.power(&name, Power::Off).await.unwrap();
    cloud.power(&name, Power::Off).await.unwrap();
    assert!(
        engine
            .write_refused(&node(&world, EAST), &reach(&world))
            .await
            .is_err()
    );
    cloud.power(&name, Power::On).await.unwrap();
    let status = engine
        .status(&node(&world, EAST), &reach(&world))
        .await
        .unwrap();
    assert_eq!((status.role, status.writable), (NodeRole::Replica, false));
    assert!(matches!(status.link, Some(Link::Down { .. })), "{status:?}");
    assert!(cloud.power(&"nobody".into(), Power::Off).await.is_err());
}

#[tokio::test]
async fn what_is_cut_off_is_silent_and_goes_on_where_it_was() {
    let world = stood().await;
    let (cloud, engine, name) = (world.cloud(&east()), world.engine("postgres"), EAST.into());
    for _ in 0..2 {
        cloud.power(&name, Power::Isolate).await.unwrap();
    }
    let seen = cloud.servers().await.unwrap();
    let seen = seen.into_iter().find(|one| one.name == name).unwrap();
    assert_eq!(seen.state, ServerState::Isolated);
    assert_eq!(seen.host.unwrap().address, world.address(&name).unwrap());
    assert!(world.writable(&main()).is_empty());
    assert!(world.write(&name, &main(), "x").is_err());
    let status = engine.status(&node(&world, EAST), &reach(&world)).await;
    assert!(status.is_err());
    assert!(cloud.power(&name, Power::Freeze).await.is_err());

    cloud.power(&name, Power::On).await.unwrap();
    assert_eq!(world.writable(&main()), std::slice::from_ref(&name));
    cloud.power(&name, Power::Isolate).await.unwrap();
    cloud.power(&name, Power::Off).await.unwrap();
    assert!(cloud.power(&name, Power::Isolate).await.is_err());
    cloud.power(&name, Power::On).await.unwrap();
    assert!(world.writable(&main()).is_empty(), "it booted");
}

#[tokio::test]
async fn a_new_image_is_seen_after_a_restart() {
    let world = stood().await;
    let (cloud, web) = (world.cloud(&east()), "shop-east-web-1");
    cloud
        .create_server(&want("b", None), &key("1"))
        .await
        .unwrap();
    world.advance(secs(2));
    let new = ImageName::from("web-2");
    cloud
        .seal(&"b".into(), &new, &BTreeMap::new())
        .await
        .unwrap();
    world.set_sick("web-2", true);
    cloud.change_image(&web.into(), &new).await.unwrap();
    assert_eq!(http(&world, web).await.unwrap(), 200);
    let host = world.server(&web.into()).unwrap().host(&web.into());
    let restart = world.shell(&east());
    restart
        .service(&host, "web", ServiceChange::Restart)
        .await
        .unwrap();
    assert_eq!(http(&world, web).await.unwrap(), 500);
    assert_eq!(http(&world, "shop-east-balancer-1").await.unwrap(), 200);
}

#[tokio::test]
async fn a_balancer_answers_while_one_application_does() {
    let world = stood().await;
    for (web, status) in [("shop-east-web-1", 200), ("shop-east-web-2", 503)] {
        let cloud = world.cloud(&east());
        cloud.power(&web.into(), Power::Off).await.unwrap();
        assert!(http(&world, web).await.is_err());
        assert_eq!(http(&world, "shop-east-balancer-1").await.unwrap(), status);
    }
    world.crash_service(&"shop-west-balancer-1".into(), "haproxy");
    assert!(http(&world, "shop-west-balancer-1").await.is_err());
    let probe = world.probe();
    let database = |name: &str| (world.address(&name.into()).unwrap(), 5432).into();
    probe.tcp(database(WEST), secs(2)).await.unwrap();
    world.crash_service(&WEST.into(), "postgres-main");
    assert!(probe.tcp(database(WEST), secs(2)).await.is_err());
}
