// STUB(lead): dns::ask is merged later.

use std::net::SocketAddr;

use crate::error::Fault;
use crate::model::id::HostName;
use crate::model::record::RecordType;
use crate::probe::DnsAnswer;

pub async fn ask(
    server: SocketAddr,
    host: &HostName,
    kind: RecordType,
) -> Result<DnsAnswer, Fault> {
    Err(Fault::unavailable(format!(
        "{server} was not asked for {host} {kind}: dns::ask is a stub"
    )))
}
