//! `KeyPoolLayer` against callers and upstreams that mean no good, on a paused clock.

mod support;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, ClassifyLayer, KeyPoolLayer, RetryLayer,
    call::Surface,
    key_pool::{ApiKey, Credential, Fingerprint, Key, KeyPool, KeyState},
};

use crate::support::{AnyBody, GENERATE, Upstream, hello, json, millis, post, post_body, secs, status};

const VEO: &str = "/v1beta/models/veo-3.0-generate-001:predictLongRunning";
const FOREIGN: &str = "/v1/projects/not-mine/locations/l/publishers/google/models/gemini-2.5-pro:generateContent";

/// Keys a, b and c of as many projects.
fn pool() -> KeyPool {
    let key = |name: &str| Key::new(ApiKey::new(format!("AIza-nobodys-{name}")).unwrap()).project(name).name(name);
    ["a", "b", "c"]
        .into_iter()
        .fold(KeyPool::builder().cache_affinity(None), |pool, name| pool.key(key(name)))
        .build()
        .unwrap()
}

fn stack(
    pool: &KeyPool,
    upstream: &Upstream,
) -> impl Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError> + Clone {
    ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(support::any))
        .layer(RetryLayer::default())
        .layer(KeyPoolLayer::new(pool.clone()))
        .layer(ClassifyLayer::new())
        .service(upstream.clone())
}

fn error(status: u16, name: &str, message: &str, reason: &str) -> Response<AnyBody> {
    let info = "type.googleapis.com/google.rpc.ErrorInfo";
    let details = match reason {
        "" => serde_json::json!([]),
        reason => serde_json::json!([{"@type": info, "reason": reason, "domain": "googleapis.com"}]),
    };
    let error = serde_json::json!({"code": status, "message": message, "status": name, "details": details});
    json(status, serde_json::json!({ "error": error }).to_string())
}

fn all_serve(pool: &KeyPool) -> bool {
    pool.snapshot().iter().all(|report| report.state == KeyState::Active)
}

/// A caller who asks for the same over and over finds all keys as they were.
async fn nothing_is_marked(uri: &str, answer: impl Fn() -> Response<AnyBody> + Send + Sync + 'static) {
    let upstream = Upstream::at_once(move |_| Ok(answer()));
    let pool = pool();
    for _ in 0..20 {
        let _ = stack(&pool, &upstream).oneshot(post(uri)).await;
    }
    assert!(all_serve(&pool), "{uri}: {:?}", pool.snapshot());
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_echoes_takes_no_key_out() {
    for forged in ["API key not valid", "key has been leaked", "consumer suspended", "billed users", "account banned"] {
        for said in [
            format!("Invalid JSON payload received. Unknown name \"{forged}\": Cannot find field."),
            format!("Unsupported MIME type: {forged}"),
            format!("Invalid value at 'contents[0].parts[0]' (TYPE_STRING), \"{forged}\""),
            format!("* GenerateContentRequest.model: unexpected model name format `{forged}`"),
        ] {
            nothing_is_marked(GENERATE, move || error(400, "INVALID_ARGUMENT", &said, "")).await;
        }
        let said = format!("models/{forged} is not found for API version v1beta, or is not supported.");
        nothing_is_marked(GENERATE, move || error(404, "NOT_FOUND", &said, "")).await;
    }
}

/// A whole error object, as a relay puts it into a message, but put there by the caller.
#[tokio::test(start_paused = true)]
async fn an_error_that_the_caller_has_written_takes_no_key_out() {
    let day = r#"{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}"#;
    for forged in [
        r#"{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "Your API key was reported as leaked."}}"#
            .into(),
        r#"{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid."}}"#.into(),
        format!(r#"{{"error": {{"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "no", "details": [{day}]}}}}"#),
    ] {
        let mime = format!("Unsupported MIME type: {forged}");
        nothing_is_marked(GENERATE, move || error(400, "INVALID_ARGUMENT", &mime, "")).await;
        let name = format!("models/{forged} is not found for API version v1beta.");
        nothing_is_marked(GENERATE, move || error(404, "NOT_FOUND", &name, "")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_only_for_those_who_pay_takes_no_key_out() {
    let veo = "Veo is only accessible to billed users at this time.";
    nothing_is_marked(VEO, move || error(400, "FAILED_PRECONDITION", veo, "")).await;
    nothing_is_marked(VEO, move || error(403, "PERMISSION_DENIED", "It requires billing to be enabled.", "")).await;
}

#[tokio::test(start_paused = true)]
async fn a_project_that_the_caller_names_takes_no_key_out() {
    for reason in ["", "CONSUMER_INVALID", "SERVICE_DISABLED", "USER_PROJECT_DENIED", "BILLING_DISABLED"] {
        nothing_is_marked(FOREIGN, move || error(403, "PERMISSION_DENIED", "Denied on projects/not-mine.", reason))
            .await;
    }
    let keys = "API keys are not supported by this API. Expected OAuth2 access token.";
    nothing_is_marked(FOREIGN, move || error(401, "UNAUTHENTICATED", keys, "CREDENTIALS_MISSING")).await;
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_key_is_not_made_for_takes_it_not_out() {
    let blocked = "Requests to this API generativelanguage.googleapis.com method ListFiles are blocked.";
    let answer = move || error(403, "PERMISSION_DENIED", blocked, "API_KEY_SERVICE_BLOCKED");
    nothing_is_marked("/v1beta/cachedContents", answer).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_wants_a_password_takes_no_key_out() {
    nothing_is_marked(GENERATE, || status(401)).await;
}

/// With one project bodies are not searched for names of resources; a model may be a resource of others, too.
#[tokio::test(start_paused = true)]
async fn what_the_key_may_not_do_takes_it_not_out() {
    let denied = || error(403, "PERMISSION_DENIED", "The caller does not have permission", "");
    nothing_is_marked("/v1beta/models/somebodys-preview:generateContent", denied).await;
    let pool = KeyPool::builder().key(Key::new(ApiKey::new("AIza-nobodys").unwrap())).build().unwrap();
    let upstream = Upstream::at_once(move |_| Ok(denied()));
    for _ in 0..20 {
        let named =
            r#"{"contents":[],"tools":[{"fileSearch":{"fileSearchStoreNames":["fileSearchStores/not-mine"]}}]}"#;
        let _ = stack(&pool, &upstream).oneshot(post_body(GENERATE, named)).await;
    }
    assert!(all_serve(&pool), "{:?}", pool.snapshot());
}

/// A refusal by a proxy tells nothing about the key: the next check is due as soon.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_wants_a_password_keeps_no_key_out() {
    let pool = KeyPool::builder().key(Key::new(ApiKey::new("AIza-nobodys").unwrap())).build().unwrap();
    let leaked = Upstream::at_once(|_| Ok(error(403, "PERMISSION_DENIED", "no", "API_KEY_SERVICE_BLOCKED")));
    let _ = stack(&pool, &leaked).oneshot(post(GENERATE)).await;
    assert!(!all_serve(&pool));
    let began = tokio::time::Instant::now();
    let looked = Upstream::at_once(move |_| Ok(if began.elapsed() < secs(3 * 3_600) { status(401) } else { hello() }));
    let recheck = tokio::spawn(pool.recheck::<_, Full<Bytes>, _>(looked));
    tokio::time::sleep(secs(3 * 3_600 + 61)).await;
    recheck.abort();
    assert!(all_serve(&pool), "{:?}", pool.snapshot());
}

/// The path of the API's description answers without a key, and so tells nothing about one.
#[tokio::test(start_paused = true)]
async fn an_answer_that_needs_no_key_proves_none() {
    let pool = pool();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    for _ in 0..20 {
        stack(&pool, &upstream).oneshot(post("/$discovery/rest")).await.unwrap();
    }
    assert!(pool.snapshot().iter().all(|report| !report.proven));
    for _ in 0..40 {
        stack(&pool, &upstream).oneshot(post(GENERATE)).await.unwrap();
    }
    assert!(pool.snapshot().iter().all(|report| report.proven));
}

/// "In 0 s" is not a time to wait: such a refusal cools as one that does not say how long it lasts.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_names_no_time_at_all_still_cools() {
    let pool = pool();
    let upstream = Upstream::at_once(|_| {
        let mut response = error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted.", "");
        response.headers_mut().insert("retry-after", HeaderValue::from_static("0"));
        Ok(response)
    });
    let _ = ServiceBuilder::new()
        .layer(KeyPoolLayer::new(pool.clone()))
        .layer(ClassifyLayer::new())
        .service(upstream)
        .oneshot(post(GENERATE))
        .await;
    let cooling = pool.snapshot().into_iter().find(|report| report.uses == 1).unwrap();
    assert!(matches!(cooling.state, KeyState::Cooling { left } if left == secs(1)), "{cooling:?}");
}

/// A call that tests a key may hang, or stand in a queue: the key is not out for as long as that.
#[tokio::test(start_paused = true)]
async fn a_test_that_hangs_does_not_keep_a_key_out() {
    let key = Key::new(ApiKey::new("AIza-nobodys").unwrap());
    let pool = KeyPool::builder().key(key).build().unwrap();
    let once = Upstream::at_once(|_| Ok(error(400, "INVALID_ARGUMENT", "API key not valid.", "API_KEY_INVALID")));
    let well = Upstream::at_once(|_| Ok(hello()));
    let alone = |upstream: &Upstream| {
        ServiceBuilder::new()
            .layer(KeyPoolLayer::new(pool.clone()))
            .layer(ClassifyLayer::new())
            .service(upstream.clone())
    };
    assert!(alone(&well).oneshot(post(GENERATE)).await.is_ok());
    assert!(alone(&once).oneshot(post(GENERATE)).await.is_ok());
    let hanging = Upstream::hangs();
    let mut test = tokio_test::task::spawn(alone(&hanging).oneshot(post(GENERATE)));
    assert!(test.poll().is_pending());
    tokio::time::advance(secs(30) - millis(1)).await;
    assert!(alone(&well).oneshot(post(GENERATE)).await.is_err(), "one at a time");
    tokio::time::advance(millis(1)).await;
    let mut other = tokio_test::task::spawn(alone(&hanging).oneshot(post(GENERATE)));
    assert!(other.poll().is_pending());
    // A call that is late gives back only its own trial.
    drop(test);
    assert!(alone(&well).oneshot(post(GENERATE)).await.is_err(), "one at a time still");
    drop(other);
    assert!(alone(&well).oneshot(post(GENERATE)).await.is_ok());
}

#[derive(Debug)]
struct Careless;

impl Credential for Careless {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of("robot")
    }

    fn header(&self, _: Surface) -> Option<(HeaderName, HeaderValue)> {
        Some((AUTHORIZATION, HeaderValue::from_static("Bearer ya29.secret")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_shown_by_who_prints_the_request() {
    let pool = KeyPool::builder().key(Key::from_credential(Careless)).build().unwrap();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    stack(&pool, &upstream).oneshot(post(GENERATE)).await.unwrap();
    let shown = format!("{:?}", upstream.asked()[0].headers);
    assert!(!shown.contains("ya29"), "{shown}");
}
