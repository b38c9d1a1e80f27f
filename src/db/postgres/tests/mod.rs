//! The engine against real servers.

mod aside;
mod machine;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Postgres, server, service_name};
use crate::db::keys::Keys;
use crate::db::{Divergence, Engine, Link, Node, NodeRole, Position, Rejoined, always};
use crate::error::{Fault, Trouble};
use machine::Machine;

const PASSWORD: &str = "correct horse";

/// A login of the application: TLS without a certificate of its own, and a password.
async fn login(node: &Node, keys: &Keys, password: &str) -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    roots
        .add(CertificateDer::from_pem_slice(keys.ca_pem().unwrap().as_bytes()).unwrap())
        .unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (client, connection) = application(node, password)
        .ssl_mode(SslMode::Require)
        .connect(MakeRustlsConnect::new(tls))
        .await
        .map_err(|error| explain(&error))?;
    tokio::spawn(connection);
    Ok(client)
}

fn application(node: &Node, password: &str) -> Config {
    let mut config = Config::new();
    config
        .host(node.host.address.to_string())
        .port(node.database.port)
        .user("shop")
        .dbname("shop")
        .password(password)
        .connect_timeout(Duration::from_secs(5));
    config
}

fn explain(error: &tokio_postgres::Error) -> String {
    use std::error::Error;
    match error.as_db_error() {
        Some(said) => said.message().to_owned(),
        None => error
            .source()
            .map_or_else(|| error.to_string(), |source| source.to_string()),
    }
}

#[expect(clippy::print_stderr, reason = "measured times are read by people")]
async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let result = work.await;
    eprintln!("{what}: {:.2} s", began.elapsed().as_secs_f64());
    result
}

/// Polls until it is true, for at most 20 s.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !is().await {
        assert!(Instant::now() < limit, "{what}: not after 20 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A created and opened primary with one table.
async fn primary(machine: &Machine) -> Client {
    let node = &machine.nodes[0];
    Postgres
        .create(node, Some(PASSWORD), &machine.reach)
        .await
        .unwrap();
    Postgres
        .promote(node, &machine.reach, &always)
        .await
        .unwrap();
    let client = login(node, &machine.reach.keys, PASSWORD).await.unwrap();
    client
        .batch_execute("CREATE TABLE orders (id bigint PRIMARY KEY, what text)")
        .await
        .unwrap();
    client
}

async fn count(node: &Node, machine: &Machine) -> i64 {
    let client = login(node, &machine.reach.keys, PASSWORD).await.unwrap();
    client
        .query_one("SELECT count(*) FROM orders", &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn a_new_database_is_closed_until_it_is_opened() {
    let Some(machine) = Machine::with(
        "a_new_database_is_closed_until_it_is_opened",
        &["shop-east-db-1"],
    ) else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    assert!(!Postgres.has_data(node, reach).await.unwrap());
    timed("create", Postgres.create(node, Some(PASSWORD), reach))
        .await
        .unwrap();
    assert!(Postgres.has_data(node, reach).await.unwrap());
    let status = Postgres.status(node, reach).await.unwrap();
    assert_eq!(
        (status.role, status.writable, status.timeline),
        (NodeRole::Replica, false, 1)
    );
    assert_eq!(
        status.link,
        Some(Link::Down {
            why: "it follows nobody".to_owned()
        })
    );
    let refused = Postgres.write_refused(node, reach).await.unwrap();
    assert_eq!(
        refused.as_deref(),
        Some("cannot execute INSERT in a read-only transaction")
    );

    let never = || Err(Fault::new("frozen meanwhile"));
    let opened = Postgres.promote(node, reach, &never).await;
    assert!(matches!(opened, Err(Trouble::NothingChanged(_))));
    assert!(!Postgres.status(node, reach).await.unwrap().writable);

    assert_eq!(
        timed("promote", Postgres.promote(node, reach, &always))
            .await
            .unwrap(),
        2
    );
    assert_eq!(Postgres.promote(node, reach, &always).await.unwrap(), 2);
    let status = Postgres.status(node, reach).await.unwrap();
    assert_eq!(
        (status.role, status.writable, status.timeline),
        (NodeRole::Primary, true, 2)
    );
    assert_eq!(Postgres.write_refused(node, reach).await.unwrap(), None);

    // Again, with another password.
    login(node, &reach.keys, PASSWORD).await.unwrap();
    Postgres.create(node, Some("other"), reach).await.unwrap();
    let wrong = login(node, &reach.keys, PASSWORD).await.err().unwrap();
    assert_eq!(wrong, "password authentication failed for user \"shop\"");
    login(node, &reach.keys, "other").await.unwrap();

    machine.shell.crash(&node.host);
    let refused = Postgres.write_refused(node, reach).await.unwrap();
    assert_eq!(refused.as_deref(), Some("connection refused"));
    timed("start after a crash", Postgres.start(node, reach))
        .await
        .unwrap();
    assert!(!Postgres.status(node, reach).await.unwrap().writable);

    // The agent opens it again, with its own key only.
    assert_eq!(
        Postgres
            .promote(node, &machine.agent(), &always)
            .await
            .unwrap(),
        3
    );
    assert_eq!(
        Postgres
            .write_refused(node, &machine.agent())
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn only_known_roles_get_in_and_only_over_tls() {
    let Some(machine) = Machine::with(
        "only_known_roles_get_in_and_only_over_tls",
        &["shop-east-db-1"],
    ) else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    Postgres.create(node, None, reach).await.unwrap();
    Postgres.promote(node, reach, &always).await.unwrap();

    let plain = application(node, PASSWORD)
        .ssl_mode(SslMode::Disable)
        .connect(NoTls)
        .await;
    let plain = explain(&plain.err().unwrap());
    assert!(
        plain.starts_with("pg_hba.conf rejects connection") && plain.ends_with("no encryption"),
        "{plain}"
    );
    let mut admin = application(node, PASSWORD);
    let admin = admin
        .user("hafog_admin")
        .dbname("postgres")
        .ssl_mode(SslMode::Disable)
        .connect(NoTls)
        .await;
    let admin = explain(&admin.err().unwrap());
    assert!(
        admin.starts_with("pg_hba.conf rejects connection"),
        "{admin}"
    );
    // Without a password there is no password that fits.
    let empty = login(node, &reach.keys, "").await.err().unwrap();
    assert!(empty.contains("password"), "{empty}");

    // Another authority's certificate opens nothing, on neither side.
    let folder = tempfile::tempdir().unwrap();
    let stranger = Arc::new(Keys::open(folder.path()).unwrap());
    let strange = crate::db::Reach {
        shell: machine.shell.clone(),
        keys: stranger.clone(),
    };
    let fault = Postgres.status(node, &strange).await.err().unwrap();
    assert!(
        fault.to_string().contains("invalid peer certificate"),
        "{fault}"
    );
    let pair = stranger.client("hafog_admin").unwrap();
    let mixed = Keys::of_role("hafog_agent", reach.keys.ca_pem().unwrap(), pair);
    let mixed = crate::db::Reach {
        shell: machine.shell.clone(),
        keys: Arc::new(mixed),
    };
    let fault = Postgres.status(node, &mixed).await.err().unwrap();
    assert!(
        fault
            .to_string()
            .starts_with("cannot log in to PostgreSQL on `shop-east-db-1`"),
        "{fault}"
    );

    // A certificate is good for its own name only.
    let pair = reach.keys.client("hafog_probe").unwrap();
    let posing = Keys::of_role("hafog_agent", reach.keys.ca_pem().unwrap(), pair);
    let posing = crate::db::Reach {
        shell: machine.shell.clone(),
        keys: Arc::new(posing),
    };
    let fault = Postgres.status(node, &posing).await.err().unwrap();
    assert_eq!(
        fault.to_string(),
        "cannot log in to PostgreSQL on `shop-east-db-1`: certificate authentication failed for user \"hafog_agent\""
    );
}

#[tokio::test]
async fn a_replica_follows_another_replica_and_has_what_the_primary_has() {
    let test = "a_replica_follows_another_replica_and_has_what_the_primary_has";
    let Some(machine) = Machine::with(
        test,
        &["shop-east-db-1", "shop-west-db-1", "shop-west-db-2"],
    ) else {
        return;
    };
    let reach = &machine.reach;
    let [first, second, third] = &machine.nodes[..] else {
        panic!("three")
    };
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
    let Some(machine) = Machine::with(
        "a_writable_node_is_never_overwritten",
        &["shop-east-db-1", "shop-west-db-1"],
    ) else {
        return;
    };
    let (reach, [first, second]) = (&machine.reach, &machine.nodes[..]) else {
        panic!("two")
    };
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
async fn a_switchover_loses_nothing_and_the_old_primary_follows() {
    let test = "a_switchover_loses_nothing_and_the_old_primary_follows";
    let Some(machine) = Machine::with(test, &["shop-east-db-1", "shop-west-db-1"]) else {
        return;
    };
    let (reach, [old, new]) = (&machine.reach, &machine.nodes[..]) else {
        panic!("two")
    };
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
}

/// The old primary writes on while nobody follows it, crashes, and the other one is opened.
async fn split(machine: &Machine) -> Client {
    let (reach, [old, new]) = (&machine.reach, &machine.nodes[..]) else {
        panic!("two")
    };
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
    let test = "an_old_primary_with_log_of_its_own_is_rewound";
    let Some(machine) = Machine::with(test, &["shop-east-db-1", "shop-west-db-1"]) else {
        return;
    };
    let (reach, [old, new]) = (&machine.reach, &machine.nodes[..]) else {
        panic!("two")
    };
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
    let folder = format!("{}/evidence", super::Paths::of(node).base);
    let times = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = times.flat_map(|time| std::fs::read_dir(time.path()).unwrap().flatten());
    let mut contents = files.map(|file| std::fs::read(file.path()).unwrap());
    contents.any(|content| content.windows(bytes.len()).any(|part| part == bytes))
}

/// The supervisor says that nothing runs, and all of it does.
#[tokio::test]
async fn a_server_that_its_supervisor_lost_is_stopped_all_the_same() {
    let name = "a_server_that_its_supervisor_lost_is_stopped_all_the_same";
    let Some(machine) = Machine::with(name, &["shop-east-db-1"]) else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    let client = primary(&machine).await;
    machine.shell.lose(&node.host);
    let services = reach.shell.services(&node.host).await.unwrap();
    assert!(services.iter().all(|service| !service.running));
    assert!(!Postgres.is_stopped(node, reach).await.unwrap());
    client
        .batch_execute("INSERT INTO orders VALUES (1, 'it writes')")
        .await
        .unwrap();
    Postgres.stop_now(node, reach).await.unwrap();
    assert!(Postgres.is_stopped(node, reach).await.unwrap());
    let after = client.batch_execute("INSERT INTO orders VALUES (2, 'after the stop')");
    assert!(after.await.is_err(), "acknowledged after the stop");
    assert_eq!(
        Postgres
            .write_refused(node, reach)
            .await
            .unwrap()
            .as_deref(),
        Some("connection refused")
    );
}

#[tokio::test]
async fn a_read_only_setting_is_no_proof() {
    let Some(machine) = Machine::with("a_read_only_setting_is_no_proof", &["shop-east-db-1"])
    else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    let client = primary(&machine).await;
    assert_eq!(Postgres.write_refused(node, reach).await.unwrap(), None);
    let name = &node.database.user;
    let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    client.batch_execute(&sql).await.unwrap();
    assert!(Postgres.write_refused(node, reach).await.is_err());
    let through = "BEGIN READ WRITE; INSERT INTO orders VALUES (1, 'through'); COMMIT";
    login(node, &reach.keys, PASSWORD)
        .await
        .unwrap()
        .batch_execute(through)
        .await
        .unwrap();
}

/// A primary was opened again after a stop, while the replica, which had all, was opened elsewhere: both call their
/// new timeline by one number, and both forked at one position. Only the bytes of the log differ.
#[tokio::test]
async fn two_timelines_of_one_number_are_told_apart() {
    let test = "two_timelines_of_one_number_are_told_apart";
    let Some(machine) = Machine::with(test, &["shop-east-db-1", "shop-west-db-1"]) else {
        return;
    };
    let (reach, [old, new]) = (&machine.reach, &machine.nodes[..]) else {
        panic!("two")
    };
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

/// An agent may fence by what it saw before the start.
#[tokio::test]
async fn a_server_that_is_stopped_while_it_starts_is_started_once_more() {
    let test = "a_server_that_is_stopped_while_it_starts_is_started_once_more";
    let Some(machine) = Machine::with(test, &["shop-east-db-1"]) else {
        return;
    };
    let (reach, node) = (&machine.reach, &machine.nodes[0]);
    Postgres.create(node, Some(PASSWORD), reach).await.unwrap();
    Postgres.stop_now(node, reach).await.unwrap();
    let started = Postgres.start(node, reach);
    let fenced = async {
        while super::config::is_running(node, reach).await.unwrap() != Some(true) {
            tokio::task::yield_now().await;
        }
        Postgres.stop_now(node, reach).await.unwrap();
    };
    let (started, ()) = tokio::join!(started, fenced);
    started.unwrap();
}

#[tokio::test]
async fn an_old_primary_that_cannot_be_rewound_is_copied_anew() {
    let test = "an_old_primary_that_cannot_be_rewound_is_copied_anew";
    let Some(machine) = Machine::with(test, &["shop-east-db-1", "shop-west-db-1"]) else {
        return;
    };
    let (reach, [old, new]) = (&machine.reach, &machine.nodes[..]) else {
        panic!("two")
    };
    split(&machine).await;
    let main = super::Paths::of(old).main;
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

#[tokio::test]
async fn a_copy_that_differs_is_named() {
    let Some(machine) = Machine::with(
        "a_copy_that_differs_is_named",
        &["shop-east-db-1", "shop-west-db-1"],
    ) else {
        return;
    };
    let (reach, [first, second]) = (&machine.reach, &machine.nodes[..]) else {
        panic!("two")
    };
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
    let admin = super::connect::connect(first, "postgres", reach)
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
    let main = super::Paths::of(second).main;
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

#[tokio::test]
async fn new_peers_are_let_in_and_a_barred_node_stays_barred() {
    let Some(machine) = Machine::with("new_peers_are_let_in", &["shop-east-db-1"]) else {
        return;
    };
    let (reach, mut node) = (&machine.reach, machine.nodes[0].clone());
    primary(&machine).await;
    let rules = async || -> i64 {
        let session = super::connect::connect(&node, "postgres", reach)
            .await
            .ok()
            .unwrap();
        let rules =
            "SELECT count(*) FROM pg_hba_file_rules WHERE address = '192.0.2.7' AND error IS NULL";
        session.one(rules, &[]).await.ok().unwrap()
    };
    assert_eq!(rules().await, 0);
    let mut wider = node.clone();
    wider.peers.push("192.0.2.7".parse().unwrap());
    Postgres.admit(&wider, reach).await.unwrap();
    Postgres.admit(&wider, reach).await.unwrap();
    assert_eq!(rules().await, 6);

    super::config::put_hba(&wider, super::config::Door::Barred, reach)
        .await
        .unwrap();
    server::reload(&wider, reach).await.unwrap();
    let barred = login(&wider, &reach.keys, PASSWORD).await.err().unwrap();
    assert!(
        barred.starts_with("pg_hba.conf rejects connection"),
        "{barred}"
    );
    let refused = Postgres
        .write_refused(&wider, reach)
        .await
        .unwrap()
        .unwrap();
    assert!(
        refused.starts_with("pg_hba.conf rejects connection"),
        "{refused}"
    );
    node.peers.clear();
    Postgres.admit(&node, reach).await.unwrap();
    assert!(login(&node, &reach.keys, PASSWORD).await.is_err());
    // The agent, which is barred as well, opens it.
    Postgres
        .promote(&node, &machine.agent(), &always)
        .await
        .unwrap();
    login(&node, &reach.keys, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_brought_to_a_running_server() {
    let Some(machine) = Machine::with(
        "a_renewed_certificate_is_brought_to_a_running_server",
        &["shop-east-db-1"],
    ) else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    Postgres.admit(node, reach).await.unwrap();
    assert!(
        !std::fs::exists(super::Paths::of(node).base).unwrap(),
        "nothing is there to be let into"
    );
    Postgres.create(node, None, reach).await.unwrap();
    let served =
        || std::fs::read_to_string(format!("{}/server.crt", super::Paths::of(node).conf)).unwrap();
    let first = served();
    std::fs::remove_file(machine.keys().join("server-shop-east-db-1.json")).unwrap();
    Postgres.admit(node, reach).await.unwrap();
    assert!(served() == reach.keys.server(&node.host).unwrap().cert_pem && served() != first);
    assert!(!Postgres.status(node, reach).await.unwrap().writable);
}

#[tokio::test]
async fn a_server_without_postgresql_is_told_what_to_install() {
    let Some(machine) = Machine::with("a_server_without_postgresql", &["shop-east-db-1"]) else {
        return;
    };
    machine
        .shell
        .bare
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let trouble = Postgres
        .create(&machine.nodes[0], None, &machine.reach)
        .await
        .err()
        .unwrap();
    assert_eq!(
        trouble.to_string(),
        "PostgreSQL is not installed on `shop-east-db-1` (nothing changed)"
    );
    assert_eq!(trouble.fault().hints(), ["apt-get install postgresql"]);
    assert!(
        !Postgres
            .has_data(&machine.nodes[0], &machine.reach)
            .await
            .unwrap()
    );
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
