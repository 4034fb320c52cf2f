//! The wait between the last words of a stream and its break, so that the words arrive.
//!
//! A body that fails takes with it whatever the server has not written yet: hyper's HTTP/1 server drops the connection
//! with its write buffer, and an HTTP/2 reset clears the stream's queue of frames. With a reader that is slow, the words
//! would be lost, and up to 400 KiB before them. So the words' buffer tells when the server lets go of it, and the body
//! fails after that.
//!
//! | reader | the words' buffer is dropped | the words arrive |
//! |---|---|---|
//! | hyper, HTTP/1 | when the socket has taken them | always, if it does so within [`LIMIT`] |
//! | hyper, HTTP/2 | when they stand in the connection's buffer in front of the reset, which the stream's window allows by then | always, if that happens within [`LIMIT`] |
//! | hyper, HTTP/1, with TLS or another buffer behind its own | when that buffer has taken them | if the rest is written without a stop of [`SETTLE`] |
//! | hyper, HTTP/1, where it copies: without vectored writes, or with `pipeline_flush` | at once | the same |
//! | a program that reads the body itself | when it likes | in any case; the error comes [`UNASKED_SETTLE`] later, or after [`UNASKED_LIMIT`] |
//!
//! A break without words (after the half of a long event, or in an answer in one piece) waits for the server's progress
//! alone, as behind TLS.
//!
//! A buffer behind hyper's own is seen by its progress only: whenever the socket takes some of it, hyper polls the body
//! again.
//!
//! A server is known by asking for `is_end_stream` after a frame, as hyper does and a collecting program does not.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

use crate::context::BoxError;

/// The longest wait for a server to write the last words. A reader that has taken nothing for that time gets none.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// The longest wait for a reader that has shown no sign of being a server.
pub(super) const UNASKED_LIMIT: Duration = Duration::from_secs(1);

/// The time without progress from the writing of the last words to the break, for what buffers may be behind a server's.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// The same for a reader that has shown no sign of being a server.
pub(super) const UNASKED_SETTLE: Duration = Duration::from_millis(50);

/// The end of the wait for bytes to be written.
pub(super) type Written = oneshot::Receiver<()>;

/// Bytes that tell by their drop that they are written.
struct Tracked {
    bytes: Bytes,
    _written: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the same bytes, and a receiver that ends when the last copy of them has been dropped.
pub(super) fn track(bytes: Bytes) -> (Bytes, Written) {
    let (sender, written) = oneshot::channel();
    (Bytes::from_owner(Tracked { bytes, _written: sender }), written)
}

/// The wait for the last words to be delivered, and the error that follows.
pub(super) struct Delivery {
    error: BoxError,
    /// `None` once the words are written.
    written: Option<Written>,
    settle: Duration,
    latest: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Delivery {
    /// Begins the wait. Without words, only a stop in the server's progress tells that the bytes before are written.
    /// Without a runtime nothing can be waited for, and the error comes back.
    pub(super) fn new(error: BoxError, written: Option<Written>, is_server: bool) -> Result<Self, BoxError> {
        if Handle::try_current().is_err() {
            return Err(error);
        }
        let (limit, settle) = if is_server { (LIMIT, SETTLE) } else { (UNASKED_LIMIT, UNASKED_SETTLE) };
        let latest = Instant::now() + limit;
        Ok(Self { error, written, settle, latest, timer: Box::pin(sleep_until(latest)) })
    }

    /// Waits, and ends when the body may fail.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(written) = &mut self.written {
            ready!(Pin::new(written).poll(cx).map(drop));
            self.written = None;
        }
        // It was written now, or something has moved since.
        self.timer.as_mut().reset((Instant::now() + self.settle).min(self.latest));
        self.timer.as_mut().poll(cx)
    }

    pub(super) fn into_error(self) -> BoxError {
        self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_the_last_copy_or_with_the_time() {
        for (is_server, limit, settle) in [(true, LIMIT, SETTLE), (false, UNASKED_LIMIT, UNASKED_SETTLE)] {
            for kept in [None, Some(Duration::from_millis(700)), Some(Duration::from_secs(3600))] {
                let (words, written) = track(Bytes::from_static(b"words"));
                assert_eq!(words, "words");
                let mut delivery = Delivery::new("broken".into(), Some(written), is_server).unwrap();
                let begin = Instant::now();
                let copy = words.slice(2..);
                drop(words);
                if let Some(kept) = kept {
                    tokio::spawn(async move {
                        tokio::time::sleep(kept).await;
                        drop(copy);
                    });
                } else {
                    drop(copy);
                }
                std::future::poll_fn(|cx| delivery.poll(cx)).await;
                let expected = (kept.unwrap_or_default() + settle).min(limit);
                let took = begin.elapsed();
                assert!(took >= expected && took < expected + Duration::from_millis(3), "{took:?}, not {expected:?}");
                assert_eq!(delivery.into_error().to_string(), "broken");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_progress_of_a_buffer_behind_the_servers_prolongs_the_wait() {
        let (words, written) = track(Bytes::from_static(b"words"));
        drop(words);
        let mut delivery = Delivery::new("broken".into(), Some(written), true).unwrap();
        let begin = Instant::now();
        while std::future::poll_fn(|cx| Poll::Ready(delivery.poll(cx))).await.is_pending() {
            tokio::time::sleep(SETTLE / 2).await;
        }
        // A socket that moves for ever holds nothing for ever.
        assert!(begin.elapsed() >= LIMIT && begin.elapsed() <= LIMIT + SETTLE, "{:?}", begin.elapsed());
    }

    #[test]
    fn nothing_is_waited_for_without_a_runtime() {
        let (_words, written) = track(Bytes::new());
        assert!(Delivery::new("broken".into(), Some(written), true).is_err());
    }
}
