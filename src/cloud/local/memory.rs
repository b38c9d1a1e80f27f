//! Shared memory, which outlives the processes that made it: a real server that loses its power loses that too.
//!
//! What nobody removes stays until the machine's next boot, and System V segments are limited (4096 on most machines,
//! shmget(2)): then no database can be started any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::processes;

/// Where POSIX shared memory is, and what PostgreSQL calls its own, before a number.
const SHARED: &str = "/dev/shm";
const POSTGRES: &str = "PostgreSQL.";
/// Longest file that can be the list of the others.
const LIST_MOST: u64 = 512 << 10;

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
        memory.add_listed(Path::new(SHARED));
        memory
    }

    /// PostgreSQL keeps some that no process has mapped at the moment: their numbers are in the one file that all of
    /// them have mapped (its `dsm_control_header`), and in their names.
    fn add_listed(&mut self, folder: &Path) {
        let numbered = |name: &str| name.strip_prefix(POSTGRES)?.parse::<u32>().ok();
        let there = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let there: BTreeSet<u32> = there
            .filter_map(|entry| numbered(entry.file_name().to_str()?))
            .collect();
        let mut listed = BTreeSet::new();
        for file in &self.files {
            let small = std::fs::metadata(file).is_ok_and(|meta| meta.len() <= LIST_MOST);
            let name = file.file_name().and_then(|name| name.to_str());
            if small && name.and_then(numbered).is_some() {
                let bytes = std::fs::read(file).unwrap_or_default();
                let words = bytes.as_chunks::<4>().0.iter();
                listed.extend(words.map(|word| u32::from_ne_bytes(*word)));
            }
        }
        let names = there.intersection(&listed);
        self.files
            .extend(names.map(|number| folder.join(format!("{POSTGRES}{number}"))));
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
            } else if Path::new(path).starts_with(SHARED) && !is_gone {
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
    #[test]
    fn what_is_listed_in_the_one_that_all_have_mapped_is_found_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |number: u32| folder.path().join(format!("PostgreSQL.{number}"));
        for number in [7, 1_029_109_974, 9] {
            std::fs::write(file(number), b"").expect("written");
        }
        let list: Vec<u8> = [0, 1_029_109_974, 8, 0_u32]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        std::fs::write(file(7), list).expect("written");
        let mut memory = Memory {
            files: [file(7)].into(),
            ..Memory::default()
        };
        memory.add_listed(folder.path());
        assert_eq!(memory.files, [file(7), file(1_029_109_974)].into());
    }
}
