//! The normalised picture of a world, for comparing two of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::node::{Data, Mode, SimNode};
use super::world::{SimServer, SimZone, World};
use crate::model::id::{DatabaseName, ServerName};

/// No times, ids, addresses, tags, documents or contents of files.
pub(super) fn of(world: &World) -> Value {
    let names: BTreeMap<String, String> = world
        .servers
        .iter()
        .map(|(name, server)| (server.address.to_string(), format!("@{name}")))
        .collect();
    let sites: BTreeMap<_, _> = world
        .sites
        .iter()
        .map(|(name, site)| {
            let images: Vec<_> = site.images.keys().collect();
            let mut picture = json!({ "network": site.network, "images": images });
            if let Some(firewall) = &site.firewall {
                let mut own: Vec<String> = firewall
                    .own
                    .iter()
                    .map(|one| named(&one.to_string(), &names))
                    .collect();
                own.sort();
                picture["lets_in"] = own.into();
            }
            if let Some(entry) = &site.entry {
                picture["entry"] = named(&entry.to.to_string(), &names).into();
            }
            (name, picture)
        })
        .collect();
    let servers: BTreeMap<_, _> = world
        .servers
        .iter()
        .map(|(name, server)| (name, server_picture(world, name, server)))
        .collect();
    let zones: BTreeMap<_, _> = world
        .zones
        .iter()
        .map(|(name, zone)| (name, zone_picture(zone, &names)))
        .collect();
    json!({ "sites": sites, "servers": servers, "zones": zones })
}

fn server_picture(world: &World, name: &ServerName, server: &SimServer) -> Value {
    let state = server.state.word();
    let services: BTreeMap<_, _> = server
        .services
        .iter()
        .map(|(name, service)| {
            let picture = json!({ "running": service.running, "image": service.image });
            (name, picture)
        })
        .collect();
    let nodes: BTreeMap<_, _> = server
        .nodes
        .iter()
        .map(|(database, node)| (database, node_picture(world, name, database, node)))
        .collect();
    // A note for an agent that cannot read the arbiter: one that could and opened its node itself has none.
    let files = server.files.keys();
    let files: Vec<_> = files
        .filter(|path| !path.ends_with("/agent/writer.json"))
        .collect();
    json!({
        "site": server.site,
        "state": state,
        "image": server.image,
        "files": files,
        "services": services,
        "out": server.out,
        "nodes": nodes,
    })
}

fn node_picture(
    world: &World,
    name: &ServerName,
    database: &DatabaseName,
    node: &SimNode,
) -> Value {
    let mode = match node.mode {
        Mode::Replica => "replica",
        Mode::Barred => "barred",
        Mode::Writable => "writable",
    };
    json!({
        "complete": node.data == Data::Complete,
        "running": world.servers[name].runs(&node.service),
        "mode": mode,
        "timeline": node.timeline,
        "upstream": node.upstream.as_ref().map(|upstream| &upstream.name),
        "streaming": world.link(name, database) == Some(Ok(())),
        "slots": node.slots,
        "rows": node.rows().collect::<Vec<_>>(),
    })
}

fn zone_picture(zone: &SimZone, names: &BTreeMap<String, String>) -> Value {
    let records: Vec<String> = zone
        .sets
        .values()
        .map(|set| {
            let mut values: Vec<String> = set.values.iter().map(|one| named(one, names)).collect();
            values.sort();
            format!(
                "{} {} {} {}",
                set.host,
                set.ttl.0,
                set.kind,
                values.join(" ")
            )
        })
        .collect();
    json!({ "open": zone.open, "records": records })
}

/// An address as the name of the server that has it; one that no server has must not differ between runs either.
fn named(value: &str, names: &BTreeMap<String, String>) -> String {
    match names.get(value) {
        Some(name) => name.clone(),
        None if value.parse::<IpAddr>().is_ok() => "@nobody".to_owned(),
        None => value.to_owned(),
    }
}
