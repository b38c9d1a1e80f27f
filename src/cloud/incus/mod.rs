//! `incus`: system containers on a person's own hosts, over Incus's REST API with a client certificate.
//!
//! A site is a project of its own. A server is a container with a volume for what survives a change of image; its
//! address is reserved on the bridge of the default profile. An image is published from a builder and known by its
//! properties, because Incus's own fingerprint is another one each time.

mod api;
mod entry;
mod image;
mod network;
mod server;
mod settings;
mod wall;
mod way;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use self::api::{Incus, No, Said, there};
use self::way::Way;
use super::{
    Can, Cloud, CloudAbout, Entry, Firewall, Image, ImageFile, OnceKey, Power, Server, ServerWant,
    SiteSettings,
};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ImageName, ServerName, SiteName, StackName};
use crate::model::subnet::Subnet;
use crate::shell::Shell;
use crate::shell::ssh::Ssh;
use crate::shell::systemd::Systemd;

pub const ABOUT: CloudAbout = CloudAbout {
    name: "incus",
    about: "system containers on your own hosts; `region` is the name of a remote of `incus remote list`",
    can: Can {
        seal: true,
        low_ports: true,
        power: true,
        isolate: true,
        disks: true,
        copies: true,
        entry: true,
        firewall: true,
        machines: true,
    },
    open: |settings| open_with(settings, &settings::folder()?),
};

/// With the files of another client than this user's.
pub fn open_with(site: &SiteSettings, client: &Path) -> Result<Arc<dyn Cloud>, Fault> {
    Ok(Arc::new(Site::open(site, client)?))
}

/// For what Incus does on its disks.
const WORK_LIMIT: Duration = Duration::from_secs(600);
/// For a disk that is removed with what is on it: millions of files take a plain file system that long.
const REMOVE_LIMIT: Duration = Duration::from_secs(3500);
/// For an image that goes from one host to another, through here.
const COPY_LIMIT: Duration = Duration::from_secs(3500);
/// For what it does with processes and configuration.
const QUICK_LIMIT: Duration = Duration::from_secs(60);

const STACK: &str = "user.hafog.stack";
const SITE: &str = "user.hafog.site";

pub struct Site {
    stack: StackName,
    site: SiteName,
    project: String,
    network: Option<Subnet>,
    incus: Arc<Incus>,
    /// Held from the choice of an address until it is reserved.
    choosing: tokio::sync::Mutex<()>,
    /// Held until the site's network is whole: Incus shows one that it is still making.
    walling: tokio::sync::Mutex<()>,
    way: Arc<Way>,
}

impl Site {
    fn open(settings: &SiteSettings, client: &Path) -> Result<Site, Fault> {
        let Some(remote) = &settings.region else {
            let why = "on `incus`, `region` is the name of a remote";
            return Err(
                Fault::new(format!("site `{}` has no region", settings.site))
                    .because(why)
                    .hint("incus remote list"),
            );
        };
        let project = format!("{}-{}", settings.stack, settings.site);
        let incus = Arc::new(Incus::new(settings::open(remote, client)?));
        Ok(Site {
            stack: settings.stack.clone(),
            site: settings.site.clone(),
            network: settings.network,
            incus: incus.clone(),
            choosing: tokio::sync::Mutex::new(()),
            walling: tokio::sync::Mutex::new(()),
            way: Arc::new(Way {
                ssh: Ssh::open(&settings.home),
                incus,
                project: project.clone(),
            }),
            project,
        })
    }

    fn machine(&self) -> Systemd<Way> {
        Systemd::new(self.way.clone())
    }

    /// The path of something in the site's project; `path` may have a query.
    fn within(&self, path: &str) -> String {
        let join = if path.contains('?') { '&' } else { '?' };
        format!("{path}{join}project={}", self.project)
    }

    fn project_path(&self) -> String {
        format!("/1.0/projects/{}", self.project)
    }

    /// Whether something was made for this site: it says so itself.
    fn owns(&self, found: &Value) -> bool {
        let config = &found["config"];
        config[STACK] == self.stack.as_str() && config[SITE] == self.site.as_str()
    }

    async fn project(&self) -> Said<Option<Value>> {
        there(self.incus.get(&self.project_path()).await)
    }

    /// Makes the project where there is none; one of somebody else is refused.
    async fn ensure_project(&self) -> Result<(), Trouble> {
        if let Some(project) = self.project().await.map_err(No::trouble)? {
            if self.owns(&project) {
                return Ok(());
            }
            let message = format!("Incus has a project `{}` of somebody else", self.project);
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
        // Images are shared by all projects of a host, and so are bridges; volumes are the site's own.
        let project = json!({
            "name": self.project,
            "description": format!("site {} of {}, by hafog", self.site, self.stack),
            "config": {
                "features.images": "false",
                "features.profiles": "true",
                "features.networks": "false",
                "features.networks.zones": "false",
                "features.storage.volumes": "true",
                "features.storage.buckets": "false",
                STACK: self.stack.as_str(),
                SITE: self.site.as_str(),
            },
        });
        let one = self.project_path();
        let made = self
            .incus
            .ensure("/1.0/projects", &project, &one, QUICK_LIMIT);
        made.await.map_err(No::trouble)
    }

    async fn remove(&self) -> Result<(), Trouble> {
        let there = self.project().await.map_err(No::trouble)?.is_some();
        let left = |fault: Fault| Trouble::NothingChanged(fault);
        if there {
            let names: Vec<String> = self.listed().await.map_err(left)?;
            self.refuse_left("servers", names)?;
        }
        let images = self.images().await.map_err(left)?;
        let names = images.iter().map(|image| image.name.to_string()).collect();
        self.refuse_left("images", names)?;
        self.remove_forwards().await?;
        self.remove_wall().await?;
        // The project last: while it is there, so may be the rest.
        if there {
            self.remove_volumes().await?;
            let path = self.project_path();
            let deleted = self.incus.delete(&path, QUICK_LIMIT);
            deleted.await.map_err(No::trouble)?;
        }
        self.way.ssh.leave().await.partial()
    }

    fn refuse_left(&self, what: &str, names: Vec<String>) -> Result<(), Trouble> {
        if names.is_empty() {
            return Ok(());
        }
        let message = format!(
            "site `{}` still has {what}: {}",
            self.site,
            names.join(", ")
        );
        Err(Trouble::NothingChanged(Fault::new(message)))
    }
}

#[async_trait]
impl Cloud for Site {
    async fn ping(&self) -> Result<(), Fault> {
        self.incus.ping().await
    }

    async fn servers(&self) -> Result<Vec<Server>, Fault> {
        self.all().await
    }

    async fn create_server(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble> {
        self.create(want, key).await
    }

    async fn power(&self, name: &ServerName, to: Power) -> Result<(), Trouble> {
        self.switch(name, to).await
    }

    async fn delete_server(&self, name: &ServerName) -> Result<(), Trouble> {
        self.delete(name).await
    }

    async fn seal(
        &self,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble> {
        self.publish(builder, name, tags).await
    }

    async fn images(&self) -> Result<Vec<Image>, Fault> {
        self.published().await
    }

    async fn get_image(&self, name: &ImageName) -> Result<ImageFile, Fault> {
        self.export(name).await
    }

    async fn put_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
        file: ImageFile,
    ) -> Result<Image, Trouble> {
        self.import(name, tags, file).await
    }

    async fn tag_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        self.tag_published(name, tags).await
    }

    async fn delete_image(&self, name: &ImageName) -> Result<(), Trouble> {
        self.unpublish(name).await
    }

    async fn tag_server(
        &self,
        name: &ServerName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        self.tag(name, tags).await
    }

    async fn change_image(&self, name: &ServerName, image: &ImageName) -> Result<(), Trouble> {
        self.rebuild(name, image).await
    }

    async fn has_site(&self) -> Result<bool, Fault> {
        let project = self.project().await.map_err(No::fault)?;
        Ok(project.is_some_and(|project| self.owns(&project)))
    }

    async fn firewall(&self) -> Result<Option<Firewall>, Fault> {
        self.wall().await
    }

    async fn allow(&self, firewall: &Firewall) -> Result<(), Trouble> {
        self.set_wall(firewall).await
    }

    async fn entry(&self) -> Result<Option<Entry>, Fault> {
        self.leads().await
    }

    async fn lead(&self, entry: &Entry) -> Result<(), Trouble> {
        self.lead_to(entry).await
    }

    async fn remove_site(&self) -> Result<(), Trouble> {
        self.remove().await
    }

    fn shell(&self) -> Arc<dyn Shell> {
        Arc::new(self.machine())
    }
}
