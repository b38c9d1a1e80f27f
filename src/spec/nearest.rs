//! The nearest right word to a wrong one, and lists of words for messages.

/// More candidates than this are not looked at, so that a huge spec full of mistakes stays quick to refuse.
const CANDIDATES_MAX: usize = 1_000;

/// Returns the candidate that was probably meant, or nothing when none is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let limit = (lower.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len().abs_diff(lower.len()) <= limit)
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The hint for the nearest word, if there is one.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|meant| format!("did you mean `{meant}`?"))
}

/// `` `a`, `b` or `c` ``; long lists are cut and say so.
pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let words: Vec<&str> = words.into_iter().collect();
    let quoted: Vec<String> = words
        .iter()
        .take(SHOWN)
        .map(|word| format!("`{word}`"))
        .collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        all if words.len() > SHOWN => {
            format!("{} or one of {} more", all.join(", "), words.len() - SHOWN)
        }
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_probably_meant() {
        let clouds = ["local", "hetzner", "digitalocean"];
        assert_eq!(nearest("hetzer", clouds), Some("hetzner"));
        assert_eq!(nearest("Local", clouds), Some("local"));
        assert_eq!(nearest("lcoal", clouds), Some("local"));
        assert_eq!(nearest("PASWORD", ["PASSWORD"]), Some("PASSWORD"));
        assert_eq!(nearest("aws", clouds), None);
        assert_eq!(nearest("", clouds), None);
        assert_eq!(nearest(&"x".repeat(10_000), clouds), None);
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(one_of([]), "nothing");
        assert_eq!(one_of(["a"]), "`a`");
        assert_eq!(one_of(["a", "b", "c"]), "`a`, `b` or `c`");
        let many: Vec<String> = (0..22).map(|n| n.to_string()).collect();
        assert!(one_of(many.iter().map(String::as_str)).ends_with("`19` or one of 2 more"));
    }
}
