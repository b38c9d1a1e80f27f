//! `commit`: ends the provisional phase after a flip. The TTL is restored here and not at the flip, so that the way
//! back stays short for as long as it may be needed.

use super::action::*;
use super::facts::Facts;
use super::safety::refusal;
use super::ttl::restore_steps;
use super::{Intent, Plan, PlanKind, step};
use crate::model::roles::Roles;
use crate::model::stack::Stack;

pub fn commit(stack: &Stack, facts: &Facts) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, Intent::Commit);
    let Some(roles) = facts
        .roles
        .as_ref()
        .filter(|roles| roles.provisional.is_some())
    else {
        plan.refusals.push(refusal(
            "nothing-provisional",
            "no flip is provisional",
            "hafog status",
        ));
        return plan;
    };
    restore_steps(&mut plan, stack, facts);
    let after = plan
        .steps
        .iter()
        .map(|step| step.name.clone())
        .collect::<Vec<_>>();
    let seal = SetRoles {
        primary: roles.primary.clone(),
        standbys: roles.standbys.clone(),
        left_behind: roles.left_behind.clone(),
        heads: None,
        provisional: None,
    };
    plan.push(
        step(
            "seal-roles",
            format!("{} is primary for good", roles.primary),
            seal.into(),
        )
        .after(after),
    );
    plan
}

/// A phase that goes on: another site that comes, goes or rejoins does not end it.
pub(super) fn still_provisional(stack: &Stack, roles: &Roles) -> Option<ProvisionalWant> {
    roles.provisional.as_ref().map(|phase| ProvisionalWant {
        from: phase.from.clone(),
        planned: phase.planned,
        window: stack.commit_window,
    })
}
