//! `preflight`: everything that a failover to a site would look at, while nobody is in a hurry.
//!
//! Each check passes, fails, or is unknown; what has nothing to look at does not apply. Unknown never passes.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::facts::{Facts, Seen};
use super::failover;
use super::ttl::seen_after;
use crate::cloud::ServerState;
use crate::db::{Certificate, Link, NodeRole};
use crate::model::id::*;
use crate::model::record::RecordType;
use crate::model::stack::{Database, Job, Name, SelfFence, Server, Stack, Tier, Zone};
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

/// A kind of check, for `hafog explain` and the docs.
pub struct About {
    /// The first word of [`Check::name`].
    pub name: &'static str,
    pub about: &'static str,
}

pub const CHECKS: &[About] = &[
    About {
        name: "standby",
        about: "The site is a standby: `hafog clone` made it, and no failover has left it behind since.",
    },
    About {
        name: "roles",
        about: "No flip is provisional. Until its commit or rollback the only move is back.",
    },
    About {
        name: "runs",
        about: "No switchover, failover or rollback is unfinished. Such a run is resumed or aborted first.",
    },
    About {
        name: "arbiter",
        about: "The state store that holds the lease answers. Without it nobody may change the stack.",
    },
    About {
        name: "cloud",
        about: "The site's cloud answers, so that its servers can be seen and started.",
    },
    About {
        name: "image",
        about: "The images that the spec describes now are at the site, so that servers can start from them.",
    },
    About {
        name: "servers",
        about: "The servers that the site's tier keeps running do run. A cold site keeps none.",
    },
    About {
        name: "front-door",
        about: "The site answers the spec's health checks, asked at its own balancer. Nothing serves in colder tiers.",
    },
    About {
        name: "follows",
        about: "The node that would be promoted is a replica, and its stream is alive.",
    },
    About {
        name: "lag",
        about: "The node's newest heartbeat is younger than `lag.critical`. A dead stream is unknown lag, never zero.",
    },
    About {
        name: "headroom",
        about: "The primary still keeps all the log that the replica needs. Without it the replica must be copied anew.",
    },
    About {
        name: "write-lease",
        about: "The primary's agent renews its write lease: it is alive, and a failover knows when the lease ends. Under `self_fence: strict`, commits wait for the node that would be promoted.",
    },
    About {
        name: "certificates",
        about: "The database's certificates, on each node, are good for 21 days or more. `hafog up` renews what is due.",
    },
    About {
        name: "zone",
        about: "The zone is served, and what is served is what hafog published last.",
    },
    About {
        name: "ttl",
        about: "How long a flip takes until everybody sees it. Fails where a lowered TTL was not restored in time.",
    },
];

/// Certificates that end sooner fail.
pub const CERTIFICATES_MIN: Duration = Duration::from_secs(21 * 24 * 3600);

/// What facts do not hold.
pub struct Around {
    /// What the arbiter said when it was asked for the lease.
    pub arbiter: Seen<String>,
    /// An unfinished run that is in the way, in words.
    pub unfinished: Seen<Option<String>>,
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
        Seen::Known(Some(run)) => fail("runs", format!("{run} is not finished"), "hafog resume"),
        Seen::Known(None) => pass("runs", "every run is finished"),
        Seen::Unknown(why) => unknown("runs", why, "hafog show journal --list"),
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
        let of_databases = ["follows", "lag", "headroom", "write-lease", "certificates"];
        checks.extend(of_databases.map(|name| not_applicable(name, "the stack has no database")));
    }
    for database in &stack.databases {
        checks.extend(replica(stack, facts, site, database));
        checks.push(write_lease(stack, facts, site, database));
        checks.push(certificates(facts, database));
    }
    if stack.names.is_empty() {
        let of_names = ["zone", "ttl"];
        checks.extend(of_names.map(|name| not_applicable(name, "the stack publishes no name")));
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
            Some(_) if !facts.answers(site) => {
                unknown(name, format!("{site} did not answer"), mend)
            }
            Some(image) if facts.has_image(site, image) => pass(name, format!("{image} is there")),
            Some(image) => fail(name, format!("{image} is not there"), mend),
        }
    };
    if recipes.is_empty() {
        return vec![not_applicable("image", "the spec asks for no server there")];
    }
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
    if wanted.is_empty() {
        return not_applicable(name, "the spec asks for none");
    }
    if !facts.answers(site) {
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
    if let Some((why, mend)) = failover::no_servers(stack, facts, site) {
        return match facts.answers(site) {
            true => fail(name, why, mend),
            false => unknown(name, why, mend),
        };
    }
    let dark = matches!(tier(stack, site), Tier::Cold | Tier::PilotLight);
    if dark && stack.names.is_empty() {
        return not_applicable(name, "the spec has no name that would lead there");
    }
    let mend = format!("hafog clone {site}");
    match facts.doors.get(site) {
        Some(Seen::Known(200)) => pass(name, "200"),
        Some(Seen::Known(status)) => fail(name, format!("{status}, not 200"), mend),
        Some(Seen::Unknown(why)) => unknown(name, why, mend),
        None if stack.balancer.is_none() && facts.answers(site) => {
            not_applicable(name, "the stack has no balancer and no health check")
        }
        None => unknown(name, "nobody looked", mend),
    }
}

/// The node that would be promoted: it follows, it is close enough, and it may stay away for a while.
fn replica(stack: &Stack, facts: &Facts, site: &SiteName, database: &Database) -> Vec<Check> {
    let follows = format!("follows {}", database.name);
    if tier(stack, site) == Tier::Cold {
        let none = |name: &str| {
            let name = format!("{name} {}", database.name);
            not_applicable(name, "a cold site has no replica")
        };
        return ["follows", "lag", "headroom"].map(none).into();
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

fn write_lease(stack: &Stack, facts: &Facts, site: &SiteName, database: &Database) -> Check {
    let name = format!("write-lease {}", database.name);
    let Some(writer) = facts.writers.get(&database.name) else {
        return unknown(name, "the arbiter has no record of a writer", "hafog up");
    };
    let Some(node) = &writer.node else {
        return fail(name, "nobody may write", "hafog status");
    };
    let promoted = stack.nodes_at(site, database).next();
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
fn certificates(facts: &Facts, database: &Database) -> Check {
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
        match seen.record(&wanted.target, RecordType::A) {
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
            let seen = seen_after(facts, name, false).map_or(set.ttl.duration(), |span| span.0);
            let why = format!(
                "a flip is seen everywhere after {}, later ones after {}",
                short(seen),
                name.failover_ttl
            );
            pass(check, why)
        }
    }
}

fn is_over(until: Timestamp, now: Timestamp) -> bool {
    until < now
}

#[cfg(test)]
mod pair_tests;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cloud::Server;
    use crate::db::{Follower, Heartbeat, NodeStatus, Position};
    use crate::model::record::RecordSet;
    use crate::model::roles::{Published, Roles, TtlLease, Version, Writer};
    use crate::model::units::Ttl;
    use crate::plan::facts::{NodeFact, SiteFacts, ZoneFacts};
    use crate::sim::stacks::small;
    use insta::assert_snapshot;
    use std::collections::BTreeMap;

    const NODE: &str = "shop-west-db-1";

    fn now() -> Timestamp {
        "2026-11-21T09:14:03Z".parse().unwrap()
    }

    fn status(role: NodeRole, link: Option<Link>) -> NodeStatus {
        NodeStatus {
            role,
            writable: role == NodeRole::Primary,
            timeline: 1,
            system: "7".to_owned(),
            version: "15".to_owned(),
            position: Position("0/1".to_owned()),
            received: None,
            link,
            heartbeat: Some(Heartbeat {
                seq: 1,
                at: now() - Duration::from_millis(800),
            }),
            committed: None,
            transactions: None,
            followers: Vec::new(),
            confirmed_by: Vec::new(),
            confirming: false,
            seen: now(),
        }
    }

    fn record() -> RecordSet {
        RecordSet {
            host: "www.hafog-shop.shop.test".into(),
            kind: RecordType::A,
            ttl: Ttl(3600),
            values: ["127.0.0.2".to_owned()].into(),
        }
    }

    /// East is primary and everything is as it should be.
    pub(crate) fn fine(stack: &Stack) -> Facts {
        let images: BTreeMap<RecipeName, ImageName> = stack
            .recipes
            .keys()
            .map(|recipe| (recipe.clone(), ImageName::new(format!("{recipe}-1"))))
            .collect();
        let site = |site: &crate::model::stack::Site| {
            let server = |server: &crate::model::stack::Server| Server {
                name: server.name.clone(),
                id: String::new(),
                state: ServerState::Running,
                image: None,
                tags: BTreeMap::new(),
                host: None,
            };
            let servers = stack.servers_at(&site.name);
            let facts = SiteFacts {
                answers: Seen::Known(()),
                servers: servers.map(|one| (one.name.clone(), server(one))).collect(),
                images: images.values().cloned().collect(),
            };
            (site.name.clone(), facts)
        };
        let mut primary = status(NodeRole::Primary, None);
        primary.followers.push(Follower {
            node: NODE.into(),
            streaming: true,
            replayed: None,
            headroom: Some(64 << 20),
        });
        let from = "shop-east-db-1".to_owned();
        let replica = status(NodeRole::Replica, Some(Link::Up { from }));
        let node = |name: &str, site: &str, status| {
            let fact = NodeFact {
                database: "main".into(),
                site: site.into(),
                has_data: Seen::Known(true),
                status: Seen::Known(status),
                certificates: Seen::Known(vec![Certificate {
                    name: "server".to_owned(),
                    until: now() + Duration::from_secs(397 * 24 * 3600),
                }]),
                behind: None,
            };
            (ServerName::new(name), fact)
        };
        let writer = Writer {
            epoch: 3,
            node: Some("shop-east-db-1".into()),
            lease_until: Some(now() + Duration::from_secs(9)),
            confirmed_by: Vec::new(),
            beat: None,
        };
        let published = Published {
            serial: 1,
            versions: vec![Version {
                set: record(),
                from: now(),
                to: None,
            }],
            ttl_leases: BTreeMap::new(),
        };
        let zone = ZoneFacts {
            open: Seen::Known(true),
            closable: Seen::Known(true),
            records: vec![record()],
        };
        Facts {
            at: now(),
            roles: Some(Roles {
                serial: 1,
                primary: "east".into(),
                standbys: vec!["west".into()],
                left_behind: Vec::new(),
                provisional: None,
                changed: now(),
                by: "r".into(),
            }),
            published,
            sites: stack.sites.iter().map(site).collect(),
            nodes: [
                node("shop-east-db-1", "east", primary),
                node(NODE, "west", replica),
            ]
            .into(),
            writers: [("main".into(), writer)].into(),
            zones: [("shop.test".into(), zone)].into(),
            images,
            configured: Default::default(),
            doors: [
                ("east".into(), Seen::Known(200)),
                ("west".into(), Seen::Known(200)),
            ]
            .into(),
            apart: BTreeMap::new(),
        }
    }

    pub(crate) fn around() -> Around {
        Around {
            arbiter: Seen::Known("it answers".to_owned()),
            unfinished: Seen::Known(None),
        }
    }

    fn checks(facts: &Facts) -> Vec<Check> {
        preflight(&small(), facts, &"west".into(), &around())
    }

    fn text(checks: &[Check]) -> String {
        let line = |check: &Check| {
            let mend = check.mend.as_deref().unwrap_or("-");
            format!(
                "{:?} {}: {} [{mend}]\n",
                check.verdict, check.name, check.evidence
            )
        };
        checks.iter().map(line).collect()
    }

    #[test]
    fn a_healthy_standby_passes_with_evidence() {
        let checks = checks(&fine(&small()));
        assert_snapshot!(text(&checks), @r"
        Pass standby west: east is primary, west is a standby [-]
        Pass roles: no flip is provisional [-]
        Pass runs: every run is finished [-]
        Pass arbiter: it answers [-]
        Pass cloud west: it answers [-]
        Pass image haproxy: haproxy-1 is there [-]
        Pass image postgres: postgres-1 is there [-]
        Pass image web: web-1 is there [-]
        Pass servers west: all 5 run [-]
        Pass front-door west: 200 [-]
        Pass follows main: shop-west-db-1 streams from shop-east-db-1 [-]
        Pass lag main: shop-west-db-1 is 0.8 s behind, critical is 1m [-]
        Pass headroom main: shop-west-db-1 may fall 64MiB further behind [-]
        Pass write-lease main: shop-east-db-1 holds it for 9 s more, epoch 3 [-]
        Pass certificates main: the first to end: `server` on shop-east-db-1 is good until 2027-12-23T09:14:03Z [-]
        Pass zone shop.test: serve serves what was published [-]
        Pass ttl www.shop.test: a flip is seen everywhere after 3601s, later ones after 1m [-]
        ");
        assert_eq!(overall(&checks), Verdict::Pass);
    }

    /// One thing changed gives exactly the checks that are about it.
    fn changed(change: impl FnOnce(&mut Facts)) -> String {
        let mut facts = fine(&small());
        change(&mut facts);
        let bad = |check: &Check| check.verdict != Verdict::Pass;
        let checks: Vec<Check> = checks(&facts).into_iter().filter(bad).collect();
        text(&checks)
    }

    fn replica(facts: &mut Facts, change: impl FnOnce(&mut NodeStatus)) {
        let node = facts.nodes.get_mut(&NODE.into()).expect("it is there");
        if let Seen::Known(status) = &mut node.status {
            change(status);
        }
    }

    #[test]
    fn each_trouble_is_found_by_its_check() {
        let mut all = String::new();
        let mut note = |what: &str, text: String| all.push_str(&format!("# {what}\n{text}"));
        note(
            "dead stream, young heartbeat",
            changed(|facts| {
                replica(facts, |status| {
                    status.link = Some(Link::Down {
                        why: "refused".to_owned(),
                    })
                });
            }),
        );
        note(
            "no heartbeat",
            changed(|facts| replica(facts, |status| status.heartbeat = None)),
        );
        note(
            "far behind",
            changed(|facts| {
                replica(facts, |status| {
                    status.heartbeat = Some(Heartbeat {
                        seq: 1,
                        at: now() - Duration::from_secs(900),
                    });
                })
            }),
        );
        note(
            "node silent",
            changed(|facts| {
                facts.nodes.get_mut(&NODE.into()).unwrap().status =
                    Seen::Unknown("no route".to_owned());
            }),
        );
        note(
            "log thrown away",
            changed(|facts| {
                let node = facts.nodes.get_mut(&"shop-east-db-1".into()).unwrap();
                if let Seen::Known(status) = &mut node.status {
                    status.followers[0].headroom = Some(-1);
                }
            }),
        );
        note(
            "lease expired",
            changed(|facts| {
                let writer = facts.writers.get_mut(&"main".into()).unwrap();
                writer.lease_until = Some(now() - Duration::from_secs(4));
            }),
        );
        note(
            "site silent",
            changed(|facts| {
                facts.sites.get_mut(&"west".into()).unwrap().answers =
                    Seen::Unknown("no answer".to_owned());
            }),
        );
        note(
            "server off",
            changed(|facts| {
                let west = facts.sites.get_mut(&"west".into()).unwrap();
                west.servers
                    .get_mut(&"shop-west-web-1".into())
                    .unwrap()
                    .state = ServerState::Off;
            }),
        );
        note(
            "image missing",
            changed(|facts| {
                facts
                    .sites
                    .get_mut(&"west".into())
                    .unwrap()
                    .images
                    .remove(&ImageName::from("web-1"));
            }),
        );
        note(
            "door shut",
            changed(|facts| drop(facts.doors.insert("west".into(), Seen::Known(503)))),
        );
        note(
            "somebody else changed the zone",
            changed(|facts| {
                facts.zones.get_mut(&"shop.test".into()).unwrap().records[0].ttl = Ttl(5);
            }),
        );
        note(
            "zone closed",
            changed(|facts| {
                facts.zones.get_mut(&"shop.test".into()).unwrap().open = Seen::Known(false);
            }),
        );
        note(
            "TTL forgotten",
            changed(|facts| {
                let lease = TtlLease {
                    normal: Ttl(3600),
                    lowered: Ttl(60),
                    since: now(),
                    until: now() - Duration::from_secs(1),
                };
                facts
                    .published
                    .ttl_leases
                    .insert("www.hafog-shop.shop.test".into(), lease);
            }),
        );
        assert_snapshot!(all, @r"
        # dead stream, young heartbeat
        Fail follows main: shop-west-db-1: refused [hafog replicate setup west]
        Unknown lag main: the stream is dead [hafog replicate status west]
        # no heartbeat
        Unknown lag main: shop-west-db-1 has no heartbeat [hafog replicate status west]
        # far behind
        Fail lag main: shop-west-db-1 is 900.0 s behind, over the critical 1m [hafog replicate status west]
        # node silent
        Unknown follows main: shop-west-db-1: no route [hafog replicate setup west]
        # log thrown away
        Fail headroom main: shop-east-db-1 has thrown away log that shop-west-db-1 needs [hafog replicate reseed west]
        # lease expired
        Fail write-lease main: the agent of shop-east-db-1 let it expire 4 s ago [hafog up]
        # site silent
        Unknown cloud west: no answer [hafog status]
        Unknown image haproxy: west did not answer [hafog build west]
        Unknown image postgres: west did not answer [hafog build west]
        Unknown image web: west did not answer [hafog build west]
        Unknown servers west: west did not answer [hafog status]
        # server off
        Fail servers west: not running: shop-west-web-1 [hafog clone west]
        # image missing
        Fail image web: web-1 is not there [hafog build west]
        # door shut
        Fail front-door west: 503, not 200 [hafog clone west]
        # somebody else changed the zone
        Fail zone shop.test: it serves `www.hafog-shop.shop.test 5 A 127.0.0.2`, and `www.hafog-shop.shop.test 3600 A 127.0.0.2` was published [hafog dns show]
        # zone closed
        Fail zone shop.test: serve does not serve it [hafog up]
        # TTL forgotten
        Fail ttl www.shop.test: lowered to 1m, to be restored by 2026-11-21T09:14:02Z [hafog dns restore]
        ");
    }

    #[test]
    fn unknown_never_passes_and_a_failure_outranks_it() {
        let of = |verdicts: &[Verdict]| {
            let check = |verdict: &Verdict| Check {
                verdict: *verdict,
                ..pass("x", "")
            };
            overall(&verdicts.iter().map(check).collect::<Vec<_>>())
        };
        use Verdict::{Fail, NotApplicable, Pass, Unknown};
        assert_eq!(of(&[Pass, NotApplicable]), Pass);
        assert_eq!(of(&[Pass, Unknown]), Unknown);
        assert_eq!(of(&[Unknown, Fail, Pass]), Fail);
        assert_eq!(of(&[NotApplicable]), NotApplicable);
        assert_eq!(of(&[]), NotApplicable);
    }
}
