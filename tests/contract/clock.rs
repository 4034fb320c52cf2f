//! Law 4: all times are those of tokio's clock.

use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::{
    contract::room::{Inward, Room},
    support::{GENERATE, HELLO, OK, STREAM, Upstream, chunks, event, hello, last_event, post, read, secs, sse},
};

pub(crate) async fn law_4_a_paused_clock_drives_it<B: Inward>(room: impl Room<B>) {
    let upstream = Upstream::new(|_, _| async {
        sleep(secs(100)).await;
        Ok(hello())
    });
    let began = Instant::now();
    let response = room.wrap(upstream).oneshot(post(GENERATE)).await.unwrap();
    assert_eq!(read(response.into_body()).await, HELLO);
    // The room adds not a millisecond.
    assert_eq!(began.elapsed(), secs(100));
}

/// Asserts that no timer is made while nothing is pending: it would panic without a runtime.
pub(crate) fn without_a_runtime<B: Inward>(room: impl Room<B>) {
    assert!(tokio::runtime::Handle::try_current().is_err());
    let upstream = Upstream::at_once(|nth| match nth {
        0 => Ok(hello()),
        _ => Ok(sse(chunks([event("a"), last_event("b")]))),
    });
    let service = room.wrap(upstream);
    for uri in [GENERATE, STREAM] {
        let mut call = tokio_test::task::spawn(service.clone().oneshot(post(uri)));
        let response = tokio_test::assert_ready!(call.poll()).unwrap();
        assert_eq!(response.status(), OK);
        let mut body = tokio_test::task::spawn(read(response.into_body()));
        assert!(!tokio_test::assert_ready!(body.poll()).is_empty());
    }
}
