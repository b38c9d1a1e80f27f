//! Eyes: what the stack looks like from outside. A port, so that the simulated world can be looked at too.

pub mod real; // requests over real sockets

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::model::id::HostName;
use crate::model::record::RecordType;

/// A request to one address, whatever DNS says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpAsk {
    pub to: SocketAddr,
    /// `Host:` header, and the name that a certificate must have.
    pub host: String,
    pub path: String,
    pub tls: bool,
    pub limit: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpAnswer {
    pub status: u16,
    /// The first 5,120 bytes, as text.
    pub body: String,
}

pub use crate::dns::ask::DnsAnswer;

#[async_trait]
pub trait Probe: Send + Sync {
    async fn http(&self, ask: &HttpAsk) -> Result<HttpAnswer, Fault>;
    async fn tcp(&self, to: SocketAddr, limit: Duration) -> Result<(), Fault>;
    /// Asks one server once over UDP, and over TCP when the answer was truncated.
    async fn dns(
        &self,
        server: SocketAddr,
        host: &HostName,
        kind: RecordType,
    ) -> Result<DnsAnswer, Fault>;
}
