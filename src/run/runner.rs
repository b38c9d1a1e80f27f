//! The runner: one loop for running, resuming and unwinding.
//!
//! Each step is checked before and after it acts, so a resume is the ordinary path: what is true already is passed
//! over. Converging plans run as a graph, directional ones as a list.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, Notify, oneshot};

use super::lease::Held;
use crate::error::{Fault, Kind, Trouble};
use crate::journal::Journal;
use crate::journal::event::{Event, How, Outcome, Progress, Status, Trace, World as WorldIs};
use crate::model::id::{RunId, StepName};
use crate::plan::{Intent, OnFailure, Plan, PlanKind, Step, UndoPolicy};
use crate::step::{Act, Context, Standing, behaviour};
use crate::world::World;

/// How long `check` is repeated when it cannot say anything, and after an act whose fate is unknown.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
const CHECK_PAUSE: Duration = Duration::from_millis(100);
/// How long the world may take to show what was done.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// An act that waits knows its step's limit itself, and what it waited for: it has so long to say it.
const GRACE: Duration = Duration::from_secs(2);
/// A step whose first act did nothing for sure is tried again this often.
const ATTEMPTS: u32 = 2;
/// For how long what comes behind a move is tried again: nobody waits for it, and it would be left to somebody who has to
/// type its command.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug)]
pub enum End {
    Done,
    /// What it was for is done; these steps failed, and nothing after them needed them.
    DoneBut(Vec<Left>),
    /// It failed before the point of no return and everything was taken back.
    Unwound(Fault),
    /// It stopped with something done. Resume it.
    Stopped(Fault),
    /// It stopped before anything was done.
    NothingDone(Fault),
    Interrupted,
}

/// A step that failed without stopping its run.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    pub step: StepName,
    pub why: Fault,
    /// The command that does it.
    pub mend: String,
}

/// Set by Ctrl-C.
#[derive(Default)]
pub struct Stop {
    asked: AtomicBool,
    wake: Notify,
}

impl Stop {
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.wake.notify_waiters();
    }
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
    async fn asked(&self) {
        loop {
            let wake = self.wake.notified();
            if self.is_asked() {
                return;
            }
            wake.await;
        }
    }
}

pub struct Runner<'a> {
    pub world: &'a World,
    pub lease: &'a Held,
    pub stop: &'a Stop,
    pub parallelism: usize,
}

/// What steps that run at the same time have to say: whoever gets the journal writes it for all, with one sync.
#[derive(Default)]
struct Together(std::sync::Mutex<Vec<Waiting>>);

/// What somebody has to say, and whom to tell that it is written.
type Waiting = (Event, oneshot::Sender<Result<(), Fault>>);

impl Together {
    /// Durable when it returns.
    async fn say(&self, journal: &Mutex<Journal>, event: Event) -> Result<(), Fault> {
        let (tell, mut told) = oneshot::channel();
        self.waiting().push((event, tell));
        let mut journal = journal.lock().await;
        if let Ok(written) = told.try_recv() {
            // What others have to say since then may still become more.
            return written;
        }
        let waiting = std::mem::take(&mut *self.waiting());
        let (events, tellers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        for (result, tell) in journal.add_all(events).await.into_iter().zip(tellers) {
            // Somebody who is gone does not need to know.
            let _ = tell.send(result);
        }
        drop(journal);
        told.await
            .unwrap_or_else(|_| Err(Fault::new("nobody wrote the journal's line")))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

/// Why one step did not finish.
enum Halt {
    /// The step did not act.
    Blocked(Fault),
    Failed(Trouble),
    Interrupted,
    /// The journal or the lease failed: not even that can be written down.
    Lost(Fault),
}

impl Runner<'_> {
    /// Runs what the journal says is left of the plan.
    pub async fn run(&self, plan: &Plan, journal: Journal) -> (End, Journal) {
        let run = journal.run.clone();
        let journal = Mutex::new(journal);
        let end = self.all(plan, &run, &journal).await;
        (end, journal.into_inner())
    }

    async fn all(&self, plan: &Plan, run: &RunId, journal: &Mutex<Journal>) -> End {
        if journal.lock().await.progress.unwinding {
            let why = Fault::new("the run was being unwound when it was interrupted");
            return self.unwind(plan, run, journal, why).await;
        }
        let (halts, left) = self.steps(plan, run, journal).await;
        let Some(halt) = worst(halts) else {
            let closed = Event::Closed {
                outcome: Outcome::Done,
            };
            return match journal.lock().await.add(closed).await {
                Ok(()) if left.is_empty() => End::Done,
                Ok(()) => End::DoneBut(left),
                Err(fault) => End::Stopped(fault),
            };
        };
        self.halted(plan, run, journal, halt).await
    }

    async fn halted(&self, plan: &Plan, run: &RunId, journal: &Mutex<Journal>, halt: Halt) -> End {
        let (fault, can_go_back) = match halt {
            Halt::Interrupted => {
                let sealed = journal
                    .lock()
                    .await
                    .add(Event::Paused {
                        why: "interrupted".to_owned(),
                    })
                    .await;
                return match sealed {
                    Ok(()) => End::Interrupted,
                    Err(fault) => End::Stopped(fault),
                };
            }
            Halt::Lost(fault) => return End::Stopped(fault),
            Halt::Blocked(fault) | Halt::Failed(Trouble::NothingChanged(fault)) => (fault, true),
            // Unknown may not be unwound on: what may have happened could be undone half.
            Halt::Failed(Trouble::Unknown(fault)) => (fault, false),
            // What was done half can be taken back, if the step that did it has a way back.
            Halt::Failed(Trouble::Partial(fault)) => {
                let progress = &journal.lock().await.progress;
                (fault, half_can_go_back(plan, progress))
            }
        };
        let (touched, past) = {
            let progress = &journal.lock().await.progress;
            (progress.has_changed(), past_no_return(plan, progress))
        };
        if past || touched && !goes_back(plan) {
            return End::Stopped(fault);
        }
        if touched {
            return match can_go_back {
                true => self.unwind(plan, run, journal, fault).await,
                false => End::Stopped(fault),
            };
        }
        let _ = journal
            .lock()
            .await
            .add(Event::Closed {
                outcome: Outcome::Unwound,
            })
            .await;
        End::NothingDone(fault)
    }

    /// Starts every step whose predecessors are done, as many at once as the plan's kind allows.
    async fn steps(
        &self,
        plan: &Plan,
        run: &RunId,
        journal: &Mutex<Journal>,
    ) -> (Vec<Halt>, Vec<Left>) {
        let width = if plan.kind == PlanKind::Directional {
            1
        } else {
            self.parallelism.max(1)
        };
        let mut done: BTreeSet<&StepName> = BTreeSet::new();
        let mut left: Vec<&Step> = Vec::new();
        {
            let progress = &journal.lock().await.progress;
            for step in &plan.steps {
                match progress.status(&step.name) {
                    Status::Finished | Status::Skipped => drop(done.insert(&step.name)),
                    _ => left.push(step),
                }
            }
        }
        let together = Together::default();
        let mut running = FuturesUnordered::new();
        let mut halts = Vec::new();
        let mut failed = Vec::new();
        loop {
            while halts.is_empty() && running.len() < width {
                let next = match plan.kind {
                    PlanKind::Directional => (!left.is_empty() && running.is_empty()).then_some(0),
                    PlanKind::Converging => left
                        .iter()
                        .position(|step| step.after.iter().all(|name| done.contains(name))),
                };
                let Some(index) = next else { break };
                let step = left.remove(index);
                let patient = may_fail(step) && left.iter().all(|later| may_fail(later));
                let patience = if patient { PATIENCE } else { Duration::ZERO };
                let one = self.one(step, patience, run, journal, &together);
                running.push(async move { (step, one.await) });
            }
            match running.next().await {
                None => return (halts, failed),
                Some((step, Ok(()))) => drop(done.insert(&step.name)),
                Some((step, Err(halt))) => match may_go_on(step, halt) {
                    Ok(left) => {
                        done.insert(&step.name);
                        failed.push(left);
                    }
                    Err(halt) => halts.push(halt),
                },
            }
        }
    }

    async fn one(
        &self,
        step: &Step,
        patience: Duration,
        run: &RunId,
        journal: &Mutex<Journal>,
        together: &Together,
    ) -> Result<(), Halt> {
        if self.stop.is_asked() {
            return Err(Halt::Interrupted);
        }
        let say = async |event: Event| together.say(journal, event).await.map_err(Halt::Lost);
        let name = || step.name.clone();
        if let Some(reason) = &step.skip {
            return say(Event::Finished {
                step: name(),
                how: How::Skipped,
                evidence: reason.clone(),
            })
            .await;
        }
        let context = Context {
            world: self.world,
            step,
            run,
            journal,
        };
        let act = behaviour(&step.action);
        let clock = &self.world.clock;
        let (mut attempt, mut pause, mut half) = (0, CHECK_PAUSE, false);
        let first = clock.elapsed();
        let again = |attempt| attempt < ATTEMPTS || clock.elapsed() - first < patience;
        loop {
            attempt += 1;
            let standing = tokio::select! {
                standing = self.check(act, &context, CHECK_LIMIT.max(patience)) => standing,
                () = self.stop.asked() => return Err(Halt::Interrupted),
            };
            match standing {
                Ok(Standing::Done(evidence)) => {
                    return say(Event::Finished {
                        step: name(),
                        how: How::AlreadyTrue,
                        evidence,
                    })
                    .await;
                }
                Ok(Standing::Blocked { why, refusal }) => {
                    say(Event::Blocked {
                        step: name(),
                        why: why.clone(),
                    })
                    .await?;
                    return Err(Halt::Blocked(blocked(step, &why, refusal)));
                }
                Ok(Standing::Ready) => {}
                Err(fault) => {
                    let fault = fault.while_doing(format!(
                        "step `{}` cannot see whether it is needed",
                        step.name
                    ));
                    let trouble = match self.is_half_done(step, journal).await {
                        true => Trouble::Unknown(fault),
                        false => Trouble::NothingChanged(fault),
                    };
                    say(failed(step, &trouble)).await?;
                    return Err(Halt::Failed(trouble));
                }
            }
            // A look may take long, and this process may have slept in it.
            self.lease.still_ours().await.map_err(Halt::Lost)?;
            say(Event::Started { step: name() }).await?;
            let began = clock.elapsed();
            match self.act(act, &context, &mut half).await {
                Ok(evidence) => {
                    return say(Event::Finished {
                        step: name(),
                        how: How::Acted,
                        evidence,
                    })
                    .await;
                }
                Err(Halt::Failed(Trouble::NothingChanged(fault)))
                    if again(attempt)
                        && is_passing(&fault)
                        // What waited for most of its limit would only make it two limits.
                        && clock.elapsed() - began < step.limit.0 / 2 =>
                {
                    tokio::select! {
                        () = clock.sleep(pause) => {}
                        () = self.stop.asked() => return Err(Halt::Interrupted),
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(Halt::Failed(trouble)) => {
                    let trouble = match trouble {
                        Trouble::NothingChanged(fault) if half && may_go_back(step) => {
                            Trouble::Partial(fault)
                        }
                        trouble => trouble,
                    };
                    say(failed(step, &trouble)).await?;
                    return Err(Halt::Failed(trouble.map(|fault| {
                        fault.while_doing(format!("step `{}` failed", step.name))
                    })));
                }
                Err(halt) => return Err(halt),
            }
        }
    }

    /// Whether a process that is gone was in the middle of the step, and what it left can be taken back.
    async fn is_half_done(&self, step: &Step, journal: &Mutex<Journal>) -> bool {
        let left = journal.lock().await.progress.left_by(&step.name);
        may_go_back(step) && left == Some(Trace::Something)
    }

    /// Acts within the step's limit, and says how it is known that the step is done. `half`: it is not, and nobody knows
    /// whether a part of it is.
    async fn act(
        &self,
        act: &dyn Act,
        context: &Context<'_>,
        half: &mut bool,
    ) -> Result<String, Halt> {
        // Who stops waiting holds the journal: what is dropped is not in the middle of a line then.
        let stopped = async {
            let is_over = tokio::select! {
                () = tokio::time::sleep(context.step.limit.0 + GRACE) => true,
                () = self.stop.asked() => false,
            };
            (is_over, context.journal.lock().await)
        };
        let acted = tokio::select! {
            acted = act.act(context) => Some(acted),
            (is_over, _journal) = stopped => match is_over {
                true => None,
                false => return Err(Halt::Interrupted),
            },
        };
        let fault = match acted {
            Some(Ok(())) => None,
            Some(Err(Trouble::Unknown(fault))) => Some(fault),
            Some(Err(trouble)) => return Err(Halt::Failed(trouble)),
            None => Some(Fault::unavailable(format!(
                "not done within {}",
                context.step.limit
            ))),
        };
        // Done or not is for the world to say, not for the reply.
        let mut standing = self.check(act, context, CHECK_LIMIT).await;
        if fault.is_none() {
            standing = self.settle(standing, act, context).await;
        }
        match (standing, fault) {
            (Ok(Standing::Done(evidence)), _) => Ok(evidence),
            (Ok(Standing::Ready), Some(fault)) => {
                *half = true;
                Err(Halt::Failed(Trouble::NothingChanged(fault)))
            }
            (Ok(Standing::Ready), None) => {
                Err(Halt::Failed(Trouble::Partial(Fault::new(format!(
                    "it was done, and yet the world did not show it within {} s",
                    SETTLE_LIMIT.as_secs()
                )))))
            }
            // What failed, and what that has made of the world.
            (Ok(Standing::Blocked { why, refusal: None }), Some(fault)) => {
                Err(Halt::Failed(Trouble::Partial(fault.because(why))))
            }
            (Ok(Standing::Blocked { why, refusal }), _) => Err(Halt::Failed(Trouble::Partial(
                blocked(context.step, &why, refusal),
            ))),
            (Err(check), Some(fault)) => Err(Halt::Failed(Trouble::Unknown(fault.because(check)))),
            (Err(check), None) => Err(Halt::Failed(Trouble::Unknown(check))),
        }
    }

    /// What was done may show a little later: a stream breaks once and comes back, a cloud's list lags behind.
    async fn settle(
        &self,
        mut standing: Result<Standing, Fault>,
        act: &dyn Act,
        context: &Context<'_>,
    ) -> Result<Standing, Fault> {
        let clock = &self.world.clock;
        let give_up = clock.elapsed() + SETTLE_LIMIT.min(context.step.limit.0);
        let mut pause = CHECK_PAUSE;
        while matches!(standing, Ok(Standing::Ready)) && clock.elapsed() < give_up {
            clock.sleep(pause).await;
            pause *= 2;
            standing = self.check(act, context, CHECK_LIMIT).await;
        }
        standing
    }

    /// Repeats a check that cannot say anything, for a while.
    async fn check(
        &self,
        act: &dyn Act,
        context: &Context<'_>,
        limit: Duration,
    ) -> Result<Standing, Fault> {
        let clock = &self.world.clock;
        let give_up = clock.elapsed() + limit.min(context.step.limit.0);
        loop {
            match tokio::time::timeout(CHECK_LIMIT, act.check(context)).await {
                Ok(Ok(standing)) => return Ok(standing),
                Ok(Err(fault))
                    if clock.elapsed() >= give_up || fault.kind() != Kind::Unavailable =>
                {
                    return Err(fault);
                }
                Err(_) if clock.elapsed() >= give_up => {
                    return Err(Fault::unavailable(format!(
                        "no answer within {} s",
                        CHECK_LIMIT.as_secs()
                    )));
                }
                Ok(Err(_)) | Err(_) => clock.sleep(CHECK_PAUSE).await,
            }
        }
    }

    /// Takes back what was done, last first. A failed undo is a loud final state, and is tried again by a resume.
    pub async fn unwind(
        &self,
        plan: &Plan,
        run: &RunId,
        journal: &Mutex<Journal>,
        why: Fault,
    ) -> End {
        let back = way_back(plan, &journal.lock().await.progress);
        for step in back {
            let say = async |event: Event| journal.lock().await.add(event).await;
            if let Err(fault) = self.lease.still_ours().await {
                return End::Stopped(fault);
            }
            if let Err(fault) = say(Event::Undoing {
                step: step.name.clone(),
            })
            .await
            {
                return End::Stopped(fault);
            }
            let context = Context {
                world: self.world,
                step,
                run,
                journal,
            };
            let undone =
                tokio::time::timeout(step.limit.0, behaviour(&step.action).undo(&context)).await;
            let undone = undone.unwrap_or_else(|_| {
                Err(Trouble::Unknown(Fault::unavailable(format!(
                    "not undone within {}",
                    step.limit
                ))))
            });
            let said = match undone {
                Ok(evidence) => {
                    say(Event::Undone {
                        step: step.name.clone(),
                        evidence,
                    })
                    .await
                }
                Err(trouble) => {
                    let fault = trouble
                        .fault()
                        .clone()
                        .while_doing(format!("step `{}` could not be undone", step.name));
                    let _ = say(Event::UndoFailed {
                        step: step.name.clone(),
                        why: fault.to_string(),
                    })
                    .await;
                    Err(fault.because(format!("it was being undone because {why}")))
                }
            };
            if let Err(fault) = said {
                return End::Stopped(fault);
            }
        }
        match journal
            .lock()
            .await
            .add(Event::Closed {
                outcome: Outcome::Unwound,
            })
            .await
        {
            Ok(()) => End::Unwound(why),
            Err(fault) => End::Stopped(fault),
        }
    }
}

/// The steps that have to be undone, in the order in which they are. One whose fate is unknown is included: undo is
/// idempotent.
pub fn way_back<'a>(plan: &'a Plan, progress: &Progress) -> Vec<&'a Step> {
    let mut back: Vec<&Step> = plan
        .steps
        .iter()
        .filter(|step| undo_due(step, progress))
        .collect();
    let order = |step: &Step| {
        let mut begun = progress.begun.iter();
        begun.position(|(name, _)| name == &step.name)
    };
    back.sort_by_key(|step| std::cmp::Reverse(order(step)));
    back
}

fn undo_due(step: &Step, progress: &Progress) -> bool {
    may_go_back(step) && progress.left_by(&step.name).is_some()
}

fn may_go_back(step: &Step) -> bool {
    step.undo == UndoPolicy::Reverse
}

/// Whether a failure takes back what was done before it. What converges is gone on with instead, except a release: one
/// half of the servers with the new one and one half with the old is what nobody tested.
fn goes_back(plan: &Plan) -> bool {
    plan.kind == PlanKind::Directional || matches!(plan.intent, Intent::Deploy { .. })
}

/// Whether every step that was begun and did not finish is one that the way back undoes.
fn half_can_go_back(plan: &Plan, progress: &Progress) -> bool {
    let half = |step: &&Step| {
        matches!(
            progress.status(&step.name),
            Status::Started | Status::Failed
        )
    };
    let mut half = plan.steps.iter().filter(half);
    half.all(may_go_back)
}

/// The point of no return counts as passed when its step has been started, whatever became of it then, or was found
/// done.
pub fn past_no_return(plan: &Plan, progress: &Progress) -> bool {
    let passed = |step: &Step| {
        progress.left_by(&step.name).is_some() || progress.status(&step.name) == Status::Finished
    };
    plan.steps
        .iter()
        .any(|step| step.is_no_return() && passed(step))
}

/// What a failure did to the world, for the journal.
fn failed(step: &Step, trouble: &Trouble) -> Event {
    Event::Failed {
        step: step.name.clone(),
        world: match trouble {
            Trouble::NothingChanged(_) => WorldIs::NothingChanged,
            Trouble::Unknown(_) => WorldIs::Unknown,
            Trouble::Partial(_) => WorldIs::Partial,
        },
        why: trouble.fault().to_string(),
    }
}

fn blocked(step: &Step, why: &str, refusal: Option<&str>) -> Fault {
    let fault = Fault::refused(format!("step `{}` is blocked", step.name)).because(why);
    match refusal {
        Some(name) => fault.because(format!("this is the refusal `{name}`")),
        None => fault,
    }
}

fn may_fail(step: &Step) -> bool {
    step.skip.is_some() || matches!(step.on_failure, OnFailure::GoOn { .. })
}

/// Trouble that may be over in a moment.
fn is_passing(fault: &Fault) -> bool {
    fault.kind() == Kind::Unavailable
}

/// A step that the rest does not need is left when it fails.
fn may_go_on(step: &Step, halt: Halt) -> Result<Left, Halt> {
    let OnFailure::GoOn { mend } = &step.on_failure else {
        return Err(halt);
    };
    let why = match halt {
        Halt::Blocked(fault) => fault,
        Halt::Failed(trouble) => trouble.fault().clone(),
        Halt::Interrupted | Halt::Lost(_) => return Err(halt),
    };
    Ok(Left {
        step: step.name.clone(),
        why,
        mend: mend.clone(),
    })
}

/// Interruptions and lost journals outrank failures, failures outrank blocks.
fn worst(halts: Vec<Halt>) -> Option<Halt> {
    halts.into_iter().max_by_key(|halt| match halt {
        Halt::Blocked(_) => 0,
        Halt::Failed(Trouble::NothingChanged(_)) => 1,
        Halt::Failed(_) => 2,
        Halt::Interrupted => 3,
        Halt::Lost(_) => 4,
    })
}
