//! The steps of a database's nodes, by whichever plan they are in: the first one, who follows it, their agents.

use std::collections::{BTreeMap, BTreeSet};

use super::action::*;
use super::facts::Facts;
use super::scale;
use super::{Plan, Step, step};
use crate::model::id::*;
use crate::model::stack::{Database, Server, Stack};

/// An empty database on the site's first node, its agent, and the replicas beside it. A node lets in the servers that
/// are there when it is configured, so that comes after all of them.
pub(super) fn primary_database(
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
) -> Step {
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

pub(super) fn start_agent(database: &Database, node: &Server) -> Step {
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
pub(super) fn replicas(
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
        |step: &Step| matches!(&step.action, Action::SeedReplica(seed) if seed.to == *from);
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
) -> Step {
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
