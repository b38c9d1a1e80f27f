//! The site's own address: a network forward on the bridge that its servers are on.
//!
//! Incus sends what comes to the address on to the balancer, and answers for it on the bridge's side; that the address
//! comes to the host at all is the business of whoever runs the host.

use std::net::IpAddr;

use reqwest::Method;
use serde_json::{Value, json};

use super::api::{No, there};
use super::{QUICK_LIMIT, SITE, STACK, Site};
use crate::cloud::Entry;
use crate::error::{Fault, Trouble, TroubleExt};

impl Site {
    /// Of every stack and of people, on the site's bridge; `None`: the site has no bridge of its own yet.
    async fn all_forwards(&self) -> Result<Option<(String, Vec<Value>)>, Fault> {
        let bridge = match self.network {
            Some(_) => self.bridge(),
            None => self.place().await?.network,
        };
        self.forwards_on(&bridge).await
    }

    async fn forwards_on(&self, bridge: &str) -> Result<Option<(String, Vec<Value>)>, Fault> {
        let all = format!("/1.0/networks/{bridge}/forwards");
        let path = format!("{all}?recursion=1&project=default");
        let listed = there(self.incus.get(&path).await).map_err(No::fault)?;
        Ok(listed.map(|listed| (all, listed.as_array().cloned().unwrap_or_default())))
    }

    pub(super) async fn leads(&self) -> Result<Option<Entry>, Fault> {
        let all = self.all_forwards().await?;
        let forwards = all.into_iter().flat_map(|(_, forwards)| forwards);
        let ours: Vec<Value> = forwards.filter(|one| self.owns(one)).collect();
        // A change that was cut left two: it is made to its end.
        Ok(match ours.as_slice() {
            [one] => read(one),
            _ => None,
        })
    }

    pub(super) async fn lead_to(&self, entry: &Entry) -> Result<(), Trouble> {
        let none = || Fault::new(format!("site `{}` has no network yet", self.site));
        let all = self.all_forwards().await.nothing_changed()?;
        let (all, forwards) = all.ok_or_else(none).nothing_changed()?;
        let address = entry.address.to_string();
        let body = json!({
            "listen_address": address,
            "description": format!("visitors of site {} of {}, by hafog", self.site, self.stack),
            "config": { STACK: self.stack.as_str(), SITE: self.site.as_str() },
            "ports": [port(entry)],
        });
        let found = forwards
            .iter()
            .find(|one| one["listen_address"] == address.as_str());
        let (method, path) = match found {
            Some(found) if !self.owns(found) => {
                let message = format!("Incus leads {address} somewhere already, for somebody else");
                return Err(Trouble::NothingChanged(Fault::new(message)));
            }
            Some(_) => (Method::PUT, format!("{all}/{address}?project=default")),
            None => (Method::POST, format!("{all}?project=default")),
        };
        let led = self.incus.change(method, &path, &body, QUICK_LIMIT).await;
        led.map_err(|no| {
            let hint =
                "`incus network forward list`; another network of the host may use the address";
            no.trouble().map(|fault| fault.hint(hint))
        })?;
        // One that the spec named before.
        let is_other = |one: &&Value| one["listen_address"] != address.as_str();
        self.forget(&all, forwards.iter().filter(is_other)).await
    }

    /// Also those of before the site had a network of its own, or since it has none.
    pub(super) async fn remove_forwards(&self) -> Result<(), Trouble> {
        for bridge in [self.bridge(), self.place().await.nothing_changed()?.network] {
            if let Some((all, forwards)) = self.forwards_on(&bridge).await.nothing_changed()? {
                self.forget(&all, forwards.iter()).await?;
            }
        }
        Ok(())
    }

    async fn forget(
        &self,
        all: &str,
        forwards: impl Iterator<Item = &Value>,
    ) -> Result<(), Trouble> {
        let ours = forwards.filter(|one| self.owns(one));
        for address in ours.filter_map(|one| one["listen_address"].as_str()) {
            let path = format!("{all}/{address}?project=default");
            let deleted = self.incus.delete(&path, QUICK_LIMIT).await;
            deleted.map_err(|no| Trouble::Partial(no.fault()))?;
        }
        Ok(())
    }
}

fn port(entry: &Entry) -> Value {
    let ports: Vec<String> = entry.ports.iter().map(u16::to_string).collect();
    json!({
        "description": "visitors",
        "protocol": "tcp",
        "listen_port": ports.join(","),
        "target_address": entry.to.to_string(),
    })
}

/// One that somebody changed leads nowhere that we know.
fn read(forward: &Value) -> Option<Entry> {
    let [port] = forward["ports"].as_array()?.as_slice() else {
        return None;
    };
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    let ports = port["listen_port"].as_str()?.split(',');
    Some(Entry {
        address: address(&forward["listen_address"])?,
        to: address(&port["target_address"])?,
        ports: ports.map(str::parse).collect::<Result<_, _>>().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let entry = Entry {
            address: "203.0.113.10".parse().unwrap(),
            to: "10.66.20.2".parse().unwrap(),
            ports: [80, 443].into(),
        };
        let mut forward = json!({ "listen_address": "203.0.113.10", "ports": [port(&entry)] });
        assert_eq!(read(&forward), Some(entry));
        forward["ports"][0]["listen_port"] = "80-90".into();
        assert_eq!(read(&forward), None);
    }
}
