//! A time-out for answers that are not read: such a caller would hold a place, and a connection to the upstream, for as
//! long as it likes. No layer inside can see it, because their timers run only while the next piece is awaited.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The answers under way on one connection. It is among the extensions of its requests, and clones share it.
///
/// The connection looks at all of them once in a while, so that neither an answer nor a piece of one costs a timer.
#[derive(Clone, Default)]
pub(crate) struct AnswersUnderWay(Arc<Mutex<Vec<Arc<Mutex<Answer>>>>>);

impl AnswersUnderWay {
    /// Wraps an answer so that it fails, and drops all that it holds, when its reader has not asked for more of it for
    /// `limit`. Time in which the reader waits for the upstream does not count.
    pub(crate) fn with_read_timeout(&self, body: Body, limit: Duration) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let answer = Answer { body: Some(body), unread_since: Some(Instant::now()), limit };
        let answer = Arc::new(Mutex::new(answer));
        self.0.lock().push(answer.clone());
        Body::new(ReadTimedBody { answer, under_way: self.clone() })
    }

    /// Drops the answers that have been unread for their limits. A connection that looks once in `limit` gives a caller up
    /// after `limit` at the earliest and after twice that at the latest.
    pub(crate) fn drop_unread(&self) {
        // One that is locked is read at this moment.
        let unread: Vec<_> = self.0.lock().iter().filter_map(|answer| answer.try_lock()?.take_unread()).collect();
        drop(unread); // outside of the locks: dropping runs code of others
    }

    fn remove(&self, ended: &Arc<Mutex<Answer>>) {
        let mut under_way = self.0.lock();
        if let Some(at) = under_way.iter().position(|answer| Arc::ptr_eq(answer, ended)) {
            under_way.swap_remove(at);
        }
    }
}

struct Answer {
    /// The answer, until the time-out has dropped it.
    body: Option<Body>,
    /// The time at which the reader got the last piece. `None` while it waits for more.
    unread_since: Option<Instant>,
    limit: Duration,
}

impl Answer {
    fn take_unread(&mut self) -> Option<Body> {
        let is_unread = self.unread_since.is_some_and(|since| since.elapsed() >= self.limit);
        if is_unread { self.body.take() } else { None }
    }
}

struct ReadTimedBody {
    answer: Arc<Mutex<Answer>>,
    under_way: AnswersUnderWay,
}

impl http_body::Body for ReadTimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut answer = self.answer.lock();
        let Answer { body, unread_since, limit } = &mut *answer;
        let Some(body) = body else { return Poll::Ready(Some(Err(axum::Error::new(ReadTimeout(*limit))))) };
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
        self.under_way.remove(&self.answer);
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
