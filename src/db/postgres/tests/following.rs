//! Copies: who follows whom, what is never overwritten, and whether a copy is one.

use jiff::Timestamp;

use super::super::service_name;
use super::*;
use crate::db::Position;

#[tokio::test]
async fn a_replica_follows_another_replica_and_has_what_the_primary_has() {
    let Some(machine) = Machine::with(
        "a_replica_follows_another_replica_and_has_what_the_primary_has",
        ["shop-east-db-1", "shop-west-db-1", "shop-west-db-2"],
    ) else {
        return;
    };
    let reach = &machine.reach;
    let [first, second, third] = &machine.nodes;
    let client = primary(&machine).await;
    client
        .batch_execute("INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 1000) n")
        .await
        .unwrap();
    timed("seed", Postgres.seed(first, second, reach))
        .await
        .unwrap();
    timed("seed from a replica", Postgres.seed(second, third, reach))
        .await
        .unwrap();

    let at: Timestamp = "2026-11-21T09:14:03.123456Z".parse().unwrap();
    let (position, before) = Postgres.beat(first, 7, at, &machine.agent()).await.unwrap();
    let (_, after) = Postgres.beat(first, 8, at, &machine.agent()).await.unwrap();
    assert_eq!(after, before.map(|before| before + 1));
    until("the heartbeat arrives", async || {
        let status = Postgres.status(third, reach).await.unwrap();
        status
            .heartbeat
            .is_some_and(|beat| beat.seq == 8 && beat.at == at)
    })
    .await;
    let there = Postgres.status(third, reach).await.unwrap();
    assert_eq!(
        there.link,
        Some(Link::Up {
            from: "shop-west-db-1".to_owned()
        })
    );
    assert!(Postgres.bytes_between(&there.position, &position).unwrap() > 0);
    let here = Postgres.status(first, reach).await.unwrap();
    assert_eq!(
        (there.timeline, &there.system, there.writable),
        (here.timeline, &here.system, false)
    );
    let [follower] = &here.followers[..] else {
        panic!("{:?}", here.followers)
    };
    assert_eq!(
        (follower.node.as_str(), follower.streaming),
        ("shop-west-db-1", true)
    );
    assert!(
        follower.headroom.is_some_and(|bytes| bytes > 100 << 20),
        "{follower:?}"
    );

    let verified = timed("verify", Postgres.verify(first, third, reach))
        .await
        .unwrap();
    assert_eq!(
        (verified.tables, verified.rows, verified.different),
        (1, 1000, Vec::<String>::new())
    );

    // Straight from the primary now, and nothing is kept for it where it was.
    timed("follow", Postgres.follow(third, first, reach))
        .await
        .unwrap();
    Postgres
        .forget(second, &third.host.name, reach)
        .await
        .unwrap();
    Postgres
        .forget(second, &third.host.name, reach)
        .await
        .unwrap();
    assert_eq!(Postgres.status(second, reach).await.unwrap().followers, []);
    client
        .batch_execute("INSERT INTO orders VALUES (1001, 'x')")
        .await
        .unwrap();
    until("the row arrives", async || {
        count(third, &machine).await == 1001
    })
    .await;

    // The primary is gone: no link, and it says whose.
    Postgres.stop_now(first, reach).await.unwrap();
    until("the link is down", async || {
        let down = Link::Down {
            why: "no stream from `shop-east-db-1`".to_owned(),
        };
        Postgres.status(third, reach).await.unwrap().link == Some(down)
    })
    .await;
}

#[tokio::test]
async fn a_writable_node_is_never_overwritten() {
    let Some(machine) = Machine::pair("a_writable_node_is_never_overwritten") else {
        return;
    };
    let (reach, [first, second]) = (&machine.reach, &machine.nodes);
    primary(&machine).await;
    Postgres.seed(first, second, reach).await.unwrap();
    Postgres.promote(second, reach, &always).await.unwrap();
    let refused = |trouble: Trouble| match trouble {
        Trouble::NothingChanged(fault) => fault.to_string(),
        other => panic!("{other}"),
    };
    let seed = Postgres.seed(first, second, reach).await.err().unwrap();
    assert_eq!(
        refused(seed),
        "`shop-west-db-1` is writable and would be wiped"
    );
    let rejoin = Postgres.rejoin(second, first, reach).await.err().unwrap();
    assert_eq!(
        refused(rejoin),
        "`shop-west-db-1` is writable and has to be fenced before it rejoins"
    );
    let follow = Postgres.follow(second, first, reach).await.err().unwrap();
    assert_eq!(
        refused(follow),
        "`shop-west-db-1` is writable and cannot follow"
    );
    let unknown = Postgres.divergence(second, first, reach).await.unwrap();
    assert_eq!(
        unknown,
        Divergence::Unknown {
            why: "`shop-west-db-1` is writable".to_owned()
        }
    );

    // Frozen, it says nothing, and that is no permission.
    machine
        .shell
        .signal(&second.host, nix::sys::signal::Signal::SIGSTOP);
    let seed = Postgres.seed(first, second, reach).await.err().unwrap();
    let write = Postgres.write_refused(second, reach).await;
    machine
        .shell
        .signal(&second.host, nix::sys::signal::Signal::SIGCONT);
    let said = refused(seed);
    assert!(
        said.starts_with("`shop-west-db-1` may be writable and would be wiped: "),
        "{said}"
    );
    assert!(write.is_err(), "{write:?}");
    assert_eq!(count(second, &machine).await, 0);
}

#[tokio::test]
async fn a_copy_that_differs_is_named() {
    let Some(machine) = Machine::pair("a_copy_that_differs_is_named") else {
        return;
    };
    let (reach, [first, second]) = (&machine.reach, &machine.nodes);
    let client = primary(&machine).await;
    client.batch_execute("INSERT INTO orders VALUES (1, 'needle-in-the-heap'); CREATE TABLE \"Odd name\" AS SELECT 1 AS x").await.unwrap();
    let path: String = client
        .query_one("SELECT pg_relation_filepath('orders')", &[])
        .await
        .unwrap()
        .get(0);
    Postgres.seed(first, second, reach).await.unwrap();
    let healthy = Postgres.verify(first, second, reach).await.unwrap();
    assert_eq!(
        (healthy.tables, healthy.rows, healthy.different.len()),
        (2, 2, 0)
    );

    // A disk that lies: one letter of one row. The checkpoint keeps the replica from writing the page again when it starts.
    let admin = connect::connect(first, "postgres", reach)
        .await
        .ok()
        .unwrap();
    admin.run("CHECKPOINT").await.ok().unwrap();
    let here = Postgres.status(first, reach).await.unwrap().position;
    until("the checkpoint is replayed", async || {
        let there = Postgres.status(second, reach).await.unwrap().position;
        Postgres.bytes_between(&there, &here).unwrap() >= 0
    })
    .await;
    server::stop(second, crate::shell::StopSignal::Int, reach)
        .await
        .unwrap();
    let main = Paths::of(second).main;
    let bin = server::find_binaries(second, None, reach).await.unwrap();
    let off =
        crate::shell::Command::new([&format!("{bin}/pg_checksums"), "--disable", "-D", &main]);
    server::run(second, &off.service_user(), reach)
        .await
        .unwrap();
    let file = format!("{main}/{path}");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes
        .windows(6)
        .position(|window| window == b"needle")
        .unwrap();
    bytes[at] = b'N';
    std::fs::write(&file, bytes).unwrap();
    Postgres.start(second, reach).await.unwrap();
    until("it follows again", async || {
        matches!(
            Postgres.status(second, reach).await.unwrap().link,
            Some(Link::Up { .. })
        )
    })
    .await;
    let broken = Postgres.verify(first, second, reach).await.unwrap();
    assert_eq!(broken.different, ["public.orders"]);
}

#[test]
fn positions_are_compared_by_their_bytes() {
    let between = |ahead: &str, behind: &str| {
        Postgres.bytes_between(&Position(ahead.to_owned()), &Position(behind.to_owned()))
    };
    assert_eq!(between("0/2000000", "0/1FFFFFF"), Some(1));
    assert_eq!(between("1/0", "0/FFFFFFFF"), Some(1));
    assert_eq!(between("0/1", "0/2"), Some(-1));
    assert_eq!(between("0/1", "binlog.1"), None);
    assert_eq!(service_name(&"main".into()), "postgres-main");
}

/// A replica that was restarted while its primary was lost reads what it has before anybody knows how much that is.
#[tokio::test]
async fn a_replica_without_a_primary_says_whether_it_still_replays() {
    let Some(machine) = Machine::pair("a_replica_without_a_primary_says_whether_it_still_replays")
    else {
        return;
    };
    let (reach, [first, second]) = (&machine.reach, &machine.nodes);
    drop(primary(&machine).await);
    Postgres.seed(first, second, reach).await.unwrap();
    machine.shell.crash(&first.host);
    let replays = async || Postgres.status(second, reach).await.unwrap().replaying;
    until("it waits for more", async || !replays().await).await;
    let session = connect::connect(second, connect::OURS, reach).await;
    let session = session.map_err(|failure| failure.fault).unwrap();
    let tell = async |what: &str| {
        let words = format!("SELECT pg_wal_replay_{what}()::text");
        let told = session.rows(&words, &[]).await;
        told.map(drop).map_err(|failure| failure.fault).unwrap()
    };
    tell("pause").await;
    until("it does not get on", replays).await;
    tell("resume").await;
    until("it waits for more again", async || !replays().await).await;
}
