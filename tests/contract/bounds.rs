//! Law 10: memory that an upstream can fill has a cap. Memory that a caller can fill is tested room by room, in
//! `tests/replay.rs` for example.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::{
    contract::room::{Inward, Room},
    support::{ARRAY, CHAT, GENERATE, STREAM, Upstream, any, post, typed},
};

/// The most bytes of an answer that may be held, by law 6.
const HELD: usize = 64 * 1024;

const CHUNK: usize = 100;

/// A body without an end, which counts the bytes that are taken of it.
struct Endless {
    taken: Arc<AtomicUsize>,
    chunk: &'static [u8],
}

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let taken = self.taken.fetch_add(self.chunk.len(), Ordering::SeqCst);
        assert!(taken < 100 * HELD, "it is read without an end");
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.chunk)))))
    }
}

pub(crate) async fn law_10_no_more_is_read_ahead_than_may_be_held<B: Inward>(room: impl Room<B>) {
    let kinds: [(u16, &'static str, &'static [u8]); 6] = [
        (200, "text/event-stream", &[b':'; CHUNK]),
        (200, "text/event-stream", &[b'\n'; CHUNK]),
        (200, "application/json", &[b' '; CHUNK]),
        (200, "application/json", &[b'['; CHUNK]),
        (200, "video/mp4", &[0; CHUNK]),
        (400, "application/json", &[b'A'; CHUNK]),
    ];
    for (status, content_type, chunk) in kinds {
        for uri in [GENERATE, STREAM, ARRAY, CHAT, "/v1beta/files/a:download"] {
            let taken = Arc::<AtomicUsize>::default();
            let counting = taken.clone();
            let upstream = Upstream::at_once(move |_| {
                let taken = counting.clone();
                Ok(typed(status, content_type, any(Endless { taken, chunk })))
            });
            let response = room.wrap(upstream).oneshot(post(uri)).await.unwrap();
            let ahead = taken.load(Ordering::SeqCst);
            assert!(ahead <= HELD + CHUNK, "{ahead} bytes of {content_type} with {status} at {uri}");
            let mut body = response.into_body();
            for _ in 0..2 * HELD / CHUNK {
                body.frame().await.unwrap().unwrap();
            }
            let ahead = taken.load(Ordering::SeqCst) - 2 * HELD / CHUNK * CHUNK;
            assert!(ahead <= HELD + CHUNK, "{ahead} bytes of {content_type} with {status} at {uri}");
        }
    }
}
