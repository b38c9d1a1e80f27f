//! A stack of its own on the local cloud, and the ways to run hafog on it: to the end, up to an exact journal line,
//! or until it is killed from outside.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::wait::{poll, wait_until};
use crate::harness::{Home, Ran};
use crate::instants::let_pass;

mod left;

/// The demo's, with TTLs that make a move last two seconds.
const SPEC: &str = include_str!("../../templates/demo/hafog.yaml");
const PASSWORD: (&str, &str) = ("DATABASE_PASSWORD", "a-password-of-the-tests");
/// For what takes seconds: a limit, not an expectation.
pub const LIMIT: Duration = Duration::from_secs(180);
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// Where the arbiter's folder is while a case keeps it out of reach, beside it.
pub const ASIDE: &str = "arbiter-out-of-reach";

/// What is wrong, in words for a person.
pub type Wrong = String;

pub struct Stack {
    pub home: Home,
    scratch: tempfile::TempDir,
    /// Goes up with each deploy.
    release: u32,
    _record: left::Record,
}

/// Where hafog is killed.
#[derive(Clone, Debug)]
pub enum Cut {
    /// `before`, `torn` or `after`, and the line.
    Line(&'static str, usize),
    /// From outside, so long after the line was written.
    Later(usize, Duration),
}

impl Stack {
    pub fn new() -> Stack {
        let home = Home::new();
        let stack = Stack {
            _record: left::Record::of(home.path()),
            home,
            scratch: tempfile::tempdir().expect("a temporary folder can be made"),
            release: 0,
        };
        stack.write_spec("$HAFOG_EXE demo-app");
        stack
    }

    fn write_spec(&self, app: &str) {
        let spec = SPEC
            .replace("ttl: 5s", "ttl: 2s")
            .replace("$HAFOG_EXE demo-app", app);
        self.home.write("hafog.yaml", &spec);
    }

    /// The spec asks for another image of the web servers from now on.
    pub fn change_app(&mut self) {
        self.release += 1;
        let app = format!("env RELEASE={} $HAFOG_EXE demo-app", self.release);
        self.write_spec(&app);
    }

    pub fn run(&self, words: &str) -> Ran {
        self.run_with(words, &[])
    }

    pub fn run_with(&self, words: &str, environment: &[(&str, &str)]) -> Ran {
        Running::begin(self, words, environment).finish()
    }

    /// Runs a command that must succeed.
    pub fn must(&self, words: &str) -> Result<Ran, Wrong> {
        let ran = self.run(words);
        match ran.code {
            0 => Ok(ran),
            _ => Err(format!("`hafog {words}` failed:\n{}", ran.all())),
        }
    }

    pub fn json(&self, words: &str) -> Result<Value, Wrong> {
        let ran = self.run(&format!("{words} --json"));
        serde_json::from_slice(&ran.raw)
            .map_err(|error| format!("`hafog {words}` printed no JSON: {error}\n{}", ran.all()))
    }

    fn command(&self, words: &str, environment: &[(&str, &str)]) -> Command {
        let words: Vec<&str> = words.split(' ').collect();
        let mut command = self.home.command(&words);
        command
            .env(PASSWORD.0, PASSWORD.1)
            .envs(environment.iter().copied());
        command
    }

    /// Runs a command and kills it where the cut says. Whether it was killed: it may have fewer lines than that.
    pub fn cut(&self, words: &str, cut: &Cut) -> Result<bool, Wrong> {
        match cut {
            Cut::Line(moment, line) => {
                let cut = format!("{moment}:{line}");
                let ran = self.run_with(words, &[("HAFOG_CUT", &cut)]);
                match ran.code {
                    // No exit code: a signal.
                    -1 => Ok(true),
                    0 => Ok(false),
                    _ => Err(format!(
                        "`hafog {words}` failed before its cut:\n{}",
                        ran.all()
                    )),
                }
            }
            Cut::Later(line, pause) => self.cut_later(words, *line, *pause),
        }
    }

    fn cut_later(&self, words: &str, line: usize, pause: Duration) -> Result<bool, Wrong> {
        let mut running = Running::begin(self, words, &[]);
        running.reaches(line)?;
        // How much later is the fault itself, not a condition: where it hits is up to chance.
        let_pass(pause);
        if running.is_over() {
            let ran = running.finish();
            return match ran.code {
                0 => Ok(false),
                _ => Err(format!(
                    "`hafog {words}` failed before it was killed:\n{}",
                    ran.all()
                )),
            };
        }
        running.signal(nix::sys::signal::SIGKILL);
        running.finish();
        Ok(true)
    }

    /// For files of the tests, beside the stack's.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub fn journal_folder(&self) -> PathBuf {
        self.home.path().join(".hafog/journal")
    }

    /// Names of the journals, oldest first.
    pub fn journals(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.journal_folder())
            .into_iter()
            .flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_by_key(|name| order_of(name));
        names
    }

    /// Lines of the journals that are not known yet.
    pub fn lines_besides(&self, known: &[String]) -> usize {
        self.new_lines(known).len()
    }

    pub fn new_lines(&self, known: &[String]) -> Vec<String> {
        let new = self
            .journals()
            .into_iter()
            .filter(|name| !known.contains(name));
        new.flat_map(|name| {
            let text = std::fs::read(self.journal_folder().join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
    }

    /// Waits until the standby could take over.
    pub fn ready(&self) -> Result<(), Wrong> {
        let ready = || self.run("preflight").code == 0;
        wait_until(LIMIT, "the standby is ready", ready)
            .map_err(|why| format!("{why}\n{}", self.run("preflight").all()))
    }
}

/// A run's id is its time, the lease's epoch and a count: the last two are no text.
fn order_of(name: &str) -> (String, u64, u64) {
    let mut parts = name.trim_end_matches(".jsonl").splitn(3, '-');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (time, epoch, count) = (next(), next(), next());
    (
        time,
        epoch.parse().unwrap_or_default(),
        count.parse().unwrap_or_default(),
    )
}

/// A command under way. What it says goes to files: a pipe would be held open by what it started.
pub struct Running<'a> {
    stack: &'a Stack,
    words: String,
    /// Journals that were there before it.
    known: Vec<String>,
    child: Child,
    stdout: File,
    stderr: File,
    until: Instant,
}

impl Running<'_> {
    pub fn begin<'a>(stack: &'a Stack, words: &str, environment: &[(&str, &str)]) -> Running<'a> {
        let file = || tempfile::tempfile().expect("a temporary file can be made");
        let (stdout, stderr) = (file(), file());
        let hand = |file: &File| Stdio::from(file.try_clone().expect("a file has two handles"));
        let mut command = stack.command(words, environment);
        command.stdout(hand(&stdout)).stderr(hand(&stderr));
        Running {
            stack,
            words: words.to_owned(),
            known: stack.journals(),
            child: command.spawn().expect("the binary starts"),
            stdout,
            stderr,
            until: Instant::now() + COMMAND_LIMIT,
        }
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_some()
    }

    /// Waits until its journals have so many lines, or it is over.
    pub fn reaches(&mut self, line: usize) -> Result<(), Wrong> {
        let what = format!("line {line} of `hafog {}`", self.words);
        wait_until(COMMAND_LIMIT, &what, || {
            self.is_over() || self.stack.lines_besides(&self.known) >= line
        })
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let _ = nix::sys::signal::kill(pid(&self.child), signal);
    }

    /// Waits for its end. One that hangs is killed, and counts as ended by a signal.
    pub fn finish(mut self) -> Ran {
        let left = self.until.saturating_duration_since(Instant::now());
        if poll(left, || self.is_over().then_some(())).is_none() {
            self.signal(nix::sys::signal::SIGKILL);
        }
        let status = self.child.wait().expect("the child is ours");
        let text = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().expect("a file can be read again");
            file.read_to_end(&mut bytes).expect("a file can be read");
            bytes
        };
        let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
        self.stack.home.ran(status, stdout, &stderr)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over() {
            self.signal(nix::sys::signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn pid(child: &Child) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(child.id().try_into().expect("a pid is a small number"))
}

impl Drop for Stack {
    fn drop(&mut self) {
        // An unfinished run would stand in the way; what it did goes with the rest.
        let _ = self.run("abort --yes");
        let _ = self.run("resume --yes");
        let ran = self.run("destroy --yes");
        if ran.code != 0 {
            use std::io::Write;
            let folder = self.home.path().display();
            let said = ran.all();
            let mut out = std::io::stderr();
            let _ = writeln!(out, "the stack in {folder} could not be removed\n{said}");
        }
    }
}
