//! Databases: an empty one, and the end of a replica.

use async_trait::async_trait;

use super::{Act, Context, Standing};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::plan::action::*;

#[async_trait]
impl Act for CreateDatabase {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        // Made whole or not is only certain once it has been named as the writer: until then `create` completes it.
        let writer = world.writer(&self.database).await?;
        match writer.and_then(|(writer, _)| writer.node) {
            Some(node) if node == self.node => {
                Ok(Standing::done(format!("`{}` is on {node}", self.database)))
            }
            Some(node) => Ok(Standing::blocked(format!(
                "`{}` is on {node} already",
                self.database
            ))),
            None if context.own_outputs().await.is_empty() => Ok(Standing::Ready),
            None => Ok(Standing::done(format!(
                "`{}` is made on {}",
                self.database, self.node
            ))),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let node = world
            .node(&self.database, &self.node)
            .await
            .nothing_changed()?;
        let reach = world.reach(&node.host.site).nothing_changed()?;
        let password = match &node.database.password {
            Some(name) => Some(world.secrets.read(name).nothing_changed()?),
            None => None,
        };
        #[cfg(debug_assertions)]
        crate::cut::panics("create-database", &(&node, &password));
        let engine = world.engine(&node.database).nothing_changed()?;
        engine
            .create(
                &node,
                password.as_ref().map(|secret| secret.expose()),
                &reach,
            )
            .await?;
        let made = crate::journal::event::Output::Server {
            name: self.node.to_string(),
            id: "database".to_owned(),
        };
        context.made(made).await.partial()
    }
}

#[async_trait]
impl Act for ForgetReplica {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        let node = world.node(&self.database, &self.primary).await?;
        let reach = world.reach(&node.host.site)?;
        let status = world.engine(&node.database)?.status(&node, &reach).await?;
        if status
            .followers
            .iter()
            .any(|follower| follower.node == self.replica)
        {
            return Ok(Standing::Ready);
        }
        Ok(Standing::done(format!(
            "{} keeps nothing for {}",
            self.primary, self.replica
        )))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let node = world
            .node(&self.database, &self.primary)
            .await
            .nothing_changed()?;
        let reach = world.reach(&node.host.site).nothing_changed()?;
        // A replica that still streams holds its slot; it goes with this command anyway.
        if let Ok(replica) = world.node(&self.database, &self.replica).await
            && let Ok(reach) = world.reach(&replica.host.site)
        {
            let engine = world.engine(&replica.database).nothing_changed()?;
            // Its server may be removed at the same moment: what counts is whether the primary can let go of it.
            let _ = engine.stop_now(&replica, &reach).await;
        }
        world
            .engine(&node.database)
            .nothing_changed()?
            .forget(&node, &self.replica, &reach)
            .await
    }
}
