//! The emulator as a service.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{body::EmulatorBody, future::ResponseFuture, handle::Emulator, peer::Peer};
use crate::{BoxError, call::Call, emulator::state::visit_guard::VisitGuard};

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
    /// Opens a visit in the journal and answers the request; `peer` is its connection, if it came by a socket.
    pub(super) fn visit<B>(&self, request: Request<B>, peer: Option<Peer>) -> ResponseFuture<B> {
        let (head, body) = request.into_parts();
        let call = Call::new(&head.method, &head.uri);
        let connection = peer.as_ref().map(|peer| peer.connection);
        let guard = VisitGuard::open(self.shared.clone(), &head, &call, connection);
        ResponseFuture::new(head, body, guard, peer)
    }
}
