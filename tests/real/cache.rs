//! The request path with a cache in it: what clients get while every application server is down.

use std::net::SocketAddr;

use super::lab::{self, Lab, turn};
use crate::harness::load::Load;
use crate::harness::skip::skipped;

const CACHE: &str = "cache: { to: web, count: 2, grace: 1h }\n";

/// Says how often it was asked, so that a copy can be told from an answer.
const APP: &str = r#"
import http.server, itertools, os
counts = itertools.count(1)
RELEASE = "RELEASE 1"
HEADERS = {
    "/page": {"Cache-Control": "public, max-age=1"},
    "/mine": {"Cache-Control": "private, max-age=60"},
    "/logo.png": {"Set-Cookie": "seen=logo"},
    "/year.css": {"Cache-Control": "public, max-age=31536000"},
}
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200, f"{os.environ['HAFOG_SERVER']} {next(counts)} {RELEASE}")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, self.headers["X-Forwarded-For"])
    def answer(self, status, body):
        self.send_response(status)
        for name, value in HEADERS.get(self.path, {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *words):
        pass
where = (os.environ["HAFOG_ADDRESS"], int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(where, App).serve_forever()
"#;

struct Door(SocketAddr);

impl Door {
    fn get(&self, path: &str) -> (u16, String) {
        lab::ask(self.0, &format!("GET {path} HTTP/1.1\r\n"))
    }

    fn get_with_cookie(&self, path: &str) -> (u16, String) {
        lab::ask(
            self.0,
            &format!("GET {path} HTTP/1.1\r\nCookie: who=me\r\n"),
        )
    }

    fn post(&self) -> (u16, String) {
        lab::ask(
            self.0,
            "POST /orders HTTP/1.1\r\nContent-Length: 0\r\nX-Forwarded-For: a liar\r\n",
        )
    }

    fn status_of(&self, path: &str) -> u16 {
        self.get(path).0
    }
}

/// A lab with the cache, whose front door answers.
fn lab() -> (Lab, Door) {
    let lab = Lab::web(APP, CACHE);
    let door = Door(lab.address("shop-east-balancer-1", 8080));
    (lab, door)
}

fn switch(lab: &Lab, to: &str) {
    for server in ["shop-east-web-1", "shop-east-web-2", "shop-east-web-3"] {
        lab.must(&format!("local power {server} {to}"));
    }
}

#[test]
fn files_and_stale_pages_are_given_out_while_every_application_server_is_down() {
    let Some(_turn) = turn("cache") else { return };
    let (lab, door) = lab();
    assert_eq!(lab.run("up --yes --dry-run --detailed-exitcode").code, 0);

    // Both caches have a copy; whoever is asked.
    let warm = |path: &str| -> Vec<String> {
        let mut bodies: Vec<String> = (0..8).map(|_| door.get(path).1).collect();
        bodies.sort();
        bodies.dedup();
        bodies
    };
    let logos = warm("/logo.png");
    let pages = warm("/page");
    assert!(logos.len() <= 2, "{logos:?}");
    for path in ["/count", "/mine"] {
        assert_eq!(warm(path).len(), 8, "{path} is nobody's to keep");
    }
    assert_ne!(door.get_with_cookie("/page"), door.get_with_cookie("/page"));
    let (status, client) = door.post();
    assert_eq!(status, 201);
    // What he said of himself, what the balancer saw, and what the cache saw: the balancer.
    assert_eq!(client, "a liar, 127.0.0.1, 127.0.0.1");

    // One more server behind the cache is no reason to forget anything.
    let years = warm("/year.css");
    let spec = lab.home.read("hafog.yaml");
    let more = spec.replace("image: web, count: 2", "image: web, count: 3");
    lab.home.write("hafog.yaml", &more);
    lab.must("up --yes");
    for _ in 0..4 {
        assert!(years.contains(&door.get("/year.css").1));
    }

    switch(&lab, "off");
    // Also in the moment in which nobody has noticed yet.
    let kept = |(status, body): (u16, String), copies: &[String]| {
        assert!(status == 200 && copies.contains(&body), "{status}: {body}");
    };
    for _ in 0..4 {
        kept(door.get("/logo.png"), &logos);
    }
    lab.until("the caches know that nobody is there", || {
        (0..4).all(|_| door.get("/count").1.starts_with("503"))
    });
    for _ in 0..4 {
        kept(door.get("/logo.png"), &logos);
        assert_eq!(door.get("/page").0, 200);
        assert_eq!(door.get_with_cookie("/page").0, 200);
    }
    assert!(!pages.is_empty());
    for path in ["/mine", "/never-asked-before.png", "/healthz"] {
        assert_eq!(door.status_of(path), 503, "{path}");
    }
    assert_eq!(door.post().0, 503);

    lab.must("up --yes");
    lab.until("fresh pages again", || {
        !pages.contains(&door.get("/page").1) && door.status_of("/count") == 200
    });
    lab.must("destroy --yes");
}

#[test]
fn clients_see_nothing_of_a_deploy_behind_a_cache() {
    let test = "clients_see_nothing_of_a_deploy_behind_a_cache";
    let Some(_turn) = turn(test) else { return };
    if let Some(why) = Load::missing() {
        skipped(test, why);
        return;
    }
    let (lab, door) = lab();
    let load = Load::on(&format!("http://{}/count", door.0));
    lab.home
        .write(lab::APP, &APP.replace("RELEASE 1", "RELEASE 2"));
    lab.must("deploy --yes");
    for _ in 0..4 {
        assert!(door.get("/count").1.ends_with("RELEASE 2"));
    }
    load.end_well();
    // A cache that is gone is one of two.
    lab.must("local power shop-east-cache-1 off");
    lab.until("the other cache answers", || {
        (0..4).all(|_| door.status_of("/count") == 200)
    });
    lab.must("destroy --yes");
}
