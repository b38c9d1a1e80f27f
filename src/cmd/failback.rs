//! `hafog failback`: the old primary's site follows again, and then is primary again, without loss.

use super::drive::{Change, Job, drive};
use super::{Call, Ended, rollback, site};
use crate::error::Fault;
use crate::model::id::SiteName;
use crate::model::stack::Stack;
use crate::plan::facts::Facts;
use crate::plan::failover::{Options, failover};
use crate::plan::{Intent, Plan, PlanKind, rejoin};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The site to go back to; may be left out if only one was left behind
    site: Option<SiteName>,
    /// Stop when the site is a standby again
    #[arg(long)]
    rejoin_only: bool,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let asked = args.site.clone();
    let verb = site::typed("failback", asked.as_ref());
    let mut job = Job::new(verb, {
        let asked = asked.clone();
        Box::new(move |stack, facts| follow_again(stack, facts, asked.as_ref()))
    });
    job.compares = true;
    if !args.rejoin_only {
        let accept = args.change.accept.clone();
        let asked = asked.clone();
        let home = move |stack: &_, facts: &_| go_home(stack, facts, asked.as_ref(), &accept);
        job.plans.push(Box::new(home));
    }
    // The second plan is a switchover or a rollback, whichever it was when it was made.
    job.same = Box::new(move |intent| match intent {
        Intent::Failover {
            to, planned: true, ..
        }
        | Intent::Rollback { to, .. } => asked.as_ref().is_none_or(|asked| asked == to),
        _ => false,
    });
    drive(call, &args.change, job).await
}

/// The named site; else the one that was left behind, the one before the last flip, the only standby.
fn old_home(stack: &Stack, facts: &Facts, asked: Option<&SiteName>) -> Result<SiteName, Fault> {
    let primary = facts.primary(&stack.primary);
    let Some(roles) = &facts.roles else {
        return site::only(stack, asked, &site::others(stack, primary), "other site");
    };
    let before = roles
        .provisional
        .as_ref()
        .map(|provisional| provisional.from.clone());
    let candidates = match (roles.left_behind.as_slice(), before) {
        ([], Some(before)) => vec![before],
        ([], None) => roles.standbys.clone(),
        (left, _) => left.to_vec(),
    };
    let to = site::only(stack, asked, &candidates, "site to go back to")?;
    if to == *primary {
        let fault = Fault::refused(format!("`{to}` is the primary site already"));
        return Err(fault.hint("hafog status"));
    }
    Ok(to)
}

fn follow_again(stack: &Stack, facts: &Facts, asked: Option<&SiteName>) -> Result<Plan, Fault> {
    let to = old_home(stack, facts, asked)?;
    let follows = facts
        .roles
        .as_ref()
        .is_some_and(|roles| roles.standbys.contains(&to));
    if follows {
        return Ok(Plan::new(PlanKind::Converging, Intent::Rejoin { site: to }));
    }
    Ok(rejoin::rejoin(stack, facts, &to))
}

fn go_home(
    stack: &Stack,
    facts: &Facts,
    asked: Option<&SiteName>,
    accept: &[String],
) -> Result<Plan, Fault> {
    let to = old_home(stack, facts, asked)?;
    let provisional = facts
        .roles
        .as_ref()
        .and_then(|roles| roles.provisional.as_ref());
    if provisional.is_some_and(|provisional| provisional.from == to) {
        return Ok(rollback::back(stack, facts, &to, accept));
    }
    let options = Options {
        planned: true,
        assume_down: false,
        accept: accept.to_vec(),
        rollback: false,
    };
    Ok(failover(stack, facts, &to, &options))
}
