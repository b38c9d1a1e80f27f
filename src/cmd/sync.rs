//! `hafog sync`: files are copied all the time; this copies them now, and says whether they are equal.

use super::drive::{Change, Job, drive};
use super::{Call, Ended};
use crate::error::{Fault, Kind};
use crate::model::id::FilesName;
use crate::model::stack::Stack;
use crate::plan::facts::Facts;
use crate::plan::files::{self, Options};
use crate::ui::print::list;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which entry of `files`; all of them if it is left out
    files: Option<FilesName>,
    /// Compare contents by checksum, and copy what is different
    #[arg(long)]
    verify: bool,
    /// Let so many files go that the primary site has no longer
    #[arg(long, value_name = "NUMBER")]
    delete: Option<u64>,
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let options = Options {
        only: args.files.clone(),
        verify: args.verify,
        most_deleted: args.delete,
    };
    let mut verb = "sync".to_owned();
    if let Some(name) = &args.files {
        verb.push_str(&format!(" {name}"));
    }
    let planner = move |stack: &Stack, facts: &Facts| {
        named(stack, options.only.as_ref())?;
        Ok(files::sync(stack, facts, &options))
    };
    drive(call, &args.change, Job::new(verb, Box::new(planner))).await
}

fn named(stack: &Stack, name: Option<&FilesName>) -> Result<(), Fault> {
    let names: Vec<&str> = stack
        .files
        .iter()
        .map(|files| files.name.as_str())
        .collect();
    let fault = match name {
        _ if names.is_empty() => Fault::of(Kind::Usage, "the spec has no `files`"),
        Some(name) if !names.contains(&name.as_str()) => {
            let message = format!(
                "the spec has no files `{name}`, but {}",
                list(&names, "and")
            );
            Fault::of(Kind::Usage, message)
        }
        _ => return Ok(()),
    };
    Err(fault.hint("hafog show spec"))
}
