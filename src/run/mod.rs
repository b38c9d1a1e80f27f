//! Runs: a plan and its lease, executed, with every step in the journal.

pub mod lease;
pub mod open;
pub mod runner;
