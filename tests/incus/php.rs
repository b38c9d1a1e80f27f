//! nginx and PHP-FPM as their packages bring them: the application finds its database by its own environment, at the
//! site that is primary, whichever that is.

use std::process::{Command, Stdio};

use crate::lab::{Pair, curl, on_server};
use crate::story::bills;

const RECIPE: &str = r#"
    packages: [nginx, php-fpm, php-pgsql]
    files:
      - { template: site.conf, to: /etc/nginx/sites-available/default }
      - { template: pool.conf, to: /etc/php/8.2/fpm/pool.d/zz-shop.conf }
      - { copy: index.php, to: /srv/shop/index.php }
    users:
      - { name: shop, groups: [www-data] }
      - { name: ada, groups: [adm], keys: ["PUBLIC_KEY"] }
    services:
      - nginx
      - php8.2-fpm
      - { name: word, user: shop, run: "sh -c 'printf \"%s\\n\" \"$(id -un) $(id -nG) $HOME $ODD\" >/tmp/word; exec sleep 100000'" }
    sysctl: ["net.core.somaxconn = 1234", "-vm.no_such_thing = 1"]
    run: ["install -d -o shop -g shop /srv/shop/uploads"]
    cron:
      - { name: tick, at: '* * * * *', user: shop, run: 'printf "%s %s %s\n" "$HAFOG_SITE" "$(id -un)" "$ODD" >> /srv/shop/uploads/ticks' }
"#;

const SITE: &str = "server {
    listen 80 default_server;
    server_name {{ names[0] }};
    location / {
        include fastcgi_params;
        fastcgi_param SCRIPT_FILENAME /srv/shop/index.php;
        fastcgi_pass unix:/run/php/php8.2-fpm.sock;
    }
}
";

/// PHP-FPM hides the environment from its workers otherwise.
const POOL: &str = "[www]\nclear_env = no\n";

const PAGE: &str = r#"<?php
if (!$text = getenv('DATABASE_URL')) {
    http_response_code(503);
    exit;
}
$url = parse_url($text);
$name = ltrim($url['path'], '/');
$database = new PDO("pgsql:host={$url['host']};port={$url['port']};dbname=$name", $url['user'], urldecode($url['pass']));
if ($_SERVER['DOCUMENT_URI'] == '/healthz') {
    $database->query('SELECT 1');
    exit('ok');
}
if ($_SERVER['DOCUMENT_URI'] == '/odd') {
    exit(getenv('ODD'));
}
if ($_SERVER['REQUEST_METHOD'] == 'POST') {
    $database->exec('CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY)');
    $database->prepare('INSERT INTO orders VALUES (?) ON CONFLICT DO NOTHING')->execute([file_get_contents('php://input')]);
    http_response_code(201);
    exit;
}
foreach ($database->query('SELECT id FROM orders ORDER BY id') as $row) {
    echo $row['id'], "\n";
}
"#;

/// A secret with everything that a shell or systemd could take for something else.
const ODD: &str = r#" a "quoted" \back $HOME `id` 'single' #more; \"#;

#[test]
fn a_php_application_runs_on_the_units_of_its_packages_at_both_clouds() {
    let Some(pair) = Pair::new() else {
        return;
    };
    let path = pair.home.path().join("hafog.yaml");
    let mut spec = std::fs::read_to_string(path).expect("the spec is there");
    for (from, to) in [
        (
            "\n    packages: [curl]\n    services:\n      - { name: app, run: \"$HAFOG_EXE demo-app\" }\n",
            RECIPE,
        ),
        ("open: [8081]", "open: [80]"),
        (
            "secrets: { DATABASE_PASSWORD: env }",
            "secrets: { DATABASE_PASSWORD: env, ODD: \"file:./odd\" }",
        ),
    ] {
        assert!(spec.contains(from), "no {from} in {spec}");
        spec = spec.replace(from, to);
    }
    let key = pair.home.path().join("ada");
    let key = key.to_str().expect("a path");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", key])
        .status();
    assert!(made.is_ok_and(|status| status.success()));
    let spec = spec.replace("PUBLIC_KEY", pair.home.read("ada.pub").trim());
    pair.home.write("hafog.yaml", &spec);
    pair.home.write("site.conf", SITE);
    pair.home.write("pool.conf", POOL);
    pair.home.write("index.php", PAGE);
    pair.home.write("odd", &format!("{ODD}\n"));
    // Each cloud builds for itself, and both have the same in the end, down to the last package.
    let built = pair.must("build --yes").all();
    for site in ["east", "west"] {
        let builder = format!("create-builder shop-{site}-build-web");
        assert!(built.contains(&builder), "{built}");
    }
    let both = ["east", "west"].map(|site| bills(&pair, site));
    assert_eq!(both[0].len(), 3, "{:?}", both[0].keys());
    assert_eq!(both[0], both[1]);
    pair.must("up --yes");
    pair.until_nothing_to_do("up");
    let east = pair.address("east");
    pair.until("the shop takes an order", || pair.order(&east, "first"));
    assert_eq!(pair.orders(&east), ["first"]);

    let odd = curl(&[&format!("http://{east}/odd")]);
    assert_eq!(odd.as_deref(), Some(ODD));

    // What is secret is in no image, and only root reads it.
    let server = "shop-east-web-1";
    let (_, who) = on_server(
        "east",
        server,
        &["stat", "-c", "%a %U", "/var/lib/hafog/etc/env"],
    );
    assert_eq!(who.trim(), "600 root");

    // What services say is cut, and none of them can put a link where systemd writes it.
    let cut = "log=/var/lib/hafog/log/word.log; stat -c %U \"$(dirname $log)\" && systemctl is-active logs-of-hafog.timer \
        && head -c 70000000 /dev/zero | tr '\\0' x >>$log && echo end >>$log && systemctl start logs-of-hafog.service \
        && stat -c %s $log && tail -c 4 $log";
    let (_, said) = on_server("east", server, &["sh", "-c", cut]);
    assert_eq!(said, "root\nactive\n16777216\nend\n");

    pair.must("clone west --yes");
    pair.until_ready("the standby is ready", "preflight");
    for site in ["east", "west"] {
        let server = format!("shop-{site}-web-2");
        let (_, word) = on_server(site, &server, &["cat", "/tmp/word"]);
        assert_eq!(word, format!("shop shop www-data /nonexistent {ODD}\n"));
        let somaxconn = "/proc/sys/net/core/somaxconn";
        assert_eq!(on_server(site, &server, &["cat", somaxconn]).1, "1234\n");
        let owner = ["stat", "-c", "%U", "/srv/shop/uploads"];
        assert_eq!(on_server(site, &server, &owner).1, "shop\n");
        let facts = pair.json("show facts");
        let address = &facts["sites"][site]["servers"][&server]["host"]["address"];
        let login = |user: &str| {
            let at = format!("{user}@{}", address.as_str().expect("an address"));
            let options = [
                "BatchMode=yes",
                "StrictHostKeyChecking=no",
                "IdentitiesOnly=yes",
            ];
            let options = options.iter().flat_map(|option| ["-o", option]);
            let ran = Command::new("ssh")
                .args(options)
                .args([
                    "-o",
                    "UserKnownHostsFile=/dev/null",
                    "-i",
                    key,
                    &at,
                    "id -un",
                ])
                .stdin(Stdio::null())
                .output();
            String::from_utf8(ran.expect("ssh is there").stdout).expect("text")
        };
        assert_eq!(login("ada"), "ada\n");
        assert_eq!(login("root"), "");
    }
    // A job of the recipe is done at the primary site, by one of its servers.
    let ticks = |site: &str, index: u32| {
        let server = format!("shop-{site}-web-{index}");
        let (there, said) = on_server(site, &server, &["cat", "/srv/shop/uploads/ticks"]);
        there.then_some(said)
    };
    pair.until("the primary site does the job", || {
        ticks("east", 1).is_some()
    });
    assert!(ticks("east", 1).is_some_and(|said| said.starts_with(&format!("east shop {ODD}\n"))));
    assert_eq!((ticks("east", 2), ticks("west", 1)), (None, None));
    let nginx = "/etc/nginx/sites-available/default";
    let (_, filled) = on_server("west", "shop-west-web-1", &["cat", nginx]);
    assert!(filled.contains("server_name www.shop.test;"), "{filled}");
    pair.must("switchover --yes");
    let west = pair.address("west");
    pair.until("the shop takes an order at the other cloud", || {
        pair.order(&west, "second")
    });
    assert_eq!(pair.orders(&west), ["first", "second"]);
    pair.until("the new primary site does the job", || {
        ticks("west", 1).is_some()
    });
    pair.must("destroy --yes");
}
