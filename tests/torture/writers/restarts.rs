//! An old primary, or the agent beside it, that is started or killed at the wrong time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::rig::{LEASE, Rig, comes_back_closed, until};
use crate::instants::let_pass;
use crate::processes::{kill_hard, running};

/// Somebody switches the old primary's machine on again and again while the failover is under way.
pub fn restarted_meanwhile(seed: u64) -> Result<String, String> {
    let rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    rig.must("local power shop-east-db-1 off")?;
    let over = AtomicBool::new(false);
    let moved = std::thread::scope(|scope| {
        let lab = &rig.lab;
        let done = &over;
        scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                lab.run("local power shop-east-db-1 on");
            }
        });
        let moved = rig.must("failover --yes --accept primary-healthy");
        over.store(true, Ordering::SeqCst);
        moved
    })?;
    // Whether the last switch of both was on is up to chance. So is what the fence met: of a machine that was on again
    // by then it stopped the database, which stays so until the machine boots or the node joins again.
    if moved
        .all()
        .contains("the database on shop-east-db-1 is stopped")
    {
        rig.must("local power shop-east-db-1 off")?;
    }
    rig.must("local power shop-east-db-1 on")?;
    rig.writes("west")?;
    comes_back_closed(&rig)
}

/// After the failover somebody restarts the old primary's engine, abruptly and through its service.
pub fn restarted_by_hand(seed: u64) -> Result<String, String> {
    let rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    rig.must("failover --yes --accept primary-healthy")?;
    rig.writes("west")?;
    rig.must("local power shop-east-db-1 on")?;
    let folder = rig.folder("east");
    for _ in 0..3 {
        until("the old engine runs", || {
            !running(&folder, "postgres").is_empty()
        })?;
        running(&folder, "postgres").into_iter().for_each(kill_hard);
        rig.writes("west")?;
    }
    comes_back_closed(&rig)
}

/// The agent is killed again and again, and its supervisor restarts it, through both kinds of move.
pub fn agent_killed(seed: u64) -> Result<String, String> {
    let mut rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    let killed = Killing::start(rig.folder("east"), rig.instant(500..2000));
    rig.must("switchover --yes")?;
    rig.writes("west")?;
    rig.must("commit --yes")?;
    rig.ready()?;
    rig.must("switchover --yes")?;
    rig.writes("east")?;
    rig.reigns(&["east", "west", "east"])?;
    killed.stop()?;
    Ok("moved there and back, one writer".to_owned())
}

/// It never lives long enough for a round.
pub fn agent_kept_dead(seed: u64) -> Result<String, String> {
    let rig = Rig::new(seed, false)?;
    rig.writes("east")?;
    let killed = Killing::start(rig.folder("east"), Duration::ZERO);
    // Longer than its write lease.
    let_pass(LEASE + LEASE / 2);
    rig.writes("east")?;
    rig.must("failover --yes --accept primary-healthy")?;
    rig.writes("west")?;
    rig.must("local power shop-east-db-1 on")?;
    rig.writes("west")?;
    rig.is_the_only_one("west")?;
    killed.stop()?;
    comes_back_closed(&rig)
}

/// Kills a node's agent whenever it is there, with a pause after each time.
struct Killing {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Killing {
    fn start(folder: PathBuf, pause: Duration) -> Killing {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            let mut killed = 0;
            while !stop.load(Ordering::SeqCst) {
                for pid in running(&folder, "agent") {
                    kill_hard(pid);
                    killed += 1;
                }
                let_pass(pause.max(Duration::from_millis(2)));
            }
            killed
        });
        Killing {
            over,
            thread: Some(thread),
        }
    }

    /// An agent that was never found was never killed.
    fn stop(mut self) -> Result<(), String> {
        self.over.store(true, Ordering::SeqCst);
        let killed = self.thread.take().map(std::thread::JoinHandle::join);
        match killed {
            Some(Ok(1..)) => Ok(()),
            _ => Err("the agent was never killed".to_owned()),
        }
    }
}

impl Drop for Killing {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}
