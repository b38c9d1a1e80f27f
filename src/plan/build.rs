//! `build`: immutable images on every site's cloud. A recipe's digest is in the image's name, so an image that is
//! there is the right one and there is nothing to build.

use std::collections::{BTreeMap, BTreeSet};

use super::action::*;
use super::facts::Facts;
use super::{Action, Intent, Plan, PlanKind, Step, UndoPolicy, step};
use crate::cloud::ServerWant;
use crate::model::id::*;
use crate::model::stack::{Server, Site, Size, Stack};
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
        let ready = if facts.has_image(site, &image) || !stack.seals(site) {
            None
        } else {
            let sealed = match facts.is_untried(site, &image) {
                true => None,
                false => Some(match source(plan, stack, facts, site, &image) {
                    Some(from) => plan.push(copy(stack, site, from, recipe, &image)),
                    None => one(plan, stack, site, recipe, &image),
                }),
            };
            Some(tried(plan, stack, site, recipe, &image, sealed))
        };
        made.insert(recipe.clone(), (image, ready));
    }
    leftovers(plan, stack, facts, site);
    made
}

/// Where the image can be had from: another host of the same cloud, where it is known to work.
fn source<'a>(
    plan: &Plan,
    stack: &'a Stack,
    facts: &Facts,
    site: &SiteName,
    image: &ImageName,
) -> Option<&'a SiteName> {
    let here = stack.site(site).filter(|here| here.copies)?;
    let others = stack
        .sites
        .iter()
        .filter(|other| other.name != *site && other.cloud == here.cloud);
    let (beside, elsewhere): (Vec<_>, Vec<_>) = others.partition(|one| one.region == here.region);
    // A host has a file once: where a neighbour has it already, another one is built.
    let copied = |one: &&Site| {
        let mut steps = plan.steps.iter();
        let is_it = |copy: &CopyImage| copy.site == one.name && copy.image == *image;
        facts.has_image(&one.name, image)
            || steps.any(|step| matches!(&step.action, Action::CopyImage(copy) if is_it(copy)))
    };
    if beside.iter().any(copied) {
        return None;
    }
    let mut elsewhere = elsewhere.into_iter();
    let other = elsewhere.find(|other| facts.has_image(&other.name, image))?;
    Some(&other.name)
}

fn copy(
    stack: &Stack,
    site: &SiteName,
    from: &SiteName,
    recipe: &RecipeName,
    image: &ImageName,
) -> Step {
    step(
        format!("copy-image {image} {site}"),
        format!("copy image {image} from {from} to {site}"),
        CopyImage {
            site: site.clone(),
            from: from.clone(),
            image: image.clone(),
            tags: image_tags(stack, site, recipe),
        }
        .into(),
    )
    .limit(3600)
}

fn image_tags(stack: &Stack, site: &SiteName, recipe: &RecipeName) -> BTreeMap<String, String> {
    let mut tags = tags(stack, site);
    tags.insert("recipe".to_owned(), recipe.to_string());
    tags
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

const CREATE_BUILDER: &str = "create-builder ";

fn builder_name(stack: &Stack, site: &SiteName, recipe: &str) -> String {
    format!("{}-{site}-build-{recipe}", stack.name)
}

fn trial_name(stack: &Stack, site: &SiteName, recipe: &str) -> String {
    format!("{}-{site}-trial-{recipe}", stack.name)
}

/// The servers that a plan makes for a while and would take back: builders, and those on which images are tried.
pub fn temporaries(plan: &Plan) -> Vec<(&SiteName, &ServerName)> {
    let steps = plan.steps.iter();
    let taken_back = steps.filter(|step| step.undo == UndoPolicy::Reverse);
    let temporary = taken_back.filter_map(|step| match &step.action {
        Action::CreateServer(CreateServer { site, want })
            if step.name.as_str().starts_with(CREATE_BUILDER) =>
        {
            Some((site, &want.name))
        }
        Action::TryImage(TryImage { site, trial, .. }) => Some((site, &trial.name)),
        _ => None,
    });
    temporary.collect()
}

/// Removes these.
pub fn clear(servers: &[(SiteName, ServerName)]) -> Plan {
    let sites: BTreeSet<&SiteName> = servers.iter().map(|(site, _)| site).collect();
    let sites = sites.into_iter().cloned().collect();
    let mut plan = Plan::new(PlanKind::Converging, Intent::Build { sites });
    for (site, server) in servers {
        plan.push(delete_builder(site, server, ""));
    }
    plan
}

fn delete_builder(site: &SiteName, server: &ServerName, why: &str) -> Step {
    step(
        format!("delete-builder {server}"),
        format!("remove the temporary server {server}{why}"),
        DeleteServer {
            site: site.clone(),
            server: server.clone(),
        }
        .into(),
    )
}

/// A run that was cut left builders behind, or servers on which images were tried.
fn leftovers(plan: &mut Plan, stack: &Stack, facts: &Facts, site: &SiteName) {
    let Some(seen) = facts.sites.get(site) else {
        return;
    };
    let prefixes = [builder_name(stack, site, ""), trial_name(stack, site, "")];
    let is_temporary = |server: &&ServerName| {
        let mut prefixes = prefixes.iter();
        prefixes.any(|prefix| server.as_str().starts_with(prefix))
    };
    let is_tried = |plan: &Plan, server: &ServerName| {
        let mut steps = plan.steps.iter();
        steps.any(|step| matches!(&step.action, Action::TryImage(one) if one.trial.name == *server))
    };
    for server in seen.servers.keys().filter(is_temporary) {
        let name = StepName::new(format!("delete-builder {server}"));
        if plan.step(&name).is_none() && !is_tried(plan, server) {
            plan.push(delete_builder(
                site,
                server,
                ", which an earlier run left behind",
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

/// A server that is gone when the image is made.
fn temporary(
    stack: &Stack,
    site: &SiteName,
    name: &ServerName,
    recipe: &RecipeName,
    image: &ImageName,
) -> ServerWant {
    let mut tags = tags(stack, site);
    tags.insert(MADE_FOR.to_owned(), image.to_string());
    ServerWant {
        name: name.clone(),
        image: None,
        base: stack.base(recipe),
        size: Size {
            cpu: 1,
            memory: Bytes(1 << 30),
        },
        disk: None,
        open: Vec::new(),
        tags,
    }
}

/// After this step servers may be started from the image.
fn tried(
    plan: &mut Plan,
    stack: &Stack,
    site: &SiteName,
    recipe: &RecipeName,
    image: &ImageName,
    sealed: Option<StepName>,
) -> StepName {
    let name = ServerName::new(trial_name(stack, site, recipe.as_str()));
    let trial = ServerWant {
        image: Some(image.clone()),
        ..temporary(stack, site, &name, recipe, image)
    };
    plan.push(
        step(
            format!("try-image {image} {site}"),
            format!("boot {image} in {site}, and ask its check"),
            TryImage {
                site: site.clone(),
                recipe: recipe.clone(),
                image: image.clone(),
                trial,
            }
            .into(),
        )
        .after(sealed)
        .limit(600)
        .reversible(),
    )
}

fn one(
    plan: &mut Plan,
    stack: &Stack,
    site: &SiteName,
    recipe: &RecipeName,
    image: &ImageName,
) -> StepName {
    let builder = ServerName::new(builder_name(stack, site, recipe.as_str()));
    let want = temporary(stack, site, &builder, recipe, image);
    let created = plan.push(
        step(
            format!("{CREATE_BUILDER}{builder}"),
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
    let sealed = plan.push(
        step(
            format!("seal-image {image} {site}"),
            format!("make image {image} in {site}"),
            SealImage {
                site: site.clone(),
                builder: builder.clone(),
                image: image.clone(),
                tags: image_tags(stack, site, recipe),
            }
            .into(),
        )
        .after([applied])
        .limit(1800),
    );
    plan.push(delete_builder(site, &builder, "").after([sealed.clone()]));
    sealed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::preflight::tests::fine;
    use crate::sim::stacks::small;

    /// Where a new site gets its image from, which the east has: its region, and whether the west has the image.
    fn got(region: &str, west_has_it: bool) -> Option<SiteName> {
        let mut stack = small();
        for (site, region) in stack.sites.iter_mut().zip(["fra", "ams"]) {
            (site.copies, site.region) = (true, Some(region.to_owned()));
        }
        let south = Site {
            name: "south".into(),
            region: Some(region.to_owned()),
            ..stack.sites[1].clone()
        };
        let mut facts = fine(&stack);
        stack.sites.push(south);
        let image = facts.images.values().next().expect("an image").clone();
        if !west_has_it {
            let west = facts.sites.get_mut(&SiteName::new("west"));
            west.expect("the west").images.clear();
        }
        let plan = Plan::new(PlanKind::Converging, Intent::Build { sites: Vec::new() });
        source(&plan, &stack, &facts, &"south".into(), &image).cloned()
    }

    #[test]
    fn an_image_is_copied_to_a_host_that_has_none_of_it() {
        assert_eq!(got("muc", true), Some("east".into()));
        assert_eq!(got("ams", false), Some("east".into()));
        // A host has a file once, whichever of its sites it is for.
        assert_eq!(got("ams", true), None);
    }
}
