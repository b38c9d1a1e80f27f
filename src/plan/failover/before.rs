//! The steps up to the promotion: the new site is made ready, then the old one stops.

use super::{Flip, Move};
use crate::model::id::StepName;
use crate::model::record::RecordSet;
use crate::model::stack::Name;
use crate::plan::action::*;
use crate::plan::files;
use crate::plan::names::ensure_zone;
use crate::plan::ttl::slower_for;
use crate::plan::{Plan, Step, step};

/// Whatever can be done while users are still served where they are.
pub(super) fn prepare(plan: &mut Plan, flip: &Flip) {
    plan.push(confirm_outage(flip));
    for one in &flip.moves {
        plan.push(vet_standby(flip, one));
    }
    plan.push(start_servers(flip));
    // First the zones: a name server that is down has no TTL that could be lowered.
    for zone in flip.zones() {
        let open = flip.facts.is_open(&zone.name);
        let open = open.then(|| "it is being served".to_owned());
        plan.push(ensure_zone("ensure-zone", zone).limit(60).skip_if(open));
    }
    for name in &flip.stack.names {
        if let Some(held) = flip.facts.held(name) {
            plan.push(lower_ttl(flip, name, held));
        }
    }
    if flip.copies_files() {
        let (stack, facts) = (flip.stack, flip.facts);
        let copies = files::before_a_move(stack, facts, flip.from, flip.to);
        plan.steps.extend(copies);
    }
}

fn confirm_outage(flip: &Flip) -> Step {
    let planned = flip.options.planned;
    let planned = planned.then(|| "planned: nobody says that it is down".to_owned());
    let look = ConfirmOutage {
        site: flip.from.clone(),
        assumed: flip.options.assume_down,
    };
    let about = format!("look at {} from here", flip.from);
    step("confirm-outage", about, look.into())
        .skip_if(planned)
        .limit(30)
}

pub(super) fn vet_standby(flip: &Flip, one: &Move) -> Step {
    let vet = VetStandby {
        database: one.database.name.clone(),
        node: one.new.name.clone(),
        accepted: flip.options.accept.clone(),
    };
    let about = format!("{} can take over", one.new.name);
    step(
        format!("vet-standby {}", one.database.name),
        about,
        vet.into(),
    )
    .limit(30)
}

fn start_servers(flip: &Flip) -> Step {
    let to = flip.to;
    let ready = flip.facts.serves(to) && !flip.options.planned;
    let reason = ready
        .then(|| format!("{to} answers its health checks already"))
        .or_else(|| flip.accepted_as_it_is());
    let await_healthy = AwaitHealthy { site: to.clone() };
    let about = format!("{to} answers its health checks");
    step("start-servers", about, await_healthy.into())
        .skip_if(reason)
        .limit(60)
}

fn lower_ttl(flip: &Flip, name: &Name, held: &RecordSet) -> Step {
    let lowered = held.ttl <= name.failover_ttl;
    let wait = slower_for(flip.facts, name, held);
    let reason = if flip.options.planned {
        let settled = lowered && wait.is_zero();
        settled.then(|| format!("it is {} already, also in caches", held.ttl))
    } else {
        Some("emergency: it is lowered with the flip".to_owned())
    };
    // Lowered before, by somebody who is to raise it again: only waited for.
    let leased = flip.facts.published.ttl_leases.contains_key(&name.target);
    let lower = SetTtl {
        zone: name.zone.clone(),
        host: name.target.clone(),
        before: held.clone(),
        ttl: name.failover_ttl,
        lease: (leased || !lowered).then_some(flip.stack.commit_window),
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
    match lowered {
        true => lower,
        false => lower.reversible(),
    }
}

/// Every old primary stops before any standby is opened.
pub(super) fn point_of_no_return(plan: &mut Plan, flip: &Flip) {
    for one in &flip.moves {
        let stopped = plan.push(stop_writes(flip, one));
        plan.push(await_replay(flip, one, stopped));
    }
    if flip.copies_files() {
        let (stack, facts) = (flip.stack, flip.facts);
        let copies = files::in_a_move(stack, facts, flip.from, flip.to);
        plan.steps.extend(copies);
    }
    for one in &flip.moves {
        plan.push(promote_standby(one));
    }
}

fn stop_writes(flip: &Flip, one: &Move) -> Step {
    let (old, new) = (&one.old, &one.new.name);
    let how = fencing(flip);
    let about = match how {
        Fencing::Clean => format!("{old} stops cleanly, with everything sent to {new}"),
        Fencing::Ladder => format!("fence {old}, with proof"),
        Fencing::LeaseOnly => format!("wait until the write lease of {old} has expired"),
        Fencing::Accepted => format!("try to fence {old}; going on without proof was accepted"),
    };
    let stop = StopWrites {
        database: one.database.name.clone(),
        node: old.clone(),
        site: flip.from.clone(),
        to: Some(new.clone()),
        epoch: one.epoch,
        how,
    };
    step(
        format!("stop-writes {}", one.database.name),
        about,
        stop.into(),
    )
    .reversible()
    .limit(120)
}

fn fencing(flip: &Flip) -> Fencing {
    let options = flip.options;
    if options.planned {
        Fencing::Clean
    } else if options.accepts("unfenced-primary") {
        Fencing::Accepted
    } else if options.assume_down {
        Fencing::LeaseOnly
    } else {
        Fencing::Ladder
    }
}

fn await_replay(flip: &Flip, one: &Move, of: StepName) -> Step {
    let forced = !flip.options.planned;
    let reason = forced.then(|| "forced: what had not arrived is lost".to_owned());
    let replay = AwaitReplay {
        database: one.database.name.clone(),
        node: one.new.name.clone(),
        of,
    };
    let about = format!("{} has everything that {} had", one.new.name, one.old);
    step(
        format!("await-replay {}", one.database.name),
        about,
        replay.into(),
    )
    .skip_if(reason)
    .limit(60)
}

fn promote_standby(one: &Move) -> Step {
    let promote = PromoteStandby {
        database: one.database.name.clone(),
        node: one.new.name.clone(),
        epoch: one.epoch,
    };
    let about = format!("open {} for writes", one.new.name);
    step(
        format!("promote-standby {}", one.database.name),
        about,
        promote.into(),
    )
    .no_return()
    .limit(120)
}
