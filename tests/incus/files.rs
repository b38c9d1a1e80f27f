//! Files that follow the primary site, between two clouds: rsync over SSH, with keys that are good for nothing else.

use crate::lab::{Pair, on_server};

const EAST: &str = "shop-east-web-1";
const WEST: &str = "shop-west-web-1";

fn on(server: &str, script: &str) -> String {
    let site = if server.contains("-east-") {
        "east"
    } else {
        "west"
    };
    on_server(site, server, &["sh", "-c", script]).1
}

#[test]
fn files_are_in_step_at_both_clouds_and_outlive_their_image() {
    let Some(pair) = Pair::new() else {
        return;
    };
    let path = pair.home.path().join("hafog.yaml");
    let mut spec = std::fs::read_to_string(path).expect("the spec is there");
    let files = "files:\n  uploads: { on: web, path: /srv/shop/uploads, user: www-data, writer: first, every: 2s }\n";
    for (from, to) in [
        ("secrets: {", format!("{files}secrets: {{")),
        (
            "    packages: [curl]\n",
            // As applications come, with a folder of their own in that place.
            "    packages: [curl]\n    run: [\"install -d /srv/shop/uploads; touch /srv/shop/uploads/.keep\"]\n"
                .to_owned(),
        ),
    ] {
        assert!(spec.contains(from), "no {from} in {spec}");
        spec = spec.replace(from, &to);
    }
    pair.home.write("hafog.yaml", &spec);
    pair.must("up --yes");
    pair.until_nothing_to_do("up");
    // The folder belongs to who writes there.
    let write = |server: &str, name: &str, text: &str| {
        let script = format!(
            "umask 027; setpriv --reuid www-data --regid www-data --clear-groups sh -c 'echo \"{text}\" > \"/srv/shop/uploads/{name}\"'; sync"
        );
        on(server, &script);
    };
    let read = |server: &str, name: &str| on(server, &format!("cat '/srv/shop/uploads/{name}'"));
    write(EAST, "it is & odd", "first");
    on(
        EAST,
        "cd /srv/shop/uploads && mkdir deep && ln -s '../it is & odd' deep/link",
    );
    pair.must("clone west --yes");
    for server in [WEST, "shop-west-web-2"] {
        assert_eq!(read(server, "it is & odd"), "first\n", "{server}");
        assert_eq!(read(server, "deep/link"), "first\n", "{server}");
        let stat = on(server, "stat -c '%U %G %a' '/srv/shop/uploads/it is & odd'");
        assert_eq!(stat, "www-data www-data 640\n", "{server}");
    }
    assert_eq!(on(WEST, "ls -A /srv/shop/uploads.image-1"), ".keep\n");

    // A server's key is good for the files alone.
    let key = "/var/lib/hafog/etc/files";
    let east = on(EAST, "hostname -I")
        .split_whitespace()
        .next()
        .expect("an address")
        .to_owned();
    let ssh = |words: &str| {
        let options = "-T -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
        on(
            WEST,
            &format!("ssh {options} -i {key}/id_ed25519 root@{east} {words} 2>&1"),
        )
    };
    assert!(
        ssh("uploads ask").contains("{\"epoch\":"),
        "{}",
        ssh("uploads ask")
    );
    for words in [
        "id",
        "''",
        "cat /etc/shadow",
        "uploads 1 rsync --server -logDtpre.iLsfxC . /srv/shop/uploads",
    ] {
        let said = ssh(words);
        assert!(said.contains("error: "), "{words}: {said}");
        assert!(
            !said.contains("uid=") && !said.contains("root:"),
            "{words}: {said}"
        );
    }
    // Back to root's own login there is no way for it.
    let lines = on(EAST, "grep hafog-files: /root/.ssh/authorized_keys");
    assert!(
        lines
            .lines()
            .all(|line| line.starts_with("restrict,command=")),
        "{lines}"
    );
    assert_eq!(lines.lines().count(), 3, "{lines}");

    // A new image has no link and no keys of its own.
    pair.home.write(
        "hafog.yaml",
        &spec.replace("/uploads/.keep", "/uploads/.kept"),
    );
    pair.must("deploy --yes");
    assert_eq!(read(EAST, "it is & odd"), "first\n");
    write(EAST, "second", "after the deploy");
    pair.until("it comes over again", || {
        read(WEST, "second") == "after the deploy\n"
    });
    assert_eq!(on(WEST, "ls -A /srv/shop/uploads.image-1"), ".kept\n");
    pair.until_nothing_to_do("up");

    pair.until_ready("the standby is ready", "preflight");
    write(EAST, "third", "right before the move");
    pair.must("switchover --yes");
    assert_eq!(read(WEST, "third"), "right before the move\n");
    write(WEST, "fourth", "at the other cloud");
    pair.until("the old site follows", || {
        read(EAST, "fourth") == "at the other cloud\n"
    });
    let verified = pair.must("sync --verify --yes");
    assert!(
        verified.stderr.contains("all equal by their checksums"),
        "{}",
        verified.all()
    );
    pair.must("destroy --yes");
}
