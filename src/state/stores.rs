//! The stack's stores together: the first is local, one is the arbiter, the rest are mirrors.
//!
//! What is written is durable when it is on the local disk; each other store that can be reached has it too. A mirror
//! that does not answer in time is left alone for a while, so that it neither stops nor slows a run. What it missed is
//! kept while the process lives, is sent when it answers again, and is said at the end of the run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Guest, PutError, StateStore, Version};
use crate::error::{Fault, Kind};
use crate::model::id::{RunId, ServerName};

/// How long a mirror that did not answer in time is not asked again.
const QUIET: Duration = Duration::from_secs(30);

pub struct Stores {
    all: Vec<Arc<dyn StateStore>>,
    arbiter: usize,
    mirrors: Mutex<Vec<Mirror>>,
    /// This process holds the lease, and changes what the arbiter may know better.
    relies_on_arbiter: AtomicBool,
}

/// What this process knows of one store.
#[derive(Clone, Default)]
struct Mirror {
    quiet_until: Option<Instant>,
    behind: BTreeMap<String, (Missed, Fault)>,
}

#[derive(Clone)]
enum Missed {
    Document(Vec<u8>),
    Removal,
    /// Of a journal: also those of which nobody knows whether they arrived, as a line twice is one line.
    Lines(RunId, Vec<String>),
    /// Its copy of a journal cannot be read and could not be replaced: nothing is written behind the damage.
    Journal,
}

impl Missed {
    /// What is wrong with the document or the journal `key` there.
    fn words(&self, key: &str) -> String {
        match self {
            Missed::Document(_) | Missed::Lines(..) => format!("lacks `{key}`"),
            Missed::Removal => format!("still has `{key}`"),
            Missed::Journal => format!("has a damaged `{key}`"),
        }
    }
}

/// As it stands in messages.
fn journal_key(run: &RunId) -> String {
    format!("journal {run}")
}

impl Stores {
    /// `all` is not empty; `all[0]` is local; `arbiter` is an index into it.
    pub fn new(all: Vec<Arc<dyn StateStore>>, arbiter: usize) -> Stores {
        assert!(arbiter < all.len(), "the arbiter is one of the stores");
        let mirrors = all.iter().map(|_| Mirror::default()).collect();
        Stores {
            all,
            arbiter,
            mirrors: Mutex::new(mirrors),
            relies_on_arbiter: AtomicBool::new(false),
        }
    }

    /// From now on no document counts as read before the arbiter answered too. Whoever only looks is shown what the
    /// others have.
    pub fn rely_on_arbiter(&self) {
        self.relies_on_arbiter.store(true, Ordering::Relaxed);
    }

    pub fn arbiter(&self) -> &Arc<dyn StateStore> {
        &self.all[self.arbiter]
    }

    /// Where it is among [`Stores::all`].
    pub fn arbiter_index(&self) -> usize {
        self.arbiter
    }

    pub fn all(&self) -> &[Arc<dyn StateStore>] {
        &self.all
    }

    fn mirrors(&self) -> MutexGuard<'_, Vec<Mirror>> {
        self.mirrors.lock().expect("nobody panics while holding it")
    }

    /// One call of one store, within the limit. A mirror that was silent a moment ago is not called.
    async fn ask<T, E: From<Fault>>(
        &self,
        index: usize,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        if index > 0 && self.is_quiet(index) {
            return Err(silent(self.all[index].as_ref()).into());
        }
        self.ask_again(index, call).await
    }

    /// The same, also when it was silent a moment ago.
    async fn ask_again<T, E: From<Fault>>(
        &self,
        index: usize,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let limit = self.all[index].patience();
        let answered = tokio::time::timeout(limit, call).await;
        self.mirrors()[index].quiet_until = match answered {
            Ok(_) => None,
            Err(_) => Some(Instant::now() + QUIET),
        };
        answered.unwrap_or_else(|_| Err(silent(self.all[index].as_ref()).into()))
    }

    fn is_quiet(&self, index: usize) -> bool {
        let until = self.mirrors()[index].quiet_until;
        until.is_some_and(|until| Instant::now() < until)
    }

    fn missed(&self, index: usize, key: &str, missed: Option<(Missed, Fault)>) {
        let behind = &mut self.mirrors()[index].behind;
        match missed {
            Some(missed) => drop(behind.insert(key.to_owned(), missed)),
            None => drop(behind.remove(key)),
        }
    }

    /// Appends to a journal everywhere. Counts as written when the local store has it, and no store has a line of
    /// somebody else's there. `urgent`: also mirrors that were silent a moment ago are asked.
    pub async fn append_everywhere(
        &self,
        run: &RunId,
        lines: &[String],
        urgent: bool,
    ) -> Result<(), Fault> {
        let sends = (0..self.all.len()).map(async |index| {
            let missed = self.mirrors()[index].behind.get(&journal_key(run)).cloned();
            let mut due = match missed {
                Some((Missed::Lines(_, due), _)) => due,
                Some((Missed::Journal, fault)) => return Err(fault.into()),
                _ => Vec::new(),
            };
            due.extend_from_slice(lines);
            self.send_lines(index, run, due, urgent).await
        });
        let sent = futures_util::future::join_all(sends).await;
        let changed = |sent: &Result<(), PutError>| matches!(sent, Err(PutError::Changed));
        if let Some(index) = sent.iter().position(changed) {
            return Err(taken_up(run, self.all[index].as_ref()));
        }
        let local = sent.into_iter().next().expect("there is a local store");
        local.map_err(|error| into_fault(error, run, self.all[0].as_ref()))
    }

    async fn send_lines(
        &self,
        index: usize,
        run: &RunId,
        mut due: Vec<String>,
        urgent: bool,
    ) -> Result<(), PutError> {
        let mut written = 0;
        let send = async {
            let sent = self.all[index].append_all(run, &due).await;
            sent.map_err(|(some, error)| {
                written = some;
                error
            })
        };
        let sent = match urgent {
            true => self.ask_again(index, send).await,
            false => self.ask(index, send).await,
        };
        // The local store is never caught up with: a line that it refused ends the run.
        let missed = sent.as_ref().err().filter(|_| index > 0).map(|fault| {
            due.drain(..written);
            let fault = into_fault(fault.clone(), run, self.all[index].as_ref());
            (Missed::Lines(run.clone(), due), fault)
        });
        self.missed(index, &journal_key(run), missed);
        sent
    }

    /// A store has the journal up to somewhere before `lines`.
    pub fn owes_lines(&self, index: usize, run: &RunId, lines: Vec<String>) {
        let why = Fault::new("they were not sent yet");
        let missed = (!lines.is_empty()).then(|| (Missed::Lines(run.clone(), lines), why));
        self.missed(index, &journal_key(run), missed);
    }

    /// Puts a whole journal in the place of a store's copy that cannot be read.
    ///
    /// # Errors
    /// Only for the local store. A mirror whose copy stays damaged is left alone, and it is said.
    pub async fn replace_journal(
        &self,
        index: usize,
        run: &RunId,
        lines: &[String],
        damage: Fault,
    ) -> Result<(), Fault> {
        let replaced = self
            .ask_again(index, self.all[index].replace_journal(run, lines))
            .await;
        match replaced {
            Ok(()) => self.missed(index, &journal_key(run), None),
            Err(fault) if index == 0 => return Err(fault),
            Err(_) => self.missed(index, &journal_key(run), Some((Missed::Journal, damage))),
        }
        Ok(())
    }

    /// Sends what mirrors missed. Returns a fault for each one that still lacks something, with what it lacks.
    pub async fn catch_up(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, store) in self.all.iter().enumerate() {
            let behind = self.mirrors()[index].behind.clone();
            for (key, (missed, fault)) in behind {
                let sent = match &missed {
                    Missed::Document(bytes) => {
                        let send = overwrite(store.as_ref(), &key, bytes);
                        self.ask_again(index, send).await
                    }
                    Missed::Removal => self.ask_again(index, store.delete(&key)).await,
                    Missed::Lines(run, due) => {
                        let _ = self.send_lines(index, run, due.clone(), true).await;
                        continue;
                    }
                    Missed::Journal => Err(fault),
                };
                self.missed(index, &key, sent.err().map(|fault| (missed, fault)));
            }
            let behind = self.mirrors()[index].behind.clone();
            let wrong: Vec<_> = behind
                .iter()
                .map(|(key, (missed, _))| missed.words(key))
                .collect();
            if let Some((_, fault)) = behind.into_values().next_back() {
                let what = format!("state store {} {}", store.name(), wrong.join(", "));
                faults.push(fault.while_doing(what));
            }
        }
        faults
    }

    /// Reads a document of the arbiter.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Version)>, Fault> {
        let read = read(self.arbiter().as_ref(), key);
        self.ask_again(self.arbiter, read).await
    }

    /// Compare-and-set of a document of the arbiter.
    pub async fn put<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        expect: Option<&Version>,
    ) -> Result<Version, PutError> {
        let bytes = serde_json::to_vec_pretty(value).map_err(|error| {
            PutError::Fault(Fault::new("cannot write a document").because(error))
        })?;
        let put = self.arbiter().put(key, &bytes, expect);
        self.ask_again(self.arbiter, put).await
    }

    /// [`StateStore::admit`] of the arbiter.
    pub async fn admit(&self, guest: &Guest) -> Result<(), Fault> {
        self.ask_again(self.arbiter, self.arbiter().admit(guest))
            .await
    }

    /// [`StateStore::admits`] of the arbiter.
    pub async fn admits(&self, guest: &Guest) -> Result<bool, Fault> {
        self.ask_again(self.arbiter, self.arbiter().admits(guest))
            .await
    }

    /// [`StateStore::dismiss`] of the arbiter.
    pub async fn dismiss(&self, server: &ServerName) -> Result<(), Fault> {
        let dismissal = self.arbiter().dismiss(server);
        self.ask_again(self.arbiter, dismissal).await
    }

    /// [`StateStore::host_keys`] of the arbiter.
    pub async fn host_keys(&self) -> Result<Vec<String>, Fault> {
        self.ask_again(self.arbiter, self.arbiter().host_keys())
            .await
    }

    /// Reads a mirrored document: the copy with the highest serial among the stores that answer.
    ///
    /// # Errors
    /// The local store cannot be read: it may be the only one that has the newest copy. Or the arbiter does not answer,
    /// and nobody else has any, or somebody is about to change the stack: the local store may be an empty folder, or one
    /// that a colleague's failover never reached.
    pub async fn newest<T: DeserializeOwned>(
        &self,
        key: &str,
        serial: impl Fn(&T) -> u64,
    ) -> Result<Option<T>, Fault> {
        let copies = futures_util::future::join_all(
            self.all
                .iter()
                .enumerate()
                .map(|(index, store)| self.ask(index, read::<T>(store.as_ref(), key))),
        )
        .await;
        let mut best: Option<T> = None;
        let mut arbiter = Ok(());
        for (index, copy) in copies.into_iter().enumerate() {
            match copy {
                Ok(found) => {
                    if let Some((found, _)) = found
                        && best
                            .as_ref()
                            .is_none_or(|best| serial(&found) > serial(best))
                    {
                        best = Some(found);
                    }
                }
                Err(fault) if index == 0 => return Err(fault),
                Err(fault) if index == self.arbiter => arbiter = Err(fault),
                Err(_) => {}
            }
        }
        if best.is_none() || self.relies_on_arbiter.load(Ordering::Relaxed) {
            arbiter?;
        }
        Ok(best)
    }

    /// Writes a mirrored document everywhere. Counts as written when the local store has it; what a mirror missed is
    /// kept for [`Stores::catch_up`].
    pub async fn write_everywhere<T: Serialize>(&self, key: &str, value: &T) -> Result<(), Fault> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| Fault::new("cannot write a document").because(error))?;
        let writes = self
            .all
            .iter()
            .enumerate()
            .map(|(index, store)| self.ask(index, overwrite(store.as_ref(), key, &bytes)));
        for (index, written) in futures_util::future::join_all(writes)
            .await
            .into_iter()
            .enumerate()
        {
            match written {
                Ok(()) => self.missed(index, key, None),
                Err(fault) if index == 0 => return Err(fault),
                Err(fault) => {
                    let missed = (Missed::Document(bytes.clone()), fault);
                    self.missed(index, key, Some(missed));
                }
            }
        }
        Ok(())
    }

    /// Removes a document everywhere. It must go from the local store and from the arbiter; what a mirror missed is
    /// kept for [`Stores::catch_up`].
    pub async fn delete_everywhere(&self, key: &str) -> Result<(), Fault> {
        let removals = self
            .all
            .iter()
            .enumerate()
            .map(|(index, store)| self.ask(index, store.delete(key)));
        let mut result = Ok(());
        for (index, removed) in futures_util::future::join_all(removals)
            .await
            .into_iter()
            .enumerate()
        {
            match removed {
                Ok(()) => self.missed(index, key, None),
                Err(fault) if index == 0 || index == self.arbiter => result = Err(fault),
                Err(fault) => self.missed(index, key, Some((Missed::Removal, fault))),
            }
        }
        result
    }

    /// Removes a mirrored document everywhere. Where a mirror does not answer, or is not the one that was (its folder is
    /// not mounted), the others keep `empty`, which has a later serial: its copy must not count when it is back.
    pub async fn forget_everywhere<T: Serialize>(&self, key: &str, empty: &T) -> Result<(), Fault> {
        let stores = self.all.iter().enumerate();
        let looks = stores.map(|(index, store)| self.ask(index, store.get(key)));
        let looks = futures_util::future::join_all(looks).await.into_iter();
        let has: Vec<_> = looks
            .map(|look| look.map(|found| found.is_some()))
            .collect();
        if has[0].clone()? && !has.iter().all(|has| matches!(has, Ok(true))) {
            return self.write_everywhere(key, empty).await;
        }
        // The local one first: cut behind it, nobody takes the mirrors for others than they were.
        self.all[0].delete(key).await?;
        self.delete_everywhere(key).await?;
        let is_left = |mirror: &Mirror| mirror.behind.contains_key(key);
        if self.mirrors().iter().any(is_left) {
            self.write_everywhere(key, empty).await?;
        }
        Ok(())
    }

    /// Each store's copy of a journal, `None` where it has none.
    ///
    /// # Errors
    /// No store answers.
    pub async fn journals(
        &self,
        run: &RunId,
    ) -> Result<Vec<Result<Option<Vec<u8>>, Fault>>, Fault> {
        let reads = self.all.iter().enumerate();
        let reads = reads.map(|(index, store)| self.ask(index, store.read(run)));
        let copies = futures_util::future::join_all(reads).await;
        match copies.iter().any(Result::is_ok) {
            true => Ok(copies),
            false => Err(copies
                .into_iter()
                .find_map(Result::err)
                .expect("there is a store")),
        }
    }

    /// Every run that any reachable store knows, oldest first.
    pub async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        let lists = futures_util::future::join_all(
            self.all
                .iter()
                .enumerate()
                .map(|(index, store)| self.ask(index, store.runs())),
        )
        .await;
        let mut runs = std::collections::BTreeSet::new();
        let mut fault = None;
        let mut answered = false;
        for list in lists {
            match list {
                Ok(list) => {
                    answered = true;
                    runs.extend(list);
                }
                Err(error) => fault = Some(error),
            }
        }
        match (answered, fault) {
            (false, Some(fault)) => Err(fault),
            _ => Ok(runs.into_iter().collect()),
        }
    }
}

async fn read<T: DeserializeOwned>(
    store: &dyn StateStore,
    key: &str,
) -> Result<Option<(T, Version)>, Fault> {
    let Some((bytes, version)) = store.get(key).await? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes).map_err(|error| {
        Fault::new(format!(
            "document `{key}` in {} cannot be read by this version of hafog",
            store.name()
        ))
        .because(error)
    })?;
    Ok(Some((value, version)))
}

async fn overwrite(store: &dyn StateStore, key: &str, bytes: &[u8]) -> Result<(), Fault> {
    // Only the holder of the lease writes these documents, so a lost race is retried; it is bounded all the same.
    for _ in 0..8 {
        let version = store.get(key).await?.map(|(_, version)| version);
        match store.put(key, bytes, version.as_ref()).await {
            Ok(_) => return Ok(()),
            Err(PutError::Changed) => {}
            Err(PutError::Fault(fault)) => return Err(fault),
        }
    }
    Err(Fault::new(format!(
        "document `{key}` in {} changed 8 times while it was being written",
        store.name()
    )))
}

fn into_fault(error: PutError, run: &RunId, store: &dyn StateStore) -> Fault {
    match error {
        PutError::Changed => taken_up(run, store),
        PutError::Fault(fault) => fault,
    }
}

/// This process slept, and lost its lease in its sleep.
fn taken_up(run: &RunId, store: &dyn StateStore) -> Fault {
    let what = format!("somebody else has taken run `{run}` up, and this process stopped");
    let fault = Fault::of(Kind::Partial, what);
    let fault = fault.because(format!(
        "its journal in {} goes on otherwise than this process left it",
        store.name()
    ));
    fault.hint("hafog status")
}

fn silent(store: &dyn StateStore) -> Fault {
    Fault::unavailable(format!(
        "state store {} did not answer within {} s",
        store.name(),
        store.patience().as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    use async_trait::async_trait;

    use super::*;
    use crate::clock::RealClock;
    use crate::journal::event::Event;
    use crate::journal::{Journal, Silent};

    const LIMIT: Duration = Duration::from_secs(5);

    /// In memory; hangs or fails when it is told to.
    #[derive(Default)]
    struct Held {
        documents: Mutex<BTreeMap<String, Vec<u8>>>,
        lines: Mutex<Vec<String>>,
        hangs: AtomicBool,
        fails: AtomicBool,
        calls: AtomicUsize,
    }

    impl Held {
        async fn call(&self) -> Result<(), Fault> {
            self.calls.fetch_add(1, SeqCst);
            if self.hangs.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            match self.fails.load(SeqCst) {
                true => Err(Fault::new("the disk is gone")),
                false => Ok(()),
            }
        }
    }

    #[async_trait]
    impl StateStore for Held {
        fn name(&self) -> String {
            "held".to_owned()
        }
        async fn append_all(&self, _: &RunId, lines: &[String]) -> Result<(), (usize, PutError)> {
            self.call()
                .await
                .map_err(|fault| (0, PutError::Fault(fault)))?;
            self.lines.lock().unwrap().extend_from_slice(lines);
            Ok(())
        }
        async fn read(&self, _: &RunId) -> Result<Option<Vec<u8>>, Fault> {
            self.call().await.map(|()| None)
        }
        async fn replace_journal(&self, _: &RunId, lines: &[String]) -> Result<(), Fault> {
            self.call().await?;
            *self.lines.lock().unwrap() = lines.to_vec();
            Ok(())
        }
        async fn runs(&self) -> Result<Vec<RunId>, Fault> {
            self.call().await.map(|()| Vec::new())
        }
        async fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, Fault> {
            self.call().await?;
            let found = self.documents.lock().unwrap().get(key).cloned();
            Ok(found.map(|bytes| (bytes, Version(String::new()))))
        }
        async fn put(
            &self,
            key: &str,
            bytes: &[u8],
            _: Option<&Version>,
        ) -> Result<Version, PutError> {
            self.call().await.map_err(PutError::Fault)?;
            let mut documents = self.documents.lock().unwrap();
            documents.insert(key.to_owned(), bytes.to_vec());
            Ok(Version(String::new()))
        }
        async fn delete(&self, key: &str) -> Result<(), Fault> {
            self.call().await?;
            self.documents.lock().unwrap().remove(key);
            Ok(())
        }
    }

    fn pair() -> (Arc<Held>, Arc<Held>, Arc<Stores>) {
        let (local, mirror) = (Arc::new(Held::default()), Arc::new(Held::default()));
        let all: Vec<Arc<dyn StateStore>> = vec![local.clone(), mirror.clone()];
        (local, mirror, Arc::new(Stores::new(all, 0)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_mirror_costs_one_limit_and_gets_its_lines_later() {
        let (local, mirror, stores) = pair();
        mirror.hangs.store(true, SeqCst);
        let clock = Arc::new(RealClock);
        let mut journal = Journal::new("r".into(), stores.clone(), clock, Arc::new(Silent));
        let began = Instant::now();
        // Not the last lines of a run, for which every mirror is asked once more.
        for step in ["a", "b"] {
            let step = step.into();
            journal.add(Event::Started { step }).await.unwrap();
        }
        for _ in 0..10 {
            stores.write_everywhere("roles", &1).await.unwrap();
        }
        assert!(began.elapsed() <= LIMIT, "{:?}", began.elapsed());
        mirror.hangs.store(false, SeqCst);
        let why = String::new();
        journal.add(Event::Paused { why }).await.unwrap();
        assert_eq!(local.lines.lock().unwrap().len(), 3);
        assert_eq!(*mirror.lines.lock().unwrap(), *local.lines.lock().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_mirror_missed_is_said_and_sent_later() {
        let (_, mirror, stores) = pair();
        mirror.fails.store(true, SeqCst);
        stores.write_everywhere("roles", &7).await.unwrap();
        let said = stores.catch_up().await;
        assert_eq!(said.len(), 1);
        assert!(
            said[0].to_string().contains("held lacks `roles`"),
            "{}",
            said[0]
        );
        mirror.fails.store(false, SeqCst);
        assert!(stores.catch_up().await.is_empty());
        assert_eq!(mirror.documents.lock().unwrap()["roles"], b"7");
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_copy_does_not_stand_in_for_a_local_store_that_fails() {
        let (local, _, stores) = pair();
        stores.write_everywhere("roles", &7).await.unwrap();
        local.fails.store(true, SeqCst);
        let read = stores.newest::<u64>("roles", |serial| *serial).await;
        assert!(read.unwrap_err().to_string().contains("the disk is gone"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_arbiter_that_is_silent_is_no_arbiter_that_has_nothing() {
        let (local, arbiter, _) = pair();
        let all: Vec<Arc<dyn StateStore>> = vec![local.clone(), arbiter.clone()];
        let open = || Stores::new(all.clone(), 1);
        let read = async |stores: &Stores| stores.newest::<u64>("roles", |serial| *serial).await;
        assert_eq!(read(&open()).await.unwrap(), None);
        open().write_everywhere("roles", &7).await.unwrap();
        arbiter.fails.store(true, SeqCst);
        open().write_everywhere("roles", &6).await.unwrap();
        // Whoever looks is shown what is here. Whoever changes it is not.
        assert_eq!(read(&open()).await.unwrap(), Some(6));
        let holder = open();
        holder.rely_on_arbiter();
        assert!(read(&holder).await.is_err());
        local.documents.lock().unwrap().clear();
        assert!(read(&open()).await.is_err());
        arbiter.fails.store(false, SeqCst);
        assert_eq!(read(&holder).await.unwrap(), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_goes_on_past_a_dead_mirror() {
        let (local, mirror, stores) = pair();
        stores.write_everywhere("roles", &7).await.unwrap();
        mirror.hangs.store(true, SeqCst);
        let removed = tokio::time::timeout(LIMIT * 2, stores.delete_everywhere("roles")).await;
        removed.expect("it waits without a limit").unwrap();
        assert!(local.documents.lock().unwrap().is_empty());
        let said = stores.catch_up().await;
        assert_eq!(said.len(), 1);
        assert!(
            said[0].to_string().contains("still has `roles`"),
            "{}",
            said[0]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_stays_so_when_a_mirror_comes_back() {
        let (local, mirror, stores) = pair();
        let newest = async |stores: &Stores| {
            let found = stores.newest::<u64>("names", |serial| *serial).await;
            found.unwrap()
        };
        stores.write_everywhere("names", &7).await.unwrap();
        stores.forget_everywhere("names", &8).await.unwrap();
        assert_eq!(newest(&stores).await, None);
        stores.write_everywhere("names", &7).await.unwrap();
        mirror.fails.store(true, SeqCst);
        stores.forget_everywhere("names", &8).await.unwrap();
        mirror.fails.store(false, SeqCst);
        // Another process, which does not know what the mirror missed.
        let later = Stores::new(stores.all().to_vec(), 0);
        assert_eq!(mirror.documents.lock().unwrap()["names"], b"7");
        assert_eq!(newest(&later).await, Some(8));
        assert_eq!(local.documents.lock().unwrap()["names"], b"8");
        // An empty folder where the mirror was, and then the mirror.
        later.write_everywhere("names", &9).await.unwrap();
        let whole = std::mem::take(&mut *mirror.documents.lock().unwrap());
        later.forget_everywhere("names", &10).await.unwrap();
        *mirror.documents.lock().unwrap() = whole;
        assert_eq!(newest(&later).await, Some(10));
    }
}
