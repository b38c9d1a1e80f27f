//! A simulated world, opened as hafog opens the real one.

use std::collections::BTreeMap;
use std::sync::Arc;

use hafog::cloud::Cloud;
use hafog::db::Engine;
use hafog::db::keys::Keys;
use hafog::dns::DnsHost;
use hafog::error::Fault;
use hafog::model::stack::Stack;
use hafog::sim::SimWorld;
use hafog::spec::secret::Secret;
use hafog::state::StateStore;
use hafog::state::stores::Stores;
use hafog::world::{Secrets, World};

struct AnySecret;

impl Secrets for AnySecret {
    fn read(&self, _: &str) -> Result<Secret, Fault> {
        Ok(Secret::new("a password"))
    }
}

/// The world as one process sees it.
pub fn open_world(sim: &SimWorld, stack: &Arc<Stack>, keys: &Arc<Keys>) -> World {
    let stores: Vec<Arc<dyn StateStore>> = (0..stack.stores.len())
        .map(|i| sim.store(i) as Arc<dyn StateStore>)
        .collect();
    let arbiter = stack
        .stores
        .iter()
        .position(|store| store.arbiter)
        .expect("one store is the arbiter");
    World {
        stack: stack.clone(),
        base: "/nowhere".into(),
        home: concat!(env!("CARGO_TARGET_TMPDIR"), "/simulated").into(),
        clock: sim.clock(),
        stores: Arc::new(Stores::new(stores, arbiter)),
        clouds: stack
            .sites
            .iter()
            .map(|site| (site.name.clone(), sim.cloud(&site.name) as Arc<dyn Cloud>))
            .collect(),
        engines: BTreeMap::from([(
            "postgres".to_owned(),
            sim.engine("postgres") as Arc<dyn Engine>,
        )]),
        dns: stack
            .zones
            .iter()
            .map(|zone| (zone.name.clone(), sim.dns(&zone.name) as Arc<dyn DnsHost>))
            .collect(),
        probe: sim.probe(),
        keys: keys.clone(),
        secrets: Arc::new(AnySecret),
        assumed_down: Default::default(),
        images: hafog::image::recipe::names(
            stack,
            std::path::Path::new("/nowhere"),
            hafog::image::recipe::GIT_LIMIT,
            hafog::image::recipe::Versions::Locked,
        )
        .expect("recipes without files"),
    }
}
