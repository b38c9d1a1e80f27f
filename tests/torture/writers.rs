//! Never two writers, and moves without loss: clients write at both sites all the time, and what they were told is
//! the judge.

mod clients;
mod freezes;
#[path = "../real/lab.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod lab;
mod moves;
mod outages;
mod restarts;
mod rig;

use freezes::{frozen, frozen_past_its_lease};
use moves::{failovers, switchovers, takeovers};
use outages::{killed_after_its_own_stop, store_away, unfenced};
use restarts::{agent_kept_dead, agent_killed, restarted_by_hand, restarted_meanwhile};

/// Verb, step, fault, and what runs it: the end state in words, or what is wrong.
pub type Row = (
    &'static str,
    &'static str,
    &'static str,
    fn(seed: u64) -> Result<String, String>,
);

pub const CASES: &[Row] = &[
    ("switchover", "all", "writers", |seed| switchovers(seed, 2)),
    ("failover", "all", "writers", |seed| failovers(seed, 2)),
    ("failover within", "all", "writers", |seed| {
        takeovers(seed, 3)
    }),
    ("failover", "stop-writes", "frozen 5 s", |seed| {
        frozen(seed, 5)
    }),
    ("failover", "stop-writes", "frozen 30 s", |seed| {
        frozen(seed, 30)
    }),
    (
        "failover",
        "stop-writes",
        "restarted meanwhile",
        restarted_meanwhile,
    ),
    (
        "failover",
        "done",
        "engine restarted by hand",
        restarted_by_hand,
    ),
    ("failover", "stop-writes", "agent killed", agent_killed),
    (
        "failover",
        "stop-writes",
        "agent kept dead",
        agent_kept_dead,
    ),
    ("agent", "hold", "store unreachable, isolated", |_| {
        store_away(false)
    }),
    ("agent", "hold", "store unreachable, strict", |_| {
        store_away(true)
    }),
    ("agent", "hold", "killed after its own stop", |_| {
        killed_after_its_own_stop()
    }),
    ("failover", "stop-writes", "unfenced, as accepted", unfenced),
    (
        "failover",
        "stop-writes",
        "frozen past its lease, strict",
        frozen_past_its_lease,
    ),
];

/// Only in `make torture`: they take minutes or hours.
pub const LONG: &[Row] = &[
    ("failover within", "all", "writers, 99 times", |seed| {
        takeovers(seed, 99)
    }),
    ("failover", "stop-writes", "frozen 120 s", |seed| {
        frozen(seed, 120)
    }),
];

/// As `LONG`, in parts that can be taken up one by one: 200 of each.
pub const OFTEN: &[Row] = &[
    ("switchover", "all", "writers, 25 times", |seed| {
        switchovers(seed, 25)
    }),
    ("failover", "all", "writers, 25 times", |seed| {
        failovers(seed, 25)
    }),
];
pub const PARTS: usize = 8;
