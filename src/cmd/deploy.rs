//! `hafog deploy`: new images on running servers, standby first.

use super::drive::{Change, Job, drive};
use super::{Call, Ended};
use crate::plan;
use crate::plan::deploy::Batch;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many servers of a group change at the same time; one always stays in rotation
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let batch = Batch(args.batch.into());
    let planner = move |stack: &_, facts: &_| Ok(plan::deploy::deploy(stack, facts, batch));
    drive(
        call,
        &args.change,
        Job::new("deploy", Box::new(planner)).makes_images(),
    )
    .await
}
