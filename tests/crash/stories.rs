//! What happens to one stack when other things are dead, asleep or wrong at the same time.

use std::sync::Arc;
use std::time::Duration;

use hafog::cloud::{Cloud, Power, ServerState};
use hafog::db::keys::Keys;
use hafog::dns::DnsHost;
use hafog::journal::Silent;
use hafog::model::id::*;
use hafog::model::stack::Stack;
use hafog::plan::{self, failover};
use hafog::run::open;
use hafog::run::runner::Stop;
use hafog::sim::{Mishap, Script, SimWorld, stacks};

use super::simulated::open_world;
use super::verbs::*;
use super::{Ended, command, happen, options, starting_world};

/// A world in which the stack stands, and what a person types in it.
pub struct Story {
    pub sim: SimWorld,
    pub stack: Arc<Stack>,
    pub keys: Arc<Keys>,
    _folder: tempfile::TempDir,
}

impl Story {
    pub async fn begin() -> Story {
        Story::of(stacks::small()).await
    }

    pub async fn of(stack: Stack) -> Story {
        let stack = Arc::new(stack);
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
    pub async fn does(&self, verb: &Verb) {
        let ended = self.types(verb).await;
        assert!(matches!(ended, Ended::Done), "{}: {ended:?}", verb.name);
    }

    /// Types it, and it is done but for what another command mends.
    pub async fn does_but(&self, verb: &Verb, mend: &str) {
        let ended = self.types(verb).await;
        let is_mend = matches!(&ended, Ended::But(mends) if *mends == [mend]);
        assert!(is_mend, "{}: {ended:?}", verb.name);
    }

    pub async fn types(&self, verb: &Verb) -> Ended {
        command(&self.sim, &self.stack, &self.keys, verb).await
    }

    pub async fn east_dies(&self) {
        happen(&self.sim, &self.stack, &self.keys, "(east dies)").await;
    }

    pub async fn power(&self, site: &SiteName, server: &str, to: Power) {
        let cloud = self.sim.cloud(site);
        cloud.power(&server.into(), to).await.expect("a switch");
    }

    pub async fn primary(&self) -> SiteName {
        let world = open_world(&self.sim, &self.stack, &self.keys);
        let roles = world.roles().await.expect("documents");
        roles.expect("roles").primary
    }

    pub async fn told(&self, site: &SiteName, server: &str) -> String {
        let world = open_world(&self.sim, &self.stack, &self.keys);
        let host = world.host(&server.into()).await.expect("a host");
        let path = format!("{}/role", host.dirs.etc);
        let shell = self.sim.cloud(site).shell();
        let told = shell.get(&host, &path).await.expect("a file");
        String::from_utf8(told.expect("a role")).expect("text")
    }

    pub async fn streams(&self, server: &str) -> bool {
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

/// Who is let in at a site, and which servers have ports that are open to all.
async fn let_in(story: &Story, site: &SiteName) -> (Vec<String>, Vec<String>) {
    let firewall = story.sim.cloud(site).firewall().await.expect("an answer");
    let firewall = firewall.expect("a firewall");
    let world = open_world(&story.sim, &story.stack, &story.keys);
    let mut names = std::collections::BTreeMap::new();
    for site in &story.stack.sites {
        for server in world
            .cloud(&site.name)
            .expect("one")
            .servers()
            .await
            .expect("a list")
        {
            names.insert(
                server.host.expect("a host").address,
                server.name.to_string(),
            );
        }
    }
    let name = |address| names.get(address).cloned().unwrap_or("nobody".to_owned());
    let mut own: Vec<String> = firewall.own.iter().map(name).collect();
    let mut open: Vec<String> = firewall.open.keys().map(name).collect();
    own.sort();
    open.sort();
    (own, open)
}

#[tokio::test]
async fn sites_that_keep_others_out_let_in_what_there_is_and_no_more() {
    let mut stack = stacks::small();
    enclosed(&mut stack);
    let story = Story::of(stack).await;
    let all = |site: Option<&SiteName>| {
        let servers = story.stack.servers.iter();
        let servers = servers.filter(|server| site.is_none_or(|site| server.site == *site));
        let mut names: Vec<String> = servers.map(|server| server.name.to_string()).collect();
        names.sort();
        names
    };
    for site in [east(), west()] {
        let (own, open) = let_in(&story, &site).await;
        assert_eq!(own, all(None), "{site}");
        let mut doors = all(Some(&site));
        doors.retain(|name| {
            !story
                .stack
                .server(&name.as_str().into())
                .expect("it")
                .open
                .is_empty()
        });
        assert_eq!(open, doors, "{site}");
    }
    story.does(verb("switchover")).await;
    assert!(story.streams("shop-east-db-1").await);

    let gone = "shop-west-web-1".into();
    story
        .sim
        .cloud(&west())
        .delete_server(&gone)
        .await
        .expect("gone");
    story.does(mending("hafog up")).await;
    for site in [east(), west()] {
        assert_eq!(let_in(&story, &site).await.0, all(None), "{site}");
    }
    let destroy = Verb {
        name: "destroy",
        before: &[],
        plan: |s, f| plan::destroy::destroy(s, f, &[east()]),
    };
    story.does(&destroy).await;
    assert_eq!(let_in(&story, &west()).await.0, all(Some(&west())));
    assert_eq!(story.sim.violations(), Vec::<String>::new());
}

const OLD: &str = "shop-east-db-1";

impl Story {
    /// The primary's machine hangs, and its cloud does not switch it off.
    async fn east_hangs(&self) {
        self.sim.advance(Duration::from_secs(5));
        self.power(&east(), OLD, Power::Freeze).await;
        self.breaks("Off", Mishap::FailBefore);
    }

    /// From now on, whenever the old primary is to be switched `to`.
    fn breaks(&self, to: &str, mishap: Mishap) {
        let script = Script::on("cloud.power", mishap).about(&format!("{OLD} {to}"));
        self.sim.script(script.from_then_on());
    }

    fn state(&self) -> ServerState {
        self.sim.server(&OLD.into()).expect("a server").state
    }

    async fn fails_over(&self) {
        self.does(verb("failover")).await;
        assert_eq!(self.sim.unfired(), Vec::<String>::new());
        assert_eq!(self.primary().await, west());
        let writes = self.sim.writable(&"main".into());
        assert_eq!(writes, ["shop-west-db-1".into()]);
    }
}

/// What it still believes must not come back with its network: it boots first.
#[tokio::test]
async fn a_primary_that_cannot_be_powered_off_is_cut_off_and_rejoins_later() {
    for cut in [
        None,
        Some(Mishap::LoseReply),
        Some(Mishap::Hang),
        Some(Mishap::Twice),
    ] {
        let story = Story::begin().await;
        story.sim.advance(Duration::from_secs(5));
        story.breaks("Off", Mishap::FailBefore);
        if let Some(cut) = cut {
            story.breaks("Isolate", cut);
        }
        // It runs, and nobody outside of it can say whether it writes.
        let hidden = Script::on("engine.*", Mishap::FailBefore).about(OLD);
        story.sim.script(hidden.from_then_on());
        let services = Script::on("shell.services", Mishap::FailBefore).about(OLD);
        story.sim.script(services.from_then_on());
        story.fails_over().await;
        assert_eq!(story.state(), ServerState::Isolated);

        // Nobody can get it back while it cannot be switched off.
        story.sim.forget_scripts();
        story.breaks("Off", Mishap::FailBefore);
        let rejoin = verb("rejoin");
        let ended = story.types(rejoin).await;
        assert!(
            matches!(&ended, Ended::Not(why) if why.contains("power-on")),
            "{ended:?}"
        );
        assert_eq!(story.state(), ServerState::Isolated);
        story.sim.forget_scripts();
        story.does(rejoin).await;
        assert_eq!(story.state(), ServerState::Running);
        assert!(story.streams(OLD).await);
        assert_eq!(story.sim.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn heal_brings_back_what_a_failover_within_the_site_cut_off() {
    let story = Story::begin().await;
    story.east_hangs().await;
    story.does(verb(WITHIN)).await;
    assert_eq!(story.state(), ServerState::Isolated);
    let told = story.sim.calls();
    let cut = told
        .iter()
        .filter(|one| one.argument == format!("{OLD} Isolate"));
    assert_eq!(cut.count(), 1);
    story.sim.forget_scripts();
    story.does(mending("hafog heal east")).await;
    assert_eq!(story.state(), ServerState::Running);
    assert!(story.streams(OLD).await);
    assert_eq!(story.sim.violations(), Vec::<String>::new());
}

/// The run ends before anything is opened, and whoever writes is the one of before, at its place.
#[tokio::test]
async fn a_fence_that_is_taken_back_gives_the_network_back() {
    let story = Story::begin().await;
    story.sim.advance(Duration::from_secs(5));
    story.breaks("Off", Mishap::FailBefore);
    let blocked = Verb {
        name: "failover",
        before: &[],
        plan: |s, f| {
            let mut plan = failover::failover(s, f, &west(), &Default::default());
            plan.refusals.retain(|one| one.name != "primary-healthy");
            // Refuses, because the fence left no position.
            let await_replay = plan.steps.iter_mut();
            for step in await_replay.filter(|step| step.name.as_str() == "await-replay main") {
                step.skip = None;
            }
            plan
        },
    };
    let ended = story.types(&blocked).await;
    assert!(
        matches!(&ended, Ended::Not(why) if why.starts_with("Unwound")),
        "{ended:?}"
    );
    assert_eq!(story.state(), ServerState::Running);
    assert_eq!(story.sim.writable(&"main".into()), [OLD.into()]);
    assert_eq!(story.primary().await, east());
    assert_eq!(story.sim.violations(), Vec::<String>::new());
}

/// Neither off nor cut off, and asked nothing: there is no proof, and no new primary.
#[tokio::test]
async fn a_cloud_that_does_neither_leaves_the_primary_unfenced() {
    let story = Story::begin().await;
    story.east_hangs().await;
    story.breaks("Isolate", Mishap::FailBefore);
    let ended = story.types(verb("failover")).await;
    assert!(
        matches!(&ended, Ended::Not(why) if why.contains("power off: ") && why.contains("close the network: ")),
        "{ended:?}"
    );
    assert_eq!(story.primary().await, east());
    assert_eq!(story.sim.violations(), Vec::<String>::new());
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
    let options = options(verb, Duration::ZERO);
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

/// A deploy is cut, and a person types something else: nobody stays out of rotation.
#[tokio::test]
async fn a_server_that_was_cut_in_its_change_is_put_into_rotation_by_whoever_comes_next() {
    let story = Story::begin().await;
    let target = Arc::new(released(&story.stack));
    let out = |sim: &SimWorld| {
        let balancers = ["shop-east-balancer-1", "shop-west-balancer-1"];
        let out = balancers.map(|name| sim.server(&name.into()).expect("a balancer").out);
        out.into_iter().flatten().collect::<Vec<_>>()
    };
    let mut were_out = 0;
    for n in 1.. {
        let sim = story.sim.twin();
        sim.script(Script::on_change(n, Mishap::CrashAfter));
        let deploying = command(&sim, &target, &story.keys, verb("deploy"));
        if sim.until_death(deploying).await.is_some() {
            break;
        }
        let sim = sim.restart();
        sim.advance(Duration::from_secs(31));
        were_out += out(&sim).len();
        for name in ["up", "clone"] {
            let ended = command(&sim, &target, &story.keys, verb(name)).await;
            assert!(
                matches!(ended, Ended::Done),
                "change {n}, {name}: {ended:?}"
            );
        }
        assert_eq!(out(&sim), [], "change {n}");
    }
    assert!(were_out > 0, "nobody was ever out");
}
