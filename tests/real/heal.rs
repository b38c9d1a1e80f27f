//! Servers that do not do their work are made anew.

use std::net::SocketAddr;

use super::lab::{Lab, ask, turn};

/// Once it is broken, no restart helps: what is wrong is on its disk.
pub const APP: &str = r#"
import http.server, os
BROKEN = "broken"
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/break":
            open(BROKEN, "w").close()
        status = 500 if os.path.exists(BROKEN) else 200
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *words):
        pass
where = (os.environ["HAFOG_ADDRESS"], int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(where, App).serve_forever()
"#;

/// The status of one answer.
fn get(to: SocketAddr, path: &str) -> u16 {
    ask(to, &format!("GET {path} HTTP/1.1\r\n")).0
}

#[test]
fn a_sick_server_is_made_anew_and_a_sick_group_is_not() {
    let Some(_turn) = turn("heal") else { return };
    let lab = Lab::web(APP, "");
    let healed = lab.must("heal --yes");
    assert_eq!(healed.stdout, "heal: nothing to do\n");
    let door = lab.address("shop-east-balancer-1", 8080);
    let web = |number: u32| lab.address(&format!("shop-east-web-{number}"), 8000);
    let down = |number: u32| {
        assert_eq!(get(web(number), "/break"), 500);
    };

    down(1);
    // The balancer has noticed when nobody meets it any more.
    lab.until("nobody meets the sick one", || {
        (0..4).all(|_| get(door, "/") == 200)
    });
    let planned = lab.must("heal --dry-run");
    assert!(
        planned
            .stdout
            .contains("remove shop-east-web-1, which does not work: shop-east-web-1 answers 500"),
        "{}",
        planned.all()
    );
    lab.must("heal --yes");
    assert_eq!([get(web(1), "/"), get(door, "/")], [200, 200]);

    // A whole group is seldom sick by itself.
    down(1);
    down(2);
    let refused = lab.run("heal --yes");
    assert_eq!(refused.code, 3, "{}", refused.all());
    assert!(refused.stderr.contains("all-sick"), "{}", refused.all());
    assert_eq!(get(web(1), "/"), 500);
    lab.must("heal --yes --accept all-sick");
    assert_eq!([get(web(1), "/"), get(web(2), "/")], [200, 200]);

    // One without power, which a deploy that was cut has left out of rotation.
    let told = lab.haproxy("set server servers/shop-east-web-2 state drain");
    assert_eq!(told.trim(), "");
    lab.must("local power shop-east-web-2 off");
    lab.must("heal east --yes");
    assert_eq!(get(web(2), "/"), 200);
    let table = lab.haproxy("show stat servers 4 -1");
    assert_eq!(table.matches(",UP").count(), 2, "{table}");
    let healed = lab.must("heal --yes");
    assert_eq!(healed.stdout, "heal: nothing to do\n");
    lab.must("destroy --yes");
}
