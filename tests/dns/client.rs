//! Our own client: it takes only answers to its question, and keeps to the TTL.

use hafog::dns::cache::CachingClient;

use super::*;

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
    let mut second = first.clone();
    eventually("the new address is seen", async || {
        second = client.resolve(&www).await.unwrap();
        let is_new = second.addresses != first.addresses;
        if !is_new {
            let is = (second.from_cache, second.expires);
            assert_eq!(is, (true, first.expires));
        }
        is_new
    })
    .await;
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
