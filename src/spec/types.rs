//! The spec as the user writes it. These types are the single description of its shape: the JSON Schema that editors
//! use is generated from them, and the checks in `check.rs` walk that same schema, so the three cannot drift apart.
//!
//! Defaults that depend on nothing else are here; the others are filled by `resolve.rs`.
//! Keywords that begin with `x-` steer the checks and are taken out of the published schema.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::stack::{DEFAULT_BASE, SelfFence, Tier};

/// One stack: what runs, where, and how traffic reaches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-not-yet" = ["watch", "notify"]))]
pub struct Spec {
    /// The stack's name. Servers are called STACK-SITE-GROUP-N.
    pub stack: Word,
    /// Where the stack is placed: one site is the primary, the others stand by.
    #[schemars(extend("minProperties" = 1))]
    pub sites: Entries<Word, SiteSpec>,
    /// The site where the stack is born. From then on the state knows who is primary.
    #[schemars(extend("x-noun" = "site"))]
    pub primary: Word,
    /// Images of your own. `haproxy`, `postgres` and `postgres-NN` are there already.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub images: Entries<Word, ImageSpec>,
    /// Groups of equal servers, at every site. Those of the group `spare` are hot spares: they get requests while a
    /// server behind the balancer is out.
    #[schemars(extend("minProperties" = 1))]
    pub servers: Entries<Word, GroupSpec>,
    /// A load balancer at every site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancer: Option<BalancerSpec>,
    /// An HTTP cache at every site, between the balancer and the servers behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
    /// Databases that are replicated to the other sites.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub databases: Entries<Word, DatabaseSpec>,
    /// Folders of files that are copied to the other sites, again and again.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub files: Entries<Word, FilesSpec>,
    /// References to secrets, never values: `env`, `env:VARIABLE` or `file:./path`.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    #[schemars(extend("x-secret" = true))]
    pub secrets: Entries<Variable, SecretText>,
    /// DNS names that follow the primary site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameSpec>,
    /// What must hold before and after traffic moves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<HealthSpec>,
    /// Folders where state and journals are kept, mirrored. Default: `./.hafog`.
    #[serde(default = "default_state")]
    #[schemars(extend("minItems" = 1))]
    pub state: Vec<StoreSpec>,
    /// What a database server does when its write lease expired. Default: `isolated`.
    #[serde(default)]
    pub self_fence: SelfFence,
    /// How long a flip stays provisional, with a low TTL and a short way back. Default: `30m`.
    #[serde(default = "default_commit_window")]
    pub commit_window: Time,
}

fn default_state() -> Vec<StoreSpec> {
    vec![StoreSpec::Place(StorePlace("./.hafog".to_owned()))]
}

fn default_commit_window() -> Time {
    Time("30m".to_owned())
}

/// One placement of the stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-not-yet" = ["spread"]))]
pub struct SiteSpec {
    /// Who runs the machines.
    pub cloud: CloudName,
    /// The cloud's own name of a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Text>,
    /// A range of addresses for a network of the site's own, such as `10.66.20.0/24`, that nothing else uses. Who is not
    /// of the stack is let in to what `open` says and to SSH, and to nothing else. For `cloud: incus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<SubnetText>,
    /// The address at which visitors reach the site, such as `203.0.113.10`: it leads to the site's balancer, whichever that
    /// is, and the names lead to it. It is one that the cloud's host has, or gets. For `cloud: incus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressText>,
    /// Servers that exist already, in the order in which they are taken. For `cloud: ssh`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostSpec>,
    /// How much of the site runs while it is a standby. Default: `warm`.
    #[serde(default)]
    pub tier: Tier,
}

/// A server that exists already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum HostSpec {
    /// As `ssh` reaches it.
    Place(SshPlace),
    /// As `ssh` reaches it, and more.
    Server {
        /// `user@host:22`, or a name of `~/.ssh/config`. Root, or a user whom `sudo` asks for no password.
        ssh: SshPlace,
        /// The address at which clients and other servers reach it. Default: that of its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<AddressText>,
        /// Its public SSH key, such as `ssh-ed25519 AAAA...`. Default: one that `ssh` knows already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_key: Option<HostKeyText>,
        /// Only for servers of this group. Default: for any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        r#for: Option<Word>,
        /// The machine will never come back, with all that it had: your word for what hafog cannot see. Its server is made
        /// anew on another host.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        gone: bool,
    },
}

/// What goes into an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// The system it starts from, as its `/etc/os-release` says (`ID-VERSION_ID`): `debian-12`, `ubuntu-24.04`. It has
    /// systemd and `apt-get`. Default: `debian-12`.
    #[serde(default = "default_base")]
    pub base: BaseText,
    /// Packages of that system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Text>,
    /// Your application's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeSpec>,
    /// Accounts, made before anything else of the image is put there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserSpec>,
    /// Files from beside the spec, filled in or as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSpec>,
    /// Commands that run once, when the image is built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<Text>,
    /// Programs that the server keeps up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceSpec>,
    /// What is done at its times, on one server of the group, where its site is primary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cron: Vec<CronSpec>,
    /// Kernel parameters, as in sysctl.d(5). `-` before a name: where it cannot be set, it is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctl: Vec<SysctlText>,
    /// A shell line that succeeds on a machine that has just booted from the image, with no stack around it: `nginx -t`.
    /// Until it does, the image is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Text>,
}

fn default_base() -> BaseText {
    BaseText(DEFAULT_BASE.to_owned())
}

/// Where the code comes from and goes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum CodeSpec {
    /// A commit of a git repository.
    Git {
        /// The repository's URL or path, without a password in it.
        git: GitUrl,
        /// Branch, tag or commit.
        r#ref: Text,
        /// Absolute path on the server.
        to: AbsolutePath,
    },
    /// A folder beside the spec.
    Path {
        /// The folder, relative to the spec.
        path: Text,
        /// Absolute path on the server.
        to: AbsolutePath,
    },
}

/// A file from beside the spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum FileSpec {
    /// Filled in: `{{ stack }}`, `{{ names[0] }}`, `{{ databases.main.port }}`.
    Template {
        /// The template, relative to the spec.
        template: Text,
        /// Absolute path on the server.
        to: AbsolutePath,
    },
    /// As it is.
    Copy {
        /// The file, relative to the spec.
        copy: Text,
        /// Absolute path on the server.
        to: AbsolutePath,
    },
}

impl FileSpec {
    pub fn to(&self) -> &AbsolutePath {
        match self {
            FileSpec::Template { to, .. } | FileSpec::Copy { to, .. } => to,
        }
    }
}

/// A program that the server keeps up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum ServiceSpec {
    /// A service that comes with a package.
    Packaged(ServiceName),
    /// A command line of your own.
    Command {
        /// What the service is called.
        name: ServiceName,
        /// The command line.
        run: Text,
        /// Who runs it: one of `users`, or one that comes with a package. Default: root.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<UserName>,
    },
}

/// An account on the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// What the account is called.
    pub name: UserName,
    /// Groups besides its own. They are there already, or come with a package.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<UserName>,
    /// Public SSH keys that may log in. Without one nobody can: the account is for a service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<SshKeyText>,
}

/// A command that is run at its times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CronSpec {
    /// What the job is called.
    pub name: ServiceName,
    /// When: minute, hour, day of the month, month and day of the week, as in a crontab; a time zone such as
    /// `Europe/Berlin` may follow. Default zone: UTC.
    pub at: CronText,
    /// The command line.
    pub run: Text,
    /// Who runs it: one of `users`, or one that comes with a package. Default: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
}

/// A group of equal servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// A key of `images`, or `haproxy`, `postgres`, `postgres-NN`.
    pub image: ImageWord,
    /// How many servers at each site. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub count: u32,
    /// What a server needs. Default: 1 CPU and 1GiB.
    #[serde(default)]
    #[schemars(extend("x-list-later" = "a list of sizes"))]
    pub size: SizeSpec,
    /// A disk for data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Amount>,
    /// Ports that everybody may connect to; a site's `network` enforces it. The first is the one that a balancer uses. The
    /// stack's own servers may connect to every port, so a database needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Port>,
}

fn one() -> u32 {
    1
}

/// CPUs and memory of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizeSpec {
    /// CPUs. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_024))]
    pub cpu: u32,
    /// Memory. Default: 1GiB.
    #[serde(default = "default_memory")]
    pub memory: Amount,
}

fn default_memory() -> Amount {
    Amount("1GiB".to_owned())
}

impl Default for SizeSpec {
    fn default() -> SizeSpec {
        SizeSpec {
            cpu: one(),
            memory: default_memory(),
        }
    }
}

/// The load balancer of each site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalancerSpec {
    /// The group of servers behind it.
    #[schemars(extend("x-noun" = "group"))]
    pub to: Word,
    /// Ports that it listens on. Default: 80.
    #[serde(default = "default_listen")]
    #[schemars(extend("minItems" = 1))]
    pub listen: Vec<Port>,
    /// How it knows that a server is healthy. Default: `/` answers 200.
    #[serde(default)]
    pub check: BalancerCheck,
}

fn default_listen() -> Vec<Port> {
    vec![Port(80)]
}

/// How a balancer knows that a server is healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalancerCheck {
    /// Path that a healthy server answers with 200.
    pub http: UrlPath,
}

impl Default for BalancerCheck {
    fn default() -> BalancerCheck {
        BalancerCheck {
            http: UrlPath("/".to_owned()),
        }
    }
}

/// The HTTP cache of each site. It gives out copies that are too old while no server behind it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// The group of servers behind it: the balancer's.
    #[schemars(extend("x-noun" = "group"))]
    pub to: Word,
    /// The program. Default: `varnish`.
    #[serde(default)]
    pub engine: CacheEngine,
    /// How many servers at each site. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub count: u32,
    /// Default: `{ cpu: 1, memory: 1GiB }`. Half of the memory holds copies.
    #[serde(default)]
    pub size: SizeSpec,
    /// How long after its time a copy is still given out while no server answers. Default: `24h`.
    #[serde(default = "default_grace")]
    pub grace: Time,
}

fn default_grace() -> Time {
    Time("24h".to_owned())
}

/// The program of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CacheEngine {
    /// Varnish.
    #[default]
    Varnish,
}

/// A replicated database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSpec {
    /// The kind of database.
    pub engine: EngineName,
    /// The group of servers that hold it.
    #[schemars(extend("x-noun" = "group"))]
    pub on: Word,
    /// Replicas in the same site. Those of a standby site come with `clone`. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: u32,
    /// Default: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Name of the database inside the engine, and of the role that the application logs in with.
    /// Default: the stack's name with `-` as `_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Role>,
    /// A key of `secrets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-secret" = true))]
    pub password: Option<Variable>,
    /// How old a replica's data may be.
    #[serde(default)]
    pub lag: LagSpec,
    /// How long the right to write lasts without renewal. Default: `10s`.
    #[serde(default = "default_write_lease")]
    pub write_lease: Time,
    /// Log kept for a replica that is away; after that it must be seeded again. Default: `1GiB`.
    #[serde(default = "default_keep_log")]
    pub keep_log: Amount,
}

fn default_write_lease() -> Time {
    Time("10s".to_owned())
}

fn default_keep_log() -> Amount {
    Amount("1GiB".to_owned())
}

/// When a replica's lag is worth a word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LagSpec {
    /// Default: `10s`.
    #[serde(default = "default_warn")]
    pub warn: Time,
    /// Default: `60s`.
    #[serde(default = "default_critical")]
    pub critical: Time,
}

fn default_warn() -> Time {
    Time("10s".to_owned())
}

fn default_critical() -> Time {
    Time("60s".to_owned())
}

impl Default for LagSpec {
    fn default() -> LagSpec {
        LagSpec {
            warn: default_warn(),
            critical: default_critical(),
        }
    }
}

/// A folder whose files are copied from the primary site's server to all others of its group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesSpec {
    /// The group of servers that have it.
    #[schemars(extend("x-noun" = "group"))]
    pub on: Word,
    /// Absolute path on the servers. Applications find it in `HAFOG_FILES_NAME`, too.
    pub path: AbsolutePath,
    /// Whose folder it is, when hafog makes it. Default: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Which server's changes count, in a group of several: the first one's. Those of the others are put aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<FilesWriter>,
    /// Time between one copy and the next. Default: `1m`.
    #[serde(default = "default_every")]
    pub every: Time,
    /// Bytes a second that a copy may take. Default: all there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Amount>,
    /// So many files may be deleted by one copy; more wait for `hafog sync --delete`. Default: 1000.
    #[serde(default = "default_delete")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub delete: u32,
    /// How old a copy may be.
    #[serde(default)]
    pub lag: FilesLagSpec,
}

/// Whose changes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilesWriter {
    /// The first server of the group, at the primary site.
    First,
}

fn default_every() -> Time {
    Time("1m".to_owned())
}

fn default_delete() -> u32 {
    1000
}

/// When the age of a copy is worth a word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesLagSpec {
    /// Default: `10m`.
    #[serde(default = "files_warn")]
    pub warn: Time,
    /// Default: `1h`.
    #[serde(default = "files_critical")]
    pub critical: Time,
}

fn files_warn() -> Time {
    Time("10m".to_owned())
}

fn files_critical() -> Time {
    Time("1h".to_owned())
}

impl Default for FilesLagSpec {
    fn default() -> FilesLagSpec {
        FilesLagSpec {
            warn: files_warn(),
            critical: files_critical(),
        }
    }
}

/// A DNS name that follows the primary site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameSpec {
    /// The name that visitors use. Away from its zone's apex it becomes a CNAME to LABELS.hafog-STACK.ZONE, whose
    /// addresses hafog owns and moves: `www.shop.test` of the stack `shop` to `www.hafog-shop.shop.test`.
    pub host: HostText,
    /// `balancer`, or a group of servers.
    #[schemars(extend("x-noun" = "group"))]
    pub to: Word,
    /// The zone that the name is in.
    pub zone: ZoneSpec,
    /// The TTL in quiet times. Default: `1h`.
    #[serde(default = "default_ttl")]
    pub ttl: TtlText,
    /// The TTL while traffic is about to move. Default: `60s`.
    #[serde(default = "default_failover_ttl")]
    pub failover_ttl: TtlText,
}

fn default_ttl() -> TtlText {
    TtlText("1h".to_owned())
}

fn default_failover_ttl() -> TtlText {
    TtlText("60s".to_owned())
}

/// A DNS zone and who serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-known" = "zone-settings"))]
pub struct ZoneSpec {
    /// Who serves the zone.
    pub host: DnsHostName,
    /// The zone's name.
    pub name: HostText,
    #[serde(flatten)]
    pub settings: BTreeMap<String, String>,
}

/// One health check of the stack's public face.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum HealthSpec {
    /// The addresses answer pings.
    Ping {
        /// Always `true`.
        #[schemars(extend("const" = true))]
        ping: bool,
    },
    /// A page answers as it should.
    Http {
        /// The page.
        http: HttpUrl,
        /// Default: 200.
        #[serde(default = "default_status")]
        #[schemars(range(min = 100, max = 599))]
        status: u16,
        /// A text that the page must contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contains: Option<Text>,
    },
}

fn default_status() -> u16 {
    200
}

/// Where state and journals are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum StoreSpec {
    /// A folder.
    Place(StorePlace),
    /// A folder, and whether it is the arbiter.
    Folder {
        /// The folder, relative to the spec.
        folder: StorePlace,
        /// Holds the lease and the writer records. Exactly one store does. Default: the only one.
        #[serde(default)]
        arbiter: bool,
    },
    /// A URL: `file:./path`, or `ssh://user@host/folder`.
    Url {
        /// `file:./path`, or `ssh://user@host:22/folder`: a folder of another machine, which has hafog; object stores
        /// are not built yet.
        url: StorePlace,
        /// The public SSH key of that machine, such as `ssh-ed25519 AAAA...`. Default: one that `ssh` knows already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_key: Option<HostKeyText>,
        /// Holds the lease and the writer records. Exactly one store does. Default: the only one.
        #[serde(default)]
        arbiter: bool,
    },
}

impl StoreSpec {
    /// The folder or URL as written, and whether it is marked as arbiter.
    pub fn parts(&self) -> (&str, bool) {
        match self {
            StoreSpec::Place(place) => (&place.0, false),
            StoreSpec::Folder { folder, arbiter } => (&folder.0, *arbiter),
            StoreSpec::Url { url, arbiter, .. } => (&url.0, *arbiter),
        }
    }

    pub fn host_key(&self) -> Option<&str> {
        match self {
            StoreSpec::Url { host_key, .. } => host_key.as_ref().map(|key| key.0.as_str()),
            StoreSpec::Place(_) | StoreSpec::Folder { .. } => None,
        }
    }
}

/// A port.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Port(#[schemars(range(min = 1, max = 65_535))] pub u16);

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $($keyword:literal = $value:expr),+;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(extend($($keyword = $value),+))]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

// `x-format` names a reader in `format.rs`; `pattern` tells editors nearly the same.
texts! {
    /// Any text that is not empty.
    Text: "x-format" = "text", "minLength" = 1;
    /// A name: small letters, digits and single hyphens.
    Word: "x-format" = "word", "pattern" = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", "maxLength" = 40;
    /// The name of an image: small letters, digits and single hyphens.
    ImageWord: "x-format" = "word", "x-noun" = "image", "pattern" = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", "maxLength" = 40;
    /// The name of a service.
    ServiceName: "x-format" = "service", "pattern" = "^[A-Za-z0-9][A-Za-z0-9._@-]*$", "maxLength" = 64;
    /// A system and its version, such as `debian-12`.
    BaseText: "x-format" = "base", "pattern" = "^[a-z0-9]+([.-][a-z0-9]+)*$", "maxLength" = 63;
    /// The name of a user or group of the system.
    UserName: "x-format" = "user", "pattern" = "^[a-z_][a-z0-9_-]*$", "maxLength" = 32;
    /// A line of an `authorized_keys` file, without options.
    SshKeyText: "x-format" = "ssh-key", "pattern" = "^(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?$";
    /// A kernel parameter such as `net.core.somaxconn = 1024`.
    SysctlText: "x-format" = "sysctl", "pattern" = "^-?[a-z0-9_]+([./][A-Za-z0-9_.*/:-]+) *= *[^ ].*$";
    /// The name of an environment variable.
    Variable: "x-format" = "variable", "pattern" = "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength" = 128;
    /// The name of a database role.
    Role: "x-format" = "role", "pattern" = "^[a-z_][a-z0-9_]*$", "maxLength" = 63;
    /// A reference to a secret: `env`, `env:VARIABLE` or `file:./path`.
    SecretText: "x-format" = "secret", "pattern" = "^(env|env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$";
    /// A time such as `250ms`, `10s`, `30m`, `1h` or `7d`.
    Time: "x-format" = "time", "pattern" = "^[0-9]+(ms|s|m|h|d)$";
    /// A time in whole seconds, such as `60s`, `5m` or `1h`.
    TtlText: "x-format" = "ttl", "pattern" = "^[0-9]+(s|m|h|d)$";
    /// A size such as `512MiB`, `4GiB` or `200GB`.
    Amount: "x-format" = "amount", "pattern" = "^[0-9]+(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)$";
    /// Times as in a crontab, such as `*/5 * * * *` or `0 3 * * mon Europe/Berlin`.
    CronText: "x-format" = "cron", "pattern" = "^\\S+( +\\S+){4,5}$";
    /// An absolute path.
    AbsolutePath: "x-format" = "absolute-path", "pattern" = "^/";
    /// A path as in a URL, such as `/healthz`.
    UrlPath: "x-format" = "url-path", "pattern" = "^/[^ ]*$";
    /// An `http://` or `https://` URL without a password.
    HttpUrl: "x-format" = "http-url", "pattern" = "^https?://";
    /// A git URL or path without a password.
    GitUrl: "x-format" = "git-url", "minLength" = 1;
    /// A DNS name in small letters, without a final dot.
    HostText: "x-format" = "host", "pattern" = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength" = 253;
    /// The public half of an SSH host key, as OpenSSH writes it.
    HostKeyText: "x-format" = "host-key", "pattern" = "^(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+$";
    /// A server as `ssh` reaches it: `host`, `user@host` or `user@host:22`.
    SshPlace: "x-format" = "ssh-place", "minLength" = 1;
    /// A range of IPv4 addresses, such as `10.66.20.0/24`.
    SubnetText: "x-format" = "subnet", "pattern" = "^[0-9.]+/[0-9]+$";
    /// An IP address.
    AddressText: "x-format" = "address", "minLength" = 2;
    /// A folder, `file:./folder` or `ssh://user@host/folder`.
    StorePlace: "x-format" = "store", "minLength" = 1;
    /// The name of a cloud.
    CloudName: "x-known" = "clouds";
    /// The name of a database engine.
    EngineName: "x-known" = "engines";
    /// The name of a DNS host.
    DnsHostName: "x-known" = "dns-hosts";
}

/// A map that keeps the order of the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Entries<K, T>(pub Vec<(K, T)>);

impl<K, T> Entries<K, T> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<K, T> Default for Entries<K, T> {
    fn default() -> Entries<K, T> {
        Entries(Vec::new())
    }
}

impl<K: Serialize, T: Serialize> Serialize for Entries<K, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

impl<'de, K: Deserialize<'de>, T: Deserialize<'de>> Deserialize<'de> for Entries<K, T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Entries<K, T>, D::Error> {
        struct Reader<K, T>(PhantomData<(K, T)>);
        impl<'de, K: Deserialize<'de>, T: Deserialize<'de>> Visitor<'de> for Reader<K, T> {
            type Value = Entries<K, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        from.deserialize_map(Reader(PhantomData))
    }
}

impl<K: JsonSchema, T: JsonSchema> JsonSchema for Entries<K, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}_by_{}", T::schema_name(), K::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": generator.subschema_for::<K>(),
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}
