//! `hafog failover` and `hafog switchover`: move the stack to its standby, forced or without loss.

use std::collections::BTreeSet;

use super::drive::{Change, Job, drive};
use super::{Call, Ended, site};
use crate::model::id::SiteName;
use crate::model::stack::Stack;
use crate::plan::facts::Facts;
use crate::plan::failover::{Options, failover};
use crate::plan::{Intent, Plan};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to; may be left out if there is only one standby
    site: Option<SiteName>,
    /// Lose nothing: the same as `hafog switchover`
    #[arg(long, conflicts_with = "assume_down")]
    planned: bool,
    /// Ask nothing of this site: neither its cloud nor its servers; may be repeated
    #[arg(long, value_name = "SITE")]
    assume_down: Vec<SiteName>,
    #[command(flatten)]
    change: Change,
}

#[derive(clap::Args, Debug)]
pub struct SwitchoverArgs {
    /// Where to; may be left out if there is only one standby
    site: Option<SiteName>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let asked = args.site.as_ref();
    if args.planned {
        return planned(call, asked, &args.change).await;
    }
    let down: BTreeSet<SiteName> = args.assume_down.iter().cloned().collect();
    // A broken spec does not stand in the way of a run that was begun before: the road decides.
    if let Ok(loaded) = super::open::load(call) {
        for name in &down {
            site::named(&loaded.stack, name)?;
        }
    }
    let mut verb = site::typed("failover", asked);
    down.iter()
        .for_each(|site| verb.push_str(&format!(" --assume-down {site}")));
    let mut job = job(verb, asked, &args.change, false, down.clone());
    job.assume_down = down;
    drive(call, &args.change, job).await
}

pub async fn switchover(call: &Call, args: &SwitchoverArgs) -> Ended {
    planned(call, args.site.as_ref(), &args.change).await
}

async fn planned(call: &Call, asked: Option<&SiteName>, change: &Change) -> Ended {
    let verb = site::typed("switchover", asked);
    drive(
        call,
        change,
        job(verb, asked, change, true, BTreeSet::new()),
    )
    .await
}

fn job(
    verb: String,
    asked: Option<&SiteName>,
    change: &Change,
    planned: bool,
    down: BTreeSet<SiteName>,
) -> Job {
    let accept = change.accept.clone();
    let to = asked.cloned();
    let planner = move |stack: &Stack, facts: &Facts| {
        let to = target(stack, facts, to.as_ref())?;
        let options = Options {
            planned,
            assume_down: down.contains(facts.primary(&stack.primary)),
            accept: accept.clone(),
            rollback: false,
        };
        Ok::<Plan, _>(failover(stack, facts, &to, &options))
    };
    let mut job = Job::new(verb, Box::new(planner));
    let asked = asked.cloned();
    job.same = Box::new(move |intent| match intent {
        Intent::Failover {
            to, planned: was, ..
        } => *was == planned && asked.as_ref().is_none_or(|asked| asked == to),
        _ => false,
    });
    job
}

/// The named site, or the only standby. A stack without one is for the planner to refuse, with its hints.
fn target(
    stack: &Stack,
    facts: &Facts,
    asked: Option<&SiteName>,
) -> Result<SiteName, crate::error::Fault> {
    let primary = facts.primary(&stack.primary);
    let to = site::only(stack, asked, &site::standbys(stack, facts), "standby")?;
    if to == *primary {
        let fault = crate::error::Fault::refused(format!("`{to}` is the primary site already"));
        return Err(fault.hint("hafog status"));
    }
    Ok(to)
}
