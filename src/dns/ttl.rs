use crate::model::roles::*; use crate::model::id::*; use crate::model::record::*; use crate::model::units::Ttl; use jiff::Timestamp; use std::time::Duration;
pub fn effective_at(_: &Published, _: &HostName, _: RecordType, _: Duration, _: Ttl) -> Option<Timestamp> { None }
pub fn publish(_: &mut Published, _: Option<&RecordSet>, _: Option<RecordSet>, _: Timestamp, _: Timestamp) {}
pub fn lease(_: &mut Published, _: &HostName, _: Ttl, _: Ttl, _: Timestamp, _: Timestamp) {}
pub fn end_lease(_: &mut Published, _: &HostName) {}
pub fn prune(_: &mut Published, _: Timestamp) {}
