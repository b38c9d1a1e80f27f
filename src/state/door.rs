//! Who comes to this machine's store by SSH: lines of `~/.ssh/authorized_keys`, one a server.
//!
//! Each line is bound to one command, which serves one folder and some documents of it, and to nothing else (sshd(8),
//! `restrict`). Lines that are not ours stay as they are.

use std::path::PathBuf;
use std::time::Duration;

use super::{Guest, text_of};
use crate::durable::{self, blocking};
use crate::error::Fault;
use crate::model::id::ServerName;
use crate::model::posix::quoted;

const LOCK_LIMIT: Duration = Duration::from_secs(5);
const MODE: u32 = 0o600;

/// The way to one folder of this machine.
#[derive(Clone)]
pub struct Door {
    /// Absolute.
    pub folder: PathBuf,
    /// `~/.ssh` of the user that they come as.
    pub home: PathBuf,
    /// This program.
    pub program: String,
    /// Where sshd has its keys.
    pub sshd: PathBuf,
}

/// At the end of a line of ours.
fn comment(folder: &str, server: &ServerName) -> String {
    format!("hafog:{folder}:{server}")
}

/// A key has a type, a body and perhaps a comment, and nothing that could end the line or say more.
fn checked(key: &str) -> Result<String, Fault> {
    let mut words = key.split_whitespace();
    let word = |text: Option<&str>| {
        let good = |c: char| c.is_ascii_alphanumeric() || "-+/=.@".contains(c);
        text.filter(|text| text.chars().all(good))
            .map(str::to_owned)
    };
    match (word(words.next()), word(words.next())) {
        (Some(kind), Some(body)) if body.len() > 40 => Ok(format!("{kind} {body}")),
        _ => Err(Fault::new(format!("`{key}` is no public key"))),
    }
}

/// As one argument inside the quotes of `command="…"`, where a quote alone is marked (sshd(8)).
fn inside(text: &str) -> String {
    quoted(text).replace('"', "\\\"")
}

impl Door {
    fn line(&self, guest: &Guest) -> Result<String, Fault> {
        let folder = self.folder.to_string_lossy();
        let words = [&*folder, &self.program, guest.server.as_str()];
        let documents = guest.documents.iter().map(String::as_str);
        let mut words = words.into_iter().chain(documents);
        // A line break would begin a line without bounds, and no document would mean all of them.
        if words.any(|word| word.contains(char::is_control)) || guest.documents.is_empty() {
            let message = format!("`{}` cannot be let in", guest.server);
            return Err(Fault::new(message).because("its line would say something else"));
        }
        let mut command = format!("{} store {}", inside(&self.program), inside(&folder));
        for document in &guest.documents {
            command.push_str(&format!(" --only {}", inside(document)));
        }
        Ok(format!(
            "restrict,command=\"{command}\" {} {}",
            checked(&guest.key)?,
            comment(&folder, &guest.server)
        ))
    }

    fn keys(&self) -> PathBuf {
        self.home.join("authorized_keys")
    }

    /// Puts `line`, or nothing, in the place of the server's line.
    async fn change(&self, server: &ServerName, line: Option<String>) -> Result<(), Fault> {
        let (home, path) = (self.home.clone(), self.keys());
        let ends = format!(" {}", comment(&self.folder.to_string_lossy(), server));
        blocking(move || {
            durable::make_folders(&home, 0o700)?;
            let _lock = durable::lock_in(&home, ".hafog-lock", LOCK_LIMIT)?;
            let was = durable::read(&path)?.unwrap_or_default();
            let was = String::from_utf8(was)
                .map_err(|error| durable::fault("understand", &path, error))?;
            let mut lines: Vec<&str> = was.lines().filter(|one| !one.ends_with(&ends)).collect();
            lines.extend(line.as_deref());
            let now = text_of(&lines);
            match now == was {
                true => Ok(()),
                false => durable::replace(&path, now.as_bytes(), MODE, None),
            }
        })
        .await
    }

    pub async fn admit(&self, guest: &Guest) -> Result<(), Fault> {
        self.change(&guest.server, Some(self.line(guest)?)).await
    }

    pub async fn admits(&self, guest: &Guest) -> Result<bool, Fault> {
        let line = self.line(guest)?;
        let path = self.keys();
        blocking(move || {
            let lines = durable::read(&path)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&lines)
                .lines()
                .any(|one| one == line))
        })
        .await
    }

    pub async fn dismiss(&self, server: &ServerName) -> Result<(), Fault> {
        self.change(server, None).await
    }

    pub async fn host_keys(&self) -> Result<Vec<String>, Fault> {
        let folder = self.sshd.clone();
        blocking(move || {
            let mut keys = Vec::new();
            for name in durable::names(&folder)? {
                if !name.starts_with("ssh_host_") || !name.ends_with("_key.pub") {
                    continue;
                }
                let bytes = durable::read(&folder.join(name))?.unwrap_or_default();
                keys.push(checked(&String::from_utf8_lossy(&bytes))?);
            }
            match keys.is_empty() {
                true => {
                    let message = format!("there is no SSH host key in `{}`", folder.display());
                    Err(Fault::new(message).hint("say `host_key` at the store in the spec"))
                }
                false => Ok(keys),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEUC2kjzjJbVJuWxDdBEjhsXbKDZdYlQhlHGzlDqwFxl";

    fn door(home: &std::path::Path) -> Door {
        Door {
            folder: "/srv/it's \"x\"".into(),
            home: home.join(".ssh"),
            program: "/usr/bin/hafog".to_owned(),
            sshd: home.join("sshd"),
        }
    }

    fn guest(server: &str, key: &str) -> Guest {
        Guest {
            server: ServerName::from(server),
            key: key.to_owned(),
            documents: vec!["writer/main".to_owned()],
        }
    }

    #[tokio::test]
    async fn a_server_has_one_line_and_others_keep_theirs() {
        let home = tempfile::tempdir().unwrap();
        let door = door(home.path());
        let path = home.path().join(".ssh/authorized_keys");
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        std::fs::write(&path, "# mine\nssh-rsa AAAA me").unwrap();
        door.admit(&guest("db-1", KEY)).await.unwrap();
        door.admit(&guest("db-2", KEY)).await.unwrap();
        door.admit(&guest("db-1", &KEY.replace("IEUC", "IEUD")))
            .await
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let second = KEY;
        let first = KEY.replace("IEUC", "IEUD");
        let line = |key: &str, server: &str| {
            format!(
                "restrict,command=\"'/usr/bin/hafog' store '/srv/it'\\''s \\\"x\\\"' --only 'writer/main'\" {key} hafog:/srv/it's \"x\":{server}\n"
            )
        };
        let (one, two) = (line(&first, "db-1"), line(second, "db-2"));
        assert_eq!(text, format!("# mine\nssh-rsa AAAA me\n{two}{one}"));
        door.dismiss(&ServerName::from("db-1")).await.unwrap();
        door.dismiss(&ServerName::from("db-3")).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# mine\nssh-rsa AAAA me\n{two}"));
    }

    #[tokio::test]
    async fn a_key_that_says_more_is_none() {
        let home = tempfile::tempdir().unwrap();
        let door = door(home.path());
        for documents in [vec![], vec!["a\nb".to_owned()]] {
            let guest = Guest {
                documents,
                ..guest("db-1", KEY)
            };
            assert!(door.admit(&guest).await.is_err());
        }
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA\nssh-rsa B",
            "command=\"x\" y z",
        ] {
            assert!(door.admit(&guest("db-1", bad)).await.is_err(), "{bad}");
        }
        assert!(!home.path().join(".ssh").exists());
    }
}
