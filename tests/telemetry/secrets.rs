//! Law 9: no key, and no text of a prompt or an answer, in spans and metrics.

use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CircuitBreakerLayer, ClassifyLayer, RateLimitLayer, ReplayLayer, RetryLayer, RetryPolicy, TelemetryLayer,
    TimeoutLayer,
    circuit_breaker::CircuitBreakers,
    emulator::{Trouble, When},
    rate_limit::Limiter,
};

use super::{
    listen::{Metrics, Spans},
    spans::{emulator, stack},
};
use crate::support::*;

const WHISPER: &str = "whispered-in-confidence";

/// Makes a request with the key in a place for keys and in some that are none. Two credentials would be refused at once.
fn secret(uri: &str, in_query: bool) -> Request<Full<bytes::Bytes>> {
    let body = format!(r#"{{"contents":[{{"parts":[{{"text":"{WHISPER} {KEY}"}}]}}]}}"#);
    let uri = format!("https://user:{KEY}@generativelanguage.googleapis.com:8443{uri}");
    if in_query {
        return post_body(&format!("{uri}&key={KEY}"), body);
    }
    let mut request = post_body(&uri, body);
    request.headers_mut().insert("x-goog-api-key", KEY.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn law_9_no_span_and_no_metric_shows_a_key_or_a_word() {
    let (spans, _guard) = Spans::listen();
    let metrics = Metrics::listen();
    let troubles: [fn() -> Trouble; 8] = [
        Trouble::none,
        Trouble::invalid_key,
        Trouble::suspended_key,
        Trouble::overloaded,
        Trouble::empty,
        Trouble::hang,
        || Trouble::overloaded().in_stream(1),
        || Trouble::cut(1),
    ];
    let uris = [
        "/v1beta/models/gemini-2.5-pro:generateContent?a=b".to_owned(),
        "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse".to_owned(),
        format!("/v1beta/models/{KEY}:generateContent?a=b"),
        format!("/v1beta/models/m-{}{KEY}:generateContent?a=b", "x".repeat(110)),
        format!("/{KEY}/v1beta/openai/chat/completions?a=b"),
    ];
    for (trouble, in_query) in troubles.into_iter().flat_map(|trouble| [(trouble, false), (trouble, true)]) {
        for uri in &uris {
            let upstream = emulator().trouble(When::always(), trouble()).build();
            let service = stack!(upstream, RetryPolicy::default().max_attempts(2), Limiter::new());
            if let Ok(response) = service.oneshot(secret(uri, in_query)).await {
                let _ = frames(response.into_body()).await;
            }
        }
    }
    // A good answer comes from a model whose name, version and finish reason are the key.
    let answer = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"a"}}]}},"finishReason":"{KEY}"}}],"modelVersion":"{KEY}"}}"#
    );
    let upstream = Upstream::at_once(move |_| Ok(json(200, answer.clone())));
    let service = ServiceBuilder::new()
        .layer(TelemetryLayer::call())
        .layer(TelemetryLayer::attempt())
        .layer(CircuitBreakerLayer::new(CircuitBreakers::new()))
        .layer(ClassifyLayer::new())
        .service(upstream);
    read(service.oneshot(secret(&uris[2], true)).await.unwrap().into_body()).await;
    // The error of a transport names the URL.
    let upstream = tower::service_fn(|_: Request<Full<bytes::Bytes>>| async {
        Err::<http::Response<AnyBody>, BoxError>(
            format!("error sending request for url (https://host/?key={KEY})").into(),
        )
    });
    ServiceBuilder::new()
        .layer(TelemetryLayer::call())
        .service(upstream)
        .oneshot(secret(&uris[0], true))
        .await
        .unwrap_err();

    // The host of the request is the key.
    let service = TelemetryLayer::attempt().layer(Upstream::at_once(|_| Ok(hello())));
    service.oneshot(post(&format!("https://{KEY}.example.com/v1beta/models"))).await.unwrap();

    let shown = format!("{:?} {:?}", spans.all(), metrics.take());
    for expected in ["gemini-2.5-pro", "[redacted]", "auth_key_invalid", "key_suspended", "overloaded", "stream_cut"] {
        assert!(shown.contains(expected), "no {expected}");
    }
    for secret in ["AIza", "whispered", "user:"] {
        let at = shown.find(secret).map(|at| &shown[at.saturating_sub(200)..at + 50]);
        assert_eq!(at, None);
    }
}
