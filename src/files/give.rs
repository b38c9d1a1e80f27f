//! What a server does when another one of its group comes for files: it says whether it has them, and sends them. It
//! is what `sshd` runs for their keys, and all that those are good for.
//!
//! The other side chooses nothing but whose files: the folder, the options and the bandwidth are this side's.

use std::env;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::way::ASKED;
use crate::durable;
use crate::error::Fault;
use crate::model::files::{Config, Kept, Peer, mark_of};
use crate::model::roles::SiteRole;

/// The answer to `ask`: this server is the one that has them.
#[derive(Serialize, Deserialize)]
pub(super) struct Given {
    pub epoch: u64,
}

/// For the server that is to have the files at the primary site, and lost them: any other one gives them back.
pub(super) const RESTORE: &str = "restore";
const ASK: &str = "ask";

/// The question, as words: the name of the files and by which right. rsync says its own after the same two, where the
/// right is the epoch of the answer, or again [`RESTORE`].
pub(super) fn ask(name: &str, restore: bool) -> String {
    let right = match restore {
        true => RESTORE,
        false => ASK,
    };
    format!("{name} {right}")
}

/// Answers, or becomes rsync. `folder` is where the configuration is, `to` whose key it was.
pub fn give(folder: &Path, to: &str) -> Result<(), Fault> {
    let config = super::read(folder)?;
    let peer = super::peer(&config, to);
    let peer = peer.ok_or_else(|| Fault::new(format!("`{to}` is no server of this group")))?;
    let asked = env::var(ASKED).map_err(|_| Fault::new("this key is for files alone"))?;
    let mut words = asked.split_whitespace().peekable();
    let (name, right) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let kept = super::kept(&config, name);
    let kept = kept.ok_or_else(|| Fault::new(format!("there are no files `{name}` here")))?;
    let epoch = match right {
        RESTORE => may_give_back(&config, kept, peer)?,
        _ => may_give(&config, kept)?,
    };
    if words.peek().is_none() {
        let answer = serde_json::to_string(&Given { epoch }).expect("a number is JSON");
        let said = writeln!(std::io::stdout(), "{answer}");
        return said.map_err(|error| Fault::new("nobody hears the answer").because(error));
    }
    if right != RESTORE && right != epoch.to_string() {
        return Err(Fault::new("the role of this server changed meanwhile"));
    }
    let flags = flags(words)?;
    let mut command = Command::new("rsync");
    command.args(["--server", "--sender", &flags, "--timeout=60"]);
    if let Some(most) = &kept.bandwidth {
        command.arg(format!("--bwlimit={}", most.0.div_ceil(1024)));
    }
    let error = command.args([".", "./"]).current_dir(&kept.folder).exec();
    let fault = Fault::new("cannot run `rsync`").because(error);
    Err(fault.hint("apt-get install rsync"))
}

fn not(config: &Config, kept: &Kept, why: &str) -> Fault {
    let (server, name) = (&config.server, &kept.name);
    Fault::unavailable(format!("{server} does not give `{name}`: {why}"))
}

/// Only the one that has them: of which epoch.
fn may_give(config: &Config, kept: &Kept) -> Result<u64, Fault> {
    let not = |why: &str| not(config, kept, why);
    let (role, epoch) = super::told(config).ok_or_else(|| not("nobody told it its role"))?;
    if role != SiteRole::Primary {
        return Err(not("its site is standby"));
    }
    if !config.first {
        return Err(not("another server of its site has them"));
    }
    is_whole(config, kept).map(|()| epoch)
}

fn may_give_back(config: &Config, kept: &Kept, to: &Peer) -> Result<u64, Fault> {
    let not = |why: &str| not(config, kept, why);
    let (_, epoch) = super::told(config).ok_or_else(|| not("nobody told it its role"))?;
    match to.first {
        true => is_whole(config, kept).map(|()| epoch),
        false => Err(not("only the first server of a site gets them back")),
    }
}

fn is_whole(config: &Config, kept: &Kept) -> Result<(), Fault> {
    match durable::read(&kept.mark())? {
        Some(mark) if mark == mark_of(&kept.name).as_bytes() => Ok(()),
        Some(_) => Err(not(config, kept, "the folder is of other files")),
        None => Err(not(
            config,
            kept,
            "the folder is not there, or was never whole",
        )),
    }
}

/// The letters that describe what is sent, and which protocol the other side speaks (after `e`). Others are for the
/// receiver, or would send more than the folder has: what links lead to (`L`), or a list of names (`s`).
fn flags<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<String, Fault> {
    const SENT: &str = "lHogtpAXrc";
    let odd = || Fault::new("this is not what hafog's rsync says");
    if [words.next(), words.next(), words.next()]
        != [Some("rsync"), Some("--server"), Some("--sender")]
    {
        return Err(odd());
    }
    let flags = words.next().and_then(|word| word.strip_prefix('-'));
    let (letters, protocol) = flags
        .and_then(|flags| flags.split_once('e'))
        .ok_or_else(odd)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    if !letters.chars().all(char::is_alphabetic) || !protocol.chars().all(plain) {
        return Err(odd());
    }
    let letters: String = letters
        .chars()
        .filter(|letter| SENT.contains(*letter))
        .collect();
    Ok(format!("-{letters}e{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side_chooses_neither_folder_nor_links() {
        let said = |text: &str| flags(text.split(' ')).map_err(|fault| fault.to_string());
        assert_eq!(
            said(
                "rsync --server --sender -blLHogDtpAXrsce.iLsfxCIvu --files-from=/etc/shadow . /etc"
            )
            .unwrap(),
            "-lHogtpAXrce.iLsfxCIvu"
        );
        for odd in [
            "sh -c id",
            "rsync --server -lHogDtpAXre.iLsfxCIvu . /",
            "rsync --server --sender --log-file=/root/x . /",
            "rsync --server --sender -lHogtp . /",
            "rsync --server --sender -l=e.iLs . /",
            "rsync",
            "",
        ] {
            assert!(said(odd).is_err(), "{odd}");
        }
    }
}
