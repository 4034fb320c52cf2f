//! Tests of the watch over an answer.

use http::{HeaderValue, Method};

use super::*;
use crate::failure::Fault;

fn watch(uri: &'static str, content_type: &'static str, text: &str) -> Watch {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let shape = Shape::new(&Method::POST, &http::Uri::from_static(uri));
    let mut watch = Watch::new(shape, &headers, &SizeHint::new()).unwrap();
    // Byte by byte, the hardest way to cut it.
    text.as_bytes().chunks(1).for_each(|byte| watch.push(byte));
    watch
}

fn sse(text: &str) -> Watch {
    watch("/v1beta/models/m:streamGenerateContent?alt=sse", "text/event-stream", text)
}

fn array(text: &str) -> Watch {
    watch("/v1beta/models/m:streamGenerateContent", "application/json; charset=UTF-8", text)
}

const HELLO: &str = r#"{"candidates":[{"content":{"parts":[{"text":"hello"}]}}]}"#;
const STOP: &str = r#"{"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}]}"#;
const BUSY: &str = r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;

#[test]
fn the_first_content_commits_and_nothing_before_it() {
    assert_eq!(sse(": hi\n\ndata: {\"usageMetadata\":{}}\n\n").verdict(), Verdict::Undecided);
    assert_eq!(sse(&format!("data: {HELLO}")).verdict(), Verdict::Commit);
    assert_eq!(array("[").verdict(), Verdict::Undecided);
    assert_eq!(array(&format!("[{HELLO}")).verdict(), Verdict::Commit);
}

#[test]
fn an_error_before_the_content_is_read_to_its_end() {
    for watch in [sse(&format!("data: {BUSY}\n\n")), sse(&format!("{BUSY}\n")), array(&format!("[{BUSY}"))] {
        assert_eq!(watch.verdict(), Verdict::Failed);
        let failure = watch.judge_end(BUSY.as_bytes()).unwrap();
        assert_eq!(failure.fault(), Fault::Model);
    }
    assert_eq!(sse(r#"data: {"error":{"code":503,"#).verdict(), Verdict::Undecided);
}

#[test]
fn an_end_without_content_is_judged_by_its_reason() {
    let fault = |text: &str| sse(text).judge_end(text.as_bytes()).map(|failure| failure.fault());
    assert_eq!(fault(""), Some(Fault::Service));
    assert_eq!(fault(&format!("data: {STOP}\n\n")), Some(Fault::Service));
    assert_eq!(fault("data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n"), Some(Fault::Caller));
}

#[test]
fn a_stream_is_cut_unless_it_says_that_it_has_ended() {
    assert!(sse(&format!("data: {HELLO}\n\n")).is_cut());
    assert!(!sse(&format!("data: {HELLO}\n\ndata: {STOP}\n\n")).is_cut());
    assert!(array(&format!("[{HELLO}")).is_cut());
    assert!(!array(&format!("[{HELLO},{STOP}]")).is_cut());
    let openai = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let of = |text: &str| watch("/v1beta/openai/chat/completions", "text/event-stream", text);
    assert!(of(openai).is_cut());
    assert!(!of(&format!("{openai}data: [DONE]\n\n")).is_cut());
    assert!(of(&format!("{openai}data: not [DONE]\n\n")).is_cut());
}

#[test]
fn an_error_after_the_content_is_reported_and_is_no_cut() {
    let watch = sse(&format!("data: {HELLO}\n\ndata: {BUSY}\n\n"));
    let failure = watch.late_failure().unwrap();
    assert_eq!((failure.fault(), failure.same_key_may_help()), (Fault::Model, false));
    assert!(!watch.is_cut());
}

#[test]
fn what_does_not_generate_is_not_watched() {
    let none = |uri: &'static str, content_type: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Watch::new(Shape::new(&Method::POST, &http::Uri::from_static(uri)), &headers, &SizeHint::new()).is_none()
    };
    assert!(none("/v1beta/models/m:countTokens", "application/json"));
    assert!(none("/v1beta/models/m:generateContent", "text/html"));
}
