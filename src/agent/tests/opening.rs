//! The writer opens its engine, renews its lease and beats; nobody else is opened.

use std::net::TcpListener;

use super::*;

#[tokio::test]
async fn opens_after_boot_after_the_renewal_and_beats_from_then_on() {
    let world = world(Power::Replica, 3, ME);
    let mut bench = Bench::new(world, isolated());
    assert_eq!(bench.tick().await, ["put: epoch 3, beat -", "promote"]);
    assert_eq!(bench.engine(), Power::Writable);
    assert_eq!(bench.next().await, ["beat 1", "put: epoch 3, beat 1"]);
    assert_eq!(bench.next().await, ["beat 2", "put: epoch 3, beat 2"]);
    let writer = bench.world.inside().writer();
    assert_eq!(
        writer.lease_until,
        Some(bench.clock.now() + Duration::from_secs(10))
    );
    let beat = writer.beat.expect("it beats");
    assert_eq!(
        (beat.seq, beat.at, beat.position.as_str()),
        (2, bench.clock.now(), "0/2")
    );
}

#[tokio::test]
async fn does_not_open_when_the_renewal_fails() {
    let world = world(Power::Replica, 3, ME);
    world.inside().unwritable = true;
    let mut bench = Bench::new(world, isolated());
    for _ in 0..3 {
        assert_eq!(bench.next().await, [""; 0]);
    }
    assert!(
        bench
            .last_line()
            .ends_with("failed: lease not renewed: the arbiter cannot be written"),
        "{}",
        bench.last_line()
    );
    bench.world.inside().unwritable = false;
    assert_eq!(bench.next().await, ["put: epoch 3, beat -", "promote"]);
}

#[tokio::test]
async fn does_not_open_when_the_writer_moves_before_the_renewal_arrives() {
    let world = world(Power::Replica, 3, ME);
    world.during("put", |world| world.name_writer(4, None));
    let mut bench = Bench::new(world, isolated());
    assert_eq!(bench.tick().await, ["put: changed"]);
    assert_eq!(bench.next().await, [""; 0]);
    assert_eq!(
        bench.last_line(),
        "leave: shop-east-db-1 is not writable: nobody may write at epoch 4"
    );
}

#[tokio::test]
async fn a_database_that_is_being_made_is_left_alone() {
    for (power, fence) in [(Power::Replica, strict()), (Power::Writable, isolated())] {
        let mut bench = Bench::new(World::new(power), fence);
        assert_eq!(bench.tick().await, [""; 0]);
        assert_eq!(bench.engine(), power);
    }
}

/// An agent that was restarted remembers no record, and nobody opens anything before there is one.
#[tokio::test]
async fn strict_a_writable_engine_without_any_record_is_stopped() {
    let mut bench = Bench::new(World::new(Power::Writable), strict());
    assert_eq!(bench.tick().await, ["stop"]);
    assert_ne!(bench.engine(), Power::Writable);
}

#[tokio::test]
async fn a_later_grant_ends_the_old_sessions_and_opens_anew() {
    let mut bench = Bench::writing(isolated()).await;
    bench.world.inside().name_writer(5, Some(ME));
    assert_eq!(bench.next().await, ["stop"]);
    assert_eq!(bench.next().await, ["put: epoch 5, beat 1", "start"]);
    assert_eq!(bench.next().await, ["put: epoch 5, beat 1", "promote"]);
    assert_eq!(bench.next().await, ["beat 2", "put: epoch 5, beat 2"]);
}

#[tokio::test(start_paused = true)]
async fn renews_while_a_long_opening_goes_on_and_ends_it_when_the_epoch_grows() {
    let world = world(Power::Replica, 3, ME);
    world.inside().slow_promote = true;
    let mut bench = Bench::new(world, isolated());
    assert_eq!(bench.tick().await, ["put: epoch 3, beat -", "promote"]);
    for _ in 0..20 {
        assert_eq!(bench.next().await, ["put: epoch 3, beat -"]);
    }
    bench.world.inside().hung = true;
    bench.world.inside().name_writer(4, None);
    assert_eq!(bench.next().await, ["stop"], "it may open at any moment");
    assert_eq!(bench.engine(), Power::Stopped);
    assert_eq!(bench.next().await, [""; 0]);
}

/// A replica of another writer, whose agent the arbiter does not answer when a run opens it.
async fn opened_unheard(config: AgentConfig, told: Option<u64>) -> Bench {
    let world = world(Power::Replica, 3, WEST);
    let mut bench = Bench::new(world, config);
    bench.tick().await;
    bench.world.inside().name_writer(4, Some(ME));
    bench.world.inside().unreadable = true;
    if let Some(epoch) = told {
        let file = told_file(epoch);
        let mut inside = bench.world.inside();
        inside.files.insert(file.path, file.bytes);
    }
    bench.world.inside().engine = Power::Writable;
    bench
}

fn told_file(epoch: u64) -> crate::shell::File {
    told(&isolated().host, &ME.into(), epoch)
}

#[tokio::test]
async fn who_was_opened_by_a_run_goes_on_without_the_arbiter() {
    let mut bench = opened_unheard(isolated(), Some(4)).await;
    assert_eq!(bench.next().await, ["beat 1"]);
    assert_eq!(bench.engine(), Power::Writable);
    bench.world.inside().unreadable = false;
    assert_eq!(bench.next().await, ["beat 2", "put: epoch 4, beat 2"]);
    // What was told is not newer than what is read later.
    bench.world.inside().name_writer(5, Some(WEST));
    assert_eq!(bench.next().await, ["stop"]);
}

#[tokio::test]
async fn who_read_that_nobody_may_write_yet_believes_what_it_is_told_of_that_epoch() {
    for (told, did) in [(4, "beat 1"), (3, "stop")] {
        let mut bench = Bench::new(world(Power::Replica, 3, WEST), isolated());
        // The old primary is stopped, and this one is not opened yet.
        bench.world.inside().name_writer(4, None);
        bench.tick().await;
        bench.world.inside().name_writer(4, Some(ME));
        bench.world.inside().unreadable = true;
        let file = told_file(told);
        bench.world.inside().files.insert(file.path, file.bytes);
        bench.world.inside().engine = Power::Writable;
        assert_eq!(bench.next().await, [did], "told of {told}");
    }
}

#[tokio::test]
async fn who_was_not_told_is_stopped() {
    for told in [None, Some(2), Some(3)] {
        let mut bench = opened_unheard(isolated(), told).await;
        assert_eq!(bench.next().await, ["stop"], "{told:?}");
    }
    // Nobody at the other site answers: told, it has the time of a lease, and no more.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = || {
        let port = nobody.local_addr().unwrap().port();
        config(SelfFence::Isolated, vec![peer(WEST, "west", port)])
    };
    let mut bench = opened_unheard(silent(), None).await;
    assert_eq!(bench.next().await, ["stop"]);
    let mut bench = opened_unheard(silent(), Some(4)).await;
    for beat in 1..=5 {
        assert_eq!(bench.next().await, [format!("beat {beat}")]);
    }
    assert_eq!(bench.next().await, ["stop"]);
    // Frozen before it heard of it: nobody knows what became of the other site.
    let mut bench = opened_unheard(silent(), Some(4)).await;
    bench.clock.advance(Duration::from_secs(3600));
    assert_eq!(bench.next().await, ["stop"]);
    // Strict: only a lease lets it go on.
    let mut bench = opened_unheard(strict(), Some(4)).await;
    assert_eq!(bench.next().await, ["stop"]);
}
