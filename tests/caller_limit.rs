//! `CallerLimitLayer`: what each caller may use, what it is charged, and what becomes of a call that is past a limit.

mod support;

use std::time::Duration;

use futures_util::{FutureExt, future::join_all};
use http::{HeaderMap, Request, Response, header::RETRY_AFTER};
use http_body_util::{BodyExt, Empty, Full};
use serde_json::{Value, json};
use support::*;
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};
use tower_gemini::{
    BoxError, CallContext, CallerLimitLayer, ClassifyLayer, ErrorResponseLayer, GeminiLayer, RateLimitLayer,
    ReplayLayer, RetryLayer,
    call::Call,
    caller_limit::{
        CallerAmount, CallerDimension, CallerLimits, CallerLimitsBuilder, CallerLimitsMemory, CallerQuota, PastLimit,
    },
    clock,
    context::{GaveUp, Priority},
    failure::{Fault, Kind},
    observe::{Observe, Value as Level},
    prices::{Money, Price, Prices},
    quota::{Limits, TokenCost, until_pacific_midnight, until_pacific_month_end},
    rate_limit::Limiter,
};

const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const EMBED: &str = "/v1beta/models/gemini-embedding-001:batchEmbedContents";

// === callers, answers and prices ===

fn by(caller: &str, mut request: Request<Full<bytes::Bytes>>) -> Request<Full<bytes::Bytes>> {
    CallContext::update(request.extensions_mut(), |context| context.set_caller(caller));
    request
}

fn costing(cost: TokenCost, mut request: Request<Full<bytes::Bytes>>) -> Request<Full<bytes::Bytes>> {
    CallContext::update(request.extensions_mut(), |context| context.set_token_cost(cost));
    request
}

/// Makes an answer with these tokens.
fn answer(input: u64, cached: u64, output: u64) -> Value {
    json!({
        "candidates": [{"content": {"parts": [{"text": "hello"}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": input, "cachedContentTokenCount": cached, "candidatesTokenCount": output / 2,
            "thoughtsTokenCount": output - output / 2, "totalTokenCount": input + output,
        },
    })
}

fn answers(body: Value) -> Upstream {
    Upstream::at_once(move |_| Ok(json(200, body.to_string())))
}

/// Makes a list of prices; the numbers are made up. A million input tokens cost a dollar, output tokens ten, cached ones
/// ten cents.
fn prices() -> Prices {
    let pro = Price::new(Money::dollars(1), Money::dollars(10)).cached_input(Money::cents(10));
    Prices::builder()
        .model("gemini-2.5-pro", pro)
        .model("gemini-2.5-flash", Price::new(Money::cents(10), Money::dollars(1)))
        .build()
}

/// Limits each caller alike.
fn each(quota: CallerQuota) -> CallerLimits {
    CallerLimits::builder().others(quota).prices(prices()).build().unwrap()
}

type Stack = BoxCloneService<Request<Full<bytes::Bytes>>, Response<AnyBody>, BoxError>;

/// Stacks the layers that know the call and read the answer around the limits.
fn stack(limits: &CallerLimits, upstream: Upstream) -> Stack {
    let inner = CallerLimitLayer::new(limits.clone()).layer(ClassifyLayer::new().layer(upstream));
    let service = ReplayLayer::new().layer(inner);
    let service = ServiceExt::<Request<Full<bytes::Bytes>>>::map_response(service, |response| response.map(any));
    BoxCloneService::new(service)
}

/// Calls and reads the answer to its end.
async fn ask(service: &Stack, request: Request<Full<bytes::Bytes>>) -> Result<http::StatusCode, BoxError> {
    let response = service.clone().oneshot(request).await?;
    let status = response.status();
    let _ = response.into_body().collect().await;
    Ok(status)
}

fn kind<T: std::fmt::Debug>(result: Result<T, BoxError>) -> Kind {
    find(&result.unwrap_err()).failure().kind()
}

/// Returns what a caller has used.
fn used(limits: &CallerLimits, caller: &str, dimension: CallerDimension) -> CallerAmount {
    let all = limits.snapshot();
    let report = all.iter().find(|report| &*report.caller == caller && report.model.is_none()).expect("a report");
    report.dimensions[dimension as usize].used
}

fn count(count: u64) -> CallerAmount {
    CallerAmount::Count(count)
}

fn money(text: &str) -> CallerAmount {
    CallerAmount::Money(text.parse().unwrap())
}

// === what is refused, and until when ===

#[tokio::test(start_paused = true)]
async fn a_caller_past_a_minutes_requests_is_refused_with_the_wait_and_nobody_else_is() {
    let limits = each(CallerQuota::new().requests_per_minute(2));
    let upstream = answers(answer(2, 0, 1));
    let service = stack(&limits, upstream.clone());
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    advance(secs(10)).await;
    ask(&service, by("app", post(FLASH))).await.unwrap();
    let error = ask(&service, by("app", post(GENERATE))).await.unwrap_err();
    let error = find(&error);
    assert_eq!(
        (error.layer(), error.failure().kind(), error.fault()),
        ("caller_limit", Kind::CallerLimited, Fault::Local)
    );
    assert_eq!((error.failure().code().as_u16(), error.retry_after()), (429, Some(secs(50))));
    assert!(error.never_sent() && error.outcome().gave_up() == Some(GaveUp::Wait));
    let (operator, caller) = (error.to_string(), error.failure().caller_message().to_owned());
    assert!(operator.contains("caller app has used 2 of 2 requests a minute"), "{operator}");
    assert_eq!(caller, "you have used 2 of 2 requests a minute, and this call needs 1");

    // Another caller, and a call without one.
    ask(&service, by("job", post(GENERATE))).await.unwrap();
    for _ in 0..5 {
        ask(&service, post(GENERATE)).await.unwrap();
    }
    // Calls that cost nothing, and calls that cost nothing of the model.
    for uri in ["/v1beta/models/gemini-2.5-pro:countTokens", "/v1beta/files"] {
        ask(&service, by("app", post(uri))).await.unwrap();
    }
    advance(millis(49_999)).await;
    assert_eq!(kind(ask(&service, by("app", post(GENERATE))).await), Kind::CallerLimited);
    advance(millis(1)).await;
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    assert_eq!(upstream.calls(), 11, "what was refused was not sent");
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_are_never_more_than_the_limit() {
    let limits = each(CallerQuota::new().requests_per_minute(7).requests_per_day(100));
    let upstream = Upstream::new(|_, _| async {
        tokio::time::sleep(secs(1)).await;
        Ok(hello())
    });
    let service = stack(&limits, upstream.clone());
    let all =
        join_all((0..50).map(|nth| ask(&service, by(if nth % 2 == 0 { "app" } else { "job" }, post(GENERATE))))).await;
    assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 14);
    assert_eq!(upstream.calls(), 14);
}

#[tokio::test(start_paused = true)]
async fn a_minutes_tokens_are_charged_as_estimated_and_settled_as_counted() {
    let limits = each(CallerQuota::new().input_tokens_per_minute(250));
    let service = stack(&limits, answers(answer(50, 0, 1_000)));
    let asked = || costing(TokenCost::estimate(200), by("app", post(GENERATE)));
    let held = service.clone().oneshot(asked()).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::InputTokensPerMinute), count(200));
    assert_eq!(kind(ask(&service, asked()).await), Kind::CallerLimited);
    held.into_body().collect().await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::InputTokensPerMinute), count(50));
    ask(&service, asked()).await.unwrap();
    assert_eq!(kind(ask(&service, asked()).await), Kind::CallerLimited);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_embeddings_is_a_request_for_each_item() {
    let limits = each(CallerQuota::new().requests_per_minute(5));
    let service = stack(&limits, answers(json!({"embeddings": []})));
    let batch = |items: usize| {
        let item = r#"{"content":{"parts":[{"text":"a"}]}}"#;
        by("app", post_body(EMBED, format!(r#"{{"requests":[{}]}}"#, vec![item; items].join(","))))
    };
    ask(&service, batch(3)).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerMinute), count(3));
    assert_eq!(kind(ask(&service, batch(3)).await), Kind::CallerLimited);
    ask(&service, batch(2)).await.unwrap();
    // No waiting helps.
    assert_eq!(kind(ask(&service, batch(6)).await), Kind::LargerThanQuota);
}

#[tokio::test(start_paused = true)]
async fn a_day_ends_at_midnight_pacific() {
    let limits = each(CallerQuota::new().requests_per_day(2).tokens_per_day(1_000));
    let service = stack(&limits, answers(answer(100, 0, 150)));
    let midnight = Instant::now() + until_pacific_midnight(clock::wall());
    for _ in 0..2 {
        ask(&service, by("app", post(GENERATE))).await.unwrap();
    }
    assert_eq!(used(&limits, "app", CallerDimension::TokensPerDay), count(500), "output and thoughts count");
    let error = ask(&service, by("app", post(GENERATE))).await.unwrap_err();
    let wait = find(&error).retry_after().unwrap();
    let expected = midnight - Instant::now();
    assert!(wait <= expected + secs(1) && wait + secs(1) >= expected, "{wait:?} {expected:?}");
    advance(wait - millis(1)).await;
    assert_eq!(kind(ask(&service, by("app", post(GENERATE))).await), Kind::CallerLimited);
    advance(millis(1)).await;
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerDay), count(1));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_day_stop_a_caller_once_they_are_used() {
    let limits = each(CallerQuota::new().tokens_per_day(1_000));
    let service = stack(&limits, answers(answer(100, 0, 800)));
    let asked = || costing(TokenCost::at_least(100), by("app", post(GENERATE)));
    ask(&service, asked()).await.unwrap();
    ask(&service, asked()).await.unwrap();
    // The output was not known before: it went past the limit by that of one call.
    assert_eq!(used(&limits, "app", CallerDimension::TokensPerDay), count(1_800));
    let error = ask(&service, asked()).await.unwrap_err();
    assert!(error.to_string().contains("1800 of 1000 tokens a day"), "{error}");
}

// === money ===

#[tokio::test(start_paused = true)]
async fn money_of_a_month_is_counted_by_the_answers_own_numbers() {
    let limits = each(CallerQuota::new().money_per_month(Money::dollars(2)).money_per_day(Money::dollars(1)));
    // 0.6 $ of input, 0.04 $ of cached input, 0.1 $ of output.
    let service = stack(&limits, answers(answer(1_000_000, 400_000, 10_000)));
    let asked = || costing(TokenCost::estimate(500_000), by("app", post(GENERATE)));
    let held = service.clone().oneshot(asked()).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::MoneyPerDay), money("0.50"), "its input, at first");
    held.into_body().collect().await.unwrap();
    for dimension in [CallerDimension::MoneyPerDay, CallerDimension::MoneyPerMonth] {
        assert_eq!(used(&limits, "app", dimension), money("0.74"));
    }
    let error = ask(&service, asked()).await.unwrap_err();
    assert!(error.to_string().contains("has used $0.74 of $1.00 a day, and this call needs $0.50"), "{error}");

    // Day after day, until the month's is used up. The month of today may end before.
    let (begun, wall) = (Instant::now(), clock::wall());
    let month_end = || Instant::now() + until_pacific_month_end(wall + begun.elapsed());
    let (mut month, mut spent) = (month_end(), Money::micros(740_000));
    while spent + Money::cents(50) <= Money::dollars(2) {
        advance(find(&ask(&service, asked()).await.unwrap_err()).retry_after().unwrap()).await;
        if month_end() > month + secs(3_600) {
            (month, spent) = (month_end(), Money::ZERO);
        }
        ask(&service, asked()).await.unwrap();
        spent += Money::micros(740_000);
        assert_eq!(used(&limits, "app", CallerDimension::MoneyPerMonth), CallerAmount::Money(spent));
    }
    let error = ask(&service, asked()).await.unwrap_err();
    assert!(error.to_string().contains("has used $2.22 of $2.00 a month"), "{error}");
    let wait = find(&error).retry_after().unwrap();
    let expected = month - Instant::now();
    assert!(wait <= expected + secs(1) && wait + secs(1) >= expected, "{wait:?} {expected:?}");
    advance(wait).await;
    ask(&service, asked()).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::MoneyPerMonth), money("0.74"));
}

#[tokio::test(start_paused = true)]
async fn the_model_that_has_answered_and_the_tier_that_has_served_are_charged() {
    for (model_version, tier, expected) in [
        (None, None, "2"),
        (Some("gemini-2.5-flash"), None, "0.2"),
        (Some("gemini-2.5-flash-001"), None, "0.2"),
        // It has no price of its own, and was asked for by a name that has one.
        (Some("gemini-2.5-pro-special"), None, "2"),
        (None, Some("flex"), "1"),
        (None, Some("ON_DEMAND_PRIORITY"), "3.6"),
    ] {
        let mut body = answer(1_000_000, 0, 100_000);
        if let Some(model) = model_version {
            body["modelVersion"] = model.into();
        }
        if let Some(tier) = tier {
            body["usageMetadata"]["serviceTier"] = tier.into();
        }
        let limits = each(CallerQuota::new().money_per_day(Money::dollars(9)));
        ask(&stack(&limits, answers(body)), by("app", post(GENERATE))).await.unwrap();
        assert_eq!(used(&limits, "app", CallerDimension::MoneyPerDay), money(expected), "{model_version:?} {tier:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_was_asked_for_is_charged_where_the_answer_names_none() {
    let limits = each(CallerQuota::new().money_per_day(Money::dollars(9)));
    let body = r#"{"contents":[{"parts":[{"text":"hi"}]}],"serviceTier":"flex"}"#;
    ask(&stack(&limits, answers(answer(1_000_000, 0, 0))), by("app", post_body(GENERATE, body))).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::MoneyPerDay), money("0.5"));
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_price_is_charged_as_the_dearest() {
    let limits = each(CallerQuota::new().money_per_day(Money::dollars(99)));
    let uri = "/v1beta/models/gemini-9-invented:generateContent";
    ask(&stack(&limits, answers(answer(1_000_000, 0, 1_000_000))), by("app", post(uri))).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::MoneyPerDay), money("11"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_costs_what_its_last_word_says_and_a_dropped_one_what_it_has_said() {
    let chunk = |output: u64| {
        let mut chunk = answer(100_000, 0, output);
        chunk["candidates"][0].as_object_mut().unwrap().remove("finishReason");
        format!("data: {chunk}\r\n\r\n")
    };
    for (chunks, expected) in [(0, "0.05"), (1, "0.2"), (2, "0.3"), (3, "0.5")] {
        let limits = each(CallerQuota::new().money_per_day(Money::dollars(9)));
        let (feed, body) = fed();
        let body = parking_lot::Mutex::new(Some(body));
        let service = stack(&limits, Upstream::at_once(move |_| Ok(sse(any(body.lock().take().unwrap())))));
        if chunks == 0 {
            // It never had an answer: dropped before it, it stays charged as it was.
            let call = service.oneshot(costing(TokenCost::estimate(50_000), by("app", post(STREAM))));
            assert!(tokio::time::timeout(secs(5), call).await.is_err());
        } else {
            feed.data(chunk(10_000));
            let response =
                service.oneshot(costing(TokenCost::estimate(50_000), by("app", post(STREAM)))).await.unwrap();
            let mut body = response.into_body();
            body.frame().await.unwrap().unwrap();
            if chunks > 1 {
                feed.data(chunk(20_000));
                body.frame().await.unwrap().unwrap();
            }
            if chunks > 2 {
                feed.data(format!("data: {}\r\n\r\n", answer(100_000, 0, 40_000)));
                drop(feed);
                assert!(body.collect().await.is_ok());
            }
        }
        assert_eq!(used(&limits, "app", CallerDimension::MoneyPerDay), money(expected), "{chunks}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_say_its_tokens_costs_by_its_bytes() {
    let chunk = |content: &str, usage: Value| {
        let finish = if usage.is_null() { Value::Null } else { "stop".into() };
        let choice = json!({"index": 0, "delta": {"content": content}, "finish_reason": finish});
        let mut chunk =
            json!({"id": "c", "object": "chat.completion.chunk", "model": "gemini-2.5-pro", "choices": [choice]});
        if usage.is_object() {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let usage = json!({"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70});
    for (usage, expected) in [(Some(usage), 70), (None, 200)] {
        let says = usage.is_some();
        let body = format!(
            "{}{}data: [DONE]\n\n",
            chunk(&"word ".repeat(80), Value::Null),
            chunk("", usage.unwrap_or(true.into()))
        );
        let bytes = body.len() as u64;
        let limits = each(CallerQuota::new().tokens_per_day(1_000));
        let service = stack(&limits, Upstream::at_once(move |_| Ok(sse(full(body.clone())))));
        let asked =
            post_body(CHAT, r#"{"model":"gemini-2.5-pro","stream":true,"messages":[{"role":"user","content":"hi"}]}"#);
        ask(&service, costing(TokenCost::estimate(40), by("app", asked))).await.unwrap();
        let all = used(&limits, "app", CallerDimension::TokensPerDay);
        assert_eq!(all, count(if says { expected } else { 40 + bytes / 3 }));
        assert!(all <= count(3 * expected), "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_dropped_before_it_says_its_tokens_costs_by_its_bytes() {
    let chunk = || {
        let delta =
            json!({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "word ".repeat(80)}});
        format!("event: step.delta\ndata: {delta}\n\n")
    };
    let streamed = post_body(INTERACTIONS, r#"{"model":"gemini-2.5-pro","stream":true,"input":"hi"}"#);
    let limits = each(CallerQuota::new().tokens_per_day(1_000_000));
    let service = stack(&limits, Upstream::at_once(move |_| Ok(sse(full(format!("{}{}", chunk(), chunk()))))));
    let response = service.oneshot(costing(TokenCost::estimate(40), by("app", streamed))).await.unwrap();
    let mut body = response.into_body();
    let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap().len() as u64;
    drop(body);
    assert!(bytes > 400);
    assert_eq!(used(&limits, "app", CallerDimension::TokensPerDay), count(40 + bytes / 3));

    // In one piece: all of it was generated before its head came, and most of it has not passed. An image has many bytes.
    let body = r#"{"candidates":[{"content":{"parts":[{"text":"word word"}]}}"#;
    let bytes = body.len() as u64;
    for (length, read, expected) in
        [(3_000, false, 1_000), (0, false, bytes / 3), (0, true, bytes / 3), (9_000_000, true, 65_536)]
    {
        let limits = each(CallerQuota::new().tokens_per_day(1_000_000));
        let (feed, rest) = fed();
        feed.data(body);
        let rest = parking_lot::Mutex::new(Some(rest));
        let service = stack(
            &limits,
            Upstream::at_once(move |_| {
                let mut hint = http_body::SizeHint::new();
                hint.set_lower(length);
                Ok(typed(200, "application/json", any(rest.lock().take().unwrap().with_hint(hint))))
            }),
        );
        let response = service.oneshot(costing(TokenCost::estimate(40), by("app", post(GENERATE)))).await.unwrap();
        let mut body = response.into_body();
        if read {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        assert_eq!(used(&limits, "app", CallerDimension::TokensPerDay), count(40 + expected), "{length} {read}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_to_its_end_and_says_no_tokens_costs_its_input() {
    // Vectors are no output, however many bytes they have.
    for (uri, body) in [
        (EMBED, json!({"embeddings": [{"values": vec![0.5; 200]}]})),
        (GENERATE, json!({"candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}]})),
    ] {
        let limits = each(CallerQuota::new().tokens_per_day(1_000_000));
        let asked = costing(TokenCost::estimate(40), by("app", post_body(uri, r#"{"requests":[{}]}"#)));
        ask(&stack(&limits, answers(body)), asked).await.unwrap();
        assert_eq!(used(&limits, "app", CallerDimension::TokensPerDay), count(40), "{uri}");
    }
}

// === what was never sent ===

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_sent_gives_its_charge_back_when_it_is_dropped() {
    let quota = || CallerQuota::new().requests_per_day(9).tokens_per_day(10_000);
    let one_a_minute = || Limits::new().requests_per_minute(1);
    let asked = || costing(TokenCost::estimate(100), by("app", post(GENERATE)));
    let limits = each(quota());
    let upstream = Upstream::hangs();
    let gemini = GeminiLayer::relay().limits(one_a_minute()).callers(CallerLimitLayer::new(limits.clone()));
    let service = gemini.build().unwrap().layer(upstream.clone());
    let (sent, waits) = (service.clone().oneshot(asked()), service.clone().oneshot(asked()));
    let (sent, waits) = (tokio::spawn(sent), tokio::spawn(waits));
    tokio::time::sleep(secs(5)).await;
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerDay), count(2));
    for (call, left) in [(waits, 1), (sent, 1)] {
        call.abort();
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(used(&limits, "app", CallerDimension::RequestsPerDay), count(left), "what was sent stays charged");
        // The precheck has counted its one token.
        assert_eq!(used(&limits, "app", CallerDimension::TokensPerDay), count(left));
    }
    assert_eq!(upstream.calls(), 1);

    // One whose first attempt was sent, and which waits for the second one.
    let limits = each(quota());
    let upstream = Upstream::at_once(|_| Ok(busy()));
    let gemini = GeminiLayer::relay().limits(one_a_minute()).callers(CallerLimitLayer::new(limits.clone()));
    let service = gemini.build().unwrap().layer(upstream.clone());
    assert!(tokio::time::timeout(secs(20), service.oneshot(asked())).await.is_err(), "it waits");
    assert_eq!((used(&limits, "app", CallerDimension::RequestsPerDay), upstream.calls()), (count(1), 1));

    // Nobody inside tells: dropped, it may have been sent.
    for gives_back in [false, true] {
        let limits = each(quota());
        let layer = CallerLimitLayer::new(limits.clone());
        let layer = if gives_back { layer.gives_back_unsent() } else { layer };
        let limiter = Limiter::builder().limits(one_a_minute()).max_wait(secs(60)).build();
        let inner = RateLimitLayer::new(limiter).layer(ClassifyLayer::new().layer(Upstream::hangs()));
        let service = layer.layer(inner);
        let both = join_all([service.clone().oneshot(asked()), service.clone().oneshot(asked())]);
        assert!(tokio::time::timeout(secs(5), both).await.is_err());
        let expected = if gives_back { 1 } else { 2 };
        assert_eq!(used(&limits, "app", CallerDimension::RequestsPerDay), count(expected), "{gives_back}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_has_settled_is_not_given_back_once_more() {
    // A room inside answers, and nothing is ever sent.
    let limits = each(CallerQuota::new().requests_per_day(9));
    let layer = CallerLimitLayer::new(limits.clone()).gives_back_unsent();
    let service = layer.layer(Upstream::at_once(|_| Ok(hello())));
    service.clone().oneshot(by("app", post(GENERATE))).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerDay), count(1));
    let bad = || Ok(json(400, r#"{"error":{"code":400,"message":"Bad","status":"INVALID_ARGUMENT"}}"#));
    let layer = CallerLimitLayer::new(limits.clone()).gives_back_unsent();
    let service = layer.layer(Upstream::at_once(move |_| bad()));
    let _ = service.oneshot(by("app", post(GENERATE))).await;
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerDay), count(2), "a caller's mistake is a request");
}

// === what failed ===

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_given_back_and_a_callers_own_mistake_counts_as_a_request() {
    let quota = CallerQuota::new().requests_per_day(9).tokens_per_day(10_000).money_per_month(Money::dollars(9));
    type Answering = fn() -> Answer;
    let cases: [(&str, Answering, u64); 7] = [
        ("overloaded", || Ok(busy()), 0),
        ("a reset", || Err(reset().into()), 0),
        ("a 429", || Ok(json(429, r#"{"error":{"code":429,"message":"no","status":"RESOURCE_EXHAUSTED"}}"#)), 0),
        ("an empty answer", || Ok(json(200, EMPTY)), 0),
        ("a bad status of a proxy", || Ok(status(502)), 0),
        ("a 400", || Ok(json(400, r#"{"error":{"code":400,"message":"Bad","status":"INVALID_ARGUMENT"}}"#)), 1),
        (
            "a 404",
            || Ok(json(404, r#"{"error":{"code":404,"message":"models/m is not found","status":"NOT_FOUND"}}"#)),
            1,
        ),
    ];
    for (name, answering, requests) in cases {
        let limits = each(quota.clone());
        let service = stack(&limits, Upstream::at_once(move |_| answering()));
        let _ = ask(&service, costing(TokenCost::estimate(500), by("app", post(GENERATE)))).await;
        assert_eq!(used(&limits, "app", CallerDimension::RequestsPerDay), count(requests), "{name}");
        assert_eq!(used(&limits, "app", CallerDimension::TokensPerDay), count(0), "{name}");
        assert_eq!(used(&limits, "app", CallerDimension::MoneyPerMonth), money("0"), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_on_the_content_costs_what_was_counted() {
    let limits = each(CallerQuota::new().tokens_per_day(10_000));
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 70, "totalTokenCount": 70}});
    let service = stack(&limits, answers(blocked));
    let _ = ask(&service, costing(TokenCost::estimate(500), by("app", post(GENERATE)))).await;
    assert_eq!(used(&limits, "app", CallerDimension::TokensPerDay), count(70));
}

// === a call that is larger than a limit ===

#[tokio::test(start_paused = true)]
async fn what_is_proven_larger_than_a_whole_limit_never_fits_and_a_guess_may() {
    let limits = each(CallerQuota::new().input_tokens_per_minute(100).money_per_day(Money::micros(100)));
    let service = stack(&limits, answers(answer(20, 0, 0)));
    let asked = |cost| costing(cost, by("app", post(GENERATE)));
    let error = ask(&service, asked(TokenCost::at_least(101))).await.unwrap_err();
    let error = find(&error);
    assert_eq!(
        (error.failure().kind(), error.fault(), error.retry_after()),
        (Kind::LargerThanQuota, Fault::Caller, None)
    );
    assert!(
        error.to_string().contains("needs 101, and the limit of caller app is 100 input tokens a minute"),
        "{error}"
    );
    assert!(!error.failure().caller_message().contains("app"));
    // A guess takes all of it, while nothing else is used.
    ask(&service, asked(TokenCost::estimate(5_000))).await.unwrap();
    assert_eq!(kind(ask(&service, asked(TokenCost::estimate(5_000))).await), Kind::CallerLimited);
    ask(&service, asked(TokenCost::at_least(80))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_amount_of_money_is_proven_and_a_limit_of_zero_allows_nothing() {
    // Two dollars by the full price, of which all may turn out to be cached.
    let asked = || costing(TokenCost::at_least(2_000_000), by("app", post(GENERATE)));
    let limits = each(CallerQuota::new().money_per_day(Money::dollars(1)));
    let service = stack(&limits, answers(answer(2_000_000, 2_000_000, 0)));
    ask(&service, asked()).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::MoneyPerDay), money("0.2"));
    assert_eq!(kind(ask(&service, asked()).await), Kind::CallerLimited, "it would fit tomorrow");
    let none = CallerQuota::new;
    for quota in [none().money_per_month(Money::ZERO), none().tokens_per_day(0), none().input_tokens_per_minute(0)] {
        let asked = costing(TokenCost::estimate(5), by("app", post(GENERATE)));
        let service = stack(&each(quota), answers(answer(1, 0, 1)));
        assert_eq!(kind(ask(&service, asked).await), Kind::LargerThanQuota);
    }
}

// === the choice ===

#[tokio::test(start_paused = true)]
async fn past_a_limit_a_call_goes_on_with_the_lowest_priority_where_that_is_the_choice() {
    let limits = each(CallerQuota::new().requests_per_minute(1).past(PastLimit::LowestPriority));
    let upstream = answers(answer(2, 0, 1));
    let service = stack(&limits, upstream.clone());
    for _ in 0..3 {
        ask(&service, by("app", post(GENERATE))).await.unwrap();
    }
    advance(secs(61)).await;
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    let seen = |asked: Asked| asked.context.unwrap().priority();
    let priorities: Vec<_> = upstream.asked().into_iter().map(seen).collect();
    assert_eq!(priorities, [Priority::Normal, Priority::Batch, Priority::Batch, Priority::Normal]);
}

#[tokio::test(start_paused = true)]
async fn a_quotas_priority_lowers_and_never_raises() {
    use Priority::{Batch, Interactive, Normal};
    for (of_server, of_quota, of_model, expected) in [
        (Normal, None, None, Normal),
        (Interactive, None, None, Interactive),
        (Interactive, Some(Normal), None, Normal),
        (Batch, Some(Normal), None, Batch),
        (Normal, Some(Interactive), None, Normal),
        (Interactive, Some(Normal), Some(Batch), Batch),
        (Interactive, None, Some(Normal), Normal),
    ] {
        let with = |quota: CallerQuota, priority: Option<Priority>| match priority {
            Some(priority) => quota.priority(priority),
            None => quota,
        };
        let quota =
            with(CallerQuota::new(), of_quota).limits_for_model("gemini-2.5-pro", with(CallerQuota::new(), of_model));
        let upstream = answers(answer(2, 0, 1));
        let service = stack(&each(quota), upstream.clone());
        let mut request = by("app", post(GENERATE));
        CallContext::update(request.extensions_mut(), |context| context.set_priority(of_server));
        ask(&service, request).await.unwrap();
        assert_eq!(upstream.asked()[0].context.as_ref().unwrap().priority(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_models_limits_hold_besides_the_callers() {
    let of_pro = CallerQuota::new().requests_per_minute(1);
    let limits = each(CallerQuota::new().requests_per_minute(3).limits_for_model("gemini-2.5-pro", of_pro));
    let service = stack(&limits, answers(answer(2, 0, 1)));
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    let error = ask(&service, by("app", post(STREAM))).await.unwrap_err();
    let message = find(&error).failure().caller_message().to_owned();
    assert!(message.contains("1 of 1 requests a minute of model gemini-2.5-pro"), "{message}");
    ask(&service, by("app", post(FLASH))).await.unwrap();
    ask(&service, by("app", post(FLASH))).await.unwrap();
    assert_eq!(kind(ask(&service, by("app", post(FLASH))).await), Kind::CallerLimited);
    let models: Vec<_> = limits.snapshot().into_iter().map(|report| report.model).collect();
    assert_eq!(models, [None, Some("gemini-2.5-pro".into())]);
}

// === the layers around it ===

fn header(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_caller_reads_googles_429_with_the_time_to_come_again() {
    let server = |quota| {
        ServiceBuilder::new()
            .layer(ErrorResponseLayer::new())
            .layer(GeminiLayer::relay().callers(CallerLimitLayer::new(each(quota))).build().unwrap())
            .service(answers(answer(2, 0, 1)))
    };
    for (quota, retry_after, should_retry, says) in [
        (
            CallerQuota::new().requests_per_minute(1),
            "60",
            None,
            "1 of 1 requests a minute, and this call needs 1; try again in 60 s",
        ),
        (
            CallerQuota::new().requests_per_day(1),
            "60",
            Some("false"),
            "1 of 1 requests a day, and this call needs 1; it will reset at",
        ),
    ] {
        let service = server(quota);
        let _ = service.clone().oneshot(by("app", post(GENERATE))).await.unwrap().into_body().collect().await;
        let response = service.oneshot(by("app", post(GENERATE))).await.unwrap();
        assert_eq!((response.status().as_u16(), header(response.headers(), RETRY_AFTER)), (429, Some(retry_after)));
        assert_eq!(header(response.headers(), "x-should-retry"), should_retry);
        let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let error = &body["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says) && !message.contains("app"), "{message}");
        let details = error["details"].as_array().unwrap();
        assert!(details.iter().any(|detail| detail.get("retryDelay").is_some()), "{error}");
        assert!(error.to_string().contains("CALLER_LIMITED"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_fallback_and_no_retry_takes_a_call_that_is_past_a_limit() {
    for quota in [CallerQuota::new().requests_per_day(1), CallerQuota::new().requests_per_minute(1)] {
        let upstream = answers(answer(2, 0, 1));
        let gemini = GeminiLayer::relay()
            .fallback("gemini-2.5-pro", ["gemini-2.5-flash"])
            .callers(CallerLimitLayer::new(each(CallerQuota::new().limits_for_model("gemini-2.5-pro", quota))))
            .build()
            .unwrap();
        assert!(gemini.callers().is_some());
        let service = ServiceBuilder::new().layer(RetryLayer::default()).layer(gemini).service(upstream.clone());
        let request = || by("app", post(GENERATE));
        service.clone().oneshot(request()).await.unwrap();
        let begun = Instant::now();
        let error = service.clone().oneshot(request()).await.unwrap_err();
        assert_eq!(find(&error).failure().kind(), Kind::CallerLimited, "{error}");
        assert_eq!((begun.elapsed(), upstream.calls()), (Duration::ZERO, 1));
        // The model that was asked for itself is another matter.
        service.oneshot(by("app", post(FLASH))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_retried_is_charged_once() {
    let limits = each(CallerQuota::new().requests_per_minute(9).money_per_day(Money::dollars(5)));
    let upstream = Upstream::fails(2, || Ok(busy()));
    let gemini = GeminiLayer::relay().callers(CallerLimitLayer::new(limits.clone())).build().unwrap();
    let response = gemini.layer(upstream.clone()).oneshot(by("app", post(GENERATE))).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(upstream.calls(), 3);
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerMinute), count(1));
    assert_eq!(used(&limits, "app", CallerDimension::MoneyPerDay), money("0.000012"), "two tokens, and one of output");
}

// === settings, state and reports ===

#[test]
fn settings_that_could_not_be_counted_are_refused() {
    let rich = || CallerQuota::new().money_per_day(Money::dollars(5));
    let builder = CallerLimits::builder;
    let cases: [(CallerLimitsBuilder, &str); 6] = [
        (builder().others(rich()), "the limit for every other caller is $5.00 a day, and there are no prices"),
        (builder().caller("app", rich()), "the limit for caller app is $5.00 a day, and there are no prices"),
        (
            builder().caller("app", rich().limits_for_model("m", CallerQuota::new())).prices(prices()),
            "caller app is $5.00 a day, and there is no price of m",
        ),
        (
            builder().others(CallerQuota::new().limits_for_model("m", rich())).prices(prices()),
            "every other caller is $5.00 a day, and there is no price of m",
        ),
        (builder().others(CallerQuota::new().limits_for_model("m", rich())), "there is no price of m"),
        (
            builder().caller(
                "app",
                CallerQuota::new().limits_for_model("m", CallerQuota::new().limits_for_model("n", CallerQuota::new())),
            ),
            "the limits for caller app and model m have limits for a model in them",
        ),
    ];
    let limits = builder().build().unwrap();
    for (settings, says) in cases {
        let error = limits.replace(settings.clone()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(settings.build().unwrap_err(), error);
    }
}

#[tokio::test(start_paused = true)]
async fn settings_are_replaced_and_what_was_used_stays() {
    let limits = CallerLimits::builder().build().unwrap();
    let service = stack(&limits, answers(answer(2, 0, 1)));
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    assert!(limits.snapshot().is_empty(), "nothing is counted that is not limited");
    limits.replace(CallerLimits::builder().caller("app", CallerQuota::new().requests_per_day(2))).unwrap();
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    limits.replace(CallerLimits::builder().caller("app", CallerQuota::new().requests_per_day(1))).unwrap();
    assert_eq!(kind(ask(&service, by("app", post(GENERATE))).await), Kind::CallerLimited);
    limits.replace(CallerLimits::builder().caller("app", CallerQuota::new().requests_per_day(2))).unwrap();
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerDay), count(2));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_starts_again_gives_back_what_was_used() {
    let quota = CallerQuota::new().requests_per_minute(5).requests_per_day(10).money_per_month(Money::dollars(1));
    let quota = quota.limits_for_model("gemini-2.5-pro", CallerQuota::new().tokens_per_day(50));
    let before = each(quota.clone());
    ask(&stack(&before, answers(answer(40, 0, 5))), by("app", post(GENERATE))).await.unwrap();
    let after = each(quota);
    let kept = serde_json::to_string(&before.memory()).unwrap();
    for _ in 0..2 {
        after.restore(&serde_json::from_str::<CallerLimitsMemory>(&kept).unwrap());
    }
    let all = |limits: &CallerLimits| -> Vec<_> {
        limits.snapshot().iter().flat_map(|report| report.dimensions.map(|it| it.used)).collect()
    };
    assert_eq!(all(&after), all(&before), "and what is given back twice counts once");
    assert_eq!(used(&after, "app", CallerDimension::RequestsPerMinute), count(1));
    let service = stack(&after, answers(answer(2, 0, 1)));
    let asked = costing(TokenCost::at_least(6), by("app", post(GENERATE)));
    assert_eq!(kind(ask(&service, asked).await), Kind::CallerLimited);
}

#[tokio::test(start_paused = true)]
async fn invented_callers_share_an_account_once_there_are_too_many() {
    let quota = CallerQuota::new().requests_per_day(2);
    let limits = CallerLimits::builder().others(quota.clone()).caller("named", quota).build().unwrap();
    let service = CallerLimitLayer::new(limits.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    let mut refused = 0;
    for nth in 0..20_000 {
        let result = service.clone().oneshot(by(&format!("invented-{nth}"), post(GENERATE))).await;
        refused += u32::from(result.is_err());
    }
    assert!(limits.snapshot().len() <= 16_384 + 2, "with the one who is named, and the others");
    // Each map has its own room, and they share the account of those who find none.
    assert!((3_600..=3_620).contains(&refused), "{refused}");
    assert_eq!(used(&limits, "others", CallerDimension::RequestsPerDay), count(2));
    // A caller whom the settings name is not touched, and the long names are those of nobody.
    service.clone().oneshot(by("named", post(GENERATE))).await.unwrap();
    assert!(service.clone().oneshot(by(&"x".repeat(600), post(GENERATE))).await.is_err());

    // Once nothing counts any more, there is room again.
    advance(secs(26 * 3_600)).await;
    for nth in 0..100 {
        service.clone().oneshot(by(&format!("new-{nth}"), post(GENERATE))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_is_reported_with_the_time_until_it_falls() {
    let quota = CallerQuota::new().requests_per_minute(5).money_per_day(Money::dollars(3));
    let limits = CallerLimits::builder().caller("app", quota.clone()).others(quota).prices(prices()).build().unwrap();
    let service = stack(&limits, answers(answer(1_000_000, 0, 0)));
    ask(&service, by("app", post(GENERATE))).await.unwrap();
    advance(secs(10)).await;
    let all = limits.snapshot();
    let [report] = &all[..] else { panic!("{all:?}") };
    let minute = report.dimensions[CallerDimension::RequestsPerMinute as usize];
    assert_eq!((minute.used, minute.limit, minute.resets_in), (count(1), Some(count(5)), secs(50)));
    let day = report.dimensions[CallerDimension::MoneyPerDay as usize];
    assert_eq!((day.used, day.limit), (money("1"), Some(money("3"))));
    assert!(!day.resets_in.is_zero() && day.resets_in <= secs(25 * 3_600));

    // One whom the settings do not name is in the snapshot, and no series of its own.
    ask(&service, by("anybody", post(GENERATE))).await.unwrap();
    assert_eq!(used(&limits, "anybody", CallerDimension::RequestsPerMinute), count(1));
    let mut seen = Vec::new();
    limits.observe(&mut |reading| {
        let Level::Gauge(level) = reading.value else { panic!("{reading:?}") };
        seen.push(format!("{} {:?} {level}", reading.name, reading.labels));
    });
    seen.sort_unstable();
    let labels = |dimension| format!(r#"[("tower_gemini.caller", "app"), ("dimension", "{dimension}")]"#);
    let [minute, day] = ["requests a minute", "money a day"].map(labels);
    assert_eq!(
        seen,
        [
            format!("tower_gemini.caller.max {day} 3"),
            format!("tower_gemini.caller.max {minute} 5"),
            format!("tower_gemini.caller.used {day} 1"),
            format!("tower_gemini.caller.used {minute} 1"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn work_for_later_counts_as_a_request_and_its_body() {
    let limits = each(CallerQuota::new().requests_per_minute(2).money_per_day(Money::dollars(1)));
    let upstream = Upstream::at_once(|_| Ok(json(200, r#"{"name":"batches/b"}"#)));
    let service = stack(&limits, upstream);
    for uri in [BATCH, "/v1beta/models/veo-3:predictLongRunning"] {
        ask(&service, costing(TokenCost::estimate(1_000), by("app", post(uri)))).await.unwrap();
    }
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerMinute), count(2));
    assert_eq!(used(&limits, "app", CallerDimension::MoneyPerDay), money("0.002"));
    assert_eq!(kind(ask(&service, by("app", post(BATCH))).await), Kind::CallerLimited);
    ask(&service, by("app", post("/v1beta/files"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fits_allocates_nothing() {
    let of_model = CallerQuota::new().requests_per_day(50);
    let quota = CallerQuota::new()
        .requests_per_minute(50)
        .money_per_day(Money::dollars(1))
        .limits_for_model("gemini-2.5-pro", of_model);
    let limits = each(quota);
    let mut service = CallerLimitLayer::new(limits.clone()).layer(service_fn(|_: Request<Full<bytes::Bytes>>| {
        std::future::ready(Ok::<_, BoxError>(Response::new(Empty::<bytes::Bytes>::new())))
    }));
    let request = || {
        let mut request = by("app", post(GENERATE));
        let call = Call::new(request.method(), request.uri());
        CallContext::update(request.extensions_mut(), |context| context.set_call(call));
        request
    };
    // The first call opens the accounts.
    service.call(request()).await.unwrap();
    let (request, mut result) = (request(), None);
    let counted = allocation_counter::measure(|| result = service.call(request).now_or_never());
    assert!(result.unwrap().is_ok());
    assert_eq!(counted.count_total, 0);
    assert_eq!(used(&limits, "app", CallerDimension::RequestsPerMinute), count(2));
}
