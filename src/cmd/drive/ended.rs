//! How a run ended: exit code, and what to type next.

use std::collections::BTreeSet;

use super::Road;
use super::unfinished::added_up;
use crate::cmd::{Ended, report};
use crate::error::{Fault, Kind};
use crate::exit;
use crate::model::id::RunId;
use crate::plan::{Plan, PlanKind};
use crate::run::open::{Session, ways_out};
use crate::run::runner::{End, Left, past_no_return};
use crate::ui::print::count;

impl Road<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Intent;
    use crate::ui::snippet;
    use insta::assert_snapshot;

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
