//! The whole story across two clouds.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::load::Load;
use crate::lab::{PASSWORD, Pair, incus, lab, on_server};

#[test]
fn a_stack_moves_to_the_other_cloud_loses_it_and_comes_back() {
    let Some(pair) = Pair::new() else {
        return;
    };
    let before = lab(&["inventory"]);
    // Visitors reach each site by an address of its own.
    let spec = pair.home.read("hafog.yaml");
    let (east, west) = ("10.66.101.10", "10.66.102.10");
    let spec = spec.replace("region: a }", &format!("region: a, address: {east} }}"));
    let spec = spec.replace("region: b }", &format!("region: b, address: {west} }}"));
    assert!(spec.contains(east) && spec.contains(west), "{spec}");
    pair.home.write("hafog.yaml", &spec);
    pair.must("up --yes");
    pair.until_nothing_to_do("up");
    let names = pair.must("dns show").stdout;
    assert!(names.contains(east), "{names}");
    assert!(pair.order(east, "one"), "an order in the east");
    let cloned = pair.must("clone west --yes").all();
    assert!(cloned.contains("copy-image web-"), "{cloned}");
    assert!(!cloned.contains("create-builder"), "{cloned}");
    pair.until_ready("the standby is ready", "preflight");

    let data = "/1.0/storage-pools/default/volumes/custom/shop-east-db-1-data?project=shop-east";
    let (_, volume) = incus("a", &["query", data]);
    assert!(volume.contains("\"size\": \"2147483648B\""), "{volume}");

    // What Incus keeps of a server has no secret; the server itself has.
    let kept = |cloud: &str, site: &str| {
        let all = format!("/1.0/instances?recursion=2&project=shop-{site}");
        let (done, said) = incus(cloud, &["query", &all]);
        assert!(
            done && said.contains(&format!("shop-{site}-web-1")),
            "{said}"
        );
        said
    };
    for said in [kept("a", "east"), kept("b", "west")] {
        assert!(
            !said.contains(PASSWORD.1) && !said.contains("PRIVATE"),
            "{said}"
        );
    }
    let (_, told) = on_server(
        "east",
        "shop-east-web-1",
        &["cat", "/var/lib/hafog/etc/env"],
    );
    assert!(told.contains(PASSWORD.1), "the search would not find it");

    // Both have the same, and a list of it.
    assert_eq!(fingerprints("a").len(), 3, "{:?}", fingerprints("a"));
    assert_eq!(fingerprints("a"), fingerprints("b"));
    let lock = pair.home.read("hafog.lock");
    assert!(lock.contains("curl: "), "{lock}");
    let bills = ["east", "west"].map(|site| bills(&pair, site));
    assert_eq!(bills[0].len(), 3, "{:?}", bills[0].keys());
    assert_eq!(bills[0], bills[1]);
    let shown = pair.json("image show web");
    assert!(shown["contents"]["packages"]["curl"].is_string(), "{shown}");
    assert_eq!(shown["differences"], serde_json::json!([]));
    let servers = shown["sites"].as_array().expect("sites").iter();
    let servers = servers.map(|site| site["servers"].as_array().map(Vec::len));
    assert_eq!(servers.collect::<Vec<_>>(), [Some(2), Some(2)], "{shown}");
    let load = Load::on(&format!("http://{east}/"));
    let spec = pair.home.read("hafog.yaml");
    let run = "$HAFOG_EXE demo-app";
    let spec = spec.replace(run, &format!("env RELEASE=2 {run}"));
    pair.home.write("hafog.yaml", &spec);
    pair.must("deploy --yes");

    // Killed while an image is put under a server, which is off then: the same command finishes.
    let spec = spec.replace("RELEASE=2", "RELEASE=3");
    pair.home.write("hafog.yaml", &spec);
    let mut killed = pair.command("deploy --yes").spawn().expect("it starts");
    pair.until("an image is put under a server", || {
        kept("b", "west").contains("user.hafog.rebuilding")
    });
    killed.kill().expect("it was still at work");
    killed.wait().expect("it ends");
    pair.must("deploy --yes");
    assert!(!kept("b", "west").contains("user.hafog.rebuilding"));
    pair.until_nothing_to_do("deploy");

    for count in [3, 2] {
        let of = |count: u32| format!("web: {{ image: web, count: {count}");
        pair.home
            .write("hafog.yaml", &spec.replace(&of(2), &of(count)));
        let scaled = pair.must("scale east --yes");
        assert!(scaled.all().contains("shop-east-web-3"), "{}", scaled.all());
    }
    load.end_well();
    assert_eq!(pair.orders(east), ["one"]);
    assert_eq!(lock, pair.home.read("hafog.lock"));
    let pruned = pair.must("image prune --yes");
    assert!(pruned.stdout.contains("4 steps"), "{}", pruned.all());
    pair.until_ready("the standby is ready", "preflight");

    assert_eq!(role("east"), "primary");
    assert_eq!(role("west"), "standby");

    // The primary's machine dies, another node of the site takes over, and a new machine follows that one.
    let at_east = |words: &[&str]| {
        let all = [&[words[0], "--project", "shop-east"], &words[1..]].concat();
        let (done, said) = incus("a", &all);
        assert!(done, "{said}");
    };
    at_east(&["stop", "--force", "shop-east-db-1"]);
    pair.must("failover shop-east-db-2 --yes");
    pair.until_writer("shop-east-db-2");
    pair.until("an order in the east", || pair.order(east, "half"));
    at_east(&["delete", "--force", "shop-east-db-1"]);
    // The balancer too: another one is where visitors come, and no record changes.
    at_east(&["delete", "--force", "shop-east-balancer-1"]);
    let healed = pair.must("heal --yes").all();
    assert!(healed.contains("set-entry east"), "{healed}");
    assert!(!healed.contains("set-record"), "{healed}");
    assert!(pair.order(east, "whole"), "an order in the east");
    pair.until_ready("both follow", "replicate status");
    pair.until_ready("the standby is ready", "preflight");
    let verified = pair.must("replicate verify");
    let same = verified.stdout.matches("are the same").count();
    assert_eq!(same, 3, "{}", verified.all());

    pair.must("switchover --yes");
    pair.until_writer("shop-west-db-1");
    assert_eq!(pair.orders(west), ["one", "half", "whole"]);
    assert!(pair.order(west, "two"), "an order in the west");
    assert!(
        !pair.order(east, "lost"),
        "an order in the east, which is closed"
    );
    pair.must("commit --yes");
    pair.until("the east has what the west has", || {
        pair.orders(east) == ["one", "half", "whole", "two"]
    });

    // The whole cloud of the primary: its daemon and every machine.
    lab(&["kill", "b"]);
    lab(&["watch", "b"]);
    let refused = pair.run("failover --assume-down west --yes");
    assert_eq!(refused.code, 3, "{}", refused.all());
    assert!(refused.stderr.contains("unfenced-primary"));
    pair.must("failover --assume-down west --accept unfenced-primary --yes");
    assert_eq!(lab(&["watched"]).trim(), "0", "the dead cloud was asked");
    pair.run("show facts");
    assert_ne!(lab(&["watched"]).trim(), "0", "what counts sees nothing");
    assert_eq!(pair.orders(east), ["one", "half", "whole", "two"]);
    assert!(pair.order(east, "three"), "an order in the east");

    // It comes back, and its machines boot: nobody there may write.
    lab(&["revive", "b"]);
    pair.until("the old primary's database answers", || {
        let facts = pair.json("show facts");
        facts["nodes"]["shop-west-db-1"]["status"]["known"].is_object()
    });
    let returned = role("west");
    assert!(returned.contains("takes no writes"), "{returned}");
    assert_eq!(role("east"), "primary");
    // The node that took over is still the first of its site.
    pair.until_writer("shop-east-db-2");
    assert!(
        !pair.order(west, "lost too"),
        "an order in the west, which is closed"
    );
    pair.must("commit --yes");
    pair.must("failback --rejoin-only --yes");
    pair.until("the west is ready again", || {
        pair.run("preflight").code == 0
    });
    assert_eq!(pair.orders(west), ["one", "half", "whole", "two", "three"]);

    // Back to where it was before, and once more from there.
    pair.must("failback --yes");
    pair.until_writer("shop-west-db-1");
    assert!(pair.order(west, "four"), "an order in the west");
    pair.must("rollback --yes");
    pair.until_writer("shop-east-db-2");
    let all = ["one", "half", "whole", "two", "three", "four"];
    assert_eq!(pair.orders(east), all);
    pair.must("destroy --yes");
    assert_eq!(lab(&["inventory"]), before);
    let keys = pair.admitted();
    assert!(
        !keys.contains("hafog:"),
        "servers that are gone may come in: {keys}"
    );
    assert!(
        !pair.home.path().join(".hafog/ssh").exists(),
        "keys are left"
    );
}

/// What an application server says of its site.
fn role(site: &str) -> String {
    let words = ["/var/lib/hafog/etc/bin/hafog", "role"];
    let (_, said) = on_server(site, &format!("shop-{site}-web-1"), &words);
    said.trim().to_owned()
}

/// What a cloud calls the images of the stack: the digest of all that is in each.
fn fingerprints(cloud: &str) -> BTreeSet<String> {
    let (done, said) = incus(cloud, &["query", "/1.0/images?recursion=1"]);
    let listed: serde_json::Value = serde_json::from_str(&said).expect("images");
    assert!(done && listed.is_array(), "{said}");
    let ours = listed.as_array().into_iter().flatten();
    let ours = ours.filter(|image| image["properties"]["hafog.stack"] == "shop");
    ours.map(|image| image["fingerprint"].to_string()).collect()
}

/// The bills of materials of a site's images.
pub fn bills(pair: &Pair, site: &str) -> BTreeMap<String, String> {
    let folder = pair.home.path().join(".hafog/images").join(site);
    let files = std::fs::read_dir(folder).expect("what is kept of images");
    let names = files.map(|file| file.expect("a file").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let bills = names.filter(|name| name.ends_with(".cdx.json"));
    let read = |name: String| {
        let bill = pair.home.read(&format!(".hafog/images/{site}/{name}"));
        (name, bill)
    };
    bills.map(read).collect()
}
