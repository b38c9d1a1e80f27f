//! Every check of the list is a pair: it passes in a good world, and each fault here turns exactly that check.
//! The list drives: a check without a fault fails, and so does a check that is in no list.

use std::time::Duration;

use super::tests::{around, fine, with_files};
use super::*;
use crate::cloud::ServerState;
use crate::db::{Link, NodeRole, NodeStatus};
use crate::model::roles::{Provisional, Revocation, TtlLease};
use crate::model::stack::SelfFence;
use crate::model::units::Ttl;
use crate::sim::stacks::small;

const EAST: &str = "shop-east-db-1";
const WEST: &str = "shop-west-db-1";

struct World {
    stack: Stack,
    facts: Facts,
    around: Around,
}

impl World {
    fn good() -> World {
        let mut stack = small();
        let mut facts = fine(&stack);
        with_files(&mut stack, &mut facts);
        World {
            facts,
            around: around(),
            stack,
        }
    }

    fn copied(&mut self) -> &mut crate::plan::facts::FilesFact {
        let files = self.facts.files.get_mut(&"uploads".into()).unwrap();
        match files.get_mut(&"shop-west-web-1".into()).unwrap() {
            Seen::Known(fact) => fact,
            Seen::Unknown(why) => panic!("{why}"),
        }
    }

    fn report(&mut self) -> &mut crate::model::files::Report {
        self.copied().report.as_mut().unwrap()
    }

    fn checks(&self) -> Vec<Check> {
        preflight(&self.stack, &self.facts, &"west".into(), &self.around)
    }

    /// The verdicts of one kind.
    fn of(&self, kind: &str) -> Vec<Verdict> {
        let checks = self.checks().into_iter();
        checks
            .filter(|check| kind_of(check) == kind)
            .map(|check| check.verdict)
            .collect()
    }

    fn west(&mut self) -> &mut crate::plan::facts::SiteFacts {
        self.facts.sites.get_mut(&"west".into()).unwrap()
    }

    /// Nothing is to be started any more from what the recipe makes.
    fn revoke(&mut self, recipe: &str) {
        let revocation = Revocation {
            why: "a key is in it".to_owned(),
            at: self.facts.at,
        };
        let image = self.facts.images[&recipe.into()].clone();
        self.facts.revoked.insert(image, revocation);
    }

    fn runs(&mut self, server: &str, recipe: &str) {
        let image = self.facts.images[&recipe.into()].clone();
        let server = self.west().servers.get_mut(&server.into());
        server.unwrap().image = Some(image);
    }

    fn node(&mut self, name: &str) -> &mut crate::plan::facts::NodeFact {
        self.facts.nodes.get_mut(&name.into()).unwrap()
    }

    fn status(&mut self, name: &str) -> &mut NodeStatus {
        match &mut self.node(name).status {
            Seen::Known(status) => status,
            Seen::Unknown(why) => panic!("{why}"),
        }
    }

    fn writer(&mut self) -> &mut crate::model::roles::Writer {
        self.facts.writers.get_mut(&"main".into()).unwrap()
    }

    fn zone(&mut self) -> &mut crate::plan::facts::ZoneFacts {
        self.facts.zones.get_mut(&"shop.test".into()).unwrap()
    }

    fn provisional(&mut self) {
        let at = self.facts.at;
        self.facts.roles.as_mut().unwrap().provisional = Some(Provisional {
            since: at,
            until: at + Duration::from_secs(1800),
            from: "west".into(),
            planned: true,
        });
    }

    fn ttl_lease_over(&mut self) {
        let at = self.facts.at;
        let lease = TtlLease {
            normal: Ttl(3600),
            lowered: Ttl(60),
            since: at,
            until: at - Duration::from_secs(1),
        };
        let leases = &mut self.facts.published.ttl_leases;
        leases.insert("www.hafog-shop.shop.test".into(), lease);
    }
}

fn kind_of(check: &Check) -> &str {
    check.name.split(' ').next().unwrap_or_default()
}

fn silent<T>() -> Seen<T> {
    Seen::Unknown("no route".to_owned())
}

type Change = fn(&mut World);

/// What changes the verdict of one check, and to what.
struct Turn {
    kind: &'static str,
    to: Verdict,
    by: Change,
}

fn red(kind: &'static str, by: Change) -> Turn {
    let to = Verdict::Fail;
    Turn { kind, to, by }
}

fn dark(kind: &'static str, by: Change) -> Turn {
    let to = Verdict::Unknown;
    Turn { kind, to, by }
}

fn nothing(kind: &'static str, by: Change) -> Turn {
    let to = Verdict::NotApplicable;
    Turn { kind, to, by }
}

fn roles(world: &mut World) -> &mut crate::model::roles::Roles {
    world.facts.roles.as_mut().unwrap()
}

fn tier(world: &mut World, tier: Tier) {
    let west = world
        .stack
        .sites
        .iter_mut()
        .find(|site| site.name.as_str() == "west");
    west.unwrap().tier = tier;
}

fn turns() -> Vec<Turn> {
    vec![
        red("standby", |w| w.facts.roles = None),
        red("standby", |w| roles(w).standbys.clear()),
        red("standby", |w| {
            roles(w).standbys.clear();
            roles(w).left_behind.push("west".into());
        }),
        red("standby", |w| roles(w).primary = "west".into()),
        red("roles", World::provisional),
        red("runs", |w| {
            w.around.unfinished = Seen::Known(Some("run 1".to_owned()))
        }),
        dark("runs", |w| w.around.unfinished = silent()),
        // That nobody answers is all that can be known of an arbiter.
        dark("arbiter", |w| w.around.arbiter = silent()),
        dark("cloud", |w| w.west().answers = silent()),
        dark("cloud", |w| drop(w.facts.sites.remove(&"west".into()))),
        red("image", |w| drop(w.west().images.pop_first())),
        red("image", |w| w.revoke("web")),
        red("image", |w| {
            w.revoke("web");
            w.runs("shop-west-web-1", "web");
            w.facts
                .images
                .insert("web".into(), "web-000000000002".into());
            w.west().images.insert("web-000000000002".into());
        }),
        dark("image", |w| w.west().answers = silent()),
        dark("image", |w| w.facts.images.clear()),
        nothing("image", |w| w.stack.servers.clear()),
        red("servers", |w| w.west().servers.clear()),
        red("servers", |w| {
            let web = w.west().servers.get_mut(&"shop-west-web-1".into());
            web.unwrap().state = ServerState::Frozen;
        }),
        dark("servers", |w| w.west().answers = silent()),
        nothing("servers", |w| tier(w, Tier::Cold)),
        nothing("servers", |w| w.stack.servers.clear()),
        red("front-door", |w| {
            w.facts.doors.insert("west".into(), Seen::Known(503));
        }),
        dark("front-door", |w| {
            w.facts.doors.insert("west".into(), silent());
        }),
        dark("front-door", |w| w.facts.doors.clear()),
        dark("front-door", |w| {
            w.stack.balancer = None;
            w.facts.doors.clear();
            w.west().answers = silent();
        }),
        // A failover to it is refused: nothing there could serve anybody.
        red("front-door", |w| {
            tier(w, Tier::PilotLight);
            w.facts.doors.clear();
            let is_database = |name: &ServerName| name.as_str().contains("-db-");
            w.west().servers.retain(|name, _| is_database(name));
        }),
        nothing("front-door", |w| {
            tier(w, Tier::PilotLight);
            w.facts.doors.clear();
            w.stack.names.clear();
        }),
        nothing("front-door", |w| {
            w.stack.balancer = None;
            w.facts.doors.clear();
        }),
        red("follows", |w| w.status(WEST).role = NodeRole::Primary),
        red("follows", |w| w.status(WEST).link = None),
        red("follows", |w| {
            let why = "refused".to_owned();
            w.status(WEST).link = Some(Link::Down { why });
        }),
        dark("follows", |w| w.node(WEST).status = silent()),
        dark("follows", |w| w.facts.nodes.clear()),
        nothing("follows", |w| w.stack.databases.clear()),
        nothing("follows", |w| tier(w, Tier::Cold)),
        red("lag", |w| {
            let old = w.facts.at - Duration::from_secs(61);
            w.status(WEST).heartbeat.as_mut().unwrap().at = old;
        }),
        dark("lag", |w| w.status(WEST).heartbeat = None),
        dark("lag", |w| w.status(WEST).link = None),
        nothing("lag", |w| w.stack.databases.clear()),
        nothing("lag", |w| tier(w, Tier::Cold)),
        red("headroom", |w| w.status(EAST).followers.clear()),
        red("headroom", |w| {
            w.status(EAST).followers[0].headroom = Some(0)
        }),
        dark("headroom", |w| w.node(EAST).status = silent()),
        dark("headroom", |w| w.facts.writers.clear()),
        nothing("headroom", |w| w.stack.databases.clear()),
        nothing("headroom", |w| tier(w, Tier::Cold)),
        red("write-lease", |w| w.writer().node = None),
        red("write-lease", |w| w.stack.self_fence = SelfFence::Strict),
        red("write-lease", |w| w.writer().lease_until = None),
        red("write-lease", |w| w.writer().lease_until = Some(w.facts.at)),
        dark("write-lease", |w| w.facts.writers.clear()),
        nothing("write-lease", |w| w.stack.databases.clear()),
        red("certificates", |w| {
            let soon = w.facts.at + CERTIFICATES_MIN - Duration::from_secs(1);
            if let Seen::Known(found) = &mut w.node(WEST).certificates {
                found[0].until = soon;
            }
        }),
        dark("certificates", |w| w.node(EAST).certificates = silent()),
        dark("certificates", |w| w.facts.nodes.clear()),
        nothing("certificates", |w| {
            for node in w.facts.nodes.values_mut() {
                node.certificates = Seen::Known(Vec::new());
            }
        }),
        nothing("certificates", |w| w.stack.databases.clear()),
        red("files", |w| w.report().whole = None),
        red("files", |w| w.copied().report = None),
        red("files", |w| {
            let old = w.facts.at - Duration::from_secs(3601);
            w.report().whole.as_mut().unwrap().began = old;
        }),
        // Of a server that is the source no longer.
        red("files", |w| {
            w.report().whole.as_mut().unwrap().source = "shop-east-web-9".into();
        }),
        red("files", |w| {
            w.report().trouble = Some(crate::model::files::TroubleSince {
                since: "2026-11-21T09:14:00Z".parse().unwrap(),
                why: "1001 files fewer".to_owned(),
                would_delete: Some(1001),
            });
        }),
        red("files", |w| tier(w, Tier::PilotLight)),
        dark("files", |w| w.facts.files.clear()),
        dark("files", |w| {
            let files = w.facts.files.get_mut(&"uploads".into()).unwrap();
            files.insert("shop-west-web-1".into(), silent());
        }),
        nothing("files", |w| w.stack.files.clear()),
        nothing("files", |w| tier(w, Tier::Cold)),
        red("zone", |w| w.zone().open = Seen::Known(false)),
        red("zone", |w| w.zone().records.clear()),
        red("zone", |w| w.zone().records[0].ttl = Ttl(5)),
        dark("zone", |w| w.zone().open = silent()),
        dark("zone", |w| w.facts.zones.clear()),
        nothing("zone", |w| w.facts.published.versions.clear()),
        nothing("zone", |w| {
            w.stack.names.clear();
            w.stack.zones.clear();
        }),
        red("ttl", World::ttl_lease_over),
        nothing("ttl", |w| w.facts.published.versions.clear()),
        nothing("ttl", |w| w.stack.names.clear()),
    ]
}

#[test]
fn every_check_passes_in_a_good_world() {
    let good = World::good();
    for about in CHECKS {
        let verdicts = good.of(about.name);
        let pass = verdicts.iter().all(|verdict| *verdict == Verdict::Pass);
        assert!(pass && !verdicts.is_empty(), "{}: {verdicts:?}", about.name);
    }
}

#[test]
fn every_check_has_a_fault_that_turns_it() {
    let turns = turns();
    for about in CHECKS {
        let bad = |turn: &&Turn| turn.kind == about.name && turn.to != Verdict::NotApplicable;
        assert!(
            turns.iter().any(|turn| bad(&turn)),
            "no fault for `{}`",
            about.name
        );
    }
    for (number, turn) in turns.iter().enumerate() {
        let mut world = World::good();
        (turn.by)(&mut world);
        let verdicts = world.of(turn.kind);
        let what = format!("turn {number} of `{}`: {:#?}", turn.kind, world.checks());
        assert!(verdicts.contains(&turn.to), "{what}");
        if turn.to != Verdict::NotApplicable {
            assert_ne!(overall(&world.checks()), Verdict::Pass, "{what}");
        }
    }
}

#[test]
fn every_check_that_is_made_is_in_the_list_and_says_what_to_do() {
    for turn in turns() {
        let mut world = World::good();
        (turn.by)(&mut world);
        for check in world.checks() {
            let known = CHECKS.iter().any(|about| about.name == kind_of(&check));
            assert!(known, "`{}` is in no list", check.name);
            let mend = check.mend.as_deref().unwrap_or("");
            let is_bad = matches!(check.verdict, Verdict::Fail | Verdict::Unknown);
            assert_eq!(mend.starts_with("hafog "), is_bad, "{check:?}");
            assert!(!check.evidence.is_empty(), "{check:?}");
        }
    }
}

/// What nobody could look at never counts as good, whatever it is.
#[test]
fn a_world_of_which_nothing_is_known_passes_nothing_but_what_the_state_says() {
    let mut world = World::good();
    for site in world.facts.sites.values_mut() {
        site.answers = silent();
    }
    for node in world.facts.nodes.values_mut() {
        (node.status, node.certificates) = (silent(), silent());
    }
    for copies in world.facts.files.values_mut() {
        for copy in copies.values_mut() {
            *copy = silent();
        }
    }
    world.facts.doors.clear();
    world.facts.writers.clear();
    world.zone().open = silent();
    world.around.arbiter = silent();
    world.around.unfinished = silent();
    let checks = world.checks().into_iter();
    let passed = checks.filter(|check| check.verdict == Verdict::Pass);
    let passed: Vec<String> = passed.map(|check| check.name).collect();
    assert_eq!(passed, ["standby west", "roles", "ttl www.shop.test"]);
}
