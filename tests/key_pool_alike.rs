//! Calls that begin alike go to one project, whose cache may have their beginning, as long as that costs them no wait.

mod support;

use std::{collections::BTreeSet, time::Duration};

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
        [(None, 0, false), (Some(secs(2)), 0, true), (Some(secs(2)), 3_500, true), (Some(secs(2)), 3_700, false)]
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
async fn nobody_waits_for_a_cache_longer_than_is_set() {
    for (longest, most) in [(secs(2), secs(2)), (secs(20), secs(20))] {
        let upstream = upstream();
        let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(5)).max_wait(secs(600)).build();
        let pool = keys().cache_affinity(longest).headroom(limiter.clone()).build().unwrap();
        let service = ServiceBuilder::new()
            .layer(KeyPoolLayer::new(pool))
            .layer(RateLimitLayer::new(limiter))
            .service(upstream.clone());
        // Twenty fit in all: one project takes five of them, and then the others do.
        for nth in 0..20 {
            let begun = Instant::now();
            ask(&service, turn(GENERATE, 1, nth)).await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
        }
        let at_first = asked(&upstream);
        assert_eq!(at_first[..5].iter().collect::<BTreeSet<_>>().len(), 1, "{at_first:?}");
        assert!(NAMES.iter().all(|name| at_first.iter().filter(|at| name.starts_with(**at)).count() == 5));
        // All are full for a minute. A second later the last one is that much behind the first at most.
        sleep(secs(61)).await;
        ask(&service, turn(GENERATE, 1, 21)).await;
        let begun = Instant::now();
        ask(&service, turn(GENERATE, 1, 22)).await;
        assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
    }
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
