//! The one road of every verb that changes something: look, plan, show, check, ask, run, say.
//!
//! `--dry-run` is this road up to "ask"; `resume` enters it after "plan". Nothing is changed before somebody agreed.

mod consent;
mod ended;
mod unfinished;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

pub use consent::refusals;
pub use ended::outcome;
pub use unfinished::{Way, unfinished_text};

use super::interrupt::Interrupts;
use super::open::Images;
use super::unfinished::Found;
use super::{Call, Ended, open};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::image::recipe::Versions;
use crate::journal::Silent;
use crate::model::id::{ServerName, SiteName};
use crate::model::stack::Stack;
use crate::model::units::Span;
use crate::plan::facts::Facts;
use crate::plan::{Intent, Plan, PlanKind, build, safety};
use crate::run::open::{OpenOptions, Session};
use crate::run::runner::End;
use crate::ui::plan as show;
use crate::ui::print::list;
use crate::ui::progress::Progress;

use consent::{is_old, moved};
use unfinished::in_the_way;

/// The flags of every verb that changes something.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Consent and safety")]
pub struct Change {
    /// Show the plan and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// With --dry-run: exit with 2 when there is something to do
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Agree to whatever the plan is
    #[arg(short, long, alias = "auto-approve")]
    pub yes: bool,
    /// Agree to this plan and to no other
    #[arg(long, value_name = "DIGEST")]
    pub plan: Option<String>,
    /// Go on in spite of this refusal; may be repeated
    #[arg(long, value_name = "NAME")]
    pub accept: Vec<String>,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How long to wait for a lease that somebody else holds
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = Span::parse)]
    pub lock_timeout: Span,
    /// How many steps may run at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = parallelism)]
    pub parallelism: usize,
}

fn parallelism(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=256) => Ok(number),
        _ => Err(format!("expected a number from 1 to 256, got `{text}`")),
    }
}

/// Makes the plan from what was seen.
pub type Planner = Box<dyn Fn(&Stack, &Facts) -> Result<Plan, Fault> + Send + Sync>;

/// What one verb wants.
pub struct Job {
    /// As a person types it, with its argument: the hints repeat it.
    pub verb: String,
    pub assume_down: BTreeSet<SiteName>,
    /// What the planner asks of the images that the recipes make now.
    pub images: Images,
    /// Which versions of packages those images have.
    pub versions: Versions,
    /// The planner asks what old primaries have that the current ones lack.
    pub compares: bool,
    /// The planner asks which servers do not do their work.
    pub examines: bool,
    /// The planner asks how much a standby has that has lost its primary.
    pub settles: bool,
    /// Consent is the stack's name, typed.
    pub severe: bool,
    /// One after the other; each is planned from what is true then.
    pub plans: Vec<Planner>,
    /// Whether a directional run of this intent, if it is unfinished, is what the verb is about.
    pub same: Box<dyn Fn(&Intent) -> bool + Send + Sync>,
}

impl Job {
    pub fn makes_images(mut self) -> Job {
        self.images = Images::Needed;
        self
    }

    /// Knows the images by their recipes, where those can be read.
    pub fn names_images(mut self) -> Job {
        self.images = Images::IfReadable;
        self
    }

    pub fn new(verb: impl Into<String>, planner: Planner) -> Job {
        Job {
            verb: verb.into(),
            assume_down: BTreeSet::new(),
            images: Images::Unread,
            versions: Versions::Locked,
            compares: false,
            examines: false,
            settles: false,
            severe: false,
            plans: vec![planner],
            same: Box::new(|_| false),
        }
    }
}

/// What `--json` shows when no run was made.
#[derive(Serialize)]
struct Planned<'a> {
    verb: &'a str,
    outcome: &'a str,
    digest: &'a str,
    /// Steps that would be done.
    pending: usize,
    plan: &'a Plan,
}

/// Takes the whole road.
pub async fn drive(call: &Call, change: &Change, job: Job) -> Ended {
    let without = open::Without {
        images: job.images,
        sites: job.assume_down.clone(),
        versions: job.versions,
    };
    let found = match super::unfinished::find(call).await? {
        Some(found) if found.is_directional() && (job.same)(&found.opened.plan.intent) => {
            Some(found)
        }
        // Whoever asks the stores that the spec names by now would not see it.
        Some(found) if found.is_directional() && found.in_former_stores => {
            return Err(in_the_way(&found.opened).into());
        }
        _ => None,
    };
    let mut options = options(change, &job.verb, &job.assume_down);
    let world = match &found {
        Some(found) => {
            options = found.options(options);
            found.say(call);
            found.world(call)?
        }
        None => open::world(call, &without).await?.0,
    };
    let interrupts = Interrupts::listen(&call.ui);
    let opening = crate::run::open::open(world, &options);
    let mut session = interrupts.or(opening).await??;
    let road = Road {
        call,
        change,
        interrupts: &interrupts,
        verb: &job.verb,
    };
    let ended = road.job(&mut session, &job, found.as_ref()).await;
    close(session, ended).await
}

/// Opens for a verb that changes something.
pub fn options(change: &Change, verb: &str, assume_down: &BTreeSet<SiteName>) -> OpenOptions {
    OpenOptions {
        assume_down: assume_down.clone(),
        lock_timeout: change.lock_timeout.0,
        reason: change.reason.clone(),
        verb: verb.to_owned(),
        take_lease: !change.dry_run,
    }
}

/// Gives the lease back, whatever happened.
pub async fn close(session: Session, ended: Ended) -> Ended {
    let closed = session.close().await;
    match (ended, closed) {
        (Ok(code), Ok(())) => Ok(code),
        (Ok(_), Err(fault)) => Err(fault.into()),
        (Err(faults), Ok(())) => Err(faults),
        (Err(mut faults), Err(fault)) => {
            faults.0.push(fault);
            Err(faults)
        }
    }
}

/// What the stretches of the road share.
pub struct Road<'a> {
    pub call: &'a Call,
    pub change: &'a Change,
    pub interrupts: &'a Interrupts,
    pub verb: &'a str,
}

impl Road<'_> {
    async fn job(&self, session: &mut Session, job: &Job, found: Option<&Found>) -> Ended {
        let looking = super::unfinished::still(session, found);
        if let Some(opened) = self.interrupts.or(looking).await??
            && opened.plan.kind == PlanKind::Directional
        {
            // One that was begun while this command waited for the lease is in the way, whatever it is.
            if found.is_none() {
                return Err(in_the_way(&opened).into());
            }
            self.assumes_no_more(&opened, &job.assume_down)?;
            return self.carry_on(session, &opened).await;
        }
        let last = job.plans.len() - 1;
        let mut code = exit::DONE;
        for (index, planner) in job.plans.iter().enumerate() {
            if index > 0 {
                self.interrupts.or(session.observe_again()).await??;
            }
            self.look_closer(session, job, index).await?;
            let plan = planned(session, planner)?;
            let refused = refusals(&plan.refusals, &self.change.accept);
            if plan.is_empty() && refused.is_empty() {
                if index == last && code == exit::DONE {
                    self.nothing_to_do(&plan, index > 0);
                }
                continue;
            }
            code = self.one(session, job, index, &plan, refused).await?;
            if self.change.dry_run {
                break;
            }
        }
        Ok(code)
    }

    /// What the verb asks besides, before its plan is made.
    async fn look_closer(
        &self,
        session: &mut Session,
        job: &Job,
        index: usize,
    ) -> Result<(), Fault> {
        if job.compares && index == 0 {
            self.compare(session).await?;
        }
        if job.settles
            && let unsettled = session.unsettled()
            && !unsettled.is_empty()
        {
            let names = list(&unsettled, "and");
            self.call.ui.say(&format!(
                "waiting: {names} still reads what it has, as a promotion would wait for\n"
            ));
            self.interrupts.or(session.settle(&unsettled)).await??;
        }
        if job.examines {
            self.interrupts.or(session.examine()).await?;
        }
        Ok(())
    }

    /// Starts an old primary that did not stop cleanly, and leaves it as it was found: that is not to be cut.
    async fn compare(&self, session: &mut Session) -> Result<(), Fault> {
        let comparing = self.interrupts.or_after(session.compare());
        let told = async {
            self.interrupts.asked().await;
            self.call.ui.say(
                "stopping: first the old primary is compared and left as it was found (a second Ctrl-C leaves it started)\n",
            );
            std::future::pending::<()>().await;
        };
        tokio::select! {
            compared = comparing => compared,
            () = told => Ok(()),
        }
    }

    fn nothing_to_do(&self, plan: &Plan, after_another: bool) {
        if after_another && self.call.ui.json {
            return;
        }
        self.planned(plan, &plan.digest(), "nothing-to-do", || {
            let notes = plan.forecast.notes.iter();
            let notes: String = notes.map(|note| format!("note: {note}\n")).collect();
            format!("{}: nothing to do\n{notes}", plan.intent.verb())
        });
    }

    /// The plan as `--json`, or `text`, on stdout.
    fn planned(&self, plan: &Plan, digest: &str, outcome: &str, text: impl FnOnce() -> String) {
        let planned = Planned {
            verb: plan.intent.verb(),
            outcome,
            digest,
            pending: plan.steps.iter().filter(|step| step.skip.is_none()).count(),
            plan,
        };
        match self.call.ui.events {
            true => self.call.ui.out(&crate::ui::json::line(&planned)),
            false => self.call.ui.result(&planned, text),
        }
    }

    async fn one(
        &self,
        session: &mut Session,
        job: &Job,
        index: usize,
        plan: &Plan,
        refused: Vec<Fault>,
    ) -> Ended {
        let name = &session.world.stack.name.clone();
        let ui = &self.call.ui;
        // Made once: it reads the whole plan.
        let digest = plan.digest();
        if !refused.is_empty() {
            if ui.json || ui.events {
                self.planned(plan, &digest, "refused", String::new);
            } else if !plan.steps.is_empty() {
                ui.say(&show::render(name.as_str(), plan, &digest, ui.colour_err));
            }
            return Err(refused.into());
        }
        if self.change.dry_run {
            self.planned(plan, &digest, "planned", || {
                show::render(name.as_str(), plan, &digest, ui.colour_out)
            });
            self.same_plan(&digest)?;
            return Ok(match self.change.detailed_exitcode {
                true => exit::PENDING,
                false => exit::DONE,
            });
        }
        let missing = unreadable(session, plan);
        if !missing.is_empty() {
            return Err(missing.into());
        }
        self.show(&show::render(name.as_str(), plan, &digest, ui.colour_err));
        let asked = session.world.clock.now();
        self.agree(&digest, name, job.severe).await?;
        if is_old(asked, session.world.clock.now()) {
            self.still_so(session, job, index, plan).await?;
        }
        let progress = Arc::new(Progress::new(ui, plan));
        let accepted = &self.change.accept;
        let stop = &self.interrupts.stop;
        let (run, end) = session
            .execute(
                plan,
                accepted,
                progress.clone(),
                stop,
                self.change.parallelism,
            )
            .await;
        progress.finish();
        let cleared = match &end {
            End::Stopped(_) => self.clear_away(session, plan).await,
            _ => Ok(()),
        };
        let mut ended = self.ended(session, plan, &run, end).await;
        if let (Err(faults), Err(fault)) = (&mut ended, cleared) {
            faults.0.push(fault);
        }
        ended
    }

    /// The answer took long: what was agreed to must still be what there is to do.
    async fn still_so(
        &self,
        session: &mut Session,
        job: &Job,
        index: usize,
        agreed: &Plan,
    ) -> Result<(), Fault> {
        self.call
            .ui
            .say("looking again: what the plan was made from is more than a minute old\n");
        self.interrupts.or(session.observe_again()).await??;
        self.look_closer(session, job, index).await?;
        let now = planned(session, &job.plans[index])?;
        match moved(agreed, &now) {
            None => Ok(()),
            Some(fault) => Err(fault.hint(format!("hafog {}", self.verb))),
        }
    }

    /// Servers that were made for a while and are of no use to a run that stopped: somebody may pay for them.
    async fn clear_away(&self, session: &Session, plan: &Plan) -> Result<(), Fault> {
        // Whoever has the lease now may have made servers of the same names.
        if !session.may_act().await {
            return Ok(());
        }
        let temporaries = build::temporaries(plan);
        let mut left = Vec::new();
        for (site, server) in temporaries {
            // What does not answer now is found by the next build.
            if let Ok(Some(_)) = session.world.find(site, server).await {
                left.push((site.clone(), server.clone()));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let plan = build::clear(&left);
        let stop = &self.interrupts.stop;
        let (_, end) = session
            .execute(&plan, &[], Arc::new(Silent), stop, self.change.parallelism)
            .await;
        let names: Vec<&ServerName> = left.iter().map(|(_, server)| server).collect();
        let names = list(&names, "and");
        match end {
            End::Done => {
                self.call.ui.say(&format!(
                    "removed again: {names} (`hafog build --keep-on-failure` leaves what failed)\n"
                ));
                Ok(())
            }
            _ => Err(Fault::new(format!("left behind: {names}")).hint("hafog build")),
        }
    }
}

/// What is to be done, with the refusals that no planner knows by itself.
fn planned(session: &Session, planner: &Planner) -> Result<Plan, Fault> {
    let mut plan = planner(&session.world.stack, &session.facts)?;
    let revoked = safety::revoked(&plan, &session.facts);
    plan.refusals.extend(revoked);
    Ok(plan)
}

/// Secrets that the plan delivers and that cannot be read here.
fn unreadable(session: &Session, plan: &Plan) -> Vec<Fault> {
    let world = &session.world;
    let secrets = plan.secrets(&world.stack);
    let read = |name: &String| {
        let doing = format!("the plan needs the secret `{name}`");
        let fault = world.secrets.read(name).err()?;
        Some(fault.while_doing(doing).with_kind(Kind::Spec))
    };
    secrets.iter().filter_map(read).collect()
}
