//! The relay and what its callers have made: each sees and uses only its own files, caches and batches.

#![cfg(unix)] // it is told to reload by a signal
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request as Received, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tower::ServiceExt;
use tower_gemini::client::Client;

use relay_process::{PATIENCE, Relay, refused_at};

const EMULATOR: &str = "upstream = \"emulator\"\n";
const CALLERS: &str = "[[callers]]\nname = \"a\"\ntoken = \"token-of-caller-a\"\n\
                       [[callers]]\nname = \"b\"\ntoken = \"token-of-caller-b\"\n";
const A: &str = "token-of-caller-a";
const B: &str = "token-of-caller-b";
const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// Returns what a caller could compare.
    fn told(&self) -> (u16, Value) {
        (self.status, self.json())
    }
}

async fn send(relay: &Relay, method: Method, token: &str, path: &str, body: impl Into<Bytes>) -> Answer {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
    let request = Request::builder().method(method).uri(path).header("x-goog-api-key", token);
    let request = request.header("content-type", "application/json").body(Full::from(body.into())).unwrap();
    let (head, body) = timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap().into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, text: String::from_utf8_lossy(&body).into_owned() }
}

async fn get(relay: &Relay, token: &str, path: &str) -> Answer {
    send(relay, Method::GET, token, path, "").await
}

async fn post(relay: &Relay, token: &str, path: &str, body: &Value) -> Answer {
    send(relay, Method::POST, token, path, body.to_string()).await
}

/// Makes something, and returns the name or id that the answer has there.
async fn made(relay: &Relay, token: &str, path: &str, body: &Value, place: &str) -> String {
    let answer = post(relay, token, path, body).await;
    let json = answer.json();
    json.pointer(place).and_then(Value::as_str).unwrap_or_else(|| panic!("{path}: {}", answer.text)).to_owned()
}

/// Uploads a file in two steps, as Google's SDKs do, and returns its name.
async fn upload(relay: &Relay, token: &str) -> String {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
    let start = Request::post("/upload/v1beta/files").header("x-goog-api-key", token);
    let start = start.header("x-goog-upload-protocol", "resumable").header("x-goog-upload-command", "start");
    let start = start.header("x-goog-upload-header-content-type", "text/plain").body(Full::from("{}")).unwrap();
    let started = client.clone().oneshot(start).await.unwrap();
    let address: Uri = started.headers()["x-goog-upload-url"].to_str().unwrap().parse().unwrap();
    let part = Request::post(address.path_and_query().unwrap().as_str()).header("x-goog-api-key", token);
    let part = part.header("x-goog-upload-command", "upload, finalize").header("x-goog-upload-offset", "0");
    let part = client.oneshot(part.body(Full::from("hello")).unwrap()).await.unwrap();
    let body = part.into_body().collect().await.unwrap().to_bytes();
    let json: Value = serde_json::from_slice(&body).unwrap();
    json["file"]["name"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
}

/// Lists the names or ids in the only list of an answer.
fn listed(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let lists = json.as_object().unwrap_or_else(|| panic!("{}", answer.text)).values().filter_map(Value::as_array);
    let name = |item: &Value| item["name"].as_str().or(item["id"].as_str()).unwrap().to_owned();
    lists.flatten().map(name).collect()
}

fn cache() -> Value {
    json!({ "model": "models/gemini-2.5-flash", "ttl": "600s", "contents": [{ "role": "user", "parts": [{ "text": "x ".repeat(9000) }] }] })
}

#[tokio::test]
async fn a_caller_lists_and_names_only_its_own_things() {
    let relay = Relay::start(&format!("{EMULATOR}{CALLERS}")).await;
    let file = upload(&relay, A).await;
    let cache_name = made(&relay, A, "/v1beta/cachedContents", &cache(), "/name").await;
    let batch = json!({ "batch": { "input_config": { "requests": { "requests": [
        { "request": { "contents": [{ "parts": [{ "text": "x" }] }] } }] } } } });
    let batch = made(&relay, A, "/v1beta/models/gemini-2.5-flash:batchGenerateContent", &batch, "/name").await;
    let interaction =
        made(&relay, A, "/v1beta/interactions", &json!({ "model": "gemini-2.5-flash", "input": "x" }), "/id").await;
    let store = made(&relay, A, "/v1beta/fileSearchStores", &json!({ "displayName": "s" }), "/name").await;

    for (list, name) in [
        ("/v1beta/files", &file),
        ("/v1beta/files/?pageSize=10", &file),
        ("/v1beta/cachedContents", &cache_name),
        ("/v1beta/batches", &batch),
        ("/v1beta/fileSearchStores", &store),
    ] {
        assert_eq!(listed(&get(&relay, A, list).await), std::slice::from_ref(name), "{list}");
        assert_eq!(listed(&get(&relay, B, list).await), [""; 0], "{list}");
    }
    let id = file.trim_start_matches("files/");
    let none = get(&relay, B, "/v1beta/files/no-such-file").await.told();
    assert_eq!((none.0, &none.1["error"]["message"]), (404, &json!("Requested entity was not found.")));
    for (method, path) in [
        (Method::GET, format!("/v1beta/{file}")),
        (Method::GET, format!("/v1beta/{file}/")),
        (Method::GET, format!("/v1beta//{file}")),
        (Method::GET, format!("/v1beta/files%2F{id}")),
        (Method::GET, format!("/v1beta/f%69les/{id}:download?alt=media")),
        (Method::DELETE, format!("/v1beta/{file}")),
        (Method::GET, format!("/v1beta/{cache_name}")),
        (Method::PATCH, format!("/v1beta/{cache_name}?updateMask=ttl")),
        (Method::GET, format!("/v1beta/{batch}")),
        (Method::POST, format!("/v1beta/{batch}:cancel")),
        (Method::GET, format!("/v1beta/interactions/{interaction}")),
        (Method::GET, format!("/v1beta/{store}/documents")),
        (Method::POST, format!("/upload/v1beta/{store}:uploadToFileSearchStore")),
    ] {
        let sent = if method == Method::PATCH { r#"{"ttl": "60s"}"# } else { "" };
        let foreign = send(&relay, method.clone(), B, &path, sent).await.told();
        assert_eq!(foreign.0, 404, "{method} {path}: {}", foreign.1);
        assert_eq!(foreign.1["error"]["message"], none.1["error"]["message"], "{method} {path}");
        // The emulator says something else of any upload of this form.
        if !path.starts_with("/upload") {
            let ids = [id, &cache_name[15..], &batch[8..], &interaction, &store[17..]];
            let nowhere = ids.iter().fold(path.clone(), |path, id| path.replace(id, "nosuchthing1"));
            assert_ne!(nowhere, path);
            assert_eq!(send(&relay, method, B, &nowhere, sent).await.told(), foreign, "{path}");
        }
    }
    assert_eq!(send(&relay, Method::HEAD, B, &format!("/v1beta/{file}"), "").await.status, 404);
    for openai in [format!("/v1beta/openai/files/{id}"), format!("/v1beta/openai/files/files%2F{id}/content")] {
        assert_eq!(get(&relay, B, &openai).await.status, 404, "{openai}");
    }
    assert_eq!(get(&relay, A, &format!("/v1beta/{file}")).await.status, 200);
    assert_eq!(get(&relay, A, &format!("/v1beta/{cache_name}")).await.status, 200);
    assert_eq!(get(&relay, A, &format!("/v1beta/interactions/{interaction}")).await.status, 200);
}

#[tokio::test]
async fn a_body_that_names_another_callers_thing_is_answered_as_if_it_did_not_exist() {
    let relay = Relay::start(&format!("{EMULATOR}{CALLERS}")).await;
    let file = upload(&relay, A).await;
    let cache_name = made(&relay, A, "/v1beta/cachedContents", &cache(), "/name").await;
    let interaction =
        made(&relay, A, "/v1beta/interactions", &json!({ "model": "gemini-2.5-flash", "input": "x" }), "/id").await;
    let uri = format!("https://generativelanguage.googleapis.com/v1beta/{file}");
    let of_file =
        |uri: &str| json!({ "contents": [{ "parts": [{ "fileData": { "fileUri": uri } }, { "text": "x" }] }] });
    let of_cache = |name: &str| json!({ "cachedContent": name, "contents": [{ "parts": [{ "text": "x" }] }] });
    let after = |id: &str| json!({ "model": "gemini-2.5-flash", "input": "x", "previous_interaction_id": id });
    for (path, own, none) in [
        (FLASH, of_file(&uri), of_file(&uri.replace("files/", "files/no-"))),
        (FLASH, of_cache(&cache_name), of_cache("cachedContents/none")),
        ("/v1beta/interactions", after(&interaction), after("v1_none")),
    ] {
        let (foreign, none) = (post(&relay, B, path, &own).await.told(), post(&relay, B, path, &none).await.told());
        assert_eq!(foreign, none, "{own}");
        assert_eq!(foreign.0, 404, "{own}");
        assert_eq!(post(&relay, A, path, &own).await.status, 200, "{own}");
    }
    let escaped = of_file(&uri).to_string().replace("fileUri", "file\\u0055ri").replace('/', "\\/");
    let lenient = of_file(&uri).to_string().replace('"', "'");
    let long = json!({ "pad": "x".repeat(200_000), "contents": of_file(&uri)["contents"] }).to_string();
    for hidden in [escaped, lenient, long] {
        assert_eq!(send(&relay, Method::POST, B, FLASH, hidden).await.status, 404);
    }
    let prose = json!({ "contents": [{ "parts": [{ "text": format!("is there {file} in my list?") }] }] });
    assert_eq!(post(&relay, B, FLASH, &prose).await.status, 200, "a text names nothing");
    let malformed = send(&relay, Method::POST, B, FLASH, "{\"contents\": [").await;
    assert_eq!(malformed.status, 400, "{}", malformed.text);
}

#[tokio::test]
async fn who_made_what_survives_a_reload_and_a_deletion_ends_it() {
    let settings = format!("{EMULATOR}{CALLERS}");
    let relay = Relay::start_logging(&settings, &[]).await;
    let (first, second) = (upload(&relay, A).await, upload(&relay, A).await);
    relay.reload(&format!("{settings}priority = \"batch\"\n")).await;
    assert_eq!(get(&relay, B, &format!("/v1beta/{first}")).await.status, 404);
    assert_eq!(send(&relay, Method::DELETE, A, &format!("/v1beta/{first}"), "").await.status, 200);
    assert_eq!(listed(&get(&relay, A, "/v1beta/files").await), std::slice::from_ref(&second));
    relay.reload(&format!("shared_files = true\n{settings}")).await;
    assert_eq!(listed(&get(&relay, B, "/v1beta/files").await), std::slice::from_ref(&second), "they share");
    assert_eq!(get(&relay, B, &format!("/v1beta/{second}")).await.status, 200);
}

#[tokio::test]
async fn callers_with_a_token_only_share_unless_the_settings_say_otherwise() {
    let tokens = format!("client_tokens = [{A:?}, {B:?}]\n");
    let relay = Relay::start(&format!("{EMULATOR}{tokens}")).await;
    let file = upload(&relay, A).await;
    assert_eq!(get(&relay, B, &format!("/v1beta/{file}")).await.status, 200);
    let relay = Relay::start(&format!("{EMULATOR}{tokens}shared_files = false\n")).await;
    let file = upload(&relay, A).await;
    assert_eq!(get(&relay, B, &format!("/v1beta/{file}")).await.status, 404);
    assert_eq!(listed(&get(&relay, A, "/v1beta/files").await), [file]);
    refused_at("shared_files = false\nupstream = \"emulator\"\n", "1:16", &["set [[callers]] or client_tokens"]).await;
}

// === shapes that the emulator has not ===

/// The head and body of the next answer, and the heads of the requests.
#[derive(Clone, Default)]
struct Upstream {
    says: Arc<Mutex<(u16, String)>>,
    heard: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Upstream {
    async fn start() -> (Self, Relay) {
        Self::start_with("").await
    }

    async fn start_with(settings: &str) -> (Self, Relay) {
        let upstream = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(Self::answer).with_state(upstream.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let keys = "[[keys]]\nkey = \"key-of-the-relay\"\n[retry]\nmax_attempts = 1\n";
        let relay = Relay::start(&format!("upstream = \"http://{address}\"\n{settings}{keys}{CALLERS}")).await;
        (upstream, relay)
    }

    async fn answer(State(upstream): State<Self>, request: Received) -> Response {
        let (head, body) = request.into_parts();
        upstream.heard.lock().push(head.headers);
        body.collect().await.unwrap();
        let (status, body) = upstream.says.lock().clone();
        let response = Response::builder().status(StatusCode::from_u16(status).unwrap());
        response.header("content-type", "application/json").header("etag", "\"all\"").body(Body::from(body)).unwrap()
    }

    fn says(&self, status: u16, body: &str) {
        *self.says.lock() = (status, body.to_owned());
    }
}

#[tokio::test]
async fn a_list_is_cut_byte_for_byte_and_asked_for_whole() {
    let (upstream, relay) = Upstream::start().await;
    upstream.says(200, r#"{"file": {"name": "files/own"}}"#);
    post(&relay, A, "/upload/v1beta/files", &json!({})).await;
    let item = |name: &str| format!("{{ \"name\": \"files/{name}\",  \"sizeBytes\":\"\\u0031\" }}");
    let page = |items: &str| format!("{{ \"files\" : [\n{items}\n],\n \"nextPageToken\": \"a\\u002fb\" }}\n");
    upstream.says(200, &page(&[item("of-b"), item("own"), item("unknown")].join(",\n")));
    let request = Request::get("/v1beta/files?pageToken=x").header("x-goog-api-key", A);
    let request = request.header("range", "bytes=0-9").header("if-none-match", "\"all\"");
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
    let (head, body) = client.oneshot(request.body(Full::default()).unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(body, page(&item("own")));
    assert!(!head.headers.contains_key("etag"), "{:?}", head.headers);
    let heard = upstream.heard.lock().last().unwrap().clone();
    assert!(!heard.contains_key("range") && !heard.contains_key("if-none-match"), "{heard:?}");

    for (list, says) in [("is no JSON", "proto".to_owned()), ("8388608 bytes", page(&item(&"x".repeat(9_000_000))))] {
        upstream.says(200, &says);
        let answer = get(&relay, A, "/v1beta/files").await;
        assert_eq!(answer.status, 502);
        assert!(answer.text.contains(list), "{}", answer.text);
    }
    let head = send(&relay, Method::HEAD, A, "/v1beta/files", "").await;
    assert!(head.status == 200 && head.headers.get("content-length").is_none_or(|length| length == "0"));
}

#[tokio::test]
async fn a_body_that_is_searched_is_kept_once_and_has_to_be_plain() {
    // A caller's share is more than its body, and less than two bodies.
    let (upstream, relay) = Upstream::start_with("max_body = \"1MiB\"\nmax_kept = \"1280KiB\"\n").await;
    upstream.says(200, r#"{"file": {"name": "files/own"}}"#);
    post(&relay, A, "/upload/v1beta/files", &json!({})).await;
    upstream.says(200, r#"{"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]}"#);
    let prompt = json!({ "contents": [{ "parts": [{ "text": "x".repeat(512 * 1024) }] }] });
    assert_eq!(post(&relay, B, FLASH, &prompt).await.status, 200);
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.operator_uri()).build().unwrap();
    let status = client.oneshot(Request::get("/status").body(Full::default()).unwrap()).await.unwrap();
    let status: Value = serde_json::from_slice(&status.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(status["kept"]["caller_share"], 0, "{status}");

    let heard = upstream.heard.lock().len();
    for (coding, status) in [("gzip", 415), ("Identity", 200)] {
        let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
        let request = Request::post(FLASH).header("x-goog-api-key", B).header("content-encoding", coding);
        let answer = client.oneshot(request.body(Full::from("{}")).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{coding}");
    }
    assert_eq!(upstream.heard.lock().len(), heard + 1);
}

#[tokio::test]
async fn what_comes_of_a_callers_thing_is_that_callers() {
    let (upstream, relay) = Upstream::start().await;
    let veo = "/v1beta/models/veo-3.1-generate-preview:predictLongRunning";
    upstream.says(200, r#"{"name": "models/veo-3.1-generate-preview/operations/o1"}"#);
    assert_eq!(post(&relay, A, veo, &json!({ "instances": [{ "prompt": "x" }] })).await.status, 200);
    let operation = "/v1beta/models/veo-3.1-generate-preview/operations/o1";
    assert_eq!(get(&relay, B, operation).await.status, 404);
    let video = "https://generativelanguage.googleapis.com/v1beta/files/video1:download?alt=media";
    let done = json!({ "name": "models/veo-3.1-generate-preview/operations/o1", "done": true, "response":
        { "generateVideoResponse": { "generatedSamples": [{ "video": { "uri": video } }] } } });
    upstream.says(200, &done.to_string());
    assert_eq!(get(&relay, A, operation).await.status, 200);
    assert_eq!(get(&relay, B, "/v1beta/files/video1:download?alt=media").await.status, 404);
    assert_eq!(get(&relay, A, "/v1beta/files/video1:download?alt=media").await.status, 200);

    upstream
        .says(200, r#"{"id": "batch_1", "object": "batch", "input_file_id": "file-in", "output_file_id": "file-out"}"#);
    post(&relay, A, "/v1beta/openai/batches", &json!({ "input_file_id": "file-in" })).await;
    for (path, status) in [
        ("/v1beta/openai/batches/batch_1", 404),
        ("/v1beta/openai/files/file-out/content", 404),
        ("/v1beta/files/file-out", 404),
        // Nobody knows who made it: naming it makes it nobody's.
        ("/v1beta/openai/files/file-in", 200),
    ] {
        assert_eq!(get(&relay, B, path).await.status, status, "{path}");
    }
    let list = json!({ "object": "list", "data": [{ "id": "batch_0" }, { "id": "batch_1" }, { "id": "batch_2" }],
        "first_id": "batch_0", "last_id": "batch_2", "has_more": true });
    upstream.says(200, &list.to_string());
    let answer = get(&relay, A, "/v1beta/openai/batches?limit=3").await.json();
    let own = json!({ "object": "list", "data": [{ "id": "batch_1" }], "first_id": "batch_1", "last_id": "batch_1",
        "has_more": true });
    assert_eq!(answer, own);

    let session = "/upload/v1beta/files?upload_id=u1&upload_protocol=resumable";
    assert_eq!(get(&relay, B, "/batch").await.status, 200, "it only reads");
    assert_eq!(post(&relay, B, "/batch", &json!({})).await.status, 404);
    assert_eq!(post(&relay, B, session, &json!({})).await.status, 200, "nobody's upload");
}

#[tokio::test]
async fn a_thing_whose_maker_nobody_knows_is_in_no_list_and_answers_to_its_name() {
    let (upstream, relay) = Upstream::start().await;
    upstream.says(200, r#"{"files": [{"name": "files/before"}]}"#);
    assert_eq!(listed(&get(&relay, A, "/v1beta/files").await), [""; 0]);
    upstream.says(200, r#"{"name": "files/before"}"#);
    for token in [A, B, A] {
        assert_eq!(get(&relay, token, "/v1beta/files/before").await.status, 200);
    }
    upstream.says(200, r#"{"name": "batches/before", "done": false}"#);
    assert_eq!(post(&relay, A, "/v1beta/batches/before:cancel", &json!({})).await.status, 200);
    assert_eq!(get(&relay, B, "/v1beta/batches/before").await.status, 200, "who names it does not own it");
}
