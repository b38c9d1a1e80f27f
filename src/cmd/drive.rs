//! The one road of every verb that changes something: look, plan, show, check, ask, run, say.
//!
//! `--dry-run` is this road up to "ask"; `resume` enters it after "plan". Nothing is changed before somebody agreed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::interrupt::Interrupts;
use super::open::Images;
use super::unfinished::{self, Found};
use super::{Call, Ended, open, report};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::image::recipe::Versions;
use crate::journal::Silent;
use crate::journal::event::{Opened, Status};
use crate::model::id::{RunId, ServerName, SiteName, StackName};
use crate::model::stack::Stack;
use crate::model::units::Span;
use crate::plan::facts::Facts;
use crate::plan::{Intent, Plan, PlanKind, Refusal, build, safety};
use crate::run::open::{OpenOptions, Session, Unfinished, ways_out};
use crate::run::runner::{End, Left, past_no_return, way_back};
use crate::ui::ask;
use crate::ui::plan as show;
use crate::ui::print::{count, list};
use crate::ui::progress::Progress;

/// An answer that took longer is of a world that may be gone.
const FRESH: Duration = Duration::from_secs(60);
/// Seconds of loss that nobody is asked about again.
const ROUNDED: f64 = 0.1;

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
    let found = match unfinished::find(call).await? {
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
        let looking = unfinished::still(session, found);
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

    /// A plan that somebody is asked about is shown to them also with `--quiet`.
    pub fn show(&self, text: &str) {
        let mut ui = self.call.ui;
        ui.quiet &= self.is_agreed() || !ask::somebody_is_there();
        ui.say(text);
    }

    fn is_agreed(&self) -> bool {
        self.change.yes || self.change.plan.is_some()
    }

    /// `--plan` names this plan, or none.
    fn same_plan(&self, digest: &str) -> Result<(), Fault> {
        match &self.change.plan {
            Some(wanted) if wanted != digest => {
                Err(another(digest, wanted).hint(format!("hafog {} --dry-run", self.verb)))
            }
            _ => Ok(()),
        }
    }

    pub async fn agree(&self, digest: &str, stack: &StackName, severe: bool) -> Result<(), Fault> {
        self.same_plan(digest)?;
        if self.is_agreed() {
            return Ok(());
        }
        if !ask::somebody_is_there() {
            let fault = Fault::of(
                Kind::Consent,
                "nobody agreed to the plan, and nobody can be asked",
            );
            return Err(fault
                .hint(format!("hafog {} --plan {digest}", self.verb))
                .hint(format!("hafog {} --yes", self.verb)));
        }
        let (question, wanted) = match severe {
            true => (
                format!("type `{stack}` to go on:"),
                stack.as_str().to_owned(),
            ),
            false => ("go on? [y/N]".to_owned(), String::new()),
        };
        // The thread that reads stays behind when somebody presses Ctrl-C; the process ends soon after.
        let asked = tokio::task::spawn_blocking(move || ask::ask(&question));
        let asked = self.interrupts.or(asked).await;
        // What was typed, `^C` too, keeps a line of its own.
        let asked = asked.inspect_err(|_| self.call.ui.say("\n"))?;
        let answer = asked.ok().flatten();
        let answer = answer.unwrap_or_default();
        let yes = matches!(answer.to_lowercase().as_str(), "y" | "yes");
        if (severe && answer == wanted) || (!severe && yes) {
            return Ok(());
        }
        Err(Fault::of(
            Kind::Consent,
            "not agreed; the plan was not begun",
        ))
    }
}

impl Road<'_> {
    /// The same verb again, or `resume`: what is left of an unfinished run.
    pub async fn carry_on(&self, session: &Session, opened: &Opened) -> Ended {
        let ui = &self.call.ui;
        let lines = report::read(&session.world.stores, &opened.run).await?.0;
        self.accepts_no_more(opened, &lines)?;
        let text = unfinished_text(opened, &lines, Way::On);
        if self.change.dry_run {
            self.planned(&opened.plan, &opened.digest, "planned", || text);
            self.same_plan(&opened.digest)?;
            return Ok(match self.change.detailed_exitcode {
                true => exit::PENDING,
                false => exit::DONE,
            });
        }
        self.show(&text);
        self.agree(&opened.digest, &session.world.stack.name, false)
            .await?;
        let progress = Arc::new(Progress::new(ui, &opened.plan));
        let stop = &self.interrupts.stop;
        let resumed = session
            .resume(&opened.run, progress.clone(), stop, self.change.parallelism)
            .await;
        progress.finish();
        let (plan, end) = resumed?;
        self.ended(session, &plan, &opened.run, end).await
    }

    /// The sites that a run does not ask are those that it was begun with.
    fn assumes_no_more(&self, opened: &Opened, down: &BTreeSet<SiteName>) -> Result<(), Fault> {
        let Some(site) = down.difference(&opened.assumed_down).next() else {
            return Ok(());
        };
        let verb = opened.plan.intent.verb();
        Err(Fault::refused(format!(
            "run {} of {verb} was begun without `--assume-down {site}`, and asks {site}",
            opened.run
        ))
        .hint("hafog resume")
        .hint(format!(
            "hafog abort, then hafog {} --assume-down {site}",
            opened.plan.intent.typed()
        )))
    }

    /// A run that is carried on accepts what it was begun with: its steps are made for that.
    pub fn accepts_no_more(
        &self,
        opened: &Opened,
        lines: &[crate::journal::event::Line],
    ) -> Result<(), Fault> {
        let mut accept = self.change.accept.iter();
        let Some(name) = accept.find(|name| !opened.accepted.contains(name)) else {
            return Ok(());
        };
        let verb = opened.plan.intent.verb();
        let fault = Fault::refused(format!(
            "run {} of {verb} was begun without `--accept {name}`, and goes on without it",
            opened.run
        ));
        let past = past_no_return(&opened.plan, &added_up(lines));
        let fault = match past {
            true => fault.because("it is past its point of no return: it can only go on"),
            false => {
                let typed = opened.plan.intent.typed();
                fault.hint(format!("hafog abort, then hafog {typed} --accept {name}"))
            }
        };
        Err(fault.hint("hafog resume"))
    }

    /// Says how a run ended. The journal knows more than this process where it was resumed.
    pub async fn ended(&self, session: &Session, plan: &Plan, run: &RunId, end: End) -> Ended {
        let ui = &self.call.ui;
        for fault in session.world.stores.catch_up().await {
            ui.say(&format!("warning: {fault}\n"));
        }
        let read = report::read(&session.world.stores, run).await;
        let past = read
            .as_ref()
            .is_ok_and(|(lines, _)| past_no_return(plan, &added_up(lines)));
        match &read {
            Ok((_, report)) if ui.json => ui.result(report, String::new),
            Ok((_, report)) if matches!(end, End::Done | End::DoneBut(_)) && !ui.events => {
                ui.out(&report.summary())
            }
            _ => {}
        }
        Ok(outcome(plan, run, self.verb, past, end)?)
    }
}

/// What is to be done, with the refusals that no planner knows by itself.
fn planned(session: &Session, planner: &Planner) -> Result<Plan, Fault> {
    let mut plan = planner(&session.world.stack, &session.facts)?;
    let revoked = safety::revoked(&plan, &session.facts);
    plan.refusals.extend(revoked);
    Ok(plan)
}

/// By the wall clock, which also goes on while the machine sleeps with the question on its screen. Stepped far in either
/// direction it costs one more look.
fn is_old(asked: Timestamp, now: Timestamp) -> bool {
    now.duration_since(asked).unsigned_abs() > FRESH
}

fn another(digest: &str, wanted: &str) -> Fault {
    Fault::refused(format!(
        "the world moved: the plan is `{digest}` now, not `{wanted}`"
    ))
}

/// Why what is planned now is not what was agreed to: it does something else, or may lose more.
fn moved(agreed: &Plan, now: &Plan) -> Option<Fault> {
    let (before, digest) = (agreed.digest(), now.digest());
    if before != digest {
        let was = |one: &&Refusal| agreed.refusals.iter().any(|was| was.name == one.name);
        let new = now.refusals.iter().filter(|one| !was(one));
        return Some(new.fold(another(&digest, &before), |fault, one| {
            fault.because(format!("{}: {}", one.name, one.why))
        }));
    }
    let grown = now.forecast.loss.iter().find_map(|loss| {
        let mut before = agreed.forecast.loss.iter();
        let before = before.find(|before| before.database == loss.database)?;
        let limit = before.seconds? + ROUNDED;
        let is_more = loss.seconds.is_none_or(|seconds| seconds > limit);
        is_more.then_some((loss, before))
    });
    grown.map(|(loss, before)| {
        Fault::refused(format!(
            "the world moved: loss: {}: {} now, and {} when it was shown",
            loss.database,
            show::bound(loss),
            show::bound(before)
        ))
    })
}

/// The exit code of an end, or its fault with what to type next. `past`: the point of no return.
pub fn outcome(plan: &Plan, run: &RunId, verb: &str, past: bool, end: End) -> Result<u8, Fault> {
    let again = match plan.kind {
        PlanKind::Converging => format!("hafog {verb}"),
        PlanKind::Directional => "hafog resume".to_owned(),
    };
    let name = plan.intent.verb();
    Err(match end {
        End::Done => return Ok(exit::DONE),
        End::DoneBut(left) => left_behind(name, left),
        End::Unwound(fault) => fault
            .while_doing(format!("{name} failed, and everything was taken back"))
            .with_kind(Kind::Error)
            .hint(format!("hafog show report {run}")),
        End::NothingDone(fault) if fault.kind() == Kind::Refused => fault,
        End::NothingDone(fault) => fault.with_kind(Kind::Error),
        End::Stopped(fault) => {
            let fault = fault.while_doing(format!("{name} stopped with some of it done"));
            let fault = fault.with_kind(Kind::Partial);
            match plan.kind {
                PlanKind::Directional => ways_out(fault, past),
                PlanKind::Converging => fault.hint(again),
            }
        }
        End::Interrupted => Fault::of(
            Kind::Interrupted,
            format!("{name} was interrupted; the journal is sealed"),
        )
        .hint(again),
    })
}

/// The run is closed and cannot be resumed: every step that it left has a command of its own.
fn left_behind(verb: &str, left: Vec<Left>) -> Fault {
    let mut fault = Fault::of(
        Kind::OutOfSync,
        format!("{verb} is done, and {} failed", count(left.len(), "step")),
    );
    let mut mends = BTreeSet::new();
    for one in left {
        fault = fault.because(one.why);
        mends.insert(one.mend);
    }
    mends.into_iter().fold(fault, Fault::hint)
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

/// Refusals that nobody accepted, each with the command that mends it. Accepting what may not be accepted changes nothing.
pub fn refusals(found: &[Refusal], accepted: &[String]) -> Vec<Fault> {
    let open = found
        .iter()
        .filter(|refusal| !refusal.waivable || !accepted.contains(&refusal.name));
    let fault = |refusal: &Refusal| {
        let fault = Fault::refused(format!("{}: {}", refusal.name, refusal.why));
        let accept = format!("--accept {}", refusal.name);
        let fault = match refusal.hint.contains(&accept) {
            true => fault,
            false => fault.hint(&refusal.hint),
        };
        match (refusal.waivable, accepted.contains(&refusal.name)) {
            (true, _) => fault.hint(format!("add `{accept}` to go on in spite of it")),
            (false, true) => fault.because("nobody may accept this one"),
            (false, false) => fault,
        }
    };
    open.map(fault).collect()
}

fn in_the_way(found: &Unfinished) -> Fault {
    let verb = found.plan.intent.verb();
    let fault = Fault::of(
        Kind::Partial,
        format!("run {} of {verb} is not finished", found.run),
    );
    let fault = fault.because(format!("{} began it", found.holder));
    ways_out(fault, found.past_no_return)
}

/// Where an unfinished run is headed.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    On,
    Back,
}

fn added_up(lines: &[crate::journal::event::Line]) -> crate::journal::event::Progress {
    let mut progress = crate::journal::event::Progress::default();
    for line in lines {
        // The journal was verified when it was read.
        let _ = progress.add(&line.event);
    }
    progress
}

/// What is left of a run to do or to undo, as a list.
pub fn unfinished_text(opened: &Opened, lines: &[crate::journal::event::Line], way: Way) -> String {
    let progress = added_up(lines);
    let plan = &opened.plan;
    let over = |step: &&crate::plan::Step| {
        matches!(
            progress.status(&step.name),
            Status::Finished | Status::Skipped
        )
    };
    let done = plan.steps.iter().filter(over).count();
    let (way, left): (_, Vec<_>) = match way {
        Way::On if !progress.unwinding => (
            "goes on",
            plan.steps.iter().filter(|step| !over(step)).collect(),
        ),
        Way::On => ("goes on taking back", way_back(plan, &progress)),
        Way::Back => ("is taken back", way_back(plan, &progress)),
    };
    let mut text = format!(
        "run {} of {} {way}: {done} of {} steps are done, plan {}\n",
        opened.run,
        plan.intent.verb(),
        plan.steps.len(),
        opened.digest
    );
    if left.is_empty() {
        text.push_str("nothing has to be undone\n");
    }
    let names = show::Names::of(&plan.steps);
    for step in left {
        let index = plan.steps.iter().position(|other| other.name == step.name);
        let name = names.column(index.unwrap_or(0), step.name.as_str());
        let undo = if way == "goes on" { "" } else { "undo: " };
        let about = crate::ui::snippet::clean(&step.about);
        text.push_str(&format!("{name}  {undo}{about}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::safety::refusal;
    use crate::ui::snippet;
    use insta::assert_snapshot;

    fn shown(found: &[Refusal], accepted: &[&str]) -> String {
        let accepted: Vec<String> = accepted.iter().map(|name| (*name).to_owned()).collect();
        let faults = refusals(found, &accepted);
        faults
            .iter()
            .map(|fault| snippet::render(fault, false))
            .collect()
    }

    #[test]
    fn a_refusal_is_waived_by_its_name_and_only_if_it_may_be() {
        let found = [
            refusal(
                "unfenced-primary",
                "nothing proves it",
                "hafog failover --accept unfenced-primary",
            ),
            refusal(
                "standby-behind",
                "12.0 s behind",
                "hafog replicate status west",
            ),
            refusal("provisional", "not committed", "hafog commit"),
        ];
        assert_snapshot!(shown(&found, &[]), @r"
        refused: unfenced-primary: nothing proves it
        hint: add `--accept unfenced-primary` to go on in spite of it
        refused: standby-behind: 12.0 s behind
        hint: hafog replicate status west
        hint: add `--accept standby-behind` to go on in spite of it
        refused: provisional: not committed
        hint: hafog commit
        ");
        assert_snapshot!(shown(&found, &["unfenced-primary", "standby-behind", "provisional"]), @r"
        refused: provisional: not committed
        cause: nobody may accept this one
        hint: hafog commit
        ");
        assert_eq!(
            shown(&found[..2], &["unfenced-primary", "standby-behind"]),
            ""
        );
        assert_eq!(refusals(&found, &["standby".to_owned()]).len(), 3);
    }

    #[test]
    fn what_was_agreed_to_holds_as_long_as_it_is_the_same_and_loses_no_more() {
        let plan = |refused: &[&'static str], seconds: Option<f64>| {
            let intent = Intent::Failover {
                from: "east".into(),
                to: "west".into(),
                planned: false,
            };
            let mut plan = Plan::new(PlanKind::Directional, intent);
            let refused = refused.iter().map(|name| refusal(name, "it answers", ""));
            plan.refusals.extend(refused);
            plan.forecast.loss.push(crate::plan::Loss {
                database: "main".to_owned(),
                seconds,
                bytes: Some(0),
                transactions: None,
                because: String::new(),
            });
            plan
        };
        let agreed = plan(&[], Some(2.0));
        let says = |now: &Plan| {
            let text = moved(&agreed, now).map(|fault| snippet::render(&fault, false));
            let text = text.unwrap_or_else(|| "goes on\n".to_owned());
            text.replace(&agreed.digest(), "AGREED")
                .replace(&now.digest(), "NOW")
        };
        let later = [
            plan(&[], Some(2.0)),
            plan(&[], Some(0.5)),
            plan(&[], Some(95.0)),
            plan(&[], None),
            plan(&["primary-healthy"], Some(2.0)),
        ];
        let text: String = later.iter().map(says).collect();
        assert_snapshot!(text, @r"
        goes on
        goes on
        refused: the world moved: loss: main: at most 95.0 s, at least 0B of log now, and at most 2.0 s, at least 0B of log when it was shown
        refused: the world moved: loss: main: unknown, at least 0B of log now, and at most 2.0 s, at least 0B of log when it was shown
        refused: the world moved: the plan is `NOW` now, not `AGREED`
        cause: primary-healthy: it answers
        ");
        assert!(moved(&plan(&[], None), &plan(&[], None)).is_none());
        let at: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        for (seconds, old) in [(0, false), (60, false), (61, true), (-61, true)] {
            let now = at + jiff::SignedDuration::from_secs(seconds);
            assert_eq!(is_old(at, now), old, "{seconds}");
        }
    }

    #[test]
    fn every_refusal_that_stands_alone_stops_the_plan_until_it_is_accepted() {
        for about in crate::plan::safety::REFUSALS {
            let found = [refusal(about.name, "why", "hafog status")];
            assert_eq!(refusals(&found, &[]).len(), 1, "{}", about.name);
            let others = crate::plan::safety::REFUSALS.iter();
            let others = others.filter(|other| other.name != about.name);
            let others: Vec<String> = others.map(|other| other.name.to_owned()).collect();
            assert_eq!(refusals(&found, &others).len(), 1, "{}", about.name);
            let left = refusals(&found, &[about.name.to_owned()]).len();
            assert_eq!(left, usize::from(!about.waivable), "{}", about.name);
        }
    }

    #[test]
    fn every_end_has_its_exit_code_and_the_next_command() {
        let run = RunId::new("20261121T091403-7c1e");
        let fault = || Fault::unavailable("no answer from shop-west-db-1");
        let mut text = String::new();
        for kind in [PlanKind::Directional, PlanKind::Converging] {
            let plan = Plan::new(kind, Intent::Commit);
            let left = Left {
                step: "close-app".into(),
                why: fault().while_doing("step `close-app` failed"),
                mend: "hafog clone east".to_owned(),
            };
            for end in [
                End::Done,
                End::DoneBut(vec![left]),
                End::Unwound(fault()),
                End::NothingDone(fault()),
                End::NothingDone(Fault::refused("step `vet-standby` is blocked")),
                End::Stopped(fault()),
                End::Interrupted,
            ] {
                let ended = outcome(&plan, &run, "commit", false, end);
                let (code, said) = match ended {
                    Ok(code) => (code, String::new()),
                    Err(fault) => (exit::code(fault.kind()), snippet::render(&fault, false)),
                };
                text.push_str(&format!("{said}exit {code}\n\n"));
            }
        }
        assert_snapshot!(text, @r"
        exit 0

        out of sync: commit is done, and 1 step failed
        cause: step `close-app` failed: no answer from shop-west-db-1
        hint: hafog clone east
        exit 6

        error: commit failed, and everything was taken back
        cause: no answer from shop-west-db-1
        hint: hafog show report 20261121T091403-7c1e
        exit 1

        error: no answer from shop-west-db-1
        exit 1

        refused: step `vet-standby` is blocked
        exit 3

        partly done: commit stopped with some of it done
        cause: no answer from shop-west-db-1
        hint: hafog resume
        hint: hafog abort
        exit 4

        interrupted: commit was interrupted; the journal is sealed
        hint: hafog resume
        exit 130

        exit 0

        out of sync: commit is done, and 1 step failed
        cause: step `close-app` failed: no answer from shop-west-db-1
        hint: hafog clone east
        exit 6

        error: commit failed, and everything was taken back
        cause: no answer from shop-west-db-1
        hint: hafog show report 20261121T091403-7c1e
        exit 1

        error: no answer from shop-west-db-1
        exit 1

        refused: step `vet-standby` is blocked
        exit 3

        partly done: commit stopped with some of it done
        cause: no answer from shop-west-db-1
        hint: hafog commit
        exit 4

        interrupted: commit was interrupted; the journal is sealed
        hint: hafog commit
        exit 130
        ");
    }

    #[test]
    fn nobody_is_told_to_go_back_from_where_there_is_only_forward() {
        let plan = Plan::new(PlanKind::Directional, Intent::Commit);
        let stopped = |past| {
            let end = End::Stopped(Fault::unavailable("no answer from shop-west-db-1"));
            let fault = outcome(&plan, &"r".into(), "commit", past, end).unwrap_err();
            fault.hints().join(", ")
        };
        assert_eq!(stopped(false), "hafog resume, hafog abort");
        assert_eq!(stopped(true), "hafog resume");
    }
}
