//! Refusals of a move, and its forecast.

use std::time::Duration;

use super::ready::{no_servers, not_ready};
use super::{Flip, Move};
use crate::cloud::ServerState;
use crate::db::{NodeRole, NodeStatus};
use crate::model::id::ZoneName;
use crate::model::roles::Roles;
use crate::model::stack::SelfFence;
use crate::plan::facts::{Facts, Seen};
use crate::plan::files;
use crate::plan::safety::{lost_writer, not_up, refusal};
use crate::plan::ttl::seen_after;
use crate::plan::{Loss, Plan, Refusal, loss};

pub(super) fn review(plan: &mut Plan, flip: &Flip) {
    let Some(roles) = &flip.facts.roles else {
        plan.refusals.push(not_up());
        return;
    };
    if let Some(lost) = lost_writer(flip.stack, flip.facts) {
        plan.refusals.push(lost);
        return;
    }
    // What a site lacks that is no standby follows from that, and the hint of that refusal mends it.
    let is_standby = roles.standbys.contains(flip.to);
    plan.refusals.extend(no_standby(flip, roles));
    plan.refusals.extend(phase(flip, roles));
    for one in &flip.moves {
        plan.forecast.loss.push(loss_of(flip, one));
        if is_standby {
            plan.refusals.extend(standby(flip, one));
        }
        plan.refusals.extend(primary(flip, one));
    }
    if is_standby {
        plan.refusals.extend(servers(flip));
        plan.refusals.extend(unseen_files(flip));
    }
    forecast(plan, flip);
}

/// The same of one database that moves within its site.
pub(super) fn moved(plan: &mut Plan, flip: &Flip, one: &Move) {
    plan.forecast.loss.push(loss_of(flip, one));
    plan.refusals
        .extend(standby(flip, one).or_else(|| older(flip, one)));
    plan.refusals.extend(primary(flip, one));
}

/// An old primary that was not taken back has not what others of its site have by now.
fn older(flip: &Flip, one: &Move) -> Option<Refusal> {
    let name = &one.new.name;
    let timeline = flip.facts.status(name)?.timeline;
    let beside = flip.nodes_at(flip.to, one).into_iter();
    let newer = beside.filter(|node| node.name != one.old).find(|node| {
        let status = flip.facts.status(&node.name);
        status.is_some_and(|status| status.role == NodeRole::Replica && status.timeline > timeline)
    })?;
    let newer = &newer.name;
    let why = format!("{name} is on an older history than {newer}");
    let hint = format!("hafog failover {newer}");
    Some(refusal("standby-unreachable", why, hint))
}

fn no_standby(flip: &Flip, roles: &Roles) -> Option<Refusal> {
    let to = flip.to;
    if roles.standbys.contains(to) {
        return None;
    }
    let (why, hint) = match roles.left_behind.contains(to) {
        true => (
            format!("{to} was left behind by a failover and has not rejoined"),
            "hafog failback".to_owned(),
        ),
        false => (
            format!("{to} is no standby of this stack"),
            format!("hafog clone {to}"),
        ),
    };
    Some(refusal("no-standby", why, hint))
}

/// A rollback needs a flip that is provisional, and any other move one that is not.
fn phase(flip: &Flip, roles: &Roles) -> Option<Refusal> {
    if flip.options.rollback {
        let why = "no flip is provisional";
        let none = roles.provisional.is_none();
        return none.then(|| refusal("nothing-provisional", why, "hafog status"));
    }
    // The way back to a site that was left behind is `failback`, which ends the phase by itself.
    if roles.provisional.is_none() || roles.left_behind.contains(flip.to) {
        return None;
    }
    let why = format!("the flip to {} has not been committed", roles.primary);
    Some(refusal("provisional", why, "hafog commit"))
}

fn servers(flip: &Flip) -> Option<Refusal> {
    if let Some((why, hint)) = no_servers(flip.stack, flip.facts, flip.to) {
        return Some(refusal("no-servers", why, hint));
    }
    let why = not_ready(flip.stack, flip.facts, flip.to)?;
    let hint = format!("hafog clone {}", flip.to);
    Some(refusal("standby-not-ready", why, hint))
}

fn unseen_files(flip: &Flip) -> Option<Refusal> {
    if !flip.copies_files() {
        return None;
    }
    let (source, why) = files::unseen(flip.stack, flip.facts, flip.from, flip.to)?;
    let hint = match flip.facts.runs(source) {
        true => format!("{} --accept files-unseen", flip.typed("switchover")),
        false => format!("hafog heal {}", flip.from),
    };
    Some(refusal("files-unseen", why, hint))
}

fn loss_of(flip: &Flip, one: &Move) -> Loss {
    match flip.options.planned {
        true => loss::planned(one.database),
        false => loss::forced(
            flip.stack,
            flip.facts,
            one.database,
            flip.from,
            &one.old,
            &one.new.name,
        ),
    }
}

fn forecast(plan: &mut Plan, flip: &Flip) {
    let names = flip.stack.names.iter();
    plan.forecast.effective_after = names
        .filter_map(|name| seen_after(flip.facts, name, flip.options.planned))
        .max();
    for zone in flip.zones() {
        plan.forecast.notes.extend(closed(flip.facts, &zone.name));
    }
    if !flip.is_within {
        let planned = flip.options.planned;
        let left = files::left_by_a_move(flip.stack, flip.facts, flip.from, flip.to, planned);
        plan.forecast.notes.extend(left);
    }
    if flip.copies_files() {
        let last = files::last_copy_of_a_move(flip.stack, flip.facts, flip.from, flip.to);
        plan.forecast.notes.extend(last);
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

/// Why the node must not be promoted, or not without a word.
fn standby(flip: &Flip, one: &Move) -> Option<Refusal> {
    let name = &one.new.name;
    let Some(status) = flip.facts.status(name) else {
        let why = flip.facts.why_silent(name).unwrap_or("it is not there");
        let why = format!("{name} does not answer: {why}");
        let hint = format!("hafog replicate status {}", flip.to);
        return Some(refusal("standby-unreachable", why, hint));
    };
    if status.role != NodeRole::Replica {
        // A run that was interrupted after its promotion is resumed, not planned again.
        let why = format!("{name} is a primary of its own");
        return Some(refusal("standby-unreachable", why, "hafog status"));
    }
    if flip.options.rollback && !flip.facts.follows(name) {
        let why = format!("{name} does not follow {}", one.old);
        return Some(refusal("old-primary-not-following", why, "hafog failback"));
    }
    match flip.options.planned {
        true => behind_now(flip, one),
        false => behind_then(flip, one, status),
    }
}

fn behind_now(flip: &Flip, one: &Move) -> Option<Refusal> {
    let (name, to) = (&one.new.name, flip.to);
    if !flip.facts.follows(name) {
        let why = format!("the stream to {name} is not up, so how far it is behind is unknown");
        let hint = match flip.is_within {
            true => flip.mend(to),
            false => format!("hafog replicate setup {to}"),
        };
        return Some(refusal("standby-unknown", why, hint));
    }
    let critical = one.database.lag_critical;
    let lag = flip.facts.lag(name).filter(|lag| *lag > critical.0)?;
    let why = format!(
        "{name} is {:.1} s behind, over the critical {critical}",
        lag.as_secs_f64()
    );
    let hint = format!("hafog replicate status {to}");
    Some(refusal("standby-behind", why, hint))
}

/// Forced: what was not replicated before the outage is lost. It is behind if it was behind when the primary was last
/// heard of, not because the primary is silent now.
fn behind_then(flip: &Flip, one: &Move, status: &NodeStatus) -> Option<Refusal> {
    let name = &one.new.name;
    let Some(beat) = &status.heartbeat else {
        let why = format!("{name} has no heartbeat, so how far it was behind is unknown");
        let hint = format!("{} --accept standby-unknown", flip.typed("failover"));
        return Some(refusal("standby-unknown", why, hint));
    };
    let writer = flip.facts.writers.get(&one.database.name)?;
    let behind = writer.beat.as_ref()?.at.duration_since(beat.at);
    // An agent that does not reach the arbiter beats on: the standby knows more than the record then.
    let behind = Duration::try_from(behind).unwrap_or_default();
    let critical = one.database.lag_critical;
    if behind <= critical.0 {
        return None;
    }
    let why = format!(
        "{name} was {:.1} s behind when the primary was last heard of, over the critical {critical}",
        behind.as_secs_f64()
    );
    let hint = format!("{} --accept standby-behind", flip.typed("failover"));
    Some(refusal("standby-behind", why, hint))
}

fn primary(flip: &Flip, one: &Move) -> Option<Refusal> {
    match flip.options.planned {
        true => unreachable(flip, one),
        false => healthy(flip, one).or_else(|| unfenced(flip, one)),
    }
}

fn is_writable(flip: &Flip, one: &Move) -> bool {
    let status = flip.facts.status(&one.old);
    status.is_some_and(|status| status.writable)
}

fn unreachable(flip: &Flip, one: &Move) -> Option<Refusal> {
    if is_writable(flip, one) {
        return None;
    }
    let old = &one.old;
    let why = flip.facts.why_silent(old).unwrap_or("it is not writable");
    let why = format!("{old}: {why}");
    let hint = flip.typed("failover");
    Some(refusal("primary-unreachable", why, hint))
}

fn healthy(flip: &Flip, one: &Move) -> Option<Refusal> {
    let from = flip.from;
    if flip.options.assume_down || !is_writable(flip, one) || !flip.facts.serves(from) {
        return None;
    }
    let why = format!(
        "{} answers and is writable, and {from} passes its health check",
        one.old
    );
    let hint = flip.typed("switchover");
    Some(refusal("primary-healthy", why, hint))
}

fn unfenced(flip: &Flip, one: &Move) -> Option<Refusal> {
    let (from, old) = (flip.from, &one.old);
    let seen = flip.facts.server(from, old).map(|seen| &seen.state);
    // Of a server that exists already no cloud says that it is off.
    let (seals, lists) = (flip.stack.seals(from), flip.facts.lists(from));
    let can_be_proved = match seen {
        None => seals && lists,
        Some(state) => seals || *state == ServerState::Running || state.sleeps(),
    };
    if flip.facts.answers(from) && can_be_proved || flip.facts.status(old).is_some() {
        return None;
    }
    let unproved = lease_will_prove(flip, one).err()?;
    let why = format!(
        "{}, and {unproved}: nothing can prove that it does not write",
        match flip.facts.answers(from) {
            true if seals && !lists => format!(
                "the cloud of {from} shows no server of it at all, so {old} may be where nobody looks"
            ),
            true => format!("{old} does not answer"),
            false => format!("neither the cloud of {from} nor {old} answers"),
        }
    );
    let hint = format!("{} --accept unfenced-primary", flip.typed("failover"));
    Some(refusal("unfenced-primary", why, hint))
}

/// Whether the end of the write lease is a proof. A node that runs stops then, and one that was frozen and goes on
/// later acknowledges nothing, because that needs the node that is promoted.
fn lease_will_prove(flip: &Flip, one: &Move) -> Result<(), String> {
    if flip.stack.self_fence != SelfFence::Strict {
        return Err("`self_fence` is not `strict`".to_owned());
    }
    let new = &one.new.name;
    let writer = flip.facts.writers.get(&one.database.name);
    match writer.is_some_and(|writer| writer.confirmed_by.contains(new)) {
        true => Ok(()),
        false => Err(format!("its commits do not wait for {new}")),
    }
}
