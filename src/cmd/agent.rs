//! `hafog agent`: started on a database server by its service.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::interrupt::Interrupts;
use super::{Call, Ended};
use crate::agent::{self, AgentConfig, AgentPorts};
use crate::clock::{Clock, RealClock};
use crate::cloud::local::shell::LocalShell;
use crate::db::keys::{Keys, Pair};
use crate::db::{AGENT_ROLE, Reach, registry};
use crate::error::Fault;
use crate::exit;
use crate::shell::Shell;
use crate::shell::here::Here;
use crate::shell::systemd::Systemd;
use crate::state::{self, StateStore};

/// Runs until it is told to stop.
pub async fn run(call: &Call, path: &Path) -> Ended {
    let interrupts = Interrupts::listen(&call.ui);
    let ui = call.ui;
    // Into a file that is read months later.
    let say = move |line: &str| ui.say(&format!("{:.3} {line}", RealClock.now()));
    let (config, ports) = open(path, Box::new(say))?;
    agent::run(config, ports, interrupts.asked()).await?;
    Ok(exit::DONE)
}

type Log = Box<dyn Fn(&str) + Send + Sync>;

fn open(path: &Path, log: Log) -> Result<(AgentConfig, AgentPorts), Fault> {
    let config: AgentConfig = serde_json::from_slice(&read(path)?).map_err(|error| {
        Fault::new(format!(
            "`{}` is no configuration of an agent",
            path.display()
        ))
        .because(error)
    })?;
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let pair = Pair {
        cert_pem: text(folder.join("agent.crt"))?,
        key_pem: text(folder.join("agent.key"))?,
    };
    let keys = Keys::of_role(AGENT_ROLE, text(folder.join("ca.crt"))?, pair);
    let engine = registry::find(&config.database.engine)
        .ok_or_else(|| Fault::new(format!("there is no engine `{}`", config.database.engine)))?;
    let ports = AgentPorts {
        store: arbiter(&config, &folder),
        engine: (engine.open)(),
        reach: Reach {
            shell: shell(&config),
            keys: Arc::new(keys),
        },
        clock: Arc::new(RealClock),
        log,
    };
    Ok((config, ports))
}

fn arbiter(config: &AgentConfig, folder: &Path) -> Arc<dyn StateStore> {
    let identity = folder.join(agent::ARBITER_KEY);
    let place = Path::new(&config.arbiter);
    state::open(place, config.arbiter_at.as_ref(), Some(&identity))
}

fn shell(config: &AgentConfig) -> Arc<dyn Shell> {
    match config.machine {
        true => Arc::new(Systemd::new(Arc::new(Here))),
        false => Arc::new(LocalShell::here(&config.host)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path)
        .map_err(|error| Fault::new(format!("cannot read `{}`", path.display())).because(error))
}

fn text(path: PathBuf) -> Result<String, Fault> {
    String::from_utf8(read(&path)?)
        .map_err(|error| Fault::new(format!("`{}` is no text", path.display())).because(error))
}
