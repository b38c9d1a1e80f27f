//! Copies a node in use to another one, and points replicas at their upstream.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::aside::{self, Own};
use super::config::{self, Door, Paths, connection, slot_of};
use super::connect::{self, OURS, Session};
use super::{promote, server, status};
use crate::db::{Link, Node, NodeRole, Reach};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::ServerName;
use crate::shell::{Command, StopSignal};

/// A copy of the biggest database that anybody waits for.
const COPY_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// From a start or a new upstream until the stream is there.
pub(super) const STREAM_LIMIT: Duration = Duration::from_secs(60);
/// How long the sender of a follower that went away keeps its slot: the server's own time-out, and a little.
const RELEASE_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// Copies `from` over `to`. `own` is what the caller knows of the data there; without it the two are compared first.
/// Returns where the data are that `to` had, if they are still anywhere.
pub(super) async fn seed(
    from: &Node,
    to: &Node,
    own: Option<Own>,
    reach: &Reach,
) -> Result<Option<String>, Trouble> {
    refuse_writable(to, "would be wiped", reach).await?;
    let session = connect::connect(from, OURS, reach)
        .await
        .map_err(|failure| Trouble::NothingChanged(failure.fault))?;
    let version: i32 = session
        .one(
            "SELECT current_setting('server_version_num')::int / 10000",
            &[],
        )
        .await
        .map_err(|failure| Trouble::NothingChanged(failure.fault))?;
    let bin = server::find_binaries(to, Some(version.unsigned_abs()), reach).await?;
    server::prepare_folders(to, reach).await?;
    config::put_all(to, Door::Open, reach).await?;
    // Before anything is wiped: a copy that cannot begin must not cost the old one.
    try_login(from, to, &bin, reach).await?;
    let own = match own {
        Some(own) => own,
        None => aside::own(to, from, reach).await.nothing_changed()?,
    };
    server::stop(to, StopSignal::Int, reach).await?;
    drop_slot(&session, from, &to.host.name).await?;
    make_slot(&session, &slot_of(&to.host.name)).await?;
    drop(session);
    let kept = aside::clear(to, own, reach).await?;
    let copied = async {
        copy(from, to, &bin, reach).await?;
        server::rename_fresh(to, reach).await?;
        config::put_upstream(to, Some(from), reach).await?;
        config::install(to, &bin, reach).await?;
        server::start(to, reach).await?;
        await_stream(to, from, STREAM_LIMIT, reach).await
    };
    match (copied.await, kept) {
        (Ok(()), kept) => Ok(kept),
        (Err(trouble), None) => Err(trouble),
        (Err(trouble), Some(kept)) => {
            let had = format!("what `{}` had is kept in {kept}", to.host.name);
            Err(trouble.map(|fault| fault.because(had)))
        }
    }
}

/// A node that takes writes is never overwritten.
pub(super) async fn refuse_writable(node: &Node, what: &str, reach: &Reach) -> Result<(), Trouble> {
    if config::is_running(node, reach).await.nothing_changed()? != Some(true) {
        return Ok(());
    }
    let refused = |why: String| Err(Trouble::NothingChanged(Fault::refused(why)));
    let name = &node.host.name;
    match status::status(node, reach).await {
        Ok(status) if status.role == NodeRole::Primary => {
            refused(format!("`{name}` is writable and {what}"))
        }
        Ok(_) => Ok(()),
        // Silent: a promotion removes the file that makes a start a replica's, so who has it was not opened since.
        Err(_) if promote::is_closed(node, reach).await.nothing_changed()? => Ok(()),
        Err(fault) => Err(Trouble::NothingChanged(
            Fault::refused(format!("`{name}` may be writable and {what}")).because(fault),
        )),
    }
}

/// The copying role can log in from the target to the source.
async fn try_login(from: &Node, to: &Node, bin: &str, reach: &Reach) -> Result<(), Trouble> {
    let link = connection(
        to,
        from,
        "hafog_repl",
        &[("replication", "true"), ("dbname", "replication")],
    );
    let command = Command::new([&format!("{bin}/psql"), "-XAtc", "IDENTIFY_SYSTEM", &link]);
    let tried = server::run(
        to,
        &command.service_user().limit(Duration::from_secs(15)),
        reach,
    )
    .await;
    tried.map(|_| ()).map_err(|trouble| {
        let what = format!(
            "`{}` cannot log in to `{}` to copy it",
            to.host.name, from.host.name
        );
        Trouble::NothingChanged(trouble.fault().clone().while_doing(what))
    })
}

async fn copy(from: &Node, to: &Node, bin: &str, reach: &Reach) -> Result<(), Trouble> {
    let slot = slot_of(&to.host.name);
    let link = connection(to, from, "hafog_repl", &[("application_name", &slot)]);
    let command = Command::new([
        format!("{bin}/pg_basebackup"),
        format!("--dbname={link}"),
        format!("--pgdata={}", Paths::of(to).fresh),
        "--wal-method=stream".to_owned(),
        format!("--slot={slot}"),
        "--checkpoint=fast".to_owned(),
        "--no-password".to_owned(),
    ]);
    server::run(to, &command.service_user().limit(COPY_LIMIT), reach)
        .await
        .map(|_| ())
}

/// Points a replica at another upstream and waits for the stream.
pub(super) async fn follow(replica: &Node, upstream: &Node, reach: &Reach) -> Result<(), Trouble> {
    if config::is_running(replica, reach).await.nothing_changed()? == Some(true) {
        let status = status::status(replica, reach).await.nothing_changed()?;
        if status.role == NodeRole::Primary {
            let why = format!("`{}` is writable and cannot follow", replica.host.name);
            return Err(Trouble::NothingChanged(Fault::refused(why)));
        }
    }
    let session = connect::connect(upstream, OURS, reach)
        .await
        .map_err(|failure| Trouble::NothingChanged(failure.fault))?;
    make_slot(&session, &slot_of(&replica.host.name)).await?;
    drop(session);
    point(replica, upstream, reach).await?;
    await_stream(replica, upstream, STREAM_LIMIT, reach).await
}

/// Makes the server read a new `upstream.conf`, running or not.
pub(super) async fn point(replica: &Node, upstream: &Node, reach: &Reach) -> Result<(), Trouble> {
    let changed = config::put_upstream(replica, Some(upstream), reach).await?;
    if config::is_running(replica, reach).await.unknown()? != Some(true) {
        return server::start(replica, reach).await;
    }
    if changed {
        server::reload(replica, reach).await
    } else {
        Ok(())
    }
}

pub(super) async fn await_stream(
    replica: &Node,
    upstream: &Node,
    limit: Duration,
    reach: &Reach,
) -> Result<(), Trouble> {
    let until = Instant::now() + limit;
    loop {
        let seen = match connect::connect(replica, OURS, reach).await {
            Ok(session) => status::link(&session).await,
            Err(failure) => Err(failure.fault),
        };
        let why = match seen {
            Ok(Link::Up { from }) if from == upstream.host.name.as_str() => return Ok(()),
            Ok(Link::Up { from }) => format!("it still follows `{from}`"),
            Ok(Link::Down { why }) => why,
            Err(fault) => fault.to_string(),
        };
        if Instant::now() >= until {
            let (replica, upstream) = (&replica.host.name, &upstream.host.name);
            let message = format!(
                "`{replica}` does not stream from `{upstream}` after {} s",
                limit.as_secs()
            );
            return Err(Trouble::Partial(
                Fault::of(crate::error::Kind::OutOfSync, message).because(why),
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Keeps one that is there and still has its log; a lost one is made anew.
pub(super) async fn make_slot(session: &Session, slot: &str) -> Result<(), Trouble> {
    const LOST: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                        WHERE slot_name = $1::text AND wal_status = 'lost' AND NOT active";
    const MAKE: &str = "SELECT pg_create_physical_replication_slot($1::text::name, true)::text \
                        WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text)";
    for sql in [LOST, MAKE] {
        match session.rows(sql, &[&slot]).await {
            Ok(_) => {}
            Err(failure) if failure.code() == Some(&SqlState::DUPLICATE_OBJECT) => {}
            Err(failure) => return Err(failure.into_trouble()),
        }
    }
    Ok(())
}

/// Drops a follower's slot. One that is in use is waited for, as long as its sender may hang in a cut connection.
pub(super) async fn drop_slot(
    session: &Session,
    on: &Node,
    follower: &ServerName,
) -> Result<(), Trouble> {
    const DROP: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1::text";
    let slot = slot_of(follower);
    let until = Instant::now() + RELEASE_LIMIT;
    loop {
        match session.rows(DROP, &[&slot]).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.code() == Some(&SqlState::UNDEFINED_OBJECT) => return Ok(()),
            Err(failure)
                if failure.code() == Some(&SqlState::OBJECT_IN_USE) && Instant::now() < until => {}
            Err(failure) if failure.code() == Some(&SqlState::OBJECT_IN_USE) => {
                let what = format!(
                    "`{follower}` still follows `{}` after {} s",
                    on.host.name,
                    RELEASE_LIMIT.as_secs()
                );
                return Err(Trouble::NothingChanged(failure.fault.while_doing(what)));
            }
            Err(failure) => return Err(failure.into_trouble()),
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn forget(
    primary: &Node,
    replica: &ServerName,
    reach: &Reach,
) -> Result<(), Trouble> {
    let session = connect::connect(primary, OURS, reach)
        .await
        .map_err(|failure| Trouble::NothingChanged(failure.fault))?;
    drop_slot(&session, primary, replica).await
}
