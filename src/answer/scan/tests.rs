//! Tests of the scanner of answers.

use super::{
    super::tokens::{TokenSide, Tokens},
    *,
};

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
    assert_eq!((found.tokens.prompt, found.tokens.candidates, found.tokens.total), (Some(4), Some(7), Some(11)));
    // An element without a modality says nothing.
    assert_eq!(found.tokens.of(TokenSide::Input), &[None; 5]);
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

#[test]
fn a_thought_commits_and_is_no_answer() {
    let part = |part: &str| {
        let found = scan(&format!(r#"{{"candidates":[{{"content":{{"parts":[{part}]}}}}]}}"#)).found;
        (found.content, found.answer)
    };
    assert_eq!(part(r#"{"text":"x"}"#), (true, true));
    assert_eq!(part(r#"{"text":"x","thought":false}"#), (true, true));
    assert_eq!(part(r#"{"text":"x","thought":true}"#), (true, false));
    assert_eq!(part(r#"{"thought": true, "text":"x"}"#), (true, false));
    assert_eq!(part(r#"{"text":"x","thought":true,"thoughtSignature":"s"}"#), (true, false));
    assert_eq!(part(r#"{"thought":true,"inlineData":{"data":"AA"}}"#), (true, false));
    assert_eq!(part(r#"{"thoughtSignature":"x"}"#), (false, false));
    assert_eq!(part(r#"{"thought_signature":"x","text":""}"#), (false, false));
    // The mark of one part is not that of the next.
    assert_eq!(part(r#"{"text":"x","thought":true},{"text":"y"}"#), (true, true));
    assert_eq!(part(r#"{"text":"x"},{"text":"y","thought":true}"#), (true, true));
    // Only the end of a part shows that it is no thought.
    assert_eq!(part(r#"{"text":"x""#), (true, false));

    let delta = |delta: &str| {
        let found = scan(&format!(r#"{{"choices":[{{"delta":{{{delta}}},"index":0}}]}}"#)).found;
        (found.content, found.answer)
    };
    assert_eq!(delta(r#""content":"x""#), (true, true));
    assert_eq!(delta(r#""reasoning_content":"x","content":"""#), (true, false));
    assert_eq!(delta(r#""content":"x","extra_content":{"google":{"thought":true}}"#), (true, false));
    assert_eq!(delta(r#""content":null,"tool_calls":[]"#), (false, false));
    assert_eq!(delta(r#""content":null,"tool_calls":[ {"id":"c"}]"#), (true, true));
    assert_eq!(delta(r#""content":[ ]"#), (false, false));
    assert!(scan(r#"{"choices":[{"text":"x","index":0}]}"#).found.answer, "a completion of the old kind");
}

/// Scans an answer at once, and again byte by byte.
fn tokens(text: &str) -> Tokens {
    let mut single = Scanner::new();
    text.as_bytes().chunks(1).for_each(|byte| single.push(byte));
    let whole = scan(text).found;
    assert_eq!(whole.tokens, single.found.tokens);
    whole.tokens
}

#[test]
fn the_cost_is_read_in_each_dialect() {
    let some = |text, image, audio, video, document| [text, image, audio, video, document];
    let gemini = tokens(
        r#"{"candidates":[],"usageMetadata":{"promptTokenCount":300,"candidatesTokenCount":20,"thoughtsTokenCount":5,
        "cachedContentTokenCount":100,"toolUsePromptTokenCount":7,"totalTokenCount":332,
        "promptTokensDetails":[{"modality":"TEXT","tokenCount":42},{"tokenCount":258,"modality":"IMAGE"}],
        "cacheTokensDetails":[{"modality":"TEXT","tokenCount":100}],
        "candidatesTokensDetails":[{"modality":"AUDIO","tokenCount":20}],
        "toolUsePromptTokensDetails":[{"modality":"TEXT","tokenCount":7}],"serviceTier":"flex"}}"#,
    );
    assert_eq!((gemini.prompt, gemini.candidates, gemini.thoughts), (Some(300), Some(20), Some(5)));
    assert_eq!((gemini.cached, gemini.tool_use_prompt, gemini.total), (Some(100), Some(7), Some(332)));
    assert_eq!(gemini.of(TokenSide::Input), &some(Some(42), Some(258), None, None, None));
    assert_eq!(gemini.of(TokenSide::Output), &some(None, None, Some(20), None, None));
    assert_eq!(gemini.of(TokenSide::Cached), &some(Some(100), None, None, None, None));

    let embedding = tokens(
        r#"{"embedding":{"values":[0.25,-1e-3]},"usageMetadata":{"promptTokenCount":9,"responseTokenCount":1,
        "promptTokensDetails":[{"modality":"VIDEO","tokenCount":9}],
        "responseTokensDetails":[{"modality":"TEXT","tokenCount":1}]}}"#,
    );
    assert_eq!((embedding.prompt, embedding.candidates), (Some(9), Some(1)));
    assert_eq!(embedding.of(TokenSide::Input), &some(None, None, None, Some(9), None));
    assert_eq!(embedding.of(TokenSide::Output), &some(Some(1), None, None, None, None));

    let usage = r#"{"total_input_tokens":50,"initial_input_tokens":20,"total_output_tokens":7,"total_thought_tokens":3,
        "total_cached_tokens":10,"total_tool_use_tokens":4,"total_tokens":64,
        "input_tokens_by_modality":[{"modality":"text","tokens":30},{"modality":"document","tokens":20}],
        "output_tokens_by_modality":[{"modality":"text","tokens":7}],
        "cached_tokens_by_modality":[{"modality":"text","tokens":10}],
        "tool_use_tokens_by_modality":[{"modality":"text","tokens":4}],
        "grounding_tool_count":[{"type":"google_search","count":1}]}"#;
    for interaction in [
        format!(r#"{{"id":"v1_i","usage":{usage},"steps":[{{"type":"model_output"}}]}}"#),
        format!(r#"{{"interaction":{{"id":"v1_i","usage":{usage}}},"event_type":"interaction.completed"}}"#),
        format!(r#"{{"index":1,"event_type":"step.stop","usage":{usage}}}"#),
        format!(r#"{{"event_type":"step.delta","metadata":{{"total_usage":{usage}}},"delta":{{}}}}"#),
    ] {
        let interaction = tokens(&interaction);
        assert_eq!((interaction.prompt, interaction.initial, interaction.candidates), (Some(50), Some(20), Some(7)));
        assert_eq!((interaction.thoughts, interaction.cached), (Some(3), Some(10)));
        assert_eq!((interaction.tool_use_prompt, interaction.total), (Some(4), Some(64)));
        assert_eq!(interaction.of(TokenSide::Input), &some(Some(30), None, None, None, Some(20)));
        assert_eq!(interaction.of(TokenSide::Output), &some(Some(7), None, None, None, None));
        assert_eq!(interaction.of(TokenSide::Cached), &some(Some(10), None, None, None, None));
    }

    for openai in [
        r#"{"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42,
        "prompt_tokens_details":{"cached_tokens":16,"audio_tokens":2},
        "completion_tokens_details":{"reasoning_tokens":8,"audio_tokens":null,"text_tokens":4}}}"#,
        r#"{"object":"response","output":[],"usage":{"input_tokens":30,"output_tokens":12,"total_tokens":42,
        "input_tokens_details":{"cached_tokens":16,"audio_tokens":2},
        "output_tokens_details":{"reasoning_tokens":8,"text_tokens":4}}}"#,
    ] {
        let openai = tokens(openai);
        assert_eq!((openai.prompt, openai.candidates, openai.total), (Some(30), Some(12), Some(42)));
        assert_eq!((openai.cached, openai.thoughts), (Some(16), Some(8)));
        assert_eq!(openai.of(TokenSide::Input), &some(None, None, Some(2), None, None));
        assert_eq!(openai.of(TokenSide::Output), &some(Some(4), None, None, None, None));
    }
}

#[test]
fn of_counts_that_grow_the_last_list_counts() {
    let mut scanner = Scanner::new();
    let chunk = |text: u64| {
        format!(r#"{{"usageMetadata":{{"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{text}}}]}}}}"#)
    };
    scanner.push(chunk(4).as_bytes());
    let version = scanner.found.version;
    scanner.reset();
    scanner.push(chunk(4).as_bytes());
    assert_eq!(scanner.found.version, version, "nothing has changed");
    scanner.reset();
    scanner.push(r#"{"usageMetadata":{"promptTokensDetails":[{"modality":"AUDIO","tokenCount":5}]}}"#.as_bytes());
    assert_eq!(scanner.found.tokens.of(TokenSide::Input), &[None, None, Some(5), None, None]);
    assert!(scanner.found.version > version);
}

#[test]
fn names_of_an_answer_are_found() {
    let found = scan(
        r#"{"id":"v1_i","object":"interaction","status":"completed","previous_interaction_id":"v1_h","model":"gemini-3.8-flash",
        "service_tier":"priority","steps":[{"id":"not this","status":"nor this"}]}"#,
    )
    .found;
    let names = [&found.response_id, &found.previous_interaction_id, &found.status, &found.service_tier];
    assert_eq!(names.map(Option::as_deref), [Some("v1_i"), Some("v1_h"), Some("completed"), Some("priority")]);
    assert_eq!(scan(r#"{"responseId":"r","candidates":[]}"#).found.response_id.as_deref(), Some("r"));
    assert_eq!(
        scan(r#"{"usageMetadata":{"trafficType":"ON_DEMAND_FLEX"}}"#).found.service_tier.as_deref(),
        Some("ON_DEMAND_FLEX")
    );
}

#[test]
fn faults_of_an_interaction_are_kept_apart_from_its_error() {
    let found = scan(
        r#"{"status":"failed","errors":[{"code":"internal_error","message":"first"},{"code":"other","message":"second"}],"error":null}"#,
    )
    .found;
    assert_eq!(found.error, None);
    let fault = found.fault.unwrap();
    assert_eq!((fault.status.as_deref(), fault.message.as_deref()), (Some("internal_error"), Some("first")));
    assert!(fault.whole);
}

#[test]
fn what_is_of_no_known_shape_is_known_to_be_so() {
    let foreign = |text: &str| scan(text).found.is_foreign();
    for known in [
        "{}",
        "[]",
        r#"{"usageMetadata":{}}"#,
        r#"{"candidates":null,"usage":null}"#,
        r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[],"x_proxy":{"a":1}}"#,
        r#"{"response":{"candidates":[]},"traceId":"t","anything":1}"#,
        r#"{"answers":{"q":{"type":"score"}},"usage":{"total_input_tokens":3}}"#,
        r#"{"error":{"code":1}}"#,
    ] {
        assert!(!foreign(known), "{known}");
    }
    for unknown in [
        r#"{"type":"message_start","message":{"usage":{"input_tokens":1}}}"#,
        r#"{"predictions":[]}"#,
        r#"{"id":"r","object":"response","output":[]}"#,
        r#"[{"outputs":[]}]"#,
    ] {
        assert!(foreign(unknown), "{unknown}");
    }
    assert!(scan(r#"{"answers":{"q":{"type":"score"}}}"#).found.answer, "those of a decision");
}

#[test]
fn tokens_with_which_an_answer_goes_on_are_known_by_their_hash_at_any_length() {
    let long = format!("{}\\u003d\\/", "abc".repeat(1_000));
    let hash = |token: &str| TokenHash::default().push(format!("{token}\"").as_bytes()).unwrap().0;
    let answer = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x","functionCall":{{"args":{{"continuationToken":"no"}}}}}}]}},
        "finishReason":"CONTINUATION","continuationToken":"{long}"}},{{"continuationToken":"b"}},{{"continuationToken":"b"}}],
        "continuation_token":"c","continuationToken":null}}"#
    );
    let expected = [hash(&format!("{}=/", "abc".repeat(1_000))), hash("b"), hash("c")];
    for size in [1, 7, 512, answer.len()] {
        let mut scanner = Scanner::new();
        answer.as_bytes().chunks(size).for_each(|piece| scanner.push(piece));
        assert_eq!(scanner.found.continuations, expected, "{size}");
        assert!(!scanner.is_open() && !scanner.found.is_foreign());
    }
    let many: Vec<_> = (0..20).map(|nth| format!(r#"{{"continuationToken":"{nth}"}}"#)).collect();
    assert_eq!(scan(&format!(r#"{{"candidates":[{}]}}"#, many.join(","))).found.continuations.len(), 8);
}

proptest::proptest! {
    #[test]
    fn cuts_change_nothing(cuts in proptest::collection::vec(0usize..400, 0..8)) {
        let text = r#"[{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a\\":["]","}"]}}},{"text":"a\"b"}],"role":"model"},
            "finishReason":"MAX_TOKENS"}],"usageMetadata":{"promptTokensDetails":[{"modality":"TEXT","tokenCount":12}],"promptTokenCount":12,"totalTokenCount":34},"modelVersion":"g\u00e9"},
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
