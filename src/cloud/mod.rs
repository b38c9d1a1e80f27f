//! Clouds: the verbs that the steps need, not a mirror of anyone's API.
//!
//! Waiting is not in the trait: `servers()` and `images()` report what is, and `crate::wait` polls with a limit.
//! A new cloud is one folder here and one line in `registry::CLOUDS`.

pub mod entry;
pub mod firewall;
pub mod incus;
pub mod local;
pub mod registry;
pub mod ssh;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, Trouble};
use crate::model::id::{ImageName, ServerName, SiteName, StackName};
use crate::model::stack::{DEFAULT_BASE, Registered, Size};
use crate::model::subnet::Subnet;
use crate::model::units::Bytes;
use crate::shell::{Host, Shell};

pub use entry::Entry;
pub use firewall::Firewall;

/// What one command needs to open a cloud for one site.
#[derive(Clone, Debug)]
pub struct SiteSettings {
    pub stack: StackName,
    pub site: SiteName,
    pub region: Option<String>,
    /// The site's own, where it has one.
    pub network: Option<Subnet>,
    /// Servers that exist already.
    pub hosts: Vec<Registered>,
    /// Where hafog keeps local files of this stack (absolute).
    pub home: std::path::PathBuf,
}

/// What a cloud is called and can do; the line in the registry.
pub struct CloudAbout {
    pub name: &'static str,
    /// One line for `--help` and the docs.
    pub about: &'static str,
    pub can: Can,
    pub open: fn(&SiteSettings) -> Result<Arc<dyn Cloud>, Fault>,
}

#[derive(Clone, Copy, Debug)]
pub struct Can {
    /// Makes images by sealing a server. Where not, its servers exist already, and recipes are applied to them.
    pub seal: bool,
    /// May listen below port 1024. Where not, [`map_port`] says what is used instead.
    pub low_ports: bool,
    /// Powers a server off abruptly: the strongest fence.
    pub power: bool,
    /// Takes a server that runs off the network: the fence for one that cannot be powered off.
    pub isolate: bool,
    /// Gives a site a network of its own (`network` in the spec), and lets in there what is open and nothing else.
    pub firewall: bool,
    /// Gives a server a disk for its data as big as the spec says (`disk`).
    pub disks: bool,
    /// Gives a site an address (`address` in the spec) that leads to its balancer.
    pub entry: bool,
    /// An image can be copied from one of its sites to another.
    pub copies: bool,
    /// Its servers are whole machines: they have an operating system of their own, in which packages are installed.
    pub machines: bool,
}

/// The port that a cloud really listens on: without low ports, 80 becomes 8080 and 443 becomes 8443.
pub fn map_port(can: &Can, port: u16) -> u16 {
    if can.low_ports || port >= 1024 {
        port
    } else {
        port + 8000
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub name: ServerName,
    /// The cloud's own id.
    pub id: String,
    pub state: ServerState,
    pub image: Option<ImageName>,
    pub tags: BTreeMap<String, String>,
    /// Set as soon as the cloud knows the address.
    pub host: Option<Host>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerState {
    Pending,
    Running,
    /// Stopped, but there: its data is kept.
    Off,
    /// Suspended: it holds its memory and its connections and does nothing.
    Frozen,
    /// Cut off: it is not powered off, and no packet gets in or out.
    Isolated,
    Failed(String),
}

impl ServerState {
    /// There with its data and of no use; the step `power-on` gets it back.
    pub fn sleeps(&self) -> bool {
        matches!(
            self,
            ServerState::Off | ServerState::Frozen | ServerState::Isolated
        )
    }

    /// What is said after "is".
    pub fn word(&self) -> &'static str {
        match self {
            ServerState::Pending => "pending",
            ServerState::Running => "running",
            ServerState::Off => "off",
            ServerState::Frozen => "frozen",
            ServerState::Isolated => "cut off",
            ServerState::Failed(_) => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub name: ImageName,
    pub id: String,
    pub bytes: u64,
    pub tags: BTreeMap<String, String>,
}

/// An image on its way from one site to another of the same cloud. Read as it is sent: it need not fit into memory.
pub struct ImageFile {
    pub body: reqwest::Body,
    /// What the cloud calls the format.
    pub format: Option<String>,
}

/// The tag of an image that booted at its site and passed its check.
pub const TRIED: &str = "tried";

impl Image {
    /// Nothing is started from one that is not.
    pub fn is_tried(&self) -> bool {
        self.tags.contains_key(TRIED)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerWant {
    pub name: ServerName,
    /// `None` starts from the bare base: a builder.
    pub image: Option<ImageName>,
    /// The system's name, such as `debian-12`: what a builder starts from, and what a machine that exists already has.
    #[serde(default = "default_base")]
    pub base: String,
    pub size: Size,
    /// How big its disk for data is. `None`: as big as the cloud makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Ports that others may connect to.
    pub open: Vec<u16>,
    pub tags: BTreeMap<String, String>,
}

fn default_base() -> String {
    DEFAULT_BASE.to_owned()
}

/// Stack, server and image: sent as idempotency token where the API has one, and as a tag everywhere, so that a
/// server whose creation was never recorded is found again, also by a later run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnceKey(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Of one that is isolated: gives it its network back, at the same address, whether it is off or runs.
    On,
    /// Abruptly: everything on the server stops at once, as if the cable were pulled.
    Off,
    Freeze,
    Thaw,
    /// Takes it off the network, with nothing asked of the machine. A boot does not undo it, except by [`Power::On`].
    Isolate,
}

/// One site on one cloud.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Asks for the cheapest thing that proves that the cloud answers.
    async fn ping(&self) -> Result<(), Fault>;
    /// The servers that hafog made for this stack and site.
    async fn servers(&self) -> Result<Vec<Server>, Fault>;
    /// A server of the same name that is already there is `NothingChanged` unless it carries the same `key`.
    async fn create_server(&self, want: &ServerWant, key: &OnceKey) -> Result<Server, Trouble>;
    async fn power(&self, name: &ServerName, to: Power) -> Result<(), Trouble>;
    /// Gone already is success. Leaves no process, no file, no address.
    async fn delete_server(&self, name: &ServerName) -> Result<(), Trouble>;
    /// Makes an immutable image from a builder; the builder is of no use afterwards. There already is success.
    async fn seal(
        &self,
        builder: &ServerName,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<Image, Trouble>;
    async fn images(&self) -> Result<Vec<Image>, Fault>;
    /// For [`Cloud::put_image`] at another site of the same cloud, where [`Can::copies`].
    async fn get_image(&self, name: &ImageName) -> Result<ImageFile, Fault> {
        Err(Fault::new(format!("image `{name}` cannot be copied")))
    }
    /// Makes the image from what another site has; it is not known yet to work here. There already is success.
    async fn put_image(
        &self,
        name: &ImageName,
        _tags: &BTreeMap<String, String>,
        _file: ImageFile,
    ) -> Result<Image, Trouble> {
        let message = format!("image `{name}` cannot be copied");
        Err(Trouble::NothingChanged(Fault::new(message)))
    }
    /// Changes the tags of an image.
    async fn tag_image(
        &self,
        name: &ImageName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble>;
    async fn delete_image(&self, name: &ImageName) -> Result<(), Trouble>;
    /// Changes the tags of a server (the digest of its configuration is one).
    async fn tag_server(
        &self,
        name: &ServerName,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Trouble>;
    /// Moves a running server to another image of the same recipe; its services must be restarted to see it.
    async fn change_image(&self, name: &ServerName, image: &ImageName) -> Result<(), Trouble>;
    /// What is let in. `None` where nothing is kept out, or nothing is there yet.
    async fn firewall(&self) -> Result<Option<Firewall>, Fault>;
    /// Lets that in from now on, and nothing else.
    async fn allow(&self, firewall: &Firewall) -> Result<(), Trouble>;
    /// Where the site's own address leads; `None`: nowhere. Asked of sites that have one, where [`Can::entry`].
    async fn entry(&self) -> Result<Option<Entry>, Fault> {
        Ok(None)
    }
    /// Leads the site's own address there from now on, and to nowhere else.
    async fn lead(&self, entry: &Entry) -> Result<(), Trouble> {
        let message = format!("{} cannot be led to {}", entry.address, entry.to);
        Err(Trouble::NothingChanged(Fault::new(message)))
    }
    /// Whether there is anything that [`Cloud::remove_site`] would remove.
    async fn has_site(&self) -> Result<bool, Fault> {
        Ok(false)
    }
    /// Removes what the site owns beyond servers and images (networks, folders). Gone already is success.
    async fn remove_site(&self) -> Result<(), Trouble>;
    /// How its servers are reached.
    fn shell(&self) -> Arc<dyn Shell>;
}
