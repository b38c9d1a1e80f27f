//! `hafog haproxy`: says something to a HAProxy of this machine through its socket, and prints what it answers.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Call, Ended};
use crate::error::Fault;
use crate::exit;

const LIMIT: Duration = Duration::from_secs(5);

pub async fn run(call: &Call, socket: &Path, words: &str) -> Ended {
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{words}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let silent = || Fault::unavailable(format!("no answer from `{}`", socket.display()));
    let answer = tokio::time::timeout(LIMIT, talk).await;
    let answer =
        answer.map_err(|_| silent().because(format!("none within {} s", LIMIT.as_secs())))?;
    call.ui
        .out(&answer.map_err(|error| silent().because(error))?);
    Ok(exit::DONE)
}
