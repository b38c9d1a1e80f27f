//! Stacks to simulate.

use std::collections::BTreeMap;

use crate::model::id::*;
use crate::model::stack::*;
use crate::model::units::{Bytes, Span, Ttl};

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
            listen: vec![80],
            check: "/healthz".to_owned(),
        }),
        databases: vec![database()],
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

fn site(name: &str) -> Site {
    Site {
        name: name.into(),
        cloud: "local".to_owned(),
        region: None,
        tier: Tier::Warm,
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
        builtin,
    };
    let mut web = plain("web", None);
    web.services.push(RecipeService {
        name: "web".to_owned(),
        run: Some("/srv/shop/serve".to_owned()),
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
    }
}
