//! `deploy`: builds the new image on both sites and moves the servers to it, a batch after the other, standby first:
//! what does not come up there never reaches the users.

use super::action::*;
use super::build;
use super::facts::Facts;
use super::safety::{lost_writer, not_up};
use super::{Intent, Plan, PlanKind, step};
use crate::model::id::*;
use crate::model::stack::{Job, Server, Stack};

/// How many servers of a group may change at the same time. One of them always stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch(pub usize);

pub fn deploy(stack: &Stack, facts: &Facts, batch: Batch) -> Plan {
    let Some(roles) = &facts.roles else {
        let mut plan = Plan::new(PlanKind::Converging, Intent::Deploy { sites: Vec::new() });
        plan.refusals.push(not_up());
        return plan;
    };
    let sites: Vec<SiteName> = roles
        .standbys
        .iter()
        .chain([&roles.primary])
        .cloned()
        .collect();
    let mut plan = Plan::new(
        PlanKind::Converging,
        Intent::Deploy {
            sites: sites.clone(),
        },
    );
    if let Some(lost) = lost_writer(stack, facts) {
        plan.refusals.push(lost);
        return plan;
    }
    let mut before: Vec<StepName> = Vec::new();
    for site in &sites {
        let images = build::images(&mut plan, stack, facts, site);
        let apps = stack
            .servers_at(site)
            .filter(|server| server.job == Job::App);
        let changes: Vec<(&Server, ChangeImage)> = apps
            .filter_map(|server| {
                let seen = facts.server(site, &server.name)?;
                let (from, to) = (seen.image.clone()?, images[&server.recipe].0.clone());
                let is_unsettled = is_changing(&seen.tags) || awaits_deploy(&seen.tags);
                (from != to || is_unsettled).then(|| {
                    let change = ChangeImage {
                        site: site.clone(),
                        server: server.name.clone(),
                        from,
                        to,
                        configure: !facts.configured.contains(&server.name),
                    };
                    (server, change)
                })
            })
            .collect();
        for group in changes.chunk_by(|(one, _), (other, _)| one.group == other.group) {
            let all = stack.group_at(site, &group[0].0.group).count();
            let at_once = batch.0.min(all - 1).max(1);
            // What an earlier run left out of rotation goes first, so that it is back before others leave.
            let was_cut = |(server, _): &&(&Server, ChangeImage)| {
                let seen = facts.server(site, &server.name);
                seen.is_some_and(|seen| is_changing(&seen.tags))
            };
            let (cut, whole): (Vec<_>, Vec<_>) = group.iter().partition(was_cut);
            for batch in cut.chunks(at_once).chain(whole.chunks(at_once)) {
                let mut now = Vec::new();
                for (server, change) in batch {
                    let sealed = images[&server.recipe].1.iter().cloned();
                    let ChangeImage {
                        from,
                        to,
                        configure,
                        ..
                    } = change;
                    let and = if *configure {
                        ", and its configuration"
                    } else {
                        ""
                    };
                    let alone = match all == 1 && only_there(stack, server) {
                        true => "; it is the only one, so nobody answers meanwhile",
                        false => "",
                    };
                    now.push(
                        plan.push(
                            step(
                                format!("change-image {}", server.name),
                                format!("{} from {from} to {to}{and}{alone}", server.name),
                                change.clone().into(),
                            )
                            .after(sealed.chain(before.iter().cloned()))
                            .reversible()
                            .limit(if stack.seals(site) {
                                300
                            } else {
                                3600
                            }),
                        ),
                    );
                }
                before = now;
            }
        }
    }
    plan
}

/// Whether its group is all that there is behind the balancer.
fn only_there(stack: &Stack, server: &Server) -> bool {
    let balancer = stack.balancer.as_ref();
    balancer.is_some_and(|balancer| balancer.to == server.group && balancer.spare.is_none())
}
