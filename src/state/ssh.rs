//! A store on another machine: `hafog store FOLDER` there, over one connection of the system's `ssh`.
//!
//! One question at a time. Whoever stops waiting for an answer ends the connection, so that no answer is taken for
//! another's; the next question makes a new one. A connection that is still being made is kept for the next question:
//! that takes many round trips, and an agent has less patience than that.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use super::wire::{self, Answer, Ask, HELLO};
use super::{Guest, PutError, StateStore, Version, text_of};
use crate::error::Fault;
use crate::model::id::{RunId, ServerName};
use crate::model::posix::quoted;
use crate::model::stack::Remote;

/// How long a connection may take to come to stand, in seconds, and how often it is asked whether it still does.
const CONNECT_LIMIT: &str = "ConnectTimeout=5";
const ALIVE_EVERY: &str = "ServerAliveInterval=5";
const ALIVE_MOST: &str = "ServerAliveCountMax=2";
/// What the host's key is looked up by, where it is given.
const ALIAS: &str = "hafog-store";
/// All of it, until the other side has said that it is a store.
const MAKE_LIMIT: Duration = Duration::from_secs(10);
/// For the last words of a connection that ended.
const WORDS_LIMIT: Duration = Duration::from_millis(500);

pub struct SshStore {
    name: String,
    argv: Vec<String>,
    line: Mutex<Line>,
    host_keys: OnceCell<Vec<String>>,
}

#[derive(Default)]
struct Line {
    up: Option<Connection>,
    making: Option<JoinHandle<Result<Connection, Fault>>>,
}

struct Connection {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl SshStore {
    /// With this key alone, or with whatever the user's own `ssh` goes with.
    pub fn open(remote: &Remote, folder: &str, identity: Option<&Path>) -> SshStore {
        let argv = command_line(remote, folder, identity);
        SshStore::by(remote.url(folder), argv)
    }

    /// By any program at whose other end `hafog store` is.
    pub fn by(name: String, argv: Vec<String>) -> SshStore {
        SshStore {
            name,
            argv,
            line: Mutex::default(),
            host_keys: OnceCell::new(),
        }
    }

    /// Whoever stops waiting leaves what is being made where it is.
    async fn made(&self, line: &mut Line) -> Result<Connection, Fault> {
        let making = line.making.get_or_insert_with(|| {
            let (name, argv) = (self.name.clone(), self.argv.clone());
            tokio::spawn(async move {
                let making = tokio::time::timeout(MAKE_LIMIT, Connection::make(&name, &argv));
                let late = || format!("no connection within {} s", MAKE_LIMIT.as_secs());
                making
                    .await
                    .unwrap_or_else(|_| Err(silent(&name).because(late())))
            })
        });
        let made = making.await;
        line.making = None;
        made.unwrap_or_else(|error| Err(silent(&self.name).because(error)))
    }

    async fn ask(&self, ask: &Ask, body: &[u8]) -> Result<(Answer, Vec<u8>), Fault> {
        let mut line = self.line.lock().await;
        let mut connection = match line.up.take().and_then(Connection::standing) {
            Some(kept) => kept,
            None => self.made(&mut line).await?,
        };
        match connection.talk(ask, body).await {
            Ok((answer, body)) => {
                line.up = Some(connection);
                match answer {
                    Answer::Failed(failure) => Err(failure.into()),
                    answer => Ok((answer, body)),
                }
            }
            Err(error) => {
                let said = connection.last_words().await;
                Err(silent(&self.name).because(error).because(said))
            }
        }
    }

    async fn done(&self, ask: &Ask, body: &[u8]) -> Result<(), Fault> {
        match self.ask(ask, body).await? {
            (Answer::Done, _) => Ok(()),
            (other, _) => Err(self.odd(&other)),
        }
    }

    async fn list(&self, ask: &Ask) -> Result<Vec<String>, Fault> {
        match self.ask(ask, &[]).await? {
            (Answer::Bytes, body) => wire::lines(&body),
            (other, _) => Err(self.odd(&other)),
        }
    }

    fn odd(&self, answer: &Answer) -> Fault {
        Fault::new(format!(
            "state store {} gave an answer to another question: {answer:?}",
            self.name
        ))
    }
}

fn silent(name: &str) -> Fault {
    Fault::unavailable(format!("state store {name} does not answer"))
}

impl Connection {
    async fn make(name: &str, argv: &[String]) -> Result<Connection, Fault> {
        let [program, arguments @ ..] = argv else {
            return Err(silent(name).because("there is no way to it"));
        };
        let spawned = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at the terminal is for hafog, which ends what it began.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|error| {
            let fault = silent(name).because(format!("cannot run `{program}`"));
            fault.because(error).hint("apt-get install openssh-client")
        })?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(silent(name).because("it has no pipes"));
        };
        let mut connection = Connection {
            child,
            to,
            from: BufReader::new(from),
        };
        let mut hello = Vec::new();
        let length = HELLO.len() as u64;
        let heard = (&mut connection.from)
            .take(length)
            .read_to_end(&mut hello)
            .await;
        if heard.is_ok() && hello == HELLO.as_bytes() {
            return Ok(connection);
        }
        let said = match hello.is_empty() {
            true => connection.last_words().await,
            false => format!(
                "it speaks otherwise than this version of hafog: `{}`",
                String::from_utf8_lossy(&hello).trim()
            ),
        };
        Err(silent(name).because(said))
    }

    fn standing(mut self) -> Option<Connection> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    async fn talk(&mut self, ask: &Ask, body: &[u8]) -> io::Result<(Answer, Vec<u8>)> {
        wire::send(&mut self.to, ask, body).await?;
        let answer = wire::receive(&mut self.from).await?;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Ends it. The last line of what `ssh`, or hafog there, had to say.
    async fn last_words(mut self) -> String {
        let mut said = Vec::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let read = tokio::time::timeout(WORDS_LIMIT, stderr.read_to_end(&mut said));
            drop(read.await);
        }
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
        last.unwrap_or("it ended without a word").to_owned()
    }
}

/// Whoever may only know some documents runs what its key is bound to, whatever is asked for here.
fn command_line(remote: &Remote, folder: &str, identity: Option<&Path>) -> Vec<String> {
    let mut argv: Vec<String> = ["ssh", "-T", "-a"].map(str::to_owned).to_vec();
    let mut option = |text: &str| argv.extend(["-o".to_owned(), text.to_owned()]);
    option("BatchMode=yes");
    option("StrictHostKeyChecking=yes");
    option("LogLevel=ERROR");
    option(CONNECT_LIMIT);
    option(ALIVE_EVERY);
    option(ALIVE_MOST);
    // A connection of its own: the user's may not know our host key, and would end with ours.
    option("ControlMaster=no");
    option("ControlPath=none");
    option("RemoteCommand=none");
    option("ClearAllForwardings=yes");
    if let Some(key) = &remote.host_key {
        option(&format!("KnownHostsCommand=/bin/echo {ALIAS} {key}"));
        option(&format!("HostKeyAlias={ALIAS}"));
        option("UserKnownHostsFile=none");
        option("GlobalKnownHostsFile=none");
    }
    if let Some(path) = identity {
        option("IdentitiesOnly=yes");
        let path = path.display().to_string().replace('%', "%%");
        argv.extend(["-i", &path, "-F", "none"].map(str::to_owned));
    }
    if let Some(port) = remote.port {
        argv.extend(["-p".to_owned(), port.to_string()]);
    }
    argv.extend(["-l".to_owned(), remote.user.clone()]);
    argv.extend(["--".to_owned(), remote.host.clone()]);
    argv.push(format!(
        "PATH=\"$PATH:/usr/local/bin:$HOME/.local/bin:$HOME/.cargo/bin\"; exec hafog store {}",
        quoted(folder)
    ));
    argv
}

#[async_trait]
impl StateStore for SshStore {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// A hafog at the other end that is older than this one writes whatever it is given.
    async fn append_all(&self, run: &RunId, lines: &[String]) -> Result<(), (usize, PutError)> {
        let ask = Ask::Append { run: run.clone() };
        let answer = self.ask(&ask, text_of(lines).as_bytes()).await;
        match answer.map_err(|fault| (0, PutError::Fault(fault)))? {
            (Answer::Done, _) => Ok(()),
            (Answer::Changed, _) => Err((0, PutError::Changed)),
            (other, _) => Err((0, self.odd(&other).into())),
        }
    }

    async fn read(&self, run: &RunId) -> Result<Option<Vec<u8>>, Fault> {
        match self.ask(&Ask::Read { run: run.clone() }, &[]).await? {
            (Answer::Bytes, body) => Ok(Some(body)),
            (Answer::Absent, _) => Ok(None),
            (other, _) => Err(self.odd(&other)),
        }
    }

    async fn replace_journal(&self, run: &RunId, lines: &[String]) -> Result<(), Fault> {
        let ask = Ask::ReplaceJournal { run: run.clone() };
        self.done(&ask, text_of(lines).as_bytes()).await
    }

    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        let runs = self.list(&Ask::Runs).await?;
        Ok(runs.into_iter().map(RunId::new).collect())
    }

    async fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, Fault> {
        let ask = Ask::Get {
            key: key.to_owned(),
        };
        match self.ask(&ask, &[]).await? {
            (Answer::Document { version }, body) => Ok(Some((body, Version(version)))),
            (Answer::Absent, _) => Ok(None),
            (other, _) => Err(self.odd(&other)),
        }
    }

    async fn put(
        &self,
        key: &str,
        bytes: &[u8],
        expect: Option<&Version>,
    ) -> Result<Version, PutError> {
        let ask = Ask::Put {
            key: key.to_owned(),
            expect: expect.map(|version| version.0.clone()),
        };
        match self.ask(&ask, bytes).await? {
            (Answer::Document { version }, _) => Ok(Version(version)),
            (Answer::Changed, _) => Err(PutError::Changed),
            (other, _) => Err(self.odd(&other).into()),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), Fault> {
        let ask = Ask::Delete {
            key: key.to_owned(),
        };
        self.done(&ask, &[]).await
    }

    async fn admit(&self, guest: &Guest) -> Result<(), Fault> {
        self.done(&Ask::Admit(guest.clone()), &[]).await
    }

    async fn admits(&self, guest: &Guest) -> Result<bool, Fault> {
        match self.ask(&Ask::Admits(guest.clone()), &[]).await? {
            (Answer::Done, _) => Ok(true),
            (Answer::Absent, _) => Ok(false),
            (other, _) => Err(self.odd(&other)),
        }
    }

    async fn dismiss(&self, server: &ServerName) -> Result<(), Fault> {
        let ask = Ask::Dismiss {
            server: server.clone(),
        };
        self.done(&ask, &[]).await
    }

    async fn host_keys(&self) -> Result<Vec<String>, Fault> {
        let ask = || self.list(&Ask::HostKeys);
        Ok(self.host_keys.get_or_try_init(ask).await?.clone())
    }
}
