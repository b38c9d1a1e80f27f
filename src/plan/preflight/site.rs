//! Checks of the site: its role, its cloud, its servers and its front door.

use std::collections::BTreeSet;

use super::{Check, fail, not_applicable, pass, tier, unknown};
use crate::cloud::ServerState;
use crate::model::id::*;
use crate::model::stack::{Job, Server, Stack, Tier};
use crate::plan::facts::{Facts, Seen};
use crate::plan::failover;

pub(super) fn standby(facts: &Facts, site: &SiteName) -> Check {
    let name = format!("standby {site}");
    let Some(roles) = &facts.roles else {
        return fail(name, "the stack is not up anywhere", "hafog up");
    };
    if roles.primary == *site {
        return fail(name, "it is the primary site", "hafog status");
    }
    if roles.left_behind.contains(site) {
        let why = "it was left behind by a failover and has not rejoined";
        return fail(name, why, "hafog failback --rejoin-only");
    }
    match roles.standbys.contains(site) {
        true => pass(
            name,
            format!("{} is primary, {site} is a standby", roles.primary),
        ),
        false => fail(name, "it was never made", format!("hafog clone {site}")),
    }
}

pub(super) fn settled(facts: &Facts) -> Check {
    let provisional = facts
        .roles
        .as_ref()
        .and_then(|roles| roles.provisional.as_ref());
    match provisional {
        None => pass("roles", "no flip is provisional"),
        Some(flip) => {
            let why = format!(
                "the flip from {} is provisional until {:.0}",
                flip.from, flip.until
            );
            fail("roles", why, "hafog commit")
        }
    }
}

pub(super) fn answers(facts: &Facts, site: &SiteName) -> Check {
    let name = format!("cloud {site}");
    match facts.sites.get(site).map(|seen| &seen.answers) {
        Some(Seen::Known(())) => pass(name, "it answers"),
        Some(Seen::Unknown(why)) => unknown(name, why, "hafog status"),
        None => unknown(name, "nobody looked", "hafog status"),
    }
}

pub(super) fn images(stack: &Stack, facts: &Facts, site: &SiteName) -> Vec<Check> {
    let recipes: BTreeSet<_> = stack
        .servers_at(site)
        .map(|server| &server.recipe)
        .collect();
    if !stack.seals(site) {
        return recipes_in_place(stack, facts, site);
    }
    let check = |recipe: &RecipeName| {
        let name = format!("image {recipe}");
        let mend = format!("hafog build {site}");
        match facts.images.get(recipe) {
            None => unknown(name, "nobody knows its name", mend),
            Some(_) if !facts.answers(site) => {
                unknown(name, format!("{site} did not answer"), mend)
            }
            Some(image) if facts.revoked.contains_key(image) => fail(
                name,
                format!("{image} is revoked: {}", facts.revoked[image].why),
                format!("hafog image show {image}"),
            ),
            Some(_) if let Some((server, image)) = runs_revoked(stack, facts, site, recipe) => {
                fail(
                    name,
                    format!("{} runs {image}, which is revoked", server.name),
                    match server.job {
                        Job::App => "hafog deploy".to_owned(),
                        // Nothing puts another one under those.
                        _ => format!("hafog image show {image}"),
                    },
                )
            }
            Some(image) if facts.has_image(site, image) => pass(name, format!("{image} is there")),
            Some(image) if facts.is_untried(site, image) => {
                fail(name, format!("nobody saw {image} booting there"), mend)
            }
            Some(image) => fail(name, format!("{image} is not there"), mend),
        }
    };
    if recipes.is_empty() {
        return vec![not_applicable("image", "the spec asks for no server there")];
    }
    recipes.into_iter().map(check).collect()
}

/// A server of the recipe that runs an image which must not be used any more.
fn runs_revoked<'a>(
    stack: &'a Stack,
    facts: &'a Facts,
    site: &'a SiteName,
    recipe: &RecipeName,
) -> Option<(&'a Server, &'a ImageName)> {
    let servers = stack.servers_at(site);
    let mut servers = servers.filter(|server| server.recipe == *recipe);
    servers.find_map(|server| {
        let image = facts.server(site, &server.name)?.image.as_ref()?;
        let revoked = facts.revoked.contains_key(image);
        revoked.then_some((server, image))
    })
}

/// The servers that run while the site is a standby.
fn running<'a>(stack: &'a Stack, site: &'a SiteName) -> impl Iterator<Item = &'a Server> {
    let tier = tier(stack, site);
    stack
        .servers_at(site)
        .filter(move |server| tier.runs(&server.job))
}

/// Where servers have no images: whether each has what its recipe says now. `deploy` changes applications alone.
fn recipes_in_place(stack: &Stack, facts: &Facts, site: &SiteName) -> Vec<Check> {
    let check = |server: &Server| {
        let name = format!("recipe {}", server.name);
        let seen = facts.server(site, &server.name);
        let has = seen.and_then(|seen| seen.image.as_ref());
        match (facts.images.get(&server.recipe), has) {
            (None, _) => unknown(name, "nobody knows its name", "hafog check"),
            (Some(_), _) if !facts.answers(site) => {
                unknown(name, format!("{site} did not answer"), "hafog status")
            }
            (Some(image), None) => fail(
                name,
                format!("{image} was not applied"),
                format!("hafog clone {site}"),
            ),
            (Some(image), Some(has)) if has == image || server.job != Job::App => {
                pass(name, format!("it has {has}"))
            }
            (Some(image), Some(has)) => {
                fail(name, format!("it has {has}, not {image}"), "hafog deploy")
            }
        }
    };
    let checks: Vec<Check> = running(stack, site).map(check).collect();
    match checks.is_empty() {
        true => vec![not_applicable("recipe", "no server runs there")],
        false => checks,
    }
}

pub(super) fn servers(stack: &Stack, facts: &Facts, site: &SiteName) -> Check {
    let name = format!("servers {site}");
    if tier(stack, site) == Tier::Cold {
        return not_applicable(name, "a cold site runs none");
    }
    let wanted: Vec<&ServerName> = running(stack, site).map(|server| &server.name).collect();
    if wanted.is_empty() {
        return not_applicable(name, "the spec asks for none");
    }
    if !facts.answers(site) {
        return unknown(name, format!("{site} did not answer"), "hafog status");
    }
    let runs = |server: &ServerName| {
        let seen = facts.server(site, server);
        seen.is_some_and(|seen| seen.state == ServerState::Running)
    };
    let down: Vec<String> = wanted
        .iter()
        .filter(|server| !runs(server))
        .map(|server| server.to_string())
        .collect();
    match down.as_slice() {
        [] => pass(name, format!("all {} run", wanted.len())),
        down => {
            let why = format!("not running: {}", down.join(", "));
            fail(name, why, format!("hafog clone {site}"))
        }
    }
}

pub(super) fn front_door(stack: &Stack, facts: &Facts, site: &SiteName) -> Check {
    let name = format!("front-door {site}");
    if let Some((why, mend)) = failover::no_servers(stack, facts, site) {
        return match facts.answers(site) {
            true => fail(name, why, mend),
            false => unknown(name, why, mend),
        };
    }
    let dark = matches!(tier(stack, site), Tier::Cold | Tier::PilotLight);
    if dark && stack.names.is_empty() {
        return not_applicable(name, "the spec has no name that would lead there");
    }
    let mend = format!("hafog clone {site}");
    match facts.doors.get(site) {
        Some(Seen::Known(200)) => pass(name, "200"),
        Some(Seen::Known(status)) => fail(name, format!("{status}, not 200"), mend),
        Some(Seen::Unknown(why)) => unknown(name, why, mend),
        None if stack.balancer.is_none() && facts.answers(site) => {
            not_applicable(name, "the stack has no balancer and no health check")
        }
        None => unknown(name, "nobody looked", mend),
    }
}
