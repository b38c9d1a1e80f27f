//! Secrets: read at the last moment, from the reference that the spec holds, and never printed.

use std::fmt;
use std::io::Read;
use std::path::Path;

use crate::error::Fault;
use crate::model::stack::SecretRef;

/// A secret file larger than this is a mistake: nobody's password is a disk image.
const FILE_MAX: u64 = 64 << 10;

/// A secret's value. It prints as `***`; [`Secret::expose`] is the only way in, and easy to grep for.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// Returns the value, for delivery to a machine or a database and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("***")
    }
}

/// Reads the text of a reference: `env` (the variable called `name`), `env:OTHER` or `file:./path`.
pub fn parse(name: &str, text: &str) -> Option<SecretRef> {
    if text == "env" {
        return Some(SecretRef::Env(name.to_owned()));
    }
    match text.split_once(':') {
        Some(("env", variable)) if is_variable(variable) => {
            Some(SecretRef::Env(variable.to_owned()))
        }
        Some(("file", path)) if !path.is_empty() && !path.starts_with("//") => {
            Some(SecretRef::File(path.to_owned()))
        }
        _ => None,
    }
}

/// Whether the text can be the name of an environment variable.
pub fn is_variable(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.len() <= 128
}

/// Whether a text in the place of a secret is only a reference, or the name of one, and may be printed.
pub fn is_harmless(text: &str) -> bool {
    let text = text.trim();
    let is_name = is_variable(text) && !text.contains(|c: char| c.is_ascii_lowercase());
    text.is_empty() || is_name || parse("X", text).is_some()
}

/// Reads the value. Faults name the reference, never what was found there.
/// One line break at the end of a file is not part of the secret: editors add it.
pub fn read(reference: &SecretRef, base_dir: &Path) -> Result<Secret, Fault> {
    match reference {
        SecretRef::Env(variable) => from_env(variable, std::env::var_os(variable)),
        SecretRef::File(path) => from_file(path, base_dir),
    }
}

fn from_env(variable: &str, value: Option<std::ffi::OsString>) -> Result<Secret, Fault> {
    let hint = format!("export {variable}=…");
    let Some(value) = value else {
        let message = format!("the environment variable `{variable}` is not set");
        return Err(Fault::new(message).hint(hint));
    };
    match value.into_string() {
        Ok(value) if value.is_empty() => {
            let message = format!("the environment variable `{variable}` is empty");
            Err(Fault::new(message).hint(hint))
        }
        Ok(value) if has_break(&value) => Err(Fault::new(format!(
            "the environment variable `{variable}` has more than one line"
        ))),
        Ok(value) => Ok(Secret(value)),
        Err(_) => Err(Fault::new(format!(
            "the environment variable `{variable}` is not UTF-8"
        ))),
    }
}

/// Secrets are delivered as lines of an environment: a second line would be another variable.
fn has_break(text: &str) -> bool {
    text.contains(['\n', '\r', '\0'])
}

fn from_file(path: &str, base_dir: &Path) -> Result<Secret, Fault> {
    let whole = base_dir.join(path);
    let fault = |what: &str| Fault::new(format!("the secret file `{}` {what}", whole.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(&whole)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fault("cannot be read").because(error))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(fault("is larger than 64 KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| fault("is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(fault("is empty"));
    }
    if has_break(text) {
        return Err(fault("has more than one line"));
    }
    Ok(Secret(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        assert_eq!(parse("A", "env"), Some(SecretRef::Env("A".into())));
        assert_eq!(parse("A", "env:B_2"), Some(SecretRef::Env("B_2".into())));
        assert_eq!(parse("A", "file:./x"), Some(SecretRef::File("./x".into())));
        for bad in [
            "",
            "sk_live_1",
            "env:",
            "env:1x",
            "file:",
            "file:///x",
            "vault:x",
        ] {
            assert_eq!(parse("A", bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "*** *** Some(***)"
        );
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn files_are_read_beside_the_spec() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "s3cret\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("lines"), "one\nPATH=/tmp\n").unwrap();
        std::fs::write(folder.path().join("binary"), [0xff, b's', b'3']).unwrap();
        std::fs::write(folder.path().join("large"), vec![b'x'; 70_000]).unwrap();
        let read = |path: &str| read(&SecretRef::File(path.into()), folder.path());
        assert_eq!(read("./key").unwrap().expose(), "s3cret");
        for (path, what) in [
            ("missing", "cannot be read"),
            ("empty", "is empty"),
            ("lines", "has more than one line"),
            ("binary", "is not UTF-8"),
            ("large", "is larger than 64 KiB"),
        ] {
            let fault = read(path).unwrap_err();
            let expected = format!(
                "the secret file `{}` {what}",
                folder.path().join(path).display()
            );
            assert_eq!(fault.message(), expected);
        }
    }

    #[test]
    fn variables_must_be_set_and_not_empty() {
        let message = |value: Option<&str>| {
            from_env("TOKEN", value.map(Into::into))
                .map(|secret| secret.expose().to_owned())
                .map_err(|fault| fault.message().to_owned())
        };
        assert_eq!(message(Some("s3cret")), Ok("s3cret".to_owned()));
        assert_eq!(
            message(None),
            Err("the environment variable `TOKEN` is not set".to_owned())
        );
        assert_eq!(
            message(Some("")),
            Err("the environment variable `TOKEN` is empty".to_owned())
        );
        let unset = SecretRef::Env("HAFOG_TEST_SURELY_NOT_SET".into());
        assert!(read(&unset, Path::new("/")).is_err());
    }
}
