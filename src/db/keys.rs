//! The stack's private certificate authority.

/// A placeholder until the real one is merged.
pub struct Keys;
