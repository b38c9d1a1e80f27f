//! Simulated eyes.
//!
//! An address answers over HTTP when an application or a balancer works there; a balancer works when one
//! application of its site does. Ports are not looked at, except the databases'.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

use super::SimWorld;
use super::call::Call;
use super::dns::is_in_zone;
use super::world::{Sets, World};
use crate::error::Fault;
use crate::model::id::{HostName, ServerName, ZoneName};
use crate::model::record::{RecordSet, RecordType};
use crate::model::stack::Job;
use crate::model::units::Ttl;
use crate::probe::{DnsAnswer, HttpAnswer, HttpAsk, Probe};

/// How long an authority's "no" may be cached.
const NEGATIVE_TTL: Ttl = Ttl(60);
/// CNAMEs that are followed at most.
const CHAIN_MAX: usize = 8;

pub struct SimProbe {
    world: SimWorld,
}

impl SimProbe {
    pub(super) fn new(world: SimWorld) -> SimProbe {
        SimProbe { world }
    }

    /// The call is booked on the site where the address is.
    fn call(&self, name: &'static str, to: SocketAddr, argument: &str) -> Call {
        let call = Call::new(name, format!("{to} {argument}"));
        let site = self
            .world
            .with(|world| world.at(to.ip()).map(|(_, server)| server.site.clone()));
        match site {
            Some(site) => call.at(&site),
            None => call,
        }
    }
}

#[async_trait]
impl Probe for SimProbe {
    async fn http(&self, ask: &HttpAsk) -> Result<HttpAnswer, Fault> {
        let call = self.call("probe.http", ask.to, &format!("{} {}", ask.host, ask.path));
        self.world
            .look(call, |world| {
                let name = world.listener(ask.to, ask.limit)?;
                let status = world.serve(&name).map_err(Fault::unavailable)?;
                let body = match status {
                    200 => "ok",
                    503 => "no server is available",
                    _ => "sick",
                };
                Ok(HttpAnswer {
                    status,
                    body: body.to_owned(),
                })
            })
            .await
    }

    async fn tcp(&self, to: SocketAddr, limit: Duration) -> Result<(), Fault> {
        let call = self.call("probe.tcp", to, "");
        self.world
            .look(call, |world| {
                let name = world.listener(to, limit)?;
                let database = matches!(
                    world.planned.get(&name).map(|planned| &planned.job),
                    Some(Job::Database(_))
                );
                let server = &world.servers[&name];
                if database && server.nodes.values().any(|node| server.runs(&node.service)) {
                    return Ok(());
                }
                world.serve(&name).map(|_| ()).map_err(Fault::unavailable)
            })
            .await
    }

    async fn dns(
        &self,
        server: SocketAddr,
        host: &HostName,
        kind: RecordType,
    ) -> Result<DnsAnswer, Fault> {
        let call = Call::new("probe.dns", format!("{server} {host} {kind}"));
        self.world
            .look(call, |world| world.resolve(server, host, kind))
            .await
    }
}

impl World {
    /// The server that has the address, if it is up and the caller reaches it.
    fn listener(&self, to: SocketAddr, limit: Duration) -> Result<ServerName, Fault> {
        let silent = || {
            Fault::unavailable(format!(
                "no answer from `{to}` within {} s",
                limit.as_secs_f64()
            ))
        };
        let (name, server) = self.at(to.ip()).ok_or_else(silent)?;
        self.reach(Some(&server.site)).map_err(|_| silent())?;
        match server.state {
            crate::cloud::ServerState::Running => Ok(name.clone()),
            _ => Err(silent()),
        }
    }

    fn resolve(
        &self,
        server: SocketAddr,
        host: &HostName,
        kind: RecordType,
    ) -> Result<DnsAnswer, Fault> {
        let silent = || Fault::unavailable(format!("no answer from `{server}` within 2 s"));
        self.reach(None).map_err(|_| silent())?;
        let found = self.zones.iter().find_map(|(name, zone)| {
            let mut authorities = zone.authorities.iter();
            let authority = authorities.find(|one| one.address == server)?;
            Some((name, zone, authority))
        });
        let Some((name, zone, authority)) = found else {
            return Err(silent());
        };
        if !zone.open || !authority.lit {
            return Err(silent());
        }
        if !is_in_zone(host, name) {
            return Ok(DnsAnswer {
                code: "REFUSED".to_owned(),
                authoritative: false,
                sets: Vec::new(),
                negative_ttl: None,
            });
        }
        Ok(answer(
            authority.held.as_ref().unwrap_or(&zone.sets),
            name,
            host,
            kind,
        ))
    }
}

/// What an authority of these sets says, with the CNAMEs on the way (RFC 1034 section 4.3.2).
fn answer(sets: &Sets, zone: &ZoneName, host: &HostName, kind: RecordType) -> DnsAnswer {
    let mut chain: Vec<RecordSet> = Vec::new();
    let mut name = host.clone();
    let mut exists = false;
    for _ in 0..=CHAIN_MAX {
        // A name also exists when there is something below it (RFC 8020).
        let below = format!(".{name}");
        exists = sets
            .keys()
            .any(|(one, _)| one == &name || one.as_str().ends_with(&below));
        if let Some(set) = sets.get(&(name.clone(), kind)) {
            chain.push(set.clone());
            return DnsAnswer {
                code: "NOERROR".to_owned(),
                authoritative: true,
                sets: chain,
                negative_ttl: None,
            };
        }
        let Some(alias) = sets.get(&(name.clone(), RecordType::Cname)) else {
            break;
        };
        chain.push(alias.clone());
        let Some(next) = alias.values.first() else {
            break;
        };
        name = HostName::new(next.clone());
        if !is_in_zone(&name, zone) {
            // Where it goes on is another authority's to say.
            exists = true;
            break;
        }
    }
    DnsAnswer {
        code: if exists { "NOERROR" } else { "NXDOMAIN" }.to_owned(),
        authoritative: true,
        sets: chain,
        negative_ttl: Some(NEGATIVE_TTL),
    }
}
