//! `hafog status`: the stack on one screen. Exit code 6 when a database is out of sync, or when that is unknown.

mod text;

use jiff::Timestamp;
use serde::Serialize;

use super::{Call, Ended, drive, look, preflight, replicate, site};
use crate::error::Fault;
use crate::exit;
use crate::model::id::*;
use crate::model::record::RecordType;
use crate::model::roles::Provisional;
use crate::model::stack::Stack;
use crate::model::units::Ttl;
use crate::plan::facts::{Facts, Seen};
use crate::plan::preflight::{Check, Verdict, overall};
use crate::run::lease;
use crate::run::open::Session;

#[derive(clap::Args, Debug)]
pub struct Args {}

#[derive(Serialize)]
struct Status {
    stack: StackName,
    at: Timestamp,
    /// Whether it was ever brought up.
    up: bool,
    primary: SiteName,
    provisional: Option<Flip>,
    sites: Vec<Site>,
    databases: Vec<replicate::DatabaseRow>,
    names: Vec<Name>,
    lease: Option<lease::Lease>,
    unfinished: Option<Unfinished>,
    ready: Vec<Ready>,
}

#[derive(Serialize)]
struct Flip {
    #[serde(flatten)]
    flip: Provisional,
    overdue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Role {
    Primary,
    Standby,
    LeftBehind,
    /// In the spec and nowhere else.
    Unused,
}

#[derive(Serialize)]
struct Site {
    name: SiteName,
    cloud: String,
    role: Role,
    /// Why its cloud does not answer.
    silent: Option<String>,
    servers_running: usize,
    servers: usize,
    front_door: Option<Seen<u16>>,
}

#[derive(Serialize)]
struct Name {
    host: HostName,
    target: HostName,
    ttl: Option<Ttl>,
    /// What `commit` or `dns restore` brings back, and by when.
    restore: Option<Ttl>,
    restore_by: Option<Timestamp>,
    overdue: bool,
}

#[derive(Serialize)]
struct Unfinished {
    run: RunId,
    verb: String,
}

/// Whether a site could take over now.
#[derive(Serialize)]
struct Ready {
    site: SiteName,
    verdict: Verdict,
    /// Checks that failed or are unknown.
    because: Vec<String>,
}

pub async fn run(call: &Call, _: &Args) -> Ended {
    let session = look::session(call, "status").await?;
    let status = match status(&session).await {
        Ok(status) => status,
        Err(fault) => return drive::close(session, Err(fault.into())).await,
    };
    call.ui
        .result(&status, || text::render(&status, call.ui.colour_out));
    let code = match replicate::in_sync(&status.databases) || !status.up {
        true => exit::DONE,
        false => exit::OUT_OF_SYNC,
    };
    look::done(session, code).await
}

async fn status(session: &Session) -> Result<Status, Fault> {
    let (stack, facts) = (session.world.stack.as_ref(), &session.facts);
    let around = preflight::around(session).await?;
    let ready = site::others(stack, facts.primary(&stack.primary))
        .into_iter()
        .filter(|_| facts.roles.is_some())
        .map(|site| {
            ready(
                site.clone(),
                &crate::plan::preflight::preflight(stack, facts, &site, &around),
            )
        })
        .collect();
    let unfinished = drive::unfinished(session).await?;
    Ok(Status {
        lease: lease::show(&session.world.stores).await?,
        unfinished: unfinished.map(|opened| Unfinished {
            verb: opened.plan.intent.verb().to_owned(),
            run: opened.run,
        }),
        ..of(stack, facts, ready)
    })
}

/// Everything that facts say.
fn of(stack: &Stack, facts: &Facts, ready: Vec<Ready>) -> Status {
    let provisional = facts
        .roles
        .as_ref()
        .and_then(|roles| roles.provisional.clone());
    Status {
        stack: stack.name.clone(),
        at: facts.at,
        up: facts.roles.is_some(),
        primary: facts.primary(&stack.primary).clone(),
        provisional: provisional.map(|flip| Flip {
            overdue: flip.until < facts.at,
            flip,
        }),
        sites: stack
            .sites
            .iter()
            .map(|known| site_of(stack, facts, &known.name, &known.cloud))
            .collect(),
        databases: replicate::databases(stack, facts),
        names: stack
            .names
            .iter()
            .map(|name| name_of(facts, name))
            .collect(),
        lease: None,
        unfinished: None,
        ready,
    }
}

fn site_of(stack: &Stack, facts: &Facts, name: &SiteName, cloud: &str) -> Site {
    let seen = facts.sites.get(name);
    let running = |server: &&crate::model::stack::Server| {
        let seen = facts.server(name, &server.name);
        seen.is_some_and(|seen| seen.state == crate::cloud::ServerState::Running)
    };
    let silent = match seen.map(|seen| &seen.answers) {
        Some(Seen::Known(())) => None,
        Some(Seen::Unknown(why)) => Some(why.clone()),
        None => Some("nobody looked".to_owned()),
    };
    Site {
        name: name.clone(),
        cloud: cloud.to_owned(),
        role: role_of(facts, name),
        silent,
        servers_running: stack.servers_at(name).filter(running).count(),
        servers: stack.servers_at(name).count(),
        front_door: facts.doors.get(name).cloned(),
    }
}

fn role_of(facts: &Facts, site: &SiteName) -> Role {
    match &facts.roles {
        Some(roles) if roles.primary == *site => Role::Primary,
        Some(roles) if roles.standbys.contains(site) => Role::Standby,
        Some(roles) if roles.left_behind.contains(site) => Role::LeftBehind,
        _ => Role::Unused,
    }
}

fn name_of(facts: &Facts, name: &crate::model::stack::Name) -> Name {
    let lease = facts.published.ttl_leases.get(&name.target);
    let current = facts.published.current(&name.target, RecordType::A);
    Name {
        host: name.host.clone(),
        target: name.target.clone(),
        ttl: current.map(|set| set.ttl),
        restore: lease.map(|lease| lease.normal),
        restore_by: lease.map(|lease| lease.until),
        overdue: lease.is_some_and(|lease| lease.until < facts.at),
    }
}

fn ready(site: SiteName, checks: &[Check]) -> Ready {
    let bad = |check: &&Check| matches!(check.verdict, Verdict::Fail | Verdict::Unknown);
    Ready {
        site,
        verdict: overall(checks),
        because: checks
            .iter()
            .filter(bad)
            .map(|check| check.name.clone())
            .collect(),
    }
}
