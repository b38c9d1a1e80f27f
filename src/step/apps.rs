//! The application servers of a site after its database moved to another node there.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::role::{all_told, app_servers};
use super::{Act, Context, Standing};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::plan::action::*;
use crate::shell::Host;

impl LeadApps {
    fn one(&self, host: &Host) -> ConfigureServer {
        ConfigureServer {
            site: self.site.clone(),
            server: host.name.clone(),
        }
    }
}

#[async_trait]
impl Act for LeadApps {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let (running, asleep) = app_servers(context.world, &self.site).await?;
        let asked = running.iter().map(|host| async {
            let one = self.one(host);
            one.check(context).await
        });
        for standing in join_all(asked).await {
            if !matches!(standing?, Standing::Done(_)) {
                return Ok(Standing::Ready);
            }
        }
        let told = format!("{} servers of {} are told", running.len(), self.site);
        Ok(all_told(told, &asleep))
    }

    /// All at once: without their database none of them serves anybody.
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let (running, _) = app_servers(context.world, &self.site)
            .await
            .nothing_changed()?;
        let told = running.iter().map(|host| async {
            let one = self.one(host);
            match one.check(context).await.nothing_changed()? {
                Standing::Done(_) => Ok(()),
                Standing::Ready | Standing::Blocked { .. } => one.act(context).await,
            }
        });
        join_all(told).await.into_iter().collect::<Result<(), _>>()
    }
}
