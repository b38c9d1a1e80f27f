//! A stack of its own for each test, removed when the test ends, also when it fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::harness::skip::{missing_program, skipped};
use crate::harness::wait::wait_until;
use crate::harness::{Home, Ran, writable};

/// The demo's spec: what the tests try is what a new user sees.
pub const SPEC: &str = include_str!("../../templates/demo/hafog.yaml");
const PASSWORD: (&str, &str) = ("DATABASE_PASSWORD", "a-password-of-the-tests");
/// For things that take milliseconds; a limit, not an expectation.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Most of a test is waiting; more stacks than this at once wait for the machine.
static FREE: Mutex<usize> = Mutex::new(2);
static FREED: Condvar = Condvar::new();

/// A test's turn, until it is dropped.
pub struct Turn(());

impl Drop for Turn {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREED.notify_one();
    }
}

/// Waits for the test's turn. `None`, with the reason printed, when a program is missing.
pub fn turn(test: &str) -> Option<Turn> {
    if let Some(why) = missing_program() {
        skipped(test, &why);
        return None;
    }
    let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let free = FREED.wait_while(free, |free| *free == 0);
    *free.unwrap_or_else(PoisonError::into_inner) -= 1;
    Some(Turn(()))
}

/// A balancer and two web servers, without a database: the application is the test's own.
const WEB: &str = r#"
stack: shop
sites:
  east: { cloud: local }
primary: east
images:
  web:
    code: { path: ./app, to: /srv/app }
    services: [ { name: app, run: "python3 $HAFOG_IMAGE/srv/app/app.py" } ]
servers:
  web: { image: web, count: 2, open: [8000] }
balancer: { to: web, listen: [8080], check: { http: /healthz } }
names:
  - { host: www.shop.test, to: balancer, zone: { host: serve, name: shop.test }, ttl: 2s, failover_ttl: 1s }
"#;

/// In the stack's folder: the application of [`Lab::web`].
pub const APP: &str = "app/app.py";

/// What HAProxy answers at its socket.
pub fn haproxy(socket: &Path, words: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("HAProxy has a socket");
    let line = format!("{words}\n");
    stream.write_all(line.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Asks; status and body. `request` is its first line, and headers, each with its line break.
pub fn ask(to: SocketAddr, request: &str) -> (u16, String) {
    send(to, request, "")
}

/// The same with a body.
pub fn send(to: SocketAddr, request: &str, body: &str) -> (u16, String) {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let rest = "Host: www.shop.test\r\nConnection: close\r\n\r\n";
        write!(stream, "{request}{length}{rest}{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.expect("a status"), body.to_owned())
}

pub struct Lab {
    pub home: Home,
}

/// What outlives processes, unless somebody removes it.
#[derive(Debug, Default)]
pub struct Shared {
    pub segments: Vec<String>,
    pub files: Vec<String>,
}

impl Shared {
    /// What of it the machine still has.
    pub fn left(&self) -> Vec<&String> {
        let table = std::fs::read_to_string("/proc/sysvipc/shm").expect("this is Linux");
        let ids = table
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(1));
        let ids: Vec<&str> = ids.collect();
        let is_there = |id: &&String| ids.contains(&id.as_str());
        let segments = self.segments.iter().filter(is_there);
        let files = self.files.iter();
        segments
            .chain(files.filter(|file| std::path::Path::new(file).exists()))
            .collect()
    }
}

impl Lab {
    pub fn new() -> Lab {
        Lab {
            home: Home::with(SPEC),
        }
    }

    /// Web servers that run this application. `more` is the rest of the spec.
    pub fn web(app: &str, more: &str) -> Lab {
        Lab::web_with(app, |spec| format!("{spec}{more}"))
    }

    /// The same, of a spec that is changed like this.
    pub fn web_with(app: &str, change: impl Fn(&str) -> String) -> Lab {
        let lab = Lab::web_not_up(app, change);
        lab.must("up --yes");
        lab
    }

    pub fn web_not_up(app: &str, change: impl Fn(&str) -> String) -> Lab {
        let home = Home::with(&change(WEB));
        std::fs::create_dir(home.path().join("app")).expect("a folder");
        home.write(APP, app);
        Lab { home }
    }

    /// Where a server of the east is.
    pub fn address(&self, server: &str, port: u16) -> SocketAddr {
        let facts = self.facts();
        let host = &facts["sites"]["east"]["servers"][server]["host"];
        let address = host["address"].as_str().expect("an address");
        format!("{address}:{port}").parse().expect("an address")
    }

    /// What the HAProxy of the east's balancer answers.
    pub fn haproxy(&self, words: &str) -> String {
        let facts = self.facts();
        let dirs = &facts["sites"]["east"]["servers"]["shop-east-balancer-1"]["host"]["dirs"];
        let data = dirs["data"].as_str().expect("a folder");
        haproxy(&Path::new(data).join("haproxy.sock"), words)
    }

    /// A pair: the primary site, and a standby that could take over.
    pub fn with_standby() -> Lab {
        let lab = Lab::new();
        lab.must("up --yes");
        lab.must("clone west --yes");
        lab.until("the standby is ready", || lab.run("preflight").code == 0);
        lab
    }

    pub fn run(&self, words: &str) -> Ran {
        let words: Vec<&str> = words.split(' ').collect();
        self.home.run_with(&words, &[PASSWORD])
    }

    /// Runs a command that must succeed.
    pub fn must(&self, words: &str) -> Ran {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "`hafog {words}`\n{}", ran.all());
        ran
    }

    pub fn json(&self, words: &str) -> Value {
        self.run(&format!("{words} --json")).json()
    }

    pub fn start(&self, words: &str) -> Child {
        let words: Vec<&str> = words.split(' ').collect();
        let mut command = self.home.command(&words);
        command
            .env(PASSWORD.0, PASSWORD.1)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("the binary starts")
    }

    pub fn facts(&self) -> Value {
        self.json("show facts")
    }

    /// `hafog role` on a site's first application server.
    pub fn role(&self, site: &str, words: &[&str]) -> Ran {
        let servers = &self.facts()["sites"][site]["servers"];
        let host = &servers[format!("shop-{site}-web-1")]["host"];
        let etc = host["dirs"]["etc"]
            .as_str()
            .expect("a folder of the server");
        let token = format!("{etc}/role");
        let arguments = [&["role"], words].concat();
        self.home
            .run_with(&arguments, &[("HAFOG_ROLE_FILE", &token)])
    }

    /// Nodes that accept writes, in every site.
    pub fn writable(&self) -> Vec<String> {
        writable(&self.json("show facts"))
    }

    /// Polls until the condition holds.
    pub fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        wait_until(LIMIT, what, holds).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Kills this stack's `hafog dns serve` with -9.
    pub fn kill_name_server(&self) {
        let home = self.home.path().to_string_lossy().into_owned();
        let entries = std::fs::read_dir("/proc").expect("this is Linux").flatten();
        let serves = |entry: &std::fs::DirEntry| {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            words.contains("\0dns\0serve\0") && words.contains(&home)
        };
        let pids: Vec<String> = entries
            .filter(serves)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(pids.len(), 1, "one name server: {pids:?}");
        let killed = std::process::Command::new("kill")
            .args(["-9", &pids[0]])
            .status();
        assert!(killed.expect("kill is there").success());
    }

    /// Ids of the System V segments and names of the POSIX files that the databases hold.
    pub fn shared_memory(&self) -> Shared {
        let mut shared = Shared::default();
        for site in self.facts()["sites"].as_object().expect("sites").values() {
            for server in site["servers"].as_object().expect("servers").values() {
                let data = server["host"]["dirs"]["data"].as_str().expect("a folder");
                let pid = format!("{data}/postgres-main/main/postmaster.pid");
                let Ok(text) = std::fs::read_to_string(pid) else {
                    continue;
                };
                let pid = text.lines().next().expect("its process");
                let maps = std::fs::read_to_string(format!("/proc/{}/maps", pid.trim()));
                let maps = maps.expect("it runs");
                let words = maps.split_ascii_whitespace();
                let files = words.filter(|word| word.starts_with("/dev/shm/"));
                shared.files.extend(files.map(str::to_owned));
                let line = text.lines().nth(6).expect("its segment");
                let id = line.split_ascii_whitespace().nth(1).expect("an id");
                shared.segments.push(id.to_owned());
            }
        }
        shared
    }

    /// Processes whose working folder is below one of the stack's.
    pub fn processes(&self) -> usize {
        let home = self.home.path().to_string_lossy().into_owned();
        let facts = self.facts();
        let mut folders = vec![home];
        for site in facts["sites"]
            .as_object()
            .expect("facts have sites")
            .values()
        {
            for server in site["servers"]
                .as_object()
                .expect("a site has servers")
                .values()
            {
                if let Some(data) = server["host"]["dirs"]["data"].as_str() {
                    folders.push(data.trim_end_matches("/data").to_owned());
                }
            }
        }
        let entries = std::fs::read_dir("/proc").expect("this is Linux").flatten();
        let cwds = entries.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
        cwds.filter(|cwd| folders.iter().any(|folder| cwd.starts_with(folder)))
            .count()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // An unfinished run would stand in the way; what it did goes with the rest.
        let _ = self.run("abort --yes");
        let _ = self.run("resume --yes");
        let ran = self.run("destroy --yes");
        if ran.code != 0 && !std::thread::panicking() {
            panic!("the stack could not be removed\n{}", ran.all());
        }
    }
}
