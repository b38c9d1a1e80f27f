//! How much a failover loses, at most.
//!
//! Two instants, both by the primary's clock, bound it: up to `have` the standby has everything, and after `until` the
//! primary acknowledged nothing. Where the primary's machine is seen to be stopped, `until` lies two heartbeats after
//! its last sign of life: its agent would have been heard of again before that. What passes between the outage and
//! the failover does not count.
//!
//! Bytes and transactions are what is known to exist: those of the last heartbeat. What came after it, at most two
//! heartbeats long, is in the seconds only.

use jiff::Timestamp;

use super::Loss;
use super::facts::Facts;
use crate::cloud::ServerState;
use crate::model::id::{ServerName, SiteName};
use crate::model::stack::{Database, Stack};

/// What can be said about the old primary's machine.
enum Machine {
    /// Its cloud says so, in this word: what it did last it did while it was last heard of.
    Silenced(&'static str),
    /// It may write at this moment.
    Runs,
    /// Nobody can look. Cut off, it goes on until its agent stops it at the end of its write lease.
    Unseen,
}

fn machine(stack: &Stack, facts: &Facts, site: &SiteName, node: &ServerName) -> Machine {
    let Some(seen) = facts.sites.get(site) else {
        return Machine::Unseen;
    };
    if let Some(status) = facts.status(node) {
        return match status.writable {
            true => Machine::Runs,
            // It came back, closed as every node does.
            false => Machine::Silenced("stopped"),
        };
    }
    match (
        seen.answers.known(),
        seen.servers.get(node).map(|server| &server.state),
    ) {
        (None, _) => Machine::Unseen,
        (Some(()), Some(ServerState::Off | ServerState::Frozen)) => Machine::Silenced("stopped"),
        // What it acknowledges reaches nobody.
        (Some(()), Some(state @ ServerState::Isolated)) => Machine::Silenced(state.word()),
        (Some(()), None) if stack.seals(site) && facts.lists(site) => Machine::Silenced("stopped"),
        // A server that exists already may be on no list any more, and at work; or the list is of another place.
        (Some(()), None) => Machine::Unseen,
        (Some(()), Some(_)) => Machine::Runs,
    }
}

pub(super) fn planned(database: &Database) -> Loss {
    Loss {
        database: database.name.to_string(),
        seconds: Some(0.0),
        bytes: Some(0),
        transactions: Some(0),
        because: "planned: proved by position before promotion".to_owned(),
    }
}

/// Of a failover from `old` at `site` to `new`.
pub(super) fn forced(
    stack: &Stack,
    facts: &Facts,
    database: &Database,
    site: &SiteName,
    old: &ServerName,
    new: &ServerName,
) -> Loss {
    let unknown = |because: String| Loss {
        database: database.name.to_string(),
        seconds: None,
        bytes: None,
        transactions: None,
        because,
    };
    let Some(status) = facts.status(new) else {
        return unknown(format!("{new} does not answer"));
    };
    let Some(heartbeat) = &status.heartbeat else {
        return unknown(format!("{new} has no heartbeat"));
    };
    let have = status
        .committed
        .map_or(heartbeat.at, |at| at.max(heartbeat.at));
    let writer = facts.writers.get(&database.name);
    let beat = writer.and_then(|writer| writer.beat.as_ref());
    let (until, because) = match beat {
        None => (
            facts.at,
            format!("no agent of {old} was ever heard of, so it is counted until now"),
        ),
        Some(beat) => {
            let lease = writer.and_then(|writer| writer.lease_until);
            until(
                facts,
                database,
                machine(stack, facts, site, old),
                old,
                beat.at,
                have,
                lease,
            )
        }
    };
    let behind = facts.nodes.get(new).and_then(|node| node.behind);
    let transactions = beat
        .and_then(|beat| beat.transactions)
        .zip(status.transactions)
        .map(|(known, have)| known.saturating_sub(have));
    Loss {
        database: database.name.to_string(),
        seconds: Some(seconds(have, until)),
        bytes: behind.map(|behind| behind.max(0).unsigned_abs()),
        transactions,
        because: format!("{because}; {new} has everything up to {}", ago(facts, have)),
    }
}

/// The instant after which the old primary acknowledged nothing, and why that is so.
fn until(
    facts: &Facts,
    database: &Database,
    machine: Machine,
    old: &ServerName,
    beat: Timestamp,
    have: Timestamp,
    lease: Option<Timestamp>,
) -> (Timestamp, String) {
    let margin = database.beat_every().0 * 2;
    let heard = beat.max(have);
    let said = format!("{old} was last heard of {}", ago(facts, heard));
    // The standby has what is much younger than the last heartbeat: the agent had stopped before the primary did.
    if have > beat + margin {
        let why = format!(
            "{said}, but its agent {}, so it is counted until now",
            ago(facts, beat)
        );
        return (facts.at.max(heard), why);
    }
    match machine {
        Machine::Silenced(word) => (heard + margin, format!("{said} and is {word}")),
        Machine::Runs => (
            facts.at.max(heard),
            format!(
                "{old} runs, so it is counted until now, and what it acknowledges until the fence holds is added"
            ),
        ),
        Machine::Unseen => {
            let until = lease.unwrap_or(facts.at).max(heard + margin);
            let if_stopped = seconds(have, heard + margin);
            let ends = if until < facts.at { "ended" } else { "ends" };
            let why = format!(
                "{said}: at most {if_stopped:.1} s if it stopped then, and otherwise its write lease {ends} {}",
                ago(facts, until)
            );
            (until, why)
        }
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

fn ago(facts: &Facts, at: Timestamp) -> String {
    let ago = facts.at.duration_since(at).as_secs_f64();
    match ago < 0.0 {
        true => format!("in {:.1} s", -ago),
        false => format!("{ago:.1} s ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::roles::Beat;
    use crate::plan::facts::Seen;
    use crate::plan::preflight::tests::fine;
    use crate::sim::stacks::small;
    use std::time::Duration;

    const OLD: &str = "shop-east-db-1";
    const NEW: &str = "shop-west-db-1";

    /// The agent's last heartbeat was `beat` ms before the outage, the newest on the standby `have`, and the outage
    /// 60 s ago.
    fn facts(beat: u64, have: u64) -> Facts {
        let mut facts = fine(&small());
        let cut = facts.at - Duration::from_secs(60);
        let before = |millis: u64| cut - Duration::from_millis(millis);
        let writer = facts.writers.get_mut(&"main".into()).unwrap();
        writer.lease_until = Some(before(beat) + Duration::from_secs(10));
        writer.beat = Some(Beat {
            seq: 9,
            at: before(beat),
            position: "0/100".to_owned(),
            transactions: Some(50),
        });
        let node = facts.nodes.get_mut(&NEW.into()).unwrap();
        node.behind = Some(0xf0);
        if let Seen::Known(status) = &mut node.status {
            status.heartbeat.as_mut().unwrap().at = before(have.max(beat));
            status.committed = Some(before(have));
            status.transactions = Some(47);
        }
        facts.nodes.get_mut(&OLD.into()).unwrap().status = Seen::Unknown("silent".to_owned());
        set_state(&mut facts, ServerState::Off);
        facts
    }

    fn set_state(facts: &mut Facts, state: ServerState) {
        let east = facts.sites.get_mut(&"east".into()).unwrap();
        east.servers.get_mut(&OLD.into()).unwrap().state = state;
    }

    fn bound(facts: &Facts) -> Loss {
        let stack = small();
        let (old, new) = (OLD.into(), NEW.into());
        forced(
            &stack,
            facts,
            &stack.databases[0],
            &"east".into(),
            &old,
            &new,
        )
    }

    #[test]
    fn the_time_since_the_outage_does_not_count() {
        for (beat, have) in [(0, 0), (900, 10), (1100, 0), (500, 3500), (0, 40_000)] {
            let loss = bound(&facts(beat, have));
            let (bound, truth) = (loss.seconds.unwrap(), have as f64 / 1000.0);
            assert!(
                bound >= truth && bound <= truth + 2.0,
                "{beat} {have}: {loss:?}"
            );
            assert_eq!((loss.bytes, loss.transactions), (Some(0xf0), Some(3)));
        }
    }

    #[test]
    fn what_may_still_write_is_counted_until_now() {
        let mut running = facts(0, 0);
        set_state(&mut running, ServerState::Running);
        assert_eq!(bound(&running).seconds, Some(60.0));
        // What it writes there reaches nobody.
        set_state(&mut running, ServerState::Isolated);
        let loss = bound(&running);
        assert_eq!(loss.seconds, Some(2.0));
        assert!(loss.because.contains("and is cut off"), "{}", loss.because);
        // Its processes may have outlived their supervisor.
        set_state(&mut running, ServerState::Failed("leftovers".to_owned()));
        assert_eq!(bound(&running).seconds, Some(60.0));
        // The agent fell silent long before the primary did.
        assert_eq!(bound(&facts(30_000, 0)).seconds, Some(60.0));
    }

    #[test]
    fn what_nobody_sees_may_write_until_its_lease_ends() {
        let mut unseen = facts(0, 0);
        unseen.sites.get_mut(&"east".into()).unwrap().answers = Seen::Unknown("-".to_owned());
        let loss = bound(&unseen);
        assert_eq!(loss.seconds, Some(10.0));
        assert!(
            loss.because
                .contains("at most 2.0 s if it stopped then, and otherwise"),
            "{}",
            loss.because
        );
    }

    #[test]
    fn what_an_empty_list_lacks_is_not_known_to_be_stopped() {
        let mut gone = facts(0, 0);
        let east = |facts: &mut Facts, keep: &dyn Fn(&ServerName) -> bool| {
            let east = facts.sites.get_mut(&"east".into()).unwrap();
            east.servers.retain(|name, _| keep(name));
        };
        east(&mut gone, &|name| name.as_str() != OLD);
        assert!(bound(&gone).because.contains("and is stopped"));
        east(&mut gone, &|_| false);
        assert!(!bound(&gone).because.contains("and is stopped"));
    }

    #[test]
    fn without_a_heartbeat_it_is_unknown() {
        let mut silent = facts(0, 0);
        let node = silent.nodes.get_mut(&NEW.into()).unwrap();
        if let Seen::Known(status) = &mut node.status {
            status.heartbeat = None;
        }
        assert_eq!(bound(&silent).seconds, None);
        node_silent(&mut silent);
        assert_eq!(bound(&silent).seconds, None);
    }

    fn node_silent(facts: &mut Facts) {
        facts.nodes.get_mut(&NEW.into()).unwrap().status = Seen::Unknown("off".to_owned());
    }
}
