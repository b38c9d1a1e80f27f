//! The journal: JSON lines, fsynced, each with the digest of the line before.
//!
//! Reading is strict: a gap, a broken chain or an event that cannot follow is a fault, because deciding from a
//! journal that lies is worse than not deciding. A torn line (a crash while writing) is passed over, since nothing was
//! done on the strength of it; the chain shows that nothing else is missing.

pub mod event;

use std::sync::Arc;

use crate::clock::Clock;
use crate::error::Fault;
pub(crate) use crate::model::digest::of_line as digest;
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
        Journal {
            run,
            stores,
            clock,
            listener,
            next: 0,
            prev: String::new(),
            progress: Progress::default(),
            broken: None,
        }
    }

    /// Takes up a journal where it ends. Copies that are shorter are brought up to date with the next line; one that
    /// cannot be read is put aside.
    pub async fn reopen(
        run: RunId,
        stores: Arc<Stores>,
        clock: Arc<dyn Clock>,
        listener: Arc<dyn Listener>,
    ) -> Result<Journal, Fault> {
        let copies = copies(&run, &stores).await?;
        let read = newest_of(&copies, stores.arbiter_index())?
            .cloned()
            .ok_or_else(|| {
                Fault::new(format!("there is no journal of run `{run}`")).hint("hafog show journal")
            })?;
        for (index, copy) in copies.into_iter().enumerate() {
            let has = match copy {
                Copy::Whole(copy) if read.texts.starts_with(&copy.texts) => copy.texts.len(),
                // Of somebody who did not notice that the run had been taken up.
                Copy::Whole(_) => {
                    let store = stores.all()[index].name();
                    let other = Fault::new(format!(
                        "the journal of run `{run}` in {store} tells another story"
                    ));
                    stores
                        .replace_journal(index, &run, &read.texts, other)
                        .await?;
                    continue;
                }
                Copy::None => 0,
                Copy::Damaged { fault, .. } => {
                    stores
                        .replace_journal(index, &run, &read.texts, fault)
                        .await?;
                    continue;
                }
                // Who took the run up before may have written more there than anywhere else.
                Copy::Silent(fault) if index == 0 || index == stores.arbiter_index() => {
                    return Err(fault);
                }
                // What it has is not known, so it gets everything.
                Copy::Silent(_) => 0,
            };
            stores.owes_lines(index, &run, read.texts[has..].to_vec());
        }
        let mut journal = Journal::new(run.clone(), stores, clock, listener);
        journal.next = read.texts.len() as u64;
        journal.prev = read
            .texts
            .last()
            .map(|text| digest(text))
            .unwrap_or_default();
        journal.progress = read.progress;
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
        let urgent = lines.iter().any(|line| self.is_urgent(&line.event));
        if let Err(fault) = self.write(&texts, urgent).await {
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

    /// Behind the point of no return the old primary's site may be all that is lost: somebody else must know that far.
    fn is_urgent(&self, event: &Event) -> bool {
        let Event::Started { step } = event else {
            return matches!(event, Event::Closed { .. } | Event::Paused { .. });
        };
        let opened = self.progress.opened.as_ref();
        let step = opened.and_then(|opened| opened.plan.step(step));
        step.is_some_and(|step| step.is_no_return())
    }

    async fn write(&self, texts: &[String], urgent: bool) -> Result<(), Fault> {
        let written = self
            .stores
            .append_everywhere(&self.run, texts, urgent)
            .await;
        written
            .map_err(|fault| fault.while_doing("cannot write the journal; nothing more was done"))
    }

    pub fn listener(&self) -> &Arc<dyn Listener> {
        &self.listener
    }
}

/// A journal as it was read.
#[derive(Clone)]
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

/// What one store has of a journal.
enum Copy {
    None,
    Whole(Read),
    /// It cannot be understood; so many lines it claims to have.
    Damaged {
        claims: u64,
        fault: Fault,
        before: Read,
    },
    Silent(Fault),
}

async fn copies(run: &RunId, stores: &Stores) -> Result<Vec<Copy>, Fault> {
    let copies = stores.journals(run).await?.into_iter();
    let copy = |answer: Result<Option<Vec<u8>>, Fault>| match answer {
        Err(fault) => Copy::Silent(fault),
        Ok(None) => Copy::None,
        Ok(Some(bytes)) => match read_as_far(run, &bytes) {
            (read, None) => Copy::Whole(read),
            (before, Some(fault)) => Copy::Damaged {
                claims: claims(&bytes),
                fault,
                before,
            },
        },
    };
    Ok(copies.map(copy).collect())
}

/// One more than the highest number of a line, whatever stands between.
fn claims(bytes: &[u8]) -> u64 {
    #[derive(serde::Deserialize)]
    struct Numbered {
        n: u64,
    }
    let lines = whole_lines(bytes).into_iter();
    let numbers = lines.filter_map(|line| serde_json::from_slice::<Numbered>(line).ok());
    numbers
        .map(|line| line.n.saturating_add(1))
        .max()
        .unwrap_or(0)
}

/// The copy that has most. Of two that tell different stories it is the arbiter's: who takes a run up writes there.
///
/// # Errors
/// It cannot be understood: what it says beyond the others is not guessed.
fn newest_of(copies: &[Copy], arbiter: usize) -> Result<Option<&Read>, Fault> {
    let mut best: Option<(u64, Result<&Read, &Fault>)> = None;
    for copy in copies {
        let (says, copy) = match copy {
            Copy::Whole(read) => (read.texts.len() as u64, Ok(read)),
            Copy::Damaged { claims, fault, .. } => (*claims, Err(fault)),
            Copy::None | Copy::Silent(_) => continue,
        };
        let is_better = |(most, found): &(u64, Result<&Read, &Fault>)| {
            says > *most || says == *most && found.is_err() && copy.is_ok()
        };
        if best.as_ref().is_none_or(is_better) {
            best = Some((says, copy));
        }
    }
    let best = best
        .map(|(_, copy)| copy.map_err(Fault::clone))
        .transpose()?;
    Ok(match (best, &copies[arbiter]) {
        (Some(best), Copy::Whole(own)) if !best.texts.starts_with(&own.texts) => Some(own),
        _ => best,
    })
}

/// The copy that has most, of all stores that answer. `None` when there is none.
///
/// # Errors
/// No store answers, or the copy that has most cannot be understood.
pub async fn newest(run: &RunId, stores: &Stores) -> Result<Option<Read>, Fault> {
    let copies = copies(run, stores).await?;
    newest_of(&copies, stores.arbiter_index()).map(Option::<&Read>::cloned)
}

/// What can be read of a journal, for somebody who looks, and the damage that nothing is read behind. Nothing is decided
/// from it.
///
/// # Errors
/// No store answers.
pub async fn readable(
    run: &RunId,
    stores: &Stores,
) -> Result<Option<(Vec<Line>, Option<Fault>)>, Fault> {
    let copies = copies(run, stores).await?;
    let fault = match newest_of(&copies, stores.arbiter_index()) {
        Ok(found) => return Ok(found.map(|read| (read.lines.clone(), None))),
        Err(fault) => fault,
    };
    let lines = copies.into_iter().filter_map(|copy| match copy {
        Copy::Whole(read) | Copy::Damaged { before: read, .. } => Some(read.lines),
        Copy::None | Copy::Silent(_) => None,
    });
    Ok(lines.max_by_key(Vec::len).map(|lines| (lines, Some(fault))))
}

/// Reads and verifies a whole journal.
pub fn read(run: &RunId, bytes: &[u8]) -> Result<Read, Fault> {
    match read_as_far(run, bytes) {
        (read, None) => Ok(read),
        (_, Some(fault)) => Err(fault),
    }
}

/// Up to the first line that cannot be understood.
fn read_as_far(run: &RunId, bytes: &[u8]) -> (Read, Option<Fault>) {
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
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::clock::RealClock;
    use crate::journal::event::Outcome;
    use crate::state::dir::DirStore;
    use crate::state::{self, PutError, StateStore};

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
            store.append_all(&RUN.into(), copy).await.unwrap();
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
        // A person is shown what there is.
        let (seen, why) = readable(&RUN.into(), &short).await.unwrap().unwrap();
        assert_eq!((seen.len(), why), (4, Some(fault)));
        let (_home, alone) = stores(&[&damaged]).await;
        let (seen, _) = readable(&RUN.into(), &alone).await.unwrap().unwrap();
        assert_eq!(seen.len(), 2);
    }

    /// A mirror that can be away: it fails, or says nothing.
    struct Mirror {
        inner: DirStore,
        fails: AtomicBool,
        hangs: AtomicBool,
    }

    impl Mirror {
        async fn call(&self) -> Result<(), Fault> {
            if self.hangs.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            match self.fails.load(SeqCst) {
                true => Err(Fault::unavailable("it is away")),
                false => Ok(()),
            }
        }
    }

    #[async_trait]
    impl StateStore for Mirror {
        fn name(&self) -> String {
            self.inner.name()
        }
        async fn append_all(&self, run: &RunId, lines: &[String]) -> Result<(), (usize, PutError)> {
            self.call()
                .await
                .map_err(|fault| (0, PutError::Fault(fault)))?;
            self.inner.append_all(run, lines).await
        }
        async fn read(&self, run: &RunId) -> Result<Option<Vec<u8>>, Fault> {
            self.call().await?;
            self.inner.read(run).await
        }
        async fn replace_journal(&self, run: &RunId, lines: &[String]) -> Result<(), Fault> {
            self.call().await?;
            self.inner.replace_journal(run, lines).await
        }
        async fn runs(&self) -> Result<Vec<RunId>, Fault> {
            unreachable!("nobody lists them here")
        }
        async fn get(&self, _: &str) -> Result<Option<(Vec<u8>, state::Version)>, Fault> {
            unreachable!("a journal is no document")
        }
        async fn put(
            &self,
            _: &str,
            _: &[u8],
            _: Option<&state::Version>,
        ) -> Result<state::Version, PutError> {
            unreachable!("a journal is no document")
        }
        async fn delete(&self, _: &str) -> Result<(), Fault> {
            unreachable!("a journal is no document")
        }
    }

    struct Pair {
        arbiter: usize,
        _home: tempfile::TempDir,
        mirror: Arc<Mirror>,
        stores: Arc<Stores>,
    }

    impl Pair {
        async fn with(local: &[String], copy: &[String]) -> Pair {
            let home = tempfile::tempdir().unwrap();
            let at = |name: &str| DirStore::new(home.path().join(name));
            let mirror = Arc::new(Mirror {
                inner: at("mirror"),
                fails: AtomicBool::default(),
                hangs: AtomicBool::default(),
            });
            let all = vec![Arc::new(at("local")) as Arc<dyn StateStore>, mirror.clone()];
            for (store, lines) in all.iter().zip([local, copy]) {
                store.append_all(&RUN.into(), lines).await.unwrap();
            }
            Pair {
                stores: Arc::new(Stores::new(all, 0)),
                mirror,
                arbiter: 0,
                _home: home,
            }
        }

        /// As another process would.
        async fn resumed(&self) -> Result<Journal, Fault> {
            let stores = Arc::new(Stores::new(self.stores.all().to_vec(), self.arbiter));
            Journal::reopen(RUN.into(), stores, Arc::new(RealClock), Arc::new(Silent)).await
        }

        /// The numbers of lines of both copies.
        async fn whole(&self) -> [usize; 2] {
            let mut counts = [0; 2];
            for (count, store) in counts.iter_mut().zip(self.stores.all()) {
                let copy = store.read(&RUN.into()).await.unwrap().unwrap();
                *count = read(&RUN.into(), &copy).unwrap().texts.len();
            }
            counts
        }
    }

    fn paused() -> Event {
        let why = "a cut".to_owned();
        Event::Paused { why }
    }

    #[tokio::test]
    async fn a_mirror_that_was_away_at_a_resume_gets_no_gap() {
        let pair = Pair::with(&lines(8), &lines(5)).await;
        pair.mirror.fails.store(true, SeqCst);
        let mut journal = pair.resumed().await.unwrap();
        pair.mirror.fails.store(false, SeqCst);
        journal.add(paused()).await.unwrap();
        assert_eq!(pair.whole().await, [9, 9]);
        let mut journal = pair.resumed().await.unwrap();
        journal.add(paused()).await.unwrap();
        assert_eq!(pair.whole().await, [10, 10]);
    }

    #[tokio::test]
    async fn a_damaged_copy_is_put_aside_by_a_resume() {
        let mut damaged = lines(5);
        damaged[1] = damaged[1].replace("reason", "lie");
        for copies in [[&lines(5), &damaged], [&damaged, &lines(5)]] {
            let pair = Pair::with(copies[0], copies[1]).await;
            let mut journal = pair.resumed().await.unwrap();
            journal.add(paused()).await.unwrap();
            assert_eq!(pair.whole().await, [6, 6]);
            let store = ["local", "mirror"][usize::from(copies[1] == &damaged)];
            let aside = format!("{store}/journal/{RUN}.jsonl.damaged-1");
            let kept = std::fs::read(pair._home.path().join(aside)).unwrap();
            assert_eq!(kept, bytes(&damaged));
        }
    }

    #[tokio::test]
    async fn nobody_goes_on_without_what_the_arbiter_has() {
        let mut pair = Pair::with(&lines(5), &lines(8)).await;
        pair.arbiter = 1;
        pair.mirror.fails.store(true, SeqCst);
        let fault = pair.resumed().await.err().unwrap();
        assert!(fault.to_string().contains("it is away"), "{fault}");
        pair.mirror.fails.store(false, SeqCst);
        pair.resumed().await.unwrap().add(paused()).await.unwrap();
        assert_eq!(pair.whole().await, [9, 9]);
    }

    #[tokio::test]
    async fn who_slept_while_the_run_was_taken_up_writes_nothing_into_it() {
        let pair = Pair::with(&lines(5), &lines(5)).await;
        let mut asleep = pair.resumed().await.unwrap();
        let mut other = pair.resumed().await.unwrap();
        other.add(paused()).await.unwrap();
        let fault = asleep.add(paused()).await.unwrap_err();
        assert!(fault.to_string().contains("taken run"), "{fault}");
        assert!(asleep.add(paused()).await.is_err());
        other.add(paused()).await.unwrap();
        assert_eq!(pair.whole().await, [7, 7]);
    }

    /// On a machine of its own, where nobody else wrote.
    #[tokio::test]
    async fn what_a_sleeper_wrote_at_home_gives_way_to_the_arbiter() {
        let mut pair = Pair::with(&lines(5), &lines(5)).await;
        pair.arbiter = 1;
        let mut asleep = pair.resumed().await.unwrap();
        let elsewhere = Stores::new(vec![pair.mirror.clone()], 0);
        let clock = Arc::new(RealClock);
        let mut other = Journal::reopen(RUN.into(), elsewhere.into(), clock, Arc::new(Silent))
            .await
            .unwrap();
        let reason = |why: &str| Event::Paused {
            why: why.to_owned(),
        };
        other.add(reason("the other one")).await.unwrap();
        let two = vec![reason("asleep"), reason("and two lines")];
        for written in asleep.add_all(two).await {
            let fault = written.unwrap_err();
            assert!(fault.to_string().contains("taken run"), "{fault}");
        }
        assert_eq!(pair.whole().await, [7, 6]);
        let mut resumed = pair.resumed().await.unwrap();
        resumed.add(reason("resumed")).await.unwrap();
        assert_eq!(pair.whole().await, [7, 7]);
        let found = newest(&RUN.into(), &pair.stores).await.unwrap().unwrap();
        assert_eq!(found.lines[5].event, reason("the other one"));
        assert!(
            pair._home
                .path()
                .join(format!("local/journal/{RUN}.jsonl.damaged-1"))
                .exists()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_mirror_that_hangs_holds_up_no_resume() {
        let pair = Pair::with(&lines(5), &lines(5)).await;
        pair.mirror.hangs.store(true, SeqCst);
        let resumed = tokio::time::timeout(Duration::from_secs(20), pair.resumed()).await;
        resumed.expect("it waits without a limit").unwrap();
    }
}
