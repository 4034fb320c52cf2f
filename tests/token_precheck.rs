//! `TokenPrecheckLayer` over the emulator: the requests that it refuses, passes on, and lets the upstream count.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::{
    BoxError, CallContext, CallerLimitLayer, ClassifyLayer, Error, KeyPoolLayer, RateLimitLayer, ReplayLayer,
    TokenPrecheckLayer,
    call::Operation,
    caller_limit::{CallerLimits, CallerQuota},
    context::Deadline,
    emulator::{EmulatedModel, Emulator, Trouble, Visit, When},
    failure::{Failure, Fault, Kind},
    key_pool::{ApiKey, Key, KeyPool},
    models::{Model, ModelTable},
    prices::{Money, Price, Prices},
    quota::{Certainty, Limits, TokenCost},
    rate_limit::Limiter,
    token_precheck::{AskUpstream, MaxOutputPolicy, UnknownModel},
    tokenizer::{Count, CountTokens, TextCounter},
};

use crate::support::{CHAT, GENERATE, INTERACTIONS, STREAM, post_body, secs};

const EMBED: &str = "/v1beta/models/gemini-embedding-001:embedContent";

/// Builds a request with a text of `bytes` bytes.
fn text(uri: &str, bytes: usize) -> Request<Full<Bytes>> {
    keyed(post_body(uri, format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}]}}]}}"#, "abc ".repeat(bytes / 4))))
}

fn keyed(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.headers_mut().insert("x-goog-api-key", "test-key".parse().unwrap());
    request
}

fn body(uri: &str, body: &str) -> Request<Full<Bytes>> {
    keyed(post_body(uri, body.to_owned()))
}

/// A counter of one token for every four bytes, as the emulator counts.
#[derive(Debug)]
struct Quarters;

struct Quarter(u64);

impl CountTokens for Quarters {
    fn counter(&self, _: &str) -> Box<dyn TextCounter> {
        Box::new(Quarter(0))
    }
}

impl TextCounter for Quarter {
    fn push(&mut self, text: &str) {
        self.0 += text.len().div_ceil(4) as u64;
    }

    fn count(&self) -> Count {
        Count::exactly(self.0)
    }
}

/// Creates a layer that knows lengths only, whatever features are on.
fn by_bytes(models: ModelTable) -> TokenPrecheckLayer {
    #[derive(Debug)]
    struct Bytes;
    struct Counter(Count);
    impl CountTokens for Bytes {
        fn counter(&self, _: &str) -> Box<dyn TextCounter> {
            Box::new(Counter(Count::default()))
        }
    }
    impl TextCounter for Counter {
        fn push(&mut self, text: &str) {
            self.0 += Count::by_length(text);
        }
        fn count(&self) -> Count {
            self.0
        }
    }
    TokenPrecheckLayer::new(models).counter(Bytes)
}

/// Fetches the emulator's own list.
async fn listed(emulator: &Emulator) -> ModelTable {
    let models = ModelTable::new();
    let service = ServiceBuilder::new().map_request(keyed).service(emulator.clone());
    models.refresh(service).await.unwrap();
    models
}

async fn refused(layer: &TokenPrecheckLayer, emulator: &Emulator, request: Request<Full<Bytes>>) -> Failure {
    let sent = emulator.journal().len();
    let error = layer.layer(emulator.clone()).oneshot(request).await.map(drop).unwrap_err();
    let error = Error::find(&*error).unwrap();
    assert!(!error.outcome().was_sent() && error.layer() == "token_precheck");
    assert_eq!(emulator.journal().len(), sent, "nothing is sent");
    error.failure().clone()
}

async fn passes(layer: &TokenPrecheckLayer, emulator: &Emulator, request: Request<Full<Bytes>>) {
    let response = layer.layer(emulator.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

fn asked(visit: &Visit) -> bool {
    visit.operation == Operation::CountTokens
}

#[tokio::test(start_paused = true)]
async fn what_is_no_json_is_refused_with_its_place() {
    let (layer, emulator) = (TokenPrecheckLayer::default(), Emulator::new());
    let failure = refused(&layer, &emulator, body(GENERATE, "{\n \"contents\": [}")).await;
    assert_eq!(
        (failure.kind(), failure.fault(), failure.code()),
        (Kind::InvalidRequest, Fault::Caller, StatusCode::BAD_REQUEST)
    );
    assert!(failure.message().contains("at line 2, column 15"), "{}", failure.message());
    // Not declared as JSON: the upstream judges it.
    let mut unsaid = body(GENERATE, "nonsense");
    unsaid.headers_mut().insert(CONTENT_TYPE, "text/plain".parse().unwrap());
    let response = layer.layer(emulator.clone()).oneshot(unsaid).await.unwrap();
    assert_eq!((response.status(), emulator.journal().len()), (StatusCode::BAD_REQUEST, 1));
    // An encoded body is not read.
    let mut encoded = body(GENERATE, "nonsense");
    encoded.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    layer.layer(emulator.clone()).oneshot(encoded).await.unwrap();
    assert_eq!(emulator.journal().len(), 2);
    // Google's parser takes more than JSON, and a body may be in another encoding.
    let (upstream, sent) = recorder(hello);
    let lenient = body(GENERATE, "{'contents': [{'parts': [{'text': 'x'},],},],}");
    layer.layer(upstream.clone()).oneshot(lenient).await.unwrap();
    let mut wide = body(GENERATE, "{");
    wide.headers_mut().insert(CONTENT_TYPE, "application/json; charset=UTF-16LE".parse().unwrap());
    layer.layer(upstream).oneshot(wide).await.unwrap();
    assert_eq!(sent.lock().len(), 2);
    let mut narrow = body(GENERATE, "{");
    narrow.headers_mut().insert(CONTENT_TYPE, "Application/JSON; Charset=\"UTF-8\"".parse().unwrap());
    assert_eq!(refused(&layer, &emulator, narrow).await.kind(), Kind::InvalidRequest);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_without_content_is_sent() {
    let (upstream, sent) = recorder(hello);
    let bodies = [
        (GENERATE, r#"{"cachedContent":"cachedContents/x"}"#),
        (
            "/v1beta/models/m:countTokens",
            r#"{"generateContentRequest":{"systemInstruction":{"parts":[{"text":"x"}]}}}"#,
        ),
        ("/v1beta/models/m:batchEmbedContents", r#"{"requests":[]}"#),
        ("/v1beta/openai/embeddings", r#"{"model":"gemini-embedding-001","input":[[1,2],[3]]}"#),
        (CHAT, r#"{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[]}]}"#),
    ];
    let layer = TokenPrecheckLayer::default().ask_upstream(AskUpstream::Never);
    for (uri, json) in bodies {
        layer.layer(upstream.clone()).oneshot(body(uri, json)).await.unwrap();
    }
    assert_eq!(sent.lock().len(), bodies.len());
}

#[tokio::test(start_paused = true)]
async fn what_has_no_content_is_refused() {
    let (layer, emulator) = (TokenPrecheckLayer::default(), Emulator::new());
    for (uri, empty, says) in [
        (GENERATE, "{}", "contents is not specified"),
        (STREAM, r#"{"contents":[]}"#, "contents is empty"),
        (GENERATE, r#"{"contents":[{"role":"user","parts":[]}]}"#, "contents is empty"),
        (CHAT, r#"{"model":"gemini-2.5-pro","messages":[]}"#, "messages is empty"),
        (EMBED, "{}", "content is not specified"),
    ] {
        let failure = refused(&layer, &emulator, body(uri, empty)).await;
        assert_eq!(failure.kind(), Kind::InvalidRequest);
        assert!(failure.message().starts_with(says), "{}", failure.message());
    }
    passes(&layer, &emulator, body(GENERATE, r#"{"contents":[{"parts":[{"text":"x"}]}]}"#)).await;
    passes(&layer, &emulator, body(CHAT, r#"{"model":"gemini-2.5-pro","messages":[{"role":"user","content":"x"}]}"#))
        .await;
    passes(&layer, &emulator, body(EMBED, r#"{"content":{"parts":[{"text":"x"}]}}"#)).await;
}

#[tokio::test]
async fn only_a_post_is_checked() {
    let emulator = Emulator::builder().trouble(When::always(), Trouble::response(Response::new(""))).build();
    let layer = TokenPrecheckLayer::new(listed(&Emulator::new()).await);
    let misspelt = "/v1beta/models/gemini-2.5-flsh:generateContent";
    refused(&layer, &emulator, body(misspelt, r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#)).await;
    for method in [Method::OPTIONS, Method::GET, Method::HEAD, Method::PUT] {
        for content in ["", "{", r#"{"contents":[]}"#] {
            let mut request = body(misspelt, content);
            *request.method_mut() = method.clone();
            let sent = emulator.journal().len();
            layer.layer(emulator.clone()).oneshot(request).await.unwrap();
            assert_eq!(emulator.journal().len(), sent + 1, "{method} {content}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_misspelt_model_is_refused_by_a_fresh_list_only() {
    let emulator = Emulator::new();
    let misspelt = || text("/v1beta/models/gemini-2.5-flsh:generateContent", 40);
    let stale = TokenPrecheckLayer::default();
    let response = stale.layer(emulator.clone()).oneshot(misspelt()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);

    let fresh = TokenPrecheckLayer::new(listed(&emulator).await);
    let failure = refused(&fresh, &emulator, misspelt()).await;
    assert_eq!((failure.kind(), failure.code()), (Kind::ModelNotFound, StatusCode::NOT_FOUND));
    assert!(failure.message().contains("models/gemini-2.5-flsh is not found"), "{}", failure.message());
    assert!(failure.message().contains("Did you mean gemini-2.5-flash?"), "{}", failure.message());
    // The model stands in the body.
    let chat = body(CHAT, r#"{"model":"gemini-2.5-prp","messages":[{"role":"user","content":"x"}]}"#);
    assert!(refused(&fresh, &emulator, chat).await.message().contains("gemini-2.5-pro"));
    let failure = refused(&fresh, &emulator, text("/v1beta/models/gemini-embedding-001:generateContent", 40)).await;
    assert!(failure.message().contains("is not supported for generateContent; it supports"), "{}", failure.message());

    let forward = fresh.clone().unknown_model(UnknownModel::Forward);
    let response = forward.layer(emulator.clone()).oneshot(misspelt()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    // Vertex serves other models, on its compatible surface too.
    let (upstream, sent) = recorder(hello);
    let openapi = "/v1/projects/p/locations/l/endpoints/openapi/chat/completions";
    let chat = r#"{"model":"google/gemini-2.5-prp","messages":[{"role":"user","content":"x"}]}"#;
    fresh.layer(upstream).oneshot(body(openapi, chat)).await.unwrap();
    assert_eq!(sent.lock().len(), 1);
    // A name that is near to none is left to the upstream.
    fresh.layer(emulator.clone()).oneshot(text("/v1beta/models/brand-new:generateContent", 40)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_list_is_fetched_on_demand_and_the_call_waits_for_it() {
    let emulator = Emulator::builder()
        .default_models()
        .trouble(When::always().operation(Operation::ListModels), Trouble::slow(secs(1)))
        .build();
    let lists = ServiceBuilder::new().map_request(keyed).service(emulator.clone());
    let lists_asked = |emulator: &Emulator| emulator.count(|visit| visit.operation == Operation::ListModels);
    let models = ModelTable::new();
    let upkeep = tokio::spawn(models.refresh_on_demand(lists.clone()));
    tokio::task::yield_now().await;
    let layer = TokenPrecheckLayer::new(models.clone());
    passes(&layer, &emulator, text(GENERATE, 40)).await;
    assert_eq!(lists_asked(&emulator), 0, "nobody has made a mistake");

    let (begun, sent) = (Instant::now(), emulator.journal().len());
    let misspelt = || text("/v1beta/models/gemini-2.5-flsh:generateContent", 40);
    let calls = (0..3).map(|_| layer.layer(emulator.clone()).oneshot(misspelt()));
    for result in futures_util::future::join_all(calls).await {
        let error = result.map(drop).unwrap_err();
        assert_eq!(Error::find(&*error).unwrap().failure().kind(), Kind::ModelNotFound);
    }
    assert_eq!((begun.elapsed(), lists_asked(&emulator), emulator.journal().len()), (secs(1), 1, sent + 1));
    // The list is fresh: no call waits, whatever its model.
    refused(&layer, &emulator, misspelt()).await;
    let begun = Instant::now();
    layer.layer(emulator.clone()).oneshot(text("/v1beta/models/brand-new:generateContent", 40)).await.unwrap();
    assert_eq!((begun.elapsed(), lists_asked(&emulator)), (secs(0), 1));
    upkeep.abort();

    // A call whose name no list can judge does not wait.
    let models = ModelTable::new();
    let upkeep = tokio::spawn(models.refresh_on_demand(lists.clone()));
    let never = ModelTable::builder().fresh_for(Duration::ZERO).build();
    let useless = tokio::spawn(never.refresh_on_demand(lists));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let long = format!("/v1beta/models/{}:generateContent", "x".repeat(129));
    let openapi = body(
        "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
        r#"{"model":"google/gemini-2.5-flsh","messages":[{"role":"user","content":"x"}]}"#,
    );
    for (models, request) in [
        (&models, text("/v1beta/tunedModels/mine:generateContent", 40)),
        (&models, text(&long, 40)),
        (&models, text("/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flsh:generateContent", 40)),
        (&models, openapi),
        (&never, misspelt()),
    ] {
        let sent = emulator.journal().len();
        TokenPrecheckLayer::new(models.clone()).layer(emulator.clone()).oneshot(request).await.unwrap();
        assert_eq!((begun.elapsed(), lists_asked(&emulator), emulator.journal().len()), (secs(0), 1, sent + 1));
    }
    upkeep.abort();
    useless.abort();

    // A call waits for a list that does not come until its time-out; after a list that failed, no call waits for 30 s.
    for (trouble, waits) in [(Trouble::hang(), 5), (Trouble::overloaded(), 0)] {
        let emulator = Emulator::builder()
            .default_models()
            .trouble(When::always().operation(Operation::ListModels), trouble)
            .build();
        let models = ModelTable::new();
        let lists = ServiceBuilder::new().map_request(keyed).service(emulator.clone());
        let upkeep = tokio::spawn(models.refresh_on_demand(lists));
        tokio::task::yield_now().await;
        let layer = TokenPrecheckLayer::new(models);
        for (wait, lists) in [(waits, 1), (waits, 1)] {
            let begun = Instant::now();
            let response = layer.layer(emulator.clone()).oneshot(misspelt()).await.unwrap();
            assert_eq!((response.status(), begun.elapsed()), (StatusCode::NOT_FOUND, secs(wait)));
            assert_eq!(lists_asked(&emulator), lists);
        }
        // No fetch is under way any more: no call waits.
        upkeep.abort();
        assert!(upkeep.await.is_err());
        let begun = Instant::now();
        layer.layer(emulator.clone()).oneshot(misspelt()).await.unwrap();
        assert_eq!(begun.elapsed(), secs(0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_refused_with_both_numbers() {
    let emulator =
        Emulator::builder().default_models().model(EmulatedModel::new("small").input_token_limit(1_000)).build();
    let layer = by_bytes(listed(&emulator).await);
    // 50 MB are more than 1,048,576 tokens, whatever the text is.
    let failure = refused(&layer, &emulator, text(GENERATE, 51_000_000)).await;
    assert_eq!((failure.kind(), failure.token_limit()), (Kind::ContextTooLong, Some(1_048_576)));
    assert!(failure.token_count().unwrap() > 1_048_576);
    assert!(
        failure.message().contains("(1062500) exceeds the maximum number of tokens allowed (1048576)"),
        "{}",
        failure.message()
    );
    // One byte is never more than a token: nothing is counted.
    passes(&layer, &emulator, text("/v1beta/models/small:generateContent", 800)).await;
    assert_eq!(emulator.count(asked), 0);

    // Counted locally: inline, and on another thread.
    let layer = TokenPrecheckLayer::new(listed(&emulator).await).counter(Quarters);
    let failure = refused(&layer, &emulator, text("/v1beta/models/small:generateContent", 4_400)).await;
    assert_eq!((failure.token_count(), failure.token_limit()), (Some(1_100), Some(1_000)));
    let failure = refused(&layer, &emulator, text(GENERATE, 5_000_000)).await;
    assert_eq!((failure.token_count(), failure.token_limit()), (Some(1_250_000), Some(1_048_576)));
    passes(&layer, &emulator, text(GENERATE, 3_000_000)).await;
    assert_eq!(emulator.count(asked), 0);
}

#[tokio::test(start_paused = true)]
async fn what_nothing_here_decides_the_upstream_counts_once() {
    let emulator = Emulator::builder().model(EmulatedModel::new("small").input_token_limit(1_000)).build();
    let models = listed(&emulator).await;
    let uri = "/v1beta/models/small:streamGenerateContent?alt=sse&prettyPrint=false";
    let layer = by_bytes(models.clone());
    passes(&layer, &emulator, text(uri, 3_000)).await;
    let journal = emulator.journal();
    let question = journal.iter().find(|visit| asked(visit)).unwrap();
    assert_eq!(question.path, "/v1beta/models/small:countTokens");
    // The same request again is in the cache.
    passes(&layer, &emulator, text(uri, 3_000)).await;
    assert_eq!(emulator.count(asked), 1);
    let error = layer.layer(emulator.clone()).oneshot(text(uri, 5_000)).await.map(drop).unwrap_err();
    let failure = Error::find(&*error).unwrap().failure().clone();
    assert_eq!(
        (failure.kind(), failure.token_count(), failure.token_limit()),
        (Kind::ContextTooLong, Some(1_250), Some(1_000))
    );
    assert!(failure.message().contains("counted by countTokens"), "{}", failure.message());
    assert_eq!((emulator.count(asked), emulator.count(|visit| !asked(visit))), (2, 3), "a list, two answers");

    // The upstream is not asked: the request is sent, or refused.
    let never = by_bytes(models.clone()).ask_upstream(AskUpstream::Never);
    let response = never.layer(emulator.clone()).oneshot(text(uri, 5_000)).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let failure = refused(&never.fail_closed(), &emulator, text(uri, 3_000)).await;
    assert_eq!(failure.kind(), Kind::ContextTooLong);
    // The upstream always counts.
    let always = by_bytes(models).ask_upstream(AskUpstream::Always);
    passes(&always, &emulator, text(uri, 40)).await;
    assert_eq!(emulator.count(asked), 3);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_cannot_count_holds_nobody_up() {
    let uri = "/v1beta/models/small:generateContent";
    for (trouble, waits) in [(Trouble::overloaded(), secs(0)), (Trouble::hang(), secs(5)), (Trouble::reset(), secs(0))]
    {
        let emulator = Emulator::builder()
            .model(EmulatedModel::new("small").input_token_limit(1_000))
            .trouble(When::always().operation(Operation::CountTokens), trouble)
            .build();
        let models = listed(&emulator).await;
        let begun = Instant::now();
        passes(&by_bytes(models.clone()), &emulator, text(uri, 3_000)).await;
        assert_eq!(begun.elapsed(), waits);
        let error =
            by_bytes(models.clone()).fail_closed().layer(emulator.clone()).oneshot(text(uri, 3_000)).await.unwrap_err();
        assert_eq!(Error::find(&*error).unwrap().failure().kind(), Kind::ContextTooLong);
        // No call waits past the deadline, nor past the time-out.
        let mut request = text(uri, 3_000);
        CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(Deadline::after(secs(2))));
        let begun = Instant::now();
        passes(&by_bytes(models), &emulator, request).await;
        assert_eq!(begun.elapsed(), waits.min(secs(2)));
    }
}

/// A body that is always ready, so that the time-out is never polled.
#[tokio::test(start_paused = true)]
async fn a_count_that_never_ends_is_given_up() {
    let upstream = service_fn(|request: Request<Full<Bytes>>| async move {
        let endless = futures_util::stream::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::new())));
        Ok::<_, BoxError>(match request.uri().path().ends_with(":countTokens") {
            true => Response::new(support::any(StreamBody::new(endless))),
            false => Response::new(support::any(Full::from(support::HELLO))),
        })
    });
    let models = ModelTable::new();
    models.insert(Model::new("small").with_input_limit(1_000));
    let response = by_bytes(models).layer(upstream).oneshot(text("/v1beta/models/small:generateContent", 3_000)).await;
    assert_eq!(response.unwrap().into_body().collect().await.unwrap().to_bytes(), support::HELLO);
}

#[tokio::test(start_paused = true)]
async fn media_that_cannot_be_counted_is_asked_for_only_near_the_limit() {
    let emulator = Emulator::new();
    let layer = by_bytes(listed(&emulator).await);
    let inline = |mime: &str, bytes: usize| {
        let data = "A".repeat(bytes);
        body(
            GENERATE,
            &format!(
                r#"{{"contents":[{{"parts":[{{"text":"x"}},{{"inlineData":{{"mimeType":"{mime}","data":"{data}"}}}}]}}]}}"#
            ),
        )
    };
    passes(&layer, &emulator, inline("image/png", 20_000_000)).await;
    assert_eq!(emulator.count(asked), 0);
    passes(&layer, &emulator, inline("video/mp4", 20_000)).await;
    passes(&layer, &emulator, inline("application/pdf", 2_000_000)).await;
    let cached = r#"{"cachedContent":"cachedContents/1","contents":[{"parts":[{"text":"x"}]}]}"#;
    let _ = layer.layer(emulator.clone()).oneshot(body(GENERATE, cached)).await.unwrap();
    assert_eq!(emulator.count(asked), 0);
    passes(&layer, &emulator, inline("application/pdf", 8_000_000)).await;
    assert_eq!(emulator.count(asked), 1);
    // A file that is only named may have any length.
    let file = r#"{"contents":[{"parts":[{"fileData":{"mimeType":"video/mp4","fileUri":"files/1"}}]}]}"#;
    let _ = layer.layer(emulator.clone()).oneshot(body(GENERATE, file)).await.unwrap();
    assert_eq!(emulator.count(asked), 2);
}

/// The cost, body and length of each request.
type Sent = Arc<Mutex<Vec<(Option<TokenCost>, String, Option<String>)>>>;

/// An upstream that keeps the requests that it gets, and gives the answer that it is told.
fn recorder(
    answer: impl Fn() -> Response<Full<Bytes>> + Clone + Send + 'static,
) -> (
    impl tower::Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send> + Clone,
    Sent,
) {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = sent.clone();
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let (kept, answer) = (kept.clone(), answer.clone());
        async move {
            let cost = CallContext::of(&request).and_then(CallContext::token_cost);
            let length = request.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await?.to_bytes();
            kept.lock().push((cost, String::from_utf8(body.to_vec())?, length));
            Ok::<_, BoxError>(answer())
        }
    });
    (service, sent)
}

fn hello() -> Response<Full<Bytes>> {
    support::hello().map(|_| Full::from(support::HELLO))
}

#[tokio::test(start_paused = true)]
async fn the_output_limit_is_warned_of_clamped_or_refused() {
    let models = ModelTable::new();
    models.insert(Model::new("m").with_output_limit(65_536).with_input_limit(1_000));
    let uri = "/v1beta/models/m:generateContent";
    let asks = |tokens: &str| {
        let json = format!(
            r#"{{"generationConfig":{{"maxOutputTokens": {tokens}}},"contents":[{{"parts":[{{"text":"x"}}]}}]}}"#
        );
        let mut request = post_body(uri, json.clone());
        request.headers_mut().insert("content-length", json.len().into());
        request
    };
    for (tokens, clamped) in
        [("70000", "65536"), ("0", "1"), ("-5", "1"), ("\"99999\"", "65536"), ("65536", "65536"), ("1", "1")]
    {
        let fine = tokens == clamped;
        for policy in [MaxOutputPolicy::Off, MaxOutputPolicy::Warn, MaxOutputPolicy::Clamp, MaxOutputPolicy::Refuse] {
            let (upstream, sent) = recorder(hello);
            let layer = TokenPrecheckLayer::new(models.clone()).max_output(policy);
            let result = layer.layer(upstream).oneshot(asks(tokens)).await;
            if policy == MaxOutputPolicy::Refuse && !fine {
                let error = result.unwrap_err();
                let failure = Error::find(&*error).unwrap().failure().clone();
                assert_eq!((failure.kind(), sent.lock().len()), (Kind::InvalidRequest, 0));
                assert!(failure.message().contains("1 to 65536"), "{}", failure.message());
                continue;
            }
            result.unwrap();
            let (_, body, length) = sent.lock().pop().unwrap();
            let number = if policy == MaxOutputPolicy::Clamp { clamped } else { tokens };
            assert!(body.contains(&format!("\"maxOutputTokens\": {number}}},")), "{policy:?} {body}");
            assert_eq!(length, Some(body.len().to_string()));
        }
    }
    // One limit for input and output together says nothing of the output alone.
    models.insert(Model::new("m").with_output_limit(65_536).with_shared_limit());
    let (upstream, _) = recorder(hello);
    TokenPrecheckLayer::new(models)
        .max_output(MaxOutputPolicy::Refuse)
        .layer(upstream)
        .oneshot(asks("70000"))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_cost_is_said_exactly_or_as_an_estimate_that_learns() {
    let (upstream, sent) = recorder(|| {
        let answer = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":20000}}"#;
        Response::builder().header(CONTENT_TYPE, "application/json").body(Full::from(answer)).unwrap()
    });
    let upstream = ServiceBuilder::new().layer(ClassifyLayer::new()).service(upstream);
    let layer = TokenPrecheckLayer::default().counter(Quarters);
    let cost = |request| {
        let service = layer.layer(upstream.clone());
        let sent = sent.clone();
        async move {
            let response = service.oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap();
            let (cost, ..) = sent.lock().pop().unwrap();
            let cost = cost.unwrap();
            (cost.tokens, cost.certainty)
        }
    };
    assert_eq!(cost(text(GENERATE, 400)).await, (100, Certainty::AtLeast));
    // Too much to be counted at once, and far from the limit: 100,000 bytes are about 33,000 tokens, and turn out to be
    // 20,000 each time.
    let (first, certainty) = cost(text(GENERATE, 100_000)).await;
    assert!(certainty == Certainty::Estimate && (20_000..40_000).contains(&first), "{first}");
    let (second, _) = cost(text(GENERATE, 100_000)).await;
    assert!((19_900..=20_100).contains(&second), "{second}");
    // Embeddings pay, counting does not.
    assert_eq!(cost(body(EMBED, r#"{"content":{"parts":[{"text":"12345678"}]}}"#)).await, (2, Certainty::AtLeast));
    let count = text("/v1beta/models/gemini-2.5-pro:countTokens", 400);
    layer.layer(upstream.clone()).oneshot(count).await.unwrap();
    assert_eq!(sent.lock().pop().unwrap().0, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_text_teaches_nothing_of_texts() {
    let (upstream, sent) = recorder(|| {
        let answer = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":900000}}"#;
        Response::builder().header(CONTENT_TYPE, "application/json").body(Full::from(answer)).unwrap()
    });
    let upstream = ServiceBuilder::new().layer(ClassifyLayer::new()).service(upstream);
    let layer = by_bytes(ModelTable::new()).ask_upstream(AskUpstream::Never);
    let prose = "abc ".repeat(1_000);
    for besides in [
        r#""cachedContent":"cachedContents/x","#,
        r#""systemInstruction":{"parts":[{"fileData":{"fileUri":"u"}}]},"#,
        r#""contents":[{"parts":[{"fileData":{"mimeType":"video/mp4","fileUri":"u"}}]}],"#,
        "",
    ] {
        let json = format!(r#"{{{besides}"contents":[{{"parts":[{{"text":"{prose}"}}]}}]}}"#);
        let response = layer.layer(upstream.clone()).oneshot(body(GENERATE, &json)).await.unwrap();
        response.into_body().collect().await.unwrap();
        let cost = sent.lock().pop().unwrap().0.unwrap();
        assert!(cost.certainty == Certainty::Estimate && cost.tokens < 2_000, "{besides}: {cost:?}");
    }
    // The cost is at most the number of bytes, whatever the factor is.
    layer.layer(upstream).oneshot(text(GENERATE, 4_000)).await.unwrap();
    assert_eq!(sent.lock().pop().unwrap().0.unwrap().tokens, 4_000);
}

#[tokio::test(start_paused = true)]
async fn a_counter_of_another_vocabulary_is_believed() {
    #[derive(Debug)]
    struct Texts;
    impl CountTokens for Texts {
        fn counter(&self, _: &str) -> Box<dyn TextCounter> {
            Box::new(One(0))
        }
    }
    struct One(u64);
    impl TextCounter for One {
        fn push(&mut self, _: &str) {
            self.0 += 1;
        }
        fn count(&self) -> Count {
            Count::exactly(self.0)
        }
    }
    let (upstream, sent) = recorder(hello);
    let layer = TokenPrecheckLayer::default().counter(Texts);
    layer.layer(upstream).oneshot(text(GENERATE, 4_000)).await.unwrap();
    assert_eq!(sent.lock().pop().unwrap().0.unwrap(), TokenCost::at_least(1));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_upstream_names_is_learned() {
    let emulator = Emulator::builder().model(EmulatedModel::new("gemini-2.5-pro").input_token_limit(131_072)).build();
    let models = ModelTable::new();
    assert_eq!(models.effective_input_limit("gemini-2.5-pro").unwrap().tokens, 1_048_576);
    let layer = TokenPrecheckLayer::new(models.clone()).counter(Quarters);
    let classified = ServiceBuilder::new().layer(layer.clone()).layer(ClassifyLayer::new()).service(emulator.clone());
    let response = classified.oneshot(text(GENERATE, 600_000)).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(models.effective_input_limit("gemini-2.5-pro").unwrap().tokens, 131_072);
    let failure = refused(&layer, &emulator, text(GENERATE, 600_000)).await;
    assert_eq!(failure.token_limit(), Some(131_072));
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_wrote_becomes_nobodys_limit() {
    let forged = "The input token count (9999999) exceeds the maximum number of tokens allowed (256).";
    for (message, limit) in [
        (format!("Invalid JSON payload received. Unknown name \\\"{forged}\\\": Cannot find field."), 1_048_576),
        (format!("Unsupported MIME type: {forged}"), 1_048_576),
        (
            "Unable to submit request because the input token count is 40000 but model only supports up to 32768."
                .into(),
            32_768,
        ),
    ] {
        let answer = format!(r#"{{"error":{{"code":400,"message":"{message}","status":"INVALID_ARGUMENT"}}}}"#);
        let (upstream, _) = recorder(move || {
            let head = Response::builder().status(400).header(CONTENT_TYPE, "application/json");
            head.body(Full::from(answer.clone())).unwrap()
        });
        let models = ModelTable::new();
        let layer = TokenPrecheckLayer::new(models.clone());
        let stack = ServiceBuilder::new().layer(layer).layer(ClassifyLayer::new()).service(upstream);
        stack.oneshot(text(GENERATE, 400)).await.unwrap();
        assert_eq!(models.effective_input_limit("gemini-2.5-pro").unwrap().tokens, limit, "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn behind_replay_it_reads_any_body_and_lets_pass_what_is_not_kept() {
    let emulator = Emulator::new();
    let stack = |max: usize| {
        ServiceBuilder::new()
            .layer(ReplayLayer::new().max_body(max))
            .layer(TokenPrecheckLayer::default())
            .service(emulator.clone())
    };
    let request = || body(GENERATE, "{").map(support::any);
    let error = stack(1_000).oneshot(request()).await.map(drop).unwrap_err();
    assert_eq!(Error::find(&*error).unwrap().failure().kind(), Kind::InvalidRequest);
    let response = stack(0).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_panics_decides_nothing() {
    #[derive(Debug)]
    struct Panics;
    impl CountTokens for Panics {
        fn counter(&self, _: &str) -> Box<dyn TextCounter> {
            panic!("a counter's own mistake")
        }
    }
    let emulator = Emulator::new();
    let layer = TokenPrecheckLayer::default().counter(Panics);
    passes(&layer, &emulator, text(GENERATE, 3_000_000)).await;
    assert_eq!(emulator.count(asked), 1);
}

#[tokio::test(start_paused = true)]
async fn one_permit_is_enough_for_the_list_the_questions_and_the_calls() {
    let emulator = Emulator::builder()
        .default_models()
        .model(EmulatedModel::new("small").input_token_limit(1_000))
        .trouble(When::always(), Trouble::slow(secs(1)))
        .build();
    let permit = ServiceBuilder::new().concurrency_limit(1).map_request(keyed).service(emulator.clone());
    let models = ModelTable::new();
    models.insert(Model::new("small").with_input_limit(1_000));
    let upkeep = tokio::spawn(models.refresh_on_demand(permit.clone()));
    tokio::task::yield_now().await;
    let layer = by_bytes(models).ask_timeout(secs(60));
    let uris = [
        "/v1beta/models/small:generateContent",
        "/v1beta/models/gemini-2.5-flsh:generateContent",
        "/v1beta/models/small:generateContent",
        "/v1beta/models/brand-new:generateContent",
    ];
    let calls = uris.into_iter().zip(3_000..).map(|(uri, bytes)| layer.layer(permit.clone()).oneshot(text(uri, bytes)));
    let statuses = futures_util::future::join_all(calls).await.into_iter().map(|result| match result {
        Ok(response) => response.status(),
        Err(error) => Error::find(&*error).unwrap().failure().code(),
    });
    let (ok, missing) = (StatusCode::OK, StatusCode::NOT_FOUND);
    assert_eq!(statuses.collect::<Vec<_>>(), [ok, missing, ok, missing]);
    // A call that is dropped at any moment returns its permit.
    for waits in [0, 500, 1_500, 2_500] {
        let call = layer.layer(permit.clone()).oneshot(text(uris[0], 3_100 + waits * 4));
        let _ = tokio::time::timeout(Duration::from_millis(waits as u64), call).await;
    }
    passes(&layer, &emulator, text(uris[0], 40)).await;
    let left = layer.layer(permit).oneshot(text(uris[0], 40));
    assert_eq!(tokio::time::timeout(secs(2), left).await.unwrap().unwrap().status(), ok);
    upkeep.abort();
}

#[tokio::test(start_paused = true)]
async fn disabled_it_checks_nothing() {
    let emulator = Emulator::new();
    let response = TokenPrecheckLayer::disabled().layer(emulator.clone()).oneshot(body(GENERATE, "{")).await.unwrap();
    assert_eq!((response.status(), emulator.journal().len()), (StatusCode::BAD_REQUEST, 1));
    assert!(Duration::ZERO.is_zero() && TokenPrecheckLayer::disabled().models().is_none());
}

// === interactions, decisions, responses ===

#[tokio::test(start_paused = true)]
async fn interactions_are_checked_as_other_calls_are() {
    let emulator = Emulator::new();
    let models = listed(&emulator).await;
    models.insert(Model::new("small").with_input_limit(100));
    let layer = by_bytes(models);
    let failure = refused(&layer, &emulator, body(INTERACTIONS, r#"{"model":"gemini-2.5-flsh","input":"x"}"#)).await;
    assert_eq!(failure.kind(), Kind::ModelNotFound);
    assert!(failure.message().contains("Did you mean gemini-2.5-flash?"), "{}", failure.message());
    let failure = refused(&layer, &emulator, body(INTERACTIONS, r#"{"model":"gemini-2.5-flash","input":"#)).await;
    assert!(failure.message().contains("Invalid JSON payload"), "{}", failure.message());
    let embeds = r#"{"model":"gemini-embedding-001","input":"x"}"#;
    let failure = refused(&layer, &emulator, body(INTERACTIONS, embeds)).await;
    assert!(failure.message().contains("is not supported for interactions"), "{}", failure.message());

    let long = "many words ".repeat(1_000);
    for said in [
        format!(r#"{{"model":"small","input":"{long}"}}"#),
        format!(r#"{{"model":"small","input":"x","system_instruction":"{long}"}}"#),
        format!(
            r#"{{"model":"small","input":[{{"type":"user_input","content":[{{"type":"text","text":"{long}"}}]}}]}}"#
        ),
        format!(r#"{{"model":"small","input":[{{"role":"user","content":"{long}"}}],"stream":true}}"#),
    ] {
        let failure = refused(&layer, &emulator, body(INTERACTIONS, &said)).await;
        assert_eq!((failure.kind(), failure.token_limit()), (Kind::ContextTooLong, Some(100)));
    }
    let decision = format!(r#"{{"model":"models/small","input":"{long}","questions":{{}}}}"#);
    assert_eq!(refused(&layer, &emulator, body("/v1/decisions", &decision)).await.kind(), Kind::ContextTooLong);
    let response = format!(r#"{{"model":"small","instructions":"{long}","input":"x"}}"#);
    assert_eq!(
        refused(&layer, &emulator, body("/v1beta/openai/responses", &response)).await.kind(),
        Kind::ContextTooLong
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_of_interactions_is_sent() {
    let emulator = Emulator::new();
    let layer = TokenPrecheckLayer::new(listed(&emulator).await);
    for (uri, said) in [
        // An agent is no model, and goes on from nothing that is seen here.
        (INTERACTIONS, r#"{"agent":"gemini-2.5-flsh","input":"x"}"#),
        (INTERACTIONS, r#"{"model":"gemini-2.5-flash"}"#),
        (INTERACTIONS, r#"{"model":"gemini-2.5-flash","input":[]}"#),
        (INTERACTIONS, r#"{"model":"gemini-2.5-flash","previous_interaction_id":"i"}"#),
        ("/v1/projects/p/locations/l/interactions", r#"{"model":"gemini-2.5-flsh","input":"x"}"#),
        ("/v1/decisions", r#"{"model":"models/gemini-2.5-flash","questions":{}}"#),
        ("/v1beta/openai/responses", r#"{"model":"gemini-2.5-flash","prompt":{"id":"x"}}"#),
    ] {
        let (upstream, sent) = recorder(hello);
        layer.layer(upstream).oneshot(body(uri, said)).await.unwrap();
        assert_eq!(sent.lock().len(), 1, "{uri} {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_an_interaction_is_that_of_its_texts() {
    let models = ModelTable::new();
    let layer = TokenPrecheckLayer::new(models).counter(Quarters).ask_upstream(AskUpstream::Always);
    let text = "abcd".repeat(50);
    let image = "A".repeat(4_000);
    for (uri, said, expected) in [
        (INTERACTIONS, format!(r#"{{"model":"m","input":"{text}"}}"#), TokenCost::at_least(50)),
        ("/v1/decisions", format!(r#"{{"model":"m","input":"{text}","questions":{{}}}}"#), TokenCost::at_least(50)),
        (
            INTERACTIONS,
            format!(
                r#"{{"model":"m","input":[{{"type":"text","text":"{text}"}},{{"type":"image","mime_type":"image/png","data":"{image}"}}]}}"#
            ),
            TokenCost::estimate(50 + 258),
        ),
    ] {
        let (upstream, sent) = recorder(hello);
        layer.layer(upstream).oneshot(body(uri, &said)).await.unwrap();
        // The upstream counts no interaction, and is not asked to.
        let sent = sent.lock();
        assert_eq!(sent.len(), 1, "{uri}");
        assert_eq!(sent[0].0, Some(expected), "{uri}");
    }
}

/// Fills a request up with white space, so that its body is one that is read on another thread.
fn padded(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let body = std::mem::take(request.body_mut());
    let body = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap().to_bytes();
    let padding = " ".repeat(200_000);
    *request.body_mut() = Full::from([&body[..1], padding.as_bytes(), &body[1..]].concat());
    request
}

#[tokio::test(start_paused = true)]
async fn a_large_body_is_judged_as_a_small_one() {
    let emulator = Emulator::builder()
        .default_models()
        .model(EmulatedModel::new("small").input_token_limit(1_000))
        .trouble(When::always().operation(Operation::ListModels), Trouble::slow(secs(1)))
        .build();
    let models = ModelTable::new();
    let lists = ServiceBuilder::new().map_request(keyed).service(emulator.clone());
    let upkeep = tokio::spawn(models.refresh_on_demand(lists));
    tokio::task::yield_now().await;
    let layer = TokenPrecheckLayer::new(models.clone()).counter(Quarters);

    let failure = refused(&layer, &emulator, padded(body(GENERATE, "{\n \"contents\": [}"))).await;
    assert!(failure.message().contains("at line 2, column 15"), "{}", failure.message());
    let failure = refused(&layer, &emulator, padded(body(GENERATE, "{}"))).await;
    assert_eq!(failure.kind(), Kind::InvalidRequest);
    // It waits for the list, once.
    let (begun, sent) = (Instant::now(), emulator.journal().len());
    let misspelt = || padded(text("/v1beta/models/gemini-2.5-flsh:generateContent", 40));
    let error = layer.layer(emulator.clone()).oneshot(misspelt()).await.map(drop).unwrap_err();
    assert_eq!(Error::find(&*error).unwrap().failure().kind(), Kind::ModelNotFound);
    assert_eq!((begun.elapsed(), emulator.journal().len()), (secs(1), sent + 1));
    refused(&layer, &emulator, misspelt()).await;
    upkeep.abort();
    let failure = refused(&layer, &emulator, padded(text("/v1beta/models/small:generateContent", 4_400))).await;
    assert_eq!((failure.token_count(), failure.token_limit()), (Some(1_100), Some(1_000)));

    // And costs as much.
    let (upstream, sent) = recorder(hello);
    for request in [text(GENERATE, 400), padded(text(GENERATE, 400)), padded(text(STREAM, 60_000))] {
        layer.layer(upstream.clone()).oneshot(request).await.unwrap();
    }
    let costs: Vec<_> = sent.lock().iter().map(|(cost, ..)| cost.unwrap()).collect();
    assert_eq!(costs, [100, 100, 15_000].map(TokenCost::at_least));
}

#[tokio::test(start_paused = true)]
async fn a_large_body_is_counted_upstream_once_and_one_permit_is_enough() {
    let emulator = Emulator::builder().model(EmulatedModel::new("small").input_token_limit(1_000)).build();
    let layer = by_bytes(listed(&emulator).await);
    let permit = ServiceBuilder::new().concurrency_limit(1).service(emulator.clone());
    let ask = |bytes| layer.layer(permit.clone()).oneshot(padded(text("/v1beta/models/small:generateContent", bytes)));
    for response in futures_util::future::join_all([ask(3_000), ask(3_400)]).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(emulator.count(asked), 2);
    assert_eq!(ask(3_000).await.unwrap().status(), StatusCode::OK);
    assert_eq!(emulator.count(asked), 2, "in the cache");
    let error = ask(5_000).await.map(drop).unwrap_err();
    assert_eq!(Error::find(&*error).unwrap().failure().token_count(), Some(1_250));
    // A call that is dropped while another thread reads or hashes leaves the permit to others.
    for polls in 1..6 {
        let mut call = Box::pin(ask(3_600));
        for _ in 0..polls {
            let _ = futures_util::poll!(&mut call);
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(ask(3_000).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_too_many_values_is_sent_unread_and_costs_its_bytes_or_is_refused() {
    let models = ModelTable::new();
    models.insert(Model::new("m").with_input_limit(1_000));
    let layer = by_bytes(models).ask_upstream(AskUpstream::Always);
    let json = format!(r#"{{"contents":[{}{{}}]}}"#, "{},".repeat(ReplayLayer::MAX_VALUES));
    let request = || body("/v1beta/models/m:generateContent", &json);
    let (upstream, sent) = recorder(hello);
    layer.layer(upstream.clone()).oneshot(request()).await.unwrap();
    let (cost, text, _) = sent.lock().pop().unwrap();
    assert_eq!(cost, Some(TokenCost::estimate(json.len() as u64)));
    assert!(text == json && sent.lock().is_empty(), "the upstream is not asked to count it");

    let emulator = Emulator::new();
    let failure = refused(&layer.fail_closed(), &emulator, request()).await;
    assert_eq!(failure.kind(), Kind::ContextTooLong);
    assert!(failure.message().contains("more than 1048576 values"), "{}", failure.message());
}

/// A counter that counts how often it is asked for.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<AtomicUsize>);

impl CountTokens for Asked {
    fn counter(&self, model: &str) -> Box<dyn TextCounter> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Quarters.counter(model)
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_counts_while_no_limit_depends_on_tokens() {
    let quota = || CallerQuota::new().requests_per_minute(100);
    let price = Price::new(Money::dollars(1), Money::dollars(1));
    for (limits, quota, counts) in [
        (Limits::new(), quota(), false),
        (Limits::new().requests_per_minute(100), quota(), false),
        (Limits::new().input_tokens_per_minute(1_000_000), quota(), true),
        (Limits::new(), quota().input_tokens_per_minute(1_000_000), true),
        (Limits::new(), quota().money_per_day(Money::dollars(9)), true),
        (Limits::new(), quota().limits_for_model("gemini-2.5-pro", quota().tokens_per_day(1_000_000)), true),
        (Limits::new(), quota().limits_for_model("other", quota().tokens_per_day(1_000_000)), false),
    ] {
        let what = format!("{limits:?} {quota:?}");
        let limiter = Limiter::builder().limits(limits).build();
        let key = |project: &str| Key::new(ApiKey::new(format!("AIza-nobodys-{project}")).unwrap()).project(project);
        let pool = KeyPool::builder().cache_affinity(None).key(key("p1")).key(key("p2"));
        let pool = pool.headroom(limiter.clone()).build().unwrap();
        let callers =
            CallerLimits::builder().others(quota).prices(Prices::builder().model("gemini-2.5-pro", price).build());
        let counter = Asked::default();
        let upstream = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(hello()) });
        let service = ServiceBuilder::new()
            .layer(TokenPrecheckLayer::default().counter(counter.clone()))
            .layer(CallerLimitLayer::new(callers.build().unwrap()))
            .layer(KeyPoolLayer::new(pool))
            .layer(RateLimitLayer::new(limiter))
            .service(upstream);
        for _ in 0..4 {
            let mut request = text(GENERATE, 3_000);
            CallContext::update(request.extensions_mut(), |context| context.set_caller("app"));
            service.clone().oneshot(request).await.unwrap();
        }
        assert_eq!(counter.0.load(Ordering::Relaxed) > 0, counts, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_is_not_charged_by_its_bytes_where_nobody_counts() {
    let (counter, limiter) = (Asked::default(), Limiter::new());
    let upstream = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(hello()) });
    let service = ServiceBuilder::new()
        .layer(TokenPrecheckLayer::default().counter(counter.clone()))
        .layer(RateLimitLayer::new(limiter.clone()))
        .service(upstream);
    let image = r#"{"contents":[{"parts":[{"text":"TEXT"},{"inlineData":{"mimeType":"image/heic","data":"DATA"}}]}]}"#;
    let image = image.replace("TEXT", &"abc ".repeat(300)).replace("DATA", &"A".repeat(100_000));
    let response = service.oneshot(body(GENERATE, &image)).await.unwrap();
    let used = limiter.snapshot()[0].dimensions[1];
    assert_eq!((used.used, used.limit, counter.0.load(Ordering::Relaxed)), (1_200 / 3 + 258, None, 0));
    drop(response);
}
