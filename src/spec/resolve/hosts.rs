//! Sites, and the servers that exist already which some of them are made of.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::id::*;
use crate::model::stack::*;
use crate::model::subnet::Subnet;

use super::Resolver;
use crate::spec::format;
use crate::spec::spot::Spot;
use crate::spec::types::*;

impl<'a> Resolver<'a, '_> {
    pub(super) fn sites(&mut self) -> Vec<Site> {
        let mut sites = Vec::new();
        for (name, site) in self.spec.sites.iter() {
            let spot = self.root.key("sites").key(&name.0);
            let cloud = self.known.cloud(&site.cloud.0);
            let seals = cloud.is_none_or(|cloud| cloud.seal);
            match (seals, site.hosts.is_empty()) {
                (true, false) => {
                    let message = format!(
                        "`{}` makes its servers; `hosts` is for servers that exist already",
                        site.cloud
                    );
                    let hint = "write `cloud: ssh`".to_owned();
                    self.complain_hinted(spot.key("hosts"), message, [hint]);
                }
                (false, true) => {
                    let message = format!(
                        "site `{name}` has no servers: `{}` takes those of `hosts`",
                        site.cloud
                    );
                    let hint = "write `hosts: [root@203.0.113.7]`".to_owned();
                    self.complain_hinted(spot.key("cloud"), message, [hint]);
                }
                _ => {}
            }
            let network = site.network.as_ref();
            if network.is_some() && cloud.is_some_and(|cloud| !cloud.firewall) {
                let message = format!("`{}` gives a site no network of its own", site.cloud);
                self.complain(spot.key("network"), message);
            }
            // A mistake in it is said where it is read.
            let network: Option<Subnet> = network.and_then(|network| network.0.parse().ok());
            let mut others = sites.iter();
            let shares = |other: &&Site| {
                let both = network.zip(other.network);
                both.is_some_and(|(one, other)| one.overlaps(&other))
            };
            if let Some(other) = others.find(shares) {
                let message = format!("site `{}` has addresses of this network", other.name);
                self.complain(spot.key("network"), message);
            }
            let address = self.entry(site, cloud.is_none_or(|cloud| cloud.entry), &sites, spot);
            sites.push(Site {
                network,
                address,
                name: SiteName::new(&name.0),
                cloud: site.cloud.0.clone(),
                region: site.region.as_ref().map(|region| region.0.clone()),
                tier: site.tier,
                seals,
                copies: cloud.is_some_and(|cloud| cloud.copies),
                hosts: self.hosts(&site.hosts, spot.key("hosts")),
            });
        }
        self.hosts_once(&sites);
        sites
    }

    /// Where visitors reach the site. A mistake in the address itself is said where it is read.
    fn entry(&mut self, site: &SiteSpec, can: bool, others: &[Site], spot: Spot) -> Option<IpAddr> {
        let text = &site.address.as_ref()?.0;
        let (spot, address) = (spot.key("address"), text.parse::<IpAddr>().ok()?);
        if !can {
            let message = format!("`{}` gives a site no address of its own", site.cloud);
            self.complain(spot, message);
        } else if self.spec.balancer.is_none() && self.root.sound {
            let message = "it would lead to the site's balancer, and there is no `balancer:`";
            let hint = "write `balancer: { to: GROUP }`".to_owned();
            self.complain_hinted(spot, message, [hint]);
        } else if !address.is_ipv4() {
            let message = format!("names have addresses of IPv4 so far, and `{text}` is none");
            self.complain(spot, message);
        } else if let Some(other) = others.iter().find(|other| other.address == Some(address)) {
            let message = format!("site `{}` has this address", other.name);
            self.complain(spot, message);
        }
        Some(address)
    }

    fn hosts(&mut self, hosts: &'a [HostSpec], list: Spot) -> Vec<Registered> {
        let mut registered = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let (ssh, more, gone) = match host {
                HostSpec::Place(ssh) => (ssh, None, false),
                HostSpec::Server {
                    ssh,
                    address,
                    host_key,
                    r#for,
                    gone,
                } => (ssh, Some((address, host_key, r#for)), *gone),
            };
            // A mistake in it is said where it is read.
            let Ok(parts) = format::ssh_place(&ssh.0) else {
                continue;
            };
            let (address, host_key, only) = more.unwrap_or((&None, &None, &None));
            if let Some(group) = only.as_ref().filter(|group| group.0 != BALANCER_GROUP) {
                self.group(&group.0, list.nth(index).key("for"));
            }
            registered.push(Registered {
                user: parts.user.map(str::to_owned),
                host: parts.host.to_owned(),
                port: parts.port,
                address: address.as_ref().and_then(|address| address.0.parse().ok()),
                host_key: host_key.as_ref().map(|key| key.0.clone()),
                only: only.as_ref().map(|group| GroupName::new(&group.0)),
                gone,
            });
        }
        registered
    }

    /// One machine is one server.
    fn hosts_once(&mut self, sites: &[Site]) {
        let mut seen: BTreeMap<(&str, Option<u16>), &SiteName> = BTreeMap::new();
        for site in sites {
            for (index, host) in site.hosts.iter().enumerate() {
                let key = (host.host.as_str(), host.port);
                if let Some(other) = seen.insert(key, &site.name) {
                    let list = self.root.key("sites").key(site.name.as_str()).key("hosts");
                    let message = format!("`{host}` is a host of site `{other}` already");
                    self.complain(list.nth(index), message);
                }
            }
        }
    }

    /// A host that is for one group counts for no other.
    pub(super) fn enough_hosts(&mut self, sites: &[Site], servers: &[Server]) {
        let listed = |site: &&Site| !site.seals && !site.hosts.is_empty();
        for site in sites.iter().filter(listed) {
            let mut missing: BTreeMap<&GroupName, usize> = BTreeMap::new();
            let here = servers.iter().filter(|server| server.site == site.name);
            let count = here.clone().count();
            here.for_each(|server| *missing.entry(&server.group).or_default() += 1);
            let mut free = 0;
            for host in &site.hosts {
                match &host.only {
                    Some(group) => {
                        if let Some(left) = missing.get_mut(group) {
                            *left = left.saturating_sub(1);
                        }
                    }
                    None => free += 1,
                }
            }
            if missing.values().sum::<usize>() > free {
                let list = self.root.key("sites").key(site.name.as_str()).key("hosts");
                let message = format!(
                    "site `{}` has {count} servers, and these {} hosts are not enough for them",
                    site.name,
                    site.hosts.len()
                );
                self.complain(list, message);
            }
        }
    }
}
