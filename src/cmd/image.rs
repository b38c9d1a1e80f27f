//! `hafog image list`: which images are where, and which of them are what the spec makes now.

use serde::Serialize;

use super::{Call, Ended, look};
use crate::exit;
use crate::model::id::{ImageName, RecipeName, SiteName};
use crate::plan::facts::Facts;
use crate::ui::table::Table;

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// List the images of every site
    List,
}

#[derive(Debug, PartialEq, Serialize)]
struct Row {
    site: SiteName,
    image: ImageName,
    /// The recipe that makes this very image now.
    recipe: Option<RecipeName>,
    servers: usize,
    /// Wanted and not there.
    missing: bool,
}

pub async fn run(call: &Call, _: &Verb) -> Ended {
    let session = look::session_with_images(call, "image list").await?;
    let rows = rows(&session.facts);
    call.ui.result(&rows, || text(&rows));
    look::done(session, exit::DONE).await
}

fn rows(facts: &Facts) -> Vec<Row> {
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
        let there = seen.images.iter().map(|image| (image, false));
        let wanted = facts
            .images
            .values()
            .filter(|image| !seen.images.contains(*image));
        for (image, missing) in there.chain(wanted.map(|image| (image, true))) {
            rows.push(Row {
                site: site.clone(),
                image: image.clone(),
                recipe: recipe(image),
                servers: used(image),
                missing,
            });
        }
    }
    rows
}

fn text(rows: &[Row]) -> String {
    let mut table = Table::new(["SITE", "IMAGE", "STATE", "SERVERS"]);
    for row in rows {
        let state = match (&row.recipe, row.missing) {
            (_, true) => "not built".to_owned(),
            (Some(recipe), false) => format!("current `{recipe}`"),
            (None, false) => "old".to_owned(),
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
