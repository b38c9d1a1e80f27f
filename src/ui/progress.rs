//! A run while it runs: spinners on a terminal, one line a step elsewhere, journal lines for scripts.
//!
//! What is shown was durable in the journal before. Finished lines stay on the screen.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::plan::{NO_WAY_BACK, Names};
use super::print::Ui;
use super::snippet::clean;
use crate::journal::Listener;
use crate::journal::event::{Event, How, Line};
use crate::model::id::StepName;
use crate::model::units::human;
use crate::plan::Plan;

/// Evidence is padded to this, so that times line up; a longer one is not cut.
const EVIDENCE: usize = 56;
const TICK: Duration = Duration::from_millis(120);

pub struct Progress {
    ui: Ui,
    lines: Mutex<Lines>,
    /// `None` where stderr is not a terminal.
    bars: Option<Bars>,
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    running: Mutex<BTreeMap<StepName, ProgressBar>>,
}

impl Progress {
    pub fn new(ui: &Ui, plan: &Plan) -> Progress {
        let live = !ui.quiet && !ui.events && is_live();
        let bars = live.then(|| Bars {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            running: Mutex::default(),
        });
        Progress {
            ui: *ui,
            lines: Mutex::new(Lines::of(plan)),
            bars,
        }
    }

    /// Takes the spinners away. What is printed later would be overwritten otherwise.
    pub fn finish(&self) {
        if let Some(bars) = &self.bars {
            let running = std::mem::take(&mut *bars.running.lock().expect("nobody panics here"));
            running.values().for_each(ProgressBar::finish_and_clear);
            let _ = bars.all.clear();
        }
    }
}

fn is_live() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl Listener for Progress {
    fn line(&self, line: &Line) {
        if self.ui.events {
            self.ui.out(&super::json::line(line));
        }
        let mut lines = self.lines.lock().expect("nobody panics here");
        let shown = lines.take(line);
        if self.ui.quiet || self.ui.events {
            return;
        }
        match &self.bars {
            Some(bars) => bars.update(&lines, line, &shown),
            None => shown.iter().for_each(|text| self.ui.say(text)),
        }
    }

    fn progress(&self, step: &str, text: &str) {
        if let Some(bars) = &self.bars {
            let running = bars.running.lock().expect("nobody panics here");
            if let Some(bar) = running.get(&StepName::new(step)) {
                bar.set_message(clean(text).replace('\n', " "));
            }
        }
    }
}

impl Bars {
    fn update(&self, lines: &Lines, line: &Line, shown: &[String]) {
        let Some(step) = line.event.step() else {
            return self.print(shown);
        };
        let mut running = self.running.lock().expect("nobody panics here");
        match &line.event {
            Event::Started { .. } | Event::Undoing { .. } => {
                self.print(shown);
                let style =
                    ProgressStyle::with_template("{prefix}  {spinner} {wide_msg} {elapsed}")
                        .expect("the template is well formed");
                let bar = self.all.add(ProgressBar::new_spinner().with_style(style));
                bar.set_prefix(lines.name(step));
                bar.enable_steady_tick(TICK);
                if let Some(old) = running.insert(step.clone(), bar) {
                    old.finish_and_clear();
                }
            }
            Event::Made { .. } => {}
            _ => {
                if let Some(bar) = running.remove(step) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                self.print(shown);
            }
        }
    }

    fn print(&self, shown: &[String]) {
        for text in shown {
            self.all.suspend(|| {
                let _ = writeln!(std::io::stderr(), "{text}");
            });
        }
    }
}

/// Events as lines of text, with the time that each step took.
struct Lines {
    names: Names,
    numbers: BTreeMap<StepName, usize>,
    no_return: Vec<StepName>,
    warned: bool,
    started: BTreeMap<StepName, Timestamp>,
}

impl Lines {
    fn of(plan: &Plan) -> Lines {
        let name = |step: &crate::plan::Step| step.name.clone();
        let last = |step: &&crate::plan::Step| step.is_no_return();
        Lines {
            names: Names::of(&plan.steps),
            numbers: plan.steps.iter().map(name).zip(0..).collect(),
            no_return: plan.steps.iter().filter(last).map(name).collect(),
            warned: false,
            started: BTreeMap::new(),
        }
    }

    fn name(&self, step: &StepName) -> String {
        let index = self.numbers.get(step).copied().unwrap_or(0);
        self.names.column(index, step.as_str())
    }

    /// What is to be printed after an event.
    fn take(&mut self, line: &Line) -> Vec<String> {
        let mut shown = Vec::new();
        if let Event::Started { step } | Event::Finished { step, .. } = &line.event
            && !self.warned
            && self.no_return.contains(step)
        {
            self.warned = true;
            shown.push(NO_WAY_BACK.to_owned());
        }
        match &line.event {
            Event::Opened(opened) => shown.push(format!("run {}", opened.run)),
            Event::Started { step } | Event::Undoing { step } => {
                self.started.insert(step.clone(), line.at);
            }
            Event::Resumed { .. } | Event::Made { .. } | Event::Closed { .. } => {}
            Event::Paused { why } => shown.push(format!("paused: {}", clean(why))),
            Event::Finished {
                step,
                how,
                evidence,
            } => {
                let text = match how {
                    How::Acted => clean(evidence),
                    How::AlreadyTrue => format!("already: {}", clean(evidence)),
                    How::Skipped => format!("skipped: {}", clean(evidence)),
                };
                let took = (*how == How::Acted)
                    .then(|| self.took(step, line.at))
                    .flatten();
                shown.push(self.row(step, &text, took));
            }
            Event::Failed { step, why, .. } => {
                let took = self.took(step, line.at);
                shown.push(self.row(step, &format!("failed: {}", clean(why)), took));
            }
            Event::Blocked { step, why } => {
                shown.push(self.row(step, &format!("blocked: {}", clean(why)), None));
            }
            Event::Undone { step, evidence } => {
                let took = self.took(step, line.at);
                shown.push(self.row(step, &format!("undone: {}", clean(evidence)), took));
            }
            Event::UndoFailed { step, why } => {
                let took = self.took(step, line.at);
                shown.push(self.row(step, &format!("not undone: {}", clean(why)), took));
            }
        }
        shown
    }

    fn took(&mut self, step: &StepName, at: Timestamp) -> Option<Duration> {
        let started = self.started.remove(step)?;
        Duration::try_from(at.duration_since(started)).ok()
    }

    fn row(&self, step: &StepName, text: &str, took: Option<Duration>) -> String {
        let text = text.replace('\n', " ");
        let line = match took {
            Some(took) => format!("{}  {text:<EVIDENCE$} {:>7}", self.name(step), human(took)),
            None => format!("{}  {text}", self.name(step)),
        };
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::event::{VERSION, World};
    use crate::plan::action::ConfirmOutage;
    use crate::plan::{Intent, PlanKind, step};
    use insta::assert_snapshot;

    fn plan() -> Plan {
        let mut plan = Plan::new(PlanKind::Directional, Intent::Commit);
        let action = || {
            let site = "east".into();
            ConfirmOutage {
                site,
                assumed: false,
            }
        };
        plan.push(step("confirm-outage", "", action().into()));
        plan.push(step("stop-writes main", "", action().into()));
        plan.push(step("promote-standby main", "", action().into()).no_return());
        plan.push(step("promote-standby other", "", action().into()).no_return());
        plan
    }

    fn transcript(events: Vec<(f64, Event)>) -> String {
        let mut lines = Lines::of(&plan());
        let mut text = String::new();
        for (n, (seconds, event)) in events.into_iter().enumerate() {
            let at = Timestamp::UNIX_EPOCH + Duration::from_secs_f64(seconds);
            let (n, prev) = (n as u64, String::new());
            let line = Line {
                v: VERSION,
                n,
                at,
                prev,
                event,
            };
            for shown in lines.take(&line) {
                text.push_str(&format!("{shown}\n"));
            }
        }
        text
    }

    fn finished(step: &str, how: How, evidence: &str) -> Event {
        let (step, evidence) = (step.into(), evidence.to_owned());
        Event::Finished {
            step,
            how,
            evidence,
        }
    }

    #[test]
    fn a_run_is_one_line_a_step() {
        let started = |step: &str| Event::Started { step: step.into() };
        let text = transcript(vec![
            (0.0, finished("confirm-outage", How::Skipped, "planned")),
            (0.1, started("stop-writes main")),
            (
                1.2,
                finished(
                    "stop-writes main",
                    How::Acted,
                    "refuses writes at 0/5A1C9F0",
                ),
            ),
            (1.2, started("promote-standby main")),
            (
                63.4,
                finished(
                    "promote-standby main",
                    How::Acted,
                    "writable,\ntimeline 2\u{1b}[1A",
                ),
            ),
            (
                63.5,
                finished("promote-standby other", How::AlreadyTrue, "writable"),
            ),
        ]);
        assert_snapshot!(text, @r"
        1 confirm-outage         skipped: planned
        2 stop-writes main       refuses writes at 0/5A1C9F0                                 1.1s
        ── no way back after this line ──
        3 promote-standby main   writable, timeline 2�[1A                                   1m02s
        4 promote-standby other  already: writable
        ");
    }

    #[test]
    fn the_way_back_is_shown_too() {
        let step = || StepName::new("stop-writes main");
        let why = || "no answer".to_owned();
        let text = transcript(vec![
            (0.0, Event::Started { step: step() }),
            (
                2.0,
                Event::Failed {
                    step: step(),
                    world: World::Partial,
                    why: why(),
                },
            ),
            (2.0, Event::Undoing { step: step() }),
            (
                3.0,
                Event::UndoFailed {
                    step: step(),
                    why: why(),
                },
            ),
            (4.0, Event::Undoing { step: step() }),
            (
                9.0,
                Event::Undone {
                    step: step(),
                    evidence: "open again".to_owned(),
                },
            ),
            (
                9.0,
                Event::Blocked {
                    step: "confirm-outage".into(),
                    why: why(),
                },
            ),
            (
                9.0,
                Event::Paused {
                    why: "interrupted".to_owned(),
                },
            ),
        ]);
        assert_snapshot!(text, @r"
         2 stop-writes main       failed: no answer                                           2.0s
         2 stop-writes main       not undone: no answer                                       1.0s
         2 stop-writes main       undone: open again                                          5.0s
         1 confirm-outage         blocked: no answer
        paused: interrupted
        ");
    }
}
