//! kill -9 of the real binary in the middle of a run, then the same command again: the world ends as it should.

use super::lab::{Lab, turn};

#[test]
fn up_that_was_killed_is_completed_by_the_next() {
    let Some(_turn) = turn("up_that_was_killed_is_completed_by_the_next") else {
        return;
    };
    let lab = Lab::new();
    // Early in the images, in the middle of the servers, and around the database; wherever it was killed, the next goes on.
    for lines in [3, 20, 45, 60] {
        lab.kill_at("up --yes", lines);
    }
    lab.must("up --yes");
    let again = lab.must("up --yes");
    assert!(again.stdout.contains("nothing to do"), "{}", again.all());
    assert_eq!(lab.writable(), ["shop-east-db-1"]);
    let servers = lab.facts()["sites"]["east"]["servers"]
        .as_object()
        .expect("servers")
        .len();
    assert_eq!(servers, 5, "no builder is left behind");
    lab.must("destroy --yes");
    assert_eq!(lab.processes(), 0);
}

#[test]
fn a_switchover_that_was_killed_goes_on_where_it_was() {
    let Some(_turn) = turn("a_switchover_that_was_killed_goes_on_where_it_was") else {
        return;
    };
    let lab = Lab::new();
    lab.must("up --yes");
    lab.must("clone west --yes");
    let mut standby = "west";
    // Before the fence, in it, at the promotion, and after the flip.
    for lines in [3, 9, 13, 19] {
        let killed = lab.kill_at("switchover --yes", lines);
        assert!(
            lab.writable().len() <= 1,
            "two writers after kill at {lines}"
        );
        if killed {
            let other = lab.run("commit --yes");
            assert_eq!(other.code, 4, "another verb is refused: {}", other.all());
            lab.must("resume --yes");
        }
        assert_eq!(
            lab.writable(),
            [format!("shop-{standby}-db-1")],
            "killed at {lines}"
        );
        lab.must("commit --yes");
        standby = if standby == "west" { "east" } else { "west" };
        lab.until("the standby is ready", || lab.run("preflight").code == 0);
    }
}
