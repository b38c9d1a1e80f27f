//! `hafog dns serve`: an authoritative name server whose records move at once.
//!
//! One immutable snapshot of all zones a generation, swapped atomically and read without locks. It promises that every
//! answer is wholly of one generation, that a generation is on disk before it is answered from, and that a restart
//! serves the last one. It does no recursion, no transfers and no DNSSEC.
//!
//! The control socket (one a folder) is also the lock: a second server for the same folder does not start.

pub(crate) mod control;
pub mod handler;
pub mod snapshot;
pub mod store;

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::dns::serve_control::PURPOSE;
use crate::error::Fault;

use control::Controlled;
use handler::Transport;
use store::Store;

/// How long a TCP client may be silent (RFC 7766 section 6.2.3 wants seconds), or slow to take an answer.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// TCP clients at a time; more wait in the listener's backlog.
const TCP_CLIENTS: usize = 256;
/// Port 0 asks for any port that is free for UDP and for TCP.
const PORT_TRIES: usize = 20;

pub struct ServeOptions {
    /// Absolute; it also names the control socket.
    pub folder: PathBuf,
    /// UDP and TCP on each.
    pub listen: Vec<SocketAddr>,
}

/// Serves until `shutdown`, or until the control socket says stop.
pub async fn run(options: ServeOptions, shutdown: impl Future<Output = ()>) -> Result<(), Fault> {
    leave_session_if_asked();
    let ServeOptions { folder, listen } = options;
    if !folder.is_absolute() {
        return Err(Fault::new(format!(
            "the folder of a name server must be absolute, got `{}`",
            folder.display()
        )));
    }
    if listen.is_empty() {
        return Err(Fault::new("a name server needs an address to listen on"));
    }
    std::fs::create_dir_all(&folder).map_err(|error| {
        Fault::new(format!("cannot make folder `{}`", folder.display())).because(error)
    })?;
    let requests = crate::control::listen(PURPOSE, &folder)?;
    let store = Store::open(&folder)?;
    let mut sockets = Vec::new();
    for address in listen {
        sockets.push(bind(address).await?);
    }
    let listen = sockets.iter().map(|(address, _, _)| *address).collect();
    let controlled = Arc::new(Controlled {
        store,
        listen,
        stop: Notify::new(),
    });

    let mut tasks: JoinSet<Fault> = JoinSet::new();
    for (_, udp, tcp) in sockets {
        tasks.spawn(serve_udp(udp, controlled.clone()));
        tasks.spawn(serve_tcp(tcp, controlled.clone()));
    }
    tasks.spawn(control::accept(requests, controlled.clone()));
    let result = tokio::select! {
        () = shutdown => Ok(()),
        () = controlled.stop.notified() => Ok(()),
        Some(ended) = tasks.join_next() => {
            Err(ended.unwrap_or_else(|error| Fault::new("a part of the name server ended").because(error)))
        }
    };
    // The sockets are closed when this returns, so that the next server can have them.
    tasks.shutdown().await;
    result
}

/// A server that a command started must outlive the command's terminal. It fails only in a process that leads a
/// group already, and then there is nothing to leave.
fn leave_session_if_asked() {
    if std::env::var_os("HAFOG_DETACH").is_some_and(|value| value == "1") {
        let _ = nix::unistd::setsid();
    }
}

async fn bind(address: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), Fault> {
    let fault = |what: &str, error: std::io::Error| {
        Fault::unavailable(format!("cannot listen on `{address}` ({what})")).because(error)
    };
    for tried in 1.. {
        let udp = UdpSocket::bind(address)
            .await
            .map_err(|error| fault("UDP", error))?;
        let chosen = udp.local_addr().map_err(|error| fault("UDP", error))?;
        match TcpListener::bind(chosen).await {
            Ok(tcp) => return Ok((chosen, udp, tcp)),
            Err(error)
                if address.port() == 0
                    && error.kind() == ErrorKind::AddrInUse
                    && tried < PORT_TRIES => {}
            Err(error) => return Err(fault("TCP", error)),
        }
    }
    unreachable!("the loop ends by returning")
}

async fn serve_udp(socket: UdpSocket, controlled: Arc<Controlled>) -> Fault {
    let mut packet = vec![0; usize::from(u16::MAX)];
    let mut out = Vec::with_capacity(4096);
    loop {
        let (length, from) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            // An ICMP error for an earlier answer: that client is gone, the socket is fine.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
                ) =>
            {
                continue;
            }
            Err(error) => return Fault::new("the UDP socket failed").because(error),
        };
        if from.port() != 0 && respond(&controlled, &packet[..length], Transport::Udp, &mut out) {
            // An answer that cannot be sent is a lost datagram: the client asks again.
            let _ = socket.send_to(&out, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, controlled: Arc<Controlled>) -> Fault {
    let places = Arc::new(Semaphore::new(TCP_CLIENTS));
    // Dropped with this task, and every connection with it.
    let mut clients = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let controlled = controlled.clone();
                clients.spawn(async move {
                    // A client that goes away or sends half a message costs nobody anything.
                    let _ = serve_client(stream, &controlled).await;
                    drop(place);
                });
            }
            // Out of files, or the client left before it was accepted: neither is the listener's end.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while clients.try_join_next().is_some() {}
    }
}

/// Messages with a length in front (RFC 1035 section 4.2.2), several on one connection.
async fn serve_client(mut stream: TcpStream, controlled: &Controlled) -> std::io::Result<()> {
    let mut packet = Vec::new();
    let mut out = Vec::new();
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            packet.resize(usize::from(length), 0);
            stream.read_exact(&mut packet).await
        };
        timeout(TCP_IDLE, read).await??;
        if !respond(controlled, &packet, Transport::Tcp, &mut out) {
            return Ok(());
        }
        let length = u16::try_from(out.len()).expect("the encoder stops at 65,535 bytes");
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&out);
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

/// A packet from anybody must not be able to stop the server: should reading it ever hit a bug, that packet gets no
/// answer and the next one does.
fn respond(controlled: &Controlled, packet: &[u8], over: Transport, out: &mut Vec<u8>) -> bool {
    let snapshot = controlled.store.snapshot();
    std::panic::catch_unwind(AssertUnwindSafe(|| {
        handler::answer(&snapshot, packet, over, out)
    }))
    .unwrap_or(false)
}
