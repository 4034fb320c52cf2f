//! Several limiters, as in several processes, over one project's quota: all of it is used, nobody starves, and a race
//! that was lost costs little.

mod support;

use std::{ops::Range, time::Duration};

use futures_util::future::{join, join_all};
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::{
    BoxError, ClassifyLayer, RateLimitLayer, RetryLayer, emulator::Emulator, quota::Limits, rate_limit::Limiter,
    retry::RetryPolicy,
};

use crate::support::{AnyBody, GENERATE, any, post, secs};

type Request = http::Request<http_body_util::Full<bytes::Bytes>>;

/// Makes a project of 60 requests a minute.
fn project() -> Emulator {
    let limits = Limits::new().requests_per_minute(60);
    Emulator::builder().limits(limits).first_token(secs(2)).journal_capacity(1_000_000).build()
}

/// Puts the way to the project and back around it, each of a time in milliseconds: a refusal takes its time, too.
fn far(
    emulator: &Emulator,
    way: Range<u64>,
) -> impl Service<Request, Response = Response<AnyBody>, Error = BoxError> + Clone + use<> {
    let emulator = emulator.clone();
    service_fn(move |request| {
        let (emulator, way) = (emulator.clone(), way.clone());
        async move {
            sleep(Duration::from_millis(fastrand::u64(way.clone()))).await;
            let response = emulator.oneshot(request).await;
            sleep(Duration::from_millis(fastrand::u64(way))).await;
            response.map(|response| response.map(any))
        }
    })
}

/// Stacks one process with a limiter of its own. It retries as a job does.
fn process(
    emulator: &Emulator,
    way: Range<u64>,
) -> impl Service<Request, Response = Response<impl Body>, Error = BoxError> + Clone {
    let limits = Limits::new().requests_per_minute(60);
    ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::persistent()))
        .layer(RateLimitLayer::new(Limiter::builder().limits(limits).max_wait(secs(3_600)).build()))
        .layer(ClassifyLayer::new())
        .service(far(emulator, way))
}

fn call() -> Request {
    let mut request = post(GENERATE);
    request.headers_mut().insert("x-goog-api-key", "test-key".parse().unwrap());
    request
}

/// Makes a call, and returns whether it was answered.
async fn answered<S, R>(service: S) -> bool
where
    S: Service<Request, Response = Response<R>, Error = BoxError>,
    R: Body,
{
    let Ok(response) = service.oneshot(call()).await else { return false };
    let is_answered = response.status() == StatusCode::OK;
    let _ = response.into_body().collect().await;
    is_answered
}

/// Returns the numbers of calls that the project has served and refused from that time on.
fn served_and_refused(emulator: &Emulator, from: Duration) -> (usize, usize) {
    let refused = |status| status == Some(StatusCode::TOO_MANY_REQUESTS);
    (
        emulator.count(|visit| visit.at >= from && !refused(visit.status)),
        emulator.count(|visit| visit.at >= from && refused(visit.status)),
    )
}

#[tokio::test(start_paused = true)]
async fn two_processes_of_150_calls_at_once_are_all_answered_and_nearly_all_in_the_optimum() {
    for seed in 0..6 {
        fastrand::seed(seed);
        let (emulator, begun) = (project(), Instant::now());
        let burst = async || {
            let service = process(&emulator, 10..60);
            join_all((0..150).map(|_| answered(service.clone()))).await.into_iter().filter(|is| *is).count()
        };
        let (one, other) = join(burst(), burst()).await;
        let took = begun.elapsed();
        let (by_245, _) = served_and_refused(&emulator, Duration::ZERO);
        let late = emulator.count(|visit| visit.at > secs(245));
        println!("{seed}: {} of 300 in {took:?}, {late} of them after 245 s", one + other);
        assert_eq!((one + other, by_245), (300, 300));
        // The process that has lost more races has a few calls left for one turn more.
        assert!(took <= secs(305) && late <= 10, "{seed}: {took:?}, {late}");
    }
}

/// Makes calls at random times for an hour, 27 a minute, and returns the time that each took.
async fn a_random_hour(emulator: &Emulator) -> Vec<Duration> {
    let service = process(emulator, 10..60);
    let mut at = 0.0;
    let arrivals = std::iter::from_fn(|| {
        at -= (1.0 - fastrand::f64()).ln() * 60.0 / 27.0;
        (at < 3_600.0).then_some(Duration::from_secs_f64(at))
    });
    let calls = arrivals.collect::<Vec<_>>().into_iter().map(|at| {
        let service = service.clone();
        async move {
            sleep(at).await;
            let begun = Instant::now();
            assert!(answered(service).await);
            begun.elapsed()
        }
    });
    join_all(calls).await
}

#[tokio::test(start_paused = true)]
async fn at_nine_tenths_of_a_shared_quota_most_calls_hardly_wait() {
    let (mut typical, mut slow) = (Duration::ZERO, Duration::ZERO);
    for seed in 0..4 {
        fastrand::seed(seed);
        let emulator = project();
        let (mut all, other) = join(a_random_hour(&emulator), a_random_hour(&emulator)).await;
        all.extend(other);
        all.sort_unstable();
        typical += all[all.len() / 2] / 4;
        slow += all[all.len() * 99 / 100] / 4;
    }
    println!("half of the calls took {typical:?} at most, and 99 % {slow:?}");
    assert!(typical < secs(4) && slow < secs(100), "{typical:?} {slow:?}");
}

#[tokio::test(start_paused = true)]
async fn processes_at_full_load_use_all_of_it_and_are_rarely_refused() {
    for (processes, least, most_refused) in [(2, 3_500, 0.01), (3, 3_500, 0.06)] {
        fastrand::seed(0);
        let emulator = project();
        let full = async || {
            let service = process(&emulator, 10..60);
            let end = Instant::now() + secs(3_600);
            let worker = async || {
                while Instant::now() < end {
                    answered(service.clone()).await;
                    sleep(Duration::from_millis(100)).await;
                }
            };
            join_all((0..40).map(|_| worker())).await;
        };
        join_all((0..processes).map(|_| full())).await;
        let (served, refused) = served_and_refused(&emulator, secs(65));
        let share = refused as f64 / (served + refused) as f64;
        println!("{processes}: {served} served, {share:.4} refused");
        assert!(served > least && share < most_refused, "{processes}: {served} {share}");
    }
}
