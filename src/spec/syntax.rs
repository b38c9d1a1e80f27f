//! What a text that is not YAML most probably has wrong, in words for whoever wrote it.
//!
//! A parser complains where it gives up, which is often the line behind the mistake, and in its own terms. The causes
//! that people meet are looked for by name; what is none of them keeps the parser's words.

use super::source::{Source, Span};
use super::tree::DEPTH_MAX;

/// One mistake: where, what, and perhaps what to do.
pub struct Said {
    pub at: Span,
    pub message: String,
    pub hint: Option<String>,
}

fn said(at: Span, message: impl Into<String>) -> Said {
    Said {
        at,
        message: message.into(),
        hint: None,
    }
}

impl Said {
    fn hint(mut self, hint: impl Into<String>) -> Said {
        self.hint = Some(hint.into());
        self
    }
}

/// Explains the parser's complaint `info` at `at`. `open` is the innermost `{` or `[` that was read before it;
/// `hidden` says that the text there may be a secret, and is not repeated.
pub fn explain(
    source: &Source,
    at: Span,
    info: &str,
    open: Option<(char, Span)>,
    hidden: bool,
) -> Said {
    let line = at.line.clamp(1, source.lines.len());
    let around = [line, line.saturating_sub(1).max(1)];
    if let Some(conflict) = conflict(source) {
        return conflict;
    }
    let blank = |line: &usize| odd_blank(*line, source.lines[line - 1]);
    if let Some(blank) = around.iter().find_map(blank) {
        return blank;
    }
    let dash = |line: &usize| odd_dash(*line, source.lines[line - 1]);
    if info.contains("not allowed in this context")
        && let Some(dash) = around.iter().find_map(dash)
    {
        return dash;
    }
    if info.starts_with("simple key") {
        let before = (1..=line).rev().skip(usize::from(line > 1));
        if let Some(colon) = before
            .map(|line| no_colon(line, source.lines[line - 1]))
            .find_map(|it| it)
        {
            return colon;
        }
    }
    if let Some(quote) = unquoted(source, at, info) {
        return match hidden {
            true => said(at, "a value that begins like this has to be quoted"),
            false => quote,
        };
    }
    if let (Some((bracket, begins)), true) =
        (open, info.contains("flow") || info == "unexpected eof")
    {
        return not_closed(source, at, bracket, begins);
    }
    match info {
        "invalid indentation in quoted scalar"
        | "while scanning a quoted scalar, found unexpected end of stream"
        | "while scanning a quoted scalar, found unexpected document indicator" => {
            said(at, "the quote that begins here is not closed")
                .hint("write the same quote at the end of the text")
        }
        "misplaced bracket" => {
            said(at, "this bracket closes nothing").hint("remove it, or open one before it")
        }
        "while parsing a block mapping, did not find expected key"
        | "while parsing a block collection, did not find expected '-' indicator"
        | "invalid indentation" => said(
            at,
            "this line is not indented like the lines that it goes with",
        )
        .hint("begin it in the same column as the entry above it"),
        "mapping values are not allowed in this context" => said(at, "a `:` where none can be")
            .hint("quote a text that has `: ` in it; indent what belongs to the key above"),
        // The parser reads ahead, and has a limit of its own.
        "recursion limit exceeded" => said(
            at,
            format!("lists and maps are nested deeper than {DEPTH_MAX} levels"),
        ),
        _ => said(at, format!("this is not YAML: {info}")),
    }
}

/// What git leaves in a file when two changes meet.
fn conflict(source: &Source) -> Option<Said> {
    let marks = |line: &&str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
    let index = source.lines.iter().position(marks)?;
    let at = Span::new(index + 1, 1, 7);
    let said = said(at, "a merge conflict that was not resolved");
    Some(said.hint("keep one of the two sides and remove the marks"))
}

/// A tab, or a blank that only looks like a space, in the indentation.
fn odd_blank(line: usize, text: &str) -> Option<Said> {
    let odd = |c: &char| c.is_whitespace() && *c != ' ';
    let blank = text.chars().take_while(|c| c.is_whitespace());
    let (index, found) = blank.enumerate().find(|(_, c)| odd(c))?;
    let at = Span::new(line, index + 1, 1);
    Some(match found {
        '\t' => said(at, "a tab in the indentation; YAML indents with spaces")
            .hint("replace tabs by two spaces"),
        other => {
            let message = format!(
                "the blank U+{:04X} in the indentation is no space; YAML indents with spaces",
                u32::from(other)
            );
            said(at, message).hint("replace it by a space")
        }
    })
}

/// A `-` without a blank behind it, or something that only looks like one.
fn odd_dash(line: usize, text: &str) -> Option<Said> {
    let indent = text.chars().take_while(|c| *c == ' ').count();
    let mut chars = text.chars().skip(indent);
    let (first, second) = (chars.next()?, chars.next()?);
    let at = Span::new(line, indent + 1, 1);
    match (first, second) {
        ('\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{2022}', _) => {
            let message = format!(
                "`{first}` (U+{:04X}) begins no entry of a list",
                u32::from(first)
            );
            Some(said(at, message).hint("write `- `"))
        }
        ('-', second) if second != ' ' && second != '-' => {
            Some(said(at, "there is no space behind this `-`").hint("write `- `"))
        }
        _ => None,
    }
}

/// A line that should be `key: value`: the colon is not one, or no blank follows it.
fn no_colon(line: usize, text: &str) -> Option<Said> {
    let code = text.split(" #").next().unwrap_or_default().trim_end();
    if code.trim().is_empty() || code.trim_start().starts_with('#') {
        return None;
    }
    let column = |byte: usize| code[..byte].chars().count() + 1;
    if let Some((byte, wide)) = code
        .char_indices()
        .find(|(_, c)| matches!(c, '\u{ff1a}' | '\u{fe55}' | '\u{a789}'))
    {
        let message = format!(
            "`{wide}` (U+{:04X}) is not the `:` that ends a key",
            u32::from(wide)
        );
        return Some(said(Span::new(line, column(byte), 1), message).hint("write `: `"));
    }
    if let Some(byte) = code.find(':').filter(|byte| *byte + 1 < code.len()) {
        let at = Span::new(line, column(byte), 1);
        return Some(said(at, "there is no space behind this `:`").hint("write `: `"));
    }
    let indent = code.chars().take_while(|c| c.is_whitespace()).count();
    let at = Span::new(line, indent + 1, code.trim_start().chars().count());
    Some(said(at, "this line has no `:`").hint("write `key: value`"))
}

/// Texts that begin with a character that means something else to YAML.
fn unquoted(source: &Source, at: Span, info: &str) -> Option<Said> {
    let starts = info.starts_with("unexpected character")
        || info == "while parsing node, found unknown anchor"
        || info.starts_with("while scanning an anchor or alias");
    let line = source.lines.get(at.line.checked_sub(1)?)?;
    let rest: String = line.chars().skip(at.column - 1).collect();
    let first = rest.chars().next().filter(|_| starts)?;
    let text: String = rest
        .chars()
        .take_while(|c| !c.is_whitespace() && !matches!(c, ',' | '}' | ']'))
        .collect();
    let at = Span::new(at.line, at.column, text.chars().count().max(1));
    if line.trim_start().starts_with("{%") {
        return Some(said(at, "templates are not filled in a spec").hint("write the value itself"));
    }
    let said = said(
        at,
        format!("a text that begins with `{first}` has to be quoted"),
    );
    Some(if text.contains(['"', '\\']) {
        said
    } else {
        said.hint(format!("write `\"{text}\"`"))
    })
}

fn not_closed(source: &Source, at: Span, bracket: char, begins: Span) -> Said {
    let (close, noun) = match bracket {
        '[' => (']', "list"),
        _ => ('}', "map"),
    };
    if begins.line == at.line {
        return said(at, format!("expected `,` or `{close}` in this {noun}"));
    }
    let text = source.lines[begins.line - 1];
    let said = said(
        begins,
        format!("the `{bracket}` that begins here is not closed"),
    );
    if text.contains(" #") {
        said.hint("` #` begins a comment; quote a text that has it")
    } else {
        said.hint(format!("write `{close}` at the end of the {noun}"))
    }
}
