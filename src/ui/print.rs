//! How text leaves the program: results on stdout, everything else on stderr.
//!
//! A reader that went away (`hafog status | head -1`) is no trouble: what it does not want is not written.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

use crate::error::Fault;
use crate::ui::snippet;

/// When to colour. Colour never carries meaning alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`
    #[default]
    Auto,
    Always,
    Never,
}

/// The terminal of one command.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    pub json: bool,
    /// Journal lines on stdout, as they happen.
    pub events: bool,
    pub quiet: bool,
    pub colour_out: bool,
    pub colour_err: bool,
}

impl Ui {
    pub fn new(colour: Colour, json: bool, events: bool, quiet: bool) -> Ui {
        let on = |terminal: bool| match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !is_plain(),
        };
        Ui {
            json,
            events,
            quiet,
            colour_out: on(std::io::stdout().is_terminal()),
            colour_err: on(std::io::stderr().is_terminal()),
        }
    }

    /// The result. Ends with a line break whether `text` does or not. What could not be written is for [`lost`].
    pub fn out(&self, text: &str) {
        if let Err(error) = write(std::io::stdout().lock(), text)
            && error.kind() != ErrorKind::BrokenPipe
        {
            // Only the first is told.
            let _ = LOST.set(error.to_string());
        }
    }

    /// What is going on, for a person.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// One JSON document on stdout with `--json`, otherwise text.
    pub fn result<T: serde::Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        if self.json {
            self.out(&super::json::pretty(value));
        } else {
            self.out(&text());
        }
    }

    pub fn warn(&self, fault: &Fault) {
        say(&snippet::warning(fault, self.colour_err));
    }

    /// Every fault, and how many there were if they are mistakes in the spec.
    pub fn faults(&self, faults: &[Fault]) {
        let mut text = String::new();
        for (index, fault) in faults.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            text.push_str(&snippet::render(fault, self.colour_err));
        }
        let mistakes = faults
            .iter()
            .filter(|fault| fault.kind() == crate::error::Kind::Spec)
            .count();
        if mistakes > 0 {
            text.push_str(&format!("\n{}\n", count(mistakes, "mistake")));
        }
        say(&text);
    }
}

/// The environment asks for plain text.
pub fn is_plain() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Why a part of the result is not where it was to be.
static LOST: OnceLock<String> = OnceLock::new();

/// What became of the result, if not all of it could be written. Half a document must not pass for one.
pub fn lost() -> Option<Fault> {
    let why = LOST.get()?;
    let fault = Fault::new("what was asked for is done, and its result could not be written");
    Some(fault.because(format!("standard output: {why}")))
}

/// There is nowhere to report a failure to.
fn say(text: &str) {
    let _ = write(std::io::stderr().lock(), text);
}

fn write(mut to: impl Write, text: &str) -> std::io::Result<()> {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    to.write_all(text.as_bytes())
        .and_then(|()| to.write_all(end.as_bytes()))
        .and_then(|()| to.flush())
}

/// `1 step`, `2 steps`.
pub fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list<T: ToString>(items: &[T], last: &str) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    match items.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}

const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const END: &str = "\u{1b}[0m";

pub fn bold(text: &str, colour: bool) -> String {
    if colour {
        format!("{BOLD}{text}{END}")
    } else {
        text.to_owned()
    }
}

pub fn dim(text: &str, colour: bool) -> String {
    if colour {
        format!("{DIM}{text}{END}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lists_are_english() {
        assert_eq!(count(1, "step"), "1 step");
        assert_eq!(count(0, "step"), "0 steps");
        assert_eq!(list::<&str>(&[], "and"), "");
        assert_eq!(list(&["a"], "and"), "a");
        assert_eq!(list(&["a", "b", "c"], "or"), "a, b or c");
    }
}
