//! Changes are compared, made as a whole, and survive a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

#[tokio::test]
async fn changes_are_compared_before_they_are_made() {
    use RecordType::*;
    let folder = TempDir::new().unwrap();
    let server = Server::with_zone(folder.path(), &shop()).await;
    let old = set("edge.shop.test", A, 60, &["127.64.1.1", "127.64.1.2"]);
    let new = set("edge.shop.test", A, 60, &["127.65.1.1"]);
    let fresh = |host, kind, value: &str| change(None, Some(&set(host, kind, 60, &[value])));
    let empty = set("edge.shop.test", A, 60, &[]);
    let good = fresh("fresh.shop.test", A, "127.0.0.1");
    for (bad, why) in [
        (
            change(Some(&new), Some(&old)),
            "`edge.shop.test A` was expected to be `edge.shop.test 60 A 127.65.1.1` \
             and is `edge.shop.test 60 A 127.64.1.1 127.64.1.2`",
        ),
        (change(None, Some(&new)), "was expected to be nothing"),
        (
            change(Some(&old), Some(&empty)),
            "would be left without a value",
        ),
        (fresh("x.shop.test", A, "127.0.0.256"), "is no IPv4 address"),
        (
            fresh("x.shop.test", Aaaa, "127.0.0.1"),
            "is no IPv6 address",
        ),
        (
            fresh("x.other.test", A, "127.0.0.1"),
            "is not in zone `shop.test.`",
        ),
        (
            fresh("shop.test", Cname, "www.shop.test"),
            "own name cannot be a CNAME",
        ),
        (
            fresh("edge.shop.test", Cname, "www.shop.test"),
            "and hold other records",
        ),
        (fresh("www.shop.test", Txt, "x"), "and hold other records"),
        (
            fresh("*.shop.test", A, "127.0.0.1"),
            "wildcards are not served",
        ),
        (
            fresh("a b.shop.test", A, "127.0.0.1"),
            "is not allowed in it",
        ),
        (
            fresh("ns1.shop.test", Txt, "mine"),
            "the name server's own name",
        ),
    ] {
        // All or nothing: the good change before does not happen either.
        let refused = server.apply(&[good.clone(), bad]).await.unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(server.ask("fresh.shop.test", A).await.code, "NXDOMAIN");

    assert_eq!(server.apply(&[change(Some(&old), Some(&new))]).await, Ok(3));
    let answer = server.ask("edge.shop.test", A).await;
    assert_eq!(answer.sets, std::slice::from_ref(&new));
    // The same again is nothing to do, and no new generation.
    assert_eq!(server.apply(&[change(Some(&new), Some(&new))]).await, Ok(3));
    // A name changes its type in one step.
    let link = set("edge.shop.test", Cname, 60, &["a.b.c.shop.test"]);
    let six = set("edge.shop.test", Aaaa, 60, &["::1"]);
    let flip = [
        change(None, Some(&link)),
        change(Some(&new), None),
        change(Some(&six), None),
    ];
    assert_eq!(server.apply(&flip).await, Ok(4));
    let late = Request::Apply {
        zone: "shop.test".into(),
        changes: vec![],
        expect_generation: Some(3),
    };
    let why = "generation 4 is served, not 3".to_owned();
    assert_eq!(
        request(folder.path(), &late).await.unwrap(),
        Reply::Refused { why }
    );
    server.end().await;
}

/// Every answer is wholly of one generation: the link, and what it leads to, which the other generation does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_are_never_mixed() {
    let generation = |name: &str, values: &[&str]| {
        let target = format!("{name}.shop.test");
        vec![
            set("www.shop.test", RecordType::Cname, 5, &[&target]),
            set(&target, RecordType::A, 5, values),
        ]
    };
    let east = generation("east", &["127.64.0.1", "127.64.0.2"]);
    let west = generation("west", &["127.65.0.1", "127.65.0.2"]);
    let folder = TempDir::new().unwrap();
    let server = Server::with_zone(folder.path(), &east).await;
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let (over, seen, address) = (over.clone(), seen.clone(), server.address);
            let both = [east.clone(), west.clone()];
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let host = "www.shop.test".into();
                    let answer = ask(address, &host, RecordType::A, LIMIT).await.unwrap();
                    let whole = both.iter().position(|sets| sets == &answer.sets);
                    let whole = whole.unwrap_or_else(|| panic!("mixed: {:?}", answer.sets));
                    seen[whole].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let (mut now, mut next) = (&east, &west);
    let begun = Instant::now();
    let mut swaps = 0;
    while swaps < 100 || seen.iter().any(|count| count.load(Ordering::Relaxed) < 100) {
        assert!(begun.elapsed() < LIMIT, "{swaps} swaps, {seen:?} answers");
        let swap = [
            change(Some(&now[0]), Some(&next[0])),
            change(None, Some(&next[1])),
            change(Some(&now[1]), None),
        ];
        server.apply(&swap).await.unwrap();
        // What was replied is what is answered from then on.
        assert_eq!(&server.ask("www.shop.test", RecordType::A).await.sets, next);
        std::mem::swap(&mut now, &mut next);
        swaps += 1;
    }
    over.store(true, Ordering::Relaxed);
    for asker in askers {
        asker.await.unwrap();
    }
    server.end().await;
}

#[tokio::test]
async fn a_restart_serves_the_last_generation_and_a_torn_file_stops_it() {
    let folder = TempDir::new().unwrap();
    let zones = async || request(folder.path(), &Request::Zones).await.unwrap();
    let server = Server::with_zone(folder.path(), &shop()).await;
    let before = zones().await;
    // A second server of the same folder does not start.
    let fault = async || {
        let options = ServeOptions {
            folder: folder.path().to_owned(),
            listen: vec!["127.77.3.1:0".parse().unwrap()],
        };
        let ended = tokio::time::timeout(LIMIT, run(options, std::future::pending())).await;
        ended.expect("it does not start").unwrap_err()
    };
    let second = fault().await;
    assert!(is_held(&second), "{second}");
    server.end().await;

    let server = Server::start(folder.path()).await;
    assert_eq!(zones().await, before);
    assert_eq!(
        server.ask("www.shop.test", RecordType::A).await.sets.len(),
        2
    );
    server.end().await;

    let file = folder.path().join("zones.json");
    let whole = std::fs::read(&file).unwrap();
    let edited = String::from_utf8_lossy(&whole).replace("127.64.1.1", "127.64.1.9");
    for (content, why) in [
        (&whole[..whole.len() / 2], "the file is torn"),
        (b"", "the file is torn"),
        (edited.as_bytes(), "the digest does not fit"),
    ] {
        std::fs::write(&file, content).unwrap();
        eventually("it looks at the file", async || {
            let fault = fault().await;
            assert!(
                is_held(&fault) || fault.to_string().contains(why),
                "{fault}"
            );
            !is_held(&fault)
        })
        .await;
    }
    // What a crash in the middle of a write leaves is not read.
    std::fs::write(&file, &whole).unwrap();
    std::fs::write(folder.path().join("zones.json.new"), b"{").unwrap();
    let server = Server::start(folder.path()).await;
    assert_eq!(zones().await, before);
    server.end().await;
}

#[tokio::test]
async fn an_address_in_use_is_a_fault() {
    let folder = TempDir::new().unwrap();
    let taken = UdpSocket::bind("127.77.3.4:0").await.unwrap();
    let options = ServeOptions {
        folder: folder.path().to_owned(),
        listen: vec![taken.local_addr().unwrap()],
    };
    let fault = run(options, std::future::pending())
        .await
        .unwrap_err()
        .to_string();
    assert!(fault.contains("(UDP): Address already in use"), "{fault}");
}
