//! Everything that goes wrong besides a kill: disks, clocks, journals, stores, and two people at once.

use std::path::{Path, PathBuf};

use crate::bench::{Bench, Standing::*, other};
use crate::random::Random;
use crate::stack::{Cut, Running, Stack, Wrong};

type Run = fn(&mut Bench, &mut Random) -> Result<String, Wrong>;

/// Verb, step, fault, and what runs it.
pub const CASES: &[(&str, &str, &str, Run)] = &[
    ("switchover", "any line", "newer-journal", newer_journal),
    ("switchover", "any line", "torn-journal", torn_journal),
    (
        "switchover",
        "any line",
        "arbiter-unreachable",
        arbiter_gone,
    ),
    (
        "switchover",
        "any line",
        "clock-forward",
        |bench, random| clock(bench, random, 3600),
    ),
    (
        "switchover",
        "any line",
        "clock-backward",
        |bench, random| clock(bench, random, -3600),
    ),
    ("switchover", "lease", "two-commands", |bench, _| {
        two(bench, "deploy --yes")
    }),
    ("switchover", "any line", "disk-full", disk_full),
];

/// A switchover that was killed somewhere in its middle. The journal that it left, and where it was going.
fn killed(bench: &mut Bench, random: &mut Random) -> Result<(PathBuf, &'static str), Wrong> {
    bench.arrive(Pair)?;
    let to = other(bench.primary());
    let line = 2 + random.below(20) as usize;
    let stack = bench.stack();
    if !stack.cut(&format!("switchover {to} --yes"), &Cut::Line("after", line))? {
        return Err(format!("a switchover has fewer than {line} lines"));
    }
    let name = stack.journals().pop().ok_or("there is no journal")?;
    Ok((stack.journal_folder().join(name), to))
}

fn both(stack: &Stack, journal: &Path) -> [PathBuf; 2] {
    let name = journal.file_name().unwrap_or_default();
    [
        journal.to_owned(),
        stack.home.path().join("arbiter/journal").join(name),
    ]
}

fn arrives(bench: &mut Bench, to: &'static str) -> Result<String, Wrong> {
    bench.stack().must("resume --yes")?;
    bench.is_now(Provisional, to, false)?;
    Ok("as uncut".to_owned())
}

fn newer_journal(bench: &mut Bench, random: &mut Random) -> Result<String, Wrong> {
    let (journal, to) = killed(bench, random)?;
    let files = both(bench.stack(), &journal);
    let whole = std::fs::read_to_string(&journal).map_err(|error| error.to_string())?;
    let at = whole.trim_end().rfind('\n').map_or(0, |at| at + 1);
    let newer = format!(
        "{}{}",
        &whole[..at],
        whole[at..].replacen("\"v\":1,", "\"v\":99,", 1)
    );
    for file in &files {
        std::fs::write(file, &newer).map_err(|error| error.to_string())?;
    }
    for words in ["resume --yes", "commit --yes", "abort --yes"] {
        let ran = bench.stack().run(words);
        if ran.code == 0 || !ran.stderr.contains("was written by a newer hafog") {
            return Err(format!(
                "`hafog {words}` took a newer journal:\n{}",
                ran.all()
            ));
        }
    }
    for file in &files {
        std::fs::write(file, &whole).map_err(|error| error.to_string())?;
    }
    arrives(bench, to)
}

fn torn_journal(bench: &mut Bench, random: &mut Random) -> Result<String, Wrong> {
    let (journal, to) = killed(bench, random)?;
    for file in both(bench.stack(), &journal) {
        let mut bytes = std::fs::read(&file).map_err(|error| error.to_string())?;
        bytes.extend_from_slice(br#"{"v":1,"n":99,"at":"2026-"#);
        std::fs::write(&file, bytes).map_err(|error| error.to_string())?;
    }
    arrives(bench, to)
}

/// The arbiter's folder cannot be reached from some line on, and later it can.
fn arbiter_gone(bench: &mut Bench, random: &mut Random) -> Result<String, Wrong> {
    bench.arrive(Pair)?;
    let to = other(bench.primary());
    let line = 2 + random.below(10) as usize;
    let stack = bench.stack();
    let (arbiter, away) = (
        stack.home.path().join("arbiter"),
        stack.scratch().join("arbiter"),
    );
    let ran = during(stack, &format!("switchover {to} --yes"), line, &[], || {
        std::fs::rename(&arbiter, &away)
            .and_then(|()| std::fs::write(&arbiter, ""))
            .map_err(|error| error.to_string())
    })?;
    let back = std::fs::remove_file(&arbiter).and_then(|()| std::fs::rename(&away, &arbiter));
    back.map_err(|error| error.to_string())?;
    if ran.code != 0 && !ran.stderr.contains("arbiter") {
        return Err(format!(
            "the arbiter is gone, and the fault does not name it:\n{}",
            ran.all()
        ));
    }
    // Done, unwound, or stopped in the middle: whichever it was, the next command works.
    bench.stack().must("resume --yes")?;
    if !bench.world().leads_to(to) {
        bench.stack().ready()?;
        bench.stack().must(&format!("switchover {to} --yes"))?;
    }
    bench.is_now(Provisional, to, false)?;
    Ok("as uncut".to_owned())
}

fn clock(bench: &mut Bench, random: &mut Random, seconds: i64) -> Result<String, Wrong> {
    bench.arrive(Pair)?;
    let to = other(bench.primary());
    let line = 1 + random.below(20) as usize;
    let stack = bench.stack();
    let file = stack.scratch().join("clock");
    let named = file.display().to_string();
    let ran = during(
        stack,
        &format!("switchover {to} --yes"),
        line,
        &[("HAFOG_CLOCK_STEP", &named)],
        || std::fs::write(&file, seconds.to_string()).map_err(|error| error.to_string()),
    );
    let _ = std::fs::remove_file(&file);
    let ran = ran?;
    if ran.code != 0 {
        bench
            .stack()
            .must("resume --yes")
            .map_err(|why| format!("{why}\n{}", ran.all()))?;
    }
    bench
        .is_now(Provisional, to, false)
        .map_err(|why| format!("{why}\n{}", ran.all()))?;
    Ok(if ran.code == 0 {
        "as uncut"
    } else {
        "stopped, then as uncut"
    }
    .to_owned())
}

/// Runs a command, and does something once its journal has so many lines.
fn during(
    stack: &Stack,
    words: &str,
    line: usize,
    environment: &[(&str, &str)],
    does: impl FnOnce() -> Result<(), Wrong>,
) -> Result<crate::harness::Ran, Wrong> {
    let known = stack.journals();
    let mut running = Running::begin(stack, words, environment);
    while !running.is_over() && stack.lines_besides(&known) < line {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    does()?;
    Ok(running.finish())
}

/// The second command is told who holds the lease, or has its turn after the first.
fn two(bench: &mut Bench, second: &str) -> Result<String, Wrong> {
    bench.arrive(Pair)?;
    let to = other(bench.primary());
    let stack = bench.stack();
    let first = Running::begin(stack, &format!("switchover {to} --yes"), &[]);
    let lease = stack.home.path().join("arbiter/docs/lease.json");
    stack.until("the first command has the lease", || {
        std::fs::read_to_string(&lease).is_ok_and(|text| text.contains("switchover"))
    })?;
    let at_once = stack.run(second);
    if at_once.code != 5 || !at_once.stderr.contains("hafog lock status") {
        return Err(format!(
            "`hafog {second}` was not kept out:\n{}",
            at_once.all()
        ));
    }
    let ran = first.finish();
    if ran.code != 0 {
        return Err(format!("the first was disturbed:\n{}", ran.all()));
    }
    bench.is_now(Provisional, to, false)?;
    Ok("the second was kept out".to_owned())
}

/// A small disk for the journals, gone with the case.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let files = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let kept: Vec<_> = files
            .filter_map(|file| Some((file.file_name(), std::fs::read(file.path()).ok()?)))
            .collect();
        let _ = std::process::Command::new("umount").arg(&self.0).status();
        for (name, bytes) in kept {
            let _ = std::fs::write(self.0.join(name), bytes);
        }
    }
}

fn disk_full(bench: &mut Bench, random: &mut Random) -> Result<String, Wrong> {
    bench.arrive(Pair)?;
    let to = other(bench.primary());
    let folder = bench.stack().journal_folder();
    let size = format!("size={}", 4096 * (1 + random.below(8)));
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
        .arg(&folder)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        crate::skipped("torture disk-full", "a tmpfs cannot be mounted here");
        return Ok("skipped".to_owned());
    }
    let disk = SmallDisk(folder.clone());
    let ran = bench.stack().run(&format!("switchover {to} --yes"));
    if ran.code == 0 {
        drop(disk);
        bench.is_now(Provisional, to, false)?;
        return Ok("it fitted".to_owned());
    }
    let again = bench.stack().run("resume --yes");
    drop(disk);
    if !ran.stderr.contains("No space left") {
        return Err(format!(
            "the fault does not say that the disk is full:\n{}",
            ran.all()
        ));
    }
    let said = format!("disk full:\n{}\nagain:\n{}", ran.all(), again.all());
    bench
        .stack()
        .must("resume --yes")
        .map_err(|why| format!("{why}\n{said}"))?;
    if !bench.world().leads_to(to) {
        bench
            .stack()
            .must(&format!("switchover {to} --yes"))
            .map_err(|why| format!("{why}\n{said}"))?;
    }
    bench
        .is_now(Provisional, to, false)
        .map_err(|why| format!("{why}\n{said}"))?;
    Ok("stopped, then as uncut".to_owned())
}
