//! For every plan and every change that it makes: cut before, during and after it, in the simulated world; then type
//! the command again. The world must end as in the uncut run, or as before it, and nobody may ever have seen two
//! writers.

#[path = "harness/simulated.rs"]
mod simulated;

use std::sync::Arc;
use std::time::Duration;

use hafog::cloud::{Cloud, Power};
use hafog::db::keys::Keys;
use hafog::dns::DnsHost;
use hafog::journal::Silent;
use hafog::model::id::*;
use hafog::model::roles::Published;
use hafog::model::stack::{Name, Stack};
use hafog::plan::facts::Facts;
use hafog::plan::{self, Plan, failover};
use hafog::run::open::{self, OpenOptions};
use hafog::run::runner::{End, Stop};
use hafog::sim::{Mishap, Script, SimWorld, stacks};
use simulated::open_world;

type Planner = fn(&Stack, &Facts) -> Plan;

/// One verb: how it plans, and what makes the world that it starts from.
struct Verb {
    name: &'static str,
    before: &'static [&'static str],
    plan: Planner,
}

fn east() -> SiteName {
    "east".into()
}

fn west() -> SiteName {
    "west".into()
}

fn planned() -> failover::Options {
    failover::Options {
        planned: true,
        ..Default::default()
    }
}

const VERBS: &[Verb] = &[
    Verb {
        name: "build",
        before: &[],
        plan: |s, f| plan::build::build(s, f, &[east(), west()]),
    },
    Verb {
        name: "up",
        before: &[],
        plan: plan::site::up,
    },
    Verb {
        name: "clone",
        before: &["up"],
        plan: |s, f| plan::site::clone(s, f, &west()),
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
        plan: plan::deploy::deploy,
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

/// A failover that asks nothing of the dead site: the expired write lease is its only proof.
const ASSUMED: &str = "failover --assume-down east";
const LEASED: &str = "(east had a write lease)";

fn unasked() -> failover::Options {
    failover::Options {
        assume_down: true,
        ..Default::default()
    }
}

fn assumed(verb: &Verb) -> std::collections::BTreeSet<SiteName> {
    let down = verb.name == ASSUMED;
    down.then(east).into_iter().collect()
}

fn stack_of(verb: &Verb) -> Arc<Stack> {
    let mut stack = stacks::small();
    if verb.name == ASSUMED {
        stack.self_fence = hafog::model::stack::SelfFence::Strict;
    }
    Arc::new(stack)
}

/// Writes into the writer record until when its node may write.
fn lease(sim: &SimWorld, stack: &Stack, seconds: i64) {
    let arbiter = stack.stores.iter().position(|store| store.arbiter);
    let arbiter = arbiter.expect("an arbiter");
    let bytes = sim.document(arbiter, "writer/main").expect("a writer");
    let mut writer: hafog::model::roles::Writer = serde_json::from_slice(&bytes).expect("JSON");
    writer.lease_until = Some(sim.clock().now() + jiff::SignedDuration::from_secs(seconds));
    writer.confirmed_by = vec!["shop-west-db-1".into()];
    let bytes = serde_json::to_vec(&writer).expect("JSON");
    sim.set_document(arbiter, "writer/main", &bytes);
}

fn verb(name: &str) -> &'static Verb {
    VERBS
        .iter()
        .find(|verb| verb.name == name)
        .expect("a verb of the table")
}

/// What the end of a move says to type for what it left.
const MENDS: &[Verb] = &[
    Verb {
        name: "hafog up",
        before: &[],
        plan: plan::site::up,
    },
    Verb {
        name: "hafog clone east",
        before: &[],
        plan: |s, f| plan::site::clone(s, f, &east()),
    },
    Verb {
        name: "hafog clone west",
        before: &[],
        plan: |s, f| plan::site::clone(s, f, &west()),
    },
    Verb {
        name: "hafog dns restore",
        before: &[],
        plan: plan::ttl::restore,
    },
];

fn mending(command: &str) -> &'static Verb {
    let mut mends = MENDS.iter();
    mends
        .find(|verb| verb.name == command)
        .unwrap_or_else(|| panic!("nobody can type `{command}`"))
}

/// How one command ended.
#[derive(Debug)]
enum Ended {
    Done,
    /// Done, and these commands do what was left.
    But(Vec<String>),
    Not(String),
}

/// Types the verb: what `cmd::drive` does, without a terminal.
async fn command(sim: &SimWorld, stack: &Arc<Stack>, keys: &Arc<Keys>, verb: &Verb) -> Ended {
    let world = open_world(sim, stack, keys);
    let options = OpenOptions {
        assume_down: assumed(verb),
        lock_timeout: Duration::from_secs(60),
        reason: None,
        verb: verb.name.to_owned(),
        take_lease: true,
    };
    let session = match open::open(world, &options).await {
        Ok(session) => session,
        Err(fault) => return Ended::Not(fault.to_string()),
    };
    let stop = Stop::default();
    let listener = Arc::new(Silent);
    let unfinished = match session.unfinished().await {
        Ok(unfinished) => unfinished,
        Err(fault) => return Ended::Not(fault.to_string()),
    };
    let plan = (verb.plan)(stack, &session.facts);
    let end = match unfinished {
        Some(run) if plan.kind == plan::PlanKind::Directional => session
            .resume(&run, listener, &stop, 4)
            .await
            .map(|(_, end)| end),
        _ => {
            let refusals: Vec<&str> = plan
                .refusals
                .iter()
                .map(|refusal| refusal.name.as_str())
                .collect();
            if !refusals.is_empty() {
                let _ = session.close().await;
                return Ended::Not(format!("refused: {refusals:?}"));
            }
            Ok(session.execute(&plan, &[], listener, &stop, 4).await.1)
        }
    };
    let ended = match end {
        Ok(End::Done) => Ended::Done,
        Ok(End::DoneBut(left)) => Ended::But(left.into_iter().map(|left| left.mend).collect()),
        Ok(end) => Ended::Not(format!("{end:?}")),
        Err(fault) => Ended::Not(fault.to_string()),
    };
    let _ = session.close().await;
    ended
}

async fn happen(sim: &SimWorld, stack: &Arc<Stack>, keys: &Arc<Keys>, what: &str) {
    match what {
        // It is in the stack that the last command is given.
        NEW_RELEASE => {}
        LEASED => lease(sim, stack, 20),
        "(east dies)" => {
            sim.advance(Duration::from_secs(5));
            let cloud = sim.cloud(&east());
            for server in stack.servers_at(&east()) {
                cloud
                    .power(&server.name, Power::Off)
                    .await
                    .expect("the power goes off");
            }
        }
        "(east returns)" => {
            let cloud = sim.cloud(&east());
            for server in stack.servers_at(&east()) {
                cloud
                    .power(&server.name, Power::On)
                    .await
                    .expect("the power comes back");
            }
            sim.advance(Duration::from_secs(5));
        }
        name => match command(sim, stack, keys, verb(name)).await {
            Ended::Done => {}
            ended => panic!("`{name}` of the prologue: {ended:?}"),
        },
    }
}

const NEW_RELEASE: &str = "(a new release)";

/// The same stack with another recipe for its application.
fn released(stack: &Stack) -> Stack {
    let mut stack = stack.clone();
    let web = stack.recipes.get_mut(&"web".into()).expect("a recipe");
    web.run.push("true".to_owned());
    stack
}

async fn starting_world(stack: &Arc<Stack>, keys: &Arc<Keys>, verb: &Verb) -> SimWorld {
    let sim = SimWorld::new("2026-11-21T03:00:00Z".parse().expect("a time"), stack);
    sim.set_beats_alone(true);
    for what in verb.before {
        happen(&sim, stack, keys, what).await;
    }
    sim
}

/// Cuts one verb at every change, in every way.
async fn cut_everywhere(name: &str) {
    let verb = verb(name);
    let stack = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let target = match verb.before.last() {
        Some(&NEW_RELEASE) => Arc::new(released(&stack)),
        _ => stack.clone(),
    };

    let standing = starting_world(&stack, &keys, verb).await;
    let uncut = standing.twin();
    let start = uncut.snapshot();
    let begun = uncut.changes();
    match command(&uncut, &target, &keys, verb).await {
        Ended::Done => {}
        ended => panic!("{name}, uncut: {ended:?}"),
    }
    let end = uncut.snapshot();
    let changes = uncut.changes() - begun;
    assert!(changes > 0, "{name} changes nothing, so nothing is tested");
    assert_eq!(uncut.violations(), Vec::<String>::new(), "{name}, uncut");

    for n in 1..=changes {
        for mishap in Mishap::ALL
            .iter()
            .filter(|mishap| !matches!(mishap, Mishap::Hang))
        {
            let case = format!("{name}, change {n} of {changes}, {mishap:?}");
            // One case alone: `HAFOG_CASE='deploy, change 56 ' cargo test --test crash deploy`.
            if std::env::var("HAFOG_CASE").is_ok_and(|wanted| !case.contains(&wanted)) {
                continue;
            }
            // `destroy` takes the keys along.
            let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
            let mut sim = standing.twin();
            sim.script(Script::on_change(n, *mishap));
            let mut story = Vec::new();
            for _ in 0..4 {
                let ended = sim.until_death(command(&sim, &target, &keys, verb)).await;
                assert_eq!(forgotten(&sim, &stack), [""; 0], "{case}: {story:?}");
                match ended {
                    None => {
                        story.push("died".to_owned());
                        sim = sim.restart();
                        // A dead process's lease is waited out; on one machine it is recognised at once.
                        sim.advance(Duration::from_secs(31));
                    }
                    Some(Ended::Done) => break,
                    Some(Ended::But(mends)) => {
                        for mend in mends {
                            let ended = command(&sim, &target, &keys, mending(&mend)).await;
                            story.push(format!("{mend}: {ended:?}"));
                        }
                        break;
                    }
                    Some(Ended::Not(why)) => story.push(why),
                }
            }
            // Steps that run side by side need not make the same number of changes again, but nearly so.
            if n == 1 {
                assert_eq!(sim.unfired(), [""; 0], "{case}: nothing was broken");
            }
            let mut seen = sim.snapshot();
            if story.iter().any(|ended| ended.starts_with("Unwound")) {
                count_from(&end, &mut seen);
            }
            assert_eq!(sim.violations(), Vec::<String>::new(), "{case}: {story:?}");
            assert!(
                seen == end || seen == start,
                "{case}: the world ends as neither.\nstory: {story:#?}\n{}",
                difference(&end, &seen)
            );
            assert!(
                seen == end,
                "{case}: it never got to its end.\nstory: {story:#?}"
            );
        }
    }
}

/// Names whose TTL is lowered while no TTL lease says what it was: nobody would ever restore it.
fn forgotten(sim: &SimWorld, stack: &Stack) -> Vec<String> {
    let copies = (0..stack.stores.len()).filter_map(|store| sim.document(store, "names"));
    let copies = copies.map(|bytes| serde_json::from_slice(&bytes).expect("a document is JSON"));
    let published: Published = copies
        .max_by_key(|names: &Published| names.serial)
        .unwrap_or_default();
    let lowered = |name: &&Name| {
        let records = sim.records(&name.zone);
        let mut own = records.iter().filter(|set| set.host == name.target);
        own.any(|set| set.ttl < name.ttl) && !published.ttl_leases.contains_key(&name.target)
    };
    let names = stack.names.iter().filter(lowered);
    names.map(|name| name.host.to_string()).collect()
}

/// A primary that was stopped and is opened again is on a new timeline, and so is all that follows it: timelines count
/// from the latest one, which may only be later than in the uncut run.
fn count_from(end: &serde_json::Value, seen: &mut serde_json::Value) {
    let mut end = end.clone();
    let latest = |world: &mut serde_json::Value| {
        let all = timelines(world).into_iter();
        all.filter_map(|one| one.as_u64()).max().expect("a node")
    };
    let more = latest(seen).saturating_sub(latest(&mut end));
    for one in timelines(seen) {
        *one = one.as_u64().map(|one| one.saturating_sub(more)).into();
    }
}

fn timelines(world: &mut serde_json::Value) -> Vec<&mut serde_json::Value> {
    let nodes = world["servers"].as_object_mut().into_iter();
    let nodes = nodes.flat_map(|servers| servers.values_mut());
    let nodes = nodes.filter_map(|server| server["nodes"].as_object_mut());
    let nodes = nodes.flat_map(|nodes| nodes.values_mut());
    nodes.map(|node| &mut node["timeline"]).collect()
}

/// Every place where two pictures of the world differ.
fn difference(wanted: &serde_json::Value, seen: &serde_json::Value) -> String {
    let mut out = String::new();
    compare("", wanted, seen, &mut out);
    out
}

fn compare(path: &str, wanted: &serde_json::Value, seen: &serde_json::Value, out: &mut String) {
    use serde_json::Value::{Array, Null, Object};
    match (wanted, seen) {
        (Object(wanted), Object(seen)) => {
            let keys: std::collections::BTreeSet<&String> =
                wanted.keys().chain(seen.keys()).collect();
            for key in keys {
                let (wanted, seen) = (wanted.get(key), seen.get(key));
                let path = format!("{path}/{key}");
                compare(&path, wanted.unwrap_or(&Null), seen.unwrap_or(&Null), out);
            }
        }
        (Array(wanted), Array(seen)) if wanted.len() == seen.len() => {
            for (n, (wanted, seen)) in wanted.iter().zip(seen).enumerate() {
                compare(&format!("{path}/{n}"), wanted, seen, out);
            }
        }
        _ if wanted == seen => {}
        _ => out.push_str(&format!("{path}: {wanted} was to be, and is {seen}\n")),
    }
}

macro_rules! cut {
    ($($test:ident: $verb:expr,)*) => {$(
        #[tokio::test]
        async fn $test() {
            cut_everywhere($verb).await;
        }
    )*};
}

cut! {
    build_cut_anywhere_is_completed: "build",
    up_cut_anywhere_is_completed: "up",
    clone_cut_anywhere_is_completed: "clone",
    switchover_cut_anywhere_is_completed: "switchover",
    commit_cut_anywhere_is_completed: "commit",
    rollback_cut_anywhere_is_completed: "rollback",
    failover_cut_anywhere_is_completed: "failover",
    failover_by_lease_cut_anywhere_is_completed: ASSUMED,
    rejoin_cut_anywhere_is_completed: "rejoin",
    deploy_cut_anywhere_is_completed: "deploy",
    lowering_cut_anywhere_is_completed: "dns lower",
    restoring_cut_anywhere_is_completed: "dns restore",
    destroy_cut_anywhere_is_completed: "destroy",
}

/// A world in which the stack stands, and what a person types in it.
struct Story {
    sim: SimWorld,
    stack: Arc<Stack>,
    keys: Arc<Keys>,
    _folder: tempfile::TempDir,
}

impl Story {
    async fn begin() -> Story {
        let stack = Arc::new(stacks::small());
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
        let sim = starting_world(&stack, &keys, verb("switchover")).await;
        Story {
            sim,
            stack,
            keys,
            _folder: folder,
        }
    }

    /// Types it, and it is done.
    async fn does(&self, verb: &Verb) {
        let ended = self.types(verb).await;
        assert!(matches!(ended, Ended::Done), "{}: {ended:?}", verb.name);
    }

    /// Types it, and it is done but for what another command mends.
    async fn does_but(&self, verb: &Verb, mend: &str) {
        let ended = self.types(verb).await;
        let is_mend = matches!(&ended, Ended::But(mends) if *mends == [mend]);
        assert!(is_mend, "{}: {ended:?}", verb.name);
    }

    async fn types(&self, verb: &Verb) -> Ended {
        command(&self.sim, &self.stack, &self.keys, verb).await
    }

    async fn east_dies(&self) {
        happen(&self.sim, &self.stack, &self.keys, "(east dies)").await;
    }

    async fn power(&self, site: &SiteName, server: &str, to: Power) {
        let cloud = self.sim.cloud(site);
        cloud.power(&server.into(), to).await.expect("a switch");
    }

    async fn primary(&self) -> SiteName {
        let world = open_world(&self.sim, &self.stack, &self.keys);
        let roles = world.roles().await.expect("documents");
        roles.expect("roles").primary
    }

    async fn told(&self, site: &SiteName, server: &str) -> String {
        let world = open_world(&self.sim, &self.stack, &self.keys);
        let host = world.host(&server.into()).await.expect("a host");
        let path = format!("{}/role", host.dirs.etc);
        let shell = self.sim.cloud(site).shell();
        let told = shell.get(&host, &path).await.expect("a file");
        String::from_utf8(told.expect("a role")).expect("text")
    }

    async fn streams(&self, server: &str) -> bool {
        let world = open_world(&self.sim, &self.stack, &self.keys);
        let facts = hafog::observe::facts(&world).await.expect("facts");
        let status = facts.status(&server.into()).cloned();
        matches!(
            status.and_then(|status| status.link),
            Some(hafog::db::Link::Up { .. })
        )
    }
}

/// The application server that does not run cannot be told its role, and users are served by the other.
async fn a_web_server_sleeps(to: Power) {
    let story = Story::begin().await;
    story.power(&west(), "shop-west-web-2", to).await;
    story.east_dies().await;
    story.does(verb("failover")).await;
    assert_eq!(story.primary().await, west());
    assert!(
        story
            .told(&west(), "shop-west-web-1")
            .await
            .starts_with("primary ")
    );

    // It comes back by itself, and believes what it was told last.
    let wake = match to {
        Power::Freeze => Power::Thaw,
        _ => Power::On,
    };
    story.power(&west(), "shop-west-web-2", wake).await;
    assert!(
        story
            .told(&west(), "shop-west-web-2")
            .await
            .starts_with("standby ")
    );
    story.does(mending("hafog up")).await;
    let told = story.told(&west(), "shop-west-web-2").await;
    assert_eq!(told, story.told(&west(), "shop-west-web-1").await);
}

#[tokio::test]
async fn a_failover_ends_beside_a_web_server_that_is_off() {
    a_web_server_sleeps(Power::Off).await;
}

#[tokio::test]
async fn a_failover_ends_beside_a_web_server_that_is_frozen() {
    a_web_server_sleeps(Power::Freeze).await;
}

#[tokio::test]
async fn a_failover_ends_beside_a_dead_replica_of_the_new_site() {
    let story = Story::begin().await;
    story.power(&west(), "shop-west-db-2", Power::Off).await;
    story.east_dies().await;
    story.does_but(verb("failover"), "hafog up").await;
    assert_eq!(story.primary().await, west());
    story.does(mending("hafog up")).await;
    assert!(story.streams("shop-west-db-2").await);
    assert_eq!(story.sim.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_switchover_ends_beside_a_dead_node_of_the_old_site() {
    let story = Story::begin().await;
    story.power(&east(), "shop-east-db-2", Power::Off).await;
    story.does_but(verb("switchover"), "hafog clone east").await;
    assert_eq!(story.primary().await, west());
    assert!(story.streams("shop-east-db-1").await);
    story.does(mending("hafog clone east")).await;
    assert!(story.streams("shop-east-db-2").await);
    assert_eq!(story.sim.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_move_opens_a_zone_that_is_not_served() {
    for planned in [false, true] {
        let story = Story::begin().await;
        let zone = story.sim.dns(&"shop.test".into());
        zone.close_zone().await.expect("a name server that dies");
        if planned {
            story.does(verb("switchover")).await;
        } else {
            story.east_dies().await;
            story.does(verb("failover")).await;
        }
        assert_eq!(story.primary().await, west());
    }
}

/// Behind the point of no return there is only forward, so forward must be possible.
#[tokio::test]
async fn a_resume_opens_a_zone_that_died_behind_the_point_of_no_return() {
    let mut story = Story::begin().await;
    story.east_dies().await;
    story
        .sim
        .script(Script::on("engine.promote", Mishap::CrashAfter));
    let ended = story.sim.until_death(story.types(verb("failover"))).await;
    assert!(ended.is_none(), "{ended:?}");
    story.sim = story.sim.restart();
    story.sim.advance(Duration::from_secs(31));
    let zone = story.sim.dns(&"shop.test".into());
    zone.close_zone().await.expect("a name server that dies");
    story.does(verb("failover")).await;
    assert_eq!(story.primary().await, west());
}

/// A TTL that was lowered a moment ago is still long in caches: the plan says so, and a switchover waits for it.
#[tokio::test]
async fn a_ttl_that_was_just_lowered_is_still_waited_for() {
    let story = Story::begin().await;
    let lower = Verb {
        name: "dns lower",
        before: &[],
        plan: |s, f| plan::ttl::lower(s, f, s.commit_window, false),
    };
    story.does(&lower).await;
    story.sim.advance(Duration::from_secs(60));
    let world = open_world(&story.sim, &story.stack, &story.keys);
    let facts = hafog::observe::facts(&world).await.expect("facts");
    let forced = failover::failover(&story.stack, &facts, &west(), &Default::default());
    let after = forced.forecast.effective_after.expect("names").0.as_secs();
    assert!((3500..=3600).contains(&after), "{after} s");
    let waits = plan::ttl::lower(&story.stack, &facts, story.stack.commit_window, true);
    assert_eq!(waits.steps.len(), 1, "somebody pressed Ctrl-C in the wait");

    let name = &story.stack.names[0];
    let began = world.clock.now();
    story.does(verb("switchover")).await;
    let took = world.clock.now().duration_since(began).as_secs();
    assert!(took >= 3500, "the flip came after {took} s");
    let published = world.published().await.expect("names");
    let lease = published.ttl_leases.get(&name.target).expect("a lease");
    assert_eq!(lease.normal, name.ttl);
}

/// Users would see errors. Somebody may want that all the same, and then nobody waits for health checks in vain.
#[tokio::test]
async fn a_standby_that_is_not_ready_is_moved_to_when_that_is_accepted() {
    const NOT_READY: &str = "standby-not-ready";
    let story = Story::begin().await;
    for server in ["shop-west-web-1", "shop-west-web-2"] {
        story.power(&west(), server, Power::Off).await;
    }
    story.east_dies().await;
    let ended = story.types(verb("failover")).await;
    assert!(
        matches!(&ended, Ended::Not(why) if why.contains(NOT_READY)),
        "{ended:?}"
    );
    let accepted = Verb {
        name: "failover",
        before: &[],
        plan: |s, f| {
            let options = failover::Options {
                accept: vec![NOT_READY.to_owned()],
                ..Default::default()
            };
            let mut plan = failover::failover(s, f, &west(), &options);
            plan.refusals.retain(|refusal| refusal.name != NOT_READY);
            plan
        },
    };
    story.does(&accepted).await;
    assert_eq!(story.primary().await, west());
    story.does(mending("hafog up")).await;
    assert!(
        story
            .told(&west(), "shop-west-web-2")
            .await
            .starts_with("primary ")
    );
}

/// The primary is not down for twice the limit that a step was given.
#[tokio::test]
async fn a_wait_that_is_over_is_not_begun_again() {
    let story = Story::begin().await;
    for server in ["shop-west-web-1", "shop-west-web-2"] {
        story.power(&west(), server, Power::Off).await;
    }
    let hopeful = Verb {
        name: "switchover",
        before: &[],
        plan: |s, f| {
            let mut plan = failover::failover(s, f, &west(), &planned());
            plan.refusals.clear();
            plan
        },
    };
    let began = story.sim.clock().elapsed();
    let ended = story.types(&hopeful).await;
    let took = story.sim.clock().elapsed() - began;
    assert!(
        matches!(&ended, Ended::Not(why) if why.contains("start-servers") && why.contains("not within 60 s")),
        "{ended:?}"
    );
    assert!((60..90).contains(&took.as_secs()), "{took:?}");
}

/// A destroyed stack keeps its journals and forgets its epochs: what begins in the same second must not continue one.
#[tokio::test]
async fn what_follows_a_destroy_has_a_journal_of_its_own() {
    let story = Story::begin().await;
    let only_forget = Verb {
        name: "destroy",
        before: &[],
        plan: |s, f| {
            let mut plan = plan::destroy::destroy(s, f, &[east(), west()]);
            plan.steps
                .retain(|step| step.name.as_str() == "forget-state");
            plan.steps.iter_mut().for_each(|step| step.after.clear());
            plan
        },
    };
    let began = story.sim.clock().now();
    let runs = async || {
        let world = open_world(&story.sim, &story.stack, &story.keys);
        world.stores.runs().await.expect("the stores answer").len()
    };
    let before = runs().await;
    for _ in 0..3 {
        story.does(&only_forget).await;
    }
    let within = story.sim.clock().now().duration_since(began);
    assert!(within.as_secs() < 1, "the runs were {within:?} apart");
    assert_eq!(runs().await, before + 3);
}

#[tokio::test]
async fn a_fence_that_did_not_hold_is_taken_back() {
    let verb = verb(ASSUMED);
    let stack = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let sim = SimWorld::new("2026-11-21T03:00:00Z".parse().expect("a time"), &stack);
    sim.set_beats_alone(true);
    for what in ["up", "clone", "(east dies)"] {
        happen(&sim, &stack, &keys, what).await;
    }
    // The writer never had a lease, so nothing proves anything; the lease was there when the plan was made.
    let hopeful = Verb {
        plan: |s, f| {
            let mut plan = failover::failover(s, f, &west(), &unasked());
            plan.refusals
                .retain(|refusal| refusal.name != "unfenced-primary");
            plan
        },
        ..*verb
    };
    let Ended::Not(why) = command(&sim, &stack, &keys, &hopeful).await else {
        panic!("nothing was proved, and yet it was promoted");
    };
    assert!(why.starts_with("Unwound"), "{why}");
    let world = open_world(&sim, &stack, &keys);
    let unfinished = open::unfinished(&world.stores).await.expect("a store");
    assert!(unfinished.is_none());
    let writer = world.writer(&"main".into()).await.expect("a store");
    let node = writer.expect("a record").0.node;
    assert_eq!(node, Some("shop-east-db-1".into()));
    assert_eq!(sim.violations(), Vec::<String>::new());
}

/// Its wall clock is stepped forwards during the first sleep after it was armed.
struct Leaping {
    inner: Arc<dyn hafog::clock::Clock>,
    by: std::sync::Mutex<Option<jiff::SignedDuration>>,
    leapt: std::sync::Mutex<jiff::SignedDuration>,
}

#[async_trait::async_trait]
impl hafog::clock::Clock for Leaping {
    fn now(&self) -> jiff::Timestamp {
        self.inner.now() + *self.leapt.lock().expect("whole")
    }
    fn elapsed(&self) -> Duration {
        self.inner.elapsed()
    }
    fn since_boot(&self) -> Duration {
        self.inner.since_boot()
    }
    async fn sleep(&self, time: Duration) {
        if let Some(by) = self.by.lock().expect("whole").take() {
            *self.leapt.lock().expect("whole") = by;
        }
        self.inner.sleep(time).await;
    }
}

#[tokio::test]
async fn a_clock_that_is_stepped_does_not_end_a_lease() {
    let verb = verb(ASSUMED);
    let stack = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let sim = starting_world(&stack, &keys, verb).await;
    lease(&sim, &stack, 10_000);
    let mut world = open_world(&sim, &stack, &keys);
    let clock = Arc::new(Leaping {
        inner: sim.clock(),
        by: std::sync::Mutex::new(Some(jiff::SignedDuration::from_secs(20_000))),
        leapt: std::sync::Mutex::default(),
    });
    world.clock = clock.clone();
    let options = OpenOptions {
        assume_down: assumed(verb),
        lock_timeout: Duration::ZERO,
        reason: None,
        verb: verb.name.to_owned(),
        take_lease: true,
    };
    let began = sim.clock().elapsed();
    let session = open::open(world, &options).await.expect("a session");
    let plan = (verb.plan)(&stack, &session.facts);
    assert!(
        clock.by.lock().expect("whole").is_some(),
        "stepped too early"
    );
    let (_, end) = session
        .execute(&plan, &[], Arc::new(Silent), &Stop::default(), 1)
        .await;
    assert!(clock.by.lock().expect("whole").is_none(), "never stepped");
    let waited = sim.clock().elapsed() - began;
    assert!(waited >= Duration::from_secs(10_000), "{waited:?}, {end:?}");
}
