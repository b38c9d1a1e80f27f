//! The name server, looked at from outside: real sockets on loopback, real processes, `dig` where it is there.

#![allow(clippy::print_stderr, reason = "a failed server says so")]

#[path = "../harness/eventually.rs"]
mod eventually;
#[path = "../harness/skip.rs"]
#[expect(dead_code, reason = "it needs none of what stacks need")]
mod skip;

mod answers;
mod changes;
mod client;
mod host;
mod packets;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hafog::control;
use hafog::dns::RecordChange;
use hafog::dns::ask::{DnsAnswer, ask};
use hafog::dns::serve_control::{Hello, PURPOSE, Reply, Request};
use hafog::error::{Fault, Trouble};
use hafog::model::record::{RecordSet, RecordType};
use hafog::model::units::Ttl;
use hafog::serve::{ServeOptions, run};
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use eventually::eventually;

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
        let (mut stop, mut ended) = Server::begin(folder);
        let mut hello = None;
        eventually("it says hello", async || {
            if ended.is_finished() {
                let fault = (&mut ended).await.unwrap().unwrap_err();
                assert!(is_held(&fault), "no start: {fault}");
                (stop, ended) = Server::begin(folder);
            }
            if let Ok(Reply::Hello(said)) = request(folder, &Request::Hello).await {
                hello = Some(said);
            }
            hello.is_some()
        })
        .await;
        let address = hello.expect("it said hello").listen[0];
        Server {
            folder: folder.to_owned(),
            address,
            stop,
            ended,
        }
    }

    fn begin(folder: &Path) -> (oneshot::Sender<()>, JoinHandle<Result<(), Fault>>) {
        let (stop, stopped) = oneshot::channel();
        let options = ServeOptions {
            folder: folder.to_owned(),
            listen: vec!["127.77.3.1:0".parse().unwrap()],
        };
        let ended = tokio::spawn(run(options, async {
            let _ = stopped.await;
        }));
        (stop, ended)
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

/// A `dig` that another test starts has this process's sockets from its fork to its exec, also those of a server that
/// ended just now.
fn is_held(fault: &Fault) -> bool {
    fault.to_string().contains("cannot listen for dns of")
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
