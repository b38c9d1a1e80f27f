//! The TTL clock: when does a change of DNS take effect everywhere?
//!
//! A cache that keeps to the rules may answer with a version of a record set for the set's TTL after an authority
//! last gave it out. A name is resolved link by link, and each link is cached by itself; so [`effective_at`] looks at
//! every version of every CNAME on the way and of every set that one of them ever led to. Caches that overrule TTLs
//! are not covered.
//!
//! Everything here is a pure function of [`Published`], the history. A version with no values means that there was no
//! such set, and its TTL is the negative TTL (RFC 2308): "no such name" is cached like any other answer.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::id::HostName;
use crate::model::record::{RecordSet, RecordType};
use crate::model::roles::{Published, TtlLease, Version};
use crate::model::units::Ttl;

use super::RecordChange;

/// What the clock has to know besides the history.
#[derive(Clone, Copy, Debug)]
pub struct Caching {
    /// How long "no such name" may be cached: the SOA's. `None`: names that the history begins with existed before.
    pub negative: Option<Ttl>,
    /// How much later than the history says an old answer may still reach a cache: authorities that follow one
    /// another, and the journey of a datagram.
    pub spread: Duration,
}

/// The instant after which no honest cache can hold an answer that leads anywhere but to the current one.
///
/// `None`: nothing was ever different. `Timestamp::MAX`: an old version is not known to be gone (a write that was
/// begun and neither confirmed nor withdrawn). Caches count whole seconds, so the instant is up to one second later
/// than exact arithmetic gives, and never earlier.
pub fn effective_at(
    history: &Published,
    host: &HostName,
    kind: RecordType,
    caching: Caching,
) -> Option<Timestamp> {
    let look = Look {
        history,
        kind,
        caching,
    };
    let current = look.leads(host, &mut Vec::new());
    look.astray(host, &current, &mut Vec::new())
        .into_iter()
        .map(|span| span.end)
        .max()
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq)]
enum Leads {
    Values(BTreeSet<String>),
    /// To a name that the history knows nothing about.
    Outside(HostName),
    Nowhere,
}

/// Half open: a cache may hold it from `start` until just before `end`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    start: Timestamp,
    end: Timestamp,
}

impl Span {
    const ALWAYS: Span = Span {
        start: Timestamp::MIN,
        end: Timestamp::MAX,
    };

    fn and(self, other: Span) -> Option<Span> {
        let both = Span {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (both.start < both.end).then_some(both)
    }
}

struct Look<'a> {
    history: &'a Published,
    kind: RecordType,
    caching: Caching,
}

impl<'a> Look<'a> {
    /// The versions that decide where `host` leads: the wanted sets, and CNAMEs.
    fn versions(&self, host: &HostName) -> Vec<&'a Version> {
        let decides = |version: &&Version| {
            &version.set.host == host
                && (version.set.kind == self.kind || version.set.kind == RecordType::Cname)
        };
        self.history.versions.iter().filter(decides).collect()
    }

    fn next(&self, set: &RecordSet) -> Option<HostName> {
        if set.kind != RecordType::Cname || self.kind == RecordType::Cname {
            return None;
        }
        set.values
            .first()
            .map(|target| HostName::new(target.as_str()))
    }

    fn leads(&self, host: &HostName, path: &mut Vec<HostName>) -> Leads {
        if path.contains(host) {
            return Leads::Nowhere;
        }
        let versions = self.versions(host);
        if versions.is_empty() {
            return Leads::Outside(host.clone());
        }
        let Some(current) = versions.iter().rev().find(|version| version.to.is_none()) else {
            return Leads::Nowhere;
        };
        match self.next(&current.set) {
            Some(target) => {
                path.push(host.clone());
                let leads = self.leads(&target, path);
                path.pop();
                leads
            }
            None => leads_itself(&current.set),
        }
    }

    /// When a resolution of `host` through some cache may end elsewhere than at `current`.
    fn astray(&self, host: &HostName, current: &Leads, path: &mut Vec<HostName>) -> Vec<Span> {
        let always_if = |astray: bool| if astray { vec![Span::ALWAYS] } else { vec![] };
        if path.contains(host) {
            return always_if(current != &Leads::Nowhere);
        }
        let versions = self.versions(host);
        if versions.is_empty() {
            return always_if(current != &Leads::Outside(host.clone()));
        }
        let mut spans = Vec::new();
        for version in &versions {
            let held = self.held(version);
            let beyond = match self.next(&version.set) {
                Some(target) => {
                    path.push(host.clone());
                    let beyond = self.astray(&target, current, path);
                    path.pop();
                    beyond
                }
                None => always_if(current != &leads_itself(&version.set)),
            };
            spans.extend(beyond.into_iter().filter_map(|span| span.and(held)));
        }
        if current != &Leads::Nowhere {
            spans.extend(self.gaps(&versions));
        }
        spans
    }

    /// While a version may be in a cache.
    fn held(&self, version: &Version) -> Span {
        Span {
            start: version.from,
            end: version
                .to
                .map_or(Timestamp::MAX, |to| self.gone(to, version.set.ttl)),
        }
    }

    /// When an answer that was last given out at `to` is in no cache any more. A cache that counts whole seconds may
    /// use an entry until the end of the second in which it expires.
    fn gone(&self, to: Timestamp, ttl: Ttl) -> Timestamp {
        later(
            whole_second(later(to, self.caching.spread)),
            ttl.duration() + Duration::from_secs(1),
        )
    }

    /// While "no such name" may be in a cache, for times before a version that no other one covers.
    fn gaps(&self, versions: &[&Version]) -> Vec<Span> {
        let Some(negative) = self.caching.negative else {
            return Vec::new();
        };
        versions
            .iter()
            .filter(|version| {
                // `begin_changes` writes this for "as long as anybody knows".
                version.from > Timestamp::UNIX_EPOCH
                    && !versions.iter().any(|other| {
                        !std::ptr::eq(*other, **version)
                            && other.from <= version.from
                            && other.to.is_none_or(|to| to >= version.from)
                    })
            })
            .map(|version| Span {
                start: Timestamp::MIN,
                end: self.gone(version.from, negative),
            })
            .collect()
    }
}

fn leads_itself(set: &RecordSet) -> Leads {
    if set.values.is_empty() {
        Leads::Nowhere
    } else {
        Leads::Values(set.values.clone())
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn whole_second(at: Timestamp) -> Timestamp {
    let below = SignedDuration::from_nanos(i64::from(at.subsec_nanosecond()));
    at.saturating_sub(below).unwrap_or(at)
}

/// Before a write: from now on either state may be served. `changes` are applied together, as by [`DnsHost::apply`].
///
/// [`DnsHost::apply`]: super::DnsHost::apply
pub fn begin_changes(
    history: &mut Published,
    changes: &[RecordChange],
    from: Timestamp,
    caching: Caching,
) {
    for change in changes {
        if !history.versions.iter().any(|v| is_open(v, change)) {
            // Published by somebody before the history began; or never there.
            let before = change.before.clone().or_else(|| {
                let covered = |v: &Version| v.to.is_none() && is_related(&v.set, change);
                let covered = history.versions.iter().any(covered);
                absent(change, caching).filter(|_| !covered)
            });
            history.versions.extend(before.map(|set| Version {
                set,
                from: Timestamp::UNIX_EPOCH,
                to: None,
            }));
        }
        // Somebody else's, since when nobody knows. What was published stays the newest.
        let is_known = |set: &RecordSet| {
            let mut versions = history.versions.iter();
            versions.any(|v| is_open(v, change) && &v.set == set)
        };
        if let Some(set) = change.before.as_ref().filter(|set| !is_known(set)) {
            let foreign = Version {
                set: set.clone(),
                from: Timestamp::UNIX_EPOCH,
                to: None,
            };
            history.versions.insert(0, foreign);
        }
        // Unless the same write puts something else there: then "no such name" is never an answer.
        let replaced = |other: &RecordChange| {
            let set = other.after.as_ref();
            set.is_some_and(|set| is_related(set, change))
        };
        let after = match &change.after {
            Some(after) => Some(after.clone()),
            None if changes.iter().any(replaced) => None,
            None => absent(change, caching),
        };
        let begun = |set: &RecordSet| {
            let mut versions = history.versions.iter();
            versions.any(|v| is_open(v, change) && &v.set == set)
        };
        if let Some(set) = after.filter(|set| !begun(set)) {
            history.versions.push(Version {
                set,
                from,
                to: None,
            });
        }
    }
    history.serial = history.serial.saturating_add(1);
}

/// After a write that is known to have happened: what it replaced was served at most until `to`.
pub fn confirm_changes(history: &mut Published, changes: &[RecordChange], to: Timestamp) {
    for change in changes {
        for version in history.versions.iter_mut().filter(|v| v.to.is_none()) {
            let replaced = is_open(version, change)
                && match &change.after {
                    Some(after) => &version.set != after,
                    None => !version.set.values.is_empty(),
                };
            let filled = change.after.is_some()
                && version.set.values.is_empty()
                && is_related(&version.set, change);
            if replaced || filled {
                version.to = Some(to);
            }
        }
        // It was served already when somebody wanted it, and the history, or a part of it, is lost.
        if let Some(set) = &change.after
            && !history.versions.iter().any(|v| is_open(v, change))
        {
            history.versions.push(Version {
                set: set.clone(),
                from: Timestamp::UNIX_EPOCH,
                to: None,
            });
        }
    }
    history.serial = history.serial.saturating_add(1);
}

/// After a write that is known not to have happened: what it was to bring was never served.
pub fn withdraw_changes(history: &mut Published, changes: &[RecordChange]) {
    for change in changes {
        let never_served = |set: &RecordSet| match (&change.before, &change.after) {
            (before, Some(after)) => set == after && before.as_ref() != Some(after),
            (Some(_), None) => set.values.is_empty(),
            (None, None) => false,
        };
        history
            .versions
            .retain(|v| !(is_open(v, change) && never_served(&v.set)));
    }
    history.serial = history.serial.saturating_add(1);
}

/// A write that began at `from` and was confirmed at `to`.
pub fn record_changes(
    history: &mut Published,
    changes: &[RecordChange],
    from: Timestamp,
    to: Timestamp,
    caching: Caching,
) {
    begin_changes(history, changes, from, caching);
    confirm_changes(history, changes, to);
}

fn is_open(version: &Version, change: &RecordChange) -> bool {
    version.to.is_none() && version.set.host == change.host && version.set.kind == change.kind
}

/// Whether both decide about one question: a CNAME is an answer to every one.
fn is_related(set: &RecordSet, change: &RecordChange) -> bool {
    set.host == change.host
        && (set.kind == change.kind
            || set.kind == RecordType::Cname
            || change.kind == RecordType::Cname)
}

/// "There is no such set", where that is cached.
fn absent(change: &RecordChange, caching: Caching) -> Option<RecordSet> {
    Some(RecordSet {
        host: change.host.clone(),
        kind: change.kind,
        ttl: caching.negative?,
        values: BTreeSet::new(),
    })
}

/// What was written down happened before now. A later instant is from a clock that was ahead then or is behind now, and
/// waiting for it would take as long as the clocks are apart.
pub fn not_later_than(history: &mut Published, now: Timestamp) {
    let before = history.versions.clone();
    for version in &mut history.versions {
        version.from = version.from.min(now);
        version.to = version.to.map(|to| to.min(now));
    }
    if history.versions != before {
        history.serial = history.serial.saturating_add(1);
    }
}

/// Forgets versions that can no longer be in any cache at `now`.
pub fn prune(history: &mut Published, now: Timestamp, caching: Caching) {
    let look = Look {
        history: &Published::default(),
        kind: RecordType::A,
        caching,
    };
    // Not before "no such name" would be gone too: without its predecessor a version looks like the name's first.
    let slowest = |ttl: Ttl| ttl.max(caching.negative.unwrap_or(ttl));
    let before = history.versions.len();
    history.versions.retain(|version| {
        version
            .to
            .is_none_or(|to| look.gone(to, slowest(version.set.ttl)) > now)
    });
    if history.versions.len() != before {
        history.serial = history.serial.saturating_add(1);
    }
}

/// The instant after which no honest cache holds a copy of this set that was given out with a TTL above `ttl`.
///
/// That is what lowering a TTL waits for. [`effective_at`] does not tell it: a copy with the old TTL leads nowhere
/// else than the new one, until the records move.
pub fn slower_gone_at(
    history: &Published,
    host: &HostName,
    kind: RecordType,
    ttl: Ttl,
) -> Option<Timestamp> {
    history
        .versions
        .iter()
        .filter(|version| {
            &version.set.host == host && version.set.kind == kind && version.set.ttl > ttl
        })
        .filter(|version| !version.set.values.is_empty())
        .map(|version| {
            version
                .to
                .map_or(Timestamp::MAX, |to| later(to, version.set.ttl.duration()))
        })
        .max()
}

/// Notes that the TTL of `host` was lowered and is to be restored. A lease that is there keeps what it restores and
/// since when, and is only prolonged.
pub fn lower(
    history: &mut Published,
    host: &HostName,
    normal: Ttl,
    lowered: Ttl,
    since: Timestamp,
    until: Timestamp,
) {
    history
        .ttl_leases
        .entry(host.clone())
        .and_modify(|lease| {
            lease.lowered = lowered;
            lease.until = lease.until.max(until);
        })
        .or_insert(TtlLease {
            normal,
            lowered,
            since,
            until,
        });
    history.serial = history.serial.saturating_add(1);
}

/// Ends the lease; returns the TTL to restore.
pub fn restore(history: &mut Published, host: &HostName) -> Option<Ttl> {
    let lease = history.ttl_leases.remove(host)?;
    history.serial = history.serial.saturating_add(1);
    Some(lease.normal)
}

#[cfg(test)]
mod tests;
