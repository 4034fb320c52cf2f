//! The body of a response: carries out the steps of its plan, on tokio's clock.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::peer::{Peer, reset};
use crate::{
    BoxError,
    emulator::{
        script::plan::{BodyPlan, BodyStep, ping},
        state::{journal::End, visit_guard::VisitGuard},
    },
};

/// The response body of [`Emulator`](crate::emulator::Emulator).
///
/// It fails only where the script says reset within the answer, with an [`io::Error`](std::io::Error) of the kind
/// `ConnectionReset`. Dropping it before its end stands for a peer that closes the connection, and is noted in the
/// journal.
pub struct EmulatorBody {
    steps: VecDeque<BodyStep>,
    /// Boxed, so that the body is `Unpin`, as hyper's is.
    sleep: Option<Pin<Box<Sleep>>>,
    /// The bytes that are left of `Content-Length`.
    length: Option<u64>,
    guard: VisitGuard,
    peer: Option<Peer>,
    version: Version,
}

// === impl EmulatorBody ===

impl EmulatorBody {
    pub(super) fn new(plan: BodyPlan, mut guard: VisitGuard, peer: Option<Peer>, version: Version) -> Self {
        if plan.steps.is_empty() {
            guard.end(End::Finished);
        }
        Self { steps: plan.steps, sleep: None, length: plan.length, guard, peer, version }
    }
}

impl Body for EmulatorBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            if let Some(sleep) = &mut this.sleep {
                ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
            }
            match this.steps.pop_front() {
                Some(BodyStep::Bytes(bytes)) => {
                    this.guard.sent(bytes.len());
                    if let Some(length) = &mut this.length {
                        *length = length.saturating_sub(bytes.len() as u64);
                    }
                    if this.steps.is_empty() {
                        this.guard.end(End::Finished);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(BodyStep::Pause(pause)) => this.sleep = Some(Box::pin(sleep(pause))),
                Some(BodyStep::Pings(interval)) => {
                    this.steps.push_front(BodyStep::Pings(interval));
                    this.steps.push_front(BodyStep::Bytes(ping()));
                    this.sleep = Some(Box::pin(sleep(interval)));
                }
                Some(BodyStep::Stall) => {
                    this.steps.push_front(BodyStep::Stall);
                    return Poll::Pending;
                }
                Some(BodyStep::Reset) => {
                    this.steps.clear();
                    this.guard.end(End::Reset);
                    if let Some(peer) = this.peer.take() {
                        peer.abort(this.version);
                    }
                    return Poll::Ready(Some(Err(reset().into())));
                }
                None => {
                    this.guard.end(End::Finished);
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.sleep.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl fmt::Debug for EmulatorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatorBody").field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}
