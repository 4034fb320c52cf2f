//! The emulator as a service.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Version, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::{
    Emulator,
    body::EmulatorBody,
    journal::{End, Guard},
    judge::judge,
    plan::Plan,
};
use crate::{BoxError, call::Call};

impl<B> Service<Request<B>> for Emulator
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<EmulatorBody>;
    type Error = BoxError;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<B> {
        self.visit(request, None)
    }
}

impl Emulator {
    pub(super) fn visit<B>(&self, request: Request<B>, peer: Option<Peer>) -> ResponseFuture<B> {
        let (head, body) = request.into_parts();
        let call = Call::new(&head.method, &head.uri);
        let connection = peer.as_ref().map(|peer| peer.connection);
        let guard = Guard::open(self.shared.clone(), &head, &call, connection);
        let collected = BytesMut::new();
        ResponseFuture { state: State::Collecting { body, collected, head }, guard: Some(guard), peer }
    }
}

/// The connection that a request came by.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) connection: u64,
    /// Set before an error that has to break the connection off rather than end it.
    pub(super) abort: Arc<AtomicBool>,
}

/// What was written before a reset has so long to get out.
const LINGER: Duration = Duration::from_millis(10);

// === impl Peer ===

impl Peer {
    /// Of HTTP/2 only the stream breaks.
    pub(super) fn abort(&self, version: Version) {
        if version < Version::HTTP_2 {
            self.abort.store(true, Ordering::Release);
        }
    }
}

pin_project! {
    /// The answer to come, of [`Emulator`].
    ///
    /// Dropping it is what a peer does that hangs up: the journal notes it. It fails only when it is told to reset the
    /// connection (an [`io::Error`] of the kind `ConnectionReset`), or with the request body's own error.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<B> {
        #[pin]
        state: State<B>,
        guard: Option<Guard>,
        peer: Option<Peer>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<B> {
        Collecting { #[pin] body: B, collected: BytesMut, head: Parts },
        Waiting { #[pin] sleep: Option<Sleep>, plan: Option<Plan>, version: Version },
        Done,
    }
}

// === impl ResponseFuture ===

impl<B> Future for ResponseFuture<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<EmulatorBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Collecting { body, collected, head } => {
                    let Some(guard) = this.guard.as_mut() else { return Poll::Pending };
                    let limit = guard.shared().settings.body_limit;
                    if let Err(error) = ready!(poll_collect(body, collected, limit, cx)) {
                        this.state.set(State::Done);
                        return Poll::Ready(Err(error));
                    }
                    let plan = judge(guard, head, collected, this.peer.as_ref().map(|_| LINGER));
                    let after = match &plan {
                        Plan::Answer { after, .. } | Plan::Reset { after } => *after,
                        Plan::Hang => Duration::ZERO,
                    };
                    let sleep = (!after.is_zero()).then(|| sleep(after));
                    State::Waiting { sleep, plan: Some(plan), version: head.version }
                }
                StateProjection::Waiting { sleep, plan, version } => {
                    if let Some(sleep) = sleep.as_pin_mut() {
                        ready!(sleep.poll(cx));
                    }
                    let version = *version;
                    let (plan, guard) = match (plan.take(), this.guard.take()) {
                        (Some(Plan::Hang), guard) => {
                            // Kept, so that the journal notes when the peer has had enough.
                            *plan = Some(Plan::Hang);
                            *this.guard = guard;
                            return Poll::Pending;
                        }
                        (Some(plan), Some(guard)) => (plan, guard),
                        _ => return Poll::Pending,
                    };
                    this.state.set(State::Done);
                    return Poll::Ready(carry_out(plan, guard, this.peer.take(), version));
                }
                // Polled again after its end: nothing will come.
                StateProjection::Done => return Poll::Pending,
            };
            this.state.set(next);
        }
    }
}

impl<B> fmt::Debug for ResponseFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

fn carry_out(
    plan: Plan,
    mut guard: Guard,
    peer: Option<Peer>,
    version: Version,
) -> Result<Response<EmulatorBody>, BoxError> {
    match plan {
        Plan::Answer { status, headers, content, .. } => {
            guard.headers(status);
            let mut response = Response::new(EmulatorBody::new(content, guard, peer, version));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        }
        Plan::Reset { .. } | Plan::Hang => {
            guard.end(End::Reset);
            if let Some(peer) = peer {
                peer.abort(version);
            }
            Err(reset().into())
        }
    }
}

pub(super) fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by the emulator, as it was told to")
}

/// Reads the body to its end, or just past the limit.
fn poll_collect<B>(
    mut body: Pin<&mut B>,
    collected: &mut BytesMut,
    limit: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<(), BoxError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    while collected.len() <= limit {
        match ready!(body.as_mut().poll_frame(cx)) {
            None => break,
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    collected.extend_from_slice(&data);
                }
            }
        }
    }
    Poll::Ready(Ok(()))
}
