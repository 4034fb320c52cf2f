//! Tests of the parser of error envelopes.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    read::{MOST_MESSAGE, MOST_NAME, MOST_VIOLATIONS},
    *,
};

fn parse(body: &str) -> Status {
    Status::parse(body.as_bytes())
}

fn delay(status: &Status) -> Option<f64> {
    status.retry_delay().map(|hint| hint.delay().as_secs_f64())
}

/// The shape of the Developer API, with everything in it.
const QUOTA: &str = r#"{
  "error": {
    "code": 429,
    "message": "You exceeded your current quota.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 20, model: gemini-2.5-flash\nPlease retry in 42.921954507s.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
      {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
          {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
            "quotaValue": "20"
          },
          {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}
        ]
      },
      {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com"},
      {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "42s"}
    ]
  }
}"#;

fn assert_quota(status: &Status) {
    assert!(status.is_google());
    assert_eq!(status.code(), Some(429));
    assert_eq!(status.status(), Some("RESOURCE_EXHAUSTED"));
    assert!(status.message().starts_with("You exceeded your current quota."));
    assert_eq!((status.reason(), status.domain()), (Some("RATE_LIMIT_EXCEEDED"), Some("googleapis.com")));
    assert_eq!(status.model(), Some("gemini-2.5-flash"));
    assert_eq!(delay(status), Some(42.921954507));
    let [day, minute] = status.violations() else { panic!("{:?}", status.violations()) };
    assert_eq!(day.quota_id(), Some("GenerateRequestsPerDayPerProjectPerModel-FreeTier"));
    assert!(day.quota_metric().unwrap().ends_with("free_tier_requests"));
    assert_eq!((day.value(), minute.value()), (Some(20), Some(0)));
    assert_eq!(status.message_limit(), MessageLimit { zero: false, value: Some(20) });
}

#[test]
fn the_same_error_is_read_from_every_envelope() {
    let compact = serde_json::from_str::<serde_json::Value>(QUOTA).unwrap().to_string();
    let wrapped =
        serde_json::json!({"error": {"message": QUOTA, "code": 429, "status": "Too Many Requests"}}).to_string();
    let twice = serde_json::json!({"error": {"message": wrapped, "type": "upstream_error"}}).to_string();
    let upstream =
        format!(r#"{{"error": {{"message": "failed", "type": "api_error", "upstreamResponse": {compact}}}}}"#);
    let raw =
        serde_json::json!({"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": compact}}});
    for (body, envelope) in [
        (QUOTA.to_owned(), Envelope::Object),
        (format!("\u{feff}\r\n {QUOTA}\n"), Envelope::Object),
        (format!("[{QUOTA}\n]"), Envelope::Array),
        (format!(r#"[{{"candidates": []}}, {QUOTA}]"#), Envelope::Array),
        (format!("event: error\ndata: {compact}\n\n"), Envelope::Event),
        (format!("data: {{\"candidates\": []}}\n\n: ping\n\nid: 7\ndata: {compact}\n\n"), Envelope::Event),
        (format!("data: {{\"candidates\": []}}\n\n{QUOTA}"), Envelope::Event),
        (format!("data: {QUOTA}"), Envelope::Event),
        (format!("got status: 429 Too Many Requests. {QUOTA}"), Envelope::Text),
        (format!("[429 Too Many Requests] {compact}"), Envelope::Text),
        (format!("VertexAIException - b'{}'", QUOTA.replace('\n', "\\n").replace("\\\\n", "\\n")), Envelope::Text),
        (wrapped, Envelope::Object),
        (twice, Envelope::Object),
        (upstream, Envelope::Object),
        (raw.to_string(), Envelope::Object),
    ] {
        let status = parse(&body);
        assert_eq!(status.envelope(), envelope, "{body}");
        assert_quota(&status);
    }
}

#[test]
fn python_quotes_are_read() {
    let status = parse(
        "429 RESOURCE_EXHAUSTED. {'error': {'code': 429, 'message': \"it's gone\", 'status': None, 'details': []}}",
    );
    assert_eq!((status.code(), status.message(), status.status()), (Some(429), "it's gone", None));
}

#[test]
fn interactions_have_a_string_for_a_code() {
    let status = parse(r#"{"error": {"code": "invalid_request", "message": "no such tool"}}"#);
    assert_eq!(status.envelope(), Envelope::Interactions);
    assert_eq!((status.status(), status.code(), status.message()), (Some("invalid_request"), None, "no such tool"));

    let event = parse(
        "event: error\ndata: {\"error\":{\"message\":\"gone\",\"code\":\"not_found\"},\"event_type\":\"error\"}\n\n",
    );
    assert_eq!((event.envelope(), event.status()), (Envelope::Event, Some("not_found")));
}

#[test]
fn what_others_make_of_an_error_is_read_for_its_words() {
    for (body, message, google) in [
        (r#"{"error": "upstream is down"}"#, "upstream is down", false),
        (r#"{"error": "Not Found", "message": "no such path", "status": 404}"#, "no such path", false),
        (r#"{"message": "no Route matched"}"#, "no Route matched", false),
        (r#"{"detail": "Not Found"}"#, "Not Found", false),
        (r#"{"detail": [{"loc": ["body"], "msg": "field required"}]}"#, "field required", false),
        (r#"{"errors": [{"message": "first"}, {"message": "second"}]}"#, "first", false),
        (
            r#"{"error": {"message": "Incorrect API key", "type": "auth", "code": "invalid_api_key"}}"#,
            "Incorrect API key",
            true,
        ),
        (r#"{"code": 13, "message": "operation failed", "status": "INTERNAL"}"#, "operation failed", true),
        ("just words", "just words", false),
        ("error code: 502", "error code: 502", false),
    ] {
        let status = parse(body);
        assert_eq!((status.message(), status.is_google()), (message, google), "{body}");
    }
    assert_eq!(parse(r#"{"message": "x", "statusCode": 429}"#).code(), Some(429));
    assert_eq!(parse("").envelope(), Envelope::Empty);
    assert_eq!(parse("  \n").envelope(), Envelope::Empty);
    let page =
        parse("<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1>nginx</body></html>");
    assert_eq!((page.envelope(), page.message()), (Envelope::Html, "502 Bad Gateway 502 Bad Gateway nginx"));
}

#[test]
fn mistyped_members_are_read_as_what_they_mean() {
    let status = parse(
        r#"{"error": {"code": "429", "message": ["no"], "status": 7, "details": {
            "violations": {"quotaId": "XPerDay", "quotaValue": 250, "quotaDimensions": []},
            "retryDelay": {"seconds": "37", "nanos": 5}, "reason": {}, "metadata": "none"}}}"#,
    );
    assert_eq!(status.code(), Some(429));
    assert_eq!(status.message(), "");
    assert_eq!(status.violations()[0].value(), Some(250));
    assert_eq!(status.retry_delay(), Some(Hint::exact(Duration::new(37, 5))));

    let duplicates = parse(r#"{"error": {"code": 500, "code": 503, "code": null, "message": "a", "message": "b"}}"#);
    assert_eq!((duplicates.code(), duplicates.message()), (Some(503), "b"));
    // A google.rpc code.
    assert_eq!(parse(r#"{"error": {"code": 8, "message": "x"}}"#).code(), Some(429));
    for code in ["200", "0", "-5", "1e99", "99999999999999999999", "[]", "true"] {
        assert_eq!(parse(&format!(r#"{{"error": {{"code": {code}, "message": "x"}}}}"#)).code(), None, "{code}");
    }
}

#[test]
fn details_count_by_their_members_in_any_order() {
    let status = parse(
        r#"{"error": {"details": [{"retryDelay": "3s", "@type": "x"}, null, 5, "text",
            {"metadata": {"quotaResetDelay": "161h39m41.300432511s", "model": "gemini-3-pro"}, "reason": "QUOTA_EXHAUSTED"}],
            "status": "RESOURCE_EXHAUSTED", "code": 429}}"#,
    );
    assert_eq!(status.reason(), Some("QUOTA_EXHAUSTED"));
    assert_eq!(status.model(), Some("gemini-3-pro"));
    assert_eq!(delay(&status), Some(581_981.300432511));

    let fields = parse(
        r#"{"error": {"code": 400, "details": [{"fieldViolations": [{"field": "f", "description": "Cannot find field."}]}]}}"#,
    );
    assert_eq!(fields.message(), "Cannot find field.");
    let older = parse(
        r#"{"error": {"code": 429, "errors": [{"reason": "rateLimitExceeded"}], "details": [{"reason": "RATE_LIMIT_EXCEEDED",
            "metadata": {"quota_limit": "GenerateRequestsPerMinutePerProject", "quota_limit_value": "60"}}]}}"#,
    );
    assert_eq!(older.legacy_reason(), Some("rateLimitExceeded"));
    assert_eq!(older.violations()[0].quota_id(), Some("GenerateRequestsPerMinutePerProject"));
    assert_eq!(older.violations()[0].value(), Some(60));
}

#[test]
fn an_absent_value_is_zero_only_where_the_violation_was_closed() {
    let whole = r#"{"error": {"details": [{"violations": [{"quotaId": "PerDay"}"#;
    assert_eq!(parse(whole).violations()[0].value(), Some(0));
    let cut = r#"{"error": {"details": [{"violations": [{"quotaId": "PerDay""#;
    assert_eq!(parse(cut).violations()[0].value(), None);
    // The oldest shape does not name the quota.
    assert!(
        parse(r#"{"error": {"details": [{"violations": [{"subject": "x", "description": "y"}]}]}}"#)
            .violations()
            .is_empty()
    );
}

#[test]
fn prose_with_brackets_is_no_wrapped_error() {
    for message in [
        "* GenerateContentRequest.contents[33].parts[0].data: required oneof field 'data' must have one initialized field",
        "Invalid JSON payload received. Unknown name \\\"code\\\" at 'x': {\\\"code\\\": 503, \\\"message\\\": \\\"mine\\\"}",
    ] {
        let status =
            parse(&format!(r#"{{"error": {{"code": 400, "message": "{message}", "status": "INVALID_ARGUMENT"}}}}"#));
        assert_eq!((status.code(), status.status()), (Some(400), Some("INVALID_ARGUMENT")));
        assert_eq!(status.message(), message.replace('\\', ""));
    }
}

#[test]
fn a_key_is_redacted_wherever_it_stands() {
    let key = "AIzaSyA-0123456789_abcdefghijklmnopqrst";
    // The second one is written with an escape.
    let body = format!(
        r#"{{"error": {{"code": 403, "status": "{key}", "message": "Consumer 'api_key:{key}' and \u0041{}",
            "details": [{{"reason": "{key}", "metadata": {{"model": "{key}", "quota_limit": "{key}"}}}}]}}}}"#,
        &key[1..],
    );
    let status = parse(&body);
    assert!(status.message().contains("Consumer 'api_key:[redacted]'"));
    assert!(!format!("{status:?}").contains(&key[1..]));
    assert!(!format!("{:?}", parse(&format!("<html>{key}"))).contains(key));
}

#[test]
fn everything_is_capped() {
    let long = "€".repeat(30_000);
    let status = parse(&format!(r#"{{"error": {{"message": "{long}", "status": "{long}"}}}}"#));
    assert!(status.message().len() <= MOST_MESSAGE && status.message().chars().all(|c| c == '€' || c == '\u{fffd}'));
    let reason = "R".repeat(5_000);
    let many = r#"{"quotaId": "PerDay"},"#.repeat(1_000);
    let status = parse(&format!(r#"{{"error": {{"details": [{{"reason": "{reason}", "violations": [{many}]}}]}}}}"#));
    assert_eq!(status.violations().len(), MOST_VIOLATIONS);
    assert_eq!(status.reason().unwrap().len(), MOST_NAME);
    // The wait stands at the end of the message, past the cap.
    let late = format!("{{\"error\": {{\"message\": \"{} Please retry in 1.5s.\"}}}}", "x".repeat(10_000));
    assert_eq!(delay(&parse(&late)), Some(1.5));
}

#[test]
fn absurd_nesting_is_survived() {
    for piece in
        ["{\"error\":", "[", "{\"a\":[", "{\"error\":{\"details\":[", "data: ", "data: {\"error\":\n", "{", "\"", "\\"]
    {
        let body = piece.repeat(MOST_READ / piece.len() + 1);
        let _ = parse(&body);
        let _ = parse(&format!("x {body}"));
        let _ = parse(&format!("{{\"error\":{{\"message\":{body}"));
    }
    let deep = format!("{{\"error\":{{\"x\":{}{}, \"code\": 503}}}}", "[".repeat(9_000), "]".repeat(9_000));
    assert_eq!(parse(&deep).code(), Some(503));
}

#[test]
fn bytes_that_are_no_text_are_survived() {
    let mut body = br#"{"error": {"code": 503, "message": "bad "#.to_vec();
    body.extend([0xff, 0xfe, 0x80]);
    body.extend(br#"bytes", "status": "UNAVAILABLE"}}"#);
    let status = Status::parse(&body);
    assert_eq!((status.code(), status.status()), (Some(503), Some("UNAVAILABLE")));
    assert!(status.message().starts_with("bad ") && status.message().ends_with("bytes"));
}

#[test]
fn a_cut_body_never_says_anything_else_than_the_whole() {
    let whole = parse(QUOTA);
    let mut known = 0;
    for end in 0..QUOTA.len() {
        let Some(cut) = QUOTA.get(..end) else { continue };
        let cut = parse(cut);
        assert!(cut.code().is_none_or(|code| code == 429), "{end}");
        assert!(whole.message().starts_with(cut.message()) || !cut.is_google(), "{end}");
        assert!(cut.status().is_none_or(|status| "RESOURCE_EXHAUSTED".starts_with(status)), "{end}");
        assert!(cut.retry_delay().is_none_or(|hint| hint == whole.retry_delay().unwrap()), "{end}");
        for violation in cut.violations().iter().take(1) {
            assert!(violation.value().is_none_or(|value| value == 20 || value == 2), "{end}");
        }
        // A longer prefix never loses what a shorter one gave.
        let facts =
            [cut.code().is_some(), cut.retry_delay().is_some(), !cut.violations().is_empty(), cut.reason().is_some()];
        let count = facts.iter().filter(|fact| **fact).count();
        assert!(count >= known, "{end}");
        known = count;
    }
    assert_eq!(known, 4);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Status::parse(&body);
    }

    #[test]
    fn mutations_of_an_error_are_survived(
        edits in proptest::collection::vec((0..QUOTA.len(), any::<u8>(), 0usize..3), 0..40),
        cut in 0..QUOTA.len(),
    ) {
        let mut body = QUOTA.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.min(body.len() - 1);
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ if body.len() > 1 => { body.remove(at); }
                _ => {}
            }
        }
        let _ = Status::parse(&body);
        body.truncate(cut);
        let status = Status::parse(&body);
        prop_assert!(status.message().len() <= MOST_MESSAGE);
    }

    #[test]
    fn json_of_any_shape_is_survived(pieces in proptest::collection::vec(prop_oneof![
        Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\"error\""), Just("\"code\""), Just("429"),
        Just("\"message\""), Just("\"details\""), Just("\"retryDelay\""), Just("\"9s\""), Just("null"), Just("'"), Just("\\"),
        Just("\\u12"), Just("\"{\\\"error\\\":"), Just("data: "), Just("\n"), Just("<p>"), Just("&amp"), Just("retry in 5"),
    ], 0..60)) {
        let _ = parse(&pieces.concat());
    }
}
