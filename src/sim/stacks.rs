//! Stacks to simulate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::SimWorld;
use crate::cloud::{Cloud, OnceKey, ServerWant};
use crate::db::keys::Keys;
use crate::db::{Engine, Node, Reach};
use crate::dns::{DnsHost, RecordChange};
use crate::model::id::*;
use crate::model::record::{RecordSet, RecordType};
use crate::model::stack::*;
use crate::model::units::{Bytes, Span, Ttl};
use crate::shell::{Service, ServiceChange, Shell, StopSignal};

/// Two sites, two web servers, a database with a replica in its own site, a balancer, one name.
///
/// What `hafog.yaml` would resolve to; the second store is the arbiter.
pub fn small() -> Stack {
    let sites = ["east", "west"];
    Stack {
        name: "shop".into(),
        sites: sites.iter().map(|name| site(name)).collect(),
        primary: "east".into(),
        recipes: recipes(),
        servers: sites.iter().flat_map(|name| servers(name)).collect(),
        balancer: Some(Balancer {
            to: "web".into(),
            spare: None,
            listen: vec![80],
            check: "/healthz".to_owned(),
        }),
        cache: None,
        databases: vec![database()],
        files: Vec::new(),
        zones: vec![Zone {
            name: "shop.test".into(),
            host: "serve".to_owned(),
            settings: BTreeMap::new(),
        }],
        names: vec![Name {
            host: "www.shop.test".into(),
            to: BALANCER_GROUP.into(),
            zone: "shop.test".into(),
            ttl: Ttl(3600),
            failover_ttl: Ttl(60),
            target: "www.hafog-shop.shop.test".into(),
        }],
        health: vec![Check::Http {
            url: "http://www.shop.test/healthz".to_owned(),
            status: 200,
            contains: Some("ok".to_owned()),
        }],
        secrets: BTreeMap::from([(
            "DATABASE_PASSWORD".to_owned(),
            SecretRef::Env("DATABASE_PASSWORD".to_owned()),
        )]),
        stores: vec![store(".hafog", false), store("arbiter", true)],
        self_fence: SelfFence::Isolated,
        commit_window: Span::secs(30 * 60),
    }
}

/// Uploads of the application servers, of which the first of a site writes.
pub fn uploads() -> Files {
    Files {
        name: "uploads".into(),
        on: "web".into(),
        path: "/srv/uploads".to_owned(),
        user: None,
        every: Span::secs(60),
        bandwidth: None,
        most_deleted: 1000,
        lag_warn: Span::secs(600),
        lag_critical: Span::secs(3600),
    }
}

fn site(name: &str) -> Site {
    Site {
        network: None,
        address: None,
        name: name.into(),
        cloud: "local".to_owned(),
        region: None,
        tier: Tier::Warm,
        seals: true,
        copies: false,
        hosts: Vec::new(),
    }
}

fn servers(site: &str) -> Vec<Server> {
    let database = || Job::Database("main".into());
    vec![
        server(site, "web", 1, "web", Job::App, 8080),
        server(site, "web", 2, "web", Job::App, 8080),
        server(site, "db", 1, "postgres", database(), 5432),
        server(site, "db", 2, "postgres", database(), 5432),
        server(site, BALANCER_GROUP, 1, "haproxy", Job::Balancer, 80),
    ]
}

fn server(site: &str, group: &str, index: u32, recipe: &str, job: Job, port: u16) -> Server {
    Server {
        name: ServerName::new(format!("shop-{site}-{group}-{index}")),
        site: site.into(),
        group: group.into(),
        index,
        recipe: recipe.into(),
        job,
        size: Size {
            cpu: 1,
            memory: Bytes(1 << 30),
        },
        disk: None,
        open: vec![port],
    }
}

fn recipes() -> BTreeMap<RecipeName, Recipe> {
    let plain = |name: &str, builtin| Recipe {
        name: name.into(),
        base: "debian-12".to_owned(),
        packages: Vec::new(),
        code: None,
        files: Vec::new(),
        run: Vec::new(),
        services: Vec::new(),
        cron: Vec::new(),
        users: Vec::new(),
        sysctl: Vec::new(),
        check: None,
        builtin,
    };
    let mut web = plain("web", None);
    web.services.push(RecipeService {
        name: "web".to_owned(),
        run: Some("/srv/shop/serve".to_owned()),
        user: None,
    });
    [
        web,
        plain("postgres", Some(Builtin::Postgres { major: None })),
        plain("haproxy", Some(Builtin::Haproxy)),
    ]
    .into_iter()
    .map(|recipe| (recipe.name.clone(), recipe))
    .collect()
}

fn database() -> Database {
    Database {
        name: "main".into(),
        engine: "postgres".to_owned(),
        on: "db".into(),
        replicas: 1,
        port: 5432,
        user: "shop".to_owned(),
        password: Some("DATABASE_PASSWORD".to_owned()),
        lag_warn: Span::secs(10),
        lag_critical: Span::secs(60),
        write_lease: Span::secs(10),
        keep_log: Bytes(1 << 30),
    }
}

fn store(folder: &str, arbiter: bool) -> Store {
    Store {
        folder: folder.to_owned(),
        arbiter,
        remote: None,
    }
}

/// Makes the whole stack as `up` and `clone` would leave it, through the ports, without journal or documents.
///
/// A place to start from for tests of what comes later. Panics when a call fails.
pub async fn stand(world: &SimWorld, stack: &Stack, keys: Arc<Keys>) {
    for site in &stack.sites {
        stand_site(world, stack, &site.name).await;
    }
    for database in &stack.databases {
        stand_database(world, stack, database, &keys).await;
    }
    for name in &stack.names {
        publish(world, stack, name).await;
    }
}

/// The database's node on a server that exists.
pub fn node(world: &SimWorld, database: &Database, server: &ServerName) -> Node {
    let there = world.server(server).expect("the server exists");
    Node {
        database: database.clone(),
        host: there.host(server),
        peers: world.addresses(),
        lacks_peers: false,
    }
}

async fn stand_site(world: &SimWorld, stack: &Stack, site: &SiteName) {
    let cloud = world.cloud(site);
    let tags = BTreeMap::new();
    for recipe in stack.recipes.keys() {
        let builder = ServerName::new(format!("build-{site}-{recipe}"));
        make_server(world, site, &builder, None).await;
        let image = image_of(recipe);
        cloud.seal(&builder, &image, &tags).await.expect("sealed");
        cloud.delete_server(&builder).await.expect("deleted");
    }
    for server in stack.servers_at(site) {
        let image = image_of(&server.recipe);
        make_server(world, site, &server.name, Some(image)).await;
        let service = match &server.job {
            Job::App => "web",
            Job::Balancer | Job::Cache => "haproxy",
            Job::Database(_) => continue,
        };
        let host = world.server(&server.name).expect("made").host(&server.name);
        let install = ServiceChange::Install(Box::new(plain_service(service)));
        for change in [install, ServiceChange::Start] {
            let done = world.shell(site).service(&host, service, change).await;
            done.expect("the service starts");
        }
    }
}

fn image_of(recipe: &RecipeName) -> ImageName {
    ImageName::new(format!("{recipe}-000000000001"))
}

async fn make_server(
    world: &SimWorld,
    site: &SiteName,
    name: &ServerName,
    image: Option<ImageName>,
) {
    let want = ServerWant {
        name: name.clone(),
        image,
        base: "debian-12".to_owned(),
        size: Size {
            cpu: 1,
            memory: Bytes(1 << 30),
        },
        disk: None,
        open: Vec::new(),
        tags: BTreeMap::new(),
    };
    let key = OnceKey(format!("stand {name}"));
    let made = world.cloud(site).create_server(&want, &key).await;
    made.expect("created");
    world.advance(Duration::from_secs(60));
}

fn plain_service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        before: Vec::new(),
        argv: vec![name.to_owned()],
        env: BTreeMap::new(),
        env_file: None,
        as_service_user: false,
        stop_signal: StopSignal::Term,
        stop_limit: Duration::from_secs(10),
        reload_signal: crate::shell::ReloadSignal::Hup,
        at_boot: true,
    }
}

/// The primary, its replicas, and at each other site one replica of the primary with its own replicas below it.
async fn stand_database(world: &SimWorld, stack: &Stack, database: &Database, keys: &Arc<Keys>) {
    let engine = world.engine(&database.engine);
    let reach = Reach {
        shell: world.shell(&stack.primary),
        keys: keys.clone(),
    };
    let mut primary: Option<Node> = None;
    for site in std::iter::once(&stack.primary).chain(stack.others(&stack.primary).map(|s| &s.name))
    {
        let mut nodes = stack
            .nodes_at(site, database)
            .map(|server| node(world, database, &server.name));
        let first = nodes.next().expect("a database has a node at each site");
        match &primary {
            None => engine.create(&first, None, &reach).await.expect("created"),
            Some(primary) => engine.seed(primary, &first, &reach).await.expect("seeded"),
        }
        for replica in nodes {
            let seeded = engine.seed(&first, &replica, &reach).await;
            seeded.expect("seeded");
        }
        primary.get_or_insert(first);
    }
}

async fn publish(world: &SimWorld, stack: &Stack, name: &Name) {
    let dns = world.dns(&name.zone);
    dns.open_zone().await.expect("opened");
    let addresses = stack
        .group_at(&stack.primary, &name.to)
        .filter_map(|server| world.address(&server.name))
        .map(|address| address.to_string());
    let target = RecordSet {
        host: name.target.clone(),
        kind: RecordType::A,
        ttl: name.ttl,
        values: addresses.collect(),
    };
    let alias = RecordSet {
        host: name.host.clone(),
        kind: RecordType::Cname,
        ttl: name.ttl,
        values: [name.target.to_string()].into(),
    };
    let mut sets = vec![target];
    if name.target != name.host {
        sets.push(alias);
    }
    let changes: Vec<RecordChange> = sets
        .into_iter()
        .map(|set| RecordChange {
            host: set.host.clone(),
            kind: set.kind,
            before: None,
            after: Some(set),
        })
        .collect();
    dns.apply(&changes).await.expect("published");
}
