//! A caller's socket, whose connection learns when the kernel takes nothing of what is written.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::serve::connection_life::Connection;

/// The bytes of a connection that the kernel holds and has not sent yet, at most: what a caller that does not read costs
/// there. Cloudflare and Google use the same for HTTP/2; by default it is 4 MiB.
#[cfg(target_os = "linux")]
const MOST_UNSENT: u32 = 128 * 1_024;

/// A socket that tells its connection of writes that make no progress.
pub(crate) struct WatchedIo {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// The bytes in the socket are of no use to anybody.
    thrown_away: Arc<AtomicBool>,
}

impl WatchedIo {
    /// Wraps a socket. The kernel, too, gives up a peer that takes nothing, after twice `unread`: of a connection that the
    /// relay has closed in order, it would go on sending the rest. It tells the peer nothing, so the relay is first.
    pub(crate) fn new(
        stream: TcpStream,
        connection: Arc<Connection>,
        thrown_away: Arc<AtomicBool>,
        unread: Duration,
    ) -> Self {
        // Without it, a small chunk waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        {
            let socket = socket2::SockRef::from(&stream);
            // A kernel that has neither still works, with larger buffers.
            let _ = socket.set_tcp_notsent_lowat(MOST_UNSENT);
            let _ = socket.set_tcp_user_timeout(Some(unread * 2));
        }
        #[cfg(not(target_os = "linux"))]
        let _ = unread;
        Self { stream, connection, thrown_away }
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.connection.blocked(),
            Poll::Ready(_) => self.connection.unblocked(),
        }
        written
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for WatchedIo {
    fn drop(&mut self) {
        if self.thrown_away.load(Ordering::Acquire) {
            // Else the kernel would keep what the caller does not read, and the socket with it.
            let _ = self.stream.set_zero_linger();
        }
    }
}
