//! One copy: from the server that has the files into the folder of this one, by rsync.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::give::{Given, RESTORE, ask};
use super::{told, way};
use crate::durable;
use crate::error::Fault;
use crate::model::files::{Config, Kept, MARK, Peer, Report, Verified, Whole, mark_of};
use crate::model::id::ServerName;
use crate::model::roles::SiteRole;

/// For the answer of a server that may have them.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// How often a copy that runs is looked after.
const GUARD: Duration = Duration::from_millis(500);
/// How long a copy may take to end when it is asked to.
const END_LIMIT: Duration = Duration::from_secs(5);
const CHANGED: &str = "the role of this site changed meanwhile";
/// Of a copy that goes wrong, so many lines are kept.
const LINES: usize = 3;
/// For each file that came: how it differed, and its name.
const NAMES: &str = "--out-format=%i %n";
/// So many files are written to the disk one by one; more of them at once, with all else on their file system.
const SINGLY: usize = 1000;
/// rsync(1), "EXIT VALUES": files vanished while they were copied; deletions were held back.
const VANISHED: i32 = 24;
const HELD: i32 = 25;

pub(super) struct Pull<'a> {
    /// Where the configuration is.
    pub folder: &'a Path,
    pub config: &'a Config,
    pub kept: &'a Kept,
    pub report: &'a Report,
    /// What this server was told of its role when the copy was decided on: it ends where that is no longer so.
    pub role: Option<(SiteRole, u64)>,
    pub verify: bool,
    pub most_deleted: u64,
}

/// Why there is no whole copy.
#[derive(Debug)]
pub(super) struct Not {
    pub why: String,
    pub would_delete: Option<u64>,
}

impl Not {
    pub(super) fn so(why: impl ToString) -> Not {
        Not {
            why: why.to_string(),
            would_delete: None,
        }
    }
}

/// Who has the files, if it is another server.
pub(super) enum Source<'a> {
    /// This server, as of this epoch.
    Here(u64),
    There(&'a Peer, u64),
}

/// What one run of rsync said.
struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

struct Counts {
    files: u64,
    copied: u64,
    deleted: u64,
    /// What came, below the folder; `None`: nobody asked.
    names: Option<Vec<String>>,
}

impl Pull<'_> {
    /// The one whose site is primary, by what this server was told and by what the other one says.
    pub(super) async fn source(&self) -> Result<Source<'_>, Not> {
        let (role, told) = self
            .role
            .ok_or_else(|| Not::so("nobody told this server its role"))?;
        let here = &self.config.site;
        if role == SiteRole::Primary && self.config.first {
            return Ok(Source::Here(told));
        }
        let peers = self
            .config
            .peers
            .iter()
            .filter(|peer| peer.first && ((&peer.site == here) == (role == SiteRole::Primary)));
        let asked = peers.map(|peer| async move { (peer, self.ask(peer, false).await) });
        let (mut given, mut not) = (Vec::new(), Vec::new());
        for (peer, answer) in join_all(asked).await {
            match answer {
                Ok(answer) => given.push((answer.epoch, peer)),
                Err(why) => not.push(format!("{}: {why}", peer.server)),
            }
        }
        let Some((epoch, peer)) = given.into_iter().max_by_key(|(epoch, _)| *epoch) else {
            return Err(Not::so(match not.is_empty() {
                true => "no other server has them".to_owned(),
                false => not.join("; "),
            }));
        };
        // Its own role counts too: it may never have looked while it had another one.
        let seen = self.report.epoch.max(told);
        if epoch < seen {
            return Err(Not::so(format!(
                "{} has been superseded: it gives them under epoch {epoch}, and epoch {seen} is known here",
                peer.server
            )));
        }
        Ok(Source::There(peer, epoch))
    }

    async fn ask(&self, peer: &Peer, restore: bool) -> Result<Given, String> {
        let name = self.kept.name.as_str();
        let command = way::to(self.folder, self.config, peer, &ask(name, restore));
        let mut command = Command::from(command.map_err(|fault| line(&fault))?);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let answer = tokio::time::timeout(ASK_LIMIT, command.output()).await;
        let answer = answer.map_err(|_| format!("no answer within {} s", ASK_LIMIT.as_secs()))?;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status.success() {
            true => serde_json::from_slice(&answer.stdout).map_err(|error| error.to_string()),
            false => Err(last_lines(&String::from_utf8_lossy(&answer.stderr))),
        }
    }

    /// Copies until the folder is what the source had when it began, and everything of this server's own is aside.
    pub(super) async fn copy(&self, source: &Peer, epoch: u64) -> Result<Whole, Not> {
        let began = Timestamp::now();
        let follows = |whole: &Whole| whole.source == source.server && whole.epoch == epoch;
        let is_copy = self.report.whole.as_ref().is_some_and(follows);
        let counts = match is_copy {
            true => self.follow(source, epoch).await?,
            false => self.begin(source, epoch, &epoch.to_string()).await?,
        };
        let verified = counts.1.map(|mended| Verified {
            at: Timestamp::now(),
            mended,
        });
        let before = self.report.whole.as_ref().filter(|_| is_copy);
        self.seal(&counts.0).await?;
        Ok(Whole {
            source: source.server.clone(),
            epoch,
            began,
            ended: Timestamp::now(),
            files: counts.0.files,
            copied: counts.0.copied,
            deleted: counts.0.deleted,
            verified: verified.or_else(|| before.and_then(|whole| whole.verified.clone())),
        })
    }

    /// Gets the files back that this server is to have, from one that has a copy.
    pub(super) async fn restore(&self, from: &ServerName) -> Result<(), Not> {
        if durable::read(&self.kept.mark()).is_ok_and(|mark| mark.is_some()) {
            return Ok(());
        }
        let source = super::peer(self.config, from.as_str());
        let source = source.ok_or_else(|| Not::so(format!("nobody told this server of {from}")))?;
        let given = self.ask(source, true).await.map_err(Not::so)?;
        let (counts, _) = self.begin(source, given.epoch, RESTORE).await?;
        self.seal(&counts).await
    }

    /// For the first time from this server, or under this epoch: whatever is different is put aside.
    async fn begin(
        &self,
        source: &Peer,
        epoch: u64,
        right: &str,
    ) -> Result<(Counts, Option<u64>), Not> {
        let aside = self.kept.beside().join("aside");
        let aside = aside.join(format!("{epoch}-{}", source.server));
        let backup = format!("--backup-dir={}", aside.display());
        let ran = self.rsync(source, right, &["--backup", &backup]).await?;
        match ran.status.code() {
            Some(0 | VANISHED) => Ok((counts(&ran)?, self.mended(&ran))),
            _ => Err(failed(&ran)),
        }
    }

    /// Of a copy nothing is put aside. What has to go is counted before it goes.
    async fn follow(&self, source: &Peer, epoch: u64) -> Result<(Counts, Option<u64>), Not> {
        let right = epoch.to_string();
        let first = ["--max-delete=0", NAMES];
        let first = self.rsync(source, &right, &first).await?;
        match first.status.code() {
            Some(0 | VANISHED) => {
                let names = Some(names(&first.stdout));
                let counts = Counts {
                    names,
                    ..counts(&first)?
                };
                return Ok((counts, self.mended(&first)));
            }
            Some(HELD) => {}
            _ => return Err(failed(&first)),
        }
        let would = skipped(&first.stderr).ok_or_else(|| failed(&first))?;
        if would > self.most_deleted {
            let why = format!(
                "{} has {would} files fewer than this server, and at most {} may go at once",
                source.server, self.most_deleted
            );
            return Err(Not {
                why,
                would_delete: Some(would),
            });
        }
        let most = format!("--max-delete={}", self.most_deleted);
        let second = self.rsync(source, &right, &[&most]).await?;
        if !matches!(second.status.code(), Some(0 | VANISHED)) {
            return Err(failed(&second));
        }
        let (one, two) = (counts(&first)?, counts(&second)?);
        let counts = Counts {
            copied: one.copied + two.copied,
            names: Some(names(&first.stdout)),
            ..two
        };
        Ok((counts, self.mended(&first)))
    }

    async fn rsync(&self, source: &Peer, right: &str, more: &[&str]) -> Result<Ran, Not> {
        let beside = self.kept.beside();
        let partial = beside.join("partial");
        durable::make_folders(&partial, 0o700).map_err(|fault| Not::so(line(&fault)))?;
        let words = ["files", "way"].map(str::to_owned).into_iter().chain([
            self.folder.display().to_string(),
            self.kept.name.to_string(),
            right.to_owned(),
        ]);
        let words = std::iter::once(self.config.program.clone()).chain(words);
        let way: Vec<String> = words.map(|word| format!("'{word}'")).collect();
        let mut command = Command::new("rsync");
        command
            .args([
                "-aHAX",
                "--no-D",
                "--stats",
                "--no-h",
                "--delete-delay",
                "--timeout=60",
            ])
            .arg(format!("--exclude=/{MARK}"))
            .arg(format!("--partial-dir={}", partial.display()))
            .arg(format!("--rsh={}", way.join(" ")));
        if self.verify {
            command.args(["--checksum", NAMES]);
        }
        command
            .args(more)
            .arg(format!("{}:.", source.server))
            .arg(format!("{}/", self.kept.folder.display()))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if told(self.config) != self.role {
            return Err(Not::so(CHANGED));
        }
        let spawned = command.spawn();
        let child = spawned.map_err(|error| {
            let fault = Fault::new("cannot run `rsync`").because(error);
            Not::so(line(&fault.hint("apt-get install rsync")))
        })?;
        self.guarded(child).await
    }

    /// It is ended as soon as this server's role is another one than it was when the copy was decided on.
    async fn guarded(&self, child: Child) -> Result<Ran, Not> {
        let group = child.id().map(|id| Pid::from_raw(id.cast_signed()));
        let mut output = std::pin::pin!(child.wait_with_output());
        let ended = loop {
            tokio::select! {
                ended = &mut output => break ended,
                () = tokio::time::sleep(GUARD) => {}
            }
            if told(self.config) == self.role {
                continue;
            }
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                let _ = group.map(|group| killpg(group, signal));
                if tokio::time::timeout(END_LIMIT, &mut output).await.is_ok() {
                    break;
                }
            }
            return Err(Not::so(CHANGED));
        };
        let ended = ended.map_err(Not::so)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran {
            status: ended.status,
            stdout: text(&ended.stdout),
            stderr: text(&ended.stderr),
        })
    }

    /// How many files had the right size and time and were other ones, if anybody looked.
    fn mended(&self, ran: &Ran) -> Option<u64> {
        let other = |line: &&str| line.starts_with(">fc..");
        self.verify
            .then(|| ran.stdout.lines().filter(other).count() as u64)
    }

    /// On the disk, and marked as whole. A file that a crash leaves with the right size and time and without its
    /// contents would never be copied again.
    async fn seal(&self, counts: &Counts) -> Result<(), Not> {
        let (kept, mark) = (self.kept.clone(), self.kept.mark());
        let names = counts.names.clone().filter(|names| names.len() <= SINGLY);
        let sealed = durable::blocking(move || {
            let folder = &kept.folder;
            let synced = |name: &String| std::fs::File::open(folder.join(name))?.sync_all();
            let singly = names.is_some_and(|names| names.iter().all(|name| synced(name).is_ok()));
            if !singly {
                durable::sync_file_system(folder)?;
            }
            let words = mark_of(&kept.name);
            match durable::read(&mark)?.as_deref() == Some(words.as_bytes()) {
                true => Ok(()),
                false => durable::replace(&mark, words.as_bytes(), 0o644, None),
            }
        });
        sealed.await.map_err(|fault: Fault| Not::so(line(&fault)))
    }
}

/// Folders in which something was put aside.
pub(super) fn aside(kept: &Kept) -> Result<Vec<PathBuf>, Fault> {
    let folder = kept.beside().join("aside");
    let mut found = Vec::new();
    for name in durable::names(&folder)? {
        let one = folder.join(name);
        // rsync makes it before it knows whether it is needed.
        if std::fs::remove_dir(&one).is_err() {
            found.push(one);
        }
    }
    Ok(found)
}

/// A fault with its causes and what to do about it.
pub(super) fn line(fault: &Fault) -> String {
    let causes = fault.causes().join(": ");
    let said = match causes.is_empty() {
        true => fault.to_string(),
        false => format!("{fault}: {causes}"),
    };
    match fault.hints().first() {
        Some(hint) => format!("{said} (`{hint}`)"),
        None => said,
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    match last.is_empty() {
        true => "it ended without a word".to_owned(),
        false => last.join("; "),
    }
}

fn failed(ran: &Ran) -> Not {
    Not::so(last_lines(&ran.stderr))
}

/// `Number of files: 3 (reg: 2, dir: 1)`. Folders are not counted.
fn counts(ran: &Ran) -> Result<Counts, Not> {
    let folders = ran
        .stdout
        .lines()
        .find(|line| line.starts_with("Number of files: "));
    let folders = folders.and_then(|line| {
        line.split_once("dir: ")?
            .1
            .split([',', ')'])
            .next()?
            .parse::<u64>()
            .ok()
    });
    let number = |name: &str| {
        let lines = ran.stdout.lines();
        let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let word = found.next()?.split_whitespace().next()?;
        word.parse::<u64>().ok()
    };
    let all = || {
        Some(Counts {
            files: number("Number of files")?.saturating_sub(folders.unwrap_or(0)),
            copied: number("Number of regular files transferred")?,
            deleted: number("Number of deleted files")?,
            names: None,
        })
    };
    all().ok_or_else(|| Not::so("rsync does not say what it did"))
}

/// `>f+++++++++ uploads/a.jpg`.
fn names(stdout: &str) -> Vec<String> {
    let came = stdout.lines().filter(|line| line.starts_with(">f"));
    let names = came.filter_map(|line| line.split_once(' '));
    names.map(|(_, name)| name.to_owned()).collect()
}

/// `Deletions stopped due to --max-delete limit (2 skipped)`.
fn skipped(stderr: &str) -> Option<u64> {
    let (_, rest) = stderr.split_once("--max-delete limit (")?;
    rest.split_once(" skipped)")?.0.parse().ok()
}
