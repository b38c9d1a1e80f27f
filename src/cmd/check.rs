//! `hafog check`: mistakes and lints of the spec, without asking anybody anything.

use serde::Serialize;

use super::{Call, Ended, open};
use crate::error::{Fault, Place};
use crate::exit;
use crate::image::recipe;
use crate::spec::{Lint, missing_files};
use crate::ui::print::count;

#[derive(clap::Args, Debug)]
pub struct Args {}

#[derive(Serialize)]
struct Checked {
    file: String,
    mistakes: Vec<Said>,
    lints: Vec<Said>,
}

#[derive(Serialize)]
struct Said {
    name: Option<&'static str>,
    message: String,
    line: Option<usize>,
    column: Option<usize>,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Said {
    fn mistake(fault: &Fault) -> Said {
        Said {
            causes: fault.causes().to_vec(),
            hints: fault.hints().to_vec(),
            ..Said::at(fault.message(), fault.place())
        }
    }

    fn lint(lint: &Lint) -> Said {
        Said {
            name: Some(lint.name),
            hints: vec![lint.hint.clone()],
            ..Said::at(&lint.message, lint.place.as_ref())
        }
    }

    fn at(message: &str, place: Option<&Place>) -> Said {
        Said {
            name: None,
            message: message.to_owned(),
            line: place.map(|place| place.line),
            column: place.map(|place| place.column),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }
}

pub fn run(call: &Call, _: &Args) -> Ended {
    let loaded = open::load(call).and_then(|loaded| {
        let base = open::base(call).map_err(|fault| vec![fault])?;
        let mut bad = missing_files(&loaded.stack, &base);
        if bad.is_empty() {
            bad = recipe::bad_files(&loaded.stack, &base);
        }
        if bad.is_empty() { Ok(loaded) } else { Err(bad) }
    });
    let file = call.file.display().to_string();
    if call.ui.json {
        let checked = Checked {
            file: file.clone(),
            mistakes: loaded
                .as_ref()
                .err()
                .into_iter()
                .flatten()
                .map(Said::mistake)
                .collect(),
            lints: loaded
                .iter()
                .flat_map(|loaded| &loaded.lints)
                .map(Said::lint)
                .collect(),
        };
        call.ui.out(&crate::ui::json::pretty(&checked));
    }
    let loaded = loaded?;
    if !call.ui.json {
        loaded
            .lints
            .iter()
            .for_each(|lint| call.ui.warn(&lint.fault()));
        let stack = &loaded.stack;
        call.ui.out(&format!(
            "{file}: stack `{}` with {} and {}, {}\n",
            stack.name,
            count(stack.sites.len(), "site"),
            count(stack.servers.len(), "server"),
            match loaded.lints.len() {
                0 => "no mistakes".to_owned(),
                lints => format!("no mistakes, {}", count(lints, "warning")),
            }
        ));
    }
    Ok(exit::DONE)
}
