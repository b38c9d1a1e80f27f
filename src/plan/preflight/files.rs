//! Whether the site has the files.

use super::{Check, fail, not_applicable, pass, tier, unknown};
use crate::model::id::SiteName;
use crate::model::stack::{Files, Stack, Tier};
use crate::model::units;
use crate::plan::facts::Facts;
use crate::plan::files::{Level, copy};

pub(super) fn copied(stack: &Stack, facts: &Facts, site: &SiteName, files: &Files) -> Check {
    let name = format!("files {}", files.name);
    let sync = format!("hafog sync {}", files.name);
    match tier(stack, site) {
        Tier::Cold => return not_applicable(name, "a cold site copies nothing"),
        Tier::PilotLight => {
            let why = format!(
                "no server of `{}` runs at {site} (tier pilot-light), and nothing copies",
                files.on
            );
            return fail(name, why, "hafog check");
        }
        Tier::Warm | Tier::Hot => {}
    }
    let Some(server) = stack.first_of(site, files) else {
        return unknown(name, "the spec has no server for them there", "hafog check");
    };
    let copy = copy(stack, facts, files, server);
    let age = copy.age.map(|age| {
        let age = units::human(std::time::Duration::from_secs_f64(age));
        format!(
            "{} has {} files, as they were {age} ago",
            copy.server,
            copy.count.unwrap_or(0)
        )
    });
    match (copy.level, age) {
        (Level::Fine, Some(age)) => pass(name, age),
        (Level::Warn, Some(age)) if copy.state.starts_with("follows ") => pass(name, age),
        (Level::Unknown, _) => unknown(
            name,
            format!("{}: {}", copy.server, copy.state),
            "hafog status",
        ),
        (_, Some(age)) => fail(name, format!("{age}: {}", copy.state), sync),
        (_, None) => fail(name, format!("{}: {}", copy.server, copy.state), sync),
    }
}
