//! Every verb, cut at every change that it makes, in every way.

use std::sync::Arc;
use std::time::Duration;

use hafog::db::keys::Keys;
use hafog::model::roles::Published;
use hafog::model::stack::{Name, Stack};
use hafog::sim::{Mishap, Script, SimWorld};

use super::verbs::*;
use super::{Ended, command, starting_world};

/// Cuts one verb at every change, in every way.
async fn cut_everywhere(name: &str) {
    let verb = verb(name);
    let stack = stack_of(verb);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Arc::new(Keys::open(folder.path()).expect("keys"));
    let target = match verb.before.last() {
        Some(&NEW_RELEASE) => Arc::new(released(&stack)),
        Some(&MORE_SERVICES) => Arc::new(rearranged(&stack)),
        Some(&FEWER) => Arc::new(shrunk(&stack)),
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
            let mut mended = Vec::new();
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
                        for mend in &mends {
                            let ended = command(&sim, &target, &keys, mending(mend)).await;
                            story.push(format!("{mend}: {ended:?}"));
                        }
                        mended = mends;
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
            // A mend may do more than what was left.
            let end = match seen == end {
                true => end.clone(),
                false => and_mended(&uncut, &target, &keys, &mended).await,
            };
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

/// The world after an uncut run, and what somebody typed then.
async fn and_mended(
    uncut: &SimWorld,
    target: &Arc<Stack>,
    keys: &Arc<Keys>,
    mends: &[String],
) -> serde_json::Value {
    let sim = uncut.twin();
    for mend in mends {
        let ended = command(&sim, target, keys, mending(mend)).await;
        assert!(matches!(ended, Ended::Done), "{mend}: {ended:?}");
    }
    sim.snapshot()
}

/// Names whose TTL is lowered while no TTL lease says what it was: nobody would ever restore it.
pub fn forgotten(sim: &SimWorld, stack: &Stack) -> Vec<String> {
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
pub fn count_from(end: &serde_json::Value, seen: &mut serde_json::Value) {
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
pub fn difference(wanted: &serde_json::Value, seen: &serde_json::Value) -> String {
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
    clone_of_sites_that_keep_others_out_cut_anywhere_is_completed: "clone, enclosed",
    clone_from_copied_images_cut_anywhere_is_completed: COPIED,
    heal_of_sites_that_keep_others_out_cut_anywhere_is_completed: "heal, enclosed",
    switchover_cut_anywhere_is_completed: "switchover",
    commit_cut_anywhere_is_completed: "commit",
    rollback_cut_anywhere_is_completed: "rollback",
    failover_cut_anywhere_is_completed: "failover",
    failover_by_lease_cut_anywhere_is_completed: ASSUMED,
    rejoin_cut_anywhere_is_completed: "rejoin",
    deploy_cut_anywhere_is_completed: "deploy",
    heal_cut_anywhere_is_completed: "heal",
    switchover_within_a_site_cut_anywhere_is_completed: "switchover, within",
    failover_within_a_site_cut_anywhere_is_completed: WITHIN,
    taking_back_an_old_primary_cut_anywhere_is_completed: "heal, an old primary",
    healing_replicas_cut_anywhere_is_completed: "heal, replicas",
    scale_cut_anywhere_is_completed: "scale",
    cloning_in_place_cut_anywhere_is_completed: "clone, in place",
    deploying_in_place_cut_anywhere_is_completed: "deploy, in place",
    lowering_cut_anywhere_is_completed: "dns lower",
    restoring_cut_anywhere_is_completed: "dns restore",
    destroy_cut_anywhere_is_completed: "destroy",
}
