//! The steps of names, by whichever plan they are in: zones that are served, records that lead to a site.

use super::action::*;
use super::facts::Facts;
use super::{Plan, Step, step};
use crate::dns::RecordChange;
use crate::model::id::*;
use crate::model::record::RecordType;
use crate::model::stack::{Name, Stack, Zone};

/// Opens the zones and publishes every name: the target's addresses, and the CNAME that leads to it.
pub(super) fn publish(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    healthy: Option<StepName>,
) {
    for zone in &stack.zones {
        let open = facts.is_open(&zone.name);
        let opened = (!open).then(|| plan.push(ensure_zone("ensure-zone", zone)));
        let names: Vec<&Name> = stack
            .names
            .iter()
            .filter(|name| name.zone == zone.name)
            .collect();
        let mut records = Vec::new();
        for name in &names {
            records.extend(wanted_records(stack, facts, site, name));
        }
        if records.is_empty() {
            continue;
        }
        let set = plan.push(
            step(
                format!("set-record {}", zone.name),
                format!("publish {} in {}", hosts(&names), zone.name),
                SetRecord {
                    zone: zone.name.clone(),
                    records,
                    leases: Vec::new(),
                }
                .into(),
            )
            .after(opened.into_iter().chain(healthy.clone())),
        );
        plan.push(see_record(zone.name.clone(), &names).after([set]));
    }
}

/// With the usual limit: a planner that has users waiting sets a shorter one.
pub(super) fn ensure_zone(step_name: &str, zone: &Zone) -> Step {
    let about = format!(
        "make sure that {} is being served by `{}`",
        zone.name, zone.host
    );
    let action = EnsureZone {
        zone: zone.name.clone(),
    };
    step(format!("{step_name} {}", zone.name), about, action.into())
}

pub(super) fn see_record(zone: ZoneName, names: &[&Name]) -> Step {
    let mut hosts: Vec<HostName> = names
        .iter()
        .flat_map(|name| [name.host.clone(), name.target.clone()])
        .collect();
    hosts.dedup();
    step(
        format!("see-record {zone}"),
        format!("every authority of {zone} answers so"),
        SeeRecord { zone, hosts }.into(),
    )
    .limit(60)
}

pub(super) fn hosts(names: &[&Name]) -> String {
    names
        .iter()
        .map(|name| name.host.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Records of one name that are not as wanted.
fn wanted_records(stack: &Stack, facts: &Facts, site: &SiteName, name: &Name) -> Vec<WantedRecord> {
    let zone = facts.zones.get(&name.zone);
    let find = |host, kind| zone.and_then(|zone| zone.record(host, kind));
    let mut wanted = Vec::new();
    let addresses = facts.addresses(stack, site, &name.to);
    let current = find(&name.target, RecordType::A);
    if addresses.is_none_or(|addresses| current.is_none_or(|set| set.values != addresses)) {
        wanted.push(WantedRecord::AddressesOf {
            host: name.target.clone(),
            ttl: current.map_or(name.ttl, |set| set.ttl),
            site: site.clone(),
            group: name.to.clone(),
        });
    }
    if let Some(after) = name.alias() {
        let before = find(&name.host, RecordType::Cname).cloned();
        if before.as_ref() != Some(&after) {
            let change = RecordChange {
                host: name.host.clone(),
                kind: RecordType::Cname,
                before,
                after: Some(after),
            };
            wanted.push(WantedRecord::Exactly(change));
        }
    }
    wanted
}
