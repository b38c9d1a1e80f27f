//! Files of a planned move that do not come: nobody may write while the last copy is waited for.

use std::sync::Arc;
use std::time::Duration;

use hafog::db::keys::Keys;
use hafog::journal::Silent;
use hafog::plan::facts::{FilesFact, Seen};
use hafog::plan::failover;
use hafog::run::open;
use hafog::run::runner::{End, Stop};
use hafog::sim::stacks;

use super::simulated::open_world;
use super::verbs::*;
use super::{options, starting_world};

#[tokio::test]
async fn a_last_copy_that_takes_too_long_is_taken_back() {
    let verb = verb("switchover");
    let without = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let sim = starting_world(&without, &keys, verb).await;
    let mut stack = (*without).clone();
    stack.files.push(stacks::uploads());
    let stack = Arc::new(stack);
    let world = open_world(&sim, &stack, &keys);
    let options = options(verb, Duration::ZERO);
    let mut session = open::open(world, &options).await.expect("a session");
    let has = FilesFact {
        marked: true,
        report: None,
    };
    let files = session.facts.files.entry("uploads".into()).or_default();
    files.insert("shop-east-web-1".into(), Seen::Known(has));
    let mut plan = failover::failover(&stack, &session.facts, &west(), &planned());
    let notes = plan.forecast.notes.join("\n");
    assert!(
        notes.contains("`uploads` is copied a last time, 5m at most"),
        "{notes}"
    );
    // The first one went well.
    let first = plan
        .steps
        .iter_mut()
        .find(|step| step.name.as_str() == "copy-files uploads");
    first.expect("two copies").skip = Some("it is there".to_owned());
    let began = sim.clock().now();
    // In this world no server copies anything.
    let (_, end) = session
        .execute(&plan, &[], Arc::new(Silent), &Stop::default(), 1)
        .await;
    let End::Unwound(fault) = &end else {
        panic!("{end:?}");
    };
    let why = fault.to_string();
    assert!(why.contains("has not copied `uploads` within 5m"), "{why}");
    // Most of it is the old TTL's.
    let waited = sim.clock().now().duration_since(began);
    assert!(waited.as_secs() < 2 * 3600, "{waited:?}");
    let _ = session.close().await;

    let world = open_world(&sim, &stack, &keys);
    let facts = hafog::observe::facts(&world).await.expect("facts");
    let east = "shop-east-db-1".into();
    assert_eq!(facts.writer_node(&"main".into()), Some(&east));
    assert!(facts.status(&east).is_some_and(|status| status.writable));
    assert_eq!(sim.violations(), Vec::<String>::new());
}
