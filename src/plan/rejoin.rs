//! The first half of `failback`: make the old primary's site a standby again. The second half is a planned switchover.

use super::action::*;
use super::facts::Facts;
use super::safety::refusal;
use super::site::{power_on, seed_replica, start_agent, still_provisional};
use super::{Intent, Plan, PlanKind, step};
use crate::cloud::ServerState;
use crate::model::id::*;
use crate::model::stack::Stack;

/// Rejoins `site`. Servers that are gone altogether are `hafog clone`'s work; the plan says so.
pub fn rejoin(stack: &Stack, facts: &Facts, site: &SiteName) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, Intent::Rejoin { site: site.clone() });
    let Some(roles) = &facts.roles else {
        plan.refusals.push(refusal(
            "not-up",
            "the stack is not up anywhere",
            "hafog up",
        ));
        return plan;
    };
    let mut ready = Vec::new();
    for server in stack.servers_at(site) {
        match facts.server(site, &server.name).map(|seen| &seen.state) {
            Some(ServerState::Running) => {}
            Some(ServerState::Off | ServerState::Frozen) => ready.push(plan.push(power_on(server))),
            _ => {
                let why = format!("{} is gone", server.name);
                plan.refusals
                    .push(refusal("no-standby", why, format!("hafog clone {site}")));
            }
        }
    }
    let mut data = Vec::new();
    for database in &stack.databases {
        let Some(writer) = facts.writer_node(&database.name) else {
            continue;
        };
        let mut nodes = stack.nodes_at(site, database);
        let Some(first) = nodes.next() else { continue };
        let action = Rejoin {
            database: database.name.clone(),
            old: first.name.clone(),
            old_site: site.clone(),
            primary: writer.clone(),
        };
        let rejoined = plan.push(
            step(
                format!("rejoin {}", first.name),
                format!("{} follows {writer}", first.name),
                action.into(),
            )
            .after(ready.clone())
            .limit(24 * 3600),
        );
        data.push(plan.push(start_agent(database, first).after([rejoined.clone()])));
        for replica in nodes {
            let seeded = plan.push(
                seed_replica(database, &first.name, &replica.name, false).after([rejoined.clone()]),
            );
            data.push(plan.push(start_agent(database, replica).after([seeded])));
        }
    }
    let token = SetRoleToken {
        site: site.clone(),
        role: SiteRole::Standby,
        epoch: roles.serial,
    };
    let mut after = ready;
    after.extend(data);
    let token = plan.push(
        step(
            format!("role-token {site}"),
            format!("servers of {site} know that they are standby"),
            token.into(),
        )
        .after(after),
    );
    let healthy = plan.push(
        step(
            format!("await-healthy {site}"),
            format!("wait until {site} answers its health checks"),
            AwaitHealthy { site: site.clone() }.into(),
        )
        .after([token]),
    );
    let mut standbys = roles.standbys.clone();
    if !standbys.contains(site) {
        standbys.push(site.clone());
    }
    let set = SetRoles {
        primary: roles.primary.clone(),
        standbys,
        left_behind: roles
            .left_behind
            .iter()
            .filter(|left| *left != site)
            .cloned()
            .collect(),
        provisional: still_provisional(stack, roles),
    };
    plan.push(step("set-roles", format!("{site} is a standby site"), set.into()).after([healthy]));
    plan
}
