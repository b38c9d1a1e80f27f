//! What the stack remembers between commands: who is primary, and what was published when.
//! These documents live in the state stores.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::*;
use super::record::{RecordSet, RecordType};
use super::units::Ttl;

/// What document `roles` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RolesDocument {
    Roles(Roles),
    /// The stack was destroyed while a store was out of reach, which may still have its roles.
    Gone {
        serial: u64,
        destroyed: Timestamp,
    },
}

impl RolesDocument {
    pub fn serial(&self) -> u64 {
        match self {
            RolesDocument::Roles(roles) => roles.serial,
            RolesDocument::Gone { serial, .. } => *serial,
        }
    }
}

/// Document `roles`. Grows with every change of role; a smaller `serial` never replaces a larger one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roles {
    pub serial: u64,
    pub primary: SiteName,
    /// Sites that `clone` made and nothing removed since.
    pub standbys: Vec<SiteName>,
    /// Sites whose servers may hold writes that the primary does not have, or that were left behind by a failover.
    pub left_behind: Vec<SiteName>,
    /// Database nodes that come before the others of their site, because a failover within the site opened them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<ServerName>,
    /// Set from a flip until its commit or rollback.
    pub provisional: Option<Provisional>,
    pub changed: Timestamp,
    pub by: RunId,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provisional {
    pub since: Timestamp,
    pub until: Timestamp,
    /// The site that was primary before.
    pub from: SiteName,
    /// Whether the flip was a switchover.
    pub planned: bool,
}

/// Document `writer/<database>` in the arbiter: the one node that may write. Changed by compare-and-set only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Writer {
    /// Grows with every change of node. An agent that sees a larger epoch than its own fences its node.
    pub epoch: u64,
    /// `None` while nobody may write (between fence and promotion).
    pub node: Option<ServerName>,
    /// The writer's agent renewed its lease until then; absent when it never did under this epoch. While nobody may
    /// write: of the writer before.
    pub lease_until: Option<Timestamp>,
    /// The writer's engine acknowledges no commit before each of these nodes has it on disk. Its agent writes this
    /// after the engine obeys, and takes it back before the engine stops to. While nobody may write: of the writer
    /// before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirmed_by: Vec<ServerName>,
    /// The last thing that the writer's agent said.
    pub beat: Option<Beat>,
}

/// What a primary's agent reports with each renewal: an upper bound of nothing, a lower bound of what exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    pub seq: u64,
    pub at: Timestamp,
    /// Position of the primary after it wrote heartbeat `seq`.
    pub position: String,
    /// Transactions committed since the database was made, as the engine counts them.
    pub transactions: Option<u64>,
}

/// Document `revoked`: images that nothing is to be started from any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Revoked {
    pub serial: u64,
    pub images: BTreeMap<ImageName, Revocation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    pub why: String,
    pub at: Timestamp,
}

/// Document `names`: the history of everything published, for the TTL clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    pub serial: u64,
    /// Oldest first.
    pub versions: Vec<Version>,
    /// TTLs that were lowered and wait for their restore.
    pub ttl_leases: BTreeMap<HostName, TtlLease>,
}

/// One version of a record set, and when the authorities served it. No values: there was no such set, and the TTL is
/// that of the negative answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub set: RecordSet,
    /// First instant at which an authority may have answered with it.
    pub from: Timestamp,
    /// Last instant at which an authority may have answered with it; `None` while it is current.
    pub to: Option<Timestamp>,
}

impl Published {
    pub fn current(&self, host: &HostName, kind: RecordType) -> Option<&RecordSet> {
        let last = self.open(host, kind).next_back();
        last.filter(|set| !set.values.is_empty())
    }

    /// What may be served now, oldest first: more than one where a change was not confirmed.
    pub fn open(
        &self,
        host: &HostName,
        kind: RecordType,
    ) -> impl DoubleEndedIterator<Item = &RecordSet> {
        let versions = self.versions.iter().filter(|one| one.to.is_none());
        let sets = versions.map(|one| &one.set);
        sets.filter(move |set| &set.host == host && set.kind == kind)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TtlLease {
    /// What is restored.
    pub normal: Ttl,
    pub lowered: Ttl,
    pub since: Timestamp,
    /// Overdue after this: an alarm in `status`.
    pub until: Timestamp,
}

/// The role of a site, as its servers are told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteRole {
    Primary,
    Standby,
}

impl SiteRole {
    pub fn word(self) -> &'static str {
        match self {
            SiteRole::Primary => "primary",
            SiteRole::Standby => "standby",
        }
    }

    /// What a server is told: `primary 3` and the end of a line, where 3 is the epoch.
    pub fn token(self, epoch: u64) -> String {
        format!("{} {epoch}\n", self.word())
    }

    pub fn of_token(text: &str) -> Option<(SiteRole, u64)> {
        let (word, epoch) = text.trim_end().split_once(' ')?;
        let roles = [SiteRole::Primary, SiteRole::Standby];
        let role = roles.into_iter().find(|role| role.word() == word)?;
        Some((role, epoch.parse().ok()?))
    }
}
