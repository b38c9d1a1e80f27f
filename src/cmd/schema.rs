//! `hafog schema`: the JSON Schema of the spec, for editors.

use super::{Call, Ended, open};
use crate::{exit, spec};

#[derive(clap::Args, Debug)]
pub struct Args {}

pub fn run(call: &Call, _: &Args) -> Ended {
    call.ui
        .out(&crate::ui::json::pretty(&spec::schema(&open::known())));
    Ok(exit::DONE)
}
