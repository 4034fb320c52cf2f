//! The emulator as a server: HTTP/1.1 and HTTP/2 without TLS on one port.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{handle::Emulator, peer::Peer};

/// A running server of [`Emulator::serve`] or [`Emulator::bind`].
///
/// Dropping it closes every connection at once; [`shutdown`](Self::shutdown) lets the requests in flight end first.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// The largest number of connections; above it, new ones wait to be accepted.
const CONNECTIONS: usize = 1_024;

/// The largest number of streams on one HTTP/2 connection: as many as Google's front end takes.
const STREAMS: u32 = 100;

// === impl Server ===

impl Emulator {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// A socket needs a running clock: a paused one moves on whenever all tasks wait for the network. In process, a
    /// paused clock is fine.
    ///
    /// # Errors
    ///
    /// The error of binding the socket.
    pub async fn serve(&self) -> io::Result<Server> {
        self.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts a server on an address; port 0 is any free port.
    ///
    /// # Errors
    ///
    /// The error of binding the socket.
    pub async fn bind(&self, addr: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(self.clone(), listener, stopped));
        Ok(Server { addr, stop: Some(stop), task })
    }
}

impl Server {
    /// Returns the address on which the server listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the base URL as SDKs take it: `http://127.0.0.1:1234`, without a slash at the end.
    pub fn uri(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops accepting connections, and waits until the last request in flight has ended. A request that hangs never
    /// ends: put a time limit around this future, or drop the server.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the server has stopped already.
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(emulator: Emulator, listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    for connection in 0.. {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await.ok();
            (listener.accept().await, slot)
        };
        let (stream, slot) = tokio::select! {
            (accepted, slot) = accepted => match accepted {
                Ok((stream, _)) => (stream, slot),
                // Out of file descriptors, or a peer that closed the connection early: both pass.
                Err(_) => {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            _ = &mut stopped => break,
        };
        while connections.try_join_next().is_some() {}
        // With Nagle's algorithm, a small chunk waits until the one before is acknowledged.
        let _ = stream.set_nodelay(true);
        let peer = Peer { connection, abort: Arc::default() };
        let io = TokioIo::new(ResettableStream { stream, abort: peer.abort.clone() });
        let emulator = emulator.clone();
        let watcher = graceful.watcher();
        connections.spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
            let service = service_fn(move |request| emulator.visit(request, Some(peer.clone())));
            let serving = builder.serve_connection(io, service);
            // Errors are the script's resets and peers that closed the connection. The journal has both.
            let _ = watcher.watch(serving.into_owned()).await;
            drop(slot);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while connections.join_next().await.is_some() {}
}

/// A TCP stream that can be made to end with a reset instead of a regular close.
struct ResettableStream {
    stream: TcpStream,
    abort: Arc<AtomicBool>,
}

impl Drop for ResettableStream {
    fn drop(&mut self) {
        if self.abort.load(Ordering::Acquire) {
            #[allow(
                deprecated,
                reason = "deprecated because it can block, which zero cannot; its successor is younger"
            )]
            let _ = self.stream.set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ResettableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ResettableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A regular close would come before the reset.
        match self.abort.load(Ordering::Acquire) {
            true => Poll::Ready(Ok(())),
            false => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}
