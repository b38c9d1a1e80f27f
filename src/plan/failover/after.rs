//! The steps behind the promotion: the users are led to the new site, it is written down, and the old site follows.

use super::{Flip, Move};
use crate::model::id::*;
use crate::model::record::{RecordSet, RecordType};
use crate::model::stack::{Database, Name, Server};
use crate::model::units::Ttl;
use crate::plan::action::*;
use crate::plan::database::{rejoin, seed_replica};
use crate::plan::names::{ensure_zone, hosts, see_record};
use crate::plan::{Plan, Step, step};

pub(super) fn traffic(plan: &mut Plan, flip: &Flip) {
    plan.push(open_app(flip));
    let smoke = SmokeTest {
        site: flip.to.clone(),
    };
    let about = format!("{} passes its health checks", flip.to);
    plan.push(
        step("smoke-test", about, smoke.into())
            .skip_if(flip.accepted_as_it_is())
            .limit(60),
    );
    for zone in flip.zones() {
        let names: Vec<&Name> = flip
            .stack
            .names
            .iter()
            .filter(|name| name.zone == zone.name)
            .collect();
        // Asked again: a resume after a reboot finds its name server dead, and can only go forward.
        plan.push(ensure_zone("reopen-zone", zone).limit(60));
        plan.push(set_record(flip, &zone.name, &names));
        plan.push(see_record(zone.name.clone(), &names));
    }
}

fn open_app(flip: &Flip) -> Step {
    let epochs = flip
        .stack
        .databases
        .iter()
        .map(|database| flip.facts.epoch(&database.name) + 1);
    let token = SetRoleToken {
        site: flip.to.clone(),
        role: SiteRole::Primary,
        epoch: epochs.max().unwrap_or(1),
    };
    let about = format!("servers of {} know that they are primary", flip.to);
    step("open-app", about, token.into())
        .limit(60)
        // Whether users are served is for the smoke test to say.
        .may_fail("hafog up")
}

fn set_record(flip: &Flip, zone: &ZoneName, names: &[&Name]) -> Step {
    let lease = |name: &&Name| LeasedTtl {
        host: name.target.clone(),
        normal: normal_ttl(flip, name),
        lowered: name.failover_ttl,
        window: flip.stack.commit_window,
    };
    let set = SetRecord {
        zone: zone.clone(),
        records: names.iter().flat_map(|name| leading(flip, name)).collect(),
        leases: names.iter().map(lease).collect(),
    };
    let verb = if names.len() == 1 { "leads" } else { "lead" };
    let about = format!("{} {verb} to {}", hosts(names), flip.to);
    step(format!("set-record {zone}"), about, set.into()).limit(60)
}

/// What the TTL is when no flip is provisional.
fn normal_ttl(flip: &Flip, name: &Name) -> Ttl {
    let lease = flip.facts.published.ttl_leases.get(&name.target);
    lease.map_or(name.ttl, |lease| lease.normal)
}

/// What is to be served of one name: its target at the new site, and the CNAME by which users come. That one does not
/// change, and is put back where the zone lacks it: nobody would be led anywhere.
fn leading(flip: &Flip, name: &Name) -> Vec<WantedRecord> {
    let target = match led(flip, name) {
        Some(after) => WantedRecord::Becomes(after),
        None => WantedRecord::AddressesOf {
            host: name.target.clone(),
            ttl: name.failover_ttl,
            site: flip.to.clone(),
            group: name.to.clone(),
        },
    };
    let alias = name.alias().map(|alias| {
        let now = flip.facts.alias(name);
        let is_right = now.is_some_and(|now| now.values == alias.values);
        WantedRecord::Becomes(now.filter(|_| is_right).cloned().unwrap_or(alias))
    });
    std::iter::once(target).chain(alias).collect()
}

/// The records that lead to the new site, if its addresses are known.
fn led(flip: &Flip, name: &Name) -> Option<RecordSet> {
    let values = flip.facts.addresses(flip.stack, flip.to, &name.to)?;
    (!values.is_empty()).then(|| RecordSet {
        host: name.target.clone(),
        kind: RecordType::A,
        ttl: name.failover_ttl,
        values,
    })
}

/// Who is primary is written down as soon as the users are led there.
pub(super) fn roles(plan: &mut Plan, flip: &Flip) {
    let (from, to, options) = (flip.from, flip.to, flip.options);
    let roles = flip.facts.roles.as_ref();
    let (standbys, left_behind) = roles
        .map(|roles| (roles.standbys.as_slice(), roles.left_behind.as_slice()))
        .unwrap_or_default();
    let (mut standbys, mut left_behind) = (without(standbys, to), without(left_behind, to));
    match options.planned {
        true => standbys.push(from.clone()),
        false => left_behind.push(from.clone()),
    }
    let provisional = (!options.rollback).then(|| ProvisionalWant {
        from: from.clone(),
        planned: options.planned,
        window: flip.stack.commit_window,
    });
    let about = match &provisional {
        Some(want) => format!(
            "{to} is primary, provisionally: commit or roll back within {}",
            want.window
        ),
        None => format!("{to} is primary again, provisional no longer"),
    };
    let set = SetRoles {
        primary: to.clone(),
        standbys,
        left_behind,
        heads: None,
        provisional,
    };
    plan.push(step("provisional", about, set.into()));
}

fn without(sites: &[SiteName], out: &SiteName) -> Vec<SiteName> {
    sites.iter().filter(|site| *site != out).cloned().collect()
}

/// What comes after the users have moved. None of it makes the move undone when it fails: a dead server of the old
/// site must not keep a failover open.
pub(super) fn the_rest(plan: &mut Plan, flip: &Flip) {
    for one in &flip.moves {
        for replica in flip.nodes_at(flip.to, one).into_iter().skip(1) {
            let again = recreate(one.database, &one.new.name, replica);
            plan.push(again.may_fail("hafog up"));
        }
    }
    for one in &flip.moves {
        plan.push(at_the_old_site(flip, reverse_replication(flip, one)));
        for replica in flip.nodes_at(flip.from, one) {
            if replica.name != one.old {
                let again = recreate(one.database, &one.old, replica);
                plan.push(at_the_old_site(flip, again));
            }
        }
    }
    plan.push(at_the_old_site(flip, close_app(flip)));
    if flip.options.rollback {
        restore_ttl(plan, flip);
    }
}

/// Left out of a forced move, and left to the verb that mends it where it fails.
pub(super) fn at_the_old_site(flip: &Flip, step: Step) -> Step {
    let from = flip.from;
    let forced = !flip.options.planned;
    let left = forced.then(|| match flip.is_within {
        true => format!("it is left as it is; `hafog heal {from}` takes it back"),
        false => format!("{from} is left behind; `hafog failback` rejoins it"),
    });
    step.skip_if(left).may_fail(flip.mend(from))
}

pub(super) fn recreate(database: &Database, from: &ServerName, replica: &Server) -> Step {
    let replica = &replica.name;
    let mut again = seed_replica(database, from, replica, false);
    again.name = StepName::new(format!("recreate-replica {replica}"));
    again.about = format!("{replica} follows {from} again");
    again
}

pub(super) fn reverse_replication(flip: &Flip, one: &Move) -> Step {
    let mut reverse = rejoin(one.database, flip.from, &one.old, &one.new.name);
    reverse.name = StepName::new(format!("reverse-replication {}", one.database.name));
    reverse.limit(600)
}

fn close_app(flip: &Flip) -> Step {
    let token = SetRoleToken {
        site: flip.from.clone(),
        role: SiteRole::Standby,
        epoch: flip.moves.iter().map(|one| one.epoch).max().unwrap_or(1),
    };
    let about = format!("servers of {} know that they are standby", flip.from);
    step("close-app", about, token.into()).limit(60)
}

/// A rollback ends the provisional phase, as a commit does: nothing else would raise the TTL again.
fn restore_ttl(plan: &mut Plan, flip: &Flip) {
    for name in &flip.stack.names {
        let ttl = normal_ttl(flip, name);
        let Some(led) = led(flip, name) else {
            continue;
        };
        let reason = (led.ttl >= ttl).then(|| format!("it is {} already", led.ttl));
        let about = format!("TTL of {} from {} back to {ttl}", name.target, led.ttl);
        let action = SetTtl {
            zone: name.zone.clone(),
            host: name.target.clone(),
            before: led,
            ttl,
            lease: None,
            wait: false,
        };
        plan.push(
            step(format!("restore-ttl {}", name.host), about, action.into())
                .skip_if(reason)
                .may_fail("hafog dns restore"),
        );
    }
}
