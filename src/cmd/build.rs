//! `hafog build`: the images of every site, or of some.

use super::drive::{Change, Job, drive};
use super::{Call, Ended, open, site};
use crate::cloud::registry;
use crate::error::Fault;
use crate::exit;
use crate::image::recipe::Versions;
use crate::model::id::SiteName;
use crate::model::stack::Site;
use crate::plan;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Sites to build on; all of them if none is named
    #[arg(value_name = "SITE")]
    sites: Vec<SiteName>,
    /// Take the versions of packages that there are now, and write them to hafog.lock
    #[arg(long)]
    upgrade: bool,
    /// Leave the machine of an image that cannot be made as it is, to look at it
    #[arg(long)]
    keep_on_failure: bool,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let (asked, keeps) = (args.sites.clone(), args.keep_on_failure);
    let planner = move |stack: &_, facts: &_| {
        let sites = site::some_or_all(stack, &asked)?;
        let mut plan = plan::build::build(stack, facts, &sites);
        if keeps {
            plan.steps.iter_mut().for_each(plan::Step::stays);
        }
        Ok(plan)
    };
    let mut job = Job::new("build", Box::new(planner)).makes_images();
    if args.upgrade {
        let stack = open::load(call)?.stack;
        let cloud = |site: &Site| registry::find(&site.cloud);
        let mut clouds = stack.sites.iter().filter_map(cloud);
        if !clouds.any(|cloud| cloud.can.machines) {
            let why = "only clouds of whole machines do";
            let fault = Fault::refused("no site of this stack installs packages");
            return Err(fault.because(why).into());
        }
        job.versions = Versions::Upgraded;
    }
    let ended = drive(call, &args.change, job).await;
    if keeps && !matches!(ended, Ok(exit::DONE)) {
        call.ui.say(
            "what could not be made stays as it is: `hafog show facts` has its address, and the next `hafog build` goes on with it",
        );
    }
    ended
}
