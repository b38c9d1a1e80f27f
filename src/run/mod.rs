//! Runs: a plan, its journal and its lease, executed.
//!
//! The journal is an intent log, not a debug log: what it says decides how a run goes on.

pub mod event;
pub mod journal;
pub mod lease;
pub mod open;
pub mod runner;
pub mod wait;
