//! `hafog files`: what keeps files in step, on the servers themselves. `hafog sync` is for people.

use std::path::PathBuf;

use super::interrupt::Interrupts;
use super::{Call, Ended};
use crate::clock::{Clock, RealClock};
use crate::durable;
use crate::exit;
use crate::files;

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// Copy files again and again from the server that has them
    Keep { folder: PathBuf },
    /// Make folders, links and the way in for the other servers
    Prepare { folder: PathBuf },
    /// Answer another server that comes for files
    Give {
        folder: PathBuf,
        #[arg(long, value_name = "SERVER")]
        to: String,
    },
    /// Be rsync's way to another server
    Way {
        folder: PathBuf,
        name: String,
        epoch: String,
        server: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

pub async fn run(call: &Call, verb: Verb) -> Ended {
    match verb {
        Verb::Keep { folder } => {
            let interrupts = Interrupts::listen(&call.ui);
            let ui = call.ui;
            // Into a file that is read months later.
            let say = move |line: &str| ui.say(&format!("{:.3} {line}", RealClock.now()));
            files::keep(&folder, say, interrupts.asked()).await?;
        }
        Verb::Prepare { folder } => durable::blocking(move || files::prepare(&folder)).await?,
        Verb::Give { folder, to } => files::give(&folder, &to)?,
        Verb::Way {
            folder,
            name,
            epoch,
            server,
            words,
        } => {
            let words: Vec<String> = [name, epoch].into_iter().chain(words).collect();
            files::way(&folder, &server, &words)?;
        }
    }
    Ok(exit::DONE)
}
