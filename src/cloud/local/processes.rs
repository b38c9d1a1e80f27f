//! Processes as the kernel shows them in /proc: who belongs to a server, and stopping, waking and killing all of them.
//!
//! A process is found by any of four signs, because each of them can be lost: it is recorded (by id *and* start time,
//! so that a reused id never counts), it carries a mark in its environment (PostgreSQL's processes overwrite theirs),
//! its working folder is in the server's folder (a daemon may change it), or it descends from one that was found
//! (an orphan does not). The caller and its ancestors are never found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::memory::Memory;

/// A process that cannot be confused with a later one of the same id, nor with one before a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks between boot and start.
    pub start: u64,
    pub boot: String,
}

impl Identity {
    pub fn of(pid: i32) -> Option<Identity> {
        let start = look(pid)?.start;
        Some(Identity {
            pid,
            start,
            boot: boot(),
        })
    }

    /// The process, if it is still there and not a corpse.
    pub fn alive(&self) -> Option<Process> {
        let process = look(self.pid)?;
        let same = process.start == self.start && self.boot == boot();
        (same && !process.is_gone()).then_some(process)
    }
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The part of /proc/PID/stat that matters here (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// Whether it has a controlling terminal: then it is somebody's shell or editor.
    pub terminal: bool,
    /// A thread of the kernel: it has neither environment nor folder, and takes no signals.
    pub kernel: bool,
    pub state: char,
    pub threads: u32,
    pub start: u64,
}

impl Process {
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Stopped, or in an uninterruptible wait. After SIGSTOP neither does anything of its own any more. A parent
    /// waits so for the child of its vfork(2), for ever when that child is stopped before it has become a program.
    pub fn is_still(&self) -> bool {
        self.is_stopped() || self.state == 'D'
    }

    /// A corpse. While it has other threads, they still hold its sockets.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

/// include/linux/sched.h.
const PF_KTHREAD: i64 = 0x0020_0000;

pub fn look(pid: i32) -> Option<Process> {
    parse(
        pid,
        &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?,
    )
}

fn parse(pid: i32, stat: &str) -> Option<Process> {
    // The name is in parentheses and may contain any character.
    let fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let fields: Vec<&str> = fields.take(20).collect();
    let number = |index: usize| fields.get(index)?.parse::<i64>().ok();
    Some(Process {
        pid,
        state: fields.first()?.chars().next()?,
        parent: number(1)? as i32,
        terminal: number(4)? != 0,
        kernel: number(6)? & PF_KTHREAD != 0,
        threads: number(17)? as u32,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// How long those that were signalled are waited for before all processes are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| look(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn works_below(pid: i32, folders: &[PathBuf]) -> bool {
    let Ok(folder) = std::fs::read_link(format!("/proc/{pid}/cwd")) else {
        return false;
    };
    // What the kernel appends when the folder was removed.
    let text = folder.to_string_lossy();
    let folder = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text));
    folders.iter().any(|of| folder.starts_with(of))
}

fn is_marked(pid: i32, marks: &[String]) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environment
        .split(|byte| *byte == 0)
        .any(|entry| marks.iter().any(|mark| mark.as_bytes() == entry))
}

/// Whom to look for.
#[derive(Clone, Debug, Default)]
pub struct Search {
    pub folders: Vec<PathBuf>,
    /// `NAME=value`, whole.
    pub marks: Vec<String>,
    pub known: Vec<Identity>,
}

/// Not everything came to the wished state in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    pub pids: Vec<i32>,
    pub limit: Duration,
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pids: Vec<String> = self.pids.iter().map(i32::to_string).collect();
        write!(
            f,
            "after {} s there are still: {}",
            self.limit.as_secs_f64(),
            pids.join(" ")
        )
    }
}

impl Search {
    /// Living processes, parents before their children.
    pub fn find(&self) -> Vec<Process> {
        let all: BTreeMap<i32, Process> = all().into_iter().map(|p| (p.pid, p)).collect();
        let spared = ancestors(&all, std::process::id() as i32);
        let mut found = BTreeSet::new();
        let mut fresh: Vec<i32> = all
            .values()
            .filter(|p| self.is_sought(p))
            .map(|p| p.pid)
            .collect();
        fresh.retain(|pid| !spared.contains(pid));
        while let Some(pid) = fresh.pop() {
            if found.insert(pid) {
                let children = all.values().filter(|p| p.parent == pid).map(|p| p.pid);
                fresh.extend(children.filter(|pid| !spared.contains(pid)));
            }
        }
        let mut living: Vec<Process> = found
            .iter()
            .filter_map(|pid| all.get(pid))
            .cloned()
            .collect();
        living.retain(|process| !process.is_gone());
        living.sort_by_key(|process| (process.start, process.pid));
        living
    }

    fn is_sought(&self, process: &Process) -> bool {
        let known = |identity: &Identity| {
            identity.pid == process.pid
                && identity.start == process.start
                && identity.boot == boot()
        };
        !process.kernel
            && (self.known.iter().any(known)
                || (!process.terminal && works_below(process.pid, &self.folders))
                || is_marked(process.pid, &self.marks))
    }

    /// Stops everything at once: what forks meanwhile is found by the next look.
    pub fn freeze(&self, limit: Duration) -> Result<(), Left> {
        self.stop_all(limit, 2)
    }

    fn stop_all(&self, limit: Duration, looks: u32) -> Result<(), Left> {
        let running = |process: &Process| !process.is_stopped();
        let restless = |process: &Process| !process.is_still();
        self.until_none(limit, looks, Signal::SIGSTOP, running, restless)
    }

    pub fn thaw(&self, limit: Duration) -> Result<(), Left> {
        // Also to those that are not stopped yet: it takes back a SIGSTOP that still waits for them.
        for process in self.find() {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGCONT);
        }
        self.until_none(
            limit,
            2,
            Signal::SIGCONT,
            Process::is_stopped,
            Process::is_stopped,
        )
    }

    /// Kills everything abruptly. It is stopped first, so that nobody acts on the death of another. The shared memory
    /// that only they had goes with them.
    pub fn kill(&self, limit: Duration) -> Result<(), Left> {
        // Who cannot be stopped in time, or was missed, is killed nevertheless.
        if !self.find().is_empty() {
            let _ = self.stop_all(limit / 4, 1);
        }
        let memory = Memory::of(self.find().into_iter().map(|process| process.pid));
        self.until_none(limit, 2, Signal::SIGKILL, |_| true, |_| true)?;
        memory.remove();
        Ok(())
    }

    /// Signals those that are `wrong` until so many looks in a row find none that `matters`: a look at /proc can miss
    /// a child that was forked during it.
    fn until_none(
        &self,
        limit: Duration,
        looks: u32,
        signal: Signal,
        wrong: impl Fn(&Process) -> bool,
        matters: impl Fn(&Process) -> bool,
    ) -> Result<(), Left> {
        let until = Instant::now() + limit;
        let mut clean = 0;
        loop {
            let mut left = self.find();
            left.retain(&wrong);
            // Children first: an orphaned group with stopped members is woken by the kernel (setpgid(2)).
            for process in left.iter().rev() {
                let _ = kill(Pid::from_raw(process.pid), signal);
            }
            left.retain(&matters);
            clean = if left.is_empty() { clean + 1 } else { 0 };
            if clean == looks {
                return Ok(());
            }
            if Instant::now() >= until && clean == 0 {
                let pids = left.iter().map(|process| process.pid).collect();
                return Err(Left { pids, limit });
            }
            await_those(&left, &matters);
        }
    }
}

/// A look at all of /proc costs milliseconds, one at those that were just signalled next to nothing.
fn await_those(left: &[Process], matters: &impl Fn(&Process) -> bool) {
    let look_again = Instant::now() + LOOK_AGAIN;
    let same = |process: &Process| look(process.pid).filter(|now| now.start == process.start);
    let is_left =
        |process: &Process| same(process).is_some_and(|now| !now.is_gone() && matters(&now));
    loop {
        std::thread::sleep(Duration::from_millis(2));
        if Instant::now() >= look_again || !left.iter().any(is_left) {
            return;
        }
    }
}

fn ancestors(all: &BTreeMap<i32, Process>, pid: i32) -> BTreeSet<i32> {
    let parent = |pid: &i32| all.get(pid).map(|process| process.parent);
    std::iter::successors(Some(pid), parent)
        .take_while(|pid| *pid > 0)
        .chain([1])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    /// Kills by id, also when a test fails.
    struct Started(Child);
    impl Drop for Started {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// In a session of its own, as what a supervisor starts: no terminal.
    fn start(script: &str, dir: &Path, mark: &str) -> Started {
        let mut command = Command::new("setsid");
        command
            .args(["sh", "-c", script])
            .current_dir(dir)
            .env("HAFOG_TEST", mark);
        Started(command.spawn().unwrap())
    }

    #[test]
    fn stat_is_read_past_odd_names() {
        let stat = "7 (a) b (c) S 1 7 7 34816 7 4194560 0 0 0 0 0 0 0 0 20 0 3 0 4242 0 0";
        let process = parse(7, stat).unwrap();
        assert_eq!(
            (process.parent, process.state, process.terminal),
            (1, 'S', true)
        );
        assert_eq!((process.threads, process.start), (3, 4242));
        assert_eq!(parse(7, "7 (a"), None);
    }

    #[test]
    fn an_identity_is_not_a_pid() {
        let mut me = Identity::of(std::process::id() as i32).unwrap();
        assert!(me.alive().is_some());
        me.start += 1;
        assert!(me.alive().is_none());
    }

    #[test]
    fn each_sign_alone_finds_a_process() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        let mark = home.display().to_string();
        let by_mark = start("exec sleep 60", Path::new("/"), &mark);
        let by_folder = start("exec sleep 60", &home, "other");
        // The shell ends: the grandchild is an orphan in a session of its own, without mark.
        let script = "env -i setsid sleep 60 & exit 0";
        start(script, &home, "other").0.wait().unwrap();
        let search = Search {
            folders: vec![home.clone()],
            marks: vec![format!("HAFOG_TEST={mark}")],
            known: Vec::new(),
        };
        let until = Instant::now() + Duration::from_secs(10);
        while search.find().len() < 3 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let pids: Vec<i32> = search.find().iter().map(|p| p.pid).collect();
        assert!(pids.contains(&(by_mark.0.id() as i32)));
        assert!(pids.contains(&(by_folder.0.id() as i32)));
        search.freeze(Duration::from_secs(10)).unwrap();
        assert_eq!(search.find().len(), 3, "{:?}", search.find());
        assert!(search.find().iter().all(Process::is_still));
        search.thaw(Duration::from_secs(10)).unwrap();
        assert!(!search.find().iter().any(Process::is_stopped));
        search.kill(Duration::from_secs(10)).unwrap();
        assert_eq!(search.find(), Vec::new());
    }
}
