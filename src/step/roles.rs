//! The stack's documents: who is primary, and their end.

use async_trait::async_trait;

use super::{Act, Context, Standing};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ServerName, SiteName};
use crate::model::roles::{Published, Revoked, Roles, RolesDocument};
use crate::model::stack::Job;
use crate::plan::action::*;
use crate::world::{NAMES, REVOKED, ROLES, World, writer_key};

/// Who is what: `east is primary, west is standby, provisional until …`.
fn sentence(roles: &Roles) -> String {
    let mut parts = vec![format!("{} is primary", roles.primary)];
    let others = |sites: &[SiteName], what: &str| {
        let one = |site: &SiteName| format!("{site} is {what}");
        sites.iter().map(one).collect::<Vec<_>>()
    };
    parts.extend(others(&roles.standbys, "standby"));
    parts.extend(others(&roles.left_behind, "left behind"));
    if let Some(provisional) = &roles.provisional {
        parts.push(format!("provisional until {:.0}", provisional.until));
    }
    parts.join(", ")
}

#[async_trait]
impl Act for SetRoles {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let Some(roles) = context.world.roles().await? else {
            return Ok(Standing::Ready);
        };
        let same = roles.primary == self.primary
            && roles.standbys == self.standbys
            && roles.left_behind == self.left_behind
            && self.heads(context.world, &roles.heads) == roles.heads
            && roles.provisional.as_ref().map(|p| &p.from)
                == self.provisional.as_ref().map(|want| &want.from);
        if !same {
            return Ok(Standing::Ready);
        }
        Ok(Standing::done(sentence(&roles)))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let now = world.clock.now();
        let (old, serial) = world.roles_and_serial().await.nothing_changed()?;
        // A phase that goes on keeps its deadline.
        let going_on = old.as_ref().and_then(|roles| roles.provisional.clone());
        let provisional = self.provisional.as_ref().map(|want| match going_on {
            Some(phase) if phase.from == want.from => phase,
            _ => want.at(now),
        });
        let before = old.map_or(Vec::new(), |roles| roles.heads);
        let heads = self.heads(world, &before);
        let roles = Roles {
            serial: serial.saturating_add(1),
            primary: self.primary.clone(),
            standbys: self.standbys.clone(),
            left_behind: self.left_behind.clone(),
            heads,
            provisional,
            changed: now,
            by: context.run.clone(),
        };
        world.stores.write_everywhere(ROLES, &roles).await.unknown()
    }
}

impl SetRoles {
    fn heads(&self, world: &World, before: &[ServerName]) -> Vec<ServerName> {
        let heads = self.heads.as_deref().unwrap_or(before).iter();
        heads
            .filter(|node| self.keeps(world, node))
            .cloned()
            .collect()
    }

    /// Whether the node is at a site of the stack: one that was removed begins anew.
    fn keeps(&self, world: &World, node: &ServerName) -> bool {
        let others = self.standbys.iter().chain(&self.left_behind);
        let mut sites = std::iter::once(&self.primary).chain(others);
        let server = world.stack.server(node);
        server.is_some_and(|server| sites.any(|site| site == &server.site))
    }
}

#[async_trait]
impl Act for ForgetState {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        if context.world.roles().await?.is_some() {
            return Ok(Standing::Ready);
        }
        for database in &self.databases {
            if context.world.writer(database).await?.is_some() {
                return Ok(Standing::Ready);
            }
        }
        if context.world.keys.exist() {
            return Ok(Standing::Ready);
        }
        Ok(Standing::done("only the journals are left"))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let stores = &context.world.stores;
        for database in &self.databases {
            stores
                .delete_everywhere(&writer_key(database))
                .await
                .unknown()?;
        }
        let (_, serial) = context.world.roles_and_serial().await.nothing_changed()?;
        let published = context.world.published().await.nothing_changed()?;
        let empty = Published {
            serial: published.serial.saturating_add(1),
            ..Published::default()
        };
        stores.forget_everywhere(NAMES, &empty).await.unknown()?;
        let revoked = context.world.revoked().await.nothing_changed()?;
        let empty = Revoked {
            serial: revoked.serial.saturating_add(1),
            ..Revoked::default()
        };
        stores.forget_everywhere(REVOKED, &empty).await.unknown()?;
        // Also those that somebody removed without hafog.
        for server in &context.world.stack.servers {
            if matches!(server.job, Job::Database(_)) {
                stores.dismiss(&server.name).await.unknown()?;
            }
        }
        context.world.keys.forget().unknown()?;
        // Last: until it is gone, whoever is cut here finds that there is something left to remove.
        let gone = RolesDocument::Gone {
            serial: serial.saturating_add(1),
            destroyed: context.world.clock.now(),
        };
        stores.forget_everywhere(ROLES, &gone).await.unknown()
    }
}
