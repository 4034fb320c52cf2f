//! Five projects under Poisson loads, on a paused clock: the waits of calls behind the pool, compared with strict turns (round
//! robin), with a random choice, and with the best possible, one queue for 50 requests a minute.
//!
//! While all projects are alike and nothing goes wrong, strict turns are as good as the best; where one project has more
//! than another they are not. A random choice is what many programs without a common counter do.
//!
//! `cargo test --test key_pool_load -- --nocapture` prints the table.

mod support;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, KeyPoolLayer, RateLimitLayer,
    emulator::{Emulator, EmulatorBuilder},
    key_pool::{ApiKey, Key, KeyPool},
    quota::Limits,
    rate_limit::Limiter,
};

use crate::support::{GENERATE, post};

const PROJECTS: usize = 5;

/// The requests a minute of each project: 50 in all.
type Rooms = [u64; PROJECTS];

const EVEN: Rooms = [10; PROJECTS];
const UNEVEN: Rooms = [5, 5, 10, 10, 20];
const REQUESTS: usize = 50;

/// The longest time for which the limiter keeps a charge, so that no request meets the next minute's.
const CHARGE: f64 = 60.5;

/// The arrival times of calls, in seconds.
fn poisson(rng: &mut fastrand::Rng, per_minute: f64, minutes: f64) -> Vec<f64> {
    let mut at = 0.0;
    std::iter::from_fn(|| {
        at += -(1.0 - rng.f64()).ln() * 60.0 / per_minute;
        (at < minutes * 60.0).then_some(at)
    })
    .collect()
}

/// One queue for all, first come, first served, with all the projects' requests in any window of that many seconds.
fn optimum(arrivals: &[f64], window: f64) -> Vec<f64> {
    let mut starts = VecDeque::<f64>::new();
    let wait = |&arrival: &f64| {
        let mut start = arrival.max(starts.back().copied().unwrap_or_default());
        if starts.len() == REQUESTS {
            start = start.max(starts.pop_front().unwrap_or_default() + window);
        }
        starts.push_back(start);
        start - arrival
    };
    arrivals.iter().map(wait).collect()
}

fn secret(project: usize) -> String {
    format!("AIza-nobodys-{project}")
}

fn limits(rooms: Rooms, project: usize) -> Limits {
    Limits::new().requests_per_minute(rooms[project])
}

fn limiter(rooms: Rooms) -> Limiter {
    let builder = Limiter::builder().max_wait(Duration::from_secs(36_000));
    (0..PROJECTS).fold(builder, |builder, nth| builder.limits_in(format!("p{nth}"), limits(rooms, nth))).build()
}

fn upstream(rooms: Rooms) -> Emulator {
    let with = |builder: EmulatorBuilder, nth: usize| {
        builder.key(&secret(nth), &format!("p{nth}")).limits_in(format!("p{nth}"), limits(rooms, nth))
    };
    (0..PROJECTS).fold(Emulator::builder().journal_capacity(1), with).build()
}

/// Measures the wait of each call, and counts the refused ones.
async fn waits<S, R>(service: S, arrivals: &[f64], request: impl Fn(usize) -> Request<Full<Bytes>>) -> (Vec<f64>, usize)
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = BoxError> + Clone,
{
    let begun = Instant::now();
    let calls = arrivals.iter().enumerate().map(|(nth, arrival)| {
        let (service, request, at) = (service.clone(), request(nth), begun + Duration::from_secs_f64(*arrival));
        async move {
            sleep_until(at).await;
            let response = service.oneshot(request).await.unwrap();
            (at.elapsed().as_secs_f64(), response.status() != StatusCode::OK)
        }
    });
    let (waits, refused): (Vec<_>, Vec<_>) = join_all(calls).await.into_iter().unzip();
    (waits, refused.into_iter().filter(|refused| *refused).count())
}

async fn pooled(rooms: Rooms, arrivals: &[f64]) -> (Vec<f64>, usize) {
    let limiter = limiter(rooms);
    let key = |nth| Key::new(ApiKey::new(secret(nth)).unwrap()).project(format!("p{nth}"));
    let pool = (0..PROJECTS).fold(KeyPool::builder().cache_affinity(None), |pool, nth| pool.key(key(nth)));
    let pool = pool.headroom(limiter.clone()).build().unwrap();
    let service = KeyPoolLayer::new(pool).layer(RateLimitLayer::new(limiter).layer(upstream(rooms)));
    waits(service, arrivals, |_| post(GENERATE)).await
}

/// Sends each call to the given project, behind the limiter alone.
async fn told(rooms: Rooms, arrivals: &[f64], project: impl Fn(usize) -> usize) -> (Vec<f64>, usize) {
    let service = RateLimitLayer::new(limiter(rooms)).layer(upstream(rooms));
    let request = |nth: usize| {
        let project = project(nth);
        let mut request = post(GENERATE);
        request.headers_mut().insert("x-goog-api-key", secret(project).parse().unwrap());
        CallContext::update(request.extensions_mut(), |context| context.set_project(format!("p{project}")));
        request
    };
    waits(service, arrivals, request).await
}

/// The median, the 99th percentile and the maximum.
fn quantiles(mut waits: Vec<f64>) -> [f64; 3] {
    waits.sort_by(f64::total_cmp);
    [waits[waits.len() / 2], waits[waits.len() * 99 / 100], waits[waits.len() - 1]]
}

fn shown([median, p99, most]: [f64; 3]) -> String {
    format!("{median:6.2} {p99:6.2} {most:6.2}")
}

/// Puts one load on all three. Returns the waits of the pool's calls, of those in turns, and of the best possible.
async fn compared(rooms: Rooms, load: f64, minutes: f64, seed: u64) -> [[f64; 3]; 3] {
    let arrivals = poisson(&mut fastrand::Rng::with_seed(seed), load, minutes);
    let best = quantiles(optimum(&arrivals, 60.0));
    let bound = quantiles(optimum(&arrivals, CHARGE));
    let (waits, mut refused) = pooled(rooms, &arrivals).await;
    let ours = quantiles(waits);
    let (waits, others) = told(rooms, &arrivals, |nth| nth % PROJECTS).await;
    let turns = quantiles(waits);
    refused += others;
    let (waits, others) = told(rooms, &arrivals, |_| fastrand::usize(..PROJECTS)).await;
    let chance = quantiles(waits);
    refused += others;
    let rows = [best, ours, turns, chance].map(shown).join(" | ");
    println!("{load:4}  {minutes:7}  {seed:4} | {rows} | {refused:3}");
    assert_eq!(refused, 0, "the limiter keeps within the quota");
    for (ours, bound) in ours.into_iter().zip(bound) {
        assert!(ours <= bound + 0.5, "{load} a minute, {minutes} minutes, seed {seed}: {ours} s, not {bound} s");
    }
    [ours, turns, best]
}

fn head(what: &str) {
    println!("{what}: waits in seconds, each p50, p99, max");
    println!(
        "load  minutes  seed |       optimum        |         pool         |     taking turns     |      by chance       | 429"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_behind_one_queue_for_all() {
    head("five projects of 10 a minute");
    let mut judged = 0;
    for (load, minutes) in [40.0, 45.0, 50.0].into_iter().flat_map(|load| [(load, 10.0), (load, 30.0)]) {
        for seed in 0..4 {
            let [ours, turns, best] = compared(EVEN, load, minutes, seed).await;
            assert!(ours[1] <= turns[1] + 0.5, "{ours:?}, not {turns:?}");
            if best[1] < 4.0 {
                assert!(ours[1] < 5.0, "{ours:?}");
                judged += 1;
            }
        }
    }
    assert!(judged > 0);
}

#[tokio::test(start_paused = true)]
async fn projects_with_more_room_take_more() {
    head("projects of 5, 5, 10, 10 and 20 a minute");
    for load in [40.0, 45.0, 50.0] {
        for seed in 0..4 {
            let [ours, turns, _] = compared(UNEVEN, load, 10.0, seed).await;
            assert!(turns[1] > 2.0 * ours[1], "turns fill the small ones: {turns:?}, {ours:?}");
        }
    }
}
