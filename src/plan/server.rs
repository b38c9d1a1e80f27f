//! The steps of a server, by whichever plan they are in: made, booted, configured, answering.

use super::action::*;
use super::build;
use super::facts::Facts;
use super::scale;
use super::{Plan, Step, step};
use crate::cloud::{ServerState, ServerWant};
use crate::model::id::*;
use crate::model::stack::{Server, Stack};

pub(super) fn configure_server(server: &Server) -> Step {
    step(
        format!("configure-server {}", server.name),
        format!("configure {} and start its services", server.name),
        ConfigureServer {
            site: server.site.clone(),
            server: server.name.clone(),
        }
        .into(),
    )
}

pub(super) fn await_healthy(site: &SiteName) -> Step {
    step(
        format!("await-healthy {site}"),
        format!("wait until {site} answers its health checks"),
        AwaitHealthy { site: site.clone() }.into(),
    )
}

/// Adds `create-server` or `power-on` where one is needed.
pub(super) fn ensure_server(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    server: &Server,
    image: &ImageName,
    sealed: Option<StepName>,
) -> Option<StepName> {
    match facts
        .server(&server.site, &server.name)
        .map(|seen| &seen.state)
    {
        Some(ServerState::Running) => None,
        Some(state @ (ServerState::Off | ServerState::Frozen | ServerState::Isolated)) => {
            Some(plan.push(power_on(server, state)))
        }
        Some(ServerState::Pending | ServerState::Failed(_)) | None => {
            Some(plan.push(create_server(stack, server, image).after(sealed)))
        }
    }
}

pub(super) fn create_server(stack: &Stack, server: &Server, image: &ImageName) -> Step {
    let mut tags = build::tags(stack, &server.site);
    tags.insert(scale::GROUP_TAG.to_owned(), server.group.to_string());
    tags.insert(build::MADE_FOR.to_owned(), image.to_string());
    let want = ServerWant {
        name: server.name.clone(),
        image: Some(image.clone()),
        base: stack.base(&server.recipe),
        size: server.size,
        disk: server.disk,
        open: server.open.clone(),
        tags,
    };
    step(
        format!("create-server {}", server.name),
        match stack.seals(&server.site) {
            true => format!("start {} from {image}", server.name),
            false => format!("take a host for {}", server.name),
        },
        CreateServer {
            site: server.site.clone(),
            want,
        }
        .into(),
    )
    .reversible()
}

/// Seconds in which a server is removed, with its disks: one with millions of files on it may need most of them.
const REMOVE_LIMIT: u64 = 3600;

pub(super) fn delete_server(site: &SiteName, server: &ServerName, about: String) -> Step {
    let delete = DeleteServer {
        site: site.clone(),
        server: server.clone(),
    };
    step(format!("delete-server {server}"), about, delete.into()).limit(REMOVE_LIMIT)
}

pub(super) fn power_on(server: &Server, state: &ServerState) -> Step {
    step(
        format!("power-on {}", server.name),
        format!("boot {}, which is {}", server.name, state.word()),
        PowerOn {
            site: server.site.clone(),
            server: server.name.clone(),
        }
        .into(),
    )
}
