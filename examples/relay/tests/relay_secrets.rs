//! The relay with an upstream that repeats the key in all of its answers: nothing that leaves the relay has it.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    Router,
    body::Body,
    extract::Request as Received,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tower::ServiceExt;
use tower_gemini::client::Client;

use relay_process::{PATIENCE, Relay};

/// A key of Google's older shape, one of its newer shape, and one that only the relay knows to be a key.
const KEYS: [&str; 3] =
    ["AIzaSyD-made-up-0123456789abcdefghijklm", "AQ.Ab8RN6made-up.0123456789-abcdefghij", "key-of-nobody-else"];

/// The caller's own key, which must not go anywhere else.
const OF_THE_CALLER: &str = "AIzaSyD-callers-0123456789abcdefghijklm";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Suspended,
    Invalid,
    Leaked,
    MinuteQuota,
    DayQuota,
    Overloaded,
    Internal,
    Mistake,
    NotFound,
    Unauthenticated,
    Page,
    Text,
    /// The first event of a 200.
    FirstEvent,
}

const ALL: [Says; 13] = [
    Says::Suspended,
    Says::Invalid,
    Says::Leaked,
    Says::MinuteQuota,
    Says::DayQuota,
    Says::Overloaded,
    Says::Internal,
    Says::Mistake,
    Says::NotFound,
    Says::Unauthenticated,
    Says::Page,
    Says::Text,
    Says::FirstEvent,
];

impl Says {
    fn error(self, key: &str) -> (u16, Value) {
        let quota = |id: &str| {
            json!({ "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{ "quotaId": id, "quotaValue": "10", "subject": format!("api_key:{key}") }] })
        };
        let hint = json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "30s" });
        let (code, status, reason, more) = match self {
            Self::Suspended => (403, "PERMISSION_DENIED", "CONSUMER_SUSPENDED", vec![]),
            Self::Invalid => (400, "INVALID_ARGUMENT", "API_KEY_INVALID", vec![]),
            Self::Leaked => (403, "PERMISSION_DENIED", "API_KEY_LEAKED", vec![]),
            Self::MinuteQuota => {
                (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", vec![quota("RequestsPerMinute"), hint])
            }
            Self::DayQuota => (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", vec![quota("RequestsPerDay"), hint]),
            Self::Overloaded | Self::FirstEvent => (503, "UNAVAILABLE", "OVERLOADED", vec![]),
            Self::NotFound => (404, "NOT_FOUND", "NO_SUCH_MODEL", vec![]),
            Self::Unauthenticated => (401, "UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED", vec![]),
            Self::Mistake => (400, "INVALID_ARGUMENT", "BAD_ROLE", vec![]),
            Self::Internal | Self::Page | Self::Text => (500, "INTERNAL", "INTERNAL", vec![]),
        };
        let message = match self {
            Self::Leaked => format!("Your API key {key} was reported as leaked. Please use another API key."),
            _ => format!("Consumer 'api_key:{key}' has made https://host/v1?key={key}&alt=sse fail."),
        };
        let info = json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason,
            "metadata": { "containerInfo": format!("api_key:{key}"), "service": "generativelanguage.googleapis.com" } });
        let localized = json!({ "@type": "type.googleapis.com/google.rpc.LocalizedMessage", "message": message });
        let details: Vec<_> = [info, localized].into_iter().chain(more).collect();
        (code, json!({ "error": { "code": code, "message": message, "status": status, "details": details } }))
    }

    fn answer(self, key: &str) -> Response {
        let (code, error) = self.error(key);
        let (status, kind, body) = match self {
            Self::FirstEvent => (200, "text/event-stream", format!("data: {error}\r\n\r\n")),
            Self::Page => {
                (502, "text/html", format!("<html><title>502</title><a href=\"/v1?key={key}\">{key}</a>{key}"))
            }
            Self::Text => (500, "text/plain", format!("cannot serve {key}: Bearer {key} ({key})")),
            _ => (code, "application/json; charset=UTF-8", format!("{error:#}")),
        };
        let headers = [
            ("content-type", kind.to_owned()),
            ("www-authenticate", format!("Bearer realm=\"{key}\"")),
            ("x-debug", format!("key={key}")),
        ];
        // The pieces cut keys in two.
        let pieces: Vec<_> =
            body.as_bytes().chunks(13).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece))).collect();
        (StatusCode::from_u16(status).unwrap(), headers, Body::from_stream(stream::iter(pieces))).into_response()
    }
}

async fn upstream(says: Says) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(move |request: Received| async move {
        let (head, body) = request.into_parts();
        let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let key =
            header("x-goog-api-key").or_else(|| header("authorization").map(|bearer| bearer.replace("Bearer ", "")));
        let key = key.expect("a request without a key");
        assert!(!key.contains(OF_THE_CALLER));
        // An error in a stream is one only where the call wants events.
        let streams = head.uri.query() == Some("alt=sse");
        let body = body.collect().await.unwrap().to_bytes();
        let streams = streams || String::from_utf8_lossy(&body).contains(r#""stream":true"#);
        let says = if says == Says::FirstEvent && !streams { Says::Overloaded } else { says };
        says.answer(&key)
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn requests() -> Vec<Request<Full<Bytes>>> {
    let prompt = json!({ "contents": [{ "parts": [{ "text": "hello" }] }] }).to_string();
    let chat = |stream: bool| {
        json!({ "model": "gemini-2.5-flash", "messages": [{ "role": "user", "content": "hello" }], "stream": stream })
            .to_string()
    };
    let model = "/v1beta/models/gemini-2.5-flash";
    let posts = [
        (format!("{model}:generateContent"), prompt.clone()),
        (format!("{model}:streamGenerateContent?alt=sse"), prompt.clone()),
        (format!("{model}:streamGenerateContent"), prompt.clone()),
        (format!("{model}:countTokens"), prompt.clone()),
        ("/v1beta/openai/chat/completions".to_owned(), chat(false)),
        ("/v1beta/openai/chat/completions".to_owned(), chat(true)),
        ("/v1beta/interactions".to_owned(), r#"{"model": "gemini-2.5-flash", "input": "hello"}"#.to_owned()),
        ("/v1beta/cachedContents".to_owned(), prompt.replace('{', "{ ")),
        // A misspelt model makes the relay ask for the list itself.
        ("/v1beta/models/gemini-2.5-flsh:generateContent".to_owned(), prompt),
    ];
    let gets = ["/v1beta/files/abc", "/v1beta/models", "/elsewhere?x=y"];
    let posts = posts.into_iter().map(|(path, body)| Request::post(path).body(Full::from(body)).unwrap());
    posts.chain(gets.into_iter().map(|path| Request::get(path).body(Full::default()).unwrap())).collect()
}

#[tokio::test]
async fn no_key_comes_out_however_often_the_upstream_repeats_it() {
    join_all(ALL.map(keeps_secrets)).await;
}

async fn keeps_secrets(says: Says) {
    let address = upstream(says).await;
    let keys = KEYS.iter().enumerate().fold(String::new(), |keys, (at, key)| {
        format!("{keys}[[keys]]\nname = \"number {at}\"\nkey = {key:?}\nproject = \"p{}\"\n", at / 2)
    });
    let rest = "[retry]\nbase_delay = \"1ms\"\nmax_delay = \"2ms\"\nmax_attempts = 3\n[breaker]\nenabled = false\n\
                [timeout]\ntotal = \"3s\"\n[fallback]\n\"gemini-2.5-flash\" = [\"gemini-2.5-flash-lite\"]\n";
    let relay = Relay::start_talkative(&format!("upstream = \"http://{address}\"\n{keys}{rest}")).await;
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
    let mut heard = Vec::new();
    for mut request in [requests(), requests()].concat() {
        let of = request.uri().clone();
        request.headers_mut().insert("x-goog-api-key", OF_THE_CALLER.parse().unwrap());
        let response = timeout(PATIENCE, client.clone().oneshot(request)).await.expect("no answer").unwrap();
        heard.push((format!("the head of {of}"), format!("{:?} {:?}", response.status(), raw(response.headers()))));
        let body = timeout(PATIENCE, response.into_body().collect()).await.expect("no end").unwrap().to_bytes();
        heard.push((format!("the body of {of}"), String::from_utf8_lossy(&body).into_owned()));
    }
    heard.push(("the output".to_owned(), relay.said().await));
    let seen = heard.iter().map(|(_, text)| text.len()).sum::<usize>();
    assert!(seen > 1_000, "{says:?}: {seen} bytes are no test");
    for (place, text) in &heard {
        for key in KEYS.iter().chain([&OF_THE_CALLER]) {
            assert!(!text.contains(key), "{says:?}: {key} in {place}: {text}");
            assert!(!text.contains(&key[8..]), "{says:?}: most of {key} in {place}: {text}");
        }
    }
}

/// Writes headers in full: `Debug` hides those that are marked as sensitive.
fn raw(headers: &http::HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect()
}
