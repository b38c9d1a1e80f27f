//! `dns lower` and `dns restore`: the TTL of the record sets that the stack owns, as a lease.

use super::action::*;
use super::facts::Facts;
use super::failover::held;
use super::{Intent, Plan, PlanKind, step};
use crate::model::record::{RecordSet, RecordType};
use crate::model::stack::{Name, Stack};
use crate::model::units::Span;

/// Lowers every target to its `failover_ttl`, for at most `window`.
pub fn lower(stack: &Stack, facts: &Facts, window: Span, wait: bool) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, Intent::LowerTtl { window });
    for name in &stack.names {
        let Some(held) = held(facts, name) else {
            continue;
        };
        if held.ttl <= name.failover_ttl && is_settled(facts, name) {
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
            lease: Some(window),
            wait,
        };
        let about = format!(
            "TTL of {} from {} to {}",
            name.target, held.ttl, name.failover_ttl
        );
        plan.push(
            step(format!("lower-ttl {}", name.host), about, action.into())
                .limit(u64::from(held.ttl.0) + 60),
        );
    }
    plan
}

/// Whether the history knows of one version only that may be served now.
fn is_settled(facts: &Facts, name: &Name) -> bool {
    let mut open = facts.published.versions.iter().filter(|version| {
        version.to.is_none() && version.set.host == name.target && version.set.kind == RecordType::A
    });
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
        let Some(held) = held(facts, name) else {
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
