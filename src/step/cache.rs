//! The cache of a site: what Varnish is told.
//!
//! It keeps what an application says may be kept, and files of well-known kinds for a minute. While no application
//! server answers it gives out what it has for `grace` after its time, to everybody.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::balancer;
use super::proxy::Proxy;
use crate::error::Fault;
use crate::image::render;
use crate::model::stack::Server;
use crate::shell::{Host, Service};
use crate::world::World;

const SERVICE: &str = "varnish";

/// Answered by the cache itself, whatever stands behind it. What the first balancer asks.
pub(super) const ALIVE: &str = "/.hafog/cache";

/// Names that end so are files, the same for everybody.
const FILES: &[&str] = &[
    "avif", "bmp", "css", "eot", "gif", "ico", "jpeg", "jpg", "js", "map", "mjs", "mp3", "mp4",
    "ogg", "otf", "pdf", "png", "svg", "ttf", "txt", "wasm", "webm", "webp", "woff", "woff2",
];

/// What `templates/varnish/cache.vcl` is rendered with.
#[derive(Serialize)]
struct Values {
    address: String,
    port: u16,
    check: String,
    alive: &'static str,
    files: String,
    /// Seconds.
    grace: u64,
}

pub(super) fn configuration(world: &World, server: &Server, host: &Host) -> Result<Proxy, Fault> {
    let cache = world.stack.cache.as_ref();
    let cache = cache.ok_or_else(|| Fault::new("the spec has no cache"))?;
    let values = Values {
        address: host.address.to_string(),
        port: world.port(&server.site, balancer::SECOND_PORT),
        check: balancer::of(world)?.check.clone(),
        alive: ALIVE,
        files: FILES.join("|"),
        grace: cache.grace.0.as_secs(),
    };
    let path = format!("{}/cache.vcl", host.dirs.etc);
    let listen = SocketAddr::new(host.address, balancer::port_of(world, server)).to_string();
    let folder = format!("{}/varnish", host.dirs.data);
    let store = format!("malloc,{}", server.size.memory.0 / 2);
    let words = [
        "varnishd", "-F", "-n", &folder, "-a", &listen, "-f", &path, "-s", &store, "-T", "none",
    ];
    let argv = words.map(str::to_owned).to_vec();
    let service = Service::new(SERVICE, argv, Duration::from_secs(10));
    Proxy::new(render::VARNISH, values, path, service)
}

/// What the running one says of itself.
pub(super) async fn description(world: &World, server: &Server) -> Option<String> {
    let (_, body) = balancer::ask(world, server, ALIVE).await.ok()?;
    Some(body.trim().to_owned())
}
