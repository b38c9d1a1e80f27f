//! Spec → Stack: every default filled, every reference followed.
//!
//! The tree that comes with the spec fits the rules (see `check.rs`), so texts parse. What is left are the mistakes
//! that need more than one place to see: words that refer to nothing, numbers that do not go together.

mod databases;
mod files;
mod hosts;
mod names;
mod recipes;
mod servers;
mod stores;
mod traffic;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::id::*;
use crate::model::stack::*;
use crate::model::units::{self, Bytes};

use super::format::url_host;
use super::nearest::{did_you_mean, one_of};
use super::source::Mistakes;
use super::spot::Spot;
use super::types::*;
use super::{Known, secret};

/// Resolves. The stack is only of use when there are no mistakes.
pub fn resolve(spec: &Spec, root: Spot, known: &Known, mistakes: &mut Mistakes) -> Stack {
    let groups = spec
        .servers
        .iter()
        .map(|(name, group)| (name.0.as_str(), group))
        .collect();
    let mut resolver = Resolver {
        spec,
        root,
        known,
        groups,
        mistakes,
    };
    let sites = resolver.sites();
    resolver.primary();
    let databases = resolver.databases();
    let files = resolver.files();
    let mut recipes = resolver.recipes();
    resolver.rsync(&files, &mut recipes);
    let balancer = resolver.balancer();
    let cache = resolver.cache();
    let servers = resolver.servers(&sites, &databases);
    resolver.enough_hosts(&sites, &servers);
    let (zones, names) = resolver.names();
    Stack {
        name: StackName::new(&spec.stack.0),
        primary: SiteName::new(&spec.primary.0),
        health: resolver.health(),
        secrets: resolver.secrets(),
        stores: resolver.stores(),
        commit_window: resolver.commit_window(),
        self_fence: spec.self_fence,
        sites,
        recipes,
        servers,
        balancer,
        cache,
        databases,
        files,
        zones,
        names,
    }
}

struct Resolver<'a, 'm> {
    spec: &'a Spec,
    root: Spot<'a>,
    known: &'a Known<'a>,
    groups: HashMap<&'a str, &'a GroupSpec>,
    mistakes: &'m mut Mistakes,
}

impl<'a> Resolver<'a, '_> {
    fn complain(&mut self, spot: Spot, message: impl Into<String>) {
        self.complain_hinted(spot, message, None);
    }

    fn complain_hinted(
        &mut self,
        spot: Spot,
        message: impl Into<String>,
        hint: impl IntoIterator<Item = String>,
    ) {
        if spot.sound {
            self.mistakes.add_hinted(spot.span(), message, hint);
        }
    }

    /// A word that refers to nothing. Silent while the words themselves are in doubt.
    fn unknown(&mut self, spot: Spot, noun: &str, word: &str, among: Spot, words: &[&str]) {
        if !spot.sound || !among.sound || among.has_lost() {
            return;
        }
        if self.mistakes.is_full() {
            return self.complain(spot, String::new());
        }
        let message = match words {
            [] => format!("unknown {noun} `{word}`: there is none"),
            _ => format!(
                "unknown {noun} `{word}`, expected {}",
                one_of(words.iter().copied())
            ),
        };
        self.complain_hinted(spot, message, did_you_mean(word, words.iter().copied()));
    }

    /// Complains about entries of a list that say the same.
    fn no_twins<'w>(
        &mut self,
        list: Spot,
        key: &str,
        noun: &str,
        words: impl Iterator<Item = &'w str>,
    ) {
        let mut seen = HashSet::new();
        for (index, word) in words.enumerate() {
            let spot = list.nth(index);
            let at = spot.key(key);
            if at.sound && !seen.insert(word) {
                self.complain(at, format!("there is a {noun} `{word}` already"));
            }
        }
    }

    fn primary(&mut self) {
        let sites: Vec<&str> = self
            .spec
            .sites
            .iter()
            .map(|(name, _)| name.0.as_str())
            .collect();
        let primary = self.spec.primary.0.as_str();
        if !sites.contains(&primary) {
            let (spot, among) = (self.root.key("primary"), self.root.key("sites"));
            self.unknown(spot, "site", primary, among, &sites);
        }
    }

    /// Ports are different, and stay different on a cloud that cannot use those below 1024.
    fn ports(&mut self, ports: &[Port], list: Spot) -> Vec<u16> {
        let mapped = self.spec.sites.iter().any(|(_, site)| {
            let cloud = self.known.cloud(&site.cloud.0);
            cloud.is_some_and(|cloud| !cloud.low_ports)
        });
        let mut seen: HashMap<u16, u16> = HashMap::new();
        for (index, Port(port)) in ports.iter().enumerate() {
            let spot = list.nth(index);
            if !spot.sound {
                continue;
            }
            let used = if mapped && *port < 1024 {
                port + 8000
            } else {
                *port
            };
            match seen.insert(used, *port) {
                Some(other) if other == *port => {
                    self.complain(spot, format!("there is a port {port} already"));
                }
                Some(other) => {
                    let message = format!(
                        "port {port} clashes with {other}: a cloud of this stack has no ports below 1024 and uses {used} for both"
                    );
                    self.complain(spot, message);
                }
                None => {}
            }
        }
        ports.iter().map(|port| port.0).collect()
    }

    /// Looks a group up; complains when there is none.
    fn group(&mut self, word: &'a str, spot: Spot) -> Option<&'a GroupSpec> {
        let found = self.groups.get(word).copied();
        if found.is_none() {
            let words: Vec<&str> = self
                .spec
                .servers
                .iter()
                .map(|(name, _)| name.0.as_str())
                .collect();
            self.unknown(spot, "group", word, self.root.key("servers"), &words);
        }
        found
    }

    fn health(&mut self) -> Vec<Check> {
        self.spec
            .health
            .iter()
            .map(|check| match check {
                HealthSpec::Ping { .. } => Check::Ping,
                HealthSpec::Http {
                    http,
                    status,
                    contains,
                } => Check::Http {
                    url: http.0.clone(),
                    status: *status,
                    contains: contains.as_ref().map(|text| text.0.clone()),
                },
            })
            .collect()
    }

    fn secrets(&mut self) -> BTreeMap<String, SecretRef> {
        let entries = self.spec.secrets.iter();
        entries
            .filter_map(|(name, text)| Some((name.0.clone(), secret::parse(&name.0, &text.0)?)))
            .collect()
    }

    fn commit_window(&mut self) -> units::Span {
        let window = time(&self.spec.commit_window);
        if window == units::Span::secs(0) {
            self.complain(
                self.root.key("commit_window"),
                "a commit window of no time leaves no way back",
            );
        }
        window
    }
}

fn time(text: &Time) -> units::Span {
    units::Span::parse(&text.0).expect("the format was checked")
}

fn amount(text: &Amount) -> Bytes {
    Bytes::parse(&text.0).expect("the format was checked")
}

/// Whether a health check looks at a name that this stack moves.
pub fn is_published(names: &[Name], url: &str) -> bool {
    let host = url_host(url).unwrap_or_default().to_ascii_lowercase();
    names.iter().any(|name| name.host.as_str() == host)
}
