//! The emulator's files and cached contents: Google's shapes, and the projects that they belong to.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as its tests do")]

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::advance;
use tower::ServiceExt;
use tower_gemini::{
    call::Operation,
    emulator::{Emulator, Trouble, When},
};

const FILES: &str = "/v1beta/files";
const UPLOAD: &str = "/upload/v1beta/files";
const CACHES: &str = "/v1beta/cachedContents";
const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const COUNT: &str = "/v1beta/models/gemini-2.5-flash:countTokens";
const CHAT: &str = "/v1beta/openai/chat/completions";

/// Makes an emulator with two keys of one project, and one of another.
fn emulator() -> Emulator {
    Emulator::builder().key("one", "p1").key("another", "p1").key("two", "p2").build()
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["error"]["message"].as_str().unwrap().to_owned())
    }
}

async fn send(emulator: &Emulator, request: Request<Full<Bytes>>) -> Answer {
    let (head, body) = emulator.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

async fn ask(emulator: &Emulator, key: &str, method: Method, uri: &str, body: impl Into<Bytes>) -> Answer {
    let request = Request::builder().method(method).uri(uri).header("x-goog-api-key", key);
    send(emulator, request.body(Full::new(body.into())).unwrap()).await
}

async fn get(emulator: &Emulator, key: &str, uri: &str) -> Answer {
    ask(emulator, key, Method::GET, uri, "").await
}

async fn start(emulator: &Emulator, key: &str, size: u64, file: Value) -> Answer {
    let request = Request::post(UPLOAD)
        .header("x-goog-api-key", key)
        .header("x-goog-upload-protocol", "resumable")
        .header("x-goog-upload-command", "start")
        .header("x-goog-upload-header-content-length", size)
        .header("x-goog-upload-header-content-type", "text/plain");
    send(emulator, request.body(Full::from(json!({ "file": file }).to_string())).unwrap()).await
}

/// Continues an upload as an SDK does: without a key.
async fn piece(emulator: &Emulator, url: &str, command: &str, offset: usize, bytes: &str) -> Answer {
    let request =
        Request::post(url).header("x-goog-upload-command", command).header("x-goog-upload-offset", offset.to_string());
    send(emulator, request.body(Full::from(bytes.to_owned())).unwrap()).await
}

async fn upload(emulator: &Emulator, key: &str, text: &str) -> Value {
    let started = start(emulator, key, text.len() as u64, json!({ "displayName": "a file" })).await;
    let done = piece(emulator, started.header("x-goog-upload-url"), "upload, finalize", 0, text).await;
    assert_eq!((done.status, done.header("x-goog-upload-status")), (200, "final"));
    done.json()["file"].clone()
}

fn naming(uri: &str) -> String {
    let file = json!({ "fileData": { "fileUri": uri, "mimeType": "text/plain" } });
    json!({ "contents": [{ "parts": [{ "text": "what is it?" }, file] }] }).to_string()
}

const NOT_YOURS: &str = "You do not have permission to access the File";

#[tokio::test(start_paused = true)]
async fn an_upload_goes_the_way_the_sdks_take() {
    let emulator = emulator();
    let started = start(&emulator, "one", 11, json!({ "displayName": "notes", "sizeBytes": "11" })).await;
    assert_eq!((started.status, started.body.len()), (200, 0));
    assert_eq!(started.header("x-goog-upload-status"), "active");
    let url = started.header("x-goog-upload-url").to_owned();
    assert!(url.starts_with("https://generativelanguage.googleapis.com/upload/v1beta/files?upload_id="), "{url}");

    let first = piece(&emulator, &url, "upload", 0, "hello ").await;
    assert_eq!((first.status, first.header("x-goog-upload-status"), first.body.len()), (200, "active", 0));
    let asked = piece(&emulator, &url, "query", 0, "").await;
    assert_eq!((asked.status, asked.header("x-goog-upload-size-received")), (200, "6"));
    let wrong = piece(&emulator, &url, "upload, finalize", 0, "world").await;
    assert_eq!(wrong.status, 400, "{}", wrong.json());
    let last = piece(&emulator, &url, "upload, finalize", 6, "world").await;
    assert_eq!((last.status, last.header("x-goog-upload-status")), (200, "final"));

    let file = last.json()["file"].clone();
    let name = file["name"].as_str().unwrap();
    assert!(name.starts_with("files/"), "{file}");
    assert_eq!(file["uri"], format!("https://generativelanguage.googleapis.com/v1beta/{name}"));
    let rest = ["displayName", "mimeType", "sizeBytes", "state", "source"].map(|member| file[member].clone());
    assert_eq!(rest, ["notes", "text/plain", "11", "ACTIVE", "UPLOADED"]);
    assert!(file["expirationTime"].as_str().unwrap().ends_with('Z'), "{file}");
    assert_eq!(get(&emulator, "one", &format!("/v1beta/{name}")).await.json(), file);
    assert_eq!(piece(&emulator, &url, "query", 0, "").await.status, 403, "a finished upload stands for nobody");

    let journal = emulator.journal();
    assert_eq!(journal[0].operation, Operation::Upload);
    assert!(journal[..5].iter().all(|visit| visit.project.as_deref() == Some("p1")), "{journal:#?}");
    assert_eq!(journal[1].key, None, "the upload's address is all it takes");
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_at_the_host_that_was_asked() {
    let emulator = emulator();
    for (uri, host, expected) in [
        ("http://127.0.0.1:1234/base/upload/v1beta/files", None, "http://127.0.0.1:1234/base/upload/v1beta/files?"),
        (UPLOAD, Some("localhost:99"), "http://localhost:99/upload/v1beta/files?"),
        ("https://h/upload/v1/files", Some("other"), "https://h/upload/v1/files?"),
    ] {
        let mut request = Request::post(uri)
            .header("x-goog-api-key", "one")
            .header("x-goog-upload-protocol", "resumable")
            .header("x-goog-upload-command", "start");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let started = send(&emulator, request.body(Full::default()).unwrap()).await;
        let url = started.header("x-goog-upload-url");
        assert!(url.starts_with(expected), "{url}");
        assert_eq!(piece(&emulator, url, "upload, finalize", 0, "hi").await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_belongs_to_the_project_of_its_key() {
    let emulator = emulator();
    let file = upload(&emulator, "one", "mine").await;
    let [name, uri] = ["name", "uri"].map(|member| file[member].as_str().unwrap().to_owned());
    let path = format!("/v1beta/{name}");
    assert_eq!(get(&emulator, "another", &path).await.status, 200, "a key of the same project");
    for answer in [
        get(&emulator, "two", &path).await,
        ask(&emulator, "two", Method::DELETE, &path, "").await,
        get(&emulator, "one", "/v1beta/files/never-was").await,
        ask(&emulator, "two", Method::POST, GENERATE, naming(&uri)).await,
        ask(&emulator, "two", Method::POST, COUNT, naming(&uri)).await,
    ] {
        let (status, message) = answer.refusal();
        assert_eq!(status, 403);
        assert!(message.starts_with(NOT_YOURS) && message.ends_with("or it may not exist."), "{message}");
        assert_eq!(answer.json()["error"]["status"], "PERMISSION_DENIED");
    }
    for key in ["one", "another"] {
        assert_eq!(ask(&emulator, key, Method::POST, GENERATE, naming(&uri)).await.status, 200);
    }
    assert_eq!(ask(&emulator, "another", Method::DELETE, &path, "").await.json(), json!({}));
    assert_eq!(ask(&emulator, "one", Method::POST, GENERATE, naming(&uri)).await.status, 403, "it is gone");
}

#[tokio::test(start_paused = true)]
async fn what_is_elsewhere_is_nobodys() {
    let emulator = emulator();
    for uri in ["https://www.youtube.com/watch?v=files", "gs://bucket/files/a.pdf", "https://host/files/a.pdf"] {
        assert_eq!(ask(&emulator, "two", Method::POST, GENERATE, naming(uri)).await.status, 200, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_its_projects_too() {
    let emulator = emulator();
    let started = start(&emulator, "one", 2, json!({})).await;
    let url = started.header("x-goog-upload-url");
    let mut request = Request::post(url).header("x-goog-upload-command", "upload, finalize");
    request = request.header("x-goog-api-key", "two");
    assert_eq!(send(&emulator, request.body(Full::from("hi")).unwrap()).await.status, 404);
    let invented = url.replace("upload_id=", "upload_id=x");
    assert_eq!(piece(&emulator, &invented, "upload, finalize", 0, "hi").await.status, 403);
    assert_eq!(piece(&emulator, url, "cancel", 0, "").await.header("x-goog-upload-status"), "cancelled");
    assert_eq!(piece(&emulator, url, "upload, finalize", 0, "hi").await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn a_list_has_the_projects_own_on_pages() {
    let emulator = emulator();
    for _ in 0..3 {
        upload(&emulator, "one", "text").await;
    }
    upload(&emulator, "two", "text").await;
    let names = |answer: &Answer| answer.json()["files"].as_array().map_or(0, Vec::len);
    let first = get(&emulator, "one", &format!("{FILES}?pageSize=2")).await;
    assert_eq!(names(&first), 2);
    let token = first.json()["nextPageToken"].as_str().unwrap().to_owned();
    let second = get(&emulator, "another", &format!("{FILES}?pageSize=2&pageToken={token}")).await;
    assert_eq!((names(&second), second.json().get("nextPageToken")), (1, None));
    assert_eq!(names(&get(&emulator, "two", FILES).await), 1);
    assert_eq!(get(&emulator, "two", CACHES).await.json(), json!({}));
}

#[tokio::test(start_paused = true)]
async fn a_cached_content_belongs_to_its_project_and_expires() {
    let emulator = emulator();
    let content = json!({
        "model": "models/gemini-2.5-flash", "ttl": "300s", "displayName": "a book",
        "contents": [{ "role": "user", "parts": [{ "text": "12345678" }] }],
    });
    let made = ask(&emulator, "one", Method::POST, CACHES, content.to_string()).await;
    let cached = made.json();
    let name = cached["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("cachedContents/"), "{cached}");
    assert_eq!((&cached["model"], &cached["usageMetadata"]), (&content["model"], &json!({ "totalTokenCount": 2 })));
    assert_eq!(get(&emulator, "another", &format!("/v1beta/{name}")).await.json(), cached);

    let prompt = json!({ "contents": [{ "parts": [{ "text": "and?" }] }], "cachedContent": name }).to_string();
    let chat = json!({ "model": "gemini-2.5-flash", "messages": [{ "role": "user", "content": "and?" }],
        "extra_body": { "google": { "cached_content": name } } })
    .to_string();
    assert_eq!(ask(&emulator, "one", Method::POST, GENERATE, prompt.clone()).await.status, 200);
    let refused = ask(&emulator, "two", Method::POST, GENERATE, prompt.clone()).await.refusal();
    assert_eq!(refused, (403, "CachedContent not found (or permission denied)".to_owned()));
    for (key, status) in [("one", 200), ("two", 403)] {
        let request = Request::post(CHAT).header("authorization", format!("Bearer {key}"));
        assert_eq!(send(&emulator, request.body(Full::from(chat.clone())).unwrap()).await.status, status);
    }
    advance(Duration::from_secs(300)).await;
    assert_eq!(ask(&emulator, "one", Method::POST, GENERATE, prompt).await.status, 403);

    let unknown = content.to_string().replace("gemini-2.5-flash", "gemini-9");
    assert_eq!(ask(&emulator, "one", Method::POST, CACHES, unknown).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_file_lives_for_two_days() {
    let emulator = emulator();
    let file = upload(&emulator, "one", "text").await;
    let path = format!("/v1beta/{}", file["name"].as_str().unwrap());
    advance(Duration::from_secs(48 * 3600 - 1)).await;
    assert_eq!(get(&emulator, "one", &path).await.status, 200);
    advance(Duration::from_secs(1)).await;
    assert_eq!(get(&emulator, "one", &path).await.status, 403);
    assert_eq!(get(&emulator, "one", FILES).await.json(), json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_resumable_upload_is_refused_and_bad_keys_are() {
    let emulator = emulator();
    let multipart = Request::post(UPLOAD).header("x-goog-api-key", "one").header("x-goog-upload-protocol", "multipart");
    let (status, message) = send(&emulator, multipart.body(Full::default()).unwrap()).await.refusal();
    assert_eq!(status, 400);
    assert!(message.contains("resumable"), "{message}");
    assert_eq!(start(&emulator, "nobody", 1, json!({})).await.status, 400);
    assert_eq!(start(&emulator, "one", 3 << 30, json!({})).await.status, 429, "2 GiB a file");
    assert_eq!(get(&emulator, "nobody", FILES).await.status, 400);
    let file = start(&emulator, "one", 1, json!({ "name": "files/my-name" })).await;
    piece(&emulator, file.header("x-goog-upload-url"), "upload, finalize", 0, "1").await;
    assert_eq!(get(&emulator, "one", "/v1beta/files/my-name").await.status, 200);
    assert_eq!(start(&emulator, "one", 1, json!({ "name": "my-name" })).await.status, 409);
}

#[tokio::test(start_paused = true)]
async fn troubles_strike_files_where_they_are_told_to() {
    let emulator = emulator();
    emulator.trouble(When::first(1), Trouble::overloaded());
    emulator.trouble(When::first(1).operation(Operation::Upload), Trouble::internal());
    let refused = start(&emulator, "one", 4, json!({})).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!refused.headers.contains_key("x-goog-upload-url"));
    upload(&emulator, "one", "text").await;
    let prompt = json!({ "contents": [{ "parts": [{ "text": "hi" }] }] }).to_string();
    assert_eq!(ask(&emulator, "one", Method::POST, GENERATE, prompt).await.status, 503, "the first is for models");
}
