//! `hafog explain`: what a refusal means, and whether it may be accepted.

use serde::Serialize;

use super::{Call, Ended};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::plan::safety::{About, REFUSALS};
use crate::spec::did_you_mean;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A refusal; all of them if none is named
    name: Option<String>,
}

#[derive(Serialize)]
struct Explained {
    name: &'static str,
    waivable: bool,
    about: &'static str,
}

pub fn run(call: &Call, args: &Args) -> Ended {
    let wanted = |about: &&About| args.name.as_deref().is_none_or(|name| name == about.name);
    let found: Vec<Explained> = REFUSALS.iter().filter(wanted).map(explained).collect();
    if let (Some(name), []) = (&args.name, found.as_slice()) {
        let fault = Fault::of(Kind::Usage, format!("no refusal is called `{name}`"));
        let meant = did_you_mean(name, REFUSALS.iter().map(|about| about.name));
        return Err(fault
            .hint(meant.unwrap_or_else(|| "hafog explain".to_owned()))
            .into());
    }
    call.ui.result(&found, || {
        let paragraphs: Vec<String> = found.iter().map(paragraph).collect();
        paragraphs.join("\n")
    });
    Ok(exit::DONE)
}

fn explained(about: &About) -> Explained {
    Explained {
        name: about.name,
        waivable: about.waivable,
        about: about.about,
    }
}

fn paragraph(refusal: &Explained) -> String {
    let accept = match refusal.waivable {
        true => format!("`--accept {}` goes on in spite of it.", refusal.name),
        false => "Nobody may accept it.".to_owned(),
    };
    format!("{}\n  {}\n  {accept}\n", refusal.name, refusal.about)
}
