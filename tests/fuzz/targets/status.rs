//! Reads and judges an error body of any kind: what is reported of it is bounded, and has no keys in it.
//!
//! The input is the body. Each is judged under every status that matters.

#![no_main]

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_ENCODING, RETRY_AFTER},
};
use libfuzzer_sys::fuzz_target;
use tower_gemini::{
    failure::{Failure, Fault},
    status::Status,
};

const CODES: [u16; 12] = [400, 401, 403, 404, 408, 413, 429, 499, 500, 502, 503, 504];

/// The longest message, as the documentation of `Status::message` promises.
const MOST: usize = 2048;

fuzz_target!(|body: &[u8]| {
    let status = Status::parse(body);
    assert!(status.message().len() <= MOST, "{} bytes of message", status.message().len());
    assert!(status.violations().len() <= 16);
    let texts = [Some(status.message()), status.status(), status.reason(), status.domain(), status.model()];
    let of_violations = status.violations().iter().flat_map(|one| [one.quota_metric(), one.quota_id(), one.model()]);
    texts.into_iter().chain(of_violations).flatten().for_each(no_key);
    assert!(status.code().is_none_or(|code| (100..1000).contains(&code)), "{:?} is no status", status.code());
    let _ = (status.envelope(), status.is_google(), status.retry_delay());

    // The beginning of the body serves as a header.
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(&body[..body.len().min(40)]) {
        headers.insert(RETRY_AFTER, value);
    }
    for code in CODES {
        let code = StatusCode::from_u16(code).expect("a status");
        judged(&Failure::from_response(code, &headers, body));
    }
    judged(&Failure::from_event(body));
    // The same bytes as if a proxy had compressed them.
    for encoding in ["gzip", "deflate", "br"] {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        judged(&Failure::from_response(StatusCode::TOO_MANY_REQUESTS, &headers, body));
    }
});

fn judged(failure: &Failure) {
    no_key(failure.message());
    failure.reason().into_iter().for_each(no_key);
    let _ = (failure.hint(), failure.quota(), failure.google_status(), failure.to_string());
    assert!(failure.code().is_client_error() || failure.code().is_server_error(), "{} is no failure", failure.code());
    assert!(failure.same_as(failure));
    // The laws of the table: a caller's mistake is never the upstream's, and is never sent again.
    if failure.fault() == Fault::Caller {
        assert!(!failure.counts_against_upstream() && !failure.same_key_may_help(), "{failure:?}");
    }
    if matches!(failure.fault(), Fault::Key | Fault::Quota) {
        assert!(!failure.counts_against_upstream(), "{failure:?}");
    }
}

/// Asserts that nothing is left that looks like a whole API key.
fn no_key(text: &str) {
    let is_key = |at: usize| {
        let tail =
            text[at + 4..].bytes().take(35).take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte));
        tail.count() == 35
    };
    assert!(!text.match_indices("AIza").any(|(at, _)| is_key(at)), "a key in {text:?}");
}
