//! Calls that begin alike go to one project, whose cache may have their beginning, as long as that costs them no wait.

mod support;

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, ClassifyLayer, KeyPoolLayer, RateLimitLayer, ReplayLayer, RetryLayer,
    key_pool::{ApiKey, Key, KeyPool, KeyPoolBuilder},
    quota::Limits,
    rate_limit::Limiter,
};

use crate::support::{AnyBody, CHAT, GENERATE, INTERACTIONS, Upstream, hello, json, post_body, secs};

type Sent = Request<Full<bytes::Bytes>>;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn keys() -> KeyPoolBuilder {
    let key = |name: &str| Key::new(ApiKey::new(format!("AIza-nobodys-{name}")).unwrap()).project(name);
    NAMES.iter().fold(KeyPool::builder(), |keys, name| keys.key(key(name)))
}

fn upstream() -> Upstream {
    Upstream::at_once(|_| Ok(hello()))
}

/// Returns the last letters of the keys that were asked, in order.
fn asked(upstream: &Upstream) -> Vec<char> {
    let asked = upstream.asked();
    let key = |headers: &HeaderMap| {
        let key = headers.get("x-goog-api-key").or_else(|| headers.get(AUTHORIZATION)).unwrap();
        key.to_str().unwrap().chars().last().unwrap()
    };
    asked.iter().map(|asked| key(&asked.headers)).collect()
}

/// Returns the turn of a conversation: it begins with what was said before.
fn turn(uri: &str, conversation: usize, turn: usize) -> Sent {
    let said = |mark: &str| (0..turn).map(|nth| format!(r#",{{{mark}"said {nth}"}}"#)).collect::<String>();
    let body = match uri {
        CHAT => format!(
            r#"{{"model":"gemini-2.5-pro","messages":[{{"role":"system","content":"s"}},{{"role":"user","content":"{conversation}"}}{}]}}"#,
            said(r#""role":"user","content":"#)
        ),
        INTERACTIONS => {
            format!(r#"{{"model":"gemini-2.5-pro","input":[{{"text":"{conversation}"}}{}]}}"#, said(r#""text":"#))
        }
        _ => format!(
            r#"{{"generationConfig":{{"seed":{turn}}},"contents":[{{"parts":[{{"text":"{conversation}"}}]}}{}]}}"#,
            said(r#""x":"#)
        ),
    };
    post_body(uri, body)
}

async fn ask<S, R>(service: &S, request: Sent)
where
    S: Service<Sent, Response = Response<R>, Error = BoxError> + Clone,
{
    assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_turns_of_a_conversation_go_to_one_project_and_conversations_to_all() {
    for uri in [GENERATE, CHAT, INTERACTIONS] {
        fastrand::seed(1);
        let upstream = upstream();
        let service = ServiceBuilder::new()
            .layer(ReplayLayer::default())
            .layer(KeyPoolLayer::new(keys().build().unwrap()))
            .service(upstream.clone());
        for nth in 0..5 {
            for conversation in 0..30 {
                ask(&service, turn(uri, conversation, nth)).await;
            }
        }
        let asked = asked(&upstream);
        for conversation in 0..30 {
            let of_it: BTreeSet<_> = asked.iter().skip(conversation).step_by(30).collect();
            assert_eq!(of_it.len(), 1, "{uri} {conversation}");
        }
        assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 4, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_can_be_switched_off_and_ends_an_hour_after_the_last_call() {
    for (longest, pause, alike) in
        [(None, 5, false), (Some(secs(2)), 5, true), (Some(secs(2)), 3_500, true), (Some(secs(2)), 3_700, false)]
    {
        let upstream = upstream();
        let service = KeyPoolLayer::new(keys().cache_affinity(longest).build().unwrap()).layer(upstream.clone());
        for nth in 0..40 {
            ask(&service, turn(GENERATE, 1, nth)).await;
            sleep(secs(pause)).await;
        }
        let projects = asked(&upstream).into_iter().collect::<BTreeSet<_>>().len();
        assert_eq!(projects == 1, alike, "{longest:?} {pause}: {projects}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_alike_whatever_its_bodies_and_two_models_are_not() {
    let upstream = upstream();
    let name = HeaderName::from_static("x-conversation");
    let pool = keys().session_header(name.clone()).build().unwrap();
    let service = KeyPoolLayer::new(pool).layer(upstream.clone());
    let session = |mut request: Sent, session: &str| {
        request.headers_mut().insert(name.clone(), HeaderValue::from_str(session).unwrap());
        request
    };
    for nth in 0..20 {
        ask(&service, session(turn(GENERATE, nth, 0), "one")).await;
        sleep(secs(5)).await;
    }
    assert_eq!(asked(&upstream).into_iter().collect::<BTreeSet<_>>().len(), 1);
    for nth in 0..20 {
        ask(&service, session(turn(GENERATE, 0, 0), &nth.to_string())).await;
        let other = format!("/v1beta/models/model-{nth}:generateContent");
        ask(&service, session(turn(&other, 0, 0), "one")).await;
    }
    let asked = asked(&upstream);
    assert!(asked[20..].iter().step_by(2).collect::<BTreeSet<_>>().len() > 1, "sessions");
    assert!(asked[21..].iter().step_by(2).collect::<BTreeSet<_>>().len() > 1, "models");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_cache_as_long_as_is_set_and_no_longer() {
    let stack = |longest: Duration, upstream: &Upstream| {
        let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(5)).max_wait(secs(600)).build();
        let pool = keys().cache_affinity(longest).headroom(limiter.clone()).build().unwrap();
        ServiceBuilder::new()
            .layer(KeyPoolLayer::new(pool))
            .layer(RateLimitLayer::new(limiter))
            .service(upstream.clone())
    };
    for (longest, waits) in [(secs(2), false), (secs(9), false), (secs(20), true), (Duration::MAX, true)] {
        let upstream = upstream();
        let service = stack(longest, &upstream);
        for nth in 0..5 {
            ask(&service, turn(GENERATE, 1, nth)).await;
        }
        // Its project is full for ten seconds more, and the others are free.
        sleep(secs(50)).await;
        let begun = Instant::now();
        ask(&service, turn(GENERATE, 1, 5)).await;
        let (waited, asked) = (begun.elapsed(), asked(&upstream));
        assert_eq!(asked[..5].iter().collect::<BTreeSet<_>>().len(), 1, "{asked:?}");
        assert_eq!((asked[5] == asked[0], waited > secs(9)), (waits, waits), "{longest:?}: {waited:?} {asked:?}");
        assert!(waited < if waits { secs(12) } else { secs(1) }, "{longest:?}: {waited:?}");
    }
    // With all of them full, it waits for its own no longer than that beyond the first that is free.
    for longest in [secs(2), Duration::MAX] {
        let upstream = upstream();
        let service = stack(longest, &upstream);
        // One conversation goes from project to project, unless it may wait for ever.
        let conversation = |nth| if longest > secs(2) { nth } else { 0 };
        for nth in 0..20 {
            let begun = Instant::now();
            ask(&service, turn(GENERATE, conversation(nth), nth)).await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
            sleep(secs(1)).await;
        }
        let at_first = asked(&upstream);
        assert!(NAMES.iter().all(|name| at_first.iter().filter(|at| name.starts_with(**at)).count() == 5));
        ask(&service, turn(GENERATE, conversation(19), 20)).await;
        let at_last = asked(&upstream)[20];
        assert_eq!(at_last, at_first[if longest > secs(2) { 19 } else { 0 }], "{longest:?}: {at_first:?}");
    }
}

/// Returns how many of these calls, all of which begin alike, go to each project.
async fn shares(weights: &[u32], calls: usize, apart: Duration) -> Vec<usize> {
    let upstream = upstream();
    let keys = weights.iter().zip(NAMES).fold(KeyPool::builder(), |keys, (weight, name)| {
        let key = Key::new(ApiKey::new(format!("AIza-nobodys-{name}")).unwrap()).project(name);
        keys.key(key.weight(NonZeroU32::new(*weight).unwrap()))
    });
    let service = KeyPoolLayer::new(keys.build().unwrap()).layer(upstream.clone());
    // The part in which they differ is not compared.
    let instructed = "Be brief. ".repeat(450);
    for nth in 0..calls {
        let body = format!(r#"{{"contents":[{{"parts":[{{"text":"{instructed}{nth}"}}]}}]}}"#);
        ask(&service, post_body(GENERATE, body)).await;
        sleep(apart).await;
    }
    let asked = asked(&upstream);
    let of = |name: &str| asked.iter().filter(|at| name.starts_with(**at)).count();
    NAMES[..weights.len()].iter().map(|name| of(name)).collect()
}

#[tokio::test(start_paused = true)]
async fn one_beginning_of_all_calls_fills_no_project_beyond_its_share() {
    for seed in 0..5 {
        fastrand::seed(seed);
        for apart in [Duration::ZERO, Duration::from_millis(100)] {
            let shares = shares(&[1, 1, 1, 1], 400, apart).await;
            assert!(shares.iter().all(|calls| (5..190).contains(calls)), "{seed} {apart:?}: {shares:?}");
        }
        // The weight of one tenth, whichever is asked first.
        let shares = shares(&[9, 1], 100, Duration::ZERO).await;
        assert!(shares[1] <= 25, "{seed}: {shares:?}");
    }
    // A few of them are no load, and stay together.
    assert!(shares(&[1, 1, 1, 1], 60, secs(6)).await.contains(&60));
}

#[tokio::test(start_paused = true)]
async fn a_conversation_looks_at_a_project_that_was_out_and_stays_where_it_is() {
    let upstream = Upstream::at_once(|nth| {
        let closed = r#"{"error":{"code":404,"status":"NOT_FOUND","message":"This model models/gemini-2.5-pro is no longer available to new users. Please update your code to use a newer model."}}"#;
        Ok(if nth == 0 { json(404, closed) } else { hello() })
    });
    let pool = keys().build().unwrap();
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::default())
        .layer(RetryLayer::default())
        .layer(KeyPoolLayer::new(pool.clone()))
        .layer(ClassifyLayer::new())
        .service(upstream.clone());
    for nth in 0..100 {
        ask(&service, turn(GENERATE, 1, nth)).await;
        sleep(secs(60)).await;
    }
    let asked = asked(&upstream);
    assert_eq!(asked[1..].iter().filter(|project| **project == asked[0]).count(), 1, "{asked:?}");
    assert_eq!(asked[1..].iter().collect::<BTreeSet<_>>().len(), 2, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_go_where_it_was_refused_and_the_next_one_follows_it() {
    // The first project that is asked is out of quota.
    let upstream = Upstream::at_once(|nth| {
        let refusal: Response<AnyBody> = json(
            429,
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota.","details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"250"}]}]}}"#,
        );
        Ok(if nth == 5 { refusal } else { hello() })
    });
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::default())
        .layer(RetryLayer::default())
        .layer(KeyPoolLayer::new(keys().build().unwrap()))
        .layer(ClassifyLayer::new())
        .service(upstream.clone());
    for nth in 0..15 {
        ask(&service, turn(GENERATE, 1, nth)).await;
    }
    let asked = asked(&upstream);
    assert_eq!(asked.len(), 16);
    assert_eq!(asked[..6].iter().collect::<BTreeSet<_>>().len(), 1);
    assert_ne!(asked[5], asked[6]);
    assert_eq!(asked[6..].iter().collect::<BTreeSet<_>>().len(), 1, "{asked:?}");
}
