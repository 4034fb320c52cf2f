//! `ErrorResponseLayer`: when to come again, and whose trouble it is, as callers of the whole stack read it.

#[path = "support/answered.rs"]
mod answered;
mod support;

use answered::{Answered, header, send};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::RETRY_AFTER, response::Parts};
use http_body_util::Full;
use serde_json::{Value, json};
use support::*;
use tower::{Service, ServiceBuilder};
use tower_gemini::{
    ClassifyLayer, ErrorResponseLayer, KeyPoolLayer, Outcome, RateLimitLayer, ReplayLayer, RetryLayer, RetryPolicy,
    TimeoutLayer,
    failure::Kind,
    key_pool::{ApiKey, Key, KeyPool},
    quota::Limits,
    rate_limit::Limiter,
};

const SHOULD_RETRY: &str = "x-should-retry";

const OPERATOR: &str = "the server's own credentials are refused upstream; its operator has to act";

fn pool(keys: usize) -> KeyPool {
    let key = |nth: usize| Key::new(ApiKey::new(format!("AIza-{nth}")).unwrap()).project(format!("p{nth}"));
    (0..keys).fold(KeyPool::builder(), |pool, nth| pool.key(key(nth))).build().unwrap()
}

/// Stacks the layers as a server does.
macro_rules! server {
    ($pool:expr, $limiter:expr, $total:expr, $policy:expr, $upstream:expr) => {
        ServiceBuilder::new()
            .layer(ErrorResponseLayer::new())
            .layer(TimeoutLayer::total($total))
            .layer(ReplayLayer::new())
            .layer(RetryLayer::new($policy))
            .layer(KeyPoolLayer::new($pool))
            .layer(RateLimitLayer::new($limiter))
            .layer(ClassifyLayer::new())
            .service($upstream)
    };
    ($keys:expr, $upstream:expr) => {
        server!(pool($keys), Limiter::new(), secs(285), RetryPolicy::default(), $upstream)
    };
}

async fn sent<S>(service: S, request: Request<Full<Bytes>>) -> (Parts, Value)
where
    S: Service<Request<Full<Bytes>>, Error = std::convert::Infallible>,
    S::Response: Into<Answered>,
{
    let (parts, body) = send(service, request).await;
    (parts, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
}

async fn call<S>(service: S, uri: &str) -> (Parts, Value)
where
    S: Service<Request<Full<Bytes>>, Error = std::convert::Infallible>,
    S::Response: Into<Answered>,
{
    sent(service, post(uri)).await
}

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap()
}

fn has_retry_info(body: &Value) -> bool {
    let details = body["error"]["details"].as_array();
    details.is_some_and(|details| details.iter().any(|detail| detail.get("retryDelay").is_some()))
}

fn error(code: u16, status: &str, message: &str) -> Response<AnyBody> {
    json(code, json!({"error": {"code": code, "message": message, "status": status}}).to_string())
}

fn reasoned(code: u16, reason: &str, message: &str) -> Response<AnyBody> {
    let details = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": {"consumer": "projects/123456789012"}}]);
    let error = json!({"code": code, "message": message, "status": "PERMISSION_DENIED", "details": details});
    json(code, json!({ "error": error }).to_string())
}

fn kind(parts: &Parts) -> Kind {
    parts.extensions.get::<Outcome>().unwrap().failure().unwrap().kind()
}

// === a guess is no knowledge ===

#[tokio::test(start_paused = true)]
async fn a_lasting_429_without_a_hint_ends_langchains_call() {
    for said in [
        "Resource has been exhausted (e.g. check quota).",
        "Resource exhausted. Please try again later.",
        "Quota exceeded for quota metric 'x' and limit 'y per minute'.",
    ] {
        for keys in [1, 2] {
            let upstream = Upstream::at_once(move |_| Ok(error(429, "RESOURCE_EXHAUSTED", said)));
            let (parts, body) = call(server!(keys, upstream.clone()), GENERATE).await;
            assert!(upstream.calls() > 1 && parts.status == 429, "{said}");
            // @langchain/core gives up on these words whatever the headers are, and waits for those.
            let words = message(&body).to_ascii_lowercase();
            assert!(words.contains("will reset at") && !words.contains("try again in"), "{keys} {words}");
            assert!(!has_retry_info(&body), "{body}");
            assert_eq!((header(&parts, "retry-after"), header(&parts, SHOULD_RETRY)), (Some("30"), Some("false")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_cost_nothing_upstream_says_a_wait() {
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1)).reject().build();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = server!(pool(1), limiter, secs(285), RetryPolicy::default(), upstream);
    assert_eq!(call(service.clone(), GENERATE).await.0.status, 200);
    let (parts, body) = call(service, GENERATE).await;
    assert_eq!((parts.status.as_u16(), header(&parts, "retry-after")), (429, Some("60")));
    assert!(message(&body).ends_with("; try again in 60 s"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_and_a_spending_cap_are_told_no_time() {
    for said in [
        "You exceeded your current quota.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: gemini-2.5-pro\nPlease retry in 29.01s.",
        "Your project has exceeded its monthly spending cap.",
    ] {
        let upstream = Upstream::at_once(move |_| Ok(error(429, "RESOURCE_EXHAUSTED", said)));
        let (parts, body) = call(server!(1, upstream), GENERATE).await;
        assert!(matches!(kind(&parts), Kind::QuotaZero | Kind::QuotaSpend), "{said}");
        assert_eq!((parts.status.as_u16(), header(&parts, "retry-after")), (429, Some("60")), "{said}");
        assert_eq!((message(&body), has_retry_info(&body)), (said, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_backoff_that_does_not_fit_is_told_to_nobody() {
    for hangs in [false, true] {
        let upstream = match hangs {
            false => Upstream::at_once(|_| Ok(busy())),
            true => Upstream::at_once(|_| Ok(error(504, "DEADLINE_EXCEEDED", "Deadline expired."))),
        };
        let policy = RetryPolicy::default().base_delay(secs(400));
        let (parts, body) = call(server!(pool(1), Limiter::new(), secs(1), policy, upstream), GENERATE).await;
        assert!(!has_retry_info(&body), "{body}");
        assert_eq!((header(&parts, "retry-after"), header(&parts, SHOULD_RETRY)), (Some("10"), Some("false")));
        assert!(message(&body).ends_with("ry again in 10 s."), "{body}");
    }
}

// === an upstream's hints ===

#[tokio::test(start_paused = true)]
async fn no_hint_of_an_upstreams_survives() {
    for (status, name, after) in [
        (400, "INVALID_ARGUMENT", None),
        (403, "PERMISSION_DENIED", None),
        (404, "NOT_FOUND", None),
        (409, "ABORTED", None),
        (500, "INTERNAL", Some("7")),
        (503, "UNAVAILABLE", Some("7")),
    ] {
        for uri in [GENERATE, "/elsewhere"] {
            let upstream = Upstream::at_once(move |_| {
                let mut answer = error(status, name, "no");
                answer.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("true"));
                answer.headers_mut().insert("retry-after-ms", HeaderValue::from_static("5"));
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("7"));
                Ok(answer)
            });
            let service =
                ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(ClassifyLayer::new()).service(upstream);
            let (parts, _) = call(service, uri).await;
            assert_eq!(parts.status, status);
            assert_ne!(header(&parts, SHOULD_RETRY), Some("true"), "{status} {uri}");
            assert_eq!(header(&parts, "retry-after-ms"), None, "{status} {uri}");
            assert_eq!(header(&parts, "retry-after"), after, "{status} {uri}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_told_without_the_systems_words() {
    let upstream = Upstream::at_once(|_| {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(std::io::Error::new(cause.kind(), "tcp connect error: 10.0.0.7:443: Connection refused").into())
    });
    let (parts, body) = call(server!(1, upstream), GENERATE).await;
    assert_eq!((parts.status.as_u16(), kind(&parts)), (503, Kind::Connect));
    assert_eq!(message(&body), "the upstream cannot be reached; try again in 10 s");
    let outcome = parts.extensions.get::<Outcome>().unwrap();
    assert!(outcome.failure().unwrap().message().contains("10.0.0.7"), "operators are told");
}

// === whose trouble it is ===

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_pay_says_so_from_the_first_call_on() {
    let enable = "Gemini API free tier is not available in your country. Please enable billing on your project in Google AI Studio.";
    let disabled =
        "This API method requires billing to be enabled. Please enable billing on project #123456789012 by visiting x.";
    let refusals: [fn(&str) -> Response<AnyBody>; 4] = [
        |_| error(402, "FAILED_PRECONDITION", "prepayment empty"),
        |_| error(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
        |enable| error(400, "FAILED_PRECONDITION", enable),
        |_| reasoned(403, "BILLING_DISABLED", "Please enable billing on project #123456789012."),
    ];
    for (nth, refusal) in refusals.into_iter().enumerate() {
        for (keys, uri) in [(1, GENERATE), (2, STREAM), (1, CHAT), (1, INTERACTIONS)] {
            let upstream = Upstream::at_once(move |_| Ok(refusal(enable)));
            let service = server!(keys, upstream);
            for call_nth in 0..3 {
                let (parts, body) = call(service.clone(), uri).await;
                let told = (parts.status.as_u16(), message(&body), header(&parts, SHOULD_RETRY));
                assert_eq!(told, (503, OPERATOR, Some("false")), "{nth} {uri} {call_nth}: {body}");
                assert!(!has_retry_info(&body), "{body}");
            }
        }
    }
    // Calls that cost nothing are refused in the same way.
    for uri in ["/v1beta/models", "/v1beta/files/x", "/v1beta/cachedContents"] {
        let upstream = Upstream::at_once(move |_| Ok(reasoned(403, "BILLING_DISABLED", disabled)));
        let request = Request::builder().method(Method::GET).uri(uri).body(Full::default()).unwrap();
        let (parts, body) = sent(server!(1, upstream), request).await;
        assert_eq!((parts.status.as_u16(), message(&body)), (503, OPERATOR), "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_for_those_who_pay_and_a_spending_cap_keep_their_status() {
    let billed = "Imagen API is only accessible to billed users at this time.";
    let upstream = Upstream::at_once(move |_| Ok(error(400, "INVALID_ARGUMENT", billed)));
    let (parts, body) = call(server!(1, upstream), "/v1beta/models/imagen-4:predict").await;
    assert_eq!((parts.status.as_u16(), message(&body)), (400, billed));
    let cap = "Your project has exceeded its monthly spending cap.";
    let upstream = Upstream::at_once(move |_| Ok(error(429, "RESOURCE_EXHAUSTED", cap)));
    let service = server!(1, upstream);
    for _ in 0..3 {
        assert_eq!(call(service.clone(), GENERATE).await.0.status, 429);
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_closed_for_the_project_is_not_found_each_time() {
    let closed = "This model models/gemini-2.5-pro is no longer available to new users. Please update your code to use a newer model.";
    let upstream = Upstream::at_once(move |_| Ok(error(404, "NOT_FOUND", closed)));
    let service = server!(1, upstream.clone());
    for _ in 0..3 {
        let (parts, body) = call(service.clone(), GENERATE).await;
        assert_eq!((parts.status.as_u16(), &body["error"]["status"]), (404, &json!("NOT_FOUND")), "{body}");
        assert_eq!((header(&parts, "retry-after"), header(&parts, SHOULD_RETRY)), (None, None));
        assert!(!message(&body).contains("reset at") && !has_retry_info(&body), "{body}");
    }
    assert_eq!(upstream.calls(), 1, "it is remembered");
    assert_eq!(kind(&call(service, GENERATE).await.0), Kind::KeysExhausted, "another model may be asked");
}

#[tokio::test(start_paused = true)]
async fn no_project_is_told() {
    let said = "Please enable billing on project #123456789012, project (123456789012), projectId=my-project-7, Consumer 'project:my-project-7'.";
    let upstream = Upstream::at_once(move |_| Ok(error(400, "INVALID_ARGUMENT", &said.replace("billing", "it"))));
    let (parts, body) = call(server!(1, upstream), GENERATE).await;
    let text = body.to_string();
    assert!(parts.status == 400 && !text.contains("123456789012") && !text.contains("my-project-7"), "{text}");
}
