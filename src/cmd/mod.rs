//! One file a subcommand: its arguments and what it does. Verbs that change something all go through [`drive`].

pub mod agent;
pub mod drive; // the one road of every verb that changes something
pub mod interrupt; // Ctrl-C
pub mod look; // opening for a verb that changes nothing
pub mod open; // spec and registries -> World
pub mod report; // a journal -> what happened, with times
pub mod site; // the site that was meant
pub mod unfinished; // a run that was left in the middle

pub mod build;
pub mod check;
pub mod clone;
pub mod commit;
pub mod completions;
pub mod cron;
pub mod deploy;
pub mod destroy;
pub mod dns;
pub mod explain;
pub mod failback;
pub mod failover;
pub mod files;
pub mod haproxy;
pub mod heal;
pub mod image;
pub mod init;
pub mod local;
pub mod lock;
pub mod preflight;
pub mod replicate;
pub mod resume;
pub mod role;
pub mod rollback;
pub mod schema;
pub mod show;
pub mod status;
pub mod store;
pub mod sync;
pub mod up;

use std::path::PathBuf;

use crate::error::Fault;
use crate::ui::print::Ui;

/// What every verb is given besides its own arguments.
pub struct Call {
    /// The spec.
    pub file: PathBuf,
    pub ui: Ui,
}

/// Everything that is printed at the end. The first fault chooses the exit code.
#[derive(Debug)]
pub struct Faults(pub Vec<Fault>);

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Faults {
        Faults(vec![fault])
    }
}

impl From<Vec<Fault>> for Faults {
    fn from(faults: Vec<Fault>) -> Faults {
        Faults(faults)
    }
}

/// The exit code, or what went wrong.
pub type Ended = Result<u8, Faults>;
