//! `hafog role`: on an application server, whether its site is primary. For jobs that only one site may do.
//!
//! What the server was told last is not enough: a site that was lost and comes back believes what it was told before.
//! So its databases are asked too, and what does not agree is unknown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde::Serialize;

use super::{Call, Ended};
use crate::db::registry::ENGINES;
use crate::error::Fault;
use crate::exit;
use crate::model::posix::assignments;
use crate::plan::action::{DATABASES, SiteRole};
use crate::shell::ssh::SERVER_DIRS;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Succeed if the site has this role; exit code 1 if it has the other one, 69 if nobody knows
    #[arg(long, value_name = "ROLE")]
    is: Option<Wanted>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Wanted {
    Primary,
    Standby,
}

#[derive(Serialize)]
struct Known {
    role: SiteRole,
    /// Of the move that gave it.
    epoch: u64,
    /// How many databases agree.
    databases: usize,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let known = know().await?;
    let is = match args.is {
        None => true,
        Some(Wanted::Primary) => known.role == SiteRole::Primary,
        Some(Wanted::Standby) => known.role == SiteRole::Standby,
    };
    call.ui.result(&known, || known.role.word().to_owned());
    Ok(if is { exit::DONE } else { exit::ERROR })
}

/// What this server was told, if its databases agree.
pub(super) async fn of_this_server() -> Result<SiteRole, Fault> {
    Ok(know().await?.role)
}

/// What it was told alone; for who knew a moment ago.
pub(super) fn told_this_server() -> Option<SiteRole> {
    told(&token()).ok().map(|(role, _)| role)
}

async fn know() -> Result<Known, Fault> {
    let token = token();
    let folder = token.parent().unwrap_or(Path::new("/"));
    let (role, epoch) = told(&token)?;
    let urls = urls(folder)?;
    let ca = ca(folder);
    let asked = urls.iter().map(|(name, url)| agrees(name, url, &ca, role));
    for agreed in join_all(asked).await {
        agreed?;
    }
    Ok(Known {
        role,
        epoch,
        databases: urls.len(),
    })
}

/// A service is told where; whoever comes from elsewhere, as cron does, is on a machine.
fn token() -> PathBuf {
    let told = std::env::var_os("HAFOG_ROLE_FILE").filter(|path| !path.is_empty());
    told.map_or_else(|| Path::new(SERVER_DIRS).join("etc/role"), PathBuf::from)
}

fn told(token: &Path) -> Result<(SiteRole, u64), Fault> {
    let unknown = || {
        let message = format!("this is no application server: `{}`", token.display());
        Fault::unavailable(message)
    };
    let text = std::fs::read_to_string(token).map_err(|error| unknown().because(error))?;
    SiteRole::of_token(&text).ok_or_else(|| unknown().because("it says no role"))
}

/// The databases that this server uses, by the names of their variables: from the environment of its services, or from
/// the file that it is read from.
fn urls(folder: &Path) -> Result<BTreeMap<String, String>, Fault> {
    let variables = match std::env::var(DATABASES) {
        Ok(_) => std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        Err(_) => file(&folder.join("env"))?,
    };
    let names = variables.get(DATABASES).ok_or_else(|| {
        let message = "nobody told this server which databases it uses";
        Fault::unavailable(message).hint("hafog up, where the spec is")
    })?;
    let url = |name: &str| {
        let name = format!("DATABASE_URL_{name}");
        let url = variables.get(&name).cloned();
        let url = url.ok_or_else(|| Fault::unavailable(format!("there is no {name}")))?;
        Ok((name, url))
    };
    names.split_whitespace().map(url).collect()
}

fn file(path: &Path) -> Result<BTreeMap<String, String>, Fault> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!(
            "cannot read which databases this server uses: `{}`",
            path.display()
        );
        let fault = Fault::unavailable(message).because(error);
        fault.hint("hafog role, as root or in a service of the server")
    })?;
    Ok(assignments(&text).collect())
}

fn ca(folder: &Path) -> PathBuf {
    // Another environment's is of other databases.
    let ours = std::env::var_os(DATABASES).and_then(|_| std::env::var_os("PGSSLROOTCERT"));
    let told = ours.filter(|path| !path.is_empty());
    told.map_or_else(|| folder.join("database-ca.crt"), PathBuf::from)
}

async fn agrees(name: &str, url: &str, ca: &Path, role: SiteRole) -> Result<(), Fault> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let about = ENGINES.iter().find(|about| about.scheme == scheme);
    let about = about
        .ok_or_else(|| Fault::unavailable(format!("{name} is of no database that hafog knows")))?;
    let nobody = format!(
        "nobody knows the role of this site: it was told `{}`",
        role.word()
    );
    let writes = (about.takes_writes)(url.to_owned(), ca.to_owned()).await;
    let writes = writes.map_err(|fault| fault.while_doing(&nobody))?;
    let disagrees = match (role, writes) {
        (SiteRole::Primary, true) | (SiteRole::Standby, false) => return Ok(()),
        (SiteRole::Primary, false) => "takes no writes",
        (SiteRole::Standby, true) => "takes writes",
    };
    let fault = Fault::unavailable(nobody);
    Err(fault
        .because(format!("the database of {name} {disagrees}"))
        .hint("hafog status, where the spec is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_a_role_and_an_epoch() {
        assert_eq!(
            SiteRole::of_token("primary 3\n"),
            Some((SiteRole::Primary, 3))
        );
        assert_eq!(
            SiteRole::of_token("standby 12\n"),
            Some((SiteRole::Standby, 12))
        );
        for bad in [
            "",
            "primary",
            "primary x",
            "primary 3 4",
            "writer 3",
            "primary -1",
        ] {
            assert_eq!(SiteRole::of_token(bad), None, "{bad:?}");
        }
    }
}
