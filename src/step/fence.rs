//! Fencing: making sure that the old primary cannot write, with proof, before anything else may.
//!
//! The writer record goes first, so that an agent that is alive fences its own node. Then the rungs, strongest first:
//! powered off, network closed, database stopped, write refused, lease expired. No rung: nothing is promoted, unless
//! a person accepted exactly that.

use std::time::Duration;

use async_trait::async_trait;

use super::promote::{right_to_open, tell_agent};
use super::{Act, Context, Standing};
use crate::cloud::{Power, ServerState};
use crate::db::{Node, Reach};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::journal::event::Output;
use crate::model::id::{DatabaseName, ServerName};
use crate::model::roles::Writer;
use crate::model::stack::SelfFence;
use crate::model::units;
use crate::plan::action::*;
use crate::shell::ServiceState;
use crate::state::PutError;
use crate::wait;
use crate::world::{World, writer_key};

/// What clocks of different machines may differ by.
const SKEW: Duration = Duration::from_secs(2);
/// How long one rung may take.
const RUNG_LIMIT: Duration = Duration::from_secs(15);

/// Changes the writer record under `epoch`. Refused when a later epoch exists.
pub(super) async fn set_writer(
    world: &World,
    database: &DatabaseName,
    epoch: u64,
    node: Option<&ServerName>,
) -> Result<(), Trouble> {
    // What is known of the writer before is needed until there is another one, also by a run that is resumed.
    let last = match node {
        None => LastLease::Kept,
        Some(_) => LastLease::Replaced,
    };
    change_writer(world, database, epoch, node, last).await
}

/// What becomes of what the writer record says of a lease.
#[derive(Clone, Copy, PartialEq)]
enum LastLease {
    Kept,
    /// Another record begins without one; the same one, renewed or not, stays.
    Replaced,
    /// The node is about to be opened without a lease.
    Forgotten,
}

async fn change_writer(
    world: &World,
    database: &DatabaseName,
    epoch: u64,
    node: Option<&ServerName>,
    last: LastLease,
) -> Result<(), Trouble> {
    for _ in 0..50 {
        let found = world.writer(database).await.nothing_changed()?;
        if let Some((writer, _)) = &found {
            if writer.epoch > epoch {
                return Err(Trouble::NothingChanged(Fault::new(format!(
                    "the writer of `{database}` has epoch {} already, and this plan was made for {epoch}",
                    writer.epoch
                ))));
            }
            let is_said = last != LastLease::Forgotten || writer.lease_until.is_none();
            if writer.epoch == epoch && writer.node.as_ref() == node && is_said {
                return Ok(());
            }
        }
        let before = found.as_ref().map(|(writer, _)| writer.clone());
        let kept = before.as_ref().filter(|_| last == LastLease::Kept);
        let writer = Writer {
            epoch,
            node: node.cloned(),
            lease_until: kept.and_then(|writer| writer.lease_until),
            confirmed_by: kept.map_or(Vec::new(), |writer| writer.confirmed_by.clone()),
            beat: before.and_then(|writer| writer.beat),
        };
        let expect = found.as_ref().map(|(_, version)| version);
        match world
            .stores
            .put(&writer_key(database), &writer, expect)
            .await
        {
            Ok(_) => return Ok(()),
            // An agent renewed its lease in between.
            Err(PutError::Changed) => {}
            Err(PutError::Fault(fault)) => return Err(Trouble::Unknown(fault)),
        }
    }
    Err(Trouble::NothingChanged(Fault::new(format!(
        "the writer record of `{database}` changed 50 times while it was being written"
    ))))
}

impl StopWrites {
    async fn node(&self, context: &Context<'_>) -> Result<(Node, Reach), Fault> {
        let node = context.world.node(&self.database, &self.node).await?;
        let reach = context.world.reach(&self.site)?;
        Ok((node, reach))
    }

    /// The proof that holds now, if one does.
    async fn proof(&self, context: &Context<'_>) -> Option<String> {
        if self.how == Fencing::LeaseOnly {
            return None;
        }
        let world = context.world;
        if let Ok(cloud) = world.cloud(&self.site)
            && let Ok(listed) = cloud.servers().await
        {
            let found = listed.iter().find(|server| server.name == self.node);
            match found {
                // A server that exists already may be on no list any more, and at work; and a list with nothing on it
                // may be of another region, project or folder than the one in which the servers are.
                None if world.stack.seals(&self.site) && !listed.is_empty() => {
                    return Some(format!("{} is gone", self.node));
                }
                None => {}
                Some(found) if found.state == ServerState::Off => {
                    return Some(format!("{} is powered off", self.node));
                }
                // It may go on writing, and nobody is told so.
                Some(found) if found.state == ServerState::Isolated => {
                    return Some(format!("{} is cut off from the network", self.node));
                }
                Some(_) => {}
            }
        }
        let (node, reach) = self.node(context).await.ok()?;
        let engine = world.engine(&node.database).ok()?;
        let services = reach.shell.services(&node.host).await.ok()?;
        let name = engine.service(&self.database);
        // The supervisor will not start it, and the machine shows that it lost nothing that runs.
        let told = |one: &ServiceState| one.name == name && !one.running && !one.wanted;
        if services.iter().any(told) && matches!(engine.is_stopped(&node, &reach).await, Ok(true)) {
            return Some(format!("the database on {} is stopped", self.node));
        }
        let refused = engine.write_refused(&node, &reach).await.ok().flatten()?;
        Some(format!("{} refused a write: {refused}", self.node))
    }

    /// Waits out the write lease. Proof only under `self_fence: strict`, and only where the node's commits wait for the
    /// one that is promoted: one that was frozen does not notice that its lease is over.
    async fn lease_expired(&self, context: &Context<'_>) -> Result<String, String> {
        let world = context.world;
        if world.stack.self_fence != SelfFence::Strict {
            return Err(
                "`self_fence` is not `strict`, so an expired lease proves nothing".to_owned(),
            );
        }
        // As it is now that nobody can renew it: what was read before may be a renewal too old.
        let found = world.writer(&self.database).await;
        let found = found.map_err(|fault| fault.to_string())?;
        let writer = found.map(|(writer, _)| writer);
        let writer = writer.filter(|writer| writer.epoch == self.epoch && writer.node.is_none());
        let Some(writer) = writer else {
            return Err("somebody else changed the writer record".to_owned());
        };
        let Some(until) = writer.lease_until else {
            return Err("the writer never had a lease".to_owned());
        };
        let confirms = |to: &&ServerName| writer.confirmed_by.contains(to);
        let Some(to) = self.to.as_ref().filter(confirms) else {
            return Err(
                "its commits do not wait for the one that is to be promoted, so a machine that is frozen may go on after its lease"
                    .to_owned(),
            );
        };
        let until = until + SKEW;
        // The wall clock is asked once: stepped during the wait, it would end a lease that still runs.
        let left = Duration::try_from(until.duration_since(world.clock.now())).unwrap_or_default();
        let over = world.clock.elapsed() + left;
        loop {
            let left = over.saturating_sub(world.clock.elapsed());
            if left.is_zero() {
                break;
            }
            context
                .progress(format!(
                    "the write lease of {} expires in {}",
                    self.node,
                    units::human(left)
                ))
                .await;
            world.clock.sleep(left.min(Duration::from_secs(1))).await;
        }
        Ok(format!(
            "the write lease of {} expired at {until:.0}; it stops writing without one, and its commits wait for {to}",
            self.node
        ))
    }

    async fn clean(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let (node, reach) = self.node(context).await.nothing_changed()?;
        let engine = context.world.engine(&node.database).nothing_changed()?;
        let position = engine.stop_clean(&node, &reach).await?;
        context
            .made(Output::Position {
                position: position.0,
            })
            .await
            .partial()?;
        set_writer(context.world, &self.database, self.epoch, None)
            .await
            .map_err(|trouble| Trouble::Partial(trouble.fault().clone()))
    }

    async fn ladder(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        set_writer(world, &self.database, self.epoch, None).await?;
        let mut tried = Vec::new();
        if self.how != Fencing::LeaseOnly {
            match self.strong_rungs(context).await {
                Ok(rung) => return context.made(Output::Fence { rung }).await.partial(),
                Err(why) => tried.extend(why),
            }
        }
        match self.lease_expired(context).await {
            Ok(rung) => context.made(Output::Fence { rung }).await.partial(),
            Err(why) if self.how == Fencing::Accepted => {
                tried.push(why);
                let rung = format!("NOT FENCED, as accepted ({})", tried.join("; "));
                context.made(Output::Fence { rung }).await.partial()
            }
            Err(why) => {
                tried.push(why);
                let mut fault = Fault::refused(format!(
                    "nothing proves that {} cannot write (refusal `unfenced-primary`)",
                    self.node
                ));
                for why in tried {
                    fault = fault.because(why);
                }
                // The writer record names nobody now, which is the safe side: the unwinding puts it back.
                let within = world.stack.server(&self.node).map(|server| &server.site);
                let to = self.to.as_ref().and_then(|to| world.stack.server(to));
                let hint = match to {
                    Some(to) if within == Some(&to.site) => {
                        format!("hafog failover {} --accept unfenced-primary", to.name)
                    }
                    _ => "hafog failover --accept unfenced-primary".to_owned(),
                };
                Err(Trouble::Partial(fault.hint(hint)))
            }
        }
    }

    async fn strong_rungs(&self, context: &Context<'_>) -> Result<String, Vec<String>> {
        let world = context.world;
        let mut tried = Vec::new();
        for (to, what) in [
            (Power::Off, "power off"),
            (Power::Isolate, "close the network"),
        ] {
            let power = async {
                let cloud = world.cloud(&self.site).nothing_changed()?;
                cloud.power(&self.node, to).await
            };
            let asked = self.rung(what, power, &mut tried).await;
            // The cloud's word is not enough. Where it did nothing, what was looked at once is as it was.
            let is_new =
                to == Power::Off || !matches!(asked, Some(Err(Trouble::NothingChanged(_))));
            if is_new
                && let Ok(Some(proof)) = tokio::time::timeout(RUNG_LIMIT, self.proof(context)).await
            {
                return Ok(proof);
            }
        }
        let stop = async {
            let (node, reach) = self.node(context).await.nothing_changed()?;
            world
                .engine(&node.database)
                .nothing_changed()?
                .stop_now(&node, &reach)
                .await
        };
        self.rung("stop the database", stop, &mut tried).await;
        match tokio::time::timeout(RUNG_LIMIT, self.proof(context)).await {
            Ok(Some(proof)) => Ok(proof),
            _ => Err(tried),
        }
    }

    /// Tries one rung, and notes why it cannot hold.
    async fn rung(
        &self,
        what: &str,
        rung: impl Future<Output = Result<(), Trouble>>,
        tried: &mut Vec<String>,
    ) -> Option<Result<(), Trouble>> {
        let asked = tokio::time::timeout(RUNG_LIMIT, rung).await.ok();
        let limit = RUNG_LIMIT.as_secs();
        match &asked {
            Some(Ok(())) => {}
            Some(Err(trouble)) => tried.push(format!("{what}: {}", trouble.fault())),
            None => tried.push(format!("{what}: no answer within {limit} s")),
        }
        asked
    }
}

#[async_trait]
impl Act for StopWrites {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let writer = context
            .world
            .writer(&self.database)
            .await?
            .map(|(writer, _)| writer);
        let Some(writer) = writer else {
            return Ok(Standing::blocked(format!(
                "nobody knows who writes `{}`",
                self.database
            )));
        };
        if writer.epoch > self.epoch {
            return Ok(Standing::blocked(format!(
                "the writer has epoch {} by now: somebody else moved it",
                writer.epoch
            )));
        }
        let barred = writer.epoch == self.epoch && writer.node.as_ref() != Some(&self.node);
        let outputs = context.own_outputs().await;
        let position = outputs.iter().rev().find_map(|output| match output {
            Output::Position { position } => Some(position.clone()),
            _ => None,
        });
        let rung = outputs.iter().rev().find_map(|output| match output {
            Output::Fence { rung } => Some(rung.clone()),
            _ => None,
        });
        if !barred {
            return Ok(Standing::Ready);
        }
        match (self.how, position, rung) {
            (Fencing::Clean, Some(position), _) => Ok(Standing::done(format!(
                "{} is stopped cleanly at {position}",
                self.node
            ))),
            (Fencing::Clean, None, _) => Ok(Standing::Ready),
            // What was proved stays proved: nothing starts a node that is not the writer in a writable way.
            (_, _, Some(rung)) => Ok(Standing::Done(rung)),
            (_, _, None) => Ok(Standing::Ready),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        match self.how {
            Fencing::Clean => self.clean(context).await,
            Fencing::Ladder | Fencing::LeaseOnly | Fencing::Accepted => self.ladder(context).await,
        }
    }

    /// The old primary may write again, under a later epoch than the one that was to take over.
    async fn undo(&self, context: &Context<'_>) -> Result<String, Trouble> {
        let world = context.world;
        let name_it = |last| {
            let (database, epoch) = (&self.database, self.epoch + 1);
            change_writer(world, database, epoch, Some(&self.node), last)
        };
        // While it is not open, its last lease is still what another fence would have to wait for.
        name_it(LastLease::Kept).await?;
        let started = async {
            let found = world.find(&self.site, &self.node).await.unknown()?;
            let is_ours = |state| matches!(state, ServerState::Off | ServerState::Isolated);
            if found.is_some_and(|found| is_ours(found.state)) {
                world
                    .cloud(&self.site)
                    .nothing_changed()?
                    .power(&self.node, Power::On)
                    .await?;
            }
            let (node, reach) = self.node(context).await.nothing_changed()?;
            let engine = world.engine(&node.database).nothing_changed()?;
            engine.start(&node, &reach).await?;
            // The start may have taken long: is it still the one?
            let still = right_to_open(world, &self.node);
            name_it(LastLease::Forgotten).await?;
            tell_agent(context, &node, &reach, self.epoch + 1).await;
            engine.promote(&node, &reach, &still).await
        };
        match started.await {
            Ok(_) => Ok(format!("{} is open for writes again", self.node)),
            Err(_) if self.how != Fencing::Clean => {
                // It was down before this run touched it.
                Ok(format!("{} may write again when it comes back", self.node))
            }
            Err(trouble) => Err(trouble),
        }
    }
}

#[async_trait]
impl Act for AwaitReplay {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        let outputs = context.outputs_of(&self.of).await;
        let Some(position) = outputs.iter().rev().find_map(|output| match output {
            Output::Position { position } => Some(crate::db::Position(position.clone())),
            _ => None,
        }) else {
            return Ok(Standing::blocked(format!(
                "step `{}` left no position",
                self.of
            )));
        };
        let node = world.node(&self.database, &self.node).await?;
        let reach = world.reach(&node.host.site)?;
        let engine = world.engine(&node.database)?;
        let status = engine.status(&node, &reach).await?;
        match engine.bytes_between(&status.position, &position) {
            Some(ahead) if ahead >= 0 => Ok(Standing::done(format!(
                "{} is at {}, and {position} was the last",
                self.node, status.position
            ))),
            Some(_) => Ok(Standing::Ready),
            None => Ok(Standing::blocked(format!(
                "{} cannot be compared with {position}",
                status.position
            ))),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let what = format!("{} has replayed everything", self.node);
        wait::until(
            context.world.clock.as_ref(),
            &what,
            context.step.limit.0,
            || async {
                match self.check(context).await {
                    Ok(Standing::Done(_)) => Ok(()),
                    Ok(Standing::Blocked { why, .. }) => Err(why),
                    Ok(Standing::Ready) => Err("it is still behind".to_owned()),
                    Err(fault) => Err(fault.to_string()),
                }
            },
        )
        .await
        .nothing_changed()
    }
}
