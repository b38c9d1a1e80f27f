//! Replicas: seeded while the primary is in use, pointed elsewhere, or brought back from an old history.

use async_trait::async_trait;

use super::{Act, Context, Standing};
use crate::db::{Divergence, Link, Node, NodeRole, NodeStatus, Reach};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::journal::event::Output;
use crate::model::id::{DatabaseName, ServerName};
use crate::plan::action::*;
use crate::wait;
use crate::world::World;

/// Places of kept data that one line of evidence names.
const KEPT_MOST: usize = 3;

/// A node with what is needed to get to it.
async fn open(
    world: &World,
    database: &DatabaseName,
    server: &ServerName,
) -> Result<(Node, Reach), Fault> {
    let node = world.node(database, server).await?;
    let reach = world.reach(&node.host.site)?;
    Ok((node, reach))
}

/// Whether `status` is of a replica that streams from `upstream`, on the upstream's history.
fn follows(status: &NodeStatus, upstream: &Node, of: &NodeStatus) -> bool {
    status.role == NodeRole::Replica
        && status.system == of.system
        && matches!(&status.link, Some(Link::Up { from }) if from == upstream.host.name.as_str())
}

async fn standing(
    context: &Context<'_>,
    database: &DatabaseName,
    from: &ServerName,
    to: &ServerName,
) -> Result<Standing, Fault> {
    let world = context.world;
    let (upstream, up_reach) = open(world, database, from).await?;
    let (replica, reach) = open(world, database, to).await?;
    let engine = world.engine(&replica.database)?;
    if !engine.has_data(&replica, &reach).await? {
        return Ok(Standing::Ready);
    }
    let Ok(status) = engine.status(&replica, &reach).await else {
        return Ok(Standing::Ready);
    };
    let of = engine.status(&upstream, &up_reach).await?;
    if follows(&status, &upstream, &of) {
        let evidence = format!("{to} streams from {from}, at {}", status.position);
        return Ok(Standing::Done(evidence));
    }
    Ok(Standing::Ready)
}

/// With the places of what is kept there and not named yet: nobody else may have it, and it takes room.
async fn naming_kept(
    context: &Context<'_>,
    database: &DatabaseName,
    server: &ServerName,
    standing: Standing,
) -> Result<Standing, Fault> {
    let Standing::Done(evidence) = standing else {
        return Ok(standing);
    };
    let (node, reach) = open(context.world, database, server).await?;
    let engine = context.world.engine(&node.database)?;
    Ok(Standing::Done(match engine.kept(&node, &reach).await {
        Ok(mut kept) => {
            kept.retain(|folder| !evidence.contains(folder));
            let older = kept.len().saturating_sub(KEPT_MOST);
            let named = kept.split_off(older).join(", ");
            match (named.is_empty(), older) {
                (true, _) => evidence,
                (false, 0) => format!("{evidence}; set aside there: {named}"),
                (false, older) => {
                    format!("{evidence}; set aside there: {named} and {older} older ones")
                }
            }
        }
        Err(why) => format!("{evidence}; what is set aside there is unknown: {why}"),
    }))
}

impl SeedReplica {
    /// Whether the replica has what the writer never had: it can never follow again, and waiting for it would only cost time.
    async fn is_diverged(&self, context: &Context<'_>, replica: &Node, reach: &Reach) -> bool {
        let compare = async {
            let world = context.world;
            let writer = world
                .writer(&self.database)
                .await?
                .and_then(|(writer, _)| writer.node);
            let Some(writer) = writer.filter(|writer| *writer != self.to) else {
                return Ok(false);
            };
            let (primary, _) = open(world, &self.database, &writer).await?;
            let engine = world.engine(&replica.database)?;
            let divergence = engine.divergence(replica, &primary, reach).await?;
            Ok::<bool, Fault>(matches!(divergence, Divergence::Diverged { .. }))
        };
        compare.await.unwrap_or(false)
    }
}

#[async_trait]
impl Act for SeedReplica {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        if self.always && context.own_outputs().await.is_empty() {
            return Ok(Standing::Ready);
        }
        let standing = standing(context, &self.database, &self.from, &self.to).await?;
        naming_kept(context, &self.database, &self.to, standing).await
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let (upstream, up_reach) = open(world, &self.database, &self.from)
            .await
            .nothing_changed()?;
        let (replica, reach) = open(world, &self.database, &self.to)
            .await
            .nothing_changed()?;
        let engine = world.engine(&replica.database).nothing_changed()?;
        // The upstream's site lets the replica in before the replica asks.
        engine.admit(&upstream, &up_reach).await?;
        let may_follow = !self.always
            && engine.has_data(&replica, &reach).await.unwrap_or(false)
            && !self.is_diverged(context, &replica, &reach).await;
        if may_follow {
            context
                .progress(format!(
                    "{} has data: pointing it at {}",
                    self.to, self.from
                ))
                .await;
            // It may come back by itself: a replica on the same history needs only the right upstream.
            let pointed = async {
                let _ = engine.start(&replica, &reach).await;
                engine.follow(&replica, &upstream, &reach).await?;
                let what = format!("{} streams from {}", self.to, self.from);
                let limit = std::time::Duration::from_secs(8);
                wait::until(world.clock.as_ref(), &what, limit, || async {
                    match self.check(context).await {
                        Ok(Standing::Done(_)) => Ok(()),
                        Ok(_) => Err("it does not stream".to_owned()),
                        Err(fault) => Err(fault.to_string()),
                    }
                })
                .await
                .unknown()
            };
            if pointed.await.is_ok() {
                return Ok(());
            }
        }
        context
            .progress(format!("copying {} to {}", self.from, self.to))
            .await;
        engine.seed(&upstream, &replica, &reach).await?;
        context
            .made(Output::Server {
                name: self.to.to_string(),
                id: "seeded".to_owned(),
            })
            .await
            .partial()
    }
}

#[async_trait]
impl Act for Rejoin {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let standing = standing(context, &self.database, &self.primary, &self.old).await?;
        let how = context.own_outputs().await.into_iter().next();
        let standing = match (standing, how) {
            (Standing::Done(evidence), Some(Output::Server { id, .. })) => {
                Standing::Done(format!("{evidence}; it {id}"))
            }
            (standing, _) => standing,
        };
        naming_kept(context, &self.database, &self.old, standing).await
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let (primary, up_reach) = open(world, &self.database, &self.primary)
            .await
            .nothing_changed()?;
        let (old, reach) = open(world, &self.database, &self.old)
            .await
            .nothing_changed()?;
        let engine = world.engine(&old.database).nothing_changed()?;
        engine.admit(&primary, &up_reach).await?;
        let how = engine.rejoin(&old, &primary, &reach).await?;
        context.progress(format!("{} {how}", self.old)).await;
        context
            .made(Output::Server {
                name: self.old.to_string(),
                id: how.to_string(),
            })
            .await
            .partial()
    }
}
