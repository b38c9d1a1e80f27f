//! What an old primary acknowledged alone outlives the copy that replaces it.

use std::path::Path;
use std::process::Command;

use super::lab::{Lab, turn};

fn contains(folder: &Path, text: &[u8]) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return contains(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text)
    })
}

/// As the application, acknowledged by `server`.
fn write(lab: &Lab, server: &str, sql: &str) {
    let facts = lab.facts();
    let host = &facts["sites"]["east"]["servers"][server]["host"]["address"];
    let link = format!(
        "host={} port=5432 user=shop dbname=shop sslmode=require",
        host.as_str().expect("an address")
    );
    let ran = Command::new(crate::harness::psql())
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-c", sql, &link])
        .env("PGPASSWORD", "a-password-of-the-tests")
        .output()
        .expect("psql is there");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
}

#[test]
fn a_clone_over_an_old_primary_keeps_what_only_that_acknowledged() {
    let Some(_turn) = turn("a_clone_over_an_old_primary_keeps_what_only_that_acknowledged") else {
        return;
    };
    let lab = Lab::new();
    lab.must("up --yes");
    lab.must("clone west --yes");
    lab.until("the standby is ready", || lab.run("preflight").code == 0);
    lab.must("local power west off");
    let row = "CREATE TABLE only_here AS SELECT 'acknowledged-in-the-east' AS what";
    write(&lab, "shop-east-db-1", row);
    lab.must("local power east off");
    lab.must("local power west on");
    lab.until("the standby is well", || {
        let waived = "failover --yes --accept standby-behind --accept standby-unknown";
        lab.run(waived).code == 0
    });
    lab.must("local power east on");
    lab.until("the old primary answers", || {
        lab.facts()["nodes"]["shop-east-db-1"]["status"]["known"].is_object()
    });

    let refused = lab.run("clone east --yes");
    assert_eq!(refused.code, 3, "{}", refused.all());
    for said in ["left-behind", "hafog failback east --rejoin-only"] {
        assert!(refused.all().contains(said), "{said}: {}", refused.all());
    }
    let cloned = lab.must("clone east --yes --accept left-behind");
    assert_eq!(lab.writable(), ["shop-west-db-1"]);
    let rows = lab.json("replicate status");
    let nodes = rows[0]["nodes"].as_array().expect("nodes");
    let old = nodes.iter().find(|node| node["node"] == "shop-east-db-1");
    let kept = old.expect("it is a node")["kept"][0].as_str();
    let kept = kept.unwrap_or_else(|| panic!("nothing is kept: {rows}"));
    assert!(contains(Path::new(kept), b"acknowledged-in-the-east"));
    // Where it is was said by the clone, is in its report, and is said from then on.
    let (report, status) = (lab.run("show report"), lab.run("replicate status"));
    let (_, place) = kept.split_once("/data/").expect("it is on the server");
    for ran in [&cloned, &report, &status] {
        assert!(ran.all().contains(place), "{place}: {}", ran.all());
    }
    let data = Path::new(kept).ancestors().nth(2).expect("it is deep");
    assert!(!contains(&data.join("main"), b"acknowledged-in-the-east"));
    lab.until("the whole site follows", || {
        lab.run("replicate status").code == 0
    });
    lab.must("commit --yes");
}
