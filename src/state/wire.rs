//! A store at the other end of a pipe: `hafog store FOLDER` answers on its standard output what is asked on its
//! standard input.
//!
//! It first says [`HELLO`], so that whatever else speaks there (a shell's greeting, another version) is noticed. Then
//! each question and each answer is a line of JSON, followed by as many bytes as the line says.
//!
//! A connection that may only know some documents ([`Rights::Documents`]) is what a server's agent gets.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
};

use super::{Guest, PutError, StateStore, Version, text_of};
use crate::error::{Fault, Kind};
use crate::model::id::{RunId, ServerName};

pub const HELLO: &str = "hafog store 1\n";
/// Longest line of JSON, and longest document or journal.
const LINE_MOST: u64 = 1 << 16;
const BYTES_MOST: u64 = 256 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    /// The body is the lines, each with its line break.
    Append {
        run: RunId,
    },
    Read {
        run: RunId,
    },
    /// The body is the lines, each with its line break.
    ReplaceJournal {
        run: RunId,
    },
    Runs,
    Get {
        key: String,
    },
    /// The body is the document.
    Put {
        key: String,
        expect: Option<String>,
    },
    Delete {
        key: String,
    },
    Admit(Guest),
    Admits(Guest),
    Dismiss {
        server: ServerName,
    },
    HostKeys,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Done,
    /// There is no such document, journal or guest.
    Absent,
    /// The body is the journal; or one run, or one key, a line.
    Bytes,
    /// The body is the document, where one was asked for.
    Document {
        version: String,
    },
    Changed,
    Failed(Failure),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl From<&Fault> for Failure {
    fn from(fault: &Fault) -> Failure {
        Failure {
            kind: fault.kind(),
            message: fault.message().to_owned(),
            causes: fault.causes().to_vec(),
            hints: fault.hints().to_vec(),
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        let fault = Fault::of(failure.kind, failure.message);
        let fault = failure.causes.into_iter().fold(fault, Fault::because);
        failure.hints.into_iter().fold(fault, Fault::hint)
    }
}

pub(super) async fn send<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    head: &T,
    body: &[u8],
) -> io::Result<()> {
    let mut all = serde_json::to_vec(&(head, body.len()))?;
    all.push(b'\n');
    all.extend_from_slice(body);
    to.write_all(&all).await?;
    to.flush().await
}

/// `None` at the end of the stream, between two messages.
pub(super) async fn receive<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<(T, Vec<u8>)>> {
    let Some(line) = line(from).await? else {
        return Ok(None);
    };
    let (head, length): (T, u64) = serde_json::from_slice(&line)?;
    if length > BYTES_MOST {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut body = Vec::new();
    let got = from.take(length).read_to_end(&mut body).await?;
    match got as u64 == length {
        true => Ok(Some((head, body))),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(LINE_MOST).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What a connection may do.
#[derive(Clone, Debug, PartialEq)]
pub enum Rights {
    Everything,
    /// Read and change these documents.
    Documents(Vec<String>),
}

impl Rights {
    fn allow(&self, ask: &Ask) -> Result<(), Fault> {
        let Rights::Documents(keys) = self else {
            return Ok(());
        };
        match ask {
            Ask::Get { key } | Ask::Put { key, .. } if keys.contains(key) => Ok(()),
            _ => Err(Fault::refused(format!(
                "this connection may only know {}",
                keys.join(", ")
            ))),
        }
    }
}

/// Answers until the other side ends the connection.
///
/// # Errors
/// The other side says what nobody understands, or goes away in the middle.
pub async fn serve(
    store: &dyn StateStore,
    rights: &Rights,
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), Fault> {
    let broken = |error: io::Error| Fault::new("the connection broke").because(error);
    let mut from = tokio::io::BufReader::new(from);
    to.write_all(HELLO.as_bytes()).await.map_err(broken)?;
    to.flush().await.map_err(broken)?;
    while let Some((ask, body)) = receive(&mut from).await.map_err(broken)? {
        let answered = match rights.allow(&ask) {
            Ok(()) => answer(store, ask, body).await,
            Err(fault) => Err(fault),
        };
        let (answer, body) =
            answered.unwrap_or_else(|fault| (Answer::Failed((&fault).into()), Vec::new()));
        send(&mut to, &answer, &body).await.map_err(broken)?;
    }
    Ok(())
}

async fn answer(
    store: &dyn StateStore,
    ask: Ask,
    body: Vec<u8>,
) -> Result<(Answer, Vec<u8>), Fault> {
    let nothing = |answer: Answer| Ok((answer, Vec::new()));
    match ask {
        Ask::Append { run } => {
            // A hafog that knows no other answer than `done` takes this one for trouble with the store.
            match store.append_all(&run, &lines(&body)?).await {
                Ok(()) => nothing(Answer::Done),
                Err((_, PutError::Changed)) => nothing(Answer::Changed),
                Err((_, PutError::Fault(fault))) => Err(fault),
            }
        }
        Ask::Read { run } => match store.read(&run).await? {
            Some(bytes) => Ok((Answer::Bytes, bytes)),
            None => nothing(Answer::Absent),
        },
        Ask::ReplaceJournal { run } => {
            store.replace_journal(&run, &lines(&body)?).await?;
            nothing(Answer::Done)
        }
        Ask::Runs => Ok((Answer::Bytes, text_of(&store.runs().await?).into_bytes())),
        Ask::Get { key } => match store.get(&key).await? {
            Some((bytes, Version(version))) => Ok((Answer::Document { version }, bytes)),
            None => nothing(Answer::Absent),
        },
        Ask::Put { key, expect } => {
            let expect = expect.map(Version);
            match store.put(&key, &body, expect.as_ref()).await {
                Ok(Version(version)) => nothing(Answer::Document { version }),
                Err(PutError::Changed) => nothing(Answer::Changed),
                Err(PutError::Fault(fault)) => Err(fault),
            }
        }
        Ask::Delete { key } => {
            store.delete(&key).await?;
            nothing(Answer::Done)
        }
        Ask::Admit(guest) => {
            store.admit(&guest).await?;
            nothing(Answer::Done)
        }
        Ask::Admits(guest) => match store.admits(&guest).await? {
            true => nothing(Answer::Done),
            false => nothing(Answer::Absent),
        },
        Ask::Dismiss { server } => {
            store.dismiss(&server).await?;
            nothing(Answer::Done)
        }
        Ask::HostKeys => Ok((
            Answer::Bytes,
            text_of(&store.host_keys().await?).into_bytes(),
        )),
    }
}

pub(super) fn lines(body: &[u8]) -> Result<Vec<String>, Fault> {
    let text = std::str::from_utf8(body);
    let text = text.map_err(|error| Fault::new("lines are no text").because(error))?;
    Ok(text.lines().map(str::to_owned).collect())
}
