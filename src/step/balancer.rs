//! The balancers of a site: what HAProxy is told, and whether a server behind it would pass its check.
//!
//! Where there is a cache, the first balancer sends to the caches, and a second one on each cache's server sends what
//! the cache does not have to the application servers.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::cache;
use crate::error::Fault;
use crate::image::render;
use crate::model::id::*;
use crate::model::stack::{Balancer, CACHE_GROUP, Job, Server};
use crate::probe::HttpAsk;
use crate::shell::{File, Host, Service};
use crate::world::World;

pub(super) const SERVICE: &str = "haproxy";

/// HAProxy's, in its server's data folder: where it runs. The path of a socket has at most 107 bytes (unix(7)).
pub(super) const SOCKET: &str = "haproxy.sock";

#[derive(Serialize)]
struct Backend {
    name: String,
    address: String,
    port: u16,
}

/// What `templates/haproxy/haproxy.cfg` is rendered with.
#[derive(Serialize)]
struct Values {
    socket: &'static str,
    /// Clients come to it; what comes to the second balancer says already for whom.
    is_first: bool,
    listen: Vec<u16>,
    address: String,
    check: String,
    servers: Vec<Backend>,
}

/// Where the second balancer listens.
pub(super) const SECOND_PORT: u16 = 8081;

pub(super) fn of(world: &World) -> Result<&Balancer, Fault> {
    let balancer = world.stack.balancer.as_ref();
    balancer.ok_or_else(|| Fault::new("the spec has no balancer"))
}

/// HAProxy's configuration file, and the service that runs it: of the balancer that clients meet, or of the one on a
/// cache's server.
pub(super) async fn configuration(
    world: &World,
    server: &Server,
    host: &Host,
) -> Result<(File, Service), Fault> {
    let balancer = of(world)?;
    let is_first = server.job == Job::Balancer;
    let listen = match is_first {
        true => &balancer.listen[..],
        false => &[SECOND_PORT],
    };
    let caches = GroupName::from(CACHE_GROUP);
    let (to, check) = match world.stack.cache {
        Some(_) if is_first => (&caches, cache::ALIVE),
        _ => (&balancer.to, balancer.check.as_str()),
    };
    let mut servers = Vec::new();
    let hosts = world.hosts_at(&server.site).await?;
    for behind in world.stack.group_at(&server.site, to) {
        let address = world.host_among(&hosts, &behind.name)?.address.to_string();
        servers.push(Backend {
            name: behind.name.to_string(),
            address,
            port: port_of(world, behind),
        });
    }
    let listen = listen.iter();
    let values = Values {
        socket: SOCKET,
        is_first,
        listen: listen.map(|port| world.port(&server.site, *port)).collect(),
        address: host.address.to_string(),
        check: check.to_owned(),
        servers,
    };
    let path = format!("{}/haproxy.cfg", host.dirs.etc);
    let file = File {
        path: path.clone(),
        bytes: render::render(render::HAPROXY, values)?.into_bytes(),
        mode: 0o644,
        for_service_user: false,
    };
    Ok((file, service(path)))
}

fn service(config: String) -> Service {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let argv = words(&["haproxy", "-db", "-f", &config]);
    Service {
        before: vec![words(&["haproxy", "-c", "-f", &config])],
        ..Service::new(SERVICE, argv, Duration::from_secs(5))
    }
}

/// Where a server behind a balancer listens.
pub(super) fn port_of(world: &World, server: &Server) -> u16 {
    world.port(&server.site, server.open.first().copied().unwrap_or(80))
}

/// Whether one application server answers the balancer's check, asked straight.
pub(super) async fn answers(world: &World, name: &ServerName) -> Result<(), String> {
    let Some(balancer) = &world.stack.balancer else {
        return Ok(());
    };
    let server = world.server(name).map_err(|fault| fault.to_string())?;
    if server.group != balancer.to {
        return Ok(());
    }
    match ask(world, server, &balancer.check).await? {
        200 => Ok(()),
        status => Err(format!("{name} answers {status}")),
    }
}

/// The status of one answer of a server, asked straight at the port that a balancer uses.
pub(super) async fn ask(world: &World, server: &Server, path: &str) -> Result<u16, String> {
    let words = |fault: Fault| fault.to_string();
    let host = world.host(&server.name).await.map_err(words)?;
    let ask = HttpAsk {
        to: SocketAddr::new(host.address, port_of(world, server)),
        host: server.name.to_string(),
        path: path.to_owned(),
        tls: false,
        limit: Duration::from_secs(2),
    };
    let answer = world.probe.http(&ask).await.map_err(words)?;
    Ok(answer.status)
}
