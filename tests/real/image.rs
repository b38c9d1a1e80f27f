//! An image counts only where a server was seen to boot from it and to pass its check.

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
