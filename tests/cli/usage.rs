//! Wrong command lines: exit code 64, because 2 means "pending" here.

use super::SMALL;
use crate::harness::Home;
use insta::assert_snapshot;

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    let home = Home::with(SMALL);
    for wrong in [
        &["nonsense"][..],
        &[],
        &["up", "--nonsense"],
        &["lock", "release"],
        &["failover", "--planned", "--assume-down", "east"],
        &["up", "--events", "--json"],
        &["up", "--parallelism", "0"],
        &["up", "--lock-timeout", "soon"],
        &["clone", "nowhere"],
        &["failover", "--assume-down", "nowhere"],
        &["local", "power", "nowhere", "off"],
        &["explain", "nonsense"],
    ] {
        let ran = home.run(wrong);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (64, ""),
            "{wrong:?}: {}",
            ran.all()
        );
    }
    for fine in [
        &["--help"][..],
        &["--version"],
        &["failover", "--help"],
        &["help", "up"],
    ] {
        let ran = home.run(fine);
        assert_eq!(
            (ran.code, ran.stderr.as_str()),
            (0, ""),
            "{fine:?}: {}",
            ran.all()
        );
    }
}

#[test]
fn the_nearest_site_is_named() {
    let home = Home::with(SMALL);
    assert_snapshot!(home.run(&["clone", "wst"]).all(), @r"
    --- stderr
    error: the spec has no site `wst`
    hint: did you mean `west`?
    --- exit 64
    ");
}

#[test]
fn colour_is_for_those_who_ask() {
    let home = Home::with(SMALL);
    let has_colour = |ran: crate::harness::Ran| ran.all().contains('\u{1b}');
    assert!(!has_colour(home.run(&["clone", "wst"])));
    assert!(has_colour(home.run(&["clone", "wst", "--color", "always"])));
    assert!(!has_colour(home.run(&[
        "clone",
        "wst",
        "--color",
        "always",
        "--no-color"
    ])));
}
