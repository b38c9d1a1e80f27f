//! Sessions with a node: TLS with a client certificate, short, and everything bounded, on the server's side and on ours
//! (a frozen server keeps no time).

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::db::{Node, Reach};
use crate::error::{Fault, Trouble};
use crate::shell::tunnel::Stream;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A crashed replica that restarts answers again within a second or two, when it has little to replay.
const STARTING_LIMIT: Duration = Duration::from_secs(5);
const STARTING_PAUSE: Duration = Duration::from_millis(50);
/// For the word that ends a session, without which the server's log has an error.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// For one statement, where nothing else is said.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(10);

/// Our own database: the heartbeat is there, and nothing of the application's.
pub(super) const OURS: &str = "postgres";

/// An open session. Dropped, it says goodbye; in the middle of a statement it is cut.
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    /// A statement is under way.
    waits: AtomicBool,
    limit: Duration,
    server: String,
}

/// Why there is no session, or no answer.
pub(super) struct Failure {
    pub fault: Fault,
    pub how: How,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum How {
    /// Nobody listens: the server's machine said so.
    Refused,
    /// The database said no, in its words.
    Said { code: SqlState, message: String },
    /// Anything else: no answer, no TLS, a cut.
    Lost,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        failure.fault
    }
}

impl Failure {
    pub fn code(&self) -> Option<&SqlState> {
        match &self.how {
            How::Said { code, .. } => Some(code),
            _ => None,
        }
    }

    /// For statements that change something: a database that said no did nothing.
    pub fn into_trouble(self) -> Trouble {
        match self.how {
            How::Refused | How::Said { .. } => Trouble::NothingChanged(self.fault),
            How::Lost => Trouble::Unknown(self.fault),
        }
    }
}

fn failure(error: &tokio_postgres::Error, what: String) -> Failure {
    use std::error::Error;
    if let Some(said) = error.as_db_error() {
        return Failure {
            fault: Fault::unavailable(what).because(said.message()),
            how: How::Said {
                code: said.code().clone(),
                message: said.message().to_owned(),
            },
        };
    }
    let source = error.source();
    if let Some(error) = source.and_then(|source| source.downcast_ref::<std::io::Error>()) {
        return unreached(error, what);
    }
    let why = source.map_or_else(|| error.to_string(), |source| source.to_string());
    Failure {
        fault: Fault::unavailable(what).because(why),
        how: How::Lost,
    }
}

fn unreached(error: &std::io::Error, what: String) -> Failure {
    Failure {
        fault: Fault::unavailable(what).because(error),
        how: match error.kind() {
            ErrorKind::ConnectionRefused => How::Refused,
            _ => How::Lost,
        },
    }
}

/// The role that acts here: the controller's, or the agent's on a machine that has only that one.
pub(super) fn acting_role(reach: &Reach) -> &'static str {
    if reach.keys.is_authority() {
        "hafog_admin"
    } else {
        "hafog_agent"
    }
}

/// A session as whoever acts here. A server that is starting up (57P03) gets a moment, where nobody's lease depends
/// on the answer.
pub(super) async fn connect(
    node: &Node,
    database: &str,
    reach: &Reach,
) -> Result<Session, Failure> {
    let patience = match reach.keys.is_authority() {
        true => STARTING_LIMIT,
        false => Duration::ZERO,
    };
    let give_up = Instant::now() + patience;
    loop {
        let role = acting_role(reach);
        match connect_as(node, role, database, STATEMENT_LIMIT, reach).await {
            Err(failure)
                if failure.code() == Some(&SqlState::CANNOT_CONNECT_NOW)
                    && Instant::now() < give_up =>
            {
                tokio::time::sleep(STARTING_PAUSE).await;
            }
            ended => return ended,
        }
    }
}

/// A session whose statements may take `limit` each.
pub(super) async fn connect_for(
    node: &Node,
    database: &str,
    limit: Duration,
    reach: &Reach,
) -> Result<Session, Failure> {
    connect_as(node, acting_role(reach), database, limit, reach).await
}

pub(super) async fn connect_as(
    node: &Node,
    role: &str,
    database: &str,
    limit: Duration,
    reach: &Reach,
) -> Result<Session, Failure> {
    let server = node.host.name.to_string();
    let lost = |fault| Failure {
        fault,
        how: How::Lost,
    };
    let mut tls = MakeRustlsConnect::new(reach.keys.client_config(role).map_err(lost)?);
    let mut config = Config::new();
    config
        .user(role)
        .dbname(database)
        .application_name("hafog")
        .ssl_mode(SslMode::Require)
        .options(format!(
            // What we write is for ourselves: it waits for no other node.
            "-c statement_timeout={} -c lock_timeout=5s -c idle_in_transaction_session_timeout=0 \
             -c synchronous_commit=local",
            limit.as_millis()
        ));
    let what = || format!("cannot log in to PostgreSQL on `{server}`");
    let stream = reach.shell.dial(&node.host, node.database.port).await;
    let stream = stream.map_err(|error| unreached(&error, what()))?;
    let talk = async {
        let address = node.host.address.to_string();
        let tls = MakeTlsConnect::<Stream>::make_tls_connect(&mut tls, &address);
        let tls = tls.map_err(|error| lost(Fault::new(what()).because(error)))?;
        let opened = config.connect_raw(stream, tls).await;
        opened.map_err(|error| failure(&error, what()))
    };
    match tokio::time::timeout(CONNECT_LIMIT, talk).await {
        Ok(Ok((client, connection))) => Ok(Session {
            client,
            driver: tokio::spawn(async move {
                // Its error comes out of the statement that was waiting.
                let _ = connection.await;
            }),
            waits: AtomicBool::new(false),
            limit,
            server,
        }),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(lost(
            Fault::unavailable(what())
                .because(format!("no answer within {} s", CONNECT_LIMIT.as_secs())),
        )),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let driver = self.driver.abort_handle();
        match Handle::try_current() {
            Ok(runtime) if !self.waits.load(Ordering::Relaxed) => {
                runtime.spawn(async move {
                    tokio::time::sleep(GOODBYE_LIMIT).await;
                    driver.abort();
                });
            }
            _ => driver.abort(),
        }
    }
}

impl Session {
    /// The server stops a statement at its limit; we stop waiting a little later, for when it is frozen.
    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let limit = self.limit + CONNECT_LIMIT;
        let what = || format!("PostgreSQL on `{}` did not do as it was told", self.server);
        self.waits.store(true, Ordering::Relaxed);
        let done = tokio::time::timeout(limit, work).await;
        self.waits.store(done.is_err(), Ordering::Relaxed);
        match done {
            Ok(result) => result.map_err(|error| failure(&error, what())),
            Err(_) => Err(Failure {
                fault: Fault::unavailable(what())
                    .because(format!("no answer within {} s", limit.as_secs())),
                how: How::Lost,
            }),
        }
    }

    pub async fn row(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, Failure> {
        self.bounded(self.client.query_one(sql, values)).await
    }

    pub async fn rows(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        self.bounded(self.client.query(sql, values)).await
    }

    /// Several statements, without values.
    pub async fn run(&self, sql: &str) -> Result<(), Failure> {
        self.bounded(self.client.batch_execute(sql)).await
    }

    /// One value of one row.
    pub async fn one<T>(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<T, Failure>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        value(&self.row(sql, values).await?, 0).map_err(|fault| Failure {
            fault,
            how: How::Lost,
        })
    }
}

/// A column, where a wrong type is a fault and no panic.
pub(super) fn value<T>(row: &Row, column: usize) -> Result<T, Fault>
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    row.try_get(column)
        .map_err(|error| Fault::new("PostgreSQL answered something unexpected").because(error))
}
