//! Whether lines continue a journal: each says the digest of the line before it.
//!
//! A process that slept while somebody else took its run up must not write between the lines of that one, so a store
//! looks under the lock of the file, whoever asks. Lines that say nothing of the one before them are anybody's.

use super::PutError;
use crate::model::digest;

#[derive(serde::Deserialize)]
struct Chained {
    prev: Option<String>,
}

/// The last line that is whole. What was torn counts for nothing, as for a reader.
pub fn last(journal: &[u8]) -> Option<&str> {
    let mut lines = journal.rsplit(|byte| *byte == b'\n');
    let line = lines.find(|line| {
        !line.is_empty() && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
    });
    line.and_then(|line| std::str::from_utf8(line).ok())
}

/// How many of the lines are there already: a store that answered too late is told again.
///
/// # Errors
/// The journal goes on otherwise: somebody else wrote there.
pub fn known<S: AsRef<str>>(last: Option<&str>, lines: &[S]) -> Result<usize, PutError> {
    let (Some(last), Some(first)) = (last, lines.first()) else {
        return Ok(0);
    };
    let chained = serde_json::from_str::<Chained>(first.as_ref()).ok();
    let Some(prev) = chained.and_then(|line| line.prev) else {
        return Ok(0);
    };
    if prev == digest::of_line(last) {
        return Ok(0);
    }
    let sent = lines.iter().position(|line| line.as_ref() == last);
    sent.map(|at| at + 1).ok_or(PutError::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_continues_the_last_line_is_written_and_only_once() {
        let line = |number: u32, before: &str| {
            let prev = match before {
                "" => String::new(),
                before => digest::of_line(before),
            };
            format!(r#"{{"n":{number},"prev":"{prev}"}}"#)
        };
        let first = line(0, "");
        let second = line(1, &first);
        let other = line(1, &first).replace("n", "m");
        let third = line(2, &second);
        let all = [&first, &second, &third].map(String::as_str);
        let known = |last: Option<&str>, lines: &[&str]| known(last, lines).ok();
        assert_eq!(known(None, &all), Some(0));
        assert_eq!(known(Some(&first), &all[1..]), Some(0));
        assert_eq!(known(Some(&first), &all), Some(1));
        assert_eq!(known(Some(&third), &all[1..]), Some(2));
        // Somebody else's line, one too few, and one that comes late.
        assert_eq!(known(Some(&other), &all[2..]), None);
        assert_eq!(known(Some(&first), &all[2..]), None);
        assert_eq!(known(Some(&third), &all[..2]), None);
        assert_eq!(known(Some("{}"), &[r#"{"a":1}"#]), Some(0));
        let torn = format!("{first}\n{second}\n{{\"n\":");
        assert_eq!(last(torn.as_bytes()), Some(second.as_str()));
        assert_eq!(last(b""), None);
    }
}
