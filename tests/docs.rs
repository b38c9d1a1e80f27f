//! The pages of docs/ say what the program does. `UPDATE=1 cargo test --test docs` writes the generated ones anew.

use std::path::PathBuf;
use std::process::Command;

use hafog::plan::preflight::CHECKS;
use hafog::plan::safety::REFUSALS;

fn page(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(page(name)).unwrap_or_default()
}

fn help(words: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hafog"))
        .args(words)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "hafog {words:?} --help");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The verbs below, as the help lists them.
fn verbs(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let list = list.take_while(|line| line.starts_with("  "));
    let words = list.filter(|line| !line.starts_with("   "));
    let words = words.filter_map(|line| line.split_whitespace().next());
    let words = words.filter(|word| *word != "help");
    words.map(str::to_owned).collect()
}

fn chapters(words: &[String], out: &mut String) {
    let text = help(words);
    let mut title = vec!["hafog".to_owned()];
    title.extend_from_slice(words);
    // The global options are said once, on top.
    let own = match words {
        [] => text.as_str(),
        _ => text.split("\nGlobal options:").next().unwrap_or(&text),
    };
    let level = "#".repeat(words.len().min(2) + 1);
    out.push_str(&format!(
        "\n{level} {}\n\n```text\n{}\n```\n",
        title.join(" "),
        own.trim_end()
    ));
    for verb in verbs(&text) {
        let below: Vec<String> = words.iter().cloned().chain([verb]).collect();
        chapters(&below, out);
    }
}

#[test]
fn the_page_of_the_command_line_is_fresh() {
    let mut made = "<!-- Generated: UPDATE=1 cargo test --test docs -->\n".to_owned();
    chapters(&[], &mut made);
    assert!(
        made.contains("hafog switchover"),
        "the verbs were not found:\n{made}"
    );
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(page("docs/cli.md"), &made).expect("docs/ is writable");
    }
    assert!(
        read("docs/cli.md") == made,
        "docs/cli.md is stale: UPDATE=1 cargo test --test docs"
    );
}

#[test]
fn every_refusal_and_every_check_is_on_its_page() {
    let text = read("docs/refusals.md");
    for refusal in REFUSALS {
        let accepted = if refusal.waivable { "yes" } else { "no" };
        let row = format!("| `{}` | {accepted} | {} |", refusal.name, refusal.about);
        assert!(
            text.contains(&row),
            "docs/refusals.md lacks this row:\n{row}"
        );
    }
    for check in CHECKS {
        let row = format!("| `{}` | {} |", check.name, check.about);
        assert!(
            text.contains(&row),
            "docs/refusals.md lacks this row:\n{row}"
        );
    }
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(
        rows,
        REFUSALS.len() + CHECKS.len(),
        "docs/refusals.md has rows of what does not exist"
    );
}

#[test]
fn every_exit_code_is_on_its_page_and_in_the_help() {
    let (text, help) = (read("docs/exit-codes.md"), help(&[]));
    let help = help
        .split("Exit codes:")
        .nth(1)
        .expect("the help lists them");
    let source = read("src/exit.rs");
    let constants = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "));
    let codes: Vec<&str> = constants
        .filter_map(|line| line.split(" = ").nth(1)?.strip_suffix(';'))
        .collect();
    assert!(codes.len() > 10, "src/exit.rs is read wrongly: {codes:?}");
    for code in &codes {
        assert!(
            text.contains(&format!("| {code} | ")),
            "docs/exit-codes.md lacks {code}"
        );
        let listed = help.split_whitespace().any(|word| word == *code);
        assert!(listed, "hafog --help lacks {code}");
    }
    let rows = text.lines().filter(|line| line.starts_with("| ")).count();
    assert_eq!(
        rows,
        codes.len() + 2,
        "docs/exit-codes.md has a row that is no exit code"
    );
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(page("docs")).expect("docs/ is there") {
        let name = entry.expect("docs/ can be read").file_name();
        pages.push(format!("docs/{}", name.to_string_lossy()));
    }
    for name in pages.iter().filter(|name| name.ends_with(".md")) {
        let text = read(name);
        assert!(!text.is_empty(), "{name} is empty");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let from = page(name)
                .parent()
                .expect("a page has a folder")
                .join(target);
            assert!(
                from.exists(),
                "{name} links to `{link}`, which is not there"
            );
        }
    }
}

#[test]
fn every_dependency_has_its_line() {
    let (manifest, text) = (read("Cargo.toml"), read("docs/DEPENDENCIES.md"));
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && let Some((name, _)) = line.split_once(" = ") {
            names.push(name);
        }
    }
    assert!(names.len() > 20, "Cargo.toml is read wrongly: {names:?}");
    for name in names {
        assert!(
            text.contains(&format!("| `{name}` | ")),
            "docs/DEPENDENCIES.md lacks `{name}`"
        );
    }
}
