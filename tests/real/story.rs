//! The demo, as a person types it: it judges itself, and we judge its judgement.

use serde_json::Value;

use super::lab::{Lab, turn};
use crate::harness::Home;

#[test]
fn the_demo_tells_the_whole_story() {
    let Some(_turn) = turn("the_demo_tells_the_whole_story") else {
        return;
    };
    let home = Home::new();
    let ran = home.run(&["demo", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let report: Value = serde_json::from_slice(&ran.raw).expect("the report is JSON");
    assert_eq!(report["lost_in_switchovers"], 0, "{report}");
    assert_eq!(report["left_processes"], 0, "{report}");
    let verbs: Vec<&str> = report["moves"]
        .as_array()
        .expect("moves")
        .iter()
        .filter_map(|m| m["verb"].as_str())
        .collect();
    assert_eq!(verbs, ["switchover", "failover"]);
    for moved in report["moves"].as_array().expect("moves") {
        assert!(moved["acknowledged_before"].as_u64() > Some(0), "{moved}");
        // Whether it lost no more is in the exit code.
        let said = moved["said"].as_str().expect("a text");
        assert!(said.starts_with("main: "), "{moved}");
    }
    assert!(
        !home.path().join(".demo").exists(),
        "the demo's folder is left"
    );
}

#[test]
fn an_old_primary_that_returns_is_not_writable() {
    let Some(_turn) = turn("an_old_primary_that_returns_is_not_writable") else {
        return;
    };
    let lab = Lab::with_standby();
    let said = lab.must("status").stdout;
    assert!(said.ends_with("\nwest can take over\n"), "{said}");
    let is_primary = |site: &str| {
        let ran = lab.role(site, &["--is", "primary"]);
        assert!(!ran.all().contains("a-password"), "{}", ran.all());
        (ran.code, ran.stdout.trim().to_owned())
    };
    let said = |code: u8, role: &str| (i32::from(code), role.to_owned());
    assert_eq!(is_primary("east"), said(0, "primary"));
    assert_eq!(is_primary("west"), said(1, "standby"));
    assert_eq!(lab.role("west", &["--is", "standby"]).code, 0);
    lab.must("local power east off");
    lab.must("failover --yes");
    assert_eq!(lab.writable(), ["shop-west-db-1"]);
    assert_eq!(is_primary("west"), said(0, "primary"));
    // Somebody boots the old site again: its nodes must come up as replicas, and stay so.
    lab.must("local power east on");
    lab.until("the old primary answers", || {
        lab.facts()["nodes"]["shop-east-db-1"]["status"]["known"].is_object()
    });
    assert_eq!(lab.writable(), ["shop-west-db-1"]);
    // Its application servers were told that they are primary, and nobody told them since.
    let returned = lab.role("east", &["--is", "primary"]);
    assert_eq!(returned.code, 69, "{}", returned.all());
    assert!(
        returned
            .stderr
            .contains("the database of DATABASE_URL_MAIN takes no writes"),
        "{}",
        returned.all()
    );
    lab.must("commit --yes");
    lab.must("failback --rejoin-only --yes");
    assert_eq!(lab.run("preflight").code, 0);
    lab.must("up --yes");
    lab.must("clone east --yes");
    assert_eq!(is_primary("east"), said(1, "standby"));
    // After a boot `up` is done when the database takes writes, not when its server runs.
    lab.must("local power west off");
    lab.must("up --yes");
    assert_eq!(lab.writable(), ["shop-west-db-1"]);
    let shared = lab.shared_memory();
    assert_eq!(
        shared.left().len(),
        8,
        "a segment and a file a node: {shared:?}"
    );
    lab.must("destroy --yes");
    assert_eq!(lab.processes(), 0);
    assert_eq!(shared.left(), Vec::<&String>::new());
}

#[test]
fn two_commands_at_once_take_turns() {
    let Some(_turn) = turn("two_commands_at_once_take_turns") else {
        return;
    };
    let lab = Lab::new();
    let mut first = lab.start("up --yes");
    lab.until("the first command has the lease", || {
        std::fs::read_to_string(lab.home.path().join("arbiter/docs/lease.json"))
            .is_ok_and(|text| text.contains("process"))
    });
    let second = lab.run("up --yes");
    assert_eq!(second.code, 5, "{}", second.all());
    assert!(
        second.stderr.contains("hafog lock status"),
        "{}",
        second.all()
    );
    let waited = lab.run("up --yes --lock-timeout 3m");
    assert_eq!(waited.code, 0, "{}", waited.all());
    assert!(waited.stdout.contains("nothing to do"), "{}", waited.all());
    assert!(first.wait().expect("the child is ours").success());
}

#[test]
fn a_deploy_moves_both_sites_and_what_does_not_start_goes_back() {
    let Some(_turn) = turn("a_deploy_moves_both_sites_and_what_does_not_start_goes_back") else {
        return;
    };
    let lab = Lab::new();
    lab.must("up --yes");
    lab.must("clone west --yes");
    let image =
        |server: &str, site: &str| lab.facts()["sites"][site]["servers"][server]["image"].clone();
    let old = image("shop-east-web-1", "east");
    let deploy = |run: &str| {
        lab.home.write(
            "hafog.yaml",
            &super::lab::SPEC.replace("$HAFOG_EXE demo-app", run),
        );
        lab.run("deploy --yes")
    };
    let done = deploy("env RELEASE=2 $HAFOG_EXE demo-app");
    assert_eq!(done.code, 0, "{}", done.all());
    let new = image("shop-east-web-1", "east");
    assert_ne!(new, old);
    assert_eq!(image("shop-west-web-2", "west"), new);
    let broken = deploy("false");
    assert_eq!(broken.code, 1, "{}", broken.all());
    // The standby goes first, so that what does not start never reaches the users.
    assert_eq!(image("shop-west-web-1", "west"), new);
    assert_eq!(image("shop-east-web-1", "east"), new);
    lab.home.write(
        "hafog.yaml",
        &super::lab::SPEC.replace("$HAFOG_EXE demo-app", "env RELEASE=2 $HAFOG_EXE demo-app"),
    );
    lab.until("both sites are well", || lab.run("preflight").code == 0);
}
