//! `hafog check`.

use super::SMALL;
use crate::harness::Home;
use insta::assert_snapshot;

#[test]
fn a_good_spec_is_one_line() {
    let home = Home::with(SMALL);
    assert_snapshot!(home.run(&["check"]).all(), @r"
    --- stdout
    hafog.yaml: stack `shop` with 2 sites and 6 servers, no mistakes
    --- exit 0
    ");
    assert_snapshot!(home.run(&["check", "--json"]).all(), @r#"
    --- stdout
    {
      "file": "hafog.yaml",
      "mistakes": [],
      "lints": []
    }
    --- exit 0
    "#);
}

#[test]
fn every_mistake_is_shown_with_its_place() {
    let home = Home::with(
        "stack: shop\nsites:\n  east: { cloud: lokal }\nprimary: west\nservers:\n  web: { image: nothing }\n",
    );
    assert_snapshot!(home.run(&["check"]).all(), @r"
    --- stderr
    error: unknown cloud `lokal`, expected `local`, `incus` or `ssh`
     --> hafog.yaml:3:18
    3 |   east: { cloud: lokal }
      |                  ^^^^^
    hint: did you mean `local`?

    error: unknown site `west`, expected `east`
     --> hafog.yaml:4:10
    4 | primary: west
      |          ^^^^

    error: unknown image `nothing`, expected `haproxy`, `postgres` or `postgres-15`
     --> hafog.yaml:6:17
    6 |   web: { image: nothing }
      |                 ^^^^^^^

    3 mistakes
    --- exit 65
    ");
    let json = home.run(&["check", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json.code, 65);
    assert_eq!(value["mistakes"][0]["line"], 3);
}

#[test]
fn a_lint_warns_and_does_not_fail() {
    let home = Home::with(include_str!("../../fixtures/stacks/lint/no-health.yaml"));
    assert_snapshot!(home.run(&["check"]).all(), @r#"
    --- stdout
    hafog.yaml: stack `shop` with 2 sites and 10 servers, no mistakes, 1 warning
    --- stderr
    warning: no-health: there is no `health`, so nothing says whether a site works
    hint: add `health: [ { http: "http://www.shop.test/" } ]`
    --- exit 0
    "#);
}

#[test]
fn a_missing_template_is_a_mistake() {
    let home = Home::with(&SMALL.replace(
        "  web:\n    services:",
        "  web:\n    files: [{ template: app.conf, to: /etc/app.conf }]\n    services:",
    ));
    assert_snapshot!(home.run(&["check"]).all(), @r"
    --- stderr
    error: the image `web` needs the template `$HOME/app.conf`, which is not there

    1 mistake
    --- exit 65
    ");
    // Also for those who would build it.
    assert_eq!(home.run(&["build", "--dry-run"]).code, 65);
    // Who has to leave a site in a hurry needs no templates.
    assert_eq!(home.run(&["failover"]).code, 3);
    assert_eq!(home.run(&["status"]).code, 0);
}

#[test]
fn a_template_that_cannot_be_filled_in_is_a_mistake_with_its_line() {
    let home = Home::with(&SMALL.replace(
        "  web:\n    services:",
        "  web:\n    files: [{ template: app.conf, to: /etc/app.conf }]\n    services:",
    ));
    home.write("app.conf", "port {{ open[0] }}\nname {{ nmes[0] }}\n");
    assert_snapshot!(home.run(&["check"]).all(), @r"
    --- stderr
    error: this template cannot be filled in: undefined value: `nmes` is undefined
     --> $HOME/app.conf:2:9
    2 | name {{ nmes[0] }}
      |         ^^^^^^^
    hint: a template knows `stack`, `image`, `sites`, `names`, `open` and `databases.NAME`; what differs from server to server is in the environment of services
    hint: write `copy:` in place of `template:` for a file that stays as it is

    1 mistake
    --- exit 65
    ");
    assert_eq!(home.run(&["build", "--dry-run"]).code, 65);
    home.write("app.conf", "port {{ open[0] }}\nname {{ names[0] }}\n");
    assert_eq!(home.run(&["check"]).code, 0);
}

#[test]
fn the_spec_may_be_elsewhere() {
    let home = Home::new();
    assert_snapshot!(home.run(&["check"]).all(), @r"
    --- stderr
    error: cannot read the spec `hafog.yaml`
    cause: No such file or directory (os error 2)
    hint: `hafog init` writes one to start from
    --- exit 1
    ");
    home.write("other.yaml", SMALL);
    assert_eq!(home.run(&["check", "-f", "other.yaml"]).code, 0);
    assert_eq!(
        home.run_with(&["check"], &[("HAFOG_SPEC", "other.yaml")])
            .code,
        0
    );
}
