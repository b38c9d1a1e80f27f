//! A clock that is stepped, a resume that is killed too, and a person who presses ctrl-c.

use nix::sys::signal::Signal;

use super::{Struck, Subject, io};
use crate::cuts::{Verb, at_most_one_writer};
use crate::harness::Ran;
use crate::random::Random;
use crate::stack::{Cut, Wrong};

pub fn clock_forward(subject: Subject<'_>) -> Result<String, Wrong> {
    clock(subject, 3600)
}

pub fn clock_backward(subject: Subject<'_>) -> Result<String, Wrong> {
    clock(subject, -3600)
}

/// The operator's clock is stepped by an hour in the middle, and set right afterwards.
fn clock(mut subject: Subject<'_>, seconds: i64) -> Result<String, Wrong> {
    let line = subject.line_before();
    let file = subject.bench.stack().scratch().join("clock");
    let named = file.display().to_string();
    let stepped = [("HAFOG_CLOCK_STEP", named.as_str())];
    let struck = subject.struck("stepped", line, &stepped, |_| {
        std::fs::write(&file, seconds.to_string()).map_err(io)
    });
    let _ = std::fs::remove_file(&file);
    let struck = struck?;
    if struck.was_over(subject.bench)? {
        return Ok("as uncut".to_owned());
    }
    let end = struck.goes_on(subject.bench, subject.random)?;
    Ok(format!("stopped, then {end}"))
}

/// Killed, and killed again while it is being resumed.
pub fn killed_twice(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let (turn, line) = subject.killed()?;
    let Subject {
        verb,
        bench,
        random,
    } = subject;
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

/// The verb, with one signal of the two that ask a program to end.
fn signalled(subject: &mut Subject<'_>) -> Result<Struck, Wrong> {
    let line = subject.line_before();
    let signal = signal(subject.random);
    subject.struck(signal.as_str(), line, &[], |running| {
        running.signal(signal);
        Ok(())
    })
}

fn signal(random: &mut Random) -> Signal {
    [Signal::SIGINT, Signal::SIGTERM][random.below(2) as usize]
}

/// Ctrl-C, or SIGTERM as from a CI job that is cancelled: it ends between two steps, says so, and goes on later.
pub fn interrupted(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let struck = signalled(&mut subject)?;
    if struck.was_over(subject.bench)? {
        return Ok("was over before".to_owned());
    }
    sealed(subject.verb, &struck.ran).map_err(|why| struck.told(why))?;
    let end = struck.goes_on(subject.bench, subject.random)?;
    Ok(format!("sealed, then {end}"))
}

/// What somebody is told: the words, what to type, and the exit code.
fn sealed(verb: &Verb, ran: &Ran) -> Result<(), Wrong> {
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
pub fn aborted(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let struck = signalled(&mut subject)?;
    let (bench, turn) = (subject.bench, &struck.turn);
    let back = bench.stack().run("abort --yes");
    let told = |why: Wrong| struck.told(format!("{why}\n{}", back.all()));
    match (struck.ran.code, back.code) {
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
pub fn interrupted_twice(mut subject: Subject<'_>) -> Result<String, Wrong> {
    let line = subject.line_before();
    let struck = subject.struck("signals", line, &[], |running| {
        running.signal(Signal::SIGINT);
        running.signal(Signal::SIGTERM);
        Ok(())
    })?;
    if struck.was_over(subject.bench)? {
        return Ok("was over before".to_owned());
    }
    if struck.ran.code != 130 || !struck.ran.stderr.contains("the journal") {
        return Err(struck.told("it does not say that it was interrupted"));
    }
    let end = struck.goes_on(subject.bench, subject.random)?;
    Ok(format!("left, then {end}"))
}
