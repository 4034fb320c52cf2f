//! `GeminiLayer`: the stacks of the presets, refusals and warnings of the builder, and the wiring of the layers.

mod support;

use std::{convert::Infallible, num::NonZeroU32, time::Duration};

use axum::{Router, body::Body};
use futures_util::future::join_all;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use support::*;
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::{
    CircuitBreakerLayer, ClassifyLayer, ErrorResponseLayer, GeminiLayer, ModelFallbackLayer, RateLimitLayer,
    RetryLayer, TelemetryLayer, TokenPrecheckLayer,
    emulator::{Emulator, Trouble, When},
    key_pool::{ApiKey, Key, KeyPoolLayer},
    quota::Limits,
    rate_limit::Limiter,
    stack::{Gemini, GeminiBody, GeminiBuilder},
};

const MINUTE: Duration = Duration::from_secs(60);

fn key(text: &str, project: &str) -> Key {
    Key::new(ApiKey::new(text).unwrap()).project(project)
}

fn requests(limit: u64) -> Limits {
    Limits::new().requests_per_minute(limit)
}

#[test]
fn a_preset_is_what_the_table_says() {
    for (preset, numbers) in [
        (
            GeminiLayer::interactive(),
            ["total 60s", "attempt 45s, first content 30s, idle 30s, adaptive", "12 attempts", "up to 10s"],
        ),
        (
            GeminiLayer::thinking(),
            [
                "total 720s",
                "attempt 300s, first content 180s, idle 60s, adaptive",
                "12 attempts",
                "waits until the deadline",
            ],
        ),
        (
            GeminiLayer::batch(),
            [
                "total 3600s",
                "attempt 180s, first content 180s, idle 60s, adaptive",
                "60 attempts",
                "waits until the deadline",
            ],
        ),
        (
            GeminiLayer::relay(),
            [
                "total 285s",
                "attempt 180s, first content 180s, idle 60s, adaptive",
                "20 attempts",
                "waits until the deadline",
            ],
        ),
        (
            GeminiLayer::relay().fixed_clocks(),
            ["total 285s", "attempt 180s, first content 180s, idle 60s\n", "20 attempts", "waits until the deadline"],
        ),
    ] {
        let gemini = preset.build().unwrap();
        let described = gemini.describe().to_string();
        for number in numbers {
            assert!(described.contains(number), "{number}: {described}");
        }
        assert_eq!(gemini.warnings(), [""; 0]);
        let names: Vec<_> = described.lines().map(|line| line[..16].trim_end()).collect();
        let order = [
            "telemetry",
            "timeout",
            "replay",
            "model fallback",
            "token precheck",
            "caller limit",
            "retry",
            "telemetry",
            "key pool",
            "rate limit",
            "circuit breaker",
            "timeout",
            "classify",
        ];
        assert_eq!(names, order);
    }
}

#[test]
fn what_was_set_is_described_and_secrets_are_not() {
    let gemini = GeminiLayer::relay()
        .key(key(KEY, "p1"))
        .limits(requests(30))
        .limits_for("gemini-2.5-pro", Limits::new().requests_per_minute(10).input_tokens_per_minute(2_000_000))
        .fallback("gemini-2.5-pro", ["gemini-2.5-flash", "gemini-2.5-flash-lite"])
        .build()
        .unwrap();
    let described = gemini.describe().to_string();
    for part in [
        "keys: 1; projects: 1",
        "30 requests a minute for every model",
        "10 requests a minute for model gemini-2.5-pro",
        "gemini-2.5-pro -> gemini-2.5-flash -> gemini-2.5-flash-lite",
    ] {
        assert!(described.contains(part), "{part}: {described}");
    }
    assert!(!format!("{described}{gemini:?}").contains(&KEY[4..12]), "{described}{gemini:?}");
}

#[test]
fn an_attempts_clock_brings_those_of_streams_with_it() {
    let clocks = |builder: GeminiBuilder| builder.build().unwrap().describe().to_string();
    let of_streams = |described: &str| {
        let attempt = described.lines().find(|line| line.contains("attempt 7s")).unwrap();
        assert!(!attempt.contains("total"), "{attempt}");
        attempt.split_once("attempt 7s, ").unwrap().1.to_owned()
    };
    let limit = Duration::from_secs(7);
    let described = clocks(GeminiLayer::relay().without_clocks().attempt(limit));
    assert_eq!(of_streams(&described), "first content 180s, idle 60s, adaptive");
    let described = clocks(GeminiLayer::relay().without_clocks().attempt(limit).idle(Duration::from_secs(3)));
    assert_eq!(of_streams(&described), "first content 180s, idle 3s, adaptive");
}

#[test]
fn every_part_can_be_left_out() {
    let gemini = GeminiLayer::relay()
        .without_clocks()
        .fallback_layer(ModelFallbackLayer::disabled())
        .precheck(TokenPrecheckLayer::disabled())
        .retry_layer(RetryLayer::disabled())
        .key_pool(KeyPoolLayer::disabled())
        .rate_limit(RateLimitLayer::disabled())
        .breaker(CircuitBreakerLayer::disabled())
        .classify(ClassifyLayer::disabled())
        .telemetry(TelemetryLayer::disabled(), TelemetryLayer::disabled())
        .build()
        .unwrap();
    let described = gemini.describe().to_string();
    assert_eq!(described.matches("left out").count(), 12, "{described}");
    assert!(gemini.limiter().is_none() && gemini.breakers().is_none() && gemini.keys().is_none());
    assert!(gemini.models().is_none() && gemini.chains().is_none());
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let secs = Duration::from_secs;
    let cases: [(GeminiBuilder, &str); 9] = [
        (GeminiLayer::relay().total(secs(100)), "attempt is 180s, longer than total, which is 100s"),
        (GeminiLayer::relay().total(secs(100)).attempt(secs(50)), "first_content is 180s, longer than total"),
        (GeminiLayer::relay().total(Duration::ZERO), "total is 0 s"),
        (GeminiLayer::relay().attempt(Duration::ZERO), "attempt is 0 s"),
        (GeminiLayer::relay().idle(Duration::ZERO), "idle is 0 s"),
        (GeminiLayer::relay().limits(requests(0)), "the limit for every model is 0 requests a minute"),
        (
            GeminiLayer::relay().limits_for("m", Limits::new().input_tokens_per_minute(0)),
            "the limit for model m is 0 input tokens a minute",
        ),
        (GeminiLayer::relay().fallback("a", ["b", "a"]), "a"),
        (GeminiLayer::relay().key(key("a-key-of-mine", "p1")).key(key("a-key-of-mine", "p2")), "already"),
    ];
    for (builder, message) in cases {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn what_may_surprise_is_warned_of() {
    let gemini = GeminiLayer::interactive()
        .limiter(Limiter::builder().max_wait(2 * MINUTE))
        .limits_for("gemini-2.5-pro", Limits::new().input_tokens_per_minute(250_000))
        .limits_for("gemini-2.5-flash", Limits::new().input_tokens_per_minute(4_000_000))
        .key(key("a-key-of-mine", "p1"))
        .key(key("another-of-mine", "p1"))
        .key(key("a-third-of-mine", "p2"))
        .build()
        .unwrap();
    let [wait, tokens, thinking, keys] = gemini.warnings() else { panic!("{:?}", gemini.warnings()) };
    assert!(
        thinking.contains("attempt is 45s and first_content is 30s") && thinking.contains("60 to 120 s"),
        "{thinking}"
    );
    assert!(thinking.contains("gemini-2.5-pro") && thinking.contains("GeminiLayer::thinking()"), "{thinking}");
    assert!(!thinking.contains("gemini-2.5-flash"), "{thinking}");
    assert!(wait.contains("max_wait is 120s") && wait.contains("60s"), "{wait}");
    assert!(tokens.contains("gemini-2.5-pro has 250000") && tokens.contains("1048576"), "{tokens}");
    assert!(keys.contains("2 keys are of project p1"), "{keys}");

    // The limits of every model hold for the models of a chain.
    let small = Limits::new().input_tokens_per_minute(250_000);
    let gemini = GeminiLayer::relay().limits(small).fallback("gemini-2.5-pro", ["gemini-2.5-flash"]).build().unwrap();
    let [flash, pro] = gemini.warnings() else { panic!("{:?}", gemini.warnings()) };
    assert!(flash.starts_with("gemini-2.5-flash has 250000") && pro.starts_with("gemini-2.5-pro has 250000"), "{pro}");
}

#[tokio::test(start_paused = true)]
async fn the_pool_asks_the_limiter_where_there_is_room() {
    let emulator = Emulator::builder().key("a-key-of-mine", "p1").key("another-of-mine", "p2").build();
    let gemini = GeminiLayer::relay()
        .limits(requests(10))
        .key(key("a-key-of-mine", "p1").weight(NonZeroU32::new(1_000).unwrap()))
        .key(key("another-of-mine", "p2"))
        .build()
        .unwrap();
    let service = gemini.layer(emulator.clone());
    let start = Instant::now();
    let answers = join_all((0..20).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == OK));
    assert!(start.elapsed() < Duration::from_secs(1), "nobody waited: {:?}", start.elapsed());
    for project in ["p1", "p2"] {
        let used = gemini.limiter().unwrap().snapshot();
        let used = used.iter().find(|scope| scope.scope.project() == project).unwrap().dimensions[0].used;
        assert_eq!(used, 10, "{project}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_limiter_asks_the_breakers_before_it_queues() {
    let gemini = GeminiLayer::relay().limits(requests(1)).fail_fast().build().unwrap();
    let service = gemini.layer(Emulator::builder().keyless().build());
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    let breakers = gemini.breakers().unwrap();
    for report in breakers.snapshot() {
        breakers.force_open(&report.0);
    }
    let start = Instant::now();
    let error = service.oneshot(post(GENERATE)).await.unwrap_err();
    assert!(tower_gemini::Error::find(&*error).unwrap().is_circuit_open(), "{error}");
    assert_eq!(start.elapsed(), Duration::ZERO, "it did not queue for a model that is down");
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_its_state() {
    let gemini =
        GeminiLayer::relay().limiter(Limiter::builder().reject().limits(requests(1))).fail_fast().build().unwrap();
    let emulator = Emulator::builder().keyless().build();
    gemini.layer(emulator.clone()).oneshot(post(GENERATE)).await.unwrap();
    let error = gemini.clone().layer(emulator).oneshot(post(GENERATE)).await.unwrap_err();
    assert!(tower_gemini::Error::find(&*error).unwrap().is_rate_limited(), "{error}");
}

/// A program that names the type of its service.
struct Program {
    gemini: Gemini<Emulator>,
}

#[tokio::test(start_paused = true)]
async fn the_type_can_be_named_and_forgotten() {
    fn is_service<S: Clone + Send + Sync + 'static>(_: &S) {}
    let emulator = Emulator::builder().keyless().build();
    let program = Program { gemini: GeminiLayer::relay().build().unwrap().layer(emulator) };
    is_service(&program.gemini);
    let answer: Response<GeminiBody<_>> = program.gemini.clone().oneshot(post(GENERATE)).await.unwrap();
    assert_eq!(answer.status(), OK);
    let boxed = program.gemini.boxed_clone();
    assert_eq!(boxed.oneshot(post(GENERATE)).await.unwrap().status(), OK);
}

#[tokio::test(start_paused = true)]
async fn axum_takes_it_under_a_route_and_gets_googles_shape() {
    let emulator = Emulator::builder().keyless().trouble(When::always(), Trouble::overloaded()).build();
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(GeminiLayer::interactive().build().unwrap())
        .service(emulator);
    let app: Router = Router::new().route_service("/v1beta/{*rest}", service);
    let request = post(GENERATE).map(Body::new);
    let response: Result<_, Infallible> = app.oneshot(request).await;
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("UNAVAILABLE"));
}
