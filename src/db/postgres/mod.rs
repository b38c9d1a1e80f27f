//! PostgreSQL, 14 to 17, by physical streaming.
//!
//! Every start of a node comes up as a replica (the service touches `standby.signal` first); only [`Engine::promote`]
//! opens it. A node's own settings lie outside its data folder. Everybody logs in over TLS; hafog's roles by
//! certificate, the application by password.
//!
//! | role | for |
//! | --- | --- |
//! | `hafog_admin` | the controller; superuser |
//! | `hafog_repl` | copies and streams |
//! | `hafog_rewind` | `pg_rewind`; reads any file, so as strong as a superuser |
//! | `hafog_agent` | the agent on the node: beat, promote, look |
//! | `hafog_probe` | tries writes, as the application would |
//!
//! The files: `config` what is on the server's disk, `server` its process, `connect` sessions, `create` the first
//! node, `seed` copies and followers, `promote` opening and closing, `rejoin` the way back, `aside` what is kept of
//! data that were in the way, `verify` contents.
//!
//! It does not tune the server beyond what replication needs, and does not know tablespaces.

mod aside;
mod config;
mod connect;
mod contents;
mod create;
mod promote;
mod rejoin;
mod seed;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod url;
mod verify;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    Certificate, Contents, Divergence, Engine, EngineAbout, Node, NodeStatus, Position, Reach,
    Rejoined, Still, Verified,
};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{DatabaseName, ServerName};

pub use config::{conf_folder, service_name};

pub const ABOUT: EngineAbout = EngineAbout {
    name: "postgres",
    about: "PostgreSQL 14 to 17, physical streaming",
    port: 5432,
    versions: &server::VERSIONS,
    scheme: "postgresql",
    takes_writes: url::takes_writes,
    open: || Arc::new(Postgres),
};

pub struct Postgres;

/// An LSN, `16/B374D848`, as a number of bytes.
fn bytes_of(position: &str) -> Option<u64> {
    let (high, low) = position.split_once('/')?;
    let half = |text: &str| u32::from_str_radix(text, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

/// The position one byte later.
fn past(position: &str) -> Option<Position> {
    let next = bytes_of(position)?.checked_add(1)?;
    Some(Position(format!(
        "{:X}/{:X}",
        next >> 32,
        next & 0xFFFF_FFFF
    )))
}

#[async_trait]
impl Engine for Postgres {
    fn service(&self, database: &DatabaseName) -> String {
        service_name(database)
    }

    /// Ends with the node up and not open: roles and tables are made before anybody can connect.
    async fn create(
        &self,
        node: &Node,
        password: Option<&str>,
        reach: &Reach,
    ) -> Result<(), Trouble> {
        create::create(node, password, reach).await
    }

    async fn has_data(&self, node: &Node, reach: &Reach) -> Result<bool, Fault> {
        server::has_data(node, reach).await
    }

    async fn status(&self, node: &Node, reach: &Reach) -> Result<NodeStatus, Fault> {
        status::status(node, reach).await
    }

    async fn seed(&self, from: &Node, to: &Node, reach: &Reach) -> Result<(), Trouble> {
        seed::seed(from, to, None, reach).await.map(drop)
    }

    async fn kept(&self, node: &Node, reach: &Reach) -> Result<Vec<String>, Fault> {
        aside::kept(node, reach).await
    }

    async fn follow(&self, replica: &Node, upstream: &Node, reach: &Reach) -> Result<(), Trouble> {
        seed::follow(replica, upstream, reach).await
    }

    /// The position is where the last record of the old primary *begins*: a replica has everything when it replayed
    /// *beyond* it, that is when `bytes_between(replayed, position)` is greater than zero.
    async fn stop_clean(&self, node: &Node, reach: &Reach) -> Result<Position, Trouble> {
        promote::stop_clean(node, reach).await
    }

    async fn stop_now(&self, node: &Node, reach: &Reach) -> Result<(), Trouble> {
        server::stop_now(node, reach).await
    }

    async fn is_stopped(&self, node: &Node, reach: &Reach) -> Result<bool, Fault> {
        server::is_stopped(node, reach).await
    }

    async fn write_refused(&self, node: &Node, reach: &Reach) -> Result<Option<String>, Fault> {
        promote::write_refused(node, reach).await
    }

    async fn start(&self, node: &Node, reach: &Reach) -> Result<(), Trouble> {
        server::start(node, reach).await
    }

    async fn promote(&self, node: &Node, reach: &Reach, still: Still<'_>) -> Result<u32, Trouble> {
        promote::promote(node, reach, still).await
    }

    async fn confirm_by(
        &self,
        node: &Node,
        by: &[ServerName],
        reach: &Reach,
    ) -> Result<(), Trouble> {
        config::put_confirm(node, by, reach).await?;
        server::reload(node, reach).await
    }

    /// A node that was not stopped cleanly is started for a moment, non-writable and following nobody, to find the end of its log.
    async fn divergence(
        &self,
        old: &Node,
        primary: &Node,
        reach: &Reach,
    ) -> Result<Divergence, Fault> {
        rejoin::divergence(old, primary, reach).await
    }

    async fn contents(
        &self,
        old: &Node,
        primary: &Node,
        fork: &Position,
        reach: &Reach,
    ) -> Result<Contents, Fault> {
        contents::contents(old, primary, fork, reach).await
    }

    async fn rejoin(&self, old: &Node, primary: &Node, reach: &Reach) -> Result<Rejoined, Trouble> {
        rejoin::rejoin(old, primary, reach).await
    }

    async fn verify(
        &self,
        primary: &Node,
        replica: &Node,
        reach: &Reach,
    ) -> Result<Verified, Fault> {
        verify::verify(primary, replica, reach).await
    }

    async fn forget(
        &self,
        primary: &Node,
        replica: &ServerName,
        reach: &Reach,
    ) -> Result<(), Trouble> {
        seed::forget(primary, replica, reach).await
    }

    /// Also brings settings and keys up to date, which is how certificates are renewed. A barred node stays barred.
    async fn admit(&self, node: &Node, reach: &Reach) -> Result<(), Trouble> {
        let Some(door) = config::door(node, reach).await.nothing_changed()? else {
            return Ok(());
        };
        let changed = config::put_all(node, door, reach).await?;
        if changed && config::is_running(node, reach).await.unknown()? == Some(true) {
            server::reload(node, reach).await?;
        }
        Ok(())
    }

    async fn certificates(&self, node: &Node, reach: &Reach) -> Result<Vec<Certificate>, Fault> {
        config::certificates(node, reach).await
    }

    fn bytes_between(&self, ahead: &Position, behind: &Position) -> Option<i64> {
        let (ahead, behind) = (bytes_of(&ahead.0)?, bytes_of(&behind.0)?);
        i64::try_from(i128::from(ahead) - i128::from(behind)).ok()
    }

    /// The count is that of transactions that wrote something, since the database was made; replicas share it.
    async fn beat(
        &self,
        node: &Node,
        seq: u64,
        at: Timestamp,
        reach: &Reach,
    ) -> Result<(Position, Option<u64>), Fault> {
        promote::beat(node, seq, at, reach).await
    }
}

/// For `fuzz`: everything of PostgreSQL's that we read ourselves.
#[cfg(test)]
pub(crate) fn hostile(text: &str) {
    let (control, history) = text.split_once("---\n").unwrap_or((text, text));
    let segment = server::hostile(control).map_or(16 << 20, |control| control.segment);
    rejoin::hostile(history, segment);
    for word in text.split_whitespace() {
        if let (Some(here), Some(next)) = (bytes_of(word), past(word)) {
            assert_eq!(bytes_of(&next.0), Some(here + 1));
        }
    }
}
