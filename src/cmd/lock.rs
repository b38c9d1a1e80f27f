//! `hafog lock`: who may change the stack now, and how to take that right away from somebody who is gone.

use super::{Call, Ended, open};
use crate::clock::{Clock, RealClock};
use crate::exit;
use crate::run::lease;

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// Show who holds the lease
    Status,
    /// Free the lease of a holder that is gone; a holder that lives stops before its next step
    Release {
        /// The epoch that `hafog lock status` shows, so that nobody else's lease is freed
        #[arg(long, value_name = "NUMBER")]
        epoch: u64,
    },
}

pub async fn run(call: &Call, verb: &Verb) -> Ended {
    let (stack, stores) = open::stores_of(call)?;
    match verb {
        Verb::Status => {
            let lease = lease::show(&stores).await?;
            call.ui
                .result(&lease, || text(stack.name.as_str(), lease.as_ref()));
        }
        Verb::Release { epoch } => {
            lease::release_other(&stores, *epoch).await?;
            let lease = lease::show(&stores).await?;
            call.ui
                .result(&lease, || text(stack.name.as_str(), lease.as_ref()));
        }
    }
    Ok(exit::DONE)
}

fn text(stack: &str, lease: Option<&lease::Lease>) -> String {
    let Some(lease) = lease else {
        return format!("{stack}: free, never taken\n");
    };
    match &lease.holder {
        None => format!("{stack}: free, epoch {}\n", lease.epoch),
        Some(holder) => {
            let gone = holder.is_gone(lease.epoch, RealClock.now());
            let gone = gone.map(|why| format!("  {why}\n")).unwrap_or_default();
            format!(
                "{stack}: held by {}\n  for `{}` since {:.0}, until {:.0} unless it is renewed\n  epoch {}\n{gone}",
                holder.who, holder.reason, holder.since, holder.until, lease.epoch
            )
        }
    }
}
