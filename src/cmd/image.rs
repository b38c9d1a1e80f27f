//! `hafog image`: which images are where, which of them are what the spec makes now, which must not be used any more,
//! and away with the old ones.

mod revoke;
mod show;

use serde::Serialize;

use super::drive::{Change, Job, drive};
use super::open::Images;
use super::{Call, Ended, look, site};
use crate::exit;
use crate::model::id::{ImageName, RecipeName, SiteName};
use crate::model::stack::Stack;
use crate::plan;
use crate::plan::facts::Facts;
use crate::ui::table::Table;

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// List the images of every site
    List,
    /// Say where an image is, who runs it, and what is in it
    Show(show::Args),
    /// Let nothing be started from an image any more
    Revoke(revoke::Args),
    /// Remove images that no recipe makes now and no server runs
    Prune(Prune),
}

#[derive(clap::Args, Debug)]
pub struct Prune {
    /// Sites to look at; all of them if none is named
    #[arg(value_name = "SITE")]
    sites: Vec<SiteName>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, PartialEq, Serialize)]
struct Row {
    site: SiteName,
    image: ImageName,
    /// The recipe that makes this very image now.
    recipe: Option<RecipeName>,
    servers: usize,
    state: State,
    /// Why nothing is to be started from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// Wanted and not there.
    Missing,
    /// Nobody saw it booting.
    Untried,
    Ready,
}

pub async fn run(call: &Call, verb: &Verb) -> Ended {
    match verb {
        Verb::List => list(call).await,
        Verb::Show(args) => show::run(call, args).await,
        Verb::Revoke(args) => revoke::run(call, args).await,
        Verb::Prune(args) => prune(call, args).await,
    }
}

async fn prune(call: &Call, args: &Prune) -> Ended {
    let asked = args.sites.clone();
    let planner = move |stack: &_, facts: &_| {
        let sites = site::some_or_all(stack, &asked)?;
        Ok(plan::prune::prune(facts, &sites))
    };
    let job = Job::new("image prune", Box::new(planner)).makes_images();
    drive(call, &args.change, job).await
}

async fn list(call: &Call) -> Ended {
    let session = look::session_with_images(call, "image list", Images::IfReadable).await?;
    let rows = rows(&session.world.stack, &session.facts);
    call.ui.result(&rows, || text(&rows));
    look::done(session, exit::DONE).await
}

/// Where nothing is sealed, what the servers are.
fn rows(stack: &Stack, facts: &Facts) -> Vec<Row> {
    let mut rows = Vec::new();
    for (site, seen) in &facts.sites {
        let used = |image: &ImageName| {
            let servers = seen.servers.values();
            servers
                .filter(|server| server.image.as_ref() == Some(image))
                .count()
        };
        let recipe = |image: &ImageName| {
            let wanted = facts.images.iter().find(|(_, wanted)| *wanted == image);
            wanted.map(|(recipe, _)| recipe.clone())
        };
        let seals = stack.seals(site);
        let applied = seen
            .servers
            .values()
            .filter_map(|server| server.image.clone());
        let images = match seals {
            true => seen.images.clone(),
            false => applied.collect(),
        };
        let state = |image: &ImageName| match facts.is_untried(site, image) {
            true => State::Untried,
            false => State::Ready,
        };
        let there = images.iter().map(|image| (image, state(image)));
        let wanted = facts
            .images
            .values()
            .filter(|image| seals && !images.contains(*image));
        for (image, state) in there.chain(wanted.map(|image| (image, State::Missing))) {
            rows.push(Row {
                site: site.clone(),
                image: image.clone(),
                recipe: recipe(image),
                servers: used(image),
                state,
                revoked: facts.revoked.get(image).map(|one| one.why.clone()),
            });
        }
    }
    rows
}

fn text(rows: &[Row]) -> String {
    let mut table = Table::new(["SITE", "IMAGE", "STATE", "SERVERS"]);
    for row in rows {
        let state = match (&row.recipe, row.state) {
            (_, State::Missing) => "not built".to_owned(),
            (Some(recipe), State::Untried) => format!("untried `{recipe}`"),
            (Some(recipe), State::Ready) => format!("current `{recipe}`"),
            (None, State::Untried) => "old, untried".to_owned(),
            (None, State::Ready) => "old".to_owned(),
        };
        let state = match &row.revoked {
            Some(why) => format!("{state}, revoked: {why}"),
            None => state,
        };
        table.row([
            row.site.to_string(),
            row.image.to_string(),
            state,
            row.servers.to_string(),
        ]);
    }
    if table.is_empty() {
        "no images\n".to_owned()
    } else {
        table.render("")
    }
}
