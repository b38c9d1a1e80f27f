//! The address at which visitors reach a site.

use async_trait::async_trait;

use super::{Act, Context, Standing};
use crate::cloud::Entry;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::plan::action::SetEntry;
use crate::world::World;

impl SetEntry {
    async fn wanted(&self, world: &World) -> Result<Entry, Fault> {
        let servers = world.cloud(&self.site)?.servers().await?;
        let none = || Fault::unavailable(format!("no balancer runs in {}", self.site));
        Entry::of(&world.stack, &self.site, servers.iter()).ok_or_else(none)
    }
}

#[async_trait]
impl Act for SetEntry {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        let wanted = self.wanted(world).await?;
        let leads = world.cloud(&self.site)?.entry().await?;
        if leads.as_ref() != Some(&wanted) {
            return Ok(Standing::Ready);
        }
        let (address, to) = (wanted.address, wanted.to);
        Ok(Standing::done(format!("{address} leads to {to}")))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let wanted = self.wanted(world).await.nothing_changed()?;
        let cloud = world.cloud(&self.site).nothing_changed()?;
        cloud.lead(&wanted).await
    }
}
