//! A run that was begun before: it goes on, or is in the way.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Road;
use crate::cmd::{Ended, report};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::journal::event::{Line, Opened, Progress as Told, Status};
use crate::model::id::SiteName;
use crate::run::open::{Session, Unfinished, ways_out};
use crate::run::runner::{past_no_return, way_back};
use crate::ui::plan as show;
use crate::ui::progress::Progress;

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
    pub(super) fn assumes_no_more(
        &self,
        opened: &Opened,
        down: &BTreeSet<SiteName>,
    ) -> Result<(), Fault> {
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
    pub fn accepts_no_more(&self, opened: &Opened, lines: &[Line]) -> Result<(), Fault> {
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
}

pub(super) fn in_the_way(found: &Unfinished) -> Fault {
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

pub(super) fn added_up(lines: &[Line]) -> Told {
    let mut progress = Told::default();
    for line in lines {
        // The journal was verified when it was read.
        let _ = progress.add(&line.event);
    }
    progress
}

/// What is left of a run to do or to undo, as a list.
pub fn unfinished_text(opened: &Opened, lines: &[Line], way: Way) -> String {
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
