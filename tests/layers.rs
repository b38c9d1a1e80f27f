//! Who may import whom. The table is here, its reasons are in docs/ARCHITECTURE.md, and a row that is no longer
//! needed fails as much as an import that is not in it.
//!
//! It reads every file of src/ except what is only compiled for tests, and understands `use` trees, paths in the
//! middle of code, and `super::` that climbs out of a module.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

struct Layer {
    name: &'static str,
    /// Modules it may name anything of.
    may: &'static [&'static str],
    /// Single things of other modules, each with the reason why it is not a whole module.
    only: &'static [(&'static str, &'static str)],
}

/// Only these see everything; nobody below imports them.
const TOP: &[&str] = &["cli", "cmd", "demo"];

const LAYERS: &[Layer] = &[
    layer("error", &[], &[]),
    layer("exit", &["error"], &[]),
    layer("clock", &[], &[]),
    layer("cut", &[], &[]),
    layer("wait", &["error", "clock"], &[]),
    layer("durable", &["error"], &[]),
    layer("program", &["error"], &[]),
    layer("control", &["model", "error"], &[]),
    layer("http", &["error"], &[]),
    layer("model", &[], &[]),
    layer("spec", &["model", "error"], &[]),
    // Ports. None of them knows plan, run, step, world or another port.
    layer("shell", &["model", "error", "durable"], &[]),
    layer("state", &["model", "error", "durable", "cut"], &[]),
    layer(
        "probe",
        &["model", "error"],
        &[(
            "dns::ask",
            "one DNS client; hickory is named in dns/ and serve/ alone",
        )],
    ),
    layer(
        "cloud",
        &[
            "model", "error", "durable", "program", "control", "http", "shell",
        ],
        &[],
    ),
    // The keys are files that must survive a crash, as a store's are.
    layer("db", &["model", "error", "durable", "shell"], &[]),
    layer("dns", &["model", "error", "program", "control"], &[]),
    layer("image", &["model", "error", "durable"], &[]),
    layer("serve", &["model", "error", "control", "dns"], &[]),
    // Pure: the plain values of ports come in with the facts, and no port, clock or store does.
    layer(
        "plan",
        &["model"],
        &[
            ("cloud::Server", "facts carry what a cloud lists"),
            ("cloud::ServerState", "part of it"),
            ("cloud::Firewall", "facts carry what a site lets in"),
            ("cloud::Entry", "facts carry where an address leads"),
            ("cloud::firewall::GROUP_TAG", "which servers stay"),
            (
                "cloud::ServerWant",
                "an action carries what it asks of a cloud",
            ),
            ("db::NodeStatus", "facts carry what an engine reports"),
            ("db::NodeRole", "part of it"),
            ("db::Link", "part of it"),
            ("db::Certificate", "what lies on a node"),
            (
                "db::Contents",
                "what an old primary has and the new one lacks",
            ),
            ("db::Divergence", "where their histories parted"),
            (
                "dns::ttl",
                "arithmetic on the published history, without I/O",
            ),
            ("dns::CACHING", "what it counts with"),
            (
                "dns::RecordChange",
                "an action carries what it asks of a DNS host",
            ),
        ],
    ),
    layer(
        "world",
        &[
            "model", "error", "clock", "shell", "state", "probe", "cloud", "db", "dns",
        ],
        &[(
            "spec::secret",
            "secrets are read when they are delivered, not when the world is built",
        )],
    ),
    layer(
        "observe",
        &["model", "error", "world", "wait"],
        &[
            ("plan::facts", "what it makes"),
            ("shell::Host", "where a node is"),
            ("db::Engine", "only it can subtract positions"),
            ("db::Position", "what it subtracts"),
            ("db::NodeStatus", "where a node is in its log"),
            ("db::Divergence", "whether there is anything to compare"),
            (
                "step",
                "`front_door` and `is_configured`: a fact and a step's check must not disagree",
            ),
        ],
    ),
    // The loop on an application server: rsync and files, and no port.
    layer("files", &["model", "error", "durable"], &[]),
    layer(
        "agent",
        &["model", "error", "clock", "db", "state"],
        &[
            ("shell::Host", "where its node is"),
            ("shell::File", "what it notes of its own stop"),
            ("shell::ServiceState", "whether its engine runs"),
        ],
    ),
    // A step sees the world, and hands the values that the ports take. It never sees how a plan was made.
    layer(
        "step",
        &[
            "program", "model", "error", "wait", "world", "journal", "image", "shell", "cloud",
            "db", "dns", "cut",
        ],
        &[
            ("plan::action", "the data of the steps"),
            ("plan::Action", "their sum"),
            (
                "plan::build::MADE_FOR",
                "the tag by which a builder is known as one",
            ),
            ("plan::Step", "what a step is given"),
            ("plan::facts::FilesFact", "what it sees of files is a fact"),
            ("agent::AgentConfig", "a step writes it"),
            ("agent::Peer", "part of it"),
            (
                "agent::told",
                "what a step that opens a node leaves with it",
            ),
            ("agent::ARBITER_KEY", "the key that a step makes for it"),
            ("probe::HttpAsk", "what it asks of the probe"),
            ("state::PutError", "two writers of one document"),
            ("state::Guest", "who comes to the arbiter by itself"),
        ],
    ),
    layer(
        "journal",
        &["model", "error", "clock", "state", "cut"],
        &[("plan::Plan", "a run's first line holds its plan")],
    ),
    layer(
        "run",
        &[
            "model", "error", "clock", "state", "plan", "journal", "step", "world",
        ],
        &[(
            "observe",
            "a session looks at the world after it took the lease",
        )],
    ),
    layer(
        "ui",
        &["model", "error", "plan"],
        &[
            ("journal::event", "what it shows"),
            ("journal::Listener", "how it hears"),
        ],
    ),
    // Every port in memory. Nothing that is shipped imports it.
    layer(
        "sim",
        &[
            "model", "error", "clock", "shell", "state", "probe", "cloud", "db", "dns",
        ],
        &[],
    ),
];

const fn layer(
    name: &'static str,
    may: &'static [&'static str],
    only: &'static [(&'static str, &'static str)],
) -> Layer {
    Layer { name, may, only }
}

#[test]
fn nobody_imports_what_the_table_does_not_allow() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (file, text) in sources() {
        let (layer, depth) = whereabouts(&file);
        if TOP.contains(&layer.as_str()) {
            continue;
        }
        let Some(row) = LAYERS.iter().find(|row| row.name == layer) else {
            wrong.push(format!("{}: `{layer}` is not in the table", file.display()));
            continue;
        };
        for path in imports(&text, depth) {
            let module = path.split("::").next().unwrap_or_default();
            let covers = |what: &str| path == what || path.starts_with(&format!("{what}::"));
            if module == layer {
                continue;
            }
            let allowed = row.may.iter().copied().find(|may| *may == module);
            let single = row
                .only
                .iter()
                .map(|(what, _)| *what)
                .find(|what| covers(what));
            match allowed.or(single) {
                Some(entry) => drop(used.insert((row.name, entry))),
                None => wrong.push(format!(
                    "{}: `{layer}` may not name `{path}`",
                    file.display()
                )),
            }
        }
    }
    for row in LAYERS {
        let single = row.only.iter().map(|(what, _)| *what);
        for entry in row.may.iter().copied().chain(single) {
            if !used.contains(&(row.name, entry)) {
                wrong.push(format!(
                    "the table lets `{}` name `{entry}`, and it does not",
                    row.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Rows of the page: the modules, whom they may import, and whether single things are named besides.
fn page() -> Vec<(Vec<String>, BTreeSet<String>, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).expect("the page is there");
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| module |"));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let quoted = |cell: &str| -> Vec<String> {
        let words = cell.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [modules, may, besides] = cells.as_slice() else {
            panic!("three cells: {line}");
        };
        let mut may: BTreeSet<String> = quoted(may).into_iter().collect();
        if cells[1].contains("all ports") {
            may.extend(["shell", "state", "probe", "cloud", "db", "dns"].map(str::to_owned));
        }
        (quoted(modules), may, !besides.trim().is_empty())
    };
    rows.map(row).collect()
}

#[test]
fn the_page_says_the_same() {
    let (mut said, mut top) = (BTreeSet::new(), BTreeSet::new());
    for (modules, may, besides) in page() {
        for module in modules {
            if TOP.contains(&module.as_str()) {
                top.insert(module);
                continue;
            }
            let row = LAYERS.iter().find(|row| row.name == module);
            let row = row.unwrap_or_else(|| panic!("the page has `{module}`"));
            let here: BTreeSet<String> = row.may.iter().map(|may| (*may).to_owned()).collect();
            assert_eq!(may, here, "`{module}` on the page, and here");
            assert_eq!(besides, !row.only.is_empty(), "`{module}`: single things");
            assert!(said.insert(module.clone()), "`{module}` stands there twice");
        }
    }
    let here: BTreeSet<String> = LAYERS.iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(said, here);
    let all: BTreeSet<String> = TOP.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(top, all);
}

#[test]
fn every_exception_has_a_reason() {
    for row in LAYERS {
        for (what, why) in row.only {
            assert!(
                !why.is_empty(),
                "`{}` names `{what}` without a reason",
                row.name
            );
        }
    }
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let text = "use crate::{exit, cloud::{self, Can}};\n// crate::no\nlet a = crate::plan::hex(b);\n\
        let b = (\"\\\"http://\", '\"', crate::state::put()); // crate::no\n\
        use super::Fault;\nuse super::super::world::World;\n#[cfg(test)]\nmod tests {\n    use crate::sim;\n}\n";
    let found = imports(&shipped(text), 2);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(
        found,
        [
            "cloud::Can",
            "cloud::self",
            "exit",
            "plan::hex",
            "state::put",
            "world::World"
        ]
    );
}

/// Every file that is compiled into the program, without its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            let name = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            if name == "tests" || name.ends_with("_tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).expect("source is UTF-8");
                let short = path.strip_prefix(&root).expect("it is below src");
                // These two list modules; they are above all layers.
                if !["lib.rs", "main.rs"].contains(&short.to_str().unwrap_or_default()) {
                    found.push((short.to_path_buf(), shipped(&text)));
                }
            }
        }
    }
    assert!(found.len() > 100, "only {} files were found", found.len());
    found
}

/// The layer of a file, and how many `super` lead from it to the crate's root.
fn whereabouts(file: &Path) -> (String, usize) {
    let mut parts: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    parts.retain(|part| part != "mod");
    (parts[0].clone(), parts.len())
}

/// Without comments and without items under `#[cfg(test)]`. Relies on rustfmt: an item of column 0 ends there.
fn shipped(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            let mut item = lines.by_ref().skip_while(|line| line.starts_with('#'));
            let one_line = item.next().is_none_or(|line| line.ends_with(';'));
            if !one_line {
                lines.by_ref().find(|line| *line == "}");
            }
            continue;
        }
        out.push_str(without_comment(line));
        out.push('\n');
    }
    out
}

/// A line up to its comment. Two slashes in a text (`"http://"`) begin none.
fn without_comment(line: &str) -> &str {
    let mut in_text = false;
    let mut letters = line.char_indices().peekable();
    while let Some((at, c)) = letters.next() {
        let next = letters.peek().map(|(_, next)| *next);
        match c {
            '\\' if in_text => drop(letters.next()),
            // `'"'` is a letter.
            '\'' if !in_text && next == Some('"') => drop(letters.next()),
            '"' => in_text = !in_text,
            '/' if !in_text && next == Some('/') => return &line[..at],
            _ => {}
        }
    }
    line
}

/// Paths from the crate's root that the text names.
fn imports(text: &str, depth: usize) -> BTreeSet<String> {
    let root = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for start in ["crate::", root.as_str()] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let after = &text[at + start.len()..];
            if !after.starts_with("super::") {
                tree(after, String::new(), &mut found);
            }
        }
    }
    found
}

/// Flattens one `a::{b, c::d}`; returns what is left of the text.
fn tree<'a>(text: &'a str, prefix: String, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches([',', ' ', '\n']);
            match rest.strip_prefix('}') {
                Some(rest) => return rest,
                None if rest.is_empty() => return rest,
                None => rest = tree(rest, prefix.clone(), found),
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()).max(1).min(text.len()));
    let path = format!("{prefix}{word}");
    match rest.strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => tree(rest, format!("{path}::"), found),
        _ => {
            found.insert(path);
            // `a as b` inside braces.
            rest.strip_prefix(" as ").map_or(rest, |rest| {
                rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
            })
        }
    }
}
