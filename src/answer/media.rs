//! The head of an answer: it says whether the body is a stream of events, and whether that can be read. Pure.

use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

/// Returns whether the type of an answer is that of a stream of events, whatever its letters' case and its parameters.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().split(|byte| *byte == b';').next());
    media.is_some_and(|media| media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Returns the coding of an answer that is compressed although `identity` was asked for. `None`: its bytes can be read.
pub(crate) fn coding(headers: &HeaderMap) -> Option<&[u8]> {
    let coding = headers.get(CONTENT_ENCODING)?.as_bytes().trim_ascii();
    (!coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")).then_some(coding)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_head_is_read_however_it_is_written() {
        for (media, encoding, is_stream, is_encoded) in [
            ("text/event-stream", "identity", true, false),
            ("Text/Event-Stream; charset=utf-8", "Identity", true, false),
            (" text/event-stream ; charset=utf-8", "", true, false),
            ("text/event-stream", " gzip", true, true),
            ("text/event-streams", "br", false, true),
            ("application/json", "", false, false),
        ] {
            let headers = HeaderMap::from_iter([
                (CONTENT_TYPE, HeaderValue::from_static(media)),
                (CONTENT_ENCODING, HeaderValue::from_static(encoding)),
            ]);
            assert_eq!((is_event_stream(&headers), coding(&headers).is_some()), (is_stream, is_encoded), "{media:?}");
        }
        assert!(!is_event_stream(&HeaderMap::new()) && coding(&HeaderMap::new()).is_none());
    }
}
