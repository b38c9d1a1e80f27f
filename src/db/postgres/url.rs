//! What an application's own URL leads to.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Fault;

const LIMIT: Duration = Duration::from_secs(5);

/// Whether it takes writes, over TLS that `ca` vouches for. No fault says the URL, which has a password.
pub(super) fn takes_writes(url: String, ca: PathBuf) -> BoxFuture<'static, Result<bool, Fault>> {
    Box::pin(async move {
        let config = tokio_postgres::Config::from_str(&url);
        let mut config =
            config.map_err(|_| Fault::unavailable("a URL of PostgreSQL cannot be read"))?;
        let place = place(&config);
        let tls = MakeRustlsConnect::new(tls(&ca)?);
        config.ssl_mode(SslMode::Require).application_name("hafog");
        let ask = async {
            let (client, connection) = config.connect(tls).await?;
            let driver = tokio::spawn(connection);
            let row = client
                .query_one("SELECT NOT pg_is_in_recovery()", &[])
                .await;
            let said = row.and_then(|row| row.try_get(0));
            drop(client);
            let _ = driver.await;
            said
        };
        let what = || Fault::unavailable(format!("cannot ask PostgreSQL at {place}"));
        match tokio::time::timeout(LIMIT, ask).await {
            Ok(said) => said.map_err(|error| what().because(why(&error))),
            Err(_) => Err(what().because(format!("no answer within {} s", LIMIT.as_secs()))),
        }
    })
}

fn tls(ca: &Path) -> Result<rustls::ClientConfig, Fault> {
    let cannot = || Fault::unavailable(format!("cannot read `{}`", ca.display()));
    let ca = CertificateDer::from_pem_file(ca).map_err(|error| cannot().because(error))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).map_err(|error| cannot().because(error))?;
    Ok(rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn place(config: &tokio_postgres::Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("{host}:{port}")
}

/// tokio-postgres says what went wrong in the error's source.
fn why(error: &tokio_postgres::Error) -> String {
    use std::error::Error;
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => said.message().to_owned(),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}
