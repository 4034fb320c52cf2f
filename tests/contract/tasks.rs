//! Law 3: a room spawns no task and leaks nothing.

use std::{sync::Arc, task::Poll};

use http::header::RETRY_AFTER;
use tokio::runtime::Handle;
use tower::ServiceExt;

use crate::{
    contract::room::{Inward, Room},
    support::{STREAM, Upstream, any, busy, event, fed, frames, last_event, post, settle, sse},
};

pub(crate) fn a_future<F: Future + Send + Sync + 'static>(_: &F) {}

pub(crate) async fn law_3_spawns_no_task<B: Inward>(room: impl Room<B>) {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let upstream = Upstream::at_once(|nth| {
        let mut response = if nth == 0 { busy() } else { sse(crate::support::chunks([event("a"), last_event("b")])) };
        response.headers_mut().insert(RETRY_AFTER, 7.into());
        Ok(response)
    });
    let mut call = tokio_test::task::spawn(room.wrap(upstream).oneshot(post(STREAM)));
    let result = match call.poll() {
        Poll::Ready(result) => result,
        Poll::Pending => {
            assert_eq!(alive(), 0, "while it waits");
            call.await
        }
    };
    assert_eq!(alive(), 0, "while it streams");
    frames(result.unwrap().into_body()).await;
    settle().await;
    assert_eq!(alive(), 0, "in the end");
}

pub(crate) async fn law_3_leaks_nothing<B: Inward>(room: impl Room<B>) {
    let (in_request, in_service) = (Arc::new(()), Arc::new(()));
    let (feed, body) = fed();
    feed.data(event("a"));
    feed.data(last_event("b"));
    let body = parking_lot::Mutex::new(Some(body));
    let held = in_service.clone();
    let upstream = Upstream::at_once(move |nth| {
        let _held = &held;
        Ok(if nth == 0 { busy() } else { sse(any(body.lock().take().unwrap())) })
    });
    let service = room.wrap(upstream);
    for _ in 0..2 {
        let mut request = post(STREAM);
        request.extensions_mut().insert(in_request.clone());
        let response = service.clone().oneshot(request).await.unwrap();
        if response.status() == 200 {
            // The answer was handed over and not read: everything but the body was dropped.
            assert_eq!(Arc::strong_count(&in_request), 1);
            assert!(feed.is_live());
            drop(response);
            assert!(!feed.is_live());
            break;
        }
    }
    assert_eq!(Arc::strong_count(&in_request), 1);
    assert!(Arc::strong_count(&in_service) > 1);
    drop(service);
    assert_eq!(Arc::strong_count(&in_service), 1);
}
