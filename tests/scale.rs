//! Linear in the number of servers: counted, not timed, so that it does not depend on the machine. `benches/run`
//! measures the seconds.

#[path = "harness/simulated.rs"]
mod simulated;

use std::sync::Arc;

use hafog::db::keys::Keys;
use hafog::journal::Silent;
use hafog::model::stack::{Server, Stack};
use hafog::plan;
use hafog::run::open::{self, OpenOptions, Session};
use hafog::run::runner::{End, Stop};
use hafog::sim::{SimWorld, stacks};
use hafog::world::World;
use simulated::open_world;

/// The small stack with `count` web servers at each site.
fn stack(count: u32) -> Arc<Stack> {
    let mut stack = stacks::small();
    let webs: Vec<Server> = stack
        .servers
        .iter()
        .filter(|server| server.group.as_str() == "web" && server.index == 1)
        .flat_map(|server| {
            (1..=count).map(|index| Server {
                name: format!("shop-{}-web-{index}", server.site).as_str().into(),
                index,
                ..server.clone()
            })
        })
        .collect();
    stack
        .servers
        .retain(|server| server.group.as_str() != "web");
    stack.servers.extend(webs);
    Arc::new(stack)
}

struct Bench {
    sim: SimWorld,
    stack: Arc<Stack>,
    keys: Arc<Keys>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(count: u32) -> Bench {
        let stack = stack(count);
        let folder = tempfile::tempdir().expect("a folder");
        let sim = SimWorld::new("2026-11-21T03:00:00Z".parse().expect("a time"), &stack);
        sim.set_beats_alone(true);
        Bench {
            sim,
            stack,
            keys: Arc::new(Keys::open(folder.path()).expect("keys")),
            _folder: folder,
        }
    }

    fn world(&self) -> World {
        open_world(&self.sim, &self.stack, &self.keys)
    }

    /// Looks as `--dry-run` does. The session, and how often the world was asked for it.
    async fn look(&self, take_lease: bool) -> (Session, usize) {
        self.sim.forget_calls();
        let options = OpenOptions {
            assume_down: Default::default(),
            lock_timeout: Default::default(),
            reason: None,
            verb: "up".to_owned(),
            take_lease,
        };
        let session = open::open(self.world(), &options)
            .await
            .expect("the world can be looked at");
        let calls = self.sim.calls().len();
        (session, calls)
    }
}

/// `values` belong to sizes that double: the growth doubles too, and does not quadruple.
fn check_linear(what: &str, values: [usize; 4]) {
    let growth: Vec<usize> = values
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .collect();
    for pair in growth.windows(2) {
        assert!(
            pair[1] <= pair[0] * 5 / 2 + 50,
            "{what} grow too fast: {values:?}"
        );
    }
}

/// A world with nothing in it is asked the same whether one server is wanted or thousands.
#[tokio::test]
async fn an_empty_world_is_asked_the_same_for_any_number_of_servers() {
    let mut asked = Vec::new();
    let (mut steps, mut bytes) = ([0; 4], [0; 4]);
    for (index, count) in [1_000, 2_000, 4_000, 8_000].into_iter().enumerate() {
        let bench = Bench::new(count);
        let (session, calls) = bench.look(false).await;
        let plan = plan::up::up(&bench.stack, &session.facts);
        asked.push(calls);
        steps[index] = plan.steps.len();
        bytes[index] = serde_json::to_vec(&plan).expect("a plan serialises").len();
        assert!(plan.flaws().is_empty());
    }
    assert!(
        asked.iter().all(|calls| *calls == asked[0] && *calls < 40),
        "{asked:?}"
    );
    // Two steps a server: make it, configure it.
    assert_eq!(
        [steps[1] - steps[0], steps[2] - steps[1]],
        [2_000, 4_000],
        "{steps:?}"
    );
    check_linear("bytes of the plan", bytes);
}

/// Looking at servers that are there asks about each once, and lists them once.
#[tokio::test]
async fn a_full_world_is_asked_about_each_server_once() {
    let mut asked = [0; 4];
    for (index, count) in [8, 16, 32, 64].into_iter().enumerate() {
        let bench = Bench::new(count);
        let (session, _) = bench.look(true).await;
        let plan = plan::up::up(&bench.stack, &session.facts);
        let (_, end) = session
            .execute(&plan, &[], Arc::new(Silent), &Stop::default(), 10)
            .await;
        assert!(matches!(end, End::Done), "{end:?}");
        session.close().await.expect("the lease is given back");
        let (session, calls) = bench.look(false).await;
        let left = plan::up::up(&bench.stack, &session.facts);
        assert!(left.is_empty(), "{:?}", left.steps);
        asked[index] = calls;
        let lists = bench
            .sim
            .calls()
            .iter()
            .filter(|called| called.call == "cloud.servers")
            .count();
        assert!(
            lists < 20,
            "{lists} lists of all servers for {count} of them"
        );
    }
    check_linear("questions", asked);
    // Fewer than two for each server that came.
    assert!(asked[3] - asked[0] <= 2 * (64 - 8), "{asked:?}");
}
