//! Specs to start from, for `hafog init`. Each is complete, checks clean, and runs on this machine.

/// A starter: its name, one line about it, and its text with `{{stack}}` where the stack's name goes.
pub type Starter = (&'static str, &'static str, &'static str);

const STARTERS: &[Starter] = &[
    (
        "static",
        "a folder of files behind a balancer",
        include_str!("../../templates/starters/static.yaml"),
    ),
    (
        "lemp",
        "nginx and PHP with a database",
        include_str!("../../templates/starters/lemp.yaml"),
    ),
    (
        "rails",
        "Ruby on Rails with PostgreSQL",
        include_str!("../../templates/starters/rails.yaml"),
    ),
    (
        "django",
        "Django with PostgreSQL",
        include_str!("../../templates/starters/django.yaml"),
    ),
    (
        "node",
        "a Node server with PostgreSQL",
        include_str!("../../templates/starters/node.yaml"),
    ),
];

/// Returns all of them, in the order of help.
pub fn starters() -> &'static [Starter] {
    STARTERS
}

/// Returns one with the stack's name filled in. The name must be a word; `load_str` says so otherwise.
pub fn starter(name: &str, stack: &str) -> Option<String> {
    let (_, _, text) = STARTERS.iter().find(|(known, _, _)| *known == name)?;
    Some(text.replace("{{stack}}", stack))
}
