//! Containers: made under a key, switched on and off with proof, and removed with their volume.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::api::{No, Said, there};
use super::network;
use super::{QUICK_LIMIT, REMOVE_LIMIT, SITE, STACK, Site, WORK_LIMIT};
use crate::cloud::{OnceKey, Power, Server, ServerState, ServerWant};
use crate::error::{Fault, Kind, Trouble, TroubleExt};
use crate::model::id::{ImageName, ServerName};
use crate::shell::ssh::{HostKey, HostKeyPair, Login, SERVER_DIRS};
use crate::shell::{Dirs, Host, Shell};

const KEY: &str = "user.hafog.key";
pub(super) const IMAGE: &str = "user.hafog.image";
/// The public half of the server's SSH host key.
pub(super) const HOST_KEY: &str = "user.hafog.hostkey";
/// Set when everything is there; without it a server is half made.
const MADE: &str = "user.hafog.made";
/// Set until its folders are there: nothing can be done on it before.
const BOOTING: &str = "user.hafog.booting";
/// Nobody knows what is on its disk: an image is being put under it, or a command that did so was cut.
pub(super) const REBUILDING: &str = "user.hafog.rebuilding";
/// How long a machine may take from its start until it answers.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// How long Incus may take until it can write a file.
const FILE_LIMIT: Duration = Duration::from_secs(10);
/// Before the name of each tag.
const TAG: &str = "user.hafog.tag.";

/// Status codes of instances, <https://linuxcontainers.org/incus/docs/main/rest-api/#list-of-current-status-codes>.
pub(super) const STOPPED: u64 = 102;
pub(super) const RUNNING: u64 = 103;
pub(super) const FROZEN: u64 = 110;
const ERROR: u64 = 112;

/// From the end of what was done until the host shows it.
const SHOW_LIMIT: Duration = Duration::from_secs(20);
/// For a list that says everything; shorter than anybody waits for it.
const LIST_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);

impl Site {
    pub(super) fn path(&self, name: &ServerName) -> Result<String, Fault> {
        Ok(self.within(&format!("/1.0/instances/{}", checked(name)?)))
    }

    pub(super) async fn find(&self, name: &ServerName) -> Result<Option<Value>, Fault> {
        let found = self.incus.get(&self.path(name)?).await;
        let found = there(found).map_err(No::fault)?;
        Ok(found.filter(|instance| instance["config"][STACK] == self.stack.as_str()))
    }

    pub(super) async fn known(&self, name: &ServerName) -> Result<Value, Fault> {
        let none = || Fault::new(format!("site `{}` has no server `{name}`", self.site));
        self.find(name).await?.ok_or_else(none)
    }

    /// The instances of the site.
    pub(super) async fn instances(&self) -> Result<Vec<Value>, Fault> {
        let listed = self
            .list(&self.within("/1.0/instances?recursion=1"))
            .await?;
        let ours = |instance: &Value| instance["config"][STACK] == self.stack.as_str();
        Ok(listed.into_iter().filter(ours).collect())
    }

    /// Of an instance that it is at work on, Incus may say its name and nothing else: that is no answer. Asked for the
    /// states too (`recursion=2`), it does so whenever one is published.
    async fn list(&self, path: &str) -> Result<Vec<Value>, Fault> {
        let until = Instant::now() + LIST_LIMIT;
        loop {
            let listed = there(self.incus.get(path).await).map_err(No::fault)?;
            let Some(Value::Array(listed)) = listed else {
                return Ok(Vec::new());
            };
            let bare = |one: &&Value| !one["config"].is_object() || !one["devices"].is_object();
            let Some(bare) = listed.iter().find(bare) else {
                return Ok(listed);
            };
            if Instant::now() >= until {
                let message = format!("Incus does not say what instance {} is", bare["name"]);
                return Err(Fault::unavailable(message));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn listed(&self) -> Result<Vec<String>, Fault> {
        let instances = self.instances().await?;
        let names = instances.iter().filter_map(|one| one["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    pub(super) async fn all(&self) -> Result<Vec<Server>, Fault> {
        let mut all = Vec::new();
        for instance in self.instances().await? {
            let mut server = self.describe(&instance);
            let is_up = matches!(server.state, ServerState::Running | ServerState::Frozen);
            if is_up && self.is_cut_off(&instance).await? {
                server.state = ServerState::Isolated;
            }
            all.push(server);
        }
        Ok(all)
    }

    pub(super) fn describe(&self, instance: &Value) -> Server {
        let config = &instance["config"];
        let text = |key: &str| config[key].as_str().map(str::to_owned);
        let name = ServerName::new(instance["name"].as_str().unwrap_or_default());
        let address = address_of(instance);
        let state = match instance["status_code"].as_u64() {
            _ if text(MADE).is_none() => ServerState::Pending,
            Some(RUNNING) if text(BOOTING).is_some() => ServerState::Pending,
            Some(RUNNING) => ServerState::Running,
            Some(STOPPED) => ServerState::Off,
            Some(FROZEN) => ServerState::Frozen,
            Some(ERROR) => ServerState::Failed("Incus says that it is in error".to_owned()),
            // Starting, stopping, freezing: it is on its way.
            Some(_) | None => ServerState::Pending,
        };
        let tags = config.as_object().into_iter().flatten();
        let tags = tags.filter_map(|(key, value)| {
            Some((
                key.strip_prefix(TAG)?.to_owned(),
                value.as_str()?.to_owned(),
            ))
        });
        if let (Some(key), Some(address)) = (text(HOST_KEY), address) {
            self.way.ssh.know(
                &name,
                address,
                Login::Ours(HostKey(key)),
                text(IMAGE).is_some(),
            );
        }
        Server {
            id: format!("{}/{name}", self.project),
            state,
            image: text(IMAGE).map(ImageName::new),
            tags: tags.collect(),
            host: address.map(|address| Host {
                name: name.clone(),
                site: self.site.clone(),
                address,
                dirs: dirs(),
            }),
            name,
        }
    }

    pub(super) async fn create(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        let name = &want.name;
        let path = self.path(name).nothing_changed()?;
        let image = match &want.image {
            Some(image) => self.need(image).await.nothing_changed()?,
            None => self.base(&want.base).await.nothing_changed()?,
        };
        self.ensure_project().await?;
        match self.find(name).await.nothing_changed()? {
            Some(found) if found["config"][KEY] != key.0.as_str() => {
                let message = format!("site `{}` has a server `{name}` already", self.site);
                return Err(Trouble::NothingChanged(Fault::new(message)));
            }
            Some(found) if found["config"][MADE].is_string() => {
                let there = self.describe(&found);
                if there.state == ServerState::Off {
                    self.boot(name).await?;
                }
                return self.ready(name).await;
            }
            // Of a call that was cut: it may be empty, so it is made again.
            Some(_) => {
                let deleted = self.incus.delete(&path, REMOVE_LIMIT).await;
                deleted.map_err(No::trouble)?;
            }
            None => {}
        }
        let host_key = HostKeyPair::make(name).await.nothing_changed()?;
        let mut place = self.place().await.nothing_changed()?;
        // Of a server of this name whose removal was cut: a new one has nothing of it.
        let left = self.volume_path(name, &place);
        self.incus
            .delete(&left, REMOVE_LIMIT)
            .await
            .map_err(No::trouble)?;
        if let Some(own) = self.own_bridge(&place.network).await? {
            place.network = own;
        }
        self.volume(want, &place).await?;
        self.begin(want, key, &image, &host_key.public, &place)
            .await?;
        self.equip(name, &host_key.private).await?;
        self.set(name, &[(BOOTING, "true"), (MADE, "true")]).await?;
        self.action(name, "start").await?;
        self.ready(name).await
    }

    /// The first thing that is done on a machine that runs.
    async fn ready(&self, name: &ServerName) -> Result<Server, Trouble> {
        let found = self.describe(&self.known(name).await.unknown()?);
        if let Some(host) = &found.host {
            self.once_up(|| async { self.machine().prepare(host).await })
                .await?;
        }
        self.set(name, &[(BOOTING, "")]).await?;
        Ok(self.describe(&self.known(name).await.unknown()?))
    }

    /// A machine that boots has no address for a while, and looks like one that is gone.
    pub(super) async fn once_up<F>(&self, act: impl Fn() -> F) -> Result<(), Trouble>
    where
        F: Future<Output = Result<(), Trouble>>,
    {
        let until = Instant::now() + BOOT_LIMIT;
        loop {
            match act().await {
                Err(trouble)
                    if trouble.fault().kind() == Kind::Unavailable && Instant::now() < until =>
                {
                    tokio::time::sleep(POLL).await;
                }
                ended => return ended,
            }
        }
    }

    async fn begin(
        &self,
        want: &ServerWant,
        key: &OnceKey,
        image: &str,
        host_key: &str,
        place: &Place,
    ) -> Result<(), Trouble> {
        let mut config = Map::new();
        let mut set = |key: &str, value: String| drop(config.insert(key.to_owned(), value.into()));
        set(STACK, self.stack.to_string());
        set(SITE, self.site.to_string());
        set(KEY, key.0.clone());
        set(HOST_KEY, host_key.to_owned());
        if let Some(image) = &want.image {
            set(IMAGE, image.to_string());
        }
        set("limits.cpu", want.size.cpu.to_string());
        set("limits.memory", format!("{}B", want.size.memory.0));
        for (tag, value) in &want.tags {
            set(&format!("{TAG}{tag}"), value.clone());
        }
        let _choosing = self.choosing.lock().await;
        let address = self.free(place).await.nothing_changed()?;
        let instance = json!({
            "name": want.name.as_str(),
            "type": "container",
            "source": { "type": "image", "fingerprint": image },
            "profiles": [],
            "config": config,
            "devices": {
                "root": { "type": "disk", "pool": place.pool, "path": "/" },
                "eth0": { "type": "nic", "network": place.network, "name": "eth0", "ipv4.address": address.to_string() },
                "hafog": { "type": "disk", "pool": place.pool, "source": volume_name(&want.name), "path": SERVER_DIRS },
            },
        });
        let path = self.within("/1.0/instances");
        let made = self
            .incus
            .change(Method::POST, &path, &instance, WORK_LIMIT);
        made.await.map(drop).map_err(No::trouble)
    }

    /// What makes it reachable, put into it before its first start: nobody can pretend to be it, and no secret is in
    /// what Incus keeps of it.
    pub(super) async fn equip(&self, name: &ServerName, private: &str) -> Result<(), Trouble> {
        let authorized = self.way.ssh.public_key().await.partial()?;
        self.push(name, "/etc/ssh/ssh_host_ed25519_key", "0600", private)
            .await?;
        self.make_folder(name, "/root/.ssh", "0700").await?;
        self.push(name, "/root/.ssh/authorized_keys", "0600", &authorized)
            .await
    }

    pub(super) async fn push(
        &self,
        name: &ServerName,
        file: &str,
        mode: &str,
        text: &str,
    ) -> Result<(), Trouble> {
        let headers = file_headers("file", mode);
        self.file(name, file, headers, text.as_bytes().to_vec())
            .await
    }

    async fn make_folder(&self, name: &ServerName, path: &str, mode: &str) -> Result<(), Trouble> {
        self.file(name, path, file_headers("directory", mode), Vec::new())
            .await
    }

    async fn file(
        &self,
        name: &ServerName,
        file: &str,
        headers: Vec<(&'static str, String)>,
        bytes: Vec<u8>,
    ) -> Result<(), Trouble> {
        let path = self.file_path(name, file).partial()?;
        let until = Instant::now() + FILE_LIMIT;
        loop {
            let wrote = self
                .incus
                .write(&path, headers.clone(), bytes.clone())
                .await;
            match wrote {
                // The helper of Incus for the files of a machine that is off (`forkfile`) ends when nobody needs it, also
                // right now.
                Err(No::Refused(fault))
                    if fault.causes().join(" ").contains("forkfile") && Instant::now() < until =>
                {
                    tokio::time::sleep(POLL).await;
                }
                wrote => return wrote.map_err(|no| Trouble::Partial(no.fault())),
            }
        }
    }

    pub(super) fn file_path(&self, name: &ServerName, file: &str) -> Result<String, Fault> {
        let name = checked(name)?;
        Ok(self.within(&format!("/1.0/instances/{name}/files?path={file}")))
    }

    /// Merges into the instance's configuration; an empty value removes a key.
    pub(super) async fn set(
        &self,
        name: &ServerName,
        values: &[(&str, &str)],
    ) -> Result<(), Trouble> {
        let config: Map<String, Value> = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Value::from(*value)))
            .collect();
        let path = self.path(name).nothing_changed()?;
        let body = json!({ "config": config });
        let changed = self.incus.change(Method::PATCH, &path, &body, QUICK_LIMIT);
        changed.await.map(drop).map_err(No::trouble)
    }

    pub(super) async fn tag(
        &self,
        name: &ServerName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        self.known(name).await.nothing_changed()?;
        let named: Vec<(String, &str)> = tags
            .iter()
            .map(|(tag, value)| (format!("{TAG}{tag}"), value.as_str()))
            .collect();
        let named: Vec<(&str, &str)> = named
            .iter()
            .map(|(tag, value)| (tag.as_str(), *value))
            .collect();
        self.set(name, &named).await
    }

    // Power.

    async fn status(&self, name: &ServerName) -> Said<u64> {
        let path = self.path(name).map_err(No::Refused)?;
        let instance = self.incus.get(&path).await?;
        Ok(instance["status_code"].as_u64().unwrap_or_default())
    }

    pub(super) async fn switch(&self, name: &ServerName, to: Power) -> Result<(), Trouble> {
        let instance = self.known(name).await.nothing_changed()?;
        let refused = |why: &str| {
            Err(Trouble::NothingChanged(Fault::new(format!(
                "server `{name}` {why}"
            ))))
        };
        match (to, instance["status_code"].as_u64()) {
            (Power::Off, _) => {
                self.way.ssh.hang_up(name);
                self.off(name).await
            }
            (Power::On, _) if !instance["config"][MADE].is_string() => refused("is not made yet"),
            (Power::On, Some(RUNNING)) => self.connect(name).await,
            (Power::Thaw, Some(RUNNING)) | (Power::Freeze, Some(FROZEN)) => Ok(()),
            (Power::On, Some(FROZEN)) => refused("is frozen; thaw it or power it off first"),
            (Power::On, _) => {
                self.boot(name).await?;
                // Of a creation that was cut before its first word.
                match instance["config"][BOOTING].is_string() {
                    true => self.ready(name).await.map(drop),
                    false => Ok(()),
                }
            }
            (Power::Isolate, Some(RUNNING | FROZEN)) => {
                self.way.ssh.hang_up(name);
                self.isolate(name).await
            }
            (Power::Freeze, Some(RUNNING)) => {
                self.way.ssh.hang_up(name);
                self.action(name, "freeze").await
            }
            (Power::Thaw, Some(FROZEN)) => self.action(name, "unfreeze").await,
            (Power::Isolate, status) if status != Some(STOPPED) => {
                refused("neither runs nor is frozen, as far as Incus knows")
            }
            (Power::Freeze | Power::Thaw | Power::Isolate, _) => refused("is off"),
        }
    }

    /// With its network, should that have been taken away.
    pub(super) async fn boot(&self, name: &ServerName) -> Result<(), Trouble> {
        self.connect(name).await?;
        self.action(name, "start").await
    }

    /// A stop right after a start that is still under way says "stopped already", and the machine runs a moment later:
    /// so it is off when it is seen stopped, with nothing under way, twice.
    pub(super) async fn off(&self, name: &ServerName) -> Result<(), Trouble> {
        let until = Instant::now() + QUICK_LIMIT;
        let mut seen = 0;
        loop {
            match self.status(name).await {
                Ok(STOPPED) if self.is_idle(name).await.unknown()? => seen += 1,
                Ok(STOPPED) => seen = 0,
                Ok(_) => {
                    seen = 0;
                    // Its refusal is seen in the next look.
                    let _ = self.action(name, "stop").await;
                }
                Err(No::Missing(_)) => return Ok(()),
                Err(no) if Instant::now() >= until => return Err(Trouble::Unknown(no.fault())),
                Err(_) => {}
            }
            if seen == 2 {
                return Ok(());
            }
            if Instant::now() >= until {
                let message = format!(
                    "server `{name}` is not seen stopped after {} s",
                    QUICK_LIMIT.as_secs()
                );
                return Err(Trouble::Unknown(Fault::unavailable(message)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether no operation on it is under way.
    async fn is_idle(&self, name: &ServerName) -> Result<bool, Fault> {
        let path = self.within("/1.0/operations?recursion=1");
        let operations = self.incus.get(&path).await.map_err(No::fault)?;
        let running = operations["running"].as_array().into_iter().flatten();
        let end = format!("/instances/{name}");
        let about = |operation: &Value| {
            let named = operation["resources"]["instances"].as_array();
            let mut named = named.into_iter().flatten().filter_map(Value::as_str);
            named.any(|path| {
                path.split('?')
                    .next()
                    .is_some_and(|path| path.ends_with(&end))
            })
        };
        Ok(!running.into_iter().any(about))
    }

    pub(super) async fn action(&self, name: &ServerName, action: &str) -> Result<(), Trouble> {
        let path = self.path(name).nothing_changed()?;
        let path = path.replacen("?project=", "/state?project=", 1);
        let body = json!({ "action": action, "force": true, "timeout": 30 });
        let changed = self.incus.change(Method::PUT, &path, &body, QUICK_LIMIT);
        changed.await.map(drop).map_err(|no| match no {
            No::Failed(fault) => Trouble::Unknown(fault.with_kind(Kind::Unavailable)),
            no => no.trouble(),
        })
    }

    pub(super) async fn delete(&self, name: &ServerName) -> Result<(), Trouble> {
        if self.find(name).await.nothing_changed()?.is_some() {
            self.off(name).await?;
            let path = self.path(name).nothing_changed()?;
            let deleted = self.incus.delete(&path, REMOVE_LIMIT).await;
            deleted.map_err(No::trouble)?;
            self.shown_gone(name).await?;
        }
        self.way.ssh.forget(name).await.partial()?;
        let place = self.place().await.nothing_changed()?;
        let path = self.volume_path(name, &place);
        let deleted = self.incus.delete(&path, REMOVE_LIMIT).await;
        deleted.map_err(|no| Trouble::Partial(no.fault()))
    }

    fn volume_path(&self, name: &ServerName, place: &Place) -> String {
        self.within(&format!("{}/{}", place.volumes(), volume_name(name)))
    }

    async fn shown_gone(&self, name: &ServerName) -> Result<(), Trouble> {
        let until = Instant::now() + SHOW_LIMIT;
        while self.find(name).await.unknown()?.is_some() {
            if Instant::now() >= until {
                let limit = SHOW_LIMIT.as_secs();
                let message = format!("server `{name}` is still listed {limit} s after its end");
                return Err(Trouble::Unknown(Fault::unavailable(message)));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    // Volumes.

    async fn volume(&self, want: &ServerWant, place: &Place) -> Result<(), Trouble> {
        let (name, all) = (&want.name, place.volumes());
        let mut config = json!({ STACK: self.stack.as_str() });
        if let Some(size) = want.disk {
            config["size"] = format!("{}B", size.0).into();
        }
        let volume = json!({
            "name": volume_name(name),
            "type": "custom",
            "content_type": "filesystem",
            "config": config,
        });
        let one = self.volume_path(name, place);
        let all = self.within(&all);
        let made = self.incus.ensure(&all, &volume, &one, QUICK_LIMIT).await;
        made.map_err(No::trouble)
    }

    /// Of servers that are gone.
    pub(super) async fn remove_volumes(&self) -> Result<(), Trouble> {
        let place = self.place().await.nothing_changed()?;
        let all = place.volumes();
        let path = self.within(&format!("{all}?recursion=1"));
        let listed = self.incus.get(&path).await.map_err(No::trouble)?;
        for volume in listed.as_array().into_iter().flatten() {
            if volume["config"][STACK] != self.stack.as_str() {
                continue;
            }
            let name = volume["name"].as_str().unwrap_or_default();
            let path = self.within(&format!("{all}/{name}"));
            let deleted = self.incus.delete(&path, REMOVE_LIMIT).await;
            deleted.map_err(|no| Trouble::Partial(no.fault()))?;
        }
        Ok(())
    }

    // Where servers go: the bridge and the pool of the host's default profile.

    pub(super) async fn place(&self) -> Result<Place, Fault> {
        let profile = self
            .incus
            .get("/1.0/profiles/default?project=default")
            .await;
        let profile = profile.map_err(No::fault)?;
        let devices = profile["devices"].as_object().cloned().unwrap_or_default();
        let of = |kind: &str, key: &str| {
            let mut devices = devices.values().filter(|device| device["type"] == kind);
            devices.find_map(|device| Some(device[key].as_str()?.to_owned()))
        };
        let missing = |what: &str| {
            Fault::new(format!("the default profile of Incus has no {what}"))
                .hint("incus profile show default")
        };
        Ok(Place {
            network: of("nic", "network").ok_or_else(|| missing("network"))?,
            pool: of("disk", "pool").ok_or_else(|| missing("storage pool"))?,
        })
    }

    /// The lowest address of the bridge that no instance and no lease has.
    async fn free(&self, place: &Place) -> Result<Ipv4Addr, Fault> {
        let network = format!("/1.0/networks/{}?project=default", place.network);
        let network = self.incus.get(&network).await.map_err(No::fault)?;
        let own = network["config"]["ipv4.address"]
            .as_str()
            .unwrap_or_default();
        let Some((bridge, length)) = subnet(own) else {
            let message = format!("bridge `{}` has no IPv4 network", place.network);
            return Err(Fault::new(message).hint(format!("incus network show {}", place.network)));
        };
        let all = self
            .list("/1.0/instances?all-projects=true&recursion=1")
            .await?;
        let reserved = all.iter().filter_map(reserved);
        let mut taken: BTreeSet<Ipv4Addr> = reserved.collect();
        let leases = format!("/1.0/networks/{}/leases?project=default", place.network);
        if let Ok(leases) = self.incus.get(&leases).await {
            let leases = leases.as_array().into_iter().flatten();
            let leases =
                leases.filter_map(|lease| lease["address"].as_str()?.parse::<Ipv4Addr>().ok());
            taken.extend(leases);
        }
        taken.insert(bridge);
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let first = u32::from(bridge) & mask;
        let last = first | !mask;
        (first + 1..last)
            .map(Ipv4Addr::from)
            .find(|address| !taken.contains(address))
            .ok_or_else(|| Fault::new(format!("bridge `{}` has no free address", place.network)))
    }
}

pub(super) struct Place {
    pub(super) network: String,
    pool: String,
}

impl Place {
    fn volumes(&self) -> String {
        format!("/1.0/storage-pools/{}/volumes/custom", self.pool)
    }
}

fn volume_name(name: &ServerName) -> String {
    format!("{name}-data")
}

fn dirs() -> Dirs {
    Dirs {
        image: String::new(),
        etc: format!("{SERVER_DIRS}/etc"),
        data: format!("{SERVER_DIRS}/data"),
        log: format!("{SERVER_DIRS}/log"),
    }
}

fn file_headers(kind: &str, mode: &str) -> Vec<(&'static str, String)> {
    vec![
        ("x-incus-uid", "0".to_owned()),
        ("x-incus-gid", "0".to_owned()),
        ("x-incus-mode", mode.to_owned()),
        ("x-incus-type", kind.to_owned()),
        ("x-incus-write", "overwrite".to_owned()),
    ]
}

/// A name as Incus takes it, and as one part of a path.
fn checked(name: &ServerName) -> Result<&str, Fault> {
    let text = name.as_str();
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    match begins && !text.ends_with('-') && text.len() <= 63 && text.chars().all(good) {
        true => Ok(text),
        false => Err(Fault::new(format!(
            "`{text}` cannot be the name of an instance"
        ))),
    }
}

fn address_of(instance: &Value) -> Option<IpAddr> {
    let devices = network::devices(instance);
    let address = devices.get("eth0")?["ipv4.address"].as_str();
    address?.parse().ok()
}

fn reserved(instance: &Value) -> Option<Ipv4Addr> {
    let reserved = network::devices(instance);
    let mut reserved = reserved
        .values()
        .filter_map(|device| device["ipv4.address"].as_str());
    reserved.next()?.parse().ok()
}

/// `10.66.1.1/24`.
fn subnet(text: &str) -> Option<(Ipv4Addr, u32)> {
    let (address, length) = text.split_once('/')?;
    let length: u32 = length
        .parse()
        .ok()
        .filter(|length| (1..=30).contains(length))?;
    Some((address.parse().ok()?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_incus_takes() {
        for good in ["shop-east-db-1", "a", "A1"] {
            assert!(checked(&ServerName::from(good)).is_ok(), "{good}");
        }
        for bad in [
            "",
            "..",
            "a/b",
            ".hidden",
            "1a",
            "a-",
            "a_b",
            &"a".repeat(64),
        ] {
            assert!(checked(&ServerName::from(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_network_of_a_bridge() {
        let bridge = Ipv4Addr::new(10, 66, 1, 1);
        assert_eq!(subnet("10.66.1.1/24"), Some((bridge, 24)));
        for bad in ["none", "", "10.66.1.1", "10.66.1.1/32", "fd42::1/64"] {
            assert_eq!(subnet(bad), None, "{bad}");
        }
    }
}
