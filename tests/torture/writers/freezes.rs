//! A machine that hangs while its database writes, and goes on when another one has taken over.

use std::time::{Duration, Instant};

use super::clients::Acknowledged;
use super::rig::{PGDATA, Rig, comes_back_closed, node, note, until};
use crate::instants::let_pass;
use crate::processes::{go_on, works_below};

/// A machine that hangs while it writes; a failover; it goes on.
pub fn frozen(seed: u64, seconds: u64) -> Result<String, String> {
    let mut rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    let_pass(rig.instant(0..1000));
    rig.must("local power shop-east-db-1 freeze")?;
    let thaw = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let lab = &rig.lab;
        let thawing = scope.spawn(move || {
            let_pass(thaw.saturating_duration_since(Instant::now()));
            // It is off when the fence was faster: then somebody switches it on.
            if lab.run("local power shop-east-db-1 thaw").code != 0 {
                lab.run("local power shop-east-db-1 on");
            }
        });
        let moved = rig.must("failover --yes");
        thawing.join().map_err(|_| "the thaw panicked".to_owned())?;
        moved
    })?;
    rig.writes("west")?;
    comes_back_closed(&rig)
}

/// How long the database has its machine to itself.
const ALONE: Duration = Duration::from_secs(2);

/// Nobody can look at the old site, whose machine hangs until its lease is long over; then it goes on, and its
/// database is up before its agent has looked at anything.
pub fn frozen_past_its_lease(seed: u64) -> Result<String, String> {
    let mut rig = Rig::new(seed, true)?;
    rig.writes("east")?;
    let_pass(rig.instant(0..1000));
    rig.must("local power shop-east-db-1 freeze")?;
    rig.must("failover --yes --assume-down east")?;
    rig.writes("west")?;
    let thawed = Instant::now();
    // The worst order: all of its database before anybody else on the machine.
    let database = works_below(&rig.folder("east").join(PGDATA));
    if database.is_empty() {
        return Err("there is no database to thaw".to_owned());
    }
    database.iter().for_each(|pid| go_on(*pid));
    let_pass(ALONE);
    rig.must("local power shop-east-db-1 thaw")?;
    until("the old primary is closed", || {
        rig.lab.writable() == [node("west")]
    })?;
    rig.writes("west")?;
    nothing_alone(&rig, thawed)?;
    rig.must("commit --yes")?;
    rig.must("failback --rejoin-only --yes")?;
    rig.ready()?;
    nothing_alone(&rig, thawed)?;
    Ok("moved, one writer".to_owned())
}

/// The old primary acknowledged nothing that the new one lacks, neither before the move nor after the thaw. An answer
/// that was on its way when the machine froze may arrive late, one a session: what it speaks of is in the new primary.
fn nothing_alone(rig: &Rig, thawed: Instant) -> Result<(), String> {
    const SESSIONS: usize = 5;
    let lost = rig.lost("east", "west")?;
    let after = |one: &&Acknowledged| one.at > thawed;
    if let Some(first) = lost.first() {
        return Err(format!(
            "DOUBLE WRITER: {} writes were acknowledged by the old primary alone, {} of them after the thaw, first `{}`",
            lost.len(),
            lost.iter().filter(after).count(),
            first.id
        ));
    }
    let book = rig.writing.book();
    let late = book.iter().filter(|one| one.site == "east").filter(after);
    let late = late.count();
    note(&format!("answers that came late: {late}"));
    match late {
        0..=SESSIONS => Ok(()),
        _ => Err(format!(
            "{late} late answers of {SESSIONS} sessions: the old primary acknowledged anew"
        )),
    }
}
