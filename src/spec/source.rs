//! The text of a spec, places in it, and the mistakes found so far.
//!
//! Mistakes are kept as spans and become faults at the end, when it is known which stretches of text might be
//! somebody's password: those are never printed.

use std::collections::BTreeMap;

use crate::error::{Fault, Kind, Place};

/// A stretch of one line. Lines and columns are counted from 1, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub line: usize,
    pub column: usize,
    pub width: usize,
}

impl Span {
    pub fn new(line: usize, column: usize, width: usize) -> Span {
        Span {
            line,
            column,
            width,
        }
    }
}

pub struct Source<'t> {
    pub file: &'t str,
    pub lines: Vec<&'t str>,
}

impl<'t> Source<'t> {
    pub fn new(file: &'t str, text: &'t str) -> Source<'t> {
        Source {
            file,
            lines: lines(text),
        }
    }

    /// Puts a span inside the text: what a parser says about the end of a file may lie behind it.
    fn clamp(&self, span: Span) -> Span {
        let line = span.line.clamp(1, self.lines.len());
        let length = self.lines[line - 1].chars().count();
        let column = if line < span.line {
            length.max(1)
        } else {
            span.column.clamp(1, length.max(1))
        };
        let width = span
            .width
            .clamp(1, (length + 1 - column.min(length)).max(1));
        Span::new(line, column, width)
    }

    fn place(&self, span: Span, masks: &Masks) -> Place {
        let span = self.clamp(span);
        let mut text: String = self.lines[span.line - 1].to_owned();
        for mask in masks.get(&span.line).into_iter().flatten() {
            text = text
                .chars()
                .enumerate()
                .map(|(index, c)| {
                    let hidden = (mask.column..mask.column + mask.width).contains(&(index + 1));
                    if hidden { '*' } else { c }
                })
                .collect();
        }
        Place {
            file: self.file.to_owned(),
            line: span.line,
            column: span.column,
            text: printable(&text),
            width: span.width,
        }
    }
}

/// Splits at every line break that YAML knows (1.2.2 section 5.4). There is always at least one line.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\n', '\r']) {
        lines.push(&rest[..at]);
        let long = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[at + long..];
    }
    lines.push(rest);
    lines
}

/// Replaces what would move the cursor of a terminal; the number of characters stays the same.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => '\t',
            c if c.is_control() || is_bidi(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Characters that make a terminal show text in another order than it is read.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Stretches that are never printed, by line.
type Masks = BTreeMap<usize, Vec<Span>>;

struct Mistake {
    at: Span,
    message: String,
    hints: Vec<String>,
}

/// Every mistake of one spec. Beyond a thousand they are only counted.
#[derive(Default)]
pub struct Mistakes {
    list: Vec<Mistake>,
    more: usize,
    masks: Masks,
}

const MISTAKES_MAX: usize = 1_000;

impl Mistakes {
    pub fn add(&mut self, at: Span, message: impl Into<String>) {
        self.add_hinted(at, message, None);
    }

    pub fn add_hinted(
        &mut self,
        at: Span,
        message: impl Into<String>,
        hint: impl IntoIterator<Item = String>,
    ) {
        if self.is_full() {
            self.more += 1;
            return;
        }
        self.list.push(Mistake {
            at,
            message: message.into(),
            hints: hint.into_iter().collect(),
        });
    }

    /// Whether looking for hints is still worth the time.
    pub fn is_full(&self) -> bool {
        self.list.len() >= MISTAKES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Never prints this stretch: it may be a secret.
    pub fn mask(&mut self, span: Span) {
        self.masks.entry(span.line).or_default().push(span);
    }

    /// Whether the start of this stretch is not printed.
    pub fn hides(&self, span: Span) -> bool {
        let masks = self.masks.get(&span.line).into_iter().flatten();
        masks
            .into_iter()
            .any(|mask| (mask.column..mask.column + mask.width).contains(&span.column))
    }

    /// Takes over what was found elsewhere in the same text.
    pub fn join(&mut self, other: Mistakes) {
        self.list.extend(other.list);
    }

    /// In the order of the text.
    pub fn into_faults(mut self, source: &Source) -> Vec<Fault> {
        self.list
            .sort_by_key(|mistake| (mistake.at, mistake.message.clone()));
        let last = self.list.len().saturating_sub(1);
        let more = self.more;
        let fault = |(index, mistake): (usize, Mistake)| {
            let fault =
                Fault::of(Kind::Spec, mistake.message).at(source.place(mistake.at, &self.masks));
            let fault = mistake.hints.into_iter().fold(fault, Fault::hint);
            if index == last && more > 0 {
                fault.hint(format!("there are {more} more mistakes that are not shown"))
            } else {
                fault
            }
        };
        self.list.into_iter().enumerate().map(fault).collect()
    }

    /// A place for a lint, with the same masks.
    pub fn place(&self, source: &Source, span: Span) -> Place {
        source.place(span, &self.masks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_break_counts() {
        assert_eq!(lines("a\nb\r\nc\rd\n"), ["a", "b", "c", "d", ""]);
        assert_eq!(lines(""), [""]);
    }

    #[test]
    fn places_lie_inside_the_text() {
        let source = Source::new("f", "ab\n\ncäd");
        let place = |line, column, width| {
            let place = source.place(Span::new(line, column, width), &Masks::new());
            (place.line, place.column, place.width, place.text)
        };
        assert_eq!(place(3, 2, 1), (3, 2, 1, "cäd".to_owned()));
        assert_eq!(place(3, 2, 9), (3, 2, 2, "cäd".to_owned()));
        assert_eq!(place(2, 7, 3), (2, 1, 1, String::new()));
        assert_eq!(place(9, 1, 1), (3, 3, 1, "cäd".to_owned()));
        assert_eq!(place(0, 0, 0), (1, 1, 1, "ab".to_owned()));
    }

    #[test]
    fn masked_stretches_are_not_printed() {
        let source = Source::new("f", "A: sk_live, B: x");
        let mut mistakes = Mistakes::default();
        mistakes.mask(Span::new(1, 4, 7));
        mistakes.add(Span::new(1, 13, 1), "wrong");
        let faults = mistakes.into_faults(&source);
        assert_eq!(faults[0].place().unwrap().text, "A: *******, B: x");
    }

    #[test]
    fn a_thousand_mistakes_are_enough() {
        let mut mistakes = Mistakes::default();
        for _ in 0..1_500 {
            mistakes.add(Span::new(1, 1, 1), "wrong");
        }
        let faults = mistakes.into_faults(&Source::new("f", "x"));
        assert_eq!(faults.len(), 1_000);
        assert_eq!(
            faults[999].hints(),
            ["there are 500 more mistakes that are not shown"]
        );
    }
}
