//! A time-out for answers that are not read: such a caller would hold a place, and a connection to the upstream, for as
//! long as it likes. No layer inside can see it, because their timers run only while the next piece is awaited.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

/// Wraps an answer so that it fails, and drops all that it holds, when its reader has not asked for more of it for
/// `limit`. Time in which the reader waits for the upstream does not count.
pub(crate) fn with_read_timeout(body: Body, limit: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let answer = Arc::new(Mutex::new(Answer { body: Some(body), unread_since: Some(Instant::now()) }));
    let watch = tokio::spawn(watch(Arc::downgrade(&answer), limit)).abort_handle();
    Body::new(ReadTimedBody { answer, watch, limit })
}

struct Answer {
    /// The answer, until the time-out has dropped it.
    body: Option<Body>,
    /// The time at which the reader got the last piece. `None` while it waits for more.
    unread_since: Option<Instant>,
}

/// Drops the answer when it has been unread for `limit`. It looks once in `limit`, so that a piece costs no timer: a
/// caller is given up after `limit` at the earliest and after twice that at the latest.
async fn watch(answer: Weak<Mutex<Answer>>, limit: Duration) {
    loop {
        let Some(shared) = answer.upgrade() else { return };
        let unread = shared.lock().unread_since.map_or(Duration::ZERO, |since| since.elapsed());
        if unread >= limit {
            let body = shared.lock().body.take();
            drop(body); // outside of the lock: dropping runs code of others
            return;
        }
        drop(shared);
        sleep(limit - unread).await;
    }
}

struct ReadTimedBody {
    answer: Arc<Mutex<Answer>>,
    watch: AbortHandle,
    limit: Duration,
}

impl http_body::Body for ReadTimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut answer = self.answer.lock();
        let Answer { body, unread_since } = &mut *answer;
        let Some(body) = body else { return Poll::Ready(Some(Err(axum::Error::new(ReadTimeout(self.limit))))) };
        *unread_since = None;
        let frame = ready!(Pin::new(body).poll_frame(cx));
        *unread_since = Some(Instant::now());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.lock().body.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.lock().body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for ReadTimedBody {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// The caller has read nothing of the answer for this time.
#[derive(Debug)]
struct ReadTimeout(Duration);

impl fmt::Display for ReadTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing of the answer was read for {:?}", self.0)
    }
}

impl StdError for ReadTimeout {}
