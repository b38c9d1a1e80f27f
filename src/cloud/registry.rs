//! The clouds, in the order of docs and help. A new one is one line here.

use super::{CloudAbout, local};

pub const CLOUDS: &[&CloudAbout] = &[&local::ABOUT];

pub fn find(name: &str) -> Option<&'static CloudAbout> {
    CLOUDS.iter().copied().find(|cloud| cloud.name == name)
}
