//! Shared memory, which outlives the processes that made it: a real server that loses its power loses that too.
//!
//! What nobody removes stays until the machine's next boot, and System V segments are limited (4096 on most machines,
//! shmget(2)): then no database can be started any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::processes;

/// What some processes had mapped.
#[derive(Debug, Default, PartialEq)]
pub struct Memory {
    /// POSIX: files, shm_overview(7).
    files: BTreeSet<PathBuf>,
    /// System V: ids of segments, sysvipc(7).
    segments: BTreeSet<u64>,
}

impl Memory {
    /// Of living processes, right before they are killed.
    pub fn of(pids: impl IntoIterator<Item = i32>) -> Memory {
        let mut memory = Memory::default();
        for pid in pids {
            memory.add(&maps(pid));
        }
        memory
    }

    /// The lines of /proc/PID/maps: addresses, permissions, offset, device, inode and path, proc_pid_maps(5).
    fn add(&mut self, maps: &str) {
        for line in maps.lines() {
            let mut words = line.split_ascii_whitespace().skip(4);
            let (Some(inode), Some(path)) = (words.next(), words.next()) else {
                continue;
            };
            let is_gone = words.next().is_some();
            if path.starts_with("/SYSV") {
                // Its inode is its id.
                self.segments.extend(inode.parse::<u64>());
            } else if path.starts_with("/dev/shm/") && !is_gone {
                self.files.insert(PathBuf::from(path));
            }
        }
    }

    /// Removes what nobody has mapped any more. As much as can be: it is tidying, and the processes are dead.
    pub fn remove(mut self) {
        if self == Memory::default() {
            return;
        }
        let mut used = Memory::default();
        for process in processes::all() {
            used.add(&maps(process.pid));
        }
        self.files.retain(|file| !used.files.contains(file));
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
        self.segments.retain(|id| !used.segments.contains(id));
        for id in self.segments {
            remove_segment(id);
        }
    }
}

fn maps(pid: i32) -> String {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("maps"))
        .unwrap_or_default()
}

/// By the program of util-linux: the system call has no safe wrapper.
fn remove_segment(id: u64) {
    let _ = Command::new("ipcrm")
        .args(["--shmem-id", &id.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_found_in_the_maps() {
        let mut memory = Memory::default();
        memory.add(
            "55d0-55d1 r--p 00000000 fe:00 1835 /usr/lib/postgresql/15/bin/postgres\n\
             7ffa-7ffb rw-s 00000000 00:1b 58160                      /dev/shm/PostgreSQL.170804122\n\
             7ffb-7ffc rw-s 00000000 00:1b 58161                      /dev/shm/gone (deleted)\n\
             7ffc-7ffd rw-s 00000000 00:01 3047434                    /SYSV000c42ba (deleted)\n\
             7ffd-7ffe rw-s 00000000 00:01 6177                       /dev/zero (deleted)\n\
             7ffe-7fff rw-p 00000000 00:00 0 \n",
        );
        let file = PathBuf::from("/dev/shm/PostgreSQL.170804122");
        assert_eq!(memory.files, [file].into());
        assert_eq!(memory.segments, [3_047_434].into());
    }
}
