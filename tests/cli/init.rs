//! `hafog init`.

use crate::harness::Home;
use insta::assert_snapshot;

#[test]
fn writes_a_spec_that_checks_for_every_starter() {
    for starter in ["static", "lemp", "rails", "django", "node"] {
        let home = Home::new();
        let ran = home.run(&["init", "--template", starter, "--name", "shop"]);
        assert_eq!(ran.code, 0, "{}", ran.all());
        assert!(
            home.read("hafog.yaml").contains("stack: shop\n"),
            "{starter}"
        );
        let checked = home.run(&["check"]);
        assert_eq!(checked.code, 0, "{starter}: {}", checked.all());
        assert_eq!(checked.stderr, "", "{starter}");
    }
}

#[test]
fn never_writes_over_anything() {
    let home = Home::with("mine\n");
    assert_snapshot!(home.run(&["init", "--name", "shop"]).all(), @r"
    --- stderr
    error: `hafog.yaml` is there already, and is left as it is
    hint: hafog init OTHER.yaml
    --- exit 1
    ");
    assert_eq!(home.read("hafog.yaml"), "mine\n");
}

#[test]
fn says_what_it_wrote_and_where() {
    let home = Home::new();
    let ran = home.run(&[
        "init",
        "--name",
        "shop",
        "--template",
        "rails",
        "other.yaml",
    ]);
    assert_snapshot!(ran.all(), @r"
    --- stdout
    wrote other.yaml: stack `shop`, starter `rails`
    --- stderr
    next: hafog check -f other.yaml
    --- exit 0
    ");
    assert_snapshot!(home.run(&["init", "--name", "Not A Word"]).all(), @r"
    --- stderr
    error: a stack cannot be called `Not A Word`
    cause: `Not A Word` is not a name: expected small letters, digits and single hyphens, beginning with a letter
    hint: hafog init --name shop
    --- exit 64
    ");
    assert_snapshot!(home.run(&["init", "--template", "cobol"]).all(), @r"
    --- stderr
    error: invalid value 'cobol' for '--template <NAME>'
      [possible values: static, lemp, rails, django, node]

    For more information, try '--help'.
    --- exit 64
    ");
    assert!(!home.path().join("hafog.yaml").exists());
}
