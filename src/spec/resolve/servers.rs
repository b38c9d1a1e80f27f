//! The servers that the groups ask for: their names, what they do, and that no two are called the same.

use std::collections::HashMap;

use crate::model::id::*;
use crate::model::stack::*;
use crate::model::units::Bytes;

use super::{Resolver, amount};
use crate::spec::spot::Spot;
use crate::spec::types::*;

/// More servers than this in one stack are taken for a slip of the finger.
const SERVERS_MAX: u64 = 50_000;
/// Where a cache listens.
const CACHE_PORT: u16 = 80;
/// A server's name is a host name's label (RFC 1035 section 2.3.4).
const SERVER_NAME_MAX: usize = 63;

impl<'a> Resolver<'a, '_> {
    pub(super) fn servers(&mut self, sites: &[Site], databases: &[Database]) -> Vec<Server> {
        if !self.few_enough(sites.len() as u64) {
            return Vec::new();
        }
        let jobs: HashMap<&str, &Database> = databases
            .iter()
            .map(|database| (database.on.as_str(), database))
            .collect();
        let mut servers = Vec::new();
        let like = self.spare();
        for site in sites {
            for (name, group) in self.spec.servers.iter() {
                let database = jobs.get(name.0.as_str()).copied();
                let like = like.filter(|_| name.0 == SPARE_GROUP);
                let like = like.unwrap_or(group);
                let open = match group.open.is_empty() {
                    true => &like.open,
                    false => &group.open,
                };
                let want = Want {
                    group: GroupName::new(&name.0),
                    recipe: RecipeName::new(&group.image.0),
                    job: database.map_or(Job::App, |database| Job::Database(database.name.clone())),
                    size: match group.size == SizeSpec::default() {
                        true => size(&like.size),
                        false => size(&group.size),
                    },
                    disk: group.disk.as_ref().map(amount),
                    open: open.iter().map(|port| port.0).collect(),
                };
                servers.extend((1..=group.count).map(|index| self.server(site, &want, index)));
            }
            servers.extend(self.balancer_server(site));
            servers.extend(self.cache_servers(site));
        }
        self.check_groups(sites);
        self.check_spares();
        servers
    }

    fn few_enough(&mut self, sites: u64) -> bool {
        let counts = self
            .spec
            .servers
            .iter()
            .map(|(_, group)| u64::from(group.count));
        let all = counts.sum::<u64>().saturating_mul(sites);
        if all > SERVERS_MAX {
            let message = format!("these are {all} servers; a stack has at most {SERVERS_MAX}");
            self.complain(self.root.key("servers"), message);
        }
        all <= SERVERS_MAX
    }

    /// Once a group, however many servers it has.
    fn check_groups(&mut self, sites: &[Site]) {
        let mut prefixes = HashMap::new();
        for (name, group) in self.spec.servers.iter() {
            let spot = self.root.key("servers").key(&name.0);
            self.ports(&group.open, spot.key("open"));
            let made = [
                (BALANCER_GROUP, true),
                (CACHE_GROUP, self.spec.cache.is_some()),
            ];
            if made.contains(&(name.0.as_str(), true)) {
                let hint = format!("write `{}:` beside `servers:`", name.0);
                let message = format!("the group `{}` is made by `{}:`", name.0, name.0);
                self.complain_hinted(spot, message, [hint]);
                continue;
            }
            self.server_names(sites, &name.0, group.count, spot, &mut prefixes);
        }
        if self.spec.balancer.is_some() {
            let spot = self.root.key("balancer");
            self.server_names(sites, BALANCER_GROUP, 1, spot, &mut prefixes);
        }
        if let Some(cache) = &self.spec.cache {
            let spot = self.root.key("cache");
            self.server_names(sites, CACHE_GROUP, cache.count, spot, &mut prefixes);
        }
    }

    /// Server names are short enough, and no two are the same. One complaint a group is enough.
    fn server_names(
        &mut self,
        sites: &[Site],
        group: &'a str,
        count: u32,
        spot: Spot,
        prefixes: &mut HashMap<String, (SiteName, &'a str)>,
    ) {
        let mut complaint = None;
        for site in sites {
            let prefix = format!("{}-{group}", site.name);
            let longest = format!("{}-{prefix}-{count}", self.spec.stack);
            if longest.len() > SERVER_NAME_MAX {
                complaint = Some(format!(
                    "the server name `{longest}` is longer than {SERVER_NAME_MAX} characters"
                ));
            }
            let here = (site.name.clone(), group);
            if let Some((other_site, other)) = prefixes.insert(prefix, here) {
                complaint = Some(format!(
                    "servers of `{group}` at `{}` would have the names of those of `{other}` at `{other_site}`",
                    site.name
                ));
            }
        }
        if let Some(message) = complaint {
            self.complain(spot, message);
        }
    }

    fn server(&self, site: &Site, want: &Want, index: u32) -> Server {
        let stack = &self.spec.stack;
        Server {
            name: ServerName::new(format!("{stack}-{}-{}-{index}", site.name, want.group)),
            site: site.name.clone(),
            group: want.group.clone(),
            index,
            recipe: want.recipe.clone(),
            job: want.job.clone(),
            size: want.size,
            disk: want.disk,
            open: want.open.clone(),
        }
    }

    fn balancer_server(&self, site: &Site) -> Option<Server> {
        let balancer = self.spec.balancer.as_ref()?;
        let want = Want {
            group: GroupName::from(BALANCER_GROUP),
            recipe: RecipeName::from("haproxy"),
            job: Job::Balancer,
            size: size(&SizeSpec::default()),
            disk: None,
            open: balancer.listen.iter().map(|port| port.0).collect(),
        };
        Some(self.server(site, &want, 1))
    }

    fn cache_servers(&self, site: &Site) -> Vec<Server> {
        let Some(cache) = &self.spec.cache else {
            return Vec::new();
        };
        let want = Want {
            group: GroupName::from(CACHE_GROUP),
            recipe: RecipeName::from("varnish"),
            job: Job::Cache,
            size: size(&cache.size),
            disk: None,
            open: vec![CACHE_PORT],
        };
        let servers = (1..=cache.count).map(|index| self.server(site, &want, index));
        servers.collect()
    }
}

/// What the servers of a group have in common.
struct Want {
    group: GroupName,
    recipe: RecipeName,
    job: Job,
    size: Size,
    disk: Option<Bytes>,
    open: Vec<u16>,
}

fn size(size: &SizeSpec) -> Size {
    Size {
        cpu: size.cpu,
        memory: amount(&size.memory),
    }
}
