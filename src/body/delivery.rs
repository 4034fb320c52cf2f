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
    sync::atomic::{AtomicBool, Ordering},
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
const LIMIT: Duration = Duration::from_secs(30);

/// The longest wait for a reader that has shown no sign of being a server.
const UNASKED_LIMIT: Duration = Duration::from_secs(1);

/// The time without progress from the writing of the last words to the break, for what buffers may be behind a server's.
const SETTLE: Duration = Duration::from_millis(500);

/// The same for a reader that has shown no sign of being a server.
const UNASKED_SETTLE: Duration = Duration::from_millis(50);

/// The end of the wait for bytes to be written.
type Written = oneshot::Receiver<()>;

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
fn track(bytes: Bytes) -> (Bytes, Written) {
    let (sender, written) = oneshot::channel();
    (Bytes::from_owner(Tracked { bytes, _written: sender }), written)
}

/// The way of a stream's last bytes out of a body, and the error that follows them.
#[derive(Default)]
pub(crate) struct LastWords {
    breaking: Breaking,
    /// Ends when the last bytes that were tracked are written.
    written: Option<Written>,
    /// Set if the reader has asked for the end since, as servers do after each frame. No other sign tells them from a
    /// program that keeps all frames.
    is_server: AtomicBool,
}

/// The error that ends a body.
#[derive(Default)]
enum Breaking {
    #[default]
    No,
    /// It follows the bytes that have been let go.
    After(BoxError),
    /// It comes when these are written.
    Delivering(Box<Delivery>),
    /// It comes with the next poll.
    Now(BoxError),
}

impl LastWords {
    /// Lets the body fail, once the bytes that it has are passed on and written.
    pub(crate) fn break_with(&mut self, error: BoxError) {
        self.breaking = Breaking::After(error);
    }

    /// Returns the same bytes, whose writing is watched from now on.
    pub(crate) fn track(&mut self, data: Bytes) -> Bytes {
        let (data, written) = track(data);
        self.written = Some(written);
        self.is_server = AtomicBool::new(false);
        data
    }

    /// Notices that the reader has asked for the end.
    pub(crate) fn is_asked(&self) {
        self.is_server.store(true, Ordering::Relaxed);
    }

    /// Returns whether an error is still to come.
    pub(crate) fn will_break(&self) -> bool {
        !matches!(self.breaking, Breaking::No)
    }

    /// Waits until the bytes are written, as far as their way can be watched, and returns the error that follows them.
    /// `None`: there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<BoxError>> {
        if let Breaking::After(_) = self.breaking {
            self.breaking = match std::mem::take(&mut self.breaking) {
                Breaking::After(error) => self.deliver(error),
                other => other,
            };
            // A server flushes what it has when nothing is ready.
            if let Breaking::Now(_) = self.breaking {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if let Breaking::Delivering(delivery) = &mut self.breaking {
            ready!(delivery.poll(cx));
        }
        Poll::Ready(match std::mem::take(&mut self.breaking) {
            Breaking::Delivering(delivery) => Some(delivery.into_error()),
            Breaking::Now(error) | Breaking::After(error) => Some(error),
            Breaking::No => None,
        })
    }

    fn deliver(&mut self, error: BoxError) -> Breaking {
        let (written, is_server) = (self.written.take(), *self.is_server.get_mut());
        if written.is_none() && !is_server {
            return Breaking::Now(error);
        }
        match Delivery::new(error, written, is_server) {
            Ok(delivery) => Breaking::Delivering(delivery.into()),
            Err(error) => Breaking::Now(error),
        }
    }
}

/// The wait for the last words to be delivered, and the error that follows.
struct Delivery {
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
    fn new(error: BoxError, written: Option<Written>, is_server: bool) -> Result<Self, BoxError> {
        if Handle::try_current().is_err() {
            return Err(error);
        }
        let (limit, settle) = if is_server { (LIMIT, SETTLE) } else { (UNASKED_LIMIT, UNASKED_SETTLE) };
        let latest = Instant::now() + limit;
        Ok(Self { error, written, settle, latest, timer: Box::pin(sleep_until(latest)) })
    }

    /// Waits, and ends when the body may fail.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    fn into_error(self) -> BoxError {
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
