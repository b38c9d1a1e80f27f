//! Exit codes. They are API: scripts and CI jobs branch on them.

use crate::error::Kind;

/// Done, or nothing to do.
pub const DONE: u8 = 0;
/// Error; nothing changed.
pub const ERROR: u8 = 1;
/// Changes are pending (only with `--detailed-exitcode`).
pub const PENDING: u8 = 2;
/// Refused by a safety check; nothing changed.
pub const REFUSED: u8 = 3;
/// Partly done; `hafog resume`.
pub const PARTIAL: u8 = 4;
/// The lease is held by somebody else.
pub const LOCKED: u8 = 5;
/// Out of sync, or unknown.
pub const OUT_OF_SYNC: u8 = 6;
/// Consent is needed and nobody can be asked.
pub const CONSENT: u8 = 7;
/// Wrong command line (clap's own 2 is remapped: 2 means "pending" here).
pub const USAGE: u8 = 64;
/// Wrong spec.
pub const SPEC: u8 = 65;
/// A provider, database or name server is unavailable, and no run was begun.
pub const UNAVAILABLE: u8 = 69;
/// Interrupted; the journal is sealed.
pub const INTERRUPTED: u8 = 130;

pub fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Error => ERROR,
        Kind::Refused => REFUSED,
        Kind::Partial => PARTIAL,
        Kind::Locked => LOCKED,
        Kind::OutOfSync => OUT_OF_SYNC,
        Kind::Consent => CONSENT,
        Kind::Usage => USAGE,
        Kind::Spec => SPEC,
        Kind::Unavailable => UNAVAILABLE,
        Kind::Interrupted => INTERRUPTED,
    }
}
