//! `hafog heal`: servers that do not do their work are made anew. `hafog scale`: as many servers as the spec says.

use super::drive::{Change, Job, drive};
use super::{Call, Ended, site};
use crate::model::id::SiteName;
use crate::model::stack::Stack;
use crate::plan::facts::Facts;
use crate::plan::{self, Plan};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where; the primary site and every standby if it is left out
    site: Option<SiteName>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    everywhere(call, "heal", args, plan::heal::heal).await
}

pub async fn scale(call: &Call, args: &Args) -> Ended {
    everywhere(call, "scale", args, plan::scale::scale).await
}

/// A verb that looks at every server of the sites where the stack runs.
async fn everywhere(
    call: &Call,
    verb: &str,
    args: &Args,
    planned: fn(&Stack, &Facts, &[SiteName]) -> Plan,
) -> Ended {
    let asked = args.site.clone();
    let verb = site::typed(verb, asked.as_ref());
    let planner = move |stack: &Stack, facts: &Facts| {
        let sites = match &asked {
            Some(name) => vec![site::named(stack, name)?],
            None => {
                let standbys = facts.roles.iter().flat_map(|roles| &roles.standbys);
                let primary = [facts.primary(&stack.primary)];
                primary.into_iter().chain(standbys).cloned().collect()
            }
        };
        Ok(planned(stack, facts, &sites))
    };
    let mut job = Job::new(verb, Box::new(planner));
    job.examines = true;
    job.compares = true;
    drive(call, &args.change, job).await
}
