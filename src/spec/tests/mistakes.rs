//! What is said about a bad spec: everything at once, and nothing twice.

use super::*;

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

/// Found out before its image is built, not after.
#[test]
fn a_version_that_nobody_can_run_is_a_mistake() {
    for (word, message) in [
        (
            "postgres-13",
            Some("hafog runs PostgreSQL 14 to 17, and not 13"),
        ),
        ("postgres-14", None),
        ("postgres-17", None),
        (
            "postgres-99",
            Some("hafog runs PostgreSQL 14 to 17, and not 99"),
        ),
        ("postgres-x", Some("unknown image `postgres-x`")),
    ] {
        let text = small().replacen("image: postgres,", &format!("image: {word},"), 1);
        assert_ne!(text, small());
        let faults = load_str("f", &text, &KNOWN).err().unwrap_or_default();
        let said: Vec<&str> = faults.iter().map(Fault::message).collect();
        match message {
            None => assert_eq!(said, [""; 0], "{word}"),
            Some(message) => assert!(said.len() == 1 && said[0].starts_with(message), "{said:?}"),
        }
    }
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
