//! A passive node of the primary's site takes over, and the old primary comes back to it.

use super::lab::{Lab, send, turn};

/// The nodes of the east as the applications there are told: the address in `DATABASE_URL`.
fn told(lab: &Lab, server: &str) -> String {
    let facts = lab.facts();
    let dirs = &facts["sites"]["east"]["servers"][server]["host"]["dirs"];
    let path = format!("{}/env", dirs["etc"].as_str().expect("a folder"));
    let text = std::fs::read_to_string(path).expect("an environment");
    let url = text
        .lines()
        .find_map(|line| line.strip_prefix("DATABASE_URL="));
    let host = url.and_then(|url| url.split('@').nth(1)?.split(':').next());
    host.expect("a URL").to_owned()
}

#[test]
fn a_passive_node_takes_over_and_the_old_primary_comes_back() {
    let Some(_turn) = turn("within") else { return };
    let lab = Lab::new();
    lab.must("up --yes");
    let (first, second) = ("shop-east-db-1", "shop-east-db-2");
    let webs = ["shop-east-web-1", "shop-east-web-2"];
    let address = |node: &str| lab.address(node, 5432).ip().to_string();
    let door = lab.address("shop-east-balancer-1", 8080);
    let order = |id: &str| send(door, "POST /orders HTTP/1.1\r\n", id).0;
    let taken = |id: &str| lab.until("an order is taken", || order(id) == 201);
    taken("before");

    // Who may not take over is told who may.
    for (words, code, said) in [
        ("switchover east", 3, "hafog switchover shop-east-db-2"),
        (
            "switchover shop-east-db-1",
            3,
            "is the primary of `main` already",
        ),
        ("switchover shop-west-db-1", 3, "hafog switchover west"),
        ("switchover shop-east-web-1", 64, "is no database node"),
        (
            "switchover shop-east-db-3",
            64,
            "did you mean `shop-east-db-",
        ),
        (
            "failover shop-east-db-2",
            3,
            "hafog switchover shop-east-db-2",
        ),
        (
            "failover shop-east-db-2 --assume-down east",
            64,
            "while east is assumed down",
        ),
    ] {
        let ran = lab.run(&format!("{words} --yes"));
        assert_eq!(ran.code, code, "{words}\n{}", ran.all());
        assert!(ran.stderr.contains(said), "{words}\n{}", ran.all());
    }
    assert_eq!(lab.writable(), [first]);

    lab.must("switchover shop-east-db-2 --yes");
    assert_eq!(lab.writable(), [second]);
    assert_eq!(
        webs.map(|web| told(&lab, web)),
        [address(second), address(second)]
    );
    taken("after");
    let up = lab.must("up --yes");
    assert_eq!(up.stdout, "up: nothing to do\n");
    lab.until("both follow", || lab.run("replicate status").code == 0);

    // Without power the new one is nobody's to write to, and a heal would be a guess.
    lab.must("local power shop-east-db-2 off");
    let healed = lab.run("heal --yes");
    assert_eq!(healed.code, 3, "{}", healed.all());
    assert!(
        healed.stderr.contains("hafog failover shop-east-db-1"),
        "{}",
        healed.all()
    );
    lab.must("failover shop-east-db-1 --yes");
    assert_eq!(lab.writable(), [first]);
    assert_eq!(
        webs.map(|web| told(&lab, web)),
        [address(first), address(first)]
    );
    taken("later");

    lab.must("heal --yes");
    assert_eq!(lab.writable(), [first]);
    lab.until("both follow", || lab.run("replicate status").code == 0);
    let verified = lab.must("replicate verify");
    assert!(
        verified.stdout.contains("are the same"),
        "{}",
        verified.all()
    );
    let healed = lab.must("heal --yes");
    assert_eq!(healed.stdout, "heal: nothing to do\n");
    lab.must("destroy --yes");
}
