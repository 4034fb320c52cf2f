//! Tests of the limiter's blocks: how long a refusal is believed, who looks whether it still holds, and whom it concerns.

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    ClassifyLayer, KeyPoolLayer, RateLimitLayer, ReplayLayer, RetryLayer,
    failure::Kind,
    key_pool::{ApiKey, Key, KeyPool},
    quota::{Limits, Scope},
    rate_limit::Limiter,
};

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

/// Makes that many calls, one each tenth of a second, and returns how many were not refused by the layers.
async fn sent<S>(service: S, calls: u64) -> usize
where
    S: Service<Request<Full<Bytes>>, Error: std::fmt::Debug> + Clone,
{
    let calls = (0..calls).map(|nth| {
        let service = service.clone();
        async move {
            sleep(Duration::from_millis(nth * 100)).await;
            service.oneshot(post(GENERATE)).await.is_ok()
        }
    });
    join_all(calls).await.into_iter().filter(|is_sent| *is_sent).count()
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
async fn a_day_that_our_own_count_does_not_confirm_is_looked_at_after_a_quarter_of_a_minute() {
    let first_only = Upstream::at_once(|nth| Ok(if nth == 0 { exhausted(DAY, 250, "5s") } else { hello() }));
    let limiter = Limiter::builder().reject().build();
    assert_eq!(asked_at(limiter.clone(), first_only, 19).await, [0, 15, 16, 17, 18]);
    assert_eq!(limiter.snapshot()[0].blocked_for, None);
    // Each look that is refused doubles the time to the next one, up to an hour.
    let always = Upstream::at_once(|_| Ok(exhausted(DAY, 250, "5s")));
    let times = asked_at(Limiter::builder().reject().build(), always, 1_900).await;
    assert_eq!(times, [0, 15, 45, 105, 225, 465, 945]);
}

#[tokio::test(start_paused = true)]
async fn a_day_that_our_own_count_confirms_is_looked_at_after_half_an_hour_and_then_each_hour() {
    let upstream =
        Upstream::at_once(|nth| Ok(if (10..12).contains(&nth) { exhausted(DAY, 10, "5s") } else { hello() }));
    let limiter = Limiter::builder().reject().build();
    let times = asked_at(limiter.clone(), upstream, 7_230).await;
    assert_eq!(times[..13], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1_810, 5_410]);
    // The look is believed: the limit that the refusal has taught is forgotten.
    assert_eq!(times[13..], (5_411..7_230).collect::<Vec<_>>());
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
    sleep(secs(15)).await;
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
        assert_eq!((error.retry_after(), error.outcome().retry()), (Some(secs(15)), None));
        assert!(error.to_string().contains("is asked again in 15.0s"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_days_quota_that_nobody_names_costs_no_more_than_some_eighty_refusals() {
    let upstream = Upstream::at_once(|_| Ok(support::status(429)));
    let layers = ServiceBuilder::new()
        .layer(RetryLayer::default())
        .layer(RateLimitLayer::new(Limiter::new()))
        .layer(ClassifyLayer::new());
    let service = layers.service(upstream.clone());
    let calls = (0..864).map(|nth| {
        let service = service.clone();
        async move {
            sleep(secs(nth * 100)).await;
            service.oneshot(post(GENERATE)).await.is_ok_and(|response| response.status() == 200)
        }
    });
    assert!(join_all(calls).await.into_iter().all(|is_answered| !is_answered));
    println!("{} refusals", upstream.calls());
    assert!((10..=100).contains(&upstream.calls()), "{}", upstream.calls());
}

#[tokio::test(start_paused = true)]
async fn a_single_refusal_that_says_nothing_costs_nobody_more_than_a_second() {
    // One each five minutes: an answer between them ends what the last one has come to.
    let upstream = Upstream::new(|nth, _| async move {
        sleep(Duration::from_millis(200)).await;
        Ok(if nth % 600 == 9 { support::status(429) } else { hello() })
    });
    let limiter = Limiter::new();
    let layers = ServiceBuilder::new().layer(RateLimitLayer::new(limiter.clone())).layer(ClassifyLayer::new());
    let service = layers.service(upstream.clone());
    let calls = (0..4_000).map(|nth| {
        let service = service.clone();
        async move {
            sleep(Duration::from_millis(nth * 500)).await;
            let begun = Instant::now();
            let status = service.oneshot(post(GENERATE)).await.unwrap().status();
            (begun.elapsed(), status == 429)
        }
    });
    let results = join_all(calls).await;
    assert_eq!(results.iter().filter(|(_, refused)| *refused).count(), 7);
    let longest = results.iter().map(|(took, _)| *took).max().unwrap();
    assert!(longest <= Duration::from_millis(1_400), "{longest:?}");
    assert_eq!(limiter.snapshot()[0].blocked_for, None);
}

#[tokio::test(start_paused = true)]
async fn refusals_for_no_reason_do_not_park_an_upstream_whose_answers_are_slow() {
    // Ten calls a second for ten minutes. One in twenty is refused at once, and the others are answered a minute later:
    // many refusals between two answers.
    let upstream = || {
        Upstream::new(|nth, _| async move {
            if nth % 20 == 9 {
                return Ok(support::status(429));
            }
            sleep(secs(60)).await;
            Ok(hello())
        })
    };
    let classified = |upstream: &Upstream| ClassifyLayer::new().layer(upstream.clone());
    let limited = upstream();
    let limiter = Limiter::builder().max_wait(secs(120)).build();
    let service = RateLimitLayer::new(limiter).layer(classified(&limited));
    assert_eq!(sent(service, 6_000).await, 6_000);
    // A pool lets nobody wait, so that the calls within a second or two after each refusal are not sent.
    let pooled = upstream();
    let key = Key::new(ApiKey::new("AIza-nobodys").unwrap());
    let service = KeyPoolLayer::new(KeyPool::builder().key(key).build().unwrap()).layer(classified(&pooled));
    let sent = sent(service, 6_000).await;
    assert!(sent >= 4_500, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_refused_together_without_a_word_are_one_event_and_one_call_looks() {
    let upstream = Upstream::new(|nth, _| async move {
        sleep(Duration::from_millis(100)).await;
        Ok(if nth < 52 { support::status(429) } else { hello() })
    });
    let layers = ServiceBuilder::new().layer(RateLimitLayer::new(Limiter::new())).layer(ClassifyLayer::new());
    let service = layers.service(upstream.clone());
    let begun = Instant::now();
    let together = async || join_all((0..50).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    assert!(together().await.into_iter().all(|result| result.unwrap().status() == 429));
    // Looks after 1 and 2 s are refused, and that after 4 s lets all others pass.
    let later = together().await.into_iter().filter(|result| result.as_ref().unwrap().status() == 200).count();
    assert_eq!((later, upstream.calls()), (48, 100));
    assert!((secs(7)..secs(8)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_operator_lifts_the_block_of_one_scope_and_its_waiters_go() {
    let upstream = Upstream::at_once(|nth| Ok(if nth < 2 { exhausted(MINUTE, 10, "50s") } else { hello() }));
    let limiter = Limiter::new();
    let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(upstream.clone()));
    const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
    for uri in [GENERATE, FLASH] {
        service.clone().oneshot(post(uri)).await.unwrap();
    }
    let begun = Instant::now();
    let operator = async {
        sleep(secs(5)).await;
        limiter.lift_scope(&Scope::new("default", "no-such-model"));
        limiter.lift_scope(&Scope::new("default", "gemini-2.5-pro"));
    };
    let (lifted, ()) = tokio::join!(service.clone().oneshot(post(GENERATE)), operator);
    assert_eq!((lifted.unwrap().status().as_u16(), begun.elapsed()), (200, secs(5)));
    let blocked = limiter.snapshot().into_iter().filter(|report| report.blocked_for.is_some());
    assert_eq!(blocked.map(|report| report.scope).collect::<Vec<_>>(), [Scope::new("default", "gemini-2.5-flash")]);
}

#[tokio::test(start_paused = true)]
async fn a_report_tells_when_a_block_of_hours_ends_also_while_a_look_is_due() {
    let upstream = Upstream::at_once(|_| Ok(exhausted(DAY, 250, "5s")));
    let limiter = Limiter::new();
    let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(upstream));
    service.oneshot(post(GENERATE)).await.unwrap();
    let left = limiter.snapshot()[0].blocked_for.unwrap();
    sleep(secs(15)).await;
    assert_eq!(limiter.snapshot()[0].blocked_for, Some(left - secs(15)));
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
        assert_eq!(find(&error).retry_after(), Some(secs(15)));
    }
    assert_eq!((upstream.calls(), begun.elapsed()), (6, Duration::ZERO));
    assert_eq!(limiter.snapshot()[0].blocked_for, None);
    sleep(secs(15)).await;
    assert_eq!(ask(GROUNDED).await.unwrap().status(), 429);
    assert_eq!(ask("{}").await.unwrap().status(), 200);
    assert_eq!(find(&ask(GROUNDED).await.err().unwrap()).retry_after(), Some(secs(30)));
}
