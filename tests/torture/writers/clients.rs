//! Clients that write all the time, straight at both databases and through the DNS name, and the book of what was
//! acknowledged when and by whom. One clock for all, and none of it inside of what is judged.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hafog::demo::client::Clients;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Who is impatient gives up then and connects anew; who is patient waits for as long as a thaw may take.
const IMPATIENT: Duration = Duration::from_secs(1);
const PATIENT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub at: Instant,
    /// When it was sent, where that is known: it was committed between the two.
    pub sent: Option<Instant>,
    /// The site whose database acknowledged.
    pub site: &'static str,
    pub id: String,
}

/// A database as clients know it.
#[derive(Clone)]
pub struct Door {
    pub site: &'static str,
    pub address: IpAddr,
    pub port: u16,
    pub password: String,
    tls: MakeRustlsConnect,
}

impl Door {
    pub fn new(site: &'static str, address: IpAddr, password: &str, ca: &Path) -> Door {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(ca).expect("the authority's certificate is there");
        roots.add(ca).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Door {
            site,
            address,
            port: 5432,
            password: password.to_owned(),
            tls: MakeRustlsConnect::new(tls),
        }
    }

    pub async fn connect(&self) -> Result<Client, String> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.address.to_string())
            .port(self.port)
            .user("shop")
            .dbname("shop")
            .password(&self.password)
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        let connecting = config.connect(self.tls.clone());
        let connected = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
        let connected = connected.map_err(|_| "no session within 1 s".to_owned())?;
        let (client, connection) = connected.map_err(|error| format!("no session: {error:?}"))?;
        tokio::spawn(connection);
        Ok(client)
    }
}

type Book = Arc<Mutex<Vec<Acknowledged>>>;

/// The clients, until they are stopped or dropped.
pub struct Writing {
    runtime: tokio::runtime::Runtime,
    book: Book,
    named: Clients,
    /// Address of each site's balancer.
    balancers: Vec<(&'static str, IpAddr)>,
}

impl Writing {
    pub fn start(
        doors: &[Door],
        balancers: Vec<(&'static str, IpAddr)>,
        authorities: &[SocketAddr],
    ) -> Writing {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let book = Book::default();
        let named = {
            let _inside = runtime.enter();
            for door in doors {
                for (number, limit) in [IMPATIENT, IMPATIENT, PATIENT].into_iter().enumerate() {
                    let name = format!("{}{number}", door.site);
                    tokio::spawn(write(door.clone(), name, limit, book.clone()));
                }
            }
            Clients::start(2, authorities, &"www.shop.test".into(), 8080).expect("clients start")
        };
        Writing {
            runtime,
            book,
            named,
            balancers,
        }
    }

    /// Everything that was acknowledged, oldest first.
    pub fn book(&self) -> Vec<Acknowledged> {
        let mut all = self
            .book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let named = self.named.books.lock().expect("no client panics");
        let site = |by| self.balancers.iter().find(|(_, address)| *address == by);
        all.extend(named.acknowledged.iter().filter_map(|one| {
            Some(Acknowledged {
                at: one.at,
                sent: None,
                site: site(one.by)?.0,
                id: format!("order {}", one.id),
            })
        }));
        all.sort_by_key(|one| one.at);
        all
    }

    /// How many orders were acknowledged through the name.
    pub fn orders(&self) -> usize {
        let named = self.named.books.lock().expect("no client panics");
        named.acknowledged.len()
    }

    /// Every id that the database has, both of the direct clients' and of the orders.
    pub fn held(&self, door: &Door) -> Result<BTreeSet<String>, String> {
        const ALL: &str = "SELECT id FROM written UNION ALL SELECT 'order ' || id FROM orders";
        self.runtime.block_on(async {
            // A busy machine may take longer than a client waits.
            let until = Instant::now() + PATIENT;
            let client = loop {
                match door.connect().await {
                    Ok(client) => break client,
                    Err(why) if Instant::now() >= until => return Err(why),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            };
            let rows = client.query(ALL, &[]).await;
            let rows = rows.map_err(|error| format!("the new primary cannot be read: {error}"))?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
    }
}

/// One transaction after the other, each with a new id: an acknowledgement is the database's, not a repetition's.
async fn write(door: Door, name: String, limit: Duration, book: Book) {
    const INSERT: &str = "INSERT INTO written (id) VALUES ($1)";
    let mut number = 0;
    loop {
        tokio::time::sleep(PAUSE).await;
        let Ok(client) = door.connect().await else {
            continue;
        };
        loop {
            number += 1;
            let id = format!("{name}-{number}");
            let sent = Some(Instant::now());
            let written = tokio::time::timeout(limit, client.execute(INSERT, &[&id])).await;
            let at = Instant::now();
            if !matches!(written, Ok(Ok(1))) {
                break;
            }
            let site = door.site;
            book.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Acknowledged { at, sent, site, id });
            tokio::time::sleep(PAUSE).await;
        }
    }
}

pub fn make_table(door: &Door) -> Result<(), String> {
    const TABLES: &str = "CREATE TABLE IF NOT EXISTS written (id text PRIMARY KEY, at timestamptz DEFAULT now()); \
        CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, at timestamptz NOT NULL)";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let client = door.connect().await?;
        let made = client.batch_execute(TABLES).await;
        made.map_err(|error| format!("no table: {error}"))
    })
}
