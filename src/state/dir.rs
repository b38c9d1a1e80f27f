//! A state store in a folder: `journal/<run>.jsonl`, and `docs/<key>.json`, whose first line is hafog's and counts
//! the writes.
//!
//! Promises: a line is on the disk when `append` returns; a document is replaced as a whole, by one writer at a time;
//! a version never comes back, also not when a document is deleted and written again with the same contents.
//! It does not watch for others who edit its files by hand.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::door::Door;
use super::{Guest, PutError, StateStore, Version, chain, nobody_comes, text_of};
use crate::durable::{self, Lock, blocking};
use crate::error::Fault;
use crate::model::digest::sha256;
use crate::model::id::{RunId, ServerName};

/// How long another writer is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// As much of a journal's end as is read to find its last line.
const LAST_LINE: u64 = 64 << 10;

#[derive(Clone)]
pub struct DirStore {
    folder: PathBuf,
    door: Option<Door>,
}

/// The first line of a document's file.
#[derive(Serialize, Deserialize)]
struct Header {
    /// Grows with every write. A new document starts at the time in microseconds, so that it never repeats one
    /// that was deleted.
    writes: u64,
    sha256: String,
}

impl Header {
    /// The number of the next write. A counter at its end is not ours.
    fn next(&self) -> Option<u64> {
        self.writes.checked_add(1)
    }

    fn version(&self) -> Version {
        Version(format!("{}-{}", self.writes, &self.sha256[..16]))
    }
}

impl DirStore {
    /// The folder is made by the first write.
    pub fn new(folder: PathBuf) -> DirStore {
        DirStore { folder, door: None }
    }

    /// One that servers come to.
    pub fn behind(door: Door) -> DirStore {
        DirStore {
            folder: door.folder.clone(),
            door: Some(door),
        }
    }

    fn journal(&self, run: &RunId) -> Result<PathBuf, Fault> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if run.as_str().is_empty() || !run.as_str().chars().all(good) {
            return Err(Fault::new(format!("`{run}` is no run id")));
        }
        Ok(self.folder.join("journal").join(format!("{run}.jsonl")))
    }

    fn doc(&self, key: &str) -> Result<PathBuf, Fault> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !key
            .split('/')
            .all(|part| !part.is_empty() && part.chars().all(good))
        {
            return Err(Fault::new(format!("`{key}` is no document key")));
        }
        Ok(self.folder.join("docs").join(format!("{key}.json")))
    }

    fn lock_docs(&self) -> Result<Lock, Fault> {
        Lock::take(&self.folder.join("docs/.lock"), LOCK_LIMIT)
    }

    fn put_now(
        &self,
        key: &str,
        bytes: &[u8],
        expect: Option<&Version>,
    ) -> Result<Version, PutError> {
        let path = self.doc(key)?;
        let is_expected = |header: Option<&Header>| header.map(Header::version).as_ref() == expect;
        let current = read_doc(&path)?.map(|(header, _)| header);
        if !is_expected(current.as_ref()) {
            return Err(PutError::Changed);
        }
        let now = Timestamp::now().as_microsecond().unsigned_abs();
        let ended = || durable::fault("count a write of", &path, "its number is the last there is");
        let header = Header {
            writes: current
                .map_or(Some(now), |header| header.next())
                .ok_or_else(ended)?,
            sha256: sha256(bytes),
        };
        let mut file = serde_json::to_vec(&header).expect("a header is always JSON");
        file.push(b'\n');
        file.extend_from_slice(bytes);
        let folder = path.parent().expect("it has `docs` above it");
        make_folder(&self.folder.join("docs"))?;
        durable::make_folders(folder, FOLDER_MODE)?;
        // Whoever is stopped while the disk is slow keeps nobody else out.
        let unnamed = durable::Unnamed::write(&path, &file, FILE_MODE, None)?;
        {
            let _lock = self.lock_docs()?;
            let current = read_doc(&path)?.map(|(header, _)| header);
            if !is_expected(current.as_ref()) {
                return Err(PutError::Changed);
            }
            durable::sweep(folder)?;
            unnamed.name()?;
        }
        durable::sync_folder(folder)
            .map_err(|error| durable::fault("sync the folder of", &path, error))?;
        Ok(header.version())
    }

    fn delete_now(&self, key: &str) -> Result<(), Fault> {
        let path = self.doc(key)?;
        if !path.exists() {
            return Ok(());
        }
        {
            let _lock = self.lock_docs()?;
            durable::remove(&path)?;
        }
        durable::sync_folder(path.parent().expect("it has `docs` above it"))
            .map_err(|error| durable::fault("sync the folder of", &path, error))
    }
}

/// Makes a folder of a store. A new store beside a spec stays out of git: who commits a lease or keys hands them on.
fn make_folder(folder: &Path) -> Result<(), Fault> {
    if folder.is_dir() {
        return Ok(());
    }
    let store = folder.parent().expect("it is in the store's folder");
    durable::make_folders(store, FOLDER_MODE)?;
    let ignore = store.join(".gitignore");
    if !ignore.exists() {
        durable::replace(&ignore, b"*\n", FILE_MODE, None)?;
    }
    durable::make_folders(folder, FOLDER_MODE)
}

fn read_doc(path: &Path) -> Result<Option<(Header, Vec<u8>)>, Fault> {
    let file = durable::read(path)?;
    file.map(|file| parse_doc(file, path)).transpose()
}

fn parse_doc(mut file: Vec<u8>, path: &Path) -> Result<(Header, Vec<u8>), Fault> {
    let broken = |why: String| durable::fault("understand", path, why);
    let end = file.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| broken("it has no first line".to_owned()))?;
    let header: Header =
        serde_json::from_slice(&file[..end]).map_err(|error| broken(error.to_string()))?;
    let bytes = file.split_off(end + 1);
    if header.sha256 != sha256(&bytes) {
        return Err(broken(
            "its contents do not have the digest of its first line".to_owned(),
        ));
    }
    Ok((header, bytes))
}

fn append_now(path: &Path, lines: &[String]) -> Result<(), PutError> {
    let folder = path.parent().expect("it has `journal` above it");
    make_folder(folder)?;
    let failed = |error| durable::fault("append to", path, error);
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(failed)?;
    let mut file = durable::lock_file(file, path, LOCK_LIMIT)?;
    let length = mend_tail(&mut file).map_err(failed)?;
    // Whoever made the file may have been killed before its name was on the disk.
    if length == 0 {
        durable::sync_folder(folder).map_err(failed)?;
    }
    let last = last_line(&mut file, length).map_err(failed)?;
    let new = &lines[chain::known(last.as_deref(), lines)?..];
    if new.is_empty() {
        // It may have been killed before it synced them.
        return Ok(file.sync_data().map_err(failed)?);
    }
    let line = new.join("\n");
    #[cfg(debug_assertions)]
    crate::cut::tears(&line, |half| {
        let _ = file.write_all(half).and_then(|()| file.sync_data());
    });
    let write = |file: &mut File| {
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_data()
    };
    write(&mut file).map_err(|error| {
        // As if it had never been tried; when that fails too, the next append mends it.
        let _ = file.set_len(length);
        failed(error).into()
    })
}

/// The last whole line of a journal. One of a plan's steps is short: mostly the file's end is enough.
fn last_line(file: &mut File, length: u64) -> std::io::Result<Option<String>> {
    for most in [LAST_LINE, length] {
        let from = length.saturating_sub(most);
        file.seek(SeekFrom::Start(from))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        // What the file's end begins with may be the rest of a line.
        let begins = match from {
            0 => Some(0),
            _ => end.iter().position(|byte| *byte == b'\n'),
        };
        let last = begins.and_then(|at| chain::last(&end[at..]));
        if last.is_some() || from == 0 {
            return Ok(last.map(str::to_owned));
        }
    }
    Ok(None)
}

/// The damaged file stays beside the new one, as `RUN.jsonl.damaged-N`.
fn replace_journal_now(path: &Path, lines: &[String]) -> Result<(), Fault> {
    let failed = |error| durable::fault("put aside", path, error);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = |n: usize| path.with_file_name(format!("{name}.damaged-{n}"));
    let mut asides = (1..).map(aside);
    let aside = asides
        .find(|aside| !aside.exists())
        .expect("there are more numbers than files");
    // A link, so that the name always leads to a journal.
    std::fs::hard_link(path, &aside).map_err(failed)?;
    durable::replace(path, text_of(lines).as_bytes(), FILE_MODE, None)
}

/// What a crash left of a last line: a whole line gets its line break (a reader has taken it for true), a torn one goes.
/// Returns the length.
fn mend_tail(file: &mut File) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(0);
    }
    file.seek(SeekFrom::Start(length - 1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last == [b'\n'] {
        return Ok(length);
    }
    let mut all = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut all)?;
    let start = all
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    if serde_json::from_slice::<serde::de::IgnoredAny>(&all[start..]).is_ok() {
        file.write_all(b"\n")?;
        return Ok(length + 1);
    }
    file.set_len(start as u64)?;
    Ok(start as u64)
}

#[async_trait]
impl StateStore for DirStore {
    fn name(&self) -> String {
        self.folder.display().to_string()
    }

    /// This machine's own disk may be busy, and there is none to go to instead.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// All or none of them, with one sync.
    async fn append_all(&self, run: &RunId, lines: &[String]) -> Result<(), (usize, PutError)> {
        let path = self
            .journal(run)
            .map_err(|fault| (0, PutError::Fault(fault)))?;
        let lines = lines.to_vec();
        let appended = blocking(move || append_now(&path, &lines)).await;
        appended.map_err(|error| (0, error))
    }

    async fn read(&self, run: &RunId) -> Result<Option<Vec<u8>>, Fault> {
        let path = self.journal(run)?;
        blocking(move || durable::read(&path)).await
    }

    async fn replace_journal(&self, run: &RunId, lines: &[String]) -> Result<(), Fault> {
        let (path, lines) = (self.journal(run)?, lines.to_vec());
        blocking(move || replace_journal_now(&path, &lines)).await
    }

    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        // A run's id begins with its time, so that the order of names is the order of age.
        let folder = self.folder.join("journal");
        let names = blocking(move || durable::names(&folder)).await?;
        let runs = names.iter().filter_map(|name| name.strip_suffix(".jsonl"));
        Ok(runs.map(RunId::new).collect())
    }

    async fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, Fault> {
        let path = self.doc(key)?;
        let doc = blocking(move || read_doc(&path)).await?;
        Ok(doc.map(|(header, bytes)| (bytes, header.version())))
    }

    async fn put(
        &self,
        key: &str,
        bytes: &[u8],
        expect: Option<&Version>,
    ) -> Result<Version, PutError> {
        let (store, key, bytes) = (self.clone(), key.to_owned(), bytes.to_vec());
        let expect = expect.cloned();
        blocking(move || store.put_now(&key, &bytes, expect.as_ref())).await
    }

    async fn delete(&self, key: &str) -> Result<(), Fault> {
        let (store, key) = (self.clone(), key.to_owned());
        blocking(move || store.delete_now(&key)).await
    }

    async fn admit(&self, guest: &Guest) -> Result<(), Fault> {
        match &self.door {
            Some(door) => door.admit(guest).await,
            None => Err(nobody_comes(&self.name())),
        }
    }

    async fn admits(&self, guest: &Guest) -> Result<bool, Fault> {
        match &self.door {
            Some(door) => door.admits(guest).await,
            None => Ok(false),
        }
    }

    async fn dismiss(&self, server: &ServerName) -> Result<(), Fault> {
        match &self.door {
            Some(door) => door.dismiss(server).await,
            None => Ok(()),
        }
    }

    async fn host_keys(&self) -> Result<Vec<String>, Fault> {
        match &self.door {
            Some(door) => door.host_keys().await,
            None => Err(nobody_comes(&self.name())),
        }
    }
}

/// For `fuzz`: the value that a document's file holds.
#[cfg(test)]
pub(crate) fn hostile(file: &[u8]) -> Vec<u8> {
    let read = parse_doc(file.to_vec(), Path::new("/nonexistent"));
    if let Ok((header, _)) = &read {
        let _ = (header.version(), header.next());
    }
    // Behind the digest too.
    let end = file
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    read.map_or_else(|_| file[end..].to_vec(), |(_, bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn store() -> (tempfile::TempDir, DirStore) {
        let home = tempfile::tempdir().unwrap();
        let store = DirStore::new(home.path().join("deep/state"));
        (home, store)
    }

    fn run() -> RunId {
        RunId::from("20261121T091403-7c1e")
    }

    #[tokio::test]
    async fn journals_grow_and_are_listed_oldest_first() {
        let (_home, store) = store();
        assert_eq!(store.read(&run()).await.unwrap(), None);
        assert_eq!(store.runs().await.unwrap(), Vec::new());
        let later = RunId::from("20261122T000000-0000");
        store.append(&later, "{}").await.unwrap();
        store.append(&run(), r#"{"a":1}"#).await.unwrap();
        store.append(&run(), r#"{"a":2}"#).await.unwrap();
        assert_eq!(
            store.read(&run()).await.unwrap().unwrap(),
            b"{\"a\":1}\n{\"a\":2}\n"
        );
        assert_eq!(store.runs().await.unwrap(), vec![run(), later]);
        let mode = std::fs::metadata(store.journal(&run()).unwrap())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let Err(PutError::Fault(fault)) = store.append(&RunId::from("../x"), "{}").await else {
            panic!("it is a run's id");
        };
        assert_eq!(fault.message(), "`../x` is no run id");
    }

    #[tokio::test]
    async fn a_torn_line_is_read_as_it_is_and_mended_by_the_next_append() {
        for (tail, mended) in [
            ("{\"a\":2", "{\"a\":1}\n{\"a\":3}\n"),
            ("{\"a\":2}", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n"),
        ] {
            let (_home, store) = store();
            store.append(&run(), r#"{"a":1}"#).await.unwrap();
            let path = store.journal(&run()).unwrap();
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(tail.as_bytes()).unwrap();
            let read = store.read(&run()).await.unwrap().unwrap();
            assert_eq!(
                String::from_utf8(read).unwrap(),
                format!("{{\"a\":1}}\n{tail}")
            );
            store.append(&run(), r#"{"a":3}"#).await.unwrap();
            let read = store.read(&run()).await.unwrap().unwrap();
            assert_eq!(String::from_utf8(read).unwrap(), mended);
        }
    }

    /// The last line is found whatever its length, and whatever was torn behind it.
    #[tokio::test]
    async fn a_line_that_does_not_continue_the_last_one_is_not_written() {
        for length in [10, 3 * LAST_LINE as usize] {
            let (_home, store) = store();
            let chained = |text: &str, before: &str| {
                let prev = crate::model::digest::of_line(before);
                format!(r#"{{"prev":"{prev}","text":"{text}"}}"#)
            };
            let first = chained(&"x".repeat(length), "");
            let second = chained("2", &first);
            store.append(&run(), &first).await.unwrap();
            let other = store.append(&run(), &chained("3", &second)).await;
            assert!(matches!(other, Err(PutError::Changed)), "{other:?}");
            let path = store.journal(&run()).unwrap();
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(br#"{"torn"#).unwrap();
            for _ in 0..2 {
                store.append(&run(), &second).await.unwrap();
            }
            let read = store.read(&run()).await.unwrap().unwrap();
            assert_eq!(
                String::from_utf8(read).unwrap(),
                format!("{first}\n{second}\n")
            );
        }
    }

    #[tokio::test]
    async fn a_document_changes_only_from_the_version_that_was_read() {
        let (_home, store) = store();
        assert!(store.get("writer/main").await.unwrap().is_none());
        let first = store.put("writer/main", b"1", None).await.unwrap();
        assert!(matches!(
            store.put("writer/main", b"2", None).await,
            Err(PutError::Changed)
        ));
        let second = store.put("writer/main", b"2", Some(&first)).await.unwrap();
        assert!(matches!(
            store.put("writer/main", b"3", Some(&first)).await,
            Err(PutError::Changed)
        ));
        assert_eq!(
            store.get("writer/main").await.unwrap().unwrap(),
            (b"2".to_vec(), second.clone())
        );
        // The same contents again are another version, also after a delete.
        let third = store.put("writer/main", b"1", Some(&second)).await.unwrap();
        assert_ne!(third, first);
        store.delete("writer/main").await.unwrap();
        store.delete("writer/main").await.unwrap();
        assert!(matches!(
            store.put("writer/main", b"1", Some(&third)).await,
            Err(PutError::Changed)
        ));
        let fourth = store.put("writer/main", b"1", None).await.unwrap();
        assert!(![first, second, third].contains(&fourth));
        // A document and a folder of documents may have the same name.
        store.put("writer", b"x", None).await.unwrap();
        for bad in ["", "/a", "a//b", "../a", "A", "a.b"] {
            let fault = store.get(bad).await.unwrap_err();
            assert_eq!(fault.message(), format!("`{bad}` is no document key"));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_increment_of_eight_racers_is_lost() {
        let (home, _) = store();
        let mut racers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            // Each has a store of its own, as another process would.
            let store = DirStore::new(home.path().join("state"));
            racers.spawn(async move {
                let mut done = 0;
                while done < 50 {
                    let read = store.get("count").await.unwrap();
                    let (bytes, version) = read.unzip();
                    let count: u32 =
                        bytes.map_or(0, |b| String::from_utf8(b).unwrap().parse().unwrap());
                    let next = (count + 1).to_string();
                    match store.put("count", next.as_bytes(), version.as_ref()).await {
                        Ok(_) => done += 1,
                        Err(PutError::Changed) => {}
                        Err(PutError::Fault(fault)) => panic!("{fault}"),
                    }
                }
            });
        }
        while let Some(racer) = racers.join_next().await {
            racer.unwrap();
        }
        let (bytes, _) = DirStore::new(home.path().join("state"))
            .get("count")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(bytes, b"400");
    }

    #[tokio::test]
    async fn trouble_names_the_path() {
        let (home, _) = store();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        let store = DirStore::new(file.clone());
        let Err(PutError::Fault(fault)) = store.append(&run(), "{}").await else {
            panic!("a file is no folder");
        };
        assert!(fault.message().contains(file.to_str().unwrap()), "{fault}");
        // A document that was changed by hand is not taken for hafog's.
        let store = DirStore::new(home.path().join("state"));
        store.put("roles", b"{}", None).await.unwrap();
        let path = store.doc("roles").unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replace("{}", "[]");
        std::fs::write(&path, text).unwrap();
        let fault = store.get("roles").await.unwrap_err();
        assert_eq!(
            fault.message(),
            format!("cannot understand `{}`", path.display())
        );
    }

    #[tokio::test]
    async fn a_held_lock_is_waited_for_up_to_the_limit() {
        let (_home, store) = store();
        let version = store.put("roles", b"{}", None).await.unwrap();
        let held = store.lock_docs().unwrap();
        let Err(PutError::Fault(fault)) = store.put("roles", b"x", Some(&version)).await else {
            panic!("the lock was ignored");
        };
        assert!(
            fault
                .message()
                .ends_with("is still locked by another process after 5 s"),
            "{fault}"
        );
        drop(held);
    }
}
