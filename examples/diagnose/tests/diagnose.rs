//! Tests of the program `diagnose`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn run(arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_diagnose"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    child.wait_with_output().unwrap()
}

fn said(arguments: &[&str], input: impl AsRef<[u8]>) -> String {
    let output = run(arguments, input);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn verdicts(lines: &str) -> (Vec<Value>, Option<i32>) {
    let output = run(&["--jsonl"], lines);
    let lines = String::from_utf8(output.stdout).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}

fn error(code: u16, status: &str, message: &str) -> String {
    serde_json::json!({"error": {"code": code, "status": status, "message": message}}).to_string()
}

#[test]
fn an_answer_without_content_or_end_is_told_from_a_good_one() {
    let created = "event: interaction.created\ndata: {\"interaction\":{\"id\":\"v1_i\",\"status\":\"in_progress\"},\"event_type\":\"interaction.created\"}\n\n";
    let delta = "event: step.delta\ndata: {\"index\":0,\"delta\":{\"text\":\"a\"},\"event_type\":\"step.delta\"}\n\n";
    let completed = |status: &str| {
        format!(
            "event: interaction.completed\ndata: {{\"interaction\":{{\"status\":\"{status}\"}},\"event_type\":\"interaction.completed\"}}\n\n"
        )
    };
    let thoughts = |reason: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"hm","thought":true}}]}},"finishReason":"{reason}"}}]}}"#
        )
    };
    for (body, kind) in [
        (thoughts("MALFORMED_FUNCTION_CALL"), "empty_malformed_function_call"),
        (thoughts("STOP"), "empty_response"),
        (thoughts("CONTINUATION"), ""),
        (format!("{created}{delta}"), "stream_cut"),
        (format!("{created}{delta}{}", completed("completed")), ""),
        (format!("{created}{delta}{}", completed("failed")), "server_error"),
        (format!("{created}{{\"error\":{{\"code\":\"prohibited_content\",\"message\":\"no\"}}}}\n"), "content_blocked"),
        (r#"{"id":"v1_i","object":"interaction","status":"completed","steps":[]}"#.to_owned(), ""),
        (r#"{"id":"v1_i","object":"interaction","status":"in_progress"}"#.to_owned(), ""),
        (r#"{"id":"v1_i","object":"interaction","status":"cancelled"}"#.to_owned(), "cancelled"),
        (
            r#"{"id":"v1_i","status":"failed","steps":[],"errors":[{"code":"rate_limit_exceeded","message":"slow"}]}"#
                .to_owned(),
            "quota_minute",
        ),
    ] {
        let line = serde_json::json!({"id": "a", "http_status": 200, "body": body}).to_string();
        let (verdicts, _) = verdicts(&line);
        assert_eq!(verdicts[0]["kind"].as_str().unwrap_or_default(), kind, "{body}: {}", verdicts[0]);
    }
}

#[test]
fn each_trouble_of_the_guide_has_its_words() {
    let invalid = |message: &str| error(400, "INVALID_ARGUMENT", message);
    let denied = |message: &str| error(403, "PERMISSION_DENIED", message);
    let exhausted = |message: &str| error(429, "RESOURCE_EXHAUSTED", message);
    for (status, body, words) in [
        (
            "400",
            invalid("Invalid JSON payload received. Unknown name \"foo\"."),
            ["malformed", "(caller)", "field that the message names"],
        ),
        (
            "400",
            invalid("The input token count (200000) exceeds the maximum number of tokens allowed (131072)."),
            ["more tokens", "this model takes 131072", "another model"],
        ),
        (
            "400",
            invalid("* GenerateContentRequest.contents: contents is not specified"),
            ["no contents", "at least one part", "nothing but another request"],
        ),
        (
            "404",
            error(404, "NOT_FOUND", "models/gemini-2.5-flsh is not found for API version v1beta"),
            ["no such model", "letter by letter", "gemini-2.5-flsh"],
        ),
        (
            "400",
            invalid("API key not valid. Please pass a valid API key."),
            ["API key is not valid", "(key)", "key of another project"],
        ),
        (
            "403",
            denied("Generative Language API has not been used in project 1 before or it is disabled."),
            ["not enabled", "(key)", "Enable the API"],
        ),
        ("403", denied("Requests from referer <empty> are blocked."), ["restricted", "(key)", "Cloud console"]),
        (
            "400",
            error(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
            ["country", "(caller)", "supported region"],
        ),
        (
            "429",
            exhausted("Quota: GenerateRequestsPerMinutePerProjectPerModel. Please retry in 42.9s."),
            ["requests that the project has a minute", "(quota)", "42.900 s"],
        ),
        (
            "429",
            exhausted("metric: x_input_token_count, limit: 250000, model: gemini-2.5-pro\nPlease retry in 3.5s."),
            ["input tokens", "250000 input tokens a minute", "3.500 s"],
        ),
        (
            "429",
            exhausted("Quota exceeded for limit 'Requests per day'. Please retry in 5s."),
            ["day's quota", "until midnight Pacific", "another model"],
        ),
        (
            "429",
            exhausted("Quota exceeded for metric: x, limit: 0, model: y. Please retry in 5s."),
            ["limit for this model is 0", "no waiting helps", "Link billing"],
        ),
        (
            "429",
            exhausted("Resource has been exhausted (e.g. check quota)."),
            ["does not say which", "(quota)", "back off with jitter"],
        ),
        (
            "429",
            exhausted("Resource exhausted. Please try again later. error-code-429"),
            ["shared capacity", "(model)", "not your quota"],
        ),
        (
            "500",
            error(500, "INTERNAL", "An internal error has occurred."),
            ["server failed", "(service)", "diagnose --again"],
        ),
        (
            "503",
            error(503, "UNAVAILABLE", "The model is overloaded."),
            ["overloaded", "(model)", "2.5 Pro to 2.5 Flash"],
        ),
        (
            "504",
            error(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
            ["took too long", "(service)", "shorter prompt"],
        ),
        ("200", r#"{"candidates":[{"finishReason":"SAFETY"}]}"#.to_owned(), ["blocked", "(caller)", "safetySettings"]),
    ] {
        let page = said(&["--status", status], &body);
        for word in words {
            assert!(page.contains(word), "{word:?} is not in:\n{page}");
        }
    }
}

#[test]
fn what_the_body_cannot_say_comes_from_the_arguments() {
    let body = error(500, "INTERNAL", "An internal error has occurred.");
    let page = said(&["--status", "500", "--again"], &body);
    assert!(page.contains("your content") && page.contains("Shorten the input"), "{page}");
    let page = said(&["--status", "503", "--model", "gemini-2.5-pro"], error(503, "UNAVAILABLE", "overloaded"));
    assert!(page.contains("gemini-2.5-pro to gemini-2.5-flash"), "{page}");
    let page = said(&["--status", "429", "--header", "Retry-After: 90"], "");
    assert!(page.contains("1 min 30 s"), "{page}");
    let page =
        said(&["--status", "200"], r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#);
    assert!(page.contains("Nothing is wrong"), "{page}");
}

#[test]
fn bad_arguments_are_refused_with_a_reason() {
    for (arguments, reason) in [
        (&["--status", "9"][..], "100 to 999"),
        (&["--status", "teapot"], "100 to 999"),
        (&["--status", "429", "--header", "no colon"], "has a colon"),
        (&["--status", "429", "--header", "bad name: x"], "not a header name"),
        (&["--jsonl", "--status", "429"], "cannot be used with"),
        (&["--model", "x"], "--status"),
        (&["--unknown"], "--unknown"),
    ] {
        let output = run(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains(reason), "{words}");
    }
    assert!(said(&[], "").contains("Usage: diagnose"));
}

#[test]
fn lines_are_judged_in_their_places() {
    let overloaded = error(503, "UNAVAILABLE", "The model is overloaded.");
    let event = format!("data: {{\"candidates\":[]}}\n\ndata: {overloaded}\n\n");
    let lines = [
        serde_json::json!({"id": "a", "http_status": 503, "headers": null, "body": overloaded, "unknown": [1]}).to_string(),
        String::new(),
        serde_json::json!({"id": 7, "http_status": "429", "headers": {"retry-after": ["9"], "x": 1}, "body": null}).to_string(),
        serde_json::json!({"id": "c", "http_status": 503, "headers": [["Retry-After", "1.5"], 3], "body": {"error": {"code": 400}}}).to_string(),
        serde_json::json!({"id": "d", "http_status": 200, "body": event}).to_string(),
        serde_json::json!({"id": "e", "http_status": 200, "body": {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]}}).to_string(),
        serde_json::json!({"id": "f", "http_status": null, "body": "connection reset"}).to_string(),
        serde_json::json!({"id": "g", "http_status": 0}).to_string(),
        serde_json::json!({"id": "h", "http_status": 200, "body": ""}).to_string(),
        serde_json::json!({"id": "i", "http_status": 200, "body": {"totalTokens": 7}}).to_string(),
    ]
    .join("\n");
    let (verdicts, code) = verdicts(&lines);
    assert_eq!(code, Some(0));
    let brief: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            format!(
                "{} {} {} {}{}{} {} {}",
                verdict["id"],
                verdict["fault"],
                verdict["kind"],
                verdict["retry_same_key"],
                verdict["retry_other_key"],
                verdict["retry_other_model"],
                verdict["retry_after_s"],
                verdict["breaker"]
            )
            .replace('"', "")
            .replace("true", "Y")
            .replace("false", "n")
        })
        .collect();
    assert_eq!(
        brief,
        [
            "a model overloaded YnY null Y",
            "7 quota quota_unknown YYY 9 n",
            "c caller invalid_request nnn null n",
            "d model overloaded nnn null Y",
            "e null null nnn null n",
            "f transport transport Ynn null Y",
            "g transport transport Ynn null Y",
            "h service empty_response YnY null n",
            "i null null nnn null n",
        ]
    );
}

#[test]
fn a_bad_line_is_named_and_nothing_else_is_lost() {
    let good = serde_json::json!({"id": "good", "http_status": 500, "body": ""}).to_string();
    let mut lines = format!("{good}\nnot json\n[1]\n").into_bytes();
    lines.extend(b"{\"id\": \"x\", \"body\": \"\xff\"}\n");
    lines.extend(b"{\"id\": \"y\", \"http_status\": \"abc\"}\n{\"id\": \"z\", \"http_status\": 99}\n");
    lines.extend(b"{\"id\": \"w\", \"http_status\": 500, \"headers\": 5}\n");
    lines.extend(good.as_bytes());
    let output = run(&["--jsonl"], &lines);
    assert_eq!(output.status.code(), Some(1));
    let out = String::from_utf8(output.stdout).unwrap();
    let out: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(out.len(), 8);
    assert_eq!((&out[0]["id"], &out[0]["fault"]), (&"good".into(), &"service".into()));
    assert_eq!(out[7], out[0]);
    for (index, id, line) in [(1, None, 2), (2, None, 3), (4, Some("y"), 5), (5, Some("z"), 6), (6, Some("w"), 7)] {
        assert_eq!(out[index]["id"].as_str(), id);
        assert!(out[index]["error"].as_str().unwrap().starts_with(&format!("line {line}: ")), "{}", out[index]);
    }
}

#[test]
fn bodies_that_are_no_text_are_judged_all_the_same() {
    let lines = [
        r#"{"id":"a","http_status":503,"body":"\ud800 The model is overloaded."}"#.replace(r"\\", r"\"),
        r#"{"id":"b","http_status":503,"body":"\\ud800 \udcff\ud83d\ude00 \n The model is overloaded."}"#
            .replace(r"\\", r"\"),
        "\u{feff}{\"id\":\"c\",\"http_status\":503,\"body\":\"The model is overloaded.\"}".to_owned(),
    ];
    let mut input = lines.join("\n").into_bytes();
    input.extend(b"\n{\"id\":\"d\",\"http_status\":503,\"body\":\"\xff The model is overloaded.\"}\n");
    let output = run(&["--jsonl"], &input);
    assert_eq!(output.status.code(), Some(0));
    let out = String::from_utf8(output.stdout).unwrap();
    let judged = |line: &str| serde_json::from_str::<Value>(line).unwrap()["kind"] == "overloaded";
    assert_eq!(out.lines().filter(|line| judged(line)).count(), 4, "{out}");
}

#[test]
fn nothing_in_makes_nothing_out() {
    assert_eq!(verdicts(""), (vec![], Some(0)));
    assert_eq!(verdicts("\n\r\n  \n"), (vec![], Some(0)));
}
