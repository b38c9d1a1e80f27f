//! `failover` and `switchover`: one list for both. A step that does not apply is listed and skipped with its reason.

use std::time::Duration;

use super::action::*;
use super::facts::{Facts, Seen};
use super::safety::refusal;
use super::site::{follows, hosts, see_record, seed_replica};
use super::ttl::{seen_after, slower_for};
use super::{Intent, Plan, PlanKind, Step, loss, step};
use crate::cloud::ServerState;
use crate::db::NodeRole;
use crate::dns::RecordChange;
use crate::model::id::*;
use crate::model::record::{RecordSet, RecordType};
use crate::model::stack::{Database, Name, SelfFence, Server, Site, Stack, Tier, Zone};

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub planned: bool,
    /// Ask nothing of the old primary's site.
    pub assume_down: bool,
    /// Accepted refusals, by name.
    pub accept: Vec<String>,
    /// A switchover that goes back within the provisional phase.
    pub rollback: bool,
}

impl Options {
    fn accepts(&self, name: &str) -> bool {
        self.accept.iter().any(|accepted| accepted == name)
    }
}

/// Moves the stack from its primary to `to`.
pub fn failover(stack: &Stack, facts: &Facts, to: &SiteName, options: &Options) -> Plan {
    let from = facts.primary(&stack.primary).clone();
    let intent = if options.rollback {
        Intent::Rollback {
            from: from.clone(),
            to: to.clone(),
        }
    } else {
        Intent::Failover {
            from: from.clone(),
            to: to.clone(),
            planned: options.planned,
        }
    };
    let mut plan = Plan::new(PlanKind::Directional, intent);
    let moves: Vec<Move> = stack
        .databases
        .iter()
        .filter_map(|database| Move::of(stack, facts, database, &from, to))
        .collect();
    before(&mut plan, stack, facts, &from, to, &moves, options);
    point_of_no_return(&mut plan, &from, &moves, options);
    traffic(&mut plan, stack, facts, to, options);
    roles(&mut plan, stack, facts, &from, to, options);
    after(&mut plan, stack, facts, &from, to, &moves, options);
    review(&mut plan, stack, facts, &from, to, &moves, options);
    plan
}

/// One database's move.
struct Move<'a> {
    database: &'a Database,
    old: ServerName,
    new: &'a Server,
    epoch: u64,
}

impl<'a> Move<'a> {
    fn of(
        stack: &'a Stack,
        facts: &Facts,
        database: &'a Database,
        from: &SiteName,
        to: &'a SiteName,
    ) -> Option<Move<'a>> {
        let new = stack.nodes_at(to, database).next()?;
        let born = stack
            .nodes_at(from, database)
            .next()
            .map(|server| server.name.clone());
        let old = facts.writer_node(&database.name).cloned().or(born)?;
        Some(Move {
            database,
            old,
            new,
            epoch: facts.epoch(&database.name) + 1,
        })
    }
}

fn before(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    from: &SiteName,
    to: &SiteName,
    moves: &[Move],
    options: &Options,
) {
    let planned = options
        .planned
        .then(|| "planned: nobody says that it is down".to_owned());
    plan.push(
        step(
            "confirm-outage",
            format!("look at {from} from here"),
            ConfirmOutage {
                site: from.clone(),
                assumed: options.assume_down,
            }
            .into(),
        )
        .skip_if(planned)
        .limit(30),
    );
    for Move { database, new, .. } in moves {
        let vet = VetStandby {
            database: database.name.clone(),
            node: new.name.clone(),
            accepted: options.accept.clone(),
        };
        plan.push(
            step(
                format!("vet-standby {}", database.name),
                format!("{} can take over", new.name),
                vet.into(),
            )
            .limit(30),
        );
    }
    let ready = facts
        .doors
        .get(to)
        .and_then(|door| door.known())
        .is_some_and(|status| *status == 200);
    let reason = (ready && !options.planned)
        .then(|| format!("{to} answers its health checks already"))
        .or_else(|| accepted_as_it_is(stack, facts, to, options));
    plan.push(
        step(
            "start-servers",
            format!("{to} answers its health checks"),
            AwaitHealthy { site: to.clone() }.into(),
        )
        .skip_if(reason)
        .limit(60),
    );
    for name in &stack.names {
        let Some(held) = held(facts, name) else {
            continue;
        };
        let lowered = held.ttl <= name.failover_ttl;
        let wait = slower_for(facts, name, held);
        let reason = if options.planned {
            let settled = lowered && wait.is_zero();
            settled.then(|| format!("it is {} already, also in caches", held.ttl))
        } else {
            Some("emergency: it is lowered with the flip".to_owned())
        };
        // Lowered before, by somebody who is to raise it again: only waited for.
        let leased = facts.published.ttl_leases.contains_key(&name.target);
        let lower = SetTtl {
            zone: name.zone.clone(),
            host: name.target.clone(),
            before: held.clone(),
            ttl: name.failover_ttl,
            lease: (leased || !lowered).then_some(stack.commit_window),
            wait: true,
        };
        let about = match lowered {
            true => format!(
                "wait until no cache holds {} with more than {}",
                name.target, held.ttl
            ),
            false => format!(
                "TTL of {} from {} to {}, and wait until the old one has run out",
                name.target, held.ttl, name.failover_ttl
            ),
        };
        let lower = step(format!("lower-ttl {}", name.host), about, lower.into())
            .skip_if(reason)
            .limit(wait.as_secs() + 61);
        plan.push(match lowered {
            true => lower,
            false => lower.reversible(),
        });
    }
    for zone in zones_with_names(stack) {
        let open = is_open(facts, &zone.name).then(|| "it is being served".to_owned());
        plan.push(ensure_zone("ensure-zone", zone).skip_if(open));
    }
}

/// Zones that a move writes to.
fn zones_with_names(stack: &Stack) -> impl Iterator<Item = &Zone> {
    let moved = |zone: &&Zone| stack.names.iter().any(|name| name.zone == zone.name);
    stack.zones.iter().filter(moved)
}

fn is_open(facts: &Facts, zone: &ZoneName) -> bool {
    let seen = facts.zones.get(zone).and_then(|zone| zone.open.known());
    seen.copied().unwrap_or(false)
}

fn ensure_zone(step_name: &str, zone: &Zone) -> Step {
    let about = format!(
        "make sure that {} is being served by `{}`",
        zone.name, zone.host
    );
    let action = EnsureZone {
        zone: zone.name.clone(),
    };
    step(format!("{step_name} {}", zone.name), about, action.into()).limit(60)
}

/// Why nobody waits for the health checks of `to`.
fn accepted_as_it_is(
    stack: &Stack,
    facts: &Facts,
    to: &SiteName,
    options: &Options,
) -> Option<String> {
    let why = not_ready(stack, facts, to).filter(|_| options.accepts("standby-not-ready"))?;
    Some(format!("accepted: {why}"))
}

fn point_of_no_return(plan: &mut Plan, from: &SiteName, moves: &[Move], options: &Options) {
    let how = if options.planned {
        Fencing::Clean
    } else if options.accepts("unfenced-primary") {
        Fencing::Accepted
    } else if options.assume_down {
        Fencing::LeaseOnly
    } else {
        Fencing::Ladder
    };
    for Move {
        database,
        old,
        new,
        epoch,
    } in moves
    {
        let about = match how {
            Fencing::Clean => format!("{old} stops cleanly, with everything sent to {}", new.name),
            Fencing::Ladder => format!("fence {old}, with proof"),
            Fencing::LeaseOnly => format!("wait until the write lease of {old} has expired"),
            Fencing::Accepted => format!("try to fence {old}; going on without proof was accepted"),
        };
        let stop = StopWrites {
            database: database.name.clone(),
            node: old.clone(),
            site: from.clone(),
            to: new.name.clone(),
            epoch: *epoch,
            how,
        };
        let stopped = plan.push(
            step(format!("stop-writes {}", database.name), about, stop.into())
                .reversible()
                .limit(120),
        );
        let reason = (!options.planned).then(|| "forced: what had not arrived is lost".to_owned());
        let replay = AwaitReplay {
            database: database.name.clone(),
            node: new.name.clone(),
            of: stopped,
        };
        plan.push(
            step(
                format!("await-replay {}", database.name),
                format!("{} has everything that {old} had", new.name),
                replay.into(),
            )
            .skip_if(reason)
            .limit(60),
        );
    }
    for Move {
        database,
        new,
        epoch,
        ..
    } in moves
    {
        let promote = PromoteStandby {
            database: database.name.clone(),
            node: new.name.clone(),
            epoch: *epoch,
        };
        plan.push(
            step(
                format!("promote-standby {}", database.name),
                format!("open {} for writes", new.name),
                promote.into(),
            )
            .no_return()
            .limit(120),
        );
    }
}

fn traffic(plan: &mut Plan, stack: &Stack, facts: &Facts, to: &SiteName, options: &Options) {
    let epoch = stack
        .databases
        .iter()
        .map(|database| facts.epoch(&database.name) + 1)
        .max()
        .unwrap_or(1);
    let token = SetRoleToken {
        site: to.clone(),
        role: SiteRole::Primary,
        epoch,
    };
    plan.push(
        step(
            "open-app",
            format!("servers of {to} know that they are primary"),
            token.into(),
        )
        .limit(60)
        // Whether users are served is for the smoke test to say.
        .may_fail("hafog up"),
    );
    plan.push(
        step(
            "smoke-test",
            format!("{to} passes its health checks"),
            SmokeTest { site: to.clone() }.into(),
        )
        .skip_if(accepted_as_it_is(stack, facts, to, options))
        .limit(60),
    );
    for zone in zones_with_names(stack) {
        let names: Vec<&Name> = stack
            .names
            .iter()
            .filter(|name| name.zone == zone.name)
            .collect();
        // Asked again: a resume after a reboot finds its name server dead, and can only go forward.
        plan.push(ensure_zone("reopen-zone", zone));
        let mut records = Vec::new();
        let mut leases = Vec::new();
        for name in &names {
            records.push(flip(stack, facts, to, name, options.planned));
            let normal = facts
                .published
                .ttl_leases
                .get(&name.target)
                .map_or(name.ttl, |lease| lease.normal);
            leases.push(LeasedTtl {
                host: name.target.clone(),
                normal,
                lowered: name.failover_ttl,
                window: stack.commit_window,
            });
        }
        plan.push(
            step(
                format!("set-record {}", zone.name),
                lead_to(&names, to),
                SetRecord {
                    zone: zone.name.clone(),
                    records,
                    leases,
                }
                .into(),
            )
            .limit(60),
        );
        plan.push(see_record(zone.name.clone(), &names));
    }
}

fn lead_to(names: &[&Name], to: &SiteName) -> String {
    let verb = if names.len() == 1 { "leads" } else { "lead" };
    format!("{} {verb} to {to}", hosts(names))
}

/// The record change of one name. Where the addresses are known it is exact, and compared before it is written.
fn flip(stack: &Stack, facts: &Facts, to: &SiteName, name: &Name, planned: bool) -> WantedRecord {
    let held = held(facts, name);
    let addresses: Option<std::collections::BTreeSet<String>> = stack
        .group_at(to, &name.to)
        .map(|server| {
            facts
                .address(to, &server.name)
                .map(|address| address.to_string())
        })
        .collect();
    match addresses.filter(|addresses| !addresses.is_empty()) {
        Some(values) => WantedRecord::Exactly(RecordChange {
            host: name.target.clone(),
            kind: RecordType::A,
            // A switchover lowers the TTL in an earlier step of the same plan.
            before: held.map(|set| RecordSet {
                ttl: if planned {
                    set.ttl.min(name.failover_ttl)
                } else {
                    set.ttl
                },
                ..set.clone()
            }),
            after: Some(RecordSet {
                host: name.target.clone(),
                kind: RecordType::A,
                ttl: name.failover_ttl,
                values,
            }),
        }),
        None => WantedRecord::AddressesOf {
            host: name.target.clone(),
            ttl: name.failover_ttl,
            site: to.clone(),
            group: name.to.clone(),
        },
    }
}

/// What the zone serves; where nobody could look, what was published last.
pub(super) fn held<'a>(facts: &'a Facts, name: &Name) -> Option<&'a RecordSet> {
    let zone = facts.zones.get(&name.zone)?;
    zone.records
        .iter()
        .find(|set| set.host == name.target && set.kind == RecordType::A)
        .or_else(|| facts.published.current(&name.target, RecordType::A))
}

/// What comes after the users have moved. None of it makes the move undone when it fails: a dead server of the old
/// site must not keep a failover open.
fn after(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    from: &SiteName,
    to: &SiteName,
    moves: &[Move],
    options: &Options,
) {
    let mend = format!("hafog clone {from}");
    for Move { database, new, .. } in moves {
        for replica in stack.nodes_at(to, database).skip(1) {
            let mut again: Step = seed_replica(database, &new.name, &replica.name, false);
            again.name = StepName::new(format!("recreate-replica {}", replica.name));
            again.about = format!("{} follows {} again", replica.name, new.name);
            plan.push(again.may_fail("hafog up"));
        }
    }
    let forced =
        (!options.planned).then(|| format!("{from} is left behind; `hafog failback` rejoins it"));
    for Move {
        database, old, new, ..
    } in moves
    {
        let rejoin = Rejoin {
            database: database.name.clone(),
            old: old.clone(),
            old_site: from.clone(),
            primary: new.name.clone(),
        };
        plan.push(
            step(
                format!("reverse-replication {}", database.name),
                format!("{old} follows {}", new.name),
                rejoin.into(),
            )
            .skip_if(forced.clone())
            .may_fail(&mend)
            .limit(600),
        );
        for replica in stack
            .nodes_at(from, database)
            .filter(|server| server.name != *old)
        {
            let mut again = seed_replica(database, old, &replica.name, false);
            again.name = StepName::new(format!("recreate-replica {}", replica.name));
            again.about = format!("{} follows {old} again", replica.name);
            plan.push(again.skip_if(forced.clone()).may_fail(&mend));
        }
    }
    let token = SetRoleToken {
        site: from.clone(),
        role: SiteRole::Standby,
        epoch: moves.iter().map(|m| m.epoch).max().unwrap_or(1),
    };
    plan.push(
        step(
            "close-app",
            format!("servers of {from} know that they are standby"),
            token.into(),
        )
        .skip_if(forced.clone())
        .may_fail(&mend)
        .limit(60),
    );
    if options.rollback {
        restore_ttl(plan, stack, facts, to);
    }
}

/// Who is primary is written down as soon as the users are led there.
fn roles(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    from: &SiteName,
    to: &SiteName,
    options: &Options,
) {
    let roles = facts.roles.as_ref();
    let mut standbys: Vec<SiteName> = roles
        .map(|roles| roles.standbys.clone())
        .unwrap_or_default()
        .into_iter()
        .filter(|site| site != to)
        .collect();
    let mut left_behind: Vec<SiteName> = roles
        .map(|roles| roles.left_behind.clone())
        .unwrap_or_default()
        .into_iter()
        .filter(|site| site != to)
        .collect();
    if options.planned {
        standbys.push(from.clone())
    } else {
        left_behind.push(from.clone())
    }
    let provisional = (!options.rollback).then(|| ProvisionalWant {
        from: from.clone(),
        planned: options.planned,
        window: stack.commit_window,
    });
    let about = match &provisional {
        Some(want) => format!(
            "{to} is primary, provisionally: commit or roll back within {}",
            want.window
        ),
        None => format!("{to} is primary again, provisional no longer"),
    };
    plan.push(step(
        "provisional",
        about,
        SetRoles {
            primary: to.clone(),
            standbys,
            left_behind,
            provisional,
        }
        .into(),
    ));
}

/// A rollback ends the provisional phase, as a commit does: nothing else would raise the TTL again.
fn restore_ttl(plan: &mut Plan, stack: &Stack, facts: &Facts, to: &SiteName) {
    for name in &stack.names {
        let lease = facts.published.ttl_leases.get(&name.target);
        let ttl = lease.map_or(name.ttl, |lease| lease.normal);
        let WantedRecord::Exactly(RecordChange {
            after: Some(flipped),
            ..
        }) = flip(stack, facts, to, name, true)
        else {
            continue;
        };
        let reason = (flipped.ttl >= ttl).then(|| format!("it is {} already", flipped.ttl));
        let about = format!("TTL of {} from {} back to {ttl}", name.target, flipped.ttl);
        let action = SetTtl {
            zone: name.zone.clone(),
            host: name.target.clone(),
            before: flipped,
            ttl,
            lease: None,
            wait: false,
        };
        plan.push(
            step(format!("restore-ttl {}", name.host), about, action.into())
                .skip_if(reason)
                .may_fail("hafog dns restore"),
        );
    }
}

/// Refusals and the forecast.
fn review(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    from: &SiteName,
    to: &SiteName,
    moves: &[Move],
    options: &Options,
) {
    let Some(roles) = &facts.roles else {
        plan.refusals.push(refusal(
            "not-up",
            "the stack is not up anywhere",
            "hafog up",
        ));
        return;
    };
    let is_standby = roles.standbys.contains(to);
    let left_behind = roles.left_behind.contains(to);
    if !is_standby {
        let (why, hint) = match left_behind {
            true => (
                format!("{to} was left behind by a failover and has not rejoined"),
                "hafog failback".to_owned(),
            ),
            false => (
                format!("{to} is no standby of this stack"),
                format!("hafog clone {to}"),
            ),
        };
        plan.refusals.push(refusal("no-standby", why, hint));
    }
    if options.rollback {
        if roles.provisional.is_none() {
            plan.refusals.push(refusal(
                "nothing-provisional",
                "no flip is provisional",
                "hafog status",
            ));
        }
    // The way back to a site that was left behind is `failback`, which ends the phase by itself.
    } else if roles.provisional.is_some() && !left_behind {
        let why = format!("the flip to {} has not been committed", roles.primary);
        plan.refusals
            .push(refusal("provisional", why, "hafog commit"));
    }
    for m in moves {
        plan.forecast.loss.push(match options.planned {
            true => loss::planned(m.database),
            false => loss::forced(facts, m.database, from, &m.old, &m.new.name),
        });
        // What its database and its servers lack follows from its not being a standby, and the hint above mends it.
        if is_standby {
            review_standby(plan, facts, m, to, options);
        }
        review_primary(plan, stack, facts, m, from, options);
    }
    if let Some((why, hint)) = no_servers(stack, facts, to).filter(|_| is_standby) {
        plan.refusals.push(refusal("no-servers", why, hint));
    } else if is_standby && let Some(why) = not_ready(stack, facts, to) {
        plan.refusals.push(refusal(
            "standby-not-ready",
            why,
            format!("hafog clone {to}"),
        ));
    }
    plan.forecast.effective_after = stack
        .names
        .iter()
        .filter_map(|name| seen_after(facts, name, options.planned))
        .max();
    for zone in zones_with_names(stack) {
        plan.forecast.notes.extend(closed(facts, &zone.name));
    }
}

/// What to expect of a zone that is not known to be served.
fn closed(facts: &Facts, zone: &ZoneName) -> Option<String> {
    let when = "it is opened before anything is stopped, or everything is taken back";
    match facts.zones.get(zone).map(|zone| &zone.open) {
        Some(Seen::Known(true)) => None,
        Some(Seen::Known(false)) => Some(format!("{zone} is not being served: {when}")),
        Some(Seen::Unknown(why)) => Some(format!(
            "whether {zone} is being served is unknown ({why}): {when}"
        )),
        None => Some(format!("nobody looked whether {zone} is served: {when}")),
    }
}

/// Why there is nothing that the names could lead to, and what to type. Nobody may accept this one: the records could
/// not be written, and that would turn up behind the point of no return.
pub(super) fn no_servers(stack: &Stack, facts: &Facts, to: &SiteName) -> Option<(String, String)> {
    // Somebody was led there, so there is something to lead to.
    if matches!(facts.doors.get(to), Some(Seen::Known(200))) {
        return None;
    }
    let answers = facts.sites.get(to).map(|site| &site.answers);
    if let Some(why) = answers.and_then(Seen::why_unknown) {
        let name = stack.names.first()?;
        let why = format!(
            "nobody could look at the servers of {to} that {} would lead to: {why}",
            name.host
        );
        return Some((why, "hafog status".to_owned()));
    }
    let is_there = |server: &Server| {
        let seen = facts.server(to, &server.name).map(|seen| &seen.state);
        !matches!(
            seen,
            None | Some(ServerState::Pending | ServerState::Failed(_))
        )
    };
    let lacks = |name: &&Name| {
        let mut servers = stack.group_at(to, &name.to).peekable();
        servers.peek().is_none() || servers.any(|server| !is_there(server))
    };
    let host = &stack.names.iter().find(lacks)?.host;
    let word = match stack.site(to).map(|site| site.tier).unwrap_or_default() {
        Tier::Cold => "cold",
        Tier::PilotLight => "pilot-light",
        Tier::Warm | Tier::Hot => {
            let why = format!("servers of {to} that {host} leads to are not there");
            return Some((why, format!("hafog clone {to}")));
        }
    };
    let why = format!(
        "{to} is `{word}` and has no servers that {host} could lead to, and a failover makes none; \
         after `tier: warm`, `hafog clone {to}` makes them"
    );
    Some((why, format!("hafog clone {to}")))
}

/// Why users who are moved to `to` would not be served, or nobody knows whether they would.
fn not_ready(stack: &Stack, facts: &Facts, to: &SiteName) -> Option<String> {
    let serves = |site: &Site| matches!(site.tier, Tier::Warm | Tier::Hot);
    match facts.doors.get(to) {
        Some(Seen::Known(200)) => None,
        Some(Seen::Known(status)) => Some(format!(
            "{to} does not pass its health check: {status}, not 200"
        )),
        Some(Seen::Unknown(why)) => Some(format!("{to} does not answer its health check: {why}")),
        None if stack.balancer.is_none() || !stack.site(to).is_some_and(serves) => None,
        None => {
            let answers = facts.sites.get(to).map(|site| &site.answers);
            let why = answers.and_then(Seen::why_unknown);
            Some(match why {
                Some(why) => format!("nobody could look at the servers of {to}: {why}"),
                None => format!("{to} has no servers"),
            })
        }
    }
}

fn review_standby(plan: &mut Plan, facts: &Facts, m: &Move, to: &SiteName, options: &Options) {
    let name = &m.new.name;
    let Some(status) = facts.status(name) else {
        let why = facts
            .nodes
            .get(name)
            .and_then(|node| node.status.why_unknown())
            .unwrap_or("it is not there");
        let why = format!("{name} does not answer: {why}");
        plan.refusals.push(refusal(
            "standby-unreachable",
            why,
            format!("hafog replicate status {to}"),
        ));
        return;
    };
    if status.role != NodeRole::Replica {
        // A run that was interrupted after its promotion is resumed, not planned again.
        let why = format!("{name} is a primary of its own");
        plan.refusals
            .push(refusal("standby-unreachable", why, "hafog status"));
        return;
    }
    if options.rollback && !follows(facts, name) {
        let why = format!("{name} does not follow {}", m.old);
        plan.refusals
            .push(refusal("old-primary-not-following", why, "hafog failback"));
        return;
    }
    if options.planned {
        if !follows(facts, name) {
            let why = format!("the stream to {name} is not up, so how far it is behind is unknown");
            plan.refusals.push(refusal(
                "standby-unknown",
                why,
                format!("hafog replicate setup {to}"),
            ));
        } else if let Some(lag) = lag(facts, name).filter(|lag| *lag > m.database.lag_critical.0) {
            let why = format!(
                "{name} is {:.1} s behind, over the critical {}",
                lag.as_secs_f64(),
                m.database.lag_critical
            );
            plan.refusals.push(refusal(
                "standby-behind",
                why,
                format!("hafog replicate status {to}"),
            ));
        }
        return;
    }
    // Forced: what was not replicated before the outage is lost. It is behind if it was behind when the primary
    // was last heard of, not because the primary is silent now.
    let last_beat = facts
        .writers
        .get(&m.database.name)
        .and_then(|writer| writer.beat.as_ref());
    match (&status.heartbeat, last_beat) {
        (None, _) => {
            let why = format!("{name} has no heartbeat, so how far it was behind is unknown");
            plan.refusals.push(refusal(
                "standby-unknown",
                why,
                "hafog failover --accept standby-unknown",
            ));
        }
        (Some(beat), Some(last)) => {
            let behind = last.at.duration_since(beat.at).unsigned_abs();
            if behind > m.database.lag_critical.0 {
                let why = format!(
                    "{name} was {:.1} s behind when the primary was last heard of, over the critical {}",
                    behind.as_secs_f64(),
                    m.database.lag_critical
                );
                plan.refusals.push(refusal(
                    "standby-behind",
                    why,
                    "hafog failover --accept standby-behind",
                ));
            }
        }
        (Some(_), None) => {}
    }
}

fn review_primary(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    m: &Move,
    from: &SiteName,
    options: &Options,
) {
    let old = &m.old;
    let status = facts.status(old);
    if options.planned {
        if !status.is_some_and(|status| status.writable) {
            let why = facts
                .nodes
                .get(old)
                .and_then(|node| node.status.why_unknown())
                .unwrap_or("it is not writable");
            plan.refusals.push(refusal(
                "primary-unreachable",
                format!("{old}: {why}"),
                "hafog failover",
            ));
        }
        return;
    }
    let door = facts
        .doors
        .get(from)
        .and_then(|door| door.known())
        .is_some_and(|status| *status == 200);
    if !options.assume_down && status.is_some_and(|status| status.writable) && door {
        let why = format!("{old} answers and is writable, and {from} passes its health check");
        plan.refusals
            .push(refusal("primary-healthy", why, "hafog switchover"));
    }
    let cloud_answers = facts
        .sites
        .get(from)
        .is_some_and(|site| site.answers.known().is_some());
    let node_answers = status.is_some();
    if !cloud_answers
        && !node_answers
        && let Err(unproved) = lease_will_prove(stack, facts, m)
    {
        let why = format!(
            "neither the cloud of {from} nor {old} answers, and {unproved}: nothing can prove that it does not write"
        );
        plan.refusals.push(refusal(
            "unfenced-primary",
            why,
            "hafog failover --accept unfenced-primary",
        ));
    }
}

/// Whether the end of the write lease is a proof. A node that runs stops then, and one that was frozen and goes on
/// later acknowledges nothing, because that needs the node that is promoted.
fn lease_will_prove(stack: &Stack, facts: &Facts, m: &Move) -> Result<(), String> {
    if stack.self_fence != SelfFence::Strict {
        return Err("`self_fence` is not `strict`".to_owned());
    }
    let writer = facts.writers.get(&m.database.name);
    match writer.is_some_and(|writer| writer.confirmed_by.contains(&m.new.name)) {
        true => Ok(()),
        false => Err(format!("its commits do not wait for {}", m.new.name)),
    }
}

/// Age of the newest heartbeat on a node.
pub fn lag(facts: &Facts, node: &ServerName) -> Option<Duration> {
    let heartbeat = facts.status(node)?.heartbeat.as_ref()?;
    Some(Duration::try_from(facts.at.duration_since(heartbeat.at)).unwrap_or(Duration::ZERO))
}
