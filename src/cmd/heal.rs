//! `hafog heal`: servers that do not do their work are made anew.

use super::drive::{Change, Job, drive};
use super::{Call, Ended, site};
use crate::model::id::SiteName;
use crate::model::stack::Stack;
use crate::plan;
use crate::plan::facts::Facts;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where; the primary site and every standby if it is left out
    site: Option<SiteName>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let asked = args.site.clone();
    let verb = site::typed("heal", asked.as_ref());
    let planner = move |stack: &Stack, facts: &Facts| {
        let sites = match &asked {
            Some(name) => vec![site::named(stack, name)?],
            None => {
                let standbys = facts.roles.iter().flat_map(|roles| &roles.standbys);
                let primary = [facts.primary(&stack.primary)];
                primary.into_iter().chain(standbys).cloned().collect()
            }
        };
        Ok(plan::heal::heal(stack, facts, &sites))
    };
    let mut job = Job::new(verb, Box::new(planner));
    job.examines = true;
    job.compares = true;
    drive(call, &args.change, job).await
}
