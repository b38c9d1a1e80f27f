//! Servers: create, boot, delete.

use std::time::Duration;

use async_trait::async_trait;

use super::{Act, Context, Standing, Tags};
use crate::cloud::{OnceKey, Power, Server, ServerState};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::journal::event::Output;
use crate::model::id::{ServerName, SiteName};
use crate::plan::action::*;
use crate::plan::build::MADE_FOR;
use crate::shell::Host;
use crate::wait;
use crate::world::World;

impl CreateServer {
    /// The same in every attempt and every run: a server whose creation was never recorded is found by it.
    fn once(&self, context: &Context<'_>) -> OnceKey {
        let made_for = self.want.tags.get(MADE_FOR).map_or("", String::as_str);
        OnceKey(format!(
            "{} {} {made_for}",
            context.world.stack.name, self.want.name
        ))
    }

    fn is_made_for_this(&self, found: &Server) -> bool {
        found.tags.get(MADE_FOR) == self.want.tags.get(MADE_FOR)
    }

    /// Something half-made for another image stands in the way, or a builder that cannot be used again. A server that
    /// exists already and is silent may be at work.
    fn is_in_the_way(&self, context: &Context<'_>, found: &Server) -> bool {
        if !context.world.stack.seals(&self.site) {
            return found.state == ServerState::Pending && !self.is_made_for_this(found);
        }
        let half_made = matches!(found.state, ServerState::Pending | ServerState::Failed(_));
        let is_builder = self.want.image.is_none();
        // A builder that is off was being sealed: it is of no use any longer.
        let sealed =
            is_builder && (found.state.sleeps() || matches!(found.state, ServerState::Failed(_)));
        sealed || (is_builder || half_made) && !self.is_made_for_this(found)
    }
}

/// Waits until the server has booted.
pub(super) async fn runs(
    world: &World,
    site: &SiteName,
    server: &ServerName,
    limit: Duration,
) -> Result<Host, Fault> {
    let what = format!("{server} is running");
    wait::until(world.clock.as_ref(), &what, limit, || async {
        match world.find(site, server).await {
            Ok(Some(Server {
                state: ServerState::Running,
                host: Some(host),
                ..
            })) => Ok(host),
            Ok(Some(found)) => Err(format!("it is {:?}", found.state)),
            Ok(None) => Err("it is not there".to_owned()),
            Err(fault) => Err(fault.to_string()),
        }
    })
    .await
}

#[async_trait]
impl Act for CreateServer {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let Some(found) = context.world.find(&self.site, &self.want.name).await? else {
            return Ok(Standing::Ready);
        };
        if self.is_in_the_way(context, &found) {
            return Ok(Standing::Ready);
        }
        match (&found.state, &found.host) {
            (ServerState::Running, Some(host)) => Ok(Standing::done(format!(
                "{} at {}",
                found.name, host.address
            ))),
            (ServerState::Failed(why), _) => {
                Ok(Standing::blocked(format!("{} failed: {why}", found.name)))
            }
            (state, _) if state.sleeps() => Ok(Standing::blocked(format!(
                "{} is there, and it is {}",
                found.name,
                state.word()
            ))),
            _ => Ok(Standing::Ready),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let cloud = context.world.cloud(&self.site).nothing_changed()?;
        let found = context
            .world
            .find(&self.site, &self.want.name)
            .await
            .nothing_changed()?;
        if found.is_some_and(|found| self.is_in_the_way(context, &found)) {
            cloud.delete_server(&self.want.name).await?;
        }
        let server = cloud.create_server(&self.want, &self.once(context)).await?;
        context
            .made(Output::Server {
                name: server.name.to_string(),
                id: server.id,
            })
            .await
            .partial()?;
        let limit = context.step.limit.0;
        let runs = runs(context.world, &self.site, &self.want.name, limit);
        runs.await.map(drop).partial()
    }

    /// A server that exists already is let go only while nothing was applied to it: it may be one of before this run.
    async fn undo(&self, context: &Context<'_>) -> Result<String, Trouble> {
        let (world, name) = (context.world, &self.want.name);
        let cloud = world.cloud(&self.site).nothing_changed()?;
        if !world.stack.seals(&self.site) {
            let found = world.find(&self.site, name).await.nothing_changed()?;
            let is_bare = |found: &Server| match found.state {
                ServerState::Pending => true,
                ServerState::Running => found.image.is_none(),
                ServerState::Off
                | ServerState::Frozen
                | ServerState::Isolated
                | ServerState::Failed(_) => false,
            };
            if found.is_some_and(|found| !is_bare(&found)) {
                return Ok(format!("{name} stays as it is: it is in use, or silent"));
            }
        }
        cloud.delete_server(name).await?;
        Ok(format!("{name} is removed"))
    }
}

#[async_trait]
impl Act for PowerOn {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        match context.world.find(&self.site, &self.server).await? {
            Some(found) if found.state == ServerState::Running => {
                Ok(Standing::done(format!("{} is running", self.server)))
            }
            Some(_) => Ok(Standing::Ready),
            None => Ok(Standing::blocked(format!("{} is gone", self.server))),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let cloud = context.world.cloud(&self.site).nothing_changed()?;
        let believes = context
            .world
            .find(&self.site, &self.server)
            .await
            .nothing_changed()?
            .is_some_and(|found| {
                matches!(found.state, ServerState::Frozen | ServerState::Isolated)
            });
        if believes {
            // A machine that is frozen or cut off still believes what it believed: it is off before it may boot.
            cloud.power(&self.server, Power::Off).await?;
        }
        cloud.power(&self.server, Power::On).await
    }
}

#[async_trait]
impl Act for LetGo {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let found = context.world.find(&self.site, &self.server).await?;
        let epoch = self.epoch.to_string();
        let is_marked = found.is_none_or(|one| one.tags.get(LEAVING_TAG) == Some(&epoch));
        Ok(match is_marked {
            true => Standing::done(format!("{} may go", self.server)),
            false => Standing::Ready,
        })
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let cloud = context.world.cloud(&self.site).nothing_changed()?;
        let tags = Tags::from([(LEAVING_TAG.to_owned(), self.epoch.to_string())]);
        cloud.tag_server(&self.server, &tags).await
    }
}

#[async_trait]
impl Act for DeleteServer {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        match context.world.find(&self.site, &self.server).await? {
            Some(_) => Ok(Standing::Ready),
            None => Ok(Standing::done(format!("{} is gone", self.server))),
        }
    }

    /// First its way to the arbiter, so that nothing is left there of a server that nobody finds any more.
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let cloud = world.cloud(&self.site).nothing_changed()?;
        let dismissed = world.stores.dismiss(&self.server).await;
        dismissed.nothing_changed()?;
        let deleted = cloud.delete_server(&self.server).await;
        deleted.map_err(|trouble| match trouble {
            Trouble::NothingChanged(fault) => Trouble::Partial(fault),
            trouble => trouble,
        })
    }
}

#[async_trait]
impl Act for RemoveSite {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let cloud = context.world.cloud(&self.site)?;
        if cloud.servers().await?.is_empty()
            && cloud.images().await?.is_empty()
            && context.own_outputs().await.len() > 1
        {
            return Ok(Standing::done(format!("{} owns nothing", self.site)));
        }
        Ok(Standing::Ready)
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let mark = || Output::Server {
            name: self.site.to_string(),
            id: "removed".to_owned(),
        };
        context.made(mark()).await.nothing_changed()?;
        context
            .world
            .cloud(&self.site)
            .nothing_changed()?
            .remove_site()
            .await?;
        context.made(mark()).await.partial()
    }
}
