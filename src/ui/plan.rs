//! A plan as text: numbered steps, the line after which there is no way back, and what is expected.

use super::print::{bold, count, dim, list};
use super::snippet::clean;
use crate::model::units::Bytes;
use crate::plan::{Forecast, Loss, Plan, Step};

pub const NO_WAY_BACK: &str = " ── no way back after this line ──";

/// The whole plan. Ends with a line break.
pub fn render(stack: &str, plan: &Plan, digest: &str, colour: bool) -> String {
    let doing = plan.steps.iter().filter(|step| step.skip.is_none()).count();
    let sites = match plan.intent.sites() {
        [] => String::new(),
        sites => format!(" at {}", list(sites, "and")),
    };
    let heading = format!(
        "{} of {stack}{sites}: {}",
        plan.intent.verb(),
        count(doing, "step")
    );
    let mut text = format!("{}, plan {digest}\n", bold(&heading, colour));
    text.push_str(&steps(&plan.steps, colour));
    text.push_str(&forecast(&plan.forecast));
    text
}

/// The numbered list of steps.
pub fn steps(steps: &[Step], colour: bool) -> String {
    let names = Names::of(steps);
    let mut text = String::new();
    let mut warned = false;
    for (index, step) in steps.iter().enumerate() {
        if step.is_no_return() && !warned {
            warned = true;
            text.push_str(&format!("{}\n", bold(NO_WAY_BACK, colour)));
        }
        let name = names.column(index, step.name.as_str());
        let line = match &step.skip {
            Some(why) => dim(&format!("{name}  skipped: {}", clean(why)), colour),
            None => format!("{name}  {}", clean(&step.about)),
        };
        text.push_str(&format!("{line}\n"));
    }
    text
}

/// The columns of numbers and names, as wide as the longest of them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    number: usize,
    name: usize,
}

impl Names {
    pub fn of(steps: &[Step]) -> Names {
        Names::of_names(steps.iter().map(|step| step.name.as_str()))
    }

    pub fn of_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Names {
        Names {
            number: names.clone().count().to_string().len().max(2),
            name: names.map(|name| name.chars().count()).max().unwrap_or(0),
        }
    }

    /// `index` counts from 0, what is shown from 1.
    pub fn column(&self, index: usize, name: &str) -> String {
        format!("{:>1$} {name:<2$}", index + 1, self.number, self.name)
    }
}

/// What is lost, and from when on nobody sees the old answer.
pub fn forecast(forecast: &Forecast) -> String {
    let mut text = String::new();
    for loss in &forecast.loss {
        let because = clean(&loss.because);
        text.push_str(&format!(
            "loss: {}: {} ({because})\n",
            loss.database,
            bound(loss)
        ));
    }
    if let Some(after) = forecast.effective_after {
        text.push_str(&format!(
            "effective: at most {} after the records change, when the last honest cache has moved\n",
            after
        ));
    }
    for note in &forecast.notes {
        text.push_str(&format!("note: {}\n", clean(note)));
    }
    text
}

/// The bound in words. What is not known is called unknown.
pub fn bound(loss: &Loss) -> String {
    let seconds = loss.seconds;
    match (seconds, loss.bytes) {
        (Some(0.0), Some(0)) => "nothing".to_owned(),
        (Some(seconds), Some(bytes)) => {
            format!(
                "at most {seconds:.1} s, {}",
                known(bytes, loss.transactions)
            )
        }
        (Some(seconds), None) => format!("at most {seconds:.1} s, bytes unknown"),
        (None, Some(bytes)) => format!("unknown, {}", known(bytes, loss.transactions)),
        (None, None) => "unknown".to_owned(),
    }
}

fn known(bytes: u64, transactions: Option<u64>) -> String {
    let bytes = format!("at least {} of log", Bytes(bytes));
    match transactions {
        Some(number) => {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            format!("{bytes} and {}", count(number, "transaction"))
        }
        None => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Span;
    use crate::plan::action::{Action, ConfirmOutage};
    use crate::plan::{Intent, PlanKind, step};
    use insta::assert_snapshot;

    fn action() -> Action {
        let site = "east".into();
        ConfirmOutage {
            site,
            assumed: false,
        }
        .into()
    }

    #[test]
    fn a_plan_shows_names_skips_the_line_and_the_loss() {
        let intent = Intent::Failover {
            from: "east".into(),
            to: "west".into(),
            planned: false,
        };
        let mut plan = Plan::new(PlanKind::Directional, intent);
        plan.push(step("confirm-outage", "look at east from here", action()));
        let why = Some("it is 1m already".to_owned());
        plan.push(step("lower-ttl www.shop.test", "TTL", action()).skip_if(why));
        plan.push(step("promote-standby main", "open \u{1b}[2Jit", action()).no_return());
        plan.push(step("smoke-test", "west passes", action()).no_return());
        plan.forecast.loss.push(Loss {
            database: "main".to_owned(),
            seconds: Some(3.24),
            bytes: Some(4096),
            transactions: Some(1),
            because: "the newest heartbeat is 3.2 s old".to_owned(),
        });
        plan.forecast.effective_after = Some(Span::secs(60));
        plan.forecast.notes.push("west has one replica".to_owned());
        let text = render("shop", &plan, "DIGEST", false);
        assert_snapshot!(text, @r"
        failover of shop: 3 steps, plan DIGEST
         1 confirm-outage           look at east from here
         2 lower-ttl www.shop.test  skipped: it is 1m already
         ── no way back after this line ──
         3 promote-standby main     open �[2Jit
         4 smoke-test               west passes
        loss: main: at most 3.2 s, at least 4KiB of log and 1 transaction (the newest heartbeat is 3.2 s old)
        effective: at most 1m after the records change, when the last honest cache has moved
        note: west has one replica
        ");
    }

    #[test]
    fn unknown_is_never_a_number() {
        let loss = |seconds, bytes| Loss {
            database: String::new(),
            seconds,
            bytes,
            transactions: None,
            because: String::new(),
        };
        for (seconds, bytes, words) in [
            (None, None, "unknown"),
            (None, Some(0), "unknown, at least 0B of log"),
            (Some(0.0), Some(0), "nothing"),
            (Some(0.0), None, "at most 0.0 s, bytes unknown"),
            (
                Some(2.0),
                Some(1 << 20),
                "at most 2.0 s, at least 1MiB of log",
            ),
        ] {
            assert_eq!(bound(&loss(seconds, bytes)), words);
        }
    }
}
