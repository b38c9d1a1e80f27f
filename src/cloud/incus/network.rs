//! A server's way to the network, taken away and given back while it runs.
//!
//! Nothing is asked of the machine: Incus removes the host's end of it. What was taken away is kept in the instance's
//! configuration, so that its address stays its own, and whoever gives it back gives back the same.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::api::No;
use super::server::{FROZEN, RUNNING};
use super::{QUICK_LIMIT, Site};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::ServerName;

/// The devices that were taken away, as they were.
const TAKEN: &str = "user.hafog.taken";
/// Devices through which packets come: network cards, and ports of the host that Incus itself listens on.
const CARRIERS: [&str; 3] = ["nic", "infiniband", "proxy"];

type Devices = Map<String, Value>;

impl Site {
    pub(super) async fn isolate(&self, name: &ServerName) -> Result<(), Trouble> {
        let instance = self.known(name).await.nothing_changed()?;
        let mut taken = taken(&instance);
        let mut devices = Devices::new();
        for (device, about) in carriers(&instance["expanded_devices"]) {
            devices.insert(device.clone(), json!({ "type": "none" }));
            taken.insert(device.clone(), with_its_address(&instance, device, about));
        }
        if devices.is_empty() {
            return Ok(());
        }
        let kept = Value::from(taken).to_string();
        self.change_devices(name, &kept, devices).await
    }

    /// Gives back what was taken away, if anything was.
    pub(super) async fn connect(&self, name: &ServerName) -> Result<(), Trouble> {
        let instance = self.known(name).await.nothing_changed()?;
        match taken(&instance) {
            taken if taken.is_empty() => Ok(()),
            taken => self.change_devices(name, "", taken).await,
        }
    }

    /// In one request, so that nothing is taken away and forgotten.
    async fn change_devices(
        &self,
        name: &ServerName,
        kept: &str,
        devices: Devices,
    ) -> Result<(), Trouble> {
        let path = self.path(name).nothing_changed()?;
        let body = json!({ "config": { TAKEN: kept }, "devices": devices });
        let changed = self.incus.change(Method::PATCH, &path, &body, QUICK_LIMIT);
        changed.await.map_err(No::trouble)
    }

    /// Whether the instance is up and on no network: nothing is left in what Incus means it to have, nor in what the
    /// machine is seen to have.
    pub(super) async fn is_cut_off(&self, instance: &Value) -> Result<bool, Fault> {
        let taken = taken(instance);
        let is_up = matches!(instance["status_code"].as_u64(), Some(RUNNING | FROZEN));
        let meant = carriers(&instance["expanded_devices"]).next().is_some();
        if !is_up || taken.is_empty() || meant {
            return Ok(false);
        }
        let name = ServerName::new(instance["name"].as_str().unwrap_or_default());
        let path = self.path(&name)?;
        let path = path.replacen("?project=", "/state?project=", 1);
        let state = self.incus.get(&path).await.map_err(No::fault)?;
        let Some(seen) = state["network"].as_object() else {
            let message = format!("Incus does not say which networks {name} is seen on");
            return Err(Fault::unavailable(message));
        };
        let interface = |(device, about): (&String, &Value)| {
            let named = about["name"].as_str().map(str::to_owned);
            named.unwrap_or_else(|| device.clone())
        };
        Ok(!taken
            .iter()
            .map(interface)
            .any(|one| seen.contains_key(&one)))
    }
}

/// Whether its way to the network was taken away.
pub(super) fn is_taken(instance: &Value) -> bool {
    instance["config"][TAKEN].is_string()
}

/// The devices of an instance, those that were taken away among them.
pub(super) fn devices(instance: &Value) -> Devices {
    let mut devices = instance["devices"].as_object().cloned().unwrap_or_default();
    devices.extend(taken(instance));
    devices
}

fn taken(instance: &Value) -> Devices {
    let text = instance["config"][TAKEN].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

fn carriers(devices: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let devices = devices.as_object().into_iter().flatten();
    devices.filter(|(_, about)| CARRIERS.iter().any(|kind| about["type"] == *kind))
}

/// A card that is made anew gets a hardware address by lot; neighbours and the DHCP server remember the old one.
fn with_its_address(instance: &Value, device: &str, about: &Value) -> Value {
    let mut about = about.clone();
    let address = &instance["config"][format!("volatile.{device}.hwaddr")];
    if about["type"] == "nic" && about["hwaddr"].is_null() && address.is_string() {
        about["hwaddr"] = address.clone();
    }
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_carries_packets_is_known_and_what_was_taken_is_still_its_own() {
        let running = json!({
            "config": { "volatile.eth0.hwaddr": "10:66:6a:00:00:01" },
            "devices": { "eth0": { "type": "nic", "ipv4.address": "10.66.1.9" }, "root": { "type": "disk" } },
            "expanded_devices": {
                "eth0": { "type": "nic", "ipv4.address": "10.66.1.9" },
                "root": { "type": "disk" },
                "web": { "type": "proxy" },
            },
        });
        let found: Vec<&str> = carriers(&running["expanded_devices"])
            .map(|(device, _)| device.as_str())
            .collect();
        assert_eq!(found, ["eth0", "web"]);
        let card = with_its_address(&running, "eth0", &running["devices"]["eth0"]);
        assert_eq!(card["hwaddr"], "10:66:6a:00:00:01");

        let kept = json!({ "eth0": card.clone() }).to_string();
        let isolated = json!({
            "config": { TAKEN: kept },
            "devices": { "eth0": { "type": "none" }, "root": { "type": "disk" } },
        });
        assert!(is_taken(&isolated) && !is_taken(&running));
        assert_eq!(devices(&isolated)["eth0"], card);
        assert_eq!(devices(&isolated)["root"]["type"], "disk");
    }
}
