//! A journal, read for a person: which steps, how each ended, how long it took, and what became of it all.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Fault;
use crate::journal;
use crate::journal::event::{Event, How, Line, Outcome};
use crate::model::id::{RunId, StepName};
use crate::model::units::human;
use crate::plan::Loss;
use crate::state::stores::Stores;
use crate::ui::plan::{Names, bound};
use crate::ui::print::{count, list};
use crate::ui::snippet::clean;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub run: RunId,
    pub verb: String,
    pub digest: String,
    pub reason: Option<String>,
    pub accepted: Vec<String>,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub seconds: f64,
    /// `None`: the run is not closed.
    pub outcome: Option<Outcome>,
    /// How often another process took the run up.
    pub resumed: usize,
    /// From the first `stop-writes` to the last `promote-standby`.
    pub writes_stopped_seconds: Option<f64>,
    /// The instant after which no honest cache can hold an old answer.
    pub effective_at: Option<Timestamp>,
    pub loss: Vec<Loss>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub name: StepName,
    pub how: StepHow,
    pub evidence: String,
    pub seconds: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepHow {
    Waiting,
    Running,
    Acted,
    AlreadyTrue,
    Skipped,
    Failed,
    Blocked,
    Undone,
    UndoFailed,
}

impl StepHow {
    pub fn word(self) -> &'static str {
        match self {
            StepHow::Waiting => "waiting",
            StepHow::Running => "begun",
            StepHow::Acted => "",
            StepHow::AlreadyTrue => "already",
            StepHow::Skipped => "skipped",
            StepHow::Failed => "failed",
            StepHow::Blocked => "blocked",
            StepHow::Undone => "undone",
            StepHow::UndoFailed => "not undone",
        }
    }
}

/// The report of a run, from the copy of its journal that has most.
pub async fn read(stores: &Stores, run: &RunId) -> Result<(Vec<Line>, Report), Fault> {
    let journal = journal::newest(run, stores).await?;
    let journal = journal.ok_or_else(|| no_journal(run))?;
    let lines = journal.lines;
    let report =
        of(&lines).ok_or_else(|| Fault::new(format!("the journal of `{run}` is empty")))?;
    Ok((lines, report))
}

pub fn no_journal(run: &RunId) -> Fault {
    Fault::new(format!("there is no journal of run `{run}`")).hint("hafog show journal --list")
}

/// Nothing when the journal does not begin with its plan.
pub fn of(lines: &[Line]) -> Option<Report> {
    let (first, last) = (lines.first()?, lines.last()?);
    let Event::Opened(opened) = &first.event else {
        return None;
    };
    let plan = &opened.plan;
    let mut report = Report {
        run: opened.run.clone(),
        verb: plan.intent.verb().to_owned(),
        digest: opened.digest.clone(),
        reason: opened.reason.clone(),
        accepted: opened.accepted.clone(),
        began: first.at,
        ended: last.at,
        seconds: seconds(first.at, last.at),
        outcome: None,
        resumed: 0,
        writes_stopped_seconds: None,
        effective_at: None,
        loss: plan.forecast.loss.clone(),
        steps: plan.steps.iter().map(|step| waiting(&step.name)).collect(),
    };
    let mut started = vec![None; report.steps.len()];
    for line in lines {
        match &line.event {
            Event::Closed { outcome } => report.outcome = Some(*outcome),
            Event::Resumed { .. } => report.resumed += 1,
            event => take(&mut report.steps, &mut started, line.at, event),
        }
    }
    report.writes_stopped_seconds = writes_stopped(lines);
    let flip = finished(lines, "set-record").last();
    report.effective_at = flip.and_then(|at| Some(at + plan.forecast.effective_after?.0));
    Some(report)
}

fn waiting(name: &StepName) -> Step {
    Step {
        name: name.clone(),
        how: StepHow::Waiting,
        evidence: String::new(),
        seconds: None,
    }
}

fn take(steps: &mut [Step], started: &mut [Option<Timestamp>], at: Timestamp, event: &Event) {
    let Some(index) = event
        .step()
        .and_then(|name| steps.iter().position(|step| &step.name == name))
    else {
        return;
    };
    let (how, evidence) = match event {
        Event::Started { .. } | Event::Undoing { .. } => {
            started[index] = Some(at);
            steps[index].how = StepHow::Running;
            return;
        }
        Event::Finished { how, evidence, .. } => (
            match how {
                How::Acted => StepHow::Acted,
                How::AlreadyTrue => StepHow::AlreadyTrue,
                How::Skipped => StepHow::Skipped,
            },
            evidence,
        ),
        Event::Failed { why, .. } => (StepHow::Failed, why),
        Event::Blocked { why, .. } => (StepHow::Blocked, why),
        Event::Undone { evidence, .. } => (StepHow::Undone, evidence),
        Event::UndoFailed { why, .. } => (StepHow::UndoFailed, why),
        _ => return,
    };
    let took = started[index].take().map(|from| seconds(from, at));
    steps[index].how = how;
    steps[index].evidence.clone_from(evidence);
    steps[index].seconds = took;
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

fn is(step: &StepName, family: &str) -> bool {
    step.as_str().split(' ').next() == Some(family)
}

fn finished<'a>(lines: &'a [Line], family: &'a str) -> impl Iterator<Item = Timestamp> + 'a {
    lines.iter().filter_map(move |line| match &line.event {
        Event::Finished {
            step,
            how: How::Acted | How::AlreadyTrue,
            ..
        } if is(step, family) => Some(line.at),
        _ => None,
    })
}

/// Nothing unless both ends are known.
fn writes_stopped(lines: &[Line]) -> Option<f64> {
    let began = lines.iter().find_map(|line| match &line.event {
        Event::Started { step } if is(step, "stop-writes") => Some(line.at),
        _ => None,
    })?;
    Some(seconds(began, finished(lines, "promote-standby").last()?))
}

impl Report {
    pub fn outcome_word(&self) -> &'static str {
        match self.outcome {
            Some(Outcome::Done) => "done",
            Some(Outcome::Unwound) => "taken back",
            Some(Outcome::Superseded) => "superseded by a later run",
            None => "unfinished",
        }
    }

    fn number(&self, how: StepHow) -> usize {
        self.steps.iter().filter(|step| step.how == how).count()
    }

    /// What is said at the end of a run.
    pub fn summary(&self) -> String {
        let mut parts = vec![count(self.number(StepHow::Acted), "step")];
        for (how, words) in [
            (StepHow::AlreadyTrue, "already true"),
            (StepHow::Skipped, "skipped"),
            (StepHow::Failed, "failed"),
            (StepHow::Undone, "undone"),
        ] {
            let number = self.number(how);
            if number > 0 {
                parts.push(format!("{number} {words}"));
            }
        }
        let took = human(Duration::from_secs_f64(self.seconds));
        let mut text = format!(
            "{} {}: {} in {took}, run {}\n",
            self.verb,
            self.outcome_word(),
            parts.join(", "),
            self.run
        );
        text.push_str(&self.figures());
        text
    }

    /// The numbers that a failover is about.
    fn figures(&self) -> String {
        let mut text = String::new();
        for loss in &self.loss {
            let because = clean(&loss.because);
            text.push_str(&format!(
                "loss: {}: {} ({because})\n",
                loss.database,
                bound(loss)
            ));
        }
        if let Some(stopped) = self.writes_stopped_seconds {
            let stopped = human(Duration::from_secs_f64(stopped));
            text.push_str(&format!(
                "writes: {stopped} from the fence to the opening\n"
            ));
        }
        if let Some(at) = self.effective_at {
            text.push_str(&format!(
                "effective: at {at:.0} the last honest cache has moved\n"
            ));
        }
        text
    }

    /// The whole report.
    pub fn render(&self) -> String {
        let took = human(Duration::from_secs_f64(self.seconds));
        let mut text = format!("run {}: {} {}\n", self.run, self.verb, self.outcome_word());
        text.push_str(&format!(
            "began {:.0}, took {took}, plan {}\n",
            self.began, self.digest
        ));
        if let Some(reason) = &self.reason {
            text.push_str(&format!("reason: {}\n", clean(reason)));
        }
        if !self.accepted.is_empty() {
            text.push_str(&format!("accepted: {}\n", list(&self.accepted, "and")));
        }
        if self.resumed > 0 {
            text.push_str(&format!("resumed: {}\n", count(self.resumed, "time")));
        }
        text.push('\n');
        let names = Names::of_names(self.steps.iter().map(|step| step.name.as_str()));
        for (index, step) in self.steps.iter().enumerate() {
            let evidence = clean(&step.evidence).replace('\n', " ");
            let said = match (step.how.word(), evidence.as_str()) {
                ("", evidence) => evidence.to_owned(),
                (word, "") => word.to_owned(),
                (word, evidence) => format!("{word}: {evidence}"),
            };
            let took = step
                .seconds
                .map(|seconds| human(Duration::from_secs_f64(seconds)));
            let row = format!(
                "{}  {said:<56} {:>7}",
                names.column(index, step.name.as_str()),
                took.unwrap_or_default()
            );
            text.push_str(&format!("{}\n", row.trim_end()));
        }
        let figures = self.figures();
        if !figures.is_empty() {
            text.push_str(&format!("\n{figures}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::event::{Opened, VERSION, World};
    use crate::model::units::Span;
    use crate::plan::action::SmokeTest;
    use crate::plan::{Intent, Plan, PlanKind, step};
    use insta::assert_snapshot;

    fn opened() -> Event {
        let intent = Intent::Failover {
            from: "east".into(),
            to: "west".into(),
            planned: false,
        };
        let mut plan = Plan::new(PlanKind::Directional, intent);
        let names = [
            "stop-writes main",
            "await-replay main",
            "promote-standby main",
            "set-record shop.test",
        ];
        for name in names {
            let site = "west".into();
            plan.push(step(name, "", SmokeTest { site }.into()));
        }
        plan.forecast.effective_after = Some(Span::secs(60));
        plan.forecast.loss.push(Loss {
            database: "main".to_owned(),
            seconds: None,
            bytes: None,
            transactions: None,
            because: "shop-west-db-1 has no heartbeat".to_owned(),
        });
        Event::Opened(Box::new(Opened {
            run: "r".into(),
            hafog: String::new(),
            holder: "me".to_owned(),
            epoch: 1,
            digest: plan.digest(),
            plan,
            stack: crate::sim::stacks::small(),
            assumed_down: Default::default(),
            accepted: vec!["standby-unknown".to_owned()],
            reason: None,
        }))
    }

    fn report(events: Vec<(u64, Event)>) -> Report {
        let lines: Vec<Line> = [(0, opened())]
            .into_iter()
            .chain(events)
            .zip(0..)
            .map(|((seconds, event), n)| Line {
                v: VERSION,
                n,
                at: Timestamp::UNIX_EPOCH + Duration::from_secs(seconds),
                prev: String::new(),
                event,
            })
            .collect();
        of(&lines).expect("it begins with its plan")
    }

    fn started(step: &str) -> Event {
        Event::Started { step: step.into() }
    }

    fn finished(step: &str, how: How) -> Event {
        let (step, evidence) = (step.into(), "so it is".to_owned());
        Event::Finished {
            step,
            how,
            evidence,
        }
    }

    #[test]
    fn a_failover_says_what_it_lost_how_long_and_until_when() {
        let report = report(vec![
            (1, started("stop-writes main")),
            (3, finished("stop-writes main", How::Acted)),
            (3, finished("await-replay main", How::Skipped)),
            (4, started("promote-standby main")),
            (
                5,
                Event::Failed {
                    step: "promote-standby main".into(),
                    world: World::Unknown,
                    why: "gone".to_owned(),
                },
            ),
            (
                9,
                Event::Resumed {
                    holder: "me".to_owned(),
                    epoch: 2,
                },
            ),
            (9, finished("promote-standby main", How::AlreadyTrue)),
            (10, started("set-record shop.test")),
            (11, finished("set-record shop.test", How::Acted)),
            (
                70,
                Event::Closed {
                    outcome: Outcome::Done,
                },
            ),
        ]);
        assert_snapshot!(report.render().replace(&report.digest, "DIGEST"), @r"
        run r: failover done
        began 1970-01-01T00:00:00Z, took 1m10s, plan DIGEST
        accepted: standby-unknown
        resumed: 1 time

         1 stop-writes main      so it is                                                    2.0s
         2 await-replay main     skipped: so it is
         3 promote-standby main  already: so it is
         4 set-record shop.test  so it is                                                    1.0s

        loss: main: unknown (shop-west-db-1 has no heartbeat)
        writes: 8.0s from the fence to the opening
        effective: at 1970-01-01T00:01:11Z the last honest cache has moved
        ");
        assert_snapshot!(report.summary(), @r"
        failover done: 2 steps, 1 already true, 1 skipped in 1m10s, run r
        loss: main: unknown (shop-west-db-1 has no heartbeat)
        writes: 8.0s from the fence to the opening
        effective: at 1970-01-01T00:01:11Z the last honest cache has moved
        ");
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let report = report(vec![(1, started("stop-writes main"))]);
        assert_eq!(report.writes_stopped_seconds, None);
        assert_eq!(report.effective_at, None);
        assert_eq!(report.outcome_word(), "unfinished");
        assert_eq!(report.steps[0].how, StepHow::Running);
    }
}
