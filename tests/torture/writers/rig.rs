//! A stack with a standby, and clients at work on both of its databases: what each was told, and what is kept.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use hafog::dns::ZoneSettings;

use super::clients::{self, Acknowledged, Door, Writing};
use super::lab::{Lab, SPEC};
use crate::harness::wait::wait_until;
use crate::harness::{Home, Ran};
use crate::random::Random;

const PASSWORD: &str = "a-password-of-the-tests";
/// Of the default write lease.
pub const LEASE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(180);

/// In a server's folder: where all of its database works, and nobody else.
pub const PGDATA: &str = "data/postgres-main/main";

/// A stack with a standby that is ready, and clients at work.
pub struct Rig {
    // Dropped first: the clients end before what they write to.
    pub writing: Writing,
    pub lab: Lab,
    doors: [Door; 2],
    /// Decides what the seed decides.
    pub random: Random,
}

/// In the place of a site: the passive node of the east.
pub const BESIDE: &str = "east, beside";

pub fn node(site: &str) -> String {
    match site {
        BESIDE => "shop-east-db-2".to_owned(),
        site => format!("shop-{site}-db-1"),
    }
}

fn site_of(site: &str) -> &str {
    site.split(',').next().unwrap_or(site)
}

impl Rig {
    pub fn new(seed: u64, strict: bool) -> Result<Rig, String> {
        Rig::with(seed, strict, "west")
    }

    /// One site, and clients at both of its nodes.
    pub fn beside(seed: u64) -> Result<Rig, String> {
        Rig::with(seed, false, BESIDE)
    }

    fn with(seed: u64, strict: bool, second: &'static str) -> Result<Rig, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut spec = SPEC.replace("ttl: 5s", "ttl: 2s");
        if strict {
            spec.push_str("self_fence: strict\n");
        }
        let lab = Lab {
            home: Home::with(&spec),
        };
        must(&lab, "up --yes")?;
        if second != BESIDE {
            must(&lab, "clone west --yes")?;
        }
        let facts = lab.facts();
        let ca = folder_of(&facts, "east", "shop-east-web-1").join("etc/database-ca.crt");
        let at = |site, name: &str| address(&facts, site_of(site), name);
        let door = |site| Door::new(site, at(site, &node(site)), PASSWORD, &ca);
        let doors = [door("east"), door(second)];
        clients::make_table(&doors[0])?;
        // Within a site nobody outside sees which node took an order that came through the name.
        let sites = ["east", second].into_iter().filter(|_| second != BESIDE);
        let balancers = sites.map(|site| (site, at(site, &format!("shop-{site}-balancer-1"))));
        let authorities = authorities(lab.home.path());
        let rig = Rig {
            writing: Writing::start(&doors, balancers.collect(), &authorities),
            lab,
            doors,
            random: Random::of(seed, "rig"),
        };
        rig.ready()?;
        Ok(rig)
    }

    /// Where in this span a fault hits, which is up to the seed.
    pub fn instant(&mut self, milliseconds: Range<u64>) -> Duration {
        let most = milliseconds.end - milliseconds.start;
        Duration::from_millis(milliseconds.start + self.random.below(most))
    }

    pub fn door(&self, site: &str) -> &Door {
        self.doors
            .iter()
            .find(|door| door.site == site)
            .expect("a site")
    }

    pub fn must(&self, words: &str) -> Result<Ran, String> {
        must(&self.lab, words)
    }

    pub fn ready(&self) -> Result<(), String> {
        let asked = match self.doors[1].site {
            BESIDE => "replicate status",
            _ => "preflight",
        };
        until("the standby is ready", || self.lab.run(asked).code == 0)
            .map_err(|why| format!("{why}\n{}", self.lab.run(asked).all()))
    }

    /// Waits until an order that is sent after now is taken through the name.
    pub fn takes_orders(&self) -> Result<(), String> {
        let before = self.writing.orders();
        // Those on their way were sent before.
        let on_their_way = 2;
        until("an order is taken", || {
            self.writing.orders() > before + on_their_way
        })
    }

    /// Waits until the site's database acknowledges something after now.
    pub fn writes(&self, site: &str) -> Result<(), String> {
        let began = Instant::now();
        until(&format!("{site} acknowledges"), || {
            let book = self.writing.book();
            book.iter()
                .rev()
                .take_while(|one| one.at > began)
                .any(|one| one.site == site)
        })
    }

    /// The sites in the order in which they acknowledged. Two writers show as a change too many.
    pub fn reigns(&self, expected: &[&str]) -> Result<usize, String> {
        let book = self.writing.book();
        let mut reigns: Vec<&Acknowledged> = Vec::new();
        for one in &book {
            if reigns.last().is_none_or(|last| last.site != one.site) {
                reigns.push(one);
            }
        }
        let sites: Vec<&str> = reigns.iter().map(|one| one.site).collect();
        if sites == expected {
            return Ok(book.len());
        }
        let began = book.first().map(|one| one.at).unwrap_or_else(Instant::now);
        let told = reigns.iter().map(|one| {
            format!(
                "{} from {:.3} s ({})",
                one.site,
                (one.at - began).as_secs_f64(),
                one.id
            )
        });
        let told = told.collect::<Vec<_>>().join(", ");
        Err(format!(
            "DOUBLE WRITER: expected {expected:?}, and acknowledged: {told}"
        ))
    }

    pub fn is_the_only_one(&self, site: &str) -> Result<(), String> {
        let mut writable = Vec::new();
        // On a busy machine a look may end before the node has answered it.
        let seen = until("somebody is writable", || {
            writable = self.lab.writable();
            !writable.is_empty()
        });
        match seen.is_ok() && writable == [node(site)] {
            true => Ok(()),
            false => Err(format!(
                "writable are {writable:?}, and not only {}",
                node(site)
            )),
        }
    }

    /// Acknowledged by `old` before `to` was opened, and not in `to`.
    pub fn lost(&self, old: &str, to: &str) -> Result<Vec<Acknowledged>, String> {
        let held = self.writing.held(self.door(to))?;
        let book = self.writing.book();
        let lost = book
            .into_iter()
            .filter(|one| one.site == old && !held.contains(&one.id));
        Ok(lost.collect())
    }

    /// The same, of the last reign of `old` alone: what an earlier one lost was told then.
    pub fn lost_last(&self, old: &str, to: &str) -> Result<Vec<Acknowledged>, String> {
        let held = self.writing.held(self.door(to))?;
        let book = self.writing.book().into_iter().rev();
        let reign = book.skip_while(|one| one.site != old);
        let reign = reign.take_while(|one| one.site == old);
        let mut lost: Vec<Acknowledged> = reign.filter(|one| !held.contains(&one.id)).collect();
        lost.reverse();
        Ok(lost)
    }

    pub fn folder(&self, site: &str) -> PathBuf {
        folder_of(&self.lab.facts(), site_of(site), &node(site))
    }
}

fn must(lab: &Lab, words: &str) -> Result<Ran, String> {
    let ran = lab.run(words);
    match ran.code {
        0 => Ok(ran),
        _ => Err(format!("`hafog {words}`\n{}", ran.all())),
    }
}

pub fn until(what: &str, holds: impl FnMut() -> bool) -> Result<(), String> {
    wait_until(LIMIT, what, holds)
}

fn server<'a>(facts: &'a Value, site: &str, name: &str) -> &'a Value {
    &facts["sites"][site]["servers"][name]["host"]
}

fn address(facts: &Value, site: &str, name: &str) -> IpAddr {
    let text = server(facts, site, name)["address"].as_str();
    text.and_then(|text| text.parse().ok())
        .expect("the server has an address")
}

fn folder_of(facts: &Value, site: &str, name: &str) -> PathBuf {
    let data = server(facts, site, name)["dirs"]["data"]
        .as_str()
        .expect("the server has a folder");
    Path::new(data.trim_end_matches("/data")).to_owned()
}

fn authorities(home: &Path) -> Vec<SocketAddr> {
    let about = hafog::dns::registry::find("serve").expect("hafog's own name server is built in");
    let settings = ZoneSettings {
        zone: "shop.test".into(),
        settings: Default::default(),
        home: home.join(".hafog"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime can be made");
    let host = (about.open)(&settings).expect("the zone opens");
    runtime
        .block_on(host.authorities())
        .expect("it has authorities")
}

/// Figures, for whoever reads along.
pub fn note(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// What everything on a server said last.
fn last_words(folder: &Path) -> String {
    let logs = std::fs::read_dir(folder.join("log"));
    let logs = logs.into_iter().flatten().flatten();
    let words = logs.map(|log| {
        let bytes = std::fs::read(log.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        format!("==== {}\n{}\n", log.path().display(), lines.join("\n"))
    });
    words.collect()
}

/// The old primary's machine is on again, and its database accepts nothing.
pub fn comes_back_closed(rig: &Rig) -> Result<String, String> {
    let mut last = Value::Null;
    let answers = until("the old primary answers", || {
        rig.lab.run("local power shop-east-db-1 on");
        last = rig.lab.facts()["nodes"]["shop-east-db-1"].take();
        last["status"]["known"].is_object()
    });
    answers.map_err(|why| format!("{why}; it was {last}\n{}", last_words(&rig.folder("east"))))?;
    rig.writes("west")?;
    rig.is_the_only_one("west")?;
    rig.reigns(&["east", "west"])?;
    rig.must("commit --yes")?;
    rig.must("failback --rejoin-only --yes")?;
    rig.ready()?;
    rig.reigns(&["east", "west"])?;
    Ok("moved, one writer".to_owned())
}
