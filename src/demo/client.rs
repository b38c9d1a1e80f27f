//! Clients that write orders all the time through the DNS name, as honest users do: they keep an answer of DNS for
//! its TTL, and repeat an order until it is acknowledged. Their books are the judge of the demo.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::dns::cache::CachingClient;
use crate::error::Fault;
use crate::model::id::HostName;

const REQUEST_LIMIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);
const RESOLVE_LIMIT: Duration = Duration::from_secs(1);

/// An order that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub id: String,
    pub at: Instant,
    pub by: IpAddr,
}

/// What the clients saw.
#[derive(Default)]
pub struct Books {
    pub acknowledged: Vec<Acknowledged>,
    /// Those of a client that asks for the name before every order, as somebody who has just come does.
    pub by_newcomers: Vec<Acknowledged>,
    /// The address and time of every request that was sent, acknowledged or not.
    pub sent: Vec<(Instant, IpAddr)>,
}

impl Books {
    /// The longest time between two acknowledgements that overlaps `from..to`.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let mut last = from;
        let mut longest = Duration::ZERO;
        for acknowledged in self.acknowledged.iter().filter(|a| a.at >= from) {
            longest = longest.max(acknowledged.at.duration_since(last));
            last = acknowledged.at;
            if last > to {
                break;
            }
        }
        longest
    }

    pub fn first_by(&self, address: IpAddr, after: Instant) -> Option<Instant> {
        first(&self.acknowledged, address, after)
    }

    pub fn first_newcomer_by(&self, address: IpAddr, after: Instant) -> Option<Instant> {
        first(&self.by_newcomers, address, after)
    }

    pub fn acknowledged_between(&self, from: Instant, to: Instant) -> Vec<&Acknowledged> {
        self.acknowledged
            .iter()
            .chain(&self.by_newcomers)
            .filter(|a| a.at >= from && a.at < to)
            .collect()
    }

    /// When a client last sent something to an address other than `to`, after `after`.
    pub fn last_elsewhere(&self, to: IpAddr, after: Instant) -> Option<Instant> {
        self.sent
            .iter()
            .rev()
            .find(|(at, by)| *at >= after && *by != to)
            .map(|(at, _)| *at)
    }
}

fn first(orders: &[Acknowledged], by: IpAddr, after: Instant) -> Option<Instant> {
    let first = orders.iter().find(|a| a.at >= after && a.by == by);
    first.map(|a| a.at)
}

pub struct Clients {
    pub books: Arc<Mutex<Books>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// One writer with its own resolver cache.
struct Writer {
    name: usize,
    /// Its cache is emptied before every order.
    newcomer: bool,
    authorities: Vec<SocketAddr>,
    resolver: CachingClient,
    http: reqwest::Client,
    host: HostName,
    port: u16,
    books: Arc<Mutex<Books>>,
    stop: Arc<AtomicBool>,
}

impl Clients {
    /// `count` writers that keep what they were told, and one newcomer.
    pub fn start(
        count: usize,
        authorities: &[SocketAddr],
        host: &HostName,
        port: u16,
    ) -> Result<Clients, Fault> {
        let books = Arc::new(Mutex::new(Books::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for name in 0..=count {
            let http = reqwest::Client::builder()
                .timeout(REQUEST_LIMIT)
                .no_proxy()
                .tls_certs_only([])
                // A dead server's connection is not used again.
                .pool_max_idle_per_host(1)
                .build()
                .map_err(|error| Fault::new("cannot make an HTTP client").because(error))?;
            let writer = Writer {
                name,
                newcomer: name == count,
                authorities: authorities.to_vec(),
                resolver: CachingClient::new(authorities.to_vec(), RESOLVE_LIMIT),
                http,
                host: host.clone(),
                port,
                books: books.clone(),
                stop: stop.clone(),
            };
            tasks.push(tokio::spawn(writer.run()));
        }
        Ok(Clients { books, stop, tasks })
    }

    pub async fn finish(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
    }

    pub fn count(&self) -> usize {
        let books = self.books.lock().expect("no writer panics");
        books.acknowledged.len() + books.by_newcomers.len()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Writer {
    async fn run(mut self) {
        let mut number = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let id = format!("{}-{number}", self.name);
            if self.newcomer {
                self.resolver = CachingClient::new(self.authorities.clone(), RESOLVE_LIMIT);
            }
            if let Some(by) = self.send(&id).await {
                let mut books = self.books.lock().expect("no writer panics");
                let own = match self.newcomer {
                    true => &mut books.by_newcomers,
                    false => &mut books.acknowledged,
                };
                own.push(Acknowledged {
                    id,
                    at: Instant::now(),
                    by,
                });
                number += 1;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The address that acknowledged, if one did.
    async fn send(&self, id: &str) -> Option<IpAddr> {
        let addresses: BTreeSet<IpAddr> = self.resolver.resolve(&self.host).await.ok()?.addresses;
        let address = *addresses.first()?;
        if !self.newcomer {
            let mut books = self.books.lock().expect("no writer panics");
            books.sent.push((Instant::now(), address));
        }
        let url = format!("http://{}/orders", SocketAddr::new(address, self.port));
        let request = self
            .http
            .post(url)
            .header("host", self.host.as_str())
            .body(id.to_owned());
        let response = request.send().await.ok()?;
        (response.status() == reqwest::StatusCode::CREATED).then_some(address)
    }
}

/// The ids of every order that the database has, read through one address.
pub async fn orders_at(address: SocketAddr) -> Result<BTreeSet<String>, Fault> {
    let fault = |error: reqwest::Error| {
        Fault::unavailable(format!("cannot read the orders from {address}")).because(error)
    };
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .no_proxy()
        .tls_certs_only([])
        .build()
        .map_err(fault)?;
    let text = http
        .get(format!("http://{address}/orders"))
        .send()
        .await
        .map_err(fault)?;
    let text = text
        .error_for_status()
        .map_err(fault)?
        .text()
        .await
        .map_err(fault)?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_between_two_acknowledgements() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let by: IpAddr = [127, 0, 0, 1].into();
        let acknowledged = [0, 10, 20, 520, 530]
            .map(|millis| Acknowledged {
                id: millis.to_string(),
                at: at(millis),
                by,
            })
            .to_vec();
        let books = Books {
            acknowledged,
            by_newcomers: Vec::new(),
            sent: vec![(at(5), by), (at(600), [127, 0, 0, 2].into())],
        };
        assert_eq!(
            books.longest_gap(at(0), at(530)),
            Duration::from_millis(500)
        );
        assert_eq!(
            books.longest_gap(at(525), at(530)),
            Duration::from_millis(5)
        );
        assert_eq!(books.first_by(by, at(15)), Some(at(20)));
        assert_eq!(
            books.last_elsewhere([127, 0, 0, 2].into(), at(0)),
            Some(at(5))
        );
        assert_eq!(books.last_elsewhere(by, at(700)), None);
    }
}
