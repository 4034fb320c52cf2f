//! An early answer has to be heard.
//!
//! Whoever refuses a request before its body is read (413) and closes the connection resets it under the caller's hands,
//! and the caller reports a broken pipe instead of the answer. So what nobody wants to read is read and thrown away for a
//! while, as nginx's `lingering_close` does it.

use std::{
    pin::Pin,
    task::{Context, Poll},
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

/// A request whose body, dropped before its end, is read to it all the same.
pub(crate) fn linger(request: Request<Body>) -> Request<Body> {
    // Who waits for "100 Continue" has sent nothing yet, and reading would ask for it.
    if request.headers().contains_key(EXPECT) {
        return request;
    }
    request.map(|body| Body::new(Lingering { body }))
}

struct Lingering {
    body: Body,
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let mut body = std::mem::take(&mut self.body);
        runtime.spawn(timeout(LINGER, async move { while let Some(Ok(_)) = body.frame().await {} }));
    }
}
