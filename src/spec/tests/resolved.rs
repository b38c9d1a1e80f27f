//! What a good spec becomes.

use super::*;
use crate::model::stack::*;
use crate::model::units::Ttl;

#[test]
fn the_small_stack_is_resolved() {
    let stack = good(&small()).stack;
    let names: Vec<&str> = stack
        .servers
        .iter()
        .map(|server| server.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "shop-east-web-1",
            "shop-east-web-2",
            "shop-east-db-1",
            "shop-east-db-2",
            "shop-east-balancer-1",
            "shop-west-web-1",
            "shop-west-web-2",
            "shop-west-db-1",
            "shop-west-db-2",
            "shop-west-balancer-1",
        ]
    );
    let database = &stack.databases[0];
    assert_eq!(
        serde_json::to_value(database).unwrap(),
        serde_json::json!({
            "name": "main", "engine": "postgres", "on": "db", "replicas": 1, "port": 5432, "user": "shop",
            "password": "DATABASE_PASSWORD", "lag_warn": "10s", "lag_critical": "1m", "write_lease": "10s",
            "keep_log": 1_u64 << 30,
        })
    );
    let server = stack.server(&"shop-west-db-2".into()).unwrap();
    assert_eq!(server.job, Job::Database("main".into()));
    assert!(server.open.is_empty());
    let balancer = stack.server(&"shop-west-balancer-1".into()).unwrap();
    assert_eq!(
        (&balancer.job, balancer.open.as_slice()),
        (&Job::Balancer, [80].as_slice())
    );
    assert_eq!(
        stack.names,
        [Name {
            host: "www.shop.test".into(),
            to: "balancer".into(),
            zone: "shop.test".into(),
            ttl: Ttl(3600),
            failover_ttl: Ttl(60),
            target: "www.hafog-shop.shop.test".into(),
        }]
    );
    assert_eq!(
        stack.secrets["DATABASE_PASSWORD"],
        SecretRef::Env("DATABASE_PASSWORD".into())
    );
    assert_eq!(
        stack.stores,
        [Store {
            folder: "./.hafog".into(),
            arbiter: true,
            remote: None,
        }]
    );
    assert_eq!(stack.commit_window.to_string(), "30m");
    assert_eq!(stack.self_fence, SelfFence::Isolated);
    assert_eq!(stack.sites[1].tier, Tier::Warm);
    let recipes: Vec<String> = stack
        .recipes
        .values()
        .map(|recipe| format!("{} {:?}", recipe.name, recipe.builtin))
        .collect();
    assert_eq!(
        recipes,
        [
            "haproxy Some(Haproxy)",
            "postgres Some(Postgres { major: None })",
            "web None"
        ]
    );
    let there_and_back: Stack =
        serde_json::from_value(serde_json::to_value(&stack).unwrap()).unwrap();
    assert_eq!(there_and_back, stack);
}

#[test]
fn every_key_arrives_in_the_stack() {
    let path = fixture("everything.yaml");
    let stack = load(&path, &KNOWN).unwrap().stack;
    let expected = path.with_extension("json");
    let actual = serde_json::to_string_pretty(&stack).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected, &actual).unwrap();
    }
    assert_eq!(fs::read_to_string(expected).unwrap(), actual);
}

#[test]
fn targets_of_names() {
    let target = |host: &str| {
        let text = small()
            .replace("host: www.shop.test", &format!("host: {host}"))
            .replace("http://www.shop.test", &format!("http://{host}"));
        good(&text).stack.names[0].target.to_string()
    };
    assert_eq!(target("shop.test"), "shop.test");
    assert_eq!(target("www.shop.test"), "www.hafog-shop.shop.test");
    assert_eq!(target("a.b.shop.test"), "a.b.hafog-shop.shop.test");
}

#[test]
fn files_that_a_build_needs() {
    let folder = tempfile::tempdir().unwrap();
    let text = small().replace(
        "    services:",
        "    code: { path: ./app, to: /srv/app }\n    files: [ { template: a.conf, to: /etc/a } ]\n    services:",
    );
    let stack = good(&text).stack;
    assert_eq!(missing_files(&stack, folder.path()).len(), 2);
    fs::create_dir(folder.path().join("app")).unwrap();
    fs::write(folder.path().join("a.conf"), "x").unwrap();
    assert_eq!(missing_files(&stack, folder.path()).len(), 0);
}
