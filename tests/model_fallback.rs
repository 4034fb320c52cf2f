//! The layer alone, over an upstream that does as it is told.

mod support;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use parking_lot::Mutex;
use support::*;
use tokio::{sync::Semaphore, time::advance};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, Error, ModelFallbackLayer, Outcome,
    call::{Operation, ServiceTier},
    classify::Classify,
    context::Deadline,
    failure::{Failure, Kind, TimeoutKind},
    model_fallback::{FallbackChains, FallbackChainsBuilder, FallbackModel, FallbackReason, ModelFallback, ModelUsed},
};

const PRO: &str = "gemini-2.5-pro";
const FLASH: &str = "gemini-2.5-flash";
const LITE: &str = "gemini-2.5-flash-lite";
const NEXT: [&str; 2] = [FLASH, LITE];

// === the scene ===

/// An upstream of several models, each of which answers until it is told otherwise. All clones are the same.
#[derive(Clone)]
struct Models {
    moods: Arc<Mutex<Vec<(&'static str, Mood)>>>,
    upstream: Upstream,
}

#[derive(Clone)]
enum Mood {
    Fails(Failure),
    Refuses(Failure),
    Answers(fn() -> Response<AnyBody>),
    Hangs,
}

impl Models {
    fn new() -> Self {
        let moods = Arc::<Mutex<Vec<(&'static str, Mood)>>>::default();
        let known = moods.clone();
        let upstream = Upstream::new(move |_, asked| {
            let model = model_of(&asked);
            let mood = known.lock().iter().rev().find(|(name, _)| *name == model).map(|(_, mood)| mood.clone());
            async move {
                match mood.unwrap_or(Mood::Answers(hello)) {
                    Mood::Fails(failure) => {
                        let mut answer = judged(json(failure.code().as_u16(), BUSY), failure);
                        answer.headers_mut().insert("x-of", HeaderValue::from_str(&model).unwrap());
                        Ok(answer)
                    }
                    Mood::Refuses(failure) => {
                        let error = Error::refusal("tests", failure);
                        Err(error.map_outcome(|outcome| outcome.with_sent(false)).into())
                    }
                    Mood::Answers(answer) => Ok(answer()),
                    Mood::Hangs => pending().await,
                }
            }
        });
        Self { moods, upstream }
    }

    fn is(&self, model: &'static str, mood: Mood) -> &Self {
        self.moods.lock().push((model, mood));
        self
    }

    fn fails(&self, model: &'static str, kind: Kind) -> &Self {
        self.is(model, Mood::Fails(Failure::local(kind, "no")))
    }

    fn refuses(&self, model: &'static str, kind: Kind) -> &Self {
        self.is(model, Mood::Refuses(Failure::local(kind, "no")))
    }

    fn answers(&self, model: &'static str) -> &Self {
        self.is(model, Mood::Answers(hello))
    }

    /// The models that were asked since the last time, in their order.
    fn asked(&self) -> Vec<String> {
        let mut seen = self.upstream.asked();
        let from = seen.iter().rposition(|asked| asked.uri.path() == "/seen").map_or(0, |at| at + 1);
        seen.drain(..from);
        seen.iter().map(model_of).collect()
    }

    /// Returns the models that were asked since the last time, and marks the place.
    async fn seen(&self) -> Vec<String> {
        let asked = self.asked();
        self.upstream.clone().oneshot(post("/seen")).await.unwrap();
        asked
    }
}

/// The model that was asked, by path or by body.
fn model_of(asked: &Asked) -> String {
    let by_path = asked.uri.path().rsplit_once("models/").map(|(_, rest)| rest.split(':').next().unwrap().to_owned());
    by_path.unwrap_or_else(|| {
        let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        body["model"].as_str().unwrap_or_default().rsplit('/').next().unwrap().to_owned()
    })
}

type Moving = ModelFallback<Upstream>;

fn chains() -> FallbackChainsBuilder {
    FallbackChains::builder().chain(PRO, NEXT)
}

fn over(models: &Models, chains: FallbackChainsBuilder) -> (Moving, FallbackChains) {
    let chains = chains.build().unwrap();
    (ModelFallbackLayer::new(chains.clone()).layer(models.upstream.clone()), chains)
}

async fn call(service: &Moving) -> Answer {
    service.clone().oneshot(post(GENERATE)).await
}

/// The model that the header names.
fn said(answer: &Answer) -> &str {
    answer.as_ref().unwrap().headers().get("x-gemini-model").map_or("", |name| name.to_str().unwrap())
}

fn current(chains: &FallbackChains) -> String {
    chains.snapshot()[0].current().to_owned()
}

/// Pro is down, Flash has answered, and the chain stays with Flash.
async fn stuck(models: &Models, service: &Moving) {
    models.fails(PRO, Kind::Overloaded);
    assert_eq!(said(&call(service).await), FLASH);
    models.seen().await;
}

// === moving ===

#[tokio::test(start_paused = true)]
async fn a_model_that_is_down_is_replaced_and_the_answer_says_so() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    models.fails(PRO, Kind::Overloaded);
    let answer = call(&service).await;
    assert_eq!(said(&answer), FLASH);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), OK);
    let used = answer.extensions().get::<ModelUsed>().unwrap();
    assert_eq!((used.asked(), used.used(), used.is_other()), (PRO, FLASH, true));
    let outcome = outcome(&answer);
    assert_eq!((outcome.model(), outcome.attempts()), (Some(FLASH), 2));
    assert!(outcome.failure().is_none() && outcome.was_sent());
    assert_eq!(read(answer.into_body()).await, HELLO);
    assert_eq!(models.asked(), [PRO, FLASH]);

    let asked = models.upstream.asked();
    let contexts: Vec<_> = asked.iter().map(|asked| asked.context.clone().unwrap()).collect();
    assert_eq!(contexts.iter().map(CallContext::models_left).collect::<Vec<_>>(), [2, 1]);
    assert_eq!((contexts[0].attempt(), contexts[1].attempt()), (0, 1));
    let call = contexts[1].call().unwrap();
    assert_eq!((call.model(), call.operation()), (Some(FLASH), Operation::GenerateContent));
    assert_eq!(asked[1].uri, "/v1beta/models/gemini-2.5-flash:generateContent");
    assert_eq!(asked[0].body, asked[1].body);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_first_choice_says_whose_it_is() {
    let models = Models::new();
    let (service, chains) = over(&models, chains());
    let answer = call(&service).await;
    assert_eq!(said(&answer), PRO);
    let answer = answer.unwrap();
    let used = answer.extensions().get::<ModelUsed>().unwrap();
    assert_eq!((used.asked(), used.used(), used.is_other()), (PRO, PRO, false));
    assert!(answer.extensions().get::<Outcome>().is_none(), "nothing else is to be said");
    assert_eq!(models.asked(), [PRO]);
    let report = &chains.snapshot()[0];
    assert_eq!((report.model(), report.current(), report.away_for()), (PRO, PRO, None));
}

#[tokio::test(start_paused = true)]
async fn if_nobody_answers_the_first_failure_goes_back_with_all_attempts() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    models.fails(PRO, Kind::Overloaded).fails(FLASH, Kind::ServerError).refuses(LITE, Kind::CircuitOpen);
    let answer = call(&service).await;
    assert_eq!(said(&answer), PRO);
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-of"].to_str().unwrap()), (503, PRO));
    let outcome = outcome(&answer);
    assert_eq!((outcome.attempts(), outcome.model()), (2, Some(PRO)));
    assert_eq!(outcome.failure().unwrap().kind(), Kind::Overloaded);
    assert_eq!(answer.extensions().get::<ModelUsed>().unwrap().used(), PRO);
    assert_eq!(models.asked(), [PRO, FLASH, LITE]);
    assert_eq!(models.upstream.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_failure_that_is_an_error_goes_back_as_one() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    models.refuses(PRO, Kind::CircuitOpen).fails(FLASH, Kind::Overloaded).fails(LITE, Kind::Overloaded);
    let error = call(&service).await.unwrap_err();
    let error = find(&error);
    assert!(error.is_circuit_open());
    assert_eq!(error.layer(), "tests");
    let outcome = error.outcome();
    assert_eq!((outcome.attempts(), outcome.model(), outcome.was_sent()), (2, Some(PRO), true));
    assert!(!error.never_sent(), "something was sent, if not to that model");
}

#[tokio::test(start_paused = true)]
async fn each_reason_moves_a_call_unless_it_is_off() {
    let reasons = [
        (FallbackReason::Model, Kind::Overloaded, true),
        (FallbackReason::Model, Kind::Capacity, true),
        (FallbackReason::Service, Kind::ServerError, true),
        (FallbackReason::Service, Kind::EmptyResponse, true),
        (FallbackReason::Timeout, Kind::Timeout(TimeoutKind::Attempt), true),
        (FallbackReason::Timeout, Kind::Timeout(TimeoutKind::FirstContent), true),
        (FallbackReason::CircuitOpen, Kind::CircuitOpen, true),
        (FallbackReason::QuotaDay, Kind::QuotaDay, true),
        (FallbackReason::QuotaZero, Kind::QuotaZero, true),
        (FallbackReason::KeysExhausted, Kind::KeysExhausted, true),
        (FallbackReason::QuotaMinute, Kind::QuotaMinute, false),
        (FallbackReason::RateLimited, Kind::RateLimited, false),
        (FallbackReason::ModelNotFound, Kind::ModelNotFound, false),
    ];
    for (reason, kind, by_default) in reasons {
        for (settings, moves) in
            [(chains(), by_default), (chains().on(reason, true), true), (chains().on(reason, false), false)]
        {
            let models = Models::new();
            let (service, _) = over(&models, settings);
            models.refuses(PRO, kind);
            let answer = call(&service).await;
            assert_eq!(answer.is_ok(), moves, "{reason} {kind}");
            assert_eq!(models.asked().len(), 1 + usize::from(moves), "{reason} {kind}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_other_model_cures_goes_straight_back() {
    let kinds = [
        Kind::InvalidRequest,
        Kind::ContextTooLong,
        Kind::PayloadTooLarge,
        Kind::LargerThanQuota,
        Kind::ContentBlocked,
        Kind::PathNotFound,
        Kind::ResourceNotAccessible,
        Kind::AuthKeyInvalid,
        Kind::PermissionDenied,
        Kind::Connect,
        Kind::NotSent,
        Kind::Reset,
        Kind::Timeout(TimeoutKind::Total),
        Kind::KeysDisabled,
        Kind::BodyTooLarge,
    ];
    for kind in kinds {
        let models = Models::new();
        let (service, _) = over(&models, chains());
        models.fails(PRO, kind);
        let answer = call(&service).await;
        assert_eq!(said(&answer), PRO);
        let outcome = outcome(&answer.unwrap());
        assert_eq!((outcome.failure().unwrap().kind(), outcome.attempts()), (kind, 0), "nobody has counted");
        assert_eq!(models.asked(), [PRO], "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_on_the_content_is_an_answer() {
    fn blocked() -> Response<AnyBody> {
        judged(json(200, "{}"), Failure::local(Kind::ContentBlocked, "SAFETY"))
    }
    let models = Models::new();
    let (service, chains) = over(&models, chains());
    models.is(PRO, Mood::Answers(blocked));
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(models.seen().await, [PRO]);
    models.fails(PRO, Kind::Overloaded).is(FLASH, Mood::Answers(blocked));
    let answer = call(&service).await;
    assert_eq!(said(&answer), FLASH);
    assert_eq!(outcome(&answer.unwrap()).failure().unwrap().kind(), Kind::ContentBlocked);
    assert_eq!(models.asked(), [PRO, FLASH]);
    assert_eq!(current(&chains), FLASH);
}

#[tokio::test(start_paused = true)]
async fn after_the_commit_or_the_deadline_nobody_is_asked() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    models.is(PRO, Mood::Fails(Failure::local(Kind::Overloaded, "late").into_after_commit()));
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(models.seen().await, [PRO]);

    models.fails(PRO, Kind::Overloaded);
    let mut request = post(GENERATE);
    let deadline = Deadline::after(secs(5));
    CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(deadline));
    let copy = request.clone();
    assert_eq!(said(&service.clone().oneshot(request).await), FLASH);
    let context = models.upstream.asked().last().unwrap().context.clone().unwrap();
    assert_eq!(context.deadline(), Some(deadline), "it goes on for the next model");
    models.seen().await;

    let (service, _) = over(&models, chains());
    advance(secs(5)).await;
    assert_eq!(said(&service.clone().oneshot(copy).await), PRO);
    assert_eq!(models.asked(), [PRO]);
}

#[tokio::test(start_paused = true)]
async fn a_next_model_that_does_not_take_the_request_is_skipped() {
    for (kind, sent) in [
        (Kind::ContextTooLong, false),
        (Kind::InvalidRequest, false),
        (Kind::ContextTooLong, true),
        (Kind::ModelNotFound, true),
    ] {
        let models = Models::new();
        let (service, chains) = over(&models, chains());
        models.fails(PRO, Kind::Overloaded);
        let flash = if sent { Mood::Fails } else { Mood::Refuses };
        models.is(FLASH, flash(Failure::local(kind, "not for me")));
        let answer = call(&service).await;
        assert_eq!(said(&answer), LITE, "{kind}");
        assert_eq!(outcome(&answer.unwrap()).attempts(), 2 + u32::from(sent));
        assert_eq!(models.seen().await, [PRO, FLASH, LITE]);
        assert_eq!(current(&chains), LITE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_another_model_calls_wrong_goes_no_further() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    models.fails(PRO, Kind::Overloaded).fails(FLASH, Kind::InvalidRequest);
    let answer = call(&service).await;
    assert_eq!(said(&answer), PRO);
    assert_eq!(outcome(&answer.unwrap()).failure().unwrap().kind(), Kind::Overloaded);
    assert_eq!(models.asked(), [PRO, FLASH]);
}

#[tokio::test(start_paused = true)]
async fn too_long_a_context_goes_to_larger_models_only_and_sticks_nowhere() {
    let models = Models::new();
    let settings = chains().larger(PRO, ["gemini-4-argon", FLASH, "gemini-4-carbon"]).larger("gemma-3", [PRO]);
    let (service, chains) = over(&models, settings.clone());
    models.fails(PRO, Kind::ContextTooLong);
    assert_eq!(said(&call(&service).await), "gemini-4-argon");
    assert_eq!(models.seen().await, [PRO, "gemini-4-argon"]);
    assert_eq!(current(&chains), PRO);

    models.fails("gemini-4-argon", Kind::Overloaded).refuses(FLASH, Kind::ContextTooLong);
    assert_eq!(said(&call(&service).await), "gemini-4-carbon");
    assert_eq!(models.seen().await, [PRO, "gemini-4-argon", FLASH, "gemini-4-carbon"]);

    // Another failure does not lead there.
    models.fails(PRO, Kind::Overloaded).fails(FLASH, Kind::Overloaded);
    assert_eq!(said(&call(&service).await), LITE);
    assert_eq!(models.seen().await, [PRO, FLASH, LITE]);

    // The same while the chain stays with a fallback; and each model is asked once.
    models.fails(PRO, Kind::ContextTooLong).answers(FLASH);
    models.fails(LITE, Kind::Overloaded);
    assert_eq!(said(&call(&service).await), FLASH);
    assert_eq!(models.seen().await, [LITE, PRO, "gemini-4-argon", FLASH]);
    assert_eq!(current(&chains), LITE, "what is larger is nowhere to stay");
    models.fails(FLASH, Kind::EmptyResponse).fails(PRO, Kind::Overloaded);
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(models.seen().await, [LITE, PRO, FLASH]);
    let (service, chains) = over(&models, settings);
    models.answers(FLASH);
    stuck(&models, &service).await;
    models.fails(FLASH, Kind::Overloaded).fails(PRO, Kind::ContextTooLong);
    assert_eq!(said(&call(&service).await), "gemini-4-carbon");
    assert_eq!(models.seen().await, [FLASH, LITE, PRO, "gemini-4-argon", "gemini-4-carbon"]);
    assert_eq!(current(&chains), FLASH);

    let gemma = "/v1beta/models/gemma-3:generateContent";
    models.answers(PRO).refuses("gemma-3", Kind::ContextTooLong);
    let answer = service.clone().oneshot(post(gemma)).await;
    assert_eq!(said(&answer), PRO);
    assert_eq!(models.seen().await, ["gemma-3", PRO]);
    models.fails("gemma-3", Kind::Overloaded);
    let answer = service.clone().oneshot(post(gemma)).await;
    assert_eq!(said(&answer), "gemma-3");
    assert_eq!(models.asked(), ["gemma-3"]);
}

// === what is never moved ===

#[tokio::test(start_paused = true)]
async fn what_has_no_chain_passes_as_if_the_layer_were_not_there() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    models.fails(PRO, Kind::Overloaded).fails("gemini-embedding-001", Kind::Overloaded);
    models.fails("gemini-2.0-flash", Kind::Overloaded);
    for uri in [
        "/v1beta/models/gemini-2.5-pro:countTokens",
        "/v1beta/models/gemini-2.5-pro:embedContent",
        "/v1beta/models/gemini-2.5-pro:batchGenerateContent",
        "/v1beta/models/gemini-2.0-flash:generateContent",
        "/v1beta/models/gemini-embedding-001:embedContent",
        "/v1beta/tunedModels/gemini-2.5-pro:generateContent",
        "/v1beta/interactions/i1:cancel",
        "/v1beta/openai/embeddings",
        "/elsewhere",
    ] {
        let body = r#"{"model": "gemini-2.5-pro", "input": "x"}"#;
        let answer = service.clone().oneshot(post_body(uri, body)).await.unwrap();
        assert!(!answer.headers().contains_key("x-gemini-model"), "{uri}");
        assert!(answer.extensions().get::<ModelUsed>().is_none(), "{uri}");
        let asked = models.upstream.asked();
        let last = asked.last().unwrap();
        assert_eq!((last.uri.to_string(), last.context.is_none()), (uri.to_owned(), true), "{uri}");
    }
    assert_eq!(models.upstream.calls(), 9, "each was sent once");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_streams_goes_straight_through() {
    let models = Models::new();
    let service = tower::ServiceBuilder::new()
        .layer(tower_gemini::ReplayLayer::new().max_body(4))
        .layer(ModelFallbackLayer::new(chains().build().unwrap()))
        .service(models.upstream.clone());
    models.fails(PRO, Kind::Overloaded);
    let answer = service.oneshot(post(GENERATE)).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(!answer.headers().contains_key("x-gemini-model"));
    assert_eq!(models.asked(), [PRO]);
    assert_eq!(models.upstream.asked()[0].context.as_ref().unwrap().models_left(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_names_a_resource_stays_with_its_model_and_has_all_attempts_there() {
    let file = r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://generativelanguage.googleapis.com/v1beta/files/abc"}}]}]}"#;
    let cached = r#"{"cached_content":"cachedContents/x","contents":[]}"#;
    let movable = r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://youtu.be/abc"}}]}]}"#;
    let models = Models::new();
    let (service, _) = over(&models, chains());
    stuck(&models, &service).await;
    for body in [file, cached] {
        let answer = service.clone().oneshot(post_body(GENERATE, body)).await;
        assert_eq!(said(&answer), PRO, "{body}");
        assert_eq!(answer.unwrap().status(), 503);
        assert_eq!(models.seen().await, [PRO], "{body}");
        let asked = models.upstream.asked();
        let context = asked[asked.len() - 2].context.clone();
        assert_eq!(context.map_or(0, |context| context.models_left()), 0);
    }
    assert_eq!(said(&service.clone().oneshot(post_body(GENERATE, movable)).await), FLASH);
    assert_eq!(models.seen().await, [FLASH]);

    // A body that cannot be read may name a resource.
    for (encoding, model) in [("gzip", PRO), ("identity", FLASH)] {
        let mut request = post(GENERATE);
        request.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        assert_eq!(said(&service.clone().oneshot(request).await), model);
    }
}

#[tokio::test(start_paused = true)]
async fn a_disabled_layer_moves_nothing() {
    let models = Models::new();
    models.fails(PRO, Kind::Overloaded);
    let layer = ModelFallbackLayer::disabled();
    assert!(layer.chains().is_none());
    let answer = layer.layer(models.upstream.clone()).oneshot(post(GENERATE)).await.unwrap();
    assert!(!answer.headers().contains_key("x-gemini-model"));
    assert_eq!(models.asked(), [PRO]);
}

// === what is rewritten ===

#[tokio::test(start_paused = true)]
async fn the_path_is_rewritten_on_every_surface_and_nothing_else() {
    for (uri, moved) in [
        (STREAM, "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        (ARRAY, "/v1beta/models/gemini-2.5-flash:streamGenerateContent"),
        (
            "https://aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent?x=1",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:generateContent?x=1",
        ),
    ] {
        let models = Models::new();
        let (service, _) = over(&models, chains());
        models.fails(PRO, Kind::Overloaded);
        let mut request = post(uri);
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(PROMPT.len()));
        request.headers_mut().append("x-two", HeaderValue::from_static("1"));
        request.headers_mut().append("x-two", HeaderValue::from_static("2"));
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers().clone();
        assert_eq!(said(&service.clone().oneshot(request).await), FLASH);
        let asked = models.upstream.asked();
        assert_eq!((asked[0].uri.to_string(), asked[1].uri.to_string()), (uri.to_owned(), moved.to_owned()));
        assert_eq!((&asked[1].headers, &asked[1].body[..]), (&headers, PROMPT.as_bytes()));
        assert_eq!((&asked[0].headers, &asked[0].body[..]), (&headers, PROMPT.as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_model_in_a_body_is_rewritten_and_the_length_with_it() {
    let body = r#"{ "messages": [{"role":"user","content":"gemini-2.5-pro"}], "model": "models/gemini-2.5-pro" , "stream":true, "x": 1.10}"#;
    let moved = body.replace(r#""models/gemini-2.5-pro""#, r#""models/gemini-2.5-flash""#);
    for with_length in [true, false] {
        let models = Models::new();
        let (service, _) = over(&models, chains());
        models.fails(PRO, Kind::Overloaded);
        let mut request = post_body(CHAT, body);
        if with_length {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        assert_eq!(said(&service.clone().oneshot(request).await), FLASH);
        let asked = models.upstream.asked();
        assert_eq!((&asked[0].body[..], &asked[1].body[..]), (body.as_bytes(), moved.as_bytes()));
        let length = asked[1].headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(length, with_length.then(|| moved.len().to_string()));
        assert_eq!(asked[1].uri, CHAT);
        let call = asked[1].context.clone().unwrap().call().unwrap().clone();
        assert_eq!((call.model(), call.streaming()), (Some(FLASH), tower_gemini::call::Streaming::Sse));

        // While the chain stays with a fallback, the first request is rewritten, and the first choice gets it as it came.
        models.fails(FLASH, Kind::Overloaded).fails(LITE, Kind::Overloaded).answers(PRO);
        assert_eq!(said(&service.clone().oneshot(post_body(CHAT, body)).await), PRO);
        let asked = models.upstream.asked();
        assert_eq!(&asked[2].body[..], moved.as_bytes());
        assert_eq!(&asked[4].body[..], body.as_bytes());
        assert_eq!(asked[4].context.as_ref().unwrap().call().unwrap().model(), Some(PRO));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_next_model_rejects_makes_it_skipped_or_is_stripped() {
    let asked_for = "/v1beta/models/gemini-3-pro-preview:generateContent";
    let body = r#"{"contents":[{"parts":[{"text":"a","thoughtSignature":"c2ln"}]}],"generationConfig":{"thinkingConfig":{"thinkingLevel":"low"}}}"#;
    let stripped = r#"{"contents":[{"parts":[{"text":"a"}]}],"generationConfig":{"thinkingConfig":{}}}"#;
    let settings = || FallbackChains::builder().chain("gemini-3-pro-preview", [PRO, "gemini-3-flash-preview"]);
    for (settings, to, body_there) in [
        (settings(), "gemini-3-flash-preview", body),
        (settings().strip(false), "gemini-3-flash-preview", body),
        (settings().strip(true), PRO, stripped),
    ] {
        let models = Models::new();
        let (service, chains) = over(&models, settings);
        models.fails("gemini-3-pro-preview", Kind::Overloaded);
        let mut request = post_body(asked_for, body);
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let again = request.clone();
        assert_eq!(said(&service.clone().oneshot(request).await), to);
        let asked = models.upstream.asked();
        assert_eq!(models.seen().await, ["gemini-3-pro-preview", to]);
        assert_eq!(&asked[1].body[..], body_there.as_bytes());
        assert_eq!(asked[1].headers[header::CONTENT_LENGTH], body_there.len().to_string());
        // The same while the chain stays with a fallback; and a plain request goes to that fallback.
        assert_eq!(said(&service.clone().oneshot(again).await), to);
        assert_eq!(models.seen().await, [to]);
        assert_eq!(current(&chains), to);
    }
}

#[tokio::test(start_paused = true)]
async fn if_every_next_model_would_reject_it_the_failure_goes_back() {
    let models = Models::new();
    let (service, _) = over(&models, FallbackChains::builder().chain(PRO, ["gemini-3-flash-preview"]).strip(true));
    models.fails(PRO, Kind::Overloaded);
    let body = r#"{"contents":[{"parts":[{"functionCall":{"name":"f"}}]}]}"#;
    let answer = service.clone().oneshot(post_body(GENERATE, body)).await;
    assert_eq!(said(&answer), PRO);
    assert_eq!(outcome(&answer.unwrap()).attempts(), 0, "it was not moved: nobody has counted");
    assert_eq!(models.seen().await, [PRO]);

    // While the chain stays with that model, the first choice is asked, with all attempts.
    assert_eq!(said(&call(&service).await), "gemini-3-flash-preview");
    models.seen().await;
    assert_eq!(said(&service.clone().oneshot(post_body(GENERATE, body)).await), PRO);
    assert_eq!(models.asked(), [PRO]);
}

// === staying ===

#[tokio::test(start_paused = true)]
async fn it_stays_on_the_fallback_for_30_s_and_then_one_call_probes() {
    let models = Models::new();
    let (service, chains) = over(&models, chains());
    stuck(&models, &service).await;
    for _ in 0..29 {
        advance(secs(1)).await;
        let answer = call(&service).await;
        assert_eq!(said(&answer), FLASH);
        let outcome = outcome(&answer.unwrap());
        assert_eq!((outcome.model(), outcome.attempts()), (Some(FLASH), 0), "nobody has counted");
    }
    assert_eq!(models.seen().await, [FLASH; 29]);
    let report = &chains.snapshot()[0];
    assert_eq!((report.current(), report.away_for()), (FLASH, Some(secs(29))));
    let contexts = models.upstream.asked();
    assert_eq!(contexts[3].context.as_ref().unwrap().models_left(), 2, "the first choice comes last");

    // One probe, however many calls come meanwhile.
    advance(secs(1)).await;
    models.is(PRO, Mood::Hangs);
    let mut probe = tokio_test::task::spawn(call(&service));
    assert!(probe.poll().is_pending());
    for _ in 0..5 {
        assert_eq!(said(&call(&service).await), FLASH);
    }
    assert_eq!(models.seen().await[0], PRO);

    // The probe is dropped, and the next call takes its place at once; a failure renews the 30 s.
    drop(probe);
    assert_eq!(models.upstream.in_flight(), 0);
    models.fails(PRO, Kind::Overloaded);
    assert_eq!(said(&call(&service).await), FLASH);
    assert_eq!(models.seen().await, [PRO, FLASH]);
    advance(secs(30) - millis(1)).await;
    assert_eq!(said(&call(&service).await), FLASH);
    assert_eq!(models.seen().await, [FLASH]);

    advance(millis(1)).await;
    models.answers(PRO);
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(models.asked(), [PRO, PRO]);
    assert_eq!((chains.snapshot()[0].current(), chains.snapshot()[0].away_for()), (PRO, None));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_or_proves_nothing_leaves_its_place_to_the_next() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    stuck(&models, &service).await;
    advance(secs(30)).await;
    models.fails(PRO, Kind::InvalidRequest);
    assert_eq!(said(&call(&service).await), PRO, "the caller's own mistake");
    models.fails(PRO, Kind::EmptyResponse);
    assert_eq!(said(&call(&service).await), FLASH);
    models.is(PRO, Mood::Answers(|| panic!("on purpose")));
    assert!(std::panic::AssertUnwindSafe(call(&service)).catch_unwind().await.is_err());
    models.answers(PRO);
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(models.asked(), [PRO, PRO, FLASH, PRO, PRO]);
}

#[tokio::test(start_paused = true)]
async fn while_it_stays_a_fallback_that_is_down_finds_a_first_choice_that_is_back() {
    let models = Models::new();
    let (service, chains) = over(&models, chains());
    stuck(&models, &service).await;
    models.fails(FLASH, Kind::Overloaded);
    assert_eq!(said(&call(&service).await), LITE);
    assert_eq!(models.seen().await, [FLASH, LITE]);
    assert_eq!(current(&chains), LITE);
    models.fails(LITE, Kind::Overloaded).answers(PRO);
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(models.seen().await, [LITE, PRO]);
    assert_eq!(current(&chains), PRO);

    // All are down: the caller gets the failure of the model that it asked for.
    stuck(&models, &{
        models.answers(FLASH);
        service.clone()
    })
    .await;
    models.fails(FLASH, Kind::ServerError).refuses(PRO, Kind::CircuitOpen);
    let error = call(&service).await.unwrap_err();
    assert!(find(&error).is_circuit_open());
    assert_eq!(find(&error).outcome().model(), Some(PRO));
    assert_eq!(models.asked(), [FLASH, LITE, PRO]);
}

#[tokio::test(start_paused = true)]
async fn while_it_stays_the_callers_own_mistake_is_judged_by_the_first_choice() {
    for (kind, asked) in [
        // The failure may be the fallback's own.
        (Kind::InvalidRequest, vec![FLASH, PRO]),
        (Kind::QuotaMinute, vec![FLASH, PRO]),
        (Kind::ContextTooLong, vec![FLASH, LITE, PRO]),
        // The failure is not the fallback's own.
        (Kind::PermissionDenied, vec![FLASH]),
        (Kind::Connect, vec![FLASH]),
    ] {
        let models = Models::new();
        let (service, _) = over(&models, chains());
        stuck(&models, &service).await;
        let went_back = asked.len() > 1;
        models.fails(FLASH, kind).fails(LITE, kind).fails(PRO, Kind::InvalidRequest);
        let answer = call(&service).await;
        assert_eq!(models.asked(), asked, "{kind}");
        assert_eq!(said(&answer), if went_back { PRO } else { FLASH });
        let expected = if went_back { Kind::InvalidRequest } else { kind };
        assert_eq!(outcome(&answer.unwrap()).failure().unwrap().kind(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_the_requests_own_does_not_make_it_stay() {
    let mut suspected = Failure::local(Kind::ServerError, "internal");
    suspected.mark_content_suspected();
    for failure in [Failure::local(Kind::EmptyResponse, "empty"), suspected] {
        let models = Models::new();
        let (service, chains) = over(&models, chains());
        models.is(PRO, Mood::Fails(failure));
        assert_eq!(said(&call(&service).await), FLASH);
        assert_eq!(current(&chains), PRO);
    }
}

#[tokio::test(start_paused = true)]
async fn nor_does_what_befell_a_model_that_came_later() {
    let models = Models::new();
    let (service, chains) = over(&models, chains());
    models.fails(PRO, Kind::EmptyResponse).fails(FLASH, Kind::Overloaded);
    assert_eq!(said(&call(&service).await), LITE);
    assert_eq!(current(&chains), PRO);
}

#[tokio::test(start_paused = true)]
async fn a_probe_while_all_are_down_renews_the_30_s_as_well() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    stuck(&models, &service).await;
    advance(secs(30)).await;
    models.fails(FLASH, Kind::Overloaded).fails(LITE, Kind::Overloaded);
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(models.seen().await, [PRO, FLASH, LITE]);
    assert_eq!(said(&call(&service).await), PRO);
    assert_eq!(models.asked(), [FLASH, LITE, PRO]);
}

#[tokio::test(start_paused = true)]
async fn of_the_models_that_nobody_asked_for_the_first_failure_goes_back() {
    for (first, second, expected) in [
        (Kind::Overloaded, Kind::PermissionDenied, FLASH),
        // The failure of a model that does not take the request tells less.
        (Kind::ContextTooLong, Kind::PermissionDenied, LITE),
    ] {
        let models = Models::new();
        let (service, _) = over(&models, chains());
        stuck(&models, &service).await;
        models.fails(FLASH, first).fails(LITE, second);
        assert_eq!(said(&call(&service).await), expected);
        assert_eq!(models.asked(), [FLASH, LITE]);
    }
}

#[tokio::test(start_paused = true)]
async fn clones_and_layers_of_one_handle_stay_together_and_chains_apart() {
    let models = Models::new();
    let (service, chains) = over(&models, chains().chain("gemini-3-pro-preview", [FLASH]));
    let other = ModelFallbackLayer::new(chains.clone()).layer(models.upstream.clone());
    stuck(&models, &service).await;
    assert_eq!(said(&call(&other).await), FLASH);
    assert_eq!(models.asked(), [FLASH]);
    let reports = chains.snapshot();
    let names: Vec<_> = reports.iter().map(|report| (report.model(), report.current())).collect();
    assert_eq!(names, [(PRO, FLASH), ("gemini-3-pro-preview", "gemini-3-pro-preview")]);
    assert!(format!("{chains:?}").contains(FLASH));
}

#[tokio::test(start_paused = true)]
async fn how_long_it_stays_can_be_set() {
    for (sticky, stays) in [(secs(0), false), (secs(3), false), (secs(5), true), (std::time::Duration::MAX, true)] {
        let models = Models::new();
        let (service, _) = over(&models, chains().sticky(sticky));
        stuck(&models, &service).await;
        models.answers(PRO);
        advance(secs(4)).await;
        assert_eq!(said(&call(&service).await), if stays { FLASH } else { PRO }, "{sticky:?}");
    }
}

// === between two models ===

#[tokio::test(start_paused = true)]
async fn the_failed_attempt_is_dropped_before_the_next_is_made() {
    #[derive(Clone)]
    struct OneAtATime(Upstream, Arc<AtomicBool>);

    struct Held(Arc<AtomicBool>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(false, SeqCst);
        }
    }

    impl Service<Request<Full<Bytes>>> for OneAtATime {
        type Response = Response<AnyBody>;
        type Error = BoxError;
        type Future = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
            assert!(!self.1.load(SeqCst), "made ready while the attempt before is still there");
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
            assert!(!self.1.swap(true, SeqCst));
            let held = Held(self.1.clone());
            let mut answer = self.0.call(request);
            Box::pin(std::future::poll_fn(move |cx| {
                let _held = &held;
                answer.as_mut().poll(cx)
            }))
        }
    }

    let models = Models::new();
    models.fails(PRO, Kind::Overloaded).fails(FLASH, Kind::Overloaded);
    let inner = OneAtATime(models.upstream.clone(), Arc::default());
    let service = ModelFallbackLayer::new(chains().build().unwrap()).layer(inner);
    assert_eq!(said(&service.oneshot(post(GENERATE)).await), LITE);
}

#[tokio::test(start_paused = true)]
async fn readiness_that_fails_between_models_gives_the_first_failure_back() {
    #[derive(Clone)]
    struct Once(Upstream);

    impl Service<Request<Full<Bytes>>> for Once {
        type Response = Response<AnyBody>;
        type Error = BoxError;
        type Future = <Upstream as Service<Request<Full<Bytes>>>>::Future;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
            std::task::Poll::Ready(if self.0.calls() == 0 { Ok(()) } else { Err("gone".into()) })
        }

        fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
            self.0.call(request)
        }
    }

    let models = Models::new();
    models.fails(PRO, Kind::Overloaded);
    let service = ModelFallbackLayer::new(chains().build().unwrap()).layer(Once(models.upstream.clone()));
    let answer = service.oneshot(post(GENERATE)).await;
    assert_eq!(said(&answer), PRO);
    let outcome = outcome(&answer.unwrap());
    assert_eq!((outcome.failure().unwrap().kind(), outcome.attempts()), (Kind::Overloaded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_a_refusal_has_left_unused_is_free_while_the_next_model_is_made_ready() {
    /// Refuses each call, without calling.
    #[derive(Clone)]
    struct Refusing<S>(S);

    /// A gate that is shut once it was called.
    #[derive(Clone)]
    struct Gate<S>(S, Arc<AtomicBool>);

    impl<S: Service<Request<Full<Bytes>>, Error = BoxError>> Service<Request<Full<Bytes>>> for Refusing<S> {
        type Response = Response<AnyBody>;
        type Error = BoxError;
        type Future = std::future::Ready<Answer>;

        fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
            self.0.poll_ready(cx)
        }

        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            std::future::ready(Err(Error::refusal("tests", Failure::local(Kind::CircuitOpen, "no")).into()))
        }
    }

    impl<S: Service<Request<Full<Bytes>>, Error = BoxError>> Service<Request<Full<Bytes>>> for Gate<S> {
        type Response = S::Response;
        type Error = BoxError;
        type Future = S::Future;

        fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
            if self.1.load(SeqCst) { std::task::Poll::Pending } else { self.0.poll_ready(cx) }
        }

        fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
            self.1.store(true, SeqCst);
            self.0.call(request)
        }
    }

    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(Models::new().upstream, permits.clone());
    let gate = Gate(Refusing(limited), Arc::default());
    // The service stays where it is while its call goes on, as in a buffer.
    let mut service = ModelFallbackLayer::new(chains().build().unwrap()).layer(gate);
    let mut call = tokio_test::task::spawn(service.ready().await.unwrap().call(post(GENERATE)));
    assert!(call.poll().is_pending());
    assert_eq!(permits.available_permits(), 1);
}

// === settings ===

#[test]
fn settings_that_could_never_work_are_refused() {
    let none: [&str; 0] = [];
    let table = [
        (FallbackChains::builder().chain(PRO, none), "names no next model"),
        (FallbackChains::builder().larger(PRO, none), "names no next model"),
        (FallbackChains::builder().chain(PRO, [PRO]), "gemini-2.5-pro is in it twice"),
        (FallbackChains::builder().chain(PRO, [FLASH, FLASH]), "gemini-2.5-flash is in it twice"),
        (FallbackChains::builder().chain(PRO, [FLASH]).chain(PRO, [LITE]), "gemini-2.5-pro has two chains"),
        (FallbackChains::builder().larger(PRO, [FLASH]).larger(PRO, [LITE]), "gemini-2.5-pro has two lists"),
        (FallbackChains::builder().chain(PRO, ["models/gemini-2.5-flash"]), "\"models/gemini-2.5-flash\" cannot be"),
        (FallbackChains::builder().chain("tunedModels/t", [FLASH]), "\"tunedModels/t\" cannot be"),
        (FallbackChains::builder().chain(PRO, ["a b"]), "\"a b\" cannot be"),
        (FallbackChains::builder().chain("", [FLASH]), "\"\" cannot be"),
    ];
    for (builder, message) in table {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // One model may be in several chains, and two models may stand in for each other.
    let chains =
        FallbackChains::builder().chain(PRO, [FLASH]).chain(FLASH, [PRO]).larger(PRO, [FLASH]).build().unwrap();
    assert_eq!(chains.snapshot().len(), 2);
    assert!(FallbackChains::builder().build().unwrap().snapshot().is_empty());
}

// === tiers ===

const FLEX: &str = r#"{"contents":[{"parts":[{"text":"hi"}]}],"serviceTier":"flex"}"#;

fn in_tier(tier: &str) -> Request<Full<Bytes>> {
    post_body(GENERATE, FLEX.replace("flex", tier))
}

/// The model and the tier that each call asked, by the call's context; a call that was not moved has none.
fn tiers(models: &Models) -> Vec<String> {
    let asked = models.upstream.asked();
    let calls = asked.iter().filter_map(|asked| asked.context.as_ref()?.call().cloned());
    calls.map(|call| format!("{} {}", call.model().unwrap(), call.service_tier())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_chain_can_name_a_tier_and_others_keep_the_callers() {
    let settings =
        || FallbackChains::builder().chain(PRO, ["gemini-2.5-pro@priority", FLASH, "gemini-2.5-flash-lite@standard"]);
    let all = [PRO, FLASH, LITE];
    let fail = || {
        let models = Models::new();
        all.into_iter().for_each(|name| _ = models.fails(name, Kind::Overloaded));
        models
    };
    for (tier, expected) in [
        ("flex", &["gemini-2.5-pro priority", "gemini-2.5-flash flex", "gemini-2.5-flash-lite standard"][..]),
        ("standard", &["gemini-2.5-pro priority", "gemini-2.5-flash standard", "gemini-2.5-flash-lite standard"]),
        // The same model in the same tier is not asked again.
        ("priority", &["gemini-2.5-flash priority", "gemini-2.5-flash-lite standard"]),
    ] {
        let models = fail();
        let (service, _) = over(&models, settings());
        let answer = service.clone().oneshot(in_tier(tier)).await;
        assert_eq!(said(&answer), PRO);
        assert_eq!(tiers(&models), expected, "{tier}");
        // The body says the same, and is as it was where nothing has changed.
        for asked in models.upstream.asked() {
            let call = asked.context.as_ref().and_then(CallContext::call);
            let tier = call.map_or(tier, |call| call.service_tier().as_str());
            assert_eq!(asked.body, FLEX.replace("flex", tier));
        }
    }

    let models = Models::new();
    let (service, _) = over(&models, settings());
    models.is(PRO, Mood::Fails(Failure::local(Kind::Overloaded, "no")));
    let answer = call(&service).await.unwrap();
    assert_eq!(answer.headers()["x-gemini-model"], FLASH);
    let used = answer.extensions().get::<ModelUsed>().unwrap();
    assert_eq!((used.used(), used.service_tier(), used.is_other()), (FLASH, ServiceTier::Standard, true));
    let asked = models.upstream.asked();
    assert_eq!(asked[1].body, r#"{"service_tier":"priority","contents":[{"parts":[{"text":"hi"}]}]}"#);
    assert_eq!(asked[2].body, PROMPT);
}

#[tokio::test(start_paused = true)]
async fn the_length_of_a_body_is_that_of_the_tiers() {
    let models = Models::new();
    let (service, _) = over(&models, FallbackChains::builder().chain(PRO, ["gemini-2.5-pro@priority"]));
    models.fails(PRO, Kind::Overloaded);
    let mut request = post(GENERATE);
    request.headers_mut().insert(header::CONTENT_LENGTH, PROMPT.len().into());
    let _ = service.oneshot(request).await;
    let asked = models.upstream.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].headers[header::CONTENT_LENGTH], asked[1].body.len().to_string());
}

#[tokio::test(start_paused = true)]
async fn each_tier_stays_where_it_is() {
    let models = Models::new();
    let (service, chains) = over(&models, chains());
    models.fails(PRO, Kind::Overloaded);
    for _ in 0..13 {
        assert_eq!(said(&service.clone().oneshot(in_tier("flex")).await), FLASH);
    }
    let report = |chains: &FallbackChains| {
        let reports = chains.snapshot();
        reports.iter().map(|report| format!("{} {}", report.model(), report.current())).collect::<Vec<_>>()
    };
    assert_eq!(report(&chains), ["gemini-2.5-pro gemini-2.5-pro", "gemini-2.5-pro@flex gemini-2.5-flash@flex"]);
    models.answers(PRO).seen().await;
    for request in [post(GENERATE), in_tier("standard"), in_tier("priority")] {
        assert_eq!(said(&service.clone().oneshot(request).await), PRO);
    }
    assert_eq!(said(&service.clone().oneshot(in_tier("flex")).await), FLASH);
    advance(secs(31)).await;
    assert_eq!(said(&service.clone().oneshot(in_tier("flex")).await), PRO);
    assert_eq!(report(&chains), ["gemini-2.5-pro gemini-2.5-pro"]);
}

#[tokio::test(start_paused = true)]
async fn a_chain_may_be_for_the_calls_of_one_tier() {
    let models = Models::new();
    let flex = FallbackModel::new(PRO).service_tier(ServiceTier::Flex);
    let standard = FallbackModel::new(PRO).service_tier(ServiceTier::Standard);
    let (service, chains) = over(&models, FallbackChains::builder().chain(PRO, [FLASH]).chain(flex, [standard]));
    models.fails(PRO, Kind::Overloaded);
    let _ = service.clone().oneshot(in_tier("flex")).await;
    assert_eq!(tiers(&models), ["gemini-2.5-pro standard"]);
    assert_eq!(models.seen().await, [PRO, PRO]);
    let _ = service.clone().oneshot(in_tier("priority")).await;
    assert_eq!(models.seen().await, [PRO, FLASH]);
    // A chain of one tier is none for the others.
    let (service, _) = over(&models, FallbackChains::builder().chain("gemini-2.5-pro@flex", [FLASH]));
    let _ = service.clone().oneshot(post(GENERATE)).await;
    assert_eq!(models.seen().await, [PRO]);
    let reports = chains.snapshot();
    assert!(reports.iter().any(|report| report.model() == "gemini-2.5-pro@flex"), "{reports:?}");
}

#[test]
fn a_model_is_twice_in_a_chain_if_its_tier_is_the_same() {
    for (model, next, right) in [
        (PRO, &["gemini-2.5-pro@priority", "gemini-2.5-pro@flex"][..], true),
        (PRO, &[PRO], false),
        (PRO, &[FLASH, "gemini-2.5-flash@flex"], true),
        (PRO, &["gemini-2.5-flash@flex", "gemini-2.5-flash@FLEX"], false),
        ("gemini-2.5-pro@flex", &["gemini-2.5-pro@standard"], true),
        ("gemini-2.5-pro@flex", &[PRO], false),
        ("gemini-2.5-pro@flex", &[FLASH, "gemini-2.5-flash@flex"], false),
    ] {
        let built = FallbackChains::builder().chain(model, next.iter().copied()).build();
        assert_eq!(built.is_ok(), right, "{model} {next:?}");
    }
    let twice = FallbackChains::builder().chain("gemini-2.5-pro@flex", [FLASH]).chain("gemini-2.5-pro@flex", [LITE]);
    assert!(twice.build().unwrap_err().to_string().contains("gemini-2.5-pro@flex has two chains"));
    // A version is no tier.
    let version = FallbackModel::from("gemini-pro@001");
    assert_eq!((version.name(), version.tier()), ("gemini-pro@001", None));
}

// === what goes on ===

#[tokio::test(start_paused = true)]
async fn what_goes_on_from_a_broken_answer_stays_at_its_model() {
    for body in [r#"{"contents":[],"continuationToken":"abc"}"#, r#"{"contents":[],"continuation_token": "abc"}"#] {
        let models = Models::new();
        let (service, chains) = over(&models, chains());
        stuck(&models, &service).await;
        // It goes where it was made, whatever other calls do.
        let answer = service.clone().oneshot(post_body(GENERATE, body)).await;
        assert_eq!((said(&answer), models.asked()), (PRO, vec![PRO.to_owned()]));
        assert_eq!(current(&chains), FLASH);
    }
}

#[tokio::test(start_paused = true)]
async fn an_argument_of_a_function_is_no_resource() {
    let body =
        r#"{"contents":[{"parts":[{"functionCall":{"name":"f","args":{"agent":"smith","environment":"prod"}}}]}]}"#;
    let models = Models::new();
    let (service, _) = over(&models, chains());
    models.fails(PRO, Kind::Overloaded);
    assert_eq!(said(&service.clone().oneshot(post_body(GENERATE, body)).await), FLASH);
}

#[tokio::test(start_paused = true)]
async fn a_decision_falls_back_by_its_body() {
    let models = Models::new();
    let (service, _) = over(&models, chains());
    models.fails(PRO, Kind::Overloaded);
    let body = r#"{"model":"models/gemini-2.5-pro","input":"x","questions":{"q":{"type":"noul","instructions":"y"}}}"#;
    let answer = service.clone().oneshot(post_body("/v1/decisions", body)).await;
    assert_eq!((said(&answer), models.asked()), (FLASH, vec![PRO.to_owned(), FLASH.to_owned()]));
    assert_eq!(models.upstream.asked()[1].body, body.replace(PRO, FLASH));
}

/// A body that goes on with this token.
fn going_on(token: &str) -> String {
    format!(r#"{{"contents":[{{"parts":[{{"text":"hi"}}]}}],"continuationToken":"{token}"}}"#)
}

/// An interaction that goes on from another.
fn turn(after: Option<&str>) -> Request<Full<Bytes>> {
    let after = after.map(|id| format!(r#","previous_interaction_id":"{id}""#)).unwrap_or_default();
    post_body(INTERACTIONS, format!(r#"{{"model":"{PRO}","input":"hi"{after}}}"#))
}

type Reading = ModelFallback<Classify<Upstream>>;

/// The layer over one that reads the answers.
fn reading(models: &Models, chains: &FallbackChains) -> Reading {
    ModelFallbackLayer::new(chains.clone()).layer(ClassifyLayer::new().layer(models.upstream.clone()))
}

/// Sends the request, and reads the answer to its end. Returns the model that the header names.
async fn answering(service: &Reading, request: Request<Full<Bytes>>) -> String {
    let answer = service.clone().oneshot(request).await.unwrap();
    let model = answer.headers()["x-gemini-model"].to_str().unwrap().to_owned();
    read(any(answer.into_body())).await;
    model
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_at_the_model_that_gave_the_token_and_not_at_the_one_that_is_asked_for() {
    fn halves() -> Response<AnyBody> {
        json(200, r#"{"candidates":[{"finishReason":"CONTINUATION","continuationToken":"of\u002dflash"}]}"#)
    }
    fn more() -> Response<AnyBody> {
        json(200, r#"{"candidates":[{"finishReason":"CONTINUATION","continuation_token":"more"}]}"#)
    }
    fn streamed() -> Response<AnyBody> {
        sse(full(
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}\n\ndata: {\"candidates\":[{\"finishReason\":\"CONTINUATION\",\"continuationToken\":\"s\"}]}\n\n",
        ))
    }
    let models = Models::new();
    let chains = chains().build().unwrap();
    let service = reading(&models, &chains);
    models.fails(PRO, Kind::Overloaded).is(FLASH, Mood::Answers(halves));
    assert_eq!(answering(&service, post(GENERATE)).await, FLASH);
    models.is(FLASH, Mood::Answers(streamed));
    assert_eq!(answering(&service, post(STREAM)).await, FLASH);

    // Pro is well again, and all calls go to it but those that it could not answer.
    models.answers(PRO).is(FLASH, Mood::Answers(more));
    advance(FallbackChains::STICKY).await;
    assert_eq!(answering(&service, post(GENERATE)).await, PRO);
    assert_eq!(current(&chains), PRO);
    models.seen().await;
    for token in ["of-flash", "s", "of-flash", "more"] {
        assert_eq!(answering(&service, post_body(GENERATE, going_on(token))).await, FLASH, "{token}");
        assert_eq!(models.asked(), [FLASH], "{token}");
        let asked = models.upstream.asked().pop().unwrap();
        assert_eq!(asked.body, going_on(token), "the body is as it came");
        assert_eq!(asked.context.unwrap().models_left(), 0);
        models.seen().await;
    }
    assert_eq!(answering(&service, post_body(GENERATE, going_on("unknown"))).await, PRO);
    assert_eq!(models.seen().await, [PRO]);

    // It goes to no third model, nor to the one that is asked for.
    models.fails(FLASH, Kind::Overloaded);
    assert_eq!(answering(&service, post_body(GENERATE, going_on("more"))).await, FLASH);
    assert_eq!(models.seen().await, [FLASH]);
    assert_eq!(current(&chains), PRO);
}

#[tokio::test(start_paused = true)]
async fn an_interaction_goes_on_at_the_model_that_answered_the_one_before() {
    fn first() -> Response<AnyBody> {
        json(200, r#"{"id":"v1_first","object":"interaction","status":"completed","steps":[]}"#)
    }
    fn second() -> Response<AnyBody> {
        json(200, r#"{"id":"v1_second","object":"interaction","status":"completed","steps":[]}"#)
    }
    let models = Models::new();
    let service = reading(&models, &chains().sticky(std::time::Duration::ZERO).build().unwrap());
    models.fails(PRO, Kind::Overloaded).is(FLASH, Mood::Answers(first));
    assert_eq!(answering(&service, turn(None)).await, FLASH);
    models.is(PRO, Mood::Answers(second)).is(FLASH, Mood::Answers(second));
    models.seen().await;
    for (after, model) in [("v1_first", FLASH), ("v1_second", FLASH), ("v1_other", PRO)] {
        assert_eq!(answering(&service, turn(Some(after))).await, model, "{after}");
        assert_eq!(models.asked(), [model], "{after}");
        let sent = models.upstream.asked().pop().unwrap().body;
        assert!(
            sent == format!(r#"{{"model":"{model}","input":"hi","previous_interaction_id":"{after}"}}"#),
            "{sent:?}"
        );
        models.seen().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_not_kept_from_its_model_by_parts_that_the_model_gave_itself() {
    fn halves() -> Response<AnyBody> {
        json(200, r#"{"candidates":[{"finishReason":"CONTINUATION","continuationToken":"t"}]}"#)
    }
    const NEW: &str = "gemini-3-pro-preview";
    let models = Models::new();
    let service = reading(&models, &FallbackChains::builder().chain(NEW, [FLASH]).build().unwrap());
    models.fails(NEW, Kind::Overloaded).is(FLASH, Mood::Answers(halves));
    let uri = GENERATE.replace(PRO, NEW);
    assert_eq!(answering(&service, post(&uri)).await, FLASH);
    models.answers(NEW);
    let body =
        r#"{"contents":[{"role":"model","parts":[{"text":"a","thoughtSignature":"c2ln"}]}],"continuationToken":"t"}"#;
    assert_eq!(answering(&service, post_body(&uri, body)).await, FLASH);
}
