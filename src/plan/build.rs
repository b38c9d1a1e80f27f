//! `build`: immutable images on every site's cloud. A recipe's digest is in the image's name, so an image that is
//! there is the right one and there is nothing to build.

use std::collections::{BTreeMap, BTreeSet};

use super::action::*;
use super::facts::Facts;
use super::{Intent, Plan, PlanKind, Step, step};
use crate::cloud::ServerWant;
use crate::model::id::*;
use crate::model::stack::{Server, Size, Stack};
use crate::model::units::Bytes;

/// Images of every recipe that the sites' servers use.
pub fn build(stack: &Stack, facts: &Facts, sites: &[SiteName]) -> Plan {
    let mut plan = Plan::new(
        PlanKind::Converging,
        Intent::Build {
            sites: sites.to_vec(),
        },
    );
    for site in sites {
        images(&mut plan, stack, facts, site);
    }
    plan
}

/// Adds the steps that make the site's missing images. For each recipe: the image, and the step after which it is
/// there (`None`: it is there now).
pub(super) fn images(
    plan: &mut Plan,
    stack: &Stack,
    facts: &Facts,
    site: &SiteName,
) -> BTreeMap<RecipeName, (ImageName, Option<StepName>)> {
    let recipes: BTreeSet<&RecipeName> = stack
        .servers_at(site)
        .map(|server| &server.recipe)
        .collect();
    let mut made = BTreeMap::new();
    for recipe in recipes {
        let image = facts.images[recipe].clone();
        let sealed = if facts.has_image(site, &image) || !stack.seals(site) {
            None
        } else {
            Some(one(plan, stack, site, recipe, &image))
        };
        made.insert(recipe.clone(), (image, sealed));
    }
    leftovers(plan, stack, facts, site);
    made
}

pub(super) fn delete_image(site: &SiteName, image: &ImageName) -> Step {
    step(
        format!("delete-image {image} {site}"),
        format!("remove image {image} from {site}"),
        DeleteImage {
            site: site.clone(),
            image: image.clone(),
        }
        .into(),
    )
}

/// Puts a recipe into a server that has no image.
pub(super) fn apply(server: &Server, image: &ImageName) -> Step {
    step(
        format!("apply-recipe {}", server.name),
        format!("put recipe `{}` into {}", server.recipe, server.name),
        ApplyRecipe {
            site: server.site.clone(),
            builder: server.name.clone(),
            recipe: server.recipe.clone(),
            image: image.clone(),
        }
        .into(),
    )
    .limit(1800)
}

fn builder_name(stack: &Stack, site: &SiteName, recipe: &str) -> String {
    format!("{}-{site}-build-{recipe}", stack.name)
}

/// A run that was cut between sealing an image and removing its builder left the builder behind.
fn leftovers(plan: &mut Plan, stack: &Stack, facts: &Facts, site: &SiteName) {
    let Some(seen) = facts.sites.get(site) else {
        return;
    };
    let prefix = builder_name(stack, site, "");
    for server in seen
        .servers
        .keys()
        .filter(|server| server.as_str().starts_with(&prefix))
    {
        let name = StepName::new(format!("delete-builder {server}"));
        if plan.step(&name).is_none() {
            let about =
                format!("remove the temporary server {server}, which an earlier run left behind");
            plan.push(step(
                name.as_str(),
                about,
                DeleteServer {
                    site: site.clone(),
                    server: server.clone(),
                }
                .into(),
            ));
        }
    }
}

/// The tag that says for which image a server was made: a builder that is left over from another recipe is not used.
pub const MADE_FOR: &str = "made-for";

/// Tags that every server and image of a stack carries: what hafog owns is known by them.
pub(super) fn tags(stack: &Stack, site: &SiteName) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("stack".to_owned(), stack.name.to_string()),
        ("site".to_owned(), site.to_string()),
    ])
}

fn one(
    plan: &mut Plan,
    stack: &Stack,
    site: &SiteName,
    recipe: &RecipeName,
    image: &ImageName,
) -> StepName {
    let builder = ServerName::new(builder_name(stack, site, recipe.as_str()));
    let mut builder_tags = tags(stack, site);
    builder_tags.insert(MADE_FOR.to_owned(), image.to_string());
    let want = ServerWant {
        name: builder.clone(),
        image: None,
        size: Size {
            cpu: 1,
            memory: Bytes(1 << 30),
        },
        open: Vec::new(),
        tags: builder_tags,
    };
    let created = plan.push(
        step(
            format!("create-builder {builder}"),
            format!("start a temporary server for image {image} in {site}"),
            CreateServer {
                site: site.clone(),
                want,
            }
            .into(),
        )
        .reversible(),
    );
    let applied = plan.push(
        step(
            format!("apply-recipe {builder}"),
            format!("put recipe `{recipe}` into {builder}"),
            ApplyRecipe {
                site: site.clone(),
                builder: builder.clone(),
                recipe: recipe.clone(),
                image: image.clone(),
            }
            .into(),
        )
        .after([created])
        .limit(1800),
    );
    let mut image_tags = tags(stack, site);
    image_tags.insert("recipe".to_owned(), recipe.to_string());
    let sealed = plan.push(
        step(
            format!("seal-image {image} {site}"),
            format!("make image {image} in {site}"),
            SealImage {
                site: site.clone(),
                builder: builder.clone(),
                image: image.clone(),
                tags: image_tags,
            }
            .into(),
        )
        .after([applied])
        .limit(1800),
    );
    plan.push(
        step(
            format!("delete-builder {builder}"),
            format!("remove the temporary server {builder}"),
            DeleteServer {
                site: site.clone(),
                server: builder,
            }
            .into(),
        )
        .after([sealed.clone()]),
    );
    sealed
}
