//! A caching stub client that keeps to the rules, as the demo's writer uses it: every record set is kept for its own
//! TTL and no longer, each CNAME of a chain by itself, and "no such name" for the SOA's negative TTL (RFC 2308).
//!
//! It follows CNAMEs among the servers that it was given and asks nobody else.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::ask::DnsAnswer;
use crate::error::Fault;
use crate::model::id::HostName;
use crate::model::record::{RecordSet, RecordType};

use super::ask::ask;
use super::canonical::canonical_host;

/// Questions for one resolution; more is a loop of CNAMEs.
const LINKS_MAX: usize = 16;

/// What `host` resolves to, and until when this cache will say so without asking.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Empty: there is no such name, or it has no address.
    pub addresses: BTreeSet<IpAddr>,
    pub expires: Timestamp,
    pub from_cache: bool,
}

/// The rules without the sockets: time arrives as an argument.
#[derive(Default)]
pub struct Cache {
    entries: HashMap<(HostName, RecordType), Entry>,
}

struct Entry {
    /// `None`: there is no such set.
    set: Option<RecordSet>,
    expires: Timestamp,
}

/// How far the cache alone gets.
#[derive(Debug, PartialEq)]
pub enum Known {
    /// `None`: it is known that there is nothing.
    Here(Option<RecordSet>, Timestamp),
    /// Somebody must be asked about this name; what led to it holds until then.
    Ask(HostName, Timestamp),
    Loop,
}

impl Cache {
    /// Follows `host` as far as unexpired entries lead. The earliest expiry on the way is the chain's.
    pub fn known(&self, host: &HostName, kind: RecordType, now: Timestamp) -> Known {
        let fresh = |host: &HostName, kind| {
            self.entries
                .get(&(host.clone(), kind))
                .filter(|entry| now < entry.expires)
        };
        let mut at = canonical_host(host);
        let mut expires = Timestamp::MAX;
        for _ in 0..LINKS_MAX {
            if let Some(entry) = fresh(&at, kind) {
                return Known::Here(entry.set.clone(), expires.min(entry.expires));
            }
            let link = fresh(&at, RecordType::Cname)
                .and_then(|entry| Some((entry.set.as_ref()?.values.first()?, entry.expires)));
            match link {
                Some((target, until)) => {
                    at = HostName::new(target.as_str());
                    expires = expires.min(until);
                }
                None => return Known::Ask(at, expires),
            }
        }
        Known::Loop
    }

    /// Keeps an answer to a question about `host`. Returns false when it says nothing that can be kept or used.
    pub fn learn(
        &mut self,
        host: &HostName,
        kind: RecordType,
        answer: &DnsAnswer,
        now: Timestamp,
    ) -> bool {
        if answer.code != "NOERROR" && answer.code != "NXDOMAIN" {
            return false;
        }
        let until = |ttl: Duration| now.saturating_add(ttl).unwrap_or(Timestamp::MAX);
        for set in &answer.sets {
            // What the name was before it became, or ceased to be, a CNAME.
            let replaced = match set.kind {
                RecordType::Cname => kind,
                _ => RecordType::Cname,
            };
            self.entries.remove(&(set.host.clone(), replaced));
            self.entries.insert(
                (set.host.clone(), set.kind),
                Entry {
                    set: Some(set.clone()),
                    expires: until(set.ttl.duration()),
                },
            );
        }
        let chain = super::ask::chain(answer, host, kind);
        match (chain.set, answer.negative_ttl) {
            (Some(_), _) => true,
            (None, Some(ttl)) => {
                self.entries.insert(
                    (chain.last, kind),
                    Entry {
                        set: None,
                        expires: until(ttl.duration()),
                    },
                );
                true
            }
            // A chain that leads on: its next link has to be asked for.
            (None, None) => !chain.links.is_empty(),
        }
    }
}

/// Resolves against a fixed list of servers, the first that answers.
pub struct CachingClient {
    servers: Vec<SocketAddr>,
    limit: Duration,
    cache: Mutex<Cache>,
    /// The cache's clock never goes backwards, whatever happens to the machine's.
    started: (Timestamp, Instant),
}

impl CachingClient {
    /// `limit` bounds one question to one server.
    pub fn new(servers: Vec<SocketAddr>, limit: Duration) -> CachingClient {
        CachingClient {
            servers,
            limit,
            cache: Mutex::new(Cache::default()),
            started: (Timestamp::now(), Instant::now()),
        }
    }

    fn now(&self) -> Timestamp {
        let (wall, instant) = self.started;
        wall.saturating_add(instant.elapsed())
            .unwrap_or(Timestamp::MAX)
    }

    /// The IPv4 addresses of `host`.
    pub async fn resolve(&self, host: &HostName) -> Result<Resolved, Fault> {
        self.resolve_kind(host, RecordType::A).await
    }

    pub async fn resolve_kind(&self, host: &HostName, kind: RecordType) -> Result<Resolved, Fault> {
        let mut at = canonical_host(host);
        let mut until = Timestamp::MAX;
        let mut as_of = self.now();
        for asked in 0..=LINKS_MAX {
            let known = self.cache().known(&at, kind, as_of);
            match known {
                Known::Here(set, expires) => {
                    let values = set.map(|set| set.values).unwrap_or_default();
                    return Ok(Resolved {
                        addresses: values.iter().filter_map(|v| v.parse().ok()).collect(),
                        expires: until.min(expires),
                        from_cache: asked == 0,
                    });
                }
                Known::Ask(next, expires) => (at, until) = (next, until.min(expires)),
                Known::Loop => break,
            }
            let answer = self.ask_any(&at, kind).await?;
            let now = self.now();
            if !self.cache().learn(&at, kind, &answer, now) {
                return Err(Fault::unavailable(format!(
                    "`{at} {kind}` was answered with {} and nothing to use",
                    answer.code
                )));
            }
            // With a TTL of 0 an answer may be used once and not kept (RFC 1035 section 3.2.1): it is looked at
            // as of just before it ended.
            as_of = now.saturating_sub(Duration::from_nanos(1)).unwrap_or(now);
        }
        Err(Fault::unavailable(format!(
            "`{host}` was not resolved within {LINKS_MAX} CNAMEs"
        )))
    }

    async fn ask_any(&self, host: &HostName, kind: RecordType) -> Result<DnsAnswer, Fault> {
        let mut fault = Fault::unavailable(format!("there is no server to ask about `{host}`"));
        for server in &self.servers {
            match ask(*server, host, kind, self.limit).await {
                Ok(answer) if answer.code == "NOERROR" || answer.code == "NXDOMAIN" => {
                    return Ok(answer);
                }
                Ok(answer) => {
                    fault = Fault::unavailable(format!(
                        "`{server}` answers {} for `{host} {kind}`",
                        answer.code
                    ));
                }
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().expect("no holder of the cache panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Ttl;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + secs).unwrap()
    }

    fn set(host: &str, kind: RecordType, ttl: u32, value: &str) -> RecordSet {
        RecordSet {
            host: host.into(),
            kind,
            ttl: Ttl(ttl),
            values: [value.to_owned()].into(),
        }
    }

    fn answer(sets: &[RecordSet], negative: Option<u32>) -> DnsAnswer {
        DnsAnswer {
            code: "NOERROR".to_owned(),
            authoritative: true,
            sets: sets.to_vec(),
            negative_ttl: negative.map(Ttl),
        }
    }

    #[test]
    fn each_link_is_kept_for_its_own_ttl() {
        let (www, edge): (HostName, HostName) = ("www".into(), "edge".into());
        let link = set("www", RecordType::Cname, 300, "edge");
        let (old, new) = (
            set("edge", RecordType::A, 60, "127.0.0.1"),
            set("edge", RecordType::A, 60, "127.0.0.2"),
        );
        let mut cache = Cache::default();
        let known = |cache: &Cache, secs| cache.known(&www, RecordType::A, at(secs));
        assert_eq!(known(&cache, 0), Known::Ask(www.clone(), Timestamp::MAX));
        assert!(cache.learn(
            &www,
            RecordType::A,
            &answer(&[link, old.clone()], None),
            at(0)
        ));
        assert_eq!(known(&cache, 59), Known::Here(Some(old), at(60)));
        // The link outlives what it leads to.
        assert_eq!(known(&cache, 60), Known::Ask(edge.clone(), at(300)));
        assert!(cache.learn(
            &edge,
            RecordType::A,
            &answer(std::slice::from_ref(&new), None),
            at(250)
        ));
        assert_eq!(known(&cache, 260), Known::Here(Some(new), at(300)));
        assert_eq!(known(&cache, 300), Known::Ask(www.clone(), Timestamp::MAX));
    }

    #[test]
    fn nothing_is_kept_for_the_negative_ttl() {
        let www = "www".into();
        let link = set("www", RecordType::Cname, 300, "edge");
        let mut cache = Cache::default();
        assert!(cache.learn(&www, RecordType::A, &answer(&[link], Some(5)), at(0)));
        let known = |secs| cache.known(&www, RecordType::A, at(secs));
        assert_eq!(known(4), Known::Here(None, at(5)));
        assert_eq!(known(5), Known::Ask("edge".into(), at(300)));
    }

    #[test]
    fn a_loop_and_a_refusal_are_of_no_use() {
        let www = "www".into();
        let mut cache = Cache::default();
        let link = set("www", RecordType::Cname, 300, "www");
        assert!(cache.learn(&www, RecordType::A, &answer(&[link], None), at(0)));
        assert_eq!(cache.known(&www, RecordType::A, at(1)), Known::Loop);
        let refused = DnsAnswer {
            code: "REFUSED".to_owned(),
            ..answer(&[], None)
        };
        assert!(!cache.learn(&www, RecordType::A, &refused, at(0)));
    }
}
