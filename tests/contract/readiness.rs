//! Law 2: readiness passes through, and nothing is held while a room waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::future::join_all;
use http::{Request, Response, header::RETRY_AFTER};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_gemini::BoxError;

use crate::{
    contract::room::{Inward, Room, failure},
    support::{Answer, AnyBody, GENERATE, OK, Strict, Upstream, busy, hello, millis, post, secs},
};

/// A service whose readiness the test sets.
#[derive(Clone)]
struct Gate {
    open: Arc<AtomicUsize>,
    polled: Arc<AtomicUsize>,
}

const SHUT: usize = 0;
const OPEN: usize = 1;
const GONE: usize = 2;

impl<B> Service<Request<B>> for Gate {
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = std::future::Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.polled.fetch_add(1, Ordering::SeqCst);
        match self.open.load(Ordering::SeqCst) {
            SHUT => Poll::Pending,
            OPEN => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err("the gate is gone".into())),
        }
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        std::future::ready(Ok(hello()))
    }
}

pub(crate) async fn law_2_readiness_is_the_inner_services<B: Inward>(room: impl Room<B>) {
    let gate = Gate { open: Arc::new(SHUT.into()), polled: Arc::default() };
    let mut service = tokio_test::task::spawn(room.wrap(gate.clone()));
    let mut poll = || service.enter(|cx, mut service| service.poll_ready(cx));
    assert!(poll().is_pending());
    assert!(poll().is_pending());
    gate.open.store(OPEN, Ordering::SeqCst);
    // It is ready at once: a room waits for nothing of its own.
    assert!(matches!(poll(), Poll::Ready(Ok(()))));
    assert_eq!(gate.polled.load(Ordering::SeqCst), 3);
}

pub(crate) async fn law_2_unreadiness_goes_out_as_an_error<B: Inward>(room: impl Room<B>) {
    let gate = Gate { open: Arc::new(GONE.into()), polled: Arc::default() };
    let result = async { room.wrap(gate).ready().await?.call(post(GENERATE)).await }.await;
    // `ErrorResponse` is ready, and answers with the error.
    let failure = failure(&result).unwrap();
    assert!(failure.message().contains("the gate is gone"), "{failure}");
    if let Ok(response) = result {
        assert_eq!(response.status(), 503);
    }
}

/// Makes an upstream with two busy answers for each call; a room that does not retry passes the first one on.
fn busy_at_first() -> Upstream {
    Upstream::at_once(|nth| Ok(if nth < 2 { busy() } else { hello() }))
}

pub(crate) async fn law_2_calls_the_service_that_is_ready<B: Inward>(room: impl Room<B>) {
    let upstream = busy_at_first();
    let mut service = room.wrap(Strict::new(upstream.clone(), 2));
    for _ in 0..4 {
        let response = service.ready().await.unwrap().call(post(GENERATE)).await.unwrap();
        drop(response);
        // A clone is a service of its own, and is not ready.
        service = service.clone();
    }
    assert!(upstream.calls() >= 4);
}

pub(crate) async fn law_2_one_permit_is_enough_for_all<B: Inward>(room: impl Room<B>) {
    let at_once = Arc::<AtomicUsize>::default();
    let most = Arc::<AtomicUsize>::default();
    let (now, peak) = (at_once.clone(), most.clone());
    let upstream = Upstream::new(move |nth, _| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(millis(10)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(if nth % 3 == 0 { busy() } else { hello() })
        }
    });
    let limited = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).service(upstream.clone());
    let service = room.wrap(Strict::new(limited, 1));
    let calls = (0..30).map(|_| service.clone().oneshot(post(GENERATE)));
    for result in join_all(calls).await {
        let status = result.unwrap().status();
        assert!(status == OK || status == 503, "{status}");
    }
    assert!(upstream.calls() >= 30);
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(upstream.in_flight(), 0);
    // The permit was given back.
    assert!(service.oneshot(post(GENERATE)).await.is_ok());
}

pub(crate) async fn law_2_holds_no_permit_while_it_waits<B: Inward>(room: impl Room<B>) {
    let upstream = Upstream::at_once(|nth| {
        Ok(match nth {
            0 => {
                let mut response = busy();
                response.headers_mut().insert(RETRY_AFTER, 100.into());
                response
            }
            _ => hello(),
        })
    });
    let limited = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).service(upstream.clone());
    let service = room.wrap(limited);
    let mut waiting = tokio_test::task::spawn(service.clone().oneshot(post(GENERATE)));
    // The first poll ends in a 503, in a wait of 100 s, or in the answer of another model.
    let answered = matches!(waiting.poll(), Poll::Ready(Ok(response)) if response.status() == OK);
    assert_eq!(upstream.calls(), 1 + usize::from(answered));
    let began = Instant::now();
    let response = service.oneshot(post(GENERATE)).await.unwrap();
    assert_eq!(response.status(), OK);
    assert!(began.elapsed() < secs(1), "waited {:?} for a permit", began.elapsed());
}

pub(crate) async fn law_2_works_over_a_buffer<B: Inward>(room: impl Room<B>) {
    let buffered = tower::buffer::Buffer::new(busy_at_first(), 1);
    let service = room.wrap(buffered);
    let calls = (0..10).map(|_| service.clone().oneshot(post(GENERATE)));
    let statuses: Vec<_> = join_all(calls).await.into_iter().map(|result| result.unwrap().status()).collect();
    assert!(statuses.iter().filter(|status| **status == OK).count() >= 8, "{statuses:?}");
}
