//! `image revoke`: nothing is to be started from an image any more, or it may be again. What runs it runs on.

use super::action::RevokeImage;
use super::facts::Facts;
use super::{Intent, Plan, PlanKind, step};
use crate::model::id::ImageName;

/// `why`: nothing is started from it. `None`: it may be used again.
pub fn revoke(facts: &Facts, image: &ImageName, why: Option<&str>) -> Plan {
    let mut plan = Plan::new(
        PlanKind::Converging,
        Intent::Revoke {
            image: image.clone(),
        },
    );
    let stands = facts.revoked.get(image).map(|one| one.why.as_str());
    if stands != why {
        let about = match why {
            Some(_) => format!("nothing is started from {image} any more"),
            None => format!("servers may be started from {image} again"),
        };
        plan.push(step(
            format!("revoke-image {image}"),
            about,
            RevokeImage {
                image: image.clone(),
                why: why.map(str::to_owned),
            }
            .into(),
        ));
    }
    if why.is_some() {
        let running = facts.sites.values().flat_map(|site| site.servers.values());
        let running = running.filter(|server| server.image.as_ref() == Some(image));
        let names: Vec<&str> = running.map(|server| server.name.as_str()).collect();
        if !names.is_empty() {
            plan.forecast.notes.push(format!(
                "{} run it, and run on: `hafog deploy` replaces it on application servers when their recipe makes another one",
                names.join(", ")
            ));
        }
    }
    plan
}
