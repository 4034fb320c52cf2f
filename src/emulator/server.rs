//! The emulator on a socket: HTTP/1.1 and HTTP/2 without TLS on one port.

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

use super::{Emulator, service::Peer};

/// A running loopback server, of [`Emulator::serve`].
///
/// Dropping it breaks every connection off; [`shutdown`](Self::shutdown) lets the requests in flight end first.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// Connections at once; above it, new ones wait to be accepted.
const CONNECTIONS: usize = 1_024;

/// Streams at once on one HTTP/2 connection, as many as Google's front end takes.
const STREAMS: u32 = 100;

// === impl Server ===

impl Emulator {
    /// Serves on any free port of 127.0.0.1.
    ///
    /// A socket needs a clock that runs: under a paused one, tokio moves time on whenever nothing but the network has to be
    /// waited for. In process, a paused clock is fine.
    pub async fn serve(&self) -> io::Result<Server> {
        self.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Serves on that address; port 0 is any.
    pub async fn bind(&self, addr: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(self.clone(), listener, stopped));
        Ok(Server { addr, stop: Some(stop), task })
    }
}

impl Server {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL, as SDKs want it: `http://127.0.0.1:1234`, without a slash at the end.
    pub fn uri(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Accepts nobody any more, and returns when the last request in flight has ended. A request that hangs never does:
    /// put a time limit around this future, or drop the server.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has stopped already.
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
                // Out of file descriptors, or a peer that has gone again: neither is for ever.
                Err(_) => {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            _ = &mut stopped => break,
        };
        while connections.try_join_next().is_some() {}
        // Without it, small chunks wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let peer = Peer { connection, abort: Arc::default() };
        let io = TokioIo::new(Wire { stream, abort: peer.abort.clone() });
        let emulator = emulator.clone();
        let watcher = graceful.watcher();
        connections.spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
            let service = service_fn(move |request| emulator.visit(request, Some(peer.clone())));
            let serving = builder.serve_connection(io, service);
            // Errors are the resets that were asked for, and peers that went away: the journal knows both.
            let _ = watcher.watch(serving.into_owned()).await;
            drop(slot);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while connections.join_next().await.is_some() {}
}

/// A stream that can be made to end with a reset instead of a goodbye.
struct Wire {
    stream: TcpStream,
    abort: Arc<AtomicBool>,
}

impl Drop for Wire {
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

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
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
        // A goodbye would spoil the reset.
        match self.abort.load(Ordering::Acquire) {
            true => Poll::Ready(Ok(())),
            false => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}
