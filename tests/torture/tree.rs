//! Files as they are at rest, and those that nobody should have left.

use std::collections::BTreeSet;
use std::path::Path;

use crate::results::STRAY;

pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Files that a writer who was killed left beside the file that it wrote, outside of the databases.
pub fn beside(folder: &Path, wrong: &mut Vec<String>) {
    for name in names_in(folder) {
        let path = folder.join(&name);
        if name == "data" || name == "tree" || path.is_symlink() {
            continue;
        }
        let parts: Vec<&str> = name.rsplitn(3, '.').collect();
        let numbers = parts
            .iter()
            .take(2)
            .filter(|part| part.parse::<u64>().is_ok())
            .count();
        if name.starts_with('.') && parts.len() == 3 && numbers == 2 {
            wrong.push(format!("{STRAY}{}", path.display()));
        }
        if path.is_dir() {
            beside(&path, wrong);
        }
    }
}

/// Every file, without contents that a run may leave differently: data, logs and what is in an image; and without the
/// note for an agent that cannot read the arbiter, which one that could and opened its node itself does not get.
pub fn files(base: &Path, folder: &Path, lines: &mut BTreeSet<String>) {
    for name in names_in(folder) {
        let path = folder.join(&name);
        let shown = path
            .strip_prefix(base)
            .unwrap_or(&path)
            .display()
            .to_string();
        if shown.ends_with("/agent/writer.json") {
            continue;
        }
        let site = base.file_name().unwrap_or_default().to_string_lossy();
        lines.insert(format!("{site}/{}", without_digest(&shown)));
        if path.is_dir() && !path.is_symlink() && !["data", "log", "tree"].contains(&name.as_str())
        {
            files(base, &path, lines);
        }
    }
}

/// `images/web-b6512d551fb6/image.json` is `images/web-*/image.json`.
fn without_digest(path: &str) -> String {
    let part = |part: &str| match part.rsplit_once('-') {
        Some((name, digest))
            if digest.len() == 12 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            format!("{name}-*")
        }
        _ => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}
