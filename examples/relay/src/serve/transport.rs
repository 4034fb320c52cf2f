//! The innermost service: a client, or the emulator.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use tower::{BoxError, Service, ServiceExt};
use tower_gemini::{body::ReplayBody, emulator::Emulator};

use crate::{
    config::{Settings, Upstream},
    serve::{
        always_ready::AlwaysReady,
        headers::{from_upstream, to_upstream},
        uploads::replace_addresses,
    },
};

/// The innermost service.
pub(crate) type Transport = AlwaysReady<ReplayBody<Body>>;

/// Builds the transport that the settings want. The embedded emulator knows the relay's keys.
pub(crate) fn transport(settings: &Settings) -> Result<Transport, BoxError> {
    match &settings.upstream {
        Upstream::Emulator => {
            let builder =
                settings.keys.secrets().fold(Emulator::builder(), |builder, (key, project)| builder.key(key, project));
            Ok(boxed(builder.build()))
        }
        Upstream::Address(client, address) => {
            let client = boxed(client.clone().build()?);
            let base = address.path().trim_end_matches('/').to_owned();
            if base.is_empty() {
                return Ok(client);
            }
            let client = client.map_response(move |mut response| {
                replace_addresses(response.headers_mut(), |url| Some(without_base(url, &base)));
                response
            });
            Ok(Transport::around(client))
        }
    }
}

/// Takes the path of a gateway out of an address that it hands out: the client puts it in front of each call's own.
fn without_base(url: &HeaderValue, base: &str) -> HeaderValue {
    let shorter = || {
        let uri: Uri = url.to_str().ok()?.parse().ok()?;
        let path = uri.path_and_query()?.as_str().strip_prefix(base).filter(|rest| rest.starts_with('/'))?;
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()?.to_string().parse().ok()
    };
    shorter().unwrap_or_else(|| url.clone())
}

/// Gives the emulator and the client one type, and keeps the headers of each side to that side.
fn boxed<S, R>(service: S) -> Transport
where
    S: Service<Request<ReplayBody<Body>>, Response = Response<R>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let service = service
        .map_request(to_upstream::<ReplayBody<Body>>)
        .map_result(|answer: Result<Response<R>, BoxError>| answer.and_then(from_upstream));
    Transport::around(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_path_is_in_an_address_once() {
        for (url, left) in [
            ("http://h/gate/upload/v1beta/files?upload_id=u", "http://h/upload/v1beta/files?upload_id=u"),
            ("/gate/upload?upload_id=u", "/upload?upload_id=u"),
            // It is another path, or one of the API's own.
            ("http://h/gateway/upload?upload_id=u", "http://h/gateway/upload?upload_id=u"),
            ("http://h/upload/v1beta/files?upload_id=u", "http://h/upload/v1beta/files?upload_id=u"),
            ("http://h/gate", "http://h/gate"),
        ] {
            assert_eq!(without_base(&HeaderValue::from_static(url), "/gate"), left);
        }
    }
}
