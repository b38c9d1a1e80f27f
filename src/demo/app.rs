//! The demo's application: a web shop that takes orders. HTTP in, PostgreSQL out.
//!
//! `GET /`, which needs no database, `GET /healthz`, `POST /orders` with the order's id as the body, `GET /orders`. An
//! order is acknowledged (201) only after its transaction was committed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::exit;
use crate::ui::print::{Colour, Ui};

#[derive(clap::Args, Debug)]
pub struct Args {}

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const QUERY_LIMIT: Duration = Duration::from_secs(2);
const ID_MAX: usize = 200;
const CONNECTIONS: usize = 4;

type Error = Box<dyn std::error::Error + Send + Sync>;

struct App {
    server: String,
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    /// Idle connections.
    pool: Mutex<Vec<Client>>,
}

/// Serves until SIGTERM.
pub fn run(_: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let served = runtime
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) => {
            Ui::new(Colour::Never, false, false, false)
                .say(&format!("the demo's application stopped: {error}"));
            ExitCode::from(exit::ERROR)
        }
    }
}

async fn serve() -> Result<(), Error> {
    let address: SocketAddr =
        format!("{}:{}", variable("HAFOG_ADDRESS")?, variable("PORT")?).parse()?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(variable("PGSSLROOTCERT")?)?)?;
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = tokio_postgres::Config::from_str(&variable("DATABASE_URL")?)?;
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    config.connect_timeout(CONNECT_LIMIT);
    let app = Arc::new(App {
        server: variable("HAFOG_SERVER")?,
        config,
        tls: MakeRustlsConnect::new(tls),
        pool: Mutex::new(Vec::new()),
    });
    let listener = TcpListener::bind(address).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let app = app.clone();
                tokio::spawn(async move {
                    let answer = service_fn(|request| answer(app.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        }
    }
}

fn variable(name: &str) -> Result<String, Error> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

async fn answer(
    app: Arc<App>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let done = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => Ok((StatusCode::OK, format!("a shop, by {}\n", app.server))),
        (&Method::GET, "/healthz") => app
            .health()
            .await
            .map(|()| (StatusCode::OK, "ok\n".to_owned())),
        (&Method::POST, "/orders") => app
            .order(request.into_body())
            .await
            .map(|text| (StatusCode::CREATED, text)),
        (&Method::GET, "/orders") => app.orders().await.map(|text| (StatusCode::OK, text)),
        _ => Ok((StatusCode::NOT_FOUND, "no such page\n".to_owned())),
    };
    let (status, text) =
        done.unwrap_or_else(|error| (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")));
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

impl App {
    /// A connection that works, as far as is known.
    async fn connection(&self) -> Result<Client, Error> {
        while let Some(client) = self.pool.lock().await.pop() {
            if !client.is_closed() {
                return Ok(client);
            }
        }
        let (client, connection) =
            tokio::time::timeout(CONNECT_LIMIT, self.config.connect(self.tls.clone())).await??;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn put_back(&self, client: Client) {
        let mut pool = self.pool.lock().await;
        if pool.len() < CONNECTIONS {
            pool.push(client);
        }
    }

    async fn health(&self) -> Result<(), Error> {
        let client = self.connection().await?;
        tokio::time::timeout(QUERY_LIMIT, client.simple_query("SELECT 1")).await??;
        self.put_back(client).await;
        Ok(())
    }

    async fn order(&self, body: Incoming) -> Result<String, Error> {
        let bytes = Limited::new(body, ID_MAX).collect().await?.to_bytes();
        let id = String::from_utf8(bytes.to_vec())?;
        let client = self.connection().await?;
        let insert = "INSERT INTO orders (id, at) VALUES ($1, now()) ON CONFLICT DO NOTHING";
        let mut done = tokio::time::timeout(QUERY_LIMIT, client.execute(insert, &[&id])).await?;
        if done.as_ref().is_err_and(|error| {
            error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE)
        }) {
            let table =
                "CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, at timestamptz NOT NULL)";
            // Two servers may make it at the same moment; the loser's next order finds it.
            tokio::time::timeout(QUERY_LIMIT, client.batch_execute(table)).await??;
            done = tokio::time::timeout(QUERY_LIMIT, client.execute(insert, &[&id])).await?;
        }
        done?;
        self.put_back(client).await;
        Ok(format!("{id} {}\n", self.server))
    }

    async fn orders(&self) -> Result<String, Error> {
        let client = self.connection().await?;
        let rows =
            tokio::time::timeout(QUERY_LIMIT, client.query("SELECT id FROM orders", &[])).await??;
        self.put_back(client).await;
        Ok(rows
            .iter()
            .map(|row| format!("{}\n", row.get::<_, String>(0)))
            .collect())
    }
}
