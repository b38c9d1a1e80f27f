//! The role token: one file on every application server that says whether its site is primary or standby.

use async_trait::async_trait;

use super::{Act, Context, Standing};
use crate::cloud::ServerState;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::*;
use crate::model::roles::Roles;
use crate::model::stack::Job;
use crate::plan::action::*;
use crate::shell::{File, Host};
use crate::world::World;

/// Where a server keeps its role token.
pub(super) fn path(host: &Host) -> String {
    format!("{}/role", host.dirs.etc)
}

pub(super) fn token(host: &Host, role: SiteRole, epoch: u64) -> File {
    File {
        path: path(host),
        bytes: role.token(epoch).into_bytes(),
        mode: 0o644,
        for_service_user: false,
    }
}

/// What a server of `site` is to believe: the role that its site has, as of the newest epoch.
pub(super) async fn current(world: &World, site: &SiteName) -> Result<(SiteRole, u64), Fault> {
    let roles = world.roles().await?;
    let role = of(world, roles.as_ref(), site);
    let writers = world.writers().await?;
    let epochs = writers.values().map(|writer| writer.epoch);
    Ok((role, epochs.max().unwrap_or(0)))
}

pub(super) fn of(world: &World, roles: Option<&Roles>, site: &SiteName) -> SiteRole {
    let primary = roles.map_or(&world.stack.primary, |roles| &roles.primary);
    if site == primary {
        SiteRole::Primary
    } else {
        SiteRole::Standby
    }
}

/// Whether the server was told another role than its site has: it was off when the site's role changed.
pub(super) async fn is_mistaken(
    world: &World,
    site: &SiteName,
    host: &Host,
    role: SiteRole,
) -> Result<bool, Fault> {
    let told = world.shell(site)?.get(host, &path(host)).await?;
    Ok(!told.is_some_and(|told| is_token_of(&told, role)))
}

fn is_token_of(told: &[u8], role: SiteRole) -> bool {
    let told = str::from_utf8(told).ok().and_then(SiteRole::of_token);
    told.is_some_and(|(told, _)| told == role)
}

/// The application servers of a site: those that run, and one line for each that is there and does not.
pub(super) async fn app_servers(
    world: &World,
    site: &SiteName,
) -> Result<(Vec<Host>, Vec<String>), Fault> {
    let found = world.cloud(site)?.servers().await?;
    let mut running = Vec::new();
    let mut asleep = Vec::new();
    for server in world.stack.servers_at(site) {
        let Some(found) = found.iter().find(|found| found.name == server.name) else {
            continue;
        };
        match (&found.state, &found.host) {
            _ if server.job != Job::App => {}
            (ServerState::Running, Some(host)) => running.push(host.clone()),
            (state, _) if state.sleeps() => {
                asleep.push(format!("{} is {}", server.name, state.word()))
            }
            _ => asleep.push(format!("{} does not run", server.name)),
        }
    }
    Ok((running, asleep))
}

/// A server that does not run cannot be told, and must not hold up those that do: it is named, and the next `up` or
/// `clone` tells it.
pub(super) fn all_told(told: String, asleep: &[String]) -> Standing {
    Standing::done(match asleep.is_empty() {
        true => told,
        false => format!("{told}; not told: {}", asleep.join(", ")),
    })
}

#[async_trait]
impl Act for SetRoleToken {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let shell = context.world.shell(&self.site)?;
        let (running, asleep) = app_servers(context.world, &self.site).await?;
        for host in &running {
            let wanted = token(host, self.role, self.epoch);
            if shell.get(host, &wanted.path).await?.as_deref() != Some(&wanted.bytes) {
                return Ok(Standing::Ready);
            }
        }
        let told = format!(
            "{} servers of {} have the role token `{}`",
            running.len(),
            self.site,
            self.role.word()
        );
        Ok(all_told(told, &asleep))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let shell = context.world.shell(&self.site).nothing_changed()?;
        let (running, _) = app_servers(context.world, &self.site)
            .await
            .nothing_changed()?;
        for host in &running {
            let token = token(host, self.role, self.epoch);
            shell.put(host, &token).await?;
        }
        Ok(())
    }
}
