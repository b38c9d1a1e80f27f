//! The engines, in the order of docs and help. A new one is one line here.

use super::{EngineAbout, postgres};

pub const ENGINES: &[&EngineAbout] = &[&postgres::ABOUT];

pub fn find(name: &str) -> Option<&'static EngineAbout> {
    ENGINES.iter().copied().find(|engine| engine.name == name)
}
