//! What the demo measured, as text and as JSON.

use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub commands: Vec<Timed>,
    pub moves: Vec<Move>,
    pub acknowledged: usize,
    pub lost_in_switchovers: usize,
    pub lost_in_failovers: usize,
    /// Medians over the failovers.
    pub failover_command_seconds: Option<f64>,
    pub failover_to_first_write_seconds: Option<f64>,
    pub failover_to_newcomer_seconds: Option<f64>,
    pub left_processes: usize,
    pub total_seconds: f64,
}

#[derive(Debug, Serialize)]
pub struct Timed {
    pub command: String,
    pub seconds: f64,
}

/// One switchover or failover, as the clients saw it.
#[derive(Debug, Serialize)]
pub struct Move {
    pub verb: String,
    pub to: String,
    /// The command's own time.
    pub command_seconds: f64,
    /// Longest time without any acknowledged write.
    pub downtime_seconds: f64,
    /// From the start of the command to the first acknowledged write at the new site, through the name.
    pub first_write_seconds: f64,
    /// The same for a client that keeps nothing of DNS: what is left is hafog's own time.
    pub newcomer_seconds: f64,
    pub acknowledged_before: usize,
    pub lost: usize,
    /// From the oldest of those to the last write that was acknowledged before the move.
    pub lost_seconds: Option<f64>,
    /// What the command had said may be lost.
    pub said: String,
    /// The TTL clock's instant, in seconds after the start of the command.
    pub clock_seconds: f64,
    /// When a client last asked the old address.
    pub last_client_seconds: Option<f64>,
}

impl Move {
    /// No honest cache may be later than the clock; one second is its rounding.
    pub fn clock_held(&self) -> bool {
        self.last_client_seconds
            .is_none_or(|last| last <= self.clock_seconds + 1.0)
    }
}

impl Move {
    /// What was lost lies within what the command had said. Of an unknown loss it had promised nothing.
    pub fn loss_held(&self) -> bool {
        let most = self.said.split_once("at most ").and_then(|(_, rest)| {
            let (seconds, _) = rest.split_once(" s")?;
            seconds.parse::<f64>().ok()
        });
        match (self.lost_seconds, most) {
            (None, _) => true,
            // It is said in tenths.
            (Some(lost), Some(most)) => lost <= most + 0.05,
            (Some(_), None) => self.said.contains("unknown"),
        }
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

impl Report {
    pub fn ok(&self) -> bool {
        self.lost_in_switchovers == 0
            && self.left_processes == 0
            && self.moves.iter().all(Move::clock_held)
            && self.moves.iter().all(Move::loss_held)
    }

    pub fn text(&self) -> String {
        let mut text = String::from("\nCOMMAND                                  TIME\n");
        for timed in &self.commands {
            text.push_str(&format!("{:<38} {:>5.1}s\n", timed.command, timed.seconds));
        }
        for moved in &self.moves {
            text.push_str(&format!("\n{} to {}\n", moved.verb, moved.to));
            let mut line =
                |name: &str, value: String| text.push_str(&format!("  {name:<45} {value}\n"));
            line("the command took", format!("{:.2}s", moved.command_seconds));
            line(
                "downtime seen by the writing clients",
                format!("{:.2}s", moved.downtime_seconds),
            );
            line(
                "start of the command to the first write there",
                format!("{:.2}s", moved.first_write_seconds),
            );
            line(
                "the same for a client without a DNS cache",
                format!("{:.2}s", moved.newcomer_seconds),
            );
            line(
                "acknowledged writes before it",
                moved.acknowledged_before.to_string(),
            );
            line("acknowledged writes lost", moved.lost.to_string());
            line("what it had said", moved.said.clone());
            line(
                "TTL clock: every cache has moved after",
                format!("{:.2}s", moved.clock_seconds),
            );
            let last = moved
                .last_client_seconds
                .map_or("never".to_owned(), |last| format!("{last:.2}s"));
            line("last client at the old address", last);
        }
        if let (Some(command), Some(first), Some(newcomer), true) = (
            self.failover_command_seconds,
            self.failover_to_first_write_seconds,
            self.failover_to_newcomer_seconds,
            self.moves.len() > 2,
        ) {
            let failovers = self
                .moves
                .iter()
                .filter(|moved| moved.verb == "failover")
                .count();
            text.push_str(&format!("\nmedian of {failovers} failovers: command {command:.2}s, first write {first:.2}s, without a DNS cache {newcomer:.2}s\n"));
        }
        text.push_str(&format!(
            "\n{} writes acknowledged; lost in switchovers: {}, in failovers: {}; processes left behind: {}; {:.0} s in all\n",
            self.acknowledged, self.lost_in_switchovers, self.lost_in_failovers, self.left_processes, self.total_seconds
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_may_lose_what_it_said_and_no_more() {
        let held = |said: &str, lost_seconds: Option<f64>| {
            let moved = Move {
                verb: "failover".to_owned(),
                to: "west".to_owned(),
                command_seconds: 1.0,
                downtime_seconds: 1.0,
                first_write_seconds: 1.0,
                newcomer_seconds: 1.0,
                acknowledged_before: 100,
                lost: 1,
                lost_seconds,
                said: said.to_owned(),
                clock_seconds: 1.0,
                last_client_seconds: None,
            };
            moved.loss_held()
        };
        let said = "main: at most 2.0 s, at least 4KiB of log";
        assert!(held(said, None) && held(said, Some(2.04)) && held("unknown", Some(9.0)));
        assert!(!held(said, Some(2.1)) && !held("main: nothing", Some(0.0)));
    }

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
