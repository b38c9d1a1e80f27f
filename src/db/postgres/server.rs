//! The server process of a node, through the shell: programs, folders, starts and stops, control data.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::config::{self, Door, Paths};
use super::connect::{self, How, OURS};
use crate::db::{Node, Reach};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::shell::{Command, Ran, ServiceChange, StopSignal};

/// How long a server may take from its start until it answers; a crashed one replays its log first.
const START_LIMIT: Duration = Duration::from_secs(60);
const RELOAD_LIMIT: Duration = Duration::from_secs(5);
/// For a supervisor to stop the server at once; after it the server is ended without its help.
const TOLD_LIMIT: Duration = Duration::from_secs(5);
/// For one look at all processes of a machine that may be busy.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// For ending what was left after a stop.
const LEFT_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// Major versions that a spec may name.
pub(super) const VERSIONS: std::ops::RangeInclusive<u32> = 14..=17;
/// What `initdb --wal-segsize` takes.
const SEGMENTS: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;

/// Prints folder and version of every PostgreSQL that is installed.
pub(super) const FIND: &str = r#"
for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin "$(dirname "$(readlink -f "$(command -v initdb)")" 2>/dev/null)"; do
  if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then echo "$dir $("$dir/postgres" --version)"; fi
done"#;

/// Runs a command that should succeed. What a failed one did is not known from its code: `Partial`.
pub(super) async fn run(node: &Node, command: &Command, reach: &Reach) -> Result<Ran, Trouble> {
    let ran = reach.shell.run(&node.host, command).await?;
    if ran.code == 0 {
        return Ok(ran);
    }
    let program = command.argv[0].rsplit('/').next().unwrap_or_default();
    let lines: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let said = lines[lines.len().saturating_sub(3)..].join("; ");
    let message = format!(
        "`{program}` failed on `{}` with code {}",
        node.host.name, ran.code
    );
    Err(Trouble::Partial(Fault::new(message).because(said)))
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` is 15.
fn major(text: &str) -> Option<u32> {
    let version = text.split("(PostgreSQL) ").nth(1)?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The folder with the programs: of the version of the data that is there, else of `wanted`, else of the newest.
pub(super) async fn find_binaries(
    node: &Node,
    wanted: Option<u32>,
    reach: &Reach,
) -> Result<String, Trouble> {
    let path = format!("{}/PG_VERSION", Paths::of(node).main);
    let there = reach.shell.get(&node.host, &path).await.nothing_changed()?;
    let there = there.and_then(|text| String::from_utf8_lossy(&text).trim().parse().ok());
    let ran = reach
        .shell
        .run(&node.host, &Command::new(["sh", "-c", FIND]))
        .await?;
    newest(&ran.stdout, wanted.or(there)).ok_or_else(|| {
        let (version, package) = match wanted.or(there) {
            Some(version) => (
                format!("PostgreSQL {version}"),
                format!("postgresql-{version}"),
            ),
            None => ("PostgreSQL".to_owned(), "postgresql".to_owned()),
        };
        let message = format!("{version} is not installed on `{}`", node.host.name);
        Trouble::NothingChanged(Fault::new(message).hint(format!("apt-get install {package}")))
    })
}

fn newest(found: &str, wanted: Option<u32>) -> Option<String> {
    let found = found.lines().filter_map(|line| {
        let (folder, version) = line.split_once(' ')?;
        Some((major(version)?, folder.to_owned()))
    });
    found
        .filter(|(major, _)| wanted.map_or(major >= VERSIONS.start(), |wanted| wanted == *major))
        .max_by_key(|(major, _)| *major)
        .map(|(_, folder)| folder)
}

pub(super) async fn prepare_folders(node: &Node, reach: &Reach) -> Result<(), Trouble> {
    let paths = Paths::of(node);
    let command = Command::new(["mkdir", "-p", "-m", "0700", &paths.base, &paths.conf]);
    run(node, &command.service_user(), reach).await.map(|_| ())
}

pub(super) async fn has_data(node: &Node, reach: &Reach) -> Result<bool, Fault> {
    let paths = Paths::of(node);
    let version = |folder: &str| format!("{folder}/PG_VERSION");
    let there = reach.shell.get(&node.host, &version(&paths.main)).await?;
    Ok(there.is_some())
}

/// The folder is taken away by its name first, so that a removal that is cut short leaves nothing that looks complete.
/// Only `aside` calls it, which knows what may be lost.
pub(super) async fn remove_data(node: &Node, reach: &Reach) -> Result<(), Trouble> {
    let paths = Paths::of(node);
    remove_fresh(node, reach).await?;
    let command = Command::new([
        "sh",
        "-c",
        r#"[ ! -e "$1" ] || mv -T "$1" "$2""#,
        "sh",
        &paths.main,
        &paths.fresh,
    ]);
    run(node, &command.service_user(), reach).await?;
    reach.shell.remove(&node.host, &paths.fresh).await
}

/// Ends who still writes into the folder of a copy or a creation, and says who is left. Only PostgreSQL's own programs
/// are looked at closely: two more processes for every one on the machine would take seconds on a busy one.
const AT_FRESH: &str = r#"
[ -r /proc/self/stat ] || exit 3
fresh=$(readlink -m "$1") || exit 3
for process in /proc/[0-9]*; do
  read -r pid name rest < "$process/stat" || continue
  case $name in "(initdb)"|"(postgres)"|"(pg_basebackup)") ;; *) continue ;; esac
  words=$(tr '\0' '\n' < "$process/cmdline") || continue
  folder=$(readlink "$process/cwd") || folder=
  case "
$words
" in
    *"
--pgdata=$1
"*) ;;
    *) [ "${folder% (deleted)}" = "$fresh" ] || continue ;;
  esac
  kill -KILL "${process#/proc/}" && echo "${process#/proc/}"
done 2>/dev/null
exit 0"#;

/// A command that was killed leaves its `initdb` or `pg_basebackup` behind, at work.
pub(super) async fn remove_fresh(node: &Node, reach: &Reach) -> Result<(), Trouble> {
    let fresh = Paths::of(node).fresh;
    let until = Instant::now() + LEFT_LIMIT;
    loop {
        let command = Command::new(["sh", "-c", AT_FRESH, "sh", &fresh]);
        let ran = run(node, &command.service_user().limit(LOOK_LIMIT), reach).await?;
        if ran.stdout.trim().is_empty() {
            break;
        }
        if Instant::now() >= until {
            let message = format!(
                "processes {} on `{}` write into `{fresh}`, {} s after they were killed",
                ran.stdout.trim().replace('\n', ", "),
                node.host.name,
                LEFT_LIMIT.as_secs()
            );
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
        tokio::time::sleep(POLL).await;
    }
    release(node, &fresh, reach).await?;
    reach.shell.remove(&node.host, &fresh).await
}

/// The last line but one of `postmaster.pid` has the id of its shared memory, which outlives who is killed.
const SHARED: &str = r#"
id=$(sed -n '7s/.* //p' "$1/postmaster.pid" 2>/dev/null) && [ -n "$id" ] || exit 0
ipcrm -m "$id" 2>/dev/null; exit 0"#;

/// Gives back what a server that was killed in `folder` held of the machine. A start there would do it too.
async fn release(node: &Node, folder: &str, reach: &Reach) -> Result<(), Trouble> {
    let command = Command::new(["sh", "-c", SHARED, "sh", folder]);
    run(node, &command.service_user(), reach).await.map(drop)
}

pub(super) async fn rename_fresh(node: &Node, reach: &Reach) -> Result<(), Trouble> {
    let paths = Paths::of(node);
    let command = Command::new(["mv", "-T", &paths.fresh, &paths.main]);
    run(node, &command.service_user(), reach).await.map(|_| ())
}

/// Starts the server as at boot, which is non-writable, and waits until it answers. A running one is only opened to sessions.
pub(super) async fn start(node: &Node, reach: &Reach) -> Result<(), Trouble> {
    let running = config::is_running(node, reach).await.nothing_changed()?;
    let reopened = config::put_hba(node, Door::Open, reach).await?;
    match running {
        Some(true) if reopened => return reload(node, reach).await,
        Some(true) => {}
        Some(false) => config::change(node, ServiceChange::Start, reach).await?,
        None => {
            let bin = find_binaries(node, None, reach).await?;
            config::install(node, &bin, reach).await?;
            config::change(node, ServiceChange::Start, reach).await?;
        }
    }
    if await_answer(node, reach).await? == Answer::Stopped {
        // An agent that fenced what it saw before; it does not stop what was started since.
        config::change(node, ServiceChange::Start, reach).await?;
        if await_answer(node, reach).await? == Answer::Stopped {
            let message = format!(
                "PostgreSQL on `{}` was stopped twice while it was starting",
                node.host.name
            );
            return Err(Trouble::Partial(Fault::unavailable(message)));
        }
    }
    Ok(())
}

#[derive(PartialEq)]
enum Answer {
    Here,
    /// Somebody else stopped it while it was awaited.
    Stopped,
}

async fn await_answer(node: &Node, reach: &Reach) -> Result<Answer, Trouble> {
    let until = Instant::now() + START_LIMIT;
    loop {
        let Err(failure) = connect::connect(node, OURS, reach).await else {
            return Ok(Answer::Here);
        };
        if config::is_unwanted(node, reach).await {
            return Ok(Answer::Stopped);
        }
        if Instant::now() >= until {
            let message = format!(
                "PostgreSQL on `{}` does not answer after {} s",
                node.host.name,
                START_LIMIT.as_secs()
            );
            // What ends again and again by itself is not about to answer: no retry of the step, which may copy for hours.
            return Err(match service_trouble(node, reach).await {
                Some(why) => {
                    let fault = Fault::new(message).because(why);
                    Trouble::Partial(fault.because(last_words(node, reach).await))
                }
                None => Trouble::Unknown(Fault::unavailable(message).because(failure.fault)),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What its log says of its end, without what it says of its data.
async fn last_words(node: &Node, reach: &Reach) -> String {
    const LOOK: &str = r#"grep -aE '(FATAL|PANIC): ' "$1" | tail -n 1"#;
    let service = config::service_name(&node.database.name);
    let log = format!("{}/{service}.log", node.host.dirs.log);
    let ran = run(node, &Command::new(["sh", "-c", LOOK, "sh", &log]), reach).await;
    let said = ran.map(|ran| ran.stdout.trim().to_owned());
    match said {
        Ok(said) if !said.is_empty() => format!("{log}: {said}"),
        Ok(_) | Err(_) => format!("see {log}"),
    }
}

async fn service_trouble(node: &Node, reach: &Reach) -> Option<String> {
    config::service(node, reach).await.ok()??.trouble
}

/// Makes a running server read its files again, and waits until new sessions see them.
pub(super) async fn reload(node: &Node, reach: &Reach) -> Result<(), Trouble> {
    const LOADED: &str = "SELECT extract(epoch FROM pg_conf_load_time())::float8";
    let session = connect::connect(node, OURS, reach).await;
    // Without a session (we may be barred) there is no time to compare with, and the first answer will do.
    let before: f64 = match session {
        Ok(session) => session
            .one(LOADED, &[])
            .await
            .map_err(|failure| Trouble::Unknown(failure.fault))?,
        Err(_) => 0.0,
    };
    config::change(node, ServiceChange::Reload, reach).await?;
    let until = Instant::now() + RELOAD_LIMIT;
    loop {
        match connect::connect(node, OURS, reach).await {
            Ok(session) => {
                let now: f64 = session
                    .one(LOADED, &[])
                    .await
                    .map_err(|failure| Trouble::Unknown(failure.fault))?;
                if now > before {
                    return Ok(());
                }
            }
            // The server looked at the new rules, and they say no to us.
            Err(connect::Failure {
                how: How::Said { .. },
                ..
            }) if before > 0.0 => return Ok(()),
            Err(_) => {}
        }
        if Instant::now() >= until {
            let message = format!(
                "PostgreSQL on `{}` has not read its settings after {} s",
                node.host.name,
                RELOAD_LIMIT.as_secs()
            );
            return Err(Trouble::Unknown(Fault::unavailable(message)));
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn stop(node: &Node, signal: StopSignal, reach: &Reach) -> Result<(), Trouble> {
    match config::is_running(node, reach).await.nothing_changed()? {
        None => Ok(()),
        // Also when it is not running at this moment: the supervisor must not start it again.
        Some(_) => {
            config::change(
                node,
                ServiceChange::Stop {
                    signal: Some(signal),
                },
                reach,
            )
            .await
        }
    }
}

/// Prints the processes of PostgreSQL whose working folder is the data folder, which all of them have, with their
/// parents; kills those among them that are named. Without /proc nothing is known.
const AT_WORK: &str = r#"
[ -r /proc/self/stat ] || exit 3
main=$(readlink -m "$1") || exit 3
for process in /proc/[0-9]*; do
  read -r pid name state parent rest < "$process/stat" || continue
  [ "$name" = "(postgres)" ] || continue
  folder=$(readlink "$process/cwd") || continue
  [ "${folder% (deleted)}" = "$main" ] || continue
  case " $2 " in *" $pid "*) kill -KILL "$pid" ;; esac
  echo "$pid $parent"
done 2>/dev/null
exit 0"#;

struct AtWork {
    pid: u32,
    parent: u32,
}

/// The node's processes, as its machine shows them: whoever started them may have lost them.
async fn at_work(node: &Node, kill: &[u32], reach: &Reach) -> Result<Vec<AtWork>, Trouble> {
    let main = Paths::of(node).main;
    let kill: Vec<String> = kill.iter().map(u32::to_string).collect();
    let command = Command::new(["sh", "-c", AT_WORK, "sh", &main, &kill.join(" ")]);
    let ran = run(node, &command.service_user().limit(LOOK_LIMIT), reach).await?;
    let found = ran.stdout.lines().filter_map(|line| {
        let (pid, parent) = line.split_once(' ')?;
        Some(AtWork {
            pid: pid.parse().ok()?,
            parent: parent.parse().ok()?,
        })
    });
    Ok(found.collect())
}

pub(super) async fn is_stopped(node: &Node, reach: &Reach) -> Result<bool, Fault> {
    let found = at_work(node, &[], reach).await;
    found
        .map(|found| found.is_empty())
        .map_err(|trouble| trouble.fault().clone())
}

/// What the supervisor started since is left alone: it came up non-writable. Everything else is ended, also what the
/// supervisor does not know, and all of it when the supervisor does not answer.
pub(super) async fn stop_now(node: &Node, reach: &Reach) -> Result<(), Trouble> {
    let told = tokio::time::timeout(TOLD_LIMIT, stop(node, StopSignal::Quit, reach)).await;
    let until = Instant::now() + LEFT_LIMIT;
    let (mut left, mut was_empty) = (Vec::new(), false);
    loop {
        let found = at_work(node, &left, reach).await?;
        let known = match &told {
            Ok(_) => config::pid(node, reach).await,
            Err(_) => None,
        };
        let lost = found
            .iter()
            .filter(|one| ![one.pid, one.parent].map(Some).contains(&known));
        left = lost.map(|one| one.pid).collect();
        match &told {
            _ if !left.is_empty() => was_empty = false,
            Ok(Ok(())) => return Ok(()),
            // It runs still, and whoever runs it would not stop it.
            Ok(Err(_)) if !found.is_empty() => return told.unwrap_or(Ok(())),
            // A supervisor that was not told may have been about to start it.
            Ok(Err(_)) | Err(_) if was_empty => return Ok(()),
            Ok(Err(_)) | Err(_) => was_empty = true,
        }
        if Instant::now() >= until {
            let message = format!(
                "PostgreSQL on `{}` is there {} s after it was killed, as {left:?}",
                node.host.name,
                LEFT_LIMIT.as_secs()
            );
            return Err(Trouble::Partial(Fault::new(message)));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What `pg_controldata` says about a stopped server.
pub(super) struct Control {
    pub state: String,
    pub checkpoint: String,
    pub timeline: u32,
    pub system: String,
    /// Bytes of one file of the log.
    pub segment: u64,
}

pub(super) async fn control(node: &Node, reach: &Reach) -> Result<Control, Fault> {
    let bin = find_binaries(node, None, reach)
        .await
        .map_err(|trouble| trouble.fault().clone())?;
    let command = Command::new([format!("{bin}/pg_controldata"), Paths::of(node).main]);
    let ran = run(node, &command.env("LC_ALL", "C").service_user(), reach).await;
    parse_control(&ran.map_err(|trouble| trouble.fault().clone())?.stdout)
}

fn parse_control(text: &str) -> Result<Control, Fault> {
    let lines: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let get = |name: &str| {
        let value = lines.get(name).map(|value| (*value).to_owned());
        value.ok_or_else(|| Fault::new(format!("`pg_controldata` says nothing about `{name}`")))
    };
    Ok(Control {
        state: get("Database cluster state")?,
        checkpoint: get("Latest checkpoint location")?,
        timeline: get("Latest checkpoint's TimeLineID")?.parse().unwrap_or(0),
        system: get("Database system identifier")?,
        segment: get("Bytes per WAL segment")?
            .parse()
            .ok()
            .filter(|bytes| SEGMENTS.contains(bytes) && bytes.is_power_of_two())
            .ok_or_else(|| Fault::new("`pg_controldata` says an odd `Bytes per WAL segment`"))?,
    })
}

/// For `fuzz`: what programs of PostgreSQL print.
#[cfg(test)]
pub(super) fn hostile(text: &str) -> Option<Control> {
    let _ = newest(text, None);
    let _ = newest(text, Some(15));
    parse_control(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_taken_or_the_wanted_one() {
        let found = "/usr/lib/postgresql/9.6/bin postgres (PostgreSQL) 9.6.24\n\
                     /usr/lib/postgresql/15/bin postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n\
                     /opt/pg/bin postgres (PostgreSQL) 17beta1\n";
        let folder = |wanted| newest(found, wanted);
        assert_eq!(folder(None).as_deref(), Some("/opt/pg/bin"));
        assert_eq!(
            folder(Some(15)).as_deref(),
            Some("/usr/lib/postgresql/15/bin")
        );
        assert_eq!(folder(Some(16)), None);
        assert_eq!(newest("/x/bin postgres (PostgreSQL) 9.6.24\n", None), None);
        assert_eq!(newest("", None), None);
    }
}
