//! Documents and journals.

use super::*;
use crate::state::PutError;

#[tokio::test]
async fn documents_change_by_compare_and_set() {
    let world = empty();
    let store = world.store(1);
    assert_eq!(store.name(), "arbiter");
    let first = store.put("roles", b"1", None).await.unwrap();
    let late = store.put("roles", b"2", None).await;
    assert!(matches!(late, Err(PutError::Changed)));
    let second = store.put("roles", b"2", Some(&first)).await.unwrap();
    let stale = store.put("roles", b"3", Some(&first)).await;
    assert!(matches!(stale, Err(PutError::Changed)));
    assert_eq!(
        store.get("roles").await.unwrap(),
        Some((b"2".to_vec(), second.clone()))
    );
    store.delete("roles").await.unwrap();
    store.delete("roles").await.unwrap();
    let gone = store.put("roles", b"4", Some(&second)).await;
    assert!(matches!(gone, Err(PutError::Changed)));
    assert_eq!(world.document(1, "roles"), None);
    assert_eq!(world.store(0).get("roles").await.unwrap(), None);
}

#[tokio::test]
async fn a_torn_line_stays_alone() {
    let world = empty();
    let (store, run) = (world.store(0), RunId::from("r1"));
    assert_eq!(store.read(&run).await.unwrap(), None);
    store.append(&run, "first").await.unwrap();
    world.script(Script::on("store.append", Mishap::Half).about("second"));
    assert!(store.append(&run, "second").await.is_err());
    assert_eq!(store.read(&run).await.unwrap().unwrap(), b"first\nsec");
    store.append(&run, "third").await.unwrap();
    assert_eq!(
        store.read(&run).await.unwrap().unwrap(),
        b"first\nsec\nthird\n"
    );
    store.append(&"r0".into(), "x").await.unwrap();
    assert_eq!(store.runs().await.unwrap(), [run, "r0".into()]);
}

#[tokio::test]
async fn a_full_store_reads_and_a_silent_one_does_nothing() {
    let world = empty();
    let (store, run) = (world.store(0), RunId::from("r1"));
    world.set_store_full(0, true);
    assert!(store.append(&run, "x").await.is_err());
    let full = store.put("roles", b"1", None).await;
    assert!(matches!(full, Err(PutError::Fault(_))));
    assert_eq!(store.read(&run).await.unwrap(), None);
    world.set_store_full(0, false);
    world.set_store_answers(0, false);
    assert!(store.read(&run).await.is_err());
    world.store(1).append(&run, "x").await.unwrap();
}
