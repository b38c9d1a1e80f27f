//! `hafog scale`: as many servers as the spec says. What misses or fails is made by [`super::heal`]; here is what the
//! spec has no longer: out of rotation, out of the balancers' files, removed.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{ForgetReplica, LEAVING_TAG, LetGo, TakeOut};
use super::facts::Facts;
use super::safety::{Refusal, lost_writer, refusal};
use super::server::delete_server;
use super::{Intent, Plan, database, heal, step};
pub(super) use crate::cloud::firewall::GROUP_TAG;
use crate::cloud::{Server as CloudServer, ServerState};
use crate::model::id::*;
use crate::model::stack::{BALANCER_GROUP, CACHE_GROUP, Database, SPARE_GROUP, Stack};

pub fn scale(stack: &Stack, facts: &Facts, sites: &[SiteName]) -> Plan {
    let sites = sites.to_vec();
    heal::work(stack, facts, Intent::Scale { sites })
}

/// A server that is there and that the spec has no longer.
pub(super) struct Surplus<'a> {
    site: &'a SiteName,
    seen: &'a CloudServer,
    group: GroupName,
    database: Option<&'a Database>,
}

impl Surplus<'_> {
    /// Whether a balancer or a cache may know it.
    pub fn is_known_by_address(&self) -> bool {
        self.database.is_none()
    }
}

pub(super) fn surplus<'a>(
    stack: &'a Stack,
    facts: &'a Facts,
    site: &'a SiteName,
) -> Vec<Surplus<'a>> {
    let Some(there) = facts.sites.get(site) else {
        return Vec::new();
    };
    let ours: BTreeSet<&ServerName> = stack.servers_at(site).map(|server| &server.name).collect();
    let more = there.servers.values();
    let more = more.filter(|seen| !ours.contains(&seen.name));
    let more = more.filter_map(|seen| {
        let group = group_of(seen)?;
        let mut databases = stack.databases.iter();
        Some(Surplus {
            site,
            seen,
            database: databases.find(|database| database.on == group),
            group,
        })
    });
    more.collect()
}

/// `None`: it is a temporary server.
pub(super) fn group_of(seen: &CloudServer) -> Option<GroupName> {
    seen.tags.get(GROUP_TAG).map(GroupName::new)
}

fn names<'a>(surplus: impl IntoIterator<Item = &'a Surplus<'a>>) -> String {
    let names = surplus.into_iter().map(|one| one.seen.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// What is there and not in the spec, a line each.
pub fn beside_the_spec(stack: &Stack, facts: &Facts) -> Vec<String> {
    let lost = lost_writer(stack, facts).map(|refusal| refusal.why);
    let sites = stack.sites.iter();
    let more = sites.filter_map(|site| note(&surplus(stack, facts, &site.name)));
    more.chain(lost).collect()
}

/// What other verbs say of them.
pub(super) fn note(surplus: &[Surplus]) -> Option<String> {
    let first = surplus.first()?;
    let are = match surplus.len() {
        1 => "is",
        _ => "are",
    };
    Some(format!(
        "{} {are} not in the spec any longer; `hafog scale {}` removes what is too much",
        names(surplus),
        first.site
    ))
}

/// Why they may not be removed.
pub(super) fn refuse(stack: &Stack, facts: &Facts, surplus: &[Surplus]) -> Vec<Refusal> {
    let gone = group_gone(stack, surplus);
    gone.into_iter()
        .chain(not_following(facts, surplus))
        .collect()
}

/// What a node has that nobody sees following may be nowhere else.
fn not_following(facts: &Facts, surplus: &[Surplus]) -> Option<Refusal> {
    let streams = |name: &ServerName| {
        let statuses = facts.nodes.values().filter_map(|fact| fact.status.known());
        let mut followers = statuses.flat_map(|status| &status.followers);
        followers.any(|follower| follower.node == *name && follower.streaming)
    };
    // It was seen when a removal began that was cut.
    let was_seen = |one: &Surplus, database: &Database| {
        let epoch = facts.epoch(&database.name).to_string();
        one.seen.tags.get(LEAVING_TAG) == Some(&epoch)
    };
    let is_silent = |one: &&Surplus| {
        let database = one.database;
        database.is_some_and(|database| !streams(&one.seen.name) && !was_seen(one, database))
    };
    let silent: Vec<&Surplus> = surplus.iter().filter(is_silent).collect();
    let first = silent.first()?;
    let why = format!(
        "nobody sees that {} follows, so it may have what the primary lacks, and would be removed",
        names(silent.iter().copied())
    );
    let hint = format!("hafog scale {} --accept removed-unseen", first.site);
    Some(refusal("removed-unseen", why, hint))
}

fn group_gone(stack: &Stack, surplus: &[Surplus]) -> Option<Refusal> {
    let groups: BTreeSet<&GroupName> = stack.servers.iter().map(|server| &server.group).collect();
    let ours = |group: &GroupName| {
        let made = [BALANCER_GROUP, CACHE_GROUP, SPARE_GROUP];
        groups.contains(group) || made.contains(&group.as_str())
    };
    let gone: Vec<&Surplus> = surplus.iter().filter(|one| !ours(&one.group)).collect();
    let first = gone.first()?;
    let why = format!(
        "the spec has no group `{}` any longer: {} would be removed with all that is on their disks",
        first.group,
        names(gone.iter().copied())
    );
    let hint = format!("hafog scale {} --accept group-gone", first.site);
    Some(refusal("group-gone", why, hint))
}

/// The steps after which balancers send nothing to them and they have nothing left to answer, and after which it is
/// written down that nodes follow.
pub(super) fn take_out(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    surplus: &[Surplus],
) -> Vec<StepName> {
    let rotates = |one: &Surplus| {
        let group = &one.group;
        let stays = stack.group_at(one.site, group).next().is_some();
        let is_behind =
            stack.is_balanced(group) || [SPARE_GROUP, CACHE_GROUP].contains(&group.as_str());
        stays && is_behind && one.seen.state == ServerState::Running
    };
    let taken = surplus.iter().filter_map(|one| {
        let (site, server) = (one.site.clone(), one.seen.name.clone());
        let name = format!("take-out {server}");
        if let Some(database) = one.database {
            let about = format!("write down that {server} may go");
            let epoch = facts.epoch(&database.name);
            let action = LetGo {
                site,
                server,
                epoch,
            };
            return Some(step(name, about, action.into()));
        }
        let group = one.group.clone();
        rotates(one).then(|| {
            let about =
                format!("take {server} out of rotation, when it has answered what it is asked");
            step(
                name,
                about,
                TakeOut {
                    site,
                    server,
                    group,
                }
                .into(),
            )
        })
    });
    taken.map(|step| plan.push(step)).collect()
}

/// The one that writes is told first: commits may wait for a node that goes.
pub(super) fn remove(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    surplus: &[Surplus],
    after: &[StepName],
) {
    let mut after = after.to_vec();
    let shrinks = |database: &&Database| {
        let mut going = surplus.iter().filter_map(|one| one.database);
        going.any(|one| one.name == database.name)
    };
    for database in stack.databases.iter().filter(shrinks) {
        let writer = facts.writer_node(&database.name);
        if let Some(writer) = writer.and_then(|writer| stack.server(writer)) {
            let told = database::start_agent(database, writer).after(after.iter().cloned());
            let before = plan.step(&told.name).map(|step| step.name.clone());
            after.push(before.unwrap_or_else(|| plan.push(told)));
        }
    }
    let mut deleted = BTreeMap::new();
    for one in surplus {
        let name = &one.seen.name;
        let about = format!("remove {name}, which the spec has no longer, and its data");
        let delete = delete_server(one.site, name, about);
        let step = plan.push(delete.after(after.iter().cloned()));
        deleted.insert(name, step);
    }
    forget(plan, stack, facts, site, &deleted);
}

/// Nobody keeps log for nodes that go, or that went while a run was cut.
fn forget(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
    deleted: &BTreeMap<&ServerName, StepName>,
) {
    for database in &stack.databases {
        let ours = format!("{}-{site}-{}-", stack.name, database.on);
        let is_gone = |name: &ServerName| {
            let number = name.as_str().strip_prefix(&ours);
            let is_node = number.is_some_and(|number| number.parse::<u32>().is_ok());
            let goes = deleted.contains_key(name) || facts.server(site, name).is_none();
            is_node && goes && stack.server(name).is_none()
        };
        for (keeper, fact) in &facts.nodes {
            let followers = fact.status.known().map(|status| &status.followers);
            for follower in followers.into_iter().flatten() {
                let name = &follower.node;
                if fact.database != database.name || !is_gone(name) {
                    continue;
                }
                let action = ForgetReplica {
                    database: database.name.clone(),
                    primary: keeper.clone(),
                    replica: name.clone(),
                };
                let about = format!("{keeper} keeps nothing for {name} any longer");
                let forget = step(
                    format!("forget-replica {name} {keeper}"),
                    about,
                    action.into(),
                );
                plan.push(forget.after(deleted.get(name).cloned()));
            }
        }
    }
}
