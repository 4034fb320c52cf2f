//! Tests of the order of calls as the inner service sees it: they come in the order in which they came to the limiter.

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::{
    BoxError, CallContext, Error, RateLimitLayer,
    failure::{Failure, Kind},
    quota::{Limits, TokenCost},
    rate_limit::Limiter,
};

use crate::support::{GENERATE, post, secs, settle};

/// The call's place among all that came.
#[derive(Clone, Copy, Debug)]
struct Nth(usize);

fn nth(nth: usize) -> Request<Full<Bytes>> {
    let mut request = post(GENERATE);
    request.extensions_mut().insert(Nth(nth));
    request
}

fn costing(tokens: u64, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    CallContext::update(request.extensions_mut(), |context| context.set_token_cost(TokenCost::estimate(tokens)));
    request
}

/// The order in which the calls came.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<usize>>>);

impl Seen {
    fn note(&self, request: &Request<Full<Bytes>>) {
        self.0.lock().extend(request.extensions().get::<Nth>().map(|nth| nth.0));
    }

    fn is_in_order(&self, all: usize) {
        let seen = self.0.lock();
        let swapped = seen.iter().enumerate().filter(|(at, nth)| at != *nth).count();
        assert_eq!((swapped, seen.len()), (0, all), "out of place, of all: {seen:?}");
    }
}

fn answer() -> Response<Empty<Bytes>> {
    Response::new(Empty::new())
}

fn per_minute(requests: u64) -> RateLimitLayer {
    let limits = Limits::new().requests_per_minute(requests);
    RateLimitLayer::new(Limiter::builder().limits(limits).max_wait(secs(100_000)).build())
}

/// Makes all calls at once, one after the other, and polls them in another order.
async fn come_together<S>(service: &S, all: usize)
where
    S: Service<Request<Full<Bytes>>, Error = BoxError, Future: Send + 'static, Response: Send + 'static> + Clone,
{
    let mut calls = Vec::new();
    for at in 0..all {
        let mut service = service.clone();
        calls.push(service.ready().await.unwrap().call(nth(at)));
    }
    fastrand::Rng::with_seed(all as u64).shuffle(&mut calls);
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    assert!(join_all(tasks).await.into_iter().all(|done| done.unwrap().is_ok()));
}

#[tokio::test(start_paused = true)]
async fn calls_that_come_together_go_in_the_order_in_which_they_came() {
    for (all, minutes) in [(45, 1), (1_000, 33)] {
        let (seen, begun) = (Seen::default(), Instant::now());
        let noting = seen.clone();
        let service = per_minute(30).layer(service_fn(move |request| {
            noting.note(&request);
            async { Ok::<_, Infallible>(answer()) }
        }));
        come_together(&service, all).await;
        seen.is_in_order(all);
        assert_eq!(begun.elapsed().as_secs() / 60, minutes);
    }
}

#[tokio::test(start_paused = true)]
async fn over_a_service_that_is_ready_for_one_at_a_time_they_still_do() {
    let seen = Seen::default();
    let noting = seen.clone();
    let inner = ServiceBuilder::new().concurrency_limit(1).service(service_fn(move |request| {
        noting.note(&request);
        async {
            sleep(Duration::from_millis(70)).await;
            Ok::<_, Infallible>(answer())
        }
    }));
    let service = per_minute(30).layer(inner);
    // The readiness is free for other calls once a wait begins; calls that go at once would hold it.
    let mut first = Vec::new();
    for at in 0..30 {
        first.push(service.clone().oneshot(nth(at)));
    }
    join_all(first).await;
    seen.0.lock().clear();
    come_together(&service, 90).await;
    seen.is_in_order(90);
}

/// Runs on real threads: the first call uses all of the quota and is refunded, so that all others may go at the same moment.
#[test]
fn on_many_threads_they_still_do() {
    const ALL: usize = 500;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    for round in 0..20 {
        let (seen, free) = (Seen::default(), Arc::<Notify>::default());
        let (noting, freeing) = (seen.clone(), free.clone());
        let limits = Limits::new().input_tokens_per_minute(10 * ALL as u64);
        let layer = RateLimitLayer::new(Limiter::builder().limits(limits).max_wait(secs(3_600)).build());
        let mut service = layer.layer(service_fn(move |request: Request<_>| {
            noting.note(&request);
            let waits = request.extensions().get::<Nth>().is_none().then(|| freeing.clone());
            async move {
                let Some(free) = waits else { return Ok::<_, BoxError>(answer()) };
                free.notified().await;
                Err(Error::refusal("test", Failure::local(Kind::CircuitOpen, "never sent")).into())
            }
        }));
        runtime.block_on(async {
            let first = tokio::spawn(service.ready().await.unwrap().call(costing(10 * ALL as u64, post(GENERATE))));
            let mut tasks = JoinSet::new();
            for at in 0..ALL {
                let call = service.ready().await.unwrap().call(costing(10, nth(at)));
                tasks.spawn(async move { call.await.is_ok() });
                if at == ALL * round / 20 {
                    free.notify_one();
                }
            }
            assert!(first.await.unwrap().is_err());
            assert!(tasks.join_all().await.into_iter().all(|ok| ok));
        });
        seen.is_in_order(ALL);
    }
}

/// A service that is ready, except for the clone that polls first after it was told so: never for that one.
#[derive(Clone, Debug, Default)]
struct Moody {
    sulks: Arc<AtomicBool>,
    never: bool,
    seen: Seen,
}

impl Service<Request<Full<Bytes>>> for Moody {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.never |= self.sulks.swap(false, Ordering::SeqCst);
        if self.never { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        self.seen.note(&request);
        std::future::ready(Ok(answer()))
    }
}

#[tokio::test(start_paused = true)]
async fn one_for_which_the_inner_service_is_never_ready_holds_up_nobody() {
    let inner = Moody::default();
    let layer = per_minute(3);
    let mut service = layer.layer(inner.clone());
    let mut tasks = Vec::new();
    for at in 0..8 {
        tasks.push(tokio::spawn(service.ready().await.unwrap().call(nth(at))));
    }
    inner.sulks.store(true, Ordering::SeqCst);
    let seen = |expected: &[usize]| assert_eq!(*inner.seen.0.lock(), expected);
    seen(&[0, 1, 2]);
    // The fourth call has its turn and its part of the quota, and cannot go.
    sleep(secs(61)).await;
    seen(&[0, 1, 2, 4, 5]);
    // It gives up, and its held amount goes to the next call at once.
    tasks[3].abort();
    settle().await;
    seen(&[0, 1, 2, 4, 5, 6]);
    sleep(secs(61)).await;
    seen(&[0, 1, 2, 4, 5, 6, 7]);
    assert_eq!(layer.limiter().unwrap().snapshot()[0].waiting, 0);
}
