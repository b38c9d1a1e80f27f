//! A clock that is stepped, a resume that is killed too, and a person who presses ctrl-c.

use nix::sys::signal::Signal;

use super::{during, io, killed, some_line};
use crate::bench::Bench;
use crate::cuts::{Verb, at_most_one_writer};
use crate::random::Random;
use crate::stack::{Cut, Wrong};

pub fn clock_forward(
    verb: &'static Verb,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<String, Wrong> {
    clock(verb, bench, random, 3600)
}

pub fn clock_backward(
    verb: &'static Verb,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<String, Wrong> {
    clock(verb, bench, random, -3600)
}

/// The operator's clock is stepped by an hour in the middle, and set right afterwards.
fn clock(
    verb: &'static Verb,
    bench: &mut Bench,
    random: &mut Random,
    seconds: i64,
) -> Result<String, Wrong> {
    let turn = verb.prepare(bench)?;
    let line = some_line(verb, random) - 1;
    let stack = bench.stack();
    let file = stack.scratch().join("clock");
    let named = file.display().to_string();
    let stepped = [("HAFOG_CLOCK_STEP", named.as_str())];
    let ran = during(stack, &turn.words, line, &stepped, |_| {
        std::fs::write(&file, seconds.to_string()).map_err(io)
    });
    let _ = std::fs::remove_file(&file);
    let ran = ran?;
    let told = |why: Wrong| format!("{why}\nstepped at line {line}:\n{}", ran.all());
    if ran.code == 0 {
        turn.is_over(bench, false).map_err(told)?;
        return Ok("as uncut".to_owned());
    }
    at_most_one_writer(bench).map_err(told)?;
    let end = turn.goes_on(bench, random).map_err(told)?;
    Ok(format!("stopped, then {end}"))
}

/// Killed, and killed again while it is being resumed.
pub fn killed_twice(
    verb: &'static Verb,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<String, Wrong> {
    let (turn, line) = killed(verb, bench, random)?;
    let moment = ["before", "torn", "after"][random.below(3) as usize];
    // A resume writes one line more than what was left.
    let later = 1 + random.below(verb.middle + 2 - line as u64) as usize;
    let told = |why: Wrong| format!("{why}\nkilled after {line}, then {moment} {later}");
    let again = bench.stack().cut("resume --yes", &Cut::Line(moment, later));
    if !again.map_err(told)? {
        return Err(told("the resume had fewer lines".to_owned()));
    }
    at_most_one_writer(bench).map_err(told)?;
    if verb.is_directional() {
        let other = bench.stack().run("deploy --yes");
        if other.code != 4 || !other.stderr.contains("is not finished") {
            return Err(told(format!("another verb was let in:\n{}", other.all())));
        }
        return turn.goes_on(bench, random).map_err(told);
    }
    let end = turn.goes_on(bench, random).map_err(told)?;
    let once_more = bench.stack().must(&turn.words).map_err(told)?;
    match once_more.stdout.contains("nothing to do") {
        true => Ok(end),
        false => Err(told(format!("it was not over:\n{}", once_more.all()))),
    }
}

fn signal(random: &mut Random) -> Signal {
    [Signal::SIGINT, Signal::SIGTERM][random.below(2) as usize]
}

/// Ctrl-C, or SIGTERM as from a CI job that is cancelled: it ends between two steps, says so, and goes on later.
pub fn interrupted(
    verb: &'static Verb,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<String, Wrong> {
    let turn = verb.prepare(bench)?;
    let line = some_line(verb, random) - 1;
    let signal = signal(random);
    let ran = during(bench.stack(), &turn.words, line, &[], |running| {
        running.signal(signal);
        Ok(())
    })?;
    let told = |why: Wrong| format!("{why}\n{signal} at line {line}:\n{}", ran.all());
    if ran.code == 0 {
        turn.is_over(bench, false).map_err(told)?;
        return Ok("was over before".to_owned());
    }
    sealed(verb, &ran).map_err(told)?;
    at_most_one_writer(bench).map_err(told)?;
    let end = turn.goes_on(bench, random).map_err(told)?;
    Ok(format!("sealed, then {end}"))
}

/// What somebody is told: the words, what to type, and the exit code.
fn sealed(verb: &Verb, ran: &crate::harness::Ran) -> Result<(), Wrong> {
    let words = "was interrupted; the journal is sealed";
    let next = ["hint: hafog resume", &format!("hint: hafog {}", verb.name)];
    match ran.code == 130
        && ran.stderr.contains(words)
        && next.iter().any(|next| ran.stderr.contains(*next))
    {
        true => Ok(()),
        false => Err("it does not say that it was interrupted".to_owned()),
    }
}

/// Ctrl-C, and then back: `abort`, or on where there is no way back.
pub fn aborted(
    verb: &'static Verb,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<String, Wrong> {
    let turn = verb.prepare(bench)?;
    let line = some_line(verb, random) - 1;
    let signal = signal(random);
    let ran = during(bench.stack(), &turn.words, line, &[], |running| {
        running.signal(signal);
        Ok(())
    })?;
    let back = bench.stack().run("abort --yes");
    let said = format!("{signal} at line {line}:\n{}\n{}", ran.all(), back.all());
    let told = |why: Wrong| format!("{why}\n{said}");
    match (ran.code, back.code) {
        (0, 0) => {
            turn.is_over(bench, false).map_err(told)?;
            Ok("was over before".to_owned())
        }
        (130, 0) => {
            let left = bench.stack().must("resume --yes").map_err(told)?;
            if !left.stdout.contains("no run is unfinished") {
                return Err(told(format!("it was not taken back:\n{}", left.all())));
            }
            turn.is_back(bench).map_err(told)?;
            Ok("as before".to_owned())
        }
        // Past the point of no return.
        (130, 3) if back.stderr.contains("hint: hafog resume") => {
            bench.stack().must("resume --yes").map_err(told)?;
            turn.is_over(bench, false).map_err(told)?;
            Ok("not taken back, then as uncut".to_owned())
        }
        _ => Err(told("unexpected exit codes".to_owned())),
    }
}

/// Twice: it leaves at once, as if it were killed, and says so.
pub fn interrupted_twice(
    verb: &'static Verb,
    bench: &mut Bench,
    random: &mut Random,
) -> Result<String, Wrong> {
    let turn = verb.prepare(bench)?;
    let line = some_line(verb, random) - 1;
    let ran = during(bench.stack(), &turn.words, line, &[], |running| {
        running.signal(Signal::SIGINT);
        running.signal(Signal::SIGTERM);
        Ok(())
    })?;
    let told = |why: Wrong| format!("{why}\nsignals at line {line}:\n{}", ran.all());
    if ran.code == 0 {
        turn.is_over(bench, false).map_err(told)?;
        return Ok("was over before".to_owned());
    }
    if ran.code != 130 || !ran.stderr.contains("the journal") {
        return Err(told("it does not say that it was interrupted".to_owned()));
    }
    at_most_one_writer(bench).map_err(told)?;
    let end = turn.goes_on(bench, random).map_err(told)?;
    Ok(format!("left, then {end}"))
}
