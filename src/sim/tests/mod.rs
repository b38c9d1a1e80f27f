use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::cloud::{Cloud, OnceKey, Power, ServerState, ServerWant};
use crate::db::keys::Keys;
use crate::db::{Divergence, Engine, Link, Node, NodeRole, Reach, Rejoined, always};
use crate::dns::{DnsHost, RecordChange};
use crate::error::Trouble;
use crate::model::record::RecordType;
use crate::model::stack::Size;
use crate::model::units::{Bytes, Ttl};
use crate::probe::{HttpAsk, Probe};
use crate::shell::{Command, File, ServiceChange, Shell};
use crate::state::{PutError, StateStore};

const EAST: &str = "shop-east-db-1";
const WEST: &str = "shop-west-db-1";
const WEST_2: &str = "shop-west-db-2";

/// The one place that the real keys change.
fn keys() -> Arc<Keys> {
    Arc::new(Keys::open(std::env::temp_dir().join("hafog-sim-test-keys").as_path()).expect("keys"))
}

fn start() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

fn empty() -> SimWorld {
    SimWorld::new(start(), &stacks::small())
}

async fn stood() -> SimWorld {
    let stack = stacks::small();
    let world = SimWorld::new(start(), &stack);
    stacks::stand(&world, &stack, keys()).await;
    assert_eq!(world.violations(), [""; 0]);
    world.forget_calls();
    world
}

fn east() -> SiteName {
    "east".into()
}

fn west() -> SiteName {
    "west".into()
}

fn main() -> DatabaseName {
    "main".into()
}

fn node(world: &SimWorld, server: &str) -> Node {
    stacks::node(world, &stacks::small().databases[0], &server.into())
}

fn reach(world: &SimWorld) -> Reach {
    Reach {
        shell: world.shell(&east()),
        keys: keys(),
    }
}

fn write(world: &SimWorld, server: &str, text: &str) {
    world.write(&server.into(), &main(), text).unwrap();
}

fn rows(world: &SimWorld, server: &str) -> Vec<String> {
    let node = world.node(&server.into(), &main()).unwrap();
    node.rows().map(str::to_owned).collect()
}

fn want(name: &str, image: Option<&str>) -> ServerWant {
    ServerWant {
        name: name.into(),
        image: image.map(ImageName::new),
        size: Size {
            cpu: 1,
            memory: Bytes(1),
        },
        open: vec![],
        tags: BTreeMap::new(),
    }
}

fn key(text: &str) -> OnceKey {
    OnceKey(text.to_owned())
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn http(world: &SimWorld, server: &str) -> Result<u16, Fault> {
    let ask = HttpAsk {
        to: (world.address(&server.into()).unwrap(), 80).into(),
        host: "www.shop.test".to_owned(),
        path: "/healthz".to_owned(),
        tls: false,
        limit: secs(2),
    };
    world.probe().http(&ask).await.map(|answer| answer.status)
}

#[tokio::test]
async fn a_stack_that_stands_works_and_is_the_same_each_time() {
    let world = stood().await;
    assert_eq!(http(&world, "shop-east-balancer-1").await.unwrap(), 200);
    assert_eq!(http(&world, "shop-west-web-2").await.unwrap(), 200);
    let picture = world.snapshot();
    assert_eq!(
        picture["zones"]["shop.test"]["records"],
        serde_json::json!([
            "www.hafog-shop.shop.test 3600 A @shop-east-balancer-1",
            "www.shop.test 3600 CNAME www.hafog-shop.shop.test",
        ])
    );
    assert_eq!(
        picture["servers"][EAST]["nodes"]["main"],
        serde_json::json!({
            "complete": true, "running": true, "mode": "writable", "timeline": 1, "upstream": null,
            "streaming": false, "slots": ["shop-east-db-2", "shop-west-db-1"], "rows": [],
        })
    );
    assert_eq!(
        picture["servers"][WEST_2]["nodes"]["main"],
        serde_json::json!({
            "complete": true, "running": true, "mode": "replica", "timeline": 1, "upstream": WEST,
            "streaming": true, "slots": [], "rows": [],
        })
    );
    assert_eq!(picture, stood().await.snapshot());
}

#[tokio::test]
async fn the_picture_sees_what_differs_and_no_addresses() {
    let world = stood().await;
    let before = world.snapshot();
    let name = ServerName::from("shop-west-web-1");
    let image = world.server(&name).unwrap().image.unwrap();
    let cloud = world.cloud(&west());
    cloud.delete_server(&name).await.unwrap();
    assert_ne!(world.snapshot(), before);
    let want = want(name.as_str(), Some(image.as_str()));
    let address = world.address(&"shop-west-web-2".into());
    cloud.create_server(&want, &key("new")).await.unwrap();
    world.advance(secs(2));
    assert_ne!(world.address(&name), address);
    let picture = world.snapshot();
    assert_eq!(picture["servers"][name.as_str()]["state"], "running");
    assert!(!picture.to_string().contains("10.2."), "{picture}");
}

// Clouds.

#[tokio::test]
async fn a_server_boots_and_keeps_to_its_key() {
    let world = empty();
    let cloud = world.cloud(&east());
    let made = cloud
        .create_server(&want("a", None), &key("1"))
        .await
        .unwrap();
    assert_eq!((made.state, made.host), (ServerState::Pending, None));
    world.clock().sleep(secs(2)).await;
    let seen = cloud.servers().await.unwrap();
    assert_eq!(seen[0].state, ServerState::Running);
    assert!(seen[0].host.is_some());

    let again = cloud
        .create_server(&want("a", None), &key("1"))
        .await
        .unwrap();
    assert_eq!(again, seen[0]);
    let other = cloud.create_server(&want("a", None), &key("2")).await;
    assert!(
        matches!(other, Err(Trouble::NothingChanged(_))),
        "{other:?}"
    );
    let no_image = cloud
        .create_server(&want("b", Some("web-1")), &key("3"))
        .await;
    assert!(matches!(no_image, Err(Trouble::NothingChanged(_))));
    cloud.delete_server(&"a".into()).await.unwrap();
    cloud.delete_server(&"a".into()).await.unwrap();
    assert!(cloud.servers().await.unwrap().is_empty());
}

#[tokio::test]
async fn images_are_sealed_once_and_kept_while_used() {
    let world = empty();
    let cloud = world.cloud(&east());
    let (image, tags) = (ImageName::from("web-1"), BTreeMap::new());
    cloud
        .create_server(&want("b", None), &key("1"))
        .await
        .unwrap();
    let early = cloud.seal(&"b".into(), &image, &tags).await;
    assert!(matches!(early, Err(Trouble::NothingChanged(_))));
    world.advance(secs(2));
    let sealed = cloud.seal(&"b".into(), &image, &tags).await.unwrap();
    assert_eq!(world.server(&"b".into()).unwrap().state, ServerState::Off);
    cloud.delete_server(&"b".into()).await.unwrap();
    assert_eq!(
        cloud.seal(&"b".into(), &image, &tags).await.unwrap(),
        sealed
    );
    assert!(world.cloud(&west()).images().await.unwrap().is_empty());

    cloud
        .create_server(&want("s", Some("web-1")), &key("2"))
        .await
        .unwrap();
    assert!(cloud.delete_image(&image).await.is_err());
    assert!(cloud.remove_site().await.is_err());
    cloud.delete_server(&"s".into()).await.unwrap();
    cloud.delete_image(&image).await.unwrap();
    cloud.delete_image(&image).await.unwrap();
    assert_eq!(world.snapshot()["sites"]["east"]["network"], true);
    cloud.remove_site().await.unwrap();
    cloud.remove_site().await.unwrap();
    assert_eq!(world.snapshot()["sites"]["east"]["network"], false);
}

#[tokio::test]
async fn power_off_stops_all_and_a_boot_comes_up_non_writable() {
    let world = stood().await;
    let (cloud, engine, name) = (world.cloud(&east()), world.engine("postgres"), EAST.into());
    cloud.power(&name, Power::Freeze).await.unwrap();
    assert!(world.writable(&main()).is_empty());
    assert!(
        engine
            .status(&node(&world, EAST), &reach(&world))
            .await
            .is_err()
    );
    assert!(cloud.power(&name, Power::On).await.is_err());
    cloud.power(&name, Power::Thaw).await.unwrap();
    assert_eq!(world.writable(&main()), [ServerName::from(EAST)]);

    cloud.power(&name, Power::Off).await.unwrap();
    cloud.power(&name, Power::Off).await.unwrap();
    assert!(
        engine
            .write_refused(&node(&world, EAST), &reach(&world))
            .await
            .is_err()
    );
    cloud.power(&name, Power::On).await.unwrap();
    let status = engine
        .status(&node(&world, EAST), &reach(&world))
        .await
        .unwrap();
    assert_eq!((status.role, status.writable), (NodeRole::Replica, false));
    assert!(matches!(status.link, Some(Link::Down { .. })), "{status:?}");
    assert!(cloud.power(&"nobody".into(), Power::Off).await.is_err());
}

#[tokio::test]
async fn a_new_image_is_seen_after_a_restart() {
    let world = stood().await;
    let (cloud, web) = (world.cloud(&east()), "shop-east-web-1");
    cloud
        .create_server(&want("b", None), &key("1"))
        .await
        .unwrap();
    world.advance(secs(2));
    let new = ImageName::from("web-2");
    cloud
        .seal(&"b".into(), &new, &BTreeMap::new())
        .await
        .unwrap();
    world.set_sick("web-2", true);
    cloud.change_image(&web.into(), &new).await.unwrap();
    assert_eq!(http(&world, web).await.unwrap(), 200);
    let host = world.server(&web.into()).unwrap().host(&web.into());
    let restart = world.shell(&east());
    restart
        .service(&host, "web", ServiceChange::Restart)
        .await
        .unwrap();
    assert_eq!(http(&world, web).await.unwrap(), 500);
    assert_eq!(http(&world, "shop-east-balancer-1").await.unwrap(), 200);
}

#[tokio::test]
async fn a_balancer_answers_while_one_application_does() {
    let world = stood().await;
    for (web, status) in [("shop-east-web-1", 200), ("shop-east-web-2", 503)] {
        let cloud = world.cloud(&east());
        cloud.power(&web.into(), Power::Off).await.unwrap();
        assert!(http(&world, web).await.is_err());
        assert_eq!(http(&world, "shop-east-balancer-1").await.unwrap(), status);
    }
    world.crash_service(&"shop-west-balancer-1".into(), "haproxy");
    assert!(http(&world, "shop-west-balancer-1").await.is_err());
    let probe = world.probe();
    let database = |name: &str| (world.address(&name.into()).unwrap(), 5432).into();
    probe.tcp(database(WEST), secs(2)).await.unwrap();
    world.crash_service(&WEST.into(), "postgres-main");
    assert!(probe.tcp(database(WEST), secs(2)).await.is_err());
}

// Shells.

#[tokio::test]
async fn files_services_and_commands_are_recorded() {
    let world = stood().await;
    let (shell, name) = (world.shell(&west()), ServerName::from("shop-west-web-1"));
    let host = world.server(&name).unwrap().host(&name);
    let file = File {
        path: format!("{}/app/conf", host.dirs.etc),
        bytes: b"hello".to_vec(),
        mode: 0o600,
        for_service_user: false,
    };
    shell.put(&host, &file).await.unwrap();
    assert_eq!(
        shell.get(&host, &file.path).await.unwrap().unwrap(),
        b"hello"
    );
    assert!(shell.remove(&host, &host.dirs.image).await.is_err());
    let sneaky = format!("{}/../image", host.dirs.etc);
    assert!(shell.remove(&host, &sneaky).await.is_err());
    let folder = format!("{}/app", host.dirs.etc);
    shell.remove(&host, &folder).await.unwrap();
    shell.remove(&host, &folder).await.unwrap();
    assert_eq!(shell.get(&host, &file.path).await.unwrap(), None);

    let answer = Ran {
        code: 3,
        stdout: "no".to_owned(),
        stderr: String::new(),
    };
    world.set_command_answer("is-ok", answer.clone());
    let ran = shell.run(&host, &Command::new(["app", "is-ok"])).await;
    assert_eq!(ran.unwrap(), answer);
    assert_eq!(world.server(&name).unwrap().commands, ["app is-ok"]);

    let stop = ServiceChange::Stop { signal: None };
    shell.service(&host, "web", stop.clone()).await.unwrap();
    assert!(shell.service(&host, "other", stop).await.is_err());
    let state = shell.services(&host).await.unwrap().remove(0);
    assert_eq!(
        (state.running, state.wanted, state.starts),
        (false, false, 1)
    );
    shell
        .service(&host, "web", ServiceChange::Start)
        .await
        .unwrap();
    assert_eq!(shell.services(&host).await.unwrap()[0].starts, 2);
    shell
        .service(&host, "web", ServiceChange::Remove)
        .await
        .unwrap();
    assert!(shell.services(&host).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_old_address_is_nobodys() {
    let world = stood().await;
    let (name, cloud) = (ServerName::from("shop-west-web-1"), world.cloud(&west()));
    let old = world.server(&name).unwrap().host(&name);
    cloud.delete_server(&name).await.unwrap();
    cloud
        .create_server(&want(name.as_str(), None), &key("2"))
        .await
        .unwrap();
    world.advance(secs(2));
    assert!(world.shell(&west()).services(&old).await.is_err());
}

#[tokio::test]
async fn the_engine_s_service_is_the_node() {
    let world = stood().await;
    let host = node(&world, EAST).host;
    let shell = world.shell(&east());
    let change = |change| shell.service(&host, "postgres-main", change);
    change(ServiceChange::Stop { signal: None }).await.unwrap();
    let engine = world.engine("postgres");
    let refusal = engine
        .write_refused(&node(&world, EAST), &reach(&world))
        .await;
    assert_eq!(refusal.unwrap().unwrap(), "connection refused");
    change(ServiceChange::Start).await.unwrap();
    let status = engine.status(&node(&world, EAST), &reach(&world)).await;
    assert!(!status.unwrap().writable);
}

// Databases.

#[tokio::test]
async fn replicas_receive_down_the_chain() {
    let world = stood().await;
    write(&world, EAST, "a");
    assert_eq!(rows(&world, WEST_2), ["a"]);
    assert!(world.write(&WEST.into(), &main(), "b").is_err());
    let engine = world.engine("postgres");
    let east = engine
        .status(&node(&world, EAST), &reach(&world))
        .await
        .unwrap();
    let west = engine
        .status(&node(&world, WEST), &reach(&world))
        .await
        .unwrap();
    assert_eq!(
        engine.bytes_between(&east.position, &west.position),
        Some(0)
    );
    assert_eq!(
        west.link,
        Some(Link::Up {
            from: EAST.to_owned()
        })
    );
    assert_eq!(west.heartbeat, east.heartbeat);
    assert_eq!(east.heartbeat.unwrap().at, world.clock().now());
    let followers: Vec<_> = east
        .followers
        .iter()
        .map(|one| (one.node.as_str(), one.streaming))
        .collect();
    assert_eq!(followers, [("shop-east-db-2", true), (WEST, true)]);
}

#[tokio::test]
async fn delays_hold_writes_and_heartbeats_back() {
    let world = stood().await;
    world.set_delays(&WEST.into(), &main(), secs(5), secs(8));
    write(&world, EAST, "a");
    assert_eq!(rows(&world, WEST), [""; 0]);
    world.clock().sleep(secs(5)).await;
    let engine = world.engine("postgres");
    let status = engine
        .status(&node(&world, WEST), &reach(&world))
        .await
        .unwrap();
    assert_eq!(
        engine.bytes_between(status.received.as_ref().unwrap(), &status.position),
        Some(0x40)
    );
    world.clock().sleep(secs(60)).await;
    let status = engine
        .status(&node(&world, WEST), &reach(&world))
        .await
        .unwrap();
    assert_eq!(status.heartbeat.unwrap().at, world.clock().now() - secs(8));
    assert_eq!(rows(&world, WEST), ["a"]);
}

#[tokio::test]
async fn a_dead_stream_lets_the_heartbeat_grow_old() {
    let world = stood().await;
    let cut_at = world.clock().now();
    world.cut_stream(&WEST.into(), &main(), true);
    world.clock().sleep(secs(30)).await;
    let engine = world.engine("postgres");
    let status = engine
        .status(&node(&world, WEST), &reach(&world))
        .await
        .unwrap();
    assert!(matches!(status.link, Some(Link::Down { .. })));
    assert_eq!(status.heartbeat.unwrap().at, cut_at);
}

#[tokio::test]
async fn a_clean_stop_sends_everything() {
    let world = stood().await;
    world.set_delays(&WEST.into(), &main(), secs(5), secs(0));
    write(&world, EAST, "a");
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let last = engine
        .stop_clean(&node(&world, EAST), &reach)
        .await
        .unwrap();
    assert_eq!(
        engine
            .stop_clean(&node(&world, EAST), &reach)
            .await
            .unwrap(),
        last
    );
    let west = engine.status(&node(&world, WEST), &reach).await.unwrap();
    assert_eq!(engine.bytes_between(&west.position, &last), Some(0));
    assert_eq!(
        engine
            .promote(&node(&world, WEST), &reach, &always)
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        engine
            .promote(&node(&world, WEST), &reach, &always)
            .await
            .unwrap(),
        2
    );
    assert_eq!(world.lost_writes(&main()).unwrap(), [""; 0]);
    let old = engine
        .rejoin(&node(&world, EAST), &node(&world, WEST), &reach)
        .await;
    assert_eq!(old.unwrap(), Rejoined::Followed);
    write(&world, WEST, "b");
    assert_eq!(rows(&world, EAST), ["a", "b"]);
    assert_eq!(world.violations(), [""; 0]);
}

#[tokio::test]
async fn a_promotion_beside_a_living_primary_is_noticed() {
    let world = stood().await;
    world.cut_off(&east());
    write(&world, EAST, "lost");
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    assert!(engine.stop_now(&node(&world, EAST), &reach).await.is_err());
    engine
        .promote(&node(&world, WEST), &reach, &always)
        .await
        .unwrap();
    assert_eq!(
        world.violations(),
        ["two writers of `main`: shop-east-db-1, shop-west-db-1"]
    );
}

#[tokio::test]
async fn a_lost_site_loses_what_was_not_sent() {
    let world = stood().await;
    write(&world, EAST, "a");
    world.set_delays(&WEST.into(), &main(), secs(5), secs(0));
    write(&world, EAST, "b");
    world.lose(&east());
    assert_eq!(world.lost_writes(&main()), None);
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    engine
        .promote(&node(&world, WEST), &reach, &always)
        .await
        .unwrap();
    assert_eq!(world.lost_writes(&main()).unwrap(), ["b"]);
    assert_eq!(world.acknowledged(&main()).len(), 2);
    assert_eq!(world.violations(), [""; 0]);

    world.reconnect(&east());
    let cloud = world.cloud(&east());
    cloud.power(&EAST.into(), Power::On).await.unwrap();
    let (old, new) = (node(&world, EAST), node(&world, WEST));
    let divergence = engine.divergence(&old, &new, &reach).await.unwrap();
    assert_eq!(
        divergence,
        Divergence::Diverged {
            fork: node::position(node::LOG_START + 0x40),
            extra: 0x40
        }
    );
    assert!(engine.follow(&old, &new, &reach).await.is_err());
    let how = engine.rejoin(&old, &new, &reach).await.unwrap();
    assert_eq!(how, Rejoined::Rewound);
    assert_eq!(rows(&world, EAST), ["a"]);
    assert_eq!(
        engine.divergence(&old, &new, &reach).await.unwrap(),
        Divergence::None
    );
    let again = engine.rejoin(&old, &new, &reach).await.unwrap();
    assert_eq!(again, Rejoined::Followed);
    let status = engine.status(&old, &reach).await.unwrap();
    assert_eq!((status.timeline, status.role), (2, NodeRole::Replica));
}

#[tokio::test]
async fn what_cannot_be_rewound_is_copied() {
    let world = stood().await;
    world.cut_stream(&WEST.into(), &main(), true);
    write(&world, EAST, "b");
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (old, new) = (node(&world, EAST), node(&world, WEST));
    engine.stop_now(&old, &reach).await.unwrap();
    engine.promote(&new, &reach, &always).await.unwrap();
    world.set_can_rewind(false);
    let how = engine.rejoin(&old, &new, &reach).await.unwrap();
    assert!(matches!(how, Rejoined::Reseeded { .. }), "{how}");
    // The old primary's replica has log that nobody has any more.
    let orphan = node(&world, "shop-east-db-2");
    assert!(engine.follow(&orphan, &old, &reach).await.is_err());
    engine.seed(&old, &orphan, &reach).await.unwrap();
    write(&world, WEST, "c");
    assert_eq!(rows(&world, "shop-east-db-2"), ["c"]);
}

#[tokio::test]
async fn a_replica_follows_another_of_its_history() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (east, replica) = (node(&world, EAST), node(&world, WEST_2));
    engine.follow(&replica, &east, &reach).await.unwrap();
    engine
        .forget(&node(&world, WEST), &replica.host.name, &reach)
        .await
        .unwrap();
    engine.stop_now(&node(&world, WEST), &reach).await.unwrap();
    write(&world, EAST, "a");
    assert_eq!(rows(&world, WEST_2), ["a"]);
    engine
        .forget(&east, &replica.host.name, &reach)
        .await
        .unwrap();
    let status = engine.status(&replica, &reach).await.unwrap();
    assert!(matches!(status.link, Some(Link::Down { .. })), "{status:?}");
    let primary = engine.follow(&east, &replica, &reach).await;
    assert!(matches!(primary, Err(Trouble::NothingChanged(_))));
}

#[tokio::test]
async fn a_stopped_node_is_not_promoted() {
    let world = stood().await;
    let (engine, reach, west) = (world.engine("postgres"), reach(&world), node(&world, WEST));
    engine.stop_now(&west, &reach).await.unwrap();
    let promoted = engine.promote(&west, &reach, &always).await;
    assert!(matches!(promoted, Err(Trouble::NothingChanged(_))));
    engine.start(&west, &reach).await.unwrap();
    engine.start(&west, &reach).await.unwrap();
    assert!(engine.write_refused(&west, &reach).await.unwrap().is_some());
}

#[tokio::test]
async fn writes_are_refused_and_accepted_as_they_would_be() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (east, west) = (node(&world, EAST), node(&world, WEST));
    assert_eq!(engine.write_refused(&east, &reach).await.unwrap(), None);
    assert!(engine.write_refused(&west, &reach).await.unwrap().is_some());
    assert!(engine.beat(&west, 1, start(), &reach).await.is_err());
    world.set_beats_alone(false);
    write(&world, EAST, "a");
    let (_, transactions) = engine.beat(&east, 900, start(), &reach).await.unwrap();
    assert_eq!(transactions, Some(1));
    let status = engine.status(&east, &reach).await.unwrap();
    assert_eq!(status.heartbeat.unwrap().seq, 900);
}

#[tokio::test]
async fn verify_finds_corruption() {
    let world = stood().await;
    write(&world, EAST, "a");
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (east, west) = (node(&world, EAST), node(&world, WEST));
    let verified = engine.verify(&east, &west, &reach).await.unwrap();
    assert_eq!((verified.rows, verified.different.len()), (1, 0));
    world.corrupt(&WEST.into(), &main());
    let verified = engine.verify(&east, &west, &reach).await.unwrap();
    assert_eq!(verified.different, ["writes"]);
}

#[tokio::test]
async fn a_half_copy_is_no_data_and_a_copy_over_the_primary_is_noticed() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (east, west) = (node(&world, EAST), node(&world, WEST));
    world.script(Script::on("engine.seed", Mishap::Half).about(WEST));
    let half = engine.seed(&east, &west, &reach).await;
    assert!(matches!(half, Err(Trouble::Partial(_))), "{half:?}");
    assert!(!engine.has_data(&west, &reach).await.unwrap());
    assert!(engine.start(&west, &reach).await.is_err());
    engine.seed(&east, &west, &reach).await.unwrap();
    assert!(engine.has_data(&west, &reach).await.unwrap());
    engine.seed(&west, &east, &reach).await.unwrap();
    assert_eq!(
        world.violations(),
        ["a copy of `main` over the writable `shop-east-db-1`"]
    );
}

#[tokio::test]
async fn a_half_creation_is_completed_by_the_next() {
    let world = empty();
    world.set_boot_time(Duration::ZERO);
    let cloud = world.cloud(&east());
    cloud
        .create_server(&want(EAST, None), &key("1"))
        .await
        .unwrap();
    let (engine, reach, east) = (world.engine("postgres"), reach(&world), node(&world, EAST));
    world.script(Script::on("engine.create", Mishap::Half));
    assert!(engine.create(&east, None, &reach).await.is_err());
    assert!(!engine.has_data(&east, &reach).await.unwrap());
    engine.create(&east, None, &reach).await.unwrap();
    write(&world, EAST, "a");
    engine.create(&east, None, &reach).await.unwrap();
    assert_eq!(rows(&world, EAST), ["a"]);
    let cloud = world.cloud(&self::east());
    cloud.power(&EAST.into(), Power::Off).await.unwrap();
    cloud.power(&EAST.into(), Power::On).await.unwrap();
    engine.create(&east, None, &reach).await.unwrap();
    assert!(world.writable(&main()).is_empty());
}

#[tokio::test]
async fn a_half_stop_bars_the_sessions_and_opening_again_keeps_the_timeline() {
    let world = stood().await;
    let (engine, reach, east) = (world.engine("postgres"), reach(&world), node(&world, EAST));
    world.script(Script::on("engine.stop_clean", Mishap::Half));
    let half = engine.stop_clean(&east, &reach).await;
    assert!(matches!(half, Err(Trouble::Partial(_))), "{half:?}");
    let status = engine.status(&east, &reach).await.unwrap();
    assert_eq!((status.role, status.writable), (NodeRole::Primary, false));
    assert!(engine.write_refused(&east, &reach).await.unwrap().is_some());
    assert!(world.write(&EAST.into(), &main(), "a").is_err());
    assert_eq!(engine.promote(&east, &reach, &always).await.unwrap(), 1);
    write(&world, EAST, "a");
}

#[tokio::test]
async fn a_half_rewind_leaves_only_a_copy() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    let (old, new) = (node(&world, EAST), node(&world, WEST));
    world.cut_stream(&WEST.into(), &main(), true);
    write(&world, EAST, "b");
    engine.stop_now(&old, &reach).await.unwrap();
    engine.promote(&new, &reach, &always).await.unwrap();
    world.script(Script::on("engine.rejoin", Mishap::CrashDuring));
    let cut = world.until_death(engine.rejoin(&old, &new, &reach)).await;
    assert_eq!(cut, None);
    let engine = world.restart().engine("postgres");
    assert!(!engine.has_data(&old, &reach).await.unwrap());
    let how = engine.rejoin(&old, &new, &reach).await.unwrap();
    assert!(matches!(how, Rejoined::Reseeded { .. }), "{how}");
}

#[tokio::test]
async fn a_half_promotion_replays_and_does_not_open() {
    let world = stood().await;
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    world.set_delays(&WEST.into(), &main(), secs(0), secs(60));
    write(&world, EAST, "a");
    world.script(Script::on("engine.promote", Mishap::Half));
    assert!(
        engine
            .promote(&node(&world, WEST), &reach, &always)
            .await
            .is_err()
    );
    assert_eq!(rows(&world, WEST), ["a"]);
    assert_eq!(world.writable(&main()), [ServerName::from(EAST)]);
}

// DNS.

fn set(host: &str, kind: RecordType, ttl: u32, value: &str) -> RecordSet {
    RecordSet {
        host: host.into(),
        kind,
        ttl: Ttl(ttl),
        values: [value.to_owned()].into(),
    }
}

fn change(before: Option<RecordSet>, after: Option<RecordSet>) -> RecordChange {
    let one = before.as_ref().or(after.as_ref()).unwrap();
    RecordChange {
        host: one.host.clone(),
        kind: one.kind,
        before,
        after,
    }
}

#[tokio::test]
async fn records_are_compared_before_they_are_written() {
    let world = empty();
    let dns = world.dns(&"shop.test".into());
    let a = |value| Some(set("a.shop.test", RecordType::A, 60, value));
    assert!(dns.apply(&[change(None, a("10.0.0.1"))]).await.is_err());
    dns.open_zone().await.unwrap();
    dns.open_zone().await.unwrap();
    dns.apply(&[change(None, a("10.0.0.1"))]).await.unwrap();
    let stale = dns.apply(&[change(a("10.0.0.9"), a("10.0.0.2"))]).await;
    assert!(matches!(stale, Err(Trouble::NothingChanged(_))));
    let b = Some(set("b.shop.test", RecordType::A, 60, "10.0.0.3"));
    let both = [change(None, b), change(None, a("10.0.0.2"))];
    assert!(dns.apply(&both).await.is_err());
    assert_eq!(world.records(&"shop.test".into()), [a("10.0.0.1").unwrap()]);
    let alias = Some(set("a.shop.test", RecordType::Cname, 60, "b.shop.test"));
    assert!(dns.apply(&[change(None, alias)]).await.is_err());
    let foreign = Some(set("notshop.test", RecordType::A, 60, "10.0.0.1"));
    assert!(dns.apply(&[change(None, foreign)]).await.is_err());

    let mut empty = a("10.0.0.1").unwrap();
    empty.values.clear();
    assert!(
        dns.apply(&[change(a("10.0.0.1"), Some(empty))])
            .await
            .is_err()
    );
    assert_eq!(world.violations().len(), 1);
    dns.apply(&[change(a("10.0.0.1"), None)]).await.unwrap();
    assert_eq!(world.records(&"shop.test".into()), []);
}

#[tokio::test]
async fn authorities_answer_with_the_aliases_on_the_way() {
    let world = stood().await;
    let (zone, probe) = ("shop.test".into(), world.probe());
    let authorities = world.dns(&zone).authorities().await.unwrap();
    assert_eq!(authorities.len(), 2);
    let ask = async |index: usize, host: &str, kind| {
        probe.dns(authorities[index], &host.into(), kind).await
    };
    let answer = ask(0, "www.shop.test", RecordType::A).await.unwrap();
    assert_eq!(
        answer.sets,
        world.records(&zone).into_iter().rev().collect::<Vec<_>>()
    );
    let none = ask(0, "www.shop.test", RecordType::Aaaa).await.unwrap();
    assert_eq!((none.code.as_str(), none.sets.len()), ("NOERROR", 1));
    assert_eq!(
        ask(0, "no.shop.test", RecordType::A).await.unwrap().code,
        "NXDOMAIN"
    );
    assert_eq!(
        ask(0, "hafog-shop.shop.test", RecordType::A)
            .await
            .unwrap()
            .code,
        "NOERROR"
    );
    assert_eq!(
        ask(0, "other.test", RecordType::A).await.unwrap().code,
        "REFUSED"
    );

    world.hold_authority(&zone, 1, true);
    let before = world.records(&zone).remove(0);
    let mut after = before.clone();
    after.ttl = Ttl(60);
    let flip = change(Some(before.clone()), Some(after.clone()));
    world.dns(&zone).apply(&[flip]).await.unwrap();
    let host = "www.hafog-shop.shop.test";
    assert_eq!(ask(0, host, RecordType::A).await.unwrap().sets, [after]);
    assert_eq!(ask(1, host, RecordType::A).await.unwrap().sets, [before]);
    world.set_authority_answers(&zone, 1, false);
    assert!(ask(1, host, RecordType::A).await.is_err());
    world.dns(&zone).close_zone().await.unwrap();
    assert!(!world.dns(&zone).state().await.unwrap().open);
    assert!(ask(0, host, RecordType::A).await.is_err());
}

// Stores.

#[tokio::test]
async fn documents_change_by_compare_and_set() {
    let world = empty();
    let store = world.store(1);
    assert_eq!(store.name(), "arbiter");
    let first = store.put("roles", b"1", None).await.unwrap();
    let late = store.put("roles", b"2", None).await;
    assert!(matches!(late, Err(PutError::Changed)));
    let second = store.put("roles", b"2", Some(&first)).await.unwrap();
    let stale = store.put("roles", b"3", Some(&first)).await;
    assert!(matches!(stale, Err(PutError::Changed)));
    assert_eq!(
        store.get("roles").await.unwrap(),
        Some((b"2".to_vec(), second.clone()))
    );
    store.delete("roles").await.unwrap();
    store.delete("roles").await.unwrap();
    let gone = store.put("roles", b"4", Some(&second)).await;
    assert!(matches!(gone, Err(PutError::Changed)));
    assert_eq!(world.document(1, "roles"), None);
    assert_eq!(world.store(0).get("roles").await.unwrap(), None);
}

#[tokio::test]
async fn a_torn_line_stays_alone() {
    let world = empty();
    let (store, run) = (world.store(0), RunId::from("r1"));
    assert_eq!(store.read(&run).await.unwrap(), None);
    store.append(&run, "first").await.unwrap();
    world.script(Script::on("store.append", Mishap::Half).about("second"));
    assert!(store.append(&run, "second").await.is_err());
    assert_eq!(store.read(&run).await.unwrap().unwrap(), b"first\nsec");
    store.append(&run, "third").await.unwrap();
    assert_eq!(
        store.read(&run).await.unwrap().unwrap(),
        b"first\nsec\nthird\n"
    );
    store.append(&"r0".into(), "x").await.unwrap();
    assert_eq!(store.runs().await.unwrap(), [run, "r0".into()]);
}

#[tokio::test]
async fn a_full_store_reads_and_a_silent_one_does_nothing() {
    let world = empty();
    let (store, run) = (world.store(0), RunId::from("r1"));
    world.set_store_full(0, true);
    assert!(store.append(&run, "x").await.is_err());
    let full = store.put("roles", b"1", None).await;
    assert!(matches!(full, Err(PutError::Fault(_))));
    assert_eq!(store.read(&run).await.unwrap(), None);
    world.set_store_full(0, false);
    world.set_store_answers(0, false);
    assert!(store.read(&run).await.is_err());
    world.store(1).append(&run, "x").await.unwrap();
}

// Sites, vantages and books.

#[tokio::test]
async fn a_dead_site_is_silent_and_every_call_to_it_is_booked() {
    let world = stood().await;
    world.cut_off(&east());
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    assert!(world.cloud(&east()).ping().await.is_err());
    assert!(engine.status(&node(&world, EAST), &reach).await.is_err());
    assert!(http(&world, "shop-east-balancer-1").await.is_err());
    engine.status(&node(&world, WEST), &reach).await.unwrap();
    let booked: Vec<&str> = world
        .calls_to(&east())
        .iter()
        .map(|call| call.call)
        .collect();
    assert_eq!(booked, ["cloud.ping", "engine.status", "probe.http"]);
    assert_eq!(world.calls_to(&west()).len(), 1);
    assert_eq!(world.changes(), 0);
    // What runs there runs on, and goes on alone.
    write(&world, EAST, "a");
    assert_eq!(rows(&world, "shop-east-db-2"), ["a"]);
    assert_eq!(rows(&world, WEST), [""; 0]);
    world.reconnect(&east());
    assert_eq!(rows(&world, WEST), ["a"]);
}

#[tokio::test]
async fn a_silent_cloud_leaves_its_servers_alone() {
    let world = stood().await;
    world.set_cloud_answers(&east(), false);
    assert!(world.cloud(&east()).servers().await.is_err());
    let (engine, reach) = (world.engine("postgres"), reach(&world));
    engine.status(&node(&world, EAST), &reach).await.unwrap();
    assert_eq!(http(&world, "shop-east-balancer-1").await.unwrap(), 200);
}

#[tokio::test]
async fn an_agent_in_a_cut_off_site_sees_only_its_own() {
    let world = stood().await;
    world.cut_off(&east());
    let inside = world.seen_from(&east());
    let (engine, reach) = (inside.engine("postgres"), reach(&world));
    engine.status(&node(&world, EAST), &reach).await.unwrap();
    assert!(engine.status(&node(&world, WEST), &reach).await.is_err());
    assert!(inside.store(1).get("writer/main").await.is_err());
    engine.stop_now(&node(&world, EAST), &reach).await.unwrap();
    world.reconnect(&east());
    inside.store(1).get("writer/main").await.unwrap();
    assert_eq!(world.changes(), 0);
}

// Mishaps.

/// What the caller is told, and whether the server is there afterwards.
async fn create_with(mishap: Mishap) -> (&'static str, Option<ServerState>) {
    let world = empty();
    world.set_boot_time(Duration::ZERO);
    world.script(Script::on("cloud.create_server", mishap));
    let cloud = world.cloud(&east());
    let (want, key) = (want("a", None), key("1"));
    let create = cloud.create_server(&want, &key);
    let told = tokio::select! {
        biased;
        () = world.died() => "dead",
        made = create => match made {
            Ok(_) => "done",
            Err(trouble) => trouble.word(),
        },
        () = tokio::task::yield_now() => "hangs",
    };
    assert_eq!(world.unfired(), [""; 0]);
    assert_eq!(world.is_dead(), mishap.kills());
    let state = world.server(&"a".into()).map(|server| server.state);
    (told, state)
}

#[tokio::test]
async fn each_mishap_does_to_the_world_what_it_says() {
    use ServerState::{Pending, Running};
    for (mishap, told, state) in [
        (Mishap::FailBefore, "nothing changed", None),
        (Mishap::LoseReply, "unknown", Some(Running)),
        (Mishap::Half, "partly done", Some(Pending)),
        (Mishap::Twice, "done", Some(Running)),
        (Mishap::Hang, "hangs", Some(Running)),
        (Mishap::CrashBefore, "dead", None),
        (Mishap::CrashDuring, "dead", Some(Pending)),
        (Mishap::CrashAfter, "dead", Some(Running)),
    ] {
        let seen = match tokio::time::timeout(secs(60), create_with(mishap)).await {
            Ok(seen) => seen,
            Err(_) => panic!("{mishap:?} never ended"),
        };
        assert_eq!(seen, (told, state), "{mishap:?}");
    }
}

#[tokio::test]
async fn an_atomic_call_has_no_half() {
    let world = stood().await;
    world.script(Script::on("cloud.power", Mishap::Half));
    let off = world.cloud(&east()).power(&EAST.into(), Power::Off).await;
    assert!(matches!(off, Err(Trouble::NothingChanged(_))));
    assert_eq!(world.writable(&main()), [ServerName::from(EAST)]);
}

#[tokio::test]
async fn a_look_fails_and_dies_too() {
    let world = stood().await;
    world.script(Script::on("cloud.servers", Mishap::LoseReply));
    let cloud = world.cloud(&east());
    assert!(cloud.servers().await.is_err());
    assert_eq!(cloud.servers().await.unwrap().len(), 5);
    world.script(Script::on("cloud.servers", Mishap::CrashAfter).nth(2));
    let twice = async {
        cloud.servers().await.unwrap();
        cloud.servers().await.unwrap();
    };
    assert_eq!(world.until_death(twice).await, None);
}

#[tokio::test]
async fn nothing_of_a_dead_process_acts_any_more() {
    let world = empty();
    let old = world.cloud(&east());
    world.script(Script::on("cloud.ping", Mishap::CrashBefore));
    assert_eq!(world.until_death(old.ping()).await, None);
    let new = world.restart();
    assert!(!new.is_dead());
    let (want_a, want_b, key) = (want("a", None), want("b", None), key("1"));
    assert!(
        world
            .until_death(old.create_server(&want_a, &key))
            .await
            .is_none()
    );
    let left = tokio::spawn({
        let (old, want, key) = (old.clone(), want_a.clone(), key.clone());
        async move { old.create_server(&want, &key).await.map(|_| ()) }
    });
    let cloud = new.cloud(&east());
    new.until_death(cloud.create_server(&want_b, &key))
        .await
        .unwrap()
        .unwrap();
    tokio::task::yield_now().await;
    left.abort();
    assert!(world.server(&"a".into()).is_none());
    assert!(world.server(&"b".into()).is_some());
    // A driver that drops a run by itself ends the process the same way.
    let third = new.restart();
    assert!(new.is_dead() && !third.is_dead());
}

/// A small program that looks before it acts, as steps do.
async fn switch_over(world: &SimWorld) -> Result<(), Trouble> {
    let (engine, reach) = (world.engine("postgres"), reach(world));
    let (old, new) = (node(world, EAST), node(world, WEST));
    let unknown = |fault| Trouble::Unknown(fault);
    let status = engine.status(&new, &reach).await.map_err(unknown)?;
    if !status.writable {
        engine.stop_clean(&old, &reach).await?;
        engine.promote(&new, &reach, &always).await?;
    }
    engine.rejoin(&old, &new, &reach).await?;
    let dns = world.dns(&"shop.test".into());
    let there = dns.records().await.map_err(unknown)?.remove(0);
    let mut after = there.clone();
    after.values = [world
        .address(&"shop-west-balancer-1".into())
        .unwrap()
        .to_string()]
    .into();
    if after != there {
        dns.apply(&[change(Some(there), Some(after))]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_program_that_looks_first_survives_every_mishap_at_every_change() {
    let uncut = stood().await;
    write(&uncut, EAST, "a");
    switch_over(&uncut).await.unwrap();
    assert_eq!(uncut.changes(), 4);
    for nth in 1..=uncut.changes() {
        for mishap in Mishap::ALL {
            if mishap == Mishap::Hang {
                continue;
            }
            let case = format!("{mishap:?} at change {nth}");
            let mut world = stood().await;
            write(&world, EAST, "a");
            world.script(Script::on_change(nth, mishap));
            let mut tries = 0;
            while world.until_death(switch_over(&world)).await != Some(Ok(())) {
                tries += 1;
                assert!(tries < 3, "{case}: not done after 3 tries");
                world = world.restart();
            }
            assert_eq!(world.unfired(), [""; 0], "{case}");
            assert_eq!(world.violations(), [""; 0], "{case}");
            assert_eq!(world.lost_writes(&main()).unwrap(), [""; 0], "{case}");
            assert_eq!(world.snapshot(), uncut.snapshot(), "{case}");
        }
    }
}
