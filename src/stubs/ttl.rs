// STUB(lead): dns::ttl is merged later.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::id::HostName;
use crate::model::record::RecordType;
use crate::model::roles::Published;
use crate::model::units::Ttl;

/// The instant after which no honest cache can hold an answer that was superseded.
pub fn effective_at(
    published: &Published,
    host: &HostName,
    kind: RecordType,
    margin: Duration,
    _negative: Ttl,
) -> Option<Timestamp> {
    let versions = published
        .versions
        .iter()
        .filter(|version| &version.set.host == host && version.set.kind == kind);
    versions
        .filter_map(|version| Some(version.to? + version.set.ttl.duration() + margin))
        .max()
}
