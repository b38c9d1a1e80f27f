//! Compares the contents of a replica with its primary's, both seen at one position, under load.
//!
//! The tables are locked against writes for a moment, in which both sides take their snapshot; they are read
//! afterwards. Between physical copies a difference means corruption, or that somebody opened the replica.

use std::time::{Duration, Instant};

use super::config::name_quoted;
use super::connect::{self, OURS, Session, value};
use crate::db::{Node, Position, Reach, Verified};
use crate::error::Fault;

/// For reading one table.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(3600);
/// While this is waited for, writers wait too.
const ARRIVE_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(10);

/// Both sides must write values in one way.
pub(super) const SAME_TEXT: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; \
                         SET extra_float_digits = 3; SET bytea_output = 'hex'; SET search_path = ''";
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const TABLES: &str = "
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'hafog')
ORDER BY 1, 2";

struct Table {
    /// For people.
    name: String,
    /// For statements.
    quoted: String,
}

pub(super) async fn verify(
    primary: &Node,
    replica: &Node,
    reach: &Reach,
) -> Result<Verified, Fault> {
    let began = Instant::now();
    let database = &primary.database.user;
    let ours = connect::connect_for(primary, database, READ_LIMIT, reach).await?;
    let theirs = connect::connect_for(replica, database, READ_LIMIT, reach).await?;
    for session in [&ours, &theirs] {
        session.run(SAME_TEXT).await?;
    }
    let tables = tables(&ours).await?;
    let locks = connect::connect(primary, database, reach).await?;
    let at = snapshots(&locks, &ours, &theirs, &tables, primary, replica, reach).await?;
    drop(locks);
    let mut verified = Verified {
        at,
        tables: 0,
        rows: 0,
        different: Vec::new(),
        took: Duration::ZERO,
    };
    for table in &tables {
        let (here, there) = tokio::try_join!(sum(&ours, table), sum(&theirs, table))?;
        verified.tables += 1;
        verified.rows += here.0;
        if here != there {
            verified.different.push(table.name.clone());
        }
    }
    verified.took = began.elapsed();
    Ok(verified)
}

async fn tables(session: &Session) -> Result<Vec<Table>, Fault> {
    let mut tables = Vec::new();
    for row in session.rows(TABLES, &[]).await? {
        let (schema, name): (String, String) = (value(&row, 0)?, value(&row, 1)?);
        tables.push(Table {
            quoted: format!("{}.{}", name_quoted(&schema), name_quoted(&name)),
            name: format!("{schema}.{name}"),
        });
    }
    Ok(tables)
}

/// Opens both snapshots at one position. The locks go when `locks` is committed, after a few milliseconds.
async fn snapshots(
    locks: &Session,
    ours: &Session,
    theirs: &Session,
    tables: &[Table],
    primary: &Node,
    replica: &Node,
    reach: &Reach,
) -> Result<Position, Fault> {
    locks.run("BEGIN; SET LOCAL lock_timeout = '2s'").await?;
    if !tables.is_empty() {
        let all: Vec<&str> = tables.iter().map(|table| table.quoted.as_str()).collect();
        locks
            .run(&format!("LOCK TABLE {} IN SHARE MODE", all.join(", ")))
            .await?;
    }
    ours.run(SNAPSHOT).await?;
    let at: String = ours
        .one("SELECT pg_current_wal_insert_lsn()::text", &[])
        .await?;
    let barrier = connect::connect(primary, OURS, reach).await?;
    barrier
        .run("SELECT pg_logical_emit_message(true, 'hafog', 'barrier')")
        .await?;
    arrive(theirs, &at, replica).await?;
    theirs.run(&format!("{SNAPSHOT}; SELECT 1")).await?;
    locks.run("COMMIT").await?;
    Ok(Position(at))
}

async fn arrive(theirs: &Session, at: &str, replica: &Node) -> Result<(), Fault> {
    let until = Instant::now() + ARRIVE_LIMIT;
    while !theirs
        .one::<bool>(
            "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)",
            &[&at],
        )
        .await?
    {
        if Instant::now() >= until {
            let message = format!(
                "`{}` has not replayed {at} after {} s",
                replica.host.name,
                ARRIVE_LIMIT.as_secs()
            );
            return Err(Fault::of(crate::error::Kind::OutOfSync, message));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Number of rows, and two sums over them that do not depend on their order.
async fn sum(session: &Session, table: &Table) -> Result<(u64, String, String), Fault> {
    let sql = format!(
        "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text, \
         coalesce(bit_xor(('x' || substr(md5(t::text), 1, 16))::bit(64)), 0::bit(64))::text FROM ONLY {} t",
        table.quoted
    );
    let row = session.row(&sql, &[]).await.map_err(|failure| {
        failure
            .fault
            .while_doing(format!("cannot read `{}`", table.name))
    })?;
    Ok((
        value::<i64>(&row, 0)?.unsigned_abs(),
        value(&row, 1)?,
        value(&row, 2)?,
    ))
}
