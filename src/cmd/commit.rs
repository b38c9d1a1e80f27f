//! `hafog commit`: ends the provisional phase after a flip.

use super::drive::{Change, Job, drive};
use super::{Call, Ended};
use crate::plan;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let planner = |stack: &_, facts: &_| Ok(plan::commit::commit(stack, facts));
    drive(call, &args.change, Job::new("commit", Box::new(planner))).await
}
