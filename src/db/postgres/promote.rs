//! Opening a node for writes, closing it, and proving either.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_postgres::error::SqlState;

use super::config::{self, Door, Paths};
use super::connect::{self, Failure, How, OURS, STATEMENT_LIMIT, Session};
use super::server;
use crate::db::{Node, Position, Reach, Still};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::shell::StopSignal;

const PROMOTE_LIMIT: Duration = Duration::from_secs(60);
/// A checkpoint writes everything that is in memory.
pub(super) const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);
/// From a refused connection until the processes of a crashed server are gone.
const GONE_LIMIT: Duration = Duration::from_secs(2);
const SESSIONS_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

const TRY_WRITE: &str = "INSERT INTO hafog.probe (id, at) VALUES (1, now()) \
                         ON CONFLICT (id) DO UPDATE SET at = excluded.at";
const TIMELINE: &str = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
const RECOVERING: &str = "SELECT pg_is_in_recovery()";

pub(super) async fn promote(node: &Node, reach: &Reach, still: Still<'_>) -> Result<u32, Trouble> {
    let untouched = |failure: Failure| Trouble::NothingChanged(failure.fault);
    // First the door: after a clean stop it may be barred for whoever acts here. On a replica that opens nothing.
    let reopened = config::put_hba(node, Door::Open, reach).await?;
    if reopened && config::is_running(node, reach).await.nothing_changed()? == Some(true) {
        server::reload(node, reach).await?;
    }
    let session = connect::connect_for(node, OURS, PROMOTE_LIMIT + STATEMENT_LIMIT, reach)
        .await
        .map_err(untouched)?;
    if session
        .one::<bool>(RECOVERING, &[])
        .await
        .map_err(untouched)?
    {
        let sql = format!("SELECT pg_promote(true, {})", PROMOTE_LIMIT.as_secs());
        still().nothing_changed()?;
        let promoted = match session.one::<bool>(&sql, &[]).await {
            // Its agent was faster: "recovery is not in progress".
            Err(failure) if failure.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                true
            }
            promoted => promoted.map_err(Failure::into_trouble)?,
        };
        if !promoted {
            let message = format!(
                "`{}` is not promoted after {} s",
                node.host.name,
                PROMOTE_LIMIT.as_secs()
            );
            return Err(Trouble::Unknown(Fault::new(message)));
        }
    }
    // It follows nobody, also after a crash: what it finds on its disk is all that it will have.
    config::put_upstream(node, None, reach)
        .await
        .map_err(|trouble| Trouble::Partial(trouble.fault().clone()))?;
    let opened = |failure: Failure| Trouble::Partial(failure.fault);
    if session.one::<bool>(RECOVERING, &[]).await.map_err(opened)? {
        return Err(Trouble::Partial(Fault::new(format!(
            "`{}` was promoted and is a replica",
            node.host.name
        ))));
    }
    let hex: String = session.one(TIMELINE, &[]).await.map_err(opened)?;
    drop(session);
    try_write(node, reach).await.map_err(opened)?;
    u32::from_str_radix(&hex, 16).map_err(|error| {
        Trouble::Partial(Fault::new(format!("`{hex}` is no timeline")).because(error))
    })
}

/// A committed write in the application's database, as somebody without special rights.
async fn try_write(node: &Node, reach: &Reach) -> Result<(), Failure> {
    let role = if reach.keys.is_authority() {
        "hafog_probe"
    } else {
        connect::acting_role(reach)
    };
    let session =
        connect::connect_as(node, role, &node.database.user, STATEMENT_LIMIT, reach).await?;
    session.run(&format!("BEGIN; {TRY_WRITE}; COMMIT")).await
}

/// Only what the node or its machine said itself is a proof. Silence is none, and neither is a server that is
/// starting or stopping: it may still change its mind.
pub(super) async fn write_refused(node: &Node, reach: &Reach) -> Result<Option<String>, Fault> {
    let Err(failure) = try_write(node, reach).await else {
        return Ok(None);
    };
    match &failure.how {
        How::Refused => match await_stopped(node, reach).await {
            Ok(()) => Ok(Some("connection refused".to_owned())),
            Err(why) => Err(failure.fault.because(why)),
        },
        How::Said { code, message } if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
            // A read-only default says the same, and any session may change it.
            let session = connect::connect(node, OURS, reach).await?;
            if session.one::<bool>(RECOVERING, &[]).await? {
                return Ok(Some(message.clone()));
            }
            Err(failure
                .fault
                .because("it is a primary: only a setting refuses writes"))
        }
        How::Said { code, message } if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            barred(node, message, reach)
                .await
                .map(Some)
                .map_err(|why| failure.fault.because(why))
        }
        _ => Err(failure.fault),
    }
}

/// A closed port may be a firewall's: the machine has to show no process on the data. After a crash the last of them
/// may be about to end.
async fn await_stopped(node: &Node, reach: &Reach) -> Result<(), Fault> {
    let until = Instant::now() + GONE_LIMIT;
    while !server::is_stopped(node, reach).await? {
        if Instant::now() >= until {
            let limit = GONE_LIMIT.as_secs();
            let message = format!("the machine still shows the database after {limit} s");
            return Err(Fault::new(message));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// That we are turned away proves something only when it is because nobody but the controller gets in, and nobody is in.
async fn barred(node: &Node, message: &str, reach: &Reach) -> Result<String, Fault> {
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity \
                          WHERE backend_type = 'client backend' AND usename <> 'hafog_admin'";
    let session = connect::connect(node, OURS, reach).await?;
    let recovering: bool = session.one(RECOVERING, &[]).await?;
    let others: i64 = session.one(OTHERS, &[]).await?;
    let door = config::door(node, reach).await?;
    if recovering || (door == Some(Door::Barred) && others == 0) {
        return Ok(message.to_owned());
    }
    Err(Fault::new("others may be let in"))
}

pub(super) async fn stop_clean(node: &Node, reach: &Reach) -> Result<Position, Trouble> {
    match config::is_running(node, reach).await.nothing_changed()? {
        Some(true) => {}
        // Stopped by an earlier try, perhaps: the control file tells.
        Some(false) => return last_position(node, reach).await.nothing_changed(),
        None => {
            let message = format!("PostgreSQL is not set up on `{}`", node.host.name);
            return Err(Trouble::NothingChanged(Fault::new(message)));
        }
    }
    if let Err(trouble) = bar(node, reach).await {
        reopen(node, reach).await;
        return Err(trouble);
    }
    match server::stop(node, StopSignal::Int, reach).await {
        Ok(()) => last_position(node, reach).await.partial(),
        Err(Trouble::NothingChanged(fault)) => {
            reopen(node, reach).await;
            Err(Trouble::NothingChanged(fault))
        }
        Err(trouble) => Err(trouble),
    }
}

/// Writes out what is in memory, so that the stop is short; then nobody but the controller and the replicas gets in.
async fn bar(node: &Node, reach: &Reach) -> Result<(), Trouble> {
    let untouched = |failure: Failure| Trouble::NothingChanged(failure.fault);
    let session = connect::connect_for(node, OURS, CHECKPOINT_LIMIT, reach)
        .await
        .map_err(untouched)?;
    if session
        .one::<bool>(RECOVERING, &[])
        .await
        .map_err(untouched)?
    {
        let message = format!(
            "`{}` is a replica: there are no writes to stop",
            node.host.name
        );
        return Err(Trouble::NothingChanged(Fault::refused(message)));
    }
    session.run("CHECKPOINT").await.map_err(untouched)?;
    config::put_hba(node, Door::Barred, reach).await?;
    server::reload(node, reach).await?;
    end_sessions(&session).await.map_err(Failure::into_trouble)
}

/// What does not go by itself goes with the stop.
async fn end_sessions(session: &Session) -> Result<(), Failure> {
    const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                       AND backend_type = 'client backend' AND usename <> 'hafog_admin'";
    let until = Instant::now() + SESSIONS_LIMIT;
    while session.one::<i64>(END, &[]).await? > 0 && Instant::now() < until {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// The way back, as well as it goes: what failed before is what is reported.
async fn reopen(node: &Node, reach: &Reach) {
    if config::put_hba(node, Door::Open, reach)
        .await
        .is_ok_and(|changed| changed)
    {
        let _ = server::reload(node, reach).await;
    }
}

/// Just past where the shutdown checkpoint begins, which is the last record of a primary that was stopped cleanly: a
/// replica that has reached this has replayed that record.
async fn last_position(node: &Node, reach: &Reach) -> Result<Position, Fault> {
    let control = server::control(node, reach).await?;
    // A clean primary's log ends with its shutdown; a replica's control file says `shut down in recovery`.
    if control.state != "shut down" {
        let message = format!(
            "`{}` was not stopped cleanly: `{}`",
            node.host.name, control.state
        );
        return Err(Fault::new(message));
    }
    super::past(&control.checkpoint)
        .ok_or_else(|| Fault::new(format!("`{}` is no position", control.checkpoint)))
}

pub(super) async fn beat(
    node: &Node,
    seq: u64,
    at: Timestamp,
    reach: &Reach,
) -> Result<(Position, Option<u64>), Fault> {
    const BEAT: &str = "INSERT INTO hafog.heartbeat (id, seq, at) VALUES (1, $1, to_timestamp($2::float8 / 1000000)) \
                        ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, at = excluded.at \
                        WHERE heartbeat.seq < excluded.seq RETURNING seq";
    const AFTER: &str =
        "SELECT pg_current_wal_lsn()::text, pg_snapshot_xmax(pg_current_snapshot())::text::int8";
    let session = connect::connect(node, OURS, reach).await?;
    let seq = i64::try_from(seq)
        .map_err(|error| Fault::new("the heartbeat's number is too big").because(error))?;
    let wrote = session
        .rows(BEAT, &[&seq, &(at.as_microsecond() as f64)])
        .await?;
    if wrote.is_empty() {
        return Err(Fault::new(format!(
            "`{}` has heartbeat {seq} or a later one already",
            node.host.name
        )));
    }
    // After the commit, so that the position is one that has the beat.
    let row = session.row(AFTER, &[]).await?;
    let count: i64 = connect::value(&row, 1)?;
    Ok((
        Position(connect::value(&row, 0)?),
        u64::try_from(count).ok(),
    ))
}

/// Whether the data folder says that the last start was a replica's and nothing opened it since.
pub(super) async fn is_closed(node: &Node, reach: &Reach) -> Result<bool, Fault> {
    let signal = format!("{}/standby.signal", Paths::of(node).main);
    Ok(reach.shell.get(&node.host, &signal).await?.is_some())
}
