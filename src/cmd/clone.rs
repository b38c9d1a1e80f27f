//! `hafog clone`: makes a standby of the stack at another site.

use super::drive::{Change, Job, drive};
use super::{Call, Ended, site};
use crate::error::{Fault, Kind};
use crate::model::id::SiteName;
use crate::model::stack::Stack;
use crate::plan;
use crate::plan::facts::Facts;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to; may be left out if there is only one other site
    site: Option<SiteName>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let asked = args.site.clone();
    let verb = site::typed("clone", asked.as_ref());
    let planner = move |stack: &Stack, facts: &Facts| {
        let primary = facts.primary(&stack.primary);
        let others = site::others(stack, primary);
        let to = site::only(stack, asked.as_ref(), &others, "other site")?;
        if to == *primary {
            let fault = Fault::of(Kind::Usage, format!("`{to}` is the primary site"));
            return Err(fault.hint("hafog status"));
        }
        Ok(plan::up::clone(stack, facts, &to))
    };
    drive(
        call,
        &args.change,
        Job::new(verb, Box::new(planner)).makes_images(),
    )
    .await
}
