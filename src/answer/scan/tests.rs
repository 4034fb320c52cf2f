//! Tests of the scanner of answers.

use super::{super::tokens::Tokens, *};

fn scan(text: &str) -> Scanner {
    let mut scanner = Scanner::new();
    scanner.push(text.as_bytes());
    scanner
}

#[test]
fn an_answer_shows_its_content_its_end_and_its_cost() {
    let scanner = scan(
        r#"{"candidates":[{"content":{"parts":[{"text":"hello \"you\""}],"role":"model"},"finishReason":"STOP","index":0}],
        "usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":7,"totalTokenCount":11,"promptTokensDetails":[{"tokenCount":4}]},
        "modelVersion":"gemini-2.5-flash"}"#,
    );
    let found = &scanner.found;
    assert!(found.content && !scanner.is_open());
    assert_eq!(found.finish_reason.as_deref(), Some("STOP"));
    assert_eq!(found.model_version.as_deref(), Some("gemini-2.5-flash"));
    let tokens = Tokens { prompt: Some(4), candidates: Some(7), total: Some(11), ..Tokens::default() };
    assert_eq!(found.tokens, tokens);
    assert_eq!(found.error, None);
}

#[test]
fn only_a_part_with_something_in_it_is_content() {
    let answer = |part: &str| scan(&format!(r#"{{"candidates":[{{"content":{{"parts":[{part}]}}}}]}}"#)).found.content;
    assert!(answer(r#"{"text":"x"}"#));
    assert!(answer(r#"{"text":"x","thought":true}"#));
    assert!(answer(r#"{"functionCall":{"name":"f","args":{}}}"#));
    assert!(answer(r#"{"inlineData":{"mimeType":"image/png","data":"AAAA"}}"#));
    assert!(!answer(""));
    assert!(!answer("{}"));
    assert!(!answer(r#"{"text":""}"#));
    assert!(!answer(r#"{"thoughtSignature":"abc","text":""}"#));
    assert!(!scan(r#"{"candidates":[{"content":{"role":"model"},"finishReason":"STOP"}]}"#).found.content);
}

#[test]
fn the_open_ai_dialect_is_read_too() {
    let chunk = scan(r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}],"model":"m"}"#);
    assert!(!chunk.found.content);
    assert_eq!(chunk.found.finish_reason, None);
    let whole = scan(
        r#"{"choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"model":"m",
        "usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    );
    assert!(whole.found.content);
    assert_eq!(whole.found.finish_reason.as_deref(), Some("stop"));
    assert_eq!(whole.found.tokens.prompt, Some(3));
    let call = scan(r#"{"choices":[{"delta":{"tool_calls":[{"id":"c"}]}}]}"#);
    assert!(call.found.content);
}

#[test]
fn an_error_is_found_wherever_it_stands_at_the_top() {
    for text in [
        r#"{"error":{"code":503,"message":"over \u0041 loaded","status":"UNAVAILABLE","details":[{"code":1}]}}"#,
        r#"[{"candidates":[]},{"error":{"status":"UNAVAILABLE","code":"503","message":"over A loaded"}}]"#,
    ] {
        let error = scan(text).found.error.unwrap();
        assert_eq!((error.code, error.status.as_deref()), (Some(503), Some("UNAVAILABLE")));
        assert_eq!(error.message.as_deref(), Some("over A loaded"));
    }
    assert!(scan(r#"{"error":"gone"}"#).found.error.is_some());
    assert_eq!(scan(r#"{"error":null,"candidates":[{"error":{"code":1}}]}"#).found.error, None);
    assert_eq!(
        scan(r#"{"error":{"code":"invalid_request"}}"#).found.error.unwrap().status.as_deref(),
        Some("invalid_request")
    );
}

#[test]
fn what_is_open_and_what_is_whole_is_known() {
    assert!(!scan("").is_open());
    assert!(scan(r#"[{"candidates":[]}"#).is_between_values());
    assert!(scan(r#"[{"candidates":[]}"#).is_open());
    assert!(scan(r#"[{"candidates":[]},"#).is_between_values());
    assert!(!scan(r#"[{"candidates":["#).is_between_values());
    assert!(!scan(r#"[{"candidates":[]}]"#).is_open());
    assert!(!scan("<html>").is_open());
}

proptest::proptest! {
    #[test]
    fn cuts_change_nothing(cuts in proptest::collection::vec(0usize..400, 0..8)) {
        let text = r#"[{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a\\":["]","}"]}}},{"text":"a\"b"}],"role":"model"},
            "finishReason":"MAX_TOKENS"}],"usageMetadata":{"promptTokenCount":12,"totalTokenCount":34},"modelVersion":"g\u00e9"},
            {"promptFeedback":{"blockReason":"SAFETY"},"a member with quite a long name":{"x":[1,2,{"y":"\\"}]}}]"#.as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let mut scanner = Scanner::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            scanner.push(&text[from..cut]);
            from = cut;
        }
        let found = scanner.found;
        assert!(found.content);
        assert_eq!(found.finish_reason.as_deref(), Some("MAX_TOKENS"));
        assert_eq!(found.block_reason.as_deref(), Some("SAFETY"));
        assert_eq!(found.model_version.as_deref(), Some("gé"));
        assert_eq!((found.tokens.prompt, found.tokens.total), (Some(12), Some(34)));
    }

    #[test]
    fn no_bytes_panic(chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..40), 0..10)) {
        let mut scanner = Scanner::new();
        for chunk in &chunks {
            scanner.push(chunk);
        }
    }

    #[test]
    fn no_json_like_text_panics(text in r#"[\[\]{}",:\\ a0]{0,200}"#) {
        scan(&text);
    }
}
