//! What only an old primary has is never removed by a copy, and a stop needs nobody's help.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::config::Paths;
use super::super::{Postgres, server};
use super::machine::Machine;
use super::{PASSWORD, count, login, primary, until};
use crate::db::{Contents, Divergence, Engine, Node, Reach, Rejoined, always};
use crate::shell::Command;

/// The first node acknowledges rows that the second never gets, crashes, and the second is opened.
async fn parted(machine: &Machine<2>) -> (&Node, &Node, &Reach) {
    let (reach, [old, new]) = (&machine.reach, &machine.nodes);
    let client = primary(machine).await;
    Postgres.seed(old, new, reach).await.unwrap();
    Postgres.stop_now(new, reach).await.unwrap();
    let rows = "INSERT INTO orders SELECT n, 'acknowledged' FROM generate_series(1, 700) n";
    client.batch_execute(rows).await.unwrap();
    machine.shell.crash(&old.host);
    Postgres.start(new, reach).await.unwrap();
    Postgres.promote(new, reach, &always).await.unwrap();
    let client = login(new, &reach.keys, PASSWORD).await.unwrap();
    let row = "INSERT INTO orders VALUES (-1, 'new')";
    client.batch_execute(row).await.unwrap();
    (old, new, reach)
}

/// The only folder that was set aside.
async fn kept(node: &Node, reach: &Reach) -> String {
    let mut kept = Postgres.kept(node, reach).await.unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    kept.remove(0)
}

/// Rows of `orders` in a data folder that no service knows, read as a person would: a server of one's own.
async fn rows_in(folder: &str, node: &Node, reach: &Reach) -> String {
    let bin = server::find_binaries(node, None, reach).await.unwrap();
    let script = r#"rm -f "$2/standby.signal" "$2/postmaster.pid"
        echo 'COPY (SELECT count(*) FROM orders) TO STDOUT' |
        "$1/postgres" --single -D "$2" -c config_file="$3" "$4""#;
    let script = format!("{script} 2>&1");
    let settings = Paths::of(node).settings();
    let user = &node.database.user;
    let argv = ["sh", "-c", &script, "sh", &bin, folder, &settings, user];
    let command = Command::new(argv).service_user();
    reach.shell.run(&node.host, &command).await.unwrap().stdout
}

#[tokio::test]
async fn a_copy_over_an_old_primary_keeps_what_only_that_has() {
    let test = "a_copy_over_an_old_primary_keeps_what_only_that_has";
    let Some(machine) = Machine::pair(test) else {
        return;
    };
    let (old, new, reach) = parted(&machine).await;
    Postgres.seed(new, old, reach).await.unwrap();
    until("the new one's row", async || {
        count(old, &machine).await == 1
    })
    .await;
    let folder = kept(old, reach).await;
    // Who has nothing of its own leaves nothing.
    Postgres.seed(new, old, reach).await.unwrap();
    assert_eq!(kept(old, reach).await, folder);
    until("the new one's row", async || {
        count(old, &machine).await == 1
    })
    .await;
    Postgres.stop_now(old, reach).await.unwrap();
    let rows = rows_in(&folder, old, reach).await;
    assert!(rows.lines().any(|line| line.ends_with(" 700")), "{rows}");
}

#[tokio::test]
async fn a_copy_that_fails_says_where_the_old_data_are() {
    let test = "a_copy_that_fails_says_where_the_old_data_are";
    let Some(machine) = Machine::pair(test) else {
        return;
    };
    let (old, new, reach) = parted(&machine).await;
    // Nobody can tell what it has.
    let main = Paths::of(old).main;
    std::fs::remove_file(format!("{main}/global/pg_control")).unwrap();
    machine.shell.no_copies.store(true, Ordering::Relaxed);
    let failed = Postgres.rejoin(old, new, reach).await.err().unwrap();
    let folder = kept(old, reach).await;
    let said = format!("what `shop-east-db-1` had is kept in {folder}");
    assert!(failed.to_string().contains(&said), "{failed}");
    machine.shell.no_copies.store(false, Ordering::Relaxed);
    let because = "it had no data".to_owned();
    let again = Postgres.rejoin(old, new, reach).await.unwrap();
    assert_eq!(again, Rejoined::Reseeded { because });
    assert_eq!(kept(old, reach).await, folder);
    assert!(std::fs::exists(format!("{folder}/PG_VERSION")).unwrap());
}

/// A log that breaks off before its end is not a log with less in it.
#[tokio::test]
async fn commits_in_a_log_that_is_damaged_are_unknown() {
    let test = "commits_in_a_log_that_is_damaged_are_unknown";
    let Some(machine) = Machine::pair(test) else {
        return;
    };
    let (old, new, reach) = parted(&machine).await;
    let divergence = Postgres.divergence(old, new, reach).await.unwrap();
    let Divergence::Diverged { fork, .. } = divergence else {
        panic!("{divergence:?}")
    };
    Postgres.start(old, reach).await.unwrap();
    let look = async || -> Contents { Postgres.contents(old, new, &fork, reach).await.unwrap() };
    let whole = look().await;
    assert_eq!(whole.transactions, Some(1), "{whole:?}");
    // One byte of the rows that were written before the commit, on the disk of a node that runs.
    let folder = format!("{}/pg_wal", Paths::of(old).main);
    let mut hit = 0;
    for file in std::fs::read_dir(folder).unwrap().flatten() {
        let Ok(mut bytes) = std::fs::read(file.path()) else {
            continue;
        };
        let found = |part: &[u8]| part == b"acknowledged";
        let Some(at) = bytes.windows(12).position(found) else {
            continue;
        };
        bytes[at] ^= 1;
        std::fs::write(file.path(), bytes).unwrap();
        hit += 1;
    }
    assert!(hit > 0, "the rows are in the log");
    assert_eq!(look().await.transactions, None);
}

#[tokio::test]
async fn a_server_whose_supervisor_is_silent_is_stopped_all_the_same() {
    let test = "a_server_whose_supervisor_is_silent_is_stopped_all_the_same";
    let Some(machine) = Machine::one(test) else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    let client = primary(&machine).await;
    machine.shell.silent.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let stopped = Postgres.stop_now(node, reach);
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(30), stopped).await;
    stopped.expect("it has a limit of its own").unwrap();
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    assert!(Postgres.is_stopped(node, reach).await.unwrap());
    let after = client.batch_execute("INSERT INTO orders VALUES (2, 'after the stop')");
    assert!(after.await.is_err(), "acknowledged after the stop");
}

/// As a firewall does that rejects: nothing listens where we knock, and the database goes on.
#[tokio::test]
async fn a_closed_port_alone_is_no_proof() {
    let Some(machine) = Machine::one("a_closed_port_alone_is_no_proof") else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    let client = primary(&machine).await;
    let mut behind = node.clone();
    behind.database.port = 1;
    let fault = Postgres.write_refused(&behind, reach).await.err().unwrap();
    assert!(fault.to_string().contains("still shows"), "{fault}");
    let row = "INSERT INTO orders VALUES (1, 'it writes')";
    client.batch_execute(row).await.unwrap();
    Postgres.stop_now(node, reach).await.unwrap();
    let refused = Postgres.write_refused(&behind, reach).await.unwrap();
    assert_eq!(refused.as_deref(), Some("connection refused"));
}
