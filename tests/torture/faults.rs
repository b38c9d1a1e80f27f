//! Everything that goes wrong besides a kill: disks, clocks, journals, stores, and two people at once.

use crate::bench::Bench;
use crate::random::Random;
use crate::stack::Wrong;

type Run = fn(&mut Bench, &mut Random) -> Result<String, Wrong>;

/// Verb, step, fault, and what runs it.
pub const CASES: &[(&str, &str, &str, Run)] = &[];
