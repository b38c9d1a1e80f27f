//! An image counts only where a server was seen to boot from it and to pass its check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::heal;
use super::lab::{APP, Lab, turn};

const CODE: &str = "    code: { path: ./app, to: /srv/app }\n";
const CHECK: &str = "    check: 'cat \"$HAFOG_IMAGE/srv/app/works\"'\n";

fn servers(lab: &Lab) -> Vec<String> {
    let facts = lab.facts();
    let servers = facts["sites"]["east"]["servers"].as_object();
    servers.expect("a map").keys().cloned().collect()
}

#[test]
fn an_image_that_does_not_pass_its_check_is_not_used() {
    let Some(_turn) = turn("an_image_that_does_not_pass_its_check_is_not_used") else {
        return;
    };
    let spec = |spec: &str| spec.replace(CODE, &format!("{CODE}{CHECK}"));
    let lab = Lab::web_not_up("print('an application')", spec);
    let failed = lab.run("up --yes");
    assert_eq!(failed.code, 4, "{}", failed.all());
    for part in [
        "is not used: it does not work there",
        "works: No such file",
        "hint: less ",
    ] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.all());
    }
    let left = servers(&lab);
    assert!(
        !left.iter().any(|one| one.contains("web")),
        "{left:?}: {}",
        failed.all()
    );
    let list = lab.must("image list").stdout;
    assert!(list.contains("untried `web`"), "{list}");

    // It is not built a second time; its server is left when one asks for it, and removed when it is not needed.
    let again = lab.run("build --keep-on-failure --yes");
    assert_eq!(again.code, 4, "{}", again.all());
    assert!(!again.all().contains("seal-image web-"), "{}", again.all());
    let kept = ["shop-east-balancer-1", "shop-east-trial-web"];
    assert_eq!(servers(&lab), kept);

    lab.home.write(&APP.replace("app.py", "works"), "yes");
    lab.must("build --yes");
    assert_eq!(servers(&lab), ["shop-east-balancer-1"]);
    let list = lab.must("image list").stdout;
    assert!(list.contains("current `web`"), "{list}");
    assert!(list.contains("old, untried"), "{list}");
    let nothing = lab.must("build --yes");
    assert!(nothing.all().contains("nothing to do"), "{}", nothing.all());
    lab.must("image prune --yes");
    assert!(!lab.must("image list").stdout.contains("old"));
}

#[test]
fn nothing_is_started_from_an_image_that_was_revoked() {
    let Some(_turn) = turn("nothing_is_started_from_an_image_that_was_revoked") else {
        return;
    };
    let lab = Lab::web(heal::APP, "");
    let list = lab.must("image list").stdout;
    let image = list
        .split_whitespace()
        .find(|word| word.starts_with("web-"));
    let image = image.unwrap_or_else(|| panic!("{list}")).to_owned();
    let nobody = lab.run("image revoke web-000000000000 --because it --yes");
    assert_eq!(nobody.code, 64, "{}", nobody.all());

    let revoked = lab.home.run(&[
        "image",
        "revoke",
        "web",
        "--because",
        "the key of the payments is in it",
        "--yes",
    ]);
    assert_eq!(revoked.code, 0, "{}", revoked.all());
    assert!(
        revoked.all().contains("shop-east-web-1"),
        "{}",
        revoked.all()
    );
    let shown = lab.must("image show web").stdout;
    assert!(
        shown.contains("the key of the payments is in it"),
        "{shown}"
    );

    // What runs it runs on; another one is not started from it.
    let servers_then = servers(&lab);
    let more = lab.home.read("hafog.yaml").replace("count: 2", "count: 3");
    lab.home.write("hafog.yaml", &more);
    for verb in ["scale --yes", "up --yes"] {
        let refused = lab.run(verb);
        assert_eq!(refused.code, 3, "{verb}: {}", refused.all());
        for part in ["image-revoked", "the key of the payments", &image] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.all());
        }
    }
    assert_eq!(servers(&lab), servers_then);

    // Another recipe makes another image, and the word can be taken back.
    lab.home
        .write(APP, &format!("{}\n# without the key\n", heal::APP));
    lab.must("build --yes");
    lab.must("deploy --yes");
    lab.must("scale --yes");
    lab.must("image revoke web --because tried --yes");
    let current = lab.must("image show web").stdout;
    assert!(current.contains("tried"), "{current}");
    lab.must("image revoke web --lift --yes");
    let list = lab.must("image list").stdout;
    assert_eq!(list.matches("revoked: ").count(), 1, "{list}");
}

/// Every file below the folder, with its contents.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    for path in entries.map(|entry| entry.path()) {
        match path.symlink_metadata().expect("it is there") {
            about if about.is_dir() => found.extend(files(&path)),
            about if about.is_file() => {
                let bytes = std::fs::read(&path).expect("a file");
                found.insert(path, bytes);
            }
            _ => {}
        }
    }
    found
}

#[test]
fn a_build_of_what_is_there_writes_nothing() {
    let Some(_turn) = turn("a_build_of_what_is_there_writes_nothing") else {
        return;
    };
    let lab = Lab::new();
    lab.must("build --yes");
    let before = files(lab.home.path());
    let again = lab.must("build --yes");
    assert!(again.all().contains("nothing to do"), "{}", again.all());
    let mut after = files(lab.home.path());
    // Who holds the lease is said while somebody looks.
    let is_lease = |path: &Path| path.ends_with("docs/lease.json");
    after.retain(|path, _| !is_lease(path));
    let changed: Vec<&PathBuf> = before
        .iter()
        .filter(|(path, bytes)| !is_lease(path) && after.get(*path) != Some(*bytes))
        .map(|(path, _)| path)
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert_eq!(after.len() + 1, before.len(), "files that were not there");
}
