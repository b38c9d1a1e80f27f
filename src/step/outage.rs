//! Before a failover acts: is the primary really down, and can the standby take over?

use std::time::Duration;

use async_trait::async_trait;

use super::health::knock;
use super::{Act, Context, Standing};
use crate::db::{NodeRole, NodeStatus};
use crate::error::{Fault, Trouble};
use crate::plan::action::*;

#[async_trait]
impl Act for ConfirmOutage {
    /// Only looks. A primary that answers was a refusal of the plan; what is seen here is for the report.
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        if self.assumed {
            return Ok(Standing::done(format!(
                "{} is assumed to be down; nothing was asked of it",
                self.site
            )));
        }
        let cloud = match context.world.cloud(&self.site)?.ping().await {
            Ok(()) => "its cloud answers".to_owned(),
            Err(fault) => format!("its cloud does not answer ({fault})"),
        };
        let door = match knock(context.world, &self.site).await {
            Ok(Ok(_)) => "its front door answers".to_owned(),
            Ok(Err(why)) => format!("its front door does not ({why})"),
            Err(fault) => format!("its front door does not ({fault})"),
        };
        Ok(Standing::done(format!("{}: {cloud}, {door}", self.site)))
    }

    async fn act(&self, _: &Context<'_>) -> Result<(), Trouble> {
        Ok(())
    }
}

impl VetStandby {
    fn is_replica(&self, status: &NodeStatus) -> Standing {
        Standing::done(format!(
            "{} is a replica on timeline {}, at {}",
            self.node, status.timeline, status.position
        ))
    }
}

#[async_trait]
impl Act for VetStandby {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        let node = world.node(&self.database, &self.node).await?;
        let reach = world.reach(&node.host.site)?;
        let status = world.engine(&node.database)?.status(&node, &reach).await?;
        let accepted = |name: &str| self.accepted.iter().any(|accepted| accepted == name);
        if status.role == NodeRole::Primary {
            let epoch = world
                .writer(&self.database)
                .await?
                .map(|(writer, _)| writer.node);
            if epoch.flatten().as_ref() == Some(&self.node) {
                return Ok(Standing::done(format!(
                    "{} has been promoted already",
                    self.node
                )));
            }
            return Ok(Standing::blocked(format!(
                "{} is a primary of its own",
                self.node
            )));
        }
        if accepted("standby-unknown") {
            return Ok(self.is_replica(&status));
        }
        let Some(heartbeat) = &status.heartbeat else {
            let why = format!(
                "{} has no heartbeat: how far it is behind is unknown",
                self.node
            );
            return Ok(Standing::Blocked {
                why,
                refusal: Some("standby-unknown"),
            });
        };
        // Counted to the primary's last sign of life, as the plan does: its silence makes no standby older.
        let writer = world.writer(&self.database).await?;
        let beat = writer.and_then(|(writer, _)| Some(writer.beat?.at));
        let behind = beat.map_or(Duration::ZERO, |beat| {
            Duration::try_from(beat.duration_since(heartbeat.at)).unwrap_or_default()
        });
        let critical = node.database.lag_critical;
        if behind > critical.0 && !accepted("standby-behind") {
            let why = format!(
                "{} is {:.1} s behind what was heard of the primary last, over the critical {critical}",
                self.node,
                behind.as_secs_f64()
            );
            return Ok(Standing::Blocked {
                why,
                refusal: Some("standby-behind"),
            });
        }
        Ok(self.is_replica(&status))
    }

    async fn act(&self, _: &Context<'_>) -> Result<(), Trouble> {
        Ok(())
    }
}
