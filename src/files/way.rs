//! The way to a server's files: rsync's `--rsh`. By the system's `ssh`, with this server's own key and no host key but
//! the known one; where servers are folders of this machine, by a process.

use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::keep::LOCK;
use crate::durable;
use crate::error::Fault;
use crate::model::files::{Config, KEY, Peer};

/// What `sshd` hands to a forced command.
pub(super) const ASKED: &str = "SSH_ORIGINAL_COMMAND";

/// Becomes the way to `server`, on which `words` are said. Returns only what went wrong.
pub fn way(folder: &Path, server: &str, words: &[String]) -> Result<Infallible, Fault> {
    let config = super::read(folder)?;
    let peer = super::peer(&config, server);
    let peer = peer.ok_or_else(|| Fault::new(format!("nobody told this server of `{server}`")))?;
    let mut command = to(folder, &config, peer, &words.join(" "))?;
    let error = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    Err(Fault::new(format!("cannot run `{program}`")).because(error))
}

/// The command that says `words` to the other server.
pub(super) fn to(
    folder: &Path,
    config: &Config,
    peer: &Peer,
    words: &str,
) -> Result<Command, Fault> {
    let Some(place) = &peer.folder else {
        return by_ssh(folder, peer, words);
    };
    answers(place)?;
    let mut command = Command::new(&config.program);
    command
        .args(["files", "give"])
        .arg(place)
        .args(["--to", config.server.as_str()])
        .env(ASKED, words);
    Ok(command)
}

fn by_ssh(folder: &Path, peer: &Peer, words: &str) -> Result<Command, Fault> {
    let known = folder.join(format!("known-{}", peer.server));
    let line = format!("{} {}\n", peer.server, peer.host_key);
    if durable::read(&known)?.as_deref() != Some(line.as_bytes()) {
        durable::replace(&known, line.as_bytes(), 0o644, None)?;
    }
    let mut command = Command::new("ssh");
    command.args(["-T", "-F", "none", "-p", &peer.port.to_string()]);
    let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    let options = [
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "GlobalKnownHostsFile=none".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "ConnectTimeout=10".to_owned(),
        "ServerAliveInterval=15".to_owned(),
        "ServerAliveCountMax=2".to_owned(),
        format!("HostKeyAlias={}", peer.server),
        option("UserKnownHostsFile", known),
        option("IdentityFile", folder.join(KEY)),
    ];
    command.args(options.iter().flat_map(|option| ["-o", option]));
    command.arg(format!("root@{}", peer.address)).arg(words);
    Ok(command)
}

/// A server that is a folder answers while what keeps its files runs there, and is not frozen.
fn answers(folder: &Path) -> Result<(), Fault> {
    let silent = |why: &str| Fault::unavailable("the server does not answer").because(why);
    let pid = fs::read_to_string(folder.join(LOCK)).unwrap_or_default();
    let about = |what: &str| fs::read_to_string(format!("/proc/{}/{what}", pid.trim())).ok();
    // The number may be another process's by now.
    let is_it = about("cmdline").is_some_and(|line| line.contains(&*folder.to_string_lossy()));
    let stat = about("stat").filter(|_| is_it);
    match stat
        .as_deref()
        .and_then(|stat| stat.rsplit_once(") ")?.1.chars().next())
    {
        Some('T' | 't') => Err(silent("it is frozen")),
        Some('Z' | 'X') | None => Err(silent("nothing keeps its files in step")),
        Some(_) => Ok(()),
    }
}
