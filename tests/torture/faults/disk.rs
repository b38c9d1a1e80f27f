//! A disk that is full in the middle of a verb: under the operator's journals, and under the arbiter's copies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::{Subject, some_line};
use crate::bench::Bench;
use crate::cuts::Verb;
use crate::random::Random;
use crate::stack::{Cut, Wrong};

/// What a tmpfs gives out at a time, and a file never shares.
const PAGE: u64 = 4096;

/// A small disk over a folder. When it is dropped, what it holds stays in the folder, which has room again.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, pages: u64) -> Result<Option<SmallDisk>, Wrong> {
        std::fs::create_dir_all(folder).map_err(super::io)?;
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("mode=700,size={}", pages * PAGE),
                "tmpfs",
            ])
            .arg(folder)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Ok(Some(SmallDisk(folder.to_owned())));
        }
        crate::harness::skip::skipped("torture disk-full", "a tmpfs cannot be mounted here");
        Ok(None)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let files = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let kept: Vec<_> = files
            .filter_map(|file| Some((file.file_name(), std::fs::read(file.path()).ok()?)))
            .collect();
        // Also when somebody has a file of it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        for (name, bytes) in kept {
            let _ = std::fs::write(self.0.join(name), bytes);
        }
    }
}

/// What the journals of an uncut run need: pages of its first line, and of everything.
#[derive(Clone, Copy, Debug)]
struct Need {
    first: u64,
    all: u64,
}

impl Need {
    fn of(verb: &'static Verb, bench: &mut Bench) -> Result<Need, Wrong> {
        static KNOWN: Mutex<BTreeMap<&str, Need>> = Mutex::new(BTreeMap::new());
        let known = || {
            KNOWN
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        if let Some(need) = known().get(verb.name) {
            return Ok(*need);
        }
        let turn = verb.prepare(bench)?;
        let journals = bench.stack().journals();
        bench.stack().must(&turn.words)?;
        let stack = bench.stack();
        let new = stack
            .journals()
            .into_iter()
            .filter(|name| !journals.contains(name));
        let texts: Vec<Vec<u8>> = new
            .map(|name| std::fs::read(stack.journal_folder().join(name)).map_err(super::io))
            .collect::<Result<_, _>>()?;
        let pages = |bytes: usize| (bytes as u64).div_ceil(PAGE);
        let first = texts
            .first()
            .and_then(|text| text.iter().position(|byte| *byte == b'\n'));
        let need = Need {
            first: pages(first.ok_or("an uncut run has no journal")? + 1),
            // Words and times differ from run to run, and with them a journal's length.
            all: texts.iter().map(|text| pages(text.len() / 10 * 9)).sum(),
        };
        turn.is_over(bench, true)?;
        known().insert(verb.name, need);
        Ok(need)
    }

    /// Fewer than needed; with its first line, if there is such a size.
    fn too_few(self, random: &mut Random) -> u64 {
        let least = self.first.min(self.all - 1).max(1);
        least + random.below(self.all - least)
    }
}

/// The disk of the journals fills up in the middle of the verb, and later has room again.
pub fn full(subject: Subject<'_>) -> Result<String, Wrong> {
    let Subject {
        verb,
        bench,
        random,
    } = subject;
    let need = Need::of(verb, bench)?;
    if need.all < 2 {
        return Err(format!(
            "a journal of one page cannot be cut short: {need:?}"
        ));
    }
    let turn = verb.prepare(bench)?;
    let pages = need.too_few(random);
    let Some(disk) = SmallDisk::mount(&bench.stack().journal_folder(), pages)? else {
        return Ok("skipped".to_owned());
    };
    let ran = bench.stack().run(&turn.words);
    let again = bench.stack().run("resume --yes");
    drop(disk);
    let said = format!(
        "{pages} pages of {need:?}\n{}\nagain:\n{}",
        ran.all(),
        again.all()
    );
    if ran.code == 0 || !ran.stderr.contains("No space left") {
        return Err(format!(
            "the fault does not say that the disk is full:\n{said}"
        ));
    }
    if !matches!(ran.code, 1 | 4) {
        return Err(format!("the exit code is neither 1 nor 4:\n{said}"));
    }
    crate::cuts::at_most_one_writer(bench).map_err(|why| format!("{why}\n{said}"))?;
    let end = turn
        .goes_on(bench, random)
        .map_err(|why| format!("{why}\n{said}"))?;
    Ok(format!("stopped, then {end}"))
}

/// The arbiter's disk has no room for its copies of the journals: that stops nobody. When it has room again, a run
/// that is resumed brings its copy up to date.
pub fn arbiter_full(subject: Subject<'_>) -> Result<String, Wrong> {
    let Subject {
        verb,
        bench,
        random,
    } = subject;
    let need = Need::of(verb, bench)?;
    let turn = verb.prepare(bench)?;
    let copies = bench.stack().home.path().join("arbiter/journal");
    let known = bench.stack().journals();
    let Some(disk) = SmallDisk::mount(&copies, need.too_few(random))? else {
        return Ok("skipped".to_owned());
    };
    if random.below(2) == 0 {
        let ran = bench.stack().must(&turn.words);
        drop(disk);
        ran?;
        short_copies(bench, &copies, &known)?;
        turn.is_over(bench, false)?;
        return Ok("as uncut, with a short copy".to_owned());
    }
    let line = some_line(verb, random);
    let killed = bench.stack().cut(&turn.words, &Cut::Line("after", line));
    drop(disk);
    if !killed? {
        return Err(format!("`{}` has fewer than {line} lines", turn.words));
    }
    let name = bench
        .stack()
        .journals()
        .pop()
        .ok_or("there is no journal")?;
    bench.stack().must("resume --yes")?;
    let own = std::fs::read(bench.stack().journal_folder().join(&name)).map_err(super::io)?;
    let copy = std::fs::read(copies.join(&name)).map_err(super::io)?;
    if own != copy {
        let lengths = (own.len(), copy.len());
        return Err(format!(
            "the arbiter's copy of {name} differs: {lengths:?} bytes"
        ));
    }
    turn.goes_on_after_resume(bench)?;
    Ok("killed, then as uncut".to_owned())
}

/// Somewhere the arbiter has less than the operator, and nowhere anything else.
fn short_copies(bench: &mut Bench, copies: &Path, known: &[String]) -> Result<(), Wrong> {
    let stack = bench.stack();
    let mut is_short = false;
    for name in stack.journals().iter().filter(|name| !known.contains(name)) {
        let own = std::fs::read(stack.journal_folder().join(name)).map_err(super::io)?;
        let copy = std::fs::read(copies.join(name)).unwrap_or_default();
        is_short |= copy.len() < own.len();
        if !own.starts_with(&copy) || !copy.is_empty() && copy.last() != Some(&b'\n') {
            return Err(format!(
                "the arbiter's copy of {name} is not the beginning of it"
            ));
        }
    }
    match is_short {
        true => Ok(()),
        false => Err("it fitted: the arbiter's disk was never full".to_owned()),
    }
}
