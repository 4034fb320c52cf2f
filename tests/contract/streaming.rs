//! Law 6: the first content commits an attempt, and after it bytes pass as they come.

use std::task::Poll;

use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio_test::{assert_pending, assert_ready, task};
use tower::ServiceExt;

use crate::{
    contract::room::{Inward, Room},
    support::{
        ARRAY, AnyBody, CHAT, GENERATE, HELLO, OK, STREAM, Upstream, any, broken, event, fed, find, frames, json, post,
        sse, typed,
    },
};

fn answers_with(body: AnyBody, content_type: &'static str) -> Upstream {
    let body = parking_lot::Mutex::new(Some(body));
    Upstream::at_once(move |_| Ok(typed(200, content_type, body.lock().take().expect("asked once"))))
}

pub(crate) async fn law_6_chunks_pass_one_by_one_and_untouched<B: Inward>(room: impl Room<B>) {
    let sse = [
        event("one"),
        // A comment, an id, odd spacing, half an event, a chunk with two events, a byte at a time.
        ": ping\r\n\r\n".into(),
        "id:  7 \r\ndata:{\"candidates\"".into(),
        ": []}\r\n\r".into(),
        "\n".into(),
        [event("two"), event("three")].concat(),
        "data: {\"usageMetadata\":{\"promptTokenCount\":1},\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n".into(),
        "\n\n: bye".into(),
    ];
    let array = [
        "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"one\"}]}}]}\n".to_owned(),
        ",\r\n{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"two\"}]},\"fini".into(),
        "shReason\":\"STOP\"}]}\n]".into(),
    ];
    let chat = [
        "data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n".to_owned(),
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DO".into(),
        "NE]\n\n".into(),
    ];
    let cases: [(_, _, &[String]); 3] =
        [(STREAM, "text/event-stream", &sse), (ARRAY, "application/json", &array), (CHAT, "text/event-stream", &chat)];
    for (uri, content_type, sent) in cases {
        let (feed, body) = fed();
        let upstream = answers_with(any(body), content_type);
        let mut call = task::spawn(room.wrap(upstream).oneshot(post(uri)));
        // The first content hands the answer over, no earlier and no later.
        feed.data(sent[0].clone());
        let mut body = assert_ready!(call.poll()).unwrap().into_body();
        // Only the half of an event or of an element may wait, for its other half, and an array's bracket for the end.
        let mut waiting = String::new();
        for (nth, chunk) in sent.iter().enumerate() {
            if nth > 0 {
                assert_pending!(task::spawn(body.frame()).poll());
                feed.data(chunk.clone());
            }
            waiting.push_str(chunk);
            while !waiting.is_empty()
                && let Poll::Ready(frame) = task::spawn(body.frame()).poll()
            {
                let passed = frame.unwrap().unwrap().into_data().unwrap();
                waiting = waiting.strip_prefix(std::str::from_utf8(&passed).unwrap()).expect("untouched").to_owned();
            }
            let is_half = match uri {
                ARRAY => waiting == "]" || waiting.starts_with('{') && !waiting.ends_with('}'),
                _ => !waiting.contains("\n\n") && !waiting.contains("\r\n\r"),
            };
            assert!(waiting.is_empty() || is_half, "chunk {nth} of {uri} waits: {waiting:?}");
        }
        assert!(!body.is_end_stream());
        drop(feed);
        if !waiting.is_empty() {
            let rest = assert_ready!(task::spawn(body.frame()).poll());
            assert_eq!(rest.unwrap().unwrap().into_data().unwrap(), waiting);
        }
        assert!(assert_ready!(task::spawn(body.frame()).poll()).is_none());
        assert!(assert_ready!(task::spawn(body.frame()).poll()).is_none());
    }
}

pub(crate) async fn law_6_size_hints_and_trailers_stay<B: Inward>(room: impl Room<B>) {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trailer", HeaderValue::from_static("kept"));
    // `ErrorResponse` writes an error anew that is none; this one stays as it is.
    const REFUSED: &str = r#"{"error":{"code":400,"message":"bad field","status":"INVALID_ARGUMENT"}}"#;
    let least = HELLO.len().min(REFUSED.len()) as u64;
    let mut between = SizeHint::new();
    between.set_lower(least);
    between.set_upper(1 << 20);
    for (status, text) in [(200, HELLO), (400, REFUSED)] {
        let size = text.len() as u64;
        for hint in [SizeHint::with_exact(size), between, SizeHint::new()] {
            let (feed, body) = fed();
            feed.data(text);
            feed.trailers(trailers.clone());
            drop(feed);
            let body = parking_lot::Mutex::new(Some(any(body.with_hint(hint))));
            let upstream = Upstream::at_once(move |_| {
                Ok(typed(status, "application/json", body.lock().take().expect("asked once")))
            });
            let response = room.wrap(upstream).oneshot(post(GENERATE)).await.unwrap();
            let now = response.body().size_hint();
            // An exact size stays exact, however much was read while the answer was held; an inexact one may become exact.
            assert_eq!(now.exact().or(hint.exact()), now.exact(), "{now:?} of {hint:?}");
            assert!((hint.lower()..=size).contains(&now.lower()), "{now:?} of {hint:?}");
            assert!(hint.upper().is_none() || now.upper().is_some_and(|upper| upper >= size), "{now:?} of {hint:?}");
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers(), Some(&trailers), "{status}");
            assert_eq!(body.to_bytes(), text);
        }
    }
}

pub(crate) async fn law_6_an_empty_body_is_known_to_be_empty<B: Inward>(room: impl Room<B>) {
    // Otherwise a server would write a chunked body for a 204, or for an error without text.
    for status in [204, 304, 200, 404] {
        let upstream = Upstream::at_once(move |_| {
            Ok(Response::builder().status(status).body(any(Full::<bytes::Bytes>::default())).unwrap())
        });
        let response = room.wrap(upstream).oneshot(post("/v1beta/files")).await.unwrap();
        let size = response.body().size_hint().exact();
        // `ErrorResponse` writes an error where there is none, and knows its length.
        assert!(size == Some(0) || status == 404 && size.is_some(), "{status}: {size:?}");
    }
}

pub(crate) async fn law_6_sends_nothing_again_after_the_commit<B: Inward>(room: impl Room<B>) {
    let error = "data: {\"error\":{\"code\":503,\"message\":\"overloaded\",\"status\":\"UNAVAILABLE\"}}\n\n";
    type Body = fn() -> Response<AnyBody>;
    let breaks: [(_, Body); 4] = [
        (STREAM, || sse(broken([event("one")]))),
        (ARRAY, || {
            typed(200, "application/json", broken(["[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"o"]))
        }),
        (GENERATE, || json(200, &HELLO.as_bytes()[..80])),
        (GENERATE, || typed(200, "application/json", broken([&HELLO.as_bytes()[..80]]))),
    ];
    for (uri, answer) in breaks {
        let upstream = Upstream::at_once(move |_| Ok(answer()));
        let response = room.wrap(upstream.clone()).oneshot(post(uri)).await.unwrap();
        assert_eq!(response.status(), OK);
        let (data, _) = frames(response.into_body()).await;
        assert!(!data.is_empty());
        assert_eq!(upstream.calls(), 1, "{uri}");
    }
    // An error that comes later is passed on word for word.
    let whole = [event("one"), error.to_owned()].concat();
    let answer = whole.clone();
    let upstream = Upstream::at_once(move |_| Ok(sse(crate::support::chunks([answer.as_bytes()]))));
    let response = room.wrap(upstream.clone()).oneshot(post(STREAM)).await.unwrap();
    let (data, broke) = frames(response.into_body()).await;
    assert_eq!(data.concat(), whole.as_bytes());
    // Only the outermost layer breaks the connection after it, because a clean end is taken for a whole answer.
    assert!(broke.is_none_or(|error| find(&error).layer() == "error_response"));
    assert_eq!(upstream.calls(), 1);
}
