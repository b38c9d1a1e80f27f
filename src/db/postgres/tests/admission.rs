//! Who gets in: roles, certificates, peers, and a server that is barred.

use tokio_postgres::NoTls;

use super::*;

#[tokio::test]
async fn only_known_roles_get_in_and_only_over_tls() {
    let Some(machine) = Machine::one("only_known_roles_get_in_and_only_over_tls") else {
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
    let strange = machine.with_keys(stranger.clone());
    let fault = Postgres.status(node, &strange).await.err().unwrap();
    assert!(
        fault.to_string().contains("invalid peer certificate"),
        "{fault}"
    );
    let pair = stranger.client("hafog_admin").unwrap();
    let mixed = Keys::of_role("hafog_agent", reach.keys.ca_pem().unwrap(), pair);
    let mixed = machine.with_keys(Arc::new(mixed));
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
    let posing = machine.with_keys(Arc::new(posing));
    let fault = Postgres.status(node, &posing).await.err().unwrap();
    assert_eq!(
        fault.to_string(),
        "cannot log in to PostgreSQL on `shop-east-db-1`: certificate authentication failed for user \"hafog_agent\""
    );
}

#[tokio::test]
async fn new_peers_are_let_in_and_a_barred_node_stays_barred() {
    let Some(machine) = Machine::one("new_peers_are_let_in") else {
        return;
    };
    let (reach, mut node) = (&machine.reach, machine.nodes[0].clone());
    primary(&machine).await;
    let rules = async || -> i64 {
        let session = connect::connect(&node, "postgres", reach)
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
    // Nobody could say where that one is.
    let mut shorter = node.clone();
    shorter.lacks_peers = true;
    Postgres.admit(&shorter, reach).await.unwrap();
    assert_eq!(rules().await, 6);

    config::put_hba(&wider, config::Door::Barred, reach)
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
    let Some(machine) = Machine::one("a_renewed_certificate_is_brought_to_a_running_server") else {
        return;
    };
    let (node, reach) = (&machine.nodes[0], &machine.reach);
    Postgres.admit(node, reach).await.unwrap();
    assert!(
        !std::fs::exists(Paths::of(node).base).unwrap(),
        "nothing is there to be let into"
    );
    Postgres.create(node, None, reach).await.unwrap();
    let served =
        || std::fs::read_to_string(format!("{}/server.crt", Paths::of(node).conf)).unwrap();
    let first = served();
    std::fs::remove_file(machine.keys().join("server-shop-east-db-1.json")).unwrap();
    Postgres.admit(node, reach).await.unwrap();
    assert!(served() == reach.keys.server(&node.host).unwrap().cert_pem && served() != first);
    assert!(!Postgres.status(node, reach).await.unwrap().writable);
}
