//! The agent on a database server: its keys, its configuration, its service.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use super::{Act, Context, Standing, program};
use crate::agent::{ARBITER_KEY, AgentConfig, Peer};
use crate::db::AGENT_SERVICE;
use crate::db::keys::RENEW_BEFORE;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::digest::sha256;
use crate::model::id::{DatabaseName, ServerName};
use crate::model::stack::Remote;
use crate::plan::action::*;
use crate::shell::{Command, File, Host, Service, ServiceChange};
use crate::state::Guest;
use crate::world::{World, writer_key};

const CONFIG: &str = "agent.json";

fn folder(host: &Host) -> String {
    format!("{}/agent", host.dirs.etc)
}

fn arbiter_key(host: &Host) -> String {
    format!("{}/{ARBITER_KEY}", folder(host))
}

fn service(world: &World, host: &Host) -> Result<Service, Fault> {
    let argv = vec![
        program::path(world, host)?,
        "agent".to_owned(),
        "--config".to_owned(),
        format!("{}/{CONFIG}", folder(host)),
    ];
    Ok(Service::new(AGENT_SERVICE, argv, Duration::from_secs(5)))
}

/// Whether the agent of a node has the configuration that it should have: it must know every other node.
pub(super) async fn is_current(
    world: &World,
    database: &DatabaseName,
    node: &ServerName,
) -> Result<bool, Fault> {
    let agent = StartAgent {
        database: database.clone(),
        node: node.clone(),
    };
    let (host, config) = agent.config(world).await?;
    let mark = started_with(&host, &config);
    let started = world.shell(&host.site)?.get(&host, &mark.path).await?;
    Ok(started == Some(mark.bytes)
        && are_fresh(world, database, node).await?
        && is_admitted(world, &host, &config).await?)
}

/// Whether no certificate on the node is due to be renewed.
async fn are_fresh(
    world: &World,
    database: &DatabaseName,
    node: &ServerName,
) -> Result<bool, Fault> {
    let node = world.node(database, node).await?;
    let engine = world.engine(&node.database)?;
    let found = engine
        .certificates(&node, &world.reach(&node.host.site)?)
        .await?;
    let now = world.clock.now();
    Ok(!found.iter().any(|one| one.ends_within(RENEW_BEFORE, now)))
}

/// Written when the agent runs with this configuration: the configuration's own file may be newer than the process.
fn started_with(host: &Host, config: &AgentConfig) -> File {
    File {
        path: format!("{}/agent.started", folder(host)),
        bytes: sha256(&json(config)).into_bytes(),
        mode: 0o644,
        for_service_user: false,
    }
}

/// What the agent was told before.
async fn known(world: &World, host: &Host) -> Result<Option<AgentConfig>, Fault> {
    let path = format!("{}/{CONFIG}", folder(host));
    let bytes = world.shell(&host.site)?.get(host, &path).await?;
    // Of another version: as good as none.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn json(config: &AgentConfig) -> Vec<u8> {
    serde_json::to_vec_pretty(config).expect("a configuration serialises")
}

impl StartAgent {
    async fn config(&self, world: &World) -> Result<(Host, AgentConfig), Fault> {
        let found = world.whereabouts().await;
        let node = world.node_in(&found, &self.database, &self.node)?;
        let engine = world.engine(&node.database)?;
        let was = match node.lacks_peers {
            true => known(world, &node.host).await?,
            false => None,
        };
        let mut peers: BTreeSet<IpAddr> = node.peers.iter().copied().collect();
        peers.extend(was.iter().flat_map(|was| &was.peers));
        let mut others = Vec::new();
        for site in &world.stack.sites {
            let nodes = world.stack.nodes_at(&site.name, &node.database);
            for server in nodes.filter(|server| server.name != self.node) {
                others.extend(match found.hosts.get(&server.name) {
                    Some(host) => Some(Peer {
                        node: server.name.clone(),
                        site: server.site.clone(),
                        address: host.address,
                        port: node.database.port,
                    }),
                    // A node that is forgotten is neither asked nor waited for, and its site may be at work.
                    None if found.unknown.contains(&server.name) => {
                        let mut before = was.iter().flat_map(|was| &was.others);
                        before.find(|peer| peer.node == server.name).cloned()
                    }
                    None => None,
                });
            }
        }
        let arbiter = world.stack.stores.iter().find(|store| store.arbiter);
        let arbiter = arbiter.ok_or_else(|| Fault::new("the stack has no arbiter"))?;
        let config = AgentConfig {
            service: engine.service(&self.database),
            database: node.database.clone(),
            peers: peers.into_iter().collect(),
            arbiter: world
                .base
                .join(&arbiter.folder)
                .to_string_lossy()
                .into_owned(),
            arbiter_at: match &arbiter.remote {
                Some(remote) => Some(with_host_key(world, remote).await?),
                None => None,
            },
            machine: world.has_machines(&node.host.site),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            self_fence: world.stack.self_fence,
            every: crate::model::stack::BEAT_EVERY,
            others,
            host: node.host.clone(),
        };
        Ok((node.host, config))
    }

    fn files(
        &self,
        context: &Context<'_>,
        host: &Host,
        config: &AgentConfig,
    ) -> Result<Vec<File>, Fault> {
        let keys = &context.world.keys;
        let pair = keys.client(crate::db::AGENT_ROLE)?;
        let folder = folder(host);
        let file = |name: &str, bytes: Vec<u8>, mode: u32| File {
            path: format!("{folder}/{name}"),
            bytes,
            mode,
            for_service_user: false,
        };
        Ok(vec![
            file("ca.crt", keys.ca_pem()?.as_bytes().to_vec(), 0o644),
            file("agent.crt", pair.cert_pem.into_bytes(), 0o644),
            file("agent.key", pair.key_pem.into_bytes(), 0o600),
            file(CONFIG, json(config), 0o644),
        ])
    }
}

/// The machine that keeps the arbiter, as a server must be told: what `ssh` knows here, it does not know there.
async fn with_host_key(world: &World, remote: &Remote) -> Result<Remote, Fault> {
    let mut remote = remote.clone();
    if remote.host_key.is_none() {
        let keys = world.stores.host_keys().await?;
        let newest = keys.iter().find(|key| key.starts_with("ssh-ed25519 "));
        remote.host_key = newest.or(keys.first()).cloned();
    }
    Ok(remote)
}

/// The node's own key for the arbiter. It is made there, and its private half leaves that machine never.
async fn admit(world: &World, host: &Host, config: &AgentConfig) -> Result<(), Trouble> {
    if config.arbiter_at.is_none() {
        return Ok(());
    }
    const MAKE: &str =
        r#"[ -s "$1.pub" ] || { rm -f "$1"; ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$1"; }"#;
    let shell = world.shell(&host.site).nothing_changed()?;
    let path = arbiter_key(host);
    let make = Command::new(["sh", "-euc", MAKE, "sh", &path, host.name.as_str()]);
    let made = shell.run(host, &make).await?;
    let guest = guest(world, host, config).await.partial()?;
    let Some(guest) = guest.filter(|_| made.code == 0) else {
        let message = format!("`{}` cannot make a key for the arbiter", host.name);
        return Err(Trouble::Partial(
            Fault::new(message).because(made.stderr.trim()),
        ));
    };
    world.stores.admit(&guest).await.partial()
}

/// Whether the arbiter still knows the node: somebody may have made its machine or its user's keys anew.
async fn is_admitted(world: &World, host: &Host, config: &AgentConfig) -> Result<bool, Fault> {
    if config.arbiter_at.is_none() {
        return Ok(true);
    }
    match guest(world, host, config).await? {
        Some(guest) => world.stores.admits(&guest).await,
        None => Ok(false),
    }
}

/// The node as the arbiter knows it; `None` while it has no key.
async fn guest(world: &World, host: &Host, config: &AgentConfig) -> Result<Option<Guest>, Fault> {
    let path = format!("{}.pub", arbiter_key(host));
    let public = world.shell(&host.site)?.get(host, &path).await?;
    Ok(public.map(|public| Guest {
        server: host.name.clone(),
        key: String::from_utf8_lossy(&public).trim().to_owned(),
        documents: vec![writer_key(&config.database.name)],
    }))
}

#[async_trait]
impl Act for StartAgent {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let (host, config) = self.config(context.world).await?;
        let shell = context.world.shell(&host.site)?;
        let mut files = self.files(context, &host, &config)?;
        files.push(started_with(&host, &config));
        for file in files {
            if shell.get(&host, &file.path).await?.as_deref() != Some(&file.bytes) {
                return Ok(Standing::Ready);
            }
        }
        if !are_fresh(context.world, &self.database, &self.node).await? {
            return Ok(Standing::Ready);
        }
        if !is_admitted(context.world, &host, &config).await? {
            return Ok(Standing::Ready);
        }
        let states = shell.services(&host).await?;
        match states.iter().find(|state| state.name == AGENT_SERVICE) {
            Some(state) if state.running => Ok(Standing::done(format!(
                "the agent of {} is running",
                self.node
            ))),
            _ => Ok(Standing::Ready),
        }
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let (host, config) = self.config(context.world).await.nothing_changed()?;
        let shell = context.world.shell(&host.site).nothing_changed()?;
        let world = context.world;
        let node = world.node(&self.database, &self.node).await;
        let node = node.nothing_changed()?;
        let reach = world.reach(&host.site).nothing_changed()?;
        let engine = world.engine(&node.database).nothing_changed()?;
        // Renews what is due; the agent logs in with the new pair, so the database has it first.
        engine.admit(&node, &reach).await?;
        for file in self.files(context, &host, &config).nothing_changed()? {
            shell.put(&host, &file).await?;
        }
        program::bring(world, &host).await?;
        admit(world, &host, &config).await?;
        let service = service(world, &host).partial()?;
        shell
            .service(
                &host,
                AGENT_SERVICE,
                ServiceChange::Install(Box::new(service)),
            )
            .await?;
        shell
            .service(&host, AGENT_SERVICE, ServiceChange::Restart)
            .await?;
        shell.put(&host, &started_with(&host, &config)).await
    }
}
