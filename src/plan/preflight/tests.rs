//! What the checks say of good and of bad worlds, word for word.

use super::*;
use crate::cloud::{Server, ServerState};
use crate::db::{Certificate, Follower, Heartbeat, Link, NodeRole, NodeStatus, Position};
use crate::model::files::{Report, Whole};
use crate::model::record::{RecordSet, RecordType};
use crate::model::roles::{Published, Roles, TtlLease, Version, Writer};
use crate::model::stack::Server as StackServer;
use crate::model::units::Ttl;
use crate::plan::facts::{FilesFact, NodeFact, SiteFacts, ZoneFacts};
use crate::sim::stacks::small;
use insta::assert_snapshot;
use jiff::Timestamp;
use std::collections::BTreeMap;

const NODE: &str = "shop-west-db-1";

fn now() -> Timestamp {
    "2026-11-21T09:14:03Z".parse().unwrap()
}

fn status(role: NodeRole, link: Option<Link>) -> NodeStatus {
    NodeStatus {
        role,
        writable: role == NodeRole::Primary,
        timeline: 1,
        system: "7".to_owned(),
        version: "15".to_owned(),
        position: Position("0/1".to_owned()),
        received: None,
        link,
        replaying: false,
        heartbeat: Some(Heartbeat {
            seq: 1,
            at: now() - Duration::from_millis(800),
        }),
        committed: None,
        transactions: None,
        followers: Vec::new(),
        confirmed_by: Vec::new(),
        confirming: false,
        seen: now(),
    }
}

fn record() -> RecordSet {
    RecordSet {
        host: "www.hafog-shop.shop.test".into(),
        kind: RecordType::A,
        ttl: Ttl(3600),
        values: ["127.0.0.2".to_owned()].into(),
    }
}

/// East is primary and everything is as it should be.
pub(crate) fn fine(stack: &Stack) -> Facts {
    let images: BTreeMap<RecipeName, ImageName> = stack
        .recipes
        .keys()
        .map(|recipe| (recipe.clone(), ImageName::new(format!("{recipe}-1"))))
        .collect();
    let site = |site: &crate::model::stack::Site| {
        let server = |server: &crate::model::stack::Server| Server {
            name: server.name.clone(),
            id: String::new(),
            state: ServerState::Running,
            image: None,
            tags: BTreeMap::new(),
            host: None,
        };
        let servers = stack.servers_at(&site.name);
        let facts = SiteFacts {
            is_made: true,
            firewall: None,
            entry: None,
            answers: Seen::Known(()),
            servers: servers.map(|one| (one.name.clone(), server(one))).collect(),
            images: images.values().cloned().collect(),
            untried: std::collections::BTreeSet::new(),
        };
        (site.name.clone(), facts)
    };
    let mut primary = status(NodeRole::Primary, None);
    primary.followers.push(Follower {
        node: NODE.into(),
        streaming: true,
        replayed: None,
        headroom: Some(64 << 20),
    });
    let follows = |from: &str| {
        let from = from.to_owned();
        status(NodeRole::Replica, Some(Link::Up { from }))
    };
    let node = |name: &str, site: &str, status| {
        let fact = NodeFact {
            database: "main".into(),
            site: site.into(),
            has_data: Seen::Known(true),
            status: Seen::Known(status),
            certificates: Seen::Known(vec![Certificate {
                name: "server".to_owned(),
                until: now() + Duration::from_secs(397 * 24 * 3600),
            }]),
            behind: None,
        };
        (ServerName::new(name), fact)
    };
    let writer = Writer {
        epoch: 3,
        node: Some("shop-east-db-1".into()),
        lease_until: Some(now() + Duration::from_secs(9)),
        confirmed_by: Vec::new(),
        beat: None,
    };
    let published = Published {
        serial: 1,
        versions: vec![Version {
            set: record(),
            from: now(),
            to: None,
        }],
        ttl_leases: BTreeMap::new(),
    };
    let zone = ZoneFacts {
        open: Seen::Known(true),
        closable: Seen::Known(true),
        records: vec![record()],
    };
    Facts {
        at: now(),
        roles: Some(Roles {
            serial: 1,
            primary: "east".into(),
            standbys: vec!["west".into()],
            left_behind: Vec::new(),
            heads: Vec::new(),
            provisional: None,
            changed: now(),
            by: "r".into(),
        }),
        published,
        sites: stack.sites.iter().map(site).collect(),
        nodes: [
            node("shop-east-db-1", "east", primary),
            node("shop-east-db-2", "east", follows("shop-east-db-1")),
            node(NODE, "west", follows("shop-east-db-1")),
            node("shop-west-db-2", "west", follows(NODE)),
        ]
        .into(),
        writers: [("main".into(), writer)].into(),
        zones: [("shop.test".into(), zone)].into(),
        images,
        configured: Default::default(),
        doors: [
            ("east".into(), Seen::Known(200)),
            ("west".into(), Seen::Known(200)),
        ]
        .into(),
        files: BTreeMap::new(),
        connected: Default::default(),
        apart: BTreeMap::new(),
        sick: BTreeMap::new(),
        revoked: BTreeMap::new(),
    }
}

pub(crate) fn around() -> Around {
    Around {
        arbiter: Seen::Known("it answers".to_owned()),
        unfinished: Seen::Known(None),
    }
}

fn checks(facts: &Facts) -> Vec<Check> {
    preflight(&small(), facts, &"west".into(), &around())
}

fn text(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let mend = check.mend.as_deref().unwrap_or("-");
        format!(
            "{:?} {}: {} [{mend}]\n",
            check.verdict, check.name, check.evidence
        )
    };
    checks.iter().map(line).collect()
}

#[test]
fn a_healthy_standby_passes_with_evidence() {
    let checks = checks(&fine(&small()));
    assert_snapshot!(text(&checks), @r"
    Pass standby west: east is primary, west is a standby [-]
    Pass roles: no flip is provisional [-]
    Pass runs: every run is finished [-]
    Pass arbiter: it answers [-]
    Pass cloud west: it answers [-]
    Pass image haproxy: haproxy-1 is there [-]
    Pass image postgres: postgres-1 is there [-]
    Pass image web: web-1 is there [-]
    Pass servers west: all 5 run [-]
    Pass front-door west: 200 [-]
    Pass follows main: shop-west-db-1 streams from shop-east-db-1 [-]
    Pass lag main: shop-west-db-1 is 0.8 s behind, critical is 1m [-]
    Pass headroom main: shop-west-db-1 may fall 64MiB further behind [-]
    Pass write-lease main: shop-east-db-1 holds it for 9 s more, epoch 3 [-]
    Pass certificates main: the first to end: `server` on shop-east-db-1 is good until 2027-12-23T09:14:03Z [-]
    NotApplicable files: the stack has no files [-]
    Pass zone shop.test: serve serves what was published [-]
    Pass ttl www.shop.test: a flip is seen everywhere after 3601s, later ones after 1m [-]
    ");
    assert_eq!(overall(&checks), Verdict::Pass);
}

/// One thing changed gives exactly the checks that are about it.
fn changed(change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = fine(&small());
    change(&mut facts);
    let bad = |check: &Check| check.verdict != Verdict::Pass && check.name != "files";
    let checks: Vec<Check> = checks(&facts).into_iter().filter(bad).collect();
    text(&checks)
}

fn replica(facts: &mut Facts, change: impl FnOnce(&mut NodeStatus)) {
    let node = facts.nodes.get_mut(&NODE.into()).expect("it is there");
    if let Seen::Known(status) = &mut node.status {
        change(status);
    }
}

#[test]
fn each_trouble_is_found_by_its_check() {
    let mut all = String::new();
    let mut note = |what: &str, text: String| all.push_str(&format!("# {what}\n{text}"));
    note(
        "dead stream, young heartbeat",
        changed(|facts| {
            replica(facts, |status| {
                status.link = Some(Link::Down {
                    why: "refused".to_owned(),
                })
            });
        }),
    );
    note(
        "no heartbeat",
        changed(|facts| replica(facts, |status| status.heartbeat = None)),
    );
    note(
        "far behind",
        changed(|facts| {
            replica(facts, |status| {
                status.heartbeat = Some(Heartbeat {
                    seq: 1,
                    at: now() - Duration::from_secs(900),
                });
            })
        }),
    );
    note(
        "node silent",
        changed(|facts| {
            facts.nodes.get_mut(&NODE.into()).unwrap().status =
                Seen::Unknown("no route".to_owned());
        }),
    );
    note(
        "log thrown away",
        changed(|facts| {
            let node = facts.nodes.get_mut(&"shop-east-db-1".into()).unwrap();
            if let Seen::Known(status) = &mut node.status {
                status.followers[0].headroom = Some(-1);
            }
        }),
    );
    note(
        "lease expired",
        changed(|facts| {
            let writer = facts.writers.get_mut(&"main".into()).unwrap();
            writer.lease_until = Some(now() - Duration::from_secs(4));
        }),
    );
    note(
        "site silent",
        changed(|facts| {
            facts.sites.get_mut(&"west".into()).unwrap().answers =
                Seen::Unknown("no answer".to_owned());
        }),
    );
    note(
        "server off",
        changed(|facts| {
            let west = facts.sites.get_mut(&"west".into()).unwrap();
            west.servers
                .get_mut(&"shop-west-web-1".into())
                .unwrap()
                .state = ServerState::Off;
        }),
    );
    note(
        "image missing",
        changed(|facts| {
            facts
                .sites
                .get_mut(&"west".into())
                .unwrap()
                .images
                .remove(&ImageName::from("web-1"));
        }),
    );
    note(
        "door shut",
        changed(|facts| drop(facts.doors.insert("west".into(), Seen::Known(503)))),
    );
    note(
        "somebody else changed the zone",
        changed(|facts| {
            facts.zones.get_mut(&"shop.test".into()).unwrap().records[0].ttl = Ttl(5);
        }),
    );
    note(
        "the CNAME is gone",
        changed(|facts| {
            let alias = small().names[0].alias().unwrap();
            let version = Version {
                set: alias,
                from: now(),
                to: None,
            };
            facts.published.versions.push(version);
        }),
    );
    note(
        "zone closed",
        changed(|facts| {
            facts.zones.get_mut(&"shop.test".into()).unwrap().open = Seen::Known(false);
        }),
    );
    note(
        "TTL forgotten",
        changed(|facts| {
            let lease = TtlLease {
                normal: Ttl(3600),
                lowered: Ttl(60),
                since: now(),
                until: now() - Duration::from_secs(1),
            };
            facts
                .published
                .ttl_leases
                .insert("www.hafog-shop.shop.test".into(), lease);
        }),
    );
    assert_snapshot!(all, @r"
    # dead stream, young heartbeat
    Fail follows main: shop-west-db-1: refused [hafog replicate setup west]
    Unknown lag main: the stream is dead [hafog replicate status west]
    # no heartbeat
    Unknown lag main: shop-west-db-1 has no heartbeat [hafog replicate status west]
    # far behind
    Fail lag main: shop-west-db-1 is 900.0 s behind, over the critical 1m [hafog replicate status west]
    # node silent
    Unknown follows main: shop-west-db-1: no route [hafog replicate setup west]
    # log thrown away
    Fail headroom main: shop-east-db-1 has thrown away log that shop-west-db-1 needs [hafog replicate reseed west]
    # lease expired
    Fail write-lease main: the agent of shop-east-db-1 let it expire 4 s ago [hafog up]
    # site silent
    Unknown cloud west: no answer [hafog status]
    Unknown image haproxy: west did not answer [hafog build west]
    Unknown image postgres: west did not answer [hafog build west]
    Unknown image web: west did not answer [hafog build west]
    Unknown servers west: west did not answer [hafog status]
    # server off
    Fail servers west: not running: shop-west-web-1 [hafog clone west]
    # image missing
    Fail image web: web-1 is not there [hafog build west]
    # door shut
    Fail front-door west: 503, not 200 [hafog clone west]
    # somebody else changed the zone
    Fail zone shop.test: it serves `www.hafog-shop.shop.test 5 A 127.0.0.2`, and `www.hafog-shop.shop.test 3600 A 127.0.0.2` was published [hafog dns show]
    # the CNAME is gone
    Fail zone shop.test: it does not serve `www.shop.test 3600 CNAME www.hafog-shop.shop.test`, which was published [hafog dns show]
    # zone closed
    Fail zone shop.test: serve does not serve it [hafog up]
    # TTL forgotten
    Fail ttl www.shop.test: lowered to 1m, to be restored by 2026-11-21T09:14:02Z [hafog dns restore]
    ");
}

#[test]
fn unknown_never_passes_and_a_failure_outranks_it() {
    let of = |verdicts: &[Verdict]| {
        let check = |verdict: &Verdict| Check {
            verdict: *verdict,
            ..pass("x", "")
        };
        overall(&verdicts.iter().map(check).collect::<Vec<_>>())
    };
    use Verdict::{Fail, NotApplicable, Pass, Unknown};
    assert_eq!(of(&[Pass, NotApplicable]), Pass);
    assert_eq!(of(&[Pass, Unknown]), Unknown);
    assert_eq!(of(&[Unknown, Fail, Pass]), Fail);
    assert_eq!(of(&[NotApplicable]), NotApplicable);
    assert_eq!(of(&[]), NotApplicable);
}

/// Adds files that are copied from the first application server of the primary site, and are in step.
pub(crate) fn with_files(stack: &mut Stack, facts: &mut Facts) {
    let files = crate::sim::stacks::uploads();
    let first = ServerName::new("shop-east-web-1");
    let whole = Whole {
        source: first.clone(),
        epoch: 3,
        began: facts.at - Duration::from_secs(12),
        ended: facts.at - Duration::from_secs(11),
        files: 7,
        copied: 1,
        deleted: 0,
        verified: None,
    };
    let of = |server: &StackServer| {
        let copied = (server.name != first).then(|| whole.clone());
        let fact = FilesFact {
            marked: true,
            report: Some(Report {
                whole: copied,
                epoch: 3,
                ..Report::default()
            }),
        };
        (server.name.clone(), Seen::Known(fact))
    };
    let group = stack
        .servers
        .iter()
        .filter(|server| server.group == files.on);
    facts
        .files
        .insert(files.name.clone(), group.map(of).collect());
    facts.connected.insert(files.on.clone());
    stack.files.push(files);
}
