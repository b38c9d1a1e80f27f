//! JSON for scripts: one document, or one line an event.

use serde::Serialize;

/// One document, indented, with a line break at the end.
pub fn pretty<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("our own values serialise");
    text.push('\n');
    text
}

/// One line.
pub fn line<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own values serialise")
}
