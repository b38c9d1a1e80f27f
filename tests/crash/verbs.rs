//! What can be typed, how it plans, and what makes the world that it starts from.

use std::sync::Arc;

use hafog::model::cron::CronJob;
use hafog::model::id::*;
use hafog::model::stack::Stack;
use hafog::plan::facts::Facts;
use hafog::plan::{self, Plan, failover};
use hafog::sim::{SimWorld, stacks};

pub type Planner = fn(&Stack, &Facts) -> Plan;

/// One verb: how it plans, and what makes the world that it starts from.
pub struct Verb {
    pub name: &'static str,
    pub before: &'static [&'static str],
    pub plan: Planner,
}

pub fn east() -> SiteName {
    "east".into()
}

pub fn west() -> SiteName {
    "west".into()
}

pub fn planned() -> failover::Options {
    failover::Options {
        planned: true,
        ..Default::default()
    }
}

pub const VERBS: &[Verb] = &[
    Verb {
        name: "build",
        before: &[],
        plan: |s, f| plan::build::build(s, f, &[east(), west()]),
    },
    Verb {
        name: "up",
        before: &[],
        plan: plan::up::up,
    },
    Verb {
        name: "clone",
        before: &["up"],
        plan: |s, f| plan::up::clone(s, f, &west()),
    },
    Verb {
        name: "switchover",
        before: &["up", "clone"],
        plan: |s, f| failover::failover(s, f, &west(), &planned()),
    },
    Verb {
        name: "commit",
        before: &["up", "clone", "switchover"],
        plan: plan::commit::commit,
    },
    Verb {
        name: "rollback",
        before: &["up", "clone", "switchover"],
        plan: |s, f| {
            failover::failover(
                s,
                f,
                &east(),
                &failover::Options {
                    rollback: true,
                    ..planned()
                },
            )
        },
    },
    Verb {
        name: "failover",
        before: &["up", "clone", "(east dies)"],
        plan: |s, f| failover::failover(s, f, &west(), &failover::Options::default()),
    },
    Verb {
        name: ASSUMED,
        before: &["up", "clone", "(east dies)", LEASED],
        plan: |s, f| failover::failover(s, f, &west(), &unasked()),
    },
    Verb {
        name: "rejoin",
        before: &["up", "clone", "(east dies)", "failover", "(east returns)"],
        plan: |s, f| plan::rejoin::rejoin(s, f, &east()),
    },
    Verb {
        name: "deploy",
        before: &["up", "clone", "(a new release)"],
        plan: |s, f| plan::deploy::deploy(s, f, plan::deploy::Batch(1)),
    },
    Verb {
        name: "heal",
        before: &["up", "clone", "(a web server and a balancer die)"],
        plan: |s, f| plan::heal::heal(s, f, &[east(), west()]),
    },
    Verb {
        name: "switchover, within",
        before: &["up", "clone"],
        plan: |s, f| within(s, f, &planned()),
    },
    Verb {
        name: WITHIN,
        before: &["up", "clone", PRIMARY_DIES],
        plan: |s, f| within(s, f, &failover::Options::default()),
    },
    // The old primary is off.
    Verb {
        name: "heal, an old primary",
        before: &["up", "clone", PRIMARY_DIES, WITHIN],
        plan: |s, f| plan::heal::heal(s, f, &[east(), west()]),
    },
    Verb {
        name: "heal, replicas",
        before: &["up", "clone", REPLICAS_DIE],
        plan: |s, f| plan::heal::heal(s, f, &[east(), west()]),
    },
    Verb {
        name: "scale",
        before: &["up", "clone", FEWER],
        plan: |s, f| plan::scale::scale(s, f, &[east(), west()]),
    },
    // Each site has a network of its own, and lets in what it must.
    Verb {
        name: "clone, enclosed",
        before: &["up"],
        plan: |s, f| plan::up::clone(s, f, &west()),
    },
    Verb {
        name: "heal, enclosed",
        before: &["up", "clone", "(a web server and a balancer die)"],
        plan: |s, f| plan::heal::heal(s, f, &[east(), west()]),
    },
    // Both sites are hosts of a cloud that hands images on.
    Verb {
        name: COPIED,
        before: &["up"],
        plan: |s, f| plan::up::clone(s, f, &west()),
    },
    // The west is made of servers that exist already.
    Verb {
        name: "clone, in place",
        before: &["up"],
        plan: |s, f| plan::up::clone(s, f, &west()),
    },
    Verb {
        name: "deploy, in place",
        before: &["up", "clone", MORE_SERVICES],
        plan: |s, f| plan::deploy::deploy(s, f, plan::deploy::Batch(1)),
    },
    Verb {
        name: "dns lower",
        before: &["up"],
        plan: |s, f| plan::ttl::lower(s, f, s.commit_window, true),
    },
    Verb {
        name: "dns restore",
        before: &["up", "dns lower"],
        plan: plan::ttl::restore,
    },
    Verb {
        name: "destroy",
        before: &["up", "clone"],
        plan: |s, f| plan::destroy::destroy(s, f, &[east(), west()]),
    },
];

pub const WITHIN: &str = "failover, within";
pub const PRIMARY_DIES: &str = "(the primary dies)";
/// One of the primary's site is gone, and the standby's first is off.
pub const REPLICAS_DIE: &str = "(replicas die)";

fn within(stack: &Stack, facts: &Facts, options: &failover::Options) -> Plan {
    let node = stack.server(&"shop-east-db-2".into()).expect("a node");
    failover::takeover(stack, facts, node, options).expect("a node of a database")
}

/// A failover that asks nothing of the dead site: the expired write lease is its only proof.
pub const ASSUMED: &str = "failover --assume-down east";
pub const LEASED: &str = "(east had a write lease)";

/// What a verb's name ends with where the west seals nothing.
const IN_PLACE: &str = ", in place";

pub const COPIED: &str = "clone, copied";

/// What a verb's name ends with where sites keep others out, and have an address for visitors.
const ENCLOSED: &str = ", enclosed";

pub fn enclosed(stack: &mut Stack) {
    for (site, number) in stack.sites.iter_mut().zip(1..) {
        let network = format!("10.{number}.0.0/16").parse();
        site.network = Some(network.expect("a network"));
        site.address = Some([203, 0, 113, number].into());
    }
}

pub fn unasked() -> failover::Options {
    failover::Options {
        assume_down: true,
        ..Default::default()
    }
}

pub fn assumed(verb: &Verb) -> std::collections::BTreeSet<SiteName> {
    let down = verb.name == ASSUMED;
    down.then(east).into_iter().collect()
}

pub fn stack_of(verb: &Verb) -> Arc<Stack> {
    let mut stack = stacks::small();
    if verb.name == ASSUMED {
        stack.self_fence = hafog::model::stack::SelfFence::Strict;
    }
    if verb.name.ends_with(ENCLOSED) {
        enclosed(&mut stack);
    }
    for site in &mut stack.sites {
        site.copies = verb.name == COPIED;
        site.region = Some(format!("of {}", site.name));
        site.seals = !verb.name.ends_with(IN_PLACE) || site.name == east();
    }
    Arc::new(stack)
}

/// Writes into the writer record until when its node may write.
pub fn lease(sim: &SimWorld, stack: &Stack, seconds: i64) {
    let arbiter = stack.stores.iter().position(|store| store.arbiter);
    let arbiter = arbiter.expect("an arbiter");
    let bytes = sim.document(arbiter, "writer/main").expect("a writer");
    let mut writer: hafog::model::roles::Writer = serde_json::from_slice(&bytes).expect("JSON");
    writer.lease_until = Some(sim.clock().now() + jiff::SignedDuration::from_secs(seconds));
    writer.confirmed_by = vec!["shop-west-db-1".into()];
    let bytes = serde_json::to_vec(&writer).expect("JSON");
    sim.set_document(arbiter, "writer/main", &bytes);
}

pub fn verb(name: &str) -> &'static Verb {
    VERBS
        .iter()
        .find(|verb| verb.name == name)
        .expect("a verb of the table")
}

/// What the end of a move says to type for what it left.
pub const MENDS: &[Verb] = &[
    Verb {
        name: "hafog up",
        before: &[],
        plan: plan::up::up,
    },
    Verb {
        name: "hafog heal east",
        before: &[],
        plan: |s, f| plan::heal::heal(s, f, &[east()]),
    },
    Verb {
        name: "hafog clone east",
        before: &[],
        plan: |s, f| plan::up::clone(s, f, &east()),
    },
    Verb {
        name: "hafog clone west",
        before: &[],
        plan: |s, f| plan::up::clone(s, f, &west()),
    },
    Verb {
        name: "hafog dns restore",
        before: &[],
        plan: plan::ttl::restore,
    },
];

pub fn mending(command: &str) -> &'static Verb {
    let mut mends = MENDS.iter();
    mends
        .find(|verb| verb.name == command)
        .unwrap_or_else(|| panic!("nobody can type `{command}`"))
}

pub const FEWER: &str = "(fewer servers)";

/// The same stack with fewer servers: one for its application, and no passive node in the east.
pub fn shrunk(stack: &Stack) -> Stack {
    let mut stack = stack.clone();
    let gone = |name: &str| name.ends_with("-web-2") || name == "shop-east-db-2";
    stack.servers.retain(|server| !gone(server.name.as_str()));
    stack
}

pub const NEW_RELEASE: &str = "(a new release)";
pub const MORE_SERVICES: &str = "(a new release with other services)";

/// The same stack with another recipe for its application.
pub fn released(stack: &Stack) -> Stack {
    let mut stack = stack.clone();
    let web = stack.recipes.get_mut(&"web".into()).expect("a recipe");
    web.run.push("true".to_owned());
    stack
}

/// The same with another service in place of the one that it had, and a job.
pub fn rearranged(stack: &Stack) -> Stack {
    let mut stack = released(stack);
    let web = stack.recipes.get_mut(&"web".into()).expect("a recipe");
    web.services[0].name = "front".to_owned();
    web.cron.push(CronJob {
        name: "mails".to_owned(),
        at: "*/5 * * * *".to_owned(),
        run: "true".to_owned(),
        user: None,
    });
    stack
}
