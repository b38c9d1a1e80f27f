// STUB(lead): the lead replaces this file. The signatures are the agreed ones; the world is taken to be empty,
// and every step succeeds without doing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, How, Opened, Outcome};
use super::journal::{self, Journal, Listener};
use super::lease::{self, Held, Keeper};
use super::runner::{End, Stop};
use crate::error::Fault;
use crate::model::id::{RunId, SiteName};
use crate::plan::facts::{Facts, Seen, SiteFacts, ZoneFacts};
use crate::plan::{Plan, PlanKind};
use crate::world::World;

pub struct Session {
    pub world: World,
    pub held: Option<Held>,
    pub facts: Facts,
    keeper: Option<Keeper>,
    options: OpenOptions,
}

#[derive(Clone)]
pub struct OpenOptions {
    pub assume_down: BTreeSet<SiteName>,
    pub lock_timeout: Duration,
    pub reason: Option<String>,
    pub verb: String,
    pub take_lease: bool,
}

pub async fn open(mut world: World, options: &OpenOptions) -> Result<Session, Fault> {
    world.assumed_down = options.assume_down.clone();
    let mut held = None;
    if options.take_lease {
        held = Some(
            lease::take(
                &world.stores,
                &world.clock,
                &options.verb,
                options.lock_timeout,
            )
            .await?,
        );
    }
    let keeper = held.as_ref().map(Held::keep);
    let facts = observe(&world).await?;
    Ok(Session {
        world,
        held,
        facts,
        keeper,
        options: options.clone(),
    })
}

async fn observe(world: &World) -> Result<Facts, Fault> {
    let site = |name: &SiteName| {
        let seen = if world.assumed_down.contains(name) {
            Seen::Unknown("assumed to be down".to_owned())
        } else {
            Seen::Known(())
        };
        SiteFacts {
            answers: seen,
            servers: BTreeMap::new(),
            images: BTreeSet::new(),
        }
    };
    let sites = world.stack.sites.iter();
    let zones = world.stack.zones.iter();
    let closed = ZoneFacts {
        open: Seen::Known(false),
        records: Vec::new(),
    };
    Ok(Facts {
        at: world.clock.now(),
        roles: world.roles().await?,
        published: world.published().await?,
        sites: sites
            .map(|known| (known.name.clone(), site(&known.name)))
            .collect(),
        nodes: BTreeMap::new(),
        writers: BTreeMap::new(),
        zones: zones
            .map(|zone| (zone.name.clone(), closed.clone()))
            .collect(),
        images: world.images.clone(),
        configured: BTreeSet::new(),
        doors: BTreeMap::new(),
    })
}

impl Session {
    pub async fn observe_again(&mut self) -> Result<(), Fault> {
        self.facts = observe(&self.world).await?;
        Ok(())
    }

    pub async fn unfinished(&self) -> Result<Option<RunId>, Fault> {
        for run in self.world.stores.runs().await?.into_iter().rev() {
            let Some(bytes) = self.world.stores.journal(&run).await? else {
                continue;
            };
            if journal::read(&run, &bytes)?.progress.closed.is_none() {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    pub async fn execute(
        &self,
        plan: &Plan,
        accepted: &[String],
        listener: Arc<dyn Listener>,
        stop: &Stop,
        parallelism: usize,
    ) -> (RunId, End) {
        let _ = parallelism;
        let now = self.world.clock.now();
        let run = RunId::new(format!(
            "{}-{}",
            now.strftime("%Y%m%dT%H%M%S%3f"),
            &plan.digest()[..4]
        ));
        let mut journal = Journal::new(
            run.clone(),
            self.world.stores.clone(),
            self.world.clock.clone(),
            listener,
        );
        let held = self.held.as_ref().expect("a run holds the lease");
        let opened = Opened {
            run: run.clone(),
            hafog: env!("CARGO_PKG_VERSION").to_owned(),
            holder: held.holder.who.clone(),
            epoch: held.epoch,
            plan: plan.clone(),
            digest: plan.digest(),
            stack: self.world.stack.as_ref().clone(),
            accepted: accepted.to_vec(),
            reason: self.options.reason.clone(),
        };
        let end = match journal.add(Event::Opened(Box::new(opened))).await {
            Ok(()) => pretend(plan, &mut journal, stop).await,
            Err(fault) => Err(fault),
        };
        (run, end.unwrap_or_else(End::NothingDone))
    }

    pub async fn resume(
        &self,
        run: &RunId,
        listener: Arc<dyn Listener>,
        stop: &Stop,
        parallelism: usize,
    ) -> Result<(Plan, End), Fault> {
        let _ = parallelism;
        let stores = self.world.stores.clone();
        let mut journal =
            Journal::reopen(run.clone(), stores, self.world.clock.clone(), listener).await?;
        let plan = journal
            .progress
            .opened
            .as_ref()
            .expect("opened")
            .plan
            .clone();
        let end = pretend(&plan, &mut journal, stop).await?;
        Ok((plan, end))
    }

    pub async fn abort(
        &self,
        run: &RunId,
        listener: Arc<dyn Listener>,
        stop: &Stop,
    ) -> Result<(Plan, End), Fault> {
        let _ = stop;
        let stores = self.world.stores.clone();
        let mut journal =
            Journal::reopen(run.clone(), stores, self.world.clock.clone(), listener).await?;
        let plan = journal
            .progress
            .opened
            .as_ref()
            .expect("opened")
            .plan
            .clone();
        let outcome = match plan.kind {
            PlanKind::Converging => Outcome::Aborted,
            PlanKind::Directional => Outcome::Unwound,
        };
        journal.add(Event::Closed { outcome }).await?;
        Ok((plan, End::Unwound(Fault::new("aborted"))))
    }

    pub async fn close(self) -> Result<(), Fault> {
        drop(self.keeper);
        match self.held {
            Some(held) => held.release().await,
            None => Ok(()),
        }
    }
}

async fn pretend(plan: &Plan, journal: &mut Journal, stop: &Stop) -> Result<End, Fault> {
    for step in &plan.steps {
        if journal.progress.status(&step.name) != super::event::Status::Waiting {
            continue;
        }
        if stop.is_asked() {
            let why = "interrupted".to_owned();
            journal.add(Event::Paused { why }).await?;
            return Ok(End::Interrupted);
        }
        let (how, evidence) = match &step.skip {
            Some(reason) => (How::Skipped, reason.clone()),
            None => (How::Acted, step.about.clone()),
        };
        let step = step.name.clone();
        if how == How::Acted {
            journal.add(Event::Started { step: step.clone() }).await?;
        }
        journal
            .add(Event::Finished {
                step,
                how,
                evidence,
            })
            .await?;
    }
    journal
        .add(Event::Closed {
            outcome: Outcome::Done,
        })
        .await?;
    Ok(End::Done)
}
