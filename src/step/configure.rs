//! Configuration of a server: files, environment and services, rendered from the stack and put in place.
//!
//! Its digest is a tag of the server, so that a second `up` sees that there is nothing to do. Secrets are not part of
//! the digest: only the names of the references are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::proxy::Proxy;
use super::{
    Act, Context, Standing, Tags, balancer, cache, files, packages, program, role, rotation,
};
use crate::db::registry;
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::cron::CRON;
use crate::model::digest::hex;
use crate::model::id::{DatabaseName, ServerName, SiteName};
use crate::model::posix::assignment;
use crate::model::roles::{Roles, Writer};
use crate::model::stack::{Job, Recipe, SPARE_GROUP, Server, Stack};
use crate::plan::action::*;
use crate::shell::{File, Host, Service, ServiceChange, ServiceState, Shell};
use crate::world::World;

/// The tag that holds the digest.
const TAG: &str = CONFIG_TAG;

/// The node of a database that the applications of a site use: a primary's writes, a standby's reads.
#[derive(Clone, Debug, Serialize)]
pub struct UsedNode {
    pub database: DatabaseName,
    pub node: ServerName,
    /// `None`: it is not there.
    pub address: Option<IpAddr>,
}

/// Everything that a server's configuration consists of.
#[derive(Default)]
struct Configuration {
    files: Vec<File>,
    /// Holds secrets; not part of the digest.
    secret_files: Vec<File>,
    services: Vec<Service>,
    /// Services that come with a package, which read the environment when they start.
    units: Vec<String>,
    /// What has one file each.
    proxies: Vec<Proxy>,
    /// Names of the secrets that are delivered.
    secrets: Vec<String>,
    /// Where the databases' URLs lead.
    nodes: Vec<UsedNode>,
    /// The spec has other services than the server's image. These are the image's, until it is deployed.
    is_ahead: bool,
}

impl Configuration {
    fn of(proxies: Vec<Proxy>) -> Configuration {
        Configuration {
            proxies,
            ..Configuration::default()
        }
    }

    fn all_services(&self) -> impl Iterator<Item = &Service> {
        let proxies = self.proxies.iter().map(|proxy| &proxy.service);
        self.services.iter().chain(proxies)
    }

    fn tag(&self) -> String {
        let ahead = if self.is_ahead { AHEAD } else { "" };
        format!("{ahead}{}", self.digest())
    }

    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        let proxies = self.proxies.iter();
        for file in self.files.iter().chain(proxies.map(|proxy| &proxy.file)) {
            digest.update(&file.path);
            digest.update(&file.bytes);
        }
        let names: Vec<&String> = self
            .secret_files
            .iter()
            .map(|file| &file.path)
            .chain(&self.secrets)
            .collect();
        let services: Vec<&Service> = self.all_services().collect();
        let rest = (names, services, &self.units, &self.nodes);
        digest.update(serde_json::to_vec(&rest).expect("services serialise"));
        hex(&digest.finalize()[..8])
    }
}

/// Whether the server's configuration is as it should be, its role included; unknown counts as not. `nodes` are those
/// of its site.
pub async fn is_configured(
    world: &World,
    roles: Option<&Roles>,
    nodes: &[UsedNode],
    server: &Server,
    host: &Host,
    tags: &Tags,
) -> bool {
    if let Job::Database(database) = &server.job {
        return super::agent::is_current(world, database, &server.name)
            .await
            .unwrap_or(false);
    }
    match configuration(world, server, host, nodes, false).await {
        Ok(wanted) if tags.get(TAG) != Some(&wanted.tag()) => false,
        Ok(_) if server.job != Job::App => true,
        Ok(_) => {
            let role = role::of(world, roles, &server.site);
            let mistaken = role::is_mistaken(world, &server.site, host, role).await;
            matches!(mistaken, Ok(false))
        }
        Err(_) => false,
    }
}

async fn configuration(
    world: &World,
    server: &Server,
    host: &Host,
    nodes: &[UsedNode],
    with_secrets: bool,
) -> Result<Configuration, Fault> {
    match &server.job {
        Job::App => app(world, server, host, nodes, with_secrets),
        Job::Balancer => {
            let first = balancer::configuration(world, server, host).await?;
            Ok(Configuration::of(vec![first]))
        }
        Job::Cache => {
            let second = balancer::configuration(world, server, host).await?;
            let cache = cache::configuration(world, server, host)?;
            Ok(Configuration::of(vec![second, cache]))
        }
        // A database server is configured by its engine and its agent.
        Job::Database(_) => Ok(Configuration::default()),
    }
}

/// What the spec says, with the services that the server's image has.
async fn by_its_image(
    world: &World,
    server: &Server,
    host: &Host,
    with_secrets: bool,
) -> Result<Configuration, Fault> {
    let nodes = nodes(world, &server.site).await?;
    let mut wanted = configuration(world, server, host, &nodes, with_secrets).await?;
    if server.job != Job::App {
        return Ok(wanted);
    }
    if let Some(listed) = listed(world, host).await? {
        let services = services(world, server, host, &listed.services)?;
        let units = match world.has_machines(&server.site) {
            true => listed.units,
            false => Vec::new(),
        };
        wanted.is_ahead = (&services, &units) != (&wanted.services, &wanted.units);
        (wanted.services, wanted.units) = (services, units);
    }
    Ok(wanted)
}

fn app(
    world: &World,
    server: &Server,
    host: &Host,
    nodes: &[UsedNode],
    with_secrets: bool,
) -> Result<Configuration, Fault> {
    let recipe = world.stack.recipes.get(&server.recipe);
    let recipe =
        recipe.ok_or_else(|| Fault::new(format!("there is no recipe `{}`", server.recipe)))?;
    let env = variables(world, server, host)?;
    let [plain, env_file] = environment_files(host);
    let secrets: Vec<String> = world.stack.secrets.keys().cloned().collect();
    let lines = match with_secrets {
        true => environment(world, &secrets, nodes)?,
        false => String::new(),
    };
    let mut files = Vec::new();
    if !world.stack.databases.is_empty() {
        files.push(File {
            path: database_ca(host),
            bytes: world.keys.ca_pem()?.as_bytes().to_vec(),
            mode: 0o644,
            for_service_user: false,
        });
    }
    let services = services(world, server, host, &Listed::of(recipe).services)?;
    let units = match world.has_machines(&server.site) {
        true => packages::units(recipe),
        false => Vec::new(),
    };
    if !units.is_empty() {
        let lines = env.iter().map(|(name, value)| assignment(name, value));
        files.push(File {
            path: plain,
            bytes: lines.collect::<String>().into_bytes(),
            mode: 0o644,
            for_service_user: false,
        });
    }
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
        units,
        proxies: Vec::new(),
        secrets,
        nodes: nodes.to_vec(),
        is_ahead: false,
    })
}

/// An image's services on one of its servers. They have their own programs in the image.
fn services(
    world: &World,
    server: &Server,
    host: &Host,
    names: &[String],
) -> Result<Vec<Service>, Fault> {
    let env = variables(world, server, host)?;
    let [_, env_file] = environment_files(host);
    let services = names.iter().filter_map(|name| match name.as_str() {
        CRON => is_first(&world.stack, server).then(|| cron(host, &env, &env_file)),
        name => Some(own(name, host, &env, &env_file)),
    });
    Ok(services
        .chain(files::service(world, server, host)?)
        .collect())
}

/// What services of an application server find in their environment, besides what is secret.
fn variables(
    world: &World,
    server: &Server,
    host: &Host,
) -> Result<BTreeMap<String, String>, Fault> {
    let port = server
        .open
        .first()
        .map(|port| world.port(&server.site, *port));
    let mut env = BTreeMap::from([
        ("HAFOG_STACK".to_owned(), world.stack.name.to_string()),
        ("HAFOG_SITE".to_owned(), server.site.to_string()),
        ("HAFOG_SERVER".to_owned(), server.name.to_string()),
        ("HAFOG_ADDRESS".to_owned(), host.address.to_string()),
        ("HAFOG_IMAGE".to_owned(), host.dirs.image.clone()),
        ("HAFOG_ROLE_FILE".to_owned(), role::path(host)),
        ("HAFOG_EXE".to_owned(), program::path(world, host)?),
        (DATABASES.to_owned(), databases(world)),
    ]);
    env.extend(files::variables(world, server, host));
    if let Some(port) = port {
        env.insert("PORT".to_owned(), port.to_string());
    }
    if !world.stack.databases.is_empty() {
        env.insert("PGSSLMODE".to_owned(), "verify-full".to_owned());
        env.insert("PGSSLROOTCERT".to_owned(), database_ca(host));
    }
    Ok(env)
}

fn database_ca(host: &Host) -> String {
    format!("{}/database-ca.crt", host.dirs.etc)
}

/// Of an application server: what everybody there may read, and what is secret.
pub(super) fn environment_files(host: &Host) -> [String; 2] {
    ["server.env", "env"].map(|name| format!("{}/{name}", host.dirs.etc))
}

/// The program of a service: part of the image, so that a server that moves to another image runs what is in it.
pub(super) fn launcher(host: &Host, service: &str) -> String {
    format!("{}/hafog-services/{service}", host.dirs.image)
}

/// The services of an image, as they are written down in it: the recipe may be another one by now.
#[derive(Serialize, Deserialize)]
pub(super) struct Listed {
    services: Vec<String>,
    /// Those that come with a package.
    units: Vec<String>,
}

impl Listed {
    pub(super) fn of(recipe: &Recipe) -> Listed {
        let own = recipe.services.iter();
        let own = own.filter(|service| service.run.is_some());
        let own = own.map(|service| service.name.clone());
        let cron = (!recipe.cron.is_empty()).then(|| CRON.to_owned());
        Listed {
            services: own.chain(cron).collect(),
            units: packages::units(recipe),
        }
    }

    pub(super) fn file(&self, host: &Host) -> (String, Vec<u8>, u32) {
        let bytes = serde_json::to_vec(self).expect("names are JSON");
        (list_path(host), bytes, 0o644)
    }
}

fn list_path(host: &Host) -> String {
    format!("{}/hafog-services.json", host.dirs.image)
}

fn own(name: &str, host: &Host, env: &BTreeMap<String, String>, env_file: &str) -> Service {
    let argv = vec!["sh".to_owned(), launcher(host, name)];
    Service {
        env: env.clone(),
        env_file: Some(env_file.to_owned()),
        ..Service::new(name, argv, Duration::from_secs(10))
    }
}

/// What is done at its times, part of the image as well.
pub(super) fn jobs(host: &Host) -> String {
    format!("{}/hafog-cron.json", host.dirs.image)
}

/// One server of a site does the jobs of a recipe: the first that is no hot spare.
fn is_first(stack: &Stack, server: &Server) -> bool {
    let mut apps = stack
        .servers_at(&server.site)
        .filter(|one| one.job == Job::App && one.group.as_str() != SPARE_GROUP);
    apps.find(|one| one.recipe == server.recipe)
        .is_some_and(|first| first.name == server.name)
}

fn cron(host: &Host, env: &BTreeMap<String, String>, env_file: &str) -> Service {
    let argv = vec![env["HAFOG_EXE"].clone(), "cron".to_owned(), jobs(host)];
    // Longer than a job may take to end when it is asked to.
    Service {
        env: env.clone(),
        env_file: Some(env_file.to_owned()),
        ..Service::new(CRON, argv, Duration::from_secs(15))
    }
}

/// The nodes that the applications of a site use, by what is known of the stack and of its servers' addresses.
pub fn used_nodes(
    stack: &Stack,
    site: &SiteName,
    roles: Option<&Roles>,
    writers: &BTreeMap<DatabaseName, Writer>,
    address: impl Fn(&ServerName) -> Option<IpAddr>,
) -> Vec<UsedNode> {
    let heads = roles.map_or(&[][..], |roles| &roles.heads);
    let used = stack.databases.iter().filter_map(|database| {
        let writer = writers.get(&database.name);
        let writer = writer.and_then(|writer| writer.node.as_ref());
        let node = *stack.ranked_at(site, database, writer, heads).first()?;
        Some(UsedNode {
            database: database.name.clone(),
            node: node.name.clone(),
            address: address(&node.name),
        })
    });
    used.collect()
}

/// The same, asked for anew.
async fn nodes(world: &World, site: &SiteName) -> Result<Vec<UsedNode>, Fault> {
    if world.stack.databases.is_empty() {
        return Ok(Vec::new());
    }
    let hosts = world.hosts_at(site).await?;
    let roles = world.roles().await?;
    let writers = world.writers().await?;
    let address = |node: &ServerName| Some(hosts.get(node)?.address);
    let stack = &world.stack;
    Ok(used_nodes(stack, site, roles.as_ref(), &writers, address))
}

/// The names of the databases, as they are in the variables of their URLs.
fn databases(world: &World) -> String {
    let names = world.stack.databases.iter();
    let names: Vec<String> = names.map(|database| variable(&database.name)).collect();
    names.join(" ")
}

/// `main-2` is `MAIN_2`.
fn variable(database: &DatabaseName) -> String {
    database.as_str().to_uppercase().replace('-', "_")
}

/// The lines of the environment file: every secret of the spec, and a URL per database.
fn environment(world: &World, secrets: &[String], nodes: &[UsedNode]) -> Result<String, Fault> {
    // For whoever comes from elsewhere than a service, as cron does.
    let mut lines = assignment(DATABASES, &databases(world));
    for name in secrets {
        let secret = world.secrets.read(name)?;
        lines.push_str(&assignment(name, secret.expose()));
    }
    for used in nodes {
        let database = world.database(&used.database)?;
        let Some(address) = used.address else {
            let why = format!("`{}` is not there, or has no address yet", used.node);
            return Err(Fault::unavailable(why));
        };
        let password = match &database.password {
            Some(name) => format!(":{}", percent(world.secrets.read(name)?.expose())),
            None => String::new(),
        };
        let user = &database.user;
        let url = format!(
            "{}://{user}{password}@{address}:{}/{user}",
            scheme(&database.engine)?,
            database.port
        );
        let name = format!("DATABASE_URL_{}", variable(&database.name));
        lines.push_str(&assignment(&name, &url));
        if world.stack.databases.len() == 1 {
            lines.push_str(&assignment("DATABASE_URL", &url));
        }
    }
    Ok(lines)
}

fn scheme(engine: &str) -> Result<&'static str, Fault> {
    let about = registry::find(engine);
    let about = about.ok_or_else(|| Fault::new(format!("there is no engine `{engine}`")))?;
    Ok(about.scheme)
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
        let wanted = by_its_image(world, server, &host, false).await?;
        if found.tags.get(TAG) != Some(&wanted.tag()) {
            return Ok(Standing::Ready);
        }
        let states = world.shell(&self.site)?.services(&host).await?;
        let running = |name: &str| {
            states
                .iter()
                .any(|state| state.name == name && state.running)
        };
        let mut services = wanted.all_services();
        if services.any(|service| !running(&service.name)) {
            return Ok(Standing::Ready);
        }
        if server.job == Job::App {
            if left_over(&wanted, &states).next().is_some() {
                return Ok(Standing::Ready);
            }
            let (role, _) = role::current(world, &self.site).await?;
            if role::is_mistaken(world, &self.site, &host, role).await? {
                return Ok(Standing::Ready);
            }
        }
        Ok(Standing::done(format!(
            "{} runs {}",
            self.server,
            names(&wanted)
        )))
    }

    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let server = world.server(&self.server).nothing_changed()?;
        let host = world.host(&self.server).await.nothing_changed()?;
        let tag = put(world, server, &host).await?;
        let found = world.find(&self.site, &self.server).await.partial()?;
        if found.is_some_and(|found| is_changing(&found.tags)) {
            rotation::let_in(world, &self.server).await?;
        }
        let tags = Tags::from([(TAG.to_owned(), tag)]);
        world
            .cloud(&self.site)
            .partial()?
            .tag_server(&self.server, &tags)
            .await
    }
}

/// Writes all that a server is configured with and starts its services anew. Returns the tag.
pub(super) async fn put(world: &World, server: &Server, host: &Host) -> Result<String, Trouble> {
    let wanted = by_its_image(world, server, host, true).await;
    let wanted = wanted.nothing_changed()?;
    let shell = world.shell(&server.site).nothing_changed()?;
    program::bring(world, host).await?;
    for file in wanted.files.iter().chain(&wanted.secret_files) {
        shell.put(host, file).await?;
    }
    if server.job == Job::App {
        let (role, epoch) = role::current(world, &server.site).await.partial()?;
        let mistaken = role::is_mistaken(world, &server.site, host, role).await;
        if mistaken.partial()? {
            shell.put(host, &role::token(host, role, epoch)).await?;
        }
        files::bring(world, server, host).await?;
        let states = shell.services(host).await.partial()?;
        for name in left_over(&wanted, &states) {
            shell.service(host, name, ServiceChange::Remove).await?;
        }
    }
    for service in &wanted.services {
        install(shell.as_ref(), host, service).await?;
        let started = shell.service(host, &service.name, ServiceChange::Restart);
        if let Err(trouble) = started.await {
            return Err(with_its_words(world, host, &service.name, trouble).await);
        }
    }
    packages::restart(shell.as_ref(), host, &wanted.units).await?;
    for proxy in &wanted.proxies {
        if let Err(trouble) = proxy.bring(world, server, host).await {
            return Err(with_its_words(world, host, &proxy.service.name, trouble).await);
        }
    }
    Ok(wanted.tag())
}

async fn install(shell: &dyn Shell, host: &Host, service: &Service) -> Result<(), Trouble> {
    let install = ServiceChange::Install(Box::new(service.clone()));
    shell.service(host, &service.name, install).await
}

/// Makes the services of an application server those that its image has, which may be another one than the recipe
/// makes now. They are not started.
pub(super) async fn follow_image(
    world: &World,
    server: &Server,
    host: &Host,
) -> Result<(), Trouble> {
    let shell = world.shell(&server.site).nothing_changed()?;
    let Some(listed) = listed(world, host).await.nothing_changed()? else {
        return Ok(());
    };
    let services = services(world, server, host, &listed.services).nothing_changed()?;
    let there = shell.services(host).await.nothing_changed()?;
    for state in &there {
        if !services.iter().any(|service| service.name == state.name) {
            shell
                .service(host, &state.name, ServiceChange::Remove)
                .await?;
        }
    }
    for service in &services {
        if !there.iter().any(|state| state.name == service.name) {
            install(shell.as_ref(), host, service).await?;
        }
    }
    Ok(())
}

/// `None`: an image of an older hafog, or a server that has none yet.
async fn listed(world: &World, host: &Host) -> Result<Option<Listed>, Fault> {
    let path = list_path(host);
    let Some(list) = world.shell(&host.site)?.get(host, &path).await? else {
        return Ok(None);
    };
    let listed = serde_json::from_slice(&list).map_err(|error| {
        Fault::new(format!("cannot understand `{path}` on `{}`", host.name)).because(error)
    })?;
    Ok(Some(listed))
}

/// Services of an application server that its recipe has no longer.
fn left_over<'a>(
    wanted: &'a Configuration,
    states: &'a [ServiceState],
) -> impl Iterator<Item = &'a str> {
    let names = states.iter().map(|state| state.name.as_str());
    names.filter(|name| !wanted.all_services().any(|service| service.name == *name))
}

/// Why a service does not start is in what it said last, which may be more than it should say.
async fn with_its_words(world: &World, host: &Host, service: &str, trouble: Trouble) -> Trouble {
    const LINES: usize = 5;
    const END: usize = 64 << 10;
    let Ok(shell) = world.shell(&host.site) else {
        return trouble;
    };
    let path = format!("{}/{service}.log", host.dirs.log);
    let end = shell.end_of(host, &path, END).await.unwrap_or_default();
    let mut log = String::from_utf8_lossy(&end).into_owned();
    // Its first line may begin in the middle of a secret.
    if end.len() == END {
        log = log
            .split_once('\n')
            .map_or(String::new(), |(_, rest)| rest.to_owned());
    }
    for name in world.stack.secrets.keys() {
        let Ok(secret) = world.secrets.read(name) else {
            return trouble;
        };
        let secret = secret.expose();
        for form in [secret.to_owned(), percent(secret)] {
            if !form.is_empty() {
                log = log.replace(&form, "***");
            }
        }
    }
    let lines = log.lines().filter(|line| !line.trim().is_empty());
    trouble.map(|fault| fault.because_last(LINES, lines))
}

fn names(of: &Configuration) -> String {
    let own = of.all_services().map(|service| service.name.as_str());
    let names: Vec<&str> = own.chain(of.units.iter().map(String::as_str)).collect();
    match names.as_slice() {
        [] => "nothing of its own".to_owned(),
        names => names.join(", "),
    }
}
