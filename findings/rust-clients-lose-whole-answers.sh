#!/usr/bin/env bash
# Rust's typed Gemini clients lose an answer, text and all, when one word in it is new to them.
#
# Guess: an unknown finish reason becomes "other", an unknown part is skipped, and a prompt that was blocked is an answer without candidates.
# Is: of the 24 finish reasons that Google's own SDK knows, gemini-rust fails on 10, gemini-rs and gemini-client-api on 12, with a
#   parse error in place of the answer's text; among them MALFORMED_RESPONSE, MODEL_ARMOR, CONTINUATION and NO_IMAGE. adk-gemini takes all
#   as OTHER. A part that has a thoughtSignature alone (it ends streams of Gemini 3) fails in three of the four. The answer to a
#   blocked prompt has no candidates and often no safetyRatings: no answer for gemini-rs and gemini-client-api.
#   async-openai takes no "function_call_filter: MALFORMED_FUNCTION_CALL", as the compatible endpoint says.
# Version: gemini-rust 2.1.0, gemini-rs 2.0.1, gemini-client-api 7.7.1, adk-gemini 2.3.0, async-openai 0.43.0.
# Matters: a 200 that this crate judges as good, empty or blocked is a parse error to its caller, who sends it again, and pays again.
#   Read answers as serde_json::Value, or keep the body. Whatever a relay makes up itself should use the oldest words.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
gemini-rust = "=2.1.0"
gemini-rs = "=2.0.1"
gemini-client-api = "=7.7.1"
adk-gemini = "=2.3.0"
async-openai = { version = "=0.43.0", default-features = false, features = ["chat-completion-types"] }
serde_json = "1"
[profile.dev]
debug = 0
EOF
cat > src/main.rs <<'EOF'
#![allow(deprecated)] // gemini-rust steers towards Interactions; this is the answer of generateContent.
use serde_json::{from_value, json, Value};

const REASONS: [&str; 24] = [
    "FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT",
    "SPII", "MALFORMED_FUNCTION_CALL", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_OTHER", "NO_IMAGE", "IMAGE_RECITATION",
    "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE", "ESCALATION",
    "PUP_LIMITED_DISABLED", "CONTINUATION", "MODEL_ARMOR",
];

fn answer(parts: Value, reason: &str) -> Value {
    let usage = json!({"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3});
    let candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0, "finishReason": reason});
    json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.8-flash", "responseId": "r"})
}

fn check(name: &str, reads: impl Fn(Value) -> bool, expected: (usize, bool, bool)) {
    let text = json!([{"text": "the answer"}]);
    assert!(reads(answer(text.clone(), "STOP")));
    let failed: Vec<_> = REASONS.iter().filter(|reason| !reads(answer(text.clone(), reason))).collect();
    let signature = reads(answer(json!([{"thoughtSignature": "eA=="}]), "STOP"));
    let (usage, feedback) = (json!({"promptTokenCount": 1, "totalTokenCount": 1}), json!({"blockReason": "PROHIBITED_CONTENT"}));
    let blocked = reads(json!({"promptFeedback": feedback, "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}));
    println!("{name}: fails on {} reasons {failed:?}; reads a signature alone: {signature}, a blocked prompt: {blocked}", failed.len());
    assert_eq!((failed.len(), signature, blocked), expected);
}

fn main() {
    check("gemini-rust 2.1.0", |v| from_value::<gemini_rust::GenerationResponse>(v).is_ok(), (10, false, true));
    check("gemini-rs 2.0.1", |v| from_value::<gemini_rs::types::Response>(v).is_ok(), (12, true, false));
    let reads = |v| from_value::<gemini_client_api::gemini::types::response::GeminiResponse>(v).is_ok();
    check("gemini-client-api 7.7.1", reads, (12, false, false));
    check("adk-gemini 2.3.0", |v| from_value::<adk_gemini::GenerationResponse>(v).is_ok(), (0, false, true));
    for (reason, expected) in [("stop", true), ("function_call_filter: MALFORMED_FUNCTION_CALL", false)] {
        let choice = json!({"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": "the answer"}});
        let body = json!({"id": "r", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]});
        let read = from_value::<async_openai::types::chat::CreateChatCompletionResponse>(body).is_ok();
        println!("async-openai 0.43.0: reads finish_reason {reason:?}: {read}");
        assert_eq!(read, expected);
    }
    println!("as expected");
}
EOF
cargo run --quiet
