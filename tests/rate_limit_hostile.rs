//! Tests of the limiter against hostile callers and upstreams.

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_gemini::{
    ClassifyLayer, RateLimitLayer,
    quota::{Limits, Scope},
    rate_limit::Limiter,
};

use crate::support::{GENERATE, Upstream, hello, json, post, secs};

fn per_minute(requests: u64) -> Limits {
    Limits::new().requests_per_minute(requests)
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_ages_is_no_panic() {
    for delay in ["18446744073709551615s", "9223372036854775807s", "99999999999s"] {
        let body = format!(
            r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Quota exceeded.","details":[{{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel"}}]}},{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}"}}]}}}}"#
        );
        let day = body.replace("PerMinute", "PerDay");
        for body in [body, day] {
            let limiter = Limiter::new();
            let service = RateLimitLayer::new(limiter.clone())
                .layer(ClassifyLayer::new().layer(Upstream::at_once(move |_| Ok(json(429, body.clone())))));
            assert_eq!(service.clone().oneshot(post(GENERATE)).await.unwrap().status(), 429);
            let _ = service.oneshot(post(GENERATE)).await;
            limiter.snapshot();
        }
    }
    let limiter = Limiter::new();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| {
        Ok(Response::builder().status(429).header("retry-after", u64::MAX).body(support::full("")).unwrap())
    }));
    assert_eq!(service.clone().oneshot(post(GENERATE)).await.unwrap().status(), 429);
    let _ = service.oneshot(post(GENERATE)).await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_ever_is_no_panic() {
    let limiter = Limiter::builder().limits(per_minute(1)).max_wait(Duration::MAX).build();
    let service = RateLimitLayer::new(limiter).layer(Upstream::at_once(|_| Ok(hello())));
    let begun = Instant::now();
    assert!(join_all((0..3).map(|_| service.clone().oneshot(post(GENERATE)))).await.iter().all(Result::is_ok));
    assert!(begun.elapsed() < secs(122));
}

/// Invented names fill the map; a configured limit holds all the same.
#[tokio::test(start_paused = true)]
async fn invented_models_do_not_lift_a_configured_limit() {
    let scope = Scope::new("default", "gemini-2.5-flash");
    let limits = Limiter::builder().limits_for("gemini-2.5-pro", per_minute(2)).limits_of(scope, per_minute(3));
    let limiter = limits.limits_in("poor", per_minute(5_000)).reject().build();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    let ask = |model: String| service.clone().oneshot(post(&format!("/v1beta/models/{model}:generateContent")));
    for nth in 0..30_000 {
        let _ = ask(format!("m{nth}")).await;
    }
    // The shared account goes by the least limit of any project that may be in it.
    let others = limiter.snapshot().into_iter().find(|report| report.scope.model() == "others").unwrap();
    assert_eq!((others.dimensions[0].limit, others.dimensions[2].limit), (Some(5_000), None));
    for (model, limit) in [("gemini-2.5-pro", 2), ("gemini-2.5-flash", 3)] {
        let calls = (0..9).map(|_| ask(model.to_owned()));
        assert_eq!(join_all(calls).await.iter().filter(|result| result.is_ok()).count(), limit, "{model}");
    }
}

/// The headroom that the key pool sees is what a call would find.
#[tokio::test(start_paused = true)]
async fn the_headroom_of_a_name_without_an_account_is_the_shared_ones() {
    let limiter = Limiter::builder().limits(per_minute(1)).reject().build();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    let long = "x".repeat(600);
    service.oneshot(post(&format!("/v1beta/models/{long}:generateContent"))).await.unwrap();
    assert!(limiter.headroom(&Scope::new("default", long), 1, 0) > Duration::ZERO);
}
