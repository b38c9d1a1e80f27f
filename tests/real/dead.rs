//! A failover beside things that are dead at the same time: it ends, and says what it left.

use super::lab::{Lab, turn};

#[test]
fn a_failover_ends_whatever_else_is_dead() {
    let Some(_turn) = turn("a_failover_ends_whatever_else_is_dead") else {
        return;
    };
    let lab = Lab::with_standby();
    lab.must("local power shop-west-web-2 off");
    lab.must("local power shop-west-db-2 off");
    lab.must("local power east off");
    lab.kill_name_server();
    let moved = lab.run("failover --yes");
    assert_eq!(moved.code, 6, "{}", moved.all());
    for said in ["recreate-replica shop-west-db-2", "hint: hafog up"] {
        assert!(moved.stderr.contains(said), "{said}: {}", moved.all());
    }
    assert_eq!(lab.writable(), ["shop-west-db-1"]);
    let facts = lab.facts();
    assert_eq!(facts["roles"]["primary"], "west");
    assert_eq!(facts["zones"]["shop.test"]["open"]["known"], true);
    // The name leads to the new site, says the name server that was dead.
    let west = &facts["sites"]["west"]["servers"]["shop-west-balancer-1"]["host"]["address"];
    let records = facts["zones"]["shop.test"]["records"]
        .as_array()
        .expect("records");
    let leads = |set: &serde_json::Value| set["type"] == "A" && &set["values"][0] == west;
    assert!(records.iter().any(leads), "{records:?}");

    // Nothing is left open: what the hint says is done.
    lab.must("up --yes");
    let facts = lab.facts();
    let replica = &facts["nodes"]["shop-west-db-2"]["status"]["known"];
    assert_eq!(replica["role"], "replica", "{replica}");
    let role = |server: &str| {
        let etc = &facts["sites"]["west"]["servers"][server]["host"]["dirs"]["etc"];
        let path = format!("{}/role", etc.as_str().expect("a folder"));
        std::fs::read_to_string(path).expect("a role")
    };
    assert!(role("shop-west-web-1").starts_with("primary "));
    assert_eq!(role("shop-west-web-1"), role("shop-west-web-2"));
    lab.must("commit --yes");
    lab.must("destroy --yes");
    assert_eq!(lab.processes(), 0);
}
