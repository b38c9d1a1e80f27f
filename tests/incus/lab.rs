//! The lab: two clouds and a third place, and a stack across them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::harness::skip;
use crate::harness::wait::{poll, wait_until};
use crate::harness::{Home, Ran, writable};

/// The lab of this run, or why there is none.
pub static LAB: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let lab = start();
    if let Err(why) = &lab {
        skip::skipped("incus", why);
    }
    lab.ok()
});

fn start() -> Result<PathBuf, String> {
    if std::env::var_os("HAFOG_LAB").is_none() {
        return Err("`make lab` prepares two clouds, and HAFOG_LAB=1 asks for them".to_owned());
    }
    let missing = clouds(&["missing"]);
    if !missing.0 {
        return Err(missing.1.trim().replace('\n', ", "));
    }
    let folder = PathBuf::from("/tmp/hafog-lab");
    // Held until this process ends; another run of the tests waits here.
    let alone = File::create("/tmp/hafog-lab.lock").map_err(|error| error.to_string())?;
    let alone =
        Flock::lock(alone, FlockArg::LockExclusive).map_err(|(_, error)| error.to_string())?;
    std::mem::forget(alone);
    // What a run left that was killed is no part of this one: its machines would boot, with keys that nobody has.
    lab(&["down", "/tmp/hafog-lab"]);
    let up = clouds(&["up", "/tmp/hafog-lab"]);
    assert!(up.0, "the lab does not start: {}", up.1);
    let lab: serde_json::Value = serde_json::from_str(&up.1).expect("the lab says where it is");
    configure(&folder.join("conf"), &lab["clouds"]).expect("a client's folder");
    Ok(folder)
}

pub fn clouds(arguments: &[&str]) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/clouds");
    let ran = Program::new(script)
        .args(arguments)
        .env("HAFOG_LAB_TMPFS", "8G")
        .stdin(Stdio::null())
        .output()
        .expect("the lab's script is there");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let text = match text.is_empty() {
        true => String::from_utf8_lossy(&ran.stderr).into_owned(),
        false => text,
    };
    (ran.status.success(), text)
}

/// The lab's script, which must succeed.
pub fn lab(arguments: &[&str]) -> String {
    let (done, said) = clouds(arguments);
    assert!(done, "clouds {}: {said}", arguments.join(" "));
    said
}

/// What `incus remote add` would write.
fn configure(folder: &Path, clouds: &serde_json::Value) -> std::io::Result<()> {
    std::fs::create_dir_all(folder.join("servercerts"))?;
    let mut remotes = String::from("remotes:\n");
    for (name, cloud) in clouds.as_object().expect("clouds") {
        let text = |key: &str| cloud[key].as_str().expect("text").to_owned();
        remotes.push_str(&format!("  {name}: {{ addr: \"{}\" }}\n", text("url")));
        std::fs::copy(text("client_certificate"), folder.join("client.crt"))?;
        std::fs::copy(text("client_key"), folder.join("client.key"))?;
        let pinned = folder.join("servercerts").join(format!("{name}.crt"));
        std::fs::copy(text("server_certificate"), pinned)?;
    }
    std::fs::write(folder.join("config.yml"), remotes)
}

/// Machines that boot, packages that are installed, databases that are copied: a limit, not an expectation.
const LIMIT: Duration = Duration::from_secs(180);
pub const PASSWORD: (&str, &str) = ("DATABASE_PASSWORD", "a-password-of-the-tests");
/// The machine that keeps the arbiter, in the third place.
const THIRD: (&str, &str) = ("third", "10.66.3.10");

/// A stack across both clouds, with its arbiter in the third place. Removed when the test ends, also when it fails.
pub struct Pair {
    pub home: Home,
    conf: PathBuf,
    agent: Child,
    /// Machines in the second cloud that no hafog made.
    strangers: Vec<String>,
    /// Let go when everything is gone.
    _turns: [MutexGuard<'static, ()>; 2],
}

/// One at a time in each cloud: Incus lets a name be once on a bridge, whatever the project. Whoever kills a cloud is
/// alone with both.
static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

pub fn turn(cloud: usize) -> MutexGuard<'static, ()> {
    TURNS[cloud].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pair {
    /// On two clouds of containers.
    pub fn new() -> Option<Pair> {
        let mut pair = Pair::bare()?;
        let host_key = pair.third();
        let spec = SPEC.replace("HOST_KEY", &host_key);
        pair.home.write("hafog.yaml", &spec);
        Some(pair)
    }

    /// The same with one server of each kind, for what takes its turns with one node.
    pub fn small() -> Option<Pair> {
        let pair = Pair::new()?;
        let spec = pair.home.read("hafog.yaml");
        let few = [
            ("count: 2, open", "count: 1, open"),
            ("count: 2, disk", "count: 1, disk"),
            ("replicas: 1, ", "replicas: 0, "),
        ];
        let spec = few.iter().fold(spec, |spec, (many, one)| {
            assert!(spec.contains(many), "{many}");
            spec.replace(many, one)
        });
        pair.home.write("hafog.yaml", &spec);
        Some(pair)
    }

    /// The west is made of machines that exist already.
    pub fn registered() -> Option<Pair> {
        let mut pair = Pair::bare()?;
        let spec = SPEC.replace("HOST_KEY", &pair.third());
        let hosts: String = (1..=5).map(|number| pair.stranger(number)).collect();
        let west = "west: { cloud: incus, region: b }";
        assert!(spec.contains(west));
        let hosts = format!("west:\n    cloud: ssh\n    hosts:{hosts}");
        pair.home.write("hafog.yaml", &spec.replace(west, &hosts));
        Some(pair)
    }

    /// Without a spec, and without the third place.
    pub fn bare() -> Option<Pair> {
        let conf = LAB.as_ref()?.join("conf");
        LazyLock::force(&WHY);
        let turns = [0, 1].map(turn);
        let home = Home::new();
        let agent = agent(&home);
        Some(Pair {
            home,
            conf,
            agent,
            strangers: Vec::new(),
            _turns: turns,
        })
    }

    /// Makes a machine in the second cloud; its line in `hosts`.
    pub fn stranger(&mut self, number: u32) -> String {
        let (name, address) = (format!("old-{number}"), format!("10.66.2.{}", 10 + number));
        let key = self.machine("b", &name, &address);
        self.strangers.push(name);
        format!("\n      - {{ ssh: root@{address}, host_key: \"{key}\" }}")
    }

    /// Makes the machine of the third place; its host key.
    fn third(&mut self) -> String {
        let (name, address) = THIRD;
        let key = self.machine("c", name, address);
        let program = env!("CARGO_BIN_EXE_hafog");
        let target = format!("{name}/usr/local/bin/hafog");
        let push = ["file", "push", "--quiet", "--mode=0755", program, &target];
        let (done, said) = incus("c", &push);
        assert!(done, "{said}");
        key
    }

    /// Makes a machine that lets this test in; its host key.
    fn machine(&self, cloud: &str, name: &str, address: &str) -> String {
        let must = |arguments: &[&str]| {
            let (done, said) = incus(cloud, arguments);
            assert!(done, "incus {}: {said}", arguments.join(" "));
            said
        };
        let _ = incus(cloud, &["delete", "--force", name]);
        let place = format!("eth0,ipv4.address={address}");
        must(&["launch", "debian-12", name, "--quiet", "--device", &place]);
        let to = |path: &str| format!("{name}{path}");
        let key = self.home.path().join("me.pub").display().to_string();
        let target = to("/root/.ssh/authorized_keys");
        must(&[
            "file",
            "push",
            "--quiet",
            "--mode=0600",
            "--uid=0",
            "--gid=0",
            &key,
            &target,
        ]);
        let source = to("/etc/ssh/ssh_host_ed25519_key.pub");
        let key = poll(LIMIT, || {
            let (done, said) = incus(cloud, &["file", "pull", &source, "-"]);
            done.then_some(said)
        });
        let key = key.unwrap_or_else(|| panic!("{name} has no host key"));
        wait_until(LIMIT, &format!("{name} lets SSH in"), || {
            std::net::TcpStream::connect((address, 22)).is_ok()
        })
        .unwrap_or_else(|why| panic!("{why}"));
        let words: Vec<&str> = key.split_whitespace().take(2).collect();
        words.join(" ")
    }

    pub fn command(&self, words: &str) -> Program {
        let words: Vec<&str> = words.split(' ').collect();
        let mut command = self.home.command(&words);
        command
            .env(PASSWORD.0, PASSWORD.1)
            .env("INCUS_CONF", &self.conf)
            .env("SSH_AUTH_SOCK", self.home.path().join("agent"));
        command
    }

    pub fn run(&self, words: &str) -> Ran {
        let output = self.command(words).output().expect("the binary starts");
        self.home.ran(output.status, output.stdout, &output.stderr)
    }

    pub fn must(&self, words: &str) -> Ran {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "`hafog {words}`\n{}", ran.all());
        ran
    }

    pub fn json(&self, words: &str) -> Value {
        self.run(&format!("{words} --json")).json()
    }

    /// Nodes that accept writes, in every site.
    pub fn writable(&self) -> Vec<String> {
        writable(&self.json("show facts"))
    }

    /// The address of a site's balancer.
    pub fn address(&self, site: &str) -> String {
        // A cloud that is busy may answer late.
        let address = poll(LIMIT, || {
            let facts = self.json("show facts");
            let server = &facts["sites"][site]["servers"][format!("shop-{site}-balancer-1")];
            server["host"]["address"].as_str().map(str::to_owned)
        });
        address.expect("the balancer has an address")
    }

    /// Orders something at a site's balancer; whether it was acknowledged.
    pub fn order(&self, address: &str, id: &str) -> bool {
        let url = format!("http://{address}/orders");
        curl(&["-d", id, &url]).is_some()
    }

    pub fn orders(&self, address: &str) -> Vec<String> {
        let got = curl(&[&format!("http://{address}/orders")]).unwrap_or_default();
        got.split_whitespace().map(str::to_owned).collect()
    }

    /// Who may come to the third place.
    pub fn admitted(&self) -> String {
        let source = format!("{}/root/.ssh/authorized_keys", THIRD.0);
        incus("c", &["file", "pull", &source, "-"]).1
    }

    pub fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        wait_until(LIMIT, what, holds).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Until this node accepts writes. One that is busy may be late to say so; a second one is never right.
    pub fn until_writer(&self, node: &str) {
        self.until(&format!("{node} accepts writes"), || {
            let open = self.writable();
            assert!(open.len() <= 1, "several accept writes: {open:?}");
            open == [node]
        });
    }

    /// Runs a command until it says so. What it said last is in the panic.
    pub fn until_says(&self, what: &str, words: &str, so: impl Fn(&Ran) -> bool) {
        let mut last = String::new();
        let said = wait_until(LIMIT, what, || {
            let ran = self.run(words);
            last = ran.all();
            so(&ran)
        });
        said.unwrap_or_else(|why| panic!("{why}; `hafog {words}` said last:\n{last}"));
    }

    /// Everything is as the spec says. A machine that is busy may not show it in time at the first look.
    pub fn until_nothing_to_do(&self, verb: &str) {
        let what = format!("`{verb}` has nothing to do");
        self.until_says(&what, &format!("{verb} --yes"), |ran| {
            ran.code == 0 && ran.stdout.contains("nothing to do")
        });
    }

    /// The site that is not primary could take over now.
    pub fn until_ready(&self, what: &str, words: &str) {
        self.until_says(what, words, |ran| ran.code == 0);
    }
}

/// Why each thread panicked: it is said again behind the evidence, for a long output is read from its end.
static WHY: LazyLock<Mutex<Vec<(std::thread::ThreadId, String)>>> = LazyLock::new(|| {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let why = (std::thread::current().id(), panic.to_string());
        WHY.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        before(panic);
    }));
    Mutex::default()
});

impl Pair {
    /// What the services of the database machines said, for whoever reads why a test failed.
    fn evidence(&self) {
        for site in ["east", "west"] {
            // Short, for what a reader sees of it is: the last lines, without what the commands of a run leave.
            const SAID: &str = "journalctl --no-pager -o short-precise -u 'hafog-hafog-*' -u 'hafog-postgres-*' | tail -n 8; \
                                for log in /var/lib/hafog/log/*.log; do echo \"$log:\"; \
                                grep -v 'skipping missing\\|STATEMENT:\\|no pg_hba.conf\\|pg_hba.conf rejects' $log | tail -n 8; done";
            let server = format!("shop-{site}-db-1");
            let (_, said) = on_server(site, &server, &["sh", "-c", SAID]);
            println!("--- {server} says:\n{said}");
        }
        let me = std::thread::current().id();
        for (_, why) in WHY
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|(thread, _)| *thread == me)
        {
            println!("--- {why}");
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = clouds(&["heal"]);
        if std::thread::panicking() {
            self.evidence();
        }
        for cloud in ["a", "b"] {
            let _ = clouds(&["revive", cloud]);
        }
        let _ = self.run("abort --yes");
        // What stays would be in the way of the next test.
        let destroyed = || (self.run("destroy --yes").code == 0).then_some(());
        let _ = poll(LIMIT, destroyed);
        for name in &self.strangers {
            let _ = incus("b", &["delete", "--force", name]);
        }
        let _ = incus("c", &["delete", "--force", THIRD.0]);
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// An agent with a key of this test, so that `ssh` needs no file of the user who runs it.
fn agent(home: &Home) -> Child {
    let key = home.path().join("me");
    let made = Program::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("ssh-keygen is there").success());
    let socket = home.path().join("agent");
    let agent = Program::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .expect("ssh-agent is there");
    let add = || {
        let mut add = Program::new("ssh-add");
        add.arg("-q")
            .arg(&key)
            .env("SSH_AUTH_SOCK", &socket)
            .stderr(Stdio::null());
        add.status().is_ok_and(|status| status.success())
    };
    wait_until(LIMIT, "the agent has the key", add).unwrap_or_else(|why| panic!("{why}"));
    agent
}

pub fn curl(arguments: &[&str]) -> Option<String> {
    let ran = Program::new("curl")
        .args(["-sf", "--noproxy", "*", "--max-time", "5"])
        .args(arguments)
        .output()
        .expect("curl is there");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    ran.status.success().then_some(text)
}

/// The cloud of a site.
pub fn cloud(site: &str) -> &'static str {
    if site == "east" { "a" } else { "b" }
}

/// A command on one of the stack's servers.
pub fn on_server(site: &str, server: &str, words: &[&str]) -> (bool, String) {
    let project = format!("shop-{site}");
    let exec = ["exec", server, "--project", &project, "--"];
    incus(cloud(site), &[&exec, words].concat())
}

/// The command of Incus on one of the three.
pub fn incus(cloud: &str, arguments: &[&str]) -> (bool, String) {
    let all: Vec<&str> = ["incus", cloud].iter().chain(arguments).copied().collect();
    clouds(&all)
}

const SPEC: &str = r#"
stack: shop
sites:
  east: { cloud: incus, region: a }
  west: { cloud: incus, region: b }
primary: east
images:
  web:
    base: debian-12
    packages: [curl]
    services:
      - { name: app, run: "$HAFOG_EXE demo-app" }
servers:
  web: { image: web, count: 2, open: [8081], size: { cpu: 1, memory: 256MiB } }
  db: { image: postgres-15, count: 2, disk: 2GiB, size: { cpu: 1, memory: 512MiB } }
balancer: { to: web, listen: [80], check: { http: /healthz } }
databases:
  main: { engine: postgres, on: db, replicas: 1, password: DATABASE_PASSWORD }
secrets: { DATABASE_PASSWORD: env }
names:
  - { host: www.shop.test, to: balancer, zone: { host: serve, name: shop.test }, ttl: 5s, failover_ttl: 1s }
health:
  - { http: "http://www.shop.test/healthz", status: 200, contains: ok }
state:
  - ./.hafog
  - { url: "ssh://root@10.66.3.10/srv/hafog/shop", host_key: "HOST_KEY", arbiter: true }
"#;
