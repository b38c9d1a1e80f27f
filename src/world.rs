//! World: every port, the clock and the stack, built once per command and passed by reference.
//!
//! Steps see it; ports never do. A site that is assumed down has no cloud here: nothing can be asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::cloud::{self, Cloud};
use crate::db::keys::Keys;
use crate::db::{Engine, Node, Reach};
use crate::dns::DnsHost;
use crate::error::Fault;
use crate::model::id::*;
use crate::model::roles::{Published, Revoked, Roles, RolesDocument, Writer};
use crate::model::stack::{Database, Server, Stack};
use crate::probe::Probe;
use crate::shell::sites::Sites;
use crate::shell::{Host, Shell};
use crate::spec::secret::Secret;
use crate::state::Version;
use crate::state::stores::Stores;

pub struct World {
    pub stack: Arc<Stack>,
    /// Folder of the spec: relative paths of files and code start here.
    pub base: PathBuf,
    /// Where hafog keeps its local files of the stack.
    pub home: PathBuf,
    pub clock: Arc<dyn Clock>,
    pub stores: Arc<Stores>,
    pub clouds: BTreeMap<SiteName, Arc<dyn Cloud>>,
    pub engines: BTreeMap<String, Arc<dyn Engine>>,
    pub dns: BTreeMap<ZoneName, Arc<dyn DnsHost>>,
    pub probe: Arc<dyn Probe>,
    pub keys: Arc<Keys>,
    pub secrets: Arc<dyn Secrets>,
    pub assumed_down: BTreeSet<SiteName>,
    /// The image that each recipe makes now.
    pub images: BTreeMap<RecipeName, ImageName>,
}

/// What the clouds say of where servers are.
#[derive(Default)]
pub struct Whereabouts {
    pub hosts: BTreeMap<ServerName, Host>,
    /// Those whose cloud is silent, and those without an address at the moment. They may well be at work, so what is
    /// known of them is kept.
    pub unknown: BTreeSet<ServerName>,
}

/// Resolves references to secrets, at the moment they are delivered.
pub trait Secrets: Send + Sync {
    fn read(&self, name: &str) -> Result<Secret, Fault>;
}

pub const ROLES: &str = "roles";
pub const NAMES: &str = "names";
pub const REVOKED: &str = "revoked";

pub fn writer_key(database: &DatabaseName) -> String {
    format!("writer/{database}")
}

impl World {
    pub fn cloud(&self, site: &SiteName) -> Result<&Arc<dyn Cloud>, Fault> {
        if self.assumed_down.contains(site) {
            return Err(Fault::unavailable(format!(
                "`{site}` is assumed to be down: nothing is asked of it"
            )));
        }
        self.clouds
            .get(site)
            .ok_or_else(|| Fault::new(format!("the spec has no site `{site}`")))
    }

    pub fn shell(&self, site: &SiteName) -> Result<Arc<dyn Shell>, Fault> {
        Ok(self.cloud(site)?.shell())
    }

    pub fn zone_host(&self, zone: &ZoneName) -> Result<&Arc<dyn DnsHost>, Fault> {
        self.dns
            .get(zone)
            .ok_or_else(|| Fault::new(format!("the spec has no zone `{zone}`")))
    }

    pub fn server(&self, name: &ServerName) -> Result<&Server, Fault> {
        self.stack
            .server(name)
            .ok_or_else(|| Fault::new(format!("the spec has no server `{name}`")))
    }

    pub fn database(&self, name: &DatabaseName) -> Result<&Database, Fault> {
        self.stack
            .database(name)
            .ok_or_else(|| Fault::new(format!("the spec has no database `{name}`")))
    }

    pub fn engine(&self, database: &Database) -> Result<&Arc<dyn Engine>, Fault> {
        self.engines
            .get(&database.engine)
            .ok_or_else(|| Fault::new(format!("there is no engine `{}`", database.engine)))
    }

    /// The server as its cloud knows it now.
    pub async fn find(
        &self,
        site: &SiteName,
        server: &ServerName,
    ) -> Result<Option<cloud::Server>, Fault> {
        let servers = self.cloud(site)?.servers().await?;
        Ok(servers.into_iter().find(|found| &found.name == server))
    }

    pub async fn host(&self, server: &ServerName) -> Result<Host, Fault> {
        let hosts = self.hosts_at(&self.server(server)?.site).await?;
        self.host_among(&hosts, server).cloned()
    }

    /// The same, of a list that was asked for already.
    pub fn host_among<'a>(
        &self,
        hosts: &'a BTreeMap<ServerName, Host>,
        server: &ServerName,
    ) -> Result<&'a Host, Fault> {
        hosts.get(server).ok_or_else(|| {
            Fault::unavailable(format!("`{server}` is not there, or has no address yet"))
        })
    }

    /// What the cloud of `site` can do.
    fn can(&self, site: &SiteName) -> Option<cloud::Can> {
        let site = self.stack.site(site)?;
        cloud::registry::find(&site.cloud).map(|cloud| cloud.can)
    }

    /// The port that a service of `site` really listens on.
    pub fn port(&self, site: &SiteName, port: u16) -> u16 {
        self.can(site)
            .map_or(port, |can| cloud::map_port(&can, port))
    }

    /// Whether the servers of `site` are whole machines, and not folders and processes of this one.
    pub fn has_machines(&self, site: &SiteName) -> bool {
        self.can(site).is_some_and(|can| can.machines)
    }

    /// The servers of one site that have an address. Asks once, however many there are.
    pub async fn hosts_at(&self, site: &SiteName) -> Result<BTreeMap<ServerName, Host>, Fault> {
        let servers = self.cloud(site)?.servers().await?.into_iter();
        let hosts = servers.filter_map(|server| Some((server.name.clone(), server.host?)));
        Ok(hosts.collect())
    }

    /// The addresses at which visitors reach servers of one group: the site's own, if it has one for them, or theirs.
    pub async fn visited_at(
        &self,
        site: &SiteName,
        servers: &[&Server],
    ) -> Result<Vec<IpAddr>, Fault> {
        let group = servers.first().map(|server| &server.group);
        if let Some(entry) = group.and_then(|group| self.stack.entry(site, group)) {
            return Ok(vec![entry]);
        }
        let hosts = self.hosts_at(site).await?;
        let address = |server: &&Server| Ok(self.host_among(&hosts, &server.name)?.address);
        servers.iter().map(address).collect()
    }

    /// Where the servers are, of the sites that may be asked and answer.
    pub async fn whereabouts(&self) -> Whereabouts {
        let sites = self.stack.sites.iter().map(|site| async {
            let servers = match self.cloud(&site.name) {
                Ok(cloud) => cloud.servers().await,
                Err(silent) => Err(silent),
            };
            (&site.name, servers)
        });
        let mut found = Whereabouts::default();
        for (site, servers) in futures_util::future::join_all(sites).await {
            let Ok(servers) = servers else {
                let all = self.stack.servers_at(site);
                found.unknown.extend(all.map(|server| server.name.clone()));
                continue;
            };
            for server in servers {
                match server.host {
                    Some(host) => drop(found.hosts.insert(server.name, host)),
                    None => drop(found.unknown.insert(server.name)),
                }
            }
        }
        found
    }

    /// A node with everybody who may connect to it.
    pub async fn node(&self, database: &DatabaseName, server: &ServerName) -> Result<Node, Fault> {
        self.node_in(&self.whereabouts().await, database, server)
    }

    /// The same, where somebody asked already.
    pub fn node_in(
        &self,
        found: &Whereabouts,
        database: &DatabaseName,
        server: &ServerName,
    ) -> Result<Node, Fault> {
        let mut ours = self.stack.servers.iter();
        let mut node = self.node_among(&found.hosts, database, server)?;
        node.lacks_peers = ours.any(|server| found.unknown.contains(&server.name));
        Ok(node)
    }

    /// What it takes to ask a node, when the hosts are known: no cloud is asked.
    pub fn to_ask(
        &self,
        hosts: &BTreeMap<ServerName, Host>,
        database: &DatabaseName,
        server: &ServerName,
    ) -> Result<(Node, Reach, &Arc<dyn Engine>), Fault> {
        let node = self.node_among(hosts, database, server)?;
        let reach = self.reach(&node.host.site)?;
        let engine = self.engine(&node.database)?;
        Ok((node, reach, engine))
    }

    fn node_among(
        &self,
        hosts: &BTreeMap<ServerName, Host>,
        database: &DatabaseName,
        server: &ServerName,
    ) -> Result<Node, Fault> {
        let database = self.database(database)?.clone();
        let host = hosts.get(server).cloned().ok_or_else(|| {
            Fault::unavailable(format!(
                "`{server}` is not there, or its cloud does not answer"
            ))
        })?;
        // Connections within one machine come from 127.0.0.1, whatever loopback address they go to.
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        // A machine that only builds an image talks to no database.
        let ours: BTreeSet<&ServerName> = self
            .stack
            .servers
            .iter()
            .map(|server| &server.name)
            .collect();
        let peers: BTreeSet<IpAddr> = hosts
            .iter()
            .filter(|(name, _)| ours.contains(name))
            .map(|(_, host)| host.address)
            .chain([local])
            .collect();
        Ok(Node {
            database,
            host,
            peers: peers.into_iter().collect(),
            // Nobody is shut out by whoever does not know better.
            lacks_peers: true,
        })
    }

    /// How to get to a node at `site`, and to those of other sites that it has to do with.
    pub fn reach(&self, site: &SiteName) -> Result<Reach, Fault> {
        self.cloud(site)?;
        let open = self.clouds.iter();
        let open = open.filter(|(site, _)| !self.assumed_down.contains(*site));
        let shells = open.map(|(site, cloud)| (site.clone(), cloud.shell()));
        Ok(Reach {
            shell: Arc::new(Sites(shells.collect())),
            keys: self.keys.clone(),
        })
    }

    pub async fn roles(&self) -> Result<Option<Roles>, Fault> {
        let (roles, _) = self.roles_and_serial().await?;
        Ok(roles)
    }

    /// With the serial that a next document has to exceed.
    pub async fn roles_and_serial(&self) -> Result<(Option<Roles>, u64), Fault> {
        let document = self.stores.newest(ROLES, RolesDocument::serial).await?;
        let serial = document.as_ref().map_or(0, RolesDocument::serial);
        let roles = document.and_then(|document| match document {
            RolesDocument::Roles(roles) => Some(roles),
            RolesDocument::Gone { .. } => None,
        });
        Ok((roles, serial))
    }

    pub async fn published(&self) -> Result<Published, Fault> {
        Ok(self
            .stores
            .newest(NAMES, |names: &Published| names.serial)
            .await?
            .unwrap_or_default())
    }

    pub async fn revoked(&self) -> Result<Revoked, Fault> {
        let newest = self
            .stores
            .newest(REVOKED, |revoked: &Revoked| revoked.serial);
        Ok(newest.await?.unwrap_or_default())
    }

    /// Those that there are.
    pub async fn writers(&self) -> Result<BTreeMap<DatabaseName, Writer>, Fault> {
        let mut writers = BTreeMap::new();
        for database in &self.stack.databases {
            if let Some((writer, _)) = self.writer(&database.name).await? {
                writers.insert(database.name.clone(), writer);
            }
        }
        Ok(writers)
    }

    pub async fn writer(
        &self,
        database: &DatabaseName,
    ) -> Result<Option<(Writer, Version)>, Fault> {
        self.stores.get(&writer_key(database)).await
    }
}
