//! `hafog completions`: what a shell needs to complete our command line.

use super::{Call, Ended};
use crate::exit;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// For which shell
    shell: clap_complete::Shell,
}

pub fn run(call: &Call, args: &Args, mut command: clap::Command) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "hafog", &mut script);
    call.ui.out(&String::from_utf8_lossy(&script));
    Ok(exit::DONE)
}
