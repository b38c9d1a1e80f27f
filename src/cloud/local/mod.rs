//! The embedded cloud: this machine. A site is a folder; a server is an image, a data folder, a loopback address of
//! its own and ordinary processes under a supervisor; an image is a read-only tree.
//!
//! ```text
//! site.json  site.lock  images/<image>/{image.json, tree/}
//! servers/<server>/{server.json, supervisor.json, image -> tree, etc/, data/, log/, services/}
//! ```
//!
//! It needs no root and no namespaces, and is the reference implementation of [`Cloud`]. It does not limit what
//! servers use, nor what they may connect to. Killing hafog anywhere leaves something that the same call completes.

mod address;
mod image;
mod memory;
mod power;
pub mod processes;
pub mod shell;
pub mod supervisor;
pub mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::unistd::AccessFlags;
use serde::{Deserialize, Serialize};

use super::{
    Can, Cloud, CloudAbout, Firewall, Image, OnceKey, Power, Server, ServerWant, SiteSettings,
};
use crate::durable::{self, Lock, blocking};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::digest::sha256;
use crate::model::id::{ImageName, ServerName, SiteName, StackName};
use crate::shell::Shell;
use shell::LocalShell;
use supervisor::Life;
use user::service_user;

pub const ABOUT: CloudAbout = CloudAbout {
    name: "local",
    about: "this machine: loopback addresses and ordinary processes, for demos, tests and learning",
    can: Can {
        seal: true,
        low_ports: false,
        power: true,
        // What listens on the loopback interface is on no network that it could be taken off.
        isolate: false,
        disks: false,
        copies: false,
        entry: false,
        firewall: false,
        machines: false,
    },
    open: |settings| Ok(Arc::new(Local(Arc::new(Site::new(settings)?)))),
};

/// Where a site's files are. It need not exist.
pub fn base_folder(settings: &SiteSettings) -> Result<PathBuf, Fault> {
    Ok(Site::new(settings)?.base)
}

/// How long another command's creation or deletion is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(60);
/// Beginning of the name of a folder that is being made or removed.
const NEW: &str = ".new-";
const GONE: &str = ".gone-";

/// `server.json`: written before anything else of a server, with what completes a half-made one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ServerRecord {
    name: ServerName,
    key: OnceKey,
    /// The last number of its address.
    number: u8,
    address: IpAddr,
    /// What it was made from; the link says what it has now.
    image: Option<ImageName>,
    tags: BTreeMap<String, String>,
    /// Everything is there and it was started once.
    made: bool,
}

struct Site {
    stack: StackName,
    site: SiteName,
    base: PathBuf,
    /// Folders above the base that go when they are empty, the nearest first.
    above: Vec<PathBuf>,
}

/// A name as one part of a path.
fn component(name: &str) -> Result<&str, Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(good) {
        return Err(Fault::new(format!(
            "`{name}` cannot be the name of a folder"
        )));
    }
    Ok(name)
}

/// The path with the links of what exists of it resolved: as the kernel shows it for a process's folder.
fn real(path: &Path) -> Result<PathBuf, Fault> {
    match path.canonicalize() {
        Ok(real) => Ok(real),
        Err(error) => match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(real(parent)?.join(name)),
            _ => Err(durable::fault("find", path, error)),
        },
    }
}

impl Site {
    fn new(settings: &SiteSettings) -> Result<Site, Fault> {
        let site = component(settings.site.as_str())?;
        let (base, above) = match &settings.region {
            Some(folder) => (PathBuf::from(folder), Vec::new()),
            // The service user must reach its data, and home may be below /root.
            None if nix::unistd::geteuid().is_root() => {
                let digest = sha256(real(&settings.home)?.as_os_str().as_encoded_bytes());
                let hafog = PathBuf::from("/var/lib/hafog");
                let home = hafog.join(&digest[..16]);
                (home.join(site), vec![home, hafog])
            }
            None => {
                let local = settings.home.join("local");
                (local.join(site), vec![local])
            }
        };
        if !base.is_absolute() {
            return Err(Fault::new(format!(
                "the folder of site `{site}` is not absolute: `{}`",
                base.display()
            )));
        }
        Ok(Site {
            stack: settings.stack.clone(),
            site: settings.site.clone(),
            base: real(&base)?,
            above,
        })
    }

    fn server_folder(&self, name: &ServerName) -> Result<PathBuf, Fault> {
        Ok(self.base.join("servers").join(component(name.as_str())?))
    }

    /// Makes the site's folder where there is none, and keeps other commands from changing it.
    fn lock(&self) -> Result<Lock, Fault> {
        durable::lock_in(&self.base, "site.lock", LOCK_LIMIT)
    }

    fn ping(&self) -> Result<(), Fault> {
        let there = self.base.ancestors().find(|folder| folder.exists());
        let there = there.unwrap_or(Path::new("/"));
        nix::unistd::access(there, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
            durable::fault("write in", there, errno).with_kind(crate::error::Kind::Unavailable)
        })
    }

    fn record(&self, name: &ServerName) -> Result<Option<ServerRecord>, Fault> {
        let path = self.server_folder(name)?.join("server.json");
        let Some(bytes) = durable::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| durable::fault("understand", &path, error))
    }

    fn known(&self, name: &ServerName) -> Result<ServerRecord, Fault> {
        let none = || Fault::new(format!("site `{}` has no server `{name}`", self.site));
        self.record(name)?.ok_or_else(none)
    }

    fn records(&self) -> Result<Vec<ServerRecord>, Fault> {
        let names = durable::names(&self.base.join("servers"))?;
        // One that is deleted meanwhile is not there.
        let records = names
            .into_iter()
            .map(|name| self.record(&ServerName::new(name)));
        records.filter_map(Result::transpose).collect()
    }

    fn describe(&self, record: &ServerRecord) -> Result<Server, Fault> {
        let folder = self.server_folder(&record.name)?;
        Ok(Server {
            name: record.name.clone(),
            id: record.address.to_string(),
            state: self.state(&record.name, record.made)?,
            image: self.image_of(&record.name),
            tags: record.tags.clone(),
            host: Some(shell::host(
                &folder,
                &record.name,
                &self.site,
                record.address,
            )),
        })
    }

    fn servers(&self) -> Result<Vec<Server>, Fault> {
        self.records()?
            .iter()
            .map(|record| self.describe(record))
            .collect()
    }

    fn create(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        let name = &want.name;
        let folder = self.server_folder(name).nothing_changed()?;
        let _lock = self.lock().nothing_changed()?;
        self.sweep().nothing_changed()?;
        let mut record = match self.record(name).nothing_changed()? {
            Some(record) if &record.key != key => {
                let message = format!("site `{}` has a server `{name}` already", self.site);
                return Err(Trouble::NothingChanged(Fault::new(message)));
            }
            Some(record) => record,
            None => self.begin(want, key).nothing_changed()?,
        };
        if !record.made {
            self.complete(&folder, &record).partial()?;
            if supervisor::life(&folder) != Life::Running {
                self.power_on(name)
                    .map_err(|trouble| Trouble::Partial(trouble.fault().clone()))?;
            }
            record.made = true;
            self.write(&folder, &record).partial()?;
        }
        self.describe(&record).unknown()
    }

    /// Makes a server that is nothing but its record. It appears with its record or not at all.
    fn begin(&self, want: &ServerWant, key: &OnceKey) -> Result<ServerRecord, Fault> {
        if let Some(image) = &want.image {
            self.need_image(image)?;
        }
        let site = address::claim(&self.base, self.stack.as_str(), self.site.as_str())?;
        if (site.stack.as_str(), site.site.as_str()) != (self.stack.as_str(), self.site.as_str()) {
            return Err(Fault::new(format!(
                "`{}` is the folder of site `{}` of stack `{}`",
                self.base.display(),
                site.site,
                site.stack
            )));
        }
        let taken: BTreeSet<u8> = self.records()?.iter().map(|record| record.number).collect();
        let free = (1..=address::SERVERS).find(|number| !taken.contains(number));
        let number =
            free.ok_or_else(|| Fault::new(format!("site `{}` has no free address", self.site)))?;
        let record = ServerRecord {
            name: want.name.clone(),
            key: key.clone(),
            number,
            address: site.block.address(number),
            image: want.image.clone(),
            tags: want.tags.clone(),
            made: false,
        };
        let servers = self.base.join("servers");
        let new = servers.join(format!("{NEW}{}", want.name));
        durable::make_folders(&new, 0o755)?;
        self.write(&new, &record)?;
        let folder = self.server_folder(&want.name)?;
        std::fs::rename(&new, &folder)
            .and_then(|()| durable::sync_folder(&servers))
            .map_err(|error| durable::fault("make", &folder, error))?;
        Ok(record)
    }

    fn complete(&self, folder: &Path, record: &ServerRecord) -> Result<(), Fault> {
        for part in ["etc", "data", "log", "services"] {
            durable::make_folders(&folder.join(part), 0o755)?;
        }
        for part in ["data", "log"] {
            durable::give(&folder.join(part), service_user())?;
        }
        if record.image.is_none() {
            durable::make_folders(&folder.join("tree"), 0o755)?;
        }
        image::link_image(folder, record.image.as_ref())
    }

    fn write(&self, folder: &Path, record: &ServerRecord) -> Result<(), Fault> {
        let bytes = serde_json::to_vec_pretty(record).expect("a record is always JSON");
        durable::replace(&folder.join("server.json"), &bytes, 0o644, None)
    }

    fn tag(&self, name: &ServerName, tags: &BTreeMap<String, String>) -> Result<(), Trouble> {
        let _lock = self.lock().nothing_changed()?;
        self.sweep().nothing_changed()?;
        let mut record = self.known(name).nothing_changed()?;
        let folder = self.server_folder(name).nothing_changed()?;
        record.tags.extend(tags.clone());
        self.write(&folder, &record).unknown()
    }

    fn delete(&self, name: &ServerName) -> Result<(), Trouble> {
        let folder = self.server_folder(name).nothing_changed()?;
        if !self.base.exists() {
            return Ok(());
        }
        let _lock = self.lock().nothing_changed()?;
        self.sweep().partial()?;
        if self.record(name).nothing_changed()?.is_none() {
            return Ok(());
        }
        self.power_off(name)?;
        // From now on nothing can be started in it.
        let servers = self.base.join("servers");
        std::fs::rename(&folder, servers.join(format!("{GONE}{name}")))
            .and_then(|()| durable::sync_folder(&servers))
            .map_err(|error| durable::fault("remove", &folder, error))
            .unknown()?;
        self.sweep().partial()
    }

    /// Finishes what was cut off: a server without a name yet, or one that has none any more. Under the lock.
    fn sweep(&self) -> Result<(), Fault> {
        let servers = self.base.join("servers");
        let Ok(entries) = std::fs::read_dir(&servers) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(old) = name.strip_prefix(GONE) {
                let mut search = supervisor::search(&servers.join(old));
                // A server of the same name may be there again; only what is in this folder is gone for good.
                if servers.join(old).exists() {
                    search = processes::Search::default();
                }
                search.folders.push(entry.path());
                search.kill(Duration::from_secs(20)).map_err(|left| {
                    Fault::new(format!("server `{old}` is not gone")).because(left)
                })?;
            }
            if name.starts_with(GONE) || name.starts_with(NEW) {
                durable::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), Trouble> {
        if self.base.exists() {
            let _lock = self.lock().nothing_changed()?;
            self.sweep().partial()?;
            let servers = self.records().nothing_changed()?;
            let servers = servers
                .iter()
                .map(|server| server.name.to_string())
                .collect();
            let images = self.images().nothing_changed()?;
            let images = images.iter().map(|image| image.name.to_string()).collect();
            let left: [(&str, Vec<String>); 2] = [("servers", servers), ("images", images)];
            for (what, names) in left {
                if !names.is_empty() {
                    let message = format!(
                        "site `{}` still has {what}: {}",
                        self.site,
                        names.join(", ")
                    );
                    return Err(Trouble::NothingChanged(Fault::new(message)));
                }
            }
            address::release(&self.base).partial()?;
            durable::sweep(&self.base).partial()?;
            for part in ["servers", "images", "site.json", "site.lock"] {
                durable::remove(&self.base.join(part)).partial()?;
            }
            // Anything else in it is not ours, and keeps it.
            let _ = std::fs::remove_dir(&self.base);
        } else {
            address::release(&self.base).partial()?;
        }
        for folder in &self.above {
            let _ = std::fs::remove_dir(folder);
        }
        Ok(())
    }
}

struct Local(Arc<Site>);

impl Local {
    async fn on<T: Send + 'static>(&self, work: impl FnOnce(&Site) -> T + Send + 'static) -> T {
        let site = self.0.clone();
        blocking(move || work(&site)).await
    }
}

#[async_trait]
impl Cloud for Local {
    async fn ping(&self) -> Result<(), Fault> {
        self.on(Site::ping).await
    }

    async fn servers(&self) -> Result<Vec<Server>, Fault> {
        self.on(Site::servers).await
    }

    async fn create_server(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        let (want, key) = (want.clone(), key.clone());
        self.on(move |site| site.create(&want, &key)).await
    }

    async fn power(&self, name: &ServerName, to: Power) -> Result<(), Trouble> {
        let name = name.clone();
        self.on(move |site| site.power(&name, to)).await
    }

    async fn delete_server(&self, name: &ServerName) -> Result<(), Trouble> {
        let name = name.clone();
        self.on(move |site| site.delete(&name)).await
    }

    async fn seal(
        &self,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble> {
        let (builder, name, tags) = (builder.clone(), name.clone(), tags.clone());
        self.on(move |site| site.seal(&builder, &name, &tags)).await
    }

    async fn images(&self) -> Result<Vec<Image>, Fault> {
        self.on(Site::images).await
    }

    async fn delete_image(&self, name: &ImageName) -> Result<(), Trouble> {
        let name = name.clone();
        self.on(move |site| site.delete_image(&name)).await
    }

    async fn tag_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let (name, tags) = (name.clone(), tags.clone());
        self.on(move |site| site.tag_image(&name, &tags)).await
    }

    async fn tag_server(
        &self,
        name: &ServerName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        let (name, tags) = (name.clone(), tags.clone());
        self.on(move |site| site.tag(&name, &tags)).await
    }

    async fn change_image(&self, name: &ServerName, image: &ImageName) -> Result<(), Trouble> {
        let (name, image) = (name.clone(), image.clone());
        self.on(move |site| site.change_image(&name, &image)).await
    }

    async fn firewall(&self) -> Result<Option<Firewall>, Fault> {
        Ok(None)
    }

    async fn allow(&self, _: &Firewall) -> Result<(), Trouble> {
        let message = "`local` keeps nobody out";
        Err(Trouble::NothingChanged(Fault::new(message)))
    }

    async fn has_site(&self) -> Result<bool, Fault> {
        self.on(|site| Ok(site.base.join("site.json").exists()))
            .await
    }

    async fn remove_site(&self) -> Result<(), Trouble> {
        self.on(Site::remove).await
    }

    fn shell(&self) -> Arc<dyn Shell> {
        Arc::new(LocalShell::new())
    }
}
