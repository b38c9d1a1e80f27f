//! Database nodes that do not follow: one that is gone is made anew and copied, any other is brought back with what it
//! has. The one that writes is never touched: that is a failover's.

use std::collections::BTreeMap;

use super::{cannot, image};
use crate::cloud::ServerState;
use crate::model::id::*;
use crate::model::stack::{Database, Server, Stack};
use crate::plan::facts::Facts;
use crate::plan::safety::Refusal;
use crate::plan::{Plan, database, rejoin, server};

/// What became of the databases of a site.
#[derive(Default)]
pub(super) struct Nodes {
    /// Steps after which they follow.
    pub done: Vec<StepName>,
    /// The node that the site's applications use was away.
    pub was_away: bool,
    /// It is another server now.
    pub is_new: bool,
    /// It does not answer, and is left to another verb, or to a person.
    pub is_closed: bool,
    /// What is left to another verb.
    pub refused: Vec<Refusal>,
}

pub(super) fn heal(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
) -> Result<Nodes, Refusal> {
    let mut nodes = Nodes::default();
    let left = facts.roles.iter().flat_map(|roles| &roles.left_behind);
    // What such a site has is looked at first, by a rejoin.
    if left.into_iter().any(|left| left == site) {
        return Ok(nodes);
    }
    let notes = rejoin::apart(stack, facts, site);
    plan.forecast.notes.extend(notes);
    for database in &stack.databases {
        one_database(plan, stack, facts, site, database, &mut nodes)?;
    }
    Ok(nodes)
}

fn one_database(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    database: &Database,
    nodes: &mut Nodes,
) -> Result<(), Refusal> {
    let ranked = facts.ranked_at(stack, site, database);
    let Some((head, writer)) = ranked.first().zip(facts.writer_node(&database.name)) else {
        return Ok(());
    };
    let tier = stack.site(site).map(|site| site.tier).unwrap_or_default();
    let is_primary = facts.primary(&stack.primary) == site;
    let runs = |node: &Server| is_primary || tier.runs(&node.job);
    let others = ranked.iter().copied();
    let others = others.filter(|node| node.name != *writer && runs(node));
    let others: Vec<&Server> = others.filter(|node| is_ours(plan, facts, node)).collect();
    let first = others.first().filter(|_| !is_primary);
    let upstream = |node: &Server| match first {
        Some(first) if first.name != node.name => &first.name,
        _ => writer,
    };
    let is_ailing = |node: &&Server| !facts.follows_from(&node.name, upstream(node));
    let is_needed = others.iter().any(is_ailing);
    if (is_needed || head.name == *writer)
        && let Err(refusal) = is_open(stack, facts, database, writer)
    {
        nodes.refused.push(refusal);
        let answers = facts.status(&head.name).is_some();
        nodes.is_closed |= head.name == *writer || !answers;
        return Ok(());
    }
    let is_left = head.name != *writer && runs(head) && !others.contains(head);
    nodes.is_closed |= is_left;
    if !is_needed {
        return Ok(());
    }
    let mut there = BTreeMap::new();
    for node in &others {
        if let Some(step) = ensure(plan, stack, facts, node)? {
            there.insert(node.name.clone(), step);
        }
    }
    if others.contains(head) && is_ailing(head) {
        nodes.was_away = true;
        nodes.is_new |= facts.server(site, &head.name).is_none();
    }
    for node in &others {
        let (from, after) = (upstream(node), nodes.done.clone());
        let follows = database::follow(plan, stack, facts, database, from, node, &there, &after);
        nodes.done.extend(follows);
    }
    Ok(())
}

/// Whether the node may be brought back. A server in trouble may have what nobody else has, and one that runs and
/// says nothing may only be slow: both are left to a person.
fn is_ours(plan: &mut Plan, facts: &Facts, node: &Server) -> bool {
    let name = &node.name;
    let seen = facts.server(&node.site, name).map(|seen| &seen.state);
    let note = match seen {
        Some(ServerState::Failed(why)) => format!(
            "{name} failed and is left as it is, because it may have what nobody else has: {why}"
        ),
        Some(ServerState::Running) => {
            let Some(why) = is_silent(facts, name) else {
                return true;
            };
            format!("{name} runs and says nothing, and is left as it is: {why}")
        }
        _ => return true,
    };
    plan.forecast.notes.push(note);
    false
}

/// Why nobody knows how it is, unless it has no data or its services do not run.
fn is_silent<'a>(facts: &'a Facts, name: &ServerName) -> Option<&'a str> {
    let node = facts.nodes.get(name)?;
    let is_empty = node.has_data.known() == Some(&false);
    match is_empty || facts.sick.contains_key(name) {
        true => None,
        false => node.status.why_unknown(),
    }
}

/// Without one that writes there is nobody to follow.
fn is_open(
    stack: &Stack,
    facts: &Facts,
    database: &Database,
    writer: &ServerName,
) -> Result<(), Refusal> {
    if facts.status(writer).is_some_and(|status| status.writable) {
        return Ok(());
    }
    let why = facts.why_silent(writer).unwrap_or("it takes no writes");
    let why = format!("{writer}, the primary of `{}`: {why}", database.name);
    let hint = match facts.relief(stack, database) {
        Some(node) => format!("hafog failover {}", node.name),
        None => "hafog failover".to_owned(),
    };
    Err(cannot(why, &hint))
}

fn ensure(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    node: &Server,
) -> Result<Option<StepName>, Refusal> {
    let seen = facts.server(&node.site, &node.name).map(|seen| &seen.state);
    match seen {
        Some(ServerState::Running | ServerState::Failed(_)) => Ok(None),
        Some(state @ (ServerState::Off | ServerState::Frozen | ServerState::Isolated)) => {
            Ok(Some(plan.push(server::power_on(node, state))))
        }
        Some(ServerState::Pending) | None if !stack.seals(&node.site) => {
            let why = format!(
                "{} is gone, and hafog makes no servers at {}",
                node.name, node.site
            );
            Err(cannot(why, "hafog up, or hafog clone, takes another host"))
        }
        Some(ServerState::Pending) | None => {
            let image = image(stack, facts, node)?;
            Ok(Some(plan.push(server::create_server(stack, node, &image))))
        }
    }
}
