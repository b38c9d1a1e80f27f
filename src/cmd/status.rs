//! `hafog status`: the stack on one screen. Exit code 6 when a database or files are out of
//! sync, or when that is unknown.

mod text;

use jiff::Timestamp;
use serde::Serialize;

use super::open::Images;
use super::{Call, Ended, drive, look, preflight, replicate, site};
use crate::error::Fault;
use crate::exit;
use crate::model::id::*;
use crate::model::record::RecordType;
use crate::model::roles::Provisional;
use crate::model::stack::Stack;
use crate::model::units::Ttl;
use crate::plan::facts::{Facts, Seen};
use crate::plan::files::{self, Copy, Level};
use crate::plan::preflight::{Check, Verdict, overall};
use crate::plan::scale::beside_the_spec;
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
    /// What is there and not in the spec.
    beside_the_spec: Vec<String>,
    databases: Vec<replicate::DatabaseRow>,
    files: Vec<Copy>,
    names: Vec<Name>,
    lease: Option<lease::Lease>,
    unfinished: Option<Unfinished>,
    /// Why nobody can say whether a run is unfinished.
    unreadable: Option<String>,
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
    /// It can only go on.
    past_no_return: bool,
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
    let session = look::session_with_images(call, "status", Images::AtAGlance).await?;
    let status = match status(&session).await {
        Ok(status) => status,
        Err(fault) => return drive::close(session, Err(fault.into())).await,
    };
    call.ui
        .result(&status, || text::render(&status, call.ui.colour_out));
    let late = |copy: &Copy| matches!(copy.level, Level::Critical | Level::Unknown);
    let in_sync = replicate::in_sync(&status.databases) && !status.files.iter().any(late);
    let code = match in_sync || !status.up {
        true => exit::DONE,
        false => exit::OUT_OF_SYNC,
    };
    look::done(session, code).await
}

async fn status(session: &Session) -> Result<Status, Fault> {
    let (stack, facts) = (session.world.stack.as_ref(), &session.facts);
    let around = preflight::around(session).await;
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
    let (unfinished, unreadable) = match crate::run::open::unfinished(&session.world.stores).await {
        Ok(opened) => (opened, None),
        Err(fault) => (None, Some(fault.to_string())),
    };
    Ok(Status {
        lease: lease::show(&session.world.stores).await?,
        unfinished: unfinished.map(|opened| Unfinished {
            verb: opened.plan.intent.verb().to_owned(),
            past_no_return: opened.past_no_return,
            run: opened.opened.run,
        }),
        unreadable,
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
        beside_the_spec: beside_the_spec(stack, facts),
        databases: replicate::databases(stack, facts),
        files: files::copies(stack, facts),
        names: stack
            .names
            .iter()
            .map(|name| name_of(facts, name))
            .collect(),
        lease: None,
        unfinished: None,
        unreadable: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::roles::TtlLease;
    use crate::plan::preflight::preflight;
    use crate::plan::preflight::tests::{around, fine};
    use crate::sim::stacks::small;
    use insta::assert_snapshot;
    use std::time::Duration;

    fn screen(facts: &Facts) -> (String, bool) {
        let stack = small();
        let west = SiteName::new("west");
        let ready = ready(west.clone(), &preflight(&stack, facts, &west, &around()));
        let status = of(&stack, facts, vec![ready]);
        let synced = replicate::in_sync(&status.databases);
        (text::render(&status, false), synced)
    }

    #[test]
    fn one_screen_says_who_is_what() {
        let mut facts = fine(&small());
        // The replicas inside the sites follow too.
        for (name, of) in [("shop-east-db-2", "east"), ("shop-west-db-2", "west")] {
            let mut copy = facts.nodes[&ServerName::new("shop-west-db-1")].clone();
            copy.site = of.into();
            facts.nodes.insert(name.into(), copy);
        }
        let (text, synced) = screen(&facts);
        assert_snapshot!(text, @r"
        shop: east is primary

        SITE  ROLE     CLOUD  SERVERS  FRONT DOOR
        east  primary  local  5 of 5   200
        west  standby  local  5 of 5   200

        DATABASE  NODE            ROLE               LAG   STATE
        main      shop-east-db-1  primary, writable  -     fine   open
        main      shop-east-db-2  replica            0.8s  fine   streams from shop-east-db-1
        main      shop-west-db-1  replica            0.8s  fine   streams from shop-east-db-1
        main      shop-west-db-2  replica            0.8s  fine   streams from shop-east-db-1
        main: shop-east-db-1 may write, epoch 3, write lease until 2026-11-21T09:14:12Z

        NAME           TTL
        www.shop.test  1h

        west can take over
        ");
        assert!(synced);
    }

    #[test]
    fn a_dead_holder_is_called_dead_and_the_way_on_is_said() {
        let (stack, facts) = (small(), fine(&small()));
        let mut status = of(&stack, &facts, Vec::new());
        let mut holder = lease::Holder::me("up", facts.at);
        let mut said = |holder: &lease::Holder| {
            let holder = Some(holder.clone());
            status.lease = Some(lease::Lease { epoch: 7, holder });
            let text = text::render(&status, false);
            let line = text.lines().find(|line| line.starts_with("locked by "));
            line.expect("it is locked")
                .replace(&lease::Holder::me("up", facts.at).who, "ME")
        };
        assert_eq!(said(&holder), "locked by ME for `up`");
        holder.started += 1;
        assert_eq!(
            said(&holder),
            "locked by ME for `up`; that process is dead: the next command takes the lease over, and `hafog lock release --epoch 7` frees it now"
        );
        holder.boot = "another machine".to_owned();
        assert_eq!(said(&holder), "locked by ME for `up`");
        holder.until = facts.at;
        let expired = said(&holder);
        assert!(
            expired.contains("it expired at 2026-11-21T09:14:03Z: "),
            "{expired}"
        );
    }

    #[test]
    fn who_could_take_over_beside_a_dead_primary_is_said() {
        let mut facts = fine(&small());
        let said = |facts: &Facts| screen(facts).0.contains("could take over: hafog failover");
        assert!(!said(&facts));
        let primary = facts.nodes.get_mut(&"shop-east-db-1".into()).unwrap();
        primary.status = Seen::Unknown("refused".to_owned());
        let (text, _) = screen(&facts);
        let line = "main: shop-east-db-2 could take over: hafog failover shop-east-db-2";
        assert!(text.lines().any(|one| one == line), "{text}");
        let beside = facts.nodes.get_mut(&"shop-east-db-2".into()).unwrap();
        beside.status = Seen::Unknown("refused".to_owned());
        assert!(!said(&facts));
    }

    #[test]
    fn what_the_spec_has_no_longer_is_said() {
        let mut facts = fine(&small());
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        let mut more = east.servers[&"shop-east-web-1".into()].clone();
        more.name = "shop-east-web-9".into();
        more.tags.insert("group".to_owned(), "web".to_owned());
        east.servers.insert(more.name.clone(), more);
        let writer = facts.writers.get_mut(&"main".into()).unwrap();
        writer.node = Some("shop-east-db-7".into());
        let (text, _) = screen(&facts);
        for line in [
            "shop-east-web-9 is not in the spec any longer; `hafog scale east` removes what is too much",
            "shop-east-db-7 writes the database `main`, and the spec has that server no longer",
        ] {
            assert!(text.lines().any(|one| one == line), "{text}");
        }
    }

    #[test]
    fn a_site_without_anything_is_one_line() {
        let mut facts = fine(&small());
        facts.roles.as_mut().unwrap().standbys.clear();
        let (text, _) = screen(&facts);
        let last = text.lines().last();
        assert_eq!(last, Some("west is no standby yet: hafog clone west"));
    }

    #[test]
    fn until_commit_or_rollback_a_standby_waits() {
        let mut facts = fine(&small());
        let now = facts.at;
        facts.roles.as_mut().unwrap().provisional = Some(Provisional {
            since: now,
            until: now + Duration::from_secs(1800),
            from: "west".into(),
            planned: true,
        });
        let (text, _) = screen(&facts);
        let last = text.lines().last();
        assert_eq!(last, Some("west cannot take over until commit or rollback"));
    }

    #[test]
    fn a_provisional_flip_and_everything_that_is_overdue_is_said() {
        let mut facts = fine(&small());
        for node in ["shop-east-db-2", "shop-west-db-2"] {
            facts.nodes.remove(&node.into());
        }
        let now = facts.at;
        let roles = facts.roles.as_mut().unwrap();
        (roles.primary, roles.standbys, roles.left_behind) =
            ("west".into(), Vec::new(), vec!["east".into()]);
        roles.provisional = Some(Provisional {
            since: now - Duration::from_secs(3600),
            until: now - Duration::from_secs(1800),
            from: "east".into(),
            planned: false,
        });
        let lease = TtlLease {
            normal: Ttl(3600),
            lowered: Ttl(60),
            since: now - Duration::from_secs(3600),
            until: now - Duration::from_secs(1800),
        };
        facts
            .published
            .ttl_leases
            .insert("www.hafog-shop.shop.test".into(), lease);
        facts.writers.get_mut(&"main".into()).unwrap().lease_until =
            Some(now - Duration::from_secs(5));
        let (text, synced) = screen(&facts);
        assert_snapshot!(text, @r"
        shop: west is primary
        the failover from east is provisional until 2026-11-21T08:44:03Z, which is over: hafog commit, or hafog rollback

        SITE  ROLE         CLOUD  SERVERS  FRONT DOOR
        east  left behind  local  5 of 5   200
        west  primary      local  5 of 5   200

        DATABASE  NODE            ROLE               LAG      STATE
        main      shop-east-db-1  primary, writable  -        fine     open
        main      shop-east-db-2  unknown            unknown  UNKNOWN  not there
        main      shop-west-db-1  replica            0.8s     fine     streams from shop-east-db-1
        main      shop-west-db-2  unknown            unknown  UNKNOWN  not there
        main: shop-east-db-1 may write, epoch 3, write lease EXPIRED at 2026-11-21T09:13:58Z

        NAME           TTL
        www.shop.test  1h   lowered; 1h was to be restored by 2026-11-21T08:44:03Z: hafog dns restore

        west cannot take over (standby west, roles until commit or rollback, write-lease main and ttl www.shop.test): hafog preflight west
        ");
        assert!(
            !synced,
            "the node of the primary site is a replica, and its neighbour is unknown"
        );
    }
}
