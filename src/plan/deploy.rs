//! `deploy`: builds the new image on both sites and moves the servers to it, one after the other, standby first:
//! what does not come up there never reaches the users.

use super::action::*;
use super::build;
use super::facts::Facts;
use super::safety::not_up;
use super::{Intent, Plan, PlanKind, step};
use crate::model::id::*;
use crate::model::stack::{Job, Stack};

pub fn deploy(stack: &Stack, facts: &Facts) -> Plan {
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
    let mut last: Option<StepName> = None;
    for site in &sites {
        let images = build::images(&mut plan, stack, facts, site);
        for server in stack
            .servers_at(site)
            .filter(|server| matches!(server.job, Job::App))
        {
            let (image, sealed) = &images[&server.recipe];
            let Some(seen) = facts.server(site, &server.name) else {
                continue;
            };
            let Some(current) = seen.image.clone() else {
                continue;
            };
            if current == *image && !is_changing(&seen.tags) {
                continue;
            }
            let change = ChangeImage {
                site: site.clone(),
                server: server.name.clone(),
                from: current.clone(),
                to: image.clone(),
            };
            last = Some(
                plan.push(
                    step(
                        format!("change-image {}", server.name),
                        format!("{} from {current} to {image}", server.name),
                        change.into(),
                    )
                    .after(sealed.iter().cloned().chain(last.clone()))
                    .reversible()
                    .limit(300),
                ),
            );
        }
    }
    plan
}
