//! The spans of calls and attempts.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, CircuitBreakerLayer, ClassifyLayer, Outcome, RateLimitLayer, ReplayLayer, RetryBudget,
    RetryLayer, RetryPolicy, TelemetryLayer, TimeoutLayer,
    call::Call,
    circuit_breaker::{CircuitBreakers, Target},
    emulator::{Emulator, EmulatorBuilder, Trouble, When},
    quota::Limits,
    rate_limit::Limiter,
};

use super::listen::Spans;
use crate::support::*;

/// Stacks the layers in the order of `docs::ordering`, as far as these tests need them.
macro_rules! stack {
    ($upstream:expr) => {
        stack!($upstream, RetryPolicy::default(), Limiter::new())
    };
    ($upstream:expr, $policy:expr, $limiter:expr) => {
        stack!($upstream, $policy, $limiter, TelemetryLayer::call())
    };
    ($upstream:expr, $policy:expr, $limiter:expr, $call:expr) => {
        ServiceBuilder::new()
            .layer($call)
            .layer(TimeoutLayer::total(secs(285)))
            .layer(ReplayLayer::new())
            .layer(RetryLayer::new($policy))
            .layer(TelemetryLayer::attempt())
            .layer(RateLimitLayer::new($limiter))
            .layer(TimeoutLayer::attempt(secs(60)).first_content(secs(30)).idle(secs(10)))
            .layer(ClassifyLayer::new())
            .service($upstream)
    };
}
pub(crate) use stack;

pub(crate) fn emulator() -> EmulatorBuilder {
    Emulator::builder().keyless()
}

pub(crate) fn ask(uri: &str) -> Request<Full<Bytes>> {
    post(&format!("https://generativelanguage.googleapis.com{uri}"))
}

#[tokio::test(start_paused = true)]
async fn a_good_call_has_a_span_and_its_attempt_another() {
    let (spans, _guard) = Spans::listen();
    let service = stack!(emulator().before_headers(secs(2)).build());
    let response = service.oneshot(ask(GENERATE)).await.unwrap();
    assert!(!spans.call().has_closed, "the body has not been read");
    assert!(!spans.attempts()[0].has_closed);
    read(response.into_body()).await;

    let call = spans.call();
    assert!(call.has_closed);
    for (field, value) in [
        ("otel.name", "generate_content gemini-2.5-pro"),
        ("otel.kind", "client"),
        ("gen_ai.operation.name", "generate_content"),
        ("gen_ai.provider.name", "gcp.gemini"),
        ("gen_ai.request.model", "gemini-2.5-pro"),
        ("gen_ai.response.model", "gemini-2.5-pro"),
        ("gen_ai.response.finish_reasons", "[\"STOP\"]"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("server.address", "generativelanguage.googleapis.com"),
        ("server.port", "443"),
        ("tower_gemini.outcome", "ok"),
        ("tower_gemini.attempts", "1"),
    ] {
        assert_eq!(call.get(field), Some(value), "{field} in {call:#?}");
    }
    assert!(call.number("gen_ai.usage.input_tokens") > 0.0);
    assert!(call.number("gen_ai.usage.output_tokens") > 0.0);
    // A call that does not stream says nothing of it.
    for field in [
        "error.type",
        "otel.status_code",
        "gen_ai.request.stream",
        "tower_gemini.retry.wait",
        "tower_gemini.retry.gave_up",
    ] {
        assert_eq!(call.get(field), None, "{field}");
    }

    let [attempt] = &spans.attempts()[..] else { panic!() };
    assert!(attempt.has_closed);
    assert_eq!(attempt.parent, Some(call.id));
    for (field, value) in [
        ("otel.name", "attempt gemini-2.5-pro"),
        ("gen_ai.request.model", "gemini-2.5-pro"),
        ("gen_ai.response.model", "gemini-2.5-pro"),
        ("http.response.status_code", "200"),
        ("tower_gemini.outcome", "ok"),
    ] {
        assert_eq!(attempt.get(field), Some(value), "{field} in {attempt:#?}");
    }
    // Tokens are on the call's span only, so that a sum over spans counts them once.
    for field in ["gen_ai.operation.name", "gen_ai.usage.input_tokens", "http.request.resend_count", "error.type"] {
        assert_eq!(attempt.get(field), None, "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_when_its_first_chunk_came() {
    let (spans, _guard) = Spans::listen();
    let upstream = emulator().thinking().first_token(secs(3)).between_chunks(secs(1)).chunks(5).build();
    read(stack!(upstream).oneshot(ask(STREAM)).await.unwrap().into_body()).await;
    let call = spans.call();
    assert_eq!(call.get("gen_ai.request.stream"), Some("true"));
    assert_eq!(call.number("gen_ai.response.time_to_first_chunk"), 3.0);
    let thoughts = call.number("gen_ai.usage.reasoning.output_tokens");
    assert!(thoughts > 0.0 && call.number("gen_ai.usage.output_tokens") > thoughts);
}

#[tokio::test(start_paused = true)]
async fn a_503_and_the_answer_after_it_are_two_attempts() {
    let (spans, _guard) = Spans::listen();
    let upstream = emulator().trouble(When::first(1), Trouble::overloaded().hint(secs(7))).build();
    read(stack!(upstream).oneshot(ask(GENERATE)).await.unwrap().into_body()).await;

    let call = spans.call();
    assert_eq!((call.get("tower_gemini.outcome"), call.get("tower_gemini.attempts")), (Some("ok"), Some("2")));
    let [first, second] = &spans.attempts()[..] else { panic!("{:#?}", spans.all()) };
    for (field, value) in [
        ("tower_gemini.outcome", "model"),
        ("error.type", "overloaded"),
        ("otel.status_code", "ERROR"),
        ("http.response.status_code", "503"),
    ] {
        assert_eq!(first.get(field), Some(value), "{field} in {first:#?}");
    }
    for (field, value) in
        [("tower_gemini.outcome", "ok"), ("http.request.resend_count", "1"), ("tower_gemini.retry.after", "overloaded")]
    {
        assert_eq!(second.get(field), Some(value), "{field} in {second:#?}");
    }
    let waited = second.number("tower_gemini.retry.wait");
    assert!((7.0..9.0).contains(&waited), "{waited}");
    assert_eq!(call.number("tower_gemini.retry.wait"), waited);
    assert_eq!((first.parent, second.parent), (Some(call.id), Some(call.id)));
    assert!(first.has_closed && second.has_closed);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_ends_before_the_wait_begins() {
    let (spans, _guard) = Spans::listen();
    let upstream = emulator().trouble(When::first(1), Trouble::overloaded().hint(secs(7))).build();
    let mut call = tokio_test::task::spawn(stack!(upstream).oneshot(ask(GENERATE)));
    tokio_test::assert_pending!(call.poll());
    tokio::time::sleep(millis(10)).await;
    tokio_test::assert_pending!(call.poll());
    assert!(spans.attempts()[0].has_closed && !spans.call().has_closed);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_names_its_clock() {
    let (spans, _guard) = Spans::listen();
    let policy = RetryPolicy::default().max_attempts(2);
    let service = stack!(emulator().trouble(When::always(), Trouble::hang()).build(), policy, Limiter::new());
    service.oneshot(ask(GENERATE)).await.unwrap_err();
    let attempts = spans.attempts();
    assert_eq!(attempts.len(), 2);
    assert!(attempts.iter().all(|attempt| attempt.get("error.type") == Some("attempt_timeout")), "{attempts:#?}");
    assert!(attempts.iter().all(|attempt| attempt.get("tower_gemini.outcome") == Some("transport")));
    let call = spans.call();
    assert_eq!(call.get("error.type"), Some("attempt_timeout"));
    assert_eq!(call.get("tower_gemini.retry.gave_up"), Some("attempts"));
    assert_eq!(call.get("http.response.status_code"), None);

    // The total clock's time-out is local, and the attempt under way is given up.
    let (spans, _guard) = Spans::listen();
    let service = ServiceBuilder::new()
        .layer(TelemetryLayer::call())
        .layer(TimeoutLayer::total(secs(20)))
        .layer(RetryLayer::default())
        .layer(TelemetryLayer::attempt())
        .service(emulator().trouble(When::always(), Trouble::hang()).build());
    service.oneshot(ask(GENERATE)).await.unwrap_err();
    assert_eq!(spans.call().get("error.type"), Some("total_deadline"));
    assert_eq!(spans.call().get("tower_gemini.outcome"), Some("local"));
    assert_eq!(spans.attempts()[0].get("tower_gemini.outcome"), Some("cancelled"));
    assert!(spans.all().iter().all(|span| span.has_closed));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_said_as_it_is() {
    // A refusal by the upstream.
    let (spans, _guard) = Spans::listen();
    let blocked = emulator().trouble(When::always(), Trouble::prompt_blocked("SAFETY")).build();
    read(stack!(blocked).oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    let call = spans.call();
    assert_eq!(call.get("error.type"), Some("content_blocked"));
    assert_eq!(call.get("tower_gemini.outcome"), Some("caller"));
    assert_eq!(call.get("tower_gemini.retry.gave_up"), None, "nothing could have helped");
    assert_eq!(spans.attempts().len(), 1);

    // A refusal by a layer: nothing is sent.
    let (spans, _guard) = Spans::listen();
    let breakers = CircuitBreakers::new();
    breakers.force_open(&Target::new("gemini-2.5-pro", "generativelanguage.googleapis.com"));
    let service = ServiceBuilder::new()
        .layer(TelemetryLayer::call())
        .layer(TelemetryLayer::attempt())
        .layer(CircuitBreakerLayer::new(breakers))
        .service(emulator().build());
    service.oneshot(ask(GENERATE)).await.unwrap_err();
    for span in spans.all() {
        assert_eq!((span.get("error.type"), span.get("tower_gemini.outcome")), (Some("circuit_open"), Some("local")));
        assert_eq!(span.get("http.response.status_code"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_says_so() {
    let (spans, _guard) = Spans::listen();
    let policy = RetryPolicy::default().budget(RetryBudget::new(0));
    let upstream = emulator().trouble(When::always(), Trouble::overloaded()).build();
    let response = stack!(upstream, policy, Limiter::new()).oneshot(ask(GENERATE)).await.unwrap();
    assert_eq!(response.status(), 503);
    drop(response);
    assert_eq!(spans.call().get("tower_gemini.retry.gave_up"), Some("budget"));
    // A call that failed has failed, although the caller drops its answer.
    assert_eq!(spans.call().get("tower_gemini.outcome"), Some("model"));
}

#[tokio::test(start_paused = true)]
async fn who_may_try_only_once_gives_up_where_another_attempt_could_have_helped() {
    for (trouble, gave_up) in [(Trouble::overloaded(), Some("attempts")), (Trouble::invalid_key(), None)] {
        let (spans, _guard) = Spans::listen();
        let upstream = emulator().trouble(When::always(), trouble).build();
        stack!(upstream, RetryPolicy::default().max_attempts(1), Limiter::new()).oneshot(ask(GENERATE)).await.unwrap();
        assert_eq!(spans.call().get("tower_gemini.retry.gave_up"), gave_up);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_be_too_long_says_so() {
    let (spans, _guard) = Spans::listen();
    let upstream = emulator().trouble(When::always(), Trouble::overloaded().hint(secs(290))).build();
    stack!(upstream).oneshot(ask(GENERATE)).await.unwrap();
    assert_eq!(spans.call().get("tower_gemini.retry.gave_up"), Some("wait"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_cancelled() {
    // The call is dropped before its answer.
    let (spans, _guard) = Spans::listen();
    let upstream = emulator().first_token(secs(3)).between_chunks(secs(1)).chunks(5).build();
    let call = stack!(upstream.clone()).oneshot(ask(STREAM));
    assert!(tokio::time::timeout(secs(1), call).await.is_err());
    for span in spans.all() {
        assert!(span.has_closed);
        assert_eq!(span.get("tower_gemini.outcome"), Some("cancelled"), "{span:#?}");
        assert_eq!(span.get("error.type"), Some("cancelled_by_caller"));
        assert_eq!(span.get("otel.status_code"), None);
    }

    // The answer is dropped in the middle.
    let (spans, _guard) = Spans::listen();
    let mut body = any(stack!(upstream.clone()).oneshot(ask(STREAM)).await.unwrap().into_body());
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    drop(body);
    for span in spans.all() {
        assert!(span.has_closed);
        assert_eq!(span.get("tower_gemini.outcome"), Some("cancelled"), "{span:#?}");
    }
    assert_eq!(spans.call().number("gen_ai.response.time_to_first_chunk"), 3.0);

    // The answer is dropped after its finish reason, by a reader that does not wait for the end.
    let (spans, _guard) = Spans::listen();
    let (feed, body) = fed();
    feed.data(event("a"));
    feed.data(last_event("b"));
    let body = parking_lot::Mutex::new(Some(any(body)));
    let endless = Upstream::at_once(move |_| Ok(sse(body.lock().take().unwrap())));
    let mut body = any(stack!(endless).oneshot(ask(STREAM)).await.unwrap().into_body());
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    assert!(feed.is_live());
    drop(body);
    assert!(spans.all().iter().all(|span| span.get("tower_gemini.outcome") == Some("ok")), "{:#?}", spans.all());
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_after_the_commit_is_in_both_spans() {
    for (trouble, kind) in [
        (Trouble::overloaded().in_stream(2), "overloaded"),
        (Trouble::cut(2), "stream_cut"),
        (Trouble::stall(2), "idle_timeout"),
        (Trouble::reset_after(2), "reset"),
    ] {
        let (spans, _guard) = Spans::listen();
        let upstream = emulator().chunks(6).trouble(When::always(), trouble).build();
        let response = stack!(upstream).oneshot(ask(STREAM)).await.unwrap();
        let _ = frames(response.into_body()).await;
        let all = spans.all();
        assert_eq!(all.len(), 2);
        for span in all {
            assert!(span.has_closed);
            assert_eq!(span.get("error.type"), Some(kind), "{span:#?}");
            assert_eq!(span.get("otel.status_code"), Some("ERROR"));
            assert_eq!(span.get("http.response.status_code"), Some("200"));
        }
        // By the conventions: the reason was expected, and did not come.
        assert_eq!(spans.call().get("gen_ai.response.finish_reasons"), Some("[\"error\"]"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_the_queue_is_its_attempts() {
    let (spans, _guard) = Spans::listen();
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1)).max_wait(secs(90)).build();
    let service = stack!(emulator().build(), RetryPolicy::default(), limiter);
    for _ in 0..2 {
        read(service.clone().oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    }
    let attempts = spans.attempts();
    assert_eq!(attempts[0].get("tower_gemini.queue.wait"), None);
    let waited = attempts[1].number("tower_gemini.queue.wait");
    assert!((60.0..61.0).contains(&waited), "{waited}");
    assert_eq!(spans.named("gemini.call")[1].number("tower_gemini.queue.wait"), waited);

    // The call is given up while it waits.
    let (spans, _guard) = Spans::listen();
    let call = tokio::time::timeout(secs(5), service.oneshot(ask(GENERATE))).await;
    assert!(call.is_err());
    assert_eq!(spans.call().number("tower_gemini.queue.wait"), 5.0);
    assert_eq!(spans.attempts()[0].number("tower_gemini.queue.wait"), 5.0);
    assert_eq!(spans.attempts()[0].get("tower_gemini.outcome"), Some("cancelled"));
}

/// Asks the models one after the other, in one call, as a fallback does.
pub(crate) async fn one_after_the_other<S>(layer: &TelemetryLayer, service: S, uri: &str, models: &[&str])
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<tower_gemini::telemetry::TelemetryBody<AnyBody>>>
        + Clone,
    S::Error: Into<BoxError> + std::fmt::Debug,
{
    let outer = tower::service_fn(|request: Request<Full<Bytes>>| {
        let context = CallContext::of(&request).cloned().unwrap_or_default();
        let service = service.clone();
        async move {
            let mut last = None;
            for model in models {
                let mut request = ask(uri);
                let call = Call::new(request.method(), request.uri()).with_model(*model);
                let mut context = context.clone();
                context.set_call(call);
                request.extensions_mut().insert(context);
                last = Some(service.clone().oneshot(request).await);
            }
            last.unwrap()
        }
    });
    layer.layer(outer).oneshot(ask(uri)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_at_another_model_says_which_was_asked_before() {
    for (uri, operation) in [(GENERATE, "generate_content"), (CHAT, "chat")] {
        let (spans, _guard) = Spans::listen();
        let upstream = Upstream::fails(2, || Ok(busy()));
        one_after_the_other(
            &TelemetryLayer::call(),
            TelemetryLayer::attempt().layer(upstream),
            uri,
            &["pro", "pro", "flash"],
        )
        .await;
        let of_attempts = |field: &str| -> Vec<_> {
            spans.attempts().iter().map(|attempt| attempt.get(field).map(str::to_owned)).collect()
        };
        assert_eq!(of_attempts("tower_gemini.fallback.from"), [None, None, Some("pro".to_owned())]);
        let models = ["pro", "pro", "flash"].map(|model| Some(model.to_owned()));
        assert_eq!(of_attempts("gen_ai.request.model"), models);
        // The call's span names the model that was asked for first, by the path or by the body.
        let first = if uri == GENERATE { "gemini-2.5-pro" } else { "pro" };
        assert_eq!(spans.call().get("otel.name"), Some(&*format!("{operation} {first}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_known_to_have_ended_has_ended() {
    let (spans, _guard) = Spans::listen();
    let service = TelemetryLayer::call().layer(Upstream::at_once(|_| Ok(hello())));
    let mut body = service.oneshot(ask(GENERATE)).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    // The reader does not poll once more for the `None`.
    assert!(spans.call().has_closed);
    drop(body);
    assert_eq!(spans.call().get("tower_gemini.outcome"), Some("ok"));

    let (spans, _guard) = Spans::listen();
    let service = TelemetryLayer::call().layer(Upstream::at_once(|_| Ok(status(204))));
    let response = service.oneshot(ask("/v1beta/files")).await.unwrap();
    assert!(spans.call().has_closed);
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn the_model_of_an_openai_request_comes_from_its_body() {
    let (spans, _guard) = Spans::listen();
    let body = r#"{"model":"gemini-2.5-flash","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let mut request = ask(CHAT);
    *request.body_mut() = Full::from(body);
    read(stack!(emulator().first_token(secs(2)).build()).oneshot(request).await.unwrap().into_body()).await;
    let call = spans.call();
    for (field, value) in [
        ("otel.name", "chat gemini-2.5-flash"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "gemini-2.5-flash"),
        ("gen_ai.request.stream", "true"),
        ("gen_ai.response.time_to_first_chunk", "2.0"),
    ] {
        assert_eq!(call.get(field), Some(value), "{field} in {call:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_known_by_its_fingerprint() {
    let (spans, _guard) = Spans::listen();
    let upstream = Upstream::at_once(|_| {
        let mut response = hello();
        response
            .extensions_mut()
            .insert(Outcome::default().with_key("1f2e3d", "project-7").with_model("gemini-2.5-pro"));
        Ok(response)
    });
    let service = TelemetryLayer::attempt().layer(upstream);
    read(service.oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    let attempt = &spans.attempts()[0];
    assert_eq!(
        (attempt.get("tower_gemini.key"), attempt.get("tower_gemini.project")),
        (Some("1f2e3d"), Some("project-7"))
    );
    assert_eq!(attempt.get("gen_ai.response.model"), Some("gemini-2.5-pro"));
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_inside_logs_is_logged_in_the_attempt() {
    let (spans, _guard) = Spans::listen();
    let upstream = tower::service_fn(|_: Request<Full<Bytes>>| {
        tracing::info!("in the call");
        async {
            tracing::info!("in the first poll");
            tokio::time::sleep(Duration::from_secs(1)).await;
            tracing::info!("in another");
            Ok::<_, BoxError>(hello())
        }
    });
    let service = TelemetryLayer::call().layer(TelemetryLayer::attempt().layer(upstream));
    service.oneshot(ask(GENERATE)).await.unwrap();
    tracing::info!("outside");
    assert_eq!(spans.attempts()[0].events.len(), 3);
    assert!(spans.call().events.is_empty());
}

#[tokio::test(start_paused = true)]
async fn vertex_is_another_provider() {
    for (uri, provider, operation) in [
        (
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro:generateContent",
            "gcp.vertex_ai",
            "generate_content",
        ),
        (
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi/chat/completions",
            "gcp.vertex_ai",
            "chat",
        ),
        ("/v1/projects/p/locations/global/endpoints/openapi/chat/completions", "gcp.vertex_ai", "chat"),
        ("/v1beta/models/gemini-embedding-001:embedContent", "gcp.gemini", "embeddings"),
        ("/v1beta/models/gemini-2.5-pro:countTokens", "gcp.gemini", "count_tokens"),
        ("/v1beta/interactions", "gcp.gemini", "generate_content"),
        ("/v1beta1/projects/p/locations/global/interactions", "gcp.vertex_ai", "generate_content"),
        ("/somewhere/else", "gcp.gen_ai", "write"),
    ] {
        let (spans, _guard) = Spans::listen();
        let service = TelemetryLayer::call().layer(Upstream::at_once(|_| Ok(hello())));
        service.oneshot(post(uri)).await.unwrap();
        let call = spans.call();
        assert_eq!(
            (call.get("gen_ai.provider.name"), call.get("gen_ai.operation.name")),
            (Some(provider), Some(operation)),
            "{uri}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn disabled_it_says_nothing_to_those_who_listen() {
    let (spans, _guard) = Spans::listen();
    let metrics = super::listen::Metrics::listen();
    let service = TelemetryLayer::disabled().layer(Upstream::at_once(|_| Ok(hello())));
    read(service.oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    assert!(spans.all().is_empty() && metrics.take().is_empty());
}
