//! The future of a response: reads the request, asks for a plan, and carries it out.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, Version, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{
    body::EmulatorBody,
    peer::{Peer, reset},
};
use crate::{
    BoxError,
    body::CappedRead,
    emulator::{
        decide::judge::judge,
        script::plan::ResponsePlan,
        state::{journal::End, visit_guard::VisitGuard},
    },
};

pin_project! {
    /// The response future of [`Emulator`](crate::emulator::Emulator).
    ///
    /// Dropping it stands for a peer that closes the connection, and is noted in the journal. It fails only when the
    /// script says reset (with an [`io::Error`](std::io::Error) of the kind `ConnectionReset`), or with the request
    /// body's own error.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<B> {
        #[pin]
        state: State<B>,
        guard: Option<VisitGuard>,
        peer: Option<Peer>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<B> {
        Reading { #[pin] body: B, read: CappedRead, head: Parts },
        Waiting { #[pin] sleep: Option<Sleep>, plan: Option<ResponsePlan>, version: Version },
        Done,
    }
}

/// The pause before a reset on a socket, in which earlier bytes are sent.
const LINGER: Duration = Duration::from_millis(10);

// === impl ResponseFuture ===

impl<B> ResponseFuture<B> {
    pub(super) fn new(head: Parts, body: B, guard: VisitGuard, peer: Option<Peer>) -> Self {
        let read = CappedRead::new(guard.shared().settings.body_limit);
        Self { state: State::Reading { body, read, head }, guard: Some(guard), peer }
    }
}

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
                StateProjection::Reading { body, read, head } => {
                    let Some(guard) = this.guard.as_mut() else { return Poll::Pending };
                    let extent = match ready!(read.poll(cx, body)) {
                        Ok(extent) => extent,
                        Err(error) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Err(error.into()));
                        }
                    };
                    let plan = judge(guard, head, read.bytes(), extent, this.peer.as_ref().map(|_| LINGER));
                    let after = plan.after();
                    let sleep = (!after.is_zero()).then(|| sleep(after));
                    State::Waiting { sleep, plan: Some(plan), version: head.version }
                }
                StateProjection::Waiting { sleep, plan, version } => {
                    if let Some(sleep) = sleep.as_pin_mut() {
                        ready!(sleep.poll(cx));
                    }
                    let version = *version;
                    let (plan, guard) = match (plan.take(), this.guard.take()) {
                        (Some(ResponsePlan::Hang), guard) => {
                            // The guard is kept, so that the journal notes when the peer hangs up.
                            *plan = Some(ResponsePlan::Hang);
                            *this.guard = guard;
                            return Poll::Pending;
                        }
                        (Some(plan), Some(guard)) => (plan, guard),
                        _ => return Poll::Pending,
                    };
                    this.state.set(State::Done);
                    return Poll::Ready(carry_out(plan, guard, this.peer.take(), version));
                }
                // Polled again after its end.
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
    plan: ResponsePlan,
    mut guard: VisitGuard,
    peer: Option<Peer>,
    version: Version,
) -> Result<Response<EmulatorBody>, BoxError> {
    match plan {
        ResponsePlan::Answer { status, headers, body, .. } => {
            guard.headers(status);
            let mut response = Response::new(EmulatorBody::new(body, guard, peer, version));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        }
        ResponsePlan::Reset { .. } | ResponsePlan::Hang => {
            guard.end(End::Reset);
            if let Some(peer) = peer {
                peer.abort(version);
            }
            Err(reset().into())
        }
    }
}
