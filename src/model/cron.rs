//! When a job comes round: crontab(5), with the name of a time zone behind the five fields where it is not UTC.

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The service that does the jobs.
pub const CRON: &str = "cron";

/// A job that is done at its times where its site is primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronJob {
    pub name: String,
    /// A [`Schedule`].
    pub at: String,
    /// A command line.
    pub run: String,
    /// Who runs it. `None`: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The times of a job, whole minutes.
#[derive(Clone, Debug)]
pub struct Schedule(Crontab);

impl Schedule {
    /// The error says in one line what is wrong, and not where.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let words: Vec<&str> = text.split_whitespace().collect();
        let schedule = cronexpr::parse_crontab_with(&words.join(" "), options);
        let schedule = Schedule(schedule.map_err(|error| reason(&error.to_string()))?);
        // From a fixed moment: what is right today is right tomorrow.
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err("that never comes".to_owned()),
        }
    }

    /// The first of its times after `moment`. `None` when there is none within four years.
    pub fn next(&self, moment: Timestamp) -> Option<Timestamp> {
        let next = self.0.find_next(MakeTimestamp(moment)).ok()?;
        Some(next.timestamp())
    }
}

/// `failed to parse …:`, the text, and below its place a mark and the reason.
fn reason(error: &str) -> String {
    let last = error.lines().last().unwrap_or_default();
    let last = last.trim_start().trim_start_matches('^').trim_start();
    let end = last.find("; for a list of time zones");
    last[..end.unwrap_or(last.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(at: &str, from: &str) -> Vec<String> {
        let schedule = Schedule::parse(at).unwrap();
        let mut moment: Timestamp = from.parse().unwrap();
        let times = std::iter::repeat_with(|| {
            moment = schedule.next(moment).unwrap();
            moment.to_string()
        });
        times.take(3).collect()
    }

    #[test]
    fn times_come_in_utc_or_in_a_zone() {
        assert_eq!(
            times("*/20 * * * *", "2026-11-23T23:30:59Z"),
            [
                "2026-11-23T23:40:00Z",
                "2026-11-24T00:00:00Z",
                "2026-11-24T00:20:00Z"
            ]
        );
        // In summer and in winter it is three o'clock there.
        assert_eq!(
            times("0 3 * * * Europe/Berlin", "2026-10-24T00:00:00Z"),
            [
                "2026-10-24T01:00:00Z",
                "2026-10-25T02:00:00Z",
                "2026-10-26T02:00:00Z"
            ]
        );
        // crontab(5): either of the two days.
        assert_eq!(
            times("0 0 1 * mon", "2026-11-28T00:00:00Z"),
            [
                "2026-11-30T00:00:00Z",
                "2026-12-01T00:00:00Z",
                "2026-12-07T00:00:00Z"
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_a_line() {
        for (text, why) in [
            ("", "cannot be empty"),
            ("* * *", "missing months"),
            ("61 * * * *", "found 61"),
            ("0 0 30 2 *", "that never comes"),
            ("0 0 * * * Mars/Base", "Mars/Base"),
            ("@daily", "malformed"),
        ] {
            let said = Schedule::parse(text).unwrap_err();
            assert!(
                said.contains(why) && !said.contains('\n'),
                "{text:?}: {said}"
            );
        }
    }
}
