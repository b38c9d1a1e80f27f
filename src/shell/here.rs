//! This machine, as a wire: what an agent uses, which is on the machine that it looks after.

use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Host;
use super::systemd::{Output, Wire};
use crate::error::{Fault, Trouble};

/// A command that nobody waits for any more goes on, as it does on a machine that is reached from outside: what it
/// began it must be able to end.
pub struct Here;

#[async_trait]
impl Wire for Here {
    async fn exec(
        &self,
        _: &Host,
        argv: &[String],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<Output, Trouble> {
        let [program, arguments @ ..] = argv else {
            return Err(Trouble::NothingChanged(Fault::new("the command is empty")));
        };
        let cannot =
            |error: std::io::Error| Fault::new(format!("cannot run `{program}`")).because(error);
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| Trouble::NothingChanged(cannot(error)))?;
        let stdin = child.stdin.take();
        let talk = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // Who does not read it all has ended, and says so with its code.
                    let _ = stdin.write_all(&input).await;
                }
            };
            tokio::join!(feed, child.wait_with_output()).1
        };
        let ended = tokio::time::timeout(limit, talk).await;
        let Ok(ended) = ended else {
            let message = format!("`{program}` did not end within {} s", limit.as_secs_f64());
            return Err(Trouble::Unknown(Fault::unavailable(message)));
        };
        let ended = ended.map_err(|error| Trouble::Unknown(cannot(error)))?;
        Ok(Output {
            code: ended.status.code().unwrap_or(-1),
            stdout: ended.stdout,
            stderr: ended.stderr,
        })
    }
}
