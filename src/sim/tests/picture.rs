//! A stack that stands, and the picture of it.

use super::*;

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
