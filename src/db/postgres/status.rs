//! What a node says about itself, in one session.
//!
//! A link counts as up only when something was received lately: after a silent cut both sides go on saying
//! `streaming` until their time-outs.

use jiff::Timestamp;
use tokio_postgres::error::SqlState;

use super::config::{confirmers, server_of};
use super::connect::{self, Failure, OURS, Session, value};
use crate::db::{Follower, Heartbeat, Link, Node, NodeRole, NodeStatus, Position, Reach};
use crate::error::Fault;

/// A stream that was silent for longer is down. The upstream sends something at least every second or so.
const SILENCE_MAX: f64 = 15.0;

/// The control file is stale until the next checkpoint after a promotion, so a primary's timeline is read from its
/// current log file, and that of a replica without a stream from the newest file of the log that holds what it replayed
/// last: it begins one only after it has seen that the new timeline leaves its own history behind it.
/// Commits begin to wait when the checkpointer has read a new setting, which it does before it rests.
/// A startup process that waits for more has replayed all that there is, also what the receiver of a standby that was
/// restarted knows nothing of.
/// Less than a page beyond what is replayed is the torn beginning of a record that will never be whole.
const ABOUT: &str = "
SELECT recovering, version, (SELECT system_identifier::text FROM pg_control_system()),
       CASE WHEN recovering THEN coalesce(pg_last_wal_replay_lsn(), (SELECT checkpoint_lsn FROM pg_control_checkpoint()))
            ELSE pg_current_wal_lsn() END::text,
       CASE WHEN recovering THEN pg_last_wal_receive_lsn()::text END,
       CASE WHEN recovering THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
       greatest(coalesce((SELECT received_tli FROM pg_stat_wal_receiver), (
                  SELECT max(('x' || left(name, 8))::bit(32)::int4) FROM pg_ls_waldir()
                  WHERE recovering AND name ~ '^[0-9A-F]{24}$' AND substr(name, 9) = (
                    SELECT upper(lpad(to_hex(div(at, per_high)::int8), 8, '0') || lpad(to_hex(mod(at, per_high)::int8), 8, '0'))
                    FROM (SELECT 4294967296 / size AS per_high, div(pg_last_wal_replay_lsn() - '0/1', size) AS at
                          FROM (SELECT pg_size_bytes(current_setting('wal_segment_size'))::numeric AS size) AS s) AS p))),
                (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                (SELECT timeline_id FROM pg_control_checkpoint())),
       CASE WHEN recovering THEN (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::int8 END,
       CASE WHEN recovering AND pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn() > 8192 THEN NULL
            ELSE pg_snapshot_xmax(pg_current_snapshot())::text::int8 END,
       current_setting('synchronous_standby_names'),
       pg_conf_load_time() < clock_timestamp() - interval '2 s'
         AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'checkpointer'
                     AND wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')),
       recovering AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
                     AND wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval'))
FROM (SELECT pg_is_in_recovery() AS recovering, current_setting('server_version') AS version) AS about";

const LINK: &str = "
SELECT status, coalesce(sender_host, '?'), extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8
FROM pg_stat_wal_receiver";

const FOLLOWERS: &str = "
SELECT slot_name::text, coalesce(state = 'streaming', false), replay_lsn::text,
       CASE wal_status WHEN 'lost' THEN 0 ELSE safe_wal_size END
FROM pg_replication_slots LEFT JOIN pg_stat_replication ON pid = active_pid
WHERE slot_type = 'physical' AND NOT temporary ORDER BY 1";

const HEARTBEAT: &str =
    "SELECT seq, (extract(epoch FROM at) * 1000000)::int8 FROM hafog.heartbeat WHERE id = 1";

/// `host` of `primary_conninfo`: whom this node tries to follow.
const WANTED: &str =
    "SELECT substring(current_setting('primary_conninfo') FROM 'host=''([^'']*)''')";

pub(super) async fn status(node: &Node, reach: &Reach) -> Result<NodeStatus, Fault> {
    let session = connect::connect(node, OURS, reach).await?;
    let about = session.row(ABOUT, &[]).await?;
    let replica: bool = value(&about, 0)?;
    let file: Option<String> = value(&about, 5)?;
    let timeline = match file {
        Some(hex) => u32::from_str_radix(&hex, 16)
            .map_err(|error| Fault::new(format!("`{hex}` is no timeline")).because(error))?,
        None => value::<i32>(&about, 6)?.unsigned_abs(),
    };
    Ok(NodeStatus {
        role: if replica {
            NodeRole::Replica
        } else {
            NodeRole::Primary
        },
        writable: !replica,
        timeline,
        system: value(&about, 2)?,
        version: value(&about, 1)?,
        position: Position(value(&about, 3)?),
        received: value::<Option<String>>(&about, 4)?.map(Position),
        link: if replica {
            Some(link(&session).await?)
        } else {
            None
        },
        replaying: value(&about, 11)?,
        heartbeat: heartbeat(&session).await?,
        committed: value::<Option<i64>>(&about, 7)?.map(instant).transpose()?,
        transactions: value::<Option<i64>>(&about, 8)?.map(i64::unsigned_abs),
        followers: followers(&session).await?,
        confirmed_by: confirmers(&value::<String>(&about, 9)?),
        confirming: value(&about, 10)?,
        seen: Timestamp::now(),
    })
}

pub(super) async fn link(session: &Session) -> Result<Link, Fault> {
    let rows = session.rows(LINK, &[]).await?;
    let Some(row) = rows.first() else {
        let wanted: Option<String> = session.one(WANTED, &[]).await?;
        let why = match wanted {
            Some(upstream) => format!("no stream from `{upstream}`"),
            None => "it follows nobody".to_owned(),
        };
        return Ok(Link::Down { why });
    };
    let (state, from): (String, String) = (value(row, 0)?, value(row, 1)?);
    let silent: Option<f64> = value(row, 2)?;
    Ok(match silent {
        Some(silent) if state == "streaming" && silent < SILENCE_MAX => Link::Up { from },
        Some(silent) if state == "streaming" => Link::Down {
            why: format!("nothing from `{from}` for {silent:.0} s"),
        },
        _ => Link::Down {
            why: format!("the stream from `{from}` is `{state}`"),
        },
    })
}

/// `None` also while the table has not arrived yet.
async fn heartbeat(session: &Session) -> Result<Option<Heartbeat>, Fault> {
    let rows = match session.rows(HEARTBEAT, &[]).await {
        Ok(rows) => rows,
        Err(failure) if is_missing(&failure) => return Ok(None),
        Err(failure) => return Err(failure.fault),
    };
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (seq, micros): (i64, i64) = (value(row, 0)?, value(row, 1)?);
    Ok(Some(Heartbeat {
        seq: seq.unsigned_abs(),
        at: instant(micros)?,
    }))
}

fn instant(micros: i64) -> Result<Timestamp, Fault> {
    Timestamp::from_microsecond(micros)
        .map_err(|error| Fault::new("PostgreSQL's time is out of range").because(error))
}

fn is_missing(failure: &Failure) -> bool {
    matches!(failure.code(), Some(code) if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME)
}

async fn followers(session: &Session) -> Result<Vec<Follower>, Fault> {
    let mut followers = Vec::new();
    for row in session.rows(FOLLOWERS, &[]).await? {
        followers.push(Follower {
            node: server_of(&value::<String>(&row, 0)?),
            streaming: value(&row, 1)?,
            replayed: value::<Option<String>>(&row, 2)?.map(Position),
            headroom: value(&row, 3)?,
        });
    }
    Ok(followers)
}
