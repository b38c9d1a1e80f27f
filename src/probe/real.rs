//! The machine's own eyes: real requests over real sockets.
//!
//! Every request goes to the address that was asked for, whatever DNS and the environment's proxies say. Redirects
//! are answers and are not followed. Nothing is asked twice.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{DnsAnswer, HttpAnswer, HttpAsk, Probe};
use crate::error::{Fault, innermost};
use crate::model::id::HostName;
use crate::model::record::RecordType;

/// A health page says what it has to say at its beginning.
const BODY_MAX: usize = 5_120;

/// How long one name server may take.
const DNS_LIMIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct RealProbe;

impl RealProbe {
    pub fn new() -> RealProbe {
        RealProbe
    }
}

#[async_trait]
impl Probe for RealProbe {
    async fn http(&self, ask: &HttpAsk) -> Result<HttpAnswer, Fault> {
        let scheme = if ask.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}:{}{}", ask.host, ask.to.port(), ask.path);
        let what = || format!("no answer from {} for {url}", ask.to);
        timeout(ask.limit, request(ask, &url))
            .await
            .map_err(|_| late(what(), ask.limit))?
            .map_err(|error| Fault::unavailable(what()).because(innermost(&error)))
    }

    async fn tcp(&self, to: SocketAddr, limit: Duration) -> Result<(), Fault> {
        let what = || format!("no connection to {to}");
        let stream = timeout(limit, TcpStream::connect(to))
            .await
            .map_err(|_| late(what(), limit))?;
        stream
            .map(drop)
            .map_err(|error| Fault::unavailable(what()).because(error))
    }

    async fn dns(
        &self,
        server: SocketAddr,
        host: &HostName,
        kind: RecordType,
    ) -> Result<DnsAnswer, Fault> {
        crate::dns::ask::ask(server, host, kind, DNS_LIMIT).await
    }
}

async fn request(ask: &HttpAsk, url: &str) -> Result<HttpAnswer, reqwest::Error> {
    let mut client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .resolve(&ask.host, ask.to);
    if !ask.tls {
        // The machine's authorities are read and parsed for every client, which takes longer than the question.
        client = client.tls_certs_only([]);
    }
    let client = client.build()?;
    let mut response = client.get(url).send().await?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while body.len() < BODY_MAX {
        let Some(chunk) = response.chunk().await? else {
            break;
        };
        body.extend_from_slice(&chunk);
    }
    body.truncate(BODY_MAX);
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(HttpAnswer { status, body })
}

fn late(what: String, limit: Duration) -> Fault {
    Fault::unavailable(format!("{what} within {} s", limit.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Serves one connection and returns what it was asked.
    async fn once(answer: Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            let _ = stream.write_all(&answer).await;
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        (address, served)
    }

    fn ask(to: SocketAddr) -> HttpAsk {
        HttpAsk {
            to,
            host: "www.shop.test".to_owned(),
            path: "/healthz".to_owned(),
            tls: false,
            limit: Duration::from_secs(10),
        }
    }

    #[tokio::test]
    async fn asks_the_address_under_the_name() {
        let answer = b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nsick".to_vec();
        let (to, served) = once(answer).await;
        let got = RealProbe::new().http(&ask(to)).await.unwrap();
        assert_eq!((got.status, got.body.as_str()), (503, "sick"));
        let asked = served.await.unwrap().to_lowercase();
        assert!(asked.starts_with("get /healthz http/1.1\r\n"), "{asked}");
        let host = format!("host: www.shop.test:{}\r\n", to.port());
        assert!(asked.contains(&host), "{asked}");
    }

    #[tokio::test]
    async fn reads_no_more_than_the_beginning_and_follows_nothing() {
        let mut answer = b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n".to_vec();
        answer.extend(vec![b'x'; BODY_MAX * 10]);
        let (to, _served) = once(answer).await;
        let got = RealProbe::new().http(&ask(to)).await.unwrap();
        assert_eq!((got.status, got.body.len()), (302, BODY_MAX));
    }

    #[tokio::test]
    async fn silence_has_a_limit_and_the_limit_is_in_the_message() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ask = ask(listener.local_addr().unwrap());
        ask.limit = Duration::from_millis(200);
        let fault = RealProbe::new().http(&ask).await.unwrap_err();
        assert!(fault.message().ends_with("within 0.2 s"), "{fault}");
    }

    #[tokio::test]
    async fn a_closed_port_is_said_to_be_closed() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let limit = Duration::from_secs(10);
        let probe = RealProbe::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        probe
            .tcp(listener.local_addr().unwrap(), limit)
            .await
            .unwrap();
        // Bound and not listening: refused, and nobody else can take the port meanwhile.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = socket.local_addr().unwrap();
        let fault = probe.tcp(to, limit).await.unwrap_err();
        assert!(fault.to_string().contains("refused"), "{fault}");
        let fault = probe.http(&ask(to)).await.unwrap_err();
        assert!(fault.to_string().contains("refused"), "{fault}");
    }
}
