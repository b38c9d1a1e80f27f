//! What the user wrote: YAML → typed [`Spec`] → resolved `Stack`, with every mistake at once.
//!
//! The story of a text: `tree` reads it into nodes that know their places; `check` compares them with the rules that
//! `schema` makes from the types in `types`; serde reads the types; `resolve` follows references and fills defaults;
//! `lint` says what is valid and unwise. Nothing here touches the network, or any file but the spec itself, except
//! `secret::read`, which is called at the last moment by others.

mod check;
mod files;
mod format;
mod lint;
mod load;
mod nearest;
mod resolve;
mod schema;
pub mod secret;
mod source;
mod spot;
mod starters;
mod syntax;
mod tree;
pub mod types;

use std::ops::RangeInclusive;

/// What a spec is called where nothing else is said.
pub const FILE: &str = "hafog.yaml";

#[cfg(test)]
mod tests;

pub use files::missing_files;
pub use lint::Lint;
pub use load::{Loaded, load, load_bytes, load_str};
pub use nearest::{did_you_mean, nearest, one_of};
pub use schema::schema;
pub use secret::Secret;
pub use starters::{Starter, starter, starters};
pub use types::Spec;

/// The words that this build knows. The caller takes them from the registries, which this layer may not import.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub clouds: &'a [CloudWord],
    pub engines: &'a [EngineWord],
    pub dns_hosts: &'a [DnsWord],
}

impl<'a> Known<'a> {
    pub fn cloud(&self, name: &str) -> Option<&'a CloudWord> {
        self.clouds.iter().find(|cloud| cloud.name == name)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct CloudWord {
    pub name: &'static str,
    /// May listen below port 1024.
    pub low_ports: bool,
    /// Makes images by sealing a server. Where not, its servers exist already and are listed.
    pub seal: bool,
    /// Gives a site a network of its own, on which what is open is enforced.
    pub firewall: bool,
    /// Gives a server a disk as big as `disk` says.
    pub disks: bool,
    /// Gives a site an address of its own, which leads to its balancer.
    pub entry: bool,
    /// An image can be copied from one of its sites to another.
    pub copies: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct EngineWord {
    pub name: &'static str,
    /// The port that it listens on unless the spec says otherwise.
    pub port: u16,
    /// Major versions that it can run.
    pub versions: &'static RangeInclusive<u32>,
}

#[derive(Clone, Copy, Debug)]
pub struct DnsWord {
    pub name: &'static str,
    /// Keys that `zone: { host: …, … }` may hold besides `host` and `name`.
    pub settings: &'static [&'static str],
}
