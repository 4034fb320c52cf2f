//! The rest of a body that is not wanted, read to its end so that the caller gets the early answer.
//!
//! A server that refuses a request before its body is read (413) and closes the connection resets it while the caller
//! still writes, and the caller reports a broken pipe instead of the answer. So the rest of the body is read and thrown
//! away for up to 30 s, as nginx's `lingering_close` does it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, header::EXPECT};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{runtime::Handle, time::timeout};

/// nginx's `lingering_time`.
const LINGER: Duration = Duration::from_secs(30);

/// Wraps a request's body so that it is read to its end even if it is dropped before, and that nothing comes after it: a
/// trailer would go past everything that is said of headers.
pub(crate) fn linger(request: &mut Request<Body>) {
    let body = std::mem::take(request.body_mut());
    if !body.is_end_stream() {
        // A caller that waits for "100 Continue" has sent nothing yet, and reading would ask for it.
        let lingers = !request.headers().contains_key(EXPECT);
        *request.body_mut() = Body::new(LingeringBody { body, lingers });
    }
}

struct LingeringBody {
    body: Body,
    lingers: bool,
}

impl http_body::Body for LingeringBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            if !matches!(&frame, Some(Ok(frame)) if frame.is_trailers()) {
                return Poll::Ready(frame);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for LingeringBody {
    fn drop(&mut self) {
        if !self.lingers || self.body.is_end_stream() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let mut body = std::mem::take(&mut self.body);
        runtime.spawn(timeout(LINGER, async move { while let Some(Ok(_)) = body.frame().await {} }));
    }
}
