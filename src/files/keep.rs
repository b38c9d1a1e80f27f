//! The loop on a server: copies the files when their time has come or somebody asks, and writes down what came of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use nix::unistd::{Uid, User};
use tokio::time::Instant;

use super::pull::{self, Not, Pull, Source, line};
use super::{document, read, told};
use crate::durable;
use crate::error::Fault;
use crate::model::files::*;
use crate::model::posix::quoted;

/// Held while it runs, with its process in it.
pub(super) const LOCK: &str = "keep.pid";
/// How often it is looked whether somebody asks.
const LOOK: Duration = Duration::from_millis(200);
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// After a copy that failed, at most so long until the next.
const AGAIN: Duration = Duration::from_secs(10);

/// Makes the folders of the files, and the links to them, which the applications need before they start.
pub fn prepare(folder: &Path) -> Result<(), Fault> {
    let config = read(folder)?;
    for kept in &config.files {
        make(kept)?;
    }
    match config.machine {
        true => let_in(folder, &config),
        false => Ok(()),
    }
}

fn make(kept: &Kept) -> Result<(), Fault> {
    let folder = &kept.folder;
    let cannot = |error: &dyn std::fmt::Display| durable::fault("make", folder, error);
    // Whoever was cut between the two left it to root, with nothing in it.
    let is_new = fs::read_dir(folder).map_or(true, |mut all| all.next().is_none());
    if is_new {
        let user = match &kept.user {
            None => None,
            Some(name) => {
                let user = User::from_name(name).map_err(|error| cannot(&error))?;
                Some(user.ok_or_else(|| cannot(&format!("there is no user `{name}`")))?)
            }
        };
        durable::make_folders(folder, 0o755)?;
        if let Some(user) = user {
            nix::unistd::chown(folder, Some(user.uid), Some(user.gid))
                .map_err(|error| cannot(&error))?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
                .map_err(|error| cannot(&error))?;
        }
    }
    let Some(link) = &kept.link else {
        return Ok(());
    };
    let cannot = |error: std::io::Error| durable::fault("make the link", link, error);
    match fs::symlink_metadata(link) {
        Ok(there) if there.is_symlink() && fs::read_link(link).is_ok_and(|to| &to == folder) => {
            Ok(())
        }
        Ok(there) => {
            // What the image has there stays beside.
            match there.is_symlink() {
                true => fs::remove_file(link).map_err(cannot)?,
                false => fs::rename(link, free_name(link)).map_err(cannot)?,
            }
            symlink(folder, link).map_err(cannot)
        }
        Err(_) => {
            if let Some(parent) = link.parent() {
                durable::make_folders(parent, 0o755)?;
            }
            symlink(folder, link).map_err(cannot)
        }
    }
}

fn free_name(link: &Path) -> PathBuf {
    let name = |number: u32| PathBuf::from(format!("{}.image-{number}", link.display()));
    (1..)
        .map(name)
        .find(|path| !path.exists())
        .unwrap_or_else(|| name(0))
}

/// At the end of a line of ours.
const OURS: &str = "hafog-files:";

/// Lets the other servers of the group come for files, and for nothing else (sshd(8), `restrict`).
fn let_in(folder: &Path, config: &Config) -> Result<(), Fault> {
    let us = User::from_uid(Uid::effective());
    let cannot =
        |why: &dyn std::fmt::Display| Fault::new("nobody knows where SSH keys belong").because(why);
    let us = us
        .map_err(|error| cannot(&error))?
        .ok_or_else(|| cannot(&"this user has no home"))?;
    let home = us.dir.join(".ssh");
    let path = home.join("authorized_keys");
    durable::make_folders(&home, 0o700)?;
    let _lock = durable::lock_in(&home, ".hafog-lock", LOCK_LIMIT)?;
    let was = durable::read(&path)?.unwrap_or_default();
    let was = String::from_utf8(was).map_err(|error| durable::fault("understand", &path, error))?;
    let mut now: String = was
        .lines()
        .filter(|line| {
            !line
                .rsplit(' ')
                .next()
                .is_some_and(|last| last.starts_with(OURS))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    for peer in &config.peers {
        now.push_str(&key_line(folder, config, peer)?);
    }
    match now == was {
        true => Ok(()),
        false => durable::replace(&path, now.as_bytes(), 0o600, None),
    }
}

fn key_line(folder: &Path, config: &Config, peer: &Peer) -> Result<String, Fault> {
    // A quote alone is marked inside the quotes of `command="…"` (sshd(8)).
    let inside = |text: &str| quoted(text).replace('"', "\\\"");
    let good = |c: char| c.is_ascii_alphanumeric() || "-+/=.@".contains(c);
    let mut words = peer
        .key
        .split_whitespace()
        .map(|word| word.chars().all(good).then_some(word));
    let (Some(Some(kind)), Some(Some(body))) = (words.next(), words.next()) else {
        return Err(Fault::new(format!("the key of `{}` is none", peer.server)));
    };
    let command = format!(
        "{} files give {} --to {}",
        inside(&config.program),
        inside(&folder.display().to_string()),
        inside(peer.server.as_str())
    );
    let line = format!(
        "restrict,command=\"{command}\" {kind} {body} {OURS}{}\n",
        peer.server
    );
    match line.trim_end().contains(char::is_control) {
        true => Err(Fault::new(format!("`{}` cannot be let in", peer.server))),
        false => Ok(line),
    }
}

/// Runs until `shutdown`, which ends a copy that is under way, as a new configuration does.
pub async fn keep(
    folder: &Path,
    say: impl Fn(&str),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Fault> {
    let pid = format!("{}\n", std::process::id());
    durable::make_folders(folder, 0o755)?;
    durable::replace(&folder.join(LOCK), pid.as_bytes(), 0o644, None)?;
    let (path, say) = (folder.join(CONFIG), &say);
    let always = async {
        loop {
            let known = durable::read(&path)?;
            if known.is_none() {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let config = read(folder)?;
            if config.version != env!("CARGO_PKG_VERSION") {
                // Another program is there by now, and is started in place of this one.
                say("was told by another version of hafog: it ends");
                return Ok(());
            }
            let is_current = || durable::read(&path).is_ok_and(|now| now == known);
            let loops = config.files.iter();
            let loops = loops.map(|kept| one(folder, &config, kept, &is_current, say));
            let changed = async {
                while is_current() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            // They end only because there is a new one.
            tokio::select! {
                () = changed => {}
                _ = join_all(loops) => {}
            }
        }
    };
    tokio::select! {
        () = shutdown => Ok(()),
        failed = always => failed,
    }
}

/// Until there is a new configuration.
async fn one(
    folder: &Path,
    config: &Config,
    kept: &Kept,
    is_current: &impl Fn() -> bool,
    say: &impl Fn(&str),
) {
    let path = folder.join(report_path(&kept.name));
    let mut said = String::new();
    let mut next = Instant::now();
    loop {
        let ask: Option<Ask> = document(&folder.join(ask_path(&kept.name))).ok().flatten();
        // What cannot be understood was cut short: everything is new then.
        let report: Report = document(&path).ok().flatten().unwrap_or_default();
        let asked = ask.filter(|ask| report.answered.as_ref() != Some(&ask.id));
        // Whoever asks has written what the answer goes by before.
        if asked.is_some() && !is_current() {
            return;
        }
        if Instant::now() < next && asked.is_none() {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let (report, words) = round(folder, config, kept, report, asked).await;
        let pause = match report.trouble {
            None => kept.every.0,
            Some(_) => kept.every.0.min(AGAIN),
        };
        let bytes = serde_json::to_vec(&report).expect("a report is JSON");
        let written = durable::replace(&path, &bytes, 0o644, None);
        let words = written.err().map_or(words, |fault| line(&fault));
        if words != said {
            say(&format!("{}: {words}", kept.name));
        }
        said = words;
        next = Instant::now() + pause;
    }
}

/// What is to be written down, and what to be said.
async fn round(
    folder: &Path,
    config: &Config,
    kept: &Kept,
    report: Report,
    asked: Option<Ask>,
) -> (Report, String) {
    let pull = Pull {
        folder,
        config,
        kept,
        report: &report,
        role: told(config),
        verify: asked.as_ref().is_some_and(|ask| ask.verify),
        most_deleted: asked
            .as_ref()
            .and_then(|ask| ask.most_deleted)
            .unwrap_or(kept.most_deleted),
    };
    let mut epoch = report.epoch;
    let done = async {
        // A change of image takes the link and the keys along.
        prepare(folder).map_err(|fault| Not::so(line(&fault)))?;
        if let Some(from) = asked.as_ref().and_then(|ask| ask.restore.as_ref()) {
            pull.restore(from).await?;
        }
        match pull.source().await? {
            Source::Here(newest) => {
                epoch = epoch.max(newest);
                Ok(None)
            }
            Source::There(peer, newest) => {
                epoch = newest;
                pull.copy(peer, newest).await.map(Some)
            }
        }
    };
    let done = done.await;
    let words = match &done {
        Ok(None) => "they are here".to_owned(),
        Ok(Some(whole)) => format!("follows {} (epoch {})", whole.source, whole.epoch),
        Err(not) => not.why.clone(),
    };
    let now = Report {
        trouble: done.as_ref().err().map(|not| TroubleSince {
            since: report
                .trouble
                .as_ref()
                .map_or_else(Timestamp::now, |trouble| trouble.since),
            why: not.why.clone(),
            would_delete: not.would_delete,
        }),
        answered: asked.map(|ask| ask.id).or(report.answered),
        epoch,
        aside: pull::aside(kept).unwrap_or(report.aside),
        whole: match done {
            Ok(None) => None,
            Ok(whole) => whole,
            Err(_) => report.whole,
        },
    };
    (now, words)
}
