//! The request path on real machines: Varnish, HAProxy and nginx from packages, each under systemd.

use std::process::Command;

use crate::lab::{Pair, incus};

const SPEC: &str = r#"
stack: shop
sites: { east: { cloud: incus, region: a } }
primary: east
images:
  web:
    packages: [nginx]
    files:
      - { template: site.conf, to: /etc/nginx/sites-available/default }
      - { template: logo.svg, to: /srv/shop/logo.svg }
      - { template: page.html, to: /srv/shop/page }
    services: [nginx]
servers: { web: { image: web, count: 2, open: [80], size: { cpu: 1, memory: 256MiB } } }
balancer: { to: web, check: { http: /healthz } }
cache: { to: web, size: { memory: 512MiB } }
names:
  - { host: www.shop.test, to: balancer, zone: { host: serve, name: shop.test }, ttl: 5s, failover_ttl: 1s }
"#;

const SITE: &str = "server {
    listen 80 default_server;
    root /srv/shop;
    location = /healthz { return 200 ok; }
    location = /now { return 200 $msec; }
    location = /page { add_header Cache-Control 'public, max-age=1'; }
}
";

/// Status and body.
fn get(address: &str, path: &str) -> (String, String) {
    let ran = Command::new("curl")
        .args(["-s", "--noproxy", "*", "--max-time", "20"])
        .args(["-w", "\n%{http_code}"])
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("curl is there");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

#[test]
fn machines_give_out_what_is_kept_while_every_application_server_is_gone() {
    let Some(pair) = Pair::bare() else {
        return;
    };
    pair.home.write("hafog.yaml", SPEC);
    pair.home.write("site.conf", SITE);
    pair.home.write("logo.svg", "<svg>one</svg>");
    pair.home.write("page.html", "a page");
    pair.must("up --yes");
    pair.until_nothing_to_do("up");
    let east = pair.address("east");
    let found = |body: &str| ("200".to_owned(), body.to_owned());
    assert_eq!(get(&east, "/logo.svg"), found("<svg>one</svg>"));
    assert_eq!(get(&east, "/page"), found("a page"));
    assert_ne!(get(&east, "/now"), get(&east, "/now"));

    for server in ["shop-east-web-1", "shop-east-web-2"] {
        let stop = ["stop", "--project", "shop-east", "--force", server];
        let (done, said) = incus("a", &stop);
        assert!(done, "{said}");
    }
    pair.until("nobody answers any more", || get(&east, "/now").0 == "503");
    assert_eq!(get(&east, "/logo.svg"), found("<svg>one</svg>"));
    assert_eq!(get(&east, "/page"), found("a page"));
    assert_eq!(get(&east, "/new.svg").0, "503");

    pair.must("heal --yes");
    pair.until("servers answer again", || get(&east, "/now").0 == "200");
    pair.until_nothing_to_do("heal");
    pair.must("destroy --yes");
}
