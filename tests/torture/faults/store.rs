//! Journals and state stores that are damaged, out of reach, or lost with the site that is dead.

use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{Subject, io};
use crate::bench::{Bench, Standing::*};
use crate::stack::Wrong;

/// The newest journal, and the arbiter's copy of it.
fn newest(bench: &mut Bench) -> Result<[PathBuf; 2], Wrong> {
    let stack = bench.stack();
    let name = stack.journals().pop().ok_or("there is no journal")?;
    Ok([
        stack.journal_folder().join(&name),
        stack.home.path().join("arbiter/journal").join(&name),
    ])
}

/// The last line is of a format that this hafog does not know: nobody goes on, and nothing is touched.
pub fn newer_journal(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let (turn, _) = subject.killed()?;
    let (bench, random) = (subject.bench, subject.random);
    let files = newest(bench)?;
    let whole = std::fs::read_to_string(&files[0]).map_err(io)?;
    let at = whole.trim_end().rfind('\n').map_or(0, |at| at + 1);
    let last = whole[at..].replacen("\"v\":1,", "\"v\":99,", 1);
    let newer = format!("{}{last}", &whole[..at]);
    for file in &files {
        std::fs::write(file, &newer).map_err(io)?;
    }
    for words in ["resume --yes", &turn.words, "commit --yes", "abort --yes"] {
        let ran = bench.stack().run(words);
        if ran.code == 0 || !ran.stderr.contains("was written by a newer hafog") {
            return Err(format!(
                "`hafog {words}` took a newer journal:\n{}",
                ran.all()
            ));
        }
    }
    for file in &files {
        let now = std::fs::read_to_string(file).map_err(io)?;
        if now != newer {
            return Err(format!("{} was changed", file.display()));
        }
        std::fs::write(file, &whole).map_err(io)?;
    }
    turn.goes_on(bench, random)
}

/// Every copy ends in the middle of a line.
pub fn torn_journal(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let (turn, _) = subject.killed()?;
    let (bench, random) = (subject.bench, subject.random);
    for file in newest(bench)? {
        let mut bytes = std::fs::read(&file).map_err(io)?;
        bytes.extend_from_slice(br#"{"v":1,"n":99,"at":"2026-"#);
        std::fs::write(&file, bytes).map_err(io)?;
    }
    turn.goes_on(bench, random)
}

/// A folder that is no folder, until this is dropped.
struct OutOfReach(PathBuf, PathBuf);

impl OutOfReach {
    fn take(folder: &Path, aside: &Path) -> Result<OutOfReach, Wrong> {
        std::fs::write(aside, "").map_err(io)?;
        exchange(folder, aside)?;
        Ok(OutOfReach(folder.to_owned(), aside.to_owned()))
    }
}

impl Drop for OutOfReach {
    fn drop(&mut self) {
        let _ = exchange(&self.0, &self.1);
        let _ = std::fs::remove_file(&self.1);
    }
}

/// In one instant: between two renames somebody would make the folder anew.
fn exchange(one: &Path, other: &Path) -> Result<(), Wrong> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
        .map_err(|errno| format!("{} and {}: {errno}", one.display(), other.display()))
}

/// The arbiter's folder cannot be reached from some line on, and later it can.
pub fn arbiter_gone(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let line = subject.line_before();
    let home = subject.bench.stack().home.path();
    let (arbiter, aside) = (home.join("arbiter"), home.join(crate::stack::ASIDE));
    let mut gone = None;
    let struck = subject.struck("without the arbiter", line, &[], |_| {
        gone = Some(OutOfReach::take(&arbiter, &aside)?);
        Ok(())
    });
    drop(gone);
    let struck = struck?;
    if struck.was_over(subject.bench)? {
        return Ok("was over before".to_owned());
    }
    if !struck.ran.stderr.contains("arbiter") {
        return Err(struck.told("the fault does not name it"));
    }
    struck.goes_on(subject.bench, subject.random)
}

/// One of the two folders with the journals is gone in the middle of the verb: the other is enough, and what was lost
/// is there again.
pub fn journals_lost(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let (turn, line) = subject.killed()?;
    let (bench, random) = (subject.bench, subject.random);
    let files = newest(bench)?;
    let lost = &files[random.below(2) as usize];
    let folder = lost.parent().ok_or("a journal has a folder")?;
    std::fs::remove_dir_all(folder).map_err(io)?;
    let told = |why: Wrong| format!("{why}\nafter line {line}, without {}", folder.display());
    bench.stack().must("resume --yes").map_err(told)?;
    let [own, copy] = files.each_ref().map(std::fs::read);
    match (own, copy) {
        (Ok(own), Ok(copy)) if own == copy => {}
        _ => return Err(told("the copies of the journal differ".to_owned())),
    }
    turn.goes_on_after_resume(bench).map_err(told)?;
    Ok("as uncut".to_owned())
}

/// The dead site takes its folder with it, and the operator's machine its journals: the arbiter is what is left. The
/// other site takes over; the dead one is made anew.
pub fn site_lost(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let turn = subject.prepare()?;
    let (bench, random) = (subject.bench, subject.random);
    let dead = bench.world().base(turn.before);
    std::fs::remove_dir_all(&dead).map_err(io)?;
    if random.below(2) == 0 {
        std::fs::remove_dir_all(bench.stack().journal_folder()).map_err(io)?;
    }
    // A cloud that shows no server at all proves nothing; a person says that they are gone.
    let refused = bench.stack().run(&turn.words);
    if refused.code != 3 || !refused.stderr.contains("refused: unfenced-primary:") {
        return Err(format!("not refused for the fence:\n{}", refused.all()));
    }
    bench
        .stack()
        .must(&format!("{} --accept unfenced-primary", turn.words))?;
    if !bench.world().leads_to(turn.after) {
        return Err(format!("the name does not lead to {}", turn.after));
    }
    let writers = bench.world().writers()?;
    if writers != [format!("shop-{}-db-1", turn.after)] {
        return Err(format!("rows are taken by {writers:?}"));
    }
    bench.stack().must("commit --yes")?;
    // There is nothing that could follow again, and that is said with what to type.
    let ran = bench
        .stack()
        .run(&format!("failback {} --rejoin-only --yes", turn.before));
    if ran.code != 0 && !ran.stderr.contains("hint: hafog ") {
        return Err(format!("no hint what to do:\n{}", ran.all()));
    }
    if ran.code != 0 {
        let again = format!("clone {} --yes", turn.before);
        bench.stack().must(&again)?;
    }
    bench.is_now(Pair, turn.after, false)?;
    let end = match ran.code {
        0 => "taken back as it was",
        _ => "refused, then made anew",
    };
    Ok(end.to_owned())
}
