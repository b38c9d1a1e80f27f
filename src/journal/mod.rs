//! The journal: JSON lines, fsynced, each with the digest of the line before.
//!
//! Reading is strict: a gap, a broken chain or an event that cannot follow is a fault, because deciding from a
//! journal that lies is worse than not deciding. A torn line (a crash while writing) is passed over, since nothing was
//! done on the strength of it; the chain shows that nothing else is missing.

pub mod event;

use std::sync::Arc;

use crate::clock::Clock;
use crate::error::Fault;
use crate::model::digest::sha256;
use crate::model::id::RunId;
use crate::state::stores::Stores;
use event::{Event, Line, Progress, VERSION};

/// Told about every line once it is durable: progress bars, NDJSON, tests.
pub trait Listener: Send + Sync {
    fn line(&self, line: &Line);
    /// Something to show while a step runs; not journaled.
    fn progress(&self, step: &str, text: &str) {
        let _ = (step, text);
    }
}

/// A listener that shows nothing.
pub struct Silent;

impl Listener for Silent {
    fn line(&self, _: &Line) {}
}

pub struct Journal {
    pub run: RunId,
    stores: Arc<Stores>,
    clock: Arc<dyn Clock>,
    listener: Arc<dyn Listener>,
    next: u64,
    prev: String,
    pub progress: Progress,
    /// For each store, the lines that it missed.
    missed: Vec<Vec<String>>,
    /// The local disk refused a line: this process writes no more.
    broken: Option<Fault>,
}

impl Journal {
    pub fn new(
        run: RunId,
        stores: Arc<Stores>,
        clock: Arc<dyn Clock>,
        listener: Arc<dyn Listener>,
    ) -> Journal {
        let missed = vec![Vec::new(); stores.all().len()];
        Journal {
            run,
            stores,
            clock,
            listener,
            next: 0,
            prev: String::new(),
            progress: Progress::default(),
            missed,
            broken: None,
        }
    }

    /// Takes up a journal where it ends. Stores whose copy is shorter are brought up to date.
    pub async fn reopen(
        run: RunId,
        stores: Arc<Stores>,
        clock: Arc<dyn Clock>,
        listener: Arc<dyn Listener>,
    ) -> Result<Journal, Fault> {
        let read = newest(&run, &stores).await?.ok_or_else(|| {
            Fault::new(format!("there is no journal of run `{run}`")).hint("hafog show journal")
        })?;
        let mut journal = Journal::new(run.clone(), stores, clock, listener);
        journal.next = read.lines.len() as u64;
        journal.prev = read
            .texts
            .last()
            .map(|text| digest(text))
            .unwrap_or_default();
        journal.progress = read.progress;
        let all = journal.stores.all().to_vec();
        for (index, store) in all.iter().enumerate() {
            match store.read(&run).await {
                Ok(copy) => {
                    let held = held(&run, &copy.unwrap_or_default()).0.texts.len();
                    journal.missed[index] = read.texts[held.min(read.texts.len())..].to_vec();
                }
                Err(fault) if index == 0 => return Err(fault),
                Err(_) => {}
            }
        }
        Ok(journal)
    }

    /// Durable when it returns.
    pub async fn add(&mut self, event: Event) -> Result<(), Fault> {
        let mut results = self.add_all(vec![event]).await;
        results.pop().expect("one result an event")
    }

    /// Adds events that do not depend on one another, with one sync for all. Each has its result.
    pub async fn add_all(&mut self, events: Vec<Event>) -> Vec<Result<(), Fault>> {
        #[cfg(debug_assertions)]
        if crate::cut::is_wanted() {
            let mut results = Vec::new();
            for event in events {
                results.extend(self.add_together(vec![event]).await);
            }
            return results;
        }
        self.add_together(events).await
    }

    async fn add_together(&mut self, events: Vec<Event>) -> Vec<Result<(), Fault>> {
        if let Some(fault) = &self.broken {
            return vec![Err(fault.clone()); events.len()];
        }
        let allowed: Vec<Result<(), Fault>> =
            events.iter().map(|event| self.allows(event)).collect();
        let good = events
            .into_iter()
            .zip(&allowed)
            .filter(|(_, allowed)| allowed.is_ok());
        let (lines, texts) = self.lines(good.map(|(event, _)| event));
        if lines.is_empty() {
            return allowed;
        }
        // Whether a line is there is not known until the write has returned, so no other may follow it before; also
        // when nobody waits for the return.
        let adrift =
            Fault::new("the journal was left in the middle of a line; nothing more was done");
        self.broken = Some(adrift);
        #[cfg(debug_assertions)]
        crate::cut::begins();
        let is_last =
            |line: &Line| matches!(line.event, Event::Closed { .. } | Event::Paused { .. });
        let last = lines.iter().any(is_last);
        if let Err(fault) = self.write(&texts, last).await {
            self.broken = Some(fault.clone());
            return allowed
                .into_iter()
                .map(|allowed| allowed.and(Err(fault.clone())))
                .collect();
        }
        #[cfg(debug_assertions)]
        crate::cut::ends();
        self.broken = None;
        self.next += lines.len() as u64;
        self.prev = texts.last().map(|text| digest(text)).unwrap_or_default();
        for line in &lines {
            self.progress.add(&line.event).expect("it was just allowed");
            self.listener.line(line);
        }
        allowed
    }

    fn allows(&self, event: &Event) -> Result<(), Fault> {
        let broken = |rule| {
            Fault::new(format!("the journal of `{}` would be broken", self.run)).because(rule)
        };
        self.progress.allows(event).map_err(broken)
    }

    /// Numbered and chained behind the last one.
    fn lines(&self, events: impl Iterator<Item = Event>) -> (Vec<Line>, Vec<String>) {
        let mut prev = self.prev.clone();
        let line = |(n, event)| {
            let line = Line {
                v: VERSION,
                n,
                at: self.clock.now(),
                prev: std::mem::take(&mut prev),
                event,
            };
            let text = serde_json::to_string(&line).expect("a journal line serialises");
            prev = digest(&text);
            (line, text)
        };
        (self.next..).zip(events).map(line).unzip()
    }

    /// A mirror that was silent a moment ago is only asked for the last lines of a run.
    async fn write(&mut self, texts: &[String], last: bool) -> Result<(), Fault> {
        let stores = self.stores.clone();
        for missed in &mut self.missed {
            missed.extend_from_slice(texts);
        }
        let run = self.run.clone();
        let sends = stores.all().iter().zip(&mut self.missed).enumerate().map(
            async |(index, (store, missed))| {
                let mut written = 0;
                let send = async {
                    let sent = store.append_all(&run, missed).await;
                    written = sent
                        .as_ref()
                        .map_or_else(|(some, _)| *some, |()| missed.len());
                    sent.map_err(|(_, fault)| fault)
                };
                let sent = match last {
                    true => stores.ask_again(index, send).await,
                    false => stores.ask(index, send).await,
                };
                missed.drain(..written);
                stores.lacks_lines(index, &run, sent.as_ref().err().cloned());
                sent
            },
        );
        let results = futures_util::future::join_all(sends).await;
        match results.into_iter().next() {
            Some(Err(fault)) => {
                Err(fault.while_doing("cannot write the journal; nothing more was done"))
            }
            _ => Ok(()),
        }
    }

    pub fn listener(&self) -> &Arc<dyn Listener> {
        &self.listener
    }
}

pub(crate) fn digest(text: &str) -> String {
    sha256(text.as_bytes())[..32].to_owned()
}

/// A journal as it was read.
pub struct Read {
    pub lines: Vec<Line>,
    pub texts: Vec<String>,
    pub progress: Progress,
    /// The last line was torn and left out.
    pub torn: bool,
}

fn whole_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // What follows the last line break is empty, or torn.
    lines.pop();
    lines
}

/// The copy that has most, of all stores that answer. `None` when there is none.
///
/// # Errors
/// No store answers, or the copy that has most cannot be understood: what it says beyond the others is not guessed.
pub async fn newest(run: &RunId, stores: &Stores) -> Result<Option<Read>, Fault> {
    let mut best: Option<(usize, Result<Read, Fault>)> = None;
    for bytes in stores.journals(run).await? {
        let (has, copy) = match held(run, &bytes) {
            (read, None) => (read.lines.len(), Ok(read)),
            (_, Some(fault)) => (whole_lines(&bytes).len(), Err(fault)),
        };
        let is_better = best.as_ref().is_none_or(|(most, found)| {
            has > *most || has == *most && found.is_err() && copy.is_ok()
        });
        if is_better {
            best = Some((has, copy));
        }
    }
    best.map(|(_, copy)| copy).transpose()
}

/// Reads and verifies a whole journal.
pub fn read(run: &RunId, bytes: &[u8]) -> Result<Read, Fault> {
    match held(run, bytes) {
        (read, None) => Ok(read),
        (_, Some(fault)) => Err(fault),
    }
}

/// What a copy holds up to its end, or up to where it cannot be understood.
fn held(run: &RunId, bytes: &[u8]) -> (Read, Option<Fault>) {
    let mut read = Read {
        lines: Vec::new(),
        texts: Vec::new(),
        progress: Progress::default(),
        torn: !bytes.is_empty() && bytes.last() != Some(&b'\n'),
    };
    for (index, raw) in whole_lines(bytes).iter().enumerate() {
        if let Err(fault) = read.take(run, index + 1, raw) {
            return (read, Some(fault));
        }
    }
    (read, None)
}

impl Read {
    fn take(&mut self, run: &RunId, number: usize, raw: &[u8]) -> Result<(), Fault> {
        let broken = |why: String| {
            Fault::new(format!("the journal of run `{run}` is damaged at line {number}"))
                .because(why)
                .hint(format!("compare the copies in the other state stores; `hafog show journal {run}` shows what can be read"))
        };
        let text = std::str::from_utf8(raw).map_err(|error| broken(error.to_string()))?;
        let Ok(version) = serde_json::from_str::<Version>(text) else {
            self.torn = true;
            return Ok(());
        };
        if version.v > VERSION {
            return Err(Fault::new(format!(
                "the journal of run `{run}` was written by a newer hafog (format {}, this one knows {VERSION})",
                version.v
            ))
            .hint("use the version of hafog that began the run"));
        }
        let line: Line = serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
        // A store that answered too late was told again: the same line twice is one line.
        let known = usize::try_from(line.n).ok().and_then(|n| self.texts.get(n));
        if known.is_some_and(|known| known == text) {
            return Ok(());
        }
        let wanted = self.lines.len() as u64;
        if line.n != wanted {
            return Err(broken(format!(
                "expected number {wanted}, found {}",
                line.n
            )));
        }
        let prev = self.texts.last().map(|text| digest(text));
        if line.prev != prev.unwrap_or_default() {
            return Err(broken("it does not continue the line before it".to_owned()));
        }
        self.progress.add(&line.event).map_err(broken)?;
        self.texts.push(text.to_owned());
        self.lines.push(line);
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Version {
    v: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::RealClock;
    use crate::journal::event::Outcome;
    use crate::state::StateStore;
    use crate::state::dir::DirStore;

    const RUN: &str = "20261121T091403-1-1";

    fn lines(count: usize) -> Vec<String> {
        let mut progress = Vec::new();
        let mut prev = String::new();
        for n in 0..count {
            let line = Line {
                v: VERSION,
                n: n as u64,
                at: jiff::Timestamp::UNIX_EPOCH,
                prev: prev.clone(),
                event: Event::Paused {
                    why: format!("reason {n}"),
                },
            };
            let text = serde_json::to_string(&line).unwrap();
            prev = digest(&text);
            progress.push(text);
        }
        progress
    }

    fn bytes(lines: &[String]) -> Vec<u8> {
        lines
            .iter()
            .flat_map(|line| format!("{line}\n").into_bytes())
            .collect()
    }

    async fn stores(copies: &[&[String]]) -> (tempfile::TempDir, Arc<Stores>) {
        let home = tempfile::tempdir().unwrap();
        let mut all: Vec<Arc<dyn StateStore>> = Vec::new();
        for (number, copy) in copies.iter().enumerate() {
            let store = DirStore::new(home.path().join(number.to_string()));
            for line in *copy {
                store.append(&RUN.into(), line).await.unwrap();
            }
            all.push(Arc::new(store));
        }
        (home, Arc::new(Stores::new(all, 0)))
    }

    #[test]
    fn a_line_that_was_sent_twice_is_one_line() {
        let whole = lines(4);
        let twice = [&whole[..3], &whole[1..]].concat();
        assert_eq!(read(&RUN.into(), &bytes(&twice)).unwrap().texts, whole);
        // Another line with a number that was there before is damage.
        let mut other = whole.clone();
        other.push(whole[2].replace("reason", "lie"));
        let fault = read(&RUN.into(), &bytes(&other)).err().unwrap();
        assert!(fault.to_string().contains("line 5"), "{fault}");
    }

    #[tokio::test]
    async fn the_copy_that_says_most_counts_and_not_the_longest() {
        let whole = lines(6);
        let doubled = [&whole[..4], &whole[..4]].concat();
        let (_home, stores) = stores(&[&doubled, &whole]).await;
        let found = newest(&RUN.into(), &stores).await.unwrap().unwrap();
        assert_eq!(found.texts, whole);
        let clock: Arc<dyn Clock> = Arc::new(RealClock);
        let mut journal = Journal::reopen(RUN.into(), stores.clone(), clock, Arc::new(Silent))
            .await
            .unwrap();
        let _ = journal
            .add(Event::Closed {
                outcome: Outcome::Unwound,
            })
            .await;
        for store in stores.all() {
            let copy = store.read(&RUN.into()).await.unwrap().unwrap();
            assert_eq!(read(&RUN.into(), &copy).unwrap().lines.len(), 7);
        }
    }

    #[tokio::test]
    async fn a_damaged_copy_is_passed_over_only_when_another_says_as_much() {
        let whole = lines(5);
        let mut damaged = whole.clone();
        damaged[1] = damaged[1].replace("reason", "lie");
        let (_home, both) = stores(&[&damaged, &whole]).await;
        let found = newest(&RUN.into(), &both).await.unwrap().unwrap();
        assert_eq!(found.texts, whole);
        let (_home, short) = stores(&[&damaged, &whole[..4]]).await;
        let fault = newest(&RUN.into(), &short).await.err().unwrap();
        assert!(fault.to_string().contains("damaged at line 3"), "{fault}");
    }
}
