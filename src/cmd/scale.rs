//! `hafog scale`: as many servers as the spec says.

use super::drive::{Change, drive};
use super::{Call, Ended, heal};
use crate::model::id::SiteName;
use crate::plan;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where; the primary site and every standby if it is left out
    site: Option<SiteName>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let job = heal::job("scale", args.site.clone(), plan::scale::scale);
    drive(call, &args.change, job).await
}
