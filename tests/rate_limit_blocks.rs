//! Tests of the limiter's blocks: how long a refusal is believed, who looks whether it still holds, and whom it concerns.

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::{ClassifyLayer, RateLimitLayer, ReplayLayer, failure::Kind, quota::Limits, rate_limit::Limiter};

use crate::support::{AnyBody, GENERATE, Upstream, find, hello, json, post, secs};

/// Returns the whole seconds at which calls, one a second, were sent to the upstream.
async fn asked_at(limiter: Limiter, upstream: Upstream, until: u64) -> Vec<u64> {
    let service = RateLimitLayer::new(limiter).layer(ClassifyLayer::new().layer(upstream.clone()));
    let begun = Instant::now();
    let mut times = Vec::new();
    for second in 0..until {
        sleep(secs(second).saturating_sub(begun.elapsed())).await;
        let before = upstream.calls();
        let _ = service.clone().oneshot(post(GENERATE)).await;
        times.extend((before < upstream.calls()).then_some(second));
    }
    times
}

/// A refusal in Google's shape: the quota's id and value, and the wait.
fn exhausted(id: &str, value: u64, delay: &str) -> Response<AnyBody> {
    json(
        429,
        format!(
            r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota.","details":[
            {{"violations":[{{"quotaId":"{id}","quotaValue":"{value}"}}]}},{{"retryDelay":"{delay}"}}]}}}}"#
        ),
    )
}

const DAY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";
const MINUTE: &str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier";

#[tokio::test(start_paused = true)]
async fn a_day_that_our_own_count_does_not_confirm_is_looked_at_after_a_minute() {
    let first_only = Upstream::at_once(|nth| Ok(if nth == 0 { exhausted(DAY, 250, "5s") } else { hello() }));
    let limiter = Limiter::builder().reject().build();
    assert_eq!(asked_at(limiter.clone(), first_only, 64).await, [0, 60, 61, 62, 63]);
    assert_eq!(limiter.snapshot()[0].blocked_for, None);
    // Each look that is refused doubles the time to the next one, up to an hour.
    let always = Upstream::at_once(|_| Ok(exhausted(DAY, 250, "5s")));
    let times = asked_at(Limiter::builder().reject().build(), always, 1_900).await;
    assert_eq!(times, [0, 60, 180, 420, 900, 1_860]);
}

#[tokio::test(start_paused = true)]
async fn a_day_that_our_own_count_confirms_is_looked_at_each_hour() {
    let upstream =
        Upstream::at_once(|nth| Ok(if (10..12).contains(&nth) { exhausted(DAY, 10, "5s") } else { hello() }));
    let limiter = Limiter::builder().reject().build();
    let times = asked_at(limiter.clone(), upstream, 7_230).await;
    assert_eq!(times[..13], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 3_610, 7_210]);
    // What the look has shown is believed: the limit that the refusal has taught is forgotten.
    assert_eq!(times[13..], (7_211..7_230).collect::<Vec<_>>());
    assert_eq!(limiter.snapshot()[0].dimensions[2].learned, None);
}

#[tokio::test(start_paused = true)]
async fn a_days_limit_that_was_learned_is_looked_at_again_the_next_day() {
    let upstream = Upstream::at_once(|nth| Ok(if nth == 3 { exhausted(DAY, 3, "5s") } else { hello() }));
    let limiter = Limiter::builder().reject().build();
    let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(upstream.clone()));
    let ask = async || service.clone().oneshot(post(GENERATE)).await.is_ok();
    for _ in 0..4 {
        assert!(ask().await);
    }
    assert!(!ask().await);
    sleep(secs(25 * 3_600)).await;
    for _ in 0..3 {
        assert!(ask().await);
    }
    // The project may have a higher tier since: after an hour one call asks.
    assert!(!ask().await);
    sleep(secs(3_600)).await;
    assert!(ask().await && ask().await);
}

#[tokio::test(start_paused = true)]
async fn a_minutes_quota_is_believed_for_two_minutes_and_then_one_call_looks() {
    let upstream = Upstream::new(|nth, _| async move {
        sleep(Duration::from_millis(500)).await;
        Ok(if nth < 2 { exhausted(MINUTE, 10, "1000000000s") } else { hello() })
    });
    let limiter = Limiter::builder().reject().build();
    let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(upstream.clone()));
    let begun = Instant::now();
    let together = async || join_all((0..5).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    assert_eq!(limiter.snapshot()[0].blocked_for, Some(secs(120)));
    for (at, calls) in [(120, 1), (121, 2), (241, 2), (242, 3)] {
        sleep(secs(at).saturating_sub(begun.elapsed())).await;
        together().await;
        assert_eq!(upstream.calls(), calls, "{at}");
    }
    // The look has succeeded: the block is gone. The limit that was learned holds on.
    assert_eq!(limiter.snapshot()[0].blocked_for, None);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_dropped_or_shows_nothing_is_made_again() {
    let upstream = Upstream::new(|nth, _| async move {
        match nth {
            0 => Ok(exhausted(DAY, 250, "5s")),
            1 => std::future::pending().await,
            2 => Ok(support::status(503)),
            _ => Ok(hello()),
        }
    });
    let limiter = Limiter::builder().reject().build();
    let service = RateLimitLayer::new(limiter).layer(ClassifyLayer::new().layer(upstream.clone()));
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    sleep(secs(60)).await;
    assert!(timeout(secs(1), service.clone().oneshot(post(GENERATE))).await.is_err());
    assert_eq!(service.clone().oneshot(post(GENERATE)).await.unwrap().status(), 503);
    for _ in 0..3 {
        assert_eq!(service.clone().oneshot(post(GENERATE)).await.unwrap().status(), 200);
    }
    assert_eq!(upstream.calls(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_operator_lifts_the_blocks_of_a_project() {
    let upstream = Upstream::at_once(|nth| Ok(if nth == 0 { exhausted(DAY, 0, "5s") } else { hello() }));
    let limiter = Limiter::new();
    let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(upstream.clone()));
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    limiter.lift("another");
    let error = service.clone().oneshot(post(GENERATE)).await.err().unwrap();
    assert!(find(&error).retry_after().is_some_and(|wait| wait <= secs(3_600)), "{error}");
    limiter.lift("default");
    assert_eq!(service.oneshot(post(GENERATE)).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_block_that_lasts() {
    let upstream = Upstream::new(|nth, _| async move {
        sleep(secs(1)).await;
        Ok(if nth == 0 { exhausted(DAY, 250, "5s") } else { hello() })
    });
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1)).max_wait(secs(3_600)).build();
    let service = RateLimitLayer::new(limiter).layer(ClassifyLayer::new().layer(upstream.clone()));
    let begun = Instant::now();
    let results = join_all((0..4).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    // Those in the queue are told at once, with the time at which it is asked again.
    assert_eq!(begun.elapsed(), secs(1));
    for refused in &results[1..] {
        let error = find(refused.as_ref().unwrap_err());
        assert_eq!((error.retry_after(), error.outcome().retry()), (Some(secs(60)), None));
        assert!(error.to_string().contains("is asked again in 60.0s"), "{error}");
    }
}

const GROUNDED: &str = r#"{"contents":[{"parts":[{"text":"hi"}]}],"tools":[{"googleSearch":{}}]}"#;

fn grounding_quota() -> Response<AnyBody> {
    json(
        429,
        r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota, please check your plan and billing details.","details":[
        {"@type":"type.googleapis.com/google.rpc.Help","links":[{"description":"Learn more","url":"https://ai.google.dev/gemini-api/docs/rate-limits"}]}]}}"#,
    )
}

#[tokio::test(start_paused = true)]
async fn the_grounding_quota_rests_grounded_calls_and_no_plain_one() {
    let upstream = Upstream::new(|_, asked| async move {
        Ok(if asked.body.windows(12).any(|part| part == b"googleSearch") { grounding_quota() } else { hello() })
    });
    let limiter = Limiter::new();
    let layers = ServiceBuilder::new()
        .layer(ReplayLayer::default())
        .layer(RateLimitLayer::new(limiter.clone()))
        .layer(ClassifyLayer::new());
    let service = layers.service(upstream.clone());
    let ask = async |body: &'static str| service.clone().oneshot(support::post_body(GENERATE, body)).await;
    let begun = Instant::now();
    let refused = ask(GROUNDED).await.unwrap();
    assert_eq!(support::outcome(&refused).failure().unwrap().kind(), Kind::QuotaGrounding);
    for _ in 0..5 {
        assert_eq!(ask("{}").await.unwrap().status(), 200);
        let error = ask(GROUNDED).await.err().unwrap();
        assert!(find(&error).to_string().contains("calls that search the web or maps"), "{error}");
        assert_eq!(find(&error).retry_after(), Some(secs(60)));
    }
    assert_eq!((upstream.calls(), begun.elapsed()), (6, Duration::ZERO));
    assert_eq!(limiter.snapshot()[0].blocked_for, None);
    sleep(secs(60)).await;
    assert_eq!(ask(GROUNDED).await.unwrap().status(), 429);
    assert_eq!(ask("{}").await.unwrap().status(), 200);
    assert_eq!(find(&ask(GROUNDED).await.err().unwrap()).retry_after(), Some(secs(120)));
}
