//! `hafog destroy`: removes sites, or everything.

use super::drive::{Change, Job, drive};
use super::{Call, Ended, site};
use crate::model::id::SiteName;
use crate::model::stack::Stack;
use crate::plan;
use crate::plan::facts::Facts;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Sites to remove; everything if none is named
    #[arg(value_name = "SITE")]
    sites: Vec<SiteName>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let asked = args.sites.clone();
    let mut verb = "destroy".to_owned();
    asked
        .iter()
        .for_each(|site| verb.push_str(&format!(" {site}")));
    let planner = move |stack: &Stack, facts: &Facts| {
        let sites = site::some_or_all(stack, &asked)?;
        Ok(plan::destroy::destroy(stack, facts, &sites))
    };
    let mut job = Job::new(verb, Box::new(planner));
    job.severe = true;
    drive(call, &args.change, job).await
}
