//! The first half of `failback`: make the old primary's site a standby again. The second half is a planned switchover.

use super::action::*;
use super::commit::still_provisional;
use super::database::{rejoin as take_back, seed_replica, start_agent};
use super::facts::{Apart, Facts, Seen};
use super::safety::{not_up, refusal};
use super::server::power_on;
use super::{Intent, Plan, PlanKind, step};
use crate::cloud::ServerState;
use crate::db::Divergence;
use crate::model::id::*;
use crate::model::stack::Stack;
use crate::model::units::Bytes;

/// Rejoins `site`. Servers that are gone altogether are `hafog clone`'s work; the plan says so.
pub fn rejoin(stack: &Stack, facts: &Facts, site: &SiteName) -> Plan {
    let mut plan = Plan::new(PlanKind::Converging, Intent::Rejoin { site: site.clone() });
    let Some(roles) = &facts.roles else {
        plan.refusals.push(not_up());
        return plan;
    };
    plan.forecast.notes = apart(stack, facts, site);
    plan.forecast.apart = facts.apart.clone();
    let mut ready = Vec::new();
    for server in stack.servers_at(site) {
        match facts.server(site, &server.name).map(|seen| &seen.state) {
            Some(ServerState::Running) => {}
            Some(state) if state.sleeps() => ready.push(plan.push(power_on(server, state))),
            other => {
                let name = &server.name;
                let why = match other {
                    Some(ServerState::Failed(why)) => format!("{name} is in trouble: {why}"),
                    _ => format!("{name} is gone"),
                };
                plan.refusals
                    .push(refusal("no-standby", why, format!("hafog clone {site}")));
            }
        }
    }
    let mut data = Vec::new();
    for database in &stack.databases {
        let Some(writer) = facts.writer_node(&database.name) else {
            continue;
        };
        let mut nodes = facts.ranked_at(stack, site, database).into_iter();
        let Some(first) = nodes.next() else { continue };
        let rejoined =
            plan.push(take_back(database, site, &first.name, writer).after(ready.clone()));
        data.push(plan.push(start_agent(database, first).after([rejoined.clone()])));
        for replica in nodes {
            let seeded = plan.push(
                seed_replica(database, &first.name, &replica.name, false).after([rejoined.clone()]),
            );
            data.push(plan.push(start_agent(database, replica).after([seeded])));
        }
    }
    let databases = stack.databases.iter();
    let epochs = databases.map(|database| facts.epoch(&database.name));
    let token = SetRoleToken {
        site: site.clone(),
        role: SiteRole::Standby,
        epoch: epochs.max().unwrap_or(1),
    };
    let mut after = ready;
    after.extend(data);
    let token = plan.push(
        step(
            format!("role-token {site}"),
            format!("servers of {site} know that they are standby"),
            token.into(),
        )
        .after(after),
    );
    let healthy = plan.push(
        step(
            format!("await-healthy {site}"),
            format!("wait until {site} answers its health checks"),
            AwaitHealthy { site: site.clone() }.into(),
        )
        .after([token]),
    );
    let mut standbys = roles.standbys.clone();
    if !standbys.contains(site) {
        standbys.push(site.clone());
    }
    let set = SetRoles {
        primary: roles.primary.clone(),
        standbys,
        left_behind: roles
            .left_behind
            .iter()
            .filter(|left| *left != site)
            .cloned()
            .collect(),
        heads: None,
        provisional: still_provisional(stack, roles),
    };
    plan.push(step("set-roles", format!("{site} is a standby site"), set.into()).after([healthy]));
    plan
}

/// What is about to be taken back at a site, in words.
pub(super) fn apart(stack: &Stack, facts: &Facts, site: &SiteName) -> Vec<String> {
    let databases = stack.databases.iter();
    let old = databases.flat_map(|database| facts.old_primaries(stack, database));
    let mut notes = Vec::new();
    for old in old.filter(|old| old.site == *site) {
        let old = &old.name;
        match facts.apart.get(old) {
            None => {}
            Some(Seen::Unknown(why)) => notes.push(format!(
                "whether {old} acknowledged what the primary lacks is unknown: {why}"
            )),
            Some(Seen::Known(apart)) => notes.extend(differences(old, apart)),
        }
    }
    notes
}

fn differences(old: &ServerName, apart: &Apart) -> Vec<String> {
    let (fork, extra) = match &apart.divergence {
        Divergence::None => return Vec::new(),
        Divergence::Unknown { why } => {
            let what = "acknowledged what the primary lacks is unknown";
            return vec![format!("whether {old} {what}: {why}")];
        }
        Divergence::Diverged { fork, extra } => (fork, *extra),
    };
    let extra = Bytes(extra);
    let mut notes = vec![format!(
        "{old} has {extra} of log after {fork} that the primary lacks; a rejoin takes it back"
    )];
    let contents = match &apart.contents {
        Some(Seen::Known(contents)) => contents,
        Some(Seen::Unknown(why)) => {
            notes.push(format!("what is in it is unknown: {why}"));
            return notes;
        }
        None => return notes,
    };
    let span = match (&contents.first_commit, &contents.last_commit) {
        (Some(first), Some(last)) => format!(", from {first} to {last}"),
        _ => String::new(),
    };
    notes.push(match contents.transactions {
        Some(count) => format!("only {old} has {count} transactions, heartbeats included{span}"),
        None => format!("how many transactions only {old} has is unknown"),
    });
    for table in &contents.different {
        let more = table.only_old + table.changed - table.keys.len() as u64;
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        notes.push(format!(
            "{}: {} rows only on {old}, {} that differ: {}{more}",
            table.table,
            table.only_old,
            table.changed,
            table.keys.join(" ")
        ));
    }
    let not = &contents.not_compared;
    notes.extend(not.iter().map(|table| format!("not compared: {table}")));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;
    use crate::plan::preflight::tests::fine;
    use crate::sim::stacks::small;

    /// The same count as after any other move: `hafog role` compares them.
    #[test]
    fn servers_are_told_the_epoch_of_the_writer() {
        let stack = small();
        let mut facts = fine(&stack);
        let roles = facts.roles.as_mut().unwrap();
        roles.left_behind = std::mem::take(&mut roles.standbys);
        roles.serial = 70;
        facts.writers.get_mut(&"main".into()).unwrap().epoch = 5;
        let plan = rejoin(&stack, &facts, &"west".into());
        let told = plan.steps.iter().find_map(|step| match &step.action {
            Action::SetRoleToken(token) => Some(token.epoch),
            _ => None,
        });
        assert_eq!(told, Some(5));
    }
}
