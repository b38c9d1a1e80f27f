//! Debug builds only, for `tests/torture/`: the process kills itself at an exact line of its journal.
//!
//! `HAFOG_CUT=before:7` ends it before the seventh line that it writes, `torn:7` with half of that line on the disk,
//! and `after:7` when the line is durable. Lines are counted over all journals of the process, from 1. Nothing is
//! cleaned up: it is SIGKILL, as from the kernel.
//!
//! `HAFOG_PANIC=WHERE` makes a bug: the process panics at one of the places that call [`panics`], and its message shows
//! what the program had in its hands there.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    Torn,
    After,
}

static WANTED: LazyLock<Option<(Moment, u64)>> =
    LazyLock::new(|| std::env::var("HAFOG_CUT").ok().map(|text| parse(&text)));
static LINE: AtomicU64 = AtomicU64::new(0);

fn parse(text: &str) -> (Moment, u64) {
    let wanted = text.split_once(':').and_then(|(moment, line)| {
        let moment = match moment {
            "before" => Moment::Before,
            "torn" => Moment::Torn,
            "after" => Moment::After,
            _ => return None,
        };
        Some((moment, line.parse().ok()?))
    });
    wanted.unwrap_or_else(|| panic!("HAFOG_CUT is `before:N`, `torn:N` or `after:N`, not `{text}`"))
}

/// Then every line is written by itself, so that each is a moment.
pub fn is_wanted() -> bool {
    WANTED.is_some()
}

/// A line of a journal is about to be written.
pub fn begins() {
    LINE.fetch_add(1, Ordering::SeqCst);
    at(Moment::Before);
}

/// The line is durable.
pub fn ends() {
    at(Moment::After);
}

/// Half of the line that is being written goes to the disk, and no more.
pub fn tears(line: &str, half: impl FnOnce(&[u8])) {
    if is(Moment::Torn) {
        half(&line.as_bytes()[..line.len() / 2]);
        at(Moment::Torn);
    }
}

/// Panics with `hands` if the place is the wanted one.
pub fn panics(place: &str, hands: &dyn std::fmt::Debug) {
    if std::env::var_os("HAFOG_PANIC").is_some_and(|wanted| wanted == place) {
        panic!("HAFOG_PANIC at {place}, with {hands:?}");
    }
}

fn is(moment: Moment) -> bool {
    *WANTED == Some((moment, LINE.load(Ordering::SeqCst)))
}

fn at(moment: Moment) {
    if is(moment) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL);
        // The signal is on its way; nothing may be done in the meantime.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_has_a_moment_and_a_line() {
        assert_eq!(parse("before:1"), (Moment::Before, 1));
        assert_eq!(parse("torn:23"), (Moment::Torn, 23));
        assert_eq!(parse("after:7"), (Moment::After, 7));
    }

    #[test]
    #[should_panic(expected = "not `sometimes`")]
    fn a_word_that_is_no_cut_is_said() {
        parse("sometimes");
    }
}
