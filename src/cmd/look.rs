//! Opening for a verb that only looks: no lease, nothing journaled.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Call, Ended, Faults, drive, open};
use crate::model::id::SiteName;
use crate::run::open::{OpenOptions, Session};
use crate::world::World;

/// The world as the spec has it, opened and observed.
pub async fn session(call: &Call, verb: &str) -> Result<Session, Faults> {
    let (world, _) = open::world(call, &open::Without::images()).await?;
    observed(world, verb, BTreeSet::new()).await
}

/// The same, with the names of the images that the recipes make now, where they can be read.
pub async fn session_with_images(
    call: &Call,
    verb: &str,
    images: open::Images,
) -> Result<Session, Faults> {
    let without = open::Without {
        images,
        ..Default::default()
    };
    let (world, _) = open::world(call, &without).await?;
    observed(world, verb, BTreeSet::new()).await
}

pub async fn observed(
    world: World,
    verb: &str,
    assume_down: BTreeSet<SiteName>,
) -> Result<Session, Faults> {
    let options = OpenOptions {
        assume_down,
        lock_timeout: Duration::ZERO,
        reason: None,
        verb: verb.to_owned(),
        take_lease: false,
    };
    Ok(crate::run::open::open(world, &options).await?)
}

/// Ends a verb that only looked.
pub async fn done(session: Session, code: u8) -> Ended {
    drive::close(session, Ok(code)).await
}
