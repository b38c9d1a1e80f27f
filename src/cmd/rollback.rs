//! `hafog rollback`: back to where the stack was before the last flip, while that is provisional.

use super::drive::{Change, Job, drive};
use super::{Call, Ended};
use crate::model::id::SiteName;
use crate::model::stack::Stack;
use crate::plan::facts::Facts;
use crate::plan::failover::{Options, failover};
use crate::plan::safety::refusal;
use crate::plan::{Intent, Plan, PlanKind};

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let accept = args.change.accept.clone();
    let planner = move |stack: &Stack, facts: &Facts| {
        let provisional = facts
            .roles
            .as_ref()
            .and_then(|roles| roles.provisional.as_ref());
        Ok(match provisional {
            Some(provisional) => back(stack, facts, &provisional.from, &accept),
            None => nothing(stack, facts),
        })
    };
    let mut job = Job::new("rollback", Box::new(planner));
    job.same = Box::new(|intent| matches!(intent, Intent::Rollback { .. }));
    drive(call, &args.change, job).await
}

/// A switchover to the site that was primary before.
pub fn back(stack: &Stack, facts: &Facts, to: &SiteName, accept: &[String]) -> Plan {
    let options = Options {
        planned: true,
        assume_down: false,
        accept: accept.to_vec(),
        rollback: true,
    };
    failover(stack, facts, to, &options)
}

fn nothing(stack: &Stack, facts: &Facts) -> Plan {
    let site = facts.primary(&stack.primary).clone();
    let intent = Intent::Rollback {
        from: site.clone(),
        to: site,
    };
    let mut plan = Plan::new(PlanKind::Directional, intent);
    let why = "no flip is provisional";
    plan.refusals
        .push(refusal("nothing-provisional", why, "hafog status"));
    plan
}
