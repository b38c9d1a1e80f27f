//! The clouds, in the order of docs and help. A new one is one line here.

use super::{CloudAbout, incus, local, ssh};

pub const CLOUDS: &[&CloudAbout] = &[&local::ABOUT, &incus::ABOUT, &ssh::ABOUT];

pub fn find(name: &str) -> Option<&'static CloudAbout> {
    CLOUDS.iter().copied().find(|cloud| cloud.name == name)
}
