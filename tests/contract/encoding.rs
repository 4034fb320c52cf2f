//! Law 8: an answer that is encoded all the same passes untouched. One that cannot be decoded is judged by its status.

use http::{HeaderValue, header::CONTENT_ENCODING};
use tower::ServiceExt;
use tower_gemini::failure::Kind;

use crate::{
    contract::room::{Inward, Room, failure},
    support::{GENERATE, OK, STREAM, Upstream, json, post, read},
};

/// The beginning of a gzip stream, with bytes that would have a meaning if they were text.
const GZIPPED: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03{\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\"}}\xff";

pub(crate) async fn law_8_what_is_encoded_passes_untouched<B: Inward>(room: impl Room<B>) {
    for (uri, status) in [(GENERATE, 200), (STREAM, 200), (GENERATE, 400), (STREAM, 501)] {
        let upstream = Upstream::at_once(move |_| {
            let mut response = json(status, GZIPPED);
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Ok(response)
        });
        let result = room.wrap(upstream.clone()).oneshot(post(uri)).await;
        match (status, failure(&result)) {
            (200, None) => assert_eq!(result.as_ref().unwrap().status(), OK),
            (400, Some(failure)) => assert_eq!(failure.kind(), Kind::InvalidRequest),
            (501, Some(failure)) => assert_eq!(failure.kind(), Kind::Unimplemented),
            (_, failure) => panic!("{status}: {failure:?}"),
        }
        assert_eq!(read(result.unwrap().into_body()).await, GZIPPED);
        assert_eq!(upstream.calls(), 1);
    }
}
