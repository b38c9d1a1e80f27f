// STUB(lead): serve is merged later.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::Fault;

pub struct ServeOptions {
    /// Absolute; it also names the control socket.
    pub folder: PathBuf,
    /// UDP and TCP on each.
    pub listen: Vec<SocketAddr>,
}

/// Serves until `shutdown`, or until the control socket says stop.
pub async fn run(options: ServeOptions, _shutdown: impl Future<Output = ()>) -> Result<(), Fault> {
    Err(Fault::new(format!(
        "no name server in this build for `{}` at {:?}",
        options.folder.display(),
        options.listen
    )))
}
