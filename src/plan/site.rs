//! `up` and `clone`: bring a site to what the spec says. Only what is missing becomes a step, so a second `up` has
//! nothing to do. The two differ in where the database comes from: `up` makes an empty one, `clone` copies.

use std::collections::{BTreeMap, BTreeSet};

use super::action::*;
use super::build;
use super::facts::Facts;
use super::files;
use super::safety::{Refusal, lost_writer, not_up, refusal};
use super::scale;
use super::{Action, Intent, Plan, PlanKind, step};
use super::{entry, firewall};
use crate::cloud::{ServerState, ServerWant};
use crate::dns::RecordChange;
use crate::model::id::*;
use crate::model::record::RecordType;
use crate::model::roles::Roles;
use crate::model::stack::{Database, Job, Name, Server, Stack, Tier, Zone};

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

/// A phase that goes on: another site that comes, goes or rejoins does not end it.
pub(super) fn still_provisional(stack: &Stack, roles: &Roles) -> Option<ProvisionalWant> {
    roles.provisional.as_ref().map(|phase| ProvisionalWant {
        from: phase.from.clone(),
        planned: phase.planned,
        window: stack.commit_window,
    })
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

pub(super) fn configure_server(server: &Server) -> super::Step {
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

pub(super) fn await_healthy(site: &SiteName) -> super::Step {
    step(
        format!("await-healthy {site}"),
        format!("wait until {site} answers its health checks"),
        AwaitHealthy { site: site.clone() }.into(),
    )
}

/// Adds `create-server` or `power-on` where one is needed.
fn ensure_server(
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

pub(super) fn create_server(stack: &Stack, server: &Server, image: &ImageName) -> super::Step {
    let mut tags = build::tags(stack, &server.site);
    tags.insert(scale::GROUP_TAG.to_owned(), server.group.to_string());
    tags.insert(build::MADE_FOR.to_owned(), image.to_string());
    let want = ServerWant {
        name: server.name.clone(),
        image: Some(image.clone()),
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

pub(super) fn power_on(server: &Server, state: &ServerState) -> super::Step {
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

/// An empty database on the site's first node, its agent, and the replicas beside it. A node lets in the servers that
/// are there when it is configured, so that comes after all of them.
fn primary_database(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    database: &Database,
    there: &BTreeMap<ServerName, StepName>,
) -> Vec<StepName> {
    let nodes = facts.ranked_at(stack, site, database);
    let Some(first) = nodes.first() else {
        return Vec::new();
    };
    let writer = facts.writer_node(&database.name);
    let mut opened = Vec::new();
    if writer.is_none() {
        let created = plan.push(
            step(
                format!("create-database {}", database.name),
                format!(
                    "make an empty {} database `{}` on {}",
                    database.engine, database.name, first.name
                ),
                CreateDatabase {
                    database: database.name.clone(),
                    node: first.name.clone(),
                }
                .into(),
            )
            .after(there.values().cloned()),
        );
        let open = OpenDatabase {
            database: database.name.clone(),
            node: first.name.clone(),
            epoch: facts.epoch(&database.name) + 1,
        };
        let open = plan.push(
            step(
                format!("open-database {}", database.name),
                format!("open {} for writes", first.name),
                open.into(),
            )
            .after([created]),
        );
        opened.push(plan.push(start_agent(database, first).after([open])));
    } else if there.contains_key(&first.name) {
        opened.push(plan.push(start_agent(database, first).after(there.values().cloned())));
    }
    let here = nodes.iter().find(|node| Some(&node.name) == writer);
    if let Some(node) = here {
        await_writer(plan, facts, database, node, there, &mut opened);
    }
    let mut done = opened.clone();
    let primary = writer.unwrap_or(&first.name);
    for replica in nodes.iter().skip(1) {
        done.extend(follow(
            plan, stack, facts, database, primary, replica, there, &opened,
        ));
    }
    done
}

/// Makes a node follow another one, unless it does.
#[expect(
    clippy::too_many_arguments,
    reason = "a leaf of the planner: everything here differs between its callers"
)]
pub(super) fn follow(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    database: &Database,
    from: &ServerName,
    to: &Server,
    there: &BTreeMap<ServerName, StepName>,
    after: &[StepName],
) -> Vec<StepName> {
    let writes = facts.writer_node(&database.name) == Some(from);
    match writes && facts.was_beside(stack, database, to) {
        true => taken_back(plan, database, from, to, there, after),
        false => one_replica(plan, facts, database, from, to, there, after, false),
    }
}

/// By the gentlest way: a copy would put all that it has aside.
fn taken_back(
    plan: &mut Plan,
    database: &Database,
    primary: &ServerName,
    old: &Server,
    there: &BTreeMap<ServerName, StepName>,
    after: &[StepName],
) -> Vec<StepName> {
    let before = there.values().chain(after).cloned();
    let rejoined = plan.push(rejoin(database, &old.site, &old.name, primary).after(before));
    let agent = plan.push(start_agent(database, old).after([rejoined.clone()]));
    vec![rejoined, agent]
}

pub(super) fn rejoin(
    database: &Database,
    old_site: &SiteName,
    old: &ServerName,
    primary: &ServerName,
) -> super::Step {
    let action = Rejoin {
        database: database.name.clone(),
        old: old.clone(),
        old_site: old_site.clone(),
        primary: primary.clone(),
    };
    let about = format!("{old} follows {primary}");
    step(format!("rejoin {old}"), about, action.into()).limit(24 * 3600)
}

/// A node that boots is opened by its agent: applications that are started before that answer with errors. `opened` are
/// the steps that it and what comes after it wait for.
fn await_writer(
    plan: &mut Plan,
    facts: &Facts,
    database: &Database,
    writer: &Server,
    there: &BTreeMap<ServerName, StepName>,
    opened: &mut Vec<StepName>,
) {
    let name = &writer.name;
    let is_open = facts.status(name).is_some_and(|status| status.writable);
    if is_open && opened.is_empty() && !there.contains_key(name) {
        return;
    }
    // Named by a run that ended before it had started the agent: nobody else opens it.
    if !is_open && !facts.configured.contains(name) && opened.is_empty() {
        opened.push(plan.push(start_agent(database, writer).after(there.values().cloned())));
    }
    let action = AwaitWriter {
        database: database.name.clone(),
        node: name.clone(),
    };
    let about = format!("wait until {name} takes writes");
    let step = step(
        format!("await-writer {}", database.name),
        about,
        action.into(),
    );
    let booted = opened.iter().chain(there.get(name)).cloned();
    let step = step.limit(120).after(booted);
    opened.push(plan.push(step));
}

/// Agents must know every other node: who does not answer is asked for before a node fences itself. And they say which
/// addresses a node lets in. So new nodes and new servers make every agent's configuration old.
pub(super) fn tell_agents(plan: &mut Plan, stack: &Stack, facts: &Facts) {
    let ours: BTreeSet<&ServerName> = stack.servers.iter().map(|server| &server.name).collect();
    let is_new = |action: &Action| match action {
        Action::SeedReplica(_) => true,
        Action::CreateServer(create) => ours.contains(&create.want.name),
        Action::DeleteServer(delete) => {
            let seen = facts.server(&delete.site, &delete.server);
            !ours.contains(&delete.server) && seen.and_then(scale::group_of).is_some()
        }
        _ => false,
    };
    let new_nodes: Vec<StepName> = plan
        .steps
        .iter()
        .filter(|step| is_new(&step.action))
        .map(|step| step.name.clone())
        .collect();
    for database in &stack.databases {
        for site in &stack.sites {
            for node in stack.nodes_at(&site.name, database) {
                let told = plan.steps.iter().any(|step| matches!(&step.action, Action::StartAgent(agent) if agent.node == node.name));
                let current = facts.configured.contains(&node.name) && new_nodes.is_empty();
                if told || current || facts.status(&node.name).is_none() {
                    continue;
                }
                plan.push(start_agent(database, node).after(new_nodes.clone()));
            }
        }
    }
}

pub(super) fn start_agent(database: &Database, node: &Server) -> super::Step {
    step(
        format!("start-agent {}", node.name),
        format!("start the agent on {}", node.name),
        StartAgent {
            database: database.name.clone(),
            node: node.name.clone(),
        }
        .into(),
    )
}

/// The standby's first node follows the writer; the others follow the first (they cascade, so that a failover
/// needs no new copy).
fn replicas(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    database: &Database,
    there: &BTreeMap<ServerName, StepName>,
    always: bool,
) -> Vec<StepName> {
    let nodes = facts.ranked_at(stack, site, database);
    let Some(first) = nodes.first() else {
        return Vec::new();
    };
    let Some(writer) = facts.writer_node(&database.name).cloned() else {
        return Vec::new();
    };
    let mut done = Vec::new();
    let first_done = if first.name == writer {
        Vec::new()
    } else {
        one_replica(plan, facts, database, &writer, first, there, &[], always)
    };
    for replica in nodes.iter().skip(1) {
        done.extend(one_replica(
            plan,
            facts,
            database,
            &first.name,
            replica,
            there,
            &first_done,
            always,
        ));
    }
    done.extend(first_done);
    done
}

#[expect(
    clippy::too_many_arguments,
    reason = "a leaf of the planner: everything here differs between its callers"
)]
fn one_replica(
    plan: &mut Plan,
    facts: &Facts,
    database: &Database,
    from: &ServerName,
    to: &Server,
    there: &BTreeMap<ServerName, StepName>,
    after: &[StepName],
    always: bool,
) -> Vec<StepName> {
    // Who follows a node that is copied over may have what that one had.
    let copied_over =
        |step: &super::Step| matches!(&step.action, Action::SeedReplica(seed) if seed.to == *from);
    let stays = !always && !there.contains_key(&to.name) && !plan.steps.iter().any(copied_over);
    if stays && facts.follows_from(&to.name, from) {
        return Vec::new();
    }
    let mut before: Vec<StepName> = after.to_vec();
    before.extend(there.values().cloned());
    let seeded = plan.push(seed_replica(database, from, &to.name, always).after(before));
    let agent = plan.push(start_agent(database, to).after([seeded.clone()]));
    vec![seeded, agent]
}

pub(super) fn seed_replica(
    database: &Database,
    from: &ServerName,
    to: &ServerName,
    always: bool,
) -> super::Step {
    let about = format!(
        "copy `{}` from {from} to {to} while it is in use, and follow",
        database.name
    );
    step(
        format!("seed-replica {to}"),
        about,
        SeedReplica {
            database: database.name.clone(),
            from: from.clone(),
            to: to.clone(),
            always,
        }
        .into(),
    )
    .limit(24 * 3600)
}

/// Opens the zones and publishes every name: the target's addresses, and the CNAME that leads to it.
pub(super) fn publish(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    healthy: Option<StepName>,
) {
    for zone in &stack.zones {
        let open = facts.is_open(&zone.name);
        let opened = (!open).then(|| plan.push(ensure_zone("ensure-zone", zone)));
        let names: Vec<&Name> = stack
            .names
            .iter()
            .filter(|name| name.zone == zone.name)
            .collect();
        let mut records = Vec::new();
        for name in &names {
            records.extend(wanted_records(stack, facts, site, name));
        }
        if records.is_empty() {
            continue;
        }
        let set = plan.push(
            step(
                format!("set-record {}", zone.name),
                format!("publish {} in {}", hosts(&names), zone.name),
                SetRecord {
                    zone: zone.name.clone(),
                    records,
                    leases: Vec::new(),
                }
                .into(),
            )
            .after(opened.into_iter().chain(healthy.clone())),
        );
        plan.push(see_record(zone.name.clone(), &names).after([set]));
    }
}

/// With the usual limit: a planner that has users waiting sets a shorter one.
pub(super) fn ensure_zone(step_name: &str, zone: &Zone) -> super::Step {
    let about = format!(
        "make sure that {} is being served by `{}`",
        zone.name, zone.host
    );
    let action = EnsureZone {
        zone: zone.name.clone(),
    };
    step(format!("{step_name} {}", zone.name), about, action.into())
}

pub(super) fn see_record(zone: ZoneName, names: &[&Name]) -> super::Step {
    let mut hosts: Vec<HostName> = names
        .iter()
        .flat_map(|name| [name.host.clone(), name.target.clone()])
        .collect();
    hosts.dedup();
    step(
        format!("see-record {zone}"),
        format!("every authority of {zone} answers so"),
        SeeRecord { zone, hosts }.into(),
    )
    .limit(60)
}

pub(super) fn hosts(names: &[&Name]) -> String {
    names
        .iter()
        .map(|name| name.host.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Records of one name that are not as wanted.
fn wanted_records(stack: &Stack, facts: &Facts, site: &SiteName, name: &Name) -> Vec<WantedRecord> {
    let zone = facts.zones.get(&name.zone);
    let find = |host, kind| zone.and_then(|zone| zone.record(host, kind));
    let mut wanted = Vec::new();
    let addresses = facts.addresses(stack, site, &name.to);
    let current = find(&name.target, RecordType::A);
    if addresses.is_none_or(|addresses| current.is_none_or(|set| set.values != addresses)) {
        wanted.push(WantedRecord::AddressesOf {
            host: name.target.clone(),
            ttl: current.map_or(name.ttl, |set| set.ttl),
            site: site.clone(),
            group: name.to.clone(),
        });
    }
    if let Some(after) = name.alias() {
        let before = find(&name.host, RecordType::Cname).cloned();
        if before.as_ref() != Some(&after) {
            let change = RecordChange {
                host: name.host.clone(),
                kind: RecordType::Cname,
                before,
                after: Some(after),
            };
            wanted.push(WantedRecord::Exactly(change));
        }
    }
    wanted
}
