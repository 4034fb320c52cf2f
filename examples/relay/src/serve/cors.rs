//! Pages of other origins: preflights are answered here, without a token and without a call of the upstream, and every
//! answer says whether a page may read it. It belongs outside of everything that answers, early heads included, and of
//! the log: a preflight is no call.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCESS_CONTROL_REQUEST_METHOD, LOCATION, ORIGIN, RETRY_AFTER, VARY},
};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::{config::Origins, serve::headers};

/// The time for which a browser keeps the answer to a preflight. A change of the settings holds for it after that.
const KEPT: Duration = Duration::from_secs(600);

/// The headers of answers that pages may read, besides those that all may: the hints when to try again, the model that
/// has answered, and the progress of an upload, which Google's SDK reads in a browser, too.
const READ_BY_PAGES: [HeaderName; 13] = [
    RETRY_AFTER,
    LOCATION,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("x-gemini-model"),
    HeaderName::from_static("x-gemini-service-tier"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-goog-upload-url"),
    HeaderName::from_static("x-goog-upload-control-url"),
    HeaderName::from_static("x-goog-upload-status"),
    HeaderName::from_static("x-goog-upload-size-received"),
    HeaderName::from_static("x-goog-upload-chunk-granularity"),
    HeaderName::from_static("server-timing"),
];

/// The headers by which a server talks to browsers about pages. Only the relay's own go out.
const OF_PAGES: [&str; 7] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
];

/// The rules for pages.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    origins: Origins,
    layer: CorsLayer,
}

impl Cors {
    /// Makes the rules for pages of these origins.
    ///
    /// A page brings its token itself, and so no credentials of the browser's are asked for. A public page may call a
    /// relay in a private network only where somebody has decided which pages may call.
    pub(crate) fn new(origins: Origins) -> Self {
        let allowed = origins.clone();
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| allowed.allow(origin.as_bytes())))
            .allow_methods(AllowMethods::mirror_request())
            .allow_headers(AllowHeaders::mirror_request())
            .allow_private_network(origins.are_set())
            .expose_headers(READ_BY_PAGES)
            .max_age(KEPT)
            // Preflights are not cached by anything that reads it.
            .vary([ORIGIN]);
        Self { origins, layer }
    }

    /// Returns whether a request comes from a page.
    pub(crate) fn concerns(request: &Request) -> bool {
        request.headers().contains_key(ORIGIN)
    }

    /// Takes out of the answer to a program what the upstream says to pages. A cache has to know that pages get another one.
    pub(crate) fn to_program(response: Response) -> Response {
        let mut response = without_headers_of_pages(response);
        response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
        response
    }

    /// Answers a preflight, or lets pages of allowed origins read the answer to a call.
    pub(crate) async fn pass<F: Future<Output = Response>>(
        &self,
        request: Request,
        next: impl FnOnce(Request) -> F + Clone,
    ) -> Response {
        let Some(origin) = request.headers().get(ORIGIN) else {
            return Self::to_program(next(request).await);
        };
        let options = request.method() == Method::OPTIONS;
        match options && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            true if !self.origins.allow(origin.as_bytes()) => return refused(origin),
            // The layer would take every OPTIONS for a preflight.
            false if options => return without_headers_of_pages(next(request).await),
            _ => {}
        }
        let inner = service_fn(move |request| {
            let next = next.clone();
            async move { Ok::<_, Infallible>(without_headers_of_pages(next(request).await)) }
        });
        let Ok(response) = self.layer.layer(inner).oneshot(request).await;
        response
    }
}

/// Refuses a preflight. No page can read it, but whoever looks at the browser's network log can.
fn refused(origin: &HeaderValue) -> Response {
    let message = Origins::refusal_of(origin.as_bytes());
    tracing::debug!("{message}");
    let error = json!({ "error": { "code": 403, "message": message, "status": "PERMISSION_DENIED" } });
    (StatusCode::FORBIDDEN, [(VARY, "origin")], Json(error)).into_response()
}

/// Removes what the upstream says about pages, which holds for its own address.
fn without_headers_of_pages(mut response: Response) -> Response {
    headers::remove(response.headers_mut(), |name| OF_PAGES.contains(&name));
    response
}
