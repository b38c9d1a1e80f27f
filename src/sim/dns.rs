//! A simulated DNS host, with two authorities a zone.

use std::net::SocketAddr;

use async_trait::async_trait;

use super::SimWorld;
use super::call::Call;
use super::world::{Sets, SimZone, World};
use crate::dns::{DnsHost, RecordChange, ZoneState};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{HostName, ZoneName};
use crate::model::record::{RecordSet, RecordType};
use crate::model::units::Ttl;

pub struct SimDns {
    world: SimWorld,
    zone: ZoneName,
}

impl SimDns {
    pub(super) fn new(world: SimWorld, zone: ZoneName) -> SimDns {
        SimDns { world, zone }
    }

    fn call(&self, name: &'static str, argument: impl std::fmt::Display) -> Call {
        Call::new(name, format!("{} {argument}", self.zone))
    }

    async fn open_or_close(&self, name: &'static str, open: bool) -> Result<(), Trouble> {
        self.world
            .change(self.call(name, ""), |world, _| {
                world.zone(&self.zone).nothing_changed()?.open = open;
                Ok(())
            })
            .await
    }
}

#[async_trait]
impl DnsHost for SimDns {
    async fn open_zone(&self) -> Result<(), Trouble> {
        self.open_or_close("dns.open_zone", true).await
    }

    async fn close_zone(&self) -> Result<(), Trouble> {
        self.open_or_close("dns.close_zone", false).await
    }

    async fn state(&self) -> Result<ZoneState, Fault> {
        self.world
            .look(self.call("dns.state", ""), |world| {
                let open = world.zone(&self.zone)?.open;
                Ok(ZoneState {
                    open,
                    closable: open,
                })
            })
            .await
    }

    async fn records(&self) -> Result<Vec<RecordSet>, Fault> {
        self.world
            .look(self.call("dns.records", ""), |world| {
                Ok(world.zone(&self.zone)?.sets.values().cloned().collect())
            })
            .await
    }

    async fn apply(&self, changes: &[RecordChange]) -> Result<(), Trouble> {
        let hosts: Vec<String> = changes
            .iter()
            .map(|change| format!("{} {}", change.host, change.kind))
            .collect();
        let call = self.call("dns.apply", hosts.join(", "));
        self.world
            .change(call, |world, _| {
                if let Some(emptied) = changes
                    .iter()
                    .filter_map(|change| change.after.as_ref())
                    .find(|set| set.values.is_empty())
                {
                    world.violate(format!("a record set would be emptied: {emptied}"));
                }
                let zone = world.zone(&self.zone).nothing_changed()?;
                zone.apply(&self.zone, changes).nothing_changed()
            })
            .await
    }

    async fn authorities(&self) -> Result<Vec<SocketAddr>, Fault> {
        self.world
            .look(self.call("dns.authorities", ""), |world| {
                let zone = world.zone(&self.zone)?;
                Ok(zone.authorities.iter().map(|one| one.address).collect())
            })
            .await
    }

    fn ttl_floor(&self) -> Ttl {
        Ttl(1)
    }
}

impl World {
    fn zone(&mut self, name: &ZoneName) -> Result<&mut SimZone, Fault> {
        self.reach(None)?;
        let zone = self.zone_mut(name);
        if zone.lit {
            Ok(zone)
        } else {
            Err(Fault::unavailable(format!(
                "no answer from the host of zone `{name}` within 2 s"
            )))
        }
    }
}

impl SimZone {
    /// All or nothing.
    fn apply(&mut self, name: &ZoneName, changes: &[RecordChange]) -> Result<(), Fault> {
        if !self.open {
            return Err(Fault::new(format!("zone `{name}` is not open")));
        }
        let mut sets = self.sets.clone();
        for change in changes {
            change_set(&mut sets, name, change)?;
        }
        check_aliases(&sets)?;
        self.sets = sets;
        self.generation += 1;
        Ok(())
    }
}

fn change_set(sets: &mut Sets, zone: &ZoneName, change: &RecordChange) -> Result<(), Fault> {
    let (host, kind) = (&change.host, change.kind);
    let refused = |why: String| Err(Fault::new(format!("cannot change `{host} {kind}`: {why}")));
    if !is_in_zone(host, zone) {
        return refused(format!("it is not in zone `{zone}`"));
    }
    let key = (host.clone(), kind);
    let there = sets.get(&key);
    if there != change.before.as_ref() {
        let shown = |set: Option<&RecordSet>| match set {
            Some(set) => format!("`{set}`"),
            None => "no such set".to_owned(),
        };
        return refused(format!(
            "expected {}, there is {}",
            shown(change.before.as_ref()),
            shown(there)
        ));
    }
    match &change.after {
        None => {
            sets.remove(&key);
        }
        Some(after) if (&after.host, after.kind) != (host, kind) => {
            return refused(format!("the new set is `{after}`"));
        }
        Some(after) if after.values.is_empty() => {
            return refused("the new set is empty".to_owned());
        }
        Some(after) => {
            sets.insert(key, after.clone());
        }
    }
    Ok(())
}

/// A name with a CNAME has nothing else (RFC 1034 section 3.6.2), and a CNAME has one value.
fn check_aliases(sets: &Sets) -> Result<(), Fault> {
    for ((host, kind), set) in sets {
        if *kind != RecordType::Cname {
            continue;
        }
        let alone = sets.keys().filter(|(other, _)| other == host).count() == 1;
        if !alone || set.values.len() != 1 {
            return Err(Fault::new(format!(
                "`{host}` cannot be a CNAME beside others"
            )));
        }
    }
    Ok(())
}

pub(super) fn is_in_zone(host: &HostName, zone: &ZoneName) -> bool {
    host.as_str()
        .strip_suffix(zone.as_str())
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
