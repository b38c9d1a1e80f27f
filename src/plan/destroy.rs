//! `destroy`: removes sites and everything that hafog made for them.

use super::action::*;
use super::build;
use super::commit::still_provisional;
use super::facts::Facts;
use super::firewall;
use super::safety::refusal;
use super::server::delete_server;
use super::{Intent, Plan, PlanKind, step};
use crate::dns::RecordChange;
use crate::model::id::*;
use crate::model::stack::Stack;

/// Removes `sites`. With the last site go the records, the zones that hafog serves, and the stack's documents.
pub fn destroy(stack: &Stack, facts: &Facts, sites: &[SiteName]) -> Plan {
    let mut plan = Plan::new(
        PlanKind::Converging,
        Intent::Destroy {
            sites: sites.to_vec(),
        },
    );
    let everything = stack.sites.iter().all(|site| sites.contains(&site.name));
    let primary = facts.roles.as_ref().map(|roles| &roles.primary);
    if !everything && primary.is_some_and(|primary| sites.contains(primary)) {
        let primary = primary.expect("just seen");
        let why = format!("{primary} is primary: its users would be cut off and its data lost");
        plan.refusals
            .push(refusal("site-is-primary", why, "hafog switchover"));
    }
    if everything {
        remove_names(&mut plan, stack, facts);
    } else {
        forget_replicas(&mut plan, stack, facts, sites);
    }
    let mut last = Vec::new();
    for site in sites {
        match silence(facts, site) {
            None => last.push(remove_site(&mut plan, facts, site)),
            Some(why) => {
                let why = format!("the cloud of {site} does not answer: {why}");
                plan.refusals
                    .push(refusal("site-silent", why, "hafog status"));
            }
        }
    }
    if everything {
        let databases = stack
            .databases
            .iter()
            .map(|database| database.name.clone())
            .collect();
        let anything = facts.roles.is_some() || !plan.steps.is_empty();
        if anything {
            let last = last.into_iter().flatten();
            plan.push(
                step(
                    "forget-state",
                    "remove the stack's documents; journals stay",
                    ForgetState { databases }.into(),
                )
                .after(last),
            );
        }
        return plan;
    }
    if let Some(roles) = &facts.roles {
        let keep = |list: &[SiteName]| {
            list.iter()
                .filter(|site| !sites.contains(site))
                .cloned()
                .collect::<Vec<_>>()
        };
        let (standbys, left_behind) = (keep(&roles.standbys), keep(&roles.left_behind));
        if standbys != roles.standbys || left_behind != roles.left_behind {
            let set = SetRoles {
                primary: roles.primary.clone(),
                standbys,
                left_behind,
                heads: None,
                // Without the site that it came from there is no way back, and nothing to commit.
                provisional: still_provisional(stack, roles)
                    .filter(|phase| !sites.contains(&phase.from)),
            };
            let last = last.into_iter().flatten();
            plan.push(
                step(
                    "set-roles",
                    "the removed sites are standbys no longer",
                    set.into(),
                )
                .after(last),
            );
        }
    }
    firewall::keep(&mut plan, stack, facts);
    plan
}

fn remove_names(plan: &mut Plan, stack: &Stack, facts: &Facts) {
    for zone in &stack.zones {
        let Some(seen) = facts.zones.get(&zone.name) else {
            continue;
        };
        let owned = |host: &HostName| {
            stack
                .names
                .iter()
                .any(|name| &name.host == host || &name.target == host)
        };
        let records: Vec<WantedRecord> = seen
            .records
            .iter()
            .filter(|set| owned(&set.host))
            .map(|set| {
                WantedRecord::Exactly(RecordChange {
                    host: set.host.clone(),
                    kind: set.kind,
                    before: Some(set.clone()),
                    after: None,
                })
            })
            .collect();
        let mut after = Vec::new();
        if !records.is_empty() {
            let action = SetRecord {
                zone: zone.name.clone(),
                records,
                leases: Vec::new(),
            };
            after.push(plan.push(step(
                format!("remove-record {}", zone.name),
                format!("remove the names of the stack from {}", zone.name),
                action.into(),
            )));
        }
        // Also one that is not served: what a cut destroy or a killed server left of it goes with it.
        if seen.closable.known() == Some(&false) {
            continue;
        }
        plan.push(
            step(
                format!("close-zone {}", zone.name),
                format!("stop serving {}", zone.name),
                CloseZone {
                    zone: zone.name.clone(),
                }
                .into(),
            )
            .after(after),
        );
    }
}

/// A primary that stays must not keep log for replicas that go.
fn forget_replicas(plan: &mut Plan, stack: &Stack, facts: &Facts, sites: &[SiteName]) {
    for database in &stack.databases {
        let Some(writer) = facts.writer_node(&database.name).cloned() else {
            continue;
        };
        let leaving = stack
            .server(&writer)
            .is_some_and(|server| sites.contains(&server.site));
        if leaving {
            continue;
        }
        for site in sites {
            for node in stack.nodes_at(site, database) {
                let action = ForgetReplica {
                    database: database.name.clone(),
                    primary: writer.clone(),
                    replica: node.name.clone(),
                };
                let known = facts
                    .status(&writer)
                    .is_some_and(|status| status.followers.iter().any(|f| f.node == node.name));
                if known {
                    plan.push(step(
                        format!("forget-replica {}", node.name),
                        format!("{writer} keeps nothing for {} any longer", node.name),
                        action.into(),
                    ));
                }
            }
        }
    }
}

fn silence<'a>(facts: &'a Facts, site: &SiteName) -> Option<&'a str> {
    facts.sites.get(site)?.answers.why_unknown()
}

fn remove_site(plan: &mut Plan, facts: &Facts, site: &SiteName) -> Option<StepName> {
    let seen = facts.sites.get(site)?;
    let mut after = Vec::new();
    for server in seen.servers.keys() {
        let about = format!("remove {server} and its data");
        after.push(plan.push(delete_server(site, server, about)));
    }
    let mut gone = after.clone();
    for image in &seen.images {
        gone.push(plan.push(build::delete_image(site, image).after(after.clone())));
    }
    // Servers and images may be gone already and the rest may not: the roles name a site until all of it is.
    let named = facts.roles.as_ref().is_some_and(|roles| {
        let others = roles.standbys.iter().chain(&roles.left_behind);
        others.chain([&roles.primary]).any(|other| other == site)
    });
    if gone.is_empty() && !named && !seen.is_made {
        return None;
    }
    Some(
        plan.push(
            step(
                format!("remove-site {site}"),
                format!("remove what {site} owns besides servers and images"),
                RemoveSite { site: site.clone() }.into(),
            )
            .after(gone),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::preflight::tests::fine;
    use crate::sim::stacks::small;

    #[test]
    fn what_is_left_of_a_site_is_removed_though_its_servers_and_images_are_gone() {
        let stack = small();
        let mut facts = fine(&stack);
        facts.roles = None;
        let west = SiteName::new("west");
        for is_made in [true, false] {
            let seen = facts.sites.get_mut(&west).expect("the west");
            seen.servers.clear();
            seen.images.clear();
            seen.is_made = is_made;
            let mut plan = Plan::new(
                PlanKind::Converging,
                Intent::Destroy {
                    sites: vec![west.clone()],
                },
            );
            assert_eq!(remove_site(&mut plan, &facts, &west).is_some(), is_made);
        }
    }
}
