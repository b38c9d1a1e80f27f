//! Every mishap does to the world what it says, and a program that looks first survives them all.

use super::*;

/// What the caller is told, and whether the server is there afterwards.
async fn create_with(mishap: Mishap) -> (&'static str, Option<ServerState>) {
    let world = empty();
    world.set_boot_time(Duration::ZERO);
    world.script(Script::on("cloud.create_server", mishap));
    let cloud = world.cloud(&east());
    let (want, key) = (want("a", None), key("1"));
    let create = cloud.create_server(&want, &key);
    let told = tokio::select! {
        biased;
        () = world.died() => "dead",
        made = create => match made {
            Ok(_) => "done",
            Err(trouble) => trouble.word(),
        },
        () = tokio::task::yield_now() => "hangs",
    };
    assert_eq!(world.unfired(), [""; 0]);
    assert_eq!(world.is_dead(), mishap.kills());
    let state = world.server(&"a".into()).map(|server| server.state);
    (told, state)
}

#[tokio::test]
async fn each_mishap_does_to_the_world_what_it_says() {
    use ServerState::{Pending, Running};
    for (mishap, told, state) in [
        (Mishap::FailBefore, "nothing changed", None),
        (Mishap::LoseReply, "unknown", Some(Running)),
        (Mishap::Half, "partly done", Some(Pending)),
        (Mishap::Twice, "done", Some(Running)),
        (Mishap::Hang, "hangs", Some(Running)),
        (Mishap::CrashBefore, "dead", None),
        (Mishap::CrashDuring, "dead", Some(Pending)),
        (Mishap::CrashAfter, "dead", Some(Running)),
    ] {
        let seen = match tokio::time::timeout(secs(60), create_with(mishap)).await {
            Ok(seen) => seen,
            Err(_) => panic!("{mishap:?} never ended"),
        };
        assert_eq!(seen, (told, state), "{mishap:?}");
    }
}

#[tokio::test]
async fn an_atomic_call_has_no_half() {
    let world = stood().await;
    world.script(Script::on("cloud.power", Mishap::Half));
    let off = world.cloud(&east()).power(&EAST.into(), Power::Off).await;
    assert!(matches!(off, Err(Trouble::NothingChanged(_))));
    assert_eq!(world.writable(&main()), [ServerName::from(EAST)]);
}

#[tokio::test]
async fn a_look_fails_and_dies_too() {
    let world = stood().await;
    world.script(Script::on("cloud.servers", Mishap::LoseReply));
    let cloud = world.cloud(&east());
    assert!(cloud.servers().await.is_err());
    assert_eq!(cloud.servers().await.unwrap().len(), 5);
    world.script(Script::on("cloud.servers", Mishap::CrashAfter).nth(2));
    let twice = async {
        cloud.servers().await.unwrap();
        cloud.servers().await.unwrap();
    };
    assert_eq!(world.until_death(twice).await, None);
}

#[tokio::test]
async fn nothing_of_a_dead_process_acts_any_more() {
    let world = empty();
    let old = world.cloud(&east());
    world.script(Script::on("cloud.ping", Mishap::CrashBefore));
    assert_eq!(world.until_death(old.ping()).await, None);
    let new = world.restart();
    assert!(!new.is_dead());
    let (want_a, want_b, key) = (want("a", None), want("b", None), key("1"));
    assert!(
        world
            .until_death(old.create_server(&want_a, &key))
            .await
            .is_none()
    );
    let left = tokio::spawn({
        let (old, want, key) = (old.clone(), want_a.clone(), key.clone());
        async move { old.create_server(&want, &key).await.map(|_| ()) }
    });
    let cloud = new.cloud(&east());
    new.until_death(cloud.create_server(&want_b, &key))
        .await
        .unwrap()
        .unwrap();
    tokio::task::yield_now().await;
    left.abort();
    assert!(world.server(&"a".into()).is_none());
    assert!(world.server(&"b".into()).is_some());
    // A driver that drops a run by itself ends the process the same way.
    let third = new.restart();
    assert!(new.is_dead() && !third.is_dead());
}

/// A small program that looks before it acts, as steps do.
async fn switch_over(world: &SimWorld) -> Result<(), Trouble> {
    let (engine, reach) = (world.engine("postgres"), reach(world));
    let (old, new) = (node(world, EAST), node(world, WEST));
    let unknown = |fault| Trouble::Unknown(fault);
    let status = engine.status(&new, &reach).await.map_err(unknown)?;
    if !status.writable {
        engine.stop_clean(&old, &reach).await?;
        engine.promote(&new, &reach, &always).await?;
    }
    engine.rejoin(&old, &new, &reach).await?;
    let dns = world.dns(&"shop.test".into());
    let there = dns.records().await.map_err(unknown)?.remove(0);
    let mut after = there.clone();
    after.values = [world
        .address(&"shop-west-balancer-1".into())
        .unwrap()
        .to_string()]
    .into();
    if after != there {
        dns.apply(&[change(Some(there), Some(after))]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_program_that_looks_first_survives_every_mishap_at_every_change() {
    let uncut = stood().await;
    write(&uncut, EAST, "a");
    switch_over(&uncut).await.unwrap();
    assert_eq!(uncut.changes(), 4);
    for nth in 1..=uncut.changes() {
        for mishap in Mishap::ALL {
            if mishap == Mishap::Hang {
                continue;
            }
            let case = format!("{mishap:?} at change {nth}");
            let mut world = stood().await;
            write(&world, EAST, "a");
            world.script(Script::on_change(nth, mishap));
            let mut tries = 0;
            while world.until_death(switch_over(&world)).await != Some(Ok(())) {
                tries += 1;
                assert!(tries < 3, "{case}: not done after 3 tries");
                world = world.restart();
            }
            assert_eq!(world.unfired(), [""; 0], "{case}");
            assert_eq!(world.violations(), [""; 0], "{case}");
            assert_eq!(world.lost_writes(&main()).unwrap(), [""; 0], "{case}");
            assert_eq!(world.snapshot(), uncut.snapshot(), "{case}");
        }
    }
}
