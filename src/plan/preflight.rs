//! `preflight`: everything that a failover to a site would look at, while nobody is in a hurry.
//!
//! Each check passes, fails, or is unknown; what has nothing to look at does not apply. Unknown never passes.

use jiff::Timestamp;
use serde::Serialize;

use super::facts::{Facts, Seen};
use super::failover::lag;
use crate::cloud::ServerState;
use crate::db::{Link, NodeRole};
use crate::model::id::*;
use crate::model::record::RecordType;
use crate::model::stack::{Database, Job, Name, Stack, Tier, Zone};
use crate::model::units::{Bytes, short};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Pass,
    Fail,
    Unknown,
    NotApplicable,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// `lag main`: stable, with what it is about.
    pub name: String,
    pub verdict: Verdict,
    /// How we know.
    pub evidence: String,
    /// The command that mends it.
    pub mend: Option<String>,
}

/// What facts do not hold.
pub struct Around {
    /// What the arbiter said when it was asked for the lease.
    pub arbiter: Seen<String>,
    /// An unfinished run, in words.
    pub unfinished: Option<String>,
}

/// The worst verdict of all: one failure fails, and without one, one unknown is unknown.
pub fn overall(checks: &[Check]) -> Verdict {
    let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
    match (
        any(Verdict::Fail),
        any(Verdict::Unknown),
        any(Verdict::Pass),
    ) {
        (true, _, _) => Verdict::Fail,
        (false, true, _) => Verdict::Unknown,
        (false, false, true) => Verdict::Pass,
        (false, false, false) => Verdict::NotApplicable,
    }
}

fn pass(name: impl Into<String>, evidence: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        verdict: Verdict::Pass,
        evidence: evidence.into(),
        mend: None,
    }
}

fn not_applicable(name: impl Into<String>, evidence: impl Into<String>) -> Check {
    Check {
        verdict: Verdict::NotApplicable,
        ..pass(name, evidence)
    }
}

fn unknown(name: impl Into<String>, why: impl Into<String>, mend: impl Into<String>) -> Check {
    Check {
        verdict: Verdict::Unknown,
        mend: Some(mend.into()),
        ..pass(name, why)
    }
}

fn fail(name: impl Into<String>, why: impl Into<String>, mend: impl Into<String>) -> Check {
    Check {
        verdict: Verdict::Fail,
        ..unknown(name, why, mend)
    }
}

/// Checks whether `site` can take over, in the order in which a failover would need it.
pub fn preflight(stack: &Stack, facts: &Facts, site: &SiteName, around: &Around) -> Vec<Check> {
    let mut checks = vec![standby(facts, site), settled(facts)];
    checks.push(match &around.unfinished {
        Some(run) => fail("runs", format!("{run} is not finished"), "hafog resume"),
        None => pass("runs", "every run is finished"),
    });
    checks.push(match &around.arbiter {
        Seen::Known(said) => pass("arbiter", said),
        Seen::Unknown(why) => unknown("arbiter", why, "hafog lock status"),
    });
    checks.push(answers(facts, site));
    checks.extend(images(stack, facts, site));
    checks.push(servers(stack, facts, site));
    checks.push(front_door(stack, facts, site));
    if stack.databases.is_empty() {
        checks.push(not_applicable("databases", "the stack has none"));
    }
    for database in &stack.databases {
        checks.extend(replica(stack, facts, site, database));
        checks.push(write_lease(facts, database));
    }
    if stack.names.is_empty() {
        checks.push(not_applicable("names", "the stack publishes none"));
    }
    for zone in &stack.zones {
        checks.push(zone_serves(stack, facts, zone));
    }
    checks.extend(stack.names.iter().map(|name| ttl(facts, name)));
    checks
}

fn standby(facts: &Facts, site: &SiteName) -> Check {
    let name = format!("standby {site}");
    let Some(roles) = &facts.roles else {
        return fail(name, "the stack is not up anywhere", "hafog up");
    };
    if roles.primary == *site {
        return fail(name, "it is the primary site", "hafog status");
    }
    if roles.left_behind.contains(site) {
        let why = "it was left behind by a failover and has not rejoined";
        return fail(name, why, "hafog failback --rejoin-only");
    }
    match roles.standbys.contains(site) {
        true => pass(
            name,
            format!("{} is primary, {site} is a standby", roles.primary),
        ),
        false => fail(name, "it was never made", format!("hafog clone {site}")),
    }
}

fn settled(facts: &Facts) -> Check {
    let provisional = facts
        .roles
        .as_ref()
        .and_then(|roles| roles.provisional.as_ref());
    match provisional {
        None => pass("roles", "no flip is provisional"),
        Some(flip) => {
            let why = format!(
                "the flip from {} is provisional until {:.0}",
                flip.from, flip.until
            );
            fail("roles", why, "hafog commit")
        }
    }
}

fn answers(facts: &Facts, site: &SiteName) -> Check {
    let name = format!("cloud {site}");
    match facts.sites.get(site).map(|seen| &seen.answers) {
        Some(Seen::Known(())) => pass(name, "it answers"),
        Some(Seen::Unknown(why)) => unknown(name, why, "hafog status"),
        None => unknown(name, "nobody looked", "hafog status"),
    }
}

/// Whether the site's lists mean anything.
fn was_seen(facts: &Facts, site: &SiteName) -> bool {
    let seen = facts.sites.get(site);
    seen.is_some_and(|seen| seen.answers.known().is_some())
}

fn images(stack: &Stack, facts: &Facts, site: &SiteName) -> Vec<Check> {
    let recipes: std::collections::BTreeSet<_> = stack
        .servers_at(site)
        .map(|server| &server.recipe)
        .collect();
    let check = |recipe: &RecipeName| {
        let name = format!("image {recipe}");
        let mend = format!("hafog build {site}");
        match facts.images.get(recipe) {
            None => unknown(name, "nobody knows its name", mend),
            Some(_) if !was_seen(facts, site) => {
                unknown(name, format!("{site} did not answer"), mend)
            }
            Some(image) if facts.has_image(site, image) => pass(name, format!("{image} is there")),
            Some(image) => fail(name, format!("{image} is not there"), mend),
        }
    };
    recipes.into_iter().map(check).collect()
}

fn tier(stack: &Stack, site: &SiteName) -> Tier {
    stack.site(site).map(|site| site.tier).unwrap_or_default()
}

fn servers(stack: &Stack, facts: &Facts, site: &SiteName) -> Check {
    let name = format!("servers {site}");
    let wanted: Vec<&ServerName> = match tier(stack, site) {
        Tier::Cold => return not_applicable(name, "a cold site runs none"),
        Tier::PilotLight => stack
            .servers_at(site)
            .filter(|server| matches!(server.job, Job::Database(_)))
            .map(|server| &server.name)
            .collect(),
        Tier::Warm | Tier::Hot => stack.servers_at(site).map(|server| &server.name).collect(),
    };
    if !was_seen(facts, site) {
        return unknown(name, format!("{site} did not answer"), "hafog status");
    }
    let runs = |server: &ServerName| {
        let seen = facts.server(site, server);
        seen.is_some_and(|seen| seen.state == ServerState::Running)
    };
    let down: Vec<String> = wanted
        .iter()
        .filter(|server| !runs(server))
        .map(|server| server.to_string())
        .collect();
    match down.as_slice() {
        [] => pass(name, format!("all {} run", wanted.len())),
        down => {
            let why = format!("not running: {}", down.join(", "));
            fail(name, why, format!("hafog clone {site}"))
        }
    }
}

fn front_door(stack: &Stack, facts: &Facts, site: &SiteName) -> Check {
    let name = format!("front-door {site}");
    if matches!(tier(stack, site), Tier::Cold | Tier::PilotLight) {
        return not_applicable(name, "nothing serves there before a failover");
    }
    let mend = format!("hafog clone {site}");
    match facts.doors.get(site) {
        Some(Seen::Known(200)) => pass(name, "200"),
        Some(Seen::Known(status)) => fail(name, format!("{status}, not 200"), mend),
        Some(Seen::Unknown(why)) => unknown(name, why, mend),
        None if stack.balancer.is_none() => not_applicable(name, "the stack has no balancer"),
        None => unknown(name, "nobody looked", mend),
    }
}

/// The node that would be promoted: it follows, it is close enough, and it may stay away for a while.
fn replica(stack: &Stack, facts: &Facts, site: &SiteName, database: &Database) -> Vec<Check> {
    let follows = format!("follows {}", database.name);
    if tier(stack, site) == Tier::Cold {
        return vec![not_applicable(follows, "a cold site has no replica")];
    }
    let Some(node) = stack
        .nodes_at(site, database)
        .next()
        .map(|server| &server.name)
    else {
        let why = format!("{site} has no server for it");
        return vec![fail(follows, why, "hafog check")];
    };
    let mend = format!("hafog replicate setup {site}");
    let Some(status) = facts.status(node) else {
        let why = facts
            .nodes
            .get(node)
            .and_then(|node| node.status.why_unknown());
        let why = format!("{node}: {}", why.unwrap_or("nobody looked"));
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
    match lag(facts, node) {
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

fn write_lease(facts: &Facts, database: &Database) -> Check {
    let name = format!("write-lease {}", database.name);
    let Some(writer) = facts.writers.get(&database.name) else {
        return unknown(name, "the arbiter has no record of a writer", "hafog up");
    };
    let Some(node) = &writer.node else {
        return fail(name, "nobody may write", "hafog status");
    };
    match writer.lease_until {
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

/// Served, and what is served is what was published last.
fn zone_serves(stack: &Stack, facts: &Facts, zone: &Zone) -> Check {
    let name = format!("zone {}", zone.name);
    let Some(seen) = facts.zones.get(&zone.name) else {
        return unknown(name, "nobody looked", "hafog dns show");
    };
    match &seen.open {
        Seen::Unknown(why) => return unknown(name, why, "hafog dns show"),
        Seen::Known(false) => {
            return fail(name, format!("{} does not serve it", zone.host), "hafog up");
        }
        Seen::Known(true) => {}
    }
    let names = stack.names.iter().filter(|name| name.zone == zone.name);
    let mut same = 0;
    for wanted in names {
        let Some(published) = facts.published.current(&wanted.target, RecordType::A) else {
            continue;
        };
        let held = seen
            .records
            .iter()
            .find(|set| set.host == wanted.target && set.kind == RecordType::A);
        match held {
            Some(held) if held == published => same += 1,
            Some(held) => {
                let why = format!("it serves `{held}`, and `{published}` was published");
                return fail(name, why, "hafog dns show");
            }
            None => {
                let why = format!("it does not serve `{published}`, which was published");
                return fail(name, why, "hafog dns show");
            }
        }
    }
    match same {
        0 => not_applicable(name, "nothing was published in it"),
        _ => pass(name, format!("{} serves what was published", zone.host)),
    }
}

/// How long a flip takes to be seen, and whether a lowered TTL was forgotten.
fn ttl(facts: &Facts, name: &Name) -> Check {
    let check = format!("ttl {}", name.host);
    if let Some(lease) = facts.published.ttl_leases.get(&name.target)
        && is_over(lease.until, facts.at)
    {
        let why = format!(
            "lowered to {}, to be restored by {:.0}",
            lease.lowered, lease.until
        );
        return fail(check, why, "hafog dns restore");
    }
    match facts.published.current(&name.target, RecordType::A) {
        None => not_applicable(check, "it was never published"),
        Some(set) => {
            let seen = short(set.ttl.duration());
            pass(
                check,
                format!(
                    "a flip is seen everywhere after {seen}, later ones after {}",
                    name.failover_ttl
                ),
            )
        }
    }
}

fn is_over(until: Timestamp, now: Timestamp) -> bool {
    until < now
}
