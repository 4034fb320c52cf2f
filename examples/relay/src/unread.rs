//! A caller that does not read its answer holds a place, and a connection to the upstream, for as long as it likes: nobody
//! asks for the next piece, and so no clock inside runs.

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

/// An answer that is taken away, with all that it holds, when nobody has asked for more of it for so long. Time in which the
/// upstream has no more of it does not count.
pub(crate) fn unless_read(body: Body, limit: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let answer = Arc::new(Mutex::new(Answer { body: Some(body), unread_since: Some(Instant::now()) }));
    let watch = tokio::spawn(watch(Arc::downgrade(&answer), limit)).abort_handle();
    Body::new(Watched { answer, watch, limit })
}

struct Answer {
    /// `None`: it was taken away.
    body: Option<Body>,
    /// When the reader got what it has got last. `None`: it waits for more.
    unread_since: Option<Instant>,
}

/// Looks now and then, so that a piece costs no timer: nobody is given up before `limit`, or later than twice that.
async fn watch(answer: Weak<Mutex<Answer>>, limit: Duration) {
    loop {
        let Some(shared) = answer.upgrade() else { return };
        let unread = shared.lock().unread_since.map_or(Duration::ZERO, |since| since.elapsed());
        if unread >= limit {
            let body = shared.lock().body.take();
            drop(body); // what it holds is nobody's business under the lock
            return;
        }
        drop(shared);
        sleep(limit - unread).await;
    }
}

struct Watched {
    answer: Arc<Mutex<Answer>>,
    watch: AbortHandle,
    limit: Duration,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut answer = self.answer.lock();
        let Answer { body, unread_since } = &mut *answer;
        let Some(body) = body else { return Poll::Ready(Some(Err(axum::Error::new(Unread(self.limit))))) };
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

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Nobody has read for so long.
#[derive(Debug)]
struct Unread(Duration);

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing of the answer was read for {:?}", self.0)
    }
}

impl StdError for Unread {}
