//! `hafog explain`: what a refusal means and whether it may be accepted, and what a check of `preflight` looks at.

use serde::Serialize;

use super::{Call, Ended};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::plan::preflight::{self, CHECKS};
use crate::plan::safety::{self, REFUSALS};
use crate::spec::did_you_mean;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A refusal, or a check of `hafog preflight`; all of them if none is named
    name: Option<String>,
}

#[derive(Serialize)]
struct Explained {
    name: &'static str,
    #[serde(flatten)]
    kind: Kinds,
    about: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Kinds {
    Refusal { waivable: bool },
    Check,
}

pub fn run(call: &Call, args: &Args) -> Ended {
    let refusals = REFUSALS.iter().map(refusal);
    let all: Vec<Explained> = refusals.chain(CHECKS.iter().map(check)).collect();
    let names: Vec<&str> = all.iter().map(|one| one.name).collect();
    if let Some(name) = args.name.as_deref().filter(|name| !names.contains(name)) {
        let message = format!("no refusal and no check is called `{name}`");
        let meant = did_you_mean(name, names.iter().copied());
        return Err(Fault::of(Kind::Usage, message)
            .hint(meant.unwrap_or_else(|| "hafog explain".to_owned()))
            .into());
    }
    let wanted = |one: &Explained| args.name.as_deref().is_none_or(|name| name == one.name);
    let found: Vec<Explained> = all.into_iter().filter(wanted).collect();
    call.ui.result(&found, || {
        let paragraphs: Vec<String> = found.iter().map(paragraph).collect();
        paragraphs.join("\n")
    });
    Ok(exit::DONE)
}

fn refusal(about: &safety::About) -> Explained {
    Explained {
        name: about.name,
        kind: Kinds::Refusal {
            waivable: about.waivable,
        },
        about: about.about,
    }
}

fn check(about: &preflight::About) -> Explained {
    Explained {
        name: about.name,
        kind: Kinds::Check,
        about: about.about,
    }
}

fn paragraph(one: &Explained) -> String {
    let more = match one.kind {
        Kinds::Refusal { waivable: true } => {
            format!("`--accept {}` goes on in spite of it.", one.name)
        }
        Kinds::Refusal { waivable: false } => "Nobody may accept it.".to_owned(),
        Kinds::Check => "`hafog preflight` makes this check.".to_owned(),
    };
    format!("{}\n  {}\n  {more}\n", one.name, one.about)
}
