//! `hafog build`: the images of every site, or of some.

use super::drive::{Change, Job, drive};
use super::{Call, Ended, site};
use crate::model::id::SiteName;
use crate::plan;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Sites to build on; all of them if none is named
    #[arg(value_name = "SITE")]
    sites: Vec<SiteName>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let asked = args.sites.clone();
    let planner = move |stack: &_, facts: &_| {
        let sites = site::some_or_all(stack, &asked)?;
        Ok(plan::build::build(stack, facts, &sites))
    };
    drive(call, &args.change, Job::new("build", Box::new(planner))).await
}
