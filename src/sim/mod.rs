//! The simulated world: every port in memory, deterministic, with scripted faults.
//!
//! A [`SimWorld`] is a handle on one shared world. Its ports ([`SimWorld::cloud`], [`SimWorld::engine`], …) keep to
//! the contracts of the traits, and the world keeps books that no real one does: every call with its site, every
//! write that a client was told is safe, and every instant at which two nodes of a database were writable.
//!
//! Time moves only when somebody sleeps on [`SimWorld::clock`]. Replicas receive, servers boot and primaries beat
//! before and after each access, so nothing depends on the speed of the machine.
//!
//! A process can die in the middle of a call ([`Mishap`]): the call never returns, [`SimWorld::died`] resolves, the
//! driver drops what it was running and goes on with the handle that [`SimWorld::restart`] returns.
//!
//! It does not simulate: the contents of images, what a shell command does, the agent's decisions, public resolvers.

mod call;
mod cloud;
mod dns;
mod engine;
mod faults;
mod haproxy;
pub mod node;
mod picture;
mod probe;
mod shell;
pub mod stacks;
mod store;
#[cfg(test)]
mod tests;
mod world;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::clock::{Clock, SteppedClock};
use crate::error::Fault;
use crate::model::id::*;
use crate::model::record::RecordSet;
use crate::model::stack::Stack;
use crate::shell::Ran;

pub use call::Called;
pub use cloud::SimCloud;
pub use dns::SimDns;
pub use engine::SimEngine;
pub use faults::{Mishap, Script};
pub use node::SimNode;
pub use probe::SimProbe;
pub use shell::SimShell;
pub use store::SimStore;
pub use world::{SimServer, SimService};

use world::World;

/// A handle on the shared world, as seen by one process.
#[derive(Clone)]
pub struct SimWorld {
    shared: Arc<Shared>,
    process: Process,
}

struct Shared {
    world: Mutex<World>,
    clock: Arc<SteppedClock>,
    /// How often the process outside has died.
    deaths: watch::Sender<u64>,
}

/// Who is calling.
#[derive(Clone)]
enum Process {
    /// Outside of all sites: a command. Dead when more deaths have happened than it knew at its birth.
    Outside { born: u64 },
    /// On a server of the site: an agent. It survives the deaths of the process outside.
    In(SiteName),
}

impl SimWorld {
    /// The stack's sites, zones and stores exist and are empty: no server, no image, no record, no document.
    pub fn new(now: Timestamp, stack: &Stack) -> SimWorld {
        SimWorld {
            shared: Arc::new(Shared {
                world: Mutex::new(World::new(now, stack)),
                clock: Arc::new(SteppedClock::at(now)),
                deaths: watch::Sender::new(0),
            }),
            process: Process::Outside { born: 0 },
        }
    }

    /// Another world, which stands where this one stands and goes its own way.
    pub fn twin(&self) -> SimWorld {
        let world = self.lock().clone();
        SimWorld {
            shared: Arc::new(Shared {
                clock: Arc::new(SteppedClock::at(self.shared.clock.now())),
                world: Mutex::new(world),
                deaths: watch::Sender::new(0),
            }),
            process: Process::Outside { born: 0 },
        }
    }

    /// The same world seen from a server of `site`: it reaches its own site always, and nothing else while the
    /// site is cut off. Fault scripts do not concern it.
    pub fn seen_from(&self, site: &SiteName) -> SimWorld {
        SimWorld {
            shared: self.shared.clone(),
            process: Process::In(site.clone()),
        }
    }

    // The ports.

    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    pub fn cloud(&self, site: &SiteName) -> Arc<SimCloud> {
        Arc::new(SimCloud::new(self.clone(), site.clone()))
    }

    /// The shell of a site's cloud.
    pub fn shell(&self, site: &SiteName) -> Arc<SimShell> {
        Arc::new(SimShell::new(self.clone(), site.clone()))
    }

    /// `name` as in `Database::engine`; the services are called `NAME-DATABASE`.
    pub fn engine(&self, name: &str) -> Arc<SimEngine> {
        Arc::new(SimEngine::new(self.clone(), name.to_owned()))
    }

    pub fn dns(&self, zone: &ZoneName) -> Arc<SimDns> {
        Arc::new(SimDns::new(self.clone(), zone.clone()))
    }

    /// The store `Stack::stores[index]`.
    pub fn store(&self, index: usize) -> Arc<SimStore> {
        Arc::new(SimStore::new(self.clone(), index))
    }

    pub fn probe(&self) -> Arc<SimProbe> {
        Arc::new(SimProbe::new(self.clone()))
    }

    // Faults and deaths.

    pub fn script(&self, script: Script) {
        self.with(|world| world.faults.add(script));
    }

    /// Scripts whose turn never came. A test that broke nothing has proved nothing.
    pub fn unfired(&self) -> Vec<String> {
        self.with(|world| world.faults.unfired())
    }

    pub fn forget_scripts(&self) {
        self.with(|world| world.faults.clear());
    }

    /// Resolves when the process that this handle belongs to is dead. Race it against what is being run.
    pub async fn died(&self) {
        let Process::Outside { born } = &self.process else {
            return std::future::pending().await;
        };
        let mut deaths = self.shared.deaths.subscribe();
        deaths
            .wait_for(|deaths| deaths > born)
            .await
            .expect("the handle keeps the sender");
    }

    pub fn is_dead(&self) -> bool {
        match &self.process {
            Process::Outside { born } => *self.shared.deaths.borrow() > *born,
            Process::In(_) => false,
        }
    }

    /// Runs `future` until it ends, `Some`, or the process dies, `None`; then it is dropped where it stands.
    pub async fn until_death<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.died() => None,
            value = future => Some(value),
        }
    }

    /// A new process over the same world. The old one ends, if it still lives: its ports never answer again.
    pub fn restart(&self) -> SimWorld {
        if !self.is_dead() {
            self.kill();
        }
        SimWorld {
            shared: self.shared.clone(),
            process: Process::Outside {
                born: *self.shared.deaths.borrow(),
            },
        }
    }

    fn kill(&self) {
        self.shared.deaths.send_modify(|deaths| *deaths += 1);
    }

    // What happens to the world by itself.

    pub fn advance(&self, time: Duration) {
        self.with(|_| ());
        self.shared.clock.advance(time);
        self.with(|_| ());
    }

    /// Nothing gets in or out; what runs there runs on.
    pub fn cut_off(&self, site: &SiteName) {
        self.with(|world| world.site_mut(site).lit = false);
    }

    pub fn reconnect(&self, site: &SiteName) {
        self.with(|world| world.site_mut(site).lit = true);
    }

    /// The site loses its power and its connection.
    pub fn lose(&self, site: &SiteName) {
        self.with(|world| {
            world.site_mut(site).lit = false;
            for server in world.servers.values_mut().filter(|one| &one.site == site) {
                server.power_off();
            }
        });
    }

    /// Whether the cloud's own API answers; the servers are not concerned.
    pub fn set_cloud_answers(&self, site: &SiteName, answers: bool) {
        self.with(|world| world.site_mut(site).answers = answers);
    }

    /// How long a new server is pending. Two seconds unless set.
    pub fn set_boot_time(&self, time: Duration) {
        self.with(|world| world.boot_time = time);
    }

    /// A server or an image whose application answers 500.
    pub fn set_sick(&self, server_or_image: &str, sick: bool) {
        self.with(|world| {
            if sick {
                world.sick.insert(server_or_image.to_owned());
            } else {
                world.sick.remove(server_or_image);
            }
        });
    }

    /// A service stops by itself and its supervisor does not get it up again.
    pub fn crash_service(&self, server: &ServerName, service: &str) {
        self.with(|world| {
            let server = world.server_mut(server);
            server.stop(service);
            let service = server
                .services
                .get_mut(service)
                .expect("the service exists");
            service.wanted = true;
            service.trouble = Some("exited with 1".to_owned());
        });
    }

    /// What `Shell::run` returns for commands whose words, joined by spaces, contain `part`. Others return 0.
    pub fn set_command_answer(&self, part: &str, ran: Ran) {
        self.with(|world| world.command_answers.push((part.to_owned(), ran)));
    }

    pub fn set_zone_answers(&self, zone: &ZoneName, answers: bool) {
        self.with(|world| world.zone_mut(zone).lit = answers);
    }

    /// The folder of the zone's name server is lost: nobody serves the zone, and what was in it is gone.
    pub fn lose_zone(&self, zone: &ZoneName) {
        self.with(|world| {
            let zone = world.zone_mut(zone);
            zone.open = false;
            zone.sets.clear();
        });
    }

    /// The authority with this index (from 0; a zone has two) goes on answering with the records that it has now.
    pub fn hold_authority(&self, zone: &ZoneName, index: usize, hold: bool) {
        self.with(|world| {
            let zone = world.zone_mut(zone);
            let sets = zone.sets.clone();
            zone.authorities[index].held = hold.then_some(sets);
        });
    }

    pub fn set_authority_answers(&self, zone: &ZoneName, index: usize, answers: bool) {
        self.with(|world| world.zone_mut(zone).authorities[index].lit = answers);
    }

    pub fn set_store_answers(&self, index: usize, answers: bool) {
        self.with(|world| world.stores[index].lit = answers);
    }

    pub fn set_store_full(&self, index: usize, full: bool) {
        self.with(|world| world.stores[index].full = full);
    }

    // Databases.

    /// A client's write. `Ok` is the acknowledgement that the books count.
    pub fn write(
        &self,
        server: &ServerName,
        database: &DatabaseName,
        text: &str,
    ) -> Result<(), Fault> {
        let now = self.shared.clock.now();
        self.with(|world| world.write(server, database, text, now))
    }

    /// How long a log entry is on its way to this replica, and how long after its writing it is replayed at the
    /// earliest. Both are zero unless set.
    pub fn set_delays(
        &self,
        server: &ServerName,
        database: &DatabaseName,
        network: Duration,
        replay: Duration,
    ) {
        self.with(|world| {
            let node = world.node_mut(server, database);
            node.network_delay = network;
            node.replay_delay = replay;
        });
    }

    /// Whether this replica's stream is dead although both ends are alive.
    pub fn cut_stream(&self, server: &ServerName, database: &DatabaseName, cut: bool) {
        self.with(|world| world.node_mut(server, database).stream_cut = cut);
    }

    /// Makes the contents differ from the log, for `verify` to find.
    pub fn corrupt(&self, server: &ServerName, database: &DatabaseName) {
        self.with(|world| world.node_mut(server, database).corrupt = true);
    }

    /// Whether an old primary can be rewound; if not, it must be copied anew. True unless set.
    pub fn set_can_rewind(&self, can: bool) {
        self.with(|world| world.can_rewind = can);
    }

    /// Whether writable nodes write heartbeats without an agent. True unless set.
    pub fn set_beats_alone(&self, alone: bool) {
        self.with(|world| world.beats_alone = alone);
    }

    // The books.

    /// Every call of every port, in order.
    pub fn calls(&self) -> Vec<Called> {
        self.with(|world| world.calls.clone())
    }

    pub fn calls_to(&self, site: &SiteName) -> Vec<Called> {
        let mut calls = self.calls();
        calls.retain(|call| call.site.as_ref() == Some(site));
        calls
    }

    /// How many calls were meant to change the world: the range for [`Script::on_change`]. Those made from within a
    /// site ([`SimWorld::seen_from`]) do not count.
    pub fn changes(&self) -> u32 {
        self.with(|world| world.changes)
    }

    pub fn forget_calls(&self) {
        self.with(|world| {
            world.calls.clear();
            world.changes = 0;
        });
    }

    /// What must never happen and did: two writable nodes of one database, a copy over a writable node, an emptied
    /// record set.
    pub fn violations(&self) -> Vec<String> {
        self.with(|world| world.violations.clone())
    }

    /// The acknowledged writes that the current primary does not have; `None` while no node is writable.
    pub fn lost_writes(&self, database: &DatabaseName) -> Option<Vec<String>> {
        self.with(|world| world.lost_writes(database))
    }

    /// The acknowledged writes and who acknowledged them.
    pub fn acknowledged(&self, database: &DatabaseName) -> Vec<(ServerName, String)> {
        self.with(|world| {
            world
                .acknowledged
                .iter()
                .filter(|write| &write.database == database)
                .map(|write| (write.by.clone(), write.text.clone()))
                .collect()
        })
    }

    /// The nodes that would take a write at this instant.
    pub fn writable(&self, database: &DatabaseName) -> Vec<ServerName> {
        self.with(|world| world.writable(database))
    }

    // Looking around.

    /// A normalised picture: addresses become server names; no times, ids, tags or documents.
    pub fn snapshot(&self) -> serde_json::Value {
        self.with(|world| picture::of(world))
    }

    pub fn server(&self, name: &ServerName) -> Option<SimServer> {
        self.with(|world| world.servers.get(name).cloned())
    }

    pub fn address(&self, name: &ServerName) -> Option<IpAddr> {
        self.server(name).map(|server| server.address)
    }

    /// Of every server that there is.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.with(|world| world.servers.values().map(|one| one.address).collect())
    }

    pub fn node(&self, server: &ServerName, database: &DatabaseName) -> Option<SimNode> {
        self.server(server)?.nodes.get(database).cloned()
    }

    pub fn records(&self, zone: &ZoneName) -> Vec<RecordSet> {
        self.with(|world| world.zone_mut(zone).sets.values().cloned().collect())
    }

    pub fn document(&self, store: usize, key: &str) -> Option<Vec<u8>> {
        self.with(|world| {
            world.stores[store]
                .documents
                .get(key)
                .map(|(bytes, _)| bytes.clone())
        })
    }

    /// Writes a document as if somebody else had.
    pub fn set_document(&self, store: usize, key: &str, bytes: &[u8]) {
        self.with(|world| world.set_document(store, key, bytes));
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.shared
            .world
            .lock()
            .expect("no holder of the world panics")
    }

    /// Lets time catch up, does `body`, and lets its consequences happen.
    fn with<T>(&self, body: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.caught_up();
        let value = body(&mut world);
        let now = world.now();
        world.settle(now);
        value
    }

    /// The world as it is now. Whoever changes it lets it settle.
    fn caught_up(&self) -> MutexGuard<'_, World> {
        let mut world = self.lock();
        let now = self.shared.clock.now();
        // Nothing happened since.
        if world.now() != now {
            world.settle(now);
        }
        world
    }
}
