//! Verbs that only look, at a stack that was never brought up.

use super::SMALL;
use crate::harness::Home;
use insta::assert_snapshot;

#[test]
fn a_stack_that_is_not_up_is_no_trouble() {
    let home = Home::with(SMALL);
    assert_snapshot!(home.run(&["status"]).all(), @r"
    --- stdout
    shop: not up; east would be primary

    SITE  ROLE    CLOUD  SERVERS  FRONT DOOR
    east  unused  local  0 of 3   -
    west  unused  local  0 of 3   -

    NAME           TTL
    www.shop.test  unpublished
    --- exit 0
    ");
    assert_snapshot!(home.run(&["dns", "show"]).all(), @r"
    --- stdout
    www.shop.test (zone shop.test on serve)
      leads to   www.hafog-shop.shop.test
      published  nothing
      served     the zone is not served
    --- exit 0
    ");
    assert_snapshot!(home.run(&["dns", "clock"]).all(), @r"
    --- stdout
    www.shop.test  nothing was superseded
    --- exit 0
    ");
    assert_snapshot!(home.run(&["replicate", "status"]).all(), @r"
    --- stdout
    the stack has no databases
    --- exit 0
    ");
    assert_snapshot!(home.run(&["image", "list"]).all(), @r"
    --- stdout
    SITE  IMAGE                 STATE      SERVERS
    east  haproxy-IMAGE  not built  0
    east  web-IMAGE      not built  0
    west  haproxy-IMAGE  not built  0
    west  web-IMAGE      not built  0
    --- exit 0
    ");
    assert_snapshot!(home.run(&["show", "report"]).all(), @r"
    --- stderr
    error: nothing was ever run
    hint: hafog status
    --- exit 1
    ");
}

#[test]
fn preflight_says_what_is_missing() {
    let ran = Home::with(SMALL).run(&["preflight"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stdout.starts_with("FAIL "), "{}", ran.all());
    assert!(ran.stdout.contains("→ hafog up\n"), "{}", ran.all());
    assert!(
        ran.stdout.contains("\nwest cannot take over: "),
        "{}",
        ran.all()
    );
}

#[test]
fn every_noun_has_json() {
    let home = Home::with(SMALL);
    for verb in [
        &["show", "spec"][..],
        &["show", "stack"],
        &["show", "facts"],
        &["status"],
        &["preflight"],
        &["dns", "show"],
        &["dns", "clock"],
        &["replicate", "status"],
        &["image", "list"],
        &["lock", "status"],
        &["show", "journal", "--list"],
    ] {
        let ran = home.run(&[verb, &["--json"]].concat());
        let value: Result<serde_json::Value, _> = serde_json::from_str(&ran.stdout);
        assert!(value.is_ok(), "{verb:?}: {}", ran.all());
    }
}

#[test]
fn half_a_result_is_no_result() {
    let home = Home::with(SMALL);
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut command = home.command(&["show", "stack"]);
    let output = command.stdout(full.unwrap()).output().unwrap();
    let ran = home.ran(output.status, output.stdout, &output.stderr);
    assert_snapshot!(ran.all(), @r"
    --- stderr
    error: what was asked for is done, and its result could not be written
    cause: standard output: No space left on device (os error 28)
    --- exit 1
    ");
    // A reader that has seen enough is no trouble.
    let mut command = home.command(&["show", "stack"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
