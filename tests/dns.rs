//! The name server, looked at from outside: real sockets on loopback, real processes, `dig` where it is there.

#![allow(
    clippy::print_stderr,
    reason = "skipped tests and a failed server say so"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hafog::dns::ask::DnsAnswer;
use hafog::dns::ask::ask;
use hafog::dns::cache::CachingClient;
use hafog::dns::serve_control::{Hello, PURPOSE, Reply, Request};
use hafog::dns::serve_host::ServeHost;
use hafog::dns::{DnsHost, RecordChange, ZoneSettings};
use hafog::error::{Fault, Trouble};
use hafog::model::record::{RecordSet, RecordType};
use hafog::model::units::Ttl;
use hafog::serve::{ServeOptions, run};
use hafog::shell::control;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No wait takes longer; a machine that is slow is not a failure.
const LIMIT: Duration = Duration::from_secs(30);

/// A name server in this process.
struct Server {
    folder: PathBuf,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), Fault>>,
}

impl Server {
    async fn start(folder: &Path) -> Server {
        let (stop, stopped) = oneshot::channel();
        let options = ServeOptions {
            folder: folder.to_owned(),
            listen: vec!["127.77.3.1:0".parse().unwrap()],
        };
        let ended = tokio::spawn(run(options, async {
            let _ = stopped.await;
        }));
        let begun = Instant::now();
        let address = loop {
            if let Ok(Reply::Hello(hello)) = request(folder, &Request::Hello).await {
                break hello.listen[0];
            }
            assert!(begun.elapsed() < LIMIT && !ended.is_finished(), "no start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Server {
            folder: folder.to_owned(),
            address,
            stop,
            ended,
        }
    }

    async fn with_zone(folder: &Path, sets: &[RecordSet]) -> Server {
        let server = Server::start(folder).await;
        let zone = "shop.test".into();
        let reply = request(folder, &Request::OpenZone { zone }).await;
        assert!(matches!(reply, Ok(Reply::Done { .. })), "{reply:?}");
        let changes: Vec<RecordChange> = sets.iter().map(|set| change(None, Some(set))).collect();
        server.apply(&changes).await.unwrap();
        server
    }

    /// The new generation, or why not.
    async fn apply(&self, changes: &[RecordChange]) -> Result<u64, String> {
        let apply = Request::Apply {
            zone: "shop.test".into(),
            changes: changes.to_vec(),
            expect_generation: None,
        };
        match request(&self.folder, &apply).await.unwrap() {
            Reply::Done { generation, .. } => Ok(generation),
            Reply::Refused { why } => Err(why),
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&self, host: &str, kind: RecordType) -> DnsAnswer {
        ask(self.address, &host.into(), kind, LIMIT).await.unwrap()
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

async fn request(folder: &Path, request: &Request) -> Result<Reply, Trouble> {
    control::ask(PURPOSE, folder, request, LIMIT).await
}

fn set(host: &str, kind: RecordType, ttl: u32, values: &[&str]) -> RecordSet {
    RecordSet {
        host: host.into(),
        kind,
        ttl: Ttl(ttl),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    }
}

fn change(before: Option<&RecordSet>, after: Option<&RecordSet>) -> RecordChange {
    let set = after.or(before).unwrap();
    RecordChange {
        host: set.host.clone(),
        kind: set.kind,
        before: before.cloned(),
        after: after.cloned(),
    }
}

fn addresses(host: &str, count: usize) -> RecordSet {
    let values: Vec<String> = (1..=count).map(|n| format!("127.9.9.{n}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    set(host, RecordType::A, 60, &values)
}

fn shop() -> Vec<RecordSet> {
    use RecordType::*;
    vec![
        set("edge.shop.test", A, 60, &["127.64.1.1", "127.64.1.2"]),
        set("edge.shop.test", Aaaa, 60, &["::1"]),
        set("www.shop.test", Cname, 300, &["edge.shop.test"]),
        set("gone.shop.test", Cname, 300, &["nobody.shop.test"]),
        set("away.shop.test", Cname, 300, &["www.elsewhere.test"]),
        set("ring.shop.test", Cname, 5, &["round.shop.test"]),
        set("round.shop.test", Cname, 5, &["ring.shop.test"]),
        set("a.b.c.shop.test", A, 60, &["127.0.0.9"]),
        set("shop.test", Txt, 60, &["hello world"]),
        addresses("many.shop.test", 90),
        set("_acme-challenge.shop.test", Txt, 5, &[&"x".repeat(300)]),
    ]
}

/// What `dig` shows, without what differs from run to run.
fn dig(server: SocketAddr, arguments: &str) -> String {
    let output = std::process::Command::new("dig")
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+nocmd", "+nostats"])
        .args(["+noquestion", "+nocookie", "+norec"])
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        if let Some((_, rest)) = line.split_once("status: ") {
            return Some(rest.split(',').next()?.to_owned());
        }
        if let Some(rest) = line.strip_prefix(";; flags: ") {
            return Some(rest.split(';').next()?.to_owned());
        }
        let noise = line.is_empty() || line.starts_with(";; ") && !line.contains("failed");
        (!noise).then(|| line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    text.lines().filter_map(line).collect::<Vec<_>>().join("\n")
}

fn has_dig(test: &str) -> bool {
    let found = std::process::Command::new("dig").arg("-v").output().is_ok();
    if !found {
        eprintln!("skipped: {test}: `dig` is not installed");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_as_dig_sees_them() {
    if !has_dig("answers_as_dig_sees_them") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let server = Server::with_zone(folder.path(), &shop()).await;
    let address = server.address;
    let soa = "shop.test. 5 IN SOA ns1.shop.test. hostmaster.shop.test. 2 3600 600 604800 5";
    let positive_soa = soa.replace("test. 5 IN", "test. 3600 IN");
    let edns = "; EDNS: version: 0, flags:; udp: 1232";
    let edge = "edge.shop.test. 60 IN A 127.64.1.1\nedge.shop.test. 60 IN A 127.64.1.2";
    let www = "www.shop.test. 300 IN CNAME edge.shop.test.";
    let check = |arguments: &str, expected: &str| {
        assert_eq!(dig(address, arguments), expected, "dig {arguments}");
    };
    check(
        "edge.shop.test A",
        &format!("NOERROR\nqr aa\n{edns}\n{edge}"),
    );
    check(
        "EDGE.Shop.TEST AAAA +noedns",
        "NOERROR\nqr aa\nedge.shop.test. 60 IN AAAA ::1",
    );
    check(
        "www.shop.test A +noedns +tcp",
        &format!("NOERROR\nqr aa\n{www}\n{edge}"),
    );
    check(
        "www.shop.test CNAME +noedns",
        &format!("NOERROR\nqr aa\n{www}"),
    );
    // No such name, and no such data: both with the SOA, whose TTL is the negative one.
    check(
        "nobody.shop.test A",
        &format!("NXDOMAIN\nqr aa\n{edns}\n{soa}"),
    );
    check(
        "edge.shop.test TXT +noedns",
        &format!("NOERROR\nqr aa\n{soa}"),
    );
    check(
        "www.shop.test TXT +noedns",
        &format!("NOERROR\nqr aa\n{www}\n{soa}"),
    );
    // An empty non-terminal exists.
    check("c.shop.test A +noedns", &format!("NOERROR\nqr aa\n{soa}"));
    check(
        "b.c.shop.test ANY +noedns +notcp",
        &format!("NOERROR\nqr aa\n{soa}"),
    );
    check(
        "x.b.c.shop.test A +noedns",
        &format!("NXDOMAIN\nqr aa\n{soa}"),
    );
    // The code is that of the chain's end.
    check(
        "gone.shop.test A +noedns",
        &format!("NXDOMAIN\nqr aa\ngone.shop.test. 300 IN CNAME nobody.shop.test.\n{soa}"),
    );
    check(
        "away.shop.test A +noedns",
        "NOERROR\nqr aa\naway.shop.test. 300 IN CNAME www.elsewhere.test.",
    );
    check(
        "ring.shop.test A +noedns",
        "NOERROR\nqr aa\nring.shop.test. 5 IN CNAME round.shop.test.\n\
         round.shop.test. 5 IN CNAME ring.shop.test.",
    );
    check(
        "shop.test SOA +noedns",
        &format!("NOERROR\nqr aa\n{positive_soa}"),
    );
    check(
        "shop.test NS +noedns",
        "NOERROR\nqr aa\nshop.test. 3600 IN NS ns1.shop.test.",
    );
    check(
        "ns1.shop.test A +noedns",
        "NOERROR\nqr aa\nns1.shop.test. 3600 IN A 127.77.3.1",
    );
    check(
        "shop.test TXT +noedns",
        "NOERROR\nqr aa\nshop.test. 60 IN TXT \"hello world\"",
    );
    // One set is enough for ANY.
    check(
        "edge.shop.test ANY +noedns +notcp",
        &format!("NOERROR\nqr aa\n{edge}"),
    );
    check("www.elsewhere.test A +noedns", "REFUSED\nqr");
    check("test SOA +noedns", "REFUSED\nqr");
    check("edge.shop.test A CH +noedns", "REFUSED\nqr");
    check("edge.shop.test A +noedns +opcode=UPDATE", "NOTIMP\nqr");
    check(
        "edge.shop.test A +edns=1 +noednsneg",
        &format!("BADVERS\nqr\n{edns}"),
    );
    let edns_do = edns.replace("flags:", "flags: do");
    check(
        "edge.shop.test A +dnssec",
        &format!("NOERROR\nqr aa\n{edns_do}\n{edge}"),
    );
    // Too much for the datagram: nothing but the bit.
    check("many.shop.test A +ignore +noedns", "NOERROR\nqr aa tc");
    check(
        "many.shop.test A +ignore +bufsize=4096",
        &format!("NOERROR\nqr aa tc\n{edns}"),
    );
    assert_eq!(
        dig(address, "many.shop.test +noedns").lines().count(),
        2 + 90
    );
    // Sizes between: 70 addresses fit into 1,232 bytes and not into 600.
    let some = addresses("some.shop.test", 70);
    server.apply(&[change(None, Some(&some))]).await.unwrap();
    check(
        "some.shop.test +ignore +bufsize=600",
        &format!("NOERROR\nqr aa tc\n{edns}"),
    );
    assert_eq!(
        dig(address, "some.shop.test +ignore +bufsize=1232")
            .lines()
            .count(),
        3 + 70
    );
    check("shop.test AXFR", "; Transfer failed.");
    server.end().await;
}

#[tokio::test]
async fn answers_as_our_own_client_sees_them() {
    let folder = TempDir::new().unwrap();
    let server = Server::with_zone(folder.path(), &shop()).await;
    let sets = shop();
    let answer = |code: &str, sets: &[&RecordSet], negative: Option<u32>| DnsAnswer {
        code: code.to_owned(),
        authoritative: code != "REFUSED",
        sets: sets.iter().map(|set| (*set).clone()).collect(),
        negative_ttl: negative.map(Ttl),
    };
    let (a, txt) = (RecordType::A, RecordType::Txt);
    for (host, kind, expected) in [
        (
            "WWW.shop.test.",
            a,
            answer("NOERROR", &[&sets[2], &sets[0]], None),
        ),
        // Truncated over UDP, whole over TCP.
        ("many.shop.test", a, answer("NOERROR", &[&sets[9]], None)),
        (
            "_acme-challenge.shop.test",
            txt,
            answer("NOERROR", &[&sets[10]], None),
        ),
        (
            "gone.shop.test",
            a,
            answer("NXDOMAIN", &[&sets[3]], Some(5)),
        ),
        ("c.shop.test", a, answer("NOERROR", &[], Some(5))),
        ("elsewhere.test", a, answer("REFUSED", &[], None)),
    ] {
        assert_eq!(server.ask(host, kind).await, expected, "{host} {kind}");
    }
    server.end().await;
}

#[tokio::test]
async fn an_answer_that_is_not_ours_is_not_taken() {
    let liar = UdpSocket::bind("127.77.3.2:0").await.unwrap();
    let address = liar.local_addr().unwrap();
    let lies = tokio::spawn(async move {
        let mut packet = [0; 512];
        let (length, from) = liar.recv_from(&mut packet).await.unwrap();
        let question = &packet[..length];
        let response = |change: fn(&mut Vec<u8>)| {
            let mut response = question.to_vec();
            response[2] |= 0x80;
            change(&mut response);
            response
        };
        let wrong_id = response(|packet| packet[0] ^= 1);
        let wrong_question = response(|packet| packet[13] ^= 1);
        let refused = response(|packet| packet[3] = 5);
        for lie in [&wrong_id[..], &wrong_question, question, b"x", &refused] {
            liar.send_to(lie, from).await.unwrap();
        }
    });
    let www = "www.shop.test".into();
    let answer = ask(address, &www, RecordType::A, LIMIT).await;
    assert_eq!(answer.unwrap().code, "REFUSED");
    lies.await.unwrap();
    let silent = UdpSocket::bind("127.77.3.2:0").await.unwrap();
    let (address, limit) = (silent.local_addr().unwrap(), Duration::from_millis(50));
    let fault = ask(address, &www, RecordType::A, limit).await.unwrap_err();
    assert!(
        fault.to_string().ends_with("nothing within 0.05 s"),
        "{fault}"
    );
}

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

/// Id 7, `www.shop.test A`, with an OPT record.
fn valid_packet() -> Vec<u8> {
    let mut packet =
        b"\0\x07\0\0\0\x01\0\0\0\0\0\x01\x03www\x04shop\x04test\0\0\x01\0\x01".to_vec();
    packet.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    packet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_does_not_stop_it() {
    let folder = TempDir::new().unwrap();
    let server = Server::with_zone(folder.path(), &shop()).await;
    let socket = UdpSocket::bind("127.77.3.3:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let mut seed: u64 = 42;
    let mut random = move |bound: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    let mut answers = 0;
    let mut buffer = [0; 65_535];
    for number in 0..12_000 {
        let mut packet = valid_packet();
        if number % 4 == 0 {
            packet = (0..random(600)).map(|_| random(256) as u8).collect();
        } else {
            for _ in 0..=random(6) {
                let at = random(packet.len());
                packet[at] = random(256) as u8;
            }
            if random(3) == 0 {
                packet.truncate(random(packet.len()));
            }
        }
        socket.send(&packet).await.unwrap();
        while let Ok(length) = socket.try_recv(&mut buffer) {
            assert!(
                length >= 12 && buffer[2] & 0x80 != 0,
                "an answer is a response"
            );
            answers += 1;
        }
        if number % 50 == 0 {
            // Keeps pace, so that most packets are really read.
            assert_eq!(
                server.ask("shop.test", RecordType::Txt).await.code,
                "NOERROR"
            );
        }
    }
    assert!(answers > 3000, "{answers} answers");
    server.end().await;
}

#[tokio::test]
async fn malformed_requests_are_told_so_and_responses_are_not_answered() {
    let folder = TempDir::new().unwrap();
    let server = Server::with_zone(folder.path(), &shop()).await;
    let mut buffer = [0; 512];
    let mut trailing = valid_packet();
    trailing.push(0);
    // The id and the code of the first answer; behind each packet a good question with id 7 is sent.
    for (packet, first) in [
        (&b"\0\x09\0\0\0\x01\0\0\0\0\0\0\x03ww"[..], (9, 1)),
        (b"\0\x0a\0\0\0\0\0\0\0\0\0\0", (10, 1)),
        (
            b"\0\x0b\0\0\0\x02\0\0\0\0\0\0\0\0\x01\0\x01\0\0\x01\0\x01",
            (11, 1),
        ),
        (&trailing, (7, 1)),
        (b"\0\x0c\x80\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01", (7, 0)),
        (b"\0\x0d\x20\0\0\0\0\0\0\0\0\0", (13, 4)),
        (b"short", (7, 0)),
    ] {
        let socket = UdpSocket::bind("127.77.3.3:0").await.unwrap();
        socket.connect(server.address).await.unwrap();
        socket.send(packet).await.unwrap();
        socket.send(&valid_packet()).await.unwrap();
        let received = tokio::time::timeout(LIMIT, socket.recv(&mut buffer)).await;
        assert!(received.unwrap().unwrap() >= 12);
        assert_eq!((buffer[1], buffer[3] & 15), first, "{packet:?}");
    }
    // Half a message over TCP, and a length that lies, cost only their own connection.
    for junk in [&b"\0"[..], b"\0\x05hello", b"\xff\xffhello"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(junk).await.unwrap();
    }
    // Two questions on one connection, the second cut in two.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let valid = valid_packet();
    let framed = [&(valid.len() as u16).to_be_bytes()[..], &valid].concat();
    for part in [&framed[..], &framed[..9], &framed[9..]] {
        stream.write_all(part).await.unwrap();
    }
    for _ in 0..2 {
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[1], answer[3] & 15, answer[7]), (7, 0, 3));
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
        ended.expect("it does not start").unwrap_err().to_string()
    };
    let second = fault().await;
    assert!(second.contains("cannot listen for dns of"), "{second}");
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
        let fault = fault().await;
        assert!(fault.contains(why), "{fault}");
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

#[tokio::test]
async fn the_caching_client_keeps_to_the_ttl() {
    let folder = TempDir::new().unwrap();
    let old = set("edge.shop.test", RecordType::A, 1, &["127.64.1.1"]);
    let new = set("edge.shop.test", RecordType::A, 1, &["127.65.1.1"]);
    let link = set("www.shop.test", RecordType::Cname, 300, &["edge.shop.test"]);
    let server = Server::with_zone(folder.path(), &[old.clone(), link]).await;
    let client = CachingClient::new(vec![server.address], LIMIT);
    let www = "www.shop.test".into();
    let first = client.resolve(&www).await.unwrap();
    assert!(!first.from_cache);
    assert_eq!(first.addresses, ["127.64.1.1".parse().unwrap()].into());
    server
        .apply(&[change(Some(&old), Some(&new))])
        .await
        .unwrap();
    let begun = Instant::now();
    let second = loop {
        let next = client.resolve(&www).await.unwrap();
        if next.addresses != first.addresses {
            break next;
        }
        assert_eq!((next.from_cache, next.expires), (true, first.expires));
        assert!(begun.elapsed() < LIMIT, "still the old address");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(second.addresses, ["127.65.1.1".parse().unwrap()].into());
    assert!(jiff::Timestamp::now() >= first.expires, "asked too early");
    // Nothing there is cached too.
    let nobody = "nobody.shop.test".into();
    assert!(client.resolve(&nobody).await.unwrap().addresses.is_empty());
    assert!(client.resolve(&nobody).await.unwrap().from_cache);
    let fault = client
        .resolve(&"www.elsewhere.test".into())
        .await
        .unwrap_err();
    assert!(fault.to_string().contains("answers REFUSED"), "{fault}");
    server.end().await;
}

/// Not a test: the process that [`has_program`] lets the DNS host start as its `hafog`.
#[tokio::test]
async fn serve_process() {
    let Ok(arguments) = std::env::var("HAFOG_TEST_SERVE") else {
        return;
    };
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let ["dns", "serve", "--folder", folder, "--listen", listen] = arguments[..] else {
        panic!("{arguments:?}");
    };
    let options = ServeOptions {
        folder: folder.into(),
        listen: vec![listen.parse().unwrap()],
    };
    let code = match run(options, std::future::pending()).await {
        Ok(()) => 0,
        Err(fault) => {
            eprintln!("{fault}");
            1
        }
    };
    std::process::exit(code);
}

/// Runs the named test again with a `hafog` that is this program. True in that second run.
fn has_program(test: &str) -> bool {
    if std::env::var_os("HAFOG_EXE").is_some() {
        return true;
    }
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("hafog");
    let this = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\nHAFOG_TEST_SERVE=\"$*\" exec '{}' --exact serve_process --nocapture\n",
        this.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let status = std::process::Command::new(this)
        .args(["--exact", test, "--nocapture"])
        .env("HAFOG_EXE", &script)
        .status()
        .unwrap();
    assert!(status.success());
    false
}

/// Ends the folder's servers also when the test fails.
#[derive(Default)]
struct Processes(Mutex<Vec<u32>>);

impl Processes {
    async fn hello(&self, folder: &Path) -> Hello {
        match request(folder, &Request::Hello).await.unwrap() {
            Reply::Hello(hello) => {
                self.0.lock().unwrap().push(hello.pid);
                hello
            }
            other => panic!("{other:?}"),
        }
    }

    fn kill(&self, pid: u32) {
        self.0.lock().unwrap().retain(|kept| *kept != pid);
        kill(pid);
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for pid in self.0.lock().unwrap().iter() {
                kill(*pid);
            }
        }
    }
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

fn host(home: &Path, zone: &str, settings: &[(&str, &str)]) -> ServeHost {
    let settings: BTreeMap<String, String> = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    ServeHost::new(&ZoneSettings {
        zone: zone.into(),
        settings,
        home: home.to_owned(),
    })
    .unwrap()
}

/// A killed process is gone a little later.
async fn until_closed(host: &ServeHost) {
    let begun = Instant::now();
    while host.state().await.map_or(true, |state| state.open) {
        assert!(begun.elapsed() < LIMIT, "the killed server still answers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dns_host_serve_starts_survives_and_ends() {
    if !has_program("the_dns_host_serve_starts_survives_and_ends") {
        return;
    }
    let home = TempDir::new().unwrap();
    let folder = home.path().join("names");
    let processes = Processes::default();
    let shop = host(home.path(), "Shop.test.", &[]);
    let other = host(home.path(), "other.test", &[]);
    assert!(!shop.state().await.unwrap().open);
    shop.close_zone().await.unwrap();
    let configured = shop.authorities().await.unwrap();

    // Both at once start one server.
    let (one, two) = tokio::join!(shop.open_zone(), other.open_zone());
    let hello = processes.hello(&folder).await;
    one.unwrap();
    two.unwrap();
    assert!(shop.state().await.unwrap().open && other.state().await.unwrap().open);
    assert_eq!(hello.listen, configured);
    assert_eq!(shop.authorities().await.unwrap(), configured);
    // A session of its own.
    let pid = nix::unistd::Pid::from_raw(hello.pid as i32);
    assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);

    let www = set("www.shop.test", RecordType::A, 60, &["127.64.1.1"]);
    shop.apply(&[change(None, Some(&www))]).await.unwrap();
    assert_eq!(shop.records().await.unwrap(), std::slice::from_ref(&www));
    assert_eq!(other.records().await.unwrap(), []);
    let answer = ask(configured[0], &www.host, RecordType::A, LIMIT).await;
    assert_eq!(answer.unwrap().sets, std::slice::from_ref(&www));
    let refused = shop.apply(&[change(None, Some(&www))]).await.unwrap_err();
    assert!(matches!(refused, Trouble::NothingChanged(_)), "{refused:?}");

    let before = request(&folder, &Request::Zones).await.unwrap();
    processes.kill(hello.pid);
    until_closed(&shop).await;
    let unsent = shop.apply(&[change(Some(&www), None)]).await.unwrap_err();
    assert!(matches!(unsent, Trouble::NothingChanged(_)), "{unsent:?}");
    shop.open_zone().await.unwrap();
    let again = processes.hello(&folder).await;
    assert_ne!(again.pid, hello.pid);
    assert_eq!(request(&folder, &Request::Zones).await.unwrap(), before);

    let elsewhere = host(home.path(), "third.test", &[("listen", "127.77.3.5:5353")]);
    let refused = elsewhere.open_zone().await.unwrap_err();
    assert!(
        refused.to_string().contains("wants `127.77.3.5:5353`"),
        "{refused}"
    );

    shop.close_zone().await.unwrap();
    assert!(!shop.state().await.unwrap().open && other.state().await.unwrap().open);
    // Also after a crash the last one leaves nothing behind.
    processes.kill(again.pid);
    until_closed(&other).await;
    other.close_zone().await.unwrap();
    assert!(!folder.exists());
    other.close_zone().await.unwrap();
}

#[tokio::test]
async fn the_dns_host_serve_says_why_it_did_not_start() {
    if !has_program("the_dns_host_serve_says_why_it_did_not_start") {
        return;
    }
    let home = TempDir::new().unwrap();
    let taken = UdpSocket::bind("127.77.3.6:0").await.unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let shop = host(home.path(), "shop.test", &[("listen", &listen)]);
    let trouble = shop.open_zone().await.unwrap_err();
    assert!(matches!(trouble, Trouble::NothingChanged(_)), "{trouble:?}");
    let text = trouble.to_string();
    assert!(text.contains("did not start: exit status: 1"), "{text}");
    assert!(text.contains("Address already in use"), "{text}");
}

#[tokio::test]
async fn a_lost_reply_is_unknown() {
    let home = TempDir::new().unwrap();
    let shop = host(home.path(), "shop.test", &[("folder", "elsewhere")]);
    let listener = control::listen(PURPOSE, &home.path().join("elsewhere")).unwrap();
    let mute = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let heard = control::receive::<Request>(&mut stream).await;
        assert!(
            matches!(heard, Some(Ok(Request::Apply { .. }))),
            "{heard:?}"
        );
    });
    let www = set("www.shop.test", RecordType::A, 60, &["127.64.1.1"]);
    let trouble = shop.apply(&[change(None, Some(&www))]).await.unwrap_err();
    assert!(matches!(trouble, Trouble::Unknown(_)), "{trouble:?}");
    mute.await.unwrap();
}
