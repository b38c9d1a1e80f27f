//! DNS hosts: who serves a zone. Record sets are the common denominator; they are compared as `canonical.rs` writes them.

pub mod ask;
pub mod cache;
pub mod canonical;
pub mod registry;
pub mod serve_control;
pub mod serve_host;
pub mod ttl;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, Trouble};
use crate::model::id::{HostName, ZoneName};
use crate::model::record::{RecordSet, RecordType};
use crate::model::units::Ttl;

/// How answers are cached: hosts keep to the negative TTL that `serve` has, and swap versions at once.
pub const CACHING: ttl::Caching = ttl::Caching {
    negative: Some(serve_control::NEGATIVE_TTL),
    spread: std::time::Duration::ZERO,
};

#[derive(Clone, Debug)]
pub struct ZoneSettings {
    pub zone: ZoneName,
    pub settings: BTreeMap<String, String>,
    /// Where hafog keeps local files of this stack (absolute).
    pub home: std::path::PathBuf,
}

pub struct DnsHostAbout {
    pub name: &'static str,
    pub about: &'static str,
    /// Keys that `zone: { host: …, … }` may hold besides `host` and `name`.
    pub settings: &'static [&'static str],
    pub open: fn(&ZoneSettings) -> Result<Arc<dyn DnsHost>, Fault>,
}

/// One change, compared before it is written: if the host does not serve `before`, the change is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordChange {
    pub host: HostName,
    #[serde(rename = "type")]
    pub kind: RecordType,
    /// `None`: there must be no such set.
    pub before: Option<RecordSet>,
    /// `None` removes the set (only `destroy` does that).
    pub after: Option<RecordSet>,
}

/// What a DNS host says of the service of a zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZoneState {
    /// It is being served.
    pub open: bool,
    /// There is something that `close_zone` would take away; also the rest of a closing that was cut.
    pub closable: bool,
}

#[async_trait]
pub trait DnsHost: Send + Sync {
    /// Makes sure that the zone exists and is being served. Hosts that are vendors only look.
    async fn open_zone(&self) -> Result<(), Trouble>;
    /// Stops serving it, where it was `open_zone` that started it.
    async fn close_zone(&self) -> Result<(), Trouble>;
    /// Whether the zone is being served, and whether closing it would take anything away.
    async fn state(&self) -> Result<ZoneState, Fault>;
    /// The record sets that the host holds; only those of the types in `RecordType`.
    async fn records(&self) -> Result<Vec<RecordSet>, Fault>;
    /// All or nothing. Refused (`NothingChanged`) when a `before` does not hold.
    async fn apply(&self, changes: &[RecordChange]) -> Result<(), Trouble>;
    /// Every server that answers for the zone.
    async fn authorities(&self) -> Result<Vec<SocketAddr>, Fault>;
    fn ttl_floor(&self) -> Ttl;
}
