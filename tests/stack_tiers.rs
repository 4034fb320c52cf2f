//! Service tiers, Interactions and batches through all layers: each tier has its own clocks, breakers and fallback, and
//! all of them share a model's quota.

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use support::*;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, CircuitBreakerLayer, GeminiLayer,
    call::ServiceTier,
    circuit_breaker::{State, Target},
    context::GaveUp,
    emulator::{Emulator, Trouble, When},
    failure::{Kind, TimeoutKind},
    key_pool::{ApiKey, Key},
    quota::Limits,
    rate_limit::Limiter,
    retry::{RetryBudget, RetryPolicy},
    stack::{Gemini, GeminiBuilder},
};

const PRO: &str = "gemini-2.5-pro";
const FLASH: &str = "gemini-2.5-flash";
const EMBED: &str = "/v1beta/models/gemini-embedding-001:batchEmbedContents";
const INTERACTION: &str = r#"{"model":"gemini-2.5-pro","input":"hi"}"#;

fn tier(name: &str) -> String {
    format!(r#"{{"contents":[{{"parts":[{{"text":"hi"}}]}}],"serviceTier":"{name}"}}"#)
}

fn is_flex(asked: &Asked) -> bool {
    let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    [&body["serviceTier"], &body["service_tier"]].iter().any(|tier| tier.as_str() == Some("flex"))
}

fn over(builder: GeminiBuilder, upstream: &Upstream) -> (Gemini<Upstream>, GeminiLayer) {
    let layer = builder.build().unwrap();
    (layer.layer(upstream.clone()), layer)
}

async fn ask(
    service: &Gemini<Upstream>,
    uri: &str,
    body: impl Into<Bytes>,
) -> (Result<Response<()>, BoxError>, Duration) {
    send(service, post_body(uri, body)).await
}

/// Sends a request, reads its answer to the end, and says how long that took.
async fn send(service: &Gemini<Upstream>, request: Request<Full<Bytes>>) -> (Result<Response<()>, BoxError>, Duration) {
    let began = Instant::now();
    let result = match service.clone().oneshot(request).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            read(body).await;
            Ok(Response::from_parts(head, ()))
        }
        Err(error) => Err(error),
    };
    (result, began.elapsed())
}

// === the clocks ===

#[tokio::test(start_paused = true)]
async fn an_answer_after_200_seconds_arrives_on_flex_in_one_attempt_and_on_standard_it_does_not() {
    for (path, answer) in [(GENERATE, hello as fn() -> _), (STREAM, || sse(full(last_event("late"))))] {
        let upstream = Upstream::new(move |_, _| async move {
            sleep(secs(200)).await;
            Ok(answer())
        });
        for preset in [GeminiLayer::relay, GeminiLayer::interactive, GeminiLayer::batch] {
            let calls = upstream.calls();
            let (service, _) = over(preset(), &upstream);
            let (result, took) = ask(&service, path, tier("flex")).await;
            let response = result.unwrap();
            assert_eq!((response.status(), outcome_of(&response)), (StatusCode::OK, 1));
            assert_eq!((took, upstream.calls() - calls), (secs(200), 1));
        }
        let (service, _) = over(GeminiLayer::relay(), &upstream);
        for name in ["standard", "priority", "galactic"] {
            let (result, took) = ask(&service, path, tier(name)).await;
            assert!(find(&result.unwrap_err()).timeout_kind().is_some() && took <= secs(285), "{name}");
        }
    }
}

fn outcome_of(response: &Response<()>) -> u32 {
    outcome(response).attempts()
}

#[tokio::test(start_paused = true)]
async fn flex_ends_with_its_own_clocks_and_tells_the_upstream_of_them() {
    let upstream = Upstream::hangs();
    let (service, _) = over(GeminiLayer::relay(), &upstream);
    let (result, took) = ask(&service, GENERATE, tier("flex")).await;
    // A second attempt has the minute that is left.
    assert_eq!((find(&result.unwrap_err()).timeout_kind(), took), (Some(TimeoutKind::Total), secs(960)));
    let asked = upstream.asked();
    assert!(asked.iter().all(|asked| asked.headers["x-server-timeout"] == "900"), "{asked:?}");
    assert_eq!((asked[0].at.elapsed(), asked.len()), (secs(960), 2));
    // The rooms inside know it, too.
    let deadline = asked[0].context.as_ref().and_then(CallContext::deadline).unwrap();
    assert_eq!(deadline.instant() - asked[0].at, secs(960));

    let upstream = Upstream::hangs();
    let (service, _) = over(GeminiLayer::relay().flex_total(secs(100)).flex_first_byte(secs(70)), &upstream);
    for uri in [GENERATE, STREAM] {
        let (result, took) = ask(&service, uri, tier("flex")).await;
        assert!(result.is_err() && took == secs(100), "shorter than the others' is as good: {took:?}");
    }
    assert_eq!(upstream.asked()[1].at - upstream.asked()[0].at, upstream.waits()[0]);
    assert!((secs(70)..secs(75)).contains(&upstream.waits()[0]), "{:?}", upstream.waits());
    assert_eq!(upstream.asked()[0].headers["x-server-timeout"], "70");
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_time_holds_for_flex() {
    for (seconds, told, ends) in [("600", "600", secs(600)), ("5", "10", secs(5)), ("3000", "3000", secs(960))] {
        let upstream = Upstream::hangs();
        let (service, _) = over(GeminiLayer::relay(), &upstream);
        let mut request = post_body(GENERATE, tier("flex"));
        request.headers_mut().insert("x-server-timeout", seconds.parse().unwrap());
        let (result, took) = send(&service, request).await;
        assert_eq!((find(&result.unwrap_err()).timeout_kind(), took), (Some(TimeoutKind::Total), ends), "{seconds}");
        assert_eq!(upstream.asked()[0].headers["x-server-timeout"], told);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deferred_interaction_waits_as_well() {
    let upstream = Upstream::new(|_, _| async {
        sleep(secs(500)).await;
        Ok(json(200, r#"{"id":"i","status":"completed","outputs":[{"type":"text","text":"late"}]}"#))
    });
    let (service, _) = over(GeminiLayer::relay(), &upstream);
    for name in ["flex", "deferred"] {
        let body = format!(r#"{{"model":"gemini-2.5-pro","input":"hi","service_tier":"{name}"}}"#);
        let (result, took) = ask(&service, INTERACTIONS, body).await;
        assert_eq!((result.unwrap().status(), took), (StatusCode::OK, secs(500)), "{name}");
    }
    assert_eq!(upstream.calls(), 2);
}

// === capacity ===

#[tokio::test(start_paused = true)]
async fn thirteen_flex_503s_move_no_standard_call() {
    fastrand::seed(3);
    let upstream = Upstream::new(|_, asked| async move {
        Ok(if is_flex(&asked) && asked.uri.path().contains(PRO) { busy() } else { hello() })
    });
    let (service, layer) = over(GeminiLayer::relay().fallback(PRO, [FLASH]), &upstream);
    let (breakers, chains) = (layer.breakers().unwrap(), layer.chains().unwrap());
    let flex = join_all((0..13).map(|_| ask(&service, GENERATE, tier("flex")))).await;
    for (result, _) in flex {
        assert_eq!(result.unwrap().headers()["x-gemini-model"], FLASH);
    }
    let refused = upstream.asked().iter().filter(|asked| asked.uri.path().contains("gemini-2.5-pro:")).count();
    assert!(refused >= 13, "{refused}");
    assert_eq!(ask(&service, GENERATE, tier("flex")).await.1, secs(0));
    // Flex calls begin with the other model, which is asked in their tier.
    let last = upstream.asked().pop().unwrap();
    assert!(is_flex(&last) && last.uri.path().contains("gemini-2.5-flash:"));
    let reports = chains.snapshot();
    let states: Vec<_> = reports.iter().map(|report| (report.model(), report.current())).collect();
    assert_eq!(states, [(PRO, PRO), ("gemini-2.5-pro@flex", "gemini-2.5-flash@flex")]);

    for body in [PROMPT.to_owned(), tier("standard"), tier("priority")] {
        let calls = upstream.calls();
        let (result, took) = ask(&service, GENERATE, body).await;
        let response = result.unwrap();
        assert_eq!((&response.headers()["x-gemini-model"], took), (&PRO.parse().unwrap(), secs(0)));
        assert_eq!((outcome_of(&response), upstream.calls()), (1, calls + 1));
    }
    assert_eq!(breakers.state(&Target::new(PRO, "")), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_flex_opens_the_breaker_of_flex_alone_and_the_limiters_gate() {
    fastrand::seed(3);
    let upstream = Upstream::new(|_, asked| async move { Ok(if is_flex(&asked) { busy() } else { hello() }) });
    let limits = Limits::new().requests_per_minute(40);
    let builder = GeminiLayer::relay().limits(limits).fail_fast();
    let (service, layer) = over(builder, &upstream);
    let breakers = layer.breakers().unwrap();
    let states = || [PRO, "gemini-2.5-pro@flex"].map(|model| breakers.state(&Target::new(model, "")));
    while states()[1] == State::Closed {
        let (result, _) = ask(&service, GENERATE, tier("flex")).await;
        assert!(result.is_err() || result.unwrap().status() == StatusCode::SERVICE_UNAVAILABLE);
        sleep(secs(1)).await;
    }
    assert_eq!(states()[0], State::Closed);
    breakers.force_open(&Target::new("gemini-2.5-pro@flex", ""));
    // The quota is one for all tiers: standard calls use up what flex has left.
    let used = || layer.limiter().unwrap().snapshot()[0].dimensions[0].used;
    while used() < 40 {
        assert_eq!(ask(&service, GENERATE, PROMPT).await.0.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(layer.limiter().unwrap().snapshot().len(), 1);
    let (result, took) = ask(&service, GENERATE, tier("flex")).await;
    let error = result.unwrap_err();
    assert_eq!((find(&error).layer(), find(&error).is_circuit_open(), took), ("rate_limit", true, secs(0)));
    assert!(find(&error).failure().message().contains("gemini-2.5-pro@flex"));
    let (result, took) = ask(&service, GENERATE, PROMPT).await;
    assert!(result.is_ok() && !took.is_zero(), "a standard call waits for its turn");
}

#[tokio::test(start_paused = true)]
async fn priority_cures_a_503_where_the_chain_says_so() {
    fastrand::seed(3);
    let upstream = Upstream::new(|_, asked| async move {
        let is_priority = String::from_utf8_lossy(&asked.body).contains("priority");
        Ok(if asked.uri.path().contains(PRO) && !is_priority { busy() } else { hello() })
    });
    let (service, _) = over(GeminiLayer::relay().fallback(PRO, ["gemini-2.5-pro@priority", FLASH]), &upstream);
    let (result, _) = ask(&service, GENERATE, PROMPT).await;
    assert_eq!(result.unwrap().headers()["x-gemini-model"], PRO);
    let last = upstream.asked().pop().unwrap();
    assert_eq!(last.uri.path(), GENERATE);
    assert_eq!(last.body, r#"{"service_tier":"priority","contents":[{"parts":[{"text":"hi"}]}]}"#);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_flex_spends_no_retries_of_others() {
    fastrand::seed(3);
    let upstream = Upstream::new(|nth, asked| async move {
        // A standard call fails once.
        let fails = is_flex(&asked) || nth % 2 == 0;
        Ok(if fails { busy() } else { hello() })
    });
    let budget = RetryBudget::new(2);
    let policy = RetryPolicy::default().budget(budget.clone());
    let (service, _) = over(GeminiLayer::relay().retry(policy).breaker(CircuitBreakerLayer::disabled()), &upstream);
    let response = ask(&service, GENERATE, tier("flex")).await.0.unwrap();
    assert_eq!(outcome(&response).gave_up(), Some(GaveUp::Attempts));
    assert_eq!(budget.remaining(PRO), 2, "what flex has waited for is its own");
    if upstream.calls() % 2 == 1 {
        ask(&service, GENERATE, tier("flex")).await.0.unwrap();
    }
    let calls = upstream.calls();
    let response = ask(&service, GENERATE, PROMPT).await.0.unwrap();
    assert_eq!((response.status(), upstream.calls() - calls), (StatusCode::OK, 2));
}

// === interactions ===

#[tokio::test(start_paused = true)]
async fn interactions_are_held_back_with_the_calls_of_their_model() {
    for first in [[INTERACTIONS; 3], [GENERATE; 3]] {
        let upstream = Upstream::at_once(|_| Ok(hello()));
        let limits = Limits::new().requests_per_minute(3);
        let (service, layer) = over(GeminiLayer::relay().limits(limits), &upstream);
        for uri in first {
            let body = if uri == GENERATE { PROMPT } else { INTERACTION };
            assert_eq!(ask(&service, uri, body).await.1, secs(0));
        }
        let began = Instant::now();
        for _ in 0..2 {
            ask(&service, INTERACTIONS, INTERACTION).await.0.unwrap();
        }
        assert!((secs(60)..secs(62)).contains(&began.elapsed()), "{:?}", began.elapsed());
        let report = &layer.limiter().unwrap().snapshot()[0];
        assert_eq!(report.scope.model(), PRO);
        // An agent has a quota of its own.
        let agent = r#"{"agent":"deep-research","input":"hi"}"#;
        assert_eq!(ask(&service, INTERACTIONS, agent).await.1, secs(0));
        let scopes = layer.limiter().unwrap().snapshot();
        assert!(scopes.iter().any(|report| report.scope.model() == "agents/deep-research"), "{scopes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_503s_of_interactions_open_the_breaker_of_their_model() {
    fastrand::seed(3);
    let upstream = Upstream::at_once(|_| Ok(busy()));
    let (service, layer) = over(GeminiLayer::relay().fail_fast(), &upstream);
    let breakers = layer.breakers().unwrap();
    while breakers.state(&Target::new(PRO, "")) == State::Closed {
        assert!(Instant::now().elapsed() < secs(600));
        let _ = ask(&service, INTERACTIONS, INTERACTION).await;
        sleep(secs(1)).await;
    }
    let calls = upstream.calls();
    breakers.force_open(&Target::new(PRO, ""));
    assert!(find(&ask(&service, GENERATE, PROMPT).await.0.unwrap_err()).is_circuit_open());
    assert_eq!(upstream.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn an_interaction_falls_back_where_nothing_was_made() {
    fastrand::seed(3);
    let moves = |answer: fn() -> Answer, body: &'static str| async move {
        let upstream = Upstream::new(move |_, asked| async move {
            if String::from_utf8_lossy(&asked.body).contains(FLASH) { Ok(hello()) } else { answer() }
        });
        let (service, _) = over(GeminiLayer::relay().fallback(PRO, [FLASH]), &upstream);
        let (result, _) = ask(&service, INTERACTIONS, body).await;
        let asked = upstream.asked().pop().unwrap();
        let moved = result.is_ok_and(|answer| answer.headers().get("x-gemini-model").is_some_and(|name| name == FLASH));
        if moved {
            assert_eq!(String::from_utf8_lossy(&asked.body), body.replace(PRO, FLASH));
            assert_eq!(asked.context.unwrap().call().unwrap().model(), Some(FLASH));
        }
        moved
    };
    let lost: fn() -> Answer = || Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
    let error: fn() -> Answer = || Ok(json(500, r#"{"error":{"code":500,"message":"no","status":"INTERNAL"}}"#));
    let busy: fn() -> Answer = || Ok(busy());
    let background = r#"{"model":"gemini-2.5-pro","input":"hi","background":true}"#;
    for (answer, body, expected) in [
        (busy, INTERACTION, true),
        (busy, background, true),
        (busy, r#"{"model":"models/gemini-2.5-pro","input":[{"type":"text","text":"hi"}],"store":false}"#, true),
        (error, INTERACTION, true),
        // It may run, although there was an error.
        (error, background, false),
        (lost, INTERACTION, false),
        // It goes on from another one, or names no model.
        (busy, r#"{"model":"gemini-2.5-pro","input":"hi","previous_interaction_id":"v1_x"}"#, false),
        (busy, r#"{"agent":"deep-research","input":"hi"}"#, false),
        (busy, r#"{"model":"gemini-2.5-pro","input":"hi","continuation_token":"abc"}"#, false),
    ] {
        assert_eq!(moves(answer, body).await, expected, "{body}");
    }
}

// === batches ===

fn batch(items: usize) -> String {
    let item = r#"{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"hi"}]}}"#;
    format!(r#"{{"requests":[{}]}}"#, vec![item; items].join(","))
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_charged_its_items() {
    let upstream = Upstream::at_once(|_| Ok(json(200, r#"{"embeddings":[]}"#)));
    let limits = Limits::new().requests_per_minute(100);
    let (service, layer) = over(GeminiLayer::relay().limits(limits), &upstream);
    let used = || layer.limiter().unwrap().snapshot()[0].dimensions[0].used;
    for nth in 1..=2 {
        assert_eq!(ask(&service, EMBED, batch(40)).await.1, secs(0));
        assert_eq!(used(), 40 * nth);
    }
    // Two and a half fit.
    let (result, took) = ask(&service, EMBED, batch(40)).await;
    assert!(result.is_ok() && (secs(60)..secs(62)).contains(&took), "{took:?}");
    let (_, took) = ask(&service, EMBED, batch(60)).await;
    assert_eq!(took, secs(0));

    let calls = upstream.calls();
    let (result, took) = ask(&service, EMBED, batch(101)).await;
    let error = result.unwrap_err();
    let failure = find(&error).failure();
    assert_eq!((failure.kind(), failure.code(), took), (Kind::LargerThanQuota, StatusCode::BAD_REQUEST, secs(0)));
    for part in ["101 items", "100 requests a minute", "split the batch"] {
        assert!(failure.message().contains(part), "{}", failure.message());
    }
    assert_eq!(upstream.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_its_caller_is_to_blame_for_leaves_one_request_charged() {
    let refusal =
        r#"{"error":{"code":400,"message":"at most 100 requests can be in one batch","status":"INVALID_ARGUMENT"}}"#;
    let upstream = Upstream::at_once(move |_| Ok(json(400, refusal)));
    let limits = Limits::new().requests_per_minute(1_500).requests_per_day(1_500);
    let (service, layer) = over(GeminiLayer::relay().limits(limits), &upstream);
    // Otherwise 2 KB would use up everybody's day.
    let nothing = format!(r#"{{"requests":[{}]}}"#, vec!["0"; 1_000].join(","));
    for nth in 1..=3 {
        let (result, took) = ask(&service, EMBED, nothing.clone()).await;
        assert_eq!((result.unwrap().status(), took), (StatusCode::BAD_REQUEST, secs(0)));
        let used = layer.limiter().unwrap().snapshot()[0].dimensions.map(|dimension| dimension.used);
        assert_eq!((used[0], used[2]), (nth, nth));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_upstream_has_named_holds_for_batches_as_well() {
    let refusal = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Please retry in 3s.","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"EmbedContentRequestsPerMinutePerProjectPerModel","quotaValue":"50"}]}]}}"#;
    let upstream =
        Upstream::at_once(move |nth| Ok(if nth == 0 { json(429, refusal) } else { json(200, r#"{"embeddings":[]}"#) }));
    let (service, _) = over(GeminiLayer::relay(), &upstream);
    let (result, took) = ask(&service, EMBED, batch(40)).await;
    assert!(result.is_ok() && (secs(3)..secs(5)).contains(&took), "{took:?}");
    let (result, took) = ask(&service, EMBED, batch(20)).await;
    assert!(result.is_ok() && took > secs(55), "{took:?}");
    let error = ask(&service, EMBED, batch(51)).await.0.unwrap_err();
    assert!(find(&error).failure().message().contains("51 items"), "{error}");
    assert!(find(&error).failure().message().contains("50 requests a minute"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_to_the_project_that_has_room_for_all_of_it() {
    let upstream = Upstream::at_once(|_| Ok(json(200, r#"{"embeddings":[]}"#)));
    let key = |name: &str, project: &str| Key::new(ApiKey::new(name).unwrap()).project(project);
    let (service, _) = over(
        GeminiLayer::relay()
            .key(key("key-a", "p1"))
            .key(key("key-b", "p2"))
            .limits(Limits::new().requests_per_minute(100)),
        &upstream,
    );
    for _ in 0..4 {
        assert_eq!(ask(&service, EMBED, batch(50)).await.1, secs(0), "two for each");
    }
    let mut keys: Vec<_> = upstream.asked().iter().map(|asked| asked.headers["x-goog-api-key"].clone()).collect();
    keys.sort();
    assert_eq!(keys, ["key-a", "key-a", "key-b", "key-b"]);
}

// === the longest wait ===

#[tokio::test(start_paused = true)]
async fn whoever_would_wait_longer_than_max_wait_is_told_so_at_once() {
    let key = |name: &str, project: &str| Key::new(ApiKey::new(name).unwrap()).project(project);
    let limiter = || Limiter::builder().limits(Limits::new().requests_per_minute(2)).max_wait(secs(1));
    for (builder, fit) in [
        (GeminiLayer::relay(), 2),
        (GeminiLayer::relay().key(key("key-a", "p1")), 2),
        (GeminiLayer::relay().key(key("key-a", "p1")).key(key("key-b", "p2")), 4),
    ] {
        let upstream = Upstream::at_once(|_| Ok(hello()));
        let (service, _) = over(builder.limiter(limiter()), &upstream);
        for _ in 0..fit {
            assert_eq!(ask(&service, GENERATE, PROMPT).await.1, secs(0));
        }
        let (result, took) = ask(&service, GENERATE, PROMPT).await;
        let error = result.unwrap_err();
        assert!(find(&error).is_rate_limited() && took < secs(1), "{took:?}");
        assert_eq!(find(&error).retry_after().unwrap().as_secs(), 60, "it says when to come back");
        assert_eq!(upstream.calls(), fit);
        // A wait within the limit is waited for.
        sleep(secs(59)).await;
        let (result, took) = ask(&service, GENERATE, PROMPT).await;
        assert!(result.is_ok() && took <= millis(1_500), "{took:?}");
    }
}

// === over the emulator, which counts for itself ===

#[tokio::test(start_paused = true)]
async fn batches_interactions_and_calls_of_all_tiers_meet_no_refusal_of_quota() {
    fastrand::seed(11);
    let limits = Limits::new().requests_per_minute(30);
    let emulator = Emulator::builder()
        .key("a-key", "p1")
        .limits(limits)
        .trouble(When::always().tier(ServiceTier::Flex), Trouble::overloaded())
        .build();
    let key = Key::new(ApiKey::new("a-key").unwrap()).project("p1");
    let limiter = Limiter::builder().limits(limits).max_wait(secs(3_600));
    let layer = GeminiLayer::batch().key(key).limiter(limiter).retry(RetryPolicy::never()).build().unwrap();
    let service = layer.layer(emulator.clone());
    let calls = (0..60).map(|nth| {
        let request = match nth % 4 {
            0 => post_body(EMBED, batch(fastrand::usize(1..12))),
            1 => post_body(INTERACTIONS, INTERACTION),
            2 => post_body(GENERATE, tier("priority")),
            _ => post_body(GENERATE, PROMPT),
        };
        let service = service.clone();
        async move {
            let response = service.oneshot(request).await.unwrap();
            let status = response.status();
            read(response.into_body()).await;
            status
        }
    });
    assert!(join_all(calls).await.into_iter().all(|status| status == StatusCode::OK));
    assert_eq!(emulator.count(|visit| visit.status == Some(StatusCode::TOO_MANY_REQUESTS)), 0);
    assert_eq!(emulator.count(|visit| visit.tier.is_some()), 15);

    // Flex is full, and nobody else.
    for (name, status) in [("flex", StatusCode::SERVICE_UNAVAILABLE), ("priority", StatusCode::OK)] {
        let response = service.clone().oneshot(post_body(GENERATE, tier(name))).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
    }
}
