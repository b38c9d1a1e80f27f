//! Text → Spec and Stack, or every mistake in it.

use std::io::Read;
use std::path::Path;

use serde_yaml::Value;

use crate::error::Fault;
use crate::model::stack::Stack;

use super::lint::{Lint, lint};
use super::resolve::resolve;
use super::source::{Mistakes, Source, Span};
use super::spot::Spot;
use super::tree::{self, Node, What};
use super::types::Spec;
use super::{Known, check, schema};

/// Room for as many servers as a stack may have, each with an entry of its own.
const FILE_MAX: u64 = 4 << 20;
const LINE_MAX: usize = 4_000;
/// Commas and opening brackets: the parser holds all of one pair of brackets at once.
const SEPARATORS_MAX: usize = 500_000;

/// A spec without mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub spec: Spec,
    pub stack: Stack,
    /// Valid, but not what one wants.
    pub lints: Vec<Lint>,
    pub text: String,
}

/// Reads and resolves the file. Reads nothing else.
pub fn load(path: &Path, known: &Known) -> Result<Loaded, Vec<Fault>> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|open| open.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            let fault = Fault::new(format!("cannot read the spec `{file}`"));
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "`hafog init` writes one to start from",
                _ => "`--file PATH` names another",
            };
            vec![fault.because(error).hint(hint)]
        })?;
    load_bytes(&file, &bytes, known)
}

/// The same for bytes that were read already.
pub fn load_bytes(file: &str, bytes: &[u8], known: &Known) -> Result<Loaded, Vec<Fault>> {
    if bytes.len() as u64 > FILE_MAX {
        let start = String::from_utf8_lossy(&bytes[..200]);
        let message = format!("the spec is larger than {} MiB", FILE_MAX >> 20);
        return Err(single(file, &start, Span::new(1, 1, 1), message));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => load_str(file, text, known),
        Err(error) => {
            // Lossy, but only behind the place that is shown.
            let good =
                std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to there");
            let source = Source::new(file, good);
            let line = source.lines.len();
            let column = source.lines[line - 1].chars().count() + 1;
            let tail = String::from_utf8_lossy(&bytes[error.valid_up_to()..]);
            let end: String = tail
                .chars()
                .take_while(|c| !matches!(c, '\n' | '\r'))
                .take(100)
                .collect();
            let text = format!("{good}{end}");
            let mut mistakes = Mistakes::default();
            let (message, hint) = encoding(bytes);
            mistakes.add_hinted(Span::new(line, column, 1), message, [hint.to_owned()]);
            Err(mistakes.into_faults(&Source::new(file, &text)))
        }
    }
}

/// The same for a text; `file` is only its name in messages.
pub fn load_str(file: &str, text: &str, known: &Known) -> Result<Loaded, Vec<Fault>> {
    if text.len() as u64 > FILE_MAX {
        let message = format!("the spec is larger than {} MiB", FILE_MAX >> 20);
        let start: String = text.chars().take(200).collect();
        return Err(single(file, &start, Span::new(1, 1, 1), message));
    }
    // A byte order mark says nothing that matters here.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    unreadable(file, text)?;
    let source = Source::new(file, text);
    let mut mistakes = Mistakes::default();
    let Some(mut root) = tree::read(&source, text, &mut mistakes) else {
        return Err(mistakes.into_faults(&source));
    };
    // Before the checks put stand-ins into the tree; it counts only where nothing else is wrong.
    let mut doubts = Mistakes::default();
    if mistakes.is_empty() {
        second_opinion(&root, text, &mut doubts);
    }
    let rules = schema::rules(known);
    check::check(&mut root, &rules, &mut mistakes);
    let spec: Spec = match serde_yaml::from_value(root.value()) {
        Ok(spec) => spec,
        Err(error) => {
            // The rules are made from these types; when they differ it is a bug, which a user need not crash of.
            mistakes.add(
                Span::new(1, 1, 1),
                format!("this spec cannot be read: {error}"),
            );
            return Err(mistakes.into_faults(&source));
        }
    };
    let spot = Spot::root(&root);
    let stack = resolve(&spec, spot, known, &mut mistakes);
    if mistakes.is_empty() && !doubts.is_empty() {
        mistakes.join(doubts);
    }
    if !mistakes.is_empty() {
        return Err(mistakes.into_faults(&source));
    }
    let lints = lint(&spec, &stack, spot, known)
        .into_iter()
        .map(|found| Lint {
            name: found.name,
            message: found.message,
            place: found.at.map(|span| mistakes.place(&source, span)),
            hint: found.hint,
        })
        .collect();
    Ok(Loaded {
        spec,
        stack,
        lints,
        text: text.to_owned(),
    })
}

/// What bytes that are not UTF-8 most probably are.
fn encoding(bytes: &[u8]) -> (&'static str, &'static str) {
    const SAVE: &str = "save the file as UTF-8";
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ("the spec is UTF-16, not UTF-8", SAVE),
        _ if bytes.iter().take(1_000).any(|byte| *byte == 0) => {
            ("the spec is not a text", "`--file PATH` names another")
        }
        _ => ("the spec is not UTF-8", SAVE),
    }
}

fn single(file: &str, text: &str, at: Span, message: impl Into<String>) -> Vec<Fault> {
    let mut mistakes = Mistakes::default();
    mistakes.add(at, message);
    mistakes.into_faults(&Source::new(file, text))
}

/// What no parser should see.
fn unreadable(file: &str, text: &str) -> Result<(), Vec<Fault>> {
    let mut separators = 0;
    for (index, line) in Source::new(file, text).lines.iter().enumerate() {
        let control = |c: char| c.is_control() && c != '\t';
        if let Some(column) = line.chars().take(LINE_MAX).position(control) {
            let code = line.chars().nth(column).map_or(0, u32::from);
            let at = Span::new(index + 1, column + 1, 1);
            let message = format!("the control character U+{code:04X} does not belong in a spec");
            let start: String = line.chars().take(column + 100).collect();
            return Err(alone(file, index, &start, at, message));
        }
        if line.len() > LINE_MAX && line.chars().count() > LINE_MAX {
            let at = Span::new(index + 1, 1, 1);
            let start: String = line.chars().take(100).collect();
            let message = format!("this line is longer than {LINE_MAX} characters");
            return Err(alone(file, index, &start, at, message));
        }
        let separator = |byte: &u8| matches!(byte, b',' | b'[' | b'{');
        separators += line.bytes().filter(|byte| separator(byte)).count();
        if separators > SEPARATORS_MAX {
            let at = Span::new(index + 1, 1, 1);
            let message = format!("more than {SEPARATORS_MAX} commas and brackets up to this line");
            return Err(alone(file, index, line, at, message));
        }
    }
    Ok(())
}

/// A mistake in a line of which only the start is shown.
fn alone(file: &str, index: usize, line: &str, at: Span, message: String) -> Vec<Fault> {
    let mut text = "\n".repeat(index);
    text.push_str(line);
    single(file, &text, at, message)
}

/// serde_yaml reads the text as well. Where two YAML parsers do not see the same, a person would not either.
fn second_opinion(root: &Node, text: &str, mistakes: &mut Mistakes) {
    match serde_yaml::from_str::<Value>(text) {
        Ok(value) => {
            if let Some(at) = difference(root, &value) {
                mistakes.add_hinted(
                    at,
                    "YAML readers do not agree on what this means",
                    ["quote the value".to_owned()],
                );
            }
        }
        Err(error) => {
            let at = error.location().map_or(Span::new(1, 1, 1), |location| {
                Span::new(location.line(), location.column(), 1)
            });
            mistakes.add(at, format!("this is not YAML: {error}"));
        }
    }
}

/// The first place where the tree and the value differ.
fn difference(node: &Node, value: &Value) -> Option<Span> {
    match (&node.what, value) {
        (What::Scalar { value: ours, .. }, theirs) => (ours != theirs).then_some(node.at),
        (What::List(ours), Value::Sequence(theirs)) if ours.len() == theirs.len() => ours
            .iter()
            .zip(theirs)
            .find_map(|(ours, theirs)| difference(ours, theirs)),
        (What::Map(ours), Value::Mapping(theirs)) if ours.entries.len() == theirs.len() => ours
            .entries
            .iter()
            .zip(theirs)
            .find_map(|(entry, (key, value))| {
                if key.as_str() != Some(entry.key.as_str()) {
                    return Some(entry.key_at);
                }
                difference(&entry.node, value)
            }),
        _ => Some(node.at),
    }
}
