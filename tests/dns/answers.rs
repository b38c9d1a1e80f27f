//! What it answers, as `dig` sees it and as our own client does.

use super::*;

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
        skip::skipped(test, "dig is not installed");
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
