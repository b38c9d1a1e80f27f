//! `hafog cron`: started on an application server by its service. It does the jobs of the server's recipe at their
//! times, where the site is primary and its databases agree.
//!
//! A job is never done twice at once, and none is made up for: what came while it ran, while the machine slept or while
//! nobody knew the role is left out, and said. A job that runs when its site becomes a standby is ended.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::interrupt::Interrupts;
use super::{Call, Ended, role};
use crate::clock::{Clock, RealClock};
use crate::error::Fault;
use crate::exit;
use crate::model::cron::{CronJob, Schedule};
use crate::plan::action::SiteRole;
use crate::ui::print::Ui;

/// The clock may be set, so it is looked at as often as this.
const LOOK: Duration = Duration::from_secs(15);
/// A job that is later than this was missed: the machine slept. A clock that is set back by less only waits.
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// How often a job that runs is looked after.
const GUARD: Duration = Duration::from_secs(1);
/// How long a job may take to end when it is asked to, before it is killed.
pub const END_LIMIT: Duration = Duration::from_secs(10);
/// How often what a job left is looked at, when it is ended.
const POLL: Duration = Duration::from_millis(50);
/// Who holds the output of a job that has ended is not waited for.
const OUTPUT_LIMIT: Duration = Duration::from_secs(1);
const LINE_MOST: usize = 16 << 10;

/// Runs until it is told to stop.
pub async fn run(call: &Call, path: &Path) -> Ended {
    let interrupts = Interrupts::listen(&call.ui);
    let jobs = read(path)?;
    let keepers = jobs.into_iter().map(|(job, schedule)| {
        let log = Log {
            ui: call.ui,
            job: job.name.clone(),
        };
        keep(job, schedule, log, &interrupts)
    });
    let keepers = join_all(keepers);
    keepers.await;
    interrupts.asked().await;
    Ok(exit::DONE)
}

fn read(path: &Path) -> Result<Vec<(CronJob, Schedule)>, Fault> {
    let cannot = |what: &str| Fault::new(format!("cannot {what} `{}`", path.display()));
    let bytes = std::fs::read(path).map_err(|error| cannot("read").because(error))?;
    let jobs: Vec<CronJob> =
        serde_json::from_slice(&bytes).map_err(|error| cannot("understand").because(error))?;
    let jobs = jobs.into_iter().map(|job| {
        let why = |why| cannot("understand").because(format!("`{}`: {why}", job.at));
        let schedule = Schedule::parse(&job.at).map_err(why)?;
        Ok((job, schedule))
    });
    jobs.collect()
}

#[derive(Clone)]
struct Log {
    ui: Ui,
    job: String,
}

impl Log {
    /// Into a file that is read months later.
    fn say(&self, line: &str) {
        let now = RealClock.now();
        self.ui.say(&format!("{now:.3} {}: {line}", self.job));
    }
}

/// One job, until somebody interrupts.
async fn keep(job: CronJob, schedule: Schedule, log: Log, interrupts: &Interrupts) {
    let mut times = Times {
        schedule,
        seen: RealClock.now(),
    };
    let mut said = None;
    loop {
        match times.look(RealClock.now()) {
            Look::Wait(time) => {
                tokio::select! {
                    () = tokio::time::sleep(time) => {}
                    () = interrupts.asked() => return,
                }
            }
            Look::Missed(time) => log.say(&format!("{time:.0} was missed")),
            Look::Due(time) => {
                let not = match role::of_this_server().await {
                    Ok(SiteRole::Primary) => None,
                    Ok(SiteRole::Standby) => Some("the site is standby".to_owned()),
                    Err(fault) => Some(fault.to_string()),
                };
                if let Some(why) = not.as_ref().filter(|_| said != not) {
                    log.say(&format!("not run: {}", why.trim()));
                }
                if not.is_none() {
                    do_it(&job, &log, interrupts).await;
                }
                said = not;
                // The clock may have been set back meanwhile.
                times.done(time.max(RealClock.now()));
            }
        }
    }
}

/// Which of a job's times has come, as the clock goes.
struct Times {
    schedule: Schedule,
    /// All times until this are over.
    seen: Timestamp,
}

#[derive(Debug, PartialEq)]
enum Look {
    Wait(Duration),
    Due(Timestamp),
    /// One, and perhaps more.
    Missed(Timestamp),
}

impl Times {
    fn look(&mut self, now: Timestamp) -> Look {
        if now.duration_since(self.seen) < -LATE {
            self.seen = now;
        }
        let Some(next) = self.schedule.next(self.seen) else {
            return Look::Wait(LOOK);
        };
        let left = next.duration_since(now);
        if left.is_positive() {
            return Look::Wait(left.unsigned_abs().min(LOOK));
        }
        if left < -LATE {
            self.seen = now;
            return Look::Missed(next);
        }
        Look::Due(next)
    }

    fn done(&mut self, now: Timestamp) {
        self.seen = self.seen.max(now);
    }
}

async fn do_it(job: &CronJob, log: &Log, interrupts: &Interrupts) {
    let mut command = Command::new("sh");
    command
        .args(["-c", &job.run])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return log.say(&format!("cannot run: {error}")),
    };
    log.say("begins");
    let begun = RealClock.elapsed();
    let said = [
        child.stdout.take().map(|from| copy(from, log.clone())),
        child.stderr.take().map(|from| copy(from, log.clone())),
    ];
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended,
            () = tokio::time::sleep(GUARD) => if role::told_this_server() == Some(SiteRole::Standby) {
                log.say("is ended: the site is standby now");
                break end(&mut child).await;
            },
            () = interrupts.asked() => {
                log.say("is ended: this server changes or stops");
                break end(&mut child).await;
            }
        }
    };
    for mut reader in said.into_iter().flatten() {
        if tokio::time::timeout(OUTPUT_LIMIT, &mut reader)
            .await
            .is_err()
        {
            reader.abort();
        }
    }
    let took = RealClock.elapsed().saturating_sub(begun).as_secs_f64();
    match ended {
        Ok(status) => log.say(&format!("ended after {took:.1} s with {status}")),
        Err(error) => log.say(&format!("nobody knows how it ended: {error}")),
    }
}

/// With all that it started and that is still in its process group.
async fn end(child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    let Some(group) = child.id() else {
        return child.wait().await;
    };
    let group = Pid::from_raw(group.cast_signed());
    let _ = killpg(group, Signal::SIGTERM);
    let all = async {
        let ended = child.wait().await;
        while killpg(group, None).is_ok() {
            tokio::time::sleep(POLL).await;
        }
        ended
    };
    if let Ok(ended) = tokio::time::timeout(END_LIMIT, all).await {
        return ended;
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait().await
}

/// What a job says, line by line.
fn copy(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    log: Log,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let (mut line, mut bytes) = (Vec::new(), [0; 4096]);
        let say = |line: &mut Vec<u8>| {
            log.say(&format!("| {}", String::from_utf8_lossy(line).trim_end()));
            line.clear();
        };
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            for byte in &bytes[..count] {
                line.push(*byte);
                if *byte == b'\n' || line.len() >= LINE_MOST {
                    say(&mut line);
                }
            }
        }
        if !line.is_empty() {
            say(&mut line);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-23T{text}Z").parse().unwrap()
    }

    fn times(seen: &str) -> Times {
        Times {
            schedule: Schedule::parse("*/10 * * * *").unwrap(),
            seen: at(seen),
        }
    }

    #[test]
    fn a_time_comes_once() {
        let mut times = times("11:59:50");
        assert_eq!(
            times.look(at("11:59:50")),
            Look::Wait(Duration::from_secs(10))
        );
        assert_eq!(times.look(at("12:00:00")), Look::Due(at("12:00:00")));
        times.done(at("12:00:00"));
        // Not again when the clock is corrected.
        assert_eq!(times.look(at("11:59:59")), Look::Wait(LOOK));
        assert_eq!(times.look(at("12:00:01")), Look::Wait(LOOK));
        assert_eq!(times.look(at("12:10:00.2")), Look::Due(at("12:10:00")));
    }

    #[test]
    fn what_comes_while_a_job_runs_is_left_out() {
        let mut times = times("11:59:50");
        assert_eq!(times.look(at("12:00:00")), Look::Due(at("12:00:00")));
        times.done(at("12:25:00"));
        assert_eq!(times.look(at("12:25:00")), Look::Wait(LOOK));
        assert_eq!(times.look(at("12:30:00")), Look::Due(at("12:30:00")));
    }

    #[test]
    fn what_comes_while_the_machine_sleeps_is_missed() {
        let mut times = times("11:59:50");
        assert_eq!(times.look(at("12:25:00")), Look::Missed(at("12:00:00")));
        assert_eq!(times.look(at("12:25:01")), Look::Wait(LOOK));
    }

    #[test]
    fn a_clock_that_was_an_hour_ahead_is_believed_when_it_is_set_back() {
        let mut times = times("13:05:00");
        assert_eq!(times.look(at("12:05:00")), Look::Wait(LOOK));
        assert_eq!(times.look(at("12:10:00")), Look::Due(at("12:10:00")));
    }
}
