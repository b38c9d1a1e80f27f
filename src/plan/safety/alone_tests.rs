//! Each refusal of the list is, in some world, the only thing that stops a plan. The list drives: a refusal without
//! such a world fails.

use std::time::Duration;

use super::*;
use crate::cloud::ServerState;
use crate::db::{Link, NodeRole, NodeStatus};
use crate::model::id::SiteName;
use crate::model::roles::{Beat, Provisional, Revocation};
use crate::model::stack::{SelfFence, Stack};
use crate::plan::action::CONFIG_TAG;
use crate::plan::facts::{Facts, FilesFact, Seen};
use crate::plan::failover::{Options, failover, takeover};
use crate::plan::preflight::tests::{fine, with_files};
use crate::plan::{Plan, build, commit, deploy, destroy, files, heal, rejoin, scale, up};
use crate::sim::stacks::small;

const EAST: &str = "shop-east-db-1";
const WEST: &str = "shop-west-db-1";

struct World {
    stack: Stack,
    facts: Facts,
}

type Change = fn(&mut World);

struct Case {
    refusal: &'static str,
    plan: fn(&World) -> Plan,
    /// From the good world to one in which nothing stops the plan.
    given: Change,
    /// The one thing that stops it.
    fault: Change,
}

fn case(refusal: &'static str, plan: fn(&World) -> Plan, fault: Change) -> Case {
    let given: Change = |_| {};
    Case {
        refusal,
        plan,
        given,
        fault,
    }
}

impl Case {
    fn given(mut self, given: Change) -> Case {
        self.given = given;
        self
    }
}

impl World {
    fn good() -> World {
        let mut stack = small();
        let mut facts = fine(&stack);
        with_files(&mut stack, &mut facts);
        World { facts, stack }
    }

    fn status(&mut self, name: &str) -> &mut NodeStatus {
        match &mut self.facts.nodes.get_mut(&name.into()).unwrap().status {
            Seen::Known(status) => status,
            Seen::Unknown(why) => panic!("{why}"),
        }
    }

    fn waits_for(&mut self, name: &str) {
        let writer = self.facts.writers.get_mut(&"main".into()).unwrap();
        writer.confirmed_by = vec![name.into()];
    }

    fn sick(&mut self, names: &[&str]) {
        for site in self.facts.sites.values_mut() {
            for server in site.servers.values_mut() {
                server.image = self.facts.images.values().next().cloned();
                let told = (CONFIG_TAG.to_owned(), "1".to_owned());
                server.tags.extend([told]);
            }
        }
        for name in names {
            self.facts.sick.insert((*name).into(), "500".to_owned());
        }
    }

    fn off(&mut self, name: &str) {
        self.sick(&[]);
        for site in self.facts.sites.values_mut() {
            if let Some(server) = site.servers.get_mut(&name.into()) {
                server.state = ServerState::Off;
            }
        }
    }

    fn files_at(&mut self, name: &str) -> &mut Seen<FilesFact> {
        let mut all = self.facts.files.values_mut();
        all.find_map(|files| files.get_mut(&name.into())).unwrap()
    }

    fn no_files(&mut self, names: &[&str]) {
        for name in names {
            let fact = self.files_at(name);
            *fact = Seen::Known(FilesFact {
                marked: false,
                report: None,
            });
        }
    }

    fn silence(&mut self, name: &str) {
        let node = self.facts.nodes.get_mut(&name.into()).unwrap();
        node.status = Seen::Unknown("no route".to_owned());
    }

    fn silence_site(&mut self, name: &str) {
        let site = self.facts.sites.get_mut(&name.into()).unwrap();
        site.answers = Seen::Unknown("no answer".to_owned());
        site.servers.clear();
        self.facts.doors.remove(&SiteName::new(name));
    }

    fn roles(&mut self) -> &mut crate::model::roles::Roles {
        self.facts.roles.as_mut().unwrap()
    }

    fn provisional(&mut self) {
        let at = self.facts.at;
        self.roles().provisional = Some(Provisional {
            since: at,
            until: at + Duration::from_secs(1800),
            from: "west".into(),
            planned: true,
        });
    }

    fn down(&mut self, name: &str) {
        let why = "refused".to_owned();
        self.status(name).link = Some(Link::Down { why });
    }

    fn old_heartbeat(&mut self) {
        let old = self.facts.at - Duration::from_secs(61);
        self.status(WEST).heartbeat.as_mut().unwrap().at = old;
    }

    /// The primary's agent was heard of just now.
    fn heard(&mut self) {
        let beat = Beat {
            seq: 1,
            at: self.facts.at,
            position: "0/1".to_owned(),
            transactions: None,
        };
        self.facts.writers.get_mut(&"main".into()).unwrap().beat = Some(beat);
    }
}

fn moved(world: &World, options: &Options) -> Plan {
    failover(&world.stack, &world.facts, &"west".into(), options)
}

fn switchover(world: &World) -> Plan {
    let options = Options {
        planned: true,
        ..Options::default()
    };
    moved(world, &options)
}

fn forced(world: &World) -> Plan {
    moved(world, &Options::default())
}

fn assumed_down(world: &World) -> Plan {
    let options = Options {
        assume_down: true,
        ..Options::default()
    };
    moved(world, &options)
}

fn rollback(world: &World) -> Plan {
    let options = Options {
        planned: true,
        rollback: true,
        ..Options::default()
    };
    moved(world, &options)
}

const BESIDE: &str = "shop-east-db-2";

fn within(world: &World, options: &Options) -> Plan {
    let node = world.stack.server(&BESIDE.into()).unwrap();
    takeover(&world.stack, &world.facts, node, options).unwrap()
}

fn switched_within(world: &World) -> Plan {
    let options = Options {
        planned: true,
        ..Options::default()
    };
    within(world, &options)
}

fn forced_within(world: &World) -> Plan {
    within(world, &Options::default())
}

fn clone(world: &World) -> Plan {
    up::clone(&world.stack, &world.facts, &"west".into())
}

fn deployed(world: &World) -> Plan {
    deploy::deploy(&world.stack, &world.facts, deploy::Batch(1))
}

fn replicate(world: &World) -> Plan {
    up::replicate(&world.stack, &world.facts, &"west".into(), false)
}

fn rejoined(world: &World) -> Plan {
    rejoin::rejoin(&world.stack, &world.facts, &"west".into())
}

fn committed(world: &World) -> Plan {
    commit::commit(&world.stack, &world.facts)
}

fn healed(world: &World) -> Plan {
    heal::heal(&world.stack, &world.facts, &["east".into()])
}

fn synced(world: &World) -> Plan {
    files::sync(&world.stack, &world.facts, &files::Options::default())
}

fn scaled(world: &World) -> Plan {
    scale::scale(&world.stack, &world.facts, &["east".into()])
}

fn upped(world: &World) -> Plan {
    up::up(&world.stack, &world.facts)
}

/// The spec has the one that writes no longer.
fn without_writer(world: &mut World) {
    let servers = &mut world.stack.servers;
    servers.retain(|server| server.name.as_str() != EAST);
}

fn destroyed(world: &World) -> Plan {
    destroy::destroy(&world.stack, &world.facts, &["east".into()])
}

fn left_behind(world: &mut World) {
    world.roles().standbys.clear();
    world.roles().left_behind.push("west".into());
}

/// Its servers run, and its database was a primary of its own.
fn left_behind_with_data(world: &mut World) {
    left_behind(world);
    world.down(WEST);
}

/// What a site looks like that was left behind: dark, and with a database that was a primary of its own.
fn left_behind_and_dark(world: &mut World) {
    left_behind(world);
    world.provisional();
    world.silence_site("west");
    world.silence(WEST);
}

fn primary_is_gone(world: &mut World) {
    world.silence(EAST);
}

/// As the command reviews it.
fn reviewed(mut plan: Plan, world: &World) -> Plan {
    plan.refusals.extend(revoked(&plan, &world.facts));
    plan
}

/// The recipe of the application servers makes an image that is nowhere yet.
fn a_new_release(world: &mut World) {
    let web = world.facts.images.get_mut(&"web".into());
    *web.expect("a recipe") = "web-000000000001".into();
}

fn revoke(world: &mut World, image: ImageName) {
    let revocation = Revocation {
        why: "a key is in it".to_owned(),
        at: world.facts.at,
    };
    world.facts.revoked.insert(image, revocation);
}

/// Somebody revoked what it makes.
fn revoke_web(world: &mut World) {
    let image = world.facts.images[&"web".into()].clone();
    revoke(world, image);
}

fn cases() -> Vec<Case> {
    let not_up: Change = |w| w.facts.roles = None;
    let never_made: Change = |w| w.roles().standbys.clear();
    vec![
        case("not-up", switchover, not_up),
        case("not-up", forced, not_up).given(primary_is_gone),
        case("not-up", clone, not_up),
        case("not-up", deployed, not_up),
        case("not-up", replicate, not_up),
        case("not-up", rejoined, not_up),
        case("writer-not-in-spec", upped, without_writer),
        case("writer-not-in-spec", clone, without_writer),
        case("writer-not-in-spec", deployed, without_writer),
        case("writer-not-in-spec", replicate, without_writer),
        case("writer-not-in-spec", healed, without_writer),
        case("writer-not-in-spec", scaled, without_writer),
        case("writer-not-in-spec", switchover, without_writer),
        case("writer-not-in-spec", forced, without_writer).given(primary_is_gone),
        case("writer-not-in-spec", switched_within, without_writer),
        case("group-gone", scaled, |w| {
            let east = w.facts.sites.get_mut(&"east".into()).unwrap();
            let mut more = east.servers.values().next().unwrap().clone();
            more.name = "shop-east-worker-1".into();
            more.tags.insert("group".to_owned(), "worker".to_owned());
            east.servers.insert(more.name.clone(), more);
        }),
        case("removed-unseen", scaled, |w| {
            let east = w.facts.sites.get_mut(&"east".into()).unwrap();
            let mut more = east.servers[&BESIDE.into()].clone();
            more.name = "shop-east-db-9".into();
            more.tags.insert("group".to_owned(), "db".to_owned());
            east.servers.insert(more.name.clone(), more);
        }),
        case(
            "image-revoked",
            |w| {
                let sites = ["east".into()];
                reviewed(build::build(&w.stack, &w.facts, &sites), w)
            },
            revoke_web,
        )
        .given(a_new_release),
        case("image-revoked", |w| reviewed(deployed(w), w), revoke_web).given(a_new_release),
        case(
            "image-revoked",
            |w| reviewed(healed(w), w),
            |w| {
                let east = &w.facts.sites[&"east".into()];
                let ran = east.servers[&"shop-east-web-2".into()].image.clone();
                revoke(w, ran.unwrap());
            },
        )
        .given(|w| w.off("shop-east-web-2")),
        case("left-behind", clone, left_behind_with_data),
        case("left-behind", replicate, left_behind_with_data),
        case("no-standby", switchover, never_made),
        case("no-standby", switchover, left_behind),
        case("no-standby", switchover, left_behind_and_dark),
        case("no-standby", forced, left_behind_and_dark).given(primary_is_gone),
        case("no-standby", rollback, left_behind_and_dark).given(World::provisional),
        case("no-standby", rejoined, |w| {
            let west = w.facts.sites.get_mut(&"west".into()).unwrap();
            west.servers.remove(&"shop-west-web-1".into());
        }),
        case("provisional", switchover, World::provisional),
        case("provisional", forced, World::provisional).given(primary_is_gone),
        case("nothing-provisional", committed, |w| {
            w.roles().provisional = None
        })
        .given(World::provisional),
        case("nothing-provisional", rollback, |w| {
            w.roles().provisional = None
        })
        .given(World::provisional),
        case("standby-behind", switchover, World::old_heartbeat),
        case("standby-behind", forced, World::old_heartbeat).given(|w| {
            primary_is_gone(w);
            w.heard();
        }),
        case("standby-unknown", switchover, |w| w.down(WEST)),
        case("standby-unknown", forced, |w| {
            w.status(WEST).heartbeat = None
        })
        .given(primary_is_gone),
        case("standby-unreachable", switchover, |w| w.silence(WEST)),
        case("standby-unreachable", switchover, |w| {
            w.status(WEST).role = NodeRole::Primary;
        }),
        case("standby-unreachable", switchover, |w| {
            w.facts.nodes.remove(&WEST.into());
        }),
        case("standby-not-ready", switchover, |w| {
            w.facts.doors.insert("west".into(), Seen::Known(503));
        }),
        case("standby-not-ready", switchover, |w| {
            let why = Seen::Unknown("refused".to_owned());
            w.facts.doors.insert("west".into(), why);
        }),
        case("all-sick", healed, |w| {
            w.sick(&["shop-east-web-1", "shop-east-web-2"])
        })
        .given(|w| w.sick(&["shop-east-web-1"])),
        case("files-alone", healed, |w| w.off("shop-east-web-1"))
            .given(|w| w.off("shop-east-web-2")),
        case("files-alone", healed, |w| {
            w.sick(&["shop-east-web-1"]);
            w.no_files(&["shop-east-web-2", "shop-west-web-1", "shop-west-web-2"]);
        })
        .given(|w| w.sick(&["shop-east-web-1"])),
        case("files-unseen", switchover, |w| w.off("shop-east-web-1")),
        case("files-unseen", switchover, |w| {
            let why = Seen::Unknown("timed out".to_owned());
            *w.files_at("shop-east-web-1") = why;
        }),
        case("no-source", synced, |w| w.off("shop-east-web-1")),
        case("cannot-heal", healed, |w| w.silence_site("east")),
        case("all-sick", healed, |w| {
            let all = ["web-1", "web-2", "balancer-1"];
            w.facts.sick.clear();
            w.sick(
                &all.map(|one| format!("shop-east-{one}"))
                    .each_ref()
                    .map(String::as_str),
            );
        }),
        case("no-servers", forced, |w| {
            w.facts.doors.remove(&SiteName::new("west"));
            let west = w.facts.sites.get_mut(&SiteName::new("west")).expect("west");
            west.servers
                .retain(|name, _| name.as_str().contains("-db-"));
        })
        .given(primary_is_gone),
        // The database's answer came another way than through the cloud.
        case("no-servers", forced, |w| w.silence_site("west")).given(primary_is_gone),
        case("primary-healthy", forced, |w| {
            w.facts = fine(&w.stack);
        })
        .given(primary_is_gone),
        case("primary-unreachable", switchover, primary_is_gone),
        case("primary-unreachable", switchover, |w| {
            w.status(EAST).writable = false
        }),
        case("unfenced-primary", forced, |w| w.silence_site("east")).given(primary_is_gone),
        // Another region, another host, another folder: what is not on that list may be at work.
        case("unfenced-primary", forced, |w| {
            let east = w.facts.sites.get_mut(&"east".into()).unwrap();
            east.servers.clear();
        })
        .given(|w| {
            primary_is_gone(w);
            let east = w.facts.sites.get_mut(&"east".into()).unwrap();
            east.servers.retain(|name, _| name.as_str() != EAST);
        }),
        case("unfenced-primary", assumed_down, |w| {
            w.stack.self_fence = SelfFence::Isolated;
        })
        .given(|w| {
            primary_is_gone(w);
            w.silence_site("east");
            w.stack.self_fence = SelfFence::Strict;
            w.waits_for(WEST);
        }),
        case("unfenced-primary", assumed_down, |w| w.waits_for(EAST)).given(|w| {
            primary_is_gone(w);
            w.silence_site("east");
            w.stack.self_fence = SelfFence::Strict;
            w.waits_for(WEST);
        }),
        case("old-primary-not-following", rollback, |w| w.down(WEST)).given(World::provisional),
        case("not-up", switched_within, not_up),
        case("standby-unreachable", switched_within, |w| {
            w.silence(BESIDE)
        }),
        case("standby-unreachable", forced_within, |w| {
            w.status(BESIDE).timeline = 1;
            w.status(WEST).timeline = 2;
            let third = w.facts.nodes[&BESIDE.into()].clone();
            let name: crate::model::id::ServerName = "shop-east-db-3".into();
            let mut server = w.stack.server(&BESIDE.into()).unwrap().clone();
            (server.name, server.index) = (name.clone(), 3);
            w.stack.servers.push(server);
            w.stack.databases[0].replicas = 2;
            w.facts.nodes.insert(name, third);
            w.status("shop-east-db-3").timeline = 2;
        })
        .given(primary_is_gone),
        // No cloud can say of a host that it is off.
        case("unfenced-primary", forced_within, |w| {
            let dead = ServerState::Failed("silent".to_owned());
            let east = w.facts.sites.get_mut(&"east".into()).unwrap();
            east.servers.get_mut(&EAST.into()).unwrap().state = dead;
        })
        .given(|w| {
            primary_is_gone(w);
            w.stack.sites[0].seals = false;
        }),
        case("standby-unknown", switched_within, |w| w.down(BESIDE)),
        case("primary-unreachable", switched_within, primary_is_gone),
        case("primary-healthy", forced_within, |w| {
            w.facts = fine(&w.stack);
        })
        .given(primary_is_gone),
        case("standby-unknown", forced_within, |w| {
            w.status(BESIDE).heartbeat = None
        })
        .given(primary_is_gone),
        case("site-is-primary", destroyed, |w| w.facts = fine(&w.stack)).given(|w| {
            let roles = w.roles();
            (roles.primary, roles.standbys) = ("west".into(), vec!["east".into()]);
        }),
        case("site-silent", destroyed, |w| w.silence_site("east")).given(|w| {
            let roles = w.roles();
            (roles.primary, roles.standbys) = ("west".into(), vec!["east".into()]);
        }),
    ]
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.refusals.iter().map(|one| one.name.as_str()).collect()
}

#[test]
fn every_refusal_is_somewhere_the_only_one() {
    let cases = cases();
    for about in REFUSALS {
        let known = cases.iter().any(|case| case.refusal == about.name);
        assert!(known, "no world in which `{}` stands alone", about.name);
    }
    for (number, case) in cases.iter().enumerate() {
        let what = format!("case {number}, {}", case.refusal);
        let mut world = World::good();
        (case.given)(&mut world);
        assert_eq!(names(&(case.plan)(&world)), [""; 0], "{what}, before");
        (case.fault)(&mut world);
        let plan = (case.plan)(&world);
        assert_eq!(names(&plan), [case.refusal], "{what}");
        let refusal = &plan.refusals[0];
        assert!(
            refusal.hint.starts_with("hafog "),
            "{what}: {}",
            refusal.hint
        );
        assert!(!refusal.why.is_empty(), "{what}");
    }
}

/// The agent did not reach the arbiter for a while, and its database was followed all the time.
#[test]
fn a_standby_that_knows_more_than_the_writer_record_is_not_behind() {
    let mut world = World::good();
    primary_is_gone(&mut world);
    world.heard();
    let writer = world.facts.writers.get_mut(&"main".into()).unwrap();
    writer.beat.as_mut().unwrap().at -= Duration::from_secs(3600);
    assert_eq!(names(&forced(&world)), [""; 0]);
}
