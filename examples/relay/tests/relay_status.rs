//! `/status`, `/metrics` and the page of the relay as a process: their content on a good day and on a bad one, and the
//! secrets that they never show.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_day;
mod relay_page;
mod relay_process;

use http::StatusCode;
use serde_json::Value;
use tower_gemini::emulator::{Trouble, When};

use relay_day::{CALLERS_KEY, Day, EVIL, KEYS, SECRET_PROMPT};
use relay_page::Page;

const FLASH: &str = "gemini-2.5-flash:generateContent";

#[tokio::test]
async fn on_a_good_day_nothing_is_wrong() {
    let day =
        Day::begin("[limits.default]\nrpm = 1000\n[fallback]\n\"gemini-2.5-pro\" = [\"gemini-2.5-flash\"]\n").await;
    for _ in 0..3 {
        assert_eq!(day.ask(FLASH, "hello").await, StatusCode::OK);
    }
    let status = day.status().await;
    assert_eq!(status["wrong"], Value::Array(Vec::new()), "{status}");
    assert_eq!(status["failures"], Value::Array(Vec::new()));
    let model = &status["models"][0];
    assert_eq!((&model["model"], &model["breaker"]), (&"gemini-2.5-flash".into(), &"closed".into()), "{status}");
    let used: u64 = model["limits"].as_array().unwrap().iter().map(|limit| requests(limit, "used")).sum();
    assert_eq!((used, requests(&model["limits"][0], "max")), (3, 1000));
    let names: Vec<_> = status["keys"].as_array().unwrap().iter().map(|key| (&key["name"], &key["state"])).collect();
    assert_eq!(names, [(&"first".into(), &"active".into()), (&"second".into(), &"active".into())]);
    let calls: u64 = status["keys"].as_array().unwrap().iter().filter_map(|key| key["calls"].as_u64()).sum();
    assert_eq!(calls, 3);
    assert_eq!(status["chains"][0]["current"], "gemini-2.5-pro");
}

/// Returns `used` or `max` of the requests a minute.
fn requests(limit: &Value, what: &str) -> u64 {
    let dimensions = limit["dimensions"].as_array().unwrap();
    dimensions.iter().find(|each| each["of"] == "requests a minute").unwrap()[what].as_u64().unwrap()
}

#[tokio::test]
async fn on_a_bad_day_it_says_first_what_is_wrong_and_what_to_do() {
    let day = Day::begin("").await;
    day.turns_bad().await;
    let status = day.status().await;
    let wrong: Vec<[&str; 3]> = status["wrong"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| ["level", "what", "what_to_do"].map(|name| each[name].as_str().unwrap()))
        .collect();
    let says = |level, what: &str, to_do: &str| {
        let found = wrong.iter().any(|each| each[0] == level && each[1].contains(what) && each[2].contains(to_do));
        assert!(found, "no {level} {what:?} {to_do:?} in {wrong:#?}");
    };
    says("bad", "gemini-2.5-pro is down", "[fallback]");
    says("warn", "The key second (", "Revoke the key");
    says("bad", "stream cut, not the callers' fault", "ask again");
    says(
        "note",
        "1 call failed in the last 5 minutes: invalid request, callers' fault",
        "Correct the field that the message names",
    );
    says("note", "model not found", "Check the model's name");
    assert_eq!(wrong[0][0], "bad");
    let levels: Vec<_> =
        wrong.iter().map(|each| ["bad", "warn", "note"].iter().position(|of| *of == each[0])).collect();
    assert!(levels.is_sorted(), "{wrong:#?}");
    assert_eq!(
        (&status["models"][0]["model"], &status["models"][0]["breaker"]),
        (&"gemini-2.5-pro".into(), &"open".into())
    );
    assert_eq!(status["keys"][1]["reason"], "key_leaked");

    let failures = status["failures"].as_array().unwrap();
    let of =
        |kind: &str| failures.iter().find(|each| each["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {status}"));
    assert_eq!(failures[0]["kind"], "model_not_found", "the newest first");
    let overloaded = &failures.iter().rfind(|each| each["kind"] == "overloaded").unwrap();
    assert_eq!(
        (&overloaded["fault"], &overloaded["code"], &overloaded["attempts"]),
        (&"model".into(), &503.into(), &1.into())
    );
    assert_eq!(overloaded["model"], "gemini-2.5-pro");
    assert!(overloaded["message"].as_str().unwrap().contains("overloaded"), "{overloaded}");
    assert!(overloaded["time"].as_str().unwrap().ends_with('Z') && overloaded["key"].is_string(), "{overloaded}");
    assert_eq!(of("circuit_open")["fault"], "local");
    assert_eq!(of("stream_cut")["in_the_answer"], true);
    let later: Vec<_> =
        failures.iter().filter(|each| each["in_the_answer"] == true).map(|each| &each["kind"]).collect();
    assert_eq!(later, ["overloaded", "stream_cut"], "each once");
    assert_eq!(of("server_error")["message"], "An internal error at [key]");
    assert_eq!(of("key_leaked")["in_the_answer"], false);
}

#[tokio::test]
async fn no_key_and_no_prompt_is_shown_anywhere() {
    let day = Day::begin("").await;
    day.turns_bad().await;
    for path in ["/", "/status", "/metrics"] {
        let response = day.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        for secret in [KEYS[0], KEYS[1], CALLERS_KEY, SECRET_PROMPT] {
            assert!(!response.body().contains(secret), "{path} shows {secret:?}: {}", response.body());
        }
    }
    // A key as a model's name.
    let key = format!("AIza{}", "x7".repeat(18).split_at(35).0);
    day.ask(&format!("{key}:generateContent"), "hello").await;
    day.ask(&format!("{}:generateContent", KEYS[0]), "hello").await;
    let status = day.get("/status").await.into_body();
    assert!(!status.contains(&key) && !status.contains(KEYS[0]), "{status}");
    let metrics = day.get("/metrics").await.into_body();
    assert!(!metrics.contains(&key) && !metrics.contains(KEYS[0]), "{metrics}");
}

#[tokio::test]
async fn the_last_hundred_failures_are_kept() {
    let day = Day::begin("").await;
    for nth in 0..130 {
        assert_eq!(day.ask(&format!("nobody-knows-{nth}:generateContent"), "hello").await, StatusCode::NOT_FOUND);
    }
    let status = day.status().await;
    let failures = status["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 100);
    assert_eq!(
        (&failures[0]["model"], &failures[99]["model"]),
        (&"nobody-knows-129".into(), &"nobody-knows-30".into())
    );
    assert_eq!(status["models"], Value::Array(Vec::new()), "nobody has answered for them");
}

#[tokio::test]
async fn times_are_histograms_and_keys_are_counted() {
    let day = Day::begin("").await;
    assert_eq!(day.ask(FLASH, "hello").await, StatusCode::OK);
    let response = day.get("/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let metrics = response.into_body();
    assert!(!metrics.contains(" summary\n"), "a time without buckets: {metrics}");
    for line in [
        "# TYPE gen_ai_client_inference_duration_seconds histogram",
        "# TYPE gen_ai_client_inference_usage_input_tokens_total counter",
        "# TYPE tower_gemini_attempt_duration_seconds histogram",
        "# TYPE tower_gemini_calls_total counter",
    ] {
        assert!(metrics.contains(line), "no {line}: {metrics}");
    }
    let of_keys = |state: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with("tower_gemini_key_state{"));
        lines.filter(|line| line.contains(&format!("state=\"{state}\"")) && line.ends_with(" 1")).count()
    };
    assert_eq!((of_keys("active"), of_keys("disabled")), (2, 0));
}

/// Returns the boundaries of a histogram's buckets, as `/metrics` writes them.
fn boundaries(metrics: &str, name: &str) -> Vec<String> {
    let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}_bucket{{")));
    let boundary = |line: &str| Some(line.split_once("le=\"")?.1.split_once('"')?.0.to_owned());
    lines.filter_map(boundary).take_while(|boundary| boundary != "+Inf").collect()
}

#[tokio::test]
async fn names_and_buckets_are_those_of_one_version_of_the_conventions() {
    const STREAM: &str = "gemini-2.5-flash:streamGenerateContent?alt=sse";
    let new = ["gen_ai_client_inference_", "gen_ai_token_modality", "tower_gemini_call_duration"];
    let old = ["gen_ai_client_operation_", "gen_ai_client_token_usage", "gen_ai_token_type"];
    for (settings, expected, others) in [
        ("", new, old),
        ("[telemetry]\nconventions = \"v0.1.0\"\n", new, old),
        ("[telemetry]\nconventions = \"1.41\"\n", old, new),
    ] {
        let day = Day::begin(settings).await;
        for model in [FLASH, STREAM, "gemini-2.5-flash:countTokens"] {
            assert_eq!(day.ask(model, "hello").await, StatusCode::OK);
        }
        let metrics = day.get("/metrics").await.into_body();
        for name in expected {
            assert!(metrics.contains(name), "no {name} with {settings:?}: {metrics}");
        }
        for name in others {
            assert!(!metrics.contains(name), "{name} with {settings:?}: {metrics}");
        }
        if expected == new {
            // 0.01, doubled up to 81.92.
            let doubled: Vec<_> = (0..14).map(|nth| format!("{}", f64::from(1 << nth) / 100.0)).collect();
            assert_eq!(boundaries(&metrics, "gen_ai_client_inference_time_to_first_chunk_seconds"), doubled);
            let of_calls = boundaries(&metrics, "gen_ai_client_inference_duration_seconds");
            assert_eq!(
                (&of_calls[..14], &of_calls[14..]),
                (&doubled[..], &["163.84", "327.68"].map(str::to_owned)[..])
            );
        }
    }
}

#[tokio::test]
async fn the_page_runs_its_own_script_only() {
    let day = Day::begin("").await;
    let response = day.get("/").await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = response.body();
    for outside in ["http://", "https://", "src=", "@import", "innerHTML", "insertAdjacentHTML", "outerHTML"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    assert!(page.len() < 32 << 10);
}

#[tokio::test]
#[ignore = "needs Chromium; .ci/run runs it"]
async fn in_a_browser_the_page_says_what_is_wrong_and_a_name_stays_text() {
    let day = Day::begin("").await;
    assert_eq!(day.ask(FLASH, "hello").await, StatusCode::OK);
    let mut page = Page::open(&day.relay.operator_uri()).await;
    page.until("document.querySelector('#head').textContent === 'All is well'").await;
    let good = page.value("document.documentElement.outerHTML").await;
    assert!(good.as_str().unwrap().contains("gemini-2.5-flash"), "{good}");

    day.turns_bad().await;
    page.until("document.body.innerText.includes('onerror=')").await;
    let bad = page.value("document.documentElement.outerHTML").await;
    let bad = bad.as_str().unwrap();
    for text in
        ["Something is wrong", "gemini-2.5-pro is down", "Revoke the key", "overloaded", "&lt;img src=x onerror="]
    {
        assert!(bad.contains(text), "no {text:?} in {bad}");
    }
    assert!(!bad.contains("<img") && !bad.contains("<title>owned"), "{bad}");
    let place = |text: &str| bad.find(text).unwrap();
    assert!(place("Something is wrong") < place("gemini-2.5-pro is down"));
    assert!(place("gemini-2.5-pro is down") < place("<h2>Models"), "{bad}");
    assert!(!EVIL.contains('<'), "as a path takes it");
    page.close().await;
}

/// Returns the lines of what is wrong, each with its level.
fn wrong(status: &Value) -> Vec<(&str, &str)> {
    let lines = status["wrong"].as_array().unwrap().iter();
    lines.map(|each| (each["level"].as_str().unwrap(), each["what"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn what_rests_is_said_by_its_part() {
    const GROUNDED: &str = r#"{"contents": [{"parts": [{"text": "hi"}]}], "tools": [{"googleSearch": {}}]}"#;
    for (trouble, level, line, state) in [
        (Trouble::grounding_quota(), "warn", "No key has quota left for grounded calls of gemini-2.5-flash", "active"),
        (
            Trouble::model_closed(),
            "bad",
            "gemini-2.5-flash is closed to projects p1, p2; it is asked again in",
            "exhausted",
        ),
        (Trouble::spending_cap(), "bad", "Projects p1, p2 have spent what they may", "exhausted"),
    ] {
        let day = Day::begin_with("[timeout]\ntotal = \"5s\"\n[retry]\nmax_attempts = 3\n").await;
        day.emulator.trouble(When::always(), trouble);
        for _ in 0..3 {
            assert_ne!(day.ask_with(FLASH, GROUNDED).await, StatusCode::OK);
        }
        let status = day.status().await;
        let lines = wrong(&status);
        assert!(lines.iter().any(|(of, what)| *of == level && what.starts_with(line)), "{line}: {status}");
        let to_do = status["wrong"].as_array().unwrap().iter().map(|each| each["what_to_do"].as_str().unwrap());
        assert!(to_do.clone().any(|to_do| to_do.contains("kill -USR1")), "{status}");
        let key = &status["keys"][0];
        assert_eq!(key["state"], state, "{status}");
        if line.starts_with("Projects") {
            assert_eq!((&key["project_rests"], &key["models"]), (&true.into(), &Value::Array(Vec::new())), "{status}");
            assert!(key["reason"].is_string() && key["what_to_do"].is_string(), "{status}");
            assert!(key["back_in_s"].as_f64().unwrap() <= 3_600.0, "{status}");
        } else {
            let out = &key["models"][0];
            assert_eq!(out["model"], "gemini-2.5-flash", "{status}");
            assert_eq!(out["part"], if state == "active" { "grounded_calls" } else { "closed_model" });
            assert!(out["asked_again_in_s"].as_f64().unwrap() <= 3_600.0, "{status}");
        }
    }
}
