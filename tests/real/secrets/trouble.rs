//! The same search while things go wrong: a wrong password, a database that does not answer, a bug, and a `git add`.

use std::path::{Path, PathBuf};

use super::*;

/// `DATABASE_PASSWORD` of the second `up`, and of the application that was given a wrong one.
static OTHER: LazyLock<&str> = LazyLock::new(|| CORES[2].as_str());

#[test]
fn no_secret_is_said_when_things_go_wrong() {
    let Some(_turn) = turn("no_secret_is_said_when_things_go_wrong") else {
        return;
    };
    let (mut canaries, watch) = Canaries::new();
    panicking(&mut canaries);
    canaries.must("up --yes");
    committed_to_git(&canaries);
    wrong_password(&mut canaries);
    unreachable_database(&mut canaries);
    canaries.are_nowhere(watch);
}

/// A bug in the step that has the password in its hands. The next `up` goes on.
fn panicking(canaries: &mut Canaries) {
    let mut command = canaries.lab.home.command(&["up", "--yes"]);
    command
        .env("DATABASE_PASSWORD", value(&CORES[0]))
        .env(MARK, canaries.lab.home.path())
        .env("RUST_BACKTRACE", "full")
        .env("HAFOG_PANIC", "create-database");
    let ran = command.output().expect("the binary starts");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(101), "{said}");
    let hands = "HAFOG_PANIC at create-database, with (Node";
    assert!(said.contains(hands) && said.contains("Some(***)"), "{said}");
    for stream in [&ran.stdout, &ran.stderr] {
        if canaries.search.is_in(stream) {
            canaries.leaks.push("the crash message says it".to_owned());
        }
    }
}

/// What a person would commit: everything that git takes. Their own secret file is theirs to keep out.
fn committed_to_git(canaries: &Canaries) {
    let home = canaries.lab.home.path();
    let keys = home.join(".hafog/keys");
    assert!(keys.join("authority.json").exists(), "there are no keys");
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.args(words).current_dir(home).env("HOME", home);
        let ran = git.output().expect("git is installed");
        assert!(ran.status.success(), "git {words:?}: {ran:?}");
        ran.stdout
    };
    canaries.lab.home.write(".gitignore", "stripe.key\n");
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    let taken = String::from_utf8_lossy(&git(&["ls-files"])).into_owned();
    assert_eq!(taken, ".gitignore\nhafog.yaml\n");
    // The keys are kept out by a file of their own, also where the folder around them is somebody else's.
    git(&["init", "-q", ".hafog"]);
    std::fs::remove_file(home.join(".hafog/.gitignore")).expect("it was there");
    let mut add = Command::new("git");
    add.args(["-C", ".hafog", "add", "-A"]).current_dir(home);
    assert!(add.status().expect("git is installed").success());
    let index = git(&["-C", ".hafog", "grep", "--cached", "-l", "-e", ""]);
    let index = String::from_utf8_lossy(&index).into_owned();
    assert!(index.contains("docs/"), "nothing was added: {index}");
    assert!(!index.contains("keys/"), "{index}");
    for path in index.lines() {
        let file = format!(":{path}");
        let text = git(&["-C", ".hafog", "show", &file]);
        let is_key = String::from_utf8_lossy(&text).contains("PRIVATE KEY");
        assert!(!is_key && !canaries.search.is_in(&text), "{path}");
    }
    std::fs::write(home.join(".hafog/.gitignore"), "*\n").expect("the folder is writable");
    for folder in [".git", ".hafog/.git"] {
        std::fs::remove_dir_all(home.join(folder)).expect("it was made above");
    }
}

/// The application of one server logs in with what is not the password, until the database says so in its log.
fn wrong_password(canaries: &mut Canaries) {
    let sites = canaries.servers();
    let web = server(&sites, "shop-east-web-1");
    let path = web.join("etc/env");
    let good = std::fs::read_to_string(&path).expect("it was delivered");
    assert!(
        good.contains(CORES[0].as_str()),
        "another password than expected"
    );
    std::fs::write(&path, good.replace(CORES[0].as_str(), &OTHER)).expect("it is ours");
    let log = server(&sites, "shop-east-db-1").join("log");
    let refused = |canaries: &Canaries| {
        let _ = canaries.quietly("status", &value(&CORES[0]));
        logs(&log).contains("password authentication failed")
    };
    assert!(!logs(&log).contains("password authentication failed"));
    restart_app(&web);
    let lab = Lab::until;
    lab(&canaries.lab, "the database refuses the login", || {
        refused(canaries)
    });
    for words in [
        "status",
        "status --json",
        "preflight --json",
        "up --dry-run",
    ] {
        canaries.run(words);
    }
    std::fs::write(&path, good).expect("it is ours");
    restart_app(&web);
}

/// The database hangs, then is off, while `up` would give it another password.
fn unreachable_database(canaries: &mut Canaries) {
    for (power, back) in [("freeze", "thaw"), ("off", "on")] {
        canaries.must(&format!("local power shop-east-db-1 {power}"));
        let ran = canaries.quietly("up --yes --parallelism 1", &value(&OTHER));
        for stream in [&ran.stdout, &ran.stderr] {
            if canaries.search.is_in(stream) {
                canaries
                    .leaks
                    .push(format!("`up` says it while the database is {power}"));
            }
        }
        canaries.run("status");
        canaries.must(&format!("local power shop-east-db-1 {back}"));
    }
}

fn server(sites: &BTreeSet<PathBuf>, name: &str) -> PathBuf {
    let folders = sites.iter().map(|site| site.join("servers").join(name));
    let mut there = folders.filter(|folder| folder.exists());
    there.next().expect("the server has a folder")
}

fn logs(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| std::fs::read(file.path()).ok());
    texts
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .collect()
}

/// Its supervisor starts it again, with what is in `etc/env` now.
fn restart_app(server: &Path) {
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").expect("this is Linux").flatten() {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let is_here = std::fs::read_link(entry.path().join("cwd"))
            .is_ok_and(|folder| folder.starts_with(server));
        let line = read("cmdline");
        let is_app = line
            .split(|byte| *byte == 0)
            .any(|word| word == b"demo-app");
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if is_here && is_app {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("it is ours");
            killed += 1;
        }
    }
    assert!(killed > 0, "no application runs in {}", server.display());
}
