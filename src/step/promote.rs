//! Opening a node for writes: the writer record first, then the engine.

use async_trait::async_trait;

use std::time::Duration;

use super::fence::set_writer;
use super::{Act, Context, Standing};
use crate::agent::told;
use crate::db::{Node, Reach};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{DatabaseName, ServerName};
use crate::model::stack::SelfFence;
use crate::plan::action::*;
use crate::wait;
use crate::world::World;

async fn check(
    context: &Context<'_>,
    database: &DatabaseName,
    name: &ServerName,
    epoch: u64,
) -> Result<Standing, Fault> {
    let world = context.world;
    let writer = world.writer(database).await?.map(|(writer, _)| writer);
    if let Some(writer) = writer.as_ref().filter(|writer| writer.epoch > epoch) {
        return Ok(Standing::blocked(format!(
            "the writer has epoch {} by now: somebody else moved it",
            writer.epoch
        )));
    }
    if writer.is_none_or(|writer| writer.epoch != epoch || writer.node.as_ref() != Some(name)) {
        return Ok(Standing::Ready);
    }
    let node = world.node(database, name).await?;
    let reach = world.reach(&node.host.site)?;
    let status = world.engine(&node.database)?.status(&node, &reach).await?;
    if !status.writable {
        return Ok(Standing::Ready);
    }
    Ok(Standing::done(format!(
        "{name} is writable, timeline {}, epoch {epoch}",
        status.timeline
    )))
}

/// For how long after the writer record was changed the node may be opened: another run may take over when this one
/// has not renewed its lease for longer, and it renewed it at most so long ago.
pub const OPEN_LIMIT: Duration = Duration::from_secs(14);

/// Well below that.
const TELL_LIMIT: Duration = Duration::from_secs(3);

/// Holds from now on, for a while. Frozen for longer, a run must not open what another has given to somebody else.
pub(super) fn right_to_open(
    world: &World,
    name: &ServerName,
) -> impl Fn() -> Result<(), Fault> + Send + Sync + use<> {
    let (clock, name) = (world.clock.clone(), name.clone());
    let since = clock.since_boot();
    move || {
        let slept = clock.since_boot().saturating_sub(since);
        match slept < OPEN_LIMIT {
            true => Ok(()),
            false => Err(Fault::new(format!(
                "{name} was not opened within {} s, and somebody else may be the writer by now",
                OPEN_LIMIT.as_secs()
            ))),
        }
    }
}

/// Leaves the writer record with the node's agent, which may be cut off from the arbiter and would stop whatever is opened
/// against what it read last. What does not work must not hold up the opening. Under `self_fence: strict` an agent
/// believes the arbiter alone.
pub(super) async fn tell_agent(context: &Context<'_>, node: &Node, reach: &Reach, epoch: u64) {
    if context.world.stack.self_fence == SelfFence::Strict {
        return;
    }
    let told = told(&node.host, &node.host.name, epoch);
    let left = tokio::time::timeout(TELL_LIMIT, reach.shell.put(&node.host, &told));
    if !matches!(left.await, Ok(Ok(()))) {
        let name = &node.host.name;
        let line = format!("not left with the agent of {name} that it is the writer");
        context.progress(line).await;
    }
}

async fn act(
    context: &Context<'_>,
    database: &DatabaseName,
    name: &ServerName,
    epoch: u64,
) -> Result<(), Trouble> {
    let world = context.world;
    let still = right_to_open(world, name);
    set_writer(world, database, epoch, Some(name)).await?;
    let node = world.node(database, name).await.partial()?;
    let reach = world.reach(&node.host.site).partial()?;
    tell_agent(context, &node, &reach, epoch).await;
    world
        .engine(&node.database)
        .partial()?
        .promote(&node, &reach, &still)
        .await
        .map(drop)
        .map_err(|trouble| match trouble {
            // The record names the node by now, so something has changed.
            Trouble::NothingChanged(fault) => Trouble::Partial(fault),
            trouble => trouble,
        })
}

#[async_trait]
impl Act for AwaitWriter {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        match self.takes_writes(context.world).await? {
            Ok(evidence) => Ok(Standing::Done(evidence)),
            Err(_) => Ok(Standing::Ready),
        }
    }
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let what = format!("{} takes writes", self.node);
        let limit = context.step.limit.0;
        let ask = || async {
            let asked = self.takes_writes(world).await;
            asked
                .unwrap_or_else(|fault| Err(fault.to_string()))
                .map(drop)
        };
        let waited = wait::until(world.clock.as_ref(), &what, limit, ask).await;
        waited.nothing_changed()
    }
}

impl AwaitWriter {
    /// The inner error says why it does not.
    async fn takes_writes(&self, world: &World) -> Result<Result<String, String>, Fault> {
        let node = world.node(&self.database, &self.node).await?;
        let reach = world.reach(&node.host.site)?;
        let status = world.engine(&node.database)?.status(&node, &reach).await?;
        Ok(match status.writable {
            true => Ok(format!("{} is writable", self.node)),
            false => Err(format!("the agent of {} has not opened it", self.node)),
        })
    }
}

#[async_trait]
impl Act for PromoteStandby {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        // Only the fence before this step takes the right to write from the old primary.
        let found = context.world.writer(&self.database).await?;
        if let Some((writer, _)) = found
            && writer.epoch < self.epoch
        {
            return Ok(Standing::blocked(format!(
                "the writer record went back to epoch {}, and this run had left it at {}",
                writer.epoch, self.epoch
            )));
        }
        check(context, &self.database, &self.node, self.epoch).await
    }
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        act(context, &self.database, &self.node, self.epoch).await
    }
}

#[async_trait]
impl Act for OpenDatabase {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        check(context, &self.database, &self.node, self.epoch).await
    }
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        act(context, &self.database, &self.node, self.epoch).await
    }
}
