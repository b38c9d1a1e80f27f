//! Processes as the machine shows them, in `/proc`.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The folder of the server that a process belongs to. Zombies have no environment.
pub fn mark_of(pid: i32) -> Option<PathBuf> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let marks = environment.split(|byte| *byte == 0);
    let mark = marks
        .filter_map(|entry| entry.strip_prefix(b"HAFOG_SERVER="))
        .next()?;
    Some(PathBuf::from(String::from_utf8_lossy(mark).into_owned()))
}

pub fn words(pid: i32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

pub fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].split(' ').nth(1)?.parse().ok()
}

/// The program, and what it is told to be when it is hafog.
pub fn program(pid: i32) -> String {
    let words = words(pid);
    let first = words
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .unwrap_or_default();
    let first = first.to_string_lossy().into_owned();
    match words.get(1) {
        Some(second) if first == "hafog" => format!("{first} {second}"),
        _ => first,
    }
}

/// Processes whose working folder is `folder` or below.
pub fn works_below(folder: &Path) -> Vec<i32> {
    let is_below = |pid: &i32| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
        cwd.is_ok_and(|cwd| cwd.starts_with(folder))
    };
    pids().into_iter().filter(is_below).collect()
}

/// Those of them whose command line has the word, or a path that ends in it.
pub fn running(folder: &Path, word: &str) -> Vec<i32> {
    let path = format!("/{word}");
    let mut found = works_below(folder);
    found.retain(|pid| {
        let mut words = words(*pid).into_iter();
        words.any(|found| found == word || found.ends_with(&path))
    });
    found
}

pub fn stop(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
}

pub fn go_on(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
}

pub fn kill_hard(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}
