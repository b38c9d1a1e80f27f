//! The address at which visitors reach a site, and where it leads.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Server, ServerState};
use crate::model::id::{GroupName, SiteName};
use crate::model::stack::{BALANCER_GROUP, Stack};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub address: IpAddr,
    /// The address of a balancer.
    pub to: IpAddr,
    pub ports: BTreeSet<u16>,
}

impl Entry {
    /// Of the site, where these servers are: to the first balancer that runs. `None`: the site has no address of its own,
    /// or no balancer runs.
    pub fn of<'a>(
        stack: &Stack,
        site: &SiteName,
        servers: impl Iterator<Item = &'a Server> + Clone,
    ) -> Option<Entry> {
        let group = GroupName::from(BALANCER_GROUP);
        let address = stack.entry(site, &group)?;
        let runs = |server: &&Server| server.state == ServerState::Running && server.host.is_some();
        stack.group_at(site, &group).find_map(|balancer| {
            let mut running = servers.clone().filter(runs);
            let there = running.find(|server| server.name == balancer.name)?;
            Some(Entry {
                address,
                to: there.host.as_ref()?.address,
                ports: balancer.open.iter().copied().collect(),
            })
        })
    }
}
