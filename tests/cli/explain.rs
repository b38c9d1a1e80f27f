//! `hafog explain`.

use crate::harness::Home;
use insta::assert_snapshot;

#[test]
fn a_refusal_is_explained() {
    let home = Home::new();
    assert_snapshot!(home.run(&["explain", "unfenced-primary"]).all(), @r"
    --- stdout
    unfenced-primary
      Nothing proves that the old primary cannot write: two nodes might acknowledge writes. Only a person may accept this.
      `--accept unfenced-primary` goes on in spite of it.
    --- exit 0
    ");
    assert_snapshot!(home.run(&["explain", "no-standbi"]).all(), @r"
    --- stderr
    error: no refusal is called `no-standbi`
    hint: did you mean `no-standby`?
    --- exit 64
    ");
    let all: serde_json::Value =
        serde_json::from_str(&home.run(&["explain", "--json"]).stdout).unwrap();
    let names = hafog::plan::safety::REFUSALS.len();
    assert_eq!(all.as_array().map(Vec::len), Some(names));
}
