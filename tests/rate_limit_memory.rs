//! Law 10: the limiter's memory of its scopes has a bound, and callers that invent models do not move it.

mod support;

use std::{task::Poll, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, service_fn};
use tower_gemini::{BoxError, RateLimitLayer, quota::Limits, rate_limit::Limiter};

use crate::support::{post, secs};

const SCOPES: usize = 10_000;

/// The bound for an idle scope, in bytes.
const IDLE: u64 = 1_024;

/// The bound for a scope with charges in each quarter of a second of a minute.
const BUSY: u64 = IDLE + 12 * 1_024;

/// The bound for a scope that is made after the shared account was used, and that continues its usage.
const HEIR: u64 = IDLE + 512;

/// Makes calls that end at once, each of another model.
fn ask<S>(service: &mut S, models: impl Iterator<Item = usize>)
where
    S: Service<Request<Full<Bytes>>, Error = BoxError>,
{
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    for model in models {
        assert!(service.poll_ready(cx).is_ready());
        let call = service.call(post(&format!("/v1beta/models/model-{model}:generateContent")));
        let Poll::Ready(answer) = std::pin::pin!(call).poll(cx) else { panic!("it waits") };
        drop(answer);
    }
}

fn service(
    limiter: &Limiter,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl Sized>,
    Error = BoxError,
    Future: Future<Output = Result<Response<impl Sized>, BoxError>>,
> {
    let answer = |_: Request<Full<Bytes>>| std::future::ready(Ok::<_, BoxError>(Response::new(Empty::<Bytes>::new())));
    RateLimitLayer::new(limiter.clone()).layer(service_fn(answer))
}

/// Returns the bytes that live afterwards and did not before.
fn grown(work: impl FnOnce()) -> i64 {
    allocation_counter::measure(work).bytes_current
}

fn bytes_each(live: i64, scopes: usize) -> u64 {
    u64::try_from(live).unwrap() / scopes as u64
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_scopes_are_as_large_as_the_documentation_says() {
    let limits = Limits::new().requests_per_minute(1_000).input_tokens_per_minute(1_000_000);
    let limiter = Limiter::builder().limits(limits).build();
    let mut service = service(&limiter);
    let mut live = grown(|| ask(&mut service, 0..SCOPES));
    assert_eq!(limiter.snapshot().len(), SCOPES);
    let with_a_charge = bytes_each(live, SCOPES);
    advance(secs(61)).await;
    live += grown(|| drop(limiter.snapshot()));
    let idle = bytes_each(live, SCOPES);
    // Some of them will do, so that the test is quick: scopes are independent.
    let (busy_ones, before) = (SCOPES / 10, live);
    let begun = Instant::now();
    while begun.elapsed() < secs(61) {
        live += grown(|| ask(&mut service, 0..busy_ones));
        advance(Duration::from_millis(250)).await;
    }
    let busy = idle + bytes_each(live - before, busy_ones);
    advance(secs(61)).await;
    live += grown(|| drop(limiter.snapshot()));
    let idle_again = bytes_each(live, SCOPES);
    println!("bytes a scope: {with_a_charge} after a call, {idle} idle, {busy} busy, {idle_again} idle again");
    assert!(with_a_charge <= IDLE && idle <= IDLE && idle_again <= idle && busy <= BUSY, "{busy}");
    // The window holds as many entries as it can.
    assert!(busy > 12 * 1_024, "it was not busy");
}

#[tokio::test(start_paused = true)]
async fn a_million_invented_models_stay_within_the_bound() {
    const AT_ONCE: usize = 10_000;
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1_000_000)).build();
    let mut service = service(&limiter);
    let (mut live, mut most) = (0, 0);
    for step in 0..1_000_000 / AT_ONCE {
        live += grown(|| ask(&mut service, step * AT_ONCE..(step + 1) * AT_ONCE));
        most = most.max(live);
        advance(secs(2)).await;
    }
    assert!(limiter.snapshot().len() <= 16_385);
    println!("{most} bytes at most");
    assert!(most > 0 && most as u64 <= 16_385 * HEIR, "{most}");
}
