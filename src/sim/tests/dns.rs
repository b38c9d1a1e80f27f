//! Zones: records are compared before they are written, and authorities answer.

use super::*;
use crate::model::record::RecordType;
use crate::model::units::Ttl;

fn set(host: &str, kind: RecordType, ttl: u32, value: &str) -> RecordSet {
    RecordSet {
        host: host.into(),
        kind,
        ttl: Ttl(ttl),
        values: [value.to_owned()].into(),
    }
}

#[tokio::test]
async fn records_are_compared_before_they_are_written() {
    let world = empty();
    let dns = world.dns(&"shop.test".into());
    let a = |value| Some(set("a.shop.test", RecordType::A, 60, value));
    assert!(dns.apply(&[change(None, a("10.0.0.1"))]).await.is_err());
    dns.open_zone().await.unwrap();
    dns.open_zone().await.unwrap();
    dns.apply(&[change(None, a("10.0.0.1"))]).await.unwrap();
    let stale = dns.apply(&[change(a("10.0.0.9"), a("10.0.0.2"))]).await;
    assert!(matches!(stale, Err(Trouble::NothingChanged(_))));
    let b = Some(set("b.shop.test", RecordType::A, 60, "10.0.0.3"));
    let both = [change(None, b), change(None, a("10.0.0.2"))];
    assert!(dns.apply(&both).await.is_err());
    assert_eq!(world.records(&"shop.test".into()), [a("10.0.0.1").unwrap()]);
    let alias = Some(set("a.shop.test", RecordType::Cname, 60, "b.shop.test"));
    assert!(dns.apply(&[change(None, alias)]).await.is_err());
    let foreign = Some(set("notshop.test", RecordType::A, 60, "10.0.0.1"));
    assert!(dns.apply(&[change(None, foreign)]).await.is_err());

    let mut empty = a("10.0.0.1").unwrap();
    empty.values.clear();
    assert!(
        dns.apply(&[change(a("10.0.0.1"), Some(empty))])
            .await
            .is_err()
    );
    assert_eq!(world.violations().len(), 1);
    dns.apply(&[change(a("10.0.0.1"), None)]).await.unwrap();
    assert_eq!(world.records(&"shop.test".into()), []);
}

#[tokio::test]
async fn authorities_answer_with_the_aliases_on_the_way() {
    let world = stood().await;
    let (zone, probe) = ("shop.test".into(), world.probe());
    let authorities = world.dns(&zone).authorities().await.unwrap();
    assert_eq!(authorities.len(), 2);
    let ask = async |index: usize, host: &str, kind| {
        probe.dns(authorities[index], &host.into(), kind).await
    };
    let answer = ask(0, "www.shop.test", RecordType::A).await.unwrap();
    assert_eq!(
        answer.sets,
        world.records(&zone).into_iter().rev().collect::<Vec<_>>()
    );
    let none = ask(0, "www.shop.test", RecordType::Aaaa).await.unwrap();
    assert_eq!((none.code.as_str(), none.sets.len()), ("NOERROR", 1));
    assert_eq!(
        ask(0, "no.shop.test", RecordType::A).await.unwrap().code,
        "NXDOMAIN"
    );
    assert_eq!(
        ask(0, "hafog-shop.shop.test", RecordType::A)
            .await
            .unwrap()
            .code,
        "NOERROR"
    );
    assert_eq!(
        ask(0, "other.test", RecordType::A).await.unwrap().code,
        "REFUSED"
    );

    world.hold_authority(&zone, 1, true);
    let before = world.records(&zone).remove(0);
    let mut after = before.clone();
    after.ttl = Ttl(60);
    let flip = change(Some(before.clone()), Some(after.clone()));
    world.dns(&zone).apply(&[flip]).await.unwrap();
    let host = "www.hafog-shop.shop.test";
    assert_eq!(ask(0, host, RecordType::A).await.unwrap().sets, [after]);
    assert_eq!(ask(1, host, RecordType::A).await.unwrap().sets, [before]);
    world.set_authority_answers(&zone, 1, false);
    assert!(ask(1, host, RecordType::A).await.is_err());
    world.dns(&zone).close_zone().await.unwrap();
    assert!(!world.dns(&zone).state().await.unwrap().open);
    assert!(ask(0, host, RecordType::A).await.is_err());
}
