//! Wanted record sets against held ones. Pure. It looks only at record sets that the stack owns: a record that
//! somebody else keeps in the same zone is never part of a change.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::id::{HostName, ZoneName};
use crate::model::record::{RecordSet, RecordType};

use super::RecordChange;

/// Returns what turns `held` into `wanted`: removals first (a CNAME cannot stand beside other data, RFC 1034
/// section 3.6.2), then the rest in the order of `wanted`. `owned` names the sets that may be removed when they
/// are no longer wanted; what is wanted is owned anyway.
pub fn diff(
    wanted: &[RecordSet],
    held: &[RecordSet],
    owned: &BTreeSet<(HostName, RecordType)>,
) -> Vec<RecordChange> {
    let held_as = |host: &HostName, kind: RecordType| {
        held.iter()
            .find(|set| set.kind == kind && &canonical_host(&set.host) == host)
    };
    let wanted: Vec<RecordSet> = wanted.iter().map(canonical).collect();
    let owned: BTreeSet<(HostName, RecordType)> = owned
        .iter()
        .map(|(host, kind)| (canonical_host(host), *kind))
        .collect();

    let removals = owned
        .iter()
        .filter(|(host, kind)| {
            !wanted
                .iter()
                .any(|set| &set.host == host && set.kind == *kind)
        })
        .filter_map(|(host, kind)| {
            Some(RecordChange {
                host: host.clone(),
                kind: *kind,
                before: Some(held_as(host, *kind)?.clone()),
                after: None,
            })
        });
    let writes = wanted.iter().filter_map(|set| {
        let before = held_as(&set.host, set.kind);
        if before.is_some_and(|before| &canonical(before) == set) {
            return None;
        }
        Some(RecordChange {
            host: set.host.clone(),
            kind: set.kind,
            before: before.cloned(),
            after: Some(set.clone()),
        })
    });
    removals.chain(writes).collect()
}

/// Lower case, no final dot.
pub fn canonical_host(host: &HostName) -> HostName {
    HostName::new(canonical_name(host.as_str()))
}

/// Lower case, no final dot.
pub fn canonical_zone(zone: &ZoneName) -> ZoneName {
    ZoneName::new(canonical_name(zone.as_str()))
}

fn canonical_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The one way to write a record set. What is no address stays as it is: judging it is the host's.
pub fn canonical(set: &RecordSet) -> RecordSet {
    let value = |text: &String| match set.kind {
        RecordType::A => text
            .parse::<Ipv4Addr>()
            .map_or_else(|_| text.clone(), |address| address.to_string()),
        RecordType::Aaaa => text
            .parse::<Ipv6Addr>()
            .map_or_else(|_| text.clone(), |address| address.to_string()),
        RecordType::Cname => canonical_name(text),
        RecordType::Txt => text.clone(),
    };
    RecordSet {
        host: canonical_host(&set.host),
        kind: set.kind,
        ttl: set.ttl,
        values: set.values.iter().map(value).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Ttl;

    fn set(host: &str, kind: RecordType, ttl: u32, values: &[&str]) -> RecordSet {
        RecordSet {
            host: host.into(),
            kind,
            ttl: Ttl(ttl),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        }
    }

    /// Changes as text, which reads as the plan will.
    fn check(wanted: &[RecordSet], held: &[RecordSet], owned: &[(&str, RecordType)]) -> String {
        let owned = owned.iter().map(|(h, k)| ((*h).into(), *k)).collect();
        let text = |set: &Option<RecordSet>| {
            set.as_ref()
                .map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        diff(wanted, held, &owned)
            .iter()
            .map(|c| format!("{} -> {}\n", text(&c.before), text(&c.after)))
            .collect()
    }

    #[test]
    fn equal_sets_need_no_change_however_they_are_written() {
        let wanted = [
            set("www.shop.test", RecordType::Cname, 60, &["edge.shop.test"]),
            set("edge.shop.test", RecordType::Aaaa, 60, &["2001:db8::1"]),
        ];
        let held = [
            set(
                "WWW.Shop.test.",
                RecordType::Cname,
                60,
                &["Edge.shop.TEST."],
            ),
            set("edge.shop.test", RecordType::Aaaa, 60, &["2001:DB8:0::1"]),
        ];
        assert_eq!(check(&wanted, &held, &[]), "");
    }

    #[test]
    fn a_ttl_alone_is_a_change() {
        let wanted = [set("a.test", RecordType::A, 60, &["127.0.0.1"])];
        let held = [set("a.test", RecordType::A, 3600, &["127.0.0.1"])];
        assert_eq!(
            check(&wanted, &held, &[]),
            "a.test 3600 A 127.0.0.1 -> a.test 60 A 127.0.0.1\n"
        );
    }

    #[test]
    fn strangers_are_left_alone_and_removals_come_first() {
        let wanted = [set("www.test", RecordType::Cname, 60, &["edge.test"])];
        let held = [
            set("www.test", RecordType::A, 60, &["127.0.0.1"]),
            set("www.test", RecordType::Txt, 60, &["theirs"]),
            set("mail.test", RecordType::A, 60, &["127.0.0.9"]),
        ];
        assert_eq!(
            check(&wanted, &held, &[("WWW.test.", RecordType::A)]),
            "www.test 60 A 127.0.0.1 -> nothing\nnothing -> www.test 60 CNAME edge.test\n"
        );
    }
}
