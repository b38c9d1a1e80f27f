//! The resolved stack: every default filled, every reference resolved. It serialises, and holds no secret:
//! secrets are references ([`SecretRef`]) until the moment they are delivered to a machine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::cron::CronJob;
use super::id::*;
use super::record::{RecordSet, RecordType};
use super::subnet::Subnet;
use super::units::{Bytes, Span, Ttl};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    pub name: StackName,
    /// In the order of the spec; at least one.
    pub sites: Vec<Site>,
    /// Where the stack is born. From then on `Roles` knows who is primary.
    pub primary: SiteName,
    pub recipes: BTreeMap<RecipeName, Recipe>,
    /// Every server of every site.
    pub servers: Vec<Server>,
    pub balancer: Option<Balancer>,
    pub cache: Option<Cache>,
    pub databases: Vec<Database>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Files>,
    pub zones: Vec<Zone>,
    pub names: Vec<Name>,
    pub health: Vec<Check>,
    pub secrets: BTreeMap<String, SecretRef>,
    /// First is where the command runs; exactly one is the arbiter.
    pub stores: Vec<Store>,
    pub self_fence: SelfFence,
    /// How long a flip stays provisional.
    pub commit_window: Span,
}

impl Stack {
    pub fn site(&self, name: &SiteName) -> Option<&Site> {
        self.sites.iter().find(|site| &site.name == name)
    }

    pub fn server(&self, name: &ServerName) -> Option<&Server> {
        self.servers.iter().find(|server| &server.name == name)
    }

    pub fn servers_at<'a>(&'a self, site: &'a SiteName) -> impl Iterator<Item = &'a Server> {
        self.servers
            .iter()
            .filter(move |server| &server.site == site)
    }

    pub fn group_at<'a>(
        &'a self,
        site: &'a SiteName,
        group: &'a GroupName,
    ) -> impl Iterator<Item = &'a Server> {
        self.servers_at(site)
            .filter(move |server| &server.group == group)
    }

    pub fn database(&self, name: &DatabaseName) -> Option<&Database> {
        self.databases
            .iter()
            .find(|database| &database.name == name)
    }

    /// Whether servers of a group stand behind the balancer, the hot spares included.
    pub fn is_balanced(&self, group: &GroupName) -> bool {
        let balancer = self.balancer.as_ref();
        balancer.is_some_and(|one| &one.to == group || one.spare.as_ref() == Some(group))
    }

    /// Whether it is a server whose HAProxy knows the application servers.
    pub fn is_balancer(&self, server: &Server) -> bool {
        match self.cache {
            Some(_) => server.job == Job::Cache,
            None => server.job == Job::Balancer,
        }
    }

    /// Whether a site's servers are made from images.
    pub fn seals(&self, site: &SiteName) -> bool {
        self.site(site).is_none_or(|site| site.seals)
    }

    /// The database's nodes at a site, in index order. Which of them is primary or next in line, [`Stack::ranked_at`]
    /// says.
    pub fn nodes_at<'a>(
        &'a self,
        site: &'a SiteName,
        database: &'a Database,
    ) -> impl Iterator<Item = &'a Server> {
        self.group_at(site, &database.on)
            .take(1 + database.replicas as usize)
    }

    /// The same: first the one that writes, then those of `heads` (of [`super::roles::Roles`]), then the others in
    /// index order. The first is primary or next in line, and its site's applications use it.
    pub fn ranked_at<'a>(
        &'a self,
        site: &'a SiteName,
        database: &'a Database,
        writer: Option<&ServerName>,
        heads: &[ServerName],
    ) -> Vec<&'a Server> {
        let mut nodes: Vec<&Server> = self.nodes_at(site, database).collect();
        // It stays one of them where the spec asks for fewer by now.
        let mut group = self.group_at(site, &database.on);
        let beyond = group.find(|node| writer == Some(&node.name) && !nodes.contains(node));
        nodes.extend(beyond);
        nodes.sort_by_key(|node| match writer == Some(&node.name) {
            true => 0,
            false if heads.contains(&node.name) => 1,
            false => 2,
        });
        nodes
    }

    /// The server of a site whose files are copied while the site is primary.
    pub fn first_of<'a>(&'a self, site: &'a SiteName, files: &'a Files) -> Option<&'a Server> {
        self.group_at(site, &files.on).next()
    }

    /// The files that a server has, or gets.
    pub fn files_of<'a>(&'a self, server: &'a Server) -> impl Iterator<Item = &'a Files> {
        self.files.iter().filter(|files| files.on == server.group)
    }

    /// The system that a recipe starts from.
    pub fn base(&self, recipe: &RecipeName) -> String {
        let recipe = self.recipes.get(recipe);
        recipe.map(|recipe| recipe.base.clone()).unwrap_or_default()
    }

    /// The site's own address, if it has one and visitors reach the group by it.
    pub fn entry(&self, site: &SiteName, group: &GroupName) -> Option<IpAddr> {
        let site = self.site(site)?;
        site.address.filter(|_| group.as_str() == BALANCER_GROUP)
    }

    pub fn zone(&self, name: &ZoneName) -> Option<&Zone> {
        self.zones.iter().find(|zone| &zone.name == name)
    }

    /// The other sites, in the order of the spec.
    pub fn others<'a>(&'a self, site: &'a SiteName) -> impl Iterator<Item = &'a Site> {
        self.sites.iter().filter(move |other| &other.name != site)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    pub name: SiteName,
    /// A name in `cloud::registry::CLOUDS`.
    pub cloud: String,
    pub region: Option<String>,
    /// The range of its own network, where what is open is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Subnet>,
    /// Where visitors reach it: leads to its balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    pub tier: Tier,
    /// Servers are made from images. Where not, recipes are applied to servers that exist already.
    #[serde(default = "yes")]
    pub seals: bool,
    /// Its images can be copied to other sites of the same cloud.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copies: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Registered>,
}

fn yes() -> bool {
    true
}

/// A server that exists already, as `ssh` reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// `None`: whom `ssh` takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// An address, a DNS name or a name of `~/.ssh/config`.
    pub host: String,
    /// `None`: what `ssh` takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Where others reach it. `None`: at the address of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its public key, as OpenSSH writes it; no other is believed. `None`: one that `ssh` knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// `None`: for servers of any group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<GroupName>,
    /// It will never come back; nothing is asked of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

impl std::fmt::Display for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// How much of a standby runs while it is a standby.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Images only.
    Cold,
    /// Databases follow; nothing else runs.
    PilotLight,
    /// Everything runs, read-only.
    #[default]
    Warm,
    /// Everything runs at full size.
    Hot,
}

impl Tier {
    /// Whether a server runs while its site is a standby.
    pub fn runs(self, job: &Job) -> bool {
        match self {
            Tier::Cold => false,
            Tier::PilotLight => matches!(job, Job::Database(_)),
            Tier::Warm | Tier::Hot => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub name: ServerName,
    pub site: SiteName,
    pub group: GroupName,
    /// From 1.
    pub index: u32,
    pub recipe: RecipeName,
    pub job: Job,
    pub size: Size,
    pub disk: Option<Bytes>,
    /// Ports that the server's own service listens on; the first is the one that a balancer uses.
    pub open: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    App,
    Balancer,
    /// And the second balancer, on the same server: it knows the application servers.
    Cache,
    Database(DatabaseName),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    pub cpu: u32,
    pub memory: Bytes,
}

/// What goes into an image. Cloud-neutral; its digest, with the contents of its files and code, names the image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub name: RecipeName,
    pub base: String,
    pub packages: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<RecipeUser>,
    pub code: Option<Code>,
    pub files: Vec<RecipeFile>,
    pub run: Vec<String>,
    pub services: Vec<RecipeService>,
    /// What one application server of the primary site does at its times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cron: Vec<CronJob>,
    /// Lines of sysctl.d(5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctl: Vec<String>,
    /// A shell line that succeeds on a machine that has just booted from the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Set for the images that hafog brings itself.
    pub builtin: Option<Builtin>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Builtin {
    Haproxy,
    /// With HAProxy beside it.
    Varnish,
    /// `None` takes the newest version on the machine.
    Postgres {
        major: Option<u32>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Code {
    pub from: CodeFrom,
    /// Absolute path on the server.
    pub to: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeFrom {
    Git {
        url: String,
        r#ref: String,
    },
    /// A folder beside the spec.
    Path(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeFile {
    /// Relative to the spec.
    #[serde(rename = "template")]
    pub from: String,
    /// Absolute path on the server.
    pub to: String,
    /// It is no template.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeUser {
    pub name: String,
    /// Besides its own.
    pub groups: Vec<String>,
    /// Public keys that may log in.
    pub keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeService {
    pub name: String,
    /// A command line. `None`: the service comes with a package.
    pub run: Option<String>,
    /// Who runs it. `None`: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balancer {
    pub to: GroupName,
    /// Its servers get requests while one of `to` is out.
    #[serde(default)]
    pub spare: Option<GroupName>,
    /// As the spec says them; the cloud may map them (`Cloud::port`).
    pub listen: Vec<u16>,
    /// Path that a healthy server answers with 200.
    pub check: String,
}

/// The group of hot spares for the servers behind the balancer.
pub const SPARE_GROUP: &str = "spare";

/// The system of a recipe that says nothing else, and of journals from before they said it.
pub const DEFAULT_BASE: &str = "debian-12";

/// The group that `balancer:` adds.
pub const BALANCER_GROUP: &str = "balancer";

/// What stands between the balancer and the servers behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// How long after its time a copy is still given out while no application server answers.
    pub grace: Span,
}

/// The group that `cache:` adds.
pub const CACHE_GROUP: &str = "cache";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Database {
    pub name: DatabaseName,
    /// A name in `db::registry::ENGINES`.
    pub engine: String,
    pub on: GroupName,
    /// Replicas in the same site, besides the node that is primary or next in line.
    pub replicas: u32,
    pub port: u16,
    /// Name of the database inside the engine, and of the role that the application logs in with.
    pub user: String,
    /// A key of `Stack::secrets`.
    pub password: Option<String>,
    pub lag_warn: Span,
    pub lag_critical: Span,
    /// How long a write lease lasts without renewal.
    pub write_lease: Span,
    /// Write-ahead log kept for a replica that is away; after that it must be seeded again.
    pub keep_log: Bytes,
}

/// Time from one heartbeat to the next, where the write lease is not short.
pub const BEAT_EVERY: Span = Span::secs(1);

impl Database {
    /// Time from one heartbeat of its writer's agent to the next.
    pub fn beat_every(&self) -> Span {
        Span(BEAT_EVERY.0.min(self.write_lease.0 / 10))
    }
}

/// A folder whose files go from the first server of a group at the primary site to all others of that group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Files {
    pub name: FilesName,
    pub on: GroupName,
    /// Absolute path on the server.
    pub path: String,
    /// Whose folder it is, when it is made. `None`: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Time from one copy to the next.
    pub every: Span,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// So many files may go by one copy.
    pub most_deleted: u64,
    pub lag_warn: Span,
    pub lag_critical: Span,
}

/// What a node does when its write lease expired and nobody answers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SelfFence {
    /// Stops writing when isolated: the lease expired and neither the arbiter nor the other site answers.
    #[default]
    Isolated,
    /// Stops writing as soon as its lease expires, and acknowledges no commit before the other site's nodes that follow
    /// it have it.
    Strict,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    pub name: ZoneName,
    /// A name in `dns::registry::DNS_HOSTS`.
    pub host: String,
    pub settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Name {
    pub host: HostName,
    pub to: GroupName,
    pub zone: ZoneName,
    pub ttl: Ttl,
    pub failover_ttl: Ttl,
    /// The address record set that hafog owns and moves. Equals `host` at a zone's apex; elsewhere `host` is a
    /// CNAME to it.
    pub target: HostName,
}

impl Name {
    /// The CNAME by which users come to the target; none where they ask for that itself.
    pub fn alias(&self) -> Option<RecordSet> {
        (self.host != self.target).then(|| RecordSet {
            host: self.host.clone(),
            kind: RecordType::Cname,
            ttl: self.ttl,
            values: [self.target.to_string()].into(),
        })
    }
}

/// One health check of the stack's public face.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    Ping,
    Http {
        url: String,
        status: u16,
        contains: Option<String>,
    },
}

/// Where a secret's value comes from. Never the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// Environment variable.
    Env(String),
    /// File, relative to the spec.
    File(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Store {
    /// A folder: relative to the spec, or absolute on the machine that keeps it.
    pub folder: String,
    pub arbiter: bool,
    /// The machine that keeps it, where it is another one than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
}

/// A machine, as `ssh` reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    pub host: String,
    pub user: String,
    /// `None`: what `ssh` takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its public key, as OpenSSH writes it; no other is believed. `None`: one that `ssh` knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

impl Remote {
    pub fn url(&self, folder: &str) -> String {
        let port = self.port.map(|port| format!(":{port}"));
        let port = port.unwrap_or_default();
        format!("ssh://{}@{}{port}{folder}", self.user, self.host)
    }
}
