//! The wait between the last words of a stream and its break, so that the words arrive.
//!
//! A body that fails takes with it whatever the server has not written yet: hyper's HTTP/1 server drops the connection
//! with its write buffer, and an HTTP/2 reset clears the stream's queue of frames. With a reader that is slow, the words
//! would be lost, and up to 400 KiB before them. So the words' buffer tells when the server lets go of it, and the body
//! fails after that.
//!
//! | server | the words' buffer is dropped | the words arrive |
//! |---|---|---|
//! | hyper, HTTP/1 | when the socket has taken them | always, if they are taken within [`LIMIT`] |
//! | hyper, HTTP/2 | when they stand in the connection's buffer, in front of the reset; the stream's window allows it by then | always, if that happens within [`LIMIT`] |
//! | hyper, HTTP/1, where a buffer of TLS stands before the socket | when that buffer has taken them | if the socket takes them within [`SETTLE`] more |
//! | one that copies what it gets (hyper without vectored writes) | at once | if the socket takes them within [`SETTLE`] |
//! | none: the body is read by the program itself | when the program likes | in any case: the error comes after [`SETTLE`], or after [`UNASKED_LIMIT`] if the words are kept |
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
    time::{Instant, Sleep, sleep},
};

use crate::context::BoxError;

/// The longest wait for a server to write the last words. A reader that has taken nothing for that time gets none.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The longest wait for a reader that has shown no sign of being a server.
pub(crate) const UNASKED_LIMIT: Duration = Duration::from_secs(1);

/// The time from the writing of the last words to the break, for what buffers may be behind the server's.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

/// The end of the wait for bytes to be written.
pub(crate) type Written = oneshot::Receiver<()>;

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
pub(crate) fn track(bytes: Bytes) -> (Bytes, Written) {
    let (sender, written) = oneshot::channel();
    (Bytes::from_owner(Tracked { bytes, _written: sender }), written)
}

/// The wait for the last words to be delivered, and the error that follows.
pub(crate) struct Delivery {
    error: BoxError,
    /// `None` once the words are written.
    written: Option<Written>,
    timer: Pin<Box<Sleep>>,
}

impl Delivery {
    /// Begins the wait. Without a runtime nothing can be waited for, and the error comes back.
    pub(crate) fn new(error: BoxError, written: Written, is_server: bool) -> Result<Self, BoxError> {
        match Handle::try_current() {
            Ok(_) => {
                let limit = if is_server { LIMIT } else { UNASKED_LIMIT };
                Ok(Self { error, written: Some(written), timer: Box::pin(sleep(limit)) })
            }
            Err(_) => Err(error),
        }
    }

    /// Waits, and ends when the body may fail.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(written) = &mut self.written
            && Pin::new(written).poll(cx).is_ready()
        {
            self.written = None;
            self.timer.as_mut().reset(Instant::now() + SETTLE);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(())
    }

    pub(crate) fn into_error(self) -> BoxError {
        self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_the_last_copy_or_with_the_time() {
        for (is_server, limit) in [(true, LIMIT), (false, UNASKED_LIMIT)] {
            for kept in [None, Some(Duration::from_millis(700)), Some(Duration::from_secs(3600))] {
                let (words, written) = track(Bytes::from_static(b"words"));
                assert_eq!(words, "words");
                let mut delivery = Delivery::new("broken".into(), written, is_server).unwrap();
                let begin = Instant::now();
                let copy = words.slice(2..);
                drop(words);
                if let Some(kept) = kept {
                    tokio::spawn(async move {
                        sleep(kept).await;
                        drop(copy);
                    });
                } else {
                    drop(copy);
                }
                std::future::poll_fn(|cx| delivery.poll(cx)).await;
                let expected = (kept.unwrap_or_default() + SETTLE).min(limit);
                let took = begin.elapsed();
                assert!(took >= expected && took < expected + Duration::from_millis(3), "{took:?}, not {expected:?}");
                assert_eq!(delivery.into_error().to_string(), "broken");
            }
        }
    }

    #[test]
    fn nothing_is_waited_for_without_a_runtime() {
        let (_words, written) = track(Bytes::new());
        assert!(Delivery::new("broken".into(), written, true).is_err());
    }
}
