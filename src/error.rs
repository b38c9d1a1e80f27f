//! Expected trouble.
//!
//! A [`Fault`] says what happened, why, where in the spec, and which command to type next. It is printed in
//! one place (`ui::print`), at the end. A broken invariant is a bug and may panic.
//!
//! A failed call that was meant to change the world is a [`Trouble`]: the code that made the call must choose
//! what the failure did to the world. There is deliberately no `From<Fault> for Trouble`.

use std::fmt;

/// Chooses the heading and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Something failed; nothing was changed.
    Error,
    /// A safety check said no; nothing was changed.
    Refused,
    /// Some steps are done, others are not; a run can be resumed.
    Partial,
    /// Somebody else holds the lease.
    Locked,
    /// A replica is out of sync, or that is unknown.
    OutOfSync,
    /// Nobody agreed to the plan and nobody can be asked.
    Consent,
    /// The command line is wrong.
    Usage,
    /// The spec is wrong.
    Spec,
    /// A provider, a database or a name server cannot be reached.
    Unavailable,
    /// Ctrl-C; the journal is sealed.
    Interrupted,
}

/// Where in the spec: file, 1-based line and column, the line's text, and how many characters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub text: String,
    pub width: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    place: Option<Place>,
    hints: Vec<String>,
}

/// One piece of expected trouble. Small to return: its parts are on the heap.
#[derive(Clone, PartialEq, Eq)]
pub struct Fault(Box<Inner>);

impl Fault {
    /// `message` is a lowercase fragment without a full stop, fit to follow "failed to", with values in backticks.
    pub fn new(message: impl Into<String>) -> Fault {
        Fault::of(Kind::Error, message)
    }

    pub fn of(kind: Kind, message: impl Into<String>) -> Fault {
        Fault(Box::new(Inner {
            kind,
            message: message.into(),
            causes: Vec::new(),
            place: None,
            hints: Vec::new(),
        }))
    }

    pub fn unavailable(message: impl Into<String>) -> Fault {
        Fault::of(Kind::Unavailable, message)
    }

    pub fn refused(message: impl Into<String>) -> Fault {
        Fault::of(Kind::Refused, message)
    }

    /// Adds the next deeper reason.
    pub fn because(mut self, cause: impl fmt::Display) -> Fault {
        self.0.causes.push(cause.to_string());
        self
    }

    /// Puts `message` in front; the old message becomes a cause. Kind, place and hints stay.
    pub fn while_doing(mut self, message: impl Into<String>) -> Fault {
        let old = std::mem::replace(&mut self.0.message, message.into());
        self.0.causes.insert(0, old);
        self
    }

    /// The last of these lines are why, at most so many, in their order.
    pub fn because_last<'a>(self, most: usize, lines: impl Iterator<Item = &'a str>) -> Fault {
        let lines: Vec<&str> = lines.collect();
        let last = &lines[lines.len().saturating_sub(most)..];
        last.iter().fold(self, Fault::because)
    }

    /// Adds a hint: the next command to type, not advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.0.hints.push(hint.into());
        self
    }

    pub fn at(mut self, place: Place) -> Fault {
        self.0.place = Some(place);
        self
    }

    pub fn with_kind(mut self, kind: Kind) -> Fault {
        self.0.kind = kind;
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }
}

/// Message and causes on one line, for journals and evidence.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for cause in &self.0.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.0.kind)
    }
}

impl std::error::Error for Fault {}

/// The innermost cause of an error of a library: "connection refused" says more than "error sending request".
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// What a failed call means for the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The call was refused or never sent: the world is as it was.
    NothingChanged(Fault),
    /// The call may have happened. Check until you know; never unwind on it.
    Unknown(Fault),
    /// Some of it happened and will not complete by itself.
    Partial(Fault),
}

impl Trouble {
    pub fn fault(&self) -> &Fault {
        match self {
            Trouble::NothingChanged(fault) | Trouble::Unknown(fault) | Trouble::Partial(fault) => {
                fault
            }
        }
    }

    /// Keeps the arm and changes the fault, to add context on the way up.
    pub fn map(self, change: impl FnOnce(Fault) -> Fault) -> Trouble {
        match self {
            Trouble::NothingChanged(fault) => Trouble::NothingChanged(change(fault)),
            Trouble::Unknown(fault) => Trouble::Unknown(change(fault)),
            Trouble::Partial(fault) => Trouble::Partial(change(fault)),
        }
    }

    /// Of one call of several, where an earlier one did change something.
    pub fn after_a_change(self) -> Trouble {
        match self {
            Trouble::NothingChanged(fault) => Trouble::Partial(fault),
            other => other,
        }
    }

    pub fn word(&self) -> &'static str {
        match self {
            Trouble::NothingChanged(_) => "nothing changed",
            Trouble::Unknown(_) => "unknown",
            Trouble::Partial(_) => "partly done",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.fault(), self.word())
    }
}

/// Names the arm at the call site: `file.write().nothing_changed()?`.
pub trait TroubleExt<T> {
    fn nothing_changed(self) -> Result<T, Trouble>;
    fn unknown(self) -> Result<T, Trouble>;
    fn partial(self) -> Result<T, Trouble>;
}

impl<T> TroubleExt<T> for Result<T, Fault> {
    fn nothing_changed(self) -> Result<T, Trouble> {
        self.map_err(Trouble::NothingChanged)
    }
    fn unknown(self) -> Result<T, Trouble> {
        self.map_err(Trouble::Unknown)
    }
    fn partial(self) -> Result<T, Trouble> {
        self.map_err(Trouble::Partial)
    }
}
