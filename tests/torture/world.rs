//! The judge: what the world is like, seen without hafog's journal or its words. Processes and files are read from
//! the machine, names from the DNS server, rows from the databases, and orders go through the front door.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hafog::cloud::SiteSettings;
use hafog::cloud::local::base_folder;

use crate::harness::wait::poll;
use crate::processes::{mark_of, parent, pids, program, words};
use crate::results::{DOUBLE, STRAY};
use crate::stack::{Stack, Wrong};
use crate::tree::{beside, files, names_in};

pub const SITES: [&str; 2] = ["east", "west"];
const NAME: &str = "www.shop.test";
const TARGET: &str = "www.hafog-shop.shop.test";
/// How long the world may take to come to rest after a command.
const SETTLES: Duration = Duration::from_secs(90);
const ANSWERS: Duration = Duration::from_secs(5);

/// What the world should be like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expect {
    /// Sites whose servers run.
    pub on: Vec<&'static str>,
    pub primary: Option<&'static str>,
    /// Sites whose databases have every row.
    pub follow: Vec<&'static str>,
    /// After a move that is not committed, answers of DNS are short-lived.
    pub short_ttl: bool,
}

/// What was acknowledged, and what an uncut run left.
#[derive(Default)]
pub struct Ledger {
    orders: BTreeSet<String>,
    pictures: Arc<Mutex<BTreeMap<Expect, BTreeSet<String>>>>,
    /// What the last look saw of an uncut run: it is at rest when the next look sees the same.
    last_look: BTreeSet<String>,
    number: usize,
}

impl Ledger {
    /// For another stack of the same spec: its own rows, the same pictures.
    pub fn beside(&self) -> Ledger {
        Ledger {
            pictures: self.pictures.clone(),
            ..Ledger::default()
        }
    }

    /// A stack that was removed has no rows.
    pub fn forget_orders(&mut self) {
        self.orders.clear();
    }
}

/// Processes and files that are there at rest.
pub struct World<'a> {
    pub stack: &'a Stack,
    pub ledger: &'a mut Ledger,
}

impl World<'_> {
    /// Looks until everything is as it should be. Two writers are wrong at any moment.
    pub fn judge(&mut self, expect: &Expect, uncut: bool) -> Result<(), Wrong> {
        let wrong = until_none(SETTLES, || self.look(expect, uncut))?;
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "after {} s, expected {expect:?}\n{}",
                SETTLES.as_secs(),
                wrong.join("\n")
            )),
        }
    }

    fn look(&mut self, expect: &Expect, uncut: bool) -> Result<Vec<String>, Wrong> {
        let mut wrong = Vec::new();
        let running = self.processes();
        self.servers(expect, &running, &mut wrong);
        self.strays(expect, &mut wrong);
        if !wrong.is_empty() {
            return Ok(wrong);
        }
        if let Some(primary) = expect.primary {
            let addresses = self.addresses()?;
            self.writer(primary, &addresses, &mut wrong)?;
            self.records(primary, expect.short_ttl, &addresses, &mut wrong);
            if wrong.is_empty() {
                self.rows(primary, &expect.follow, &addresses, &mut wrong);
            }
        }
        if wrong.is_empty() {
            self.picture(expect, uncut, &running, &mut wrong);
        }
        Ok(wrong)
    }

    /// Every server of the sites that are on has processes, and nobody else has.
    fn servers(
        &self,
        expect: &Expect,
        running: &BTreeMap<String, Vec<String>>,
        wrong: &mut Vec<String>,
    ) {
        let found: BTreeSet<String> = running.keys().cloned().collect();
        let wanted: BTreeSet<String> = expect.on.iter().copied().flat_map(servers_of).collect();
        for name in wanted.difference(&found) {
            wrong.push(format!("{name} does not run"));
        }
        for name in found.difference(&wanted) {
            wrong.push(format!("{STRAY}{name} runs and should not"));
        }
        for (name, programs) in running
            .iter()
            .filter(|(name, _)| name.contains("-balancer-"))
        {
            if programs.is_empty() {
                wrong.push(format!("{name} runs no balancer yet"));
            }
        }
        // Also that of an old primary which is back: its engine boots closed.
        for (name, programs) in running.iter().filter(|(name, _)| name.contains("-db-")) {
            if !programs.iter().any(|program| program == "postgres") {
                wrong.push(format!("{name} runs no database yet"));
            }
        }
        let names = name_servers(self.stack.home.path());
        if names != usize::from(expect.primary.is_some()) {
            wrong.push(format!("{names} name servers run"));
        }
    }

    /// What the processes of each server are: the programs that its supervisor keeps up.
    fn processes(&self) -> BTreeMap<String, Vec<String>> {
        let folders: Vec<PathBuf> = SITES.iter().map(|site| self.base(site)).collect();
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pid in pids() {
            let Some(folder) = mark_of(pid) else { continue };
            if !folders.iter().any(|base| folder.starts_with(base)) {
                continue;
            }
            let name = folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let programs = all.entry(name).or_default();
            let is_service = parent(pid)
                .is_some_and(|parent| words(parent).get(1).is_some_and(|word| word == "supervise"));
            if is_service {
                programs.push(program(pid));
            }
        }
        for programs in all.values_mut() {
            programs.sort();
        }
        all
    }

    pub fn base(&self, site: &str) -> PathBuf {
        let settings = SiteSettings {
            stack: "shop".into(),
            site: site.into(),
            network: None,
            region: None,
            hosts: Vec::new(),
            home: self.stack.home.path().join(".hafog"),
        };
        base_folder(&settings).expect("the folder of a site has a name")
    }

    /// Files and claims that nobody needs.
    fn strays(&self, expect: &Expect, wrong: &mut Vec<String>) {
        let claims = std::fs::read_dir("/var/lib/hafog/blocks")
            .into_iter()
            .flatten()
            .flatten();
        let claims: Vec<String> = claims
            .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
            .collect();
        for site in SITES {
            let base = self.base(site);
            let kept = expect.primary.is_some() && base.join("site.json").exists();
            let claimed = claims
                .iter()
                .filter(|claim| Path::new(claim.trim()) == base)
                .count();
            if claimed != usize::from(kept) {
                wrong.push(format!(
                    "{claimed} blocks of addresses are claimed for {site}"
                ));
            }
            let there = names_in(&base.join("servers"));
            let wanted: Vec<String> = match expect.primary {
                Some(_) if base.exists() && !there.is_empty() => servers_of(site).collect(),
                _ => Vec::new(),
            };
            if there != wanted {
                wrong.push(format!(
                    "{site} has folders of {there:?}, wanted {wanted:?}"
                ));
            }
            if expect.primary.is_none() && base.exists() {
                wrong.push(format!("{STRAY}{} is left", base.display()));
            }
            for name in names_in(&base.join("images")) {
                if !base.join("images").join(&name).join("image.json").exists() {
                    wrong.push(format!("{STRAY}image {name} of {site} is half made"));
                }
            }
            beside(&base, wrong);
        }
        beside(self.stack.home.path(), wrong);
        let keys = self.stack.home.path().join(".hafog/keys");
        if expect.primary.is_none() && keys.exists() {
            wrong.push(format!("{STRAY}{} is left", keys.display()));
        }
    }

    /// What is there at rest, without what differs from run to run.
    /// The processes are those that were judged: a database that boots may end once and start again, because nobody has
    /// buried yet the process that its lock file names.
    fn picture(
        &mut self,
        expect: &Expect,
        uncut: bool,
        running: &BTreeMap<String, Vec<String>>,
        wrong: &mut Vec<String>,
    ) {
        let mut lines = BTreeSet::new();
        for (server, programs) in running {
            lines.insert(format!("{server} runs {}", programs.join(", ")));
        }
        for site in SITES {
            let base = self.base(site);
            files(&base, &base, &mut lines);
        }
        let names = self.stack.home.path().join(".hafog/names");
        files(&names, &names, &mut lines);
        let pictures = &self.ledger.pictures;
        let mut pictures = pictures.lock().unwrap_or_else(PoisonError::into_inner);
        match pictures.get(expect) {
            Some(whole) => {
                wrong.extend(
                    whole
                        .difference(&lines)
                        .map(|line| format!("missing beside an uncut run: {line}")),
                );
                wrong.extend(
                    lines
                        .difference(whole)
                        .map(|line| format!("{STRAY}not there after an uncut run: {line}")),
                );
            }
            None if uncut && self.ledger.last_look != lines => {
                self.ledger.last_look = lines;
                wrong.push("it is not seen to be at rest yet".to_owned());
            }
            None if uncut => drop(pictures.insert(expect.clone(), lines)),
            None => {}
        }
    }

    fn addresses(&self) -> Result<BTreeMap<String, IpAddr>, Wrong> {
        let facts = self.stack.json("show facts")?;
        let sites = facts["sites"].as_object().ok_or("facts have no sites")?;
        let servers = sites
            .values()
            .filter_map(|site| site["servers"].as_object())
            .flatten();
        servers
            .map(|(name, server)| {
                let text = server["host"]["address"].as_str().unwrap_or_default();
                let address = text.parse().map_err(|_| format!("{name} has no address"))?;
                Ok((name.clone(), address))
            })
            .collect()
    }

    /// Nodes that take a row, of those whose server runs.
    pub fn writers(&mut self) -> Result<Vec<String>, Wrong> {
        let addresses = self.addresses()?;
        Ok(self.writers_at(&addresses))
    }

    fn writers_at(&mut self, addresses: &BTreeMap<String, IpAddr>) -> Vec<String> {
        let nodes = addresses.iter().filter(|(name, _)| name.contains("-db-"));
        nodes
            .filter(|(name, address)| {
                self.ledger.number += 1;
                // By everybody's rights, and in spite of a default that is read-only: what counts is whether it can.
                let sql = format!(
                    "BEGIN READ WRITE; CREATE TABLE IF NOT EXISTS probes (id text); INSERT INTO probes VALUES ('{name}-{}'); COMMIT",
                    self.ledger.number
                );
                self.sql(**address, &sql).is_ok()
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn writer(
        &mut self,
        primary: &str,
        addresses: &BTreeMap<String, IpAddr>,
        wrong: &mut Vec<String>,
    ) -> Result<(), Wrong> {
        let writers = self.writers_at(addresses);
        if writers.len() > 1 {
            return Err(format!("{DOUBLE}: {} take rows", writers.join(" and ")));
        }
        if writers != [format!("shop-{primary}-db-1")] {
            wrong.push(format!(
                "rows are taken by {writers:?}, not by shop-{primary}-db-1"
            ));
        }
        Ok(())
    }

    fn sql(&self, address: IpAddr, sql: &str) -> Result<String, String> {
        let (cert, key) = self.pair()?;
        let to = format!(
            "host={address} port=5432 user=hafog_admin dbname=shop sslmode=require sslcert={} sslkey={} connect_timeout=3",
            cert.display(),
            key.display()
        );
        let output = Command::new(crate::harness::psql())
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, &to])
            .env(
                "PGOPTIONS",
                "-c statement_timeout=5000 -c synchronous_commit=local",
            )
            .output()
            .map_err(|error| format!("psql: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// The administrator's certificate as files of psql, outside of the stack's folders.
    fn pair(&self) -> Result<(PathBuf, PathBuf), String> {
        let kept = self
            .stack
            .home
            .path()
            .join(".hafog/keys/client-hafog_admin.json");
        let text = std::fs::read_to_string(&kept)
            .map_err(|error| format!("no administrator's key: {error}"))?;
        let pair: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let folder = self.stack.scratch();
        let write = |name: &str, what: &str| {
            use std::os::unix::fs::OpenOptionsExt;
            let path = folder.join(name);
            let mut file = std::fs::OpenOptions::new();
            let file = file
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path);
            let text = pair[what].as_str().unwrap_or_default();
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .map(|()| path)
                .map_err(|error| error.to_string())
        };
        Ok((
            write("admin.crt", "cert_pem")?,
            write("admin.key", "key_pem")?,
        ))
    }

    /// The name leads to the primary site's balancer, with the TTL of the moment.
    fn records(
        &self,
        primary: &str,
        short: bool,
        addresses: &BTreeMap<String, IpAddr>,
        wrong: &mut Vec<String>,
    ) {
        let balancer = addresses
            .get(&format!("shop-{primary}-balancer-1"))
            .map(IpAddr::to_string);
        let ttl = if short { 1 } else { 2 };
        let wanted = [
            format!("{NAME}. 2 IN CNAME {TARGET}."),
            format!("{TARGET}. {ttl} IN A {}", balancer.unwrap_or_default()),
        ];
        match self.dig() {
            Ok(answer) if answer == wanted => {}
            Ok(answer) => wrong.push(format!("DNS answers {answer:?}, wanted {wanted:?}")),
            Err(why) => wrong.push(why),
        }
    }

    /// Whether the name leads to the site's balancer now.
    pub fn leads_to(&self, site: &str) -> bool {
        let Ok(addresses) = self.addresses() else {
            return false;
        };
        let balancer = addresses.get(&format!("shop-{site}-balancer-1"));
        let ends = balancer.map(|address| format!(" IN A {address}"));
        let answer = self.dig().unwrap_or_default();
        ends.is_some_and(|ends| answer.iter().any(|line| line.ends_with(&ends)))
    }

    /// One look.
    pub fn is(&mut self, expect: &Expect) -> bool {
        self.look(expect, false).is_ok_and(|wrong| wrong.is_empty())
    }

    fn dig(&self) -> Result<Vec<String>, String> {
        let server = name_server_of(self.stack.home.path()).ok_or("no name server listens")?;
        let output = Command::new("dig")
            .args([
                &format!("@{}", server.ip()),
                "-p",
                &server.port().to_string(),
                NAME,
                "A",
            ])
            .args([
                "+norecurse",
                "+notcp",
                "+noall",
                "+answer",
                "+time=2",
                "+tries=2",
            ])
            .output()
            .map_err(|error| format!("dig: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with(';') && !line.is_empty());
        Ok(lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect())
    }

    /// An order through the front door is acknowledged, and every node has every order that ever was.
    fn rows(
        &mut self,
        primary: &str,
        follow: &[&str],
        addresses: &BTreeMap<String, IpAddr>,
        wrong: &mut Vec<String>,
    ) {
        self.ledger.number += 1;
        let id = format!("order-{}", self.ledger.number);
        let door = addresses.get(&format!("shop-{primary}-balancer-1"));
        let door = SocketAddr::new(*door.expect("the balancer was asked for before"), 8080);
        match post(door, &id) {
            Ok(()) => drop(self.ledger.orders.insert(id)),
            Err(why) => return wrong.push(format!("an order at {door} was not taken: {why}")),
        }
        for site in follow {
            for node in [format!("shop-{site}-db-1"), format!("shop-{site}-db-2")] {
                if let Err(why) = self.has_all(&node, addresses) {
                    wrong.push(format!("{node}: {why}"));
                }
            }
        }
    }

    fn has_all(&self, node: &str, addresses: &BTreeMap<String, IpAddr>) -> Result<(), String> {
        let address = addresses.get(node).ok_or("it has no address")?;
        let orders = &self.ledger.orders;
        let missing = until_none(ANSWERS, || {
            let found = self.sql(*address, "SELECT id FROM orders")?;
            let found: BTreeSet<&str> = found.lines().collect();
            let missing = orders.iter().filter(|id| !found.contains(id.as_str()));
            Ok(missing.collect())
        })?;
        if !missing.is_empty() {
            return Err(format!(
                "of {} acknowledged orders, {missing:?} are missing",
                orders.len()
            ));
        }
        let streams = "SELECT pg_is_in_recovery(), count(*) FILTER (WHERE status = 'streaming') FROM pg_stat_wal_receiver";
        match self.sql(*address, streams)?.trim() {
            "f|0" | "t|1" => Ok(()),
            other => Err(format!("it does not stream ({other})")),
        }
    }
}

/// Looks until nothing is wrong. What still is when the limit is over.
fn until_none<W>(
    limit: Duration,
    mut look: impl FnMut() -> Result<Vec<W>, Wrong>,
) -> Result<Vec<W>, Wrong> {
    let mut last = Vec::new();
    let ended = poll(limit, || match look() {
        Ok(wrong) if wrong.is_empty() => Some(Ok(wrong)),
        Ok(wrong) => {
            last = wrong;
            None
        }
        Err(why) => Some(Err(why)),
    });
    ended.unwrap_or(Ok(last))
}

/// Posts an order as a user does; anything but 201 is no acknowledgement.
fn post(door: SocketAddr, id: &str) -> Result<(), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&door, ANSWERS)?;
        stream.set_read_timeout(Some(ANSWERS))?;
        let mut request = String::new();
        let _ = write!(
            request,
            "POST /orders HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{id}",
            id.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let status = answer.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("201") => Ok(()),
        _ => Err(format!("`{status}`")),
    }
}

fn servers_of(site: &str) -> impl Iterator<Item = String> {
    ["balancer-1", "db-1", "db-2", "web-1", "web-2"]
        .into_iter()
        .map(move |name| format!("shop-{site}-{name}"))
}

fn name_servers(home: &Path) -> usize {
    pids()
        .into_iter()
        .filter(|pid| serves(*pid, home).is_some())
        .count()
}

fn name_server_of(home: &Path) -> Option<SocketAddr> {
    pids().into_iter().find_map(|pid| serves(pid, home))
}

/// Where a process answers for the stack's zones, if it does.
fn serves(pid: i32, home: &Path) -> Option<SocketAddr> {
    let words = words(pid);
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1)
    };
    let is_ours = words.get(1)? == "dns"
        && words.get(2)? == "serve"
        && Path::new(after("--folder")?).starts_with(home);
    is_ours.then(|| after("--listen")?.parse().ok()).flatten()
}
