//! A folder of its own and a cleared environment for each test, and output that does not depend on either.

pub mod load;
pub mod skip;
pub mod wait;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

/// Removed when it is dropped, also when the test fails.
pub struct Home {
    folder: tempfile::TempDir,
}

/// What one command did.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// As it came: JSON is read from this.
    pub raw: Vec<u8>,
}

impl Home {
    pub fn new() -> Home {
        Home {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
        }
    }

    /// With a spec.
    pub fn with(spec: &str) -> Home {
        let home = Home::new();
        home.write("hafog.yaml", spec);
        home
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("the folder is writable");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).expect("the file is there")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hafog"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.path())
            .env("COLUMNS", "100")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied());
        let output = command.output().expect("the binary starts");
        self.ran(output.status, output.stdout, &output.stderr)
    }

    /// What a command did that somebody else started.
    pub fn ran(&self, status: ExitStatus, stdout: Vec<u8>, stderr: &[u8]) -> Ran {
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: self.normal(&stdout),
            stderr: self.normal(stderr),
            raw: stdout,
        }
    }

    /// Digests, run ids and times differ from run to run; folders from machine to machine.
    fn normal(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
        let folder: PathBuf = self.path().to_path_buf();
        let text = text.replace(&folder.display().to_string(), "$HOME");
        let text = replace_hex(&text, 16, "DIGEST");
        replace_hex(&text, 12, "IMAGE")
    }
}

impl Ran {
    /// What it printed under `--json`.
    pub fn json(&self) -> Value {
        let read = serde_json::from_slice(&self.raw);
        read.unwrap_or_else(|error| panic!("{error}\n{}", self.all()))
    }

    /// Everything at once, for a snapshot.
    pub fn all(&self) -> String {
        let mut text = String::new();
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !stream.is_empty() {
                text.push_str(&format!("--- {name}\n{stream}"));
            }
        }
        text.push_str(&format!("--- exit {}", self.code));
        text
    }
}

/// Nodes that accept writes, in every site, as `show facts` says it.
pub fn writable(facts: &Value) -> Vec<String> {
    let nodes = facts["nodes"].as_object().expect("facts have nodes");
    let is_open = |node: &Value| node["status"]["known"]["writable"] == Value::Bool(true);
    let open = nodes.iter().filter(|(_, node)| is_open(node));
    open.map(|(name, _)| name.clone()).collect()
}

/// Replaces whole words of exactly `length` hexadecimal digits.
fn replace_hex(text: &str, length: usize, with: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let flush = |word: &mut String, out: &mut String| {
        let hex = word.len() == length
            && word
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && word.bytes().any(|byte| byte.is_ascii_digit());
        out.push_str(if hex { with } else { word });
        word.clear();
    };
    for c in text.chars() {
        if is_word(c) {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    out
}

/// PostgreSQL's client itself. What Debian has in the path is a Perl program that looks for it, for longer than it runs.
pub fn psql() -> std::path::PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let found = versions.flatten().map(|one| one.path().join("bin/psql"));
    found
        .filter(|path| path.exists())
        .max()
        .unwrap_or_else(|| "psql".into())
}
