//! One file a verb, or a few verbs that belong together.

mod change;
mod check;
mod explain;
mod help;
mod hostile;
mod init;
mod look;
mod schema;
mod store;
mod unfinished;
mod usage;

/// Two sites on this machine, without a database: what every build of hafog can plan.
pub const SMALL: &str = "\
stack: shop
sites:
  east: { cloud: local }
  west: { cloud: local }
primary: east
images:
  web:
    services:
      - { name: web, run: \"sh -c 'exec python3 -m http.server --bind $HAFOG_ADDRESS 8080'\" }
servers:
  web: { image: web, count: 2, open: [8080] }
balancer: { to: web, listen: [80], check: { http: / } }
names:
  - { host: www.shop.test, to: balancer, zone: { host: serve, name: shop.test } }
health:
  - { http: \"http://www.shop.test/\" }
";
