//! Configuration of a server: files, environment and services, rendered from the stack and put in place.
//!
//! Its digest is a tag of the server, so that a second `up` sees that there is nothing to do. Secrets are not part of
//! the digest: only the names of the references are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Act, Context, Standing, Tags, health};
use crate::cloud::ServerState;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::image::render;
use crate::model::digest::hex;
use crate::model::id::*;
use crate::model::roles::Roles;
use crate::model::stack::{Job, RecipeService, Server};
use crate::plan::action::*;
use crate::probe::HttpAsk;
use crate::shell::{File, Host, Service, ServiceChange, StopSignal};
use crate::world::World;

/// The tag that holds the digest.
const TAG: &str = CONFIG_TAG;

/// Everything that a server's configuration consists of.
struct Configuration {
    files: Vec<File>,
    /// Holds secrets; not part of the digest.
    secret_files: Vec<File>,
    services: Vec<Service>,
    /// Names of the secrets that are delivered.
    secrets: Vec<String>,
}

impl Configuration {
    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for file in &self.files {
            digest.update(&file.path);
            digest.update(&file.bytes);
        }
        let names: Vec<&String> = self
            .secret_files
            .iter()
            .map(|file| &file.path)
            .chain(&self.secrets)
            .collect();
        digest.update(serde_json::to_vec(&(names, &self.services)).expect("services serialise"));
        hex(&digest.finalize()[..8])
    }
}

/// Whether the server's configuration is as it should be, its role included; unknown counts as not.
pub async fn is_configured(
    world: &World,
    roles: Option<&Roles>,
    server: &Server,
    host: &Host,
    tags: &Tags,
) -> bool {
    if let Job::Database(database) = &server.job {
        return super::agent::is_current(world, database, &server.name)
            .await
            .unwrap_or(false);
    }
    match configuration(world, server, host, false).await {
        Ok(wanted) if tags.get(TAG) != Some(&wanted.digest()) => false,
        Ok(_) if server.job != Job::App => true,
        Ok(_) => {
            let role = role_of(world, roles, &server.site);
            matches!(
                is_mistaken(world, &server.site, host, role).await,
                Ok(false)
            )
        }
        Err(_) => false,
    }
}

async fn configuration(
    world: &World,
    server: &Server,
    host: &Host,
    with_secrets: bool,
) -> Result<Configuration, Fault> {
    match &server.job {
        Job::App => app(world, server, host, with_secrets).await,
        Job::Balancer => balancer(world, server, host).await,
        // A database server is configured by its engine and its agent.
        Job::Database(_) => Ok(Configuration {
            files: Vec::new(),
            secret_files: Vec::new(),
            services: Vec::new(),
            secrets: Vec::new(),
        }),
    }
}

#[derive(Serialize)]
struct Backend {
    name: String,
    address: String,
    port: u16,
}

/// As [`World::host`] says it, from a list that was asked for already.
pub(super) fn host_in<'a>(
    hosts: &'a BTreeMap<ServerName, Host>,
    name: &ServerName,
) -> Result<&'a Host, Fault> {
    hosts
        .get(name)
        .ok_or_else(|| Fault::unavailable(format!("`{name}` is not there, or has no address yet")))
}

/// What `templates/haproxy/haproxy.cfg` is rendered with.
#[derive(Serialize)]
struct Values {
    listen: Vec<u16>,
    address: String,
    check: String,
    servers: Vec<Backend>,
}

async fn balancer(world: &World, server: &Server, host: &Host) -> Result<Configuration, Fault> {
    let balancer = world
        .stack
        .balancer
        .as_ref()
        .ok_or_else(|| Fault::new("the spec has no balancer"))?;
    let mut servers = Vec::new();
    let hosts = world.hosts_at(&server.site).await?;
    for behind in world.stack.group_at(&server.site, &balancer.to) {
        let address = host_in(&hosts, &behind.name)?.address.to_string();
        let port = behind.open.first().copied().unwrap_or(80);
        servers.push(Backend {
            name: behind.name.to_string(),
            address,
            port: health::port(world, &server.site, port),
        });
    }
    let listen: Vec<u16> = balancer
        .listen
        .iter()
        .map(|port| health::port(world, &server.site, *port))
        .collect();
    let values = Values {
        listen,
        address: host.address.to_string(),
        check: balancer.check.clone(),
        servers,
    };
    let path = format!("{}/haproxy.cfg", host.dirs.etc);
    let file = File {
        path: path.clone(),
        bytes: render::render(render::HAPROXY, values)?.into_bytes(),
        mode: 0o644,
        for_service_user: false,
    };
    let service = Service {
        name: "haproxy".to_owned(),
        before: vec![vec![
            "haproxy".to_owned(),
            "-c".to_owned(),
            "-f".to_owned(),
            path.clone(),
        ]],
        argv: vec![
            "haproxy".to_owned(),
            "-db".to_owned(),
            "-f".to_owned(),
            path,
        ],
        env: BTreeMap::new(),
        env_file: None,
        as_service_user: false,
        stop_signal: StopSignal::Term,
        stop_limit: Duration::from_secs(5),
        reload_signal: crate::shell::ReloadSignal::Hup,
        at_boot: true,
    };
    Ok(Configuration {
        files: vec![file],
        secret_files: Vec::new(),
        services: vec![service],
        secrets: Vec::new(),
    })
}

async fn app(
    world: &World,
    server: &Server,
    host: &Host,
    with_secrets: bool,
) -> Result<Configuration, Fault> {
    let recipe = world.stack.recipes.get(&server.recipe);
    let recipe =
        recipe.ok_or_else(|| Fault::new(format!("there is no recipe `{}`", server.recipe)))?;
    let port = server
        .open
        .first()
        .map(|port| health::port(world, &server.site, *port));
    let mut env = BTreeMap::from([
        ("HAFOG_STACK".to_owned(), world.stack.name.to_string()),
        ("HAFOG_SITE".to_owned(), server.site.to_string()),
        ("HAFOG_SERVER".to_owned(), server.name.to_string()),
        ("HAFOG_ADDRESS".to_owned(), host.address.to_string()),
        ("HAFOG_IMAGE".to_owned(), host.dirs.image.clone()),
        ("HAFOG_ROLE_FILE".to_owned(), role_file(host)),
        ("HAFOG_EXE".to_owned(), program()?),
    ]);
    if let Some(port) = port {
        env.insert("PORT".to_owned(), port.to_string());
    }
    let env_file = format!("{}/env", host.dirs.etc);
    let (secrets, lines) = environment(world, server, with_secrets).await?;
    let ca = format!("{}/database-ca.crt", host.dirs.etc);
    let mut files = Vec::new();
    if !world.stack.databases.is_empty() {
        env.insert("PGSSLMODE".to_owned(), "verify-full".to_owned());
        env.insert("PGSSLROOTCERT".to_owned(), ca.clone());
        files.push(File {
            path: ca,
            bytes: world.keys.ca_pem()?.as_bytes().to_vec(),
            mode: 0o644,
            for_service_user: false,
        });
    }
    let services = recipe
        .services
        .iter()
        .filter_map(|service| run(service, host, &env, &env_file))
        .collect();
    let secret_files = vec![File {
        path: env_file,
        bytes: lines.into_bytes(),
        mode: 0o600,
        for_service_user: false,
    }];
    Ok(Configuration {
        files,
        secret_files,
        services,
        secrets,
    })
}

/// This program, where a server's services can start it.
pub(super) fn program() -> Result<String, Fault> {
    let program = crate::program::path()
        .map_err(|error| Fault::new("cannot find the hafog program").because(error))?;
    Ok(program.to_string_lossy().into_owned())
}

/// The program of a service: part of the image, so that a server that moves to another image runs what is in it.
pub(super) fn launcher(host: &Host, service: &str) -> String {
    format!("{}/hafog-services/{service}", host.dirs.image)
}

fn run(
    service: &RecipeService,
    host: &Host,
    env: &BTreeMap<String, String>,
    env_file: &str,
) -> Option<Service> {
    service.run.as_ref()?;
    Some(Service {
        name: service.name.clone(),
        before: Vec::new(),
        argv: vec!["sh".to_owned(), launcher(host, &service.name)],
        env: env.clone(),
        env_file: Some(env_file.to_owned()),
        as_service_user: false,
        stop_signal: StopSignal::Term,
        stop_limit: Duration::from_secs(10),
        reload_signal: crate::shell::ReloadSignal::Hup,
        at_boot: true,
    })
}

/// Names of the secrets, and the lines of the environment file: every secret of the spec, and a URL per database.
async fn environment(
    world: &World,
    server: &Server,
    with_secrets: bool,
) -> Result<(Vec<String>, String), Fault> {
    let secrets: Vec<String> = world.stack.secrets.keys().cloned().collect();
    if !with_secrets {
        return Ok((secrets, String::new()));
    }
    let mut lines = String::new();
    for name in &secrets {
        let secret = world.secrets.read(name)?;
        lines.push_str(&format!("{name}={}\n", secret.expose()));
    }
    for database in &world.stack.databases {
        // The application uses its own site's node: a primary's writes, a standby's reads.
        let Some(node) = world.stack.nodes_at(&server.site, database).next() else {
            continue;
        };
        let address = world.host(&node.name).await?.address;
        let password = match &database.password {
            Some(name) => format!(":{}", percent(world.secrets.read(name)?.expose())),
            None => String::new(),
        };
        let user = &database.user;
        let url = format!(
            "{}://{user}{password}@{address}:{}/{user}",
            scheme(&database.engine),
            database.port
        );
        lines.push_str(&format!(
            "DATABASE_URL_{}={url}\n",
            database.name.as_str().to_uppercase().replace('-', "_")
        ));
        if world.stack.databases.len() == 1 {
            lines.push_str(&format!("DATABASE_URL={url}\n"));
        }
    }
    Ok((secrets, lines))
}

fn scheme(engine: &str) -> &str {
    if engine == "postgres" {
        "postgresql"
    } else {
        engine
    }
}

/// Percent-encoding of a URL's user information (RFC 3986 section 3.2.1).
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[async_trait]
impl Act for ConfigureServer {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let world = context.world;
        let server = world.server(&self.server)?;
        let Some(found) = world.find(&self.site, &self.server).await? else {
            return Ok(Standing::Ready);
        };
        let Some(host) = found.host else {
            return Ok(Standing::Ready);
        };
        let wanted = configuration(world, server, &host, false).await?;
        if found.tags.get(TAG) != Some(&wanted.digest()) {
            return Ok(Standing::Ready);
        }
        let states = world.shell(&self.site)?.services(&host).await?;
        let running = |name: &str| {
            states
                .iter()
                .any(|state| state.name == name && state.running)
        };
        if wanted
            .services
            .iter()
            .any(|service| !running(&service.name))
        {
            return Ok(Standing::Ready);
        }
        if server.job == Job::App {
            let (role, _) = current_role(world, &self.site).await?;
            if is_mistaken(world, &self.site, &host, role).await? {
                return Ok(Standing::Ready);
            }
        }
        Ok(Standing::done(format!(
            "{} runs {}",
            self.server,
            names(&wanted.services)
        )))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let server = world.server(&self.server).nothing_changed()?;
        let host = world.host(&self.server).await.nothing_changed()?;
        let wanted = configuration(world, server, &host, true)
            .await
            .nothing_changed()?;
        let shell = world.shell(&self.site).nothing_changed()?;
        for file in wanted.files.iter().chain(&wanted.secret_files) {
            shell.put(&host, file).await?;
        }
        if server.job == Job::App {
            let (role, epoch) = current_role(world, &self.site).await.partial()?;
            if is_mistaken(world, &self.site, &host, role)
                .await
                .partial()?
            {
                shell.put(&host, &role_token(&host, role, epoch)).await?;
            }
        }
        for service in &wanted.services {
            shell
                .service(
                    &host,
                    &service.name,
                    ServiceChange::Install(Box::new(service.clone())),
                )
                .await?;
            shell
                .service(&host, &service.name, ServiceChange::Restart)
                .await?;
        }
        let tags = Tags::from([(TAG.to_owned(), wanted.digest())]);
        world
            .cloud(&self.site)
            .partial()?
            .tag_server(&self.server, &tags)
            .await
    }
}

fn names(services: &[Service]) -> String {
    if services.is_empty() {
        return "nothing of its own".to_owned();
    }
    services
        .iter()
        .map(|service| service.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Where a server keeps its role token.
fn role_file(host: &Host) -> String {
    format!("{}/role", host.dirs.etc)
}

fn role_word(role: SiteRole) -> &'static str {
    match role {
        SiteRole::Primary => "primary",
        SiteRole::Standby => "standby",
    }
}

fn role_token(host: &Host, role: SiteRole, epoch: u64) -> File {
    File {
        path: role_file(host),
        bytes: format!("{} {epoch}\n", role_word(role)).into_bytes(),
        mode: 0o644,
        for_service_user: false,
    }
}

/// What a server of `site` is to believe: the role that its site has, as of the newest epoch.
async fn current_role(world: &World, site: &SiteName) -> Result<(SiteRole, u64), Fault> {
    let roles = world.roles().await?;
    let role = role_of(world, roles.as_ref(), site);
    let mut epoch = 0;
    for database in &world.stack.databases {
        let writer = world.writer(&database.name).await?;
        epoch = epoch.max(writer.map_or(0, |(writer, _)| writer.epoch));
    }
    Ok((role, epoch))
}

fn role_of(world: &World, roles: Option<&Roles>, site: &SiteName) -> SiteRole {
    let primary = roles.map_or(&world.stack.primary, |roles| &roles.primary);
    if site == primary {
        SiteRole::Primary
    } else {
        SiteRole::Standby
    }
}

/// Whether the server was told another role than its site has: it was off when the site's role changed.
async fn is_mistaken(
    world: &World,
    site: &SiteName,
    host: &Host,
    role: SiteRole,
) -> Result<bool, Fault> {
    let told = world.shell(site)?.get(host, &role_file(host)).await?;
    Ok(!told.is_some_and(|told| is_token_of(&told, role)))
}

fn is_token_of(told: &[u8], role: SiteRole) -> bool {
    told.starts_with(format!("{} ", role_word(role)).as_bytes())
}

/// The application servers of a site: those that run, and one line for each that is there and does not.
async fn app_servers(world: &World, site: &SiteName) -> Result<(Vec<Host>, Vec<String>), Fault> {
    let found = world.cloud(site)?.servers().await?;
    let mut running = Vec::new();
    let mut asleep = Vec::new();
    for server in world.stack.servers_at(site) {
        let Some(found) = found.iter().find(|found| found.name == server.name) else {
            continue;
        };
        match (&found.state, &found.host) {
            _ if server.job != Job::App => {}
            (ServerState::Running, Some(host)) => running.push(host.clone()),
            (ServerState::Off, _) => asleep.push(format!("{} is off", server.name)),
            (ServerState::Frozen, _) => asleep.push(format!("{} is frozen", server.name)),
            _ => asleep.push(format!("{} does not run", server.name)),
        }
    }
    Ok((running, asleep))
}

#[async_trait]
impl Act for SetRoleToken {
    /// A server that does not run cannot be told, and must not hold up those that do: it is named, and the next `up`
    /// or `clone` tells it.
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        let shell = context.world.shell(&self.site)?;
        let (running, asleep) = app_servers(context.world, &self.site).await?;
        for host in &running {
            let wanted = role_token(host, self.role, self.epoch);
            if shell.get(host, &wanted.path).await?.as_deref() != Some(&wanted.bytes) {
                return Ok(Standing::Ready);
            }
        }
        let told = format!(
            "{} servers of {} have the role token `{}`",
            running.len(),
            self.site,
            role_word(self.role)
        );
        Ok(Standing::done(match asleep.is_empty() {
            true => told,
            false => format!("{told}; not told: {}", asleep.join(", ")),
        }))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let shell = context.world.shell(&self.site).nothing_changed()?;
        let (running, _) = app_servers(context.world, &self.site)
            .await
            .nothing_changed()?;
        for host in &running {
            let token = role_token(host, self.role, self.epoch);
            shell.put(host, &token).await?;
        }
        Ok(())
    }
}

/// Whether one application server answers the balancer's check, asked straight.
pub(super) async fn answers(
    world: &World,
    site: &SiteName,
    name: &ServerName,
) -> Result<(), String> {
    let Some(balancer) = &world.stack.balancer else {
        return Ok(());
    };
    let server = world.server(name).map_err(|fault| fault.to_string())?;
    if server.group != balancer.to {
        return Ok(());
    }
    let host = world.host(name).await.map_err(|fault| fault.to_string())?;
    let port = health::port(world, site, server.open.first().copied().unwrap_or(80));
    let ask = HttpAsk {
        to: SocketAddr::new(host.address, port),
        host: name.to_string(),
        path: balancer.check.clone(),
        tls: false,
        limit: Duration::from_secs(2),
    };
    match world.probe.http(&ask).await {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("{name} answers {}", answer.status)),
        Err(fault) => Err(fault.to_string()),
    }
}
