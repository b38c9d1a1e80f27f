//! `hafog up`: the primary site, from nothing or from whatever is there.

use super::drive::{Change, Job, drive};
use super::{Call, Ended};
use crate::plan;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let planner = |stack: &_, facts: &_| Ok(plan::up::up(stack, facts));
    drive(
        call,
        &args.change,
        Job::new("up", Box::new(planner)).makes_images(),
    )
    .await
}
