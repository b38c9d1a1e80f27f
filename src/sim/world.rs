//! What there is in the simulated world, and what happens in it by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

use super::call::Called;
use super::faults::Faults;
use super::haproxy;
use super::node::{CHECKPOINT_BYTES, Data, Mode, SimNode, Upstream, WRITE_BYTES};
use crate::cloud::{Entry, Firewall, Image, ServerState};
use crate::error::Fault;
use crate::model::id::*;
use crate::model::record::{RecordSet, RecordType};
use crate::model::roles::Writer;
use crate::model::stack::{Job, Server as Planned, Site, Stack};
use crate::shell::{Dirs, Host, Ran, Service};

/// Everything, behind one lock.
#[derive(Clone)]
pub struct World {
    pub planned: BTreeMap<ServerName, Planned>,
    /// The groups behind the balancer.
    pub balanced: Vec<GroupName>,
    pub sites: BTreeMap<SiteName, SimSite>,
    pub servers: BTreeMap<ServerName, SimServer>,
    pub zones: BTreeMap<ZoneName, SimZone>,
    pub stores: Vec<Kept>,
    pub calls: Vec<Called>,
    pub changes: u32,
    pub faults: Faults,
    pub violations: Vec<String>,
    pub acknowledged: Vec<Acknowledged>,
    pub boot_time: Duration,
    pub beats_alone: bool,
    pub can_rewind: bool,
    /// Servers and images whose application answers 500.
    pub sick: BTreeSet<String>,
    pub command_answers: Vec<(String, Ran)>,
    /// The site that the call at hand comes from; `None` is outside of all.
    pub caller: Option<SiteName>,
    now: Timestamp,
    last: u64,
}

#[derive(Clone)]
pub struct SimSite {
    number: u8,
    /// Whether anything gets in or out.
    pub lit: bool,
    /// Whether the cloud's API answers.
    pub answers: bool,
    /// What a site has besides servers and images.
    pub network: bool,
    /// Whether the spec gives it a network of its own.
    pub walled: bool,
    /// What is let in there; `None`: nobody is kept out.
    pub firewall: Option<Firewall>,
    /// Where its own address leads.
    pub entry: Option<Entry>,
    /// Servers are made from images; where not, they are what was applied to them last.
    pub seals: bool,
    pub images: BTreeMap<ImageName, Image>,
    addresses: u16,
}

#[derive(Clone, Debug)]
pub struct SimServer {
    pub site: SiteName,
    pub id: String,
    pub state: ServerState,
    /// Pending until then; `None` while pending means for ever.
    pub ready_at: Option<Timestamp>,
    pub image: Option<ImageName>,
    pub tags: BTreeMap<String, String>,
    /// The key of the call that made it.
    pub key: String,
    pub open: Vec<u16>,
    pub address: IpAddr,
    /// Contents and mode by path.
    pub files: BTreeMap<String, (Vec<u8>, u32)>,
    pub services: BTreeMap<String, SimService>,
    pub nodes: BTreeMap<DatabaseName, SimNode>,
    pub commands: Vec<String>,
    /// Of a balancer: the servers that its HAProxy was told to leave alone.
    pub out: BTreeSet<ServerName>,
}

#[derive(Clone, Debug)]
pub struct SimService {
    pub definition: Service,
    pub running: bool,
    pub wanted: bool,
    pub starts: u32,
    pub trouble: Option<String>,
    /// The image that it was started from; the server's may have changed since.
    pub image: Option<ImageName>,
    pub pid: Option<u32>,
    /// A proxy's file as it was when it read it.
    pub loaded: Option<String>,
}

pub type Sets = BTreeMap<(HostName, RecordType), RecordSet>;

#[derive(Clone)]
pub struct SimZone {
    pub open: bool,
    /// Whether the host's API answers.
    pub lit: bool,
    /// Grows with every change.
    pub generation: u64,
    pub sets: Sets,
    pub authorities: Vec<Authority>,
}

#[derive(Clone)]
pub struct Authority {
    pub address: SocketAddr,
    pub lit: bool,
    /// What it goes on answering with, when it is held back.
    pub held: Option<Sets>,
}

/// What a state store keeps.
#[derive(Clone)]
pub struct Kept {
    pub name: String,
    pub lit: bool,
    pub full: bool,
    /// Oldest first.
    pub journals: Vec<(RunId, Vec<u8>)>,
    pub documents: BTreeMap<String, (Vec<u8>, u64)>,
}

#[derive(Clone)]
pub struct Acknowledged {
    pub database: DatabaseName,
    pub by: ServerName,
    pub text: String,
}

impl World {
    pub fn new(now: Timestamp, stack: &Stack) -> World {
        World {
            planned: stack
                .servers
                .iter()
                .map(|server| (server.name.clone(), server.clone()))
                .collect(),
            balanced: {
                let balancer = stack.balancer.iter();
                let groups = balancer.flat_map(|one| std::iter::once(&one.to).chain(&one.spare));
                groups.cloned().collect()
            },
            sites: (1..)
                .zip(&stack.sites)
                .map(|(number, site)| (site.name.clone(), SimSite::dark(number, site)))
                .collect(),
            servers: BTreeMap::new(),
            zones: (1..)
                .zip(&stack.zones)
                .map(|(number, zone)| (zone.name.clone(), SimZone::closed(number)))
                .collect(),
            stores: stack
                .stores
                .iter()
                .map(|store| Kept::empty(&store.folder))
                .collect(),
            calls: Vec::new(),
            changes: 0,
            faults: Faults::default(),
            violations: Vec::new(),
            acknowledged: Vec::new(),
            boot_time: Duration::from_secs(2),
            beats_alone: true,
            can_rewind: true,
            sick: BTreeSet::new(),
            command_answers: Vec::new(),
            caller: None,
            now,
            last: 0,
        }
    }

    /// A number that nothing had before: ids, versions, branches.
    pub fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn site_mut(&mut self, name: &SiteName) -> &mut SimSite {
        self.sites
            .get_mut(name)
            .unwrap_or_else(|| panic!("the stack has a site `{name}`"))
    }

    pub fn zone_mut(&mut self, name: &ZoneName) -> &mut SimZone {
        self.zones
            .get_mut(name)
            .unwrap_or_else(|| panic!("the stack has a zone `{name}`"))
    }

    pub fn server_mut(&mut self, name: &ServerName) -> &mut SimServer {
        self.servers
            .get_mut(name)
            .unwrap_or_else(|| panic!("there is a server `{name}`"))
    }

    pub fn node_mut(&mut self, server: &ServerName, database: &DatabaseName) -> &mut SimNode {
        self.server_mut(server)
            .nodes
            .get_mut(database)
            .unwrap_or_else(|| panic!("there is a node of `{database}` on `{server}`"))
    }

    // Who reaches whom.

    /// Whether the caller at hand reaches the site; `None` is a place outside of all sites.
    pub fn reach(&self, to: Option<&SiteName>) -> Result<(), Fault> {
        self.connected(self.caller.as_ref(), to)
    }

    fn connected(&self, from: Option<&SiteName>, to: Option<&SiteName>) -> Result<(), Fault> {
        if from == to {
            return Ok(());
        }
        for site in [from, to].into_iter().flatten() {
            if !self.sites.get(site).is_some_and(|site| site.lit) {
                return Err(Fault::unavailable(format!(
                    "no answer within 2 s: site `{site}` is cut off"
                )));
            }
        }
        Ok(())
    }

    /// The machine behind `host`, if it answers.
    pub fn machine(&mut self, host: &Host) -> Result<&mut SimServer, Fault> {
        self.reach(Some(&host.site))?;
        let silent = |why: &str| {
            Fault::unavailable(format!("no answer from `{}` within 2 s", host.name)).because(why)
        };
        match self.servers.get_mut(&host.name) {
            None => Err(silent("there is no such server")),
            Some(server) if server.address != host.address || server.site != host.site => {
                Err(silent("the server has another address"))
            }
            Some(server) if server.state != ServerState::Running => {
                Err(silent(&format!("the server is {:?}", server.state)))
            }
            Some(server) => Ok(server),
        }
    }

    pub fn at(&self, address: IpAddr) -> Option<(&ServerName, &SimServer)> {
        let mut entries = self.sites.values().filter_map(|site| site.entry.as_ref());
        let entry = entries.find(|entry| entry.address == address);
        let address = entry.map_or(address, |entry| entry.to);
        self.servers
            .iter()
            .find(|(_, server)| server.address == address)
    }

    pub fn new_address(&mut self, site: &SiteName) -> IpAddr {
        let site = self.site_mut(site);
        site.addresses += 1;
        let [high, low] = site.addresses.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, site.number, high, low))
    }

    // Databases.

    /// Whether the replica's stream is up, and why not. `None`: the node does not try.
    pub fn link(&self, name: &ServerName, database: &DatabaseName) -> Option<Result<(), String>> {
        let server = self.servers.get(name)?;
        let node = server.nodes.get(database)?;
        if node.mode != Mode::Replica || !server.runs(&node.service) {
            return None;
        }
        let Some(upstream) = &node.upstream else {
            return Some(Err("no upstream is set".to_owned()));
        };
        Some(self.stream(name, server, node, upstream, database))
    }

    fn stream(
        &self,
        name: &ServerName,
        server: &SimServer,
        node: &SimNode,
        upstream: &Upstream,
        database: &DatabaseName,
    ) -> Result<(), String> {
        let silent = || format!("`{}` does not answer", upstream.name);
        let above = self.servers.get(&upstream.name).ok_or_else(silent)?;
        let theirs = above.nodes.get(database).ok_or_else(silent)?;
        let answers = above.address == upstream.address
            && above.runs(&theirs.service)
            && self
                .connected(Some(&server.site), Some(&above.site))
                .is_ok();
        let walls = self.sites[&above.site].firewall.as_ref();
        let is_kept_out = above.site != server.site
            && walls.is_some_and(|walls| !walls.own.contains(&server.address));
        if !answers || node.stream_cut || is_kept_out {
            return Err(silent());
        }
        if !theirs.admitted.contains(&server.address) {
            return Err(format!("`{}` does not let it in", upstream.name));
        }
        if !theirs.slots.contains(name) {
            return Err(format!("`{}` keeps no log for it", upstream.name));
        }
        match node.fork_from(theirs) {
            Some(fork) if node.received <= fork => Ok(()),
            _ => Err(format!(
                "its log is not in the history of `{}`",
                upstream.name
            )),
        }
    }

    /// Who streams from the node.
    pub fn followers(&self, name: &ServerName, database: &DatabaseName) -> Vec<ServerName> {
        self.servers
            .iter()
            .filter(|(_, server)| {
                server.nodes.get(database).is_some_and(|node| {
                    node.upstream
                        .as_ref()
                        .is_some_and(|above| &above.name == name)
                })
            })
            .filter(|(follower, _)| self.link(follower, database) == Some(Ok(())))
            .map(|(follower, _)| follower.clone())
            .collect()
    }

    pub fn writable(&self, database: &DatabaseName) -> Vec<ServerName> {
        self.servers
            .iter()
            .filter(|(_, server)| {
                server
                    .nodes
                    .get(database)
                    .is_some_and(|node| node.mode == Mode::Writable && server.runs(&node.service))
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub fn write(
        &mut self,
        server: &ServerName,
        database: &DatabaseName,
        text: &str,
        now: Timestamp,
    ) -> Result<(), Fault> {
        if !self.writable(database).contains(server) {
            return Err(Fault::new(format!("`{server}` refuses to write")));
        }
        self.node_mut(server, database)
            .append(WRITE_BYTES, now, Some(text.to_owned()));
        self.acknowledged.push(Acknowledged {
            database: database.clone(),
            by: server.clone(),
            text: text.to_owned(),
        });
        Ok(())
    }

    pub fn lost_writes(&self, database: &DatabaseName) -> Option<Vec<String>> {
        let primary = self.writable(database).into_iter().next()?;
        let rows: BTreeSet<&str> = self.servers[&primary].nodes[database].rows().collect();
        Some(
            self.acknowledged
                .iter()
                .filter(|write| &write.database == database)
                .filter(|write| !rows.contains(write.text.as_str()))
                .map(|write| write.text.clone())
                .collect(),
        )
    }

    /// Sends everything to the node's followers, as a clean stop does before it ends.
    pub fn flush(&mut self, name: &ServerName, database: &DatabaseName) {
        let now = self.now;
        let node = self.node_mut(name, database);
        node.append(CHECKPOINT_BYTES, now, None);
        let node = node.clone();
        for follower in self.followers(name, database) {
            self.node_mut(&follower, database).receive(&node, now);
        }
    }

    pub fn set_document(&mut self, store: usize, key: &str, bytes: &[u8]) -> u64 {
        let version = self.next();
        self.stores[store]
            .documents
            .insert(key.to_owned(), (bytes.to_vec(), version));
        version
    }

    // What happens by itself.

    /// Brings the world to `now` and looks for what must never be.
    pub fn settle(&mut self, now: Timestamp) {
        self.now = now;
        for server in self.servers.values_mut() {
            if server.state == ServerState::Pending
                && server.ready_at.is_some_and(|ready| ready <= now)
            {
                server.state = ServerState::Running;
            }
        }
        if self.beats_alone {
            self.beat();
        }
        self.open_by_agents();
        self.replicate();
        self.look_for_two_writers();
    }

    fn beat(&mut self) {
        for server in self.servers.values_mut() {
            let state = server.state.clone();
            for node in server.nodes.values_mut() {
                let runs = state == ServerState::Running
                    && server
                        .services
                        .get(&node.service)
                        .is_some_and(|s| s.running);
                if runs && node.mode == Mode::Writable {
                    node.beat(self.now);
                }
            }
        }
    }

    /// After a boot the agent of a primary opens its node, while the writer record names it.
    fn open_by_agents(&mut self) {
        let mut booted = Vec::new();
        for (name, server) in &self.servers {
            let agent = server.runs(crate::db::AGENT_SERVICE);
            for (database, node) in server.nodes.iter().filter(|_| agent) {
                let is_primary = node.mode == Mode::Replica && node.upstream.is_none();
                let runs = node.data == Data::Complete && server.runs(&node.service);
                if is_primary && runs && self.named(database).as_ref() == Some(name) {
                    booted.push((name.clone(), database.clone()));
                }
            }
        }
        for (name, database) in booted {
            let (branch, now) = (self.next(), self.now);
            self.node_mut(&name, &database).open(branch, now);
        }
    }

    /// The writer, of the newest record in a store that answers.
    fn named(&self, database: &DatabaseName) -> Option<ServerName> {
        let writers = self.writers(database).filter(|(store, _)| store.lit);
        let newest = writers.max_by_key(|(_, writer)| writer.epoch);
        newest?.1.node
    }

    /// The writer records, each with its store.
    pub fn writers(&self, database: &DatabaseName) -> impl Iterator<Item = (&Kept, Writer)> {
        let key = format!("writer/{database}");
        self.stores.iter().filter_map(move |store| {
            let (bytes, _) = store.documents.get(&key)?;
            Some((store, serde_json::from_slice(bytes).ok()?))
        })
    }

    fn replicate(&mut self) {
        let replicas: Vec<(ServerName, DatabaseName)> = self
            .servers
            .iter()
            .flat_map(|(name, server)| {
                server
                    .nodes
                    .keys()
                    .map(|database| (name.clone(), database.clone()))
            })
            .collect();
        // A chain of replicas is as long as there are nodes at most, so as many rounds reach its end.
        for _ in &replicas {
            let mut moved = false;
            for (name, database) in &replicas {
                moved |= self.catch_up(name, database);
            }
            if !moved {
                return;
            }
        }
    }

    /// Whether it has anything now that it had not.
    fn catch_up(&mut self, name: &ServerName, database: &DatabaseName) -> bool {
        let now = self.now;
        let Some(link) = self.link(name, database) else {
            return false;
        };
        let node = &self.servers[name].nodes[database];
        let before = node.mark();
        let above = node.upstream.as_ref().filter(|_| link.is_ok());
        let above = above.map(|above| &self.servers[&above.name].nodes[database]);
        // Its log is copied only when some of it is new.
        let upstream = above.filter(|above| !node.has_all_of(above)).cloned();
        let node = self.node_mut(name, database);
        if let Some(upstream) = upstream {
            node.receive(&upstream, now - node.network_delay);
            node.hear(&upstream);
        }
        node.replay(now - node.replay_delay);
        node.mark() != before
    }

    fn look_for_two_writers(&mut self) {
        let databases: BTreeSet<DatabaseName> = self
            .servers
            .values()
            .flat_map(|server| server.nodes.keys().cloned())
            .collect();
        for database in databases {
            let writable = self.writable(&database);
            if writable.len() > 1 {
                let names: Vec<&str> = writable.iter().map(ServerName::as_str).collect();
                self.violate(format!("two writers of `{database}`: {}", names.join(", ")));
            }
        }
    }

    pub fn violate(&mut self, what: String) {
        if !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }

    // The application.

    /// Whether the server's own service works: it runs, and nothing that should run on it is down.
    pub(super) fn works(&self, name: &ServerName, server: &SimServer) -> bool {
        let image_is_sick = server
            .services
            .values()
            .filter_map(|service| service.image.as_ref())
            .chain(
                server
                    .services
                    .is_empty()
                    .then_some(())
                    .and(server.image.as_ref()),
            )
            .any(|image| self.sick.contains(image.as_str()));
        server.up() && !image_is_sick && !self.sick.contains(name.as_str())
    }

    /// The status of a request to the server; `Err` when nothing listens there.
    pub fn serve(&self, name: &ServerName) -> Result<u16, String> {
        let refused = || format!("`{name}` refuses the connection");
        let server = self.servers.get(name).ok_or_else(refused)?;
        let planned = self.planned.get(name).ok_or_else(refused)?;
        if !server.up() {
            return Err(refused());
        }
        let healthy = match planned.job {
            Job::Database(_) => return Err(refused()),
            Job::App => self.works(name, server),
            Job::Balancer | Job::Cache => self.works(name, server) && self.balances(name),
        };
        Ok(match (healthy, &planned.job) {
            (true, _) => 200,
            (false, Job::Balancer | Job::Cache) => 503,
            (false, _) => 500,
        })
    }
}

impl SimSite {
    fn dark(number: u8, site: &Site) -> SimSite {
        SimSite {
            number,
            walled: site.network.is_some(),
            firewall: None,
            entry: None,
            seals: site.seals,
            lit: true,
            answers: true,
            network: false,
            images: BTreeMap::new(),
            addresses: 0,
        }
    }
}

impl SimZone {
    fn closed(number: u8) -> SimZone {
        SimZone {
            open: false,
            lit: true,
            generation: 0,
            sets: BTreeMap::new(),
            authorities: [1, 2]
                .map(|last| Authority {
                    address: SocketAddr::from(([10, 53, number, last], 53)),
                    lit: true,
                    held: None,
                })
                .into(),
        }
    }
}

impl Kept {
    fn empty(name: &str) -> Kept {
        Kept {
            name: name.to_owned(),
            lit: true,
            full: false,
            journals: Vec::new(),
            documents: BTreeMap::new(),
        }
    }
}

impl SimServer {
    pub fn host(&self, name: &ServerName) -> Host {
        let folder = |part: &str| format!("/sim/{name}/{part}");
        Host {
            name: name.clone(),
            site: self.site.clone(),
            address: self.address,
            dirs: Dirs {
                image: folder("image"),
                etc: folder("etc"),
                data: folder("data"),
                log: folder("log"),
            },
        }
    }

    /// Whether the service runs and the machine does.
    pub fn runs(&self, service: &str) -> bool {
        self.state == ServerState::Running
            && self.services.get(service).is_some_and(|one| one.running)
    }

    /// Whether the machine runs and every service that is installed on it does.
    fn up(&self) -> bool {
        self.state == ServerState::Running && self.services.values().all(|one| one.running)
    }

    pub fn start(&mut self, name: &str, pid: u32) {
        let image = self.image.clone();
        let loaded = self.file_of(name);
        let node = self.nodes.values_mut().find(|node| node.service == name);
        let service = self.services.get_mut(name).expect("the service exists");
        service.wanted = true;
        if service.running {
            return;
        }
        service.starts += 1;
        service.image = image;
        if let Some(node) = node {
            node.mode = Mode::Replica;
            if node.data == Data::Incomplete {
                service.trouble = Some("exited with 1: the data files are incomplete".to_owned());
                return;
            }
        }
        service.running = true;
        service.pid = Some(pid);
        service.trouble = None;
        service.loaded = loaded;
    }

    /// The file that a service is started with.
    fn file_of(&self, service: &str) -> Option<String> {
        let argv = &self.services.get(service)?.definition.argv;
        let (file, _) = self.files.get(argv.last()?)?;
        String::from_utf8(file.clone()).ok()
    }

    /// Reads its file anew, and forgets who was out.
    pub fn reload(&mut self, name: &str) {
        let loaded = self.file_of(name);
        if name == haproxy::SERVICE {
            self.out.clear();
        }
        if let Some(service) = self.services.get_mut(name) {
            service.loaded = loaded;
        }
    }

    pub fn stop(&mut self, name: &str) {
        if let Some(node) = self.nodes.values_mut().find(|node| node.service == name) {
            node.mode = Mode::Replica;
        }
        if name == haproxy::SERVICE {
            self.out.clear();
        }
        if let Some(service) = self.services.get_mut(name) {
            service.wanted = false;
            service.running = false;
            service.pid = None;
            service.trouble = None;
        }
    }

    /// As if the cable were pulled: the supervisor's wishes survive, on the disk.
    pub fn power_off(&mut self) {
        if matches!(self.state, ServerState::Failed(_)) {
            return;
        }
        self.state = ServerState::Off;
        self.ready_at = None;
        self.out.clear();
        for node in self.nodes.values_mut() {
            node.mode = Mode::Replica;
        }
        for service in self.services.values_mut() {
            service.running = false;
            service.pid = None;
        }
    }
}
