//! The way into a server that exists already: a person's own `ssh`, and root by `sudo` where that is another user.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::SERVER_DIRS;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{ServerName, SiteName};
use crate::model::stack::Registered;
use crate::shell::ssh::{Login, Ssh};
use crate::shell::systemd::{Output, Wire, script};
use crate::shell::tunnel::Stream;
use crate::shell::{Dirs, Host};

pub(super) struct Way {
    pub(super) ssh: Ssh,
    site: SiteName,
    /// Each with the name that a connection to it has, whichever server it is.
    hosts: Vec<Registered>,
    addresses: Mutex<BTreeMap<usize, IpAddr>>,
    /// Who did not answer, when, and why: the next look need not wait for it again.
    pub(super) silent: Mutex<BTreeMap<usize, (Instant, Fault)>>,
}

/// For the address of a name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// What no server is called.
pub(super) fn place_name(host: &Registered) -> ServerName {
    ServerName::new(format!("ssh:{host}"))
}

/// `sudo` never waits for a password here.
const AS_ROOT: &str = r#"[ "$(id -u)" = 0 ] && exec "$@"; exec sudo -n -- "$@""#;

impl Way {
    pub(super) fn new(ssh: Ssh, site: SiteName, hosts: Vec<Registered>) -> Way {
        Way {
            ssh,
            site,
            hosts,
            addresses: Mutex::default(),
            silent: Mutex::default(),
        }
    }

    pub(super) fn hosts(&self) -> &[Registered] {
        &self.hosts
    }

    /// The host as a place to run commands, before it is known which server it is.
    pub(super) async fn place(&self, index: usize) -> Result<Host, Fault> {
        let address = self.address(index).await?;
        let host = &self.hosts[index];
        let name = place_name(host);
        self.ssh
            .know(&name, address, Login::Theirs(host.clone()), false);
        let below = |part: &str| format!("{SERVER_DIRS}/{part}");
        Ok(Host {
            name,
            site: self.site.clone(),
            address,
            dirs: Dirs {
                image: String::new(),
                etc: below("etc"),
                data: below("data"),
                log: below("log"),
            },
        })
    }

    /// The one that is written in the spec, or the first that its name has; IPv4 first, because names of the stack are.
    async fn address(&self, index: usize) -> Result<IpAddr, Fault> {
        let host = &self.hosts[index];
        if let Some(address) = self.written(index) {
            return Ok(address);
        }
        let unknown = |cause: &dyn std::fmt::Display| {
            Fault::unavailable(format!("`{}` has no address", host.host))
                .because(cause)
                .hint(format!("{{ ssh: {host}, address: 203.0.113.7 }}"))
        };
        let asked = tokio::net::lookup_host((host.host.as_str(), 22));
        let Ok(found) = tokio::time::timeout(LOOKUP_LIMIT, asked).await else {
            return Err(unknown(&"no name server answers"));
        };
        let found = found.map_err(|error| unknown(&error))?;
        let address = found.map(|found| found.ip()).min();
        let address = address.ok_or_else(|| unknown(&"no such name"))?;
        self.known().insert(index, address);
        Ok(address)
    }

    /// What needs no question, also because it was asked before.
    fn written(&self, index: usize) -> Option<IpAddr> {
        let host = &self.hosts[index];
        let written = host.address.or_else(|| host.host.parse().ok());
        written.or_else(|| self.known().get(&index).copied())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, IpAddr>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a host, or to the machine that has this server's address.
    async fn under(&self, on: &Host) -> Result<Host, Fault> {
        let is_named = |host: &Registered| place_name(host) == on.name;
        if let Some(index) = self.hosts.iter().position(is_named) {
            return self.place(index).await;
        }
        let mut found = Vec::new();
        for index in 0..self.hosts.len() {
            if self
                .written(index)
                .is_none_or(|address| address == on.address)
            {
                found.extend(self.place(index).await.ok());
            }
        }
        found.retain(|place| place.address == on.address);
        match found.as_slice() {
            [place] => Ok(place.clone()),
            [] => {
                let message = format!("no host of site `{}` is at {}", self.site, on.address);
                Err(Fault::unavailable(message))
            }
            [one, other, ..] => {
                let message = format!(
                    "`{}` and `{}` are both at {}",
                    one.name, other.name, on.address
                );
                Err(Fault::new(message)
                    .hint("give each the address that is its own: { ssh: …, address: … }"))
            }
        }
    }
}

#[async_trait]
impl Wire for Way {
    async fn dial(&self, on: &Host, port: u16) -> io::Result<Stream> {
        let under = self.under(on).await.map_err(io::Error::other)?;
        self.ssh.dial(&under, port).await
    }

    async fn exec(
        &self,
        on: &Host,
        argv: &[String],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<Output, Trouble> {
        let under = self.under(on).await.nothing_changed()?;
        let mut as_root = script(AS_ROOT, &[]);
        as_root.extend_from_slice(argv);
        self.ssh.exec(&under, &as_root, input, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16, address: [u8; 4]) -> Registered {
        Registered {
            user: None,
            host: name.to_owned(),
            port: Some(port),
            address: Some(address.into()),
            host_key: None,
            only: None,
            gone: false,
        }
    }

    #[tokio::test]
    async fn a_server_is_reached_through_its_own_host_and_no_other() {
        let home = tempfile::tempdir().expect("a folder");
        let (shared, own) = ([203, 0, 113, 7], [203, 0, 113, 8]);
        let hosts = vec![
            host("gate", 2201, shared),
            host("gate", 2202, shared),
            host("db", 22, own),
        ];
        let way = Way::new(Ssh::open(home.path()), "west".into(), hosts);
        for index in 0..3 {
            let place = way.place(index).await.expect("its address is written");
            assert_eq!(way.under(&place).await.expect("it is named"), place);
        }
        let server = |address: [u8; 4]| Host {
            name: "shop-west-db-1".into(),
            site: "west".into(),
            address: address.into(),
            dirs: Dirs {
                image: String::new(),
                etc: String::new(),
                data: String::new(),
                log: String::new(),
            },
        };
        // A host may be called like a server that is on another one.
        let named = host("shop-west-db-1", 22, [203, 0, 113, 10]);
        let hosts = [way.hosts.clone(), vec![named]].concat();
        let way = Way::new(Ssh::open(home.path()), "west".into(), hosts);
        let under = way.under(&server(own)).await.expect("one host is there");
        assert_eq!(under.name.as_str(), "ssh:db:22");
        let both = way
            .under(&server(shared))
            .await
            .expect_err("it may be either");
        assert!(
            both.to_string()
                .contains("`ssh:gate:2201` and `ssh:gate:2202`"),
            "{both}"
        );
        assert!(way.under(&server([203, 0, 113, 9])).await.is_err());
    }
}
