//! The engine against real servers.

mod admission;
mod alone;
mod aside;
mod following;
mod machine;
mod returning;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::{self, Paths};
use super::{Postgres, connect, server};
use crate::db::keys::Keys;
use crate::db::{Divergence, Engine, Link, Node, always};
use crate::error::Trouble;
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
async fn primary<const N: usize>(machine: &Machine<N>) -> Client {
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

async fn count<const N: usize>(node: &Node, machine: &Machine<N>) -> i64 {
    let client = login(node, &machine.reach.keys, PASSWORD).await.unwrap();
    client
        .query_one("SELECT count(*) FROM orders", &[])
        .await
        .unwrap()
        .get(0)
}
