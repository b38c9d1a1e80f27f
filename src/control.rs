//! Control sockets of the long-running parts (a local server's supervisor, `hafog dns serve`).
//!
//! A Unix socket in the abstract namespace (unix(7)): it has no file, so nothing is left behind, and no limit on the
//! length of a folder's path, because its name is a digest of it. The peer's user id is compared with ours, because
//! abstract sockets have no permissions. One JSON value a line each way.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::error::{Fault, Trouble};
use crate::model::digest::sha256;

/// Longest request or reply that is accepted.
const LINE_MAX: u64 = 64 << 20;

fn address(purpose: &str, folder: &Path) -> SocketAddr {
    let digest = sha256(folder.as_os_str().as_encoded_bytes());
    SocketAddr::from_abstract_name(format!("hafog/{purpose}/{}", &digest[..32]))
        .expect("the name is short")
}

/// Listens for the owner of `folder` (absolute). Fails when somebody listens already: there is one a folder.
pub fn listen(purpose: &str, folder: &Path) -> Result<UnixListener, Fault> {
    let open = || {
        let listener = std::os::unix::net::UnixListener::bind_addr(&address(purpose, folder))?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    };
    open().map_err(|error: std::io::Error| {
        Fault::new(format!(
            "cannot listen for {purpose} of `{}`",
            folder.display()
        ))
        .because(error)
    })
}

/// Whether the connection comes from our own user (or from root).
pub fn is_ours(stream: &UnixStream) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == me || peer.uid() == 0)
}

/// Reads one request; `None` at the end of the stream.
pub async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Option<Result<T, String>> {
    let mut line = String::new();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(stream, LINE_MAX));
    match reader.read_line(&mut line).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(serde_json::from_str(&line).map_err(|error| error.to_string())),
    }
}

pub async fn send<T: Serialize>(stream: &mut UnixStream, value: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Whether nobody listens: a connection is refused. A listener that is frozen or slow is not absent.
pub async fn is_absent(purpose: &str, folder: &Path, limit: Duration) -> bool {
    let address = address(purpose, folder);
    let connect =
        tokio::task::spawn_blocking(move || std::os::unix::net::UnixStream::connect_addr(&address));
    matches!(
        tokio::time::timeout(limit, connect).await,
        Ok(Ok(Err(error))) if error.kind() == std::io::ErrorKind::ConnectionRefused
    )
}

/// Asks once. Not reached: `NothingChanged`. No whole reply within `limit`: `Unknown`.
pub async fn ask<Q: Serialize, A: DeserializeOwned>(
    purpose: &str,
    folder: &Path,
    question: &Q,
    limit: Duration,
) -> Result<A, Trouble> {
    let place = || format!("{purpose} of `{}`", folder.display());
    // A connect to a Unix socket waits when the listener's backlog is full (its process is frozen), so it is bounded too.
    let address = address(purpose, folder);
    let connect = tokio::task::spawn_blocking(move || {
        let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
        stream.set_nonblocking(true)?;
        std::io::Result::Ok(stream)
    });
    let stream = tokio::time::timeout(limit, connect).await;
    let stream = match stream {
        Ok(Ok(Ok(stream))) => stream,
        Ok(Ok(Err(error))) => {
            return Err(Trouble::NothingChanged(
                Fault::unavailable(format!("no answer from {}", place())).because(error),
            ));
        }
        Ok(Err(error)) => {
            return Err(Trouble::NothingChanged(
                Fault::unavailable(format!("no answer from {}", place())).because(error),
            ));
        }
        Err(_) => {
            return Err(Trouble::NothingChanged(Fault::unavailable(format!(
                "no answer from {} within {} s",
                place(),
                limit.as_secs_f64()
            ))));
        }
    };
    let talk = async {
        let mut stream = UnixStream::from_std(stream)?;
        send(&mut stream, question).await?;
        let mut line = String::new();
        let bounded = tokio::io::AsyncReadExt::take(&mut stream, LINE_MAX);
        BufReader::new(bounded).read_line(&mut line).await?;
        serde_json::from_str::<A>(&line).map_err(std::io::Error::from)
    };
    match tokio::time::timeout(limit, talk).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble::Unknown(
            Fault::unavailable(format!("no reply from {}", place())).because(error),
        )),
        Err(_) => Err(Trouble::Unknown(Fault::unavailable(format!(
            "no reply from {} within {} s",
            place(),
            limit.as_secs_f64()
        )))),
    }
}
