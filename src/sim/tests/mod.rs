//! The simulated world: each part of it does what the real one does, and each mishap what it says.

mod cloud;
mod database;
mod dns;
mod half;
mod mishap;
mod picture;
mod shell;
mod site;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::cloud::{Cloud, OnceKey, Power, ServerState, ServerWant};
use crate::db::keys::Keys;
use crate::db::{Engine, Link, Node, NodeRole, Reach, Rejoined, always};
use crate::dns::{DnsHost, RecordChange};
use crate::error::Trouble;
use crate::model::stack::Size;
use crate::model::units::Bytes;
use crate::probe::{HttpAsk, Probe};
use crate::shell::{ServiceChange, Shell};
use crate::state::StateStore;

const EAST: &str = "shop-east-db-1";
const WEST: &str = "shop-west-db-1";
const WEST_2: &str = "shop-west-db-2";

/// The one place that the real keys change.
fn keys() -> Arc<Keys> {
    Arc::new(Keys::open(std::env::temp_dir().join("hafog-sim-test-keys").as_path()).expect("keys"))
}

fn start() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

fn empty() -> SimWorld {
    SimWorld::new(start(), &stacks::small())
}

async fn stood() -> SimWorld {
    let stack = stacks::small();
    let world = SimWorld::new(start(), &stack);
    stacks::stand(&world, &stack, keys()).await;
    assert_eq!(world.violations(), [""; 0]);
    world.forget_calls();
    world
}

fn east() -> SiteName {
    "east".into()
}

fn west() -> SiteName {
    "west".into()
}

fn main() -> DatabaseName {
    "main".into()
}

fn node(world: &SimWorld, server: &str) -> Node {
    stacks::node(world, &stacks::small().databases[0], &server.into())
}

fn reach(world: &SimWorld) -> Reach {
    Reach {
        shell: world.shell(&east()),
        keys: keys(),
    }
}

fn write(world: &SimWorld, server: &str, text: &str) {
    world.write(&server.into(), &main(), text).unwrap();
}

fn rows(world: &SimWorld, server: &str) -> Vec<String> {
    let node = world.node(&server.into(), &main()).unwrap();
    node.rows().map(str::to_owned).collect()
}

fn want(name: &str, image: Option<&str>) -> ServerWant {
    ServerWant {
        name: name.into(),
        image: image.map(ImageName::new),
        base: "debian-12".to_owned(),
        size: Size {
            cpu: 1,
            memory: Bytes(1),
        },
        disk: None,
        open: vec![],
        tags: BTreeMap::new(),
    }
}

fn key(text: &str) -> OnceKey {
    OnceKey(text.to_owned())
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn http(world: &SimWorld, server: &str) -> Result<u16, Fault> {
    let ask = HttpAsk {
        to: (world.address(&server.into()).unwrap(), 80).into(),
        host: "www.shop.test".to_owned(),
        path: "/healthz".to_owned(),
        tls: false,
        limit: secs(2),
    };
    world.probe().http(&ask).await.map(|answer| answer.status)
}

fn change(before: Option<RecordSet>, after: Option<RecordSet>) -> RecordChange {
    let one = before.as_ref().or(after.as_ref()).unwrap();
    RecordChange {
        host: one.host.clone(),
        kind: one.kind,
        before,
        after,
    }
}
