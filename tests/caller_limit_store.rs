//! Callers' limits that several instances share through a store: one that answers at once, late, or with a refusal.

#[path = "support/far_store.rs"]
mod far_store;
mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{Layer, ServiceExt, util::BoxCloneService};
use tower_gemini::{
    BoxError, CallContext, CallerLimitLayer, ClassifyLayer, GeminiLayer, RateLimitLayer, ReplayLayer,
    caller_limit::{CallerAmount, CallerDimension, CallerLimits, CallerLimitsBuilder, CallerQuota, PastLimit},
    context::{Deadline, GaveUp, Priority},
    failure::Kind,
    quota::{Answer, Closing, Correction, Dimension, Grant, Limits, Scope, StoreCharge, TokenCost},
    rate_limit::Limiter,
};

use crate::{far_store::Far, support::*};

const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const EMBED: &str = "/v1beta/models/gemini-embedding-001:batchEmbedContents";

type Call = Request<Full<Bytes>>;

/// Returns the scope of a caller, or of a caller for a model.
fn of(caller: &str, model: &str) -> Scope {
    Scope::new(format!("caller\u{1f}{caller}"), model)
}

fn each(quota: CallerQuota) -> CallerLimitsBuilder {
    CallerLimits::builder().others(quota)
}

/// Makes the limits of several instances that share a store.
fn instances<const N: usize>(quota: &CallerQuota, store: &Far) -> [CallerLimits; N] {
    std::array::from_fn(|_| each(quota.clone()).store(store.clone()).build().unwrap())
}

fn with(mut request: Call, change: impl FnOnce(&mut CallContext)) -> Call {
    CallContext::update(request.extensions_mut(), change);
    request
}

fn by(caller: &str, request: Call) -> Call {
    with(request, |context| context.set_caller(caller))
}

fn of_tokens(tokens: u64) -> Call {
    with(by("app", post(GENERATE)), |context| context.set_token_cost(TokenCost::estimate(tokens)))
}

/// Answers that say their tokens.
fn counting(input: u64) -> Upstream {
    let answer = json!({
        "candidates": [{"content": {"parts": [{"text": "hello"}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": input, "candidatesTokenCount": 1, "totalTokenCount": input + 1},
    });
    Upstream::at_once(move |_| Ok(json(200, answer.to_string())))
}

type Stack = BoxCloneService<Call, Response<AnyBody>, BoxError>;

/// Stacks the layers that know the call and read the answer around the limits.
fn stack(limits: &CallerLimits, upstream: &Upstream) -> Stack {
    let inner = CallerLimitLayer::new(limits.clone()).layer(ClassifyLayer::new().layer(upstream.clone()));
    let service = ReplayLayer::new().layer(inner);
    BoxCloneService::new(ServiceExt::<Call>::map_response(service, |response| response.map(any)))
}

/// Makes a call, and reads its answer to the end.
async fn ask(limits: &CallerLimits, upstream: &Upstream, request: Call) -> Result<(), BoxError> {
    let response = stack(limits, upstream).oneshot(request).await?;
    let _ = response.into_body().collect().await;
    Ok(())
}

fn used(limits: &CallerLimits, model: Option<&str>) -> CallerAmount {
    let reports = limits.snapshot();
    let report = reports.iter().find(|report| &*report.caller == "app" && report.model.as_deref() == model);
    report.expect("a report").dimensions[CallerDimension::RequestsPerMinute as usize].used
}

fn count(count: u64) -> CallerAmount {
    CallerAmount::Count(count)
}

fn full(dimension: Dimension, wait: Duration) -> Answer {
    Answer::Full { dimension: Some(dimension), wait }
}

#[tokio::test(start_paused = true)]
async fn a_callers_ten_requests_a_minute_are_ten_over_all_instances() {
    for way in [0, 20] {
        let (store, upstream) = (Far::new(millis(way)), Upstream::at_once(|_| Ok(hello())));
        let instances: [_; 2] = instances(&CallerQuota::new().requests_per_minute(10), &store);
        for round in 1..=2 {
            let calls = (0..30).map(|nth| ask(&instances[nth % 2], &upstream, by("app", post(GENERATE))));
            let served = join_all(calls).await.iter().filter(|result| result.is_ok()).count();
            assert_eq!((served, upstream.calls(), store.sums(&of("app", "")).0), (10, 10 * round, 10), "{way}");
            // A call that was refused there is not charged here.
            let [one, other] = [&instances[0], &instances[1]].map(|limits| used(limits, None).as_f64());
            assert!((one + other - 10.0).abs() < 0.5, "{one} {other}");
            sleep(secs(61)).await;
        }
        // Another caller has its own.
        ask(&instances[0], &upstream, by("job", post(GENERATE))).await.unwrap();
        assert_eq!(store.sums(&of("job", "")).0, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_has_used_its_limit_elsewhere_is_refused_with_the_wait_and_the_limit() {
    for way in [0, 20] {
        let (store, upstream) = (Far::new(millis(way)), Upstream::at_once(|_| Ok(hello())));
        let [one, other] = instances(&CallerQuota::new().requests_per_minute(1), &store);
        ask(&one, &upstream, by("app", post(GENERATE))).await.unwrap();
        advance(secs(10)).await;
        let error = ask(&other, &upstream, by("app", post(GENERATE))).await.unwrap_err();
        let error = find(&error);
        assert_eq!((error.layer(), error.failure().kind()), ("caller_limit", Kind::CallerLimited));
        assert!(error.never_sent() && error.outcome().gave_up() == Some(GaveUp::Wait));
        let wait = error.retry_after().unwrap();
        assert!(wait >= secs(50) && wait < secs(51), "{wait:?}");
        let (operator, caller) = (error.to_string(), error.failure().caller_message());
        assert!(operator.contains("caller app") && operator.contains("1 requests a minute, at all"), "{operator}");
        assert!(caller.starts_with("you have used") && !caller.contains("app"), "{caller}");
        sleep(wait).await;
        ask(&other, &upstream, by("app", post(GENERATE))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_models_limits_hold_over_all_instances_and_a_refused_call_takes_nothing_of_its_callers() {
    for way in [0, 20] {
        let (store, upstream) = (Far::new(millis(way)), Upstream::at_once(|_| Ok(hello())));
        let of_model = CallerQuota::new().requests_per_minute(3);
        let quota = CallerQuota::new().requests_per_minute(10).limits_for_model("gemini-2.5-pro", of_model);
        let instances: [_; 3] = instances(&quota, &store);
        let mut served = [0; 2];
        for nth in 0..60 {
            let kind = usize::from(nth >= 15);
            let request = by("app", post([GENERATE, FLASH][kind]));
            served[kind] += usize::from(ask(&instances[nth % 3], &upstream, request).await.is_ok());
        }
        assert_eq!(served, [3, 7], "{way}");
        assert_eq!((store.sums(&of("app", "")).0, store.sums(&of("app", "gemini-2.5-pro")).0), (10, 3));
        let error = ask(&instances[0], &upstream, by("job", post(FLASH))).await;
        assert!(error.is_ok(), "another caller");
        assert_eq!(used(&instances[0], Some("gemini-2.5-pro")), count(1));
    }
    // A model's limits alone are asked for alone, and the calls of another model not at all.
    let (store, upstream) = (Far::new(Duration::ZERO), Upstream::at_once(|_| Ok(hello())));
    let quota = CallerQuota::new().limits_for_model("gemini-2.5-pro", CallerQuota::new().requests_per_day(1));
    let [one, other] = instances(&quota, &store);
    ask(&one, &upstream, by("app", post(FLASH))).await.unwrap();
    ask(&one, &upstream, by("app", post(GENERATE))).await.unwrap();
    assert!(
        ask(&other, &upstream, by("app", post(GENERATE))).await.unwrap_err().to_string().contains("gemini-2.5-pro")
    );
    let scopes: Vec<_> = store.questions().iter().map(|(scope, _)| scope.model().to_owned()).collect();
    assert_eq!(scopes, ["gemini-2.5-pro"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_days_requests_are_shared_until_midnight() {
    let (store, upstream) = (Far::new(millis(5)), Upstream::at_once(|_| Ok(hello())));
    let instances: [_; 2] = instances(&CallerQuota::new().requests_per_day(5), &store);
    let mut served = 0;
    for nth in 0..20 {
        served += usize::from(ask(&instances[nth % 2], &upstream, by("app", post(GENERATE))).await.is_ok());
        sleep(secs(90)).await;
    }
    assert_eq!(served, 5);
    let error = ask(&instances[0], &upstream, by("app", post(GENERATE))).await.unwrap_err();
    let wait = find(&error).retry_after().unwrap();
    assert!(wait > secs(60) && wait <= secs(25 * 3_600), "{wait:?}");
    sleep(wait).await;
    ask(&instances[0], &upstream, by("app", post(GENERATE))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answers_own_tokens_are_what_the_others_have_to_fit_beside() {
    for way in [0, 20] {
        let (store, upstream) = (Far::new(millis(way)), counting(10));
        let [one, other] = instances(&CallerQuota::new().input_tokens_per_minute(100), &store);
        let service = stack(&one, &upstream);
        let response = service.oneshot(of_tokens(90)).await.unwrap();
        assert_eq!(store.sums(&of("app", "")), (1, 90));
        assert!(ask(&other, &upstream, of_tokens(20)).await.is_err());
        let _ = response.into_body().collect().await;
        assert_eq!(store.sums(&of("app", "")), (1, 10), "{way}");
        sleep(millis(300)).await;
        ask(&other, &upstream, of_tokens(90)).await.unwrap();
        assert_eq!((store.sums(&of("app", "")), store.corrections().len()), ((2, 20), 2));
        // An estimate that is larger than the limit counts as the limit, and its answer as what it says.
        sleep(secs(61)).await;
        ask(&one, &upstream, of_tokens(9_000)).await.unwrap();
        assert_eq!(store.sums(&of("app", "")), (1, 10));
    }
    // Nothing has to be corrected where no tokens are limited.
    let (store, upstream) = (Far::default(), counting(10));
    let [one] = instances(&CallerQuota::new().requests_per_minute(9), &store);
    ask(&one, &upstream, of_tokens(90)).await.unwrap();
    assert_eq!((store.sums(&of("app", "")), store.corrections().len()), ((1, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_given_back_once_and_of_a_callers_own_mistake_one_request_stays() {
    for way in [0, 20] {
        for (status, left) in [(503, 0), (400, 1)] {
            let store = Far::new(millis(way));
            let upstream = Upstream::at_once(move |_| Ok(json(status, "{}")));
            let of_model = CallerQuota::new().requests_per_minute(50);
            let quota = CallerQuota::new().requests_per_minute(50).limits_for_model("gemini-embedding-001", of_model);
            let [one] = instances(&quota, &store);
            let body =
                json!({"requests": (0..7).map(|_| json!({"content": {"parts": [{"text": "a"}]}})).collect::<Vec<_>>()});
            let request = with(by("app", Request::post(EMBED).body(Full::from(body.to_string())).unwrap()), |_| {});
            let service = stack(&one, &upstream);
            let response = service.oneshot(request).await.unwrap();
            assert_eq!(response.status(), status);
            drop(response);
            for model in ["", "gemini-embedding-001"] {
                assert_eq!(store.sums(&of("app", model)).0, left, "{status} {model}");
            }
            assert_eq!((used(&one, None), store.corrections().len()), (count(left), 2), "{status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_point_leaves_nothing_unless_it_was_sent() {
    let of_model = CallerQuota::new().requests_per_minute(9);
    let quota = CallerQuota::new().requests_per_minute(9).limits_for_model("gemini-2.5-pro", of_model);
    for at in 0..60 {
        let (store, upstream) = (Far::new(millis(20)), Upstream::hangs());
        let [one] = instances(&quota, &store);
        // The first question takes 20 ms, and the second one as long.
        let _ = timeout(millis(at), ask(&one, &upstream, by("app", post(GENERATE)))).await;
        sleep(millis(100)).await;
        let sent = upstream.calls() as u64;
        assert_eq!(sent, u64::from(at >= 40), "{at}");
        for model in ["", "gemini-2.5-pro"] {
            assert_eq!(store.sums(&of("app", model)).0, sent, "{at} {model}");
        }
        assert_eq!((used(&one, None), used(&one, Some("gemini-2.5-pro"))), (count(sent), count(sent)), "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_for_its_turn_and_was_never_sent_is_given_back_in_the_store() {
    for way in [0, 20] {
        let (store, upstream) = (Far::new(millis(way)), Upstream::hangs());
        let [one] = instances(&CallerQuota::new().requests_per_day(9), &store);
        let layer = CallerLimitLayer::new(one.clone());
        let gemini = GeminiLayer::relay().limits(Limits::new().requests_per_minute(1)).callers(layer).build().unwrap();
        let service = gemini.layer(upstream.clone());
        let calls = [0, 1].map(|_| service.clone().oneshot(by("app", post(GENERATE))));
        assert!(timeout(secs(5), join_all(calls)).await.is_err());
        assert_eq!((upstream.calls(), store.sums(&of("app", "")).0), (1, 1), "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_have_used_lowers_the_priority_where_that_is_the_choice() {
    for way in [0, 20] {
        let (store, upstream) = (Far::new(millis(way)), Upstream::at_once(|_| Ok(hello())));
        let priorities: Arc<Mutex<Vec<Priority>>> = Arc::default();
        let heard = priorities.clone();
        let inner = tower::service_fn(move |request: Call| {
            heard.lock().push(CallContext::of(&request).unwrap().priority());
            upstream.clone().oneshot(request)
        });
        let quota = CallerQuota::new().requests_per_minute(2).past(PastLimit::LowestPriority);
        let instances: [_; 2] = instances(&quota, &store);
        for nth in 0..8 {
            let service = CallerLimitLayer::new(instances[nth % 2].clone()).layer(inner.clone());
            service.oneshot(by("app", post(GENERATE))).await.unwrap();
        }
        let mut expected = [Priority::Batch; 8];
        expected[..2].fill(Priority::default());
        assert_eq!(*priorities.lock(), expected, "{way}");
        assert_eq!(store.sums(&of("app", "")).0, 2);
        // A caller that is past a limit here need not ask.
        assert!(store.asked() <= 4, "{}", store.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_in_a_loop_asks_the_store_four_times_a_second_and_is_let_in_when_something_is_given_back() {
    let (store, upstream) = (Far::new(millis(2)), Upstream::at_once(|_| Ok(hello())));
    let [one, other] = instances(&CallerQuota::new().requests_per_minute(1), &store);
    let hanging = Upstream::hangs();
    let begun = Instant::now();
    let mut first = Box::pin(ask(&one, &hanging, by("app", post(GENERATE))));
    assert!(timeout(millis(10), &mut first).await.is_err());
    for _ in 0..1_000 {
        assert!(ask(&other, &upstream, by("app", post(GENERATE))).await.is_err());
        advance(millis(10)).await;
    }
    let seconds = begun.elapsed().as_secs() as usize;
    assert!(store.asked() <= 1 + 4 * (seconds + 1), "{} in {seconds} s", store.asked());
    // Another instance gives its charge back.
    let (scope, question) = store.questions()[0].clone();
    assert_eq!((scope.project(), scope.model(), question.requests), ("caller\u{1f}app", "", 1));
    let failing = Upstream::at_once(|_| Ok(busy()));
    drop(first);
    sleep(secs(61)).await;
    ask(&one, &failing, by("app", post(GENERATE))).await.unwrap();
    ask(&other, &upstream, by("app", post(GENERATE))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_store_that_is_learning_and_no_longer_than_it_may() {
    let learning = Answer::Full { dimension: None, wait: millis(900) };
    for way in [0, 5] {
        let (store, upstream) = (Far::new(millis(way)), Upstream::at_once(|_| Ok(hello())));
        let [one] = instances(&CallerQuota::new().requests_per_minute(5), &store);
        let begun = Instant::now();
        store.script([learning, learning]);
        ask(&one, &upstream, by("app", post(GENERATE))).await.unwrap();
        let took = begun.elapsed();
        assert!(took >= millis(1_800) && took < millis(1_900), "{took:?}");
        assert_eq!((store.sums(&of("app", "")).0, used(&one, None)), (1, count(1)));

        // Dropped in the wait, it leaves nothing.
        store.script([learning]);
        assert!(timeout(millis(300), ask(&one, &upstream, by("app", post(GENERATE)))).await.is_err());
        assert_eq!((store.sums(&of("app", "")).0, used(&one, None)), (1, count(1)));

        // One that would wait for too long, or past its deadline.
        for (answers, deadline) in [(3, 60_000), (1, 800)] {
            let begun = Instant::now();
            store.script(vec![learning; answers]);
            let deadline = Deadline::after(millis(deadline));
            let request = with(by("app", post(GENERATE)), |context| context.tighten_deadline(deadline));
            let error = ask(&one, &upstream, request).await.unwrap_err();
            let error = find(&error);
            assert_eq!((error.failure().kind(), error.retry_after()), (Kind::CallerLimited, Some(millis(900))));
            assert!(error.to_string().contains("not known yet") && begun.elapsed() < secs(2), "{error}");
            assert_eq!((upstream.calls(), used(&one, None)), (1, count(1)), "{way}");
            sleep(secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_scope_refuses_for_its_time() {
    let (store, upstream) = (Far::new(millis(5)), Upstream::at_once(|_| Ok(hello())));
    store.script([Answer::Closed(Closing::of(secs(1)))]);
    let [one] = instances(&CallerQuota::new().requests_per_minute(5), &store);
    let error = ask(&one, &upstream, by("app", post(GENERATE))).await.unwrap_err();
    let error = find(&error);
    assert_eq!((error.failure().kind(), error.retry_after()), (Kind::CallerLimited, Some(secs(1))));
    assert_eq!((upstream.calls(), used(&one, None)), (0, count(0)));
    sleep(secs(1)).await;
    ask(&one, &upstream, by("app", post(GENERATE))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_the_model_gives_back_what_was_granted_for_the_caller() {
    let (store, upstream) = (Far::default(), Upstream::at_once(|_| Ok(hello())));
    let grant = Answer::Granted(Grant::new(StoreCharge(7, 8)));
    store.script([grant, full(Dimension::RequestsPerDay, secs(30))]);
    let of_model = CallerQuota::new().requests_per_day(4);
    let quota = CallerQuota::new().input_tokens_per_minute(900).limits_for_model("gemini-2.5-pro", of_model);
    let [one] = instances(&quota, &store);
    let error = ask(&one, &upstream, of_tokens(20)).await.unwrap_err();
    assert!(error.to_string().contains("4 requests a day of model gemini-2.5-pro"), "{error}");
    let [(scope, charge, by)] = &store.corrections()[..] else { panic!() };
    assert_eq!((scope.model(), *charge, *by), ("", StoreCharge(7, 8), Correction::refund(1, 20)));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_day_are_each_instances_own_and_ask_nobody() {
    let (store, upstream) = (Far::default(), counting(40));
    let instances: [_; 2] = instances(&CallerQuota::new().tokens_per_day(50), &store);
    for limits in &instances {
        ask(limits, &upstream, of_tokens(40)).await.unwrap();
        assert!(ask(limits, &upstream, of_tokens(40)).await.is_err());
    }
    assert_eq!(store.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_store_counts_projects_and_callers_of_the_same_names_apart() {
    let (store, upstream) = (Far::default(), Upstream::at_once(|_| Ok(hello())));
    let of_model = CallerQuota::new().requests_per_minute(2);
    let [callers] = instances(&CallerQuota::new().limits_for_model("gemini-2.5-pro", of_model), &store);
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(3));
    let limiter = limiter.store(store.clone()).max_wait(Duration::ZERO).build();
    let inner = RateLimitLayer::new(limiter).layer(ClassifyLayer::new().layer(upstream.clone()));
    let service = CallerLimitLayer::new(callers).layer(inner);
    let mut served = Vec::new();
    for caller in ["app", "app", "app", "job", "job"] {
        let request = with(by(caller, post(GENERATE)), |context| context.set_project("app"));
        served.push(service.clone().oneshot(request).await.is_ok());
    }
    // The last one is the project's limit.
    assert_eq!(served, [true, true, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn the_store_is_replaced_with_the_settings() {
    let (store, upstream) = (Far::default(), Upstream::at_once(|_| Ok(hello())));
    let quota = CallerQuota::new().requests_per_minute(9);
    let limits = each(quota.clone()).build().unwrap();
    let says = |limits: &CallerLimits| {
        let gemini = GeminiLayer::relay().callers(CallerLimitLayer::new(limits.clone())).build().unwrap();
        gemini.describe().to_string()
    };
    assert!(!says(&limits).contains("shared through a store"));
    ask(&limits, &upstream, by("app", post(GENERATE))).await.unwrap();
    limits.replace(each(quota.clone()).store(store.clone())).unwrap();
    assert!(says(&limits).contains("9 requests a minute for others; shared through a store"), "{}", says(&limits));
    let hanging = Upstream::hangs();
    assert!(timeout(secs(1), ask(&limits, &hanging, by("app", post(GENERATE)))).await.is_err());
    assert_eq!((store.asked(), used(&limits, None)), (1, count(2)));
    limits.replace(each(quota)).unwrap();
    ask(&limits, &upstream, by("app", post(GENERATE))).await.unwrap();
    assert_eq!((store.asked(), used(&limits, None)), (1, count(3)));
}
