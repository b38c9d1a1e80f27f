//! A canary in every place where a secret may be, and a search for it, in every form that a program might give it,
//! in everything that hafog leaves behind, prints, or shows to whoever lists processes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::lab::{self, Lab, turn};
use crate::harness::wait::wait_until;

mod trouble;

/// The part that no encoding of text changes; base64 and hex do.
/// Of this process alone: another run of the same tests beside it has its own.
static CORES: LazyLock<[String; 3]> = LazyLock::new(|| {
    let core = |text: &str| format!("{text}{:07}", std::process::id());
    [
        core("kAnaR7pazzw0rdQxV3m9Tz"),
        core("kAnaR7f1l3s3cr3tLw8Rb2"),
        core("kAnaR7w1th1nAnUrlHc5Ye"),
    ]
});

/// With what every encoding has to escape: quotes, a backslash, a percent sign, blanks, a slash, an at sign.
fn value(core: &str) -> String {
    format!("p\"w\\ {core}/+%@é")
}

/// What the value looks like wherever it was written down.
fn forms(core: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([core.to_owned(), core.chars().rev().collect()]);
    for text in [value(core), core.to_owned()] {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        forms.extend([hex.to_uppercase(), hex]);
        let escaped = serde_json::to_string(&text).expect("it is text");
        forms.insert(escaped.trim_matches('"').to_owned());
        let percent: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        forms.extend([percent.to_lowercase(), percent]);
    }
    // Base64 depends on what stands before it: three ways, without the ends that neighbours change.
    for before in 0..3 {
        let text = format!("{}{core}", "x".repeat(before));
        let code = base64(text.as_bytes());
        let code = code.trim_end_matches('=');
        let inner = &code[4..code.len() - 2];
        forms.extend([inner.to_owned(), inner.replace('+', "-").replace('/', "_")]);
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let is_there = digit <= three.len();
            let six = bits >> (18 - 6 * digit) & 63;
            text.push(if is_there {
                char::from(DIGITS[six as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// Every form of every canary.
struct Search {
    forms: Vec<Vec<u8>>,
    patterns: tempfile::NamedTempFile,
}

impl Search {
    fn new() -> Search {
        let forms: BTreeSet<String> = CORES.iter().flat_map(|core| forms(core)).collect();
        let mut patterns = tempfile::NamedTempFile::new().expect("a file for the patterns");
        for form in &forms {
            writeln!(patterns, "{form}").expect("the patterns are written");
        }
        Search {
            forms: forms.into_iter().map(String::into_bytes).collect(),
            patterns,
        }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        let found = |form: &Vec<u8>| bytes.windows(form.len()).any(|part| part == form);
        self.forms.iter().any(found)
    }

    /// Files with a canary in them, and those with one in their name.
    fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let mut grep = Command::new("grep");
        grep.args(["-rlaF", "--null", "-f"])
            .arg(self.patterns.path());
        grep.arg(folder).env("LC_ALL", "C").stdin(Stdio::null());
        let ran = grep.output().expect("grep is installed");
        // 2 is for files that were gone before they could be read; what was found is there all the same.
        let paths = ran.stdout.split(|byte| *byte == 0);
        let mut found: Vec<PathBuf> = paths
            .filter(|path| !path.is_empty())
            .map(|path| PathBuf::from(String::from_utf8_lossy(path).into_owned()))
            .collect();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if self.is_in(entry.file_name().as_encoded_bytes()) {
                    found.push(entry.path());
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        found
    }
}

/// Marks the commands of this test, which were given the secrets by us.
const MARK: &str = "SECRETS_OF_THIS_TEST";

/// Looks at the process list over and over.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<String, u32>>>,
    rounds: Option<std::thread::JoinHandle<u64>>,
}

impl Watch {
    fn start(search: Arc<Search>, home: &Path) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let (until, into, home) = (stop.clone(), seen.clone(), home.display().to_string());
        let rounds = std::thread::spawn(move || {
            let mut rounds = 0;
            while !until.load(Ordering::Relaxed) {
                for what in look(&search, &home) {
                    *into.lock().expect("nobody panics").entry(what).or_default() += 1;
                }
                rounds += 1;
            }
            rounds
        });
        Watch {
            stop,
            seen,
            rounds: Some(rounds),
        }
    }

    /// What was seen twice or more: between fork and exec a child looks like its parent.
    fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = self.rounds.take().map(|thread| thread.join());
        assert!(matches!(rounds, Some(Ok(1..))), "nobody looked: {rounds:?}");
        let seen = self.seen.lock().expect("nobody panics");
        let twice = seen.iter().filter(|(_, times)| **times > 1);
        twice.map(|(what, _)| what.clone()).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn parent_of(process: &str) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Processes that show a canary and may not.
fn look(search: &Search, home: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("this is Linux").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let (line, environment) = (read("cmdline"), read("environ"));
        let text = String::from_utf8_lossy(&line).replace('\0', " ");
        if search.is_in(&line) {
            found.push(format!("process {name} has it in its command line: {text}"));
        }
        if environment.is_empty() || !search.is_in(&environment) {
            continue;
        }
        let variables: Vec<_> = environment.split(|byte| *byte == 0).collect();
        let has = |start: &str| {
            variables
                .iter()
                .any(|one| one.starts_with(start.as_bytes()))
        };
        let here = std::process::id();
        let parent = parent_of(&name);
        let is_command = has(&format!("{MARK}={home}")) && parent == Some(here);
        // On a busy machine a child may be a copy of its command for a while before it is a program of its own.
        let is_copy = parent.is_some_and(|parent| {
            let parent = parent.to_string();
            let its = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
            its == line && parent_of(&parent) == Some(here)
        });
        let is_service = has("HAFOG_SERVER=shop-") && has("DATABASE_URL=");
        if !is_command && !is_copy && !is_service {
            found.push(format!("process {name} has it in its environment: {text}"));
        }
    }
    found
}

/// The spec of the lab with a secret in a file besides.
fn spec() -> String {
    let wanted = "secrets: { DATABASE_PASSWORD: env }";
    assert!(lab::SPEC.contains(wanted));
    let more = "secrets: { DATABASE_PASSWORD: env, STRIPE_KEY: \"file:./stripe.key\" }";
    lab::SPEC.replace(wanted, more)
}

/// Whoever plants a canary for all to see is alone.
static PLANTED: RwLock<()> = RwLock::new(());

struct Canaries {
    _unplanted: RwLockReadGuard<'static, ()>,
    lab: Lab,
    search: Arc<Search>,
    leaks: Vec<String>,
}

impl Canaries {
    /// A stack whose secrets are canaries, with somebody who watches the processes.
    fn new() -> (Canaries, Watch) {
        let unplanted = PLANTED.read().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::new();
        lab.home.write("hafog.yaml", &spec());
        lab.home
            .write("stripe.key", &format!("{}\n", value(&CORES[1])));
        let search = Arc::new(Search::new());
        let watch = Watch::start(search.clone(), lab.home.path());
        let canaries = Canaries {
            _unplanted: unplanted,
            lab,
            search,
            leaks: Vec::new(),
        };
        (canaries, watch)
    }

    /// Nothing said one, no file has one, and no process showed one.
    fn are_nowhere(&self, watch: Watch) {
        let files = self.files();
        let shown = watch.end();
        assert_eq!(self.leaks, [""; 0]);
        assert!(files.is_empty(), "{files:#?}");
        assert_eq!(shown, [""; 0]);
    }

    /// Runs a command; what it says is searched.
    fn run(&mut self, words: &str) -> i32 {
        let ran = self.quietly(words, &value(&CORES[0]));
        for (name, stream) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
            if self.search.is_in(stream) {
                self.leaks
                    .push(format!("`hafog {words}` says it on {name}"));
            }
        }
        ran.status.code().unwrap_or(-1)
    }

    fn quietly(&self, words: &str, password: &str) -> std::process::Output {
        let words: Vec<&str> = words.split(' ').collect();
        let home = self.lab.home.path();
        let mut command = self.lab.home.command(&words);
        command.env("DATABASE_PASSWORD", password).env(MARK, home);
        command
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full");
        command.output().expect("the binary starts")
    }

    fn must(&mut self, words: &str) {
        let code = self.run(words);
        assert_eq!(code, 0, "`hafog {words}`; {:?}", self.leaks);
    }

    /// Folders of the servers, at every site.
    fn servers(&self) -> BTreeSet<PathBuf> {
        let facts = self.lab.facts();
        let sites = facts["sites"].as_object().expect("facts have sites");
        let servers = sites
            .values()
            .filter_map(|site| site["servers"].as_object());
        let data = servers
            .flat_map(|servers| servers.values())
            .filter_map(|server| server["host"]["dirs"]["data"].as_str());
        // `<site>/servers/<server>/data`: everything of the site.
        let above = |data: &str| Path::new(data).ancestors().nth(3).map(Path::to_path_buf);
        data.filter_map(above).collect()
    }

    /// Every file with a canary that may not have one.
    fn files(&self) -> Vec<PathBuf> {
        let home = self.lab.home.path();
        let folders = self.servers().into_iter().chain([home.to_path_buf()]);
        let found: BTreeSet<PathBuf> = folders.flat_map(|one| self.search.files(&one)).collect();
        // Where it came from, and where it was to go: `<server>/etc/env`, for its owner only.
        let may = |path: &Path| path == home.join("stripe.key") || path.ends_with("etc/env");
        found.into_iter().filter(|path| !may(path)).collect()
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        // The lab removes its stack by the spec, whatever the test left in its place.
        self.lab.home.write("hafog.yaml", &spec());
    }
}

#[test]
fn no_secret_is_left_said_or_shown() {
    let Some(_turn) = turn("no_secret_is_left_said_or_shown") else {
        return;
    };
    let (mut canaries, watch) = Canaries::new();
    canaries.must("up --yes --events");
    delivered(&canaries);
    canaries.must("clone west --yes");
    canaries.lab.until("the standby is ready", || {
        canaries.lab.run("preflight").code == 0
    });
    for words in [
        "status --json",
        "preflight --json",
        "show spec --json",
        "show stack --json",
        "show facts --json",
        "show plan --json",
        "show journal --json",
        "show report --json",
        "replicate status west --json",
        "switchover --dry-run --json",
    ] {
        canaries.run(words);
    }
    canaries.must("switchover --yes --json");
    canaries.must("commit --yes");
    // Broken in ways that make programs quote what they know.
    canaries.run("local power west off");
    canaries.run("status");
    canaries.run("up --yes --lock-timeout 1s --accept nothing --plan 0000");
    canaries.must("failover --yes");
    canaries.run("show report --json");
    broken_specs(&mut canaries);
    canaries.are_nowhere(watch);
}

/// The secrets did arrive where they belong: otherwise there was nothing to leak.
fn delivered(canaries: &Canaries) {
    let sites = canaries.servers();
    let found: Vec<PathBuf> = sites
        .iter()
        .flat_map(|site| canaries.search.files(site))
        .collect();
    let env: Vec<&PathBuf> = found
        .iter()
        .filter(|path| path.ends_with("etc/env"))
        .collect();
    assert_eq!(env.len(), 2, "one for each application server: {found:?}");
    for path in env {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        let text = std::fs::read_to_string(path).expect("it is text");
        let wanted = ("STRIPE_KEY".to_owned(), value(&CORES[1]));
        let found = hafog::model::posix::assignments(&text).any(|one| one == wanted);
        assert!(found, "{}", path.display());
    }
}

/// Values where references belong, in every way to write them: the messages show the line and not the value.
fn broken_specs(canaries: &mut Canaries) {
    let good = spec();
    let url = format!("https://user:{}@git.test/x.git", CORES[2]);
    let token = format!("https://{}@git.test/x.git", CORES[2]);
    let inline = |what: &str| {
        good.replace(
            "DATABASE_PASSWORD: env",
            &format!("DATABASE_PASSWORD: {what}"),
        )
    };
    let recipe = |url: &str| {
        let code = format!("base: debian-12\n    code: {{ git: \"{url}\", ref: v1, to: /srv }}");
        good.replacen("base: debian-12", &code, 1)
    };
    let health = good.replace(
        "http://www.shop.test/",
        &format!("http://user:{}@www.shop.test/", CORES[2]),
    );
    let core = CORES[0].as_str();
    for (index, broken) in [
        inline(&format!("'{}'", value(core))),
        inline(core),
        inline(&format!("env:{core}/")),
        inline(&format!("[ {core} ]")),
        inline(&format!("{{ value: {core} }}")),
        good.replace(
            "password: DATABASE_PASSWORD",
            &format!("password: '{}'", value(core)),
        ),
        recipe(&url),
        recipe(&token),
        health,
    ]
    .into_iter()
    .enumerate()
    {
        assert_ne!(broken, good, "case {index} changed nothing");
        canaries.lab.home.write("hafog.yaml", &broken);
        for words in [
            "check",
            "check --json",
            "up --yes",
            "status",
            "show stack --json",
        ] {
            let code = canaries.run(words);
            assert_eq!(code, 65, "case {index}: `hafog {words}`");
        }
    }
    canaries.lab.home.write("hafog.yaml", &good);
}

/// The search finds what is there: every form, in a file, a file's name, an output and a process.
#[test]
fn a_planted_secret_is_found() {
    let search = Arc::new(Search::new());
    let folder = tempfile::tempdir().expect("a folder");
    assert!(search.files(folder.path()).is_empty());
    let deep = folder.path().join("a/b");
    std::fs::create_dir_all(&deep).expect("folders");
    for core in CORES.iter() {
        let whole = value(core);
        let planted = [
            format!("x{whole}x"),
            format!("{{\"a\":{}}}", serde_json::to_string(&whole).expect("text")),
            format!("{:?}", Some(&whole)),
            base64(whole.as_bytes()),
            base64(format!("user:{whole}").as_bytes()),
            base64(format!("us:{whole}").as_bytes()),
            whole.bytes().map(|byte| format!("{byte:02x}")).collect(),
            whole.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            format!("postgresql://shop:{}@h/", whole.replace('%', "%25")),
        ];
        for text in planted {
            assert!(search.is_in(text.as_bytes()), "{text}");
            let path = deep.join("file");
            std::fs::write(&path, [b"\0\xff", text.as_bytes(), b"\n\0"].concat()).expect("written");
            assert_eq!(
                search.files(folder.path()),
                std::slice::from_ref(&path),
                "{text}"
            );
            std::fs::remove_file(path).expect("removed");
        }
        let path = deep.join(core);
        std::fs::write(&path, "").expect("written");
        assert_eq!(search.files(folder.path()), std::slice::from_ref(&path));
        std::fs::remove_file(path).expect("removed");
    }
    let _alone = PLANTED.write().unwrap_or_else(PoisonError::into_inner);
    // A shell that waits for its standard input: it ends when the test does.
    let shown = |argument: &str, variable: &str| {
        let watch = Watch::start(search.clone(), folder.path());
        let mut child = Command::new("sh");
        child
            .args(["-c", "read line", argument])
            .env("SOME_TOKEN", variable);
        child.stdin(Stdio::piped());
        let mut child = child.spawn().expect("sh is there");
        let pid = child.id();
        let seen = || {
            let seen = watch.seen.lock().expect("nobody panics");
            seen.iter()
                .any(|(what, times)| *times > 1 && what.contains(&pid.to_string()))
        };
        // Without an answer here there is one in the count.
        let _ = wait_until(Duration::from_secs(20), "it is seen", seen);
        drop(child.stdin.take());
        child.wait().expect("it ends");
        let found = watch.end();
        found
            .into_iter()
            .filter(|what| what.contains(&pid.to_string()))
            .count()
    };
    assert_eq!(shown(&value(&CORES[0]), "nothing"), 1);
    assert_eq!(shown("nothing", &value(&CORES[1])), 1);
}
