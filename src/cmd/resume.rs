//! `hafog resume` and `hafog abort`: an unfinished run goes on, or is taken back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::drive::{Change, Road, Way, close, options, unfinished_text};
use super::interrupt::Interrupts;
use super::unfinished::{self, Found};
use super::{Call, Ended, report};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::journal::event::Opened;
use crate::run::open::Session;
use crate::run::runner::End;
use crate::ui::progress::Progress;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    change: Change,
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    enter(call, &args.change, "resume").await
}

pub async fn abort(call: &Call, args: &Args) -> Ended {
    enter(call, &args.change, "abort").await
}

async fn enter(call: &Call, change: &Change, verb: &str) -> Ended {
    let Some(found) = unfinished::find(call).await? else {
        let words = serde_json::json!({ "verb": verb, "outcome": "nothing-to-do" });
        let text = || format!("{verb}: no run is unfinished\n");
        call.ui.result(&words, text);
        return Ok(exit::DONE);
    };
    found.say(call);
    let world = found.world(call)?;
    let interrupts = Interrupts::listen(&call.ui);
    let opening = found.options(options(change, verb, &BTreeSet::new()));
    let opening = crate::run::open::open(world, &opening);
    let session = interrupts.or(opening).await??;
    let road = Road {
        call,
        change,
        interrupts: &interrupts,
        verb,
    };
    let ended = go(&road, &session, &found).await;
    close(session, ended).await
}

async fn go(road: &Road<'_>, session: &Session, found: &Found) -> Ended {
    let looking = unfinished::still(session, Some(found));
    let Some(opened) = road.interrupts.or(looking).await?? else {
        return Ok(exit::DONE);
    };
    match road.verb {
        "resume" => road.carry_on(session, &opened).await,
        _ => take_back(road, session, &opened).await,
    }
}

async fn take_back(road: &Road<'_>, session: &Session, opened: &Opened) -> Ended {
    let lines = report::read(&session.world.stores, &opened.run).await?.0;
    road.accepts_no_more(opened, &lines)?;
    let text = unfinished_text(opened, &lines, Way::Back);
    if road.change.dry_run {
        road.call.ui.out(&text);
        return Ok(exit::DONE);
    }
    road.show(&text);
    road.agree(&opened.digest, &session.world.stack.name, false)
        .await?;
    let progress = Arc::new(Progress::new(&road.call.ui, &opened.plan));
    let aborted = session
        .abort(&opened.run, progress.clone(), &road.interrupts.stop)
        .await;
    progress.finish();
    let (plan, end) = aborted?;
    // What a failed verb calls trouble is what this one was asked for.
    if let End::Unwound(_) | End::Done = end {
        return road.ended(session, &plan, &opened.run, End::Done).await;
    }
    if let End::NothingDone(fault) = end {
        return Err(not_aborted(fault).into());
    }
    road.ended(session, &plan, &opened.run, end).await
}

/// Past the point of no return there is only forward.
fn not_aborted(fault: Fault) -> Fault {
    match fault.kind() {
        Kind::Refused => fault.hint("hafog resume"),
        _ => fault,
    }
}
