//! Facts: what is true now, with when and how it was seen. `observe` fills them; planners only read them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cloud::{Entry, Firewall, Server as CloudServer, ServerState};
use crate::db::{Certificate, Contents, Divergence, Link, NodeRole, NodeStatus};
use crate::model::files::{Report, Whole};
use crate::model::id::*;
use crate::model::record::{RecordSet, RecordType};
use crate::model::roles::{Published, Revocation, Roles, Writer};
use crate::model::stack::{Database, Name, Server, Stack};

/// Known, or unknown and why. Unknown never passes for anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen<T> {
    Known(T),
    Unknown(String),
}

impl<T> Seen<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Seen::Known(value) => Some(value),
            Seen::Unknown(_) => None,
        }
    }

    pub fn why_unknown(&self) -> Option<&str> {
        match self {
            Seen::Known(_) => None,
            Seen::Unknown(why) => Some(why),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub at: Timestamp,
    /// `None`: the stack was never brought up.
    pub roles: Option<Roles>,
    pub published: Published,
    pub sites: BTreeMap<SiteName, SiteFacts>,
    pub nodes: BTreeMap<ServerName, NodeFact>,
    pub writers: BTreeMap<DatabaseName, Writer>,
    pub zones: BTreeMap<ZoneName, ZoneFacts>,
    /// The image that each recipe makes now.
    pub images: BTreeMap<RecipeName, ImageName>,
    /// Images that nothing is to be started from any more.
    #[serde(default)]
    pub revoked: BTreeMap<ImageName, Revocation>,
    /// Servers whose configuration is as it should be.
    pub configured: BTreeSet<ServerName>,
    /// What the servers of each entry of `files` have.
    #[serde(default)]
    pub files: BTreeMap<FilesName, BTreeMap<ServerName, Seen<FilesFact>>>,
    /// Groups whose servers know one another for their files.
    #[serde(default)]
    pub connected: BTreeSet<GroupName>,
    /// The answer of each site's front door to the health check.
    pub doors: BTreeMap<SiteName, Seen<u16>>,
    /// What the old primaries of sites that were left behind have and the current ones lack. Looked at only for a rejoin.
    #[serde(default)]
    pub apart: BTreeMap<ServerName, Seen<Apart>>,
    /// Servers that run and do not do their work, with the reason. Looked at only for `heal`.
    #[serde(default)]
    pub sick: BTreeMap<ServerName, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Apart {
    pub divergence: Divergence,
    /// Only where the histories parted.
    pub contents: Option<Seen<Contents>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteFacts {
    /// Whether its cloud answers; unknown when nobody asked (`--assume-down`) or nobody answered.
    pub answers: Seen<()>,
    pub servers: BTreeMap<ServerName, CloudServer>,
    pub images: BTreeSet<ImageName>,
    /// Those of them that nobody saw booting there.
    #[serde(default)]
    pub untried: BTreeSet<ImageName>,
    /// What is let in, where the site has a network of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Firewall>,
    /// Where its own address leads, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// The cloud has something of the site besides servers and images.
    #[serde(default)]
    pub is_made: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeFact {
    pub database: DatabaseName,
    pub site: SiteName,
    /// Whether there are data files; unknown when the server does not answer.
    pub has_data: Seen<bool>,
    pub status: Seen<NodeStatus>,
    pub certificates: Seen<Vec<Certificate>>,
    /// Bytes of log between the writer's last heartbeat and what the node has received; `None` where nobody can say.
    pub behind: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilesFact {
    /// The folder was whole once.
    pub marked: bool,
    /// What the server says of its copies; `None`: nothing yet.
    pub report: Option<Report>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZoneFacts {
    pub open: Seen<bool>,
    /// Whether closing it would take anything away.
    pub closable: Seen<bool>,
    pub records: Vec<RecordSet>,
}

impl ZoneFacts {
    pub fn record(&self, host: &HostName, kind: RecordType) -> Option<&RecordSet> {
        let mut records = self.records.iter();
        records.find(|set| &set.host == host && set.kind == kind)
    }
}

impl Facts {
    /// Whether the site's cloud answered, so that its lists mean anything.
    pub fn answers(&self, site: &SiteName) -> bool {
        let seen = self.sites.get(site);
        seen.is_some_and(|seen| seen.answers.known().is_some())
    }

    /// Whether the site's cloud answered with any server of it, so that it means something which one it lacks. An empty
    /// list may be of another region, project or folder than the one in which the servers are.
    pub fn lists(&self, site: &SiteName) -> bool {
        let seen = self.sites.get(site).filter(|_| self.answers(site));
        seen.is_some_and(|seen| !seen.servers.is_empty())
    }

    /// Whether the site is known to pass its health checks.
    pub fn serves(&self, site: &SiteName) -> bool {
        matches!(self.doors.get(site), Some(Seen::Known(200)))
    }

    pub fn runs(&self, server: &Server) -> bool {
        let seen = self.server(&server.site, &server.name);
        seen.is_some_and(|seen| seen.state == ServerState::Running)
    }

    pub fn server(&self, site: &SiteName, name: &ServerName) -> Option<&CloudServer> {
        self.sites.get(site)?.servers.get(name)
    }

    pub fn address(&self, site: &SiteName, name: &ServerName) -> Option<IpAddr> {
        Some(self.server(site, name)?.host.as_ref()?.address)
    }

    /// Addresses by which a group is reached, if every one of them is known.
    pub fn addresses(
        &self,
        stack: &Stack,
        site: &SiteName,
        group: &GroupName,
    ) -> Option<BTreeSet<String>> {
        if let Some(entry) = stack.entry(site, group) {
            return Some(BTreeSet::from([entry.to_string()]));
        }
        stack
            .group_at(site, group)
            .map(|server| Some(self.address(site, &server.name)?.to_string()))
            .collect()
    }

    /// Whether the zone is known to be served.
    pub fn is_open(&self, zone: &ZoneName) -> bool {
        let open = self.zones.get(zone).and_then(|zone| zone.open.known());
        open.copied().unwrap_or(false)
    }

    /// What the zone serves of a name; where it does not, or nobody could look, what was published last.
    pub fn held(&self, name: &Name) -> Option<&RecordSet> {
        self.zones
            .get(&name.zone)?
            .record(&name.target, RecordType::A)
            .or_else(|| self.published.current(&name.target, RecordType::A))
    }

    /// The same of the CNAME by which users come to the name.
    pub fn alias(&self, name: &Name) -> Option<&RecordSet> {
        self.zones
            .get(&name.zone)?
            .record(&name.host, RecordType::Cname)
            .or_else(|| self.published.current(&name.host, RecordType::Cname))
    }

    pub fn status(&self, node: &ServerName) -> Option<&NodeStatus> {
        self.nodes.get(node)?.status.known()
    }

    /// Why nothing is known of a node that was asked.
    pub fn why_silent(&self, node: &ServerName) -> Option<&str> {
        self.nodes.get(node)?.status.why_unknown()
    }

    /// A replica whose stream is alive.
    pub fn follows(&self, node: &ServerName) -> bool {
        self.status(node).is_some_and(|status| {
            status.role == NodeRole::Replica && matches!(status.link, Some(Link::Up { .. }))
        })
    }

    /// A replica whose stream from that node is alive.
    pub fn follows_from(&self, node: &ServerName, upstream: &ServerName) -> bool {
        self.status(node).is_some_and(|status| {
            status.role == NodeRole::Replica
                && matches!(&status.link, Some(Link::Up { from }) if from == upstream.as_str())
        })
    }

    /// Age of the newest heartbeat on a node.
    pub fn lag(&self, node: &ServerName) -> Option<Duration> {
        let heartbeat = self.status(node)?.heartbeat.as_ref()?;
        let age = self.at.duration_since(heartbeat.at);
        Some(Duration::try_from(age).unwrap_or(Duration::ZERO))
    }

    /// What a server has of the files.
    pub fn files(&self, files: &FilesName, server: &ServerName) -> Option<&Seen<FilesFact>> {
        self.files.get(files)?.get(server)
    }

    /// The last whole copy that a server made from the one that has the files now.
    pub fn copy(
        &self,
        files: &FilesName,
        server: &ServerName,
        source: &ServerName,
    ) -> Option<&Whole> {
        let report = self.files(files, server)?.known()?.report.as_ref()?;
        report
            .whole
            .as_ref()
            .filter(|whole| &whole.source == source)
    }

    /// Whether servers can be started from it: it is there, and it booted there once.
    pub fn has_image(&self, site: &SiteName, image: &ImageName) -> bool {
        self.sites
            .get(site)
            .is_some_and(|site| site.images.contains(image) && !site.untried.contains(image))
    }

    /// It is there, and nobody saw it booting.
    pub fn is_untried(&self, site: &SiteName, image: &ImageName) -> bool {
        self.sites
            .get(site)
            .is_some_and(|site| site.untried.contains(image))
    }

    /// The site that is primary now, or would be.
    pub fn primary<'a>(&'a self, born: &'a SiteName) -> &'a SiteName {
        self.roles.as_ref().map_or(born, |roles| &roles.primary)
    }

    /// The node that the arbiter names as the one that may write.
    pub fn writer_node(&self, database: &DatabaseName) -> Option<&ServerName> {
        self.writers.get(database)?.node.as_ref()
    }

    /// The database's nodes at a site: the first is primary or next in line.
    pub fn ranked_at<'a>(
        &self,
        stack: &'a Stack,
        site: &'a SiteName,
        database: &'a Database,
    ) -> Vec<&'a Server> {
        let heads = self.roles.as_ref().map_or(&[][..], |roles| &roles.heads);
        stack.ranked_at(site, database, self.writer_node(&database.name), heads)
    }

    /// The one that is primary or next in line.
    pub fn head_at<'a>(
        &self,
        stack: &'a Stack,
        site: &'a SiteName,
        database: &'a Database,
    ) -> Option<&'a Server> {
        self.ranked_at(stack, site, database).first().copied()
    }

    /// While the one that writes takes no writes: another node of its site that could take over.
    pub fn relief<'a>(&self, stack: &'a Stack, database: &'a Database) -> Option<&'a Server> {
        let writer = self.writer_node(&database.name)?;
        if self.status(writer).is_some_and(|status| status.writable) {
            return None;
        }
        let here = &stack.server(writer)?.site;
        let is_replica = |node: &&Server| {
            let status = self.status(&node.name);
            let replica = status.is_some_and(|status| status.role == NodeRole::Replica);
            node.name != *writer && replica
        };
        let able = stack.nodes_at(here, database).filter(is_replica);
        able.max_by_key(|node| {
            let timeline = self.status(&node.name).map(|status| status.timeline);
            let behind = self.nodes.get(&node.name).and_then(|node| node.behind);
            (timeline, std::cmp::Reverse(behind.unwrap_or(i64::MAX)))
        })
    }

    /// Nodes that may have what the one that writes lacks: those that were first where a failover left them behind.
    pub fn old_primaries<'a>(&self, stack: &'a Stack, database: &'a Database) -> Vec<&'a Server> {
        let Some(roles) = &self.roles else {
            return Vec::new();
        };
        let left = roles.left_behind.iter().filter_map(|site| {
            let site = stack.site(site)?;
            self.head_at(stack, &site.name, database)
        });
        let beside = stack.sites.iter();
        let beside = beside.flat_map(|site| stack.nodes_at(&site.name, database));
        let beside = beside.filter(|node| self.nodes.contains_key(&node.name));
        left.chain(beside.filter(|node| self.was_beside(stack, database, node)))
            .collect()
    }

    /// Whether another node of its site took over, and it does not follow that. A server that is gone may come back with
    /// its disk.
    pub fn was_beside(&self, stack: &Stack, database: &Database, node: &Server) -> bool {
        let Some(writer) = self.writer_node(&database.name) else {
            return false;
        };
        let is_here = stack
            .server(writer)
            .is_some_and(|one| one.site == node.site && one.name != node.name);
        let heads = self.roles.as_ref().map(|roles| &roles.heads);
        let took_over = heads.is_some_and(|heads| heads.contains(writer));
        let has_data = |fact: &NodeFact| fact.has_data != Seen::Known(false);
        let may_have = self.nodes.get(&node.name).is_none_or(has_data);
        is_here && took_over && may_have && !self.follows(&node.name)
    }

    pub fn epoch(&self, database: &DatabaseName) -> u64 {
        self.writers.get(database).map_or(0, |writer| writer.epoch)
    }
}
