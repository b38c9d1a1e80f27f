//! The way back of an old primary: whether it has log that the new one lacks, and how it becomes a replica.

use std::time::{Duration, Instant};

use super::aside::Own;
use super::config::{self, Door, Paths, connection, slot_of};
use super::connect::{self, OURS, Session};
use super::{aside, bytes_of, promote, seed, server, status};
use crate::db::{Divergence, Node, NodeRole, NodeStatus, Position, Reach, Rejoined};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::shell::{Command, StopSignal};

const REWIND_LIMIT: Duration = Duration::from_secs(3600);
/// How long a follower that should just follow is given before it is copied anew.
const FOLLOW_LIMIT: Duration = Duration::from_secs(30);
/// From a start until all of the node's own log is replayed.
const REPLAY_LIMIT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(100);
/// Files of the log that are kept as evidence, from the fork on.
const EVIDENCE_MOST: usize = 64;
/// Size of a shutdown checkpoint's record, aligned.
const CHECKPOINT_RECORD: u64 = 120;

/// Where a node's log ends, and the histories that lead there.
pub(super) struct End {
    at: u64,
    line: Vec<Stretch>,
}

/// One timeline of a node's history; the last one has no end yet.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    timeline: u32,
    end: Option<u64>,
}

/// Reads a `.history` file: timeline, switch point, reason.
fn parse_history(text: &str, timeline: u32) -> Option<Vec<Stretch>> {
    let mut line = Vec::new();
    for words in text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
    {
        if let [timeline, end, ..] = words.as_slice() {
            let (timeline, end) = (timeline.parse().ok()?, bytes_of(end)?);
            line.push(Stretch {
                timeline,
                end: Some(end),
            });
        }
    }
    line.push(Stretch {
        timeline,
        end: None,
    });
    Some(line)
}

/// Where two histories part; `None` while they are one.
fn fork(ours: &[Stretch], theirs: &[Stretch]) -> Option<u64> {
    let mut fork = Some(0);
    for (our, their) in ours.iter().zip(theirs) {
        if our.timeline != their.timeline {
            break;
        }
        fork = [our.end, their.end].into_iter().flatten().min();
        if our.end != their.end {
            break;
        }
    }
    fork
}

fn position(bytes: u64) -> Position {
    Position(format!("{:X}/{:X}", bytes >> 32, bytes & 0xffff_ffff))
}

fn compare(old: &End, primary: &End) -> Divergence {
    // On the same timeline the primary may be the one that lost something.
    let fork = fork(&old.line, &primary.line).unwrap_or(primary.at);
    match old.at.checked_sub(fork) {
        None | Some(0) => Divergence::None,
        Some(extra) => Divergence::Diverged {
            fork: position(fork),
            extra,
        },
    }
}

/// The last timeline that both name, and up to where the log on it is common, if the names tell the truth.
fn claimed(old: &End, primary: &End) -> Option<(u32, u64)> {
    let mut claimed = None;
    for (our, their) in old.line.iter().zip(&primary.line) {
        if our.timeline != their.timeline {
            break;
        }
        let (our_end, their_end) = (our.end.unwrap_or(old.at), their.end.unwrap_or(primary.at));
        claimed = Some((our.timeline, our_end.min(their_end)));
        if our.end != their.end {
            break;
        }
    }
    claimed
}

/// Name of a file of the log.
fn file(timeline: u32, number: u64, segment: u64) -> String {
    let per_high = 0x1_0000_0000 / segment;
    format!(
        "{timeline:08X}{:08X}{:08X}",
        number / per_high,
        number % per_high
    )
}

/// Names of the files that can hold the bytes before `end` of `timeline`: a timeline that forks in the middle of a
/// file goes on in a copy of it, and what was left of the old one may be called partial.
fn files(line: &[Stretch], timeline: u32, end: u64, segment: u64) -> Vec<String> {
    let number = end.saturating_sub(1) / segment;
    let name = |timeline: u32| file(timeline, number, segment);
    let named = line.iter().map(|stretch| stretch.timeline);
    let mut names: Vec<String> = named.filter(|named| *named >= timeline).map(name).collect();
    names.push(format!("{}.partial", name(timeline)));
    names
}

/// What comparing gave.
struct Compared {
    divergence: Divergence,
    /// Whether `pg_rewind`, which goes by numbers only, would find the true fork.
    rewindable: bool,
}

/// Timelines are only numbers. A primary that crashed and was opened again, while another copy with the same log was
/// opened elsewhere, makes two histories with the same numbers and the same forks: only the bytes of the log tell
/// them apart.
async fn compare_log(
    old: &Node,
    end: &End,
    primary: &Node,
    there: &End,
    segment: u64,
    reach: &Reach,
) -> Result<Compared, Fault> {
    let by_numbers = compare(end, there);
    let Some((timeline, common)) = claimed(end, there) else {
        return Err(Fault::new(format!(
            "`{}` has nothing in common with its primary",
            old.host.name
        )));
    };
    let length = common.saturating_sub(1) % segment + 1;
    let ours = files(&end.line, timeline, common, segment);
    let ours = own_digest(old, &ours, length, reach).await?;
    let theirs = files(&there.line, timeline, common, segment);
    let session = connect::connect(primary, OURS, reach).await?;
    const DIGEST: &str = "SELECT encode(sha256(pg_read_binary_file('pg_wal/' || name, 0, $2, true)), 'hex') \
                          FROM unnest($1::text[]) AS name";
    let rows = session.rows(DIGEST, &[&theirs, &(length as i64)]).await?;
    let mut digests = Vec::new();
    for row in &rows {
        digests.extend(connect::value::<Option<String>>(row, 0)?);
    }
    let Some(ours) = ours.filter(|_| !digests.is_empty()) else {
        return Err(Fault::new(format!(
            "the log before {} is gone, so nobody can compare it",
            position(common)
        )));
    };
    if digests.contains(&ours) {
        return Ok(Compared {
            divergence: by_numbers,
            rewindable: true,
        });
    }
    // The twins began at the end of the timeline before theirs.
    let begin = end
        .line
        .iter()
        .rev()
        .find(|stretch| stretch.timeline < timeline)
        .and_then(|stretch| stretch.end);
    let Some(begin) = begin else {
        return Err(Fault::new(format!(
            "`{}` and its primary differ on timeline {timeline}",
            old.host.name
        )));
    };
    Ok(Compared {
        divergence: Divergence::Diverged {
            fork: position(begin),
            extra: end.at.saturating_sub(begin),
        },
        rewindable: false,
    })
}

/// Of the first of the files that is there.
async fn own_digest(
    old: &Node,
    files: &[String],
    length: u64,
    reach: &Reach,
) -> Result<Option<String>, Fault> {
    const SCRIPT: &str = r#"n=$1; cd "$2" || exit 1; shift 2; for f; do
        if [ -e "$f" ]; then head -c "$n" "$f" | sha256sum; exit; fi; done"#;
    let folder = format!("{}/pg_wal", Paths::of(old).main);
    let length = length.to_string();
    let mut argv = vec!["sh", "-c", SCRIPT, "digest", &length, &folder];
    argv.extend(files.iter().map(String::as_str));
    let ran = server::run(old, &Command::new(argv).service_user(), reach).await;
    let ran = ran.map_err(|trouble| trouble.fault().clone())?;
    Ok(ran
        .stdout
        .split_ascii_whitespace()
        .next()
        .map(str::to_owned))
}

pub(super) async fn divergence(
    old: &Node,
    primary: &Node,
    reach: &Reach,
) -> Result<Divergence, Fault> {
    match look(old, primary, reach).await {
        Ok(divergence) => Ok(divergence),
        Err(fault) => Ok(Divergence::Unknown {
            why: fault.to_string(),
        }),
    }
}

/// The old node is looked at first: what it has then, a primary that it follows has a moment later too.
async fn look(old: &Node, primary: &Node, reach: &Reach) -> Result<Divergence, Fault> {
    let control = server::control(old, reach).await?;
    let (end, system) = match config::is_running(old, reach).await? {
        Some(true) => {
            let status = status::status(old, reach).await?;
            if status.role == NodeRole::Primary {
                return Err(Fault::new(format!("`{}` is writable", old.host.name)));
            }
            (end_of_running(old, &status, reach).await?, status.system)
        }
        _ => {
            let end = match end_of_clean(old, &control, reach).await? {
                Some(end) => end,
                None => as_found(old, end_by_starting(old, reach), reach).await?,
            };
            (end, control.system)
        }
    };
    let (there, theirs) = end_of_primary(primary, reach).await?;
    same_system(old, &system, &theirs)?;
    let compared = compare_log(old, &end, primary, &there, control.segment, reach).await?;
    Ok(compared.divergence)
}

/// A look at a stopped node that starts it. Leaves it as it was found: stopped, and with the upstream that it had.
pub(super) async fn as_found<T>(
    old: &Node,
    look: impl Future<Output = Result<T, Fault>>,
    reach: &Reach,
) -> Result<T, Fault> {
    let path = Paths::of(old).upstream();
    let before = reach.shell.get(&old.host, &path).await?;
    let seen = look.await;
    let stopped = server::stop(old, StopSignal::Int, reach).await;
    if let Some(bytes) = before {
        let file = crate::shell::File {
            path,
            bytes,
            mode: 0o600,
            for_service_user: true,
        };
        reach
            .shell
            .put(&old.host, &file)
            .await
            .map_err(|trouble| trouble.fault().clone())?;
    }
    stopped.map_err(|trouble| trouble.fault().clone())?;
    seen
}

fn same_system(old: &Node, ours: &str, theirs: &str) -> Result<(), Fault> {
    if ours == theirs {
        return Ok(());
    }
    let message = format!(
        "`{}` has another database (system {ours}, and not {theirs})",
        old.host.name
    );
    Err(Fault::new(message))
}

async fn end_of_primary(primary: &Node, reach: &Reach) -> Result<(End, String), Fault> {
    let status = status::status(primary, reach).await?;
    let session = connect::connect(primary, OURS, reach).await?;
    let text = match status.timeline {
        1 => String::new(),
        timeline => {
            let path = format!("pg_wal/{timeline:08X}.history");
            session.one("SELECT pg_read_file($1)", &[&path]).await?
        }
    };
    let at = bytes_of(&status.position.0)
        .ok_or_else(|| Fault::new(format!("`{}` is no position", status.position)))?;
    let line = history_of(primary, &text, status.timeline)?;
    Ok((End { at, line }, status.system))
}

fn history_of(node: &Node, text: &str, timeline: u32) -> Result<Vec<Stretch>, Fault> {
    let unreadable = || {
        Fault::new(format!(
            "cannot read the history of timeline {timeline} of `{}`",
            node.host.name
        ))
    };
    parse_history(text, timeline).ok_or_else(unreadable)
}

/// The history of a node's own timeline, from its disk.
async fn own_history(node: &Node, timeline: u32, reach: &Reach) -> Result<Vec<Stretch>, Fault> {
    if timeline == 1 {
        return history_of(node, "", 1);
    }
    let path = format!("{}/pg_wal/{timeline:08X}.history", Paths::of(node).main);
    let Some(text) = reach.shell.get(&node.host, &path).await? else {
        return Err(Fault::new(format!(
            "`{}` has no history of its timeline {timeline}",
            node.host.name
        )));
    };
    history_of(node, &String::from_utf8_lossy(&text), timeline)
}

async fn end_of_running(node: &Node, status: &NodeStatus, reach: &Reach) -> Result<End, Fault> {
    let received = status
        .received
        .as_ref()
        .and_then(|received| bytes_of(&received.0));
    let replayed = bytes_of(&status.position.0);
    // What was received will be replayed.
    let at = received.max(replayed).unwrap_or(0);
    Ok(End {
        at,
        line: own_history(node, status.timeline, reach).await?,
    })
}

/// After a clean stop the shutdown checkpoint is the last record, so nothing needs to be started.
async fn end_of_clean(
    node: &Node,
    control: &server::Control,
    reach: &Reach,
) -> Result<Option<End>, Fault> {
    if control.state != "shut down" {
        return Ok(None);
    }
    let at = end_of_checkpoint(&control.checkpoint)
        .ok_or_else(|| Fault::new(format!("`{}` is no position", control.checkpoint)))?;
    let line = own_history(node, control.timeline, reach).await?;
    Ok(Some(End { at, line }))
}

fn end_of_checkpoint(begins: &str) -> Option<u64> {
    bytes_of(begins)?.checked_add(CHECKPOINT_RECORD)
}

/// Starts the node, non-writable and following nobody, until it has replayed all that it has.
pub(super) async fn end_by_starting(node: &Node, reach: &Reach) -> Result<End, Fault> {
    let fault = |trouble: Trouble| trouble.fault().clone();
    config::put_upstream(node, None, reach)
        .await
        .map_err(fault)?;
    server::start(node, reach).await.map_err(fault)?;
    let session = connect::connect(node, OURS, reach).await?;
    await_replayed(node, &session).await?;
    let status = status::status(node, reach).await?;
    if status.role == NodeRole::Primary {
        return Err(Fault::new(format!("`{}` came up writable", node.host.name)));
    }
    // Only this start's replay counts: without an upstream nothing is received.
    let at = bytes_of(&status.position.0).unwrap_or(0);
    Ok(End {
        at,
        line: own_history(node, status.timeline, reach).await?,
    })
}

/// The startup process says so by waiting for more.
async fn await_replayed(node: &Node, session: &Session) -> Result<(), Fault> {
    const WAITING: &str = "SELECT coalesce(pg_last_wal_replay_lsn()::text, ''), coalesce(bool_or(wait_event IN \
                           ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval')), false) \
                           FROM pg_stat_activity WHERE backend_type = 'startup'";
    let until = Instant::now() + REPLAY_LIMIT;
    let mut before = None;
    loop {
        let row = session.row(WAITING, &[]).await?;
        let (at, waiting): (String, bool) = (connect::value(&row, 0)?, connect::value(&row, 1)?);
        if waiting && before.as_ref() == Some(&at) {
            return Ok(());
        }
        before = waiting.then_some(at);
        if Instant::now() >= until {
            let message = format!(
                "`{}` still replays its log after {} s",
                node.host.name,
                REPLAY_LIMIT.as_secs()
            );
            return Err(Fault::unavailable(message));
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn rejoin(old: &Node, primary: &Node, reach: &Reach) -> Result<Rejoined, Trouble> {
    if config::is_running(old, reach).await.nothing_changed()? == Some(true) {
        seed::refuse_writable(old, "has to be fenced before it rejoins", reach).await?;
    }
    let status = status::status(primary, reach).await.nothing_changed()?;
    if status.role != NodeRole::Primary {
        let message = format!(
            "`{}` is not open for writes, so there is nobody to follow",
            primary.host.name
        );
        // Its agent may be about to open it.
        return Err(Trouble::NothingChanged(Fault::unavailable(message)));
    }
    let mut own = Own::Unknown;
    let because = match server::has_data(old, reach).await.nothing_changed()? {
        false => "it had no data".to_owned(),
        true => match gently(old, primary, &mut own, reach).await {
            Ok(rejoined) => return Ok(rejoined),
            Err(trouble) => trouble.fault().to_string(),
        },
    };
    // Whatever went wrong, a fresh copy puts it right. It is the refusals above that must not end here.
    let because = match seed::seed(primary, old, Some(own), reach).await? {
        Some(kept) => format!("{because}; what it had is kept in {kept}"),
        None => because,
    };
    Ok(Rejoined::Reseeded { because })
}

/// Follow or rewind. Any failure means: copy anew.
async fn gently(
    old: &Node,
    primary: &Node,
    own: &mut Own,
    reach: &Reach,
) -> Result<Rejoined, Trouble> {
    server::stop(old, StopSignal::Int, reach).await?;
    let bin = server::find_binaries(old, None, reach).await?;
    config::put_all(old, Door::Open, reach).await?;
    config::install(old, &bin, reach).await?;
    let (there, system) = end_of_primary(primary, reach).await.partial()?;
    let control = server::control(old, reach).await.partial()?;
    same_system(old, &control.system, &system).partial()?;
    let end = match end_of_clean(old, &control, reach).await.partial()? {
        Some(end) => end,
        None => end_by_starting(old, reach).await.partial()?,
    };
    let compared = compare_log(old, &end, primary, &there, control.segment, reach)
        .await
        .partial()?;
    if compared.divergence == Divergence::None {
        *own = Own::Safe;
    }
    let session = connect::connect(primary, OURS, reach)
        .await
        .map_err(|failure| Trouble::Partial(failure.fault))?;
    seed::drop_slot(&session, primary, &old.host.name).await?;
    seed::make_slot(&session, &slot_of(&old.host.name)).await?;
    if compared.divergence == Divergence::None {
        seed::point(old, primary, reach).await?;
        seed::await_stream(old, primary, FOLLOW_LIMIT, reach).await?;
        drop_inherited(old, primary, reach).await?;
        return Ok(Rejoined::Followed);
    }
    server::stop(old, StopSignal::Int, reach).await?;
    if let Divergence::Diverged { fork, .. } = &compared.divergence {
        *own = keep_evidence(old, &end, fork, control.segment, reach).await?;
    }
    // A control file from before the last promotion makes `pg_rewind` look for changes on the wrong timeline.
    let last = end.line.last().map(|stretch| stretch.timeline);
    let at_rest = server::control(old, reach).await.partial()?;
    if !compared.rewindable || Some(at_rest.timeline) != last {
        let message = format!("`{}` cannot be rewound", old.host.name);
        return Err(Trouble::Partial(Fault::new(message)));
    }
    rewind(old, primary, &bin, reach).await?;
    seed::point(old, primary, reach).await?;
    seed::await_stream(old, primary, seed::STREAM_LIMIT, reach).await?;
    Ok(Rejoined::Rewound)
}

/// Copies what is there of some files to another folder, and says what is not.
const KEEP: &str = r#"from=$1; to=$2; shift 2; mkdir -p "$to" || exit 1; for f; do
    if [ -e "$from/$f" ]; then cp -p "$from/$f" "$to/" && sync "$to/$f" || exit 1; else echo "$f"; fi; done; sync "$to""#;

/// Copies the log from the fork on, so that what is taken back can still be read with `pg_waldump`. A log that is not all
/// there is not kept: nobody knows what was in the files that PostgreSQL has reused by now.
async fn keep_evidence(
    old: &Node,
    end: &End,
    fork: &Position,
    segment: u64,
    reach: &Reach,
) -> Result<Own, Trouble> {
    let paths = Paths::of(old);
    let last = end.line.last().map_or(1, |stretch| stretch.timeline);
    let history = format!("{last:08X}.history");
    let (mut names, all) = own_log(end, bytes_of(&fork.0).unwrap_or(end.at), segment);
    names.push(history.clone());
    let from = format!("{}/pg_wal", paths.main);
    let to = aside::place(old);
    let mut argv = vec!["sh", "-c", KEEP, "keep", &from, &to];
    argv.extend(names.iter().map(String::as_str));
    let ran = server::run(old, &Command::new(argv).service_user(), reach).await?;
    // The first timeline has no history.
    let is_whole = ran.stdout.lines().all(|missing| missing == history);
    Ok(match all && is_whole {
        true => Own::Safe,
        false => Own::Unknown,
    })
}

/// Names of the files with what a node wrote from `fork` on, and whether these are all. A timeline that begins in the
/// middle of a file begins with a copy of it, so each file is that of the newest timeline that reached into it.
fn own_log(end: &End, fork: u64, segment: u64) -> (Vec<String>, bool) {
    let numbers = fork / segment..end.at.div_ceil(segment);
    let all = numbers.clone().nth(EVIDENCE_MOST).is_none();
    let began = |index: usize| match index.checked_sub(1) {
        None => 0,
        Some(before) => end.line[before].end.unwrap_or(u64::MAX),
    };
    let name = |number: u64| {
        let mut reached = (0..end.line.len()).rev();
        let reached = reached.find(|index| began(*index) / segment <= number);
        let timeline = reached.map_or(1, |index| end.line[index].timeline);
        file(timeline, number, segment)
    };
    (numbers.take(EVIDENCE_MOST).map(name).collect(), all)
}

async fn rewind(old: &Node, primary: &Node, bin: &str, reach: &Reach) -> Result<(), Trouble> {
    // Without this pg_rewind up to 15 reads the old timeline from the control file, says `Done!` and leaves a broken node.
    let session = connect::connect_for(primary, OURS, promote::CHECKPOINT_LIMIT, reach).await;
    let session = session.map_err(|failure| Trouble::Partial(failure.fault))?;
    session
        .run("CHECKPOINT")
        .await
        .map_err(|failure| Trouble::Partial(failure.fault))?;
    drop(session);
    let paths = Paths::of(old);
    let link = connection(old, primary, "hafog_rewind", &[("dbname", OURS)]);
    let mut argv = vec![
        format!("{bin}/pg_rewind"),
        format!("--target-pgdata={}", paths.main),
        format!("--source-server={link}"),
    ];
    let help = reach
        .shell
        .run(&old.host, &Command::new([argv[0].as_str(), "--help"]))
        .await?;
    if help.stdout.contains("--config-file") {
        argv.push(format!("--config-file={}", paths.settings()));
    }
    let command = Command::new(argv)
        .env("LC_ALL", "C")
        .service_user()
        .limit(REWIND_LIMIT);
    server::run(old, &command, reach).await.map(|_| ())
}

/// The slot that the old primary kept for the new one would hold its log for ever. Those of its own followers stay.
async fn drop_inherited(old: &Node, primary: &Node, reach: &Reach) -> Result<(), Trouble> {
    let session = connect::connect(old, OURS, reach)
        .await
        .map_err(|failure| Trouble::Partial(failure.fault))?;
    seed::drop_slot(&session, old, &primary.host.name).await?;
    seed::drop_slot(&session, old, &old.host.name).await
}

/// For `fuzz`: histories and positions of two nodes, taken from one text.
#[cfg(test)]
pub(super) fn hostile(text: &str, segment: u64) {
    let ats: Vec<u64> = text.split_whitespace().filter_map(bytes_of).collect();
    let _ = text
        .split_whitespace()
        .filter_map(end_of_checkpoint)
        .count();
    let at = |index: usize| ats.get(index).copied().unwrap_or(u64::MAX);
    let (ours, theirs) = text.split_at(text.floor_char_boundary(text.len() / 2));
    for (ours, theirs) in [(ours, theirs), (text, text), (text, ours)] {
        let (Some(ours), Some(theirs)) = (parse_history(ours, 9), parse_history(theirs, 9)) else {
            continue;
        };
        let (old, primary) = (
            End {
                at: at(0),
                line: ours,
            },
            End {
                at: at(1),
                line: theirs,
            },
        );
        let _ = compare(&old, &primary);
        if let Some((timeline, common)) = claimed(&old, &primary) {
            assert!(files(&old.line, timeline, common, segment).len() <= old.line.len() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(at: u64, history: &str, timeline: u32) -> End {
        End {
            at,
            line: parse_history(history, timeline).unwrap(),
        }
    }

    #[test]
    fn histories_part_at_the_first_difference() {
        let second = "1\t0/100\tno recovery target specified\n";
        let third = "1\t0/100\tx\n2\t0/300\tx\n";
        let other_third = "1\t0/100\tx\n2\t0/280\tx\n";
        let cases = [
            (
                "the same",
                end(0x200, second, 2),
                end(0x250, second, 2),
                Divergence::None,
            ),
            (
                "stopped before the promotion",
                end(0x2f0, second, 2),
                end(0x400, third, 3),
                Divergence::None,
            ),
            (
                "exactly at it",
                end(0x300, second, 2),
                end(0x400, third, 3),
                Divergence::None,
            ),
            (
                "wrote on",
                end(0x310, second, 2),
                end(0x400, third, 3),
                diverged(0x300, 0x10),
            ),
            (
                "two promotions",
                end(0x310, other_third, 3),
                end(0x400, third, 3),
                diverged(0x280, 0x90),
            ),
            (
                "ahead on one timeline",
                end(0x260, second, 2),
                end(0x250, second, 2),
                diverged(0x250, 0x10),
            ),
            (
                "an old one",
                end(0x90, "", 1),
                end(0x400, third, 3),
                Divergence::None,
            ),
        ];
        for (name, old, primary, expected) in cases {
            assert_eq!(compare(&old, &primary), expected, "{name}");
        }
    }

    /// It was opened again after the fork, in the middle of its second file.
    #[test]
    fn evidence_is_named_by_the_timeline_that_wrote_it() {
        const MIB: u64 = 1 << 20;
        let segment = 16 * MIB;
        let (before, after) = (24 * MIB, 40 * MIB);
        let history = format!("1\t0/{:X}\tx\n2\t0/{:X}\tx\n", 4 * MIB, before);
        let names = |at, fork| own_log(&end(at, &history, 3), fork, segment);
        let all = [
            "000000020000000000000000",
            "000000030000000000000001",
            "000000030000000000000002",
        ];
        assert_eq!(names(after, 8 * MIB), (all.map(str::to_owned).into(), true));
        assert_eq!(names(after, before).0, all[1..]);
        // At the end of a file nothing is in the next one, and a timeline that begins there has none before.
        assert_eq!(names(32 * MIB, before).0, all[1..2]);
        let whole = end(48 * MIB, "1\t0/2000000\tx\n", 2);
        let found = own_log(&whole, 17 * MIB, segment).0;
        assert_eq!(
            found,
            ["000000010000000000000001", "000000020000000000000002"]
        );
        let long = end(segment * 100, "", 1);
        let (names, all) = own_log(&long, 0, segment);
        assert_eq!((names.len(), all), (EVIDENCE_MOST, false));
    }

    #[test]
    fn evidence_that_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::write(from.join("second"), "log").unwrap();
        let ran = std::process::Command::new("sh")
            .args(["-c", KEEP, "keep"])
            .args([&from, &to])
            .args(["first", "second"])
            .output()
            .unwrap();
        assert!(ran.status.success());
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "first\n");
        assert_eq!(std::fs::read(to.join("second")).unwrap(), b"log");
    }

    fn diverged(fork: u64, extra: u64) -> Divergence {
        Divergence::Diverged {
            fork: position(fork),
            extra,
        }
    }
}
