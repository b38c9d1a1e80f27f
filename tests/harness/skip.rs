//! Tests that cannot run here: a program is missing, and that is said.

use std::io::Write;
use std::path::Path;

/// What the real stacks are made of, and where it is.
const PROGRAMS: [(&str, &str); 3] = [
    ("haproxy", "/usr/sbin/haproxy"),
    ("varnish", "/usr/sbin/varnishd"),
    ("PostgreSQL", "/usr/lib/postgresql"),
];

/// Why no real stack can stand on this machine.
pub fn missing_program() -> Option<String> {
    let gone = PROGRAMS.iter().find(|(_, path)| !Path::new(path).exists());
    gone.map(|(name, _)| format!("{name} is not installed"))
}

/// Names a test that did not run; `make test` prints these last.
pub fn skipped(test: &str, reason: &str) {
    let line = format!("skipped: {test}: {reason}\n");
    if let Some(file) = std::env::var_os("HAFOG_SKIPPED")
        && let Ok(mut file) = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
    {
        let _ = file.write_all(line.as_bytes());
    }
    let _ = std::io::stderr().write_all(line.as_bytes());
}
