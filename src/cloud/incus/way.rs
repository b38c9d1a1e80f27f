//! The way into a server: SSH, and Incus's word for why it does not lead anywhere.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::api::Incus;
use super::network::is_taken;
use super::server::STOPPED;
use crate::error::{Fault, Kind, Trouble};
use crate::shell::Host;
use crate::shell::ssh::Ssh;
use crate::shell::systemd::{Output, Wire};
use crate::shell::tunnel::Stream;

pub(super) struct Way {
    pub(super) ssh: Ssh,
    pub(super) incus: Arc<Incus>,
    pub(super) project: String,
}

/// Control sequences of a terminal (ECMA-48, section 5.4).
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        out.push_str(end.map_or("", |end| &part[end + 1..]));
    }
    out.replace(|c: char| c.is_control() && c != '\n', "")
}

impl Way {
    /// With the last lines of its console: a machine that does not boot says why there.
    async fn is_off(&self, on: &Host) -> Fault {
        const LINES: usize = 4;
        let path = format!(
            "/1.0/instances/{}/console?project={}",
            on.name, self.project
        );
        let console = plain(&self.incus.text(&path).await.unwrap_or_default());
        let lines = console.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty());
        let fault = Fault::unavailable(format!("server `{}` is off", on.name));
        let fault = fault.because_last(LINES, lines);
        // Each systemd needs some of them, and all containers of a host share what there are.
        match console.contains("Too many open files") {
            true => fault.hint("on its host: sysctl fs.inotify.max_user_instances=1024"),
            false => fault,
        }
    }
}

#[async_trait]
impl Wire for Way {
    fn is_sealed(&self, on: &Host) -> bool {
        self.ssh.is_sealed(on)
    }

    async fn dial(&self, on: &Host, port: u16) -> io::Result<Stream> {
        self.ssh.dial(on, port).await
    }

    async fn exec(
        &self,
        on: &Host,
        argv: &[String],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<Output, Trouble> {
        match self.ssh.exec(on, argv, input, limit).await {
            Err(Trouble::NothingChanged(fault)) if fault.kind() == Kind::Unavailable => {
                let path = format!("/1.0/instances/{}?project={}", on.name, self.project);
                let said = self.incus.get(&path).await;
                Err(Trouble::NothingChanged(match said {
                    Ok(said) if said["status_code"] == STOPPED => self.is_off(on).await,
                    Ok(said) if is_taken(&said) => Fault::unavailable(format!(
                        "server `{}` is cut off from the network",
                        on.name
                    )),
                    _ => fault,
                }))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consoles_colours_are_left_out() {
        let console =
            "Welcome!\r\n[\u{1b}[0;1;31m!!!!!!\u{1b}[0m] Failed to allocate\r\nend\u{1b}[";
        assert_eq!(plain(console), "Welcome!\n[!!!!!!] Failed to allocate\nend");
    }
}
