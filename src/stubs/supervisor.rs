// STUB(lead): shell::supervisor is merged later.

use std::path::PathBuf;

use crate::error::Fault;

/// Keeps a local server's services up, until its power is cut. Starts no threads before it forks, so it is called
/// before there is a runtime.
pub fn run(folder: PathBuf) -> Result<(), Fault> {
    Err(Fault::new(format!(
        "no supervisor in this build for `{}`",
        folder.display()
    )))
}
