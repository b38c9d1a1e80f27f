//! What somebody agrees to: which refusals they accept, which plan they mean, and whether it still holds.

use std::time::Duration;

use jiff::Timestamp;

use super::Road;
use crate::error::{Fault, Kind};
use crate::model::id::StackName;
use crate::plan::{Plan, Refusal};
use crate::ui::ask;
use crate::ui::plan as show;

/// An answer that took longer is of a world that may be gone.
const FRESH: Duration = Duration::from_secs(60);
/// Seconds of loss that nobody is asked about again.
const ROUNDED: f64 = 0.1;

impl Road<'_> {
    /// A plan that somebody is asked about is shown to them also with `--quiet`.
    pub fn show(&self, text: &str) {
        let mut ui = self.call.ui;
        ui.quiet &= self.is_agreed() || !ask::somebody_is_there();
        ui.say(text);
    }

    fn is_agreed(&self) -> bool {
        self.change.yes || self.change.plan.is_some()
    }

    /// `--plan` names this plan, or none.
    pub(super) fn same_plan(&self, digest: &str) -> Result<(), Fault> {
        match &self.change.plan {
            Some(wanted) if wanted != digest => {
                Err(another(digest, wanted).hint(format!("hafog {} --dry-run", self.verb)))
            }
            _ => Ok(()),
        }
    }

    pub async fn agree(&self, digest: &str, stack: &StackName, severe: bool) -> Result<(), Fault> {
        self.same_plan(digest)?;
        if self.is_agreed() {
            return Ok(());
        }
        if !ask::somebody_is_there() {
            let fault = Fault::of(
                Kind::Consent,
                "nobody agreed to the plan, and nobody can be asked",
            );
            return Err(fault
                .hint(format!("hafog {} --plan {digest}", self.verb))
                .hint(format!("hafog {} --yes", self.verb)));
        }
        let (question, wanted) = match severe {
            true => (
                format!("type `{stack}` to go on:"),
                stack.as_str().to_owned(),
            ),
            false => ("go on? [y/N]".to_owned(), String::new()),
        };
        // The thread that reads stays behind when somebody presses Ctrl-C; the process ends soon after.
        let asked = tokio::task::spawn_blocking(move || ask::ask(&question));
        let asked = self.interrupts.or(asked).await;
        // What was typed, `^C` too, keeps a line of its own.
        let asked = asked.inspect_err(|_| self.call.ui.say("\n"))?;
        let answer = asked.ok().flatten();
        let answer = answer.unwrap_or_default();
        let yes = matches!(answer.to_lowercase().as_str(), "y" | "yes");
        if (severe && answer == wanted) || (!severe && yes) {
            return Ok(());
        }
        Err(Fault::of(
            Kind::Consent,
            "not agreed; the plan was not begun",
        ))
    }
}

/// Refusals that nobody accepted, each with the command that mends it. Accepting what may not be accepted changes nothing.
pub fn refusals(found: &[Refusal], accepted: &[String]) -> Vec<Fault> {
    let open = found
        .iter()
        .filter(|refusal| !refusal.waivable || !accepted.contains(&refusal.name));
    let fault = |refusal: &Refusal| {
        let fault = Fault::refused(format!("{}: {}", refusal.name, refusal.why));
        let accept = format!("--accept {}", refusal.name);
        let fault = match refusal.hint.contains(&accept) {
            true => fault,
            false => fault.hint(&refusal.hint),
        };
        match (refusal.waivable, accepted.contains(&refusal.name)) {
            (true, _) => fault.hint(format!("add `{accept}` to go on in spite of it")),
            (false, true) => fault.because("nobody may accept this one"),
            (false, false) => fault,
        }
    };
    open.map(fault).collect()
}

/// By the wall clock, which also goes on while the machine sleeps with the question on its screen. Stepped far in either
/// direction it costs one more look.
pub(super) fn is_old(asked: Timestamp, now: Timestamp) -> bool {
    now.duration_since(asked).unsigned_abs() > FRESH
}

fn another(digest: &str, wanted: &str) -> Fault {
    Fault::refused(format!(
        "the world moved: the plan is `{digest}` now, not `{wanted}`"
    ))
}

/// Why what is planned now is not what was agreed to: it does something else, or may lose more.
pub(super) fn moved(agreed: &Plan, now: &Plan) -> Option<Fault> {
    let (before, digest) = (agreed.digest(), now.digest());
    if before != digest {
        let was = |one: &&Refusal| agreed.refusals.iter().any(|was| was.name == one.name);
        let new = now.refusals.iter().filter(|one| !was(one));
        return Some(new.fold(another(&digest, &before), |fault, one| {
            fault.because(format!("{}: {}", one.name, one.why))
        }));
    }
    let grown = now.forecast.loss.iter().find_map(|loss| {
        let mut before = agreed.forecast.loss.iter();
        let before = before.find(|before| before.database == loss.database)?;
        let limit = before.seconds? + ROUNDED;
        let is_more = loss.seconds.is_none_or(|seconds| seconds > limit);
        is_more.then_some((loss, before))
    });
    grown.map(|(loss, before)| {
        Fault::refused(format!(
            "the world moved: loss: {}: {} now, and {} when it was shown",
            loss.database,
            show::bound(loss),
            show::bound(before)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::safety::refusal;
    use crate::plan::{Intent, PlanKind};
    use crate::ui::snippet;
    use insta::assert_snapshot;

    fn shown(found: &[Refusal], accepted: &[&str]) -> String {
        let accepted: Vec<String> = accepted.iter().map(|name| (*name).to_owned()).collect();
        let faults = refusals(found, &accepted);
        faults
            .iter()
            .map(|fault| snippet::render(fault, false))
            .collect()
    }

    #[test]
    fn a_refusal_is_waived_by_its_name_and_only_if_it_may_be() {
        let found = [
            refusal(
                "unfenced-primary",
                "nothing proves it",
                "hafog failover --accept unfenced-primary",
            ),
            refusal(
                "standby-behind",
                "12.0 s behind",
                "hafog replicate status west",
            ),
            refusal("provisional", "not committed", "hafog commit"),
        ];
        assert_snapshot!(shown(&found, &[]), @r"
        refused: unfenced-primary: nothing proves it
        hint: add `--accept unfenced-primary` to go on in spite of it
        refused: standby-behind: 12.0 s behind
        hint: hafog replicate status west
        hint: add `--accept standby-behind` to go on in spite of it
        refused: provisional: not committed
        hint: hafog commit
        ");
        assert_snapshot!(shown(&found, &["unfenced-primary", "standby-behind", "provisional"]), @r"
        refused: provisional: not committed
        cause: nobody may accept this one
        hint: hafog commit
        ");
        assert_eq!(
            shown(&found[..2], &["unfenced-primary", "standby-behind"]),
            ""
        );
        assert_eq!(refusals(&found, &["standby".to_owned()]).len(), 3);
    }

    #[test]
    fn what_was_agreed_to_holds_as_long_as_it_is_the_same_and_loses_no_more() {
        let plan = |refused: &[&'static str], seconds: Option<f64>| {
            let intent = Intent::Failover {
                from: "east".into(),
                to: "west".into(),
                planned: false,
            };
            let mut plan = Plan::new(PlanKind::Directional, intent);
            let refused = refused.iter().map(|name| refusal(name, "it answers", ""));
            plan.refusals.extend(refused);
            plan.forecast.loss.push(crate::plan::Loss {
                database: "main".to_owned(),
                seconds,
                bytes: Some(0),
                transactions: None,
                because: String::new(),
            });
            plan
        };
        let agreed = plan(&[], Some(2.0));
        let says = |now: &Plan| {
            let text = moved(&agreed, now).map(|fault| snippet::render(&fault, false));
            let text = text.unwrap_or_else(|| "goes on\n".to_owned());
            text.replace(&agreed.digest(), "AGREED")
                .replace(&now.digest(), "NOW")
        };
        let later = [
            plan(&[], Some(2.0)),
            plan(&[], Some(0.5)),
            plan(&[], Some(95.0)),
            plan(&[], None),
            plan(&["primary-healthy"], Some(2.0)),
        ];
        let text: String = later.iter().map(says).collect();
        assert_snapshot!(text, @r"
        goes on
        goes on
        refused: the world moved: loss: main: at most 95.0 s, at least 0B of log now, and at most 2.0 s, at least 0B of log when it was shown
        refused: the world moved: loss: main: unknown, at least 0B of log now, and at most 2.0 s, at least 0B of log when it was shown
        refused: the world moved: the plan is `NOW` now, not `AGREED`
        cause: primary-healthy: it answers
        ");
        assert!(moved(&plan(&[], None), &plan(&[], None)).is_none());
        let at: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        for (seconds, old) in [(0, false), (60, false), (61, true), (-61, true)] {
            let now = at + jiff::SignedDuration::from_secs(seconds);
            assert_eq!(is_old(at, now), old, "{seconds}");
        }
    }

    #[test]
    fn every_refusal_that_stands_alone_stops_the_plan_until_it_is_accepted() {
        for about in crate::plan::safety::REFUSALS {
            let found = [refusal(about.name, "why", "hafog status")];
            assert_eq!(refusals(&found, &[]).len(), 1, "{}", about.name);
            let others = crate::plan::safety::REFUSALS.iter();
            let others = others.filter(|other| other.name != about.name);
            let others: Vec<String> = others.map(|other| other.name.to_owned()).collect();
            assert_eq!(refusals(&found, &others).len(), 1, "{}", about.name);
            let left = refusals(&found, &[about.name.to_owned()]).len();
            assert_eq!(left, usize::from(!about.waivable), "{}", about.name);
        }
    }
}
