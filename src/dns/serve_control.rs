//! What is said on the control socket of `hafog dns serve`, and what the server holds.
//!
//! A generation is immutable: a change makes the next one. The types live here and not in `serve`, because the
//! DNS host that drives the server may not import it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::id::{HostName, ZoneName};
use crate::model::record::RecordSet;
use crate::model::units::Ttl;

use super::RecordChange;

/// The control socket's purpose; its key is the server's folder.
pub const PURPOSE: &str = "dns";

/// How long a cache may keep "no such name" from this server: the SOA's minimum (RFC 2308 section 5).
/// Short, because a name that a failover publishes for the first time must be seen soon.
pub const NEGATIVE_TTL: Ttl = Ttl(5);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    Hello,
    Zones,
    /// All or nothing; each `before` must hold, and the generation if one is named.
    Apply {
        zone: ZoneName,
        changes: Vec<RecordChange>,
        expect_generation: Option<u64>,
    },
    /// There already is success, and then nothing changes.
    OpenZone {
        zone: ZoneName,
    },
    /// Gone already is success.
    CloseZone {
        zone: ZoneName,
    },
    /// `only_empty`: refused while a zone is served; when none is, the file of the last generation goes too.
    Stop {
        only_empty: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Hello(Hello),
    Zones(Generation),
    Done {
        generation: u64,
        zones_left: usize,
    },
    /// Nothing changed.
    Refused {
        why: String,
    },
    /// It may have happened.
    Unknown {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub pid: u32,
    pub listen: Vec<SocketAddr>,
    pub generation: u64,
    pub zones: Vec<ZoneName>,
}

/// Everything that the server holds at one time. Number 0 is the empty beginning and is never written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    pub number: u64,
    pub zones: Vec<ServedZone>,
}

impl Generation {
    pub fn zone(&self, name: &ZoneName) -> Option<&ServedZone> {
        self.zones.iter().find(|zone| &zone.name == name)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedZone {
    pub name: ZoneName,
    /// The name server's own name, below the zone's; SOA and NS name it, and it is not in `sets`.
    pub server: HostName,
    pub addresses: Vec<IpAddr>,
    pub sets: Vec<RecordSet>,
}
