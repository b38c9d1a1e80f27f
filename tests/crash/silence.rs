//! What a silent cloud must make nobody forget: its API is away for a while, and the servers of the site are at work.

use std::collections::BTreeSet;

use hafog::agent::AgentConfig;
use hafog::cloud::Cloud;
use hafog::model::id::*;

use super::stories::Story;
use super::verbs::*;

/// The nodes that an agent was told of.
fn others(story: &Story, node: &str) -> BTreeSet<String> {
    let server = story.sim.server(&node.into()).expect("a server");
    let mut files = server.files.iter();
    let file = files.find(|(path, _)| path.ends_with("/agent/agent.json"));
    let (_, (bytes, _)) = file.expect("an agent that was told");
    let config: AgentConfig = serde_json::from_slice(bytes).expect("a configuration");
    let others = config.others.iter();
    others.map(|peer| peer.node.to_string()).collect()
}

fn all_but(node: &str) -> BTreeSet<String> {
    let all = [
        "shop-east-db-1",
        "shop-east-db-2",
        "shop-west-db-1",
        "shop-west-db-2",
    ];
    let others = all.into_iter().filter(|other| *other != node);
    others.map(str::to_owned).collect()
}

/// Its node has lost its connections, and may come back.
async fn reconnects(story: &Story, node: &str) -> bool {
    story.sim.set_cloud_answers(&west(), true);
    let streams = story.streams(node).await;
    story.sim.set_cloud_answers(&west(), false);
    streams
}

#[tokio::test]
async fn a_standby_whose_cloud_is_silent_is_let_in_and_known() {
    let story = Story::begin().await;
    story.sim.set_cloud_answers(&west(), false);
    story.does(mending("hafog up")).await;
    assert_eq!(others(&story, "shop-east-db-1"), all_but("shop-east-db-1"));
    assert!(reconnects(&story, "shop-west-db-1").await);

    // Its primary's other node is made anew, so that everybody there is told of it.
    let before = story.sim.address(&"shop-east-db-2".into());
    let cloud = story.sim.cloud(&east());
    let gone: ServerName = "shop-east-db-2".into();
    cloud.delete_server(&gone).await.expect("it is removed");
    story.does(mending("hafog heal east")).await;
    assert_ne!(story.sim.address(&gone), before);
    assert_eq!(others(&story, "shop-east-db-1"), all_but("shop-east-db-1"));
    assert!(reconnects(&story, "shop-west-db-1").await);

    // Everybody answers again, and whoever is new is told of them.
    story.sim.set_cloud_answers(&west(), true);
    story.does(mending("hafog up")).await;
    for node in all_but("") {
        assert_eq!(others(&story, &node), all_but(&node), "{node}");
    }
    let let_in = |node: &str| {
        let node = story.sim.node(&node.into(), &"main".into());
        node.expect("a node").admitted
    };
    let gone = before.expect("an address");
    assert!(!let_in("shop-east-db-1").contains(&gone));
    assert_eq!(story.sim.violations(), Vec::<String>::new());
}

/// The other way round: the agents of a standby, and whom its nodes let in.
#[tokio::test]
async fn a_primary_whose_cloud_is_silent_is_let_in_and_known() {
    let story = Story::begin().await;
    story.sim.set_cloud_answers(&east(), false);
    let healed = Verb {
        name: "heal west",
        before: &[],
        plan: |s, f| hafog::plan::heal::heal(s, f, &[west()]),
    };
    story.does(&healed).await;
    assert_eq!(others(&story, "shop-west-db-1"), all_but("shop-west-db-1"));
    let primary = story.sim.address(&"shop-east-db-1".into());
    let standby = story.sim.node(&"shop-west-db-1".into(), &"main".into());
    let let_in = standby.expect("a node").admitted;
    assert!(let_in.contains(&primary.expect("an address")));
}
