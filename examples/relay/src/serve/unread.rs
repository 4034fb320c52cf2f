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
#[derive(Clone)]
pub(crate) struct AnswersUnderWay {
    answers: Arc<Mutex<Vec<Arc<Mutex<UnreadAnswer>>>>>,
    limit: Duration,
}

impl AnswersUnderWay {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { answers: Arc::default(), limit }
    }

    /// Wraps an answer so that it fails, and drops all that it holds, when its reader has not asked for more of it for
    /// the limit. Time in which the reader waits for the upstream does not count.
    pub(crate) fn with_read_timeout(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let answer = UnreadAnswer { body: Some(body), unread_since: Some(Instant::now()) };
        let answer = Arc::new(Mutex::new(answer));
        self.answers.lock().push(answer.clone());
        Body::new(ReadTimedBody { answer, under_way: self.clone() })
    }

    /// Drops the answers that have been unread for the limit. A connection that looks once in that time gives a caller up
    /// after it at the earliest and after twice of it at the latest.
    pub(crate) fn drop_unread(&self) {
        // One that is locked is read at this moment.
        let unread: Vec<_> =
            self.answers.lock().iter().filter_map(|answer| answer.try_lock()?.take_unread(self.limit)).collect();
        drop(unread); // outside of the locks: dropping runs code of others
    }

    fn remove(&self, ended: &Arc<Mutex<UnreadAnswer>>) {
        let mut under_way = self.answers.lock();
        if let Some(at) = under_way.iter().position(|answer| Arc::ptr_eq(answer, ended)) {
            under_way.swap_remove(at);
        }
    }
}

/// An answer that its reader may leave unread.
struct UnreadAnswer {
    /// The answer, until the time-out has dropped it.
    body: Option<Body>,
    /// The time at which the reader got the last piece. `None` while it waits for more.
    unread_since: Option<Instant>,
}

impl UnreadAnswer {
    fn take_unread(&mut self, limit: Duration) -> Option<Body> {
        let is_unread = self.unread_since.is_some_and(|since| since.elapsed() >= limit);
        if is_unread { self.body.take() } else { None }
    }
}

struct ReadTimedBody {
    answer: Arc<Mutex<UnreadAnswer>>,
    under_way: AnswersUnderWay,
}

impl http_body::Body for ReadTimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut answer = self.answer.lock();
        let UnreadAnswer { body, unread_since } = &mut *answer;
        let Some(body) = body else {
            return Poll::Ready(Some(Err(axum::Error::new(ReadTimeout(self.under_way.limit)))));
        };
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
