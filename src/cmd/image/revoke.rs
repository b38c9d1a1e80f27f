//! `hafog image revoke`: what was built with something bad in it is not started again, whoever asks.

use super::super::drive::{Change, Job, drive};
use super::super::{Call, Ended};
use crate::error::{Fault, Kind};
use crate::model::id::{ImageName, RecipeName};
use crate::plan::facts::Facts;
use crate::plan::revoke;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// An image, or a recipe: the image that it makes now
    image: ImageName,
    /// What is wrong with it: whoever is refused reads this
    #[arg(long, value_name = "WHY", required_unless_present = "lift")]
    because: Option<String>,
    /// Let it be used again
    #[arg(long, conflicts_with = "because")]
    lift: bool,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let (asked, why) = (args.image.clone(), args.because.clone());
    let planner = move |_: &_, facts: &Facts| {
        let image = known(facts, &asked)?;
        Ok(revoke::revoke(facts, &image, why.as_deref()))
    };
    let job = Job::new("image revoke", Box::new(planner)).names_images();
    drive(call, &args.change, job).await
}

/// The image that is meant: one that a recipe makes now, that is at a site, that a server runs, or that is revoked.
fn known(facts: &Facts, asked: &ImageName) -> Result<ImageName, Fault> {
    if let Some(image) = facts.images.get(&RecipeName::new(asked.as_str())) {
        return Ok(image.clone());
    }
    let at_sites = facts.sites.values().flat_map(|site| {
        let run = site.servers.values().filter_map(|one| one.image.as_ref());
        site.images.iter().chain(run)
    });
    let mut all = at_sites
        .chain(facts.images.values())
        .chain(facts.revoked.keys());
    if all.any(|image| image == asked) {
        return Ok(asked.clone());
    }
    let message = format!("there is no image `{asked}`");
    Err(Fault::of(Kind::Usage, message).hint("hafog image list"))
}
