//! A zone that is not what was published: its name server's folder was lost, or somebody else wrote to it. A move must
//! get to its end all the same, because behind the point of no return there is only forward.

use std::time::Duration;

use hafog::dns::{DnsHost, RecordChange};
use hafog::model::id::*;
use hafog::model::record::{RecordSet, RecordType};
use hafog::model::roles::Published;
use hafog::plan::action::Action;
use hafog::plan::failover;
use hafog::run::open;
use hafog::sim::{Mishap, Script};

use super::simulated::open_world;
use super::stories::Story;
use super::verbs::*;
use super::{Ended, command};

fn zone() -> ZoneName {
    "shop.test".into()
}

/// What should be served when the site is primary, without TTLs.
fn led_to(story: &Story, site: &SiteName) -> Vec<(HostName, RecordType, Vec<String>)> {
    let name = &story.stack.names[0];
    let alias = name.alias().expect("a CNAME");
    let balancer = ServerName::new(format!("shop-{site}-balancer-1"));
    let address = story.sim.address(&balancer).expect("an address");
    vec![
        (
            name.target.clone(),
            RecordType::A,
            vec![address.to_string()],
        ),
        (
            alias.host,
            RecordType::Cname,
            alias.values.into_iter().collect(),
        ),
    ]
}

fn served(story: &Story) -> Vec<(HostName, RecordType, Vec<String>)> {
    let sets = story.sim.records(&zone()).into_iter();
    sets.map(|set| (set.host, set.kind, set.values.into_iter().collect()))
        .collect()
}

async fn published(story: &Story) -> Published {
    let world = open_world(&story.sim, &story.stack, &story.keys);
    world.published().await.expect("names")
}

/// Nobody knows any more what was published.
async fn forget_history(story: &Story) {
    let lost = Published {
        serial: published(story).await.serial + 1,
        ..Default::default()
    };
    let bytes = serde_json::to_vec(&lost).expect("JSON");
    for store in 0..story.stack.stores.len() {
        story.sim.set_document(store, "names", &bytes);
    }
}

/// Puts `after` in place of the CNAME, as somebody else would.
async fn change_alias(story: &Story, after: Option<RecordSet>) {
    let alias = story.stack.names[0].alias().expect("a CNAME");
    let change = RecordChange {
        host: alias.host.clone(),
        kind: alias.kind,
        before: Some(alias),
        after,
    };
    let zone = story.sim.dns(&zone());
    zone.apply(&[change]).await.expect("it is changed");
}

#[tokio::test]
async fn a_failover_publishes_names_that_were_lost() {
    let story = Story::begin().await;
    story.sim.lose_zone(&zone());
    story.east_dies().await;
    story.does(verb("failover")).await;
    assert_eq!(story.primary().await, west());
    assert_eq!(served(&story), led_to(&story, &west()));
    assert_eq!(story.sim.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_resume_publishes_names_that_were_lost_behind_the_point_of_no_return() {
    let mut story = Story::begin().await;
    story.east_dies().await;
    story
        .sim
        .script(Script::on("engine.promote", Mishap::CrashAfter));
    let failover = command(&story.sim, &story.stack, &story.keys, verb("failover"));
    assert!(story.sim.until_death(failover).await.is_none());
    story.sim = story.sim.restart();
    story.sim.advance(Duration::from_secs(31));
    story.sim.lose_zone(&zone());
    story.does(verb("failover")).await;
    assert_eq!(served(&story), led_to(&story, &west()));
}

#[tokio::test]
async fn a_switchover_publishes_names_that_were_lost() {
    let story = Story::begin().await;
    story.sim.lose_zone(&zone());
    story.does(verb("switchover")).await;
    assert_eq!(served(&story), led_to(&story, &west()));
}

/// The way back of a step that found somebody else's record has an end: nothing of it is to be taken back.
#[tokio::test]
async fn a_switchover_that_meets_a_foreign_record_is_taken_back() {
    let story = Story::begin().await;
    let before = served(&story);
    let stale = Verb {
        name: "switchover",
        before: &[],
        plan: |s, f| {
            let mut plan = failover::failover(s, f, &west(), &planned());
            for step in &mut plan.steps {
                if let Action::SetTtl(lower) = &mut step.action {
                    lower.before.values = ["192.0.2.9".to_owned()].into();
                }
            }
            plan
        },
    };
    // So that there is something to take back.
    let host = story.sim.dns(&zone());
    host.close_zone().await.expect("a name server that dies");
    let ended = story.types(&stale).await;
    assert!(
        matches!(&ended, Ended::Not(why) if why.starts_with("Unwound")),
        "{ended:?}"
    );
    let world = open_world(&story.sim, &story.stack, &story.keys);
    let unfinished = open::unfinished(&world.stores).await.expect("a store");
    assert!(unfinished.is_none());
    assert_eq!(story.primary().await, east());
    assert_eq!(served(&story), before);
    story.does(verb("switchover")).await;
    assert_eq!(served(&story), led_to(&story, &west()));
}

#[tokio::test]
async fn a_move_puts_back_a_cname_that_somebody_changed() {
    for planned in [false, true] {
        for values in [
            None,
            Some("elsewhere.example"),
            Some("www.hafog-shop.shop.test"),
        ] {
            let story = Story::begin().await;
            let alias = story.stack.names[0].alias().expect("a CNAME");
            let after = values.map(|value| RecordSet {
                ttl: hafog::model::units::Ttl(86_400),
                values: [value.to_owned()].into(),
                ..alias.clone()
            });
            change_alias(&story, after).await;
            if planned {
                story.does(verb("switchover")).await;
            } else {
                story.east_dies().await;
                story.does(verb("failover")).await;
            }
            assert_eq!(story.primary().await, west(), "{values:?}");
            assert_eq!(served(&story), led_to(&story, &west()), "{values:?}");
            let published = published(&story).await;
            for set in story.sim.records(&zone()) {
                let current = published.current(&set.host, set.kind);
                assert_eq!(current, Some(&set), "{values:?}");
            }
            // What was served of somebody else's may be in caches for a day.
            let foreign = |set: &RecordSet| set.values.contains("elsewhere.example");
            let mut versions = published.versions.iter();
            let version = versions.find(|version| foreign(&version.set));
            assert_eq!(version.is_some(), values == Some("elsewhere.example"));
            assert!(version.is_none_or(|version| version.to.is_some()));
        }
    }
}

/// What is served is right, and nobody knows since when.
#[tokio::test]
async fn a_move_ends_where_the_history_of_the_names_is_lost() {
    let story = Story::begin().await;
    forget_history(&story).await;
    story.east_dies().await;
    story.does(verb("failover")).await;
    assert_eq!(served(&story), led_to(&story, &west()));
    let published = published(&story).await;
    for set in story.sim.records(&zone()) {
        assert_eq!(published.current(&set.host, set.kind), Some(&set));
    }
}

#[tokio::test]
async fn nobody_who_was_asked_nothing_answers_so() {
    let story = Story::begin().await;
    forget_history(&story).await;
    let only_see = Verb {
        name: "switchover",
        before: &[],
        plan: |s, f| {
            let mut plan = failover::failover(s, f, &west(), &planned());
            let see = |action: &Action| matches!(action, Action::SeeRecord(_));
            plan.steps.retain(|step| see(&step.action));
            plan.steps.iter_mut().for_each(|step| step.after.clear());
            plan
        },
    };
    let ended = story.types(&only_see).await;
    assert!(
        matches!(&ended, Ended::Not(why) if why.contains("nothing is published in shop.test")),
        "{ended:?}"
    );
}
