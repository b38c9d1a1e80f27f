//! Runs: a plan, its journal and its lease, executed.
//!
//! The journal is an intent log, not a debug log: what it says decides how a run goes on.

pub mod event;
pub mod journal;
pub mod lease;
pub mod open; // STUB(lead)
#[path = "../stubs/runner.rs"]
pub mod runner; // STUB(lead)
pub mod wait;
