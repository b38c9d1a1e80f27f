//! A deploy under load: clients see nothing of it, also when it is killed in the middle and resumed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::lab::{Lab, SPEC, haproxy, turn};
use crate::harness::load::Load;
use crate::harness::skip::skipped;
use crate::harness::wait::wait_until;

/// What HAProxy says of its servers.
fn rotation(socket: &Path) -> String {
    haproxy(socket, "show stat servers 4 -1")
}

#[test]
fn clients_see_nothing_of_a_deploy() {
    let test = "clients_see_nothing_of_a_deploy";
    let Some(_turn) = turn(test) else { return };
    if let Some(why) = Load::missing() {
        skipped(test, why);
        return;
    }
    let lab = Lab::new();
    lab.must("up --yes");
    let facts = lab.facts();
    let server = |name: &str| facts["sites"]["east"]["servers"][name].clone();
    let host = server("shop-east-balancer-1")["host"].clone();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let socket = PathBuf::from(text(&host["dirs"]["data"])).join("haproxy.sock");
    let url = format!("http://{}:8080/", text(&host["address"]));
    let release = |number: u32| {
        let run = format!("env RELEASE={number} $HAFOG_EXE demo-app");
        let spec = SPEC.replace("$HAFOG_EXE demo-app", &run);
        lab.home.write("hafog.yaml", &spec);
    };
    let images = || {
        let facts = lab.facts();
        ["shop-east-web-1", "shop-east-web-2"]
            .map(|name| text(&facts["sites"]["east"]["servers"][name]["image"]))
    };
    let first = images();

    let load = Load::on(&url);
    release(2);
    lab.must("deploy --yes");
    let second = images();
    assert!(
        first[0] != second[0] && second[0] == second[1],
        "{second:?}"
    );
    load.end_well();
    let shown = lab.must("image show web").stdout;
    assert!(shown.contains("what recipe `web` makes now"), "{shown}");
    assert!(shown.contains("shop-east-web-1 shop-east-web-2"), "{shown}");
    let old = lab.must(&format!("image show {}", first[0])).stdout;
    assert!(old.contains("made by no recipe now"), "{old}");
    let none = lab.run("image show nothing");
    assert_eq!(none.code, 64, "{}", none.all());

    let load = Load::on(&url);
    release(3);
    let mut killed = lab.start("deploy --yes");
    wait_until(super::lab::LIMIT, "a server is out of rotation", || {
        rotation(&socket).contains(",DRAIN,")
    })
    .unwrap_or_else(|why| panic!("{why}"));
    killed.kill().expect("it was still at work");
    killed.wait().expect("it ends");
    let ran = lab.must("resume --yes");
    let third = images();
    assert!(
        third[0] != second[0] && third[0] == third[1],
        "{}",
        ran.all()
    );
    let table = rotation(&socket);
    // Also with one failed check, which a busy machine may have had.
    assert_eq!(table.matches(",UP").count(), 2, "{table}");
    load.end_well();

    // Together, where the group has but two: one of them stays all the same.
    let load = Load::on(&url);
    release(4);
    lab.must("deploy --batch 5 --yes");
    let fourth = images();
    assert_ne!(fourth[0], third[0]);
    load.end_well();

    // One that works on the first server and not on the second is on neither afterwards.
    let load = Load::on(&url);
    let run = "sh -c 'test $HAFOG_SERVER != shop-east-web-2 && exec $HAFOG_EXE demo-app'";
    let spec = SPEC.replace("$HAFOG_EXE demo-app", run);
    lab.home.write("hafog.yaml", &spec);
    let failed = lab.run("deploy --yes");
    assert_eq!(failed.code, 1, "{}", failed.all());
    for said in [
        "shop-east-web-2 did not come up",
        "everything was taken back",
    ] {
        assert!(failed.stderr.contains(said), "{said}: {}", failed.all());
    }
    assert_eq!(images(), fourth);
    load.end_well();
    release(4);
    let nothing = lab.must("deploy --yes");
    assert!(
        nothing.stdout.contains("nothing to do"),
        "{}",
        nothing.all()
    );
}
