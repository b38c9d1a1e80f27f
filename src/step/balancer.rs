//! The balancers of a site: what HAProxy is told, and whether a server behind it would pass its check.
//!
//! Where there is a cache, the first balancer sends to the caches, and a second one on each cache's server sends what
//! the cache does not have to the application servers.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::cache;
use super::proxy::Proxy;
use crate::error::Fault;
use crate::image::render;
use crate::model::id::*;
use crate::model::stack::{Balancer, CACHE_GROUP, Job, Server};
use crate::probe::HttpAsk;
use crate::shell::{Host, ReloadSignal, Service};
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
    /// They get requests while not all of `servers` do.
    spares: Vec<Backend>,
}

/// Where the second balancer listens.
pub(super) const SECOND_PORT: u16 = 8081;

pub(super) fn of(world: &World) -> Result<&Balancer, Fault> {
    let balancer = world.stack.balancer.as_ref();
    balancer.ok_or_else(|| Fault::new("the spec has no balancer"))
}

/// HAProxy: of the balancer that clients meet, or of the one on a cache's server.
pub(super) async fn configuration(
    world: &World,
    server: &Server,
    host: &Host,
) -> Result<Proxy, Fault> {
    let balancer = of(world)?;
    let is_first = server.job == Job::Balancer;
    let listen = match is_first {
        true => &balancer.listen[..],
        false => &[SECOND_PORT],
    };
    let caches = GroupName::from(CACHE_GROUP);
    let (to, spare, check) = match world.stack.cache {
        Some(_) if is_first => (&caches, None, cache::ALIVE),
        _ => (
            &balancer.to,
            balancer.spare.as_ref(),
            balancer.check.as_str(),
        ),
    };
    let hosts = world.hosts_at(&server.site).await?;
    let backend = |behind: &Server| {
        let host = world.host_among(&hosts, &behind.name)?;
        Ok::<_, Fault>(Backend {
            name: behind.name.to_string(),
            address: host.address.to_string(),
            port: port_of(world, behind),
        })
    };
    let group = |group| world.stack.group_at(&server.site, group).map(backend);
    let servers = group(to).collect::<Result<_, _>>()?;
    let spares = spare
        .into_iter()
        .flat_map(group)
        .collect::<Result<_, _>>()?;
    let listen = listen.iter();
    let values = Values {
        socket: SOCKET,
        is_first,
        listen: listen.map(|port| world.port(&server.site, *port)).collect(),
        address: host.address.to_string(),
        check: check.to_owned(),
        servers,
        spares,
    };
    let path = format!("{}/haproxy.cfg", host.dirs.etc);
    let service = service(&path);
    Proxy::new(render::HAPROXY, values, path, service)
}

fn service(config: &str) -> Service {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    // A master, which reads the file anew and starts workers.
    let argv = words(&["haproxy", "-W", "-db", "-f", config]);
    Service {
        before: vec![words(&["haproxy", "-c", "-f", config])],
        reload_signal: ReloadSignal::Usr2,
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
    if !world.stack.is_balanced(&server.group) {
        return Ok(());
    }
    match ask(world, server, &balancer.check).await?.0 {
        200 => Ok(()),
        status => Err(format!("{name} answers {status}")),
    }
}

/// The status and the body of one answer of a server, asked straight at the port that a balancer uses.
pub(super) async fn ask(
    world: &World,
    server: &Server,
    path: &str,
) -> Result<(u16, String), String> {
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
    Ok((answer.status, answer.body))
}
