//! Double writers and moves without loss.

/// Verb, step, fault, and what runs it: the end state in words, or what is wrong.
pub type Row = (
    &'static str,
    &'static str,
    &'static str,
    fn(seed: u64) -> Result<String, String>,
);

pub const CASES: &[Row] = &[];
