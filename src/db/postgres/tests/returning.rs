//! An old primary comes back: it follows, is rewound, or is copied anew, and what only it had is kept.

use super::*;
use crate::db::Rejoined;

#[tokio::test]
async fn a_switchover_loses_nothing_and_the_old_primary_follows() {
    let Some(machine) = Machine::pair("a_switchover_loses_nothing_and_the_old_primary_follows")
    else {
        return;
    };
    let (reach, [old, new]) = (&machine.reach, &machine.nodes);
    let client = primary(&machine).await;
    Postgres.seed(old, new, reach).await.unwrap();
    // Writes until it is turned away, and says how many were acknowledged.
    let writer = tokio::spawn(async move {
        let mut id = 0_i64;
        while client
            .execute("INSERT INTO orders VALUES ($1, 'x')", &[&(id + 1)])
            .await
            .is_ok()
        {
            id += 1;
        }
        id
    });
    until("some rows are written", async || {
        count(new, &machine).await > 50
    })
    .await;

    // It cannot be stopped at first, and goes on.
    machine
        .shell
        .stuck
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let stuck = Postgres.stop_clean(old, reach).await.err().unwrap();
    assert!(matches!(stuck, Trouble::NothingChanged(_)), "{stuck}");
    machine
        .shell
        .stuck
        .store(false, std::sync::atomic::Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert_eq!(count(old, &machine).await, written);

    let position = timed("stop cleanly", Postgres.stop_clean(old, reach))
        .await
        .unwrap();
    assert_eq!(Postgres.stop_clean(old, reach).await.unwrap(), position);
    assert_eq!(
        Postgres.write_refused(old, reach).await.unwrap().as_deref(),
        Some("connection refused")
    );
    until("everything is replayed", async || {
        let status = Postgres.status(new, reach).await.unwrap();
        Postgres.bytes_between(&status.position, &position).unwrap() > 0
    })
    .await;
    assert_eq!(
        timed("promote", Postgres.promote(new, reach, &always))
            .await
            .unwrap(),
        3
    );
    assert_eq!(count(new, &machine).await, written);
    assert_eq!(
        Postgres.divergence(old, new, reach).await.unwrap(),
        Divergence::None
    );
    assert_eq!(
        timed("rejoin, followed", Postgres.rejoin(old, new, reach))
            .await
            .unwrap(),
        Rejoined::Followed
    );
    let status = Postgres.status(old, reach).await.unwrap();
    assert_eq!(
        (status.timeline, status.writable, status.followers.len()),
        (3, false, 0)
    );
    let client = login(new, &reach.keys, PASSWORD).await.unwrap();
    client
        .execute("INSERT INTO orders VALUES (-1, 'x')", &[])
        .await
        .unwrap();
    until("the row arrives", async || {
        count(old, &machine).await == written + 1
    })
    .await;
    // Its control file still speaks of the timeline that it came from, and its log has got to a file with a letter.
    for id in 2..12 {
        let row = format!("INSERT INTO orders VALUES (-{id}, 'x')");
        client.batch_execute(&row).await.unwrap();
        let session = connect::connect(new, connect::OURS, reach).await;
        let session = session.map_err(|failure| failure.fault).unwrap();
        let switched = session.run("SELECT pg_switch_wal()").await;
        switched.map_err(|failure| failure.fault).unwrap();
    }
    client
        .batch_execute("INSERT INTO orders VALUES (-12, 'x')")
        .await
        .unwrap();
    until("the log arrives", async || {
        count(old, &machine).await == written + 12
    })
    .await;
    drop(client);
    Postgres.stop_clean(new, reach).await.unwrap();
    let mut status = Postgres.status(old, reach).await.unwrap();
    until("the stream ends", async || {
        status = Postgres.status(old, reach).await.unwrap();
        matches!(status.link, Some(Link::Down { .. }))
    })
    .await;
    assert_eq!(status.timeline, 3);
}

/// The old primary writes on while nobody follows it, crashes, and the other one is opened.
async fn split(machine: &Machine<2>) -> Client {
    let (reach, [old, new]) = (&machine.reach, &machine.nodes);
    let client = primary(machine).await;
    client
        .batch_execute("INSERT INTO orders SELECT n, 'shared' FROM generate_series(1, 500) n")
        .await
        .unwrap();
    Postgres.seed(old, new, reach).await.unwrap();
    until("the rows arrive", async || count(new, machine).await == 500).await;
    Postgres.stop_now(new, reach).await.unwrap();
    client
        .batch_execute("INSERT INTO orders SELECT n, 'lost' FROM generate_series(501, 1500) n")
        .await
        .unwrap();
    machine.shell.crash(&old.host);
    Postgres.start(new, reach).await.unwrap();
    assert_eq!(Postgres.promote(new, reach, &always).await.unwrap(), 3);
    let client = login(new, &reach.keys, PASSWORD).await.unwrap();
    client
        .batch_execute("INSERT INTO orders VALUES (-1, 'new')")
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn an_old_primary_with_log_of_its_own_is_rewound() {
    let Some(machine) = Machine::pair("an_old_primary_with_log_of_its_own_is_rewound") else {
        return;
    };
    let (reach, [old, new]) = (&machine.reach, &machine.nodes);
    split(&machine).await;
    // Stopped, after a crash.
    let divergence = Postgres.divergence(old, new, reach).await.unwrap();
    let Divergence::Diverged { fork, extra } = divergence else {
        panic!("{divergence:?}")
    };
    assert!(extra > 50_000, "{extra}");
    assert!(
        Postgres.status(old, reach).await.is_err(),
        "it is stopped, as before"
    );
    // Started by its supervisor.
    Postgres.start(old, reach).await.unwrap();
    assert_eq!(
        Postgres.divergence(old, new, reach).await.unwrap(),
        Divergence::Diverged { fork, extra }
    );
    assert_eq!(
        timed("rejoin, rewound", Postgres.rejoin(old, new, reach))
            .await
            .unwrap(),
        Rejoined::Rewound
    );
    let status = Postgres.status(old, reach).await.unwrap();
    assert_eq!((status.timeline, status.writable), (3, false));
    assert_eq!(
        status.link,
        Some(Link::Up {
            from: "shop-west-db-1".to_owned()
        })
    );
    until("the same rows", async || count(old, &machine).await == 501).await;
    let verified = Postgres.verify(new, old, reach).await.unwrap();
    assert_eq!((verified.rows, verified.different.len()), (501, 0));
    assert!(
        is_kept_aside(old, b"lost"),
        "what was taken back is kept aside"
    );
    assert_eq!(
        Postgres.divergence(old, new, reach).await.unwrap(),
        Divergence::None
    );

    // And back: the other way round without loss.
    let position = Postgres.stop_clean(new, reach).await.unwrap();
    until("everything is replayed", async || {
        let status = Postgres.status(old, reach).await.unwrap();
        Postgres.bytes_between(&status.position, &position).unwrap() > 0
    })
    .await;
    assert_eq!(Postgres.promote(old, reach, &always).await.unwrap(), 4);
    assert_eq!(
        Postgres.rejoin(new, old, reach).await.unwrap(),
        Rejoined::Followed
    );
    assert_eq!(count(old, &machine).await, 501);
}

/// Whether log that was taken back holds `bytes`.
fn is_kept_aside(node: &Node, bytes: &[u8]) -> bool {
    let folder = format!("{}/evidence", Paths::of(node).base);
    let times = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = times.flat_map(|time| std::fs::read_dir(time.path()).unwrap().flatten());
    let mut contents = files.map(|file| std::fs::read(file.path()).unwrap());
    contents.any(|content| content.windows(bytes.len()).any(|part| part == bytes))
}

/// A primary was opened again after a stop, while the replica, which had all, was opened elsewhere: both call their
/// new timeline by one number, and both forked at one position. Only the bytes of the log differ.
#[tokio::test]
async fn two_timelines_of_one_number_are_told_apart() {
    let Some(machine) = Machine::pair("two_timelines_of_one_number_are_told_apart") else {
        return;
    };
    let (reach, [old, new]) = (&machine.reach, &machine.nodes);
    let client = primary(&machine).await;
    Postgres.seed(old, new, reach).await.unwrap();
    client
        .batch_execute("INSERT INTO orders VALUES (1, 'shared')")
        .await
        .unwrap();
    drop(client);
    let position = Postgres.stop_clean(old, reach).await.unwrap();
    until("everything is replayed", async || {
        let status = Postgres.status(new, reach).await.unwrap();
        Postgres.bytes_between(&status.position, &position).unwrap() >= 0
    })
    .await;
    let fork = Postgres.status(new, reach).await.unwrap().position;
    Postgres.stop_now(new, reach).await.unwrap();
    Postgres.start(old, reach).await.unwrap();
    let ours = Postgres.promote(old, reach, &always).await.unwrap();
    let client = login(old, &reach.keys, PASSWORD).await.unwrap();
    client
        .batch_execute("INSERT INTO orders VALUES (2, 'only on the old one')")
        .await
        .unwrap();
    machine.shell.crash(&old.host);
    Postgres.start(new, reach).await.unwrap();
    assert_eq!(
        Postgres.promote(new, reach, &always).await.unwrap(),
        ours,
        "twins"
    );
    let client = login(new, &reach.keys, PASSWORD).await.unwrap();
    for id in 10..60 {
        let insert = format!("INSERT INTO orders VALUES ({id}, 'only on the new one')");
        client.batch_execute(&insert).await.unwrap();
    }
    let divergence = Postgres.divergence(old, new, reach).await.unwrap();
    let Divergence::Diverged { fork: found, extra } = divergence else {
        panic!("{divergence:?}")
    };
    assert_eq!((found, extra > 0), (fork, true));
    let Rejoined::Reseeded { because } = Postgres.rejoin(old, new, reach).await.unwrap() else {
        panic!("it cannot have come back with what it had")
    };
    assert_eq!(because, format!("`{}` cannot be rewound", old.host.name));
    until("the same rows", async || count(old, &machine).await == 51).await;
    assert!(is_kept_aside(old, b"only on the old one"));
    let verified = Postgres.verify(new, old, reach).await.unwrap();
    assert_eq!((verified.rows, verified.different.len()), (51, 0));
}

#[tokio::test]
async fn an_old_primary_that_cannot_be_rewound_is_copied_anew() {
    let Some(machine) = Machine::pair("an_old_primary_that_cannot_be_rewound_is_copied_anew")
    else {
        return;
    };
    let (reach, [old, new]) = (&machine.reach, &machine.nodes);
    split(&machine).await;
    let main = Paths::of(old).main;
    std::fs::remove_file(format!("{main}/global/pg_control")).unwrap();
    let unknown = Postgres.divergence(old, new, reach).await.unwrap();
    assert!(matches!(unknown, Divergence::Unknown { .. }), "{unknown:?}");
    // What a copy left that was killed.
    std::fs::create_dir_all(format!("{main}.new/base")).unwrap();
    let rejoined = timed("rejoin, reseeded", Postgres.rejoin(old, new, reach)).await;
    let Rejoined::Reseeded { because } = rejoined.unwrap() else {
        panic!("it cannot have come back with what it had")
    };
    assert!(because.contains("pg_controldata"), "{because}");
    // Nobody knows what it had, so it is all still there.
    let (_, kept) = because.split_once("is kept in ").expect("it says where");
    for file in ["PG_VERSION", "pg_wal", "base"] {
        assert!(std::fs::exists(format!("{kept}/{file}")).unwrap(), "{kept}");
    }
    until("the same rows", async || count(old, &machine).await == 501).await;
    assert!(!std::fs::exists(format!("{main}.new")).unwrap());
}
