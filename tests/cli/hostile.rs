//! Files that are meant to hurt, through the real binary: bounded memory, bounded time, one clear error.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::Home;
use crate::harness::wait::poll;

/// Address space that the program may take, in KiB: what it allocates beyond that fails, and it would abort.
const MEMORY: u64 = 640 << 10;
/// A hang is longer than any slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Killed and reaped when it is dropped, also when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exit code and what was said.
fn check(home: &Home, memory: u64) -> (Option<i32>, String) {
    let said = home.path().join("said");
    let binary = env!("CARGO_BIN_EXE_hafog");
    let child = Command::new("sh")
        .args([
            "-c",
            "ulimit -v $1; shift; exec \"$@\"",
            "sh",
            &memory.to_string(),
            binary,
            "check",
        ])
        .current_dir(home.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said).expect("the folder is writable"))
        .spawn();
    let mut child = Running(child.expect("sh starts"));
    let ended = poll(LIMIT, || child.0.try_wait().expect("the child is ours"));
    let status = ended.unwrap_or_else(|| panic!("no end after {} s", LIMIT.as_secs()));
    let mut text = Vec::new();
    let file = std::fs::File::open(&said).expect("it was just written");
    file.take(1 << 20)
        .read_to_end(&mut text)
        .expect("it can be read");
    (
        status.code(),
        String::from_utf8(text).expect("errors are UTF-8"),
    )
}

/// The start of the error, for each text.
fn refused(text: &[u8], error: &str) {
    let home = Home::new();
    std::fs::write(home.path().join("hafog.yaml"), text).expect("the folder is writable");
    let (code, said) = check(&home, MEMORY);
    let start = String::from_utf8_lossy(&text[..text.len().min(20)]).into_owned();
    assert_eq!(code, Some(65), "{start:?}: {said}");
    assert!(
        said.starts_with(&format!("error: {error}")),
        "{start:?}: {said}"
    );
    assert!(said.contains(" --> hafog.yaml:"), "{start:?}: {said}");
    assert!(
        said.len() < 1 << 20 && !said.contains("panicked"),
        "{start:?}: {said}"
    );
    assert!(
        !said.contains(|c: char| c.is_control() && c != '\n'),
        "{start:?}: {said:?}"
    );
}

/// Each letter is nine of the one before.
fn bomb() -> String {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (before, letter) in ('a'..='y').zip('b'..='z') {
        let nine = vec![format!("*{before}"); 9].join(", ");
        text.push_str(&format!("{letter}: &{letter} [{nine}]\n"));
    }
    text
}

/// Bytes without a pattern, the same in every run.
fn junk(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| byte()).collect()
}

#[test]
fn no_text_takes_the_machine_down() {
    refused(bomb().as_bytes(), "unknown key `a`");
    refused(
        "- ".repeat(1_000).as_bytes(),
        "lists and maps are nested deeper than 32 levels",
    );
    refused(
        "[\n".repeat(400_000).as_bytes(),
        "lists and maps are nested deeper than 32 levels",
    );
    refused(
        "{a: \n".repeat(400_000).as_bytes(),
        "lists and maps are nested deeper than 32 levels",
    );
    refused(
        "[".repeat(1_000_000).as_bytes(),
        "this line is longer than 4000 characters",
    );
    refused(&junk(1 << 20), "the spec is not a text");
    refused(&vec![0; 1 << 20], "the control character U+0000");
    refused(b"stack: shop\n# \xc3\x28\n", "the spec is not UTF-8");
    refused(&vec![b'x'; 100 << 20], "the spec is larger than 4 MiB");
    refused(
        "stack: shop\n".repeat((100 << 20) / 12).as_bytes(),
        "the spec is larger than 4 MiB",
    );
}

/// As large as a spec may be, and as dense as text can be.
#[test]
fn the_densest_texts_fit_into_memory() {
    const MAX: usize = 4 << 20;
    let full = |line: &str| line.repeat(MAX / line.len());
    let keys: String = (0..)
        .map(|n| format!("k{n}:\n"))
        .scan(0, |length, line| {
            *length += line.len();
            (*length <= MAX).then_some(line)
        })
        .collect();
    refused(
        format!("[{}", full("a,\n")).get(..MAX).unwrap().as_bytes(),
        "more than 500000 commas",
    );
    refused(full("\n").as_bytes(), "the spec is empty");
    refused(keys.as_bytes(), "unknown key `k0`");
    refused(
        full("- \n").as_bytes(),
        "the spec has more than 500000 values",
    );
    refused(
        full("? \n").as_bytes(),
        "expected a word as key, found nothing",
    );
}

/// The limit of the tests above bites: with less memory than the program needs to start, it does not.
#[test]
fn the_limit_on_memory_is_one() {
    let home = Home::new();
    home.write("hafog.yaml", "stack: shop\n");
    assert_ne!(check(&home, 8 << 10).0, Some(65));
}
