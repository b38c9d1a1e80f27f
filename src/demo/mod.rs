//! `hafog demo`: the whole story on this machine, with a real database, real DNS and no account anywhere.
//!
//! It is a person typing commands: every step of the story starts the real program. Beside it run clients that write
//! orders all the time through the DNS name, and keep their own books of what was acknowledged.

pub mod app;
pub mod client;
mod report;
mod story;

pub use story::{Args, run};
