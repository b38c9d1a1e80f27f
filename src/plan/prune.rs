//! `image prune`: away with images that no recipe makes any longer and no server runs.

use super::build;
use super::facts::Facts;
use super::{Intent, Plan, PlanKind};
use crate::model::id::SiteName;

pub fn prune(facts: &Facts, sites: &[SiteName]) -> Plan {
    let mut plan = Plan::new(
        PlanKind::Converging,
        Intent::Prune {
            sites: sites.to_vec(),
        },
    );
    for site in sites {
        let Some(seen) = facts.sites.get(site) else {
            continue;
        };
        let is_wanted = |image| facts.images.values().any(|wanted| wanted == image);
        let is_used = |image| {
            let mut servers = seen.servers.values();
            servers.any(|server| server.image.as_ref() == Some(image))
        };
        let old = seen.images.iter();
        for image in old.filter(|image| !is_wanted(*image) && !is_used(*image)) {
            plan.push(build::delete_image(site, image));
        }
    }
    plan
}
