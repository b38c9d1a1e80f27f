//! An arbiter that is out of reach, and an old site at which nobody can look.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::rig::{LEASE, PGDATA, Rig, node, note, until};
use crate::instants::let_pass;
use crate::processes::{go_on, kill_hard, running, stop, works_below};

/// The arbiter's folder, which is not where it belongs.
struct Away {
    here: PathBuf,
    away: PathBuf,
}

impl Away {
    fn take(home: &Path) -> Result<Away, String> {
        let (here, away) = (home.join("arbiter"), home.join("away"));
        std::fs::rename(&here, &away).map_err(|error| error.to_string())?;
        Ok(Away { here, away })
    }

    fn bring_back(self) -> Result<(), String> {
        // Somebody's `mkdir` may have made an empty one: that is no arbiter.
        let _ = std::fs::remove_dir_all(&self.here);
        std::fs::rename(&self.away, &self.here).map_err(|error| error.to_string())
    }
}

/// The arbiter's folder is away for longer than a write lease, and comes back.
pub fn store_away(strict: bool) -> Result<String, String> {
    let rig = Rig::new(1, strict)?;
    rig.writes("east")?;
    let arbiter = Away::take(rig.lab.home.path())?;
    let gone = Instant::now();
    let_pass(LEASE * 2);
    let late = rig
        .writing
        .book()
        .into_iter()
        .rev()
        .find(|one| one.at > gone + LEASE);
    arbiter.bring_back()?;
    match (strict, late) {
        (true, Some(late)) => {
            let after = (late.at - gone).as_secs_f64();
            return Err(format!(
                "acknowledged {after:.1} s after the store was gone, with a lease of {} s",
                LEASE.as_secs()
            ));
        }
        (false, None) => {
            return Err("an outage of the arbiter alone stopped a healthy primary".to_owned());
        }
        _ => {}
    }
    rig.writes("east")?;
    rig.reigns(&["east"])?;
    rig.is_the_only_one("east")?;
    Ok(if strict {
        "stopped, and open again"
    } else {
        "went on"
    }
    .to_owned())
}

/// The agent stops its engine because its lease is over, and is killed. The next one brings the engine back when the
/// arbiter is there again.
pub fn killed_after_its_own_stop() -> Result<String, String> {
    let rig = Rig::new(1, true)?;
    rig.writes("east")?;
    let arbiter = Away::take(rig.lab.home.path())?;
    let data = rig.folder("east").join(PGDATA);
    until("the agent has stopped its engine", || {
        works_below(&data).is_empty()
    })?;
    let agents = running(&rig.folder("east"), "agent");
    agents.iter().for_each(|pid| kill_hard(*pid));
    until("there is another agent", || {
        let now = running(&rig.folder("east"), "agent");
        !now.is_empty() && now.iter().all(|pid| !agents.contains(pid))
    })?;
    arbiter.bring_back()?;
    rig.writes("east")?;
    rig.reigns(&["east"])?;
    rig.is_the_only_one("east")?;
    Ok("stopped, and open again".to_owned())
}

/// Nobody can look at the old site and its agent is dead: both acknowledge, as accepted. The way back names what
/// only the old one has.
pub fn unfenced(seed: u64) -> Result<String, String> {
    let rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    // Frozen, and not killed: an agent that was restarted may fence before it is killed again.
    let frozen = running(&rig.folder("east"), "agent");
    if frozen.is_empty() {
        return Err("there is no agent to freeze".to_owned());
    }
    frozen.iter().for_each(|pid| stop(*pid));
    rig.must("failover --yes --assume-down east --accept unfenced-primary")?;
    rig.writes("west")?;
    rig.writes("east")?;
    frozen.into_iter().for_each(go_on);
    // Its agent is back, and fences it.
    until("the old primary is closed", || {
        rig.lab.writable() == [node("west")]
    })?;
    rig.reigns(&["east", "west"])
        .err()
        .ok_or("nobody acknowledged twice: the case is empty")?;
    let lost = rig.lost("east", "west")?;
    let direct = lost
        .iter()
        .filter(|one| !one.id.starts_with("order "))
        .count() as u64;
    let ran = rig.lab.run("failback --rejoin-only --dry-run --json");
    let said: Value = serde_json::from_slice(&ran.raw).map_err(|_| ran.all())?;
    let apart = &said["plan"]["forecast"]["apart"]["shop-east-db-1"]["known"];
    let contents = &apart["contents"]["known"];
    note(&format!(
        "acknowledged twice: {} writes; said {}",
        lost.len(),
        said["plan"]["forecast"]["notes"]
    ));
    let tables = contents["different"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let written = tables
        .iter()
        .find(|table| table["table"] == "public.written");
    let written = written.ok_or_else(|| format!("no rows are named: {apart}"))?;
    let named = written["only_old"].as_u64().unwrap_or_default();
    // A write whose answer was cut off may be there too.
    if named < direct || named > direct + 10 {
        return Err(format!(
            "{direct} were acknowledged by the old primary alone, and {named} are named"
        ));
    }
    let first = written["keys"][0]
        .as_str()
        .unwrap_or_default()
        .trim_matches(['(', ')', '"'])
        .to_owned();
    let held = rig.writing.held(rig.door("west"))?;
    if first.is_empty() || held.contains(&first) {
        return Err(format!("`{first}` is named, and the new primary has it"));
    }
    if contents["transactions"].as_u64() < Some(direct) {
        return Err(format!("too few transactions: {contents}"));
    }
    rig.must("commit --yes")?;
    rig.must("failback --rejoin-only --yes")?;
    rig.ready()?;
    Ok("two writers as accepted, and named".to_owned())
}
