//! The metrics of calls, attempts and handles.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::{
    CallContext, CircuitBreakerLayer, ClassifyLayer, RateLimitLayer, ReplayLayer, RetryBudget, RetryLayer, RetryPolicy,
    TelemetryLayer, TimeoutLayer,
    circuit_breaker::{CircuitBreakers, Target, Trip},
    context::Deadline,
    emulator::{Trouble, When},
    observe::{Observe, Reading, Value},
    quota::Limits,
    rate_limit::Limiter,
};

use super::{
    listen::{Metrics, only},
    spans::{ask, emulator, one_after_the_other, stack},
};
use crate::support::*;

const CALL: &str =
    "gen_ai.operation.name=generate_content,gen_ai.provider.name=gcp.gemini,gen_ai.request.model=gemini-2.5-pro";
/// The last label of an answer's metrics.
const TIER: &str = "tower_gemini.service_tier=standard";

#[tokio::test(start_paused = true)]
async fn a_good_call_is_counted_and_timed() {
    let metrics = Metrics::listen();
    let upstream = emulator().before_headers(secs(2)).build();
    read(stack!(upstream).oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    let values = metrics.take();
    let answered = format!("{CALL},gen_ai.response.model=gemini-2.5-pro");
    assert_eq!(only(&values, &format!("gen_ai.client.inference.duration{{{answered},{TIER}}}")), [2.0]);
    assert_eq!(only(&values, &format!("tower_gemini.calls{{{CALL},outcome=ok}}")), [1.0]);
    let attempt = "gen_ai.request.model=gemini-2.5-pro,outcome=ok";
    assert_eq!(only(&values, &format!("tower_gemini.attempts{{{attempt}}}")), [1.0]);
    assert_eq!(only(&values, &format!("tower_gemini.attempt.duration{{{attempt}}}")), [2.0]);
    // The emulator gives its input by modality, as Gemini does.
    for (kind, modality, tokens) in [
        ("input", "text", 1.0..),
        ("output", "unknown", 1.0..),
        ("cache_read.input", "unknown", 0.0..),
        ("reasoning.output", "unknown", 0.0..),
    ] {
        let name = format!("gen_ai.client.inference.usage.{kind}_tokens");
        let counted = only(&values, &format!("{name}{{{answered},gen_ai.token.modality={modality},{TIER}}}"));
        assert!(counted.len() == 1 && tokens.contains(&counted[0]), "{kind}: {counted:?}");
    }
    assert_eq!(only(&values, "tower_gemini.overhead{}"), [0.0]);
    // No other metric is recorded, and none of streams.
    assert_eq!(values.len(), 12, "{values:#?}");
}

#[tokio::test(start_paused = true)]
async fn calls_and_attempts_under_way_are_counted_until_their_bodies_end() {
    let metrics = Metrics::listen();
    let active = || {
        let values = metrics.take();
        // Taking it sets it to zero.
        ["calls", "attempts"].map(|what| only(&values, &format!("tower_gemini.{what}.active{{}}"))[0])
    };
    let response = stack!(emulator().build()).oneshot(ask(GENERATE)).await.unwrap();
    assert_eq!(active(), [1.0, 1.0]);
    drop(response);
    assert_eq!(active(), [-1.0, -1.0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_timed_to_its_first_chunk_and_by_token() {
    let metrics = Metrics::listen();
    let upstream = emulator().first_token(secs(3)).between_chunks(secs(1)).chunks(5).build();
    read(stack!(upstream).oneshot(ask(STREAM)).await.unwrap().into_body()).await;
    let values = metrics.take();
    let answered = format!("{CALL},gen_ai.response.model=gemini-2.5-pro");
    assert_eq!(only(&values, &format!("gen_ai.client.inference.time_to_first_chunk{{{answered},{TIER}}}")), [3.0]);
    assert_eq!(only(&values, &format!("gen_ai.client.inference.duration{{{answered},{TIER}}}")), [7.0]);
    let tokens = only(
        &values,
        &format!("gen_ai.client.inference.usage.output_tokens{{{answered},gen_ai.token.modality=unknown,{TIER}}}"),
    )[0];
    let each = only(&values, &format!("tower_gemini.time_per_output_token{{{answered}}}"))[0];
    assert!((each * (tokens - 1.0) - 4.0).abs() < 1e-9, "{each} s for each of {tokens}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_counted_with_its_cause_and_its_wait() {
    let metrics = Metrics::listen();
    let upstream = emulator().trouble(When::first(1), Trouble::overloaded().hint(secs(7))).build();
    let service = stack!(upstream);
    // The model is known from here on.
    read(service.clone().oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    let values = metrics.take();
    let retry = "error.type=overloaded,gen_ai.request.model=other";
    assert_eq!(only(&values, &format!("tower_gemini.retries{{{retry}}}")), [1.0]);
    let waited = only(&values, &format!("tower_gemini.retry.wait{{{retry}}}"))[0];
    assert!((7.0..9.0).contains(&waited));
    assert_eq!(only(&values, "tower_gemini.attempts{gen_ai.request.model=other,outcome=model}"), [1.0]);
    assert_eq!(only(&values, "tower_gemini.attempts{gen_ai.request.model=gemini-2.5-pro,outcome=ok}"), [1.0]);
    let fault = "error.type=overloaded,fault=model,gen_ai.request.model=other";
    assert_eq!(only(&values, &format!("tower_gemini.faults{{at=attempt,{fault}}}")), [1.0]);
    assert!(!values.keys().any(|key| key.contains("at=call")), "the caller has seen none");
    // The wait does not count as overhead.
    assert_eq!(only(&values, "tower_gemini.overhead{}"), [0.0]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_token_that_ends_in_vain_is_no_overhead() {
    let metrics = Metrics::listen();
    let budget = RetryBudget::new(1);
    let policy = || RetryPolicy::default().base_delay(Duration::ZERO).budget(budget.clone());
    let upstream = emulator().trouble(When::always(), Trouble::overloaded()).build();
    let service = stack!(upstream, policy(), Limiter::new());
    assert!(budget.try_take("gemini-2.5-pro"));
    // The others wait before it for as many seconds.
    let others: Vec<_> = (0..9).map(|_| tokio::spawn(service.clone().oneshot(ask(GENERATE)))).collect();
    tokio::time::sleep(millis(1)).await;
    metrics.take();
    let mut request = ask(GENERATE);
    CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(Deadline::after(secs(3))));
    service.oneshot(request).await.unwrap_err();
    let values = metrics.take();
    assert_eq!(only(&values, "tower_gemini.retries.refused{gen_ai.request.model=other,reason=budget}"), [1.0]);
    assert_eq!(only(&values, "tower_gemini.overhead{}"), [0.0]);
    others.iter().for_each(|call| call.abort());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_tried_again_is_counted_with_the_reason() {
    let metrics = Metrics::listen();
    let policy = || RetryPolicy::default().budget(RetryBudget::new(0));
    let upstream = emulator().trouble(When::always(), Trouble::overloaded()).build();
    stack!(upstream, policy(), Limiter::new()).oneshot(ask(GENERATE)).await.unwrap();
    let values = metrics.take();
    assert_eq!(only(&values, "tower_gemini.retries.refused{gen_ai.request.model=other,reason=budget}"), [1.0]);
    let fault = "error.type=overloaded,fault=model,gen_ai.request.model=other";
    assert_eq!(only(&values, &format!("tower_gemini.faults{{at=call,{fault}}}")), [1.0]);
    assert_eq!(only(&values, &format!("tower_gemini.faults{{at=attempt,{fault}}}")), [1.0]);
    let failed = format!("error.type=overloaded,{}", CALL.replace("gemini-2.5-pro", "other"));
    assert_eq!(only(&values, &format!("gen_ai.client.inference.duration{{{failed},{TIER}}}")), [0.0]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_cancelled_and_its_time_counts() {
    let metrics = Metrics::listen();
    let upstream = emulator().trouble(When::always(), Trouble::hang()).build();
    assert!(tokio::time::timeout(secs(5), stack!(upstream).oneshot(ask(GENERATE))).await.is_err());
    let values = metrics.take();
    let call = CALL.replace("gemini-2.5-pro", "other");
    assert_eq!(only(&values, &format!("tower_gemini.calls{{{call},outcome=cancelled}}")), [1.0]);
    let timed = format!("gen_ai.client.inference.duration{{error.type=cancelled_by_caller,{call},{TIER}}}");
    assert_eq!(only(&values, &timed), [5.0]);
    assert_eq!(only(&values, "tower_gemini.attempts{gen_ai.request.model=other,outcome=cancelled}"), [1.0]);
    assert!(!values.keys().any(|key| key.contains("faults")), "nobody's fault");
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_the_queue_is_counted_and_is_no_overhead() {
    let metrics = Metrics::listen();
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1)).max_wait(secs(90)).build();
    let service = stack!(emulator().before_headers(secs(2)).build(), RetryPolicy::default(), limiter);
    for _ in 0..2 {
        read(service.clone().oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    }
    let values = metrics.take();
    let waits = only(&values, "tower_gemini.queue.wait{gen_ai.request.model=gemini-2.5-pro}");
    assert!(waits.len() == 1 && (57.0..60.5).contains(&waits[0]), "{waits:?}");
    assert_eq!(only(&values, "tower_gemini.overhead{}"), [0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_spent_between_the_layers_is_overhead() {
    let metrics = Metrics::listen();
    let slow = tower::layer::layer_fn(|inner| {
        tower::service_fn(move |request| {
            let call = tower::ServiceExt::oneshot(Clone::clone(&inner), request);
            async {
                tokio::time::sleep(secs(4)).await;
                call.await
            }
        })
    });
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1)).max_wait(secs(90)).build();
    let service = ServiceBuilder::new()
        .layer(TelemetryLayer::call())
        .layer(slow)
        .layer(TelemetryLayer::attempt())
        .layer(RateLimitLayer::new(limiter))
        .service(emulator().before_headers(secs(2)).build());
    // The second call waits for quota as well, which is recorded separately.
    for _ in 0..2 {
        read(service.clone().oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    }
    let values = metrics.take();
    let overhead = only(&values, "tower_gemini.overhead{}");
    assert!(overhead.iter().all(|seconds| (seconds - 4.0).abs() < 1e-6) && overhead.len() == 2, "{overhead:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_is_counted_with_both_models() {
    let metrics = Metrics::listen();
    let layer = TelemetryLayer::attempt();
    for model in ["pro", "flash"] {
        let known = layer.layer(Upstream::at_once(|_| Ok(hello())));
        read(known.oneshot(ask(&format!("/v1beta/models/{model}:generateContent"))).await.unwrap().into_body()).await;
    }
    for uri in [GENERATE, CHAT] {
        metrics.take();
        let upstream = Upstream::fails(2, || Ok(busy()));
        one_after_the_other(&TelemetryLayer::call(), layer.layer(upstream), uri, &["pro", "pro", "flash"]).await;
        let values = metrics.take();
        let fallback = "gen_ai.request.model=flash,tower_gemini.fallback.from=pro";
        assert_eq!(only(&values, &format!("tower_gemini.fallbacks{{{fallback}}}")), [1.0]);
        assert_eq!(only(&values, "tower_gemini.attempts{gen_ai.request.model=pro,outcome=model}"), [2.0]);
        // The body of the last attempt was not read.
        assert_eq!(only(&values, "tower_gemini.attempts{gen_ai.request.model=flash,outcome=cancelled}"), [1.0]);
    }
}

#[tokio::test(start_paused = true)]
async fn gauges_say_how_full_a_quota_is_and_which_breaker_is_open() {
    let metrics = Metrics::listen();
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(5)).project("p1").build();
    let breakers = CircuitBreakers::builder().trip(Trip::consecutive(1)).build().unwrap();
    let telemetry = TelemetryLayer::call();
    let gauges = telemetry.gauges().watch(limiter.clone()).watch(breakers.clone());
    let upstream = emulator().trouble(When::nth(3), Trouble::overloaded()).build();
    let service = ServiceBuilder::new()
        .layer(telemetry)
        .layer(RateLimitLayer::new(limiter))
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .layer(ClassifyLayer::new())
        .service(upstream);
    for _ in 0..3 {
        let response = service.clone().oneshot(ask(GENERATE)).await.unwrap();
        let _ = frames(response.into_body()).await;
    }
    // No answer has confirmed these two models: their values are added up.
    for model in ["invented-1", "invented-2"] {
        breakers.force_open(&Target::new(model, "generativelanguage.googleapis.com"));
    }
    metrics.take();
    gauges.report();
    let values = metrics.take();
    let quota = |name: &str, dimension: &str| {
        let labels = format!("dimension={dimension},gen_ai.request.model=gemini-2.5-pro,tower_gemini.project=p1");
        values.get(&format!("tower_gemini.limit.{name}{{{labels}}}")).map(|values| values[0])
    };
    assert_eq!((quota("used", "requests a minute"), quota("max", "requests a minute")), (Some(3.0), Some(5.0)));
    assert_eq!((quota("used", "requests a day"), quota("max", "requests a day")), (Some(3.0), None));
    let scope = "gen_ai.request.model=gemini-2.5-pro,tower_gemini.project=p1";
    assert_eq!(only(&values, &format!("tower_gemini.limit.waiting{{{scope}}}")), [0.0]);
    assert_eq!(only(&values, &format!("tower_gemini.limit.blocked{{{scope}}}")), [0.0]);
    let breaker = |model: &str, state: &str| {
        let labels =
            format!("gen_ai.request.model={model},server.address=generativelanguage.googleapis.com,state={state}");
        only(&values, &format!("tower_gemini.breaker.state{{{labels}}}"))[0]
    };
    assert_eq!((breaker("gemini-2.5-pro", "open"), breaker("gemini-2.5-pro", "closed")), (1.0, 0.0));
    assert_eq!((breaker("other", "forced_open"), breaker("other", "closed")), (2.0, 0.0));
    let opened = "gen_ai.request.model=gemini-2.5-pro,server.address=generativelanguage.googleapis.com,state=open";
    assert_eq!(only(&values, &format!("tower_gemini.breaker.transitions{{{opened}}}")), [1.0]);
}

/// A handle whose readings the test sets.
#[derive(Clone, Default)]
struct Stage(std::sync::Arc<parking_lot::Mutex<Vec<&'static str>>>);

impl Observe for Stage {
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>)) {
        for model in &*self.0.lock() {
            say(Reading { name: "stage", value: Value::Gauge(1.0), model, labels: &[] });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gauge_of_what_is_gone_is_zero() {
    let metrics = Metrics::listen();
    let (telemetry, stage) = (TelemetryLayer::call(), Stage::default());
    let upstream = telemetry.layer(Upstream::at_once(|_| Ok(hello())));
    read(upstream.oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    metrics.take();
    let seen = || {
        let values = metrics.take();
        let stage = |model: &str| values.get(&format!("stage{{gen_ai.request.model={model}}}")).map(|values| values[0]);
        (stage("gemini-2.5-pro"), stage("other"))
    };
    *stage.0.lock() = vec!["gemini-2.5-pro", "a", "b"];
    // The future that a program spawns reports at once, and then every ten seconds.
    let mut keep = tokio_test::task::spawn(telemetry.gauges().watch(stage.clone()).report_every(secs(10)));
    assert!(keep.poll().is_pending());
    assert_eq!(seen(), (Some(1.0), Some(2.0)));
    *stage.0.lock() = vec!["a"];
    tokio::time::advance(millis(9_990)).await;
    assert!(keep.poll().is_pending());
    assert_eq!(seen(), (Some(0.0), Some(0.0)), "read, and not said again");
    // A recorder that is read without being emptied still has this value.
    metrics::gauge!("stage", "gen_ai.request.model" => "gemini-2.5-pro").set(1.0);
    tokio::time::advance(millis(20)).await;
    assert!(keep.poll().is_pending());
    assert_eq!(seen(), (Some(0.0), Some(1.0)));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_generation_confirms_no_model() {
    let metrics = Metrics::listen();
    let service = TelemetryLayer::call().layer(Upstream::at_once(|_| Ok(json(200, "{}"))));
    let uri = "/v1beta/models/gemini-2.5-pro:countTokens";
    service.clone().oneshot(ask(uri)).await.unwrap();
    service.oneshot(Request::get("/v1beta/models").body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let values = metrics.take();
    assert!(values.keys().any(|key| key.contains("gen_ai.operation.name=count_tokens") && key.contains("model=other")));
    // A call without a model has an empty label.
    assert!(values.keys().any(|key| key.contains("=list_models") && key.contains("gen_ai.request.model=,")));
}

/// A handle with a counter, in place of which the test may put another handle.
#[derive(Clone, Default)]
struct Replaced(Arc<AtomicU64>);

impl Observe for Replaced {
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>)) {
        let value = Value::Counter(self.0.load(Ordering::Relaxed));
        say(Reading { name: "tower_gemini.key.uses", value, model: "", labels: &[] });
    }
}

#[test]
fn a_counter_goes_on_when_another_handle_comes_that_begins_anew() {
    let metrics = Metrics::listen();
    let handle = Replaced::default();
    let gauges = TelemetryLayer::call().gauges().watch(handle.clone());
    for counted in [5, 7, 7, 1, 2] {
        handle.0.store(counted, Ordering::Relaxed);
        gauges.report();
    }
    assert_eq!(only(&metrics.take(), "tower_gemini.key.uses{gen_ai.request.model=}"), [9.0]);
}
