//! The fault script: which call of a port goes wrong, and how.
//!
//! A test counts on a [`Script`] that fires, so it asks at the end whether one is left over
//! (`SimWorld::unfired`): a misspelt call name would otherwise make the test pass for nothing.

use std::fmt;

/// What goes wrong with one call. The meaning for the caller is in each line; what it means for the world is that
/// the call happens not at all, partly, wholly, or twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mishap {
    /// Refused: `NothingChanged`, and the world is as it was.
    FailBefore,
    /// It happens, and the reply is lost: `Unknown`.
    LoseReply,
    /// A part of it happens: `Partial`. A call that is atomic by its contract is refused instead.
    Half,
    /// It happens twice, as if the request had been delivered twice; the caller gets the first reply.
    Twice,
    /// It happens, and nobody ever answers: only the caller's own limit ends it.
    Hang,
    /// The process dies before it.
    CrashBefore,
    /// The process dies when a part of it has happened (nothing of it, where it is atomic).
    CrashDuring,
    /// The process dies when it has happened and before the answer arrives.
    CrashAfter,
}

impl Mishap {
    pub const ALL: [Mishap; 8] = [
        Mishap::FailBefore,
        Mishap::LoseReply,
        Mishap::Half,
        Mishap::Twice,
        Mishap::Hang,
        Mishap::CrashBefore,
        Mishap::CrashDuring,
        Mishap::CrashAfter,
    ];

    /// Whether the process that made the call is dead afterwards.
    pub fn kills(self) -> bool {
        matches!(
            self,
            Mishap::CrashBefore | Mishap::CrashDuring | Mishap::CrashAfter
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    /// `engine.promote`, or `engine.*`.
    Named(String),
    /// Calls that are meant to change the world, whatever their name.
    AnyChange,
}

/// On the n-th matching call: a mishap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    which: Which,
    argument: String,
    nth: u32,
    from_then_on: bool,
    outside_of_stores: bool,
    mishap: Mishap,
}

impl Script {
    /// `call` is a name such as `engine.promote`, or `engine.*`.
    pub fn on(call: &str, mishap: Mishap) -> Script {
        Script {
            which: Which::Named(call.to_owned()),
            argument: String::new(),
            nth: 1,
            from_then_on: false,
            outside_of_stores: false,
            mishap,
        }
    }

    /// The `nth` call (from 1) of those that are meant to change the world: the handle for "break it everywhere".
    pub fn on_change(nth: u32, mishap: Mishap) -> Script {
        Script {
            which: Which::AnyChange,
            ..Script::on("", mishap).nth(nth)
        }
    }

    /// Counts only calls whose argument contains `text`.
    pub fn about(mut self, text: &str) -> Script {
        self.argument = text.to_owned();
        self
    }

    pub fn nth(mut self, nth: u32) -> Script {
        assert!(nth > 0, "calls are counted from 1");
        self.nth = nth;
        self
    }

    /// Not only the n-th call, but every one from there on.
    pub fn from_then_on(mut self) -> Script {
        self.from_then_on = true;
        self
    }

    /// Does not count what is asked of state stores: journal, lease and documents.
    pub fn outside_of_stores(mut self) -> Script {
        self.outside_of_stores = true;
        self
    }

    fn matches(&self, call: &str, argument: &str, changes: bool) -> bool {
        let named = match &self.which {
            Which::AnyChange => changes,
            Which::Named(name) => match name.strip_suffix('*') {
                Some(start) => call.starts_with(start),
                None => call == name,
            },
        };
        let counts = !self.outside_of_stores || !call.starts_with("store.");
        named && counts && argument.contains(&self.argument)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.which {
            Which::Named(name) => name,
            Which::AnyChange => "any change",
        };
        write!(f, "{:?} on call {} of {name}", self.mishap, self.nth)?;
        if !self.argument.is_empty() {
            write!(f, " about `{}`", self.argument)?;
        }
        Ok(())
    }
}

/// The scripts of one world, and how often each one matched.
#[derive(Clone, Debug, Default)]
pub struct Faults(Vec<(Script, u32)>);

impl Faults {
    pub fn add(&mut self, script: Script) {
        self.0.push((script, 0));
    }

    /// Counts the call in every script that it matches; the first one whose turn it is decides.
    pub fn next(&mut self, call: &str, argument: &str, changes: bool) -> Option<Mishap> {
        let mut mishap = None;
        for (script, seen) in &mut self.0 {
            if !script.matches(call, argument, changes) {
                continue;
            }
            *seen += 1;
            let due = *seen == script.nth || (script.from_then_on && *seen > script.nth);
            if due && mishap.is_none() {
                mishap = Some(script.mishap);
            }
        }
        mishap
    }

    pub fn unfired(&self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(script, seen)| *seen < script.nth)
            .map(|(script, _)| script.to_string())
            .collect()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_what_matches() {
        let mut faults = Faults::default();
        faults.add(
            Script::on("dns.apply", Mishap::Half)
                .about("www.shop.test")
                .nth(2),
        );
        assert_eq!(faults.next("dns.apply", "www.shop.test", true), None);
        assert_eq!(faults.next("dns.apply", "other.test", true), None);
        assert_eq!(faults.next("dns.records", "www.shop.test", false), None);
        assert_eq!(faults.unfired().len(), 1);
        assert_eq!(
            faults.next("dns.apply", "www.shop.test", true),
            Some(Mishap::Half)
        );
        assert_eq!(faults.next("dns.apply", "www.shop.test", true), None);
        assert!(faults.unfired().is_empty());
    }

    #[test]
    fn a_star_takes_a_whole_port_and_from_then_on_stays() {
        let mut faults = Faults::default();
        faults.add(Script::on("cloud.*", Mishap::FailBefore).from_then_on());
        for _ in 0..3 {
            assert_eq!(
                faults.next("cloud.servers", "", false),
                Some(Mishap::FailBefore)
            );
        }
        assert_eq!(faults.next("engine.promote", "", true), None);
    }

    #[test]
    fn changes_are_counted_whatever_their_name() {
        let mut faults = Faults::default();
        faults.add(Script::on_change(2, Mishap::CrashAfter));
        faults.add(Script::on_change(1, Mishap::Half).outside_of_stores());
        assert_eq!(faults.next("store.append", "", true), None);
        assert_eq!(faults.next("engine.status", "", false), None);
        assert_eq!(
            faults.next("engine.promote", "", true),
            Some(Mishap::CrashAfter)
        );
    }
}
