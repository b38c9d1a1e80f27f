//! The spec as a whole: every fixture with its exact output, and whatever else a file may hold.

mod damaged;
mod fixtures;
mod hostile;
mod mistakes;
mod resolved;
mod schema;
mod starters;

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::{Fault, Kind};
use crate::ui::snippet;

/// The words of today's registries.
const KNOWN: Known = Known {
    clouds: &[
        CloudWord {
            name: "local",
            low_ports: false,
            seal: true,
            firewall: false,
            disks: false,
            copies: false,
            entry: false,
        },
        CloudWord {
            name: "ssh",
            low_ports: true,
            seal: false,
            firewall: false,
            disks: false,
            copies: false,
            entry: false,
        },
        CloudWord {
            name: "incus",
            low_ports: true,
            seal: true,
            firewall: true,
            disks: true,
            copies: true,
            entry: true,
        },
    ],
    engines: &[EngineWord {
        name: "postgres",
        port: 5432,
        versions: &(14..=17),
    }],
    dns_hosts: &[DnsWord {
        name: "serve",
        settings: &[],
    }],
};

/// Words that lints about real clouds need.
const WIDE: Known = Known {
    clouds: &[
        CloudWord {
            name: "local",
            low_ports: false,
            seal: true,
            firewall: false,
            disks: false,
            copies: false,
            entry: false,
        },
        CloudWord {
            name: "aws",
            low_ports: true,
            seal: true,
            firewall: false,
            disks: true,
            copies: false,
            entry: false,
        },
        CloudWord {
            name: "digitalocean",
            low_ports: true,
            seal: true,
            firewall: false,
            disks: true,
            copies: false,
            entry: false,
        },
        CloudWord {
            name: "incus",
            low_ports: true,
            seal: true,
            firewall: true,
            disks: true,
            copies: true,
            entry: true,
        },
    ],
    engines: KNOWN.engines,
    dns_hosts: &[
        DnsWord {
            name: "serve",
            settings: &[],
        },
        DnsWord {
            name: "digitalocean",
            settings: &[],
        },
        DnsWord {
            name: "rfc2136",
            settings: &["server", "key"],
        },
    ],
};

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/stacks")
        .join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn good(text: &str) -> Loaded {
    load_str("hafog.yaml", text, &WIDE).unwrap_or_else(|faults| panic!("{}", all(&faults)))
}

fn bad(text: &str) -> Vec<Fault> {
    load_str("hafog.yaml", text, &WIDE).expect_err("the spec has mistakes")
}

fn all(faults: &[Fault]) -> String {
    let texts: Vec<String> = faults
        .iter()
        .map(|fault| snippet::render(fault, false))
        .collect();
    texts.join("\n")
}

fn fixture(named: &str) -> PathBuf {
    let mut good = fixtures("").into_iter();
    good.find(|path| name(path) == named).unwrap()
}

fn small() -> String {
    fs::read_to_string(fixture("small.yaml")).unwrap()
}

/// Every fault of the spec points at something that is in it.
fn inside(faults: &[Fault], text: &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = source::Source::new("f", text);
    for fault in faults {
        if fault.kind() != Kind::Spec {
            continue;
        }
        let place = fault
            .place()
            .unwrap_or_else(|| panic!("{fault} has no place"));
        assert!(
            (1..=source.lines.len()).contains(&place.line),
            "{fault:?} {place:?}"
        );
        let length = place.text.chars().count();
        assert!(
            (1..=length.max(1)).contains(&place.column),
            "{fault:?} {place:?}"
        );
        assert!(
            place.width >= 1 && place.column + place.width <= length.max(1) + 1,
            "{fault:?} {place:?}"
        );
        assert!(!fault.message().is_empty());
    }
}
