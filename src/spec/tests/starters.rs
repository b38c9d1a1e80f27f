//! What `hafog init` writes.

use super::*;
use crate::model::id::StackName;

#[test]
fn starters_check_clean() {
    for (name, about, _) in starters() {
        let text = starter(name, "my-shop").unwrap();
        assert!(!text.contains("{{") && !about.is_empty());
        let loaded =
            load_str(name, &text, &KNOWN).unwrap_or_else(|faults| panic!("{}", all(&faults)));
        assert_eq!(loaded.lints, [], "{name}");
        assert_eq!(loaded.stack.name, StackName::from("my-shop"));
    }
    assert_eq!(starter("cobol", "x"), None);
}

/// Uncommenting an example line of a starter gives a spec that is still right.
#[test]
fn commented_lines_of_starters_are_right() {
    for (name, _, _) in starters() {
        let text = starter(name, "shop").unwrap();
        let mut tried = 0;
        for (index, line) in text.lines().enumerate() {
            let Some((blank, example)) = line.split_once("# ") else {
                continue;
            };
            let is_example = blank.trim().is_empty()
                && blank.len() >= 4
                && ["packages:", "code:", "run:", "- "]
                    .iter()
                    .any(|start| example.starts_with(start));
            if !is_example {
                continue;
            }
            tried += 1;
            let changed: Vec<String> = text
                .lines()
                .enumerate()
                .map(|(at, other)| {
                    if at == index {
                        format!("{blank}{example}")
                    } else {
                        other.to_owned()
                    }
                })
                .collect();
            if let Err(faults) = load_str(name, &changed.join("\n"), &KNOWN) {
                panic!("{line}\n{}", all(&faults));
            }
        }
        assert!(tried >= 3, "{name} has {tried} example lines");
    }
}
