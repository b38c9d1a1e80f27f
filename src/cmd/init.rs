//! `hafog init`: a commented spec to start from. Never writes over anything.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::{Call, Ended, open};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::spec;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to start from
    #[arg(long, value_name = "NAME", default_value = "static", value_parser = names())]
    template: String,
    /// What to call the stack; the name of the folder if nothing is said
    #[arg(long, value_name = "STACK")]
    name: Option<String>,
    /// Where to write it; what --file says if nothing is said
    file: Option<PathBuf>,
}

fn names() -> clap::builder::PossibleValuesParser {
    let value =
        |(name, about, _): &spec::Starter| clap::builder::PossibleValue::new(*name).help(*about);
    spec::starters()
        .iter()
        .map(value)
        .collect::<Vec<_>>()
        .into()
}

pub fn run(call: &Call, args: &Args) -> Ended {
    let file = args.file.as_ref().unwrap_or(&call.file);
    let stack = match &args.name {
        Some(name) => name.clone(),
        None => folder_name(file),
    };
    let text = spec::starter(&args.template, &stack).expect("the parser knows the starters");
    let shown = file.display();
    // A name that is no word would make a spec that does not check.
    if let Err(faults) = spec::load_str(&shown.to_string(), &text, &open::known()) {
        let why = faults
            .first()
            .map(|fault| fault.message().to_owned())
            .unwrap_or_default();
        let fault = Fault::of(Kind::Usage, format!("a stack cannot be called `{stack}`"));
        return Err(fault.because(why).hint("hafog init --name shop").into());
    }
    write_new(file, &text)?;
    call.ui.out(&format!(
        "wrote {shown}: stack `{stack}`, starter `{}`\n",
        args.template
    ));
    let named = if shown.to_string() == "hafog.yaml" {
        String::new()
    } else {
        format!(" -f {shown}")
    };
    call.ui.say(&format!("next: hafog check{named}\n"));
    Ok(exit::DONE)
}

fn write_new(file: &PathBuf, text: &str) -> Result<(), Fault> {
    let shown = file.display();
    let opened = OpenOptions::new().write(true).create_new(true).open(file);
    let mut opened = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Fault::new(format!("`{shown}` is there already, and is left as it is"))
                .hint("hafog init OTHER.yaml")
        }
        _ => Fault::new(format!("cannot write `{shown}`")).because(error),
    })?;
    let written = opened
        .write_all(text.as_bytes())
        .and_then(|()| opened.sync_all());
    written.map_err(|error| Fault::new(format!("cannot write `{shown}`")).because(error))
}

/// The folder's name as a stack's name: lower case, with what is no letter or digit turned into `-`.
fn folder_name(file: &std::path::Path) -> String {
    let folder = std::path::absolute(file).ok();
    let folder = folder
        .as_ref()
        .and_then(|file| file.parent()?.file_name()?.to_str());
    let word = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = folder.unwrap_or_default().chars().map(word).collect();
    let name = name.trim_matches(|c: char| c == '-' || c.is_ascii_digit());
    match name.is_empty() || name.len() > 20 {
        true => "shop".to_owned(),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_name_where_it_can() {
        for (file, name) in [
            ("/home/me/Shop/hafog.yaml", "shop"),
            ("/srv/my_app.v2/hafog.yaml", "my-app-v"),
            ("/hafog.yaml", "shop"),
            ("/123/hafog.yaml", "shop"),
        ] {
            assert_eq!(folder_name(std::path::Path::new(file)), name, "{file}");
        }
    }
}
