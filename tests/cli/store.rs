//! A store at the other end of a pipe, where `ssh` is left out: the folder's promises hold through it.

use std::time::Duration;

use hafog::model::id::{RunId, ServerName};
use hafog::state::ssh::SshStore;
use hafog::state::{Guest, PutError, StateStore};

use crate::harness::Home;

/// For what takes a second or two; a limit, not an expectation.
const LIMIT: Duration = Duration::from_secs(120);
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEUC2kjzjJbVJuWxDdBEjhsXbKDZdYlQhlHGzlDqwFxl";

/// `hafog store` in the home's folder `state`, after whatever the script does first.
fn by(home: &Home, script: &str, more: &[&str]) -> SshStore {
    let path = |name: &str| home.path().join(name).display().to_string();
    let env = format!("HOME={}", home.path().display());
    let program = env!("CARGO_BIN_EXE_hafog");
    let state = path("state");
    let script = format!("cd \"$HOME\"; {script}exec \"$@\"");
    let first = [
        "env", &env, "sh", "-c", &script, "sh", program, "store", &state,
    ];
    let argv = first.iter().chain(more).map(|word| (*word).to_owned());
    SshStore::by("elsewhere".to_owned(), argv.collect())
}

fn run_id() -> RunId {
    RunId::from("20261121T091403-7c1e")
}

#[tokio::test]
async fn what_a_folder_promises_holds_through_a_pipe() {
    let home = Home::new();
    let store = by(&home, "", &[]);
    let run = run_id();
    assert_eq!(store.read(&run).await.unwrap(), None);
    store.append(&run, r#"{"a":1}"#).await.unwrap();
    let lines = [r#"{"a":2}"#, r#"{"a":"é"}"#].map(str::to_owned);
    store.append_all(&run, &lines).await.unwrap();
    let whole = "{\"a\":1}\n{\"a\":2}\n{\"a\":\"é\"}\n".as_bytes().to_vec();
    assert_eq!(store.read(&run).await.unwrap(), Some(whole));
    // What is damaged comes as it is.
    let journal = home.path().join(format!("state/journal/{run}.jsonl"));
    std::fs::write(&journal, b"{\"a\":1}\n{\"\xff").unwrap();
    assert_eq!(
        store.read(&run).await.unwrap().unwrap(),
        b"{\"a\":1}\n{\"\xff"
    );
    store.replace_journal(&run, &lines).await.unwrap();
    assert_eq!(store.runs().await.unwrap(), [run]);
    // What somebody else wrote is not written between.
    let other = RunId::from("20261121T091404-1");
    let first = r#"{"prev":"","text":"1"}"#;
    let prev = hafog::model::digest::of_line(first);
    let second = format!(r#"{{"prev":"{prev}","text":"2"}}"#);
    store.append(&other, first).await.unwrap();
    store.append(&other, &second).await.unwrap();
    let late = store.append(&other, &second.replace('2', "3")).await;
    assert!(matches!(late, Err(PutError::Changed)), "{late:?}");

    assert!(store.get("lease").await.unwrap().is_none());
    let first = store.put("lease", b"{}", None).await.unwrap();
    let other = by(&home, "", &[]);
    assert!(matches!(
        other.put("lease", b"1", None).await,
        Err(PutError::Changed)
    ));
    let (bytes, version) = other.get("lease").await.unwrap().unwrap();
    assert_eq!((bytes.as_slice(), &version), (&b"{}"[..], &first));
    other.put("lease", b"", Some(&first)).await.unwrap();
    assert!(matches!(
        store.put("lease", b"1", Some(&first)).await,
        Err(PutError::Changed)
    ));
    assert_eq!(store.get("lease").await.unwrap().unwrap().0, b"");
    store.delete("lease").await.unwrap();
    assert!(other.get("lease").await.unwrap().is_none());
    let fault = store.get("../x").await.unwrap_err();
    assert_eq!(fault.message(), "`../x` is no document key");
}

#[tokio::test]
async fn an_agent_knows_one_document_and_may_not_let_anybody_in() {
    let home = Home::new();
    let all = by(&home, "", &[]);
    let guest = Guest {
        server: ServerName::from("shop-east-db-1"),
        key: format!("{KEY} root@shop-east-db-1"),
        documents: vec!["writer/main".to_owned()],
    };
    all.admit(&guest).await.unwrap();
    let keys = || home.read(".ssh/authorized_keys");
    let state = home.path().join("state").display().to_string();
    let line = format!(
        "restrict,command=\"'{}' store '{state}' --only 'writer/main'\" {KEY} hafog:{state}:shop-east-db-1\n",
        env!("CARGO_BIN_EXE_hafog")
    );
    assert_eq!(keys(), line);
    assert!(all.admits(&guest).await.unwrap());
    let more = Guest {
        documents: vec!["writer/main".to_owned(), "lease".to_owned()],
        ..guest.clone()
    };
    assert!(!all.admits(&more).await.unwrap());

    all.put("lease", b"{}", None).await.unwrap();
    let agent = by(&home, "", &["--only", "writer/main"]);
    let first = agent.put("writer/main", b"{}", None).await.unwrap();
    agent.put("writer/main", b"[]", Some(&first)).await.unwrap();
    assert_eq!(all.get("writer/main").await.unwrap().unwrap().0, b"[]");
    let refused = |fault: &hafog::error::Fault| {
        fault.message() == "this connection may only know writer/main"
    };
    assert!(refused(&agent.get("lease").await.unwrap_err()));
    assert!(refused(&agent.runs().await.unwrap_err()));
    let appended = agent.append(&run_id(), "{}").await;
    assert!(matches!(&appended, Err(PutError::Fault(fault)) if refused(fault)));
    assert!(refused(&agent.delete("writer/main").await.unwrap_err()));
    assert!(refused(&agent.admit(&guest).await.unwrap_err()));
    assert!(refused(&agent.admits(&guest).await.unwrap_err()));
    assert!(refused(&agent.dismiss(&guest.server).await.unwrap_err()));
    assert_eq!(keys(), line);
    all.dismiss(&guest.server).await.unwrap();
    assert_eq!(keys(), "");
    assert!(!all.admits(&guest).await.unwrap());
}

#[tokio::test]
async fn who_stops_waiting_takes_nobody_elses_answer() {
    let home = Home::new();
    // The first one that is started does not answer.
    let store = by(
        &home,
        "if mkdir frozen 2>/dev/null; then printf 'hafog store 1\\n'; exec sleep 600; fi; ",
        &[],
    );
    let patience = Duration::from_millis(500);
    let silent = tokio::time::timeout(patience, store.get("lease")).await;
    assert!(silent.is_err(), "it answered");
    // On a busy machine the silent one is still being made, and silent for the next question too.
    let put = async {
        loop {
            let put = store.put("lease", b"{}", None);
            if let Ok(put) = tokio::time::timeout(patience, put).await {
                break put;
            }
        }
    };
    let put = tokio::time::timeout(LIMIT, put).await;
    put.expect("another one answers").unwrap();
    assert_eq!(store.get("lease").await.unwrap().unwrap().0, b"{}");
}

/// An agent asks with little patience, and a connection takes many round trips.
#[tokio::test]
async fn a_connection_is_made_over_several_questions() {
    let home = Home::new();
    let store = by(&home, "echo made >>made; sleep 1; ", &[]);
    let patience = Duration::from_millis(100);
    let mut asked = 0;
    let until_it_answers = async {
        while tokio::time::timeout(patience, store.get("lease"))
            .await
            .is_err()
        {
            asked += 1;
        }
    };
    let answered = tokio::time::timeout(LIMIT, until_it_answers).await;
    answered.expect("it answers in the end");
    assert!(asked > 1, "it was there at once");
    assert_eq!(home.read("made"), "made\n");
}

#[tokio::test]
async fn what_is_no_store_is_said() {
    let home = Home::new();
    for (script, why) in [
        (
            "echo Welcome to this machine; ",
            "it speaks otherwise than this version of hafog: `Welcome to thi`",
        ),
        (
            "echo 'hafog: command not found' >&2; exit 127; ",
            "hafog: command not found",
        ),
        ("exit 1; ", "it ended without a word"),
    ] {
        let fault = by(&home, script, &[]).get("lease").await.unwrap_err();
        assert_eq!(
            fault.to_string(),
            format!("state store elsewhere does not answer: {why}")
        );
    }
}
