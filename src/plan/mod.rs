//! Plans: pure data. A planner takes the resolved stack and the facts, and returns what will be done, complete
//! enough that execution has nothing left to decide. No I/O, no clock, no randomness in this folder: time arrives
//! in the facts.

pub mod action;
pub mod build;
pub mod commit;
mod database;
pub mod deploy;
pub mod destroy;
mod entry;
pub mod facts;
pub mod failover;
pub mod files;
mod firewall;
pub mod heal;
mod loss;
mod names;
pub mod preflight;
pub mod prune;
pub mod rejoin;
pub mod revoke;
pub mod safety;
pub mod scale;
mod server;
pub mod ttl;
pub mod up;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::digest::hex;
use crate::model::id::{ImageName, ServerName, SiteName, StepName};
use crate::model::stack::{Job, Stack};
use crate::model::units::Span;
pub use action::Action;
pub use safety::Refusal;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub kind: PlanKind,
    pub intent: Intent,
    pub steps: Vec<Step>,
    /// Non-empty means "not as it stands".
    pub refusals: Vec<Refusal>,
    /// What is expected, measured when the plan was made. Not part of the digest.
    pub forecast: Forecast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanKind {
    /// The goal is fixed. After a crash: look again, plan again.
    Converging,
    /// The list of steps is fixed. After a crash: carry on with the same list.
    Directional,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb")]
pub enum Intent {
    Build {
        sites: Vec<SiteName>,
    },
    Up {
        site: SiteName,
    },
    Clone {
        site: SiteName,
    },
    Deploy {
        sites: Vec<SiteName>,
    },
    Replicate {
        site: SiteName,
    },
    LowerTtl {
        window: Span,
    },
    RestoreTtl,
    Failover {
        from: SiteName,
        to: SiteName,
        planned: bool,
    },
    /// A node of the primary site takes over from another one there.
    Takeover {
        site: SiteName,
        from: ServerName,
        to: ServerName,
        planned: bool,
    },
    Commit,
    Rollback {
        from: SiteName,
        to: SiteName,
    },
    Rejoin {
        site: SiteName,
    },
    Destroy {
        sites: Vec<SiteName>,
    },
    Prune {
        sites: Vec<SiteName>,
    },
    Revoke {
        image: ImageName,
    },
    Heal {
        sites: Vec<SiteName>,
    },
    Scale {
        sites: Vec<SiteName>,
    },
    Sync,
}

impl Intent {
    /// Sites that a heading names: verbs that a person may type without saying where.
    pub fn sites(&self) -> &[SiteName] {
        match self {
            Intent::Build { sites }
            | Intent::Deploy { sites }
            | Intent::Destroy { sites }
            | Intent::Prune { sites }
            | Intent::Heal { sites }
            | Intent::Scale { sites } => sites,
            _ => &[],
        }
    }

    /// The verb with where it leads, as a person types it.
    pub fn typed(&self) -> String {
        let verb = self.verb();
        match self {
            Intent::Failover { to, .. } => format!("{verb} {to}"),
            Intent::Takeover { to, .. } => format!("{verb} {to}"),
            Intent::Revoke { image } => format!("{verb} {image}"),
            _ => verb.to_owned(),
        }
    }

    /// The verb as a person types it.
    pub fn verb(&self) -> &'static str {
        match self {
            Intent::Build { .. } => "build",
            Intent::Up { .. } => "up",
            Intent::Clone { .. } => "clone",
            Intent::Deploy { .. } => "deploy",
            Intent::Replicate { .. } => "replicate setup",
            Intent::LowerTtl { .. } => "dns lower",
            Intent::RestoreTtl => "dns restore",
            Intent::Failover { planned: true, .. } | Intent::Takeover { planned: true, .. } => {
                "switchover"
            }
            Intent::Failover { planned: false, .. } | Intent::Takeover { planned: false, .. } => {
                "failover"
            }
            Intent::Commit => "commit",
            Intent::Rollback { .. } => "rollback",
            Intent::Rejoin { .. } => "failback (rejoin)",
            Intent::Destroy { .. } => "destroy",
            Intent::Prune { .. } => "image prune",
            Intent::Revoke { .. } => "image revoke",
            Intent::Heal { .. } => "heal",
            Intent::Scale { .. } => "scale",
            Intent::Sync => "sync",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Stable, shown, journaled, grep-able; unique in its plan.
    pub name: StepName,
    /// One line for people, with the actual names in it.
    pub about: String,
    pub action: Action,
    /// Converging plans run as a graph. Directional ones are a list, and this is empty.
    pub after: Vec<StepName>,
    pub undo: UndoPolicy,
    /// Set: the step does not apply, and this is why. It is listed all the same.
    pub skip: Option<String>,
    pub limit: Span,
    #[serde(default, skip_serializing_if = "OnFailure::stops")]
    pub on_failure: OnFailure,
}

/// What becomes of the run when the step fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The run does not go on.
    #[default]
    Stop,
    /// It goes on, and its end says what was left and which command does it.
    GoOn { mend: String },
}

impl OnFailure {
    fn stops(&self) -> bool {
        *self == OnFailure::Stop
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoPolicy {
    /// Undone when the run unwinds.
    Reverse,
    /// Harmless; stays.
    Leave,
    /// From here on only forward. Counts as passed when the step is journaled as started.
    PointOfNoReturn,
}

/// Measurements that are shown with a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    pub loss: Vec<Loss>,
    /// When the last honest cache would have moved, if the records were changed now.
    pub effective_after: Option<Span>,
    pub notes: Vec<String>,
    /// What each old primary has and the current one lacks, before a rejoin takes it back.
    #[serde(default)]
    pub apart: std::collections::BTreeMap<crate::model::id::ServerName, facts::Seen<facts::Apart>>,
}

/// An upper bound on what a failover loses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    pub database: String,
    /// `None` is *unknown*, never zero.
    pub seconds: Option<f64>,
    /// Bytes of log that are known to exist and not to be on the standby.
    pub bytes: Option<u64>,
    /// Transactions that are known to exist and not to be on the standby.
    #[serde(default)]
    pub transactions: Option<u64>,
    pub because: String,
}

impl Plan {
    pub fn new(kind: PlanKind, intent: Intent) -> Plan {
        Plan {
            kind,
            intent,
            steps: Vec::new(),
            refusals: Vec::new(),
            forecast: Forecast::default(),
        }
    }

    /// Over intent, steps and the names of the refusals; never over measurements.
    pub fn digest(&self) -> String {
        let refusals: Vec<&str> = self
            .refusals
            .iter()
            .map(|refusal| refusal.name.as_str())
            .collect();
        let named = (&self.kind, &self.intent, &self.steps, refusals);
        let mut hashing = Hashing(Sha256::new());
        let buffered = std::io::BufWriter::with_capacity(16 << 10, &mut hashing);
        serde_json::to_writer(buffered, &named).expect("a plan serialises");
        hex(&hashing.0.finalize())[..16].to_owned()
    }

    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.skip.is_some())
    }

    /// Adds a step and returns its name. Directional plans leave `after` empty.
    pub fn push(&mut self, step: Step) -> StepName {
        let name = step.name.clone();
        self.steps.push(step);
        name
    }

    pub fn step(&self, name: &StepName) -> Option<&Step> {
        self.steps.iter().find(|step| &step.name == name)
    }

    /// Names of the secrets that its steps deliver. They are asked for before the first step, so that a missing one
    /// does not stop a run in the middle.
    pub fn secrets(&self, stack: &Stack) -> BTreeSet<String> {
        let mut wanted = BTreeSet::new();
        let passwords = || {
            stack
                .databases
                .iter()
                .filter_map(|one| one.password.clone())
        };
        for step in self.steps.iter().filter(|step| step.skip.is_none()) {
            match &step.action {
                Action::ConfigureServer(action) => {
                    let is_app = stack
                        .server(&action.server)
                        .is_some_and(|server| server.job == Job::App);
                    if is_app {
                        wanted.extend(stack.secrets.keys().cloned().chain(passwords()));
                    }
                }
                Action::ChangeImage(action) if !action.configure => {}
                Action::LeadApps(_) | Action::ChangeImage(_) => {
                    wanted.extend(stack.secrets.keys().cloned().chain(passwords()));
                }
                Action::CreateDatabase(action) => wanted.extend(
                    stack
                        .database(&action.database)
                        .and_then(|database| database.password.clone()),
                ),
                _ => {}
            }
        }
        wanted
    }

    /// Broken invariants of a planner; a test runs it over every plan, and the runner refuses a plan that has any.
    pub fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        let mut seen = BTreeSet::new();
        for step in &self.steps {
            for before in &step.after {
                if !seen.contains(before) {
                    flaws.push(format!(
                        "`{}` waits for `{before}`, which is not before it",
                        step.name
                    ));
                }
            }
            if !seen.insert(step.name.clone()) {
                flaws.push(format!("two steps are called `{}`", step.name));
            }
            if self.kind == PlanKind::Directional && !step.after.is_empty() {
                flaws.push(format!(
                    "`{}` of a directional plan names what it comes after",
                    step.name
                ));
            }
        }
        flaws
    }
}

/// Builds a step; the fluent form keeps the planners readable as lists.
pub fn step(name: impl Into<String>, about: impl Into<String>, action: Action) -> Step {
    Step {
        name: StepName::new(name),
        about: about.into(),
        action,
        after: Vec::new(),
        undo: UndoPolicy::Leave,
        skip: None,
        limit: Span(Duration::from_secs(120)),
        on_failure: OnFailure::Stop,
    }
}

impl Step {
    pub fn after(mut self, names: impl IntoIterator<Item = StepName>) -> Step {
        self.after.extend(names);
        self
    }
    pub fn reversible(mut self) -> Step {
        self.undo = UndoPolicy::Reverse;
        self
    }
    /// Nothing of it is undone.
    pub fn stays(&mut self) {
        self.undo = UndoPolicy::Leave;
    }
    pub fn is_no_return(&self) -> bool {
        self.undo == UndoPolicy::PointOfNoReturn
    }

    pub fn no_return(mut self) -> Step {
        self.undo = UndoPolicy::PointOfNoReturn;
        self
    }
    pub fn limit(mut self, secs: u64) -> Step {
        self.limit = Span::secs(secs);
        self
    }
    /// The move is over without it: `mend` is what to type when it fails.
    pub fn may_fail(mut self, mend: impl Into<String>) -> Step {
        self.on_failure = OnFailure::GoOn { mend: mend.into() };
        self
    }
    pub fn skip_if(mut self, reason: Option<String>) -> Step {
        self.skip = reason;
        self
    }
}

/// A plan of ten thousand servers is many megabytes of JSON, which nobody needs at once.
struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
