//! The only place that writes to a terminal. Values and events go in, text comes out.

pub mod ask; // questions to a person
pub mod json; // for scripts
pub mod plan; // a plan as text, before anything is done
pub mod print; // stdout, stderr, colour, plurals
pub mod progress; // a run while it runs
pub mod snippet; // faults as text, with the line of the spec underlined
pub mod table; // columns
