//! `dns lower` and `dns restore`: the TTL of the record sets that the stack owns, as a lease.

use std::time::Duration;

use jiff::Timestamp;

use super::action::*;
use super::facts::Facts;
use super::{Intent, Plan, PlanKind, step};
use crate::dns::{CACHING, RecordChange, ttl};
use crate::model::record::{RecordSet, RecordType};
use crate::model::roles::Published;
use crate::model::stack::{Name, Stack};
use crate::model::units::Span;

/// Lowers every target to its `failover_ttl`, for at most `window`.
pub fn lower(stack: &Stack, facts: &Facts, window: Span, wait: bool) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, Intent::LowerTtl { window });
    for name in &stack.names {
        let Some(held) = facts.held(name) else {
            continue;
        };
        let left = slower_for(facts, name, held);
        let over = !wait || left.is_zero();
        if held.ttl <= name.failover_ttl && is_settled(facts, name) && over {
            continue;
        }
        let lease = facts.published.ttl_leases.get(&name.target);
        let action = SetTtl {
            zone: name.zone.clone(),
            host: name.target.clone(),
            // A run that was cut may have lowered it already.
            before: RecordSet {
                ttl: lease.map_or(held.ttl, |lease| lease.normal),
                ..held.clone()
            },
            ttl: name.failover_ttl,
            lease: (lease.is_some() || held.ttl > name.failover_ttl).then_some(window),
            wait,
        };
        let about = match held.ttl > name.failover_ttl {
            true => format!(
                "TTL of {} from {} to {}",
                name.target, held.ttl, name.failover_ttl
            ),
            false => format!(
                "wait until no cache holds {} with more than {}",
                name.target, name.failover_ttl
            ),
        };
        plan.push(
            step(format!("lower-ttl {}", name.host), about, action.into())
                .limit(left.as_secs() + 61),
        );
    }
    plan
}

/// How long caches may still hold a copy that is slower than `failover_ttl`, if the TTL is lowered now.
pub(super) fn slower_for(facts: &Facts, name: &Name, held: &RecordSet) -> Duration {
    let history = lowered(facts, name, held);
    let gone = ttl::slower_gone_at(&history, &name.target, RecordType::A, name.failover_ttl);
    gone.map_or(Duration::ZERO, |at| until(facts.at, at))
}

/// The history as it is when the TTL has been lowered now.
fn lowered(facts: &Facts, name: &Name, held: &RecordSet) -> Published {
    let mut history = facts.published.clone();
    let low = RecordSet {
        ttl: held.ttl.min(name.failover_ttl),
        ..held.clone()
    };
    change(&mut history, held, low, facts.at);
    history
}

fn change(history: &mut Published, before: &RecordSet, after: RecordSet, at: Timestamp) {
    let change = RecordChange {
        host: after.host.clone(),
        kind: after.kind,
        before: Some(before.clone()),
        after: Some(after),
    };
    ttl::record_changes(history, &[change], at, at, CACHING);
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// How long after a flip the last honest cache has moved: counted over every version of the records that one may still
/// hold, not only over the one that is served. A planned move lowers the TTL first, and waits for it.
pub(super) fn seen_after(facts: &Facts, name: &Name, planned: bool) -> Option<Span> {
    let held = facts.held(name)?;
    let (mut history, mut at) = (facts.published.clone(), facts.at);
    if planned {
        history = lowered(facts, name, held);
        at = at.checked_add(slower_for(facts, name, held)).unwrap_or(at);
    }
    let elsewhere = RecordSet {
        ttl: name.failover_ttl,
        values: ["elsewhere".to_owned()].into(),
        ..held.clone()
    };
    change(&mut history, held, elsewhere, at);
    let hosts = [&name.host, &name.target];
    let moved = hosts
        .iter()
        .filter_map(|host| ttl::effective_at(&history, host, RecordType::A, CACHING))
        .max()?;
    let seconds = until(at, moved).as_secs_f64().ceil();
    Some(Span(Duration::from_secs_f64(seconds)))
}

/// Whether the history knows of one version only that may be served now.
fn is_settled(facts: &Facts, name: &Name) -> bool {
    let mut open = facts.published.open(&name.target, RecordType::A);
    open.nth(1).is_none()
}

/// Ends every TTL lease.
pub fn restore(stack: &Stack, facts: &Facts) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, Intent::RestoreTtl);
    restore_steps(&mut plan, stack, facts);
    plan
}

pub(super) fn restore_steps(plan: &mut Plan, stack: &Stack, facts: &Facts) {
    for name in &stack.names {
        let Some(lease) = facts.published.ttl_leases.get(&name.target) else {
            continue;
        };
        let Some(held) = facts.held(name) else {
            continue;
        };
        let action = SetTtl {
            zone: name.zone.clone(),
            host: name.target.clone(),
            before: held.clone(),
            ttl: lease.normal,
            lease: None,
            wait: false,
        };
        let about = format!(
            "TTL of {} from {} back to {}",
            name.target, held.ttl, lease.normal
        );
        plan.push(step(
            format!("restore-ttl {}", name.host),
            about,
            action.into(),
        ));
    }
}
