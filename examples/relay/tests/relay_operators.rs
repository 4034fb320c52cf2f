//! The operators' listener: what operators tell the relay to do, who may tell it, and what they are shown of it.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tower::ServiceExt;
use tower_gemini::{
    client::Client,
    emulator::{Emulator, Server, Trouble, When},
};

use relay_process::{PATIENCE, Relay, listening, refused_at};

const KEYS: [&str; 2] = ["first-key-of-the-relay", "second-key-of-the-relay"];
const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const PRO: &str = "/v1beta/models/gemini-2.5-pro:generateContent";
const PROMPT: &str = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;
const TOKEN: &str = "a-token-of-operators-0123456789";
const WISH: (&str, &str) = ("x-relay-operator", "1");

fn settings(upstream: &str, more: &str) -> String {
    let keys = [("first", KEYS[0], "p1"), ("second", KEYS[1], "p2")]
        .map(|(name, key, project)| format!("[[keys]]\nname = {name:?}\nkey = {key:?}\nproject = {project:?}\n"));
    let (top, sections) = more.split_once("[").map_or((more, String::new()), |(top, rest)| (top, format!("[{rest}")));
    format!(
        "upstream = {upstream:?}\n{top}\n{}[retry]\nmax_attempts = 2\nbase_delay = \"1ms\"\n{sections}",
        keys.concat()
    )
}

async fn started(more: &str) -> (Emulator, Server, Relay) {
    let emulator = Emulator::builder().key(KEYS[0], "p1").key(KEYS[1], "p2").build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start_logging(&settings(&server.uri(), more), &[("RELAY_LOG_FORMAT", "json")]).await;
    (emulator, server, relay)
}

async fn send(base: &str, request: Request<Full<Bytes>>) -> (u16, String) {
    let client: Client<Full<Bytes>> = Client::builder().base_url(base).build().unwrap();
    let answer = async {
        let (head, body) = client.oneshot(request).await.unwrap().into_parts();
        (head.status.as_u16(), String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned())
    };
    timeout(PATIENCE, answer).await.expect("no answer")
}

fn with(request: http::request::Builder, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Full::from(body.to_owned())).unwrap()
}

async fn ask(relay: &Relay, path: &str) -> u16 {
    send(&relay.uri(), with(Request::post(path), &[], PROMPT)).await.0
}

/// Tells the relay something, as an operator does.
async fn told(relay: &Relay, path: &str, body: &str) -> (u16, Value) {
    let (status, text) = send(&relay.operator_uri(), with(Request::post(path), &[WISH], body)).await;
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")))
}

async fn shown(relay: &Relay, path: &str) -> String {
    let (status, text) = send(&relay.operator_uri(), with(Request::get(path), &[], "")).await;
    assert_eq!(status, 200, "{text}");
    text
}

async fn status(relay: &Relay) -> Value {
    serde_json::from_str(&shown(relay, "/status").await).unwrap()
}

/// Sends bytes to the operators' listener, and returns the answer to the connection's end.
async fn raw(relay: &Relay, request: &str) -> String {
    let address = relay.operator_uri().replace("http://", "");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("no end").unwrap();
    answer
}

// === lift ===

#[tokio::test]
async fn an_operator_lifts_one_model_one_project_or_everything() {
    let (emulator, _server, relay) = started("").await;
    emulator.trouble(When::always(), Trouble::day_quota());
    for path in [FLASH, PRO] {
        assert_eq!(ask(&relay, path).await, 429);
    }
    emulator.clear_troubles();
    let lines = |answer: &Value| answer["lifted"].as_array().unwrap_or_else(|| panic!("{answer}")).len();

    let (code, answer) = told(&relay, "/lift", r#"{"project": "p1", "model": "gemini-2.5-flash"}"#).await;
    assert_eq!((code, lines(&answer)), (200, 1), "{answer}");
    let line = answer["lifted"][0].as_str().unwrap();
    assert!(line.starts_with("p1, gemini-2.5-flash: ") && line.contains(" for another "), "{line}");
    assert_eq!(ask(&relay, FLASH).await, 200);
    let sent = emulator.journal().len();
    assert_eq!((ask(&relay, PRO).await, emulator.journal().len()), (429, sent), "the other model stays parked");

    let (code, answer) = told(&relay, "/lift", r#"{"project": "p2"}"#).await;
    assert_eq!((code, lines(&answer)), (200, 2), "{answer}");
    let (code, answer) = told(&relay, "/lift", "").await;
    assert_eq!((code, lines(&answer)), (200, 1), "{answer}");
    assert_eq!(ask(&relay, PRO).await, 200);
    assert_eq!(told(&relay, "/lift", "").await, (200, json!({ "lifted": [] })));

    for (body, right) in [
        (r#"{"project": "p3"}"#, 404),
        (r#"{"projcet": "p1"}"#, 400),
        ("[]", 400),
        ("nonsense", 400),
        (&"x".repeat(10_000), 400),
    ] {
        let (code, answer) = told(&relay, "/lift", body).await;
        assert_eq!((code, &answer["error"]["code"]), (right, &json!(right)), "{body}");
    }
}

// === keys ===

#[tokio::test]
async fn a_key_that_is_disabled_by_hand_stays_so_over_reloads_until_it_is_enabled() {
    let (emulator, server, relay) = started("").await;
    let (code, answer) = told(&relay, "/keys/first/disable", "").await;
    let fingerprint = answer["fingerprint"].as_str().unwrap().to_owned();
    let says = (&answer["key"], &answer["project"], &answer["state"], &answer["reason"]);
    assert_eq!((code, says), (200, (&json!("first"), &json!("p1"), &json!("disabled"), &json!("by hand"))), "{answer}");
    let first = status(&relay).await["keys"][0].clone();
    assert_eq!((&first["state"], &first["reason"]), (&json!("disabled"), &json!("by hand")), "{first}");

    // The pool goes on; its key has another project; the pool is a new one; the upstream is another one.
    let same = settings(&server.uri(), "");
    let moved = same.replace("\"p1\"", "\"p9\"");
    let other_pool = moved.replace("upstream = ", "default_project = \"p2\"\nupstream = ");
    let elsewhere = other_pool.replace("127.0.0.1", "localhost");
    assert_ne!(elsewhere, other_pool);
    for settings in [same, moved, other_pool, elsewhere] {
        relay.reload(&settings).await;
        let now = status(&relay).await["keys"][0].clone();
        let says = (&now["fingerprint"], &now["state"], &now["reason"]);
        assert_eq!(says, (&json!(fingerprint), &json!("disabled"), &json!("by hand")), "{settings}");
    }
    for nth in 0..20 {
        let prompt = PROMPT.replace("hello", &format!("hello {nth}"));
        assert_eq!(send(&relay.uri(), with(Request::post(FLASH), &[], &prompt)).await.0, 200);
    }
    let with_first = emulator.journal().iter().filter(|visit| visit.project.as_deref() == Some("p1")).count();
    assert_eq!(with_first, 0);

    // By its fingerprint as well.
    let (code, answer) = told(&relay, &format!("/keys/{fingerprint}/enable"), "").await;
    assert_eq!((code, &answer["state"], &answer["reason"]), (200, &json!("active"), &Value::Null), "{answer}");
    assert_eq!(status(&relay).await["keys"][0]["state"], "active");
    for path in ["/keys/third/disable", "/keys/first/remove", "/keys/first-key-of-the-relay/enable"] {
        let (code, answer) = told(&relay, path, "").await;
        assert_eq!((code, &answer["error"]["status"]), (404, &json!("NOT_FOUND")), "{answer}");
        assert!(!answer.to_string().contains(KEYS[0]), "{answer}");
    }
}

// === reload ===

#[tokio::test]
async fn a_failed_reload_shows_on_the_page_in_status_and_as_a_metric_until_a_good_one() {
    let (_emulator, server, relay) = started("").await;
    let value = |metrics: &str, name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    const GOOD: &str = "relay_config_last_reload_successful";
    const TIME: &str = "relay_config_last_reload_success_timestamp_seconds";
    let before = shown(&relay, "/metrics").await;
    let started = value(&before, TIME);
    assert!(value(&before, GOOD) == 1.0 && started > 1.7e9, "{before}");
    let before = status(&relay).await;
    assert_eq!((&before["settings"]["reloaded"], &before["wrong"]), (&json!(true), &json!([])), "{before}");

    let secret = "AIzaSyD-made-up-0123456789abcdefghijklm";
    let wrong = format!("max_bdy = \"1MiB\"\ndrain = 5\n{}", settings(&server.uri(), ""));
    let wrong = format!("{wrong}[[keys]]\nkey = {secret:?}\n[[keys]]\nkey = {secret:?}\n");
    relay.write(&listening(&wrong));
    let (code, answer) = told(&relay, "/reload", "").await;
    assert_eq!((code, &answer["reloaded"], answer["mistakes"].as_array().unwrap().len()), (422, &json!(false), 3));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("did you mean max_body?") && message.contains("write \"5s\""), "{message}");
    let (status_now, metrics) = (status(&relay).await, shown(&relay, "/metrics").await);
    let wrong = &status_now["wrong"][0];
    assert_eq!(wrong["level"], "warn", "{status_now}");
    assert!(wrong["what"].as_str().unwrap().contains("settings were not reloaded"), "{wrong}");
    assert!(wrong["what_to_do"].as_str().unwrap().contains("did you mean max_body?"), "{wrong}");
    let settings_now = &status_now["settings"];
    assert_eq!((&settings_now["reloaded"], &settings_now["since"]), (&json!(false), &before["settings"]["since"]));
    assert!(settings_now["failed_at"].is_string() && settings_now["mistakes"].as_array().unwrap().len() == 3);
    assert_eq!((value(&metrics, GOOD), value(&metrics, TIME)), (0.0, started));
    for text in [answer.to_string(), status_now.to_string(), relay.logged("not reloaded").await] {
        assert!(!text.contains(secret) && !KEYS.iter().any(|key| text.contains(key)), "{text}");
    }

    sleep(Duration::from_millis(20)).await;
    relay.write(&listening(&settings(&server.uri(), "keep_alive = \"60s\"\n")));
    let (code, answer) = told(&relay, "/reload", "").await;
    assert_eq!((code, &answer["reloaded"]), (200, &json!(true)), "{answer}");
    assert!(answer["remarks"][0].as_str().unwrap().contains("keep_alive"), "{answer}");
    let metrics = shown(&relay, "/metrics").await;
    assert!(value(&metrics, GOOD) == 1.0 && value(&metrics, TIME) > started, "{metrics}");
    assert_eq!(status(&relay).await["wrong"], json!([]));
    // By a signal, it shows as well.
    relay.reload("nonsense").await;
    assert_eq!(value(&shown(&relay, "/metrics").await, GOOD), 0.0);
}

// === the guard ===

#[tokio::test]
async fn no_page_of_another_origin_makes_the_relay_do_anything() {
    let (_emulator, _server, relay) = started("").await;
    let host = relay.operator_uri().replace("http://", "");
    let own = format!("http://{host}");
    let json = ("content-type", "application/json");
    for (headers, right) in [
        (&[WISH][..], 200),
        (&[json], 200),
        (&[("content-type", "application/json; charset=utf-8")], 200),
        (&[WISH, ("origin", &own)], 200),
        (&[json, ("origin", &own), ("sec-fetch-site", "same-origin")], 200),
        (&[], 403),
        (&[("content-type", "text/plain")], 403),
        (&[("content-type", "text/plain; application/json")], 403),
        (&[("content-type", "application/x-www-form-urlencoded")], 403),
        (&[("x-relay-operator", "0")], 403),
        (&[WISH, ("origin", "http://evil.example")], 403),
        (&[WISH, json, ("origin", "null")], 403),
        (&[WISH, ("origin", "http://127.0.0.1:1")], 403),
        (&[WISH, ("sec-fetch-site", "cross-site")], 403),
        (&[WISH, ("sec-fetch-site", "same-site")], 403),
    ] {
        for path in ["/keys/first/enable", "/reload"] {
            let (code, answer) = send(&own, with(Request::post(path), headers, "")).await;
            assert_eq!(code, right, "{path} {headers:?}: {answer}");
        }
        let (code, answer) = send(&own, with(Request::post("/lift"), headers, "{}")).await;
        assert_eq!(code, right, "/lift {headers:?}: {answer}");
    }
    // No preflight is answered, and nothing happens by a GET.
    let preflight = format!(
        "OPTIONS /lift HTTP/1.1\r\nhost: {host}\r\norigin: http://evil.example\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: x-relay-operator\r\nconnection: close\r\n\r\n"
    );
    let answer = raw(&relay, &preflight).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 405") && !answer.contains("access-control"), "{answer}");
    for path in ["/lift", "/reload", "/keys/first/disable"] {
        assert_eq!(send(&own, with(Request::get(path), &[WISH], "")).await.0, 405, "{path}");
    }
    // A stranger's name for 127.0.0.1 makes its page a page of this origin.
    for (host, right) in [
        (&*host, "200"),
        ("localhost", "200"),
        ("[::1]:8788", "200"),
        ("evil.example", "403"),
        ("localhost.evil.example:8788", "403"),
        ("10.0.0.1", "403"),
    ] {
        for (method, path) in [("GET", "/status"), ("GET", "/metrics"), ("GET", "/"), ("POST", "/reload")] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-relay-operator: 1\r\nconnection: close\r\n\r\n");
            let answer = raw(&relay, &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {right}")), "{method} {path} of {host}: {answer}");
        }
        let health = raw(&relay, &format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    }
    // Callers have none of it: it is no path of the API's.
    assert_eq!(send(&relay.uri(), with(Request::post("/reload"), &[WISH], "")).await.0, 404);
}

#[tokio::test]
async fn with_a_token_operators_bring_it_for_everything_but_health() {
    let (_emulator, server, relay) = started(&format!("operator_token = {TOKEN:?}\n")).await;
    let own = relay.operator_uri();
    let bearer = format!("Bearer {TOKEN}");
    // `me:` and the token, as a browser writes what a person has typed.
    let basic = "Basic bWU6YS10b2tlbi1vZi1vcGVyYXRvcnMtMDEyMzQ1Njc4OQ==";
    for (credential, right) in [
        (bearer.as_str(), 200),
        (basic, 200),
        ("Bearer a-token-of-operators-012345678", 401),
        ("Bearer A-TOKEN-OF-OPERATORS-0123456789", 401),
        ("Bearer first-key-of-the-relay", 401),
        ("Bearer ", 401),
        ("", 401),
    ] {
        let headers = [("authorization", credential), WISH];
        for path in ["/", "/status", "/metrics"] {
            assert_eq!(send(&own, with(Request::get(path), &headers, "")).await.0, right, "{path} {credential}");
        }
        let (code, answer) = send(&own, with(Request::post("/lift"), &headers, "")).await;
        assert_eq!(code, right, "{credential}: {answer}");
        assert!(!answer.contains(TOKEN), "{answer}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(send(&own, with(Request::get(path), &[], "")).await.0, 200, "{path}");
    }
    // It changes with the settings.
    relay.reload(&settings(&server.uri(), "operator_token = \"another-token-of-operators\"\n")).await;
    let status = |token: &str| with(Request::get("/status"), &[("authorization", &format!("Bearer {token}"))], "");
    assert_eq!(send(&own, status(TOKEN)).await.0, 401);
    assert_eq!(send(&own, status("another-token-of-operators")).await.0, 200);
    let log = relay.said().await;
    assert!(!log.contains(TOKEN) && !log.contains("another-token"), "{log}");
}

#[tokio::test]
async fn a_listener_that_others_can_reach_needs_a_token_that_nobody_guesses() {
    let wants = ["others can reach", "operator_token = \"env:RELAY_OPERATOR_TOKEN\""];
    refused_at("upstream = \"emulator\"\noperator_listen = \"0.0.0.0:0\"", "2:30", &wants).await;
    refused_at("operator_listen = \"[::]:0\"\nupstream = \"emulator\"", "2:22", &wants).await;
    refused_at("operator_token = \"short\"", "1:18", &["5 characters", "could be guessed"]).await;
    refused_at("operator_token = \"env:NO_SUCH_TOKEN\"", "1:18", &["NO_SUCH_TOKEN is not set"]).await;
    let both = format!("operator_token = {TOKEN:?}\nclient_tokens = [{TOKEN:?}]");
    refused_at(&both, "1:18", &["is also the token of a caller"]).await;
    let key = format!("upstream = \"http://127.0.0.1:1\"\noperator_token = {:?}\n[[keys]]\nkey = {0:?}", KEYS[0]);
    refused_at(&key, "2:18", &["is also a key of [[keys]]"]).await;

    let variables = [("RELAY_OPERATOR_LISTEN", "0.0.0.0:0")];
    let relay =
        Relay::start_logging(&format!("upstream = \"emulator\"\noperator_token = {TOKEN:?}\n"), &variables).await;
    // It is reached by whatever name it has there.
    let port = relay.operator_uri().rsplit_once(':').unwrap().1.to_owned();
    let own = format!("http://127.0.0.1:{port}");
    let headers = [("authorization", &*format!("Bearer {TOKEN}"))];
    assert_eq!(send(&own, with(Request::get("/status"), &headers, "")).await.0, 200);
    assert_eq!(send(&own, with(Request::get("/status"), &[], "")).await.0, 401);
}

// === metrics and the log ===

#[tokio::test]
async fn models_that_are_configured_or_listed_have_their_label_though_no_call_was_answered_and_others_share_one() {
    let (emulator, _server, relay) =
        started("[limits.\"my-own-model-1\"]\nrpm = 100\n[precheck]\nenabled = true\n").await;
    emulator.trouble(When::always(), Trouble::internal());
    for model in ["gemini-2.5-pro", "my-own-model-1", "invented-a", "invented-b", "invented-c"] {
        // The upstream knows one of them.
        assert!(ask(&relay, &format!("/v1beta/models/{model}:generateContent")).await >= 400, "{model}");
    }
    let metrics = shown(&relay, "/metrics").await;
    let calls = |model: &str| -> f64 {
        let of = metrics.lines().filter(|line| line.starts_with("tower_gemini_calls_total{"));
        let of = of.filter(|line| line.contains(&format!("gen_ai_request_model=\"{model}\"")));
        of.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    };
    assert_eq!([calls("gemini-2.5-pro"), calls("my-own-model-1"), calls("other")], [1.0, 1.0, 3.0], "{metrics}");
    assert!(!metrics.contains("invented"), "{metrics}");
}

#[tokio::test]
async fn the_log_says_the_model_of_a_call_whose_caller_leaves_before_any_answer() {
    let (emulator, _server, relay) = started("").await;
    emulator.trouble(When::always(), Trouble::hang());
    let chat = json!({ "model": "gemini-2.5-flash", "messages": [{ "role": "user", "content": "hello" }] }).to_string();
    let interaction = json!({ "model": "gemini-2.5-pro", "input": "hello" }).to_string();
    let requests = json!({ "requests": [{ "request": serde_json::from_str::<Value>(PROMPT).unwrap() }] });
    let batch = json!({ "batch": { "display_name": "a", "input_config": { "requests": requests } } }).to_string();
    for (nth, (path, body, model)) in [
        ("/v1beta/openai/chat/completions", &*chat, "gemini-2.5-flash"),
        ("/v1beta/interactions", &interaction, "gemini-2.5-pro"),
        (FLASH, PROMPT, "gemini-2.5-flash"),
        ("/v1beta/models/gemini-2.5-pro:batchGenerateContent", &batch, "gemini-2.5-pro"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n");
        stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        while emulator.journal().len() <= nth {
            sleep(Duration::from_millis(5)).await;
        }
        // A batch is made at once.
        if body == batch {
            timeout(PATIENCE, stream.readable()).await.expect("no answer").unwrap();
        }
        drop(stream);
        let line = async {
            loop {
                let log = relay.logged("").await;
                let line = log.lines().filter(|line| line.contains("\"relay::call\"")).nth(nth);
                if let Some(line) = line {
                    return serde_json::from_str::<Value>(line).unwrap();
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let line = timeout(PATIENCE, line).await.expect("no line");
        assert_eq!((&line["model"], &line["attempts"]), (&json!(model), &json!(1)), "{path}: {line}");
        // The caller of the batch was there.
        let (gone, status) = if body == batch { (false, json!(200)) } else { (true, Value::Null) };
        assert_eq!((&line["gone"], &line["status"]), (&json!(gone), &status), "{path}: {line}");
    }
}

#[tokio::test]
async fn metrics_say_whose_calls_wait_for_their_turn_and_which_tier_served() {
    let callers = "[[callers]]\nname = \"jobs\"\ntoken = \"token-of-jobs-0123456789\"\npriority = \"batch\"\n\
                   [[callers]]\nname = \"web\"\ntoken = \"token-of-web-0123456789\"\n[limits.default]\nrpm = 1\n";
    let (_emulator, server, relay) = started(callers).await;
    let body = PROMPT.replacen('{', r#"{"serviceTier": "priority", "#, 1);
    let call = |token: &str, nth: usize| {
        let body = body.replace("hello", &format!("hello {nth}"));
        let request = with(Request::post(FLASH), &[("x-goog-api-key", token)], &body);
        let uri = relay.uri();
        tokio::spawn(async move { send(&uri, request).await })
    };
    // Two projects have a turn a minute each; the other calls wait.
    for nth in 0..2 {
        assert_eq!(call("token-of-web-0123456789", nth).await.unwrap().0, 200);
    }
    let waiting: Vec<_> = (2..5)
        .map(|nth| call(if nth == 2 { "token-of-web-0123456789" } else { "token-of-jobs-0123456789" }, nth))
        .collect();
    let value = |metrics: &str, labels: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("relay_queue_waiting{{{labels},")));
        line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    };
    let (web, jobs) = ("caller=\"web\",priority=\"normal\"", "caller=\"jobs\",priority=\"batch\"");
    let all_wait = async {
        loop {
            let metrics = shown(&relay, "/metrics").await;
            if (value(&metrics, web), value(&metrics, jobs)) == (1.0, 2.0) {
                return metrics;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let metrics = timeout(PATIENCE, all_wait).await.expect("nobody waits");
    let served = metrics.lines().find(|line| {
        line.starts_with("tower_gemini_tier_calls_total{")
            && line.contains("tower_gemini_service_tier_asked=\"priority\"")
    });
    assert!(served.is_some_and(|line| line.ends_with(" 2")), "{metrics}");
    waiting.into_iter().for_each(|call| call.abort());
    // A gauge of what is gone is zero.
    let nobody_waits = async {
        loop {
            let metrics = shown(&relay, "/metrics").await;
            if (value(&metrics, web), value(&metrics, jobs)) == (0.0, 0.0) {
                return metrics;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let metrics = timeout(PATIENCE, nobody_waits).await.expect("they wait on");
    assert!(metrics.contains(web) && metrics.contains(jobs), "{metrics}");
    drop(server);
}

#[tokio::test]
async fn callers_without_a_name_share_one_label_of_the_queue() {
    let (_emulator, _server, relay) = started("[limits.default]\nrpm = 1\n").await;
    let call = |nth: usize| {
        let (uri, body) = (relay.uri(), PROMPT.replace("hello", &format!("hello {nth}")));
        tokio::spawn(async move { send(&uri, with(Request::post(FLASH), &[], &body)).await })
    };
    for nth in 0..2 {
        assert_eq!(call(nth).await.unwrap().0, 200);
    }
    let waiting = [call(2), call(3)];
    let both_wait = async {
        loop {
            let metrics = shown(&relay, "/metrics").await;
            let lines: Vec<_> = metrics.lines().filter(|line| line.starts_with("relay_queue_waiting{")).collect();
            if lines.iter().any(|line| line.ends_with(" 2")) {
                return lines.join("\n");
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let lines = timeout(PATIENCE, both_wait).await.expect("nobody waits");
    assert!(
        lines.starts_with("relay_queue_waiting{caller=\"\",priority=\"normal\",") && lines.lines().count() == 1,
        "{lines}"
    );
    // On the page they are told apart, as long as they wait.
    assert_eq!(status(&relay).await["queue"][0]["caller"], "127.0.0.1");
    waiting.into_iter().for_each(|call| call.abort());
}
