//! Digests as text.

use sha2::{Digest, Sha256};

/// SHA-256, 64 lowercase hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What a line of a journal says of the line before it.
pub fn of_line(text: &str) -> String {
    sha256(text.as_bytes())[..32].to_owned()
}

/// Two lowercase hexadecimal digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
