//! Packets that no resolver sends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

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
