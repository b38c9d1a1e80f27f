//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The only provider in this build; installed once, before anything speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    hafog::cli::main()
}
