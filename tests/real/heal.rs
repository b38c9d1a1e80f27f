//! Servers that do not do their work are made anew.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use super::lab::{LIMIT, Lab, turn};
use crate::harness::Home;

const SPEC: &str = r#"
stack: shop
sites:
  east: { cloud: local }
primary: east
images:
  web:
    code: { path: ./app, to: /srv/app }
    services: [ { name: app, run: "python3 $HAFOG_IMAGE/srv/app/app.py" } ]
servers:
  web: { image: web, count: 2, open: [8000] }
balancer: { to: web, listen: [8080], check: { http: /healthz } }
names:
  - { host: www.shop.test, to: balancer, zone: { host: serve, name: shop.test }, ttl: 2s, failover_ttl: 1s }
"#;

/// Once it is broken, no restart helps: what is wrong is on its disk.
const APP: &str = r#"
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
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.expect("a status")
}

fn address(lab: &Lab, server: &str, port: u16) -> SocketAddr {
    let facts = lab.facts();
    let host = &facts["sites"]["east"]["servers"][server]["host"];
    let address = host["address"].as_str().expect("an address");
    format!("{address}:{port}").parse().expect("an address")
}

/// What HAProxy answers.
fn command(lab: &Lab, words: &str) -> String {
    let facts = lab.facts();
    let dirs = &facts["sites"]["east"]["servers"]["shop-east-balancer-1"]["host"]["dirs"];
    let data = dirs["data"].as_str().expect("a folder");
    let stream = UnixStream::connect(format!("{data}/haproxy.sock"));
    let mut stream = stream.expect("HAProxy has a socket");
    stream
        .write_all(format!("{words}\n").as_bytes())
        .expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn a_sick_server_is_made_anew_and_a_sick_group_is_not() {
    let Some(_turn) = turn("heal") else { return };
    let home = Home::with(SPEC);
    std::fs::create_dir(home.path().join("app")).expect("a folder");
    home.write("app/app.py", APP);
    let lab = Lab { home };
    lab.must("up --yes");
    let healed = lab.must("heal --yes");
    assert_eq!(healed.stdout, "heal: nothing to do\n");
    let door = address(&lab, "shop-east-balancer-1", 8080);
    let web = |number: u32| address(&lab, &format!("shop-east-web-{number}"), 8000);
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
    let told = command(&lab, "set server servers/shop-east-web-2 state drain");
    assert_eq!(told.trim(), "");
    lab.must("local power shop-east-web-2 off");
    lab.must("heal east --yes");
    assert_eq!(get(web(2), "/"), 200);
    let table = command(&lab, "show stat servers 4 -1");
    assert_eq!(table.matches(",UP").count(), 2, "{table}");
    let healed = lab.must("heal --yes");
    assert_eq!(healed.stdout, "heal: nothing to do\n");
    lab.must("destroy --yes");
}
