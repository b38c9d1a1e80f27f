//! A balancer whose servers change: clients see nothing of it.

use std::net::SocketAddr;

use super::lab::{self, Lab, turn};
use crate::harness::load::Load;
use crate::harness::skip::skipped;

/// Says who answers.
const APP: &str = r#"
import http.server, os
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = os.environ["HAFOG_SERVER"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
where = (os.environ["HAFOG_ADDRESS"], int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(where, App).serve_forever()
"#;

/// Who answers at the front door.
fn answering(door: SocketAddr) -> Vec<String> {
    let answers = (0..16).map(|_| lab::ask(door, "GET / HTTP/1.1\r\n").1);
    let mut names: Vec<String> = answers.collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn clients_see_nothing_of_more_and_fewer_servers() {
    let test = "clients_see_nothing_of_more_and_fewer_servers";
    let Some(_turn) = turn(test) else { return };
    if let Some(why) = Load::missing() {
        skipped(test, why);
        return;
    }
    let lab = Lab::web(APP, "");
    let door = lab.address("shop-east-balancer-1", 8080);
    let spec = lab.home.read("hafog.yaml");
    let load = Load::on(&format!("http://{door}/"));
    for (count, verb) in [(3, "up"), (5, "scale"), (2, "scale")] {
        let wanted = spec.replace("count: 2", &format!("count: {count}"));
        lab.home.write("hafog.yaml", &wanted);
        if count == 2 {
            let told = lab.must("up --yes");
            let note = "shop-east-web-3, shop-east-web-4, shop-east-web-5 are not in the spec";
            assert!(told.all().contains(note), "{}", told.all());
        }
        lab.must(&format!("{verb} --yes"));
        let names: Vec<String> = (1..=count).map(|n| format!("shop-east-web-{n}")).collect();
        lab.until("all of them answer, and nobody else", || {
            answering(door) == names
        });
        let again = lab.must("scale --yes");
        assert_eq!(again.stdout, "scale: nothing to do\n");
    }
    load.end_well();
    let facts = lab.facts();
    let there = facts["sites"]["east"]["servers"].as_object();
    assert_eq!(there.expect("servers").len(), 3, "{there:?}");
    lab.must("destroy --yes");
}

#[test]
fn a_hot_spare_stands_in_while_a_server_is_out() {
    let Some(_turn) = turn("spare") else { return };
    let lab = Lab::web_with(APP, |spec| {
        spec.replace("\nbalancer:", "\n  spare: { image: web }\nbalancer:")
    });
    let door = lab.address("shop-east-balancer-1", 8080);
    let [one, two, spare] = ["web-1", "web-2", "spare-1"].map(|name| format!("shop-east-{name}"));
    lab.until("those of the group answer, and nobody else", || {
        answering(door) == [one.clone(), two.clone()]
    });
    lab.must(&format!("local power {one} off"));
    lab.until("the spare answers beside the one that is left", || {
        answering(door) == [spare.clone(), two.clone()]
    });
    lab.must("heal --yes");
    lab.until("the spare rests again", || {
        answering(door) == [one.clone(), two.clone()]
    });

    // A new release goes to it as to everybody, without a request that fails.
    let load = match Load::missing() {
        None => Some(Load::on(&format!("http://{door}/"))),
        Some(why) => {
            skipped("a deploy with a spare, as clients see it", why);
            None
        }
    };
    let app = lab.home.read(lab::APP);
    lab.home.write(lab::APP, &format!("{app}# another one\n"));
    let deployed = lab.must("deploy --yes");
    assert!(deployed.all().contains(&spare), "{}", deployed.all());
    if let Some(load) = load {
        load.end_well();
    }
    lab.must("destroy --yes");
}
