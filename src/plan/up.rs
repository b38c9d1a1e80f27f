//! `up` and `clone`: bring a site to what the spec says. Only what is missing becomes a step, so a second `up` has
//! nothing to do. The two differ in where the database comes from: `up` makes an empty one, `clone` copies.

use std::collections::BTreeMap;

use super::action::*;
use super::build;
use super::commit::still_provisional;
use super::database::{primary_database, replicas, tell_agents};
use super::facts::Facts;
use super::files;
use super::names::publish;
use super::safety::{Refusal, lost_writer, not_up, refusal};
use super::scale;
use super::server::{await_healthy, configure_server, ensure_server};
use super::{Intent, Plan, PlanKind, step};
use super::{entry, firewall};
use crate::cloud::ServerState;
use crate::model::id::*;
use crate::model::stack::{Job, Server, Stack, Tier};

/// Provisions the primary site and publishes its names.
pub fn up(stack: &Stack, facts: &Facts) -> Plan {
    let site = facts.primary(&stack.primary).clone();
    let mut plan = Plan::new(PlanKind::Converging, Intent::Up { site: site.clone() });
    if let Some(lost) = lost_writer(stack, facts) {
        plan.refusals.push(lost);
        return plan;
    }
    let healthy = converge(&mut plan, stack, facts, &site, true);
    tell_agents(&mut plan, stack, facts);
    files::keep(&mut plan, stack, facts, None);
    publish(&mut plan, stack, facts, &site, healthy);
    if facts.roles.is_none() {
        let after = plan
            .steps
            .iter()
            .map(|step| step.name.clone())
            .collect::<Vec<_>>();
        let roles = SetRoles {
            primary: site.clone(),
            standbys: Vec::new(),
            left_behind: Vec::new(),
            heads: None,
            provisional: None,
        };
        plan.push(
            step(
                "set-roles",
                format!("{site} is the primary site"),
                roles.into(),
            )
            .after(after),
        );
    }
    firewall::keep(&mut plan, stack, facts);
    entry::keep(&mut plan, stack, facts, &[site]);
    plan
}

/// Makes a standby of the stack at `site`.
pub fn clone(stack: &Stack, facts: &Facts, site: &SiteName) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, Intent::Clone { site: site.clone() });
    let Some(roles) = &facts.roles else {
        plan.refusals.push(not_up());
        return plan;
    };
    plan.refusals.extend(comes_back(stack, facts, site));
    if let Some(lost) = lost_writer(stack, facts) {
        plan.refusals.push(lost);
        return plan;
    }
    let tier = stack.site(site).map(|site| site.tier).unwrap_or_default();
    if tier == Tier::Cold {
        build::images(&mut plan, stack, facts, site);
    } else {
        converge(&mut plan, stack, facts, site, false);
    }
    tell_agents(&mut plan, stack, facts);
    files::keep(&mut plan, stack, facts, Some(site));
    if !roles.standbys.contains(site) {
        let after = plan
            .steps
            .iter()
            .map(|step| step.name.clone())
            .collect::<Vec<_>>();
        let mut standbys = roles.standbys.clone();
        standbys.push(site.clone());
        let left_behind = roles
            .left_behind
            .iter()
            .filter(|left| *left != site)
            .cloned()
            .collect();
        let roles = SetRoles {
            primary: roles.primary.clone(),
            standbys,
            left_behind,
            heads: None,
            provisional: still_provisional(stack, roles),
        };
        plan.push(
            step(
                "set-roles",
                format!("{site} is a standby site"),
                roles.into(),
            )
            .after(after),
        );
    }
    firewall::keep(&mut plan, stack, facts);
    entry::keep(&mut plan, stack, facts, std::slice::from_ref(site));
    plan
}

/// A site that was left behind and has all its servers is rejoined: that says what its database alone has, and
/// takes as little of it away as it can. A copy would put all of it aside.
fn comes_back(stack: &Stack, facts: &Facts, site: &SiteName) -> Option<Refusal> {
    let roles = facts.roles.as_ref()?;
    let all_there = stack.servers_at(site).all(|server| {
        let seen = facts.server(site, &server.name).map(|seen| &seen.state);
        seen.is_some_and(|state| *state == ServerState::Running || state.sleeps())
    });
    if !roles.left_behind.contains(site) || !all_there {
        return None;
    }
    let old = stack.databases.iter().find_map(|database| {
        let first = facts.head_at(stack, site, database)?;
        let has_data = facts.status(&first.name).is_some() && !facts.follows(&first.name);
        has_data.then_some(&first.name)
    })?;
    let why = format!(
        "{site} was left behind, and {old} may have what the primary lacks: a copy sets all of it aside"
    );
    let hint = format!("hafog failback {site} --rejoin-only");
    Some(refusal("left-behind", why, hint))
}

/// `replicate setup`: only the databases of a standby site.
pub fn replicate(stack: &Stack, facts: &Facts, site: &SiteName, always: bool) -> Plan {
    let mut plan = Plan::new(
        PlanKind::Converging,
        Intent::Replicate { site: site.clone() },
    );
    if facts.roles.is_none() {
        plan.refusals.push(not_up());
        return plan;
    }
    if let Some(lost) = lost_writer(stack, facts) {
        plan.refusals.push(lost);
        return plan;
    }
    if !always {
        plan.refusals.extend(comes_back(stack, facts, site));
    }
    for database in &stack.databases {
        replicas(
            &mut plan,
            stack,
            facts,
            site,
            database,
            &BTreeMap::new(),
            always,
        );
    }
    plan
}

/// Images, servers, databases and their applications. Returns the step after which the front door answers, if
/// anything was to be done for it.
fn converge(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    is_primary: bool,
) -> Option<StepName> {
    let images = build::images(plan, stack, facts, site);
    plan.forecast
        .notes
        .extend(scale::note(&scale::surplus(stack, facts, site)));
    let tier = stack.site(site).map(|site| site.tier).unwrap_or_default();
    let pilot_light = !is_primary && tier == Tier::PilotLight;
    let wanted = |server: &&Server| is_primary || tier.runs(&server.job);
    let mut there: BTreeMap<ServerName, StepName> = BTreeMap::new();
    for server in stack.servers_at(site).filter(wanted) {
        let (image, sealed) = &images[&server.recipe];
        let made = ensure_server(plan, stack, facts, server, image, sealed.clone());
        let has_image = facts
            .server(site, &server.name)
            .is_some_and(|seen| seen.image.is_some());
        let made = match stack.seals(site) || has_image {
            true => made,
            false => Some(plan.push(build::apply(server, image).after(made))),
        };
        if let Some(step) = made {
            there.insert(server.name.clone(), step);
        }
    }
    let mut data = Vec::new();
    for database in &stack.databases {
        data.extend(if is_primary {
            primary_database(plan, stack, facts, site, database, &there)
        } else {
            replicas(plan, stack, facts, site, database, &there, false)
        });
    }
    let mut configured = Vec::new();
    let fresh = !there.is_empty();
    for server in stack.servers_at(site).filter(wanted) {
        // The configuration of a balancer or a cache lists the servers behind it, so it comes after all of them.
        if matches!(server.job, Job::Database(_))
            || (facts.configured.contains(&server.name) && !fresh)
        {
            continue;
        }
        let mut after: Vec<StepName> = data.clone();
        match server.job {
            Job::Balancer | Job::Cache => after.extend(there.values().cloned()),
            _ => after.extend(there.get(&server.name).cloned()),
        }
        configured.push(plan.push(configure_server(server).after(after)));
    }
    if configured.is_empty() || pilot_light {
        return data.last().cloned();
    }
    Some(plan.push(await_healthy(site).after(configured)))
}
