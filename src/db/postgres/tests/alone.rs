//! One server: made closed, opened, started and stopped, and what it says about itself.

use super::super::config::Paths;
use super::*;
use crate::db::NodeRole;
use crate::error::Fault;
use crate::shell::Command;

#[tokio::test]
async fn a_new_database_is_closed_until_it_is_opened() {
    let Some(machine) = Machine::one("a_new_database_is_closed_until_it_is_opened") else {
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

/// The supervisor says that nothing runs, and all of it does.
#[tokio::test]
async fn a_server_that_its_supervisor_lost_is_stopped_all_the_same() {
    let Some(machine) = Machine::one("a_server_that_its_supervisor_lost_is_stopped_all_the_same")
    else {
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

/// What it writes into `postmaster.pid` outlives it, and ids are given out again, soonest after a boot.
#[tokio::test]
async fn a_server_that_crashed_starts_though_its_process_id_is_somebody_elses_by_now() {
    let name = "a_server_that_crashed_starts_though_its_process_id_is_somebody_elses_by_now";
    let Some(machine) = Machine::one(name) else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    Postgres.create(node, Some(PASSWORD), reach).await.unwrap();
    machine.shell.crash(&node.host);
    let script = "sleep 600 >/dev/null 2>&1 & echo $!; sed -i \"1s/.*/$!/\" \"$1/postmaster.pid\"";
    let main = Paths::of(node).main;
    let took = Command::new(["sh", "-euc", script, "sh", &main]).service_user();
    let took = reach.shell.run(&node.host, &took).await.unwrap();
    assert_eq!(took.code, 0, "{took:?}");
    let started = Postgres.start(node, reach).await;
    let end = Command::new(["kill", took.stdout.trim()]).service_user();
    assert_eq!(reach.shell.run(&node.host, &end).await.unwrap().code, 0);
    started.unwrap();
}

#[tokio::test]
async fn a_read_only_setting_is_no_proof() {
    let Some(machine) = Machine::one("a_read_only_setting_is_no_proof") else {
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

/// An agent may fence by what it saw before the start.
#[tokio::test]
async fn a_server_that_is_stopped_while_it_starts_is_started_once_more() {
    let Some(machine) =
        Machine::one("a_server_that_is_stopped_while_it_starts_is_started_once_more")
    else {
        return;
    };
    let (reach, node) = (&machine.reach, &machine.nodes[0]);
    Postgres.create(node, Some(PASSWORD), reach).await.unwrap();
    Postgres.stop_now(node, reach).await.unwrap();
    let started = Postgres.start(node, reach);
    let fenced = async {
        while config::is_running(node, reach).await.unwrap() != Some(true) {
            tokio::task::yield_now().await;
        }
        Postgres.stop_now(node, reach).await.unwrap();
    };
    let (started, ()) = tokio::join!(started, fenced);
    started.unwrap();
}

#[tokio::test]
async fn a_server_without_postgresql_is_told_what_to_install() {
    let Some(machine) = Machine::one("a_server_without_postgresql") else {
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

/// A command that was killed leaves an `initdb` behind that goes on writing.
#[tokio::test]
async fn a_creation_ends_what_an_earlier_one_left_at_work() {
    let test = "a_creation_ends_what_an_earlier_one_left_at_work";
    let Some(machine) = Machine::one(test) else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    let fresh = Paths::of(node).fresh;
    let alive = format!("{}/alive", node.host.dirs.data);
    std::fs::create_dir_all(&node.host.dirs.data).unwrap();
    std::fs::write(&alive, "").unwrap();
    // It has the name of what makes databases, and makes the folder again for as long as it lives (and the test does), which
    // no removal outruns. All of it is one process: a child would outlive it for a moment.
    let orphan = r#"
        open my $name, ">", "/proc/self/comm"; print $name "initdb"; close $name;
        my $folder = substr $ARGV[0], length "--pgdata=";
        while (-e $ARGV[1]) { mkdir $folder; mkdir "$folder/base"; open my $late, ">", "$folder/base/late" }"#;
    let script = r#"mkdir -p "$2"; perl -e "$1" -- "--pgdata=$2" "$3" > /dev/null 2>&1 &
        until [ -e "$2/base/late" ]; do sleep 0.01; done; echo $!"#;
    let begun = Command::new(["sh", "-c", script, "sh", orphan, &fresh, &alive]).service_user();
    let begun = reach.shell.run(&node.host, &begun).await.unwrap();
    let process = format!("/proc/{}/cmdline", begun.stdout.trim());
    assert!(
        std::fs::read_to_string(&process)
            .unwrap()
            .contains("--pgdata=")
    );
    Postgres.create(node, Some(PASSWORD), reach).await.unwrap();
    assert!(Postgres.has_data(node, reach).await.unwrap());
    let left = std::fs::read_to_string(&process).unwrap_or_default();
    assert!(!left.contains("--pgdata="), "{left}");
    assert!(!std::fs::exists(fresh).unwrap());
}
