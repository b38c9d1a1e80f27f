//! `hafog replicate`: the databases of a standby: set up, watched, compared, copied again.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::drive::{self, Change, Job, drive};
use super::{Call, Ended, look, site};
use crate::db::{Link, NodeRole, Verified};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::model::id::*;
use crate::model::stack::{Database, Stack};
use crate::plan;
use crate::plan::facts::Facts;
use crate::run::open::Session;
use crate::ui::snippet::clean;
use crate::ui::table::Table;
use crate::world::World;

/// For looking at one node's folders.
const KEPT_LIMIT: Duration = Duration::from_secs(5);

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// Make the databases of a standby follow the primary
    Setup(Changing),
    /// Show every node's role, lag and stream
    Status,
    /// Compare every replica with its primary, row by row, at one position
    Verify {
        /// Only this database
        database: Option<DatabaseName>,
    },
    /// Copy the databases of a standby anew
    Reseed(Changing),
}

#[derive(clap::Args, Debug)]
pub struct Changing {
    /// The standby; may be left out if there is only one other site
    site: Option<SiteName>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, verb: &Verb) -> Ended {
    match verb {
        Verb::Setup(args) => copy(call, args, "replicate setup", false).await,
        Verb::Reseed(args) => copy(call, args, "replicate reseed", true).await,
        Verb::Status => status(call).await,
        Verb::Verify { database } => verify(call, database.as_ref()).await,
    }
}

async fn copy(call: &Call, args: &Changing, verb: &str, always: bool) -> Ended {
    let asked = args.site.clone();
    let verb = site::typed(verb, asked.as_ref());
    let planner = move |stack: &Stack, facts: &Facts| {
        let others = site::others(stack, facts.primary(&stack.primary));
        let to = site::only(stack, asked.as_ref(), &others, "other site")?;
        Ok(plan::up::replicate(stack, facts, &to, always))
    };
    drive(call, &args.change, Job::new(verb, Box::new(planner))).await
}

async fn status(call: &Call) -> Ended {
    let session = look::session(call, "replicate status").await?;
    let mut rows = databases(&session.world.stack, &session.facts);
    ask_kept(&session.world, &mut rows).await;
    call.ui.result(&rows, || text(&rows));
    let fine = in_sync(&rows) || session.facts.roles.is_none();
    let code = if fine { exit::DONE } else { exit::OUT_OF_SYNC };
    look::done(session, code).await
}

/// What was set aside on the nodes: it takes room, and only a person knows when nobody needs it.
async fn ask_kept(world: &World, rows: &mut [DatabaseRow]) {
    let ask = async |database: &DatabaseName, row: &NodeRow| {
        let node = world.node(database, &row.node).await?;
        let reach = world.reach(&row.site)?;
        world.engine(&node.database)?.kept(&node, &reach).await
    };
    let nodes = rows.iter_mut().flat_map(|row| {
        let database = &row.database;
        row.nodes.iter_mut().map(move |node| (database, node))
    });
    let asked = nodes.map(async |(database, row)| {
        let kept = tokio::time::timeout(KEPT_LIMIT, ask(database, row)).await;
        // Why a node cannot be asked is in its row.
        row.kept = kept.ok().and_then(Result::ok).unwrap_or_default();
    });
    join_all(asked).await;
}

#[derive(Serialize)]
pub struct DatabaseRow {
    pub database: DatabaseName,
    /// The node that the arbiter names.
    pub writer: Option<ServerName>,
    pub epoch: u64,
    pub lease_until: Option<Timestamp>,
    pub lease_alive: bool,
    /// The node of the writer's site that could take over, while the writer takes no writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub could_take_over: Option<ServerName>,
    pub nodes: Vec<NodeRow>,
}

#[derive(Serialize)]
pub struct NodeRow {
    pub node: ServerName,
    pub site: SiteName,
    pub role: Option<NodeRole>,
    pub writable: Option<bool>,
    /// `None` is unknown, never zero.
    pub lag_seconds: Option<f64>,
    pub state: NodeState,
    /// The stream, or why nothing is known.
    pub said: String,
    /// Part of the primary site or of a standby.
    pub counts: bool,
    /// Folders on the server with data that nobody else may have; filled by `replicate status`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    Fine,
    Behind,
    OutOfSync,
    Unknown,
}

/// Unknown does not pass for fine.
pub fn in_sync(databases: &[DatabaseRow]) -> bool {
    let fine = |node: &NodeRow| matches!(node.state, NodeState::Fine | NodeState::Behind);
    databases
        .iter()
        .flat_map(|database| &database.nodes)
        .all(|node| !node.counts || fine(node))
}

pub fn databases(stack: &Stack, facts: &Facts) -> Vec<DatabaseRow> {
    let row = |database: &Database| {
        let writer = facts.writers.get(&database.name);
        let lease_until = writer.and_then(|writer| writer.lease_until);
        let sites = stack.sites.iter();
        let nodes = sites.flat_map(|site| stack.nodes_at(&site.name, database));
        DatabaseRow {
            database: database.name.clone(),
            writer: facts.writer_node(&database.name).cloned(),
            epoch: facts.epoch(&database.name),
            lease_until,
            lease_alive: lease_until.is_some_and(|until| until > facts.at),
            could_take_over: facts.relief(stack, database).map(|node| node.name.clone()),
            nodes: nodes
                .map(|server| node(facts, database, &server.name, &server.site))
                .collect(),
        }
    };
    stack.databases.iter().map(row).collect()
}

fn node(facts: &Facts, database: &Database, name: &ServerName, site: &SiteName) -> NodeRow {
    let roles = facts.roles.as_ref();
    let counts = roles.is_some_and(|roles| roles.primary == *site || roles.standbys.contains(site));
    let row = |role, writable, lag_seconds, state, said: String| NodeRow {
        node: name.clone(),
        site: site.clone(),
        role,
        writable,
        lag_seconds,
        state,
        said,
        counts,
        kept: Vec::new(),
    };
    let Some(status) = facts.status(name) else {
        let why = facts.why_silent(name).unwrap_or("not there").to_owned();
        return row(None, None, None, NodeState::Unknown, why);
    };
    let (role, writable) = (Some(status.role), Some(status.writable));
    if status.role == NodeRole::Primary {
        let named = facts.writer_node(&database.name) == Some(name);
        let (state, said) = match (status.writable, named) {
            (true, true) => (NodeState::Fine, "open".to_owned()),
            (true, false) => (
                NodeState::OutOfSync,
                "writable, and the arbiter names another".to_owned(),
            ),
            (false, true) => (NodeState::OutOfSync, "not open for writes".to_owned()),
            (false, false) => (NodeState::OutOfSync, "on a history of its own".to_owned()),
        };
        return row(role, writable, None, state, said);
    }
    let behind = facts.lag(name).map(|lag| lag.as_secs_f64());
    match (&status.link, behind) {
        (Some(Link::Up { from }), Some(lag)) => {
            let state = match lag {
                lag if lag > database.lag_critical.0.as_secs_f64() => NodeState::OutOfSync,
                lag if lag > database.lag_warn.0.as_secs_f64() => NodeState::Behind,
                _ => NodeState::Fine,
            };
            row(
                role,
                writable,
                behind,
                state,
                format!("streams from {from}"),
            )
        }
        (Some(Link::Up { from }), None) => {
            let said = format!("streams from {from}, without a heartbeat");
            row(role, writable, None, NodeState::Unknown, said)
        }
        // What a dead stream has not brought is not known, however young the newest heartbeat is.
        (Some(Link::Down { why }), _) => row(role, writable, None, NodeState::Unknown, why.clone()),
        (None, _) => row(
            role,
            writable,
            None,
            NodeState::Unknown,
            "no stream".to_owned(),
        ),
    }
}

pub fn text(databases: &[DatabaseRow]) -> String {
    if databases.is_empty() {
        return "the stack has no databases\n".to_owned();
    }
    let mut table = Table::new(["DATABASE", "NODE", "ROLE", "LAG", "STATE", ""]);
    for database in databases {
        for node in &database.nodes {
            let role = match (node.role, node.writable) {
                (Some(NodeRole::Primary), Some(true)) => "primary, writable",
                (Some(NodeRole::Primary), _) => "primary, closed",
                (Some(NodeRole::Replica), _) => "replica",
                (None, _) => "unknown",
            };
            let lag = match (node.role, node.lag_seconds) {
                (Some(NodeRole::Primary), _) => "-".to_owned(),
                (_, Some(lag)) => format!("{lag:.1}s"),
                (_, None) => "unknown".to_owned(),
            };
            let state = match node.state {
                NodeState::Fine => "fine",
                NodeState::Behind => "behind",
                NodeState::OutOfSync => "OUT OF SYNC",
                NodeState::Unknown => "UNKNOWN",
            };
            table.row([
                database.database.to_string(),
                node.node.to_string(),
                role.to_owned(),
                lag,
                state.to_owned(),
                clean(&node.said).replace('\n', " "),
            ]);
        }
    }
    let mut text = table.render("");
    for database in databases {
        text.push_str(&writer_line(database));
    }
    for node in databases.iter().flat_map(|database| &database.nodes) {
        for folder in &node.kept {
            let folder = clean(folder);
            text.push_str(&format!("set aside on {}: {folder}\n", node.node));
        }
    }
    text
}

fn writer_line(row: &DatabaseRow) -> String {
    let name = &row.database;
    let line = match (&row.writer, row.lease_until) {
        (None, _) => format!("{name}: nobody may write, epoch {}\n", row.epoch),
        (Some(node), None) => format!(
            "{name}: {node} may write, epoch {}, no write lease\n",
            row.epoch
        ),
        (Some(node), Some(until)) => {
            let lease = if row.lease_alive {
                "write lease until"
            } else {
                "write lease EXPIRED at"
            };
            format!(
                "{name}: {node} may write, epoch {}, {lease} {until:.0}\n",
                row.epoch
            )
        }
    };
    match &row.could_take_over {
        Some(node) => format!("{line}{name}: {node} could take over: hafog failover {node}\n"),
        None => line,
    }
}

#[derive(Serialize)]
struct Compared {
    database: DatabaseName,
    primary: ServerName,
    replica: ServerName,
    #[serde(flatten)]
    verified: Option<Verified>,
    /// Why they could not be compared.
    unknown: Option<String>,
}

async fn verify(call: &Call, asked: Option<&DatabaseName>) -> Ended {
    let session = look::session(call, "replicate verify").await?;
    let ended = verified(call, &session, asked).await;
    drive::close(session, ended).await
}

async fn verified(call: &Call, session: &Session, asked: Option<&DatabaseName>) -> Ended {
    let world = &session.world;
    if let Some(name) = asked {
        world.database(name)?;
    }
    let mut rows = databases(&world.stack, &session.facts);
    rows.retain(|row| asked.is_none_or(|name| name == &row.database));
    let mut compared = Vec::new();
    for (row, writer, replica) in pairs(&rows)? {
        let database = world.database(&row.database)?;
        let verified = pair(session, database, writer, replica).await;
        compared.push(Compared {
            database: row.database.clone(),
            primary: writer.clone(),
            replica: replica.node.clone(),
            unknown: verified.as_ref().err().map(Fault::to_string),
            verified: verified.ok(),
        });
    }
    call.ui.result(&compared, || match rows.is_empty() {
        true => text(&rows),
        false => compared.iter().map(compared_line).collect(),
    });
    alone(&rows)?;
    let same = |one: &Compared| {
        one.verified
            .as_ref()
            .is_some_and(|verified| verified.different.is_empty())
    };
    Ok(match compared.iter().all(same) {
        true => exit::DONE,
        false => exit::OUT_OF_SYNC,
    })
}

/// Nodes that should have the same, with the one that writes.
fn pairs(rows: &[DatabaseRow]) -> Result<Vec<(&DatabaseRow, &ServerName, &NodeRow)>, Fault> {
    let mut pairs = Vec::new();
    for row in rows {
        let Some(writer) = &row.writer else {
            let fault = Fault::refused(format!("nobody may write `{}` now", row.database));
            return Err(fault.hint("hafog status"));
        };
        let replicas = row.nodes.iter();
        let replicas = replicas.filter(|node| node.counts && node.node != *writer);
        pairs.extend(replicas.map(|replica| (row, writer, replica)));
    }
    Ok(pairs)
}

/// That nothing was different where nothing was compared is no success.
fn alone(rows: &[DatabaseRow]) -> Result<(), Fault> {
    let is_alone = |row: &&DatabaseRow| {
        let mut nodes = row.nodes.iter();
        !nodes.any(|node| node.counts && Some(&node.node) != row.writer.as_ref())
    };
    let Some(row) = rows.iter().find(is_alone) else {
        return Ok(());
    };
    let name = &row.database;
    let message = format!(
        "nothing to compare: `{name}` has no replica at its primary site and none at a standby"
    );
    Err(Fault::of(Kind::OutOfSync, message).hint("hafog replicate status"))
}

async fn pair(
    session: &Session,
    database: &Database,
    primary: &ServerName,
    replica: &NodeRow,
) -> Result<Verified, Fault> {
    let world = &session.world;
    let primary = world.node(&database.name, primary).await?;
    let copy = world.node(&database.name, &replica.node).await?;
    let reach = world.reach(&replica.site)?;
    world
        .engine(database)?
        .verify(&primary, &copy, &reach)
        .await
}

fn compared_line(one: &Compared) -> String {
    let pair = format!("{}: {} and {}", one.database, one.primary, one.replica);
    match (&one.verified, &one.unknown) {
        (Some(found), _) if found.different.is_empty() => format!(
            "{pair} are the same at {}: {} tables, {} rows\n",
            found.at, found.tables, found.rows
        ),
        (Some(found), _) => format!(
            "{pair} DIFFER at {} in {}\n",
            found.at,
            found.different.join(", ")
        ),
        (None, why) => format!(
            "{pair}: UNKNOWN: {}\n",
            clean(why.as_deref().unwrap_or("not compared"))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::preflight::tests::fine;
    use crate::sim::stacks::small;

    #[test]
    fn what_was_not_compared_is_no_success() {
        let stack = small();
        let mut facts = fine(&stack);
        let rows = databases(&stack, &facts);
        assert!(!pairs(&rows).unwrap().is_empty());
        assert!(alone(&rows).is_ok());
        assert!(alone(&[]).is_ok());

        // Every other site was left behind, and the primary's has one node.
        let mut one = stack.clone();
        one.servers
            .retain(|server| server.name.as_str() != "shop-east-db-2");
        let roles = facts.roles.as_mut().unwrap();
        roles.left_behind = std::mem::take(&mut roles.standbys);
        let rows = databases(&one, &facts);
        assert!(pairs(&rows).unwrap().is_empty());
        let fault = alone(&rows).unwrap_err();
        assert_eq!(fault.kind(), Kind::OutOfSync);
        assert!(fault.message().starts_with("nothing to compare: `main`"));
    }
}
