//! The world → Facts. Everything is asked at once, each question with its own limit; what does not answer is
//! *unknown*, with the reason. A site that is assumed down is not asked at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;

use crate::db::{Divergence, Engine, NodeStatus, Position};
use crate::error::Fault;
use crate::model::id::*;
use crate::model::roles::{Roles, Writer};
use crate::model::stack::Server;
use crate::plan::facts::{Apart, Facts, FilesFact, NodeFact, Seen, SiteFacts, ZoneFacts};
use crate::shell::Host;
use crate::step;
use crate::wait;
use crate::world::World;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(6);

/// For how long a standby may answer 503 before it counts.
const STANDBY_PATIENCE: Duration = Duration::from_secs(2);

/// For how long a server may fail to answer before it is sick.
const SICK_AFTER: Duration = Duration::from_secs(5);

/// For how long a standby may still read what it has. A promotion would wait for that, too.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Comparing the contents of two nodes.
const COMPARE_LIMIT: Duration = Duration::from_secs(120);

async fn within<T>(ask: impl Future<Output = Result<T, Fault>>) -> Seen<T> {
    match tokio::time::timeout(LIMIT, ask).await {
        Ok(Ok(value)) => Seen::Known(value),
        Ok(Err(fault)) => Seen::Unknown(fault.to_string()),
        Err(_) => Seen::Unknown(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// Looks at everything.
pub async fn facts(world: &World) -> Result<Facts, Fault> {
    let roles = world.roles().await?;
    let published = world.published().await?;
    let writers = world.writers().await?;
    let revoked = world.revoked().await?.images;
    let sites = join_all(
        world
            .stack
            .sites
            .iter()
            .map(|site| async { (site.name.clone(), site_facts(world, &site.name).await) }),
    );
    let zones = join_all(
        world
            .stack
            .zones
            .iter()
            .map(|zone| async { (zone.name.clone(), zone_facts(world, &zone.name).await) }),
    );
    let (sites, zones) = futures_util::future::join(sites, zones).await;
    let sites: BTreeMap<SiteName, SiteFacts> = sites.into_iter().collect();
    let hosts = hosts(&sites);
    let nodes = nodes(world, &hosts, &writers);
    let configured = configured(world, roles.as_ref(), &writers, &sites);
    let up = |site: &SiteName| sites.get(site).is_some_and(|seen| !seen.servers.is_empty());
    let doors = join_all(world.stack.sites.iter().filter(|site| up(&site.name)).map(
        |site| async {
            let door = door(world, &site.name, roles.as_ref()).await;
            (site.name.clone(), door)
        },
    ));
    let looks = futures_util::future::join3(nodes, configured, doors);
    let files = futures_util::future::join(files(world, &sites), connected(world));
    let ((nodes, configured, doors), (files, connected)) =
        futures_util::future::join(looks, files).await;
    Ok(Facts {
        at: world.clock.now(),
        roles,
        published,
        sites,
        nodes,
        writers,
        zones: zones.into_iter().collect(),
        images: world.images.clone(),
        revoked,
        configured,
        files,
        connected,
        doors: doors
            .into_iter()
            .filter_map(|(site, door)| Some((site, door?)))
            .collect(),
        apart: BTreeMap::new(),
        sick: BTreeMap::new(),
    })
}

fn hosts(sites: &BTreeMap<SiteName, SiteFacts>) -> BTreeMap<ServerName, Host> {
    let servers = sites.values().flat_map(|site| site.servers.values());
    let hosts = servers.filter_map(|server| Some((server.name.clone(), server.host.clone()?)));
    hosts.collect()
}

/// Replicas without a stream that have not replayed yet what they have: a standby that was restarted while its primary
/// was lost. Until they have, nobody knows how much of it they have.
pub fn unsettled(facts: &Facts) -> Vec<ServerName> {
    let nodes = facts.nodes.iter();
    let unsettled = nodes.filter(|(_, node)| {
        let status = node.status.known();
        status.is_some_and(NodeStatus::is_unsettled)
    });
    unsettled.map(|(name, _)| name.clone()).collect()
}

/// Waits until they have, as far as the limit lets it.
pub async fn settle(world: &World, facts: &Facts, names: &[ServerName]) {
    let hosts = hosts(&facts.sites);
    let settled = wait::until(world.clock.as_ref(), "replayed", SETTLE_LIMIT, || async {
        for name in names {
            let Some(fact) = facts.nodes.get(name) else {
                continue;
            };
            let asked = within(async {
                let (node, reach, engine) = world.to_ask(&hosts, &fact.database, name)?;
                engine.status(&node, &reach).await
            });
            if asked.await.known().is_some_and(|status| status.replaying) {
                return Err(format!("{name} still replays"));
            }
        }
        Ok(())
    });
    // One that is still at it is counted by what it has by then.
    let _ = settled.await;
}

/// Servers that run and do not do their work, asked for a while: one answer that does not come is no sickness.
pub async fn sick(world: &World, facts: &Facts) -> BTreeMap<ServerName, String> {
    let servers = world.stack.servers.iter();
    let running = servers.filter(|server| facts.runs(server));
    let asked = running.map(|server| async {
        let well = wait::until(world.clock.as_ref(), "well", SICK_AFTER, || {
            step::works(world, server)
        });
        let last = well.await.err()?;
        let why = last
            .causes()
            .last()
            .map_or_else(|| last.to_string(), Clone::clone);
        Some((server.name.clone(), why))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Nodes on servers that run, and that did not answer, asked for a while: busy is not silent.
pub async fn again(world: &World, facts: &Facts) -> BTreeMap<ServerName, NodeFact> {
    let hosts = hosts(&facts.sites);
    let servers = world.stack.servers.iter();
    let silent = servers.filter_map(|server| {
        let fact = facts.nodes.get(&server.name)?;
        (facts.runs(server) && fact.status.known().is_none()).then_some((server, fact))
    });
    let hosts = &hosts;
    let asked = silent.map(|(server, fact)| async move {
        let database = &fact.database;
        let writer = facts.writers.get(database);
        let answer = wait::until(world.clock.as_ref(), "it answers", SICK_AFTER, || async {
            let fact = node(world, hosts, database, server, writer).await;
            match fact.status.why_unknown() {
                None => Ok(fact),
                Some(why) => Err(why.to_owned()),
            }
        });
        Some((server.name.clone(), answer.await.ok()?))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// What old primaries have and the current ones lack: those of the sites that were left behind, and those beside a
/// node that took over within its site.
pub async fn apart(world: &World, facts: &Facts) -> BTreeMap<ServerName, Seen<Apart>> {
    let mut apart = BTreeMap::new();
    for database in &world.stack.databases {
        let Some(writer) = facts.writer_node(&database.name) else {
            continue;
        };
        for old in facts.old_primaries(&world.stack, database) {
            let look = apart_from(world, &database.name, &old.name, writer);
            let seen = tokio::time::timeout(COMPARE_LIMIT, look).await;
            let seen = match seen {
                Ok(Ok(apart)) => Seen::Known(apart),
                Ok(Err(fault)) => Seen::Unknown(fault.to_string()),
                Err(_) => Seen::Unknown(format!("no answer within {} s", COMPARE_LIMIT.as_secs())),
            };
            apart.insert(old.name.clone(), seen);
        }
    }
    apart
}

async fn apart_from(
    world: &World,
    database: &DatabaseName,
    old: &ServerName,
    writer: &ServerName,
) -> Result<Apart, Fault> {
    let old = world.node(database, old).await?;
    let primary = world.node(database, writer).await?;
    let reach = world.reach(&old.host.site)?;
    let engine = world.engine(&old.database)?;
    let divergence = engine.divergence(&old, &primary, &reach).await?;
    let contents = match &divergence {
        Divergence::Diverged { fork, .. } => {
            Some(match engine.contents(&old, &primary, fork, &reach).await {
                Ok(contents) => Seen::Known(contents),
                Err(fault) => Seen::Unknown(fault.to_string()),
            })
        }
        Divergence::None | Divergence::Unknown { .. } => None,
    };
    Ok(Apart {
        divergence,
        contents,
    })
}

async fn site_facts(world: &World, site: &SiteName) -> SiteFacts {
    let asked = within(async {
        let cloud = world.cloud(site)?;
        cloud.ping().await?;
        let of_spec = world.stack.site(site);
        let wall = async {
            match of_spec.is_some_and(|site| site.network.is_some()) {
                true => cloud.firewall().await,
                false => Ok(None),
            }
        };
        let entry = async {
            match of_spec.is_some_and(|site| site.address.is_some()) {
                true => cloud.entry().await,
                false => Ok(None),
            }
        };
        let (servers, images, site) = (cloud.servers(), cloud.images(), cloud.has_site());
        let looks = futures_util::future::join5(servers, images, wall, entry, site);
        let (servers, images, firewall, entry, site) = looks.await;
        Ok((servers?, images?, firewall?, entry?, site?))
    })
    .await;
    match asked {
        Seen::Known((servers, images, firewall, entry, is_made)) => SiteFacts {
            firewall,
            entry,
            is_made,
            answers: Seen::Known(()),
            servers: servers
                .into_iter()
                .map(|server| (server.name.clone(), server))
                .collect(),
            untried: images
                .iter()
                .filter(|image| !image.is_tried())
                .map(|image| image.name.clone())
                .collect(),
            images: images.into_iter().map(|image| image.name).collect(),
        },
        Seen::Unknown(why) => SiteFacts {
            answers: Seen::Unknown(why),
            servers: BTreeMap::new(),
            images: BTreeSet::new(),
            untried: BTreeSet::new(),
            firewall: None,
            entry: None,
            is_made: false,
        },
    }
}

async fn zone_facts(world: &World, zone: &ZoneName) -> ZoneFacts {
    let state = within(async { world.zone_host(zone)?.state().await }).await;
    let (open, closable) = match state {
        Seen::Known(state) => (Seen::Known(state.open), Seen::Known(state.closable)),
        Seen::Unknown(why) => (Seen::Unknown(why.clone()), Seen::Unknown(why)),
    };
    let records = within(async { world.zone_host(zone)?.records().await }).await;
    // A zone whose records nobody could read is not an empty one.
    let (open, records) = match (open, records) {
        (open, Seen::Known(records)) => (open, records),
        (Seen::Known(true), Seen::Unknown(why)) => (Seen::Unknown(why), Vec::new()),
        (open, Seen::Unknown(_)) => (open, Vec::new()),
    };
    ZoneFacts {
        open,
        closable,
        records,
    }
}

async fn nodes(
    world: &World,
    hosts: &BTreeMap<ServerName, Host>,
    writers: &BTreeMap<DatabaseName, Writer>,
) -> BTreeMap<ServerName, NodeFact> {
    let mut wanted = Vec::new();
    for database in &world.stack.databases {
        for site in &world.stack.sites {
            let writer = writers.get(&database.name);
            let writer = writer.and_then(|writer| writer.node.as_ref());
            let nodes = world.stack.ranked_at(&site.name, database, writer, &[]);
            wanted.extend(nodes.into_iter().map(|server| (&database.name, server)));
        }
    }
    // A server that does not exist is no node yet; one that exists and does not answer is unknown.
    let there = wanted.into_iter().filter(|(_, server)| {
        hosts.contains_key(&server.name) || world.assumed_down.contains(&server.site)
    });
    join_all(there.map(|(database, server)| async {
        (
            server.name.clone(),
            node(world, hosts, database, server, writers.get(database)).await,
        )
    }))
    .await
    .into_iter()
    .collect()
}

async fn node(
    world: &World,
    hosts: &BTreeMap<ServerName, Host>,
    database: &DatabaseName,
    server: &Server,
    writer: Option<&Writer>,
) -> NodeFact {
    let open = || world.to_ask(hosts, database, &server.name);
    let has_data = within(async {
        let (node, reach, engine) = open()?;
        engine.has_data(&node, &reach).await
    });
    let status = within(async {
        let (node, reach, engine) = open()?;
        engine.status(&node, &reach).await
    });
    let certificates = within(async {
        let (node, reach, engine) = open()?;
        engine.certificates(&node, &reach).await
    });
    let (has_data, status, certificates) =
        futures_util::future::join3(has_data, status, certificates).await;
    NodeFact {
        database: database.clone(),
        site: server.site.clone(),
        has_data,
        behind: writer.and_then(|writer| {
            let engine = open().ok()?.2;
            behind(engine.as_ref(), writer, status.known()?)
        }),
        status,
        certificates,
    }
}

/// From what the node has received to what the writer had at its last heartbeat.
fn behind(engine: &dyn Engine, writer: &Writer, status: &NodeStatus) -> Option<i64> {
    let known = Position(writer.beat.as_ref()?.position.clone());
    let replayed = engine.bytes_between(&known, &status.position)?;
    let received = status.received.as_ref();
    let received = received.and_then(|received| engine.bytes_between(&known, received));
    Some(received.map_or(replayed, |received| received.min(replayed)))
}

async fn configured(
    world: &World,
    roles: Option<&Roles>,
    writers: &BTreeMap<DatabaseName, Writer>,
    sites: &BTreeMap<SiteName, SiteFacts>,
) -> BTreeSet<ServerName> {
    let used: BTreeMap<&SiteName, Vec<step::UsedNode>> = sites
        .iter()
        .map(|(site, seen)| {
            let address = |node: &ServerName| {
                let host = seen.servers.get(node)?.host.as_ref();
                host.map(|host| host.address)
            };
            let used = step::used_nodes(&world.stack, site, roles, writers, address);
            (site, used)
        })
        .collect();
    let there = world.stack.servers.iter().filter_map(|server| {
        let seen = sites.get(&server.site)?.servers.get(&server.name)?;
        Some((server, seen, used.get(&server.site)?))
    });
    let checks = there.map(|(server, seen, nodes)| async move {
        let host = seen.host.as_ref()?;
        // A frozen server says nothing, and is asked for its role.
        let asked = step::is_configured(world, roles, nodes, server, host, &seen.tags);
        let configured = tokio::time::timeout(LIMIT, asked).await;
        configured.unwrap_or(false).then(|| server.name.clone())
    });
    join_all(checks).await.into_iter().flatten().collect()
}

/// What the servers have that should have files, as far as they run.
async fn files(
    world: &World,
    sites: &BTreeMap<SiteName, SiteFacts>,
) -> BTreeMap<FilesName, BTreeMap<ServerName, Seen<FilesFact>>> {
    let looks = world.stack.files.iter().map(|files| async move {
        let servers = world
            .stack
            .servers
            .iter()
            .filter(|server| server.group == files.on);
        let there = servers.filter_map(|server| {
            let seen = sites.get(&server.site)?.servers.get(&server.name)?;
            Some((server, seen.host.as_ref()?))
        });
        let asked = there.map(|(server, host)| async move {
            let seen = within(step::look_at_files(world, files, host)).await;
            (server.name.clone(), seen)
        });
        (
            files.name.clone(),
            join_all(asked).await.into_iter().collect(),
        )
    });
    join_all(looks).await.into_iter().collect()
}

async fn connected(world: &World) -> BTreeSet<GroupName> {
    let groups: BTreeSet<&GroupName> = world.stack.files.iter().map(|files| &files.on).collect();
    let asked = groups.into_iter().map(|group| async move {
        let seen = within(step::is_connected(world, group)).await;
        (seen == Seen::Known(true)).then(|| group.clone())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The front door's answer: the status of the first check that fails, or 200. Unknown: no answer, or one that is wrong
/// in another way than by its status. `None`: there is nothing to ask.
async fn door(world: &World, site: &SiteName, roles: Option<&Roles>) -> Option<Seen<u16>> {
    let doors = match within(step::front_door(world, site)).await {
        Seen::Known(Some(doors)) => doors,
        Seen::Known(None) => return None,
        Seen::Unknown(why) => return Some(Seen::Unknown(why)),
    };
    // A standby that has nobody behind its balancer for a moment must not stop a failover. A primary in that state is
    // what a failover is for, so it is not waited for.
    let patience = match roles.is_some_and(|roles| &roles.primary != site) {
        true => STANDBY_PATIENCE,
        false => Duration::ZERO,
    };
    let asked = wait::until(world.clock.as_ref(), "it is open", patience, || async {
        match ask_doors(world, &doors).await {
            Seen::Known(503) => Err("503".to_owned()),
            seen => Ok(seen),
        }
    });
    Some(asked.await.unwrap_or(Seen::Known(503)))
}

async fn ask_doors(world: &World, doors: &[step::Door]) -> Seen<u16> {
    for door in doors {
        for ask in &door.asks {
            match world.probe.http(ask).await {
                Ok(answer) if answer.status == door.status => {
                    let wanted = door.contains.as_ref();
                    if let Some(text) = wanted.filter(|text| !answer.body.contains(*text)) {
                        return Seen::Unknown(format!("the answer does not contain `{text}`"));
                    }
                }
                // 200 means well to who reads this, and here another was asked for.
                Ok(answer) if answer.status == 200 => {
                    let why = format!("it answers 200, and {} was expected", door.status);
                    return Seen::Unknown(why);
                }
                Ok(answer) => return Seen::Known(answer.status),
                Err(fault) => return Seen::Unknown(fault.to_string()),
            }
        }
    }
    Seen::Known(200)
}
