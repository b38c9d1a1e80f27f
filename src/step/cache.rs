//! The cache of a site: what Varnish is told.
//!
//! It keeps what an application says may be kept, and files of well-known kinds for a minute. While no application
//! server answers it gives out what it has for `grace` after its time, to everybody.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::balancer;
use crate::error::Fault;
use crate::image::render;
use crate::model::stack::Server;
use crate::shell::{File, Host, Service};
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

/// Varnish's program, and the service that runs it.
pub(super) fn configuration(
    world: &World,
    server: &Server,
    host: &Host,
) -> Result<(File, Service), Fault> {
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
    let file = File {
        path: path.clone(),
        bytes: render::render(render::VARNISH, values)?.into_bytes(),
        mode: 0o644,
        for_service_user: false,
    };
    let listen = SocketAddr::new(host.address, balancer::port_of(world, server)).to_string();
    let folder = format!("{}/varnish", host.dirs.data);
    let store = format!("malloc,{}", server.size.memory.0 / 2);
    let words = [
        "varnishd", "-F", "-n", &folder, "-a", &listen, "-f", &path, "-s", &store, "-T", "none",
    ];
    let argv = words.map(str::to_owned).to_vec();
    Ok((file, Service::new(SERVICE, argv, Duration::from_secs(10))))
}
