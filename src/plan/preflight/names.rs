//! Checks of zones and of the names in them.

use jiff::Timestamp;

use super::{Check, fail, not_applicable, pass, unknown};
use crate::model::record::RecordType;
use crate::model::stack::{Name, Stack, Zone};
use crate::model::units::short;
use crate::plan::facts::{Facts, Seen};
use crate::plan::ttl::seen_after;

/// Served, and what is served is what was published last.
pub(super) fn zone_serves(stack: &Stack, facts: &Facts, zone: &Zone) -> Check {
    let name = format!("zone {}", zone.name);
    let Some(seen) = facts.zones.get(&zone.name) else {
        return unknown(name, "nobody looked", "hafog dns show");
    };
    match &seen.open {
        Seen::Unknown(why) => return unknown(name, why, "hafog dns show"),
        Seen::Known(false) => {
            return fail(name, format!("{} does not serve it", zone.host), "hafog up");
        }
        Seen::Known(true) => {}
    }
    let names = stack.names.iter().filter(|name| name.zone == zone.name);
    let mut same = 0;
    // Users come by the CNAME, and a move is seen through it.
    let sets = names.flat_map(|name| {
        [
            (&name.target, RecordType::A),
            (&name.host, RecordType::Cname),
        ]
    });
    for (host, kind) in sets {
        let Some(published) = facts.published.current(host, kind) else {
            continue;
        };
        match seen.record(host, kind) {
            Some(held) if held == published => same += 1,
            Some(held) => {
                let why = format!("it serves `{held}`, and `{published}` was published");
                return fail(name, why, "hafog dns show");
            }
            None => {
                let why = format!("it does not serve `{published}`, which was published");
                return fail(name, why, "hafog dns show");
            }
        }
    }
    match same {
        0 => not_applicable(name, "nothing was published in it"),
        _ => pass(name, format!("{} serves what was published", zone.host)),
    }
}

/// How long a flip takes to be seen, and whether a lowered TTL was forgotten.
pub(super) fn ttl(facts: &Facts, name: &Name) -> Check {
    let check = format!("ttl {}", name.host);
    if let Some(lease) = facts.published.ttl_leases.get(&name.target)
        && is_over(lease.until, facts.at)
    {
        let why = format!(
            "lowered to {}, to be restored by {:.0}",
            lease.lowered, lease.until
        );
        return fail(check, why, "hafog dns restore");
    }
    match facts.published.current(&name.target, RecordType::A) {
        None => not_applicable(check, "it was never published"),
        Some(set) => {
            let seen = seen_after(facts, name, false).map_or(set.ttl.duration(), |span| span.0);
            let why = format!(
                "a flip is seen everywhere after {}, later ones after {}",
                short(seen),
                name.failover_ttl
            );
            pass(check, why)
        }
    }
}

fn is_over(until: Timestamp, now: Timestamp) -> bool {
    until < now
}
