//! Where the program is that long-running parts (supervisors, the name server, agents) are started with.

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::error::Fault;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says which program it is, where that is not this one (in tests). First call counts.
pub fn set(path: impl Into<PathBuf>) {
    let _ = PROGRAM.set(path.into());
}

/// `HAFOG_EXE`, or this program.
pub fn path() -> io::Result<PathBuf> {
    match (PROGRAM.get(), std::env::var_os("HAFOG_EXE")) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(path)) => Ok(path.into()),
        (None, None) => Ok(in_place(std::env::current_exe()?)),
    }
}

/// The same as text, for the arguments and the environment of a server's services.
pub fn text() -> Result<String, Fault> {
    let path =
        path().map_err(|error| Fault::new("cannot find the hafog program").because(error))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Linux marks the path of a program that was replaced while it runs (proc(5), `/proc/pid/exe`): after an upgrade the
/// new one is in the old one's place.
fn in_place(path: PathBuf) -> PathBuf {
    match path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"))
    {
        Some(place) if !path.exists() => place.into(),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_found_in_its_place() {
        let place = |path: &str| in_place(path.into());
        assert_eq!(place("/usr/bin/hafog"), PathBuf::from("/usr/bin/hafog"));
        assert_eq!(
            place("/nowhere/hafog (deleted)"),
            PathBuf::from("/nowhere/hafog")
        );
        let folder = tempfile::tempdir().expect("a folder");
        let odd = folder.path().join("hafog (deleted)");
        std::fs::write(&odd, "").expect("written");
        assert_eq!(in_place(odd.clone()), odd);
    }
}
