//! The innermost service: a client, or the emulator.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};
use tower_gemini::{body::ReplayBody, emulator::Emulator};

use crate::{
    config::{Settings, Upstream},
    serve::headers::{from_upstream, to_upstream},
};

/// The innermost service.
pub(crate) type Transport = BoxCloneSyncService<Request<ReplayBody<Body>>, Response<Body>, BoxError>;

/// Builds the transport that the settings want. The embedded emulator knows the relay's keys.
pub(crate) fn transport(settings: &Settings) -> Result<Transport, BoxError> {
    match &settings.upstream {
        Upstream::Emulator => {
            let builder =
                settings.keys.secrets().fold(Emulator::builder(), |builder, (key, project)| builder.key(key, project));
            Ok(boxed(builder.build()))
        }
        Upstream::Address(client, _) => Ok(boxed(client.clone().build()?)),
    }
}

/// Gives the emulator and the client one type, and keeps the headers of each side to that side.
fn boxed<S, R>(service: S) -> Transport
where
    S: tower::Service<Request<ReplayBody<Body>>, Response = Response<R>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    BoxCloneSyncService::new(
        service
            .map_request(to_upstream::<ReplayBody<Body>>)
            .map_result(|answer: Result<Response<R>, BoxError>| answer.and_then(from_upstream)),
    )
}
