//! The road of every verb that changes something, as far as it goes before anything is changed.

use super::SMALL;
use crate::harness::Home;
use insta::assert_snapshot;

#[test]
fn nobody_agreed_and_nobody_can_be_asked() {
    let home = Home::with(SMALL);
    let ran = home.run(&["up"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, ""));
    let end: Vec<&str> = ran.stderr.lines().rev().take(3).collect();
    assert_snapshot!(end.into_iter().rev().collect::<Vec<_>>().join("\n"), @r"
    consent needed: nobody agreed to the plan, and nobody can be asked
    hint: hafog up --plan DIGEST
    hint: hafog up --yes
    ");
    assert!(
        ran.stderr
            .starts_with("up of shop: 21 steps, plan DIGEST\n"),
        "{}",
        ran.all()
    );
}

#[test]
fn a_dry_run_is_the_plan_and_nothing_else() {
    let home = Home::with(SMALL);
    let ran = home.run(&["up", "--dry-run"]);
    assert_snapshot!(ran.all(), @r"
    --- stdout
    up of shop: 21 steps, plan DIGEST
     1 create-builder shop-east-build-haproxy  start a temporary server for image haproxy-IMAGE in east
     2 apply-recipe shop-east-build-haproxy    put recipe `haproxy` into shop-east-build-haproxy
     3 seal-image haproxy-IMAGE east    make image haproxy-IMAGE in east
     4 delete-builder shop-east-build-haproxy  remove the temporary server shop-east-build-haproxy
     5 try-image haproxy-IMAGE east     boot haproxy-IMAGE in east, and ask its check
     6 create-builder shop-east-build-web      start a temporary server for image web-IMAGE in east
     7 apply-recipe shop-east-build-web        put recipe `web` into shop-east-build-web
     8 seal-image web-IMAGE east        make image web-IMAGE in east
     9 delete-builder shop-east-build-web      remove the temporary server shop-east-build-web
    10 try-image web-IMAGE east         boot web-IMAGE in east, and ask its check
    11 create-server shop-east-web-1           start shop-east-web-1 from web-IMAGE
    12 create-server shop-east-web-2           start shop-east-web-2 from web-IMAGE
    13 create-server shop-east-balancer-1      start shop-east-balancer-1 from haproxy-IMAGE
    14 configure-server shop-east-web-1        configure shop-east-web-1 and start its services
    15 configure-server shop-east-web-2        configure shop-east-web-2 and start its services
    16 configure-server shop-east-balancer-1   configure shop-east-balancer-1 and start its services
    17 await-healthy east                      wait until east answers its health checks
    18 ensure-zone shop.test                   make sure that shop.test is being served by `serve`
    19 set-record shop.test                    publish www.shop.test in shop.test
    20 see-record shop.test                    every authority of shop.test answers so
    21 set-roles                               east is the primary site
    --- exit 0
    ");
    assert_eq!(home.run(&["up", "-n", "--detailed-exitcode"]).code, 2);
    // No lease was taken for looking.
    assert_snapshot!(home.run(&["lock", "status"]).all(), @r"
    --- stdout
    shop: free, never taken
    --- exit 0
    ");
}

#[test]
fn a_plan_is_agreed_to_by_its_digest() {
    let home = Home::with(SMALL);
    let wrong = home.run(&["up", "--plan", "0000", "--quiet"]);
    assert_snapshot!(wrong.all(), @r"
    --- stderr
    refused: the world moved: the plan is `DIGEST` now, not `0000`
    hint: hafog up --dry-run
    --- exit 3
    ");
    let planned = home.run(&["up", "--dry-run", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(value["outcome"], "planned");
    assert_eq!(value["pending"], 21);
    // The lease was given back, so the next one need not wait.
    assert_eq!(home.run(&["up", "--plan", "0000"]).code, 3);
}

#[test]
fn refusals_are_named_and_nothing_is_done() {
    let home = Home::with(SMALL);
    assert_snapshot!(home.run(&["commit", "--yes"]).all(), @r"
    --- stderr
    refused: nothing-provisional: no flip is provisional
    hint: hafog status
    --- exit 3
    ");
    assert_snapshot!(home.run(&["rollback", "--yes"]).all(), @r"
    --- stderr
    refused: nothing-provisional: no flip is provisional
    hint: hafog status
    --- exit 3
    ");
    for verb in ["clone", "failover", "switchover", "deploy", "failback"] {
        let ran = home.run(&[verb, "--yes", "--accept", "not-up"]);
        assert_eq!(ran.code, 3, "{verb}: {}", ran.all());
        assert!(
            ran.stderr.contains("refused: not-up: "),
            "{verb}: {}",
            ran.all()
        );
        assert!(
            ran.stderr.contains("hint: hafog up\n"),
            "{verb}: {}",
            ran.all()
        );
    }
}

#[test]
fn nothing_to_do_is_a_success() {
    let home = Home::with(SMALL);
    assert_snapshot!(home.run(&["destroy", "--yes"]).all(), @r"
    --- stdout
    destroy: nothing to do
    --- exit 0
    ");
    assert_snapshot!(home.run(&["resume"]).all(), @r"
    --- stdout
    resume: no run is unfinished
    --- exit 0
    ");
    assert_snapshot!(home.run(&["dns", "restore", "--json"]).all(), @r#"
    --- stdout
    {
      "verb": "dns restore",
      "outcome": "nothing-to-do",
      "digest": "DIGEST",
      "pending": 0,
      "plan": {
        "kind": "converging",
        "intent": {
          "verb": "restore-ttl"
        },
        "steps": [],
        "refusals": [],
        "forecast": {
          "loss": [],
          "effective_after": null,
          "notes": [],
          "apart": {}
        }
      }
    }
    --- exit 0
    "#);
}

/// Secrets are read before the first step: a plan that needs one that is not there changes nothing.
#[test]
fn a_secret_that_is_missing_stops_the_plan_before_it_begins() {
    let home = Home::with(&format!(
        "{SMALL}secrets: {{ TOKEN: env, KEY: \"file:./key\" }}\n"
    ));
    let ran = home.run(&["up", "--yes"]);
    assert_snapshot!(ran.all(), @r"
    --- stderr
    error: the plan needs the secret `KEY`
    cause: the secret file `$HOME/./key` cannot be read
    cause: No such file or directory (os error 2)

    error: the plan needs the secret `TOKEN`
    cause: the environment variable `TOKEN` is not set
    hint: export TOKEN=…

    2 mistakes
    --- exit 65
    ");
    assert!(
        !home.path().join(".hafog/journal").exists(),
        "a run was made"
    );
    home.write("key", "one\nTWO=2\n");
    let ran = home.run_with(&["up", "--yes"], &[("TOKEN", "t0ken")]);
    assert_snapshot!(ran.all(), @r"
    --- stderr
    error: the plan needs the secret `KEY`
    cause: the secret file `$HOME/./key` has more than one line

    1 mistake
    --- exit 65
    ");
    // Looking needs none.
    assert_eq!(home.run(&["up", "--dry-run"]).code, 0);
}
