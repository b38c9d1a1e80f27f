//! Checks of a database: its replica, its write lease and its certificates.

use super::{CERTIFICATES_MIN, Check, fail, not_applicable, pass, tier, unknown};
use crate::db::{Certificate, Link, NodeRole};
use crate::model::id::*;
use crate::model::stack::{Database, SelfFence, Server, Stack, Tier};
use crate::model::units::Bytes;
use crate::plan::facts::{Facts, Seen};

/// The node that would be promoted: it follows, it is close enough, and it may stay away for a while.
pub(super) fn replica(
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    database: &Database,
) -> Vec<Check> {
    let follows = format!("follows {}", database.name);
    if tier(stack, site) == Tier::Cold {
        let none = |name: &str| {
            let name = format!("{name} {}", database.name);
            not_applicable(name, "a cold site has no replica")
        };
        return ["follows", "lag", "headroom"].map(none).into();
    }
    let Some(node) = facts
        .head_at(stack, site, database)
        .map(|server| &server.name)
    else {
        let why = format!("{site} has no server for it");
        return vec![fail(follows, why, "hafog check")];
    };
    let mend = format!("hafog replicate setup {site}");
    let Some(status) = facts.status(node) else {
        let why = facts.why_silent(node).unwrap_or("nobody looked");
        let why = format!("{node}: {why}");
        return vec![unknown(follows, why, mend)];
    };
    let mut checks = Vec::new();
    let mut streams = false;
    checks.push(match (&status.role, &status.link) {
        (NodeRole::Primary, _) => fail(follows, format!("{node} is no replica"), mend),
        (NodeRole::Replica, Some(Link::Up { from })) => {
            streams = true;
            pass(follows, format!("{node} streams from {from}"))
        }
        (NodeRole::Replica, Some(Link::Down { why })) => {
            fail(follows, format!("{node}: {why}"), mend)
        }
        (NodeRole::Replica, None) => fail(follows, format!("{node} streams from nobody"), mend),
    });
    checks.push(lag_check(facts, site, database, node, streams));
    checks.push(headroom(facts, site, database, node));
    checks
}

fn lag_check(
    facts: &Facts,
    site: &SiteName,
    database: &Database,
    node: &ServerName,
    streams: bool,
) -> Check {
    let name = format!("lag {}", database.name);
    let mend = format!("hafog replicate status {site}");
    let critical = database.lag_critical;
    match facts.lag(node) {
        None => unknown(name, format!("{node} has no heartbeat"), mend),
        // How old the heartbeat is says how old the data is, also when the stream is dead: it can only get worse.
        Some(lag) if lag > critical.0 => {
            let why = format!(
                "{node} is {:.1} s behind, over the critical {critical}",
                lag.as_secs_f64()
            );
            fail(name, why, mend)
        }
        Some(_) if !streams => unknown(name, "the stream is dead", mend),
        Some(lag) => {
            let evidence = format!(
                "{node} is {:.1} s behind, critical is {critical}",
                lag.as_secs_f64()
            );
            pass(name, evidence)
        }
    }
}

fn headroom(facts: &Facts, site: &SiteName, database: &Database, node: &ServerName) -> Check {
    let name = format!("headroom {}", database.name);
    let mend = format!("hafog replicate reseed {site}");
    let Some(writer) = facts.writer_node(&database.name) else {
        return unknown(name, "the arbiter names no writer", "hafog status");
    };
    let Some(status) = facts.status(writer) else {
        return unknown(name, format!("{writer} did not answer"), "hafog status");
    };
    let follower = status
        .followers
        .iter()
        .find(|follower| follower.node == *node);
    match follower.map(|follower| follower.headroom) {
        None => fail(name, format!("{writer} keeps no log for {node}"), mend),
        Some(None) => pass(name, format!("{writer} keeps all log for {node}")),
        Some(Some(left)) => match u64::try_from(left) {
            Ok(left @ 1..) => pass(
                name,
                format!("{node} may fall {} further behind", Bytes(left)),
            ),
            _ => fail(
                name,
                format!("{writer} has thrown away log that {node} needs"),
                mend,
            ),
        },
    }
}

pub(super) fn write_lease(
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    database: &Database,
) -> Check {
    let name = format!("write-lease {}", database.name);
    let Some(writer) = facts.writers.get(&database.name) else {
        return unknown(name, "the arbiter has no record of a writer", "hafog up");
    };
    let Some(node) = &writer.node else {
        return fail(name, "nobody may write", "hafog status");
    };
    let promoted = facts.head_at(stack, site, database);
    let confirms = |server: &Server| writer.confirmed_by.contains(&server.name);
    match writer.lease_until {
        Some(until)
            if until > facts.at
                && stack.self_fence == SelfFence::Strict
                && !promoted.is_some_and(confirms) =>
        {
            fail(
                name,
                format!("commits on {node} do not wait for {site}, as `self_fence: strict` wants"),
                "hafog replicate status",
            )
        }
        Some(until) if until > facts.at => {
            let left = until.duration_since(facts.at).as_secs();
            pass(
                name,
                format!("{node} holds it for {left} s more, epoch {}", writer.epoch),
            )
        }
        Some(until) => {
            let since = facts.at.duration_since(until).as_secs();
            fail(
                name,
                format!("the agent of {node} let it expire {since} s ago"),
                "hafog up",
            )
        }
        None => fail(
            name,
            format!("the agent of {node} never took it"),
            "hafog up",
        ),
    }
}

/// On every node that was seen: replication needs both ends.
pub(super) fn certificates(facts: &Facts, database: &Database) -> Check {
    let name = format!("certificates {}", database.name);
    let nodes = facts.nodes.iter();
    let nodes = nodes.filter(|(_, node)| node.database == database.name);
    let mut first: Option<(&ServerName, &Certificate)> = None;
    let mut silent = None;
    let mut seen = false;
    for (server, node) in nodes {
        seen = true;
        match &node.certificates {
            Seen::Unknown(why) => silent = Some(format!("{server}: {why}")),
            Seen::Known(found) => {
                let sooner = |one: &&Certificate| first.is_none_or(|(_, f)| one.until < f.until);
                let soonest = found.iter().min_by_key(|one| one.until).filter(sooner);
                first = soonest.map(|one| (server, one)).or(first);
            }
        }
    }
    let says = |(server, one): (&ServerName, &Certificate)| {
        format!("`{}` on {server} is good until {:.0}", one.name, one.until)
    };
    match (first, silent) {
        (Some(found), _) if found.1.ends_within(CERTIFICATES_MIN, facts.at) => fail(
            name,
            format!("{}, less than 21 days", says(found)),
            "hafog up",
        ),
        (_, Some(why)) => unknown(name, why, "hafog status"),
        (Some(found), None) => pass(name, format!("the first to end: {}", says(found))),
        (None, None) if seen => not_applicable(name, "its nodes have none"),
        (None, None) => unknown(name, "nobody looked at a node", "hafog status"),
    }
}
