//! The screen of `hafog status`.

use std::time::Duration;

use super::{Flip, Name, Role, Site, Status};
use crate::cmd::replicate;
use crate::model::units;
use crate::plan::facts::Seen;
use crate::plan::files::{Copy, Level};
use crate::plan::preflight::Verdict;
use crate::ui::print::{bold, list};
use crate::ui::snippet::clean;
use crate::ui::table::Table;

pub fn render(status: &Status, colour: bool) -> String {
    let mut text = format!("{}\n", bold(&heading(status), colour));
    if let Some(flip) = &status.provisional {
        text.push_str(&provisional(flip));
    }
    if let Some(run) = &status.unfinished {
        let back = match run.past_no_return {
            true => "",
            false => ", or hafog abort",
        };
        text.push_str(&format!(
            "run {} of {} is not finished: hafog resume{back}\n",
            run.run, run.verb
        ));
    }
    if let Some(why) = &status.unreadable {
        text.push_str(&format!(
            "whether a run is unfinished is unknown: {}\n",
            clean(why)
        ));
    }
    if let Some(lease) = &status.lease
        && let Some(holder) = &lease.holder
    {
        let gone = holder.is_gone(lease.epoch, status.at);
        let gone = gone.map(|why| format!("; {why}")).unwrap_or_default();
        text.push_str(&format!(
            "locked by {} for `{}`{gone}\n",
            holder.who,
            clean(&holder.reason)
        ));
    }
    text.push_str(&format!("\n{}", sites(&status.sites)));
    for line in &status.beside_the_spec {
        text.push_str(&format!("{line}\n"));
    }
    if !status.databases.is_empty() {
        text.push_str(&format!("\n{}", replicate::text(&status.databases)));
    }
    if !status.files.is_empty() {
        text.push_str(&format!("\n{}", files(&status.files)));
    }
    if !status.names.is_empty() {
        text.push_str(&format!("\n{}", names(&status.names)));
    }
    if !status.ready.is_empty() {
        text.push_str(&format!("\n{}", readiness(status)));
    }
    text
}

fn heading(status: &Status) -> String {
    match status.up {
        true => format!("{}: {} is primary", status.stack, status.primary),
        false => format!(
            "{}: not up; {} would be primary",
            status.stack, status.primary
        ),
    }
}

fn provisional(flip: &Flip) -> String {
    let how = if flip.flip.planned {
        "switchover"
    } else {
        "failover"
    };
    let late = if flip.overdue { ", which is over" } else { "" };
    format!(
        "the {how} from {} is provisional until {:.0}{late}: hafog commit, or hafog rollback\n",
        flip.flip.from, flip.flip.until
    )
}

fn sites(sites: &[Site]) -> String {
    let mut table = Table::new(["SITE", "ROLE", "CLOUD", "SERVERS", "FRONT DOOR"]);
    for site in sites {
        let role = match site.role {
            Role::Primary => "primary",
            Role::Standby => "standby",
            Role::LeftBehind => "left behind",
            Role::Unused => "unused",
        };
        let servers = match &site.silent {
            None => format!("{} of {}", site.servers_running, site.servers),
            Some(why) => format!("unknown: {}", clean(why)),
        };
        let door = match &site.front_door {
            None => "-".to_owned(),
            Some(Seen::Known(status)) => status.to_string(),
            Some(Seen::Unknown(why)) => format!("unknown: {}", clean(why)),
        };
        table.row([
            site.name.to_string(),
            role.to_owned(),
            site.cloud.clone(),
            servers,
            door,
        ]);
    }
    table.render("")
}

fn files(copies: &[Copy]) -> String {
    let mut table = Table::new(["FILES", "SERVER", "COUNT", "AGE", "", "STATE"]);
    let mut aside = String::new();
    for copy in copies {
        let level = match copy.level {
            Level::Source => "-",
            Level::Fine => "fine",
            Level::Warn => "late",
            Level::Critical => "OUT OF SYNC",
            Level::Unknown => "UNKNOWN",
        };
        let age = copy
            .age
            .map(|age| units::human(Duration::from_secs_f64(age)));
        table.row([
            copy.files.to_string(),
            copy.server.to_string(),
            copy.count
                .map_or_else(|| "-".to_owned(), |count| count.to_string()),
            age.unwrap_or_else(|| "-".to_owned()),
            level.to_owned(),
            clean(&copy.state),
        ]);
        for folder in &copy.aside {
            let line = format!("{} put files aside: {}\n", copy.server, folder.display());
            aside.push_str(&line);
        }
    }
    table.render("") + &aside
}

fn names(names: &[Name]) -> String {
    let mut table = Table::new(["NAME", "TTL", ""]);
    for name in names {
        let ttl = name
            .ttl
            .map_or("unpublished".to_owned(), |ttl| ttl.to_string());
        let note = match (name.restore, name.restore_by) {
            (Some(normal), Some(by)) if name.overdue => {
                format!("lowered; {normal} was to be restored by {by:.0}: hafog dns restore")
            }
            (Some(normal), Some(by)) => format!("lowered; {normal} is restored by {by:.0}"),
            _ => String::new(),
        };
        table.row([name.host.to_string(), ttl, note]);
    }
    table.render("")
}

fn readiness(status: &Status) -> String {
    let mut text = String::new();
    for ready in &status.ready {
        // All that a site without anything lacks is one thing.
        let mut unused = status.sites.iter().filter(|site| site.role == Role::Unused);
        if unused.any(|site| site.name == ready.site) {
            text.push_str(&format!(
                "{0} is no standby yet: hafog clone {0}\n",
                ready.site
            ));
            continue;
        }
        let in_words = |check: &String| match check.as_str() {
            "roles" => "roles until commit or rollback".to_owned(),
            other => other.to_owned(),
        };
        let because: Vec<String> = ready.because.iter().map(in_words).collect();
        let because = list(&because, "and");
        let only_provisional = ready.because == ["roles"];
        text.push_str(&match ready.verdict {
            Verdict::Pass => format!("{} can take over\n", ready.site),
            Verdict::NotApplicable => String::new(),
            Verdict::Fail if only_provisional => {
                format!("{} cannot take over until commit or rollback\n", ready.site)
            }
            Verdict::Fail => format!(
                "{} cannot take over ({because}): hafog preflight {0}\n",
                ready.site
            ),
            Verdict::Unknown => format!(
                "whether {0} can take over is unknown ({because}): hafog preflight {0}\n",
                ready.site
            ),
        });
    }
    text
}
