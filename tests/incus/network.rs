//! A site with a network of its own: what `open` does not say is closed to whoever is not of the stack.

use std::net::TcpStream;
use std::time::Duration;

use crate::lab::{Pair, cloud, incus, lab, on_server};

const SHORT: Duration = Duration::from_secs(2);
const DATABASE: u16 = 5432;
const APP: u16 = 8081;

/// Whether something that listens there lets this machine in.
fn answers(address: &str, port: u16) -> bool {
    let at = format!("{address}:{port}").parse().expect("an address");
    TcpStream::connect_timeout(&at, SHORT).is_ok()
}

fn address(pair: &Pair, server: &str) -> String {
    let site = server.split('-').nth(1).expect("a site");
    let facts = pair.json("show facts");
    let server = &facts["sites"][site]["servers"][server];
    server["host"]["address"]
        .as_str()
        .expect("it has one")
        .to_owned()
}

/// Whether a machine that is none of the stack's reaches it.
fn third_reaches(address: &str, port: u16) -> bool {
    let script = format!("timeout 2 bash -c 'echo > /dev/tcp/{address}/{port}'");
    incus("c", &["exec", "third", "--", "sh", "-c", &script]).0
}

fn west_reaches(address: &str, port: u16) -> bool {
    let script = format!("timeout 2 bash -c 'echo > /dev/tcp/{address}/{port}'");
    on_server("west", "shop-west-web-1", &["sh", "-c", &script]).0
}

#[test]
fn a_site_with_a_network_of_its_own_lets_in_the_stack_and_what_is_open() {
    let Some(pair) = Pair::small() else {
        return;
    };
    let before = lab(&["inventory"]);
    let spec = pair.home.read("hafog.yaml");
    let east = "cloud: incus, region: a";
    assert!(spec.contains(east));
    let network = format!("{east}, network: 10.66.16.0/24");
    pair.home.write("hafog.yaml", &spec.replace(east, &network));
    let checked = pair.must("check");
    let warned = checked.all();
    assert!(
        warned.contains("open-not-enforced") && warned.contains("`west`"),
        "{warned}"
    );
    assert!(!warned.contains("at `east`"), "{warned}");

    pair.must("up --yes");
    pair.until_nothing_to_do("up");
    let (node, front) = (address(&pair, "shop-east-db-1"), pair.address("east"));
    assert!(node.starts_with("10.66.16."), "{node}");
    assert!(answers(&front, 80) && pair.order(&front, "one"));
    assert!(!answers(&node, DATABASE) && !third_reaches(&node, DATABASE));
    assert!(
        answers(&address(&pair, "shop-east-web-1"), APP),
        "it is open"
    );
    assert!(!answers(&front, APP), "of the balancer only 80 is open");

    // Of the other site, everything is let in, and nothing more than that.
    pair.must("clone west --yes");
    pair.until_ready("the standby is ready", "preflight");
    assert!(west_reaches(&node, DATABASE) && !third_reaches(&node, DATABASE));
    pair.must("switchover --yes");
    pair.until_writer("shop-west-db-1");
    pair.must("commit --yes");
    pair.until_ready("the east follows", "preflight");
    assert_eq!(pair.orders(&front), ["one"]);

    // A server that is made anew is let in where it is now.
    let at = [
        "delete",
        "--force",
        "--project",
        "shop-east",
        "shop-east-web-1",
    ];
    let (done, said) = incus(cloud("east"), &at);
    assert!(done, "{said}");
    pair.must("heal --yes");
    assert!(answers(&address(&pair, "shop-east-web-1"), APP));

    pair.must("destroy --yes");
    assert_eq!(lab(&["inventory"]), before);
}
