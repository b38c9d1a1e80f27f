//! `preflight`: everything that a failover to a site would look at, while nobody is in a hurry.
//!
//! Each check passes, fails, or is unknown; what has nothing to look at does not apply. Unknown never passes.

mod database;
mod files;
mod names;
mod site;

use std::time::Duration;

use serde::Serialize;

use super::facts::{Facts, Seen};
use crate::model::id::*;
use crate::model::stack::{Stack, Tier};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Pass,
    Fail,
    Unknown,
    NotApplicable,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// `lag main`: stable, with what it is about.
    pub name: String,
    pub verdict: Verdict,
    /// How we know.
    pub evidence: String,
    /// The command that mends it.
    pub mend: Option<String>,
}

/// A kind of check, for `hafog explain` and the docs.
pub struct About {
    /// The first word of [`Check::name`].
    pub name: &'static str,
    pub about: &'static str,
}

pub const CHECKS: &[About] = &[
    About {
        name: "standby",
        about: "The site is a standby: `hafog clone` made it, and no failover has left it behind since.",
    },
    About {
        name: "roles",
        about: "No flip is provisional. Until its commit or rollback the only move is back.",
    },
    About {
        name: "runs",
        about: "No switchover, failover or rollback is unfinished. Such a run is resumed or aborted first.",
    },
    About {
        name: "arbiter",
        about: "The state store that holds the lease answers. Without it nobody may change the stack.",
    },
    About {
        name: "cloud",
        about: "The site's cloud answers, so that its servers can be seen and started.",
    },
    About {
        name: "image",
        about: "The images that the spec describes now are at the site, so that servers can start from them.",
    },
    About {
        name: "servers",
        about: "The servers that the site's tier keeps running do run. A cold site keeps none.",
    },
    About {
        name: "front-door",
        about: "The site answers the spec's health checks, asked at its own balancer. Nothing serves in colder tiers.",
    },
    About {
        name: "follows",
        about: "The node that would be promoted is a replica, and its stream is alive.",
    },
    About {
        name: "lag",
        about: "The node's newest heartbeat is younger than `lag.critical`. A dead stream is unknown lag, never zero.",
    },
    About {
        name: "headroom",
        about: "The primary still keeps all the log that the replica needs. Without it the replica must be copied anew.",
    },
    About {
        name: "write-lease",
        about: "The primary's agent renews its write lease: it is alive, and a failover knows when the lease ends. Under `self_fence: strict`, commits wait for the node that would be promoted.",
    },
    About {
        name: "certificates",
        about: "The database's certificates, on each node, are good for 21 days or more. `hafog up` renews what is due.",
    },
    About {
        name: "files",
        about: "The site's copy of the files is whole and younger than their `lag.critical`, and nothing of it is held back.",
    },
    About {
        name: "zone",
        about: "The zone is served, and what is served is what hafog published last.",
    },
    About {
        name: "ttl",
        about: "How long a flip takes until everybody sees it. Fails where a lowered TTL was not restored in time.",
    },
];

/// Certificates that end sooner fail.
pub const CERTIFICATES_MIN: Duration = Duration::from_secs(21 * 24 * 3600);

/// What facts do not hold.
pub struct Around {
    /// What the arbiter said when it was asked for the lease.
    pub arbiter: Seen<String>,
    /// An unfinished run that is in the way, in words.
    pub unfinished: Seen<Option<String>>,
}

/// The worst verdict of all: one failure fails, and without one, one unknown is unknown.
pub fn overall(checks: &[Check]) -> Verdict {
    let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
    match (
        any(Verdict::Fail),
        any(Verdict::Unknown),
        any(Verdict::Pass),
    ) {
        (true, _, _) => Verdict::Fail,
        (false, true, _) => Verdict::Unknown,
        (false, false, true) => Verdict::Pass,
        (false, false, false) => Verdict::NotApplicable,
    }
}

fn pass(name: impl Into<String>, evidence: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        verdict: Verdict::Pass,
        evidence: evidence.into(),
        mend: None,
    }
}

fn not_applicable(name: impl Into<String>, evidence: impl Into<String>) -> Check {
    Check {
        verdict: Verdict::NotApplicable,
        ..pass(name, evidence)
    }
}

fn unknown(name: impl Into<String>, why: impl Into<String>, mend: impl Into<String>) -> Check {
    Check {
        verdict: Verdict::Unknown,
        mend: Some(mend.into()),
        ..pass(name, why)
    }
}

fn fail(name: impl Into<String>, why: impl Into<String>, mend: impl Into<String>) -> Check {
    Check {
        verdict: Verdict::Fail,
        ..unknown(name, why, mend)
    }
}

/// Checks whether `site` can take over, in the order in which a failover would need it.
pub fn preflight(stack: &Stack, facts: &Facts, site: &SiteName, around: &Around) -> Vec<Check> {
    let mut checks = vec![site::standby(facts, site), site::settled(facts)];
    checks.push(match &around.unfinished {
        Seen::Known(Some(run)) => fail("runs", format!("{run} is not finished"), "hafog resume"),
        Seen::Known(None) => pass("runs", "every run is finished"),
        Seen::Unknown(why) => unknown("runs", why, "hafog show journal --list"),
    });
    checks.push(match &around.arbiter {
        Seen::Known(said) => pass("arbiter", said),
        Seen::Unknown(why) => unknown("arbiter", why, "hafog lock status"),
    });
    checks.push(site::answers(facts, site));
    checks.extend(site::images(stack, facts, site));
    checks.push(site::servers(stack, facts, site));
    checks.push(site::front_door(stack, facts, site));
    if stack.databases.is_empty() {
        let of_databases = ["follows", "lag", "headroom", "write-lease", "certificates"];
        checks.extend(of_databases.map(|name| not_applicable(name, "the stack has no database")));
    }
    for database in &stack.databases {
        checks.extend(database::replica(stack, facts, site, database));
        checks.push(database::write_lease(stack, facts, site, database));
        checks.push(database::certificates(facts, database));
    }
    if stack.files.is_empty() {
        checks.push(not_applicable("files", "the stack has no files"));
    }
    let files = stack.files.iter();
    checks.extend(files.map(|files| files::copied(stack, facts, site, files)));
    if stack.names.is_empty() {
        let of_names = ["zone", "ttl"];
        checks.extend(of_names.map(|name| not_applicable(name, "the stack publishes no name")));
    }
    for zone in &stack.zones {
        checks.push(names::zone_serves(stack, facts, zone));
    }
    checks.extend(stack.names.iter().map(|name| names::ttl(facts, name)));
    checks
}

fn tier(stack: &Stack, site: &SiteName) -> Tier {
    stack.site(site).map(|site| site.tier).unwrap_or_default()
}

#[cfg(test)]
mod pair_tests;
#[cfg(test)]
pub(crate) mod tests;
