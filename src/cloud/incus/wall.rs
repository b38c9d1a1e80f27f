//! A site's own bridge, and the access list on it.
//!
//! An access list of Incus on a bridge holds for what passes between the bridge and everything else, the host and
//! other bridges included; servers beside each other on it are not kept apart. One on a server's card would, and needs
//! a kernel that follows connections on bridges, which not every host has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::api::{No, there};
use super::{QUICK_LIMIT, SITE, STACK, Site, network};
use crate::cloud::Firewall;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::digest;
use crate::model::id::{SiteName, StackName};
use crate::model::subnet::Subnet;

/// hafog's own way in.
const SSH: u16 = 22;
/// What a bridge of ours takes over from the one of the default profile: how it leads out, and who answers questions.
const TAKEN_OVER: [&str; 9] = [
    "bridge.mtu",
    "dns.domain",
    "dns.mode",
    "dns.nameservers",
    "dns.search",
    "ipv4.firewall",
    "ipv4.nat",
    "ipv4.routing",
    "raw.dnsmasq",
];
/// Rules say in their description what they are for.
const OWN: &str = "servers of the stack";
const OPEN: &str = "open";
const WAY_IN: &str = "hafog";
/// Health checks may ask addresses for one. ICMP, type 8 (RFC 792).
const ECHO: &str = "8";

/// Of a bridge and its list. The kernel takes 15 characters.
pub(super) fn name(stack: &StackName, site: &SiteName) -> String {
    let digest = digest::sha256(format!("{stack}/{site}").as_bytes());
    format!("haf{}", &digest[..12])
}

impl Site {
    pub(super) fn bridge(&self) -> String {
        name(&self.stack, &self.site)
    }

    fn bridge_path(&self) -> String {
        format!("/1.0/networks/{}?project=default", self.bridge())
    }

    fn list_path(&self) -> String {
        format!("/1.0/network-acls/{}?project=default", self.bridge())
    }

    /// What is there under the site's name. One of somebody else is refused.
    async fn ours(&self, what: &str, path: &str) -> Result<Option<Value>, Fault> {
        let found = there(self.incus.get(path).await).map_err(No::fault)?;
        let Some(found) = found else { return Ok(None) };
        match self.owns(&found) {
            true => Ok(Some(found)),
            false => Err(Fault::new(format!(
                "Incus has a {what} `{}` of somebody else",
                self.bridge()
            ))),
        }
    }

    /// The bridge that the site's servers are on: its own, where the spec gives it a network. Closed from the start.
    pub(super) async fn own_bridge(&self, beside: &str) -> Result<Option<String>, Trouble> {
        let Some(subnet) = self.network else {
            return Ok(None);
        };
        let _walling = self.walling.lock().await;
        let bridge = self.bridge();
        if self
            .ours("network ACL", &self.list_path())
            .await
            .nothing_changed()?
            .is_none()
        {
            let list = self.access_list(&Firewall::default());
            let path = self.list_path();
            let made = self.incus.ensure(
                "/1.0/network-acls?project=default",
                &list,
                &path,
                QUICK_LIMIT,
            );
            made.await.map_err(No::trouble)?;
        }
        if let Some(found) = self
            .ours("network", &self.bridge_path())
            .await
            .nothing_changed()?
        {
            self.is_as_said(&found, &subnet).nothing_changed()?;
            return Ok(Some(bridge));
        }
        let path = format!("/1.0/networks/{beside}?project=default");
        let like = self.incus.get(&path).await.map_err(No::trouble)?;
        let network = json!({
            "name": bridge,
            "type": "bridge",
            "description": format!("site {} of {}, by hafog", self.site, self.stack),
            "config": self.bridge_config(&like, &subnet),
        });
        let path = self.bridge_path();
        let made = self.incus.ensure(
            "/1.0/networks?project=default",
            &network,
            &path,
            QUICK_LIMIT,
        );
        made.await.map_err(|no| {
            let hint = format!("is {subnet} in use on this host? `incus network list`");
            no.trouble().map(|fault| fault.hint(hint))
        })?;
        Ok(Some(bridge))
    }

    fn bridge_config(&self, like: &Value, subnet: &Subnet) -> Map<String, Value> {
        let mut config = Map::new();
        for key in TAKEN_OVER {
            if let Some(value) = like["config"][key].as_str() {
                config.insert(key.to_owned(), value.into());
            }
        }
        let mut set = |key: &str, value: &str| drop(config.insert(key.to_owned(), value.into()));
        let address = format!("{}/{}", subnet.gateway(), subnet.length());
        set("ipv4.address", &address);
        set("ipv6.address", "none");
        set("security.acls", &self.bridge());
        set("security.acls.default.ingress.action", "reject");
        set("security.acls.default.egress.action", "allow");
        set(STACK, self.stack.as_str());
        set(SITE, self.site.as_str());
        config
    }

    fn is_as_said(&self, found: &Value, subnet: &Subnet) -> Result<(), Fault> {
        let address = format!("{}/{}", subnet.gateway(), subnet.length());
        if found["config"]["ipv4.address"] == address.as_str() {
            return Ok(());
        }
        let message = format!(
            "the network of site `{}` is {} by the spec, and the bridge that it has is {}",
            self.site, subnet, found["config"]["ipv4.address"]
        );
        Err(Fault::new(message).hint(format!("hafog destroy {}", self.site)))
    }

    /// What is let in at the moment.
    pub(super) async fn wall(&self) -> Result<Option<Firewall>, Fault> {
        if self.network.is_none() || self.ours("network", &self.bridge_path()).await?.is_none() {
            return Ok(None);
        }
        let list = self.ours("network ACL", &self.list_path()).await?;
        Ok(list.as_ref().map(read))
    }

    pub(super) async fn set_wall(&self, firewall: &Firewall) -> Result<(), Trouble> {
        let Some(_) = self.network else {
            let message = format!("site `{}` has no network of its own", self.site);
            let why = "what is open is enforced on a bridge that is only the site's";
            let hint = "write `network: 10.66.20.0/24` at the site";
            let fault = Fault::new(message).because(why).hint(hint);
            return Err(Trouble::NothingChanged(fault));
        };
        self.all_inside().await.nothing_changed()?;
        let (path, list) = (self.list_path(), self.access_list(firewall));
        let changed = self.incus.change(Method::PUT, &path, &list, QUICK_LIMIT);
        changed.await.map_err(No::trouble)
    }

    /// Servers that were made before the site had a network are on the host's bridge, where nothing is closed.
    async fn all_inside(&self) -> Result<(), Fault> {
        let bridge = self.bridge();
        let outside: Vec<String> = self
            .instances()
            .await?
            .iter()
            .filter(|one| {
                network::devices(one)
                    .get("eth0")
                    .is_some_and(|card| card["network"] != bridge.as_str())
            })
            .filter_map(|one| one["name"].as_str().map(str::to_owned))
            .collect();
        if outside.is_empty() {
            return Ok(());
        }
        let message = format!(
            "made before site `{}` had a network of its own, and open to everybody: {}",
            self.site,
            outside.join(", ")
        );
        let hint = format!("hafog destroy {0}, then hafog clone {0}", self.site);
        Err(Fault::new(message).hint(hint))
    }

    pub(super) async fn remove_wall(&self) -> Result<(), Trouble> {
        for (what, path) in [
            ("network", self.bridge_path()),
            ("network ACL", self.list_path()),
        ] {
            if self.ours(what, &path).await.nothing_changed()?.is_some() {
                let deleted = self.incus.delete(&path, QUICK_LIMIT).await;
                deleted.map_err(|no| Trouble::Partial(no.fault()))?;
            }
        }
        Ok(())
    }

    fn access_list(&self, firewall: &Firewall) -> Value {
        json!({
            "name": self.bridge(),
            "description": format!("what is open at site {} of {}, by hafog", self.site, self.stack),
            "ingress": rules(firewall),
            "egress": [],
            "config": { STACK: self.stack.as_str(), SITE: self.site.as_str() },
        })
    }
}

fn rules(firewall: &Firewall) -> Vec<Value> {
    let rule = |about: &str| json!({ "action": "allow", "state": "enabled", "description": about });
    let mut way_in = rule(WAY_IN);
    way_in["protocol"] = "tcp".into();
    way_in["destination_port"] = SSH.to_string().into();
    let mut echo = rule(WAY_IN);
    echo["protocol"] = "icmp4".into();
    echo["icmp_type"] = ECHO.into();
    let mut rules = vec![way_in, echo];
    let own: Vec<String> = firewall.own.iter().map(IpAddr::to_string).collect();
    if !own.is_empty() {
        let mut let_in = rule(OWN);
        let_in["source"] = own.join(",").into();
        rules.push(let_in);
    }
    for (address, ports) in &firewall.open {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut open = rule(OPEN);
        open["destination"] = address.to_string().into();
        open["protocol"] = "tcp".into();
        open["destination_port"] = ports.join(",").into();
        rules.push(open);
    }
    rules
}

/// A rule that is none of ours is not read, and is gone with the next change.
fn read(list: &Value) -> Firewall {
    let mut firewall = Firewall::default();
    let parts = |rule: &Value, key: &str| -> Vec<String> {
        let text = rule[key].as_str().unwrap_or_default();
        text.split(',').map(str::to_owned).collect()
    };
    for rule in list["ingress"].as_array().into_iter().flatten() {
        let is = |about: &str| rule["description"] == about && rule["state"] == "enabled";
        if is(OWN) {
            let own = parts(rule, "source");
            firewall
                .own
                .extend(own.iter().filter_map(|one| one.parse::<IpAddr>().ok()));
        } else if is(OPEN)
            && let Some(Ok(address)) = rule["destination"].as_str().map(str::parse::<IpAddr>)
        {
            let ports = parts(rule, "destination_port");
            let ports: BTreeSet<u16> = ports.iter().filter_map(|port| port.parse().ok()).collect();
            firewall.open.insert(address, ports);
        }
    }
    firewall
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let firewall = Firewall {
            own: BTreeSet::from([address("10.66.16.2"), address("10.66.2.9")]),
            open: BTreeMap::from([(address("10.66.16.2"), BTreeSet::from([80, 443]))]),
        };
        let list = json!({ "ingress": rules(&firewall) });
        assert_eq!(read(&list), firewall);
        assert_eq!(
            list["ingress"][3],
            json!({
                "action": "allow", "state": "enabled", "description": "open",
                "destination": "10.66.16.2", "protocol": "tcp", "destination_port": "80,443",
            })
        );
        assert_eq!(rules(&Firewall::default()).len(), 2, "SSH and pings");
    }

    #[test]
    fn the_name_of_a_bridge_fits_the_kernel_and_is_the_sites_own() {
        let east = name(&"shop".into(), &"east".into());
        assert_eq!(east.len(), 15);
        assert_ne!(east, name(&"shop".into(), &"west".into()));
    }
}
