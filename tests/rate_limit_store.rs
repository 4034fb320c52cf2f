//! Several limiters that share one quota through a store: that answers at once, late, with a refusal, or while the call
//! is dropped.

#[path = "support/far_store.rs"]
mod far_store;
mod support;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, Error, KeyPoolLayer, RateLimitLayer, ReplayLayer,
    context::Deadline,
    failure::{Failure, Kind},
    key_pool::{ApiKey, Key, KeyPool},
    quota::{
        Answer, Closing, Correction, Dimension, Grant, Limits, MemoryStore, Question, QuotaStore, Reply, Scope,
        StoreCharge, TokenCost,
    },
    rate_limit::{Limiter, LimiterBuilder, Pacing},
};

use crate::{
    far_store::Far,
    support::{AnyBody, GENERATE, Upstream, find, hello, json, millis, post, secs},
};

const HOUR: Duration = Duration::from_secs(3_600);

fn scope() -> Scope {
    Scope::new("default", "gemini-2.5-pro")
}

fn rpm(limit: u64) -> LimiterBuilder {
    Limiter::builder().limits(Limits::new().requests_per_minute(limit)).max_wait(HOUR)
}

/// Stacks a limiter before an upstream.
fn limited(
    limiter: &Limiter,
    upstream: &Upstream,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl http_body::Body<Data = Bytes, Error = BoxError> + use<>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ use<> {
    RateLimitLayer::new(limiter.clone()).layer(ClassifyLayer::new().layer(upstream.clone()))
}

async fn call<S, R>(service: S, request: Request<Full<Bytes>>) -> Result<(), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = BoxError>,
    R: http_body::Body,
{
    let response = service.oneshot(request).await?;
    let _ = response.into_body().collect().await;
    Ok(())
}

fn with(mut request: Request<Full<Bytes>>, change: impl FnOnce(&mut CallContext)) -> Request<Full<Bytes>> {
    CallContext::update(request.extensions_mut(), change);
    request
}

fn of_tokens(tokens: u64) -> Request<Full<Bytes>> {
    with(post(GENERATE), |context| context.set_token_cost(TokenCost::estimate(tokens)))
}

/// Checks that no 60 s hold more than `limit` of these.
fn no_minute_holds_more(upstream: &Upstream, limit: usize) {
    let mut sent: Vec<Instant> = upstream.asked().iter().map(|asked| asked.at).collect();
    sent.sort_unstable();
    for some in sent.windows(limit + 1) {
        assert!(some[limit] - some[0] >= secs(60), "{:?}", some[limit] - some[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn four_limiters_with_200_calls_at_once_use_one_quota_and_never_more() {
    for way in [0, 20, 90] {
        let (store, upstream) = (Far::new(millis(way)), Upstream::at_once(|_| Ok(hello())));
        let begun = Instant::now();
        let calls = (0..4).flat_map(|_| {
            let service = limited(&rpm(60).store(store.clone()).build(), &upstream);
            (0..50).map(move |_| call(service.clone(), post(GENERATE)))
        });
        let answered = join_all(calls).await.iter().filter(|result| result.is_ok()).count();
        assert_eq!((answered, upstream.calls()), (200, 200));
        no_minute_holds_more(&upstream, 60);
        // Three whole windows before the last twenty, of which 98 % are used.
        let took = begun.elapsed().as_secs_f64();
        assert!(took <= 180.0 / 0.98, "{way}: {took}");
        // Each waiter asks in its turn, and the first of each limiter once a second.
        assert!(store.asked() <= 200 + 4 * 190 * 5 / 4 + 4 * 60, "{}", store.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn calls_go_in_the_order_of_their_arrival_however_late_the_store_answers() {
    for way in [0, 20, 40] {
        let (store, upstream) = (Far::new(millis(way)), Upstream::at_once(|_| Ok(hello())));
        // Others have taken a half, so that calls are refused while later ones come.
        let Reply::Now(Answer::Granted(_)) = store.store.take(&scope(), Question::new(5, 0)) else { panic!() };
        let limiter = rpm(10).store(store).build();
        let service = limited(&limiter, &upstream);
        let calls = (0..30u64).map(|nth| {
            let service = service.clone();
            async move {
                sleep(millis(nth * 7)).await;
                let mut request = post(GENERATE);
                request.headers_mut().insert("nth", nth.into());
                call(service, request).await.unwrap();
            }
        });
        join_all(calls).await;
        let order: Vec<u64> =
            upstream.asked().iter().map(|asked| asked.headers["nth"].to_str().unwrap().parse().unwrap()).collect();
        assert_eq!(order, (0..30).collect::<Vec<_>>(), "{way}");
        assert_eq!(limiter.snapshot()[0].waiting, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_take_turns_behind_a_store_that_answers_late() {
    let (store, upstream) = (Far::new(millis(30)), Upstream::at_once(|_| Ok(hello())));
    let service = limited(&rpm(4).store(store).build(), &upstream);
    let of = |caller: &'static str, at: u64| {
        let service = service.clone();
        async move {
            sleep(millis(at)).await;
            let mut request = with(post(GENERATE), |context| context.set_caller(caller));
            request.headers_mut().insert("caller", caller.parse().unwrap());
            call(service, request).await.unwrap();
        }
    };
    // The job has a long backlog before the person comes.
    let job = (0..24).map(|_| of("job", 0));
    let person = (0..4).map(|_| of("person", 1_000));
    join_all(job.chain(person).map(|call| Box::pin(call) as std::pin::Pin<Box<dyn Future<Output = ()>>>)).await;
    let order: Vec<bool> = upstream.asked().iter().map(|asked| asked.headers["caller"] == "person").collect();
    let last = order.iter().rposition(|is_person| *is_person).unwrap();
    assert!(last <= 12, "{order:?}");
}

/// Polls a call for so long, and drops it.
async fn dropped_after(call: impl Future, time: Duration) {
    let _ = tokio::time::timeout(time, call).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_point_leaves_nothing_in_the_store_or_here() {
    for at in 0..130 {
        let (store, upstream) = (Far::new(millis(20)), Upstream::hangs());
        let limiter = rpm(1).store(store.clone()).build();
        let service = limited(&limiter, &upstream);
        // It finds room here and in the store.
        dropped_after(call(service.clone(), post(GENERATE)), millis(at)).await;
        sleep(millis(200)).await;
        let sent = upstream.calls() as u64;
        assert_eq!(sent, u64::from(at >= 20), "{at}");
        assert_eq!(store.sums(&scope()).0, sent, "{at}");
        let here = limiter.snapshot();
        assert_eq!((here[0].dimensions[0].used, here[0].waiting), (sent, 0), "{at}");

        // Another limiter has taken all, and this one's call waits, and asks each second.
        let (store, upstream) = (Far::new(millis(20)), Upstream::hangs());
        let Reply::Now(Answer::Granted(other)) = store.store.take(&scope(), Question::new(1, 0)) else { panic!() };
        let limiter = rpm(1).store(store.clone()).build();
        let service = limited(&limiter, &upstream);
        let all = async {
            // The room comes back while the call waits.
            sleep(millis(500)).await;
            store.store.correct(&scope(), other.charge, Correction::refund(1, 0));
            std::future::pending::<()>().await;
        };
        let at = at * 10 + 5;
        let waiting = call(service.clone(), post(GENERATE));
        dropped_after(futures_util::future::join(waiting, all), millis(at)).await;
        sleep(millis(200)).await;
        let sent = upstream.calls() as u64;
        let others = u64::from(at <= 500);
        assert_eq!(store.sums(&scope()).0, sent + others, "{at}");
        let here = limiter.snapshot();
        assert_eq!((here[0].dimensions[0].used, here[0].waiting), (sent, 0), "{at}");
        // The next call is not held up by the one that was dropped.
        if sent + others == 0 {
            dropped_after(call(service, post(GENERATE)), millis(1_300)).await;
            assert_eq!(upstream.calls(), 1, "{at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_keeps_its_readiness_while_the_store_is_asked() {
    let (store, upstream) = (Far::new(millis(20)), Upstream::at_once(|_| Ok(hello())));
    let strict = support::Strict::new(upstream.clone(), 0);
    let service = RateLimitLayer::new(rpm(9).store(store).build()).layer(strict);
    let begun = Instant::now();
    let calls = (0..9).map(|_| call(service.clone(), post(GENERATE)));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(begun.elapsed(), millis(20));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_the_store_is_asked_ends_the_call() {
    let (store, upstream) = (Far::new(secs(5)), Upstream::at_once(|_| Ok(hello())));
    let limiter = rpm(9).store(store.clone()).build();
    let request = with(post(GENERATE), |context| context.tighten_deadline(Deadline::after(secs(1))));
    let begun = Instant::now();
    let error = call(limited(&limiter, &upstream), request).await.unwrap_err();
    assert_eq!(begun.elapsed(), secs(1));
    assert!(find(&error).is_rate_limited() && find(&error).never_sent());
    sleep(secs(9)).await;
    assert_eq!((upstream.calls(), store.sums(&scope()).0, limiter.snapshot()[0].dimensions[0].used), (0, 0, 0));
}

fn full(wait: u64, dimension: Dimension) -> Answer {
    Answer::Full { dimension: Some(dimension), wait: secs(wait) }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_store_says_is_too_long_is_refused_at_once_and_says_why() {
    for way in [0, 20] {
        let store = Far::new(millis(way));
        store.script([full(30, Dimension::RequestsPerMinute)]);
        let upstream = Upstream::at_once(|_| Ok(hello()));
        let limiter = rpm(9).max_wait(secs(10)).store(store.clone()).build();
        let service = limited(&limiter, &upstream);
        let error = call(service.clone(), post(GENERATE)).await.unwrap_err();
        let error = find(&error);
        assert!(error.is_rate_limited() && error.never_sent());
        assert_eq!(error.retry_after(), Some(secs(30)));
        let message = error.to_string();
        assert!(message.contains("others share the quota") && message.contains("requests a minute"), "{message}");
        // The next one knows it without asking, and so does whoever asks for headroom.
        assert!(call(service.clone(), post(GENERATE)).await.is_err());
        assert_eq!(store.asked(), 1);
        assert!(limiter.headroom(&scope(), 1, 0) > secs(29));
        assert!(limiter.snapshot()[0].shared.unwrap().full_for > Some(secs(29)));
        // Within a good second it asks again.
        sleep(millis(1_250)).await;
        call(service, post(GENERATE)).await.unwrap();
        assert_eq!((store.asked(), limiter.headroom(&scope(), 1, 0)), (2, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_asks_again_within_a_second_and_goes_when_others_have_given_back() {
    for way in [0, 20] {
        let answers = (0..3).map(|_| full(30, Dimension::RequestsPerMinute));
        let (store, upstream) = (Far::new(millis(way)), Upstream::at_once(|_| Ok(hello())));
        store.script(answers);
        let begun = Instant::now();
        call(limited(&rpm(9).store(store.clone()).build(), &upstream), post(GENERATE)).await.unwrap();
        assert!(begun.elapsed() > millis(2_400) && begun.elapsed() < millis(3_700), "{:?}", begun.elapsed());
        assert_eq!(store.asked(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_limiter_gives_back_itself_is_asked_for_sooner() {
    let (store, upstream) = (Far::new(millis(10)), Upstream::at_once(|_| Ok(hello())));
    let limits = Limits::new().input_tokens_per_minute(1_000);
    let limiter = Limiter::builder().limits(limits).max_wait(HOUR).store(store).build();
    let service = limited(&limiter, &upstream);
    // Another limiter has left 600.
    let response = service.clone().oneshot(of_tokens(600)).await.unwrap();
    let begun = Instant::now();
    let second = call(service.clone(), of_tokens(600));
    let first = async {
        sleep(millis(150)).await;
        // It has cost two tokens.
        drop(response.into_body().collect().await);
    };
    futures_util::future::join(second, first).await.0.unwrap();
    assert!(begun.elapsed() < millis(300), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_large_call_holds_no_small_one_back() {
    let (store, upstream) = (Far::new(millis(20)), Upstream::at_once(|_| Ok(hello())));
    let Reply::Now(Answer::Granted(_)) = store.store.take(&scope(), Question::new(1, 900)) else { panic!() };
    let limits = Limits::new().input_tokens_per_minute(1_000);
    let limiter = Limiter::builder().limits(limits).reject().store(store).build();
    let service = limited(&limiter, &upstream);
    assert!(call(service.clone(), of_tokens(200)).await.is_err());
    assert!(limiter.headroom(&scope(), 1, 200) > secs(59));
    assert_eq!(limiter.headroom(&scope(), 1, 90), Duration::ZERO);
    call(service, of_tokens(90)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_closed_for_hours_is_refused_at_once_without_a_question_for_half_a_minute() {
    let (store, upstream) = (Far::new(millis(20)), Upstream::at_once(|_| Ok(hello())));
    store.store.close(&scope(), Closing::of(HOUR * 5).look(HOUR));
    let limiter = rpm(9).store(store.clone()).build();
    let service = limited(&limiter, &upstream);
    for _ in 0..10 {
        let error = call(service.clone(), post(GENERATE)).await.unwrap_err();
        let (after, message) = (find(&error).retry_after().unwrap(), error.to_string());
        assert!(after > HOUR - secs(20) && message.contains("another who shares the quota"), "{after:?} {message}");
        sleep(secs(1)).await;
    }
    assert_eq!((store.asked(), upstream.calls()), (1, 0));
    assert!(limiter.headroom(&scope(), 1, 0) > HOUR * 4);
    assert!(limiter.snapshot()[0].blocked_for > Some(HOUR * 4));
    // An operator opens it at another limiter.
    Limiter::builder().store(store.clone()).build().lift_scope(&scope());
    sleep(secs(27)).await;
    call(service, post(GENERATE)).await.unwrap();
}

/// A refusal for a day's quota.
fn day_is_used_up() -> Response<AnyBody> {
    let body = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota.","details":[
        {"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel","quotaValue":"50000"}]}]}}"#;
    json(429, body)
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_one_limiter_closes_all_and_one_look_opens_all() {
    for way in [0, 20] {
        let begun = Instant::now();
        let upstream = Upstream::new(move |_, _| async move {
            let is_good = begun.elapsed() >= secs(40);
            sleep(secs(2)).await;
            Ok(if is_good { hello() } else { day_is_used_up() })
        });
        let store = Far::new(millis(way));
        let services: Vec<_> = (0..4).map(|_| limited(&rpm(1_000).store(store.clone()).build(), &upstream)).collect();
        // The first is refused.
        call(services[0].clone(), post(GENERATE)).await.unwrap();
        assert_eq!(store.closed_and_opened().0, 1);
        let mut open_at = None;
        for _ in 0..160 {
            sleep(millis(500)).await;
            let before = upstream.calls();
            let calls = services.iter().map(|service| {
                let service = service.clone();
                tokio::spawn(async move { call(service, post(GENERATE)).await.is_ok() })
            });
            let calls: Vec<_> = calls.collect();
            sleep(millis(100)).await;
            let sent = upstream.calls() - before;
            // While it is closed, one call of all of them looks.
            assert!(sent <= 1 || begun.elapsed() > secs(40), "{sent} at {:?}", begun.elapsed());
            assert!(open_at.is_none() || sent == 4, "no limiter believes on: {sent} at {:?}", begun.elapsed());
            if sent == 4 && open_at.is_none() {
                open_at = Some(begun.elapsed());
            }
            drop(calls);
        }
        let looks = upstream.asked().iter().filter(|asked| asked.at < begun + secs(40)).count();
        assert!((2..=4).contains(&looks), "{looks}");
        assert!(store.closed_and_opened().1 >= 1);
        // The look that succeeds, its answer, and a good second until all have asked.
        let open_at = open_at.expect("it opens for all");
        assert!(open_at < secs(66), "{open_at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_pool_goes_to_another_project_where_others_have_closed_one() {
    let (store, upstream) = (Far::new(millis(20)), Upstream::at_once(|_| Ok(hello())));
    store.store.close(&Scope::new("p1", "gemini-2.5-pro"), Closing::of(HOUR).look(secs(900)));
    let limiter = rpm(1_000).store(store.clone()).build();
    let key = |project, key| Key::new(ApiKey::new(key).unwrap()).project(project);
    let pool = KeyPool::builder()
        .key(key("p1", "AIza-nobodys-first"))
        .key(key("p2", "AIza-nobodys-second"))
        .headroom(limiter.clone())
        .build()
        .unwrap();
    let layers = ServiceBuilder::new().layer(KeyPoolLayer::new(pool)).layer(RateLimitLayer::new(limiter));
    let service = layers.layer(ClassifyLayer::new()).service(upstream.clone());
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(call(service.clone(), post(GENERATE)).await.is_err());
    }
    // The first call for it learns that it is closed, and all others know.
    assert!(refused <= 1, "{refused}");
    assert_eq!(upstream.calls(), 20 - refused);
    let keys = upstream.asked().into_iter().map(|asked| asked.headers["x-goog-api-key"].clone());
    assert!(keys.into_iter().all(|key| key == "AIza-nobodys-second"));
}

#[tokio::test(start_paused = true)]
async fn each_correction_arrives_once() {
    let bad = r#"{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}"#;
    type Case = (Upstream, u64, Option<Correction>, (u64, u64));
    let cases: [Case; 5] = [
        // Two tokens instead of fifty.
        (Upstream::at_once(|_| Ok(hello())), 50, Some(Correction::settle(50, 2)), (1, 2)),
        // As it was reserved.
        (Upstream::at_once(|_| Ok(hello())), 2, None, (1, 2)),
        // It was never sent.
        (
            Upstream::at_once(|_| Err(Error::refusal("test", Failure::local(Kind::CircuitOpen, "open")).into())),
            50,
            Some(Correction::refund(1, 50)),
            (0, 0),
        ),
        // Refused for quota.
        (Upstream::at_once(|_| Ok(day_is_used_up())), 50, Some(Correction::refund(1, 50)), (0, 0)),
        (Upstream::at_once(move |_| Ok(json(400, bad))), 50, None, (1, 50)),
    ];
    for way in [0, 20] {
        for (nth, (upstream, tokens, expected, sums)) in cases.iter().enumerate() {
            let store = Far::new(millis(way));
            let limiter = rpm(100).store(store.clone()).build();
            let _ = call(limited(&limiter, upstream), of_tokens(*tokens)).await;
            let told: Vec<Correction> = store.corrections().into_iter().map(|(.., by)| by).collect();
            assert_eq!(told, expected.iter().copied().collect::<Vec<_>>(), "{way} {nth}");
            store.store.open(&scope());
            assert_eq!(store.sums(&scope()), *sums, "{way} {nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_that_its_caller_is_to_blame_for_one_request_stays_charged() {
    let bad = r#"{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}"#;
    let upstream = Upstream::at_once(move |_| Ok(json(400, bad)));
    let store = Far::new(millis(20));
    let requests = r#"{"requests":[{"content":{"parts":[{"text":"a"}]}},{"content":{"parts":[{"text":"b"}]}}]}"#;
    let request = support::post_body("/v1beta/models/gemini-2.5-pro:batchEmbedContents", requests);
    // The layer that keeps the body has read the call.
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(RateLimitLayer::new(rpm(100).store(store.clone()).build()))
        .layer(ClassifyLayer::new())
        .service(upstream);
    let _ = service.oneshot(request).await.unwrap().into_body().collect().await;
    let told: Vec<Correction> = store.corrections().into_iter().map(|(.., by)| by).collect();
    assert_eq!((told.len(), told[0].requests_back), (1, 1));
    assert_eq!(store.sums(&scope()).0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_lowers_the_limit_to_the_usage_of_all_and_not_to_this_limiters_part() {
    let (store, upstream) = (
        Far::new(Duration::ZERO),
        Upstream::fails(1, || {
            Ok(json(
                429,
                r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"quota","details":[
            {"violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel","quotaValue":"60"}]},{"retryDelay":"1s"}]}}"#,
            ))
        }),
    );
    let limiter = rpm(60).store(store.clone()).build();
    // In its first minute it would blame nobody.
    let served = Upstream::at_once(|_| Ok(hello()));
    call(limited(&limiter, &served), post(GENERATE)).await.unwrap();
    advance(secs(61)).await;
    for _ in 0..49 {
        let Reply::Now(Answer::Granted(_)) = store.store.take(&scope(), Question::new(1, 0)) else { panic!() };
    }
    call(limited(&limiter, &upstream), post(GENERATE)).await.unwrap();
    assert_eq!(limiter.snapshot()[0].dimensions[0].limit, Some(49));
}

#[test]
fn a_waiting_call_that_asks_is_sync_as_all_futures_of_this_crate() {
    fn is_sync<T: Sync + Send>(_: &T) {}
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _guard = runtime.enter();
    let limiter = rpm(1).store(Far::new(millis(20))).build();
    let service = RateLimitLayer::new(limiter).layer(tower::service_fn(|_: Request<Full<Bytes>>| {
        std::future::ready(Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())))
    }));
    let mut call = pin!(service.oneshot(post(GENERATE)));
    is_sync(&*call);
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn a_grant_says_what_it_was_told() {
    let grant = Grant::new(StoreCharge(1, 2)).used(3, 4, 5).looking();
    assert_eq!((grant.requests, grant.tokens, grant.today, grant.is_look), (3, 4, 5, true));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_inner_service_after_its_grant_still_counts_when_it_goes() {
    let upstream = Upstream::new(|_, request| async move {
        sleep(if request.uri.path().contains("flash") { secs(100) } else { Duration::ZERO }).await;
        Ok(hello())
    });
    for way in [0, 20] {
        let (store, sent) = (Far::new(millis(way)), upstream.calls());
        let limiter = || rpm(1).store(store.clone()).build();
        let inner = tower::limit::ConcurrencyLimit::new(ClassifyLayer::new().layer(upstream.clone()), 1);
        let service = RateLimitLayer::new(limiter()).layer(inner);
        let other = limited(&limiter(), &upstream);
        let late = |at: u64, service, path| async move {
            sleep(secs(at)).await;
            call(service, post(path)).await.unwrap();
        };
        call(service.clone(), post(GENERATE)).await.unwrap();
        // Its turn comes after a minute, while a call of another model has the only permit for another 42 s.
        let waits = late(1, service.clone(), GENERATE);
        let busy = late(2, service, "/v1beta/models/gemini-2.5-flash:generateContent");
        let others = async {
            sleep(secs(110)).await;
            call(other, post(GENERATE)).await.unwrap();
        };
        futures_util::future::join3(waits, busy, others).await;
        let of_model = |asked: &support::Asked| asked.uri.path().contains("pro");
        let mut at: Vec<Instant> =
            upstream.asked()[sent..].iter().filter(|asked| of_model(asked)).map(|asked| asked.at).collect();
        at.sort_unstable();
        assert_eq!(at.len(), 3);
        for two in at.windows(2) {
            assert!(two[1] - two[0] >= secs(60), "{way}: {:?}", two[1] - two[0]);
        }
        assert!(at[2] - at[0] < secs(170), "{way}: {:?}", at[2] - at[0]);
        assert_eq!(store.sums(&scope()).0, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_that_succeeds_forgets_the_days_limit_that_a_refusal_has_taught() {
    for shared in [false, true] {
        let upstream = Upstream::fails(1, || {
            let body = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota.","details":[
                {"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel","quotaValue":"20"}]}]}}"#;
            Ok(json(429, body))
        });
        let limiter = Limiter::builder();
        let limiter = if shared { limiter.store(Far::new(millis(20))) } else { limiter }.build();
        let service = limited(&limiter, &upstream);
        let served = || async {
            let before = upstream.calls();
            let _ = call(service.clone(), post(GENERATE)).await;
            upstream.calls() > before
        };
        assert!(served().await && !served().await);
        sleep(secs(16)).await;
        // The look is served, and all of the limit, which is then used up.
        for nth in 0..20 {
            assert!(served().await, "{shared} {nth}");
        }
        assert!(!served().await);
        sleep(secs(1_801)).await;
        // The next look is served as well: the limit was raised.
        for nth in 0..5 {
            assert!(served().await, "{shared} {nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limiter_that_was_refused_itself_goes_as_soon_as_another_has_opened_the_scope() {
    let begun = Instant::now();
    let upstream = Upstream::new(move |_, _| async move {
        Ok(if begun.elapsed() >= secs(3_000) { hello() } else { day_is_used_up() })
    });
    let store = Far::new(millis(20));
    let (one, other) = (rpm(1_000).store(store.clone()).build(), rpm(1_000).store(store.clone()).build());
    let service = limited(&one, &upstream);
    // It looks in vain, each time after twice as long.
    while begun.elapsed() < secs(2_900) {
        let _ = call(service.clone(), post(GENERATE)).await;
        sleep(secs(5)).await;
    }
    assert!(upstream.calls() <= 10, "{}", upstream.calls());
    sleep(secs(200)).await;
    let looked = upstream.calls();
    // An operator knows that it is good again, and says so to the other.
    other.lift_scope(&scope());
    call(limited(&other, &upstream), post(GENERATE)).await.unwrap();
    sleep(secs(37)).await;
    let _ = call(service.clone(), post(GENERATE)).await;
    assert_eq!(upstream.calls(), looked + 2);
    assert_eq!(one.snapshot()[0].blocked_for, None);
}

/// A store that never answers.
#[derive(Debug)]
struct Silent;

impl QuotaStore for Silent {
    fn take(&self, _: &Scope, _: Question) -> Reply {
        Reply::Later(Box::pin(std::future::pending()))
    }

    fn correct(&self, _: &Scope, _: StoreCharge, _: Correction) {}

    fn close(&self, _: &Scope, _: Closing) {}

    fn open(&self, _: &Scope) {}
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_holds_no_call_for_longer_than_its_wait_and_a_second() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let limiter = rpm(9).max_wait(secs(10)).store(Silent).build();
    let begun = Instant::now();
    let calls = (0..100).map(|_| call(limited(&limiter, &upstream), post(GENERATE)));
    let all = tokio::time::timeout(HOUR, join_all(calls)).await.expect("no call hangs");
    assert!(all.iter().all(|result| find(result.as_ref().unwrap_err()).is_rate_limited()));
    assert!(begun.elapsed() <= secs(12), "{:?}", begun.elapsed());
    let report = &limiter.snapshot()[0];
    assert_eq!((report.waiting, report.dimensions[0].used, upstream.calls()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn times_without_an_end_are_no_trouble() {
    for answer in [
        Answer::Full { dimension: None, wait: Duration::MAX },
        Answer::Closed(Closing::of(Duration::MAX)),
        Answer::Closed(Closing::of(Duration::MAX).look(secs(1))),
    ] {
        let (store, upstream) = (Far::default(), Upstream::at_once(|_| Ok(hello())));
        store.script([answer]);
        let limiter = rpm(9).max_wait(secs(10)).store(store).build();
        assert!(call(limited(&limiter, &upstream), post(GENERATE)).await.is_err());
        assert!(limiter.headroom(&scope(), 1, 0) > HOUR);
    }
    let store = MemoryStore::new();
    store.close(&scope(), Closing::of(Duration::MAX));
    assert!(matches!(store.take(&scope(), Question::new(1, 0)), Reply::Now(Answer::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_store_has_refused_lends_its_turns_to_no_burst() {
    let requests: Vec<_> = (0..40).map(|nth| format!(r#"{{"content":{{"parts":[{{"text":"{nth}"}}]}}}}"#)).collect();
    let requests = format!(r#"{{"requests":[{}]}}"#, requests.join(","));
    let (store, upstream) = (Far::new(millis(20)), Upstream::at_once(|_| Ok(hello())));
    store.script([full(30, Dimension::RequestsPerMinute)]);
    let pacing = Pacing::Smooth { burst: std::num::NonZeroU32::MIN };
    let limiter = rpm(60).pacing(pacing).max_wait(secs(10)).store(store).build();
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(RateLimitLayer::new(limiter))
        .layer(ClassifyLayer::new())
        .service(upstream.clone());
    let batch = support::post_body("/v1beta/models/gemini-2.5-pro:batchEmbedContents", requests);
    assert!(service.clone().oneshot(batch).await.is_err());
    sleep(secs(70)).await;
    for _ in 0..5 {
        let service = service.clone();
        tokio::spawn(async move { service.oneshot(post(GENERATE)).await.map(drop) });
    }
    sleep(millis(100)).await;
    assert_eq!(upstream.calls(), 1, "one in a second");
    sleep(secs(2)).await;
    assert_eq!(upstream.calls(), 3);
}

#[test]
fn ten_thousand_calls_that_come_while_the_scope_is_closed_for_seconds_are_decided_on_quickly() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (store, upstream) = (Far::new(millis(20)), Upstream::at_once(|_| Ok(hello())));
            store.store.close(&scope(), Closing::of(secs(20)));
            let service = limited(&rpm(20_000).store(store).build(), &upstream);
            let calls = (0..10_000).map(|_| tokio::spawn(call(service.clone(), post(GENERATE))));
            for call in join_all(calls).await {
                call.unwrap().unwrap();
            }
        });
        done.send(()).unwrap();
    });
    // It takes a second; it took half a minute when each answer looked at each waiter.
    is_done.recv_timeout(secs(20)).expect("it is done in time");
}
