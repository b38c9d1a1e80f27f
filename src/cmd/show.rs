//! `hafog show`: any noun on the way from the spec to the report, as it is.

use serde::Serialize;

use super::{Call, Ended, drive, look, open, report};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::journal;
use crate::journal::event::{Event, Line};
use crate::model::id::RunId;
use crate::model::stack::Stack;
use crate::state::stores::Stores;
use crate::ui::json;
use crate::ui::snippet::clean;
use crate::ui::table::Table;

#[derive(clap::Subcommand, Debug)]
pub enum Noun {
    /// What was written, as hafog understands it
    Spec,
    /// The spec with every default filled and every reference resolved
    Stack,
    /// What is true now, with when it was seen
    Facts,
    /// The plan of a run
    Plan(Run),
    /// What was done, event by event
    Journal {
        #[command(flatten)]
        run: Run,
        /// List the runs that have a journal
        #[arg(long, conflicts_with = "run")]
        list: bool,
    },
    /// Steps, times and outcome of a run
    Report(Run),
}

#[derive(clap::Args, Debug)]
pub struct Run {
    /// A run; the newest if none is named
    run: Option<RunId>,
}

pub async fn run(call: &Call, noun: &Noun) -> Ended {
    match noun {
        Noun::Spec => {
            let loaded = open::load(call)?;
            call.ui.result(&loaded.spec, || loaded.text.clone());
        }
        Noun::Stack => call.ui.out(&json::pretty(&open::load(call)?.stack)),
        Noun::Facts => {
            let session = look::session(call, "show facts").await?;
            call.ui.out(&json::pretty(&session.facts));
            return drive::close(session, Ok(exit::DONE)).await;
        }
        Noun::Plan(run) => plan(call, run).await?,
        Noun::Journal { list: true, .. } => list(call).await?,
        Noun::Journal { run, .. } => journal(call, run).await?,
        Noun::Report(run) => {
            let (_, _, report) = read(call, run).await?;
            call.ui.result(&report, || report.render());
        }
    }
    Ok(exit::DONE)
}

async fn read(call: &Call, run: &Run) -> Result<(Stack, Vec<Line>, report::Report), super::Faults> {
    let (stack, stores) = open::stores_of(call)?;
    let run = named(run, &stores).await?;
    let (lines, report) = report::read(&stores, &run).await?;
    Ok((stack, lines, report))
}

async fn named(run: &Run, stores: &Stores) -> Result<RunId, Fault> {
    match &run.run {
        Some(run) => Ok(run.clone()),
        None => newest(stores).await,
    }
}

async fn newest(stores: &Stores) -> Result<RunId, Fault> {
    let runs = stores.runs().await?;
    let last = runs.into_iter().next_back();
    last.ok_or_else(|| Fault::of(Kind::Error, "nothing was ever run").hint("hafog status"))
}

async fn plan(call: &Call, run: &Run) -> Result<(), super::Faults> {
    let (stack, lines, _) = read(call, run).await?;
    let Some(Event::Opened(opened)) = lines.first().map(|line| &line.event) else {
        unreachable!("a report was made of it");
    };
    let plan = &opened.plan;
    let colour = call.ui.colour_out;
    call.ui.result(plan, || {
        crate::ui::plan::render(stack.name.as_str(), plan, &plan.digest(), colour)
    });
    Ok(())
}

/// With `--json` as it was written: one line an event. Of one that is damaged, what can be read.
async fn journal(call: &Call, run: &Run) -> Result<(), super::Faults> {
    let (_, stores) = open::stores_of(call)?;
    let run = named(run, &stores).await?;
    let found = journal::readable(&run, &stores).await?;
    let (lines, damage) = found.ok_or_else(|| report::no_journal(&run))?;
    let text: String = match call.ui.json || call.ui.events {
        true => lines.iter().map(|line| json::line(line) + "\n").collect(),
        false => events(&lines),
    };
    call.ui.out(&text);
    damage.map_or(Ok(()), |fault| Err(fault.into()))
}

fn events(lines: &[Line]) -> String {
    let mut table = Table::plain();
    for line in lines {
        let (what, said) = event(&line.event);
        let step = line
            .event
            .step()
            .map(ToString::to_string)
            .unwrap_or_default();
        let said = clean(&said).replace('\n', " ");
        table.row([format!("{:.3}", line.at), what.to_owned(), step, said]);
    }
    table.render("")
}

fn event(event: &Event) -> (&'static str, String) {
    match event {
        Event::Opened(opened) => (
            "opened",
            format!(
                "{} by {}, plan {}",
                opened.plan.intent.verb(),
                opened.holder,
                opened.digest
            ),
        ),
        Event::Resumed { holder, .. } => ("resumed", format!("by {holder}")),
        Event::Started { .. } => ("started", String::new()),
        Event::Made { output, .. } => ("made", json::line(output)),
        Event::Finished { how, evidence, .. } => ("finished", format!("{}{evidence}", word(*how))),
        Event::Failed { world, why, .. } => (
            "failed",
            format!("{why} ({})", json::line(world).replace('"', "")),
        ),
        Event::Blocked { why, .. } => ("blocked", why.clone()),
        Event::Undoing { .. } => ("undoing", String::new()),
        Event::Undone { evidence, .. } => ("undone", evidence.clone()),
        Event::UndoFailed { why, .. } => ("undo-failed", why.clone()),
        Event::Paused { why } => ("paused", why.clone()),
        Event::Closed { outcome } => ("closed", json::line(outcome).replace('"', "")),
    }
}

fn word(how: crate::journal::event::How) -> &'static str {
    match how {
        crate::journal::event::How::Acted => "",
        crate::journal::event::How::AlreadyTrue => "already: ",
        crate::journal::event::How::Skipped => "skipped: ",
    }
}

#[derive(Serialize)]
struct Listed {
    run: RunId,
    verb: String,
    began: jiff::Timestamp,
    seconds: f64,
    outcome: &'static str,
}

async fn list(call: &Call) -> Result<(), super::Faults> {
    let (_, stores) = open::stores_of(call)?;
    let mut listed = Vec::new();
    for run in stores.runs().await? {
        // A damaged journal is listed too: somebody has to find it.
        listed.push(match report::read(&stores, &run).await {
            Ok((_, report)) => Listed {
                outcome: report.outcome_word(),
                run,
                verb: report.verb,
                began: report.began,
                seconds: report.seconds,
            },
            Err(_) => Listed {
                run,
                verb: "?".to_owned(),
                began: jiff::Timestamp::UNIX_EPOCH,
                seconds: 0.0,
                outcome: "unreadable",
            },
        });
    }
    call.ui.result(&listed, || {
        let mut table = Table::new(["RUN", "VERB", "BEGAN", "OUTCOME"]);
        for one in &listed {
            let began = format!("{:.0}", one.began);
            table.row([
                one.run.to_string(),
                one.verb.clone(),
                began,
                one.outcome.to_owned(),
            ]);
        }
        if table.is_empty() {
            "nothing was ever run\n".to_owned()
        } else {
            table.render("")
        }
    });
    Ok(())
}
