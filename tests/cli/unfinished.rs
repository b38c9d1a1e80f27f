//! A run that somebody left in the middle.

use std::path::Path;
use std::sync::Arc;

use super::SMALL;
use crate::harness::Home;
use hafog::clock::SteppedClock;
use hafog::journal::event::{Event, How, Opened};
use hafog::journal::{Journal, Silent};
use hafog::model::id::RunId;
use hafog::plan::action::SmokeTest;
use hafog::plan::{Intent, Plan, PlanKind, step};
use hafog::state::StateStore;
use hafog::state::dir::DirStore;
use hafog::state::stores::Stores;
use insta::assert_snapshot;

/// Writes the journal of a switchover to west of which the first step is done.
fn leave(home: &Path, kind: PlanKind) {
    leave_of(home, kind, true, &[], false);
}

/// The same of a failover too, with sites that were assumed down.
fn leave_of(home: &Path, kind: PlanKind, planned: bool, down: &[&str], no_return: bool) {
    let store = Arc::new(DirStore::new(home.join(".hafog"))) as Arc<dyn StateStore>;
    let clock = SteppedClock::at("2026-11-21T09:14:03Z".parse().unwrap());
    let run = RunId::new("20261121T091403-7c1e");
    let intent = Intent::Failover {
        from: "east".into(),
        to: "west".into(),
        planned,
    };
    let mut plan = Plan::new(kind, intent);
    let site = || SmokeTest {
        site: "west".into(),
    };
    let first = step("vet-standby main", "west can take over", site().into());
    plan.push(match no_return {
        true => first.no_return(),
        false => first,
    });
    plan.push(step(
        "smoke-test",
        "west passes its health checks",
        site().into(),
    ));
    let opened = Opened {
        run: run.clone(),
        hafog: "0.1.0".to_owned(),
        holder: "me@here, process 1".to_owned(),
        epoch: 1,
        digest: plan.digest(),
        plan,
        stack: hafog::spec::load_str("hafog.yaml", SMALL, &hafog::cmd::open::known())
            .expect("a sound spec")
            .stack,
        assumed_down: down.iter().map(|site| (*site).into()).collect(),
        accepted: Vec::new(),
        reason: Some("the lights went out".to_owned()),
    };
    let stores = Arc::new(Stores::new(vec![store], 0));
    let mut journal = Journal::new(run, stores, Arc::new(clock), Arc::new(Silent));
    let step = || "vet-standby main".into();
    let events = [
        Event::Opened(Box::new(opened)),
        Event::Started { step: step() },
        Event::Finished {
            step: step(),
            how: How::Acted,
            evidence: "it follows".to_owned(),
        },
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let open = br#"{"serial":1,"run":"20261121T091403-7c1e"}"#;
    runtime.block_on(async {
        DirStore::new(home.join(".hafog"))
            .put("open-run", open, None)
            .await
            .unwrap();
        for event in events {
            journal.add(event).await.unwrap();
        }
    });
}

#[test]
fn another_verb_has_to_wait() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Directional);
    assert_snapshot!(home.run(&["up", "--yes"]).all(), @r"
    --- stderr
    partly done: run 20261121T091403-7c1e of switchover is not finished
    cause: me@here, process 1 began it
    hint: hafog resume
    hint: hafog abort
    --- exit 4
    ");
    assert_eq!(home.run(&["failover", "--yes"]).code, 4);
    assert_eq!(home.run(&["switchover", "east", "--yes"]).code, 4);
}

#[test]
fn what_is_damaged_is_shown_up_to_there() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Directional);
    let journal = ".hafog/journal/20261121T091403-7c1e.jsonl";
    home.write(
        journal,
        &home.read(journal).replacen("\"started\"", "\"begun\"", 1),
    );
    let ran = home.run(&["show", "journal"]);
    assert_snapshot!(ran.stdout, @"2026-11-21T09:14:03.000Z  opened    switchover by me@here, process 1, plan DIGEST");
    assert!(ran.stderr.contains("is damaged at line 2"), "{}", ran.all());
    assert_eq!(ran.code, 1);
}

#[test]
fn there_is_no_way_back_behind_the_point_of_no_return() {
    let home = Home::with(SMALL);
    leave_of(home.path(), PlanKind::Directional, true, &[], true);
    assert_snapshot!(home.run(&["up", "--yes"]).all(), @r"
    --- stderr
    partly done: run 20261121T091403-7c1e of switchover is not finished
    cause: me@here, process 1 began it
    hint: hafog resume
    --- exit 4
    ");
    let status = home.run(&["status"]).stdout;
    let line = "run 20261121T091403-7c1e of switchover is not finished: hafog resume\n";
    assert!(status.contains(line), "{status}");
}

#[test]
fn the_same_verb_goes_on() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Directional);
    assert_snapshot!(home.run(&["switchover", "--dry-run"]).all(), @r"
    --- stdout
    run 20261121T091403-7c1e of switchover goes on: 1 of 2 steps are done, plan DIGEST
     2 smoke-test        west passes its health checks
    --- exit 0
    ");
    let same = home.run(&["failover", "--planned", "west", "--dry-run"]);
    assert_eq!(same.code, 0, "{}", same.all());
    assert_eq!(home.run(&["switchover"]).code, 7);
    assert_eq!(home.run(&["resume"]).code, 7);
    assert_eq!(home.run(&["abort"]).code, 7);
    assert_snapshot!(home.run(&["abort", "--dry-run"]).all(), @r"
    --- stdout
    run 20261121T091403-7c1e of switchover is taken back: 1 of 2 steps are done, plan DIGEST
    nothing has to be undone
    --- exit 0
    ");
}

#[test]
fn a_converging_run_is_in_nobodys_way() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Converging);
    assert_eq!(home.run(&["up", "--dry-run"]).code, 0);
}

#[test]
fn what_was_done_can_be_read() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Directional);
    assert_snapshot!(home.run(&["show", "report"]).all(), @r"
    --- stdout
    run 20261121T091403-7c1e: switchover unfinished
    began 2026-11-21T09:14:03Z, took 0.0s, plan DIGEST
    reason: the lights went out

     1 vet-standby main  it follows                                                  0.0s
     2 smoke-test        waiting
    --- exit 0
    ");
    assert_snapshot!(home.run(&["show", "journal"]).all(), @r"
    --- stdout
    2026-11-21T09:14:03.000Z  opened                      switchover by me@here, process 1, plan DIGEST
    2026-11-21T09:14:03.000Z  started   vet-standby main
    2026-11-21T09:14:03.000Z  finished  vet-standby main  it follows
    --- exit 0
    ");
    assert_snapshot!(home.run(&["show", "plan"]).all(), @r"
    --- stdout
    switchover of shop: 2 steps, plan DIGEST
     1 vet-standby main  west can take over
     2 smoke-test        west passes its health checks
    --- exit 0
    ");
    assert_snapshot!(home.run(&["show", "journal", "--list"]).all(), @r"
    --- stdout
    RUN                   VERB        BEGAN                 OUTCOME
    20261121T091403-7c1e  switchover  2026-11-21T09:14:03Z  unfinished
    --- exit 0
    ");
    assert_snapshot!(home.run(&["show", "report", "nonsense"]).all(), @r"
    --- stderr
    error: there is no journal of run `nonsense`
    hint: hafog show journal --list
    --- exit 1
    ");
    let status = home.run(&["status"]);
    let line =
        "run 20261121T091403-7c1e of switchover is not finished: hafog resume, or hafog abort\n";
    assert!(status.stdout.contains(line), "{}", status.all());
    let json = home.run(&["show", "report", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["outcome"], serde_json::Value::Null);
    assert_eq!(report["steps"][1]["how"], "waiting");
}

#[test]
fn whatever_became_of_the_spec_the_run_goes_on() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Directional);
    let on = "run 20261121T091403-7c1e of switchover goes on: 1 of 2 steps";
    let resumed = |note: &str| {
        for verb in ["resume", "switchover"] {
            let ran = home.run(&[verb, "--dry-run"]);
            assert_eq!(ran.code, 0, "{verb}: {}", ran.all());
            assert!(ran.stdout.starts_with(on), "{verb}: {}", ran.all());
            assert!(ran.stderr.contains(note), "{verb}: {}", ran.all());
            assert_eq!(ran.stderr.is_empty(), note.is_empty(), "{}", ran.all());
        }
    };
    resumed("");
    home.write("hafog.yaml", &SMALL.replace("count: 2", "count: 3"));
    resumed("`hafog.yaml` says something else than when run 20261121T091403-7c1e was begun");
    home.write("hafog.yaml", &format!("{SMALL}state: [./elsewhere]\n"));
    resumed("`hafog.yaml` says something else");
    home.write("hafog.yaml", "stack: shop\nsites: [\n");
    resumed("`hafog.yaml` cannot be used as it is");
    assert_eq!(home.run(&["abort", "--dry-run"]).code, 0);
    std::fs::remove_file(home.path().join("hafog.yaml")).unwrap();
    resumed("`hafog.yaml` cannot be used as it is");
    // Another stack's spec is another stack's.
    home.write("hafog.yaml", "stack: other\nsites: [\n");
    assert_ne!(home.run(&["resume", "--dry-run"]).code, 0);
}

#[tokio::test]
async fn what_was_assumed_down_stays_so() {
    let home = Home::with(SMALL);
    let path = home.path().to_path_buf();
    let leaving = move || leave_of(&path, PlanKind::Directional, true, &["east"], false);
    tokio::task::spawn_blocking(leaving).await.unwrap();
    let call = hafog::cmd::Call {
        file: home.path().join("hafog.yaml"),
        ui: hafog::ui::print::Ui::new(hafog::ui::print::Colour::Never, false, false, true),
    };
    let found = hafog::cmd::unfinished::find(&call).await.unwrap().unwrap();
    let world = found.world(&call).unwrap();
    let open: Vec<_> = world.clouds.keys().map(|site| site.to_string()).collect();
    assert_eq!(open, ["west"]);
    assert_eq!(found.opened.assumed_down.len(), 1);
}

#[test]
fn a_run_that_goes_on_accepts_nothing_new() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Directional);
    let words = ["switchover", "--dry-run", "--accept", "standby-behind"];
    let ran = home.run(&words).all();
    assert_snapshot!(ran, @r"
    --- stderr
    refused: run 20261121T091403-7c1e of switchover was begun without `--accept standby-behind`, and goes on without it
    hint: hafog abort, then hafog switchover west --accept standby-behind
    hint: hafog resume
    --- exit 3
    ");
    for verb in ["resume", "abort"] {
        let words = [verb, "--dry-run", "--accept", "standby-behind"];
        assert_eq!(home.run(&words).all(), ran, "{verb}");
    }
}

#[test]
fn a_run_in_the_former_stores_is_in_the_way_of_others() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Directional);
    home.write("hafog.yaml", &format!("{SMALL}state: [./elsewhere]\n"));
    for verb in ["up", "deploy", "destroy"] {
        let ran = home.run(&[verb, "--yes"]);
        assert_eq!(ran.code, 4, "{verb}: {}", ran.all());
    }
    assert!(!home.path().join("elsewhere").exists());
}

#[test]
fn a_file_that_is_not_there_is_nobodys_spec() {
    let home = Home::with(SMALL);
    leave(home.path(), PlanKind::Directional);
    home.write(
        "hafog.yaml",
        "stack: shop # the one in production\nsites: [\n",
    );
    assert_eq!(home.run(&["resume", "--dry-run"]).code, 0);
    let typed = home.run(&["--file", "hafgo.yaml", "abort", "--dry-run"]);
    assert_ne!(typed.code, 0, "{}", typed.all());
}

#[test]
fn a_run_that_goes_on_assumes_nothing_new() {
    let home = Home::with(SMALL);
    leave_of(home.path(), PlanKind::Directional, false, &["west"], false);
    let words = ["failover", "west", "--assume-down", "east", "--dry-run"];
    assert_snapshot!(home.run(&words).all(), @r"
    --- stderr
    refused: run 20261121T091403-7c1e of failover was begun without `--assume-down east`, and asks east
    hint: hafog resume
    hint: hafog abort, then hafog failover west --assume-down east
    --- exit 3
    ");
}
