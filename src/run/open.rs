//! A session: one command's hold on a stack. Takes the lease, looks at the world, and starts, resumes or aborts runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::lease::{self, Held, Keeper};
use super::runner::{End, Runner, Stop, past_no_return};
use crate::error::{Fault, Kind};
use crate::journal::event::{Event, Opened, Outcome};
use crate::journal::{self, Journal, Listener};
use crate::model::id::{RunId, ServerName, SiteName};
use crate::observe;
use crate::plan::facts::Facts;
use crate::plan::{Action, Plan, PlanKind, Step};
use crate::state::stores::Stores;
use crate::world::World;

/// Document that names the run that was begun last and is not closed.
const OPEN_RUN: &str = "open-run";

#[derive(Serialize, Deserialize)]
struct OpenRun {
    serial: u64,
    run: Option<RunId>,
}

pub struct OpenOptions {
    pub assume_down: BTreeSet<SiteName>,
    pub lock_timeout: Duration,
    pub reason: Option<String>,
    /// As a person types it.
    pub verb: String,
    /// Commands that only look take none.
    pub take_lease: bool,
}

pub struct Session {
    pub world: World,
    pub held: Option<Held>,
    pub facts: Facts,
    reason: Option<String>,
    /// The stack is no more: what names its runs and its holder goes with it.
    forgotten: AtomicBool,
    _keeper: Option<Keeper>,
}

/// Takes the lease if asked to, then observes.
pub async fn open(mut world: World, options: &OpenOptions) -> Result<Session, Fault> {
    world
        .assumed_down
        .extend(options.assume_down.iter().cloned());
    let held = if options.take_lease {
        let reason = match &options.reason {
            Some(reason) => format!("{} ({reason})", options.verb),
            None => options.verb.clone(),
        };
        Some(lease::take(&world.stores, &world.clock, &reason, options.lock_timeout).await?)
    } else {
        None
    };
    let keeper = held.as_ref().map(Held::keep);
    match observe::facts(&world).await {
        Ok(facts) => Ok(Session {
            world,
            held,
            facts,
            reason: options.reason.clone(),
            forgotten: AtomicBool::new(false),
            _keeper: keeper,
        }),
        Err(fault) => {
            if let Some(held) = held {
                let _ = held.release().await;
            }
            Err(fault)
        }
    }
}

impl Session {
    pub async fn observe_again(&mut self) -> Result<(), Fault> {
        self.facts = observe::facts(&self.world).await?;
        Ok(())
    }

    /// Looks at what the old primaries have that the current ones lack.
    pub async fn compare(&mut self) {
        self.facts.apart = observe::apart(&self.world, &self.facts).await;
    }

    /// Standbys that still read what they have.
    pub fn unsettled(&self) -> Vec<ServerName> {
        observe::unsettled(&self.facts)
    }

    /// Waits for those, and looks again.
    pub async fn settle(&mut self, names: &[ServerName]) -> Result<(), Fault> {
        observe::settle(&self.world, &self.facts, names).await;
        self.observe_again().await
    }

    /// Looks which servers run and do not do their work, and once more at the nodes that did not answer.
    pub async fn examine(&mut self) {
        let (world, facts) = (&self.world, &self.facts);
        let (sick, nodes) = tokio::join!(observe::sick(world, facts), observe::again(world, facts));
        self.facts.sick = sick;
        self.facts.nodes.extend(nodes);
    }

    /// The run that was begun and never closed.
    pub async fn unfinished(&self) -> Result<Option<RunId>, Fault> {
        let found = unfinished(&self.world.stores).await?;
        Ok(found.map(|found| found.opened.run))
    }

    /// Whether this process may still change anything.
    pub async fn may_act(&self) -> bool {
        match &self.held {
            Some(held) => held.still_ours().await.is_ok(),
            None => false,
        }
    }

    fn held(&self) -> &Held {
        self.held
            .as_ref()
            .expect("only a session with the lease runs anything")
    }

    /// Opens a journal for the plan and runs it. A converging run that was left open is superseded.
    pub async fn execute(
        &self,
        plan: &Plan,
        accepted: &[String],
        listener: Arc<dyn Listener>,
        stop: &Stop,
        parallelism: usize,
    ) -> (RunId, End) {
        let run = self.new_run().await;
        let begun = self.begin(&run, plan, accepted, listener).await;
        let journal = match begun {
            Ok(journal) => journal,
            Err(fault) => {
                // A first line that was not acknowledged in time may be there, and then the run is.
                let found = unfinished(&self.world.stores).await;
                let is_there =
                    found.is_ok_and(|found| found.is_some_and(|one| one.opened.run == run));
                return match is_there {
                    true => (run, End::Stopped(fault)),
                    false => (run, End::NothingDone(fault)),
                };
            }
        };
        let end = self.go_on(plan, journal, stop, parallelism).await;
        (run, end)
    }

    /// An id that no journal has. A stack that was destroyed keeps its journals, and its epochs begin anew.
    async fn new_run(&self) -> RunId {
        let (now, epoch) = (self.world.clock.now(), self.held().epoch);
        let mut nth = 1;
        loop {
            let run = run_id(now, epoch, nth);
            // Where no store answers the run fails at its first line.
            match self.world.stores.journals(&run).await {
                Ok(copies) if copies.iter().any(|copy| matches!(copy, Ok(Some(_)))) => nth += 1,
                _ => return run,
            }
        }
    }

    async fn begin(
        &self,
        run: &RunId,
        plan: &Plan,
        accepted: &[String],
        listener: Arc<dyn Listener>,
    ) -> Result<Journal, Fault> {
        if let Some(flaw) = plan.flaws().first() {
            return Err(Fault::new("the plan is broken; this is a bug of hafog").because(flaw));
        }
        // Whoever slept at the prompt would close the run of whoever holds the lease now.
        self.held().still_ours().await?;
        if let Some(old) = self.unfinished().await? {
            self.supersede(&old).await?;
        }
        let world = &self.world;
        let mut journal = Journal::new(
            run.clone(),
            world.stores.clone(),
            world.clock.clone(),
            listener,
        );
        let opened = Opened {
            run: run.clone(),
            hafog: env!("CARGO_PKG_VERSION").to_owned(),
            holder: self.held().holder.who.clone(),
            epoch: self.held().epoch,
            plan: plan.clone(),
            digest: plan.digest(),
            stack: (*world.stack).clone(),
            assumed_down: world.assumed_down.clone(),
            accepted: accepted.to_vec(),
            reason: self.reason.clone(),
        };
        // Marked first: a mark without a journal is no run, but a journal without a mark would be overlooked.
        mark_open(world, Some(run)).await?;
        journal.add(Event::Opened(Box::new(opened))).await?;
        Ok(journal)
    }

    async fn go_on(&self, plan: &Plan, journal: Journal, stop: &Stop, parallelism: usize) -> End {
        let runner = Runner {
            world: &self.world,
            lease: self.held(),
            stop,
            parallelism,
        };
        let (end, journal) = runner.run(plan, journal).await;
        let forgets = |step: &Step| matches!(step.action, Action::ForgetState(_));
        let forgotten = matches!(end, End::Done) && plan.steps.iter().any(forgets);
        self.forgotten.store(forgotten, Ordering::Relaxed);
        if journal.progress.closed.is_some() {
            if !forgotten {
                unmark(&self.world).await;
            } else if let Err(fault) = forget_mark(&self.world).await {
                return End::Stopped(fault);
            }
        }
        end
    }

    async fn reopen(
        &self,
        run: &RunId,
        listener: Arc<dyn Listener>,
    ) -> Result<(Plan, Journal), Fault> {
        self.held().still_ours().await?;
        let world = &self.world;
        let mut journal = Journal::reopen(
            run.clone(),
            world.stores.clone(),
            world.clock.clone(),
            listener,
        )
        .await?;
        let opened = journal
            .progress
            .opened
            .clone()
            .ok_or_else(|| Fault::new(format!("run `{run}` was never opened")))?;
        if let Some(outcome) = journal.progress.closed {
            return Err(Fault::new(format!(
                "run `{run}` has ended ({outcome:?}): there is nothing to resume"
            ))
            .hint("hafog status"));
        }
        let resumed = Event::Resumed {
            holder: self.held().holder.who.clone(),
            epoch: self.held().epoch,
        };
        journal.add(resumed).await?;
        Ok((opened.plan, journal))
    }

    /// Carries on with the same list of steps.
    pub async fn resume(
        &self,
        run: &RunId,
        listener: Arc<dyn Listener>,
        stop: &Stop,
        parallelism: usize,
    ) -> Result<(Plan, End), Fault> {
        let (plan, journal) = self.reopen(run, listener).await?;
        let end = self.go_on(&plan, journal, stop, parallelism).await;
        Ok((plan, end))
    }

    /// Takes back what the run did. Past the point of no return there is only forward.
    pub async fn abort(
        &self,
        run: &RunId,
        listener: Arc<dyn Listener>,
        stop: &Stop,
    ) -> Result<(Plan, End), Fault> {
        let (plan, journal) = self.reopen(run, listener).await?;
        if past_no_return(&plan, &journal.progress) {
            return Err(
                Fault::refused(format!("run `{run}` is past its point of no return"))
                    .hint("hafog resume"),
            );
        }
        let runner = Runner {
            world: &self.world,
            lease: self.held(),
            stop,
            parallelism: 1,
        };
        let journal = Mutex::new(journal);
        let why = Fault::new("it was aborted");
        let end = runner.unwind(&plan, run, &journal, why).await;
        if journal.into_inner().progress.closed.is_some() {
            unmark(&self.world).await;
        }
        Ok((plan, end))
    }

    async fn supersede(&self, run: &RunId) -> Result<(), Fault> {
        let world = &self.world;
        let silent = Arc::new(journal::Silent);
        let mut journal = Journal::reopen(
            run.clone(),
            world.stores.clone(),
            world.clock.clone(),
            silent,
        )
        .await?;
        let progress = &journal.progress;
        if progress.closed.is_some() {
            return Ok(());
        }
        let opened = progress.opened.as_ref();
        let directional = opened.filter(|opened| opened.plan.kind == PlanKind::Directional);
        if let Some(opened) = directional {
            let fault = Fault::of(Kind::Partial, format!("run `{run}` is unfinished"));
            let past = past_no_return(&opened.plan, progress);
            return Err(ways_out(fault, past));
        }
        journal
            .add(Event::Closed {
                outcome: Outcome::Superseded,
            })
            .await
    }

    /// Releases the lease. Of a stack that is no more nothing stays, not even who held it last.
    pub async fn close(self) -> Result<(), Fault> {
        match &self.held {
            Some(held) if self.forgotten.load(Ordering::Relaxed) => held.forget().await,
            Some(held) => held.release().await,
            None => Ok(()),
        }
    }
}

/// A run that was begun and never closed.
#[derive(Clone)]
pub struct Unfinished {
    pub opened: Opened,
    /// It can only go on.
    pub past_no_return: bool,
}

impl std::ops::Deref for Unfinished {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        &self.opened
    }
}

/// What can be typed about an unfinished run: back only where there is a way back.
pub fn ways_out(fault: Fault, past_no_return: bool) -> Fault {
    let fault = fault.hint("hafog resume");
    match past_no_return {
        true => fault,
        false => fault.hint("hafog abort"),
    }
}

/// The run that was begun and never closed, also without the lease.
pub async fn unfinished(stores: &Stores) -> Result<Option<Unfinished>, Fault> {
    let open: Option<OpenRun> = stores
        .newest(OPEN_RUN, |open: &OpenRun| open.serial)
        .await?;
    let Some(run) = open.and_then(|open| open.run) else {
        return Ok(None);
    };
    let Some(journal) = journal::newest(&run, stores).await? else {
        return Ok(None);
    };
    // The journal decides; the document only says where to look. Without a whole first line nothing was begun.
    let progress = journal.progress;
    let opened = progress.opened.as_ref();
    let past_no_return = opened.is_some_and(|opened| past_no_return(&opened.plan, &progress));
    let opened = progress.opened.filter(|_| progress.closed.is_none());
    Ok(opened.map(|opened| Unfinished {
        opened: *opened,
        past_no_return,
    }))
}

/// What the mark becomes.
async fn next_mark(world: &World, run: Option<&RunId>) -> Result<OpenRun, Fault> {
    let open: Option<OpenRun> = world
        .stores
        .newest(OPEN_RUN, |open: &OpenRun| open.serial)
        .await?;
    Ok(OpenRun {
        serial: open.map_or(0, |open| open.serial).saturating_add(1),
        run: run.cloned(),
    })
}

async fn mark_open(world: &World, run: Option<&RunId>) -> Result<(), Fault> {
    let mark = next_mark(world, run).await?;
    world.stores.write_everywhere(OPEN_RUN, &mark).await
}

async fn forget_mark(world: &World) -> Result<(), Fault> {
    let none = next_mark(world, None).await?;
    world.stores.forget_everywhere(OPEN_RUN, &none).await
}

/// The journal is closed already, and it decides: a mark that stays misleads nobody, so a failure is no failure of the run.
async fn unmark(world: &World) {
    let _ = mark_open(world, None).await;
}

/// Sorts by time. The lease's epoch tells commands apart, and a count the runs of one.
fn run_id(now: Timestamp, epoch: u64, nth: u32) -> RunId {
    RunId::new(format!("{}-{epoch}-{nth}", now.strftime("%Y%m%dT%H%M%S")))
}
