//! Tests of the watch over an answer.

use http::{HeaderValue, Method};

use super::*;
use crate::{answer::TokenSide, failure::Fault};

fn watch(uri: &'static str, content_type: &'static str, text: &str) -> Box<Watch> {
    let headers = typed(content_type);
    let shape = Shape::new(&Method::POST, &http::Uri::from_static(uri));
    let mut watch = Watch::new(shape, &headers, &SizeHint::new()).unwrap();
    // Byte by byte, the hardest way to cut it.
    text.as_bytes().chunks(1).for_each(|byte| watch.push(byte));
    watch
}

/// Makes headers with that type, or with none.
fn typed(content_type: &'static str) -> HeaderMap {
    let content_type = Some(content_type).filter(|name| !name.is_empty()).map(HeaderValue::from_static);
    content_type.into_iter().map(|value| (CONTENT_TYPE, value)).collect()
}

fn sse(text: &str) -> Box<Watch> {
    watch("/v1beta/models/m:streamGenerateContent?alt=sse", "text/event-stream", text)
}

fn array(text: &str) -> Box<Watch> {
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
    for content_type in ["video/mp4", "application/x-protobuf", "application/pdf", "text/javascript; charset=UTF-8"] {
        assert!(none("/v1beta/models/m:generateContent", content_type), "{content_type}");
    }
    // Only what is generated for the call is read in spite of its type.
    for uri in
        ["/v1beta/models/m:embedContent", "/v1/projects/p/locations/l/publishers/x/models/m:rawPredict", "/other"]
    {
        assert!(none(uri, "text/plain"), "{uri}");
    }
}

const THOUGHT: &str = r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}]}}]}"#;
const MALFORMED: &str =
    r#"{"candidates":[{"content":{"parts":[{"thoughtSignature":"x"}]},"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#;

fn unary(text: &str) -> Box<Watch> {
    watch("/v1beta/models/m:generateContent", "application/json", text)
}

#[test]
fn thoughts_commit_a_stream_and_are_still_no_answer() {
    let watch = sse(&format!("data: {THOUGHT}\n\n"));
    assert_eq!(watch.verdict(), Verdict::Commit);
    let watch = sse(&format!("data: {THOUGHT}\n\ndata: {MALFORMED}\n\n"));
    assert!(!watch.is_cut());
    let failure = watch.empty_at_end().unwrap();
    assert_eq!((failure.kind(), failure.is_after_commit()), (Kind::EmptyMalformedFunctionCall, true));
    // A signature alone does not commit.
    let watch = sse(&format!("data: {MALFORMED}\n\n"));
    assert_eq!(watch.verdict(), Verdict::Undecided);
    assert_eq!(watch.judge_end(b"").unwrap().kind(), Kind::EmptyMalformedFunctionCall);
    let watch = sse(&format!("data: {THOUGHT}\n\ndata: {HELLO}\n\ndata: {MALFORMED}\n\n"));
    assert!(watch.empty_at_end().is_none(), "it had said something");
}

#[test]
fn an_answer_in_one_piece_is_held_until_it_says_more_than_a_thought() {
    let thoughts = r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}"#;
    assert_eq!(unary(thoughts).verdict(), Verdict::Undecided);
    assert_eq!(unary(&format!(r#"{thoughts},{{"text":"a""#)).verdict(), Verdict::Undecided, "its end may say more");
    assert_eq!(unary(&format!(r#"{thoughts},{{"text":"a"}}"#)).verdict(), Verdict::Commit);
    let empty = unary(&format!(r#"{thoughts}]}},"finishReason":"MALFORMED_FUNCTION_CALL"}}]}}"#));
    assert_eq!(empty.verdict(), Verdict::Undecided);
    assert_eq!(empty.judge_end(b"").unwrap().kind(), Kind::EmptyMalformedFunctionCall);
    assert_eq!(unary(thoughts).judge_end(b"").unwrap().kind(), Kind::StreamCut, "it broke off");
}

#[test]
fn a_continuation_is_whole_and_a_limited_account_is_not() {
    let end = |finish: &str| {
        let text = format!(r#"{{"candidates":[{{"continuationToken":"t","finishReason":"{finish}"}}]}}"#);
        let ends = [
            unary(&text).judge_end(text.as_bytes()),
            sse(&format!("data: {text}\n\n")).judge_end(b""),
            sse(&format!("data: {THOUGHT}\n\ndata: {text}\n\n")).empty_at_end(),
        ];
        ends.map(|failure| failure.map(|failure| failure.kind()))
    };
    assert_eq!(end("CONTINUATION"), [None; 3]);
    assert_eq!(end("ESCALATION"), [Some(Kind::ContentBlocked); 3]);
    assert_eq!(end("PUP_LIMITED_DISABLED"), [Some(Kind::AccountLimited); 3]);
}

// === the form, by content ===

#[test]
fn events_are_read_as_events_whatever_their_type_says() {
    const ALT_SSE: &str = "/v1beta/models/m:streamGenerateContent?alt=sse";
    let chat = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let native = format!("data: {HELLO}\n\n");
    for (uri, begun, end) in [
        (ALT_SSE, native.as_str(), format!("data: {STOP}\n\n")),
        ("/v1beta/models/m:generateContent", &native, format!("data: {STOP}\n\n")),
        ("/v1beta/openai/chat/completions", chat, "data: [DONE]\n\n".to_owned()),
        ("/v1beta/interactions", &(created() + &delta()), completed("completed")),
    ] {
        for before in ["", "\u{feff}", "\n\n", ": ping\n\n", "id: 1\n", "retry: 5\n\n"] {
            for content_type in ["application/json", ""] {
                let begun = format!("{before}{begun}");
                let cut = watch(uri, content_type, &begun);
                assert_eq!((cut.verdict(), cut.is_cut()), (Verdict::Commit, true), "{uri}, {content_type}: {begun:?}");
                assert!(cut.is_open_ended(), "an error can follow");
                assert!(!watch(uri, content_type, &(begun + &end)).is_cut(), "{uri}, {content_type}");
            }
        }
    }
    let text = format!("event: ping\ndata: {{}}\n\n{BUSY}\n");
    let tail = watch(ALT_SSE, "application/json", &text);
    assert_eq!(tail.verdict(), Verdict::Failed, "a bare tail");
    assert_eq!(tail.judge_end(text.as_bytes()).unwrap().fault(), Fault::Model);
}

#[test]
fn json_is_read_as_json_whatever_was_asked_for() {
    for uri in ["/v1beta/models/m:streamGenerateContent?alt=sse", "/v1beta/models/m:generateContent"] {
        for content_type in ["application/json", "text/event-stream", ""] {
            for text in [BUSY.to_owned(), format!("[{BUSY}]"), format!("\u{feff}\n{BUSY}")] {
                assert_eq!(watch(uri, content_type, &text).verdict(), Verdict::Failed, "{uri}, {content_type}: {text}");
            }
            let whole = HELLO.replace("}}]}", "},\"finishReason\":\"STOP\"}]}");
            let whole = watch(uri, content_type, &whole);
            assert_eq!((whole.verdict(), whole.is_cut()), (Verdict::Commit, false), "{uri}, {content_type}");
        }
    }
}

const ODD_TYPES: [&str; 6] = [
    "text/plain; charset=utf-8",
    "text/html",
    "application/octet-stream",
    "application/x-ndjson",
    "Application/Problem+JSON",
    "json",
];

#[test]
fn an_answer_of_an_odd_type_is_judged_by_its_content() {
    for content_type in ODD_TYPES {
        for uri in ["/v1beta/models/m:generateContent", "/v1beta/interactions", "/v1beta/openai/chat/completions"] {
            let failed = watch(uri, content_type, BUSY);
            assert_eq!(failed.judge_end(BUSY.as_bytes()).unwrap().fault(), Fault::Model, "{uri}, {content_type}");
        }
        let good = watch("/v1beta/models/m:generateContent", content_type, HELLO);
        assert!(good.holds() && good.verdict() == Verdict::Commit && !good.is_cut(), "{content_type}");
        let text = format!("data: {HELLO}\n\n");
        let cut = watch("/v1beta/models/m:streamGenerateContent?alt=sse", content_type, &text);
        assert_eq!((cut.verdict(), cut.is_cut()), (Verdict::Commit, true), "{content_type}");
    }
}

#[test]
fn text_that_is_neither_json_nor_events_is_no_answer() {
    for content_type in ODD_TYPES.into_iter().chain(["application/json", ""]) {
        for uri in ["/v1beta/models/m:streamGenerateContent?alt=sse", "/v1beta/interactions"] {
            for text in ["<html><body>Sign in</body></html>", "error code: 1020", "what a proxy says"] {
                let page = watch(uri, content_type, text);
                assert_eq!(page.verdict(), Verdict::Failed, "{uri}, {content_type}: {text}");
                let failure = page.judge_end(text.as_bytes()).unwrap();
                assert_eq!((failure.kind(), failure.code().as_u16()), (Kind::EmptyResponse, 502));
                assert!(failure.message().contains("neither JSON nor a stream"), "{failure}");
                // It is noted where it was not held.
                assert!(!page.is_cut() && page.empty_at_end().is_some_and(|failure| failure.is_after_commit()));
            }
        }
    }
}

// === interactions ===

fn interaction(text: &str) -> Box<Watch> {
    watch("/v1beta/interactions", "text/event-stream", text)
}

fn whole_interaction(text: &str) -> Box<Watch> {
    watch("/v1beta/interactions", "application/json", text)
}

/// Writes an event as Google does: its name stands in both places.
fn said(name: &str, members: &str) -> String {
    format!(
        "event: {name}\ndata: {{{members}{}\"event_type\":\"{name}\"}}\n\n",
        if members.is_empty() { "" } else { "," }
    )
}

fn created() -> String {
    let interaction = r#""interaction":{"id":"v1_i","status":"in_progress","object":"interaction","model":"m"}"#;
    said("interaction.created", interaction)
        + &said("interaction.status_update", r#""interaction_id":"v1_i","status":"in_progress""#)
}

fn delta() -> String {
    said("step.start", r#""index":0,"step":{"type":"model_output"}"#)
        + &said("step.delta", r#""index":0,"delta":{"text":"hi","type":"text"}"#)
}

fn completed(status: &str) -> String {
    said(
        "interaction.completed",
        &format!(r#""interaction":{{"id":"v1_i","status":"{status}","usage":{{"total_tokens":3}}}}"#),
    )
}

#[test]
fn the_first_step_that_says_something_commits_an_interaction() {
    assert_eq!(interaction(&created()).verdict(), Verdict::Undecided);
    assert_eq!(interaction(&(created() + &said("step.start", ""))).verdict(), Verdict::Undecided);
    assert_eq!(interaction(&(created() + &delta())).verdict(), Verdict::Commit);
    for content in [
        "event: step.delta\ndata: {\"index\":0,\"delta\":{}}\n\n",
        "data: {\"event_type\":\"content.delta\"}\n\n",
        "event: step.stop\ndata: {}\n\n",
        "data: {\"event_type\":\"something.new\"}\n\n",
    ] {
        assert_eq!(interaction(content).verdict(), Verdict::Commit, "{content}");
    }
    // The name of an event without data is no event.
    assert_eq!(interaction("event: step.delta\n\ndata: {\"event_type\":\"ping\"}\n\n").verdict(), Verdict::Undecided);
}

#[test]
fn the_stream_of_an_interaction_is_whole_with_its_last_event_only() {
    let said_all = created() + &delta() + &said("step.stop", r#""index":0"#);
    assert!(interaction(&said_all).is_cut());
    let status = said("interaction.status_update", r#""interaction_id":"v1_i","status":"completed""#);
    assert!(interaction(&(said_all.clone() + &status)).is_cut());
    for end in [
        completed("completed"),
        completed("requires_action"),
        "event: interaction.complete\ndata: {}\n\n".to_owned(),
        "data: {\"event_type\":\"interaction.complete\"}".to_owned(),
        "event: done\ndata: [DONE]\n\n".to_owned(),
        said("error", r#""error":{"code":"internal","message":"x"}"#),
    ] {
        assert!(!interaction(&(said_all.clone() + &end)).is_cut(), "{end}");
    }
    // Its last event has to be whole, too.
    for end in completed("completed").trim_end().match_indices(|_: char| true).map(|(at, _)| at) {
        assert!(interaction(&(said_all.clone() + &completed("completed")[..end])).is_cut(), "{end}");
    }
    // Before its first content, it is a failure that a status can tell.
    let step = said("step.start", r#""index":0"#);
    let half = completed("completed");
    for opened in [created(), created() + &step, created() + &half[..half.len() / 2]] {
        let failure = interaction(&opened).judge_end(opened.as_bytes()).unwrap();
        assert_eq!((failure.kind(), failure.is_after_commit()), (Kind::StreamCut, false), "{opened}");
        assert!(failure.message().contains("interaction.completed"));
    }
    assert!(cut_stream(&interaction(&said_all)).is_after_commit());
}

#[test]
fn an_interaction_fails_by_its_status() {
    let judged = |members: &str| {
        let text = format!(r#"{{"id":"v1_i",{members}}}"#);
        let watch = whole_interaction(&text);
        assert_eq!(watch.verdict() == Verdict::Failed, watch.findings().error.is_some());
        watch.judge_end(text.as_bytes()).map(|failure| (failure.fault(), failure.kind()))
    };
    for good in [
        "completed",
        "in_progress",
        "requires_action",
        "incomplete",
        "budget_exceeded",
        "queued",
        "requires_continuation",
    ] {
        assert_eq!(judged(&format!(r#""status":"{good}""#)), None, "{good}");
        let errors = format!(r#""status":"{good}","errors":[{{"code":"internal_error","message":"a tool"}}]"#);
        assert_eq!(judged(&errors), None, "{good}, with a fault on record");
    }
    assert_eq!(judged(r#""status":"cancelled""#), Some((Fault::Service, Kind::Cancelled)));
    let failed = Some((Fault::Service, Kind::ServerError));
    assert_eq!(judged(r#""status":"failed""#), failed);
    assert_eq!(judged(r#""status":"failed","errors":[{"message":"odd"}]"#), failed);
    assert_eq!(judged(r#""status":"failed","error":{"code":"internal_error","message":"x"}"#), failed);
    let quota = judged(r#""errors":[{"code":"rate_limit_exceeded","message":"slow down"}],"status":"failed""#);
    assert_eq!(quota.map(|(fault, _)| fault), Some(Fault::Quota));
    let blocked = judged(r#""status":"failed","error":{"code":"prohibited_content","message":"no"}"#);
    assert_eq!(blocked, Some((Fault::Caller, Kind::ContentBlocked)));
}

#[test]
fn an_answer_without_an_interaction_is_empty() {
    let kind = |watch: Box<Watch>, text: &str| watch.judge_end(text.as_bytes()).map(|failure| failure.kind());
    for nothing in ["", " ", "{}", "[]", "null"] {
        assert_eq!(kind(whole_interaction(nothing), nothing), Some(Kind::EmptyResponse), "{nothing:?}");
    }
    for nothing in ["", ": hi\n\n", "data: {}\n\n", "event: ping\ndata: {\"event_type\":\"ping\"}\n\n"] {
        assert_eq!(kind(interaction(nothing), nothing), Some(Kind::EmptyResponse), "{nothing:?}");
    }
    // One that was made has an id and a status, and steps if it has an answer.
    for told in [r#"{"id":"v1_i"}"#, r#"{"status":"in_progress"}"#, r#"{"anything":{"else":1}}"#] {
        assert_eq!(kind(whole_interaction(told), told), None, "{told}");
    }
    assert_eq!(kind(interaction(&created()), &created()), Some(Kind::StreamCut), "it is cut");
}

#[test]
fn an_interaction_that_fails_in_its_stream_is_noted_or_held() {
    let text = created() + &completed("failed");
    let held = interaction(&text);
    assert_eq!(held.verdict(), Verdict::Failed);
    assert_eq!(held.judge_end(text.as_bytes()).unwrap().kind(), Kind::ServerError);
    for end in ["", "event: done\ndata: [DONE]\n\n"] {
        let late = interaction(&(created() + &delta() + &completed("failed") + end));
        let failure = late.late_failure().unwrap();
        assert_eq!((failure.kind(), failure.is_after_commit(), late.is_cut()), (Kind::ServerError, true, false));
        let text = created() + &completed("failed") + end;
        assert_eq!(interaction(&text).judge_end(text.as_bytes()).unwrap().kind(), Kind::ServerError);
    }
    assert_eq!(interaction(&(created() + &completed("completed"))).verdict(), Verdict::Commit);
}

#[test]
fn a_bare_error_in_an_interaction_says_what_it_says() {
    let bare = r#"{"error":{"code":"prohibited_content","message":"The prompt was filtered."}}"#;
    for end in ["\n", "\n\n", ""] {
        let text = format!("{}{bare}{end}", created());
        let watch = interaction(&text);
        assert_eq!(watch.verdict(), Verdict::Failed);
        let failure = watch.judge_end(text.as_bytes()).unwrap();
        assert_eq!((failure.fault(), failure.kind()), (Fault::Caller, Kind::ContentBlocked));
        assert!(!failure.counts_against_upstream() && !failure.same_key_may_help());
    }
    let late = interaction(&format!("{}{}{bare}\n", created(), delta()));
    assert_eq!(late.late_failure().unwrap().kind(), Kind::ContentBlocked);
    assert!(!late.is_cut());
}

#[test]
fn the_reason_for_which_an_interaction_ended_is_its_last_status() {
    assert_eq!(interaction(&(created() + &delta())).finish_reason().as_deref(), None);
    let ended = interaction(&(created() + &delta() + &completed("requires_action")));
    assert_eq!(ended.finish_reason().as_deref(), Some("requires_action"));
    assert_eq!(whole_interaction(r#"{"status":"incomplete"}"#).finish_reason().as_deref(), Some("incomplete"));
}

// === what is watched, and how ===

fn watched(method: Method, uri: &'static str, content_type: &'static str, background: bool) -> Option<Box<Watch>> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(TIER_HEADER, HeaderValue::from_static("flex"));
    let shape = Shape { background, ..Shape::new(&method, &http::Uri::from_static(uri)) };
    Watch::new(shape, &headers, &SizeHint::new())
}

#[test]
fn an_answer_that_says_that_it_streams_is_read_as_a_stream() {
    const VERTEX: &str = "/v1/projects/p/locations/l/publishers/google/models/m:rawPredict";
    const INVOKE: &str = "/v1/projects/p/locations/l/endpoints/1/invoke/chat";
    for uri in [VERTEX, INVOKE, "/v1beta/models/m:generateContent"] {
        let mut watch = watched(Method::POST, uri, "text/event-stream", false).unwrap();
        assert!(watch.holds() && watch.is_open_ended(), "{uri}");
        watch.push(format!("data: {HELLO}\n\n").as_bytes());
        assert_eq!((watch.verdict(), watch.is_cut()), (Verdict::Commit, true), "{uri}");
        watch.push(format!("data: {STOP}\n\n").as_bytes());
        assert!(!watch.is_cut());
    }
    // In another provider's dialect, nothing is known of its content and its end.
    let mut watch = watched(Method::POST, VERTEX, "text/event-stream", false).unwrap();
    watch.push(b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n");
    assert_eq!((watch.verdict(), watch.is_cut()), (Verdict::Commit, false));
    assert!(watch.judge_end(b"").is_none() && watch.empty_at_end().is_none());
}

#[test]
fn an_interaction_that_exists_already_is_followed_and_not_held() {
    const GET: &str = "/v1beta/interactions/v1_i?stream=true";
    let mut watch = watched(Method::GET, GET, "text/event-stream", false).unwrap();
    assert!(!watch.holds());
    watch.push((created() + &delta()).as_bytes());
    assert!(watch.is_cut());
    watch.push(completed("failed").as_bytes());
    assert!(!watch.is_cut() && watch.late_failure().is_none(), "it could be read");
    let mut watch = watched(Method::GET, "/v1beta/interactions/v1_i", "application/json", false).unwrap();
    watch.push(br#"{"id":"v1_i","status":"failed","usage":{"total_tokens":3}}"#);
    assert!(!watch.holds() && !watch.is_cut() && watch.late_failure().is_none());
    assert_eq!((watch.finish_reason().as_deref(), watch.findings().tokens.total), (Some("failed"), Some(3)));

    let mut watch = watched(Method::POST, "/v1beta/interactions", "text/event-stream", true).unwrap();
    assert!(!watch.holds());
    watch.push((created() + &completed("failed")).as_bytes());
    assert_eq!(watch.late_failure().unwrap().kind(), Kind::ServerError);
}

#[test]
fn of_embeddings_and_predictions_only_the_cost_is_read() {
    for (uri, text) in [
        ("/v1beta/models/m:embedContent", r#"{"embedding":{"values":[1]},"usageMetadata":{"promptTokenCount":4}}"#),
        (
            "/v1beta/models/m:batchEmbedContents",
            r#"{"embeddings":[{"values":[1]}],"usageMetadata":{"promptTokenCount":4}}"#,
        ),
        ("/v1beta/openai/embeddings", r#"{"object":"list","data":[],"usage":{"prompt_tokens":4,"total_tokens":4}}"#),
        ("/v1beta/models/m:predict", r#"{"predictions":[{"bytesBase64Encoded":"AA"}],"usage":{"prompt_tokens":4}}"#),
    ] {
        let mut watch = watched(Method::POST, uri, "application/json", false).unwrap();
        assert!(!watch.holds(), "{uri}");
        watch.push(text.as_bytes());
        assert_eq!(watch.findings().tokens.prompt, Some(4), "{uri}");
        assert_eq!(watch.findings().service_tier.as_deref(), Some("flex"));
        assert!(!watch.is_cut() && watch.late_failure().is_none() && watch.empty_at_end().is_none());
        assert_eq!(watch.findings().tokens.of(TokenSide::Input), &[None; 5]);
    }
}

#[test]
fn an_answer_of_no_known_shape_is_never_empty() {
    for (uri, text) in [
        (
            "/v1beta/openai/responses",
            r#"{"id":"r","object":"response","status":"completed","output":[{"type":"message"}]}"#,
        ),
        ("/v1beta/decisions", r#"{"verdicts":{"q":true},"usage":{"total_input_tokens":2}}"#),
    ] {
        assert!(watch(uri, "application/json", text).judge_end(text.as_bytes()).is_none(), "{uri}");
    }
    let blocked = r#"{"prompt_feedback":{"block_reason":"safety"}}"#;
    let failure = watch("/v1beta/decisions", "application/json", blocked).judge_end(blocked.as_bytes()).unwrap();
    assert_eq!(failure.kind(), Kind::ContentBlocked);
    let decided = r#"{"answers":{"q":{"type":"noul"}},"usage":{"total_input_tokens":2}}"#;
    assert_eq!(watch("/v1beta/decisions", "application/json", decided).verdict(), Verdict::Commit);
}

// === cut anywhere ===

/// Says all that a watch returns.
fn all_of(watch: &Watch, held: &[u8]) -> String {
    let kinds = [watch.late_failure(), watch.judge_end(held), watch.empty_at_end()];
    let kinds = kinds.map(|failure| failure.map(|failure| failure.kind()));
    let found = watch.findings();
    let names = [&found.response_id, &found.service_tier, &found.status, &found.model_version, watch.finish_reason()];
    format!("{:?} {} {kinds:?} {names:?} {:?}", watch.verdict(), watch.is_cut(), found.tokens)
}

proptest::proptest! {
    #[test]
    fn cuts_change_nothing(
        picks in proptest::collection::vec(0usize..14, 0..7),
        cuts in proptest::collection::vec(0usize..1500, 0..6),
        size in 1usize..9,
    ) {
        let lines = [
            format!("data: {HELLO}\n\n"),
            format!("data: {STOP}\r\n\r\n"),
            format!("data: {THOUGHT}\n\n"),
            format!("data: {MALFORMED}\n\n"),
            format!("data: {BUSY}\n\n"),
            BUSY.replace(',', ",\n ") + "\n",
            created(),
            delta(),
            completed("completed"),
            completed("failed"),
            "data: [DONE]\n\n".to_owned(),
            "event: message_start\ndata: {\"type\":\"x\",\"message\":[{}]}\n\n".to_owned(),
            "data: {\"usage\":{\"input_tokens_by_modality\":[{\"tokens\":1,\"modality\":\"text\"}]},\"errors\":[{\"code\":5}]}\n\n".to_owned(),
            ": ping\n{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a".to_owned(),
        ];
        let text: String = picks.iter().map(|pick| lines[*pick].as_str()).collect();
        let bytes = text.as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        for (uri, content_type) in [
            ("/v1beta/models/m:generateContent", "application/json"),
            ("/v1beta/models/m:streamGenerateContent?alt=sse", "text/event-stream"),
            ("/v1beta/openai/chat/completions", "text/event-stream"),
            ("/v1beta/interactions", "text/event-stream"),
            ("/v1beta/interactions", "application/json"),
            ("/v1beta/models/m:streamGenerateContent?alt=sse", "application/json"),
        ] {
            let of = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                let mut watch = watched(Method::POST, uri, content_type, false).unwrap();
                pieces.for_each(|piece| watch.push(piece));
                all_of(&watch, bytes)
            };
            let whole = of(&mut [bytes].into_iter());
            assert_eq!(of(&mut bytes.chunks(size)), whole, "{uri} by {size}: {text}");
            assert_eq!(of(&mut cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]])), whole, "{uri} at {cuts:?}: {text}");
        }
    }
}
