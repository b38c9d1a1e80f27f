//! A standby of servers that exist already: recipes are applied in place, and nothing of hafog stays when it goes.

use crate::harness::load::Load;
use crate::lab::{Pair, incus};

/// What a machine of the west says.
fn on(number: u32, script: &str) -> String {
    let name = format!("old-{number}");
    let (done, said) = incus("b", &["exec", &name, "--", "sh", "-c", script]);
    assert!(done, "{script} on {name}: {said}");
    said
}

const BARE: &str = "    packages: [curl]\n    services:\n";

/// What the second release has besides.
const SYSTEM: &str = r#"    packages: [curl, nginx]
    users: [ { name: shop, keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPa8Rb0kQ0l3m1yY8X9gq0pQX1o5Yl8m2o4c1dE5fT7k ada"] } ]
    sysctl: ["net.core.somaxconn = 1234"]
    services:
      - nginx
"#;

/// nginx, the kernel parameter, the key and the account.
const SYSTEM_LOOK: &str = "echo $(systemctl is-active nginx) $(systemctl is-enabled nginx) \
    $(cat /proc/sys/net/core/somaxconn) \
    $(test -e /etc/ssh/authorized_keys.d/shop && echo keys || echo none) $(id -un shop)";

/// The machine that is the first application server of the west.
fn web_of(pair: &Pair) -> u32 {
    let facts = pair.json("show facts");
    let id = &facts["sites"]["west"]["servers"]["shop-west-web-1"]["id"];
    let last = id.as_str().and_then(|id| id.rsplit('.').next());
    let last: Option<u32> = last.and_then(|last| last.parse().ok());
    last.expect("it has an address") - 10
}

#[test]
fn servers_that_exist_already_are_a_standby() {
    let Some(mut pair) = Pair::registered() else {
        return;
    };
    // Somebody else's program is on one of them.
    on(5, "mkdir -p /srv && echo theirs >/srv/file");
    pair.must("up --yes");
    let east = pair.address("east");
    assert!(pair.order(&east, "one"), "an order in the east");
    pair.must("clone west --yes");
    pair.until_ready("the standby is ready", "preflight");
    pair.until_nothing_to_do("clone west");

    // A new release in place, under load, and one that does not start.
    let release = |run: &str| {
        let spec = pair.home.read("hafog.yaml");
        let old = spec.lines().find(|line| line.contains("{ name: app,"));
        let new = format!("      - {{ name: app, run: \"{run}\" }}");
        let spec = spec.replace(old.expect("the app has a line"), &new);
        pair.home.write("hafog.yaml", &spec);
    };
    let images = || {
        let facts = pair.json("show facts");
        [1, 2].map(|number| {
            let server = &facts["sites"]["west"]["servers"][format!("shop-west-web-{number}")];
            server["image"].as_str().expect("it has one").to_owned()
        })
    };
    let first = images();
    let load = Load::on(&format!("http://{}/", pair.address("west")));
    let before = pair.home.read("hafog.yaml");
    let with_system = before.replace(BARE, SYSTEM);
    assert_ne!(with_system, before);
    pair.home.write("hafog.yaml", &with_system);
    release("env RELEASE=2 $HAFOG_EXE demo-app");
    pair.must("deploy --yes");
    load.end_well();
    let second = images();
    assert!(
        first[0] != second[0] && second[0] == second[1],
        "{second:?}"
    );
    let web = web_of(&pair);
    assert_eq!(on(web, SYSTEM_LOOK), "active enabled 1234 keys shop\n");
    let bare = pair.home.read("hafog.yaml").replace(SYSTEM, BARE);
    pair.home.write("hafog.yaml", &bare);
    release("/bin/false");
    let failed = pair.run("deploy --yes");
    assert_ne!(failed.code, 0, "{}", failed.all());
    assert!(failed.all().contains("is back on"), "{}", failed.all());
    assert_eq!(images(), second);
    assert_eq!(on(web, SYSTEM_LOOK), "active enabled 1234 keys shop\n");
    release("env RELEASE=2 $HAFOG_EXE demo-app");
    pair.must("deploy --yes");
    // What a release has no longer ends; an account may own files.
    let left = on(web, SYSTEM_LOOK);
    assert!(left.starts_with("inactive disabled "), "{left}");
    assert!(left.ends_with(" none shop\n"), "{left}");
    pair.until_ready("the standby is ready", "preflight");

    pair.must("switchover --yes");
    pair.until_writer("shop-west-db-1");
    let west = pair.address("west");
    assert_eq!(pair.orders(&west), ["one"]);
    assert!(pair.order(&west, "two"), "an order in the west");
    pair.must("commit --yes");

    // One of them dies: the others are seen as they are.
    let facts = pair.json("show facts");
    let id = facts["sites"]["west"]["servers"]["shop-west-web-2"]["id"].clone();
    let id = id.as_str().expect("a host").to_owned();
    let last = id.rsplit('.').next().expect("an address");
    let dead = format!("old-{}", last.parse::<u32>().expect("a number") - 10);
    assert!(incus("b", &["stop", "--force", &dead]).0);
    let facts = pair.json("show facts");
    let servers = &facts["sites"]["west"]["servers"];
    assert!(servers["shop-west-web-2"]["state"]["failed"].is_string());
    assert_eq!(servers["shop-west-db-1"]["state"], "running");
    assert!(pair.order(&west, "three"), "an order in the west");
    assert!(incus("b", &["start", &dead]).0);
    pair.until("the west is whole again", || {
        pair.json("show facts")["sites"]["west"]["servers"]["shop-west-web-2"]["state"] == "running"
    });
    pair.until_ready("the east is ready", "preflight");

    // Then it is gone for good, and its server goes to another host: not to one that has another key than was written.
    assert!(incus("b", &["delete", "--force", &dead]).0);
    let line = |spec: &str, host: &str| {
        let line = spec.lines().find(|line| line.contains(host));
        line.expect("its host has a line").to_owned()
    };
    let spec = pair.home.read("hafog.yaml");
    let old = line(&spec, &id);
    let gone = old.replace(" }", ", gone: true }");
    let new = pair.stranger(6);
    let key = |line: &str| line.split('"').nth(1).expect("a key").to_owned();
    let forged = new.replace(&key(&new), &key(&old));
    let with = |more: &str| spec.replace(&old, &format!("{gone}{more}"));
    pair.home.write("hafog.yaml", &with(&forged));
    let refused = pair.run("up --yes");
    assert_ne!(refused.code, 0, "{}", refused.all());
    assert_eq!(on(6, "ls -A /var/lib/hafog 2>/dev/null; true"), "");
    pair.home.write("hafog.yaml", &with(&new));
    pair.must("up --yes");
    let facts = pair.json("show facts");
    let server = &facts["sites"]["west"]["servers"]["shop-west-web-2"];
    assert_eq!(server["id"], "root@10.66.2.16", "{server}");
    assert_eq!(on(6, "systemctl is-active hafog-app"), "active\n");
    assert!(pair.order(&west, "four"), "an order in the west");
    pair.until_ready("the east is ready", "preflight");

    pair.must("switchover --yes");
    pair.must("commit --yes");
    assert_eq!(pair.orders(&east), ["one", "two", "three", "four"]);
    pair.must("destroy --yes");
    for number in (1..=6).filter(|number| format!("old-{number}") != dead) {
        let left = on(
            number,
            "ls -d /var/lib/hafog /hafog-* /usr/share/hafog /etc/systemd/system/hafog-* 2>/dev/null; ps -eo comm= | grep -xE 'postgres|haproxy|hafog'; true",
        );
        assert_eq!(left, "", "old-{number}");
    }
    assert_eq!(on(5, "cat /srv/file"), "theirs\n");
    assert!(
        !pair.home.path().join(".hafog/hosts").exists(),
        "a note is left"
    );
}
