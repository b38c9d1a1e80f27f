//! What an old primary acknowledged and the current one lacks: transactions of its log after the fork, and rows of
//! tables with a primary key. The old node is read as the closed copy that it is.

use std::collections::HashMap;

use super::config::{self, Paths};
use super::connect::{self, Session, value};
use super::{rejoin, server, status, verify};
use crate::db::{Contents, Node, NodeRole, NodeStatus, Position, Reach, TableContents};
use crate::error::Fault;
use crate::shell::Command;

/// Limits of what is compared; beyond them it is said that it was not.
const TABLES_MOST: usize = 200;
const ROWS_MOST: usize = 100_000;
/// Keys that are named for each table.
const KEYS_MOST: usize = 20;

/// Name, name for statements, and the primary key's columns; no columns where there is none.
const TABLES: &str = "
SELECT n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname),
       (SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum) FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'hafog')
ORDER BY 1";

/// Counts the commits of a part of the log, and prints when the first and the last were. With anything else that
/// `pg_waldump` has to say, as of a log that does not reach the end, the count is unknown and left out.
const COMMITS: &str = r#""$1" -p "$2" -t "$3" -s "$4" -e "$5" -r Transaction 2>&1 | awk '
    /^rmgr:/ {
        if (/desc: COMMIT/) { sub(/.*desc: COMMIT /, ""); sub(/ UTC.*/, ""); if (!n++) first = $0; last = $0 }
        next
    }
    NF { unknown = 1 }
    END { print (unknown ? "" : n + 0) "|" first "|" last }'"#;

pub(super) async fn contents(
    old: &Node,
    primary: &Node,
    fork: &Position,
    reach: &Reach,
) -> Result<Contents, Fault> {
    if config::is_running(old, reach).await? == Some(true) {
        return compare(old, primary, fork, reach).await;
    }
    let compared = async {
        rejoin::end_by_starting(old, reach).await?;
        compare(old, primary, fork, reach).await
    };
    rejoin::as_found(old, compared, reach).await
}

async fn compare(
    old: &Node,
    primary: &Node,
    fork: &Position,
    reach: &Reach,
) -> Result<Contents, Fault> {
    let status = status::status(old, reach).await?;
    if status.role == NodeRole::Primary {
        return Err(Fault::new(format!("`{}` is writable", old.host.name)));
    }
    let mut contents = commits(old, &status, fork, reach).await?;
    let database = &old.database.user;
    let ours = connect::connect_for(old, database, verify::READ_LIMIT, reach).await?;
    let theirs = connect::connect_for(primary, database, verify::READ_LIMIT, reach).await?;
    for session in [&ours, &theirs] {
        session.run(verify::SAME_TEXT).await?;
    }
    let there = theirs.rows(TABLES, &[]).await?;
    let there: Vec<String> = there.iter().flat_map(|row| value(row, 0)).collect();
    for (number, row) in ours.rows(TABLES, &[]).await?.iter().enumerate() {
        let name: String = value(row, 0)?;
        let reason = match value::<Option<String>>(row, 2)? {
            _ if number >= TABLES_MOST => Some(format!("only {TABLES_MOST} tables are compared")),
            None => Some("it has no primary key".to_owned()),
            Some(_) if !there.contains(&name) => Some("only the old node has it".to_owned()),
            Some(key) => {
                let table = Table {
                    name: &name,
                    quoted: value(row, 1)?,
                    key,
                };
                table.compare(&ours, &theirs, &mut contents).await
            }
        };
        if let Some(reason) = reason {
            contents.not_compared.push(format!("{name}: {reason}"));
        }
    }
    Ok(contents)
}

async fn commits(
    old: &Node,
    status: &NodeStatus,
    fork: &Position,
    reach: &Reach,
) -> Result<Contents, Fault> {
    let bin = server::find_binaries(old, None, reach)
        .await
        .map_err(|trouble| trouble.fault().clone())?;
    let program = format!("{bin}/pg_waldump");
    let folder = format!("{}/pg_wal", Paths::of(old).main);
    let timeline = status.timeline.to_string();
    // All that the node has is replayed.
    let end = &status.position.0;
    let argv = [
        "sh", "-c", COMMITS, "commits", &program, &folder, &timeline, &fork.0, end,
    ];
    let command = Command::new(argv).env("LC_ALL", "C").env("TZ", "UTC");
    let ran = server::run(old, &command.service_user(), reach).await;
    let text = ran.map_err(|trouble| trouble.fault().clone())?.stdout;
    let mut parts = text.trim().split('|');
    let transactions = parts.next().and_then(|count| count.parse().ok());
    let mut time = || {
        parts
            .next()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    Ok(Contents {
        transactions,
        first_commit: time(),
        last_commit: time(),
        ..Contents::default()
    })
}

struct Table<'a> {
    name: &'a str,
    quoted: String,
    key: String,
}

impl Table<'_> {
    /// The reason why it was not compared, if it was not.
    async fn compare(
        &self,
        ours: &Session,
        theirs: &Session,
        contents: &mut Contents,
    ) -> Option<String> {
        let (here, there) = match tokio::try_join!(self.rows(ours), self.rows(theirs)) {
            Ok((Some(here), Some(there))) => (here, there),
            Ok(_) => return Some(format!("it has more than {ROWS_MOST} rows")),
            Err(fault) => return Some(fault.to_string()),
        };
        contents.tables += 1;
        contents.rows += here.len() as u64;
        let mut found = TableContents {
            table: self.name.to_owned(),
            ..TableContents::default()
        };
        let mut keys = Vec::new();
        for (key, sum) in &here {
            match there.get(key) {
                Some(same) if same == sum => continue,
                Some(_) => found.changed += 1,
                None => found.only_old += 1,
            }
            keys.push(key.clone());
        }
        if !keys.is_empty() {
            keys.sort();
            keys.truncate(KEYS_MOST);
            found.keys = keys;
            contents.different.push(found);
        }
        None
    }

    /// Key and digest of every row; `None` when there are too many.
    async fn rows(&self, session: &Session) -> Result<Option<HashMap<String, String>>, Fault> {
        let sql = format!(
            "SELECT ROW({})::text, md5(t::text) FROM ONLY {} t LIMIT {}",
            self.key,
            self.quoted,
            ROWS_MOST + 1
        );
        let rows = session.rows(&sql, &[]).await?;
        if rows.len() > ROWS_MOST {
            return Ok(None);
        }
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            found.insert(value(row, 0)?, value(row, 1)?);
        }
        Ok(Some(found))
    }
}
