//! Tests of the crate's judgement against real error responses.
//!
//! `TOWER_GEMINI_CORPUS=path/to/errors.jsonl cargo test -p diagnose --test corpus -- --nocapture` reads a file of real
//! responses with the expected verdicts, one JSON object a line, and prints every field that differs. Without the
//! variable it does nothing: the crate's own fixtures stand beside the judge, in `src/failure/tests.rs`.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../src/answer.rs"]
mod answer;

use std::collections::BTreeMap;

use serde_json::Value;
use tower_gemini::{failure::Failure, quota::Dimension};

/// The least percentage of right values of each field, in responses that were not written for this crate.
const ENOUGH: usize = 95;

const FIELDS: [&str; 7] = [
    "fault",
    "retryable_same_key",
    "retryable_other_key",
    "retryable_other_model",
    "retry_after_s",
    "quota_scope",
    "counts_as_breaker_failure",
];

#[test]
fn real_responses_are_judged_as_their_readers_judged_them() {
    let Some(path) = std::env::var_os("TOWER_GEMINI_CORPUS") else {
        eprintln!("TOWER_GEMINI_CORPUS is not set: skipped");
        return;
    };
    let lines = std::fs::read_to_string(path).unwrap();
    let score = Score::of(&lines);
    assert!(score.all > 0);
    for field in FIELDS {
        let right = score.right[field];
        eprintln!("{field}: {right} of {}", score.all);
        assert!(right * 100 >= score.all * ENOUGH, "{field}: {right} of {}", score.all);
    }
}

#[derive(Default)]
struct Score {
    all: usize,
    right: BTreeMap<&'static str, usize>,
}

impl Score {
    fn of(lines: &str) -> Self {
        let mut score = Self { all: 0, right: FIELDS.map(|field| (field, 0)).into() };
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let case: Value = serde_json::from_str(line).unwrap();
            let (expected, found) = (&case["expected"], verdict(&case));
            score.all += 1;
            for field in FIELDS {
                if matches(&expected[field], &found[field]) {
                    *score.right.entry(field).or_default() += 1;
                } else {
                    eprintln!("{}: {field} is {}, expected {}", case["id"], found[field], expected[field]);
                }
            }
            let class = expected["class"].as_str().unwrap_or_default();
            if !class.starts_with("stream_error") && found["kind"] != class {
                eprintln!("{}: kind {} for class {class}", case["id"], found["kind"]);
            }
        }
        score
    }
}

/// Compares two values. Numbers may differ by a hundredth, because the file rounds them.
fn matches(expected: &Value, found: &Value) -> bool {
    match (expected.as_f64(), found.as_f64()) {
        (Some(expected), Some(found)) => (expected - found).abs() <= 0.01,
        _ => expected == found,
    }
}

fn verdict(case: &Value) -> Value {
    let status = case["http_status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap();
    let status = http::StatusCode::from_u16(status).unwrap();
    let mut headers = http::HeaderMap::new();
    for (name, value) in case["headers"].as_object().into_iter().flatten() {
        let name: http::HeaderName = name.parse().unwrap();
        headers.append(name, value.as_str().unwrap().parse().unwrap());
    }
    let body = case["body"].as_str().unwrap_or_default().as_bytes();
    let failure = match status.is_success() {
        true => answer::failure_in(body),
        false => Some(Failure::from_response(status, &headers, body)),
    };
    let Some(failure) = failure else { return serde_json::json!({ "fault": null }) };
    serde_json::json!({
        "fault": failure.fault().as_str(),
        "kind": failure.kind().as_str(),
        "retryable_same_key": failure.same_key_may_help(),
        "retryable_other_key": failure.other_key_may_help(),
        "retryable_other_model": failure.other_model_may_help(),
        "retry_after_s": failure.hint().map(|hint| hint.delay().as_secs_f64()),
        "quota_scope": failure.quota().and_then(|quota| quota.dimension()).map(Dimension::label),
        "counts_as_breaker_failure": failure.counts_against_upstream(),
    })
}
