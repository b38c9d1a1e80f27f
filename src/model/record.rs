//! DNS record sets, as far as hafog publishes them.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::HostName;
use super::units::Ttl;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Txt,
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RecordType::A => "A",
            RecordType::Aaaa => "AAAA",
            RecordType::Cname => "CNAME",
            RecordType::Txt => "TXT",
        })
    }
}

/// All records of one name and type; they share a TTL (RFC 2181 section 5.2).
/// Values are written as in a zone file: an address, a name without final dot, a text without quotes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordSet {
    pub host: HostName,
    #[serde(rename = "type")]
    pub kind: RecordType,
    pub ttl: Ttl,
    pub values: BTreeSet<String>,
}

impl fmt::Display for RecordSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        write!(
            f,
            "{} {} {} {}",
            self.host,
            self.ttl.0,
            self.kind,
            values.join(" ")
        )
    }
}
