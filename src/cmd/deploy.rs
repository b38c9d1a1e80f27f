//! `hafog deploy`: new images on running servers, standby first.

use super::drive::{Change, Job, drive};
use super::{Call, Ended};
use crate::plan;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let planner = |stack: &_, facts: &_| Ok(plan::deploy::deploy(stack, facts));
    drive(call, &args.change, Job::new("deploy", Box::new(planner))).await
}
