//! Files that survive a crash and a second writer: a file is replaced as a whole or not at all, a new name is on
//! the disk when the call returns, and a lock is let go by the death of its holder.
//!
//! Blocking; callers in async code use [`blocking`].

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag};
use nix::unistd::{Gid, Uid, linkat};

use crate::error::{Fault, Kind};

/// Whom a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// The fault of a failed file operation: "cannot VERB `PATH`".
pub fn fault(verb: &str, path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::new(format!("cannot {verb} `{}`", path.display())).because(error)
}

/// Writes beside, fsyncs, renames and fsyncs the folder. Owner and mode are set before the file has its name, so
/// that a secret is never readable by others. What writers of the same file left who were killed goes.
pub fn replace(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<(), Fault> {
    Unnamed::write(path, bytes, mode, owner)?.name()?;
    sweep_beside(path)?;
    sync_folder(folder_of(path)).map_err(|error| fault("write", path, error))
}

/// Makes a symbolic link, or points it elsewhere, in one step. Only under a lock that all who change it take.
pub fn link(target: &Path, path: &Path) -> Result<(), Fault> {
    let beside = beside(path);
    std::os::unix::fs::symlink(target, &beside)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| fault("link", path, error))?;
    for left in left_beside(path).filter(|left| left.is_symlink()) {
        remove(&left)?;
    }
    sync_folder(folder_of(path)).map_err(|error| fault("link", path, error))
}

/// What a file will hold, on the disk already: what takes long is over before somebody locks others out.
pub struct Unnamed<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    mode: u32,
    owner: Option<Owner>,
    /// Locked, which says that its writer lives. None where the file system knows no files without a name.
    file: Option<Flock<File>>,
}

impl<'a> Unnamed<'a> {
    /// Who is killed after this leaves nothing.
    pub fn write(
        path: &'a Path,
        bytes: &'a [u8],
        mode: u32,
        owner: Option<Owner>,
    ) -> Result<Unnamed<'a>, Fault> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_TMPFILE.bits())
            .mode(0o600)
            .open(folder_of(path))
            .ok();
        let mut unnamed = Unnamed {
            path,
            bytes,
            mode,
            owner,
            file: None,
        };
        if let Some(file) = file {
            let file = held(file).map_err(|error| unnamed.cannot(error))?;
            unnamed.fill(&file).map_err(|error| unnamed.cannot(error))?;
            unnamed.file = Some(file);
        }
        Ok(unnamed)
    }

    fn fill(&self, mut file: &File) -> std::io::Result<()> {
        file.write_all(self.bytes)?;
        if let Some(owner) = self.owner {
            std::os::unix::fs::fchown(file, Some(owner.uid), Some(owner.gid))?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))?;
        file.sync_all()
    }

    /// Puts it in the place of what has its name. Durable after [`sync_folder`].
    pub fn name(self) -> Result<(), Fault> {
        let beside = beside(self.path);
        let put = || {
            // Locked for as long as its name is the one beside.
            let _named = match &self.file {
                Some(file) => {
                    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
                    let follow = AtFlags::AT_SYMLINK_FOLLOW;
                    linkat(AT_FDCWD, from.as_str(), AT_FDCWD, &beside, follow)?;
                    None
                }
                None => {
                    let mut new = OpenOptions::new();
                    let new = new.write(true).create_new(true).mode(0o600);
                    let file = held(new.open(&beside)?)?;
                    self.fill(&file)?;
                    Some(file)
                }
            };
            fs::rename(&beside, self.path)
        };
        put().map_err(|error: std::io::Error| {
            let _ = fs::remove_file(&beside);
            self.cannot(error)
        })
    }

    fn cannot(&self, error: std::io::Error) -> Fault {
        fault("write", self.path, error)
    }
}

/// Nobody else knows the file yet.
fn held(file: File) -> std::io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// A name in the same folder that nobody else uses. Starts with a dot, so that listings skip it.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{count}", std::process::id()))
}

/// Removes what writers that were killed left beside their files. Only under a lock that all writers in `folder` take.
pub fn sweep(folder: &Path) -> Result<(), Fault> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if written(&entry.file_name().to_string_lossy()).is_some() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes what writers of one file left beside it and who live no more.
fn sweep_beside(path: &Path) -> Result<(), Fault> {
    for left in left_beside(path).filter(|left| !left.is_symlink()) {
        let is_left = |file: File| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok();
        if File::open(&left).is_ok_and(is_left) {
            remove(&left)?;
        }
    }
    Ok(())
}

/// Names that [`beside`] made for `path`.
fn left_beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    let name = path.file_name().unwrap_or_default().to_owned();
    let entries = fs::read_dir(folder_of(path))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(move |entry| {
            written(&entry.file_name().to_string_lossy()).is_some_and(|of| *of == *name)
        })
        .map(|entry| entry.path())
}

/// Of which file a name is that [`beside`] made.
fn written(beside: &str) -> Option<&str> {
    let mut parts = beside.strip_prefix('.')?.rsplitn(3, '.');
    for _ in ["count", "process"] {
        parts.next()?.parse::<u64>().ok()?;
    }
    parts.next()
}

/// Makes a new, renamed or removed name in `folder` durable.
pub fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// One call for a whole tree: fsync of thousands of files takes far longer.
pub fn sync_file_system(tree: &Path) -> Result<(), Fault> {
    let folder = File::open(tree).map_err(|error| fault("open", tree, error))?;
    nix::unistd::syncfs(&folder).map_err(|error| fault("sync", tree, error))
}

/// Makes `folder` and what is missing above it, all with `mode` whatever the umask; existing ones stay as they are.
pub fn make_folders(folder: &Path, mode: u32) -> Result<(), Fault> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder_of(folder);
    make_folders(parent, mode)?;
    match DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode))
            .and_then(|()| sync_folder(parent))
            .map_err(|error| fault("make", folder, error)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(fault("make", folder, error)),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Reads a file; `None` when there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Fault> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault("read", path, error)),
    }
}

/// The last bytes of a file; nothing when there is no such file.
pub fn read_end(path: &Path, most: usize) -> Result<Vec<u8>, Fault> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(most as u64)))?;
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(fault("read", path, error)),
    }
}

/// Names in a folder that do not start with a dot, sorted; none when there is no folder.
pub fn names(folder: &Path) -> Result<Vec<String>, Fault> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault("list", folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| fault("list", folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a file, or a folder with all that is in it, read-only folders too. Gone already is success.
pub fn remove(path: &Path) -> Result<(), Fault> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let _ = make_writable(path);
            fs::remove_dir_all(path)
        }
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(fault("remove", path, error)),
        _ => Ok(()),
    }
}

fn make_writable(folder: &Path) -> std::io::Result<()> {
    let mode = fs::symlink_metadata(folder)?.permissions().mode();
    if mode & 0o700 != 0o700 {
        fs::set_permissions(folder, Permissions::from_mode(mode | 0o700))?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// An exclusive lock on a file, between processes and between holders in one process.
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

impl Lock {
    /// Waits for at most `limit`. The lock file may be removed by a holder: who waited for it takes a new one.
    pub fn take(path: &Path, limit: Duration) -> Result<Lock, Fault> {
        let until = Instant::now() + limit;
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(|error| fault("open", path, error))?;
            let lock = lock_until(file, path, until, limit)?;
            if is_at(&lock, path) {
                return Ok(Lock(lock));
            }
        }
    }
}

/// Takes a lock in a folder, which it makes, while others may be removing it or what is above it.
pub fn lock_in(folder: &Path, name: &str, limit: Duration) -> Result<Lock, Fault> {
    const TRIES: u32 = 50;
    let mut tries = 0;
    loop {
        let lock = make_folders(folder, 0o755).and_then(|()| Lock::take(&folder.join(name), limit));
        tries += 1;
        match lock {
            Err(fault) if fault.kind() != Kind::Unavailable && tries < TRIES => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Locks an open file that stays where it is.
pub fn lock_file(file: File, path: &Path, limit: Duration) -> Result<Flock<File>, Fault> {
    lock_until(file, path, Instant::now() + limit, limit)
}

/// Polls, because a blocking flock(2) cannot be given a limit.
fn lock_until(
    mut file: File,
    path: &Path,
    until: Instant,
    limit: Duration,
) -> Result<Flock<File>, Fault> {
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
            Err((_, errno)) => return Err(fault("lock", path, errno)),
        }
        if Instant::now() >= until {
            return Err(Fault::unavailable(format!(
                "`{}` is still locked by another process after {} s",
                path.display(),
                limit.as_secs_f64()
            )));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}

/// Runs blocking work beside the async code; a panic in it goes on in the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Gives a file or folder to `owner`; does nothing for `None`.
pub fn give(path: &Path, owner: Option<Owner>) -> Result<(), Fault> {
    let Some(owner) = owner else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    nix::unistd::chown(path, Some(uid), Some(gid)).map_err(|error| fault("chown", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_yet_is_on_the_disk_and_nowhere_to_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"old", 0o600, None).unwrap();
        let unnamed = Unnamed::write(&path, b"new", 0o640, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        unnamed.name().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn replace_leaves_only_the_new_file_and_its_mode() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a");
        replace(&path, b"one", 0o644, None).unwrap();
        replace(&path, b"two", 0o640, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        fs::create_dir(home.path().join("d")).unwrap();
        assert!(replace(&home.path().join("d"), b"x", 0o600, None).is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
        for name in [".lock", ".a", "b.1.2", ".c.x.2"] {
            fs::write(home.path().join(name), "").unwrap();
        }
        fs::write(beside(&path), "").unwrap();
        sweep(home.path()).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 6);
    }

    #[test]
    fn what_dead_writers_of_the_same_name_left_goes_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for name in [".a.7.0", ".b.7.0", ".a.7.x", ".b.a.7.0"] {
            fs::write(at(name), "").unwrap();
        }
        let living = held(File::create(at(".a.8.0")).unwrap()).unwrap();
        std::os::unix::fs::symlink("nowhere", at(".a.9.0")).unwrap();
        let left = || {
            let entries = fs::read_dir(home.path()).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names.join(" ")
        };
        replace(&at("a"), b"one", 0o644, None).unwrap();
        assert_eq!(left(), ".a.7.x .a.8.0 .a.9.0 .b.7.0 .b.a.7.0 a");
        drop(living);
        replace(&at("a"), b"two", 0o644, None).unwrap();
        assert_eq!(left(), ".a.7.x .a.9.0 .b.7.0 .b.a.7.0 a");
        link(Path::new("a"), &at("b")).unwrap();
        std::os::unix::fs::symlink("nowhere", at(".b.9.0")).unwrap();
        link(Path::new("."), &at("b")).unwrap();
        assert_eq!(left(), ".a.7.x .a.9.0 .b.7.0 .b.a.7.0 a b");
        assert_eq!(fs::read_link(at("b")).unwrap(), Path::new("."));
    }

    #[test]
    fn lock_is_exclusive_and_survives_removal_of_its_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let first = Lock::take(&path, Duration::ZERO).unwrap();
        let second = Lock::take(&path, Duration::from_millis(20));
        assert!(
            second
                .err()
                .unwrap()
                .message()
                .ends_with("by another process after 0.02 s")
        );
        fs::remove_file(&path).unwrap();
        let third = Lock::take(&path, Duration::ZERO).unwrap();
        drop(first);
        assert!(Lock::take(&path, Duration::ZERO).is_err());
        drop(third);
        Lock::take(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn read_only_trees_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("tree/deep");
        make_folders(&deep, 0o755).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        for folder in [&deep, &home.path().join("tree")] {
            fs::set_permissions(folder, Permissions::from_mode(0o555)).unwrap();
        }
        remove(&home.path().join("tree")).unwrap();
        remove(&home.path().join("tree")).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
