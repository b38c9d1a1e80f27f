//! Files that follow the primary site: what is where afterwards, on the disks of the servers.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lab::{LIMIT, Lab, SPEC, Turn, turn};
use crate::harness::skip::skipped;
use crate::harness::wait::wait_until;

const FIRST: [&str; 2] = ["shop-east-web-1", "shop-west-web-1"];

struct Shop {
    lab: Lab,
    /// Of the servers, by name.
    folders: Vec<(String, PathBuf, PathBuf)>,
}

/// With these words at the entry of the files.
fn spec(more: &str) -> String {
    let secrets = "secrets: {";
    assert!(SPEC.contains(secrets));
    let files = format!(
        "files:\n  uploads: {{ on: web, path: /srv/uploads, writer: first, every: 1s{more} }}\n{secrets}"
    );
    SPEC.replace(secrets, &files)
}

impl Shop {
    fn new(more: &str) -> Shop {
        let lab = Lab::new();
        lab.home.write("hafog.yaml", &spec(more));
        lab.must("up --yes");
        let mut shop = Shop {
            lab,
            folders: Vec::new(),
        };
        shop.look();
        shop
    }

    fn with_standby(more: &str) -> Shop {
        let mut shop = Shop::new(more);
        shop.put(FIRST[0], "before", "was there before the standby");
        shop.lab.must("clone west --yes");
        shop.look();
        shop
    }

    /// Where the servers have their folders.
    fn look(&mut self) {
        let facts = self.lab.facts();
        self.folders.clear();
        for site in facts["sites"].as_object().expect("sites").values() {
            for (name, server) in site["servers"].as_object().expect("servers") {
                let dir = |part: &str| {
                    let text = server["host"]["dirs"][part].as_str();
                    PathBuf::from(text.expect("a folder"))
                };
                let files = dir("data").join("files/uploads");
                self.folders.push((name.clone(), files, dir("etc")));
            }
        }
    }

    fn of(&self, server: &str) -> &(String, PathBuf, PathBuf) {
        let mut all = self.folders.iter();
        all.find(|(name, ..)| name == server).expect("it is there")
    }

    fn path(&self, server: &str, name: &str) -> PathBuf {
        self.of(server).1.join(name)
    }

    fn put(&self, server: &str, name: &str, text: &str) {
        fs::write(self.path(server, name), text).expect("a file");
    }

    fn get(&self, server: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.path(server, name)).ok()
    }

    /// All that a server has, sorted.
    fn has(&self, server: &str) -> Vec<String> {
        let folder = fs::read_dir(self.path(server, ""))
            .expect("a folder")
            .flatten();
        let names = folder.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != ".hafog-files").collect();
        names.sort();
        names
    }

    /// What a server put aside: names and contents.
    fn aside(&self, server: &str) -> Vec<(String, String)> {
        let folder = self.of(server).1.with_file_name("uploads.hafog/aside");
        let mut found = Vec::new();
        for one in fs::read_dir(folder).into_iter().flatten().flatten() {
            for file in fs::read_dir(one.path()).into_iter().flatten().flatten() {
                let name = file.file_name().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(file.path()).unwrap_or_default()));
            }
        }
        found.sort();
        found
    }

    /// Tells a server that its site has another role.
    fn tell(&self, server: &str, token: &str) {
        fs::write(self.of(server).2.join("role"), format!("{token}\n")).expect("a file");
    }

    fn report(&self, server: &str) -> String {
        let path = self.of(server).2.join("files/uploads.report.json");
        fs::read_to_string(path).unwrap_or_default()
    }

    fn until_has(&self, server: &str, name: &str, text: &str) {
        let what = format!("{server} has `{name}`");
        self.lab
            .until(&what, || self.get(server, name).as_deref() == Some(text));
    }

    /// The process that keeps a server's files.
    fn keeper(&self, server: &str) -> Pid {
        let path = self.of(server).2.join("files/keep.pid");
        let pid = fs::read_to_string(path).expect("it runs");
        Pid::from_raw(pid.trim().parse().expect("a number"))
    }

    fn status(&self, server: &str) -> serde_json::Value {
        let status = self.lab.json("status");
        let files = status["files"].as_array().expect("files").iter();
        let mut of = files.filter(|one| one["server"] == server);
        of.next().expect("it is there").clone()
    }
}

fn at_work(test: &str) -> Option<Turn> {
    if !Path::new("/usr/bin/rsync").exists() {
        skipped(test, "rsync is missing: apt-get install rsync");
        return None;
    }
    turn(test)
}

#[test]
fn files_follow_the_primary_site_wherever_it_goes() {
    let Some(_turn) = at_work("files_follow_the_primary_site_wherever_it_goes") else {
        return;
    };
    let shop = Shop::with_standby(", delete: 2");
    // `clone` was over only when they were there.
    let before = shop.get(FIRST[1], "before");
    assert_eq!(before.as_deref(), Some("was there before the standby"));
    assert!(shop.lab.must("up --yes").stdout.contains("nothing to do"));

    shop.put(FIRST[0], "more", "1");
    for server in ["shop-east-web-2", "shop-west-web-1", "shop-west-web-2"] {
        shop.until_has(server, "more", "1");
    }
    fs::remove_file(shop.path(FIRST[0], "more")).expect("it was there");
    let gone = || shop.has("shop-west-web-2") == ["before"] && shop.has(FIRST[1]) == ["before"];
    shop.lab.until("what goes here goes there", gone);
    assert_eq!(shop.status(FIRST[1])["level"], "fine");

    // Three at once are too many, and none of them goes before somebody says so.
    for name in ["a", "b", "c"] {
        shop.put(FIRST[0], name, name);
    }
    shop.until_has(FIRST[1], "c", "c");
    shop.lab.must("sync --yes");
    for name in ["a", "b", "c"] {
        fs::remove_file(shop.path(FIRST[0], name)).expect("it was there");
    }
    let held = shop.lab.run("sync uploads --yes");
    assert_eq!(held.code, 4, "{}", held.all());
    assert!(
        held.stderr.contains("hint: hafog sync uploads --delete 3"),
        "{}",
        held.all()
    );
    shop.put(FIRST[0], "d", "new ones come all the same");
    shop.until_has(FIRST[1], "d", "new ones come all the same");
    assert_eq!(shop.has(FIRST[1]), ["a", "b", "before", "c", "d"]);
    let preflight = shop.lab.run("preflight west");
    assert!(
        preflight.stdout.contains("3 files fewer"),
        "{}",
        preflight.all()
    );
    shop.lab.must("sync uploads --delete 3 --yes");
    assert_eq!(shop.has(FIRST[1]), ["before", "d"]);

    // A file that rotted away keeps its size and its time.
    let rotten = shop.path(FIRST[1], "d");
    let time = fs::metadata(&rotten)
        .and_then(|meta| meta.modified())
        .expect("a time");
    let file = fs::File::options()
        .write(true)
        .open(&rotten)
        .expect("a file");
    std::os::unix::fs::FileExt::write_at(&file, b"X", 0).expect("a byte");
    file.set_modified(time).expect("a time");
    drop(file);
    let plain = shop.lab.must("sync --yes");
    assert!(!plain.stdout.contains("other contents"), "{}", plain.all());
    let verified = shop.lab.must("sync --verify --yes");
    assert!(
        verified
            .stderr
            .contains("1 of them had other contents and are mended"),
        "{}",
        verified.all()
    );
    shop.until_has(FIRST[1], "d", "new ones come all the same");

    // Written right before a planned move, and after it on the other side.
    shop.put(FIRST[0], "last", "at east");
    shop.lab.must("switchover --yes");
    assert_eq!(shop.get(FIRST[1], "last").as_deref(), Some("at east"));
    shop.put(FIRST[1], "later", "at west");
    shop.until_has(FIRST[0], "later", "at west");
    shop.until_has("shop-west-web-2", "later", "at west");
    assert_eq!(shop.aside(FIRST[0]), []);
    shop.lab.must("commit --yes");

    // Its site is lost with a file that nobody else has: that is kept, and said.
    kill(shop.keeper(FIRST[0]), Signal::SIGSTOP).expect("it runs");
    shop.put(FIRST[1], "alone", "nobody else has it");
    shop.put(FIRST[1], "later", "and this has changed");
    shop.lab.must("local power west off");
    kill(shop.keeper(FIRST[0]), Signal::SIGCONT).expect("it runs");
    shop.lab.must("failover --yes");
    shop.put(FIRST[0], "after", "the failover");
    shop.lab.must("local power west on");
    shop.lab.must("failback west --rejoin-only --yes");
    shop.until_has(FIRST[1], "after", "the failover");
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let kept = [
        pair("alone", "nobody else has it"),
        pair("later", "and this has changed"),
    ];
    shop.lab.until("what it alone had is aside", || {
        shop.aside(FIRST[1]) == kept
    });
    assert_eq!(shop.get(FIRST[1], "later").as_deref(), Some("at west"));
    // Said when the copy that put them aside is whole: it may still be under way here.
    shop.lab.until("status says what is aside", || {
        let status = shop.lab.run("status").stdout;
        status.contains("shop-west-web-1 put files aside: ")
    });
}

#[test]
fn nothing_is_deleted_when_directions_are_confused() {
    let Some(_turn) = at_work("nothing_is_deleted_when_directions_are_confused") else {
        return;
    };
    let shop = Shop::with_standby("");
    let servers = [
        "shop-east-web-1",
        "shop-east-web-2",
        "shop-west-web-1",
        "shop-west-web-2",
    ];
    for server in &servers[1..] {
        shop.until_has(server, "before", "was there before the standby");
    }
    let all = |tokens: [&str; 2]| {
        for server in servers {
            let token = if server.contains("-east-") {
                tokens[0]
            } else {
                tokens[1]
            };
            shop.tell(server, token);
        }
    };
    let refuses = |server: &str, why: &str| {
        let what = format!("{server} says: {why}");
        let said = wait_until(LIMIT, &what, || shop.report(server).contains(why));
        said.unwrap_or_else(|why| panic!("{why}: {}", shop.report(server)));
    };
    // Nobody is the source.
    all(["standby 1", "standby 1"]);
    shop.put(FIRST[0], "east", "of the east");
    shop.put(FIRST[1], "west", "of the west");
    refuses(FIRST[0], "its site is standby");
    refuses(FIRST[1], "its site is standby");
    assert_eq!(shop.has(FIRST[0]), ["before", "east"]);
    assert_eq!(shop.has(FIRST[1]), ["before", "west"]);
    // Both are: neither follows the other.
    all(["primary 1", "primary 7"]);
    shop.until_has("shop-east-web-2", "east", "of the east");
    shop.until_has("shop-west-web-2", "west", "of the west");
    assert_eq!(shop.has(FIRST[0]), ["before", "east"]);
    assert_eq!(shop.has(FIRST[1]), ["before", "west"]);
    // The wrong way round: what only the east has is put aside.
    all(["standby 1", "primary 7"]);
    shop.until_has(FIRST[0], "west", "of the west");
    shop.lab.until("it is aside", || {
        shop.aside(FIRST[0]) == [("east".to_owned(), "of the east".to_owned())]
    });
    // Right again, but as it was long ago: who has seen a newer epoch follows no older one.
    all(["primary 1", "standby 7"]);
    refuses(FIRST[1], "has been superseded");
    assert_eq!(shop.has(FIRST[1]), ["before", "west"]);
    // An empty mount is no source, whatever its role.
    all(["primary 8", "standby 8"]);
    shop.lab.until("it follows", || {
        shop.report(FIRST[1]).contains("\"epoch\":8")
    });
    let folder = shop.path(FIRST[0], "");
    fs::rename(&folder, folder.with_file_name("elsewhere")).expect("a folder");
    refuses(FIRST[1], "never whole");
    assert_eq!(shop.has(FIRST[1]), ["before", "west"]);
    assert_eq!(shop.status(FIRST[0])["level"], "critical");
}

#[test]
fn a_lost_source_gets_its_files_back() {
    let Some(_turn) = at_work("a_lost_source_gets_its_files_back") else {
        return;
    };
    let mut shop = Shop::with_standby("");
    shop.put(FIRST[0], "one", "1");
    shop.until_has(FIRST[1], "one", "1");
    // It is only off: what it alone has comes with it.
    shop.lab.must("local power shop-east-web-1 off");
    let refused = shop.lab.run("heal --yes");
    assert_eq!(refused.code, 3, "{}", refused.all());
    assert!(refused.stderr.contains("files-alone"), "{}", refused.all());
    let no_source = shop.lab.run("sync --yes");
    assert!(
        no_source.code == 3 && no_source.stderr.contains("no-source"),
        "{}",
        no_source.all()
    );
    shop.lab.must("heal --yes --accept files-alone");
    shop.look();
    assert_eq!(shop.get(FIRST[0], "one").as_deref(), Some("1"));
    assert_eq!(shop.has(FIRST[0]), ["before", "one"]);
    shop.put(FIRST[0], "two", "2");
    shop.until_has(FIRST[1], "two", "2");
    shop.until_has("shop-east-web-2", "two", "2");
}

#[test]
fn a_copy_that_is_cut_goes_on_and_a_bound_is_kept() {
    let Some(_turn) = at_work("a_copy_that_is_cut_goes_on_and_a_bound_is_kept") else {
        return;
    };
    let shop = Shop::new(", bandwidth: 2MiB");
    // 16 MiB that no compression makes smaller, at 2 MiB a second.
    let mut number = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        number = number
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (number >> 56) as u8
    })
    .take(16 << 20)
    .collect();
    fs::write(shop.path(FIRST[0], "big"), &bytes).expect("a file");
    let begun = std::time::Instant::now();
    let follower = "shop-east-web-2";
    let parts = shop.of(follower).1.with_file_name("uploads.hafog/partial");
    let under_way = || {
        let names = fs::read_dir(shop.path(follower, ""))
            .into_iter()
            .flatten()
            .flatten();
        let sizes = names.filter(|one| one.file_name().to_string_lossy().contains("big"));
        sizes
            .filter_map(|one| Some(one.metadata().ok()?.len()))
            .any(|size| size > 1 << 20)
    };
    shop.lab.until("a part of it is there", under_way);
    kill(shop.keeper(follower), Signal::SIGKILL).expect("it runs");
    let whole = || fs::read(shop.path(follower, "big")).is_ok_and(|now| now == bytes);
    shop.lab.until("all of it is there", whole);
    // The bound is for the sender, and counts from the first byte, however often it began.
    assert!(begun.elapsed().as_secs_f64() > 4.0, "{:?}", begun.elapsed());
    shop.lab.must("sync --verify --yes");
    let left = fs::read_dir(parts).into_iter().flatten().count();
    assert_eq!(left, 0, "parts stay behind");
}
