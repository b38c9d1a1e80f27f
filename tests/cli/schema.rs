//! The published schema is the one that this build makes.

use crate::harness::Home;

#[test]
fn the_published_schema_is_fresh() {
    let ran = Home::new().run(&["schema"]);
    let published = include_str!("../../docs/hafog.schema.json");
    assert!(
        ran.stdout == published,
        "write it anew: hafog schema > docs/hafog.schema.json"
    );
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Home::new().run(&["completions", shell]);
        assert!(
            ran.code == 0 && ran.stdout.contains("switchover"),
            "{shell}"
        );
    }
}
