//! A fault as text: heading, place with the line underlined, causes and hints, each on a line of its own.
//!
//! Text that came from a file or from another machine is cleaned of what would move a terminal's cursor.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::error::{Fault, Kind, Place};

/// Longer lines are cut around the place.
const WIDTH: usize = 100;

/// Renders a fault. Ends with a line break.
pub fn render(fault: &Fault, colour: bool) -> String {
    render_as(heading(fault.kind()), fault, colour)
}

/// Renders a fault that does not stop anything: a lint.
pub fn warning(fault: &Fault, colour: bool) -> String {
    render_as(("warning", Level::WARNING), fault, colour)
}

fn heading(kind: Kind) -> (&'static str, Level<'static>) {
    let word = match kind {
        Kind::Error | Kind::Usage | Kind::Spec | Kind::Unavailable => "error",
        Kind::Refused => "refused",
        Kind::Partial => "partly done",
        Kind::Locked => "locked",
        Kind::OutOfSync => "out of sync",
        Kind::Consent => "consent needed",
        Kind::Interrupted => "interrupted",
    };
    (word, Level::ERROR)
}

fn render_as((word, level): (&'static str, Level<'static>), fault: &Fault, colour: bool) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDTH);
    let message = clean(fault.message());
    let level = level.with_name(word);
    let title = level.primary_title(&message);
    let shown = fault.place().map(Shown::of);
    let group = match &shown {
        Some(shown) => title.element(shown.snippet()),
        None => annotate_snippets::Group::with_title(title),
    };
    // Empty gutter lines around the source say nothing.
    let mut text: String = renderer
        .render(&[group])
        .lines()
        .filter(|line| !is_empty_gutter(line, colour))
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    for cause in fault.causes() {
        text.push_str(&labelled("cause", cause, colour));
    }
    for hint in fault.hints() {
        text.push_str(&labelled("hint", hint, colour));
    }
    text
}

/// A place whose parts a terminal can show.
struct Shown {
    file: String,
    text: String,
    line: usize,
    /// In bytes of `text`.
    range: std::ops::Range<usize>,
}

impl Shown {
    fn of(place: &Place) -> Shown {
        let text = clean(&place.text);
        let byte = |character: usize| {
            text.char_indices()
                .nth(character)
                .map_or(text.len(), |(byte, _)| byte)
        };
        let start = place.column.saturating_sub(1);
        let range = byte(start)..byte(start + place.width.max(1));
        Shown {
            file: clean(&place.file),
            line: place.line,
            range,
            text,
        }
    }

    fn snippet(&self) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
        Snippet::source(&self.text)
            .path(&self.file)
            .line_start(self.line)
            .annotation(AnnotationKind::Primary.span(self.range.clone()))
    }
}

fn is_empty_gutter(line: &str, colour: bool) -> bool {
    let plain = if colour {
        without_colour(line)
    } else {
        line.to_owned()
    };
    plain.trim() == "|"
}

fn without_colour(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('\u{1b}') {
        plain.push_str(&rest[..at]);
        rest = rest[at..].find('m').map_or("", |end| &rest[at + end + 1..]);
    }
    plain.push_str(rest);
    plain
}

/// One label a line, also when the text has line breaks of its own.
fn labelled(label: &str, text: &str, colour: bool) -> String {
    let (bold, end) = if colour {
        ("\u{1b}[1m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    let text = clean(text.trim_end());
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut all = format!("{bold}{label}{end}: {first}\n");
    for line in lines {
        all.push_str(&format!("{:width$}{line}\n", "", width = label.len() + 2));
    }
    all
}

/// Replaces what would move a cursor or turn the direction of a text; line breaks stay.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '\n',
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, column: usize, width: usize) -> Place {
        Place {
            file: "hafog.yaml".to_owned(),
            line: 4,
            column,
            text: text.to_owned(),
            width,
        }
    }

    #[test]
    fn a_mistake_points_at_its_word() {
        let fault = Fault::of(Kind::Spec, "unknown cloud `hetzer`, expected `hetzner`")
            .at(place("  west: { cloud: hetzer, region: fra1 }", 18, 6))
            .hint("did you mean `hetzner`?");
        assert_eq!(
            render(&fault, false),
            "error: unknown cloud `hetzer`, expected `hetzner`\n\
             \x20--> hafog.yaml:4:18\n\
             \x20 |\n\
             4 |   west: { cloud: hetzer, region: fra1 }\n\
             \x20 |                  ^^^^^^\n\
             hint: did you mean `hetzner`?\n"
                .replace("  |\n4", "4")
        );
    }

    #[test]
    fn causes_and_hints_have_lines_of_their_own() {
        let fault = Fault::refused("cannot promote")
            .because("lag is unknown")
            .because("first\nsecond")
            .hint("hafog status")
            .hint("hafog preflight");
        assert_eq!(
            render(&fault, false),
            "refused: cannot promote\ncause: lag is unknown\ncause: first\n       second\nhint: hafog status\nhint: hafog preflight\n"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let long = format!("{}wrong{}", "x ".repeat(2_000), " y".repeat(2_000));
        let text = render(
            &Fault::of(Kind::Spec, "wrong").at(place(&long, 4_001, 5)),
            false,
        );
        assert!(text.contains("wrong") && text.contains("^^^^^"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH + 20, "{line}");
        }
    }

    #[test]
    fn places_at_the_edges_render() {
        for (text, column, width) in [
            ("", 1, 1),
            ("", 9, 9),
            ("ä", 1, 1),
            ("ä", 2, 1),
            ("a\tb", 3, 1),
            ("漢字", 2, 1),
        ] {
            let text = render(
                &Fault::of(Kind::Spec, "wrong").at(place(text, column, width)),
                false,
            );
            assert!(text.contains("hafog.yaml:4:"), "{text}");
        }
    }

    #[test]
    fn nothing_moves_the_cursor() {
        let fault = Fault::new("a\u{1b}[2Jb")
            .at(place("\u{1b}]0;x\u{7}\u{202e}", 1, 1))
            .because("\u{1b}[1A")
            .hint("\r\u{9b}");
        assert!(!render(&fault, false).contains(|c: char| c.is_control() && c != '\n'));
    }

    #[test]
    fn colour_changes_no_words() {
        let fault = Fault::of(Kind::Spec, "wrong")
            .at(place("a: b", 4, 1))
            .because("x")
            .hint("y");
        let coloured = render(&fault, true);
        assert_ne!(coloured, render(&fault, false));
        let plain: String = coloured
            .lines()
            .map(|line| without_colour(line).trim_end().to_owned() + "\n")
            .collect();
        assert_eq!(plain, render(&fault, false));
    }
}
