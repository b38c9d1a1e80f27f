//! What is let in at the sites that have a network of their own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::{Act, Context, Standing};
use crate::cloud::{Firewall, Server};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::SiteName;
use crate::plan::action::SetFirewall;
use crate::world::World;

/// The servers of the sites that answer.
async fn servers(world: &World) -> BTreeMap<SiteName, Vec<Server>> {
    let sites = world.stack.sites.iter().map(|site| &site.name);
    let asked = sites.filter(|site| !world.assumed_down.contains(site));
    let asked = asked.map(|site| async move {
        let there = world.cloud(site).ok()?.servers().await.ok()?;
        Some((site.clone(), there))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

struct Look {
    /// What is not let in as it should be.
    wrong: Vec<(SiteName, Firewall)>,
    told: Vec<String>,
}

impl SetFirewall {
    async fn look(&self, world: &World) -> Result<Look, Fault> {
        let servers = servers(world).await;
        let mut look = Look {
            wrong: Vec::new(),
            told: Vec::new(),
        };
        for site in &self.sites {
            let Some(there) = servers.get(site) else {
                look.told
                    .push(format!("{site} does not answer and is not told"));
                continue;
            };
            let before = world.cloud(site)?.firewall().await?;
            let wanted = Firewall::of(&world.stack, site, &servers, before.as_ref());
            match before {
                None if there.is_empty() => {}
                Some(before) if before == wanted => look.told.push(format!(
                    "{site} lets in {} servers of the stack, and everybody to the open ports of {}",
                    wanted.own.len(),
                    wanted.open.len()
                )),
                _ => look.wrong.push((site.clone(), wanted)),
            }
        }
        Ok(look)
    }
}

#[async_trait]
impl Act for SetFirewall {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let look = self.look(context.world).await?;
        Ok(match look.wrong.is_empty() {
            true => Standing::done(look.told.join("; ")),
            false => Standing::Ready,
        })
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let look = self.look(world).await.nothing_changed()?;
        for (site, wanted) in &look.wrong {
            world.cloud(site).nothing_changed()?.allow(wanted).await?;
        }
        Ok(())
    }
}
