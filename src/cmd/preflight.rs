//! `hafog preflight`: could the standby take over now? With evidence, and what to type where it could not.

use serde::Serialize;

use super::open::Images;
use super::{Call, Ended, look, site};
use crate::error::Fault;
use crate::exit;
use crate::model::id::SiteName;
use crate::plan::PlanKind;
use crate::plan::facts::Seen;
use crate::plan::preflight::{Around, Check, Verdict, overall, preflight};
use crate::run::lease;
use crate::run::open::Session;
use crate::ui::print::count;
use crate::ui::snippet::clean;
use crate::ui::table::Table;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The site to check; may be left out if there is only one other site
    site: Option<SiteName>,
}

#[derive(Serialize)]
struct Answer<'a> {
    site: &'a SiteName,
    verdict: Verdict,
    checks: &'a [Check],
}

pub async fn run(call: &Call, args: &Args) -> Ended {
    let session = look::session_with_images(call, "preflight", Images::IfReadable).await?;
    let looked = look_at(&session, args.site.as_ref()).await;
    let (site, checks) = match looked {
        Ok(looked) => looked,
        Err(fault) => return super::drive::close(session, Err(fault.into())).await,
    };
    let verdict = overall(&checks);
    let answer = Answer {
        site: &site,
        verdict,
        checks: &checks,
    };
    call.ui.result(&answer, || text(&site, &checks));
    let code = match verdict {
        Verdict::Pass | Verdict::NotApplicable => exit::DONE,
        Verdict::Fail => exit::REFUSED,
        Verdict::Unknown => exit::OUT_OF_SYNC,
    };
    look::done(session, code).await
}

async fn look_at(
    session: &Session,
    asked: Option<&SiteName>,
) -> Result<(SiteName, Vec<Check>), Fault> {
    let (stack, facts) = (&session.world.stack, &session.facts);
    let site = site::only(stack, asked, &site::standbys(stack, facts), "standby")?;
    let checks = preflight(stack, facts, &site, &around(session).await);
    Ok((site, checks))
}

/// What the arbiter and the journals say.
pub async fn around(session: &Session) -> Around {
    let arbiter = match lease::show(&session.world.stores).await {
        Err(fault) => Seen::Unknown(fault.to_string()),
        Ok(None) => Seen::Known("it answers, nobody ever held the lease".to_owned()),
        Ok(Some(lease)) => Seen::Known(match lease.holder {
            None => format!("it answers, the lease is free, epoch {}", lease.epoch),
            Some(holder) => {
                let gone = holder.is_gone(lease.epoch, session.facts.at);
                let gone = gone.map(|why| format!(" ({why})")).unwrap_or_default();
                let (who, epoch) = (&holder.who, lease.epoch);
                format!("it answers, {who} holds the lease, epoch {epoch}{gone}")
            }
        }),
    };
    // A converging run is superseded by whatever comes next; only a directional one is in the way.
    let unfinished = match crate::run::open::unfinished(&session.world.stores).await {
        Err(fault) => Seen::Unknown(fault.to_string()),
        Ok(opened) => Seen::Known(
            opened
                .filter(|opened| opened.plan.kind == PlanKind::Directional)
                .map(|opened| format!("run {} of {}", opened.run, opened.plan.intent.verb())),
        ),
    };
    Around {
        arbiter,
        unfinished,
    }
}

fn text(site: &SiteName, checks: &[Check]) -> String {
    let mut table = Table::plain();
    for check in checks {
        let word = match check.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Unknown => "UNKNOWN",
            Verdict::NotApplicable => "n.a.",
        };
        let mut said = clean(&check.evidence).replace('\n', " ");
        if let Some(mend) = &check.mend {
            said.push_str(&format!("  → {mend}"));
        }
        table.row([word.to_owned(), check.name.clone(), said]);
    }
    let mut text = table.render("");
    let number = |verdict| {
        checks
            .iter()
            .filter(|check| check.verdict == verdict)
            .count()
    };
    text.push_str(&match overall(checks) {
        Verdict::Pass => format!("{site} can take over\n"),
        Verdict::NotApplicable => "nothing to check\n".to_owned(),
        Verdict::Fail => format!(
            "{site} cannot take over: {} failed\n",
            count(number(Verdict::Fail), "check")
        ),
        Verdict::Unknown => format!(
            "whether {site} can take over is unknown: {} unknown\n",
            count(number(Verdict::Unknown), "check")
        ),
    });
    text
}
