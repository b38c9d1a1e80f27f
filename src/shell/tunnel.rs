//! Connections to a server's ports: straight, or through a program's standard input and output, as `ssh -W` makes one.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::oneshot;

/// Both ways of a connection.
pub enum Stream {
    Straight(TcpStream),
    Tunnel(Box<Tunnel>),
}

/// Ends the program when it is dropped, if that was spawned with `kill_on_drop`.
pub struct Tunnel {
    to: ChildStdin,
    from: ChildStdout,
    /// What the program said besides, once it ended. Nothing is asked for after the first byte has come.
    said: Option<oneshot::Receiver<String>>,
    ended: bool,
    _child: Child,
    /// What must stay until it is ended.
    _through: Arc<dyn Any + Send + Sync>,
}

impl Tunnel {
    /// `child` has pipes everywhere.
    pub fn new(mut child: Child, through: Arc<dyn Any + Send + Sync>) -> io::Result<Tunnel> {
        let none = || io::Error::other("the program has no pipes");
        let to = child.stdin.take().ok_or_else(none)?;
        let from = child.stdout.take().ok_or_else(none)?;
        let mut stderr = child.stderr.take().ok_or_else(none)?;
        let (tell, said) = oneshot::channel();
        tokio::spawn(async move {
            let mut words = Vec::new();
            let _ = stderr.read_to_end(&mut words).await;
            let _ = tell.send(String::from_utf8_lossy(&words).trim().to_owned());
        });
        Ok(Tunnel {
            _through: through,
            to,
            from,
            said: Some(said),
            ended: false,
            _child: child,
        })
    }
}

/// `ssh` says only that the other side opened nothing; a server's own port that cannot be opened there has nobody
/// behind it.
fn why(words: &str) -> io::Error {
    match words.contains("refused") {
        true => io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused"),
        false => io::Error::new(io::ErrorKind::ConnectionAborted, words.to_owned()),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !self.ended {
            ready!(Pin::new(&mut self.from).poll_read(cx, buffer))?;
            if buffer.filled().len() > before {
                self.said = None;
                return Poll::Ready(Ok(()));
            }
            self.ended = true;
        }
        let Some(said) = &mut self.said else {
            return Poll::Ready(Ok(()));
        };
        let words = ready!(Pin::new(said).poll(cx)).unwrap_or_default();
        self.said = None;
        Poll::Ready(Err(why(&words)))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Why nobody takes it comes out of the read.
        match ready!(Pin::new(&mut self.to).poll_write(cx, bytes)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.said.is_some() => {
                Poll::Ready(Ok(bytes.len()))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Straight(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tunnel(tunnel) => Pin::new(tunnel).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Straight(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tunnel(tunnel) => Pin::new(tunnel).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Straight(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tunnel(tunnel) => Pin::new(tunnel).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Straight(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tunnel(tunnel) => Pin::new(tunnel).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncWriteExt;
    use tokio::process::Command;

    use super::*;

    fn through(script: &str) -> Tunnel {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        Tunnel::new(child.expect("a shell"), Arc::new(())).expect("pipes")
    }

    #[tokio::test]
    async fn what_is_sent_comes_back() {
        let mut tunnel = through("echo noise >&2; cat");
        tunnel.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        tunnel.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        tunnel.shutdown().await.unwrap();
        drop(tunnel);
    }

    #[tokio::test]
    async fn a_way_that_leads_nowhere_says_why() {
        for (script, kind, words) in [
            (
                "echo 'channel 0: open failed: Connection refused' >&2",
                io::ErrorKind::ConnectionRefused,
                "connection refused",
            ),
            (
                "echo no route >&2; exit 255",
                io::ErrorKind::ConnectionAborted,
                "no route",
            ),
        ] {
            let mut tunnel = through(script);
            let _ = tunnel.write_all(b"hello").await;
            let error = tunnel.read_u8().await.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, words));
        }
    }
}
