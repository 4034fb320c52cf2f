//! Law 5: a dropped future leaves nothing behind.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{sync::Semaphore, time::sleep};
use tower::{ServiceExt, limit::ConcurrencyLimit};

use crate::{
    contract::room::{Inward, Room},
    support::{OK, STREAM, Strict, Upstream, any, busy, event, fed, last_event, millis, post, settle, sse},
};

pin_project! {
    /// A future that polls another one for a number of times, and then gives it up.
    struct Polled<F> {
        #[pin]
        future: F,
        left: usize,
    }
}

impl<F: Future> Future for Polled<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if *this.left == 0 {
            return Poll::Ready(None);
        }
        *this.left -= 1;
        let polled = this.future.poll(cx).map(Some);
        if polled.is_pending() && *this.left == 0 {
            return Poll::Ready(None);
        }
        polled
    }
}

pub(crate) async fn law_5_dropped_at_any_poll_leaves_nothing<B: Inward>(room: impl Room<B>) {
    let mut done = false;
    let mut reached = (0, 0);
    for polls in 1..200 {
        let token = Arc::new(());
        let permits = Arc::new(Semaphore::new(1));
        let (feed, body) = fed();
        let (feeding, body) = (feed.clone(), parking_lot::Mutex::new(Some(body)));
        // The upstream is busy at first. Then come the headers, some time later an event without content, and the content.
        let upstream = Upstream::new(move |nth, _| {
            let body = (nth > 0).then(|| body.lock().take()).flatten();
            let feeding = feeding.clone();
            async move {
                sleep(millis(10)).await;
                let Some(body) = body else { return Ok(busy()) };
                tokio::spawn(async move {
                    for data in [": ping\n\n".into(), event("a"), last_event("b")] {
                        sleep(millis(10)).await;
                        feeding.data(data);
                    }
                });
                Ok(sse(any(body)))
            }
        });
        let limited = ConcurrencyLimit::with_semaphore(Strict::new(upstream.clone(), 1), permits.clone());
        let service = room.wrap(limited);
        let mut request = post(STREAM);
        request.extensions_mut().insert(token.clone());
        let result = Polled { future: service.clone().oneshot(request), left: polls }.await;
        reached = reached.max((upstream.calls(), upstream.in_flight()));
        done = match result {
            Some(result) => {
                drop(result.unwrap());
                true
            }
            None => false,
        };
        assert_eq!(upstream.in_flight(), 0, "dropped after {polls} polls");
        assert!(!feed.is_live() || upstream.calls() < 2, "dropped after {polls} polls");
        assert_eq!(Arc::strong_count(&token), 1, "dropped after {polls} polls");
        assert_eq!(permits.available_permits(), 1, "dropped after {polls} polls");
        // The next caller is served.
        let response = service.oneshot(post(STREAM)).await;
        assert!(response.is_ok_and(|response| response.status() == OK || response.status() == 503));
        settle().await;
        if done {
            break;
        }
    }
    assert!(done, "it never ended");
    assert!(reached.0 > 0);
}

pub(crate) async fn law_5_a_dropped_body_drops_the_upstreams<B: Inward>(room: impl Room<B>) {
    let (feed, body) = fed();
    feed.data(event("a"));
    let body = parking_lot::Mutex::new(Some(body));
    let upstream = Upstream::at_once(move |_| Ok(sse(any(body.lock().take().unwrap()))));
    let response = room.wrap(upstream).oneshot(post(STREAM)).await.unwrap();
    assert!(feed.is_live());
    drop(response);
    assert!(!feed.is_live());
}
