//! Data that are out of the way: what a node has and nobody else may have is never removed, only put beside.
//!
//! `<data>/postgres-<database>/evidence` holds it, one folder a time: the whole data folder (`…-data`), or the log
//! that a rewind took back. hafog never removes any of it; a person does, when nobody needs it.

use super::config::Paths;
use super::{rejoin, server};
use crate::db::{Divergence, Node, Reach};
use crate::error::{Fault, Trouble};
use crate::shell::Command;

/// What a node may have that nobody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// Its log was not compared, or not all of what it alone has was put away.
    Unknown,
    /// Nothing, or it is kept.
    Safe,
}

/// A new place for what a node alone has.
pub(super) fn place(node: &Node) -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S");
    format!("{}/{now}", folder(node))
}

fn folder(node: &Node) -> String {
    format!("{}/evidence", Paths::of(node).base)
}

/// Whether all that `node` has is known to be in `other` too.
pub(super) async fn own(node: &Node, other: &Node, reach: &Reach) -> Result<Own, Fault> {
    if !server::has_data(node, reach).await? {
        return Ok(Own::Unknown);
    }
    Ok(match rejoin::divergence(node, other, reach).await? {
        Divergence::None => Own::Safe,
        Divergence::Diverged { .. } | Divergence::Unknown { .. } => Own::Unknown,
    })
}

/// Makes room for new data. Returns where the old ones are, if they are still anywhere.
pub(super) async fn clear(node: &Node, own: Own, reach: &Reach) -> Result<Option<String>, Trouble> {
    let mut kept = None;
    if own == Own::Unknown {
        let to = format!("{}-data", place(node));
        kept = set_aside(node, &to, reach).await?.then_some(to);
    }
    server::remove_data(node, reach).await?;
    Ok(kept)
}

/// The folder as it is, whole. An empty one is nothing: `false`.
async fn set_aside(node: &Node, to: &str, reach: &Reach) -> Result<bool, Trouble> {
    const SCRIPT: &str = r#"[ -n "$(ls -A "$1" 2>/dev/null)" ] || exit 0
        mkdir -p "$(dirname "$2")" && mv -T "$1" "$2" && sync "$(dirname "$2")" && echo moved"#;
    let main = Paths::of(node).main;
    let command = Command::new(["sh", "-c", SCRIPT, "sh", &main, to]);
    let ran = server::run(node, &command.service_user(), reach).await?;
    Ok(ran.stdout.trim() == "moved")
}

/// Every folder that was put aside and is still there, the oldest first.
pub(super) async fn kept(node: &Node, reach: &Reach) -> Result<Vec<String>, Fault> {
    const SCRIPT: &str = r#"[ ! -e "$1" ] || ls -1 "$1""#;
    let folder = folder(node);
    let command = Command::new(["sh", "-c", SCRIPT, "sh", &folder]);
    let ran = server::run(node, &command.service_user(), reach).await;
    let ran = ran.map_err(|trouble| trouble.fault().clone())?;
    let lines = ran.stdout.lines();
    Ok(lines.map(|name| format!("{folder}/{name}")).collect())
}
