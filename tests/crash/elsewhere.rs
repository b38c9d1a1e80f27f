//! A cloud that answers, and looks where the servers are not: the spec names another region, project or folder by now.

use std::sync::Arc;
use std::time::Duration;

use hafog::cloud::Cloud;
use hafog::db::keys::Keys;
use hafog::plan::failover;

use super::simulated::open_world;
use super::verbs::*;
use super::{Ended, command, starting_world};

/// Fails over after the cloud of the east stopped to show these servers.
async fn unlisted(names: &[&str], verb: &Verb) -> (Ended, Option<String>) {
    let stack = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let sim = starting_world(&stack, &keys, verb).await;
    sim.advance(Duration::from_secs(5));
    let cloud = sim.cloud(&east());
    for name in names {
        cloud.delete_server(&(*name).into()).await.expect("gone");
    }
    let ended = command(&sim, &stack, &keys, verb).await;
    assert_eq!(sim.violations(), Vec::<String>::new());
    let world = open_world(&sim, &stack, &keys);
    let writer = world.writer(&"main".into()).await.expect("a store");
    let node = writer.expect("a record").0.node;
    (ended, node.map(|node| node.to_string()))
}

const EAST: [&str; 6] = [
    "shop-east-db-1",
    "shop-east-db-2",
    "shop-east-web-1",
    "shop-east-web-2",
    "shop-east-balancer-1",
    "shop-east-cache-1",
];

#[tokio::test]
async fn a_server_that_is_gone_is_fenced_and_one_of_an_empty_list_is_not() {
    let verb = verb("failover");
    let (ended, writer) = unlisted(&EAST[..1], verb).await;
    assert!(matches!(ended, Ended::Done | Ended::But(_)), "{ended:?}");
    assert_eq!(writer.as_deref(), Some("shop-west-db-1"));

    let (ended, _) = unlisted(&EAST, verb).await;
    let Ended::Not(why) = &ended else {
        panic!("{ended:?}");
    };
    assert!(why.contains("unfenced-primary"), "{why}");

    // The list was emptied after the plan was made: the fence asks again.
    let hopeful = Verb {
        plan: |s, f| {
            let mut plan = failover::failover(s, f, &west(), &Default::default());
            plan.refusals
                .retain(|refusal| refusal.name != "unfenced-primary");
            plan
        },
        ..*verb
    };
    let (ended, writer) = unlisted(&EAST, &hopeful).await;
    let Ended::Not(why) = &ended else {
        panic!("{ended:?}");
    };
    assert!(why.contains("nothing proves"), "{why}");
    assert_ne!(writer.as_deref(), Some("shop-west-db-1"));
}
