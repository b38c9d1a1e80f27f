//! The closed list of actions, and what each one needs. Behaviour is in `step/`, one file a family.
//!
//! `actions!` lists names and nothing more: it makes the enum, and the dispatch that `step` implements.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cloud::ServerWant;
use crate::dns::RecordChange;
use crate::model::id::*;
use crate::model::record::RecordSet;
use crate::model::roles::Provisional;
pub use crate::model::roles::SiteRole;
use crate::model::units::{Span, Ttl};

macro_rules! actions {
    ($($name:ident,)*) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Action { $($name($name),)* }

        $(impl From<$name> for Action {
            fn from(data: $name) -> Action {
                Action::$name(data)
            }
        })*

        /// Calls `$each!` with the whole list, so that `step` can dispatch without repeating it.
        macro_rules! for_each_action {
            ($action:expr, $data:ident => $result:expr) => {
                match $action { $($crate::plan::Action::$name($data) => $result,)* }
            };
        }
        pub(crate) use for_each_action;
    };
}

actions! {
    CreateServer,
    ApplyRecipe,
    SealImage,
    CopyImage,
    TryImage,
    PowerOn,
    DeleteServer,
    DeleteImage,
    RevokeImage,
    RemoveSite,
    ConfigureServer,
    ChangeImage,
    TakeOut,
    LetGo,
    AwaitHealthy,
    AwaitServer,
    CreateDatabase,
    SeedReplica,
    StartAgent,
    OpenDatabase,
    AwaitWriter,
    ForgetReplica,
    EnsureZone,
    CloseZone,
    SetRecord,
    SeeRecord,
    SetTtl,
    ConfirmOutage,
    VetStandby,
    StopWrites,
    AwaitReplay,
    PromoteStandby,
    SetRoleToken,
    LeadApps,
    SmokeTest,
    Rejoin,
    SetRoles,
    ForgetState,
    ConnectFiles,
    FoundFiles,
    SyncFiles,
    SetFirewall,
    SetEntry,
}

/// Starts a server from an image, or a builder from the bare base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateServer {
    pub site: SiteName,
    pub want: ServerWant,
}

/// Puts a recipe's files and code into a builder and runs its commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplyRecipe {
    pub site: SiteName,
    pub builder: ServerName,
    pub recipe: RecipeName,
    pub image: ImageName,
}

/// Makes the image from the builder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealImage {
    pub site: SiteName,
    pub builder: ServerName,
    pub image: ImageName,
    pub tags: BTreeMap<String, String>,
}

/// Makes the image from the one that another site has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyImage {
    pub site: SiteName,
    pub from: SiteName,
    pub image: ImageName,
    pub tags: BTreeMap<String, String>,
}

/// Boots a server from the image, asks the recipe's check there, and removes the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TryImage {
    pub site: SiteName,
    pub recipe: RecipeName,
    pub image: ImageName,
    /// The server, which is for this alone.
    pub trial: ServerWant,
}

/// Lets in the stack's own servers and what is open, at sites that have a network of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetFirewall {
    pub sites: Vec<SiteName>,
}

/// Leads the site's own address to its balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetEntry {
    pub site: SiteName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteServer {
    pub site: SiteName,
    pub server: ServerName,
}

/// Boots a server that is off. Everything on it boots non-writable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerOn {
    pub site: SiteName,
    pub server: ServerName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteImage {
    pub site: SiteName,
    pub image: ImageName,
}

/// Nothing is to be started from the image any more, for this reason; without one it may be used again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevokeImage {
    pub image: ImageName,
    pub why: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoveSite {
    pub site: SiteName,
}

/// Writes a server's configuration and starts its services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigureServer {
    pub site: SiteName,
    pub server: ServerName,
}

/// The tag of a server that says with what it was configured: a digest. While its image is being changed, which begins
/// with a stop of everything, [`CHANGING`] stands before the digest.
pub const CONFIG_TAG: &str = "config";
pub const CHANGING: &str = "changing ";
/// Stands before the digest of a server whose image has other services than the spec.
pub const AHEAD: &str = "ahead ";

/// Whether a change of the server's image was begun and not ended.
pub fn is_changing(tags: &BTreeMap<String, String>) -> bool {
    tags.get(CONFIG_TAG)
        .is_some_and(|config| config.starts_with(CHANGING))
}

/// Whether it needs a deploy, whatever its image is: nobody knows with what it is configured since a change of its image
/// was taken back, or the spec was ahead of its image.
pub fn awaits_deploy(tags: &BTreeMap<String, String>) -> bool {
    tags.get(CONFIG_TAG)
        .is_some_and(|config| config.is_empty() || config.starts_with(AHEAD))
}

/// Takes a server that the spec has no longer out of its balancers' rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TakeOut {
    pub site: SiteName,
    pub server: ServerName,
    pub group: GroupName,
}

/// Writes down of a database node that it followed when its removal began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LetGo {
    pub site: SiteName,
    pub server: ServerName,
    /// Of its database.
    pub epoch: u64,
}

/// The tag of a database node that may go: the epoch of its database in which it was seen to follow. As long as nobody
/// else was opened for writes since, it has nothing of its own.
pub const LEAVING_TAG: &str = "leaving";

/// Moves one server to another image behind the balancer's health check, and back when it does not come up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeImage {
    pub site: SiteName,
    pub server: ServerName,
    pub from: ImageName,
    pub to: ImageName,
    /// The recipe or the stack asks for other services or another environment than it has: they change with the image.
    #[serde(default, skip_serializing_if = "is_not")]
    pub configure: bool,
}

fn is_not(flag: &bool) -> bool {
    !flag
}

/// Waits until the site's front door answers its health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AwaitHealthy {
    pub site: SiteName,
}

/// Waits until one server does its work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AwaitServer {
    pub site: SiteName,
    pub server: ServerName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateDatabase {
    pub database: DatabaseName,
    pub node: ServerName,
}

/// Makes `to` a replica that follows `from`: nothing if it is, a pointer if it can, a copy otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedReplica {
    pub database: DatabaseName,
    pub from: ServerName,
    pub to: ServerName,
    /// Copy again even if it follows.
    pub always: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartAgent {
    pub database: DatabaseName,
    pub node: ServerName,
}

/// Names a node as the writer, under a new epoch, and opens it: the first opening of a new database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenDatabase {
    pub database: DatabaseName,
    pub node: ServerName,
    pub epoch: u64,
}

/// Waits until the node that the writer record names takes writes: after a boot its agent opens it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AwaitWriter {
    pub database: DatabaseName,
    pub node: ServerName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForgetReplica {
    pub database: DatabaseName,
    pub primary: ServerName,
    pub replica: ServerName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnsureZone {
    pub zone: ZoneName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloseZone {
    pub zone: ZoneName,
}

/// Publishes the addresses of a group of a site under the names that the stack owns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetRecord {
    pub zone: ZoneName,
    pub records: Vec<WantedRecord>,
    /// TTLs that this change lowers, with what `commit` restores.
    pub leases: Vec<LeasedTtl>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeasedTtl {
    pub host: HostName,
    pub normal: Ttl,
    pub lowered: Ttl,
    pub window: Span,
}

/// A record set as the plan knows it. The addresses of servers that do not exist yet are filled in at run time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantedRecord {
    /// Exactly this; compared before it is written.
    Exactly(RecordChange),
    /// This set, whatever the stack's own name holds by then. Behind a point of no return the record must change, also
    /// where the zone was lost or somebody else wrote to it since the plan was made.
    Becomes(RecordSet),
    /// The addresses of a group of servers.
    AddressesOf {
        host: HostName,
        ttl: Ttl,
        site: SiteName,
        group: GroupName,
    },
}

/// Asks every authority until all of them answer with the published sets of the zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeeRecord {
    pub zone: ZoneName,
    pub hosts: Vec<HostName>,
}

/// Lowers or restores the TTL of one record set that the stack owns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetTtl {
    pub zone: ZoneName,
    pub host: HostName,
    pub before: RecordSet,
    pub ttl: Ttl,
    /// `Some`: this is a lowering, and a lease for so long; `None`: the restore that ends it.
    pub lease: Option<Span>,
    /// Wait until the old TTL has run out.
    pub wait: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfirmOutage {
    pub site: SiteName,
    /// Do not ask the site's cloud or servers anything.
    pub assumed: bool,
}

/// Whether the chosen node may be promoted: it is a replica, and how far it was behind when the primary was last heard
/// of is known and at most `lag.critical`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VetStandby {
    pub database: DatabaseName,
    pub node: ServerName,
    /// Names of refusals that were accepted.
    pub accepted: Vec<String>,
}

/// Makes sure that the old primary cannot write, with proof. Output: its last position, where it could be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopWrites {
    pub database: DatabaseName,
    pub node: ServerName,
    pub site: SiteName,
    /// The node that is promoted afterwards. Journals that do not say it know no proof by lease.
    #[serde(default)]
    pub to: Option<ServerName>,
    /// The epoch under which nobody may write.
    pub epoch: u64,
    pub how: Fencing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fencing {
    /// The node is stopped cleanly, with everything sent.
    Clean,
    /// The strongest rung that can be reached, at once.
    Ladder,
    /// Nothing may be asked of the site: only an expired lease under `self_fence: strict` is proof, and only where the
    /// node's commits waited for the one that is promoted.
    LeaseOnly,
    /// Accepted by name: no proof.
    Accepted,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AwaitReplay {
    pub database: DatabaseName,
    pub node: ServerName,
    /// The step whose output is the position to reach.
    pub of: StepName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromoteStandby {
    pub database: DatabaseName,
    pub node: ServerName,
    pub epoch: u64,
}

/// Tells the application servers of a site which role they have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetRoleToken {
    pub site: SiteName,
    pub role: SiteRole,
    pub epoch: u64,
}

/// The variable that names the databases of an application server, as they are in `DATABASE_URL_NAME`. They vouch for
/// its role token.
pub const DATABASES: &str = "HAFOG_DATABASES";

/// Makes the application servers of a site use the database nodes that are its first now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeadApps {
    pub site: SiteName,
}

/// Asks the site's front door, straight at its address, for every HTTP health check of the spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmokeTest {
    pub site: SiteName,
}

/// Makes an old primary (or a replica left on an old history) a replica of the current primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejoin {
    pub database: DatabaseName,
    pub old: ServerName,
    pub old_site: SiteName,
    pub primary: ServerName,
}

/// Writes the document `roles`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetRoles {
    pub primary: SiteName,
    pub standbys: Vec<SiteName>,
    pub left_behind: Vec<SiteName>,
    /// `None`: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<Vec<ServerName>>,
    /// How long the flip that this ends stays provisional; `None` seals the roles.
    pub provisional: Option<ProvisionalWant>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProvisionalWant {
    pub from: SiteName,
    pub planned: bool,
    pub window: Span,
}

impl ProvisionalWant {
    pub fn at(&self, now: Timestamp) -> Provisional {
        Provisional {
            since: now,
            until: now + self.window.0,
            from: self.from.clone(),
            planned: self.planned,
        }
    }
}

/// Removes the stack's documents: the last step of destroying its last site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForgetState {
    pub databases: Vec<DatabaseName>,
}

/// Lets the servers of a group come to one another for files, and tells each of them who the others are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectFiles {
    pub group: GroupName,
}

/// Marks the folder of a server as the one that has the files. Only where no other server has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundFiles {
    pub files: FilesName,
    pub server: ServerName,
}

/// Lets a server copy the files now, and waits until it has all that there were when it began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncFiles {
    pub files: FilesName,
    pub server: ServerName,
    pub verify: bool,
    pub most_deleted: Option<u64>,
    /// From this server, whatever its role.
    pub restore: Option<ServerName>,
}
