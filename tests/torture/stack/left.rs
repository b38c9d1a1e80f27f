//! Stacks that a run left behind because it was terminated: each is recorded in `target/torture/stacks/` while it
//! exists, and the next run removes those whose process is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// A stack of this process. Its removal takes the record away.
pub struct Record(PathBuf);

impl Record {
    /// The first one looks for what others left.
    pub fn of(home: &Path) -> Record {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let record = mine();
        fs::create_dir_all(folder()).expect("target/ is writable");
        fs::write(&record, home.as_os_str().as_encoded_bytes()).expect("target/ is writable");
        Record(record)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/torture/stacks")
}

/// A name that says whose it is: process, its start, and a count.
fn mine() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let start = start_of(pid).unwrap_or_default();
    folder().join(format!("{pid}-{start}-{count}"))
}

/// Field 22 of `/proc/<pid>/stat`, because a process number alone comes back. A zombie is gone.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat[stat.rfind(')')? + 2..].split(' ').collect();
    match fields.first()? {
        &"Z" | &"X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

fn sweep() {
    let records = fs::read_dir(folder()).into_iter().flatten().flatten();
    for record in records {
        let name = record.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-').map(|part| part.parse::<u64>().ok());
        let (pid, start) = (parts.next().flatten(), parts.next().flatten());
        let alive = pid.and_then(|pid| start_of(u32::try_from(pid).ok()?));
        if alive.is_some() && alive == start {
            continue;
        }
        // Whoever can rename it removes the stack, should two runs begin at once.
        let claim = mine();
        if fs::rename(record.path(), &claim).is_err() {
            continue;
        }
        let home = fs::read_to_string(&claim).unwrap_or_default();
        if home.is_empty() || remove(Path::new(&home)) {
            let _ = fs::remove_file(&claim);
        }
    }
}

/// Whether it is gone. What is not is tried again by the next run.
fn remove(home: &Path) -> bool {
    if !home.join("hafog.yaml").exists() {
        return true;
    }
    crate::say(&format!(
        "removing the stack in {}, which a run that ended left\n",
        home.display()
    ));
    mend(home);
    let hafog = |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hafog"));
        command
            .args(words.split(' '))
            .args(["--yes", "--quiet", "--lock-timeout", "1m"])
            .current_dir(home)
            .env(super::PASSWORD.0, super::PASSWORD.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let _ = hafog("abort");
    let _ = hafog("resume");
    hafog("destroy") && fs::remove_dir_all(home).is_ok()
}

/// Faults that a case ends with its own end: small disks, an arbiter that was moved aside.
fn mend(home: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for place in places.filter(|place| Path::new(place).starts_with(home)) {
        let _ = Command::new("umount").args(["-l", place]).status();
    }
    let (arbiter, aside) = (home.join("arbiter"), home.join(super::ASIDE));
    if aside.is_dir() {
        let _ = fs::remove_file(&arbiter);
        let _ = fs::rename(&aside, &arbiter);
    }
}
