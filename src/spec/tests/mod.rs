//! The spec as a whole: every fixture with its exact output, and whatever else a file may hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::error::{Fault, Kind};
use crate::model::id::*;
use crate::model::stack::*;
use crate::model::units::Ttl;
use crate::ui::snippet;

/// The words of today's registries.
const KNOWN: Known = Known {
    clouds: &[CloudWord {
        name: "local",
        low_ports: false,
    }],
    engines: &[EngineWord {
        name: "postgres",
        port: 5432,
    }],
    dns_hosts: &[DnsWord {
        name: "serve",
        settings: &[],
    }],
};

/// Words that lints about real clouds need.
const WIDE: Known = Known {
    clouds: &[
        CloudWord {
            name: "local",
            low_ports: false,
        },
        CloudWord {
            name: "aws",
            low_ports: true,
        },
        CloudWord {
            name: "digitalocean",
            low_ports: true,
        },
    ],
    engines: KNOWN.engines,
    dns_hosts: &[
        DnsWord {
            name: "serve",
            settings: &[],
        },
        DnsWord {
            name: "digitalocean",
            settings: &[],
        },
        DnsWord {
            name: "rfc2136",
            settings: &["server", "key"],
        },
    ],
};

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/stacks")
        .join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn good(text: &str) -> Loaded {
    load_str("hafog.yaml", text, &WIDE).unwrap_or_else(|faults| panic!("{}", all(&faults)))
}

fn bad(text: &str) -> Vec<Fault> {
    load_str("hafog.yaml", text, &WIDE).expect_err("the spec has mistakes")
}

fn all(faults: &[Fault]) -> String {
    let texts: Vec<String> = faults
        .iter()
        .map(|fault| snippet::render(fault, false))
        .collect();
    texts.join("\n")
}

fn small() -> String {
    fs::read_to_string(
        fixtures("")
            .iter()
            .find(|path| name(path) == "small.yaml")
            .unwrap(),
    )
    .unwrap()
}

/// `UPDATE=1 cargo test` writes what is printed now; read the difference before you commit it.
fn check_expected(path: &Path, actual: &str) -> Result<(), String> {
    let expected_path = path.with_extension("expected");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected_path, actual).unwrap();
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    if expected == actual {
        return Ok(());
    }
    Err(format!(
        "{}\n--- expected\n{expected}--- actual\n{actual}",
        path.display()
    ))
}

#[test]
fn fixtures_are_as_expected() {
    let mut wrong = Vec::new();
    for path in fixtures("bad") {
        let faults = load_bytes(name(&path), &fs::read(&path).unwrap(), &KNOWN)
            .expect_err(&format!("{} has mistakes", path.display()));
        let text = all(&faults);
        assert!(
            !text.contains("s3cret") && !text.contains("1234,"),
            "{text}"
        );
        wrong.extend(check_expected(&path, &text).err());
    }
    for path in fixtures("lint") {
        let loaded = load_bytes(name(&path), &fs::read(&path).unwrap(), &WIDE)
            .unwrap_or_else(|faults| panic!("{}", all(&faults)));
        let lints: Vec<String> = loaded
            .lints
            .iter()
            .map(|lint| snippet::warning(&lint.fault(), false))
            .collect();
        wrong.extend(check_expected(&path, &lints.join("\n")).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_expected_output_has_its_fixture() {
    for folder in ["bad", "lint"] {
        let at = fixtures(folder)[0].parent().unwrap().to_owned();
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.with_extension("yaml").exists(), "{}", path.display());
        }
    }
}

/// Each of the bad specs shows something that no other shows.
#[test]
fn bad_specs_differ_in_what_they_show() {
    let paths = fixtures("bad");
    assert!(paths.len() >= 60, "{} bad specs", paths.len());
    let mut messages = std::collections::HashMap::new();
    for path in &paths {
        let faults = load_bytes("f", &fs::read(path).unwrap(), &KNOWN).unwrap_err();
        let said: Vec<(String, Vec<String>)> = faults
            .iter()
            .map(|fault| (fault.to_string(), fault.hints().to_vec()))
            .collect();
        let places: Vec<_> = faults
            .iter()
            .map(|fault| fault.place().map(|it| it.text.clone()))
            .collect();
        if let Some(other) = messages.insert((said, places), path) {
            panic!("{} and {} show the same", path.display(), other.display());
        }
    }
}

#[test]
fn good_fixtures_check_clean() {
    for path in fixtures("") {
        let loaded = load(&path, &KNOWN).unwrap_or_else(|faults| panic!("{}", all(&faults)));
        let lints: Vec<&str> = loaded.lints.iter().map(|lint| lint.name).collect();
        let expected: &[&str] = match name(&path) {
            "least.yaml" => &["no-names", "one-site"],
            _ => &[],
        };
        let mut lints = lints;
        lints.sort();
        assert_eq!(lints, expected, "{}", path.display());
    }
}

#[test]
fn starters_check_clean() {
    for (name, about, _) in starters() {
        let text = starter(name, "my-shop").unwrap();
        assert!(!text.contains("{{") && !about.is_empty());
        let loaded =
            load_str(name, &text, &KNOWN).unwrap_or_else(|faults| panic!("{}", all(&faults)));
        assert_eq!(loaded.lints, [], "{name}");
        assert_eq!(loaded.stack.name, StackName::from("my-shop"));
    }
    assert_eq!(starter("cobol", "x"), None);
}

/// Uncommenting an example line of a starter gives a spec that is still right.
#[test]
fn commented_lines_of_starters_are_right() {
    for (name, _, _) in starters() {
        let text = starter(name, "shop").unwrap();
        let mut tried = 0;
        for (index, line) in text.lines().enumerate() {
            let Some((blank, example)) = line.split_once("# ") else {
                continue;
            };
            let is_example = blank.trim().is_empty()
                && blank.len() >= 4
                && ["packages:", "code:", "run:", "- "]
                    .iter()
                    .any(|start| example.starts_with(start));
            if !is_example {
                continue;
            }
            tried += 1;
            let changed: Vec<String> = text
                .lines()
                .enumerate()
                .map(|(at, other)| {
                    if at == index {
                        format!("{blank}{example}")
                    } else {
                        other.to_owned()
                    }
                })
                .collect();
            if let Err(faults) = load_str(name, &changed.join("\n"), &KNOWN) {
                panic!("{line}\n{}", all(&faults));
            }
        }
        assert!(tried >= 3, "{name} has {tried} example lines");
    }
}

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
    assert_eq!(server.open, [5432]);
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
            arbiter: true
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
    let path = fixtures("")
        .into_iter()
        .find(|path| name(path) == "everything.yaml")
        .unwrap();
    let stack = load(&path, &KNOWN).unwrap().stack;
    let expected = path.with_extension("json");
    let actual = serde_json::to_string_pretty(&stack).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected, &actual).unwrap();
    }
    assert_eq!(fs::read_to_string(expected).unwrap(), actual);
}

/// `show spec` prints a spec that means the same.
#[test]
fn specs_are_written_back() {
    for path in fixtures("") {
        let loaded = load(&path, &KNOWN).unwrap();
        let text = serde_yaml::to_string(&loaded.spec).unwrap();
        let again = load_str("again", &text, &KNOWN)
            .unwrap_or_else(|faults| panic!("{text}\n{}", all(&faults)));
        assert_eq!((again.spec, again.stack), (loaded.spec, loaded.stack));
    }
}

#[test]
fn mistakes_of_several_kinds_come_at_once() {
    let text = small()
        .replace(
            "east: { cloud: local }",
            "east: { cloud: lokal, regoin: x }",
        )
        .replace("primary: east", "primary: esat")
        .replace("replicas: 1", "replicas: 7")
        .replace("host: www.shop.test", "host: WWW.shop.test");
    let faults = load_str("f", &text, &KNOWN).unwrap_err();
    let messages: Vec<&str> = faults
        .iter()
        .map(|fault| fault.message().split(',').next().unwrap())
        .collect();
    assert_eq!(
        messages,
        [
            "unknown cloud `lokal`",
            "unknown key `regoin` in `sites.east`",
            "unknown site `esat`",
            "a node and 7 replicas need 8 servers",
            "`WWW.shop.test` is not a host name: it is written in small letters without a final dot",
        ]
    );
}

/// A mistake does not bring others that are only its consequences.
#[test]
fn one_mistake_is_said_once() {
    for (from, to) in [
        ("count: 2, open", "count: 2.5, open"),
        (
            "db: { image: postgres, count: 2 }",
            "db: { image: postgres, count: many }",
        ),
        ("db: { image: postgres, count: 2 }", "db: 5"),
        ("images:", "imagse:"),
        ("servers:", "servres:"),
        ("web: { image: web", "web: { imag: web"),
        ("stack: shop", "stack: 7"),
        ("stack: shop", "stack: SHOP"),
        ("open: [8080]", "open: [x]"),
        ("open: [8080]", "open: 8080"),
        ("secrets: { DATABASE_PASSWORD: env }", "secrets: 5"),
        ("host: serve, name: shop.test", "host: serve, name: -"),
        ("host: www.shop.test", "host: 5"),
        ("  west: { cloud: local }", "  west:"),
        ("primary: east", "primary: [east]"),
    ] {
        let text = small().replacen(from, to, 1);
        assert_ne!(text, small());
        let faults = bad(&text);
        assert_eq!(faults.len(), 1, "{to}\n{}", all(&faults));
    }
}

#[test]
fn the_schema_is_what_the_checks_walk() {
    let schema = schema(&WIDE);
    assert!(
        !schema.to_string().contains("\"x-"),
        "our own keywords are not published"
    );
    assert!(!schema.to_string().contains("\"null\""));
    let clouds = schema.pointer("/$defs/CloudName/enum").unwrap();
    assert_eq!(clouds, &serde_json::json!(["local", "aws", "digitalocean"]));
    let zone = schema.pointer("/$defs/ZoneSpec").unwrap();
    assert_eq!(zone["additionalProperties"], serde_json::json!(false));
    assert!(zone["properties"].get("server").is_some());
    undescribed(&schema, "#");
}

/// Editors show descriptions; nothing is without one.
fn undescribed(value: &serde_json::Value, at: &str) {
    let Some(object) = value.as_object() else {
        return;
    };
    if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
        for (key, property) in properties {
            assert!(
                property.get("description").is_some(),
                "{at}/{key} has no description"
            );
            if property.get("type") == Some(&serde_json::json!("integer")) {
                assert!(
                    property.get("maximum").is_some(),
                    "{at}/{key} has no maximum"
                );
            }
        }
    }
    for (key, value) in object {
        undescribed(value, &format!("{at}/{key}"));
    }
}

/// Every key of the schema is in `everything.yaml`, which the types read; every key that the types write is in the
/// schema. So neither has a key that the other lacks.
#[test]
fn schema_and_types_have_the_same_keys() {
    let path = fixtures("")
        .into_iter()
        .find(|path| name(path) == "everything.yaml")
        .unwrap();
    let text = fs::read_to_string(path).unwrap();
    let spec = load_str("f", &text, &KNOWN).unwrap().spec;
    let written = serde_json::to_value(spec).unwrap();
    let mut used = std::collections::BTreeSet::new();
    keys(&written, &mut used);
    let mut named = std::collections::BTreeSet::new();
    properties(&schema(&KNOWN), &mut named);
    let missing: Vec<&String> = named.difference(&used).collect();
    assert!(
        missing.is_empty(),
        "in the schema but not in everything.yaml: {missing:?}"
    );
    for text in ["{stack: x}", &text] {
        let value: serde_json::Value = serde_yaml::from_str(text).unwrap();
        let ours = load_str("f", text, &KNOWN).is_ok();
        assert_eq!(serde_json::from_value::<Spec>(value).is_ok(), ours);
    }
}

fn keys(value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

fn properties(value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
                into.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| properties(value, into));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| properties(item, into)),
        _ => {}
    }
}

#[test]
fn defaults_of_the_schema_are_those_of_the_stack() {
    let schema = schema(&KNOWN);
    let default = |pointer: &str| {
        schema
            .pointer(pointer)
            .unwrap_or_else(|| panic!("{pointer}"))
            .clone()
    };
    assert_eq!(default("/$defs/NameSpec/properties/ttl/default"), "1h");
    assert_eq!(
        default("/$defs/NameSpec/properties/failover_ttl/default"),
        "60s"
    );
    assert_eq!(default("/$defs/LagSpec/properties/warn/default"), "10s");
    assert_eq!(default("/$defs/LagSpec/properties/critical/default"), "60s");
    assert_eq!(
        default("/$defs/DatabaseSpec/properties/write_lease/default"),
        "10s"
    );
    assert_eq!(
        default("/$defs/DatabaseSpec/properties/keep_log/default"),
        "1GiB"
    );
    assert_eq!(default("/properties/commit_window/default"), "30m");
    assert_eq!(default("/$defs/SiteSpec/properties/tier/default"), "warm");
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
fn settings_belong_to_their_dns_host() {
    let zone = |zone: &str| small().replace("{ host: serve, name: shop.test }", zone);
    let loaded = good(&zone(
        "{ host: rfc2136, name: shop.test, server: 10.0.0.1 }",
    ));
    assert_eq!(loaded.stack.zones[0].settings["server"], "10.0.0.1");
    let faults = bad(&zone("{ host: serve, name: shop.test, server: 10.0.0.1 }"));
    assert_eq!(faults.len(), 1);
    assert_eq!(
        faults[0].message(),
        "the DNS host `serve` has no setting `server`: it has none"
    );
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

#[test]
fn a_missing_file_says_how_to_get_one() {
    let faults = load(Path::new("/nonexistent/hafog.yaml"), &KNOWN).unwrap_err();
    assert_eq!(
        faults[0].message(),
        "cannot read the spec `/nonexistent/hafog.yaml`"
    );
    assert_eq!(faults[0].kind(), Kind::Error);
    assert_eq!(faults[0].hints(), ["`hafog init` writes one to start from"]);
    assert!(load(Path::new("/"), &KNOWN).is_err());
}

#[test]
fn huge_files_are_refused_before_they_are_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.yaml");
    fs::write(&path, vec![b'#'; (4 << 20) + 1]).unwrap();
    let faults = load(&path, &KNOWN).unwrap_err();
    assert_eq!(faults[0].message(), "the spec is larger than 4 MiB");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(
        load(&path, &KNOWN).unwrap_err()[0].message(),
        "the spec is larger than 4 MiB"
    );
}

/// Time that this thread has spent on a processor. Other work on the machine does not count.
fn busy() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ')
        .next()?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

#[expect(clippy::print_stdout, reason = "a test that cannot run says so")]
/// Does the work in two sizes, the second eight times the first: it may take thrice as long as linear work would,
/// where quadratic work takes eight times as long. What is done in an instant is not measured.
fn check_linear(what: &str, work: impl Fn(usize)) {
    let measured = |times: usize| {
        let start = busy();
        work(times);
        Some(busy()? - start?)
    };
    work(1);
    let (Some(little), Some(much)) = (measured(1), measured(8)) else {
        println!("skipped: linear time of {what}: this kernel does not count time per thread");
        return;
    };
    let most = little.max(Duration::from_millis(5)) * 24;
    assert!(
        much < most,
        "{what} takes {little:?}, eight times as much of it {much:?}"
    );
}

#[test]
fn large_stacks_take_linear_time() {
    let one = good(&small().replace("count: 2, open", "count: 10000, open"));
    assert_eq!(one.stack.servers.len(), 2 * (10_000 + 2 + 1));
    check_linear("a stack of groups", |times| {
        let entries = times * 1_250;
        let groups: String = (0..entries)
            .map(|n| format!("  g{n}: {{ image: web, open: [80] }}\n"))
            .collect();
        let text = small().replace("servers:\n", &format!("servers:\n{groups}"));
        assert_eq!(good(&text).stack.servers.len(), 2 * (entries + 5));
    });
    let many = bad(&small()
        .replace("count: 2, open", "count: 10000, open")
        .replace("count: 2 }", "count: 10000 }")
        .replace("  db:", "  dc: { image: web, count: 10000 }\n  db:"));
    assert_eq!(
        many[0].message(),
        "these are 60000 servers; a stack has at most 50000"
    );
}

/// Every one of these once stopped some YAML reader for good.
#[test]
fn hostile_texts_are_refused_in_linear_time() {
    let lines = |line: &'static str| move |bytes: usize| line.repeat(bytes / line.len());
    type Text = Box<dyn Fn(usize) -> String>;
    let mut texts: Vec<Text> = vec![
        Box::new(|bytes| (0..bytes / 8).map(|n| format!("k{n}: x\n")).collect()),
        Box::new(|bytes| (0..bytes / 8).map(|n| format!("k{n}: {{}}\n")).collect()),
        Box::new(move |bytes| format!("servers: {{ {} }}", lines("a: {},\n ")(bytes))),
        Box::new(move |bytes| format!("names:\n{}", lines("- { host: x, bad: y }\n")(bytes))),
        Box::new(|bytes| {
            (0..bytes / 80)
                .map(|n| format!("{}a:\n", " ".repeat(n.min(80))))
                .collect()
        }),
    ];
    for line in [
        "[",
        "[\n",
        "{a: \n",
        "- ",
        "- - - -\n",
        "? ",
        "? \n",
        "\"",
        "'\n",
        "a: &a *a\n",
        "&a\n",
        "!a\n",
        "---\n",
        "%YAML 1.2\n",
        "a: |\n",
        "x\n",
        "# x\n",
        "a:\n b:\n",
        "\n",
        "[], ",
        "[],\n",
        "{},\n",
        "\u{e9}\n",
    ] {
        texts.push(Box::new(lines(line)));
    }
    for text in &texts {
        let head: String = text(40).chars().take(20).collect();
        check_linear(&format!("{head:?}"), |times| {
            let text = text(times << 16);
            let faults = load_str("f", &text, &KNOWN).unwrap_err();
            assert!(faults.len() <= 1_000);
            if times == 1 {
                inside(&faults, &text);
            }
        });
    }
}

fn inside(faults: &[Fault], text: &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = source::Source::new("f", text);
    for fault in faults {
        if fault.kind() != Kind::Spec {
            continue;
        }
        let place = fault
            .place()
            .unwrap_or_else(|| panic!("{fault} has no place"));
        assert!(
            (1..=source.lines.len()).contains(&place.line),
            "{fault:?} {place:?}"
        );
        let length = place.text.chars().count();
        assert!(
            (1..=length.max(1)).contains(&place.column),
            "{fault:?} {place:?}"
        );
        assert!(
            place.width >= 1 && place.column + place.width <= length.max(1) + 1,
            "{fault:?} {place:?}"
        );
        assert!(!fault.message().is_empty());
    }
}

#[derive(Clone, Debug)]
enum Change {
    DeleteLine(usize),
    DoubleLine(usize),
    SwapLines(usize, usize),
    ReplaceLine(usize, String),
    ReplaceByte(usize, u8),
    DeleteByte(usize),
    /// Another value behind a colon.
    Retype(usize, String),
    InsertText(usize, String),
    Cut(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let odd = prop::sample::select(vec![
        "",
        " ",
        "\t",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!x ",
        "? ",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "#",
        "~",
        "null",
        "true",
        "1e999",
        "0x1F",
        "-1",
        "99999999999999999999",
        "\u{0}",
        "\u{feff}",
        "\u{202e}",
        "é",
        "漢",
        "\r",
        "\r\n",
        "\u{2028}",
        "---\n",
        "...\n",
        "%TAG ! x\n",
        "<<: ",
        "stack",
        "secrets",
        "count: 0",
        "a: b",
        "@",
        "`",
        "\\",
    ])
    .prop_map(str::to_owned);
    let at = any::<usize>();
    prop_oneof![
        at.prop_map(Change::DeleteLine),
        at.prop_map(Change::DoubleLine),
        (at, at).prop_map(|(a, b)| Change::SwapLines(a, b)),
        (at, odd.clone()).prop_map(|(at, text)| Change::ReplaceLine(at, text)),
        (at, any::<u8>()).prop_map(|(at, byte)| Change::ReplaceByte(at, byte)),
        at.prop_map(Change::DeleteByte),
        (at, value()).prop_map(|(at, text)| Change::Retype(at, text)),
        (at, odd).prop_map(|(at, text)| Change::InsertText(at, text)),
        at.prop_map(Change::Cut),
    ]
}

/// Values of every type, right for some key and wrong for most.
fn value() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "~",
        "true",
        "no",
        "0",
        "1",
        "-1",
        "8080",
        "1.5",
        "010",
        "0x10",
        "1_000",
        "1:30",
        ".inf",
        "99999999999",
        "x",
        "X y",
        "\"\"",
        "\"8080\"",
        "[]",
        "{}",
        "[1, x]",
        "[[x]]",
        "{ a: b }",
        "{ image: web }",
        "10s",
        "4GiB",
        "/x",
        "http://x/",
        "www.shop.test",
        "east",
        "web",
        "db",
        "balancer",
        "env",
        "*x",
        "&x y",
        "!x y",
        "|",
        "\u{a0}",
        "\u{43e}",
        "a # b",
        "a: b",
    ])
    .prop_map(str::to_owned)
}

/// The text with what stands behind its `at`th colon, up to the next comma, bracket or line's end, replaced.
fn retyped(text: &[u8], at: usize, with: &str) -> Vec<u8> {
    let colons: Vec<usize> = (0..text.len())
        .filter(|at| text[*at..].starts_with(b": "))
        .collect();
    let Some(colon) = colons.get(at % colons.len().max(1)) else {
        return text.to_vec();
    };
    let start = colon + 2;
    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b'\n');
    let length = text[start..]
        .iter()
        .position(ends)
        .unwrap_or(text.len() - start);
    [&text[..start], with.as_bytes(), &text[start + length..]].concat()
}

fn changed(text: &[u8], change: &Change) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = text
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    let mut bytes = text.to_vec();
    if lines.is_empty() {
        return bytes;
    }
    let line = |at: &usize| at % lines.len();
    let byte = |at: &usize| at % text.len();
    match change {
        Change::DeleteLine(at) => drop(lines.remove(line(at))),
        Change::DoubleLine(at) => {
            let at = line(at);
            lines.insert(at, lines[at].clone());
        }
        Change::SwapLines(a, b) => {
            let (a, b) = (line(a), line(b));
            lines.swap(a, b);
        }
        Change::ReplaceLine(at, text) => {
            let at = line(at);
            lines[at] = format!("{text}\n").into_bytes();
        }
        Change::ReplaceByte(at, with) => bytes[byte(at)] = *with,
        Change::DeleteByte(at) => drop(bytes.remove(byte(at))),
        Change::InsertText(at, text) => {
            let at = byte(at);
            bytes.splice(at..at, text.bytes());
        }
        Change::Cut(at) => bytes.truncate(byte(at)),
        Change::Retype(at, with) => bytes = retyped(text, *at, with),
    }
    match change {
        Change::DeleteLine(_)
        | Change::DoubleLine(_)
        | Change::SwapLines(..)
        | Change::ReplaceLine(..) => lines.concat(),
        _ => bytes,
    }
}

/// All that a user could see of a check.
fn said(checked: &Result<Loaded, Vec<Fault>>) -> String {
    match checked {
        Ok(loaded) => format!("{:?}\n{:?}\n{:?}", loaded.spec, loaded.stack, loaded.lints),
        Err(faults) => all(faults),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_specs_never_panic(which in 0..20_usize, changes in prop::collection::vec(change(), 1..6)) {
        let mut texts: Vec<Vec<u8>> = fixtures("").iter().map(|path| fs::read(path).unwrap()).collect();
        texts.extend(starters().iter().map(|(name, _, _)| starter(name, "shop").unwrap().into_bytes()));
        let mut bytes = texts[which % texts.len()].clone();
        for change in &changes {
            bytes = changed(&bytes, change);
        }
        let checked = load_bytes("hafog.yaml", &bytes, &KNOWN);
        prop_assert_eq!(said(&checked), said(&load_bytes("hafog.yaml", &bytes, &KNOWN)), "not the same twice");
        if let Err(faults) = checked {
            prop_assert!(!faults.is_empty());
            inside(&faults, &String::from_utf8_lossy(&bytes));
            for fault in &faults {
                prop_assert_eq!(fault.kind(), Kind::Spec);
                let text = snippet::render(fault, false);
                prop_assert!(!text.contains("this spec cannot be read"), "{}", text);
                prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
            }
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(faults) = load_bytes("f", &bytes, &KNOWN) {
            inside(&faults, &String::from_utf8_lossy(&bytes));
        }
    }
}
