//! Tests of `RateLimitLayer` over the emulator, on a paused clock: alone, and in its place in a stack.

mod support;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, Error, RateLimitLayer, RetryLayer,
    context::{Deadline, GaveUp, RetryAdvice},
    emulator::{Emulator, EmulatorBuilder, QuotaWindow, Trouble, Visit, When},
    failure::{Failure, Fault, Kind},
    quota::{Dimension, Gate, Limits, Scope, TokenCost},
    rate_limit::{Limiter, LimiterBuilder, Pacing},
};

use crate::support::{
    GENERATE, HELLO, STREAM, Upstream, any, busy, event, fed, find, hello, json, post, post_body, read, secs, settle,
    sse,
};

const COUNT: &str = "/v1beta/models/gemini-2.5-pro:countTokens";
const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

fn per_minute(requests: u64) -> Limits {
    Limits::new().requests_per_minute(requests)
}

fn tokens_per_minute(tokens: u64) -> Limits {
    Limits::new().input_tokens_per_minute(tokens)
}

fn patient(limits: Limits) -> LimiterBuilder {
    Limiter::builder().limits(limits).max_wait(secs(3600))
}

/// Returns a prompt of about `tokens` tokens, by the emulator's estimate.
fn prompt(uri: &str, tokens: usize) -> Request<Full<Bytes>> {
    let text = "abc ".repeat(tokens);
    let mut request = post_body(uri, format!(r#"{{"contents":[{{"parts":[{{"text":"{text}"}}]}}]}}"#));
    request.headers_mut().insert("x-goog-api-key", "test-key".parse().unwrap());
    request
}

fn with(mut request: Request<Full<Bytes>>, change: impl FnOnce(&mut CallContext)) -> Request<Full<Bytes>> {
    CallContext::update(request.extensions_mut(), change);
    request
}

/// Stacks the layers that are around the limiter in a real stack.
fn stack(
    limiter: &Limiter,
    emulator: &Emulator,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ 'static {
    ServiceBuilder::new()
        .layer(RetryLayer::default())
        .layer(RateLimitLayer::new(limiter.clone()))
        .layer(ClassifyLayer::new())
        .service(emulator.clone())
}

/// Returns Google's answer when a quota is used up.
fn quota(id: &str, message: &str) -> Failure {
    let violations = format!(r#"[{{"quotaId":"{id}","quotaValue":"2"}}]"#);
    let body = format!(
        r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"{message}","details":[{{"violations":{violations}}}]}}}}"#
    );
    Failure::from_response(StatusCode::TOO_MANY_REQUESTS, &http::HeaderMap::new(), body.as_bytes())
}

async fn whole<S, R>(service: S, request: Request<Full<Bytes>>) -> StatusCode
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = BoxError>,
    R: http_body::Body<Error: std::fmt::Debug>,
{
    let response = service.oneshot(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

fn refused(emulator: &Emulator) -> usize {
    emulator.count(|visit| visit.status == Some(StatusCode::TOO_MANY_REQUESTS))
}

/// Returns the most requests and tokens that arrived in any 60 s.
fn most_in_a_minute(emulator: &Emulator) -> (usize, u64) {
    let visits = emulator.journal();
    let minutes = (0..visits.len()).map(|from| {
        let end = visits[from].at + secs(60);
        let within = visits[from..].iter().take_while(|visit| visit.at < end);
        within.fold((0, 0), |(requests, tokens), visit| (requests + 1, tokens + visit.input_tokens))
    });
    minutes.fold((0, 0), |most: (usize, u64), minute| (most.0.max(minute.0), most.1.max(minute.1)))
}

/// Runs the jobs at once and returns how long they took.
async fn race(
    limiter: &Limiter,
    emulator: &Emulator,
    jobs: impl IntoIterator<Item = Request<Full<Bytes>>>,
) -> Duration {
    let begun = Instant::now();
    let service = stack(limiter, emulator);
    let all = join_all(jobs.into_iter().map(|job| whole(service.clone(), job))).await;
    assert!(all.iter().all(|status| *status == StatusCode::OK));
    begun.elapsed()
}

fn slow(builder: EmulatorBuilder) -> Emulator {
    builder.first_token(secs(5)).build()
}

// === all of the quota ===

#[tokio::test(start_paused = true)]
async fn three_hundred_jobs_at_sixty_a_minute_take_the_optimum() {
    let emulator = slow(Emulator::builder().limits(per_minute(60)));
    let limiter = patient(per_minute(60)).build();
    let took = race(&limiter, &emulator, (0..300).map(|_| prompt(GENERATE, 10))).await;
    assert_eq!((refused(&emulator), most_in_a_minute(&emulator).0), (0, 60));
    assert!(took <= secs(245).mul_f64(1.01), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn jobs_bound_by_tokens_take_the_optimum() {
    // At 10 jobs of 1,000 tokens a minute, these take five minutes.
    let emulator = slow(Emulator::builder().limits(tokens_per_minute(10_000)));
    let limiter = patient(tokens_per_minute(10_000)).build();
    let jobs =
        (0..50).map(|_| with(prompt(GENERATE, 1_000), |context| context.set_token_cost(TokenCost::estimate(1_000))));
    let took = race(&limiter, &emulator, jobs).await;
    assert_eq!((refused(&emulator), most_in_a_minute(&emulator).1), (0, 10_000));
    assert!(took <= secs(245).mul_f64(1.01), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn mixed_sizes_go_in_order_and_take_the_optimum() {
    let limits = per_minute(30).input_tokens_per_minute(20_000);
    let emulator = slow(Emulator::builder().limits(limits));
    let limiter = patient(limits).build();
    // 12 small calls and one large one together are a minute's tokens.
    let sizes = (0..65).map(|nth| if nth % 13 == 12 { 14_000 } else { 500 });
    let job =
        |size: usize| with(prompt(GENERATE, size), |context| context.set_token_cost(TokenCost::estimate(size as u64)));
    let took = race(&limiter, &emulator, sizes.clone().map(job)).await;
    let (requests, tokens) = most_in_a_minute(&emulator);
    assert!(refused(&emulator) == 0 && requests <= 30 && tokens <= 20_000, "{requests} {tokens}");
    assert!(took <= secs(245).mul_f64(1.01), "{took:?}");
    let arrived: Vec<u64> = emulator.journal().iter().map(|visit| visit.input_tokens).collect();
    assert_eq!(arrived, sizes.map(|size| size as u64).collect::<Vec<_>>(), "first come, first served");
}

#[tokio::test(start_paused = true)]
async fn fixed_windows_are_kept_to_as_well() {
    let emulator = slow(Emulator::builder().limits(per_minute(60)).window(QuotaWindow::Fixed));
    let limiter = patient(per_minute(60)).build();
    // The calls begin in the middle of the upstream's minute.
    advance(secs(30)).await;
    let took = race(&limiter, &emulator, (0..300).map(|_| prompt(GENERATE, 10))).await;
    assert_eq!(refused(&emulator), 0);
    // A fixed window lets twice the quota through across its edge, which is no quota to count on.
    assert!(took <= secs(245).mul_f64(1.15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn alone_it_reads_the_status_and_the_headers() {
    let upstream = Upstream::at_once(|nth| match nth {
        0 => Ok(Response::builder().status(429).header("retry-after", "20").body(support::full("")).unwrap()),
        _ => Ok(hello()),
    });
    let limiter = Limiter::new();
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream.clone());
    let response = service.clone().oneshot(post(GENERATE)).await.unwrap();
    assert_eq!(response.status(), 429);
    let begun = Instant::now();
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    assert!((secs(20)..=secs(22)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

// === feedback ===

/// Calls continuously for an hour, with `workers` workers.
async fn an_hour(limiter: &Limiter, emulator: &Emulator, workers: usize) {
    let end = Instant::now() + secs(3600);
    let service = stack(limiter, emulator);
    let worker = || async {
        while Instant::now() < end {
            let _ = service.clone().oneshot(prompt(GENERATE, 5)).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    join_all((0..workers).map(|_| worker())).await;
}

/// Returns the part of the limiters' own calls that was refused after `from`, and the number of all answered calls.
fn share_refused(emulator: &Emulator, from: Duration) -> (f64, usize) {
    let was_refused = |visit: &&Visit| visit.status == Some(StatusCode::TOO_MANY_REQUESTS);
    let visits: Vec<_> = emulator.journal().into_iter().filter(|visit| visit.at >= from).collect();
    let own = visits.iter().filter(|visit| visit.input_tokens > 1);
    let share = own.clone().filter(was_refused).count() as f64 / own.count() as f64;
    (share, visits.len() - visits.iter().filter(was_refused).count())
}

#[tokio::test(start_paused = true)]
async fn two_limiters_on_one_project_learn_to_share_it() {
    for configured in [per_minute(60), Limits::new()] {
        let emulator =
            Emulator::builder().limits(per_minute(60)).first_token(secs(2)).journal_capacity(1_000_000).build();
        let two = [patient(configured).build(), patient(configured).build()];
        let hour = two.iter().map(|limiter| an_hour(limiter, &emulator, 40));
        join_all(hour).await;
        // A minute passes until the usage is known, and the moment at its end when both come back.
        let (share, served) = share_refused(&emulator, secs(65));
        assert!(share < 0.01, "{share}");
        assert!(served > 3_000, "{served} of 3,600");
    }
}

#[tokio::test(start_paused = true)]
async fn steady_foreign_traffic_is_left_its_part() {
    for foreign in [5u64, 30, 45] {
        let emulator = Emulator::builder().limits(per_minute(60)).journal_capacity(1_000_000).build();
        let limiter = patient(per_minute(60)).build();
        let others = async {
            let end = Instant::now() + secs(3600);
            while Instant::now() < end {
                let _ = emulator.clone().oneshot(prompt(GENERATE, 1)).await;
                sleep(secs(60) / foreign as u32).await;
            }
        };
        tokio::join!(an_hour(&limiter, &emulator, 30), others);
        let (share, served) = share_refused(&emulator, secs(65));
        assert!(share < 0.01, "{foreign}: {share}");
        assert!(served > 3_000, "{foreign}: {served} of 3,600");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_learned_from_one_refusal_and_shown() {
    let limits = per_minute(10).input_tokens_per_minute(5_000).requests_per_day(100);
    let emulator = Emulator::builder().limits(limits).build();
    let limiter = patient(Limits::new()).build();
    let service = stack(&limiter, &emulator);
    join_all((0..11).map(|_| whole(service.clone(), prompt(GENERATE, 10)))).await;
    assert_eq!(refused(&emulator), 1);
    let report = &limiter.snapshot()[0];
    assert_eq!(report.scope, Scope::new("default", "gemini-2.5-pro"));
    let [requests, tokens, day] = report.dimensions;
    assert_eq!(
        (requests.dimension, requests.limit, requests.learned),
        (Dimension::RequestsPerMinute, Some(10), Some(10))
    );
    assert_eq!((tokens.limit, tokens.learned, day.limit, day.used), (None, None, None, 11));
    // From here on no call is refused.
    let took = race(&limiter, &emulator, (0..40).map(|_| prompt(GENERATE, 10))).await;
    assert_eq!((refused(&emulator), most_in_a_minute(&emulator).0), (1, 11));
    assert!(took < secs(5 * 61), "{took:?}");
    // The tokens are learned from a call that is too large for the rest.
    advance(secs(120)).await;
    let jobs = [4_000, 4_000].map(|size| prompt(GENERATE, size));
    join_all(jobs.map(|job| whole(service.clone(), job))).await;
    assert_eq!(limiter.snapshot()[0].dimensions[1].learned, Some(5_000));
}

#[tokio::test(start_paused = true)]
async fn a_configured_limit_wins_over_a_learned_higher_one_and_loses_to_a_lower_one() {
    for (configured, in_force) in [(5, 5), (20, 10)] {
        let emulator = Emulator::builder().limits(per_minute(10)).build();
        let limiter = Limiter::builder().limits(per_minute(configured)).build();
        let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(emulator.clone()));
        // Another program has used all of it.
        for _ in 0..10 {
            emulator.clone().oneshot(prompt(GENERATE, 1)).await.unwrap();
        }
        let response = service.clone().oneshot(prompt(GENERATE, 1)).await.unwrap();
        assert_eq!(response.status(), 429);
        let [requests, ..] = limiter.snapshot()[0].dimensions;
        assert_eq!((requests.learned, requests.limit, requests.used), (Some(10), Some(in_force), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_blocks_everybody_until_its_hint_and_not_longer() {
    let emulator = Emulator::builder().limits(per_minute(2)).build();
    let limiter = patient(Limits::new()).build();
    let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(emulator.clone()));
    for at in [0, 10, 20] {
        sleep(secs(at).saturating_sub(emulator.elapsed())).await;
        service.clone().oneshot(prompt(GENERATE, 1)).await.unwrap();
    }
    assert_eq!(refused(&emulator), 1);
    let blocked = limiter.snapshot()[0].blocked_for.unwrap();
    // The first charge comes back at 60 s; a hint of whole seconds may have been rounded down.
    assert_eq!(blocked, secs(41));
    let scope = Scope::new("default", "gemini-2.5-pro");
    assert!(limiter.headroom(&scope, 1, 1) >= blocked);
    assert_eq!(limiter.headroom(&Scope::new("default", "gemini-2.5-flash"), 1, 1), Duration::ZERO);
    assert_eq!(limiter.headroom(&Scope::new("other", "gemini-2.5-pro"), 1, 1), Duration::ZERO);
    let response = service.clone().oneshot(prompt(GENERATE, 1)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!((secs(61)..secs(62)).contains(&emulator.elapsed()), "{:?}", emulator.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_days_quota_and_a_limit_of_zero_block_until_midnight() {
    for trouble in [Trouble::day_quota(), Trouble::zero_quota()] {
        let emulator = Emulator::builder().trouble(When::first(1), trouble).build();
        let limiter = Limiter::new();
        let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(emulator.clone()));
        let response = service.clone().oneshot(prompt(GENERATE, 1)).await.unwrap();
        assert_eq!(response.status(), 429);
        let until = tower_gemini::quota::until_pacific_midnight(tower_gemini::clock::wall());
        let blocked = limiter.snapshot()[0].blocked_for.unwrap();
        // Wall time goes on while the test runs, and the day may end at this moment.
        assert!(blocked.abs_diff(until) < secs(60) || until < secs(60), "{blocked:?}, {until:?}");
        let error = service.clone().oneshot(prompt(GENERATE, 1)).await.err().unwrap();
        assert!(find(&error).is_rate_limited());
        // Until then nobody looks: an hour for a limit of zero, a minute for a day that our own count does not confirm.
        let look = find(&error).retry_after().unwrap();
        assert!(look <= blocked && look <= secs(3_600), "{look:?}");
        advance(blocked).await;
        assert_eq!(service.clone().oneshot(prompt(GENERATE, 1)).await.unwrap().status(), 200);
    }
}

/// A hint for a day's quota that is believed, such as Code Assist's, has precedence over the calendar; and a day's tokens do not
/// count as requests.
#[tokio::test(start_paused = true)]
async fn a_days_quota_blocks_until_its_hint_and_teaches_its_own_dimension_only() {
    for (id, learned) in [("GenerateRequestsPerDay", Some(2)), ("GenerateContentInputTokensPerDay", None)] {
        let quota = quota(id, "Used up.").with_hint(Duration::from_millis(5_400_500));
        assert_eq!(quota.kind(), tower_gemini::failure::Kind::QuotaDay);
        let upstream = Upstream::at_once(move |_| Ok(support::judged(json(429, "{}"), quota.clone())));
        let limiter = Limiter::new();
        let service = RateLimitLayer::new(limiter.clone()).layer(upstream);
        service.oneshot(post(GENERATE)).await.unwrap();
        let report = &limiter.snapshot()[0];
        assert_eq!(report.blocked_for, Some(Duration::from_millis(5_400_500)));
        assert_eq!(report.dimensions[2].learned, learned, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn capacity_blocks_nothing_and_a_bare_refusal_a_second() {
    let second = Some(secs(1));
    for (trouble, blocked, used) in
        [(Trouble::vertex_capacity(), None, 1), (Trouble::overloaded(), None, 1), (Trouble::bare_quota(), second, 0)]
    {
        let emulator = Emulator::builder().trouble(When::first(1), trouble).build();
        let limiter = Limiter::builder().limits(per_minute(10)).build();
        let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(emulator.clone()));
        let response = service.oneshot(prompt(GENERATE, 1)).await.unwrap();
        assert!(response.status().is_client_error() || response.status().is_server_error());
        let report = &limiter.snapshot()[0];
        assert_eq!((report.blocked_for, report.dimensions[0].used), (blocked, used));
        assert_eq!(report.dimensions[0].limit, Some(10));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_may_move_are_sent_away_with_now_and_the_others_wait() {
    let quota = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "Please retry in 90.5s.");
    let upstream = Upstream::new(move |nth, _| {
        let quota = quota.clone();
        async move {
            sleep(secs(1)).await;
            Ok(if nth == 1 { support::judged(json(429, "{}"), quota) } else { hello() })
        }
    });
    let limiter = patient(per_minute(2)).build();
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream.clone());
    let begun = Instant::now();
    let calls = (0..6).map(|nth| {
        let request = with(post(GENERATE), |context| context.set_may_move(nth % 2 == 0));
        let call = service.clone().oneshot(request);
        async move { (call.await, begun.elapsed()) }
    });
    let results = join_all(calls).await;
    for (nth, (result, at)) in results.into_iter().enumerate() {
        match (nth, result) {
            (0 | 1, Ok(_)) => assert_eq!(at, secs(1)),
            (2 | 4, Err(error)) => {
                assert_eq!((find(&error).outcome().retry(), at), (Some(RetryAdvice::Now), secs(1)));
                assert!(find(&error).is_rate_limited() && find(&error).never_sent());
                assert_eq!(find(&error).retry_after(), Some(Duration::from_millis(90_500)));
            }
            (3 | 5, Ok(_)) => assert!(at >= Duration::from_millis(92_500) && at < secs(93), "{at:?}"),
            (_, result) => panic!("{nth}: {result:?}"),
        }
    }
    assert_eq!(limiter.snapshot()[0].waiting, 0);
}

// === charges ===

#[tokio::test(start_paused = true)]
async fn only_calls_that_generate_or_embed_pay() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let limiter = Limiter::builder().limits(per_minute(1)).reject().build();
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream.clone());
    for _ in 0..3 {
        service.clone().oneshot(post(COUNT)).await.unwrap();
        let get = Request::get("/v1beta/models").body(Full::default()).unwrap();
        service.clone().oneshot(get).await.unwrap();
    }
    assert!(limiter.snapshot().is_empty());
    for uri in ["/v1beta/models/e:embedContent", "/v1beta/models/f:batchEmbedContents", STREAM] {
        service.clone().oneshot(post(uri)).await.unwrap();
        assert!(service.clone().oneshot(post(uri)).await.is_err());
    }
}

fn usage(tokens: u64) -> String {
    HELLO.replace("\"promptTokenCount\":2", &format!("\"promptTokenCount\":{tokens}"))
}

fn used_tokens(limiter: &Limiter) -> u64 {
    limiter.snapshot()[0].dimensions[1].used
}

#[tokio::test(start_paused = true)]
async fn tokens_are_settled_both_ways_when_the_body_has_ended() {
    for real in [10, 4_000] {
        let upstream = Upstream::at_once(move |_| Ok(json(200, usage(real))));
        let limiter = Limiter::builder().limits(tokens_per_minute(10_000)).build();
        let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(upstream));
        let request = with(post(GENERATE), |context| context.set_token_cost(TokenCost::estimate(1_000)));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(used_tokens(&limiter), 1_000);
        read(response.into_body()).await;
        assert_eq!(used_tokens(&limiter), real);
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_counted_is_a_third_of_its_bytes_and_stays_so_without_usage() {
    let limiter = Limiter::builder().limits(tokens_per_minute(10_000)).build();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    let response = service.oneshot(post_body(GENERATE, "x".repeat(3_000))).await.unwrap();
    read(response.into_body()).await;
    assert_eq!(used_tokens(&limiter), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_half_way_is_settled_by_what_it_has_said() {
    let with_usage =
        r#"data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":77}}"#;
    for (said, settled) in [(format!("{with_usage}\r\n\r\n"), 77), (event("a"), 500)] {
        let (feed, body) = fed();
        feed.data(said);
        let body = parking_lot::Mutex::new(Some(body));
        let upstream = Upstream::at_once(move |_| Ok(sse(any(body.lock().take().unwrap()))));
        let limiter = Limiter::builder().limits(tokens_per_minute(10_000)).build();
        let service = RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(upstream));
        let request = with(post(STREAM), |context| context.set_token_cost(TokenCost::estimate(500)));
        let mut response = service.oneshot(request).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(used_tokens(&limiter), 500);
        drop(response);
        assert_eq!(used_tokens(&limiter), settled);
        assert_eq!(limiter.snapshot()[0].dimensions[0].used, 1, "it stays charged");
    }
}

#[tokio::test(start_paused = true)]
async fn settling_wakes_the_first_in_line() {
    let limiter = patient(tokens_per_minute(1_000)).build();
    let service = RateLimitLayer::new(limiter.clone())
        .layer(ClassifyLayer::new().layer(Upstream::at_once(|_| Ok(json(200, usage(100))))));
    let request = || with(post(GENERATE), |context| context.set_token_cost(TokenCost::estimate(900)));
    let response = service.clone().oneshot(request()).await.unwrap();
    let begun = Instant::now();
    let second = tokio::spawn(service.oneshot(request()));
    sleep(secs(3)).await;
    assert!(!second.is_finished());
    read(response.into_body()).await;
    second.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), secs(3));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_given_back_and_what_does_not_exist_costs_nothing() {
    let never_sent =
        || -> BoxError { Error::refusal("circuit_breaker", Failure::local(Kind::CircuitOpen, "open")).into() };
    let not_found = Failure::from_response(StatusCode::NOT_FOUND, &http::HeaderMap::new(), br#"{"error":{"code":404,"status":"NOT_FOUND","message":"models/x is not found for API version v1beta, or is not supported for generateContent."}}"#);
    assert_eq!(not_found.kind(), Kind::ModelNotFound);
    let upstream = Upstream::at_once(move |nth| match nth {
        0 => Err(never_sent()),
        1 => Ok(support::judged(json(404, "{}"), not_found.clone())),
        2 => Ok(busy()),
        3 => Err(support::reset().into()),
        _ => unreachable!(),
    });
    let limiter = Limiter::builder().limits(per_minute(10).requests_per_day(10)).build();
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream);
    for used in [0, 0, 1, 2] {
        let _ = service.clone().oneshot(post(GENERATE)).await;
        let [requests, _, day] = limiter.snapshot()[0].dimensions;
        assert_eq!((requests.used, day.used), (used, used));
    }
}

// === waiting ===

#[tokio::test(start_paused = true)]
async fn a_minute_of_max_wait_is_a_turn_of_the_window_and_more_is_refused_at_once() {
    let limiter = Limiter::builder().limits(per_minute(2)).max_wait(secs(60)).build();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    let begun = Instant::now();
    let results = join_all((0..5).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    assert!(begun.elapsed() < secs(61));
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    let error = find(results[4].as_ref().unwrap_err());
    assert_eq!(error.retry_after(), Some(Duration::from_millis(120_500)));
    assert_eq!((error.outcome().retry(), error.outcome().gave_up()), (None, Some(GaveUp::Wait)));
    assert_eq!(
        error.failure().message(),
        "waited 0 s of 120.5s needed, 60.0s are allowed: 2 of 2 requests a minute are used, 2 calls wait for project \
         default, model gemini-2.5-pro; raise max_wait, or add a project"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_refuses_at_once_what_could_not_end_before_it() {
    let limiter = patient(per_minute(1)).build();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    let begun = Instant::now();
    for (seconds, fits) in [(30, false), (60, false), (62, true), (100, false)] {
        let deadline = Deadline::at(begun + secs(seconds));
        let request = with(post(GENERATE), |context| context.tighten_deadline(deadline));
        let mut call = tokio_test::task::spawn(Box::pin(service.clone().oneshot(request)));
        match call.poll() {
            std::task::Poll::Ready(Err(error)) => {
                assert!(!fits);
                assert!(find(&error).failure().message().contains("its deadline comes before"), "{error}");
            }
            poll => {
                assert!(fits && poll.is_pending());
                // It stays in the queue for the next round.
                tokio::spawn(call.into_inner());
            }
        }
        assert_eq!(Instant::now(), begun);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_at_once_even_if_its_future_is_kept() {
    let quota = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "Please retry in 100.5s.");
    let upstream = Upstream::new(move |nth, _| {
        let quota = quota.clone();
        async move {
            sleep(secs(10)).await;
            Ok(if nth == 0 { support::judged(json(429, "{}"), quota) } else { hello() })
        }
    });
    let limiter = patient(per_minute(1)).build();
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream);
    let begun = Instant::now();
    let refused = tokio::spawn(service.clone().oneshot(post(GENERATE)));
    settle().await;
    // The first waiter could have gone in time, had the upstream not refused.
    let deadline = Deadline::at(begun + secs(62));
    let request = with(post(GENERATE), |context| context.tighten_deadline(deadline));
    let mut first = Box::pin(service.clone().oneshot(request));
    assert!(futures_util::poll!(&mut first).is_pending());
    let second = tokio::spawn(service.clone().oneshot(post(GENERATE)));
    let error = (&mut first).await.unwrap_err();
    assert_eq!(begun.elapsed(), secs(62));
    assert_eq!(find(&error).retry_after(), Some(Duration::from_millis(48_500)));
    assert_eq!(
        find(&error).failure().message(),
        "waited 62.0s in the queue, 48.5s more are needed: 0 of 1 requests a minute are used, the upstream has refused for \
         another 48.5s, 2 calls wait for project default, model gemini-2.5-pro; raise max_wait, allow the call more \
         time, or add a project"
    );
    assert_eq!(limiter.snapshot()[0].waiting, 1, "its future lives, its place does not");
    second.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(120_500));
    assert_eq!(refused.await.unwrap().unwrap().status(), 429);
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn reject_does_not_wait_for_the_tenth_of_a_second_of_a_pace_either() {
    let pacing = Pacing::Smooth { burst: NonZeroU32::MIN };
    let limiter = Limiter::builder().limits(per_minute(600)).pacing(pacing).reject().build();
    let service = RateLimitLayer::new(limiter).layer(Upstream::at_once(|_| Ok(hello())));
    assert!(service.clone().oneshot(post(GENERATE)).await.is_ok());
    let begun = Instant::now();
    assert!(find(&service.oneshot(post(GENERATE)).await.unwrap_err()).is_rate_limited());
    assert_eq!(begun.elapsed(), secs(0));
}

#[tokio::test(start_paused = true)]
async fn a_model_can_have_a_longest_wait_of_its_own() {
    let limiter = Limiter::builder().limits(per_minute(1)).max_wait_for("gemini-2.5-flash", secs(0)).build();
    let service = RateLimitLayer::new(limiter).layer(Upstream::at_once(|_| Ok(hello())));
    for (uri, waits) in [(GENERATE, true), (FLASH, false)] {
        assert!(service.clone().oneshot(post(uri)).await.is_ok());
        assert_eq!(service.clone().oneshot(post(uri)).await.is_ok(), waits, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn reject_never_waits() {
    let limiter = Limiter::builder().limits(per_minute(2)).reject().build();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    let begun = Instant::now();
    let results = join_all((0..9).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    assert_eq!((results.iter().filter(|result| result.is_ok()).count(), begun.elapsed()), (2, Duration::ZERO));
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(find(error).retry_after(), Some(Duration::from_millis(60_250)));
    }
}

#[derive(Clone, Debug, Default)]
struct Breaker(Arc<AtomicUsize>);

impl Gate for Breaker {
    fn closed_for(&self, scope: &Scope) -> Option<Duration> {
        assert_eq!(scope, &Scope::new("p1", "gemini-2.5-pro"));
        self.0.fetch_add(1, Ordering::SeqCst);
        Some(secs(7))
    }
}

#[tokio::test(start_paused = true)]
async fn the_gate_is_asked_before_anybody_queues_and_not_where_nobody_has_to() {
    let gate = Breaker::default();
    let limiter = patient(per_minute(1)).gate(gate.clone()).build();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    let request = || {
        with(post(GENERATE), |context| {
            context.set_project("p1");
            context.set_may_move(true);
        })
    };
    service.clone().oneshot(request()).await.unwrap();
    assert_eq!(gate.0.load(Ordering::SeqCst), 0);
    let error = service.clone().oneshot(request()).await.unwrap_err();
    assert!(find(&error).is_circuit_open());
    assert_eq!(find(&error).retry_after(), Some(secs(7)));
    // Another project has the same circuit, and must not be tried at once.
    assert_eq!(find(&error).outcome().retry(), None);
    assert_eq!((gate.0.load(Ordering::SeqCst), limiter.snapshot()[0].waiting), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_proven_cost_over_the_limit_is_the_callers_fault_and_an_estimate_is_clamped() {
    let limiter = patient(tokens_per_minute(1_000)).build();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream.clone());
    let of = |cost| with(post(GENERATE), |context| context.set_token_cost(cost));
    // Nothing has been used, so that the call would seem to fit.
    let error = service.clone().oneshot(of(TokenCost::at_least(1_001))).await.unwrap_err();
    assert_eq!((find(&error).fault(), find(&error).failure().kind()), (Fault::Caller, Kind::LargerThanQuota));
    assert!(find(&error).failure().message().contains("1001 input tokens or more, and the quota is 1000"), "{error}");
    assert_eq!((upstream.calls(), used_tokens(&limiter)), (0, 0));
    service.clone().oneshot(of(TokenCost::at_least(1_000))).await.unwrap();
    let begun = Instant::now();
    service.clone().oneshot(of(TokenCost::estimate(99_000))).await.unwrap();
    assert!((secs(60)..secs(61)).contains(&begun.elapsed()));
    assert_eq!(used_tokens(&limiter), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_smooth_pace_is_even_after_its_burst() {
    let burst = NonZeroU32::new(3).unwrap();
    let limiter = patient(per_minute(60)).pacing(Pacing::Smooth { burst }).build();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream.clone());
    join_all((0..3).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    let scope = Scope::new("default", "gemini-2.5-pro");
    let headroom = limiter.headroom(&scope, 1, 0);
    assert!((Duration::from_millis(1_000)..Duration::from_millis(1_010)).contains(&headroom), "{headroom:?}");
    let begun = Instant::now();
    join_all((0..120).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    assert!((secs(120)..secs(124)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let even = Duration::from_millis(1_000)..Duration::from_millis(1_010);
    let waits = upstream.waits();
    assert!(waits[2..].iter().filter(|wait| even.contains(wait)).count() >= 110, "{waits:?}");
    // The window counts the burst, too, and makes the next calls wait; after the wait they may go in a burst again.
    assert!(waits.windows(3).all(|three| three.iter().sum::<Duration>() >= Duration::from_millis(1_000)), "{waits:?}");
}

// === scopes ===

#[tokio::test(start_paused = true)]
async fn scopes_are_apart_and_have_limits_of_their_own() {
    let limiter = Limiter::builder()
        .limits(per_minute(1))
        .limits_for("gemini-2.5-flash", per_minute(2))
        .limits_in("rich", per_minute(3))
        .limits_of(Scope::new("rich", "gemini-2.5-flash"), per_minute(4))
        .reject()
        .build();
    let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
    for (project, uri, limit) in [("p1", GENERATE, 1), ("p1", FLASH, 2), ("rich", GENERATE, 3), ("rich", FLASH, 4)] {
        let calls = (0..9).map(|_| service.clone().oneshot(with(post(uri), |context| context.set_project(project))));
        assert_eq!(join_all(calls).await.iter().filter(|result| result.is_ok()).count(), limit, "{project} {uri}");
    }
    assert_eq!(limiter.snapshot().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn one_service_tells_projects_and_models_apart_from_call_to_call() {
    let limiter = Limiter::builder().limits(per_minute(1)).reject().build();
    let mut service = RateLimitLayer::new(limiter).layer(Upstream::at_once(|_| Ok(hello())));
    for admitted in [true, false] {
        for (project, uri) in [("p1", GENERATE), ("p2", GENERATE), ("p2", FLASH), ("p1", FLASH)] {
            let request = with(post(uri), |context| context.set_project(project));
            assert_eq!(service.call(request).await.is_ok(), admitted, "{project} {uri}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_layers_of_a_limiter_share_it_and_it_outlives_them() {
    let limiter = Limiter::builder().limits(per_minute(2)).reject().build();
    for expected in [true, true, false] {
        let service = RateLimitLayer::new(limiter.clone()).layer(Upstream::at_once(|_| Ok(hello())));
        assert_eq!(service.oneshot(post(GENERATE)).await.is_ok(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn invented_models_are_bounded_and_cost_nobody_a_charge_or_a_block() {
    let limiter = Limiter::builder().limits(per_minute(2)).reject().build();
    let day = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "Quota.");
    let upstream = Upstream::at_once(move |nth| {
        Ok(if nth == 0 { support::judged(json(429, "{}"), day.clone()) } else { hello() })
    });
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream.clone());
    // It is blocked until midnight.
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    assert!(service.clone().oneshot(post(GENERATE)).await.is_err());
    let invented = |nth: usize| service.clone().oneshot(post(&format!("/v1beta/models/m{nth}:generateContent")));
    let mut admitted = 0;
    for nth in 0..40_000 {
        admitted += usize::from(invented(nth).await.is_ok());
    }
    assert!(limiter.snapshot().len() <= 16_385, "{}", limiter.snapshot().len());
    assert!((16_000..=16_385).contains(&admitted), "those past the bound share one account: {admitted}");
    assert!(invented(0).await.is_ok() && invented(0).await.is_err(), "what counts is remembered");
    assert!(service.clone().oneshot(post(GENERATE)).await.is_err(), "and so is a block");
    // A name that is too long to be real has no account of its own.
    let before = limiter.snapshot().len();
    let _ = service.clone().oneshot(post(&format!("/v1beta/models/{}:generateContent", "x".repeat(600)))).await;
    assert_eq!(limiter.snapshot().len(), before);
    // A minute later the others make room.
    advance(secs(61)).await;
    for nth in 50_000..52_000 {
        assert!(invented(nth).await.is_ok());
    }
    assert!(limiter.snapshot().len() < 16_385);
    if limiter.snapshot().iter().all(|report| report.scope.model() != "gemini-2.5-pro") {
        panic!("a block was forgotten");
    }
}

// === 10,000 waiters, through the service ===

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_wait_without_being_polled() {
    const ALL: u64 = 10_000;
    let limiter = patient(per_minute(100)).max_wait(secs(100_000)).build();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream.clone());
    let polls = Arc::<AtomicU64>::default();
    let tasks: Vec<_> = (0..ALL)
        .map(|_| {
            let (polls, mut call) = (polls.clone(), Box::pin(service.clone().oneshot(post(GENERATE))));
            tokio::spawn(std::future::poll_fn(move |cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                call.as_mut().poll(cx).map(|result| result.is_ok())
            }))
        })
        .collect();
    let waiting = async |expected: u64| {
        for _ in 0..10_000 {
            if limiter.snapshot().first().is_some_and(|report| report.waiting as u64 == expected) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("not {expected}: {:?}", limiter.snapshot());
    };
    waiting(ALL - 100).await;
    let mut rng = fastrand::Rng::with_seed(3);
    let cancelled = tasks.iter().skip(100).filter(|_| rng.bool()).map(|task| task.abort()).count() as u64;
    waiting(ALL - 100 - cancelled).await;
    let done = join_all(tasks).await.into_iter().filter(|done| matches!(done, Ok(true))).count() as u64;
    assert_eq!((done, upstream.calls() as u64), (ALL - cancelled, ALL - cancelled));
    // A waiter is polled when it arrives, when it is first, and when its time has come.
    assert!(polls.load(Ordering::Relaxed) <= 3 * ALL, "{polls:?}");
    let asked = upstream.asked();
    for some in asked.windows(101) {
        assert!(some[100].at - some[0].at >= secs(60));
    }
}

/// The input of an interaction is what its answer says by its own names, and the results of tools are input too.
#[tokio::test(start_paused = true)]
async fn an_interaction_and_an_embedding_are_settled_by_their_usage() {
    const INTERACTIONS: &str = "/v1beta/interactions";
    const EMBED: &str = "/v1beta/models/gemini-2.5-pro:embedContent";
    let usage =
        r#""usage":{"total_input_tokens":70,"total_tool_use_tokens":7,"total_output_tokens":5,"total_tokens":82}"#;
    let unary = format!(r#"{{"id":"v1_i","status":"completed",{usage},"steps":[]}}"#);
    let stream = format!(
        "data: {{\"event_type\":\"step.delta\"}}\n\ndata: {{\"event_type\":\"interaction.completed\",\"interaction\":{{\"id\":\"v1_i\",{usage}}}}}\n\n"
    );
    let tools = HELLO.replace("\"promptTokenCount\":2", "\"promptTokenCount\":70,\"toolUsePromptTokenCount\":7");
    let embedding = r#"{"embedding":{"values":[0.5]},"usageMetadata":{"promptTokenCount":77,"responseTokenCount":1}}"#;
    for (uri, content_type, answer) in [
        (INTERACTIONS, "application/json", unary),
        (INTERACTIONS, "text/event-stream", stream),
        (GENERATE, "application/json", tools),
        (EMBED, "application/json", embedding.to_owned()),
    ] {
        let limiter = Limiter::builder().limits(tokens_per_minute(10_000)).build();
        let body = answer.clone();
        let upstream = Upstream::at_once(move |_| Ok(support::typed(200, content_type, support::full(body.clone()))));
        let service = ServiceBuilder::new()
            .layer(RateLimitLayer::new(limiter.clone()))
            .layer(ClassifyLayer::new())
            .service(upstream);
        // The estimate is a third of the bytes.
        let request = post_body(uri, format!(r#"{{"model":"gemini-2.5-pro","input":"{}"}}"#, "x".repeat(2_961)));
        let request = with(request, |context| {
            let call = tower_gemini::call::Call::new(&http::Method::POST, &uri.parse().unwrap());
            context.set_call(call.with_model("gemini-2.5-pro"));
        });
        let response = service.oneshot(request).await.unwrap();
        assert!(used_tokens(&limiter) >= 990, "{uri}");
        assert_eq!(read(response.into_body()).await, answer);
        assert_eq!(used_tokens(&limiter), 77, "{uri}, {content_type}");
    }
}
