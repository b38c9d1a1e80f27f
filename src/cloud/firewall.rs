//! Who may connect to the servers of a site: what the cloud enforces, and what the stack wants of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Server;
use crate::model::id::SiteName;
use crate::model::stack::Stack;

/// The tag that says to which group of the spec a server belongs. Temporary ones belong to none.
pub const GROUP_TAG: &str = "group";

/// What is let in. Nothing else is; what goes out does. SSH is let in everywhere: it is hafog's own way, with keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// The stack's own servers, at every site: to every port.
    pub own: BTreeSet<IpAddr>,
    /// Everybody, to these ports of a server.
    pub open: BTreeMap<IpAddr, BTreeSet<u16>>,
}

impl Firewall {
    /// Of `site`, where these servers are at the sites. Of a site that nobody could look at, what was let in before
    /// stays.
    pub fn of(
        stack: &Stack,
        site: &SiteName,
        servers: &BTreeMap<SiteName, Vec<Server>>,
        before: Option<&Firewall>,
    ) -> Firewall {
        let mut wanted = Firewall::default();
        for other in &stack.sites {
            match servers.get(&other.name) {
                Some(there) => wanted.own.extend(there.iter().filter_map(lasting)),
                None => wanted
                    .own
                    .extend(before.iter().flat_map(|before| &before.own)),
            }
        }
        for server in servers.get(site).into_iter().flatten() {
            let planned = stack.server(&server.name);
            let open = planned.map_or(&[][..], |planned| &planned.open);
            if let (Some(address), [_, ..]) = (lasting(server), open) {
                wanted.open.insert(address, open.iter().copied().collect());
            }
        }
        wanted
    }
}

/// The address of one that is not made for a while.
fn lasting(server: &Server) -> Option<IpAddr> {
    let host = server.host.as_ref()?;
    server.tags.contains_key(GROUP_TAG).then_some(host.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::ServerState;
    use crate::shell::{Dirs, Host};
    use crate::sim::stacks::small;

    fn server(name: &str, site: &str, address: &str, group: Option<&str>) -> Server {
        let dirs = Dirs {
            image: String::new(),
            etc: String::new(),
            data: String::new(),
            log: String::new(),
        };
        let host = Host {
            name: name.into(),
            site: site.into(),
            address: address.parse().unwrap(),
            dirs,
        };
        let tags = group.map(|group| (GROUP_TAG.to_owned(), group.to_owned()));
        Server {
            name: name.into(),
            id: name.to_owned(),
            state: ServerState::Running,
            image: None,
            tags: tags.into_iter().collect(),
            host: Some(host),
        }
    }

    fn addresses(all: &[&str]) -> BTreeSet<IpAddr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn the_stacks_servers_and_open_ports_are_let_in_and_builders_are_not() {
        let stack = small();
        let east = vec![
            server("shop-east-web-1", "east", "10.1.0.2", Some("web")),
            server("shop-east-db-1", "east", "10.1.0.3", Some("db")),
            server("shop-east-old-1", "east", "10.1.0.4", Some("old")),
            server("shop-east-build-web", "east", "10.1.0.5", None),
        ];
        let west = vec![server("shop-west-db-1", "west", "10.2.0.2", Some("db"))];
        let mut all = BTreeMap::from([("east".into(), east), ("west".into(), west)]);
        let wanted = Firewall::of(&stack, &"east".into(), &all, None);
        let own = ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.2.0.2"];
        assert_eq!(wanted.own, addresses(&own));
        let web = stack.server(&"shop-east-web-1".into()).unwrap();
        let open = BTreeSet::from_iter(web.open.iter().copied());
        assert_eq!(wanted.open[&"10.1.0.2".parse().unwrap()], open);
        assert!(!wanted.open.contains_key(&"10.1.0.4".parse().unwrap()));

        // Nobody could look at the west.
        all.remove(&"west".into());
        let kept = Firewall::of(&stack, &"east".into(), &all, Some(&wanted));
        assert_eq!(kept, wanted);
    }
}
