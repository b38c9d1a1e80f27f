//! The only place that writes to a terminal. Values and events go in, text comes out.

pub mod snippet; // faults as text, with the line of the spec underlined
