//! `hafog image show`: where one image is, who runs it, and what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::{Call, Ended, look};
use super::{Images, Row, State, rows};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::image::sbom::{self, Contents};
use crate::image::shelf::Shelf;
use crate::model::id::{ImageName, RecipeName, ServerName, SiteName};
use crate::model::roles::Revocation;
use crate::plan::facts::Facts;
use crate::ui::table::Table;

/// How many packages that two sites have in different versions are named.
const DIFFERENCES: usize = 10;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// An image, or a recipe: the image that it makes now
    image: ImageName,
}

#[derive(Debug, Serialize)]
struct Shown {
    image: ImageName,
    /// The recipe that makes this very image now.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipe: Option<RecipeName>,
    /// Why nothing is to be started from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Revocation>,
    sites: Vec<At>,
    /// Names and versions, of the first site whose bill of materials is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    contents: Option<Contents>,
    /// Packages that other sites have in another version, or not at all.
    differences: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
struct At {
    site: SiteName,
    state: State,
    servers: Vec<ServerName>,
    /// What its build said.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<PathBuf>,
    /// CycloneDX.
    #[serde(skip_serializing_if = "Option::is_none")]
    sbom: Option<PathBuf>,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let session = look::session_with_images(call, "image show", Images::IfReadable).await?;
    let (world, facts) = (&session.world, &session.facts);
    let by_recipe = facts.images.get(&RecipeName::new(args.image.as_str()));
    let image = by_recipe.unwrap_or(&args.image);
    let mut rows = rows(&world.stack, facts);
    rows.retain(|row| row.image == *image);
    if rows.is_empty() {
        let message = format!("there is no image `{image}`");
        return Err(Fault::of(Kind::Usage, message)
            .hint("hafog image list")
            .into());
    }
    let shown = shown(image, rows, facts, &world.home)?;
    call.ui.result(&shown, || text(&shown));
    look::done(session, exit::DONE).await
}

fn shown(image: &ImageName, rows: Vec<Row>, facts: &Facts, home: &Path) -> Result<Shown, Fault> {
    let recipe = rows.iter().find_map(|row| row.recipe.clone());
    let mut bills: Vec<Contents> = Vec::new();
    let mut sites = Vec::new();
    for row in rows {
        let servers = facts.sites[&row.site].servers.values();
        let servers = servers.filter(|server| server.image.as_ref() == Some(image));
        let shelf = Shelf::of(home, &row.site, image);
        if let Some(bytes) = shelf.read_sbom()? {
            bills.push(sbom::contents(&bytes).ok_or_else(|| {
                Fault::new(format!("cannot understand `{}`", shelf.sbom().display()))
            })?);
        }
        let is_there = |path: &Path| path.exists().then(|| path.to_owned());
        sites.push(At {
            state: row.state,
            servers: servers.map(|server| server.name.clone()).collect(),
            log: is_there(shelf.log()),
            sbom: is_there(shelf.sbom()),
            site: row.site,
        });
    }
    let mut bills = bills.into_iter();
    let contents = bills.next();
    let mut differ = BTreeSet::new();
    if let Some(first) = &contents {
        differ.extend(bills.flat_map(|other| differences(&first.packages, &other.packages)));
    }
    Ok(Shown {
        image: image.clone(),
        recipe,
        revoked: facts.revoked.get(image).cloned(),
        sites,
        differences: differ,
        contents,
    })
}

/// Names of packages that are not the same in both.
fn differences(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ = names.into_iter();
    differ
        .filter(|name| one.get(*name) != other.get(*name))
        .cloned()
        .collect()
}

fn text(shown: &Shown) -> String {
    let now = match &shown.recipe {
        Some(recipe) => format!("what recipe `{recipe}` makes now"),
        None => "made by no recipe now".to_owned(),
    };
    let mut out = format!("{}: {now}\n", shown.image);
    if let Some(Revocation { why, at }) = &shown.revoked {
        out.push_str(&format!("revoked at {at:.0}: {why}\n"));
    }
    out.push('\n');
    let mut table = Table::new(["SITE", "STATE", "SERVERS", "BUILD LOG"]);
    for at in &shown.sites {
        let servers: Vec<&str> = at.servers.iter().map(ServerName::as_str).collect();
        let log = at.log.as_ref();
        table.row([
            at.site.to_string(),
            match at.state {
                State::Missing => "not built",
                State::Untried => "untried",
                State::Ready => "there",
            }
            .to_owned(),
            or_dash(servers.join(" ")),
            or_dash(log.map_or(String::new(), |log| log.display().to_string())),
        ]);
    }
    out.push_str(&table.render(""));
    let Some(contents) = &shown.contents else {
        out.push_str("\nno bill of materials is here: images of whole machines have one, where they were built\n");
        return out;
    };
    let Contents { system, packages } = contents;
    let count = packages.len();
    out.push_str(&format!("\n{count} packages of {system}\n"));
    let mut table = Table::plain();
    for (name, version) in packages {
        table.row([name.clone(), version.clone()]);
    }
    out.push_str(&table.render("  "));
    let more = shown.differences.len().saturating_sub(DIFFERENCES);
    if !shown.differences.is_empty() {
        let named = shown.differences.iter().take(DIFFERENCES);
        let named: Vec<&str> = named.map(String::as_str).collect();
        let named = named.join(", ");
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        out.push_str(&format!("not the same at every site: {named}{more}\n"));
    }
    out
}

fn or_dash(text: String) -> String {
    match text.is_empty() {
        true => "-".to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_differ_between_sites_are_named() {
        let versions = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(name, version)| (name.to_string(), version.to_string()))
                .collect()
        };
        let one = versions(&[("curl", "1"), ("nginx", "1"), ("gone", "1")]);
        let other = versions(&[("curl", "1"), ("nginx", "2"), ("new", "1")]);
        assert_eq!(differences(&one, &other), ["gone", "new", "nginx"]);
        assert_eq!(differences(&one, &one), [""; 0]);
    }
}
