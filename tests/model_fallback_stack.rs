//! The layer in its place: over retries, circuit breakers and the classification of an emulated Gemini that has troubles.

mod support;

use std::task::Poll;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use support::*;
use tokio::time::{Instant, advance};
use tower::{ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, util::BoxCloneService};
use tower_gemini::{
    BoxError, CircuitBreakerLayer, ClassifyLayer, ErrorResponseLayer, ModelFallbackLayer, Outcome, RateLimitLayer,
    ReplayLayer, RetryLayer, RetryPolicy, TimeoutLayer, TokenPrecheckLayer,
    circuit_breaker::{CircuitBreakers, Target, Trip},
    emulator::{EmulatedModel, Emulator, EmulatorBuilder, Trouble, When},
    model_fallback::{FallbackChains, FallbackChainsBuilder},
    models::{self, ModelTable},
    rate_limit::Limiter,
};

const PRO: &str = "gemini-2.5-pro";
const FLASH: &str = "gemini-2.5-flash";
const LITE: &str = "gemini-2.5-flash-lite";

type Stack = BoxCloneService<Request<Full<Bytes>>, Response<AnyBody>, BoxError>;

/// All layers that a call passes here, in their order.
fn stack(emulator: &Emulator, chains: &FallbackChains) -> Stack {
    let breakers = CircuitBreakers::builder().trip(Trip::consecutive(6)).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total(secs(120)))
        .layer(ReplayLayer::new())
        .layer(ModelFallbackLayer::new(chains.clone()))
        .layer(TokenPrecheckLayer::new(ModelTable::new()))
        .layer(RetryLayer::default())
        .layer(CircuitBreakerLayer::new(breakers))
        .layer(TimeoutLayer::attempt(secs(20)).first_content(secs(10)))
        .layer(ClassifyLayer::new())
        .service(emulator.clone());
    let service = ServiceExt::<Request<Full<Bytes>>>::map_response(service, |response| response.map(any));
    BoxCloneService::new(service)
}

fn chains(builder: FallbackChainsBuilder) -> FallbackChains {
    builder.build().unwrap()
}

fn three() -> FallbackChains {
    chains(FallbackChains::builder().chain(PRO, [FLASH, LITE]))
}

fn keyed(uri: &str, body: &str) -> Request<Full<Bytes>> {
    let mut request = post_body(uri, body.to_owned());
    request.headers_mut().insert("x-goog-api-key", "a-key".parse().unwrap());
    request
}

async fn ask(stack: &Stack, uri: &str) -> Response<AnyBody> {
    stack.clone().oneshot(keyed(uri, PROMPT)).await.unwrap()
}

fn said(response: &Response<AnyBody>) -> &str {
    response.headers()["x-gemini-model"].to_str().unwrap()
}

/// Counts the calls to each model.
fn visits(emulator: &Emulator) -> [usize; 3] {
    [PRO, FLASH, LITE].map(|name| emulator.count(|visit| visit.model.as_deref() == Some(name)))
}

fn down(models: &[&str]) -> EmulatorBuilder {
    models.iter().fold(Emulator::builder().seed(7), |builder, model| {
        builder.trouble(When::always().model(*model), Trouble::overloaded())
    })
}

#[tokio::test(start_paused = true)]
async fn while_pro_is_overloaded_flash_answers_and_pro_is_left_alone_until_it_is_back() {
    fastrand::seed(1);
    let emulator = down(&[PRO]).build();
    let chains = three();
    let stack = stack(&emulator, &chains);
    let response = ask(&stack, GENERATE).await;
    assert_eq!((response.status(), said(&response)), (OK, FLASH));
    assert_eq!(outcome(&response).attempts(), 4, "three at Pro, and one");
    assert_eq!(visits(&emulator), [3, 1, 0]);
    let since = Instant::now();

    for response in join_all((0..20).map(|_| ask(&stack, GENERATE))).await {
        assert_eq!((response.status(), said(&response)), (OK, FLASH));
    }
    while since.elapsed() < secs(29) {
        advance(secs(1)).await;
        assert_eq!(said(&ask(&stack, GENERATE).await), FLASH);
    }
    assert_eq!(visits(&emulator)[0], 3, "nobody has asked it since");

    // One probe at a time, which is one call with all its attempts.
    advance(secs(2)).await;
    let responses = join_all((0..10).map(|_| ask(&stack, GENERATE))).await;
    assert!(responses.iter().all(|response| response.status() == OK && said(response) == FLASH));
    assert_eq!(visits(&emulator)[0], 6);
    assert_eq!(chains.snapshot()[0].current(), FLASH);

    emulator.clear_troubles();
    advance(secs(31)).await;
    assert_eq!(said(&ask(&stack, GENERATE).await), PRO);
    for response in join_all((0..10).map(|_| ask(&stack, GENERATE))).await {
        assert_eq!(said(&response), PRO);
    }
    assert_eq!(chains.snapshot()[0].current(), PRO);
    assert_eq!(emulator.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_all_are_down_a_call_has_no_more_attempts_than_without_a_chain() {
    for (models, expected) in [(&[FLASH][..], [3, 5, 0]), (&[FLASH, LITE], [3, 3, 2])] {
        fastrand::seed(2);
        let emulator = down(&[PRO, FLASH, LITE]).build();
        let chains = chains(FallbackChains::builder().chain(PRO, models.iter().copied()));
        // Without circuit breakers, which would spare even these.
        let service = ServiceBuilder::new()
            .layer(ModelFallbackLayer::new(chains.clone()))
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new())
            .service(emulator.clone());
        let response = service.oneshot(keyed(GENERATE, PROMPT)).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["x-gemini-model"], PRO);
        let outcome = response.extensions().get::<Outcome>().unwrap();
        assert_eq!((outcome.attempts(), outcome.model()), (RetryPolicy::MAX_ATTEMPTS, Some(PRO)));
        assert_eq!(visits(&emulator), expected);
        assert!(String::from_utf8_lossy(&read(response.into_body()).await).contains("The model is overloaded"));
        assert_eq!(chains.snapshot()[0].current(), PRO, "nobody has answered");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_moves_a_call_at_once() {
    fastrand::seed(3);
    let emulator = down(&[PRO]).build();
    // The chain never moves: each call finds out for itself.
    let stack = stack(&emulator, &chains(FallbackChains::builder().chain(PRO, [FLASH]).sticky(secs(0))));
    for _ in 0..6 {
        assert_eq!(said(&ask(&stack, GENERATE).await), FLASH);
    }
    let before = (visits(&emulator)[0], Instant::now());
    let response = ask(&stack, GENERATE).await;
    assert_eq!((said(&response), outcome(&response).attempts()), (FLASH, 1));
    assert_eq!((visits(&emulator)[0], Instant::now()), before, "no attempt, and no wait");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_goes_back_names_its_model_in_the_answer_too() {
    let emulator = Emulator::new();
    let breakers = CircuitBreakers::new();
    for model in [PRO, FLASH] {
        breakers.force_open(&Target::new(model, ""));
    }
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(ModelFallbackLayer::new(chains(FallbackChains::builder().chain(PRO, [FLASH]))))
        .layer(CircuitBreakerLayer::new(breakers))
        .service(emulator.clone());
    let response = service.oneshot(keyed(GENERATE, PROMPT)).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-gemini-model"]), (503, &PRO.parse().unwrap()));
    assert!(emulator.journal().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_days_quota_and_none_at_all_move_a_call_without_a_wait_and_a_minutes_is_waited_for() {
    fastrand::seed(4);
    for (trouble, moves) in [
        (Trouble::day_quota(), true),
        (Trouble::zero_quota(), true),
        (Trouble::minute_quota(secs(7)), false),
        (Trouble::vertex_capacity(), true),
    ] {
        let name = trouble.name();
        let when = if moves { When::always() } else { When::first(1) };
        let emulator = Emulator::builder().trouble(when.model(PRO), trouble).build();
        let stack = stack(&emulator, &three());
        let began = Instant::now();
        let response = ask(&stack, GENERATE).await;
        assert_eq!(response.status(), OK, "{name}");
        assert_eq!(said(&response), if moves { FLASH } else { PRO }, "{name}");
        if name.contains("quota") {
            assert_eq!(began.elapsed() < secs(1), moves, "{name}: {:?}", began.elapsed());
            assert_eq!(visits(&emulator), if moves { [1, 1, 0] } else { [2, 0, 0] }, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_without_quota_is_an_attempt_and_some_looks_and_no_failed_call_whatever_the_limiter_remembers() {
    fastrand::seed(12);
    let emulator = Emulator::builder().trouble(When::always().model(PRO), Trouble::day_quota()).build();
    let service = ServiceBuilder::new()
        .layer(ModelFallbackLayer::new(three()))
        .layer(RetryLayer::default())
        .layer(RateLimitLayer::new(Limiter::new()))
        .layer(ClassifyLayer::new())
        .service(emulator.clone());
    for _ in 0..10 {
        let began = Instant::now();
        let response = service.clone().oneshot(keyed(GENERATE, PROMPT)).await.unwrap();
        assert_eq!((response.status(), &response.headers()["x-gemini-model"]), (OK, &FLASH.parse().unwrap()));
        assert_eq!(began.elapsed(), secs(0));
        advance(secs(20)).await;
    }
    // Three have looked whether the day is really over: those after 20, 60 and 120 s, of looks after 15, 30 and 60 s.
    assert_eq!(visits(&emulator), [4, 10, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_hangs_is_left_after_its_time() {
    fastrand::seed(5);
    let emulator = Emulator::builder().trouble(When::always().model(PRO), Trouble::hang()).build();
    let stack = stack(&emulator, &three());
    let began = Instant::now();
    let response = ask(&stack, GENERATE).await;
    assert_eq!((response.status(), said(&response)), (OK, FLASH));
    assert!(began.elapsed() >= secs(40), "two attempts of 20 s each");
    assert_eq!(visits(&emulator), [2, 1, 0]);
    assert_eq!(emulator.in_flight(), 0, "what hung is dropped");
}

#[tokio::test(start_paused = true)]
async fn too_long_a_context_goes_to_a_larger_model() {
    for by in ["the pre-check", "the upstream"] {
        let emulator = Emulator::builder()
            .model(EmulatedModel::new("gemma-3-27b-it").input_token_limit(1_000))
            .model(EmulatedModel::new(PRO).input_token_limit(1_000_000))
            .build();
        let models = ModelTable::new();
        if by == "the pre-check" {
            models.insert(limited("gemma-3-27b-it", 1_000));
        }
        let chains = chains(FallbackChains::builder().larger("gemma-3-27b-it", [PRO]));
        let service = ServiceBuilder::new()
            .layer(ModelFallbackLayer::new(chains.clone()))
            .layer(TokenPrecheckLayer::new(models))
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new())
            .service(emulator.clone());
        let body = format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}]}}]}}"#, "word ".repeat(20_000));
        let request = keyed("/v1beta/models/gemma-3-27b-it:generateContent", &body);
        let response = service.oneshot(request).await.unwrap();
        assert_eq!((response.status(), &response.headers()["x-gemini-model"]), (OK, &PRO.parse().unwrap()), "{by}");
        let asked = emulator.count(|visit| visit.model.as_deref() == Some("gemma-3-27b-it"));
        assert_eq!(asked, usize::from(by == "the upstream"));
        assert_eq!(chains.snapshot()[0].current(), "gemma-3-27b-it");
    }
}

fn limited(name: &str, tokens: u64) -> models::Model {
    models::Model::new(name).with_input_limit(tokens)
}

#[tokio::test(start_paused = true)]
async fn a_next_model_that_the_pre_check_refuses_is_skipped() {
    let emulator = down(&[PRO]).build();
    let models = ModelTable::new();
    models.insert(limited(FLASH, 100));
    let service = ServiceBuilder::new()
        .layer(ModelFallbackLayer::new(three()))
        .layer(TokenPrecheckLayer::new(models))
        .layer(RetryLayer::default())
        .layer(ClassifyLayer::new())
        .service(emulator.clone());
    let body = format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}]}}]}}"#, "word ".repeat(2_000));
    let response = service.oneshot(keyed(GENERATE, &body)).await.unwrap();
    assert_eq!((response.status(), &response.headers()["x-gemini-model"]), (OK, &LITE.parse().unwrap()));
    assert_eq!(visits(&emulator), [3, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn embedding_and_counting_never_move() {
    fastrand::seed(6);
    let emulator = Emulator::builder().trouble(When::always(), Trouble::overloaded()).build();
    let chains = chains(FallbackChains::builder().chain(PRO, [FLASH]).chain("gemini-embedding-001", [FLASH]));
    let stack = stack(&emulator, &chains);
    for uri in ["/v1beta/models/gemini-2.5-pro:countTokens", "/v1beta/models/gemini-embedding-001:embedContent"] {
        let body = r#"{"contents":[{"parts":[{"text":"hi"}]}],"content":{"parts":[{"text":"hi"}]}}"#;
        let response = stack.clone().oneshot(keyed(uri, body)).await;
        assert!(!matches!(&response, Ok(response) if response.headers().contains_key("x-gemini-model")));
        assert!(!matches!(&response, Ok(response) if response.status() == OK));
    }
    assert_eq!(visits(&emulator)[1], 0);
}

#[tokio::test(start_paused = true)]
async fn the_openai_surface_moves_with_its_body() {
    fastrand::seed(7);
    let emulator = down(&[PRO]).build();
    let stack = stack(&emulator, &three());
    for streams in [false, true] {
        let body = format!(
            r#"{{"model":"gemini-2.5-pro","messages":[{{"role":"user","content":"gemini-2.5-pro"}}],"stream":{streams}}}"#
        );
        let mut request = keyed(CHAT, &body);
        request.headers_mut().insert("authorization", "Bearer a-key".parse().unwrap());
        request.headers_mut().remove("x-goog-api-key");
        request.headers_mut().insert("content-length", body.len().into());
        let response = stack.clone().oneshot(request).await.unwrap();
        assert_eq!((response.status(), said(&response)), (OK, FLASH));
        assert!(!read(response.into_body()).await.is_empty());
        let last = emulator.journal().pop().unwrap();
        assert_eq!((last.model.as_deref(), last.prompt.trim()), (Some(FLASH), PRO));
        assert_eq!(last.headers["content-length"], last.body_bytes.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_moves_before_its_commit_and_not_after() {
    type Makes = fn() -> Trouble;
    let troubles: [(Makes, &str); 6] = [
        (Trouble::overloaded, FLASH),
        (|| Trouble::overloaded().in_stream(0), FLASH),
        (|| Trouble::stall(0), FLASH),
        (Trouble::empty, FLASH),
        (|| Trouble::overloaded().in_stream(1), PRO),
        (|| Trouble::cut(1), PRO),
    ];
    for (nth, (trouble, expected)) in troubles.into_iter().enumerate() {
        fastrand::seed(8);
        let emulator = Emulator::builder().trouble(When::always().model(PRO), trouble()).build();
        let stack = stack(&emulator, &three());
        for uri in [STREAM, ARRAY] {
            let response = ask(&stack, uri).await;
            assert_eq!((response.status(), said(&response)), (OK, expected), "{nth} {uri}");
            let (data, error) = frames(response.into_body()).await;
            let text = String::from_utf8(data.concat()).unwrap();
            assert_eq!(error.is_none() && !text.contains("\"error\""), expected == FLASH, "{nth} {uri}: {text}");
        }
        if expected == PRO {
            assert_eq!(visits(&emulator), [2, 0, 0], "{nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_permit_is_held_between_models() {
    fastrand::seed(9);
    let emulator = down(&[PRO, FLASH]).build();
    let service = ServiceBuilder::new()
        .layer(ModelFallbackLayer::new(three()))
        .layer(RetryLayer::default())
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(ClassifyLayer::new())
        .service(emulator.clone());
    let calls = (0..20).map(|_| service.clone().oneshot(keyed(GENERATE, PROMPT)));
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().status(), OK);
    }
    assert_eq!(visits(&emulator)[2], 20);
}

#[tokio::test(start_paused = true)]
async fn wherever_a_call_is_dropped_nothing_is_left_and_the_next_one_may_probe() {
    let chains = three();
    let mut done = false;
    for polls in 1..100 {
        fastrand::seed(10);
        let emulator = down(&[PRO]).first_token(millis(10)).build();
        let stack = stack(&emulator, &chains);
        advance(secs(60)).await;
        let result = give_up_after(polls, ask(&stack, GENERATE)).await;
        if result.is_some() {
            done = true;
            break;
        }
        assert_eq!(emulator.in_flight(), 0, "dropped after {polls} polls");
    }
    assert!(done, "it never came to its end");
    // The chain has moved by now; the next call after the sticky duration is the probe, dropped ones notwithstanding.
    let emulator = Emulator::builder().first_token(millis(10)).build();
    let stack = stack(&emulator, &chains);
    assert_eq!(chains.snapshot()[0].current(), FLASH);
    advance(secs(60)).await;
    for polls in 1..5 {
        assert!(give_up_after(polls, ask(&stack, GENERATE)).await.is_none_or(|response| response.status() == OK));
        if chains.snapshot()[0].current() == PRO {
            return;
        }
    }
    assert_eq!(said(&ask(&stack, GENERATE).await), PRO);
}

/// Polls a future `polls` times, and then gives up.
async fn give_up_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Pro is down for a minute, and the first answer of Flash goes on in another call.
fn halves() -> Emulator {
    Emulator::builder()
        .seed(7)
        .trouble(When::always().model(PRO).until(secs(60)), Trouble::overloaded())
        .trouble(When::first(1).model(FLASH), Trouble::continuation())
        .build()
}

/// Reads the text behind the first member of that name.
async fn member(answer: Response<AnyBody>, name: &str) -> String {
    let answer = String::from_utf8(read(answer.into_body()).await.to_vec()).unwrap();
    let behind = answer.split(&format!("\"{name}\"")).nth(1).and_then(|behind| behind.split('"').nth(1));
    behind.unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_where_its_token_is_from_though_the_first_choice_is_back() {
    for uri in [GENERATE, STREAM, ARRAY] {
        let emulator = halves();
        let stack = stack(&emulator, &three());
        let answer = ask(&stack, uri).await;
        assert_eq!(said(&answer), FLASH, "{uri}");
        let token = member(answer, "continuationToken").await;
        advance(secs(120)).await;
        assert_eq!(said(&ask(&stack, uri).await), PRO, "{uri}");

        let before = visits(&emulator);
        let body = PROMPT.replacen('{', &format!(r#"{{"continuationToken":"{token}","#), 1);
        let answer = stack.clone().oneshot(keyed(uri, &body)).await.unwrap();
        assert_eq!((answer.status(), said(&answer)), (OK, FLASH), "{uri}");
        assert!(read(answer.into_body()).await.len() > 100, "{uri}");
        assert_eq!(visits(&emulator), [before[0], before[1] + 1, before[2]], "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interaction_goes_on_where_the_one_before_was_answered() {
    for stream in [false, true] {
        let emulator = down(&[]).trouble(When::always().model(PRO).until(secs(60)), Trouble::overloaded()).build();
        let stack = stack(&emulator, &three());
        let turn = |more: &str| {
            let body = format!(r#"{{"model":"{PRO}","input":"hi","stream":{stream}{more}}}"#);
            stack.clone().oneshot(keyed(INTERACTIONS, &body))
        };
        let answer = turn("").await.unwrap();
        assert_eq!(said(&answer), FLASH);
        let id = member(answer, "id").await;
        advance(secs(120)).await;
        assert_eq!(said(&turn("").await.unwrap()), PRO);

        let before = visits(&emulator);
        let answer = turn(&format!(r#","previous_interaction_id":"{id}""#)).await.unwrap();
        assert_eq!((answer.status(), said(&answer)), (OK, FLASH), "{id}");
        assert_eq!(visits(&emulator), [before[0], before[1] + 1, before[2]]);
    }
}
