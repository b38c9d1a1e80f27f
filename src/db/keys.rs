//! The stack's private certificate authority.

/// A placeholder until the real one is merged.
pub struct Keys;

// STUB(lead): the real one is merged later.
impl Keys {
    pub fn open(_folder: &std::path::Path) -> Result<Keys, crate::error::Fault> {
        Ok(Keys)
    }
}
