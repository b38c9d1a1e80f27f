//! `hafog explain`.

use std::collections::BTreeSet;

use crate::harness::Home;
use hafog::plan::preflight::CHECKS;
use hafog::plan::safety::REFUSALS;
use insta::assert_snapshot;

#[test]
fn a_refusal_and_a_check_are_explained() {
    let home = Home::new();
    assert_snapshot!(home.run(&["explain", "unfenced-primary"]).all(), @r"
    --- stdout
    unfenced-primary
      Nothing proves that the old primary cannot write: two nodes might acknowledge writes. Only a person may accept this. A cloud that answers and shows no server of the site at all proves nothing either: the spec may name another region, project or folder by now than the one in which the servers are. Where nobody can look, the end of the write lease is a proof under `self_fence: strict` while commits wait for the node that is promoted; `hafog preflight` says whether they do.
      `--accept unfenced-primary` goes on in spite of it.
    --- exit 0
    ");
    assert_snapshot!(home.run(&["explain", "lag"]).all(), @r"
    --- stdout
    lag
      The node's newest heartbeat is younger than `lag.critical`. A dead stream is unknown lag, never zero.
      `hafog preflight` makes this check.
    --- exit 0
    ");
    assert_snapshot!(home.run(&["explain", "no-standbi"]).all(), @r"
    --- stderr
    error: no refusal and no check is called `no-standbi`
    hint: did you mean `no-standby`?
    --- exit 64
    ");
}

#[test]
fn every_refusal_and_every_check_has_a_name_and_an_explanation_of_its_own() {
    let home = Home::new();
    let all: serde_json::Value =
        serde_json::from_str(&home.run(&["explain", "--json"]).stdout).unwrap();
    let listed = all.as_array().expect("a list");
    let names = REFUSALS.iter().map(|one| one.name);
    let names: Vec<&str> = names.chain(CHECKS.iter().map(|one| one.name)).collect();
    assert_eq!(listed.len(), names.len());
    let different: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(different.len(), names.len(), "two things have one name");
    for name in names {
        let ran = home.run(&["explain", name]);
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!((ran.code, lines.len()), (0, 3), "{}", ran.all());
        assert_eq!(lines[0], name);
        assert!(lines[1].trim().len() > 40, "{}", ran.all());
    }
}
