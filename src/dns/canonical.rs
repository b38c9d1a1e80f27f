//! The one way to write names and record sets, so that equal ones compare equal however they were typed.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::id::{HostName, ZoneName};
use crate::model::record::{RecordSet, RecordType};

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

    fn is_the_same(one: RecordSet, other: RecordSet) -> bool {
        canonical(&one) == canonical(&other)
    }

    #[test]
    fn equal_sets_are_equal_however_they_are_written() {
        assert!(is_the_same(
            set("www.shop.test", RecordType::Cname, 60, &["edge.shop.test"]),
            set(
                "WWW.Shop.test.",
                RecordType::Cname,
                60,
                &["Edge.shop.TEST."]
            ),
        ));
        assert!(is_the_same(
            set("edge.shop.test", RecordType::Aaaa, 60, &["2001:db8::1"]),
            set("edge.shop.test", RecordType::Aaaa, 60, &["2001:DB8:0::1"]),
        ));
    }

    #[test]
    fn a_ttl_alone_makes_another_set() {
        assert!(!is_the_same(
            set("a.test", RecordType::A, 60, &["127.0.0.1"]),
            set("a.test", RecordType::A, 3600, &["127.0.0.1"]),
        ));
    }
}
