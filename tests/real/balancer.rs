//! A balancer whose servers change: clients see nothing of it.

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

#[test]
fn clients_see_nothing_of_a_new_server_behind_the_balancer() {
    let test = "clients_see_nothing_of_a_new_server_behind_the_balancer";
    let Some(_turn) = turn(test) else { return };
    if let Some(why) = Load::missing() {
        skipped(test, why);
        return;
    }
    let lab = Lab::web(APP, "");
    let door = lab.address("shop-east-balancer-1", 8080);
    let spec = lab.home.read("hafog.yaml");
    let load = Load::on(&format!("http://{door}/"));
    for count in [3, 4] {
        let wanted = spec.replace("count: 2", &format!("count: {count}"));
        lab.home.write("hafog.yaml", &wanted);
        lab.must("up --yes");
        let newest = format!("shop-east-web-{count}");
        lab.until("the newest answers", || {
            let answers = (0..8).map(|_| lab::ask(door, "GET / HTTP/1.1\r\n").1);
            answers.into_iter().any(|body| body == newest)
        });
    }
    load.end_well();
    lab.must("destroy --yes");
}

#[test]
fn a_hot_spare_stands_in_while_a_server_is_out() {
    let Some(_turn) = turn("spare") else { return };
    let lab = Lab::web_with(APP, |spec| {
        spec.replace("\nbalancer:", "\n  spare: { image: web }\nbalancer:")
    });
    let door = lab.address("shop-east-balancer-1", 8080);
    let answering = || -> Vec<String> {
        let answers = (0..12).map(|_| lab::ask(door, "GET / HTTP/1.1\r\n").1);
        let mut names: Vec<String> = answers.collect();
        names.sort();
        names.dedup();
        names
    };
    let [one, two, spare] = ["web-1", "web-2", "spare-1"].map(|name| format!("shop-east-{name}"));
    lab.until("those of the group answer, and nobody else", || {
        answering() == [one.clone(), two.clone()]
    });
    lab.must(&format!("local power {one} off"));
    lab.until("the spare answers beside the one that is left", || {
        answering() == [spare.clone(), two.clone()]
    });
    lab.must("heal --yes");
    lab.until("the spare rests again", || {
        answering() == [one.clone(), two.clone()]
    });

    // A new release goes to it as to everybody, without a request that fails.
    let load = Load::missing().is_none();
    let load = load.then(|| Load::on(&format!("http://{door}/")));
    let app = lab.home.read(lab::APP);
    lab.home.write(lab::APP, &format!("{app}# another one\n"));
    let deployed = lab.must("deploy --yes");
    assert!(deployed.all().contains(&spare), "{}", deployed.all());
    if let Some(load) = load {
        load.end_well();
    }
    lab.must("destroy --yes");
}
