//! Nouns without I/O. This folder imports nothing else of hafog.

pub mod cron;
pub mod digest;
pub mod files;
pub mod id;
pub mod posix;
pub mod record;
pub mod roles;
pub mod stack;
pub mod subnet;
pub mod units;
