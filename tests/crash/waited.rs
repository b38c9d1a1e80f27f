//! What passes between the plan that a person sees and their answer.

use std::sync::Arc;
use std::time::Duration;

use hafog::db::keys::Keys;
use hafog::journal::Silent;
use hafog::model::roles::{Beat, Writer};
use hafog::plan::failover::{self, Options};
use hafog::run::open;
use hafog::run::runner::{End, Stop};
use hafog::sim::SimWorld;

use super::simulated::open_world;
use super::verbs::*;
use super::{options, starting_world};

/// The primary's agent said something at this many seconds from now.
fn heard(sim: &SimWorld, arbiter: usize, seconds: i64) {
    let bytes = sim.document(arbiter, "writer/main").expect("a writer");
    let mut writer: Writer = serde_json::from_slice(&bytes).expect("JSON");
    writer.beat = Some(Beat {
        seq: 1,
        at: sim.clock().now() + jiff::SignedDuration::from_secs(seconds),
        position: "0/1".to_owned(),
        transactions: None,
    });
    let bytes = serde_json::to_vec(&writer).expect("JSON");
    sim.set_document(arbiter, "writer/main", &bytes);
}

/// Plans a switchover, lets the standby fall behind by so much, and goes on.
async fn fallen_behind(seconds: i64, accept: &[&str]) -> End {
    let verb = verb("switchover");
    let stack = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let sim = starting_world(&stack, &keys, verb).await;
    let options = options(verb, Duration::ZERO);
    let world = open_world(&sim, &stack, &keys);
    let session = open::open(world, &options).await.expect("a session");
    let accept: Vec<String> = accept.iter().map(|name| (*name).to_owned()).collect();
    let options = Options {
        planned: true,
        accept: accept.clone(),
        ..Options::default()
    };
    let plan = failover::failover(&stack, &session.facts, &west(), &options);
    assert_eq!(plan.refusals, []);
    let arbiter = stack.stores.iter().position(|store| store.arbiter);
    heard(&sim, arbiter.expect("an arbiter"), seconds);
    let (_, end) = session
        .execute(&plan, &accept, Arc::new(Silent), &Stop::default(), 1)
        .await;
    let _ = session.close().await;
    end
}

#[tokio::test]
async fn a_standby_that_fell_behind_since_the_plan_was_shown_is_not_opened() {
    let end = fallen_behind(90, &[]).await;
    let End::NothingDone(fault) = &end else {
        panic!("{end:?}");
    };
    let why = fault.to_string();
    assert!(
        why.contains("behind what was heard of the primary"),
        "{why}"
    );
}

#[tokio::test]
async fn a_standby_that_is_as_far_behind_as_was_accepted_is_opened() {
    for accepted in ["standby-behind", "standby-unknown"] {
        let end = fallen_behind(90, &[accepted]).await;
        assert!(matches!(end, End::Done), "{accepted}: {end:?}");
    }
    let end = fallen_behind(30, &[]).await;
    assert!(matches!(end, End::Done), "{end:?}");
}

/// The lease of a machine that sleeps is taken over.
#[tokio::test]
async fn whoever_slept_at_the_prompt_closes_nobody_elses_run() {
    let verb = verb("clone");
    let stack = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let sim = starting_world(&stack, &keys, verb).await;
    let session = || async {
        let options = options(verb, Duration::ZERO);
        let world = open_world(&sim, &stack, &keys);
        open::open(world, &options).await.expect("a session")
    };
    let asleep = session().await;
    let plan = (verb.plan)(&stack, &asleep.facts);
    assert!(!plan.is_empty() && plan.refusals.is_empty());
    sim.advance(Duration::from_secs(60));
    let awake = session().await;
    let stopped = Stop::default();
    stopped.ask();
    let (run, _) = awake
        .execute(&plan, &[], Arc::new(Silent), &stopped, 1)
        .await;
    let unfinished = || async { awake.unfinished().await.expect("it is looked up") };
    assert_eq!(unfinished().await.as_ref(), Some(&run), "it is open");
    let (_, end) = asleep
        .execute(&plan, &[], Arc::new(Silent), &Stop::default(), 1)
        .await;
    assert!(matches!(end, End::NothingDone(_)), "{end:?}");
    assert_eq!(unfinished().await.as_ref(), Some(&run), "it was closed");
    assert!(!asleep.may_act().await && awake.may_act().await);
}
