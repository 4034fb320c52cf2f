//! The emulator's batches, stores, agents and other things: who may use them, and what comes of them.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as its tests do")]

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::{Instant, advance};
use tower::ServiceExt;
use tower_gemini::{
    call::ServiceTier,
    emulator::{Emulator, EmulatorBuilder, Trouble, When},
    quota::Limits,
};

const GENERATE: &str = "/v1/models/gemini-3.8-flash:generateContent";
const STREAM: &str = "/v1/models/gemini-3.8-flash:streamGenerateContent?alt=sse";
const BATCH: &str = "/v1/models/gemini-3.8-flash:batchGenerateContent";

/// Makes an emulator with two keys of one project, and one of another.
fn builder() -> EmulatorBuilder {
    Emulator::builder().key("one", "p1").key("another", "p1").key("two", "p2")
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

    fn tier(&self) -> Option<&str> {
        self.headers.get("x-gemini-service-tier").map(|tier| tier.to_str().unwrap())
    }

    fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

async fn send(emulator: &Emulator, request: Request<Full<Bytes>>) -> Answer {
    let (head, body) = emulator.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

async fn ask(emulator: &Emulator, key: &str, method: Method, uri: &str, body: Value) -> Answer {
    let request = Request::builder().method(method).uri(uri).header("x-goog-api-key", key);
    let body = if body.is_null() { Full::default() } else { Full::from(body.to_string()) };
    send(emulator, request.body(body).unwrap()).await
}

async fn post(emulator: &Emulator, key: &str, uri: &str, body: Value) -> Answer {
    ask(emulator, key, Method::POST, uri, body).await
}

async fn get(emulator: &Emulator, key: &str, uri: &str) -> Answer {
    ask(emulator, key, Method::GET, uri, Value::Null).await
}

/// Uploads a file to a path, and returns it.
async fn upload(emulator: &Emulator, key: &str, path: &str, text: &str) -> Value {
    let start = Request::post(path)
        .header("x-goog-api-key", key)
        .header("x-goog-upload-protocol", "resumable")
        .header("x-goog-upload-command", "start");
    let started = send(emulator, start.body(Full::default()).unwrap()).await;
    let url = started.headers["x-goog-upload-url"].to_str().unwrap();
    let piece = Request::post(url).header("x-goog-upload-command", "upload, finalize");
    let done = send(emulator, piece.body(Full::from(text.to_owned())).unwrap()).await;
    assert_eq!(done.status, 200);
    if path.contains("fileSearchStores/") { done.json() } else { done.json()["file"].clone() }
}

fn prompt(text: &str, more: Value) -> Value {
    let mut prompt = json!({ "contents": [{ "parts": [{ "text": text }] }] });
    prompt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    prompt
}

fn inline(texts: &[&str]) -> Value {
    let requests = texts.iter().map(|text| json!({ "request": prompt(text, json!({})), "metadata": { "key": text } }));
    let requests = json!({ "requests": requests.collect::<Vec<_>>() });
    json!({ "batch": { "displayName": "j", "inputConfig": { "requests": requests } } })
}

fn state(answer: &Answer) -> Value {
    answer.json()["metadata"]["state"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_pending_runs_and_succeeds() {
    let emulator = builder().background_time(Duration::from_secs(600)).build();
    let made = post(&emulator, "one", BATCH, inline(&["a", "b"])).await;
    let name = made.json()["name"].as_str().unwrap().to_owned();
    assert_eq!((state(&made), made.json().get("done")), (json!("BATCH_STATE_PENDING"), None));
    assert_eq!(made.json()["metadata"]["batchStats"], json!({ "requestCount": "2", "pendingRequestCount": "2" }));
    let path = format!("/v1/{name}");
    assert_eq!(state(&get(&emulator, "another", &path).await), "BATCH_STATE_RUNNING");
    advance(Duration::from_secs(600)).await;
    let done = get(&emulator, "one", &path).await;
    assert_eq!((state(&done), &done.json()["done"]), (json!("BATCH_STATE_SUCCEEDED"), &json!(true)));
    let results = done.json()["response"]["inlinedResponses"]["inlinedResponses"].clone();
    assert_eq!(results[1]["metadata"]["key"], "b");
    assert_eq!(results[1]["response"]["candidates"][0]["content"]["parts"][0]["text"], "You said: b");

    for refused in [
        get(&emulator, "two", &path).await,
        ask(&emulator, "two", Method::DELETE, &path, Value::Null).await,
        post(&emulator, "two", &format!("{path}:cancel"), json!({})).await,
    ] {
        assert_eq!((refused.status, refused.message()), (404, "Requested entity was not found.".to_owned()));
    }
    let list = get(&emulator, "one", "/v1/batches").await.json();
    assert_eq!(list["operations"].as_array().unwrap().len(), 1);
    assert_eq!(get(&emulator, "two", "/v1/batches").await.json(), json!({}));
    post(&emulator, "one", &format!("{path}:cancel"), json!({})).await;
    assert_eq!(state(&get(&emulator, "one", &path).await), "BATCH_STATE_SUCCEEDED", "too late");
    assert_eq!(ask(&emulator, "one", Method::DELETE, &path, Value::Null).await.json(), json!({}));
    assert_eq!(get(&emulator, "one", &path).await.status, 404);

    let made = post(&emulator, "one", BATCH, inline(&["a"])).await;
    let path = format!("/v1/{}", made.json()["name"].as_str().unwrap());
    assert_eq!(post(&emulator, "one", &format!("{path}:cancel"), json!({})).await.json(), json!({}));
    advance(Duration::from_secs(600)).await;
    assert_eq!(state(&get(&emulator, "one", &path).await), "BATCH_STATE_CANCELLED");
    assert_eq!(post(&emulator, "one", BATCH, json!({ "batch": {} })).await.status, 400);
    assert_eq!(post(&emulator, "one", &BATCH.replace("3.8-flash", "9"), inline(&["a"])).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_file_has_a_file_of_results_and_both_are_the_projects() {
    let emulator = builder().background_time(Duration::from_secs(600)).build();
    let file = upload(&emulator, "one", "/upload/v1/files", "{\"key\":1}\n{\"key\":2}\n{\"key\":3}\n").await;
    for member in ["fileName", "file_name"] {
        let config = if member == "fileName" { "inputConfig" } else { "input_config" };
        let batch = json!({ "batch": { "displayName": "j", config: { member: file["name"] } } });
        assert_eq!(post(&emulator, "two", BATCH, batch.clone()).await.status, 404, "{member}");
        let made = post(&emulator, "another", BATCH, batch).await;
        assert_eq!(made.json()["metadata"]["batchStats"]["requestCount"], "3");
        let path = format!("/v1/{}", made.json()["name"].as_str().unwrap());
        let results = format!("/v1/files/of-{}", path.rsplit('/').next().unwrap());
        assert_eq!(get(&emulator, "one", &results).await.status, 403, "not yet");
        advance(Duration::from_secs(600)).await;
        let done = get(&emulator, "one", &path).await.json();
        let results = format!("/v1/{}:download?alt=media", done["response"]["responsesFile"].as_str().unwrap());
        assert_eq!(done["metadata"]["output"]["responsesFile"], done["response"]["responsesFile"]);
        assert_eq!(get(&emulator, "two", &results).await.status, 403);
        let answer = get(&emulator, "one", &results).await;
        assert_eq!(answer.headers["content-type"], "application/jsonl");
        let lines: Vec<Value> =
            answer.body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        assert_eq!((lines.len(), &lines[2]["key"]), (3, &json!("request-3")));
    }
    let own = format!("/v1/{}:download?alt=media", file["name"].as_str().unwrap());
    assert_eq!(get(&emulator, "one", &own).await.status, 400, "what was uploaded cannot be downloaded");
}

#[tokio::test(start_paused = true)]
async fn openais_batches_and_videos_are_a_projects_too() {
    let emulator = builder().background_time(Duration::from_secs(60)).build();
    let open_ai = async |key: &str, method: Method, path: &str, body: Value| {
        let uri = format!("/v1beta/openai/{path}");
        let request = Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {key}"));
        send(&emulator, request.body(Full::from(body.to_string())).unwrap()).await
    };
    let file = upload(&emulator, "one", "/upload/v1/files", "{}\n{}\n").await;
    let new = json!({ "input_file_id": file["name"], "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    assert_eq!(open_ai("two", Method::POST, "batches", new.clone()).await.status, 404);
    assert_eq!(open_ai("one", Method::POST, "batches", json!({})).await.status, 400);
    let cancelled = open_ai("one", Method::POST, "batches", new.clone()).await.json();
    let cancel = format!("batches/{}/cancel", cancelled["id"].as_str().unwrap());
    assert_eq!(open_ai("two", Method::POST, &cancel, json!({})).await.status, 404);
    assert_eq!(open_ai("one", Method::POST, &cancel, json!({})).await.json()["status"], "cancelled");
    let made = open_ai("one", Method::POST, "batches", new).await.json();
    assert_eq!((&made["object"], &made["status"]), (&json!("batch"), &json!("validating")));
    let id = made["id"].as_str().unwrap();
    for form in [format!("batches/{id}"), format!("batches/batches%2F{id}")] {
        let got = open_ai("another", Method::GET, &form, json!({})).await.json();
        assert_eq!((&got["id"], &got["status"]), (&made["id"], &json!("in_progress")));
        assert_eq!(open_ai("two", Method::GET, &form, json!({})).await.status, 404);
    }
    advance(Duration::from_secs(60)).await;
    let done = open_ai("one", Method::GET, &format!("batches/{id}"), json!({})).await.json();
    let output = format!("files/{}/content", done["output_file_id"].as_str().unwrap());
    assert_eq!(open_ai("one", Method::GET, &output, json!({})).await.body.split(|byte| *byte == b'\n').count(), 3);
    assert_eq!(open_ai("two", Method::GET, &output, json!({})).await.status, 403);
    assert_eq!(open_ai("one", Method::GET, "batches", json!({})).await.json()["data"][0]["id"], made["id"]);

    let video = open_ai("one", Method::POST, "videos", json!({ "model": "veo-3", "prompt": "x" })).await.json();
    let path = format!("videos/{}", video["id"].as_str().unwrap());
    assert_eq!(open_ai("one", Method::GET, &path, json!({})).await.json(), video);
    assert_eq!(open_ai("two", Method::GET, &path, json!({})).await.status, 404);
    assert_eq!(open_ai("one", Method::DELETE, &path, json!({})).await.json()["deleted"], true);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_embeddings_has_vectors() {
    let emulator = builder().build();
    let uri = "/v1/models/gemini-embedding-001:asyncBatchEmbedContent";
    let request = json!({ "request": { "content": { "parts": [{ "text": "one" }] } } });
    let batch = json!({ "batch": { "inputConfig": { "requests": { "requests": [request] } } } });
    let made = post(&emulator, "one", uri, batch).await.json();
    let done = get(&emulator, "one", &format!("/v1/{}", made["name"].as_str().unwrap())).await.json();
    let results = &done["response"]["inlinedEmbedContentResponses"]["inlinedResponses"];
    assert_eq!(results[0]["response"]["embedding"]["values"].as_array().unwrap().len(), 3_072);
    let file = json!({ "batch": { "inputConfig": { "fileName": "files/none" } } });
    assert_eq!(post(&emulator, "one", uri, file).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn each_text_of_a_batch_that_is_embedded_spends_a_request() {
    let emulator = builder().limits(Limits::new().requests_per_minute(100)).build();
    let texts = |count: usize| json!({ "requests": vec![json!({ "content": { "parts": [{ "text": "a" }] } }); count] });
    let uri = "/v1/models/gemini-embedding-001:batchEmbedContents";
    for (count, status) in [(40, 200), (40, 200), (40, 429), (20, 200), (1, 429)] {
        assert_eq!(post(&emulator, "one", uri, texts(count)).await.status, status);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_project_has_made_is_no_other_projects() {
    let emulator = builder().build();
    for (collection, body, named) in [
        ("agents", json!({ "id": "mine", "description": "d" }), "id"),
        ("environments", json!({ "mode": "remote" }), "id"),
        ("credentials", json!({ "type": "http_bearer" }), "id"),
        ("triggers", json!({ "schedule": "* * * * *" }), "id"),
        ("voices", json!({ "type": "replicated" }), "id"),
        ("webhooks", json!({ "uri": "https://localhost/hook" }), "id"),
        ("ragStores", json!({ "displayName": "d" }), "name"),
        ("fileSearchStores", json!({ "displayName": "d" }), "name"),
    ] {
        let uri = format!("/v1/{collection}");
        let made = post(&emulator, "one", &uri, body.clone()).await.json();
        for (member, value) in body.as_object().unwrap() {
            assert_eq!(made[member], *value, "{collection}");
        }
        let id = made[named].as_str().unwrap();
        let path = if named == "id" { format!("{uri}/{id}") } else { format!("/v1/{id}") };
        assert_eq!(get(&emulator, "another", &path).await.json(), made);
        assert_eq!(get(&emulator, "one", &uri).await.json()[collection], json!([made]));
        for refused in [
            get(&emulator, "two", &path).await,
            ask(&emulator, "two", Method::PATCH, &path, json!({ "description": "x" })).await,
            ask(&emulator, "two", Method::DELETE, &path, Value::Null).await,
        ] {
            assert!(matches!(refused.status, 403 | 404), "{collection}: {}", refused.status);
        }
        assert_eq!(get(&emulator, "two", &uri).await.json(), json!({}), "{collection}");
        let changed = ask(&emulator, "one", Method::PATCH, &path, json!({ "description": "x" })).await.json();
        assert_eq!(changed["description"], "x");
        assert_eq!(ask(&emulator, "one", Method::DELETE, &path, Value::Null).await.json(), json!({}));
        assert!(matches!(get(&emulator, "one", &path).await.status, 403 | 404));
    }
    assert_eq!(post(&emulator, "one", "/v1/agents", json!({ "id": "mine" })).await.status, 200);
    assert_eq!(post(&emulator, "one", "/v1/agents", json!({ "id": "mine" })).await.status, 409);
    assert_eq!(
        post(&emulator, "two", "/v1/agents", json!({ "id": "mine" })).await.status,
        200,
        "names are a project's"
    );
}

#[tokio::test(start_paused = true)]
async fn bodies_that_name_the_things_of_others_are_refused() {
    let emulator = builder().build();
    let file = upload(&emulator, "one", "/upload/v1/files", "text").await;
    let (name, uri) = (&file["name"], &file["uri"]);
    let store = post(&emulator, "one", "/v1/fileSearchStores", json!({})).await.json()["name"].clone();
    let theirs = post(&emulator, "two", "/v1/fileSearchStores", json!({})).await.json()["name"].clone();
    let environment = post(&emulator, "one", "/v1/environments", json!({})).await.json()["id"].clone();
    let cache = json!({ "model": "models/gemini-3.8-flash", "contents": [{ "parts": [{ "text": "a book" }] }] });
    let cache = post(&emulator, "one", "/v1/cachedContents", cache).await.json()["name"].clone();
    let import = |store: &Value| format!("/v1/{}:importFile", store.as_str().unwrap());
    let interaction = |more: Value| {
        let mut body = json!({ "model": "gemini-3.8-flash", "input": [{ "type": "text", "text": "see" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let video = json!([{ "type": "video", "uri": uri }, { "type": "text", "text": "what is it?" }]);
    let in_turn = json!([{ "type": "user_input", "content": video }]);
    let search = json!([{ "fileSearch": { "fileSearchStoreNames": [store] } }]);
    let searches = json!([{ "type": "file_search", "file_search_store_names": [store] }]);
    for (uri, body) in [
        ("/v1/interactions", interaction(json!({ "input": video }))),
        ("/v1/interactions", interaction(json!({ "input": in_turn }))),
        ("/v1/interactions", interaction(json!({ "environment": environment }))),
        ("/v1/interactions", interaction(json!({ "cached_content": cache }))),
        ("/v1/interactions", interaction(json!({ "tools": searches }))),
        (GENERATE, prompt("see", json!({ "tools": search }))),
        (GENERATE, prompt("see", json!({ "cachedContent": cache }))),
        (
            "/v1/models/veo-3:predictLongRunning",
            json!({ "instances": [{ "prompt": "go on", "video": { "uri": uri } }] }),
        ),
        (&import(&store), json!({ "fileName": name })),
        ("/v1/triggers", json!({ "schedule": "* * * * *", "interaction": { "environment": environment } })),
    ] {
        let refused = post(&emulator, "two", uri, body.clone()).await;
        assert!(matches!(refused.status, 403 | 404), "{uri} {body}: {}", refused.status);
        let answered = post(&emulator, "one", uri, body.clone()).await;
        assert_eq!(answered.status, 200, "{uri} {body}: {:?}", answered.body);
    }
    assert_eq!(post(&emulator, "two", &import(&theirs), json!({ "fileName": name })).await.status, 404);
    let video = post(&emulator, "one", "/v1/interactions", interaction(json!({ "input": video }))).await;
    assert_eq!(video.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_store_has_documents_and_an_operation_ends() {
    let emulator = builder().build();
    let store = post(&emulator, "one", "/v1/fileSearchStores", json!({})).await.json()["name"].clone();
    let store = store.as_str().unwrap();
    let file = upload(&emulator, "one", "/upload/v1/files", "text").await;
    let operation =
        post(&emulator, "one", &format!("/v1/{store}:importFile"), json!({ "file_name": file["name"] })).await;
    let operation = operation.json();
    let path = format!("/v1/{}", operation["name"].as_str().unwrap());
    assert_eq!(get(&emulator, "one", &path).await.json()["done"], true);
    assert_eq!(get(&emulator, "two", &path).await.status, 404);
    let document = operation["response"]["documentName"].as_str().unwrap();
    assert_eq!(get(&emulator, "one", &format!("/v1/{document}")).await.json()["name"], document);
    let documents = get(&emulator, "one", &format!("/v1/{store}/documents")).await.json();
    assert_eq!(documents["documents"][0]["name"], document);
    assert_eq!(get(&emulator, "two", &format!("/v1/{store}/documents")).await.status, 403);

    let direct = upload(&emulator, "one", &format!("/upload/v1/{store}:uploadToFileSearchStore"), "text").await;
    let second = direct["response"]["documentName"].as_str().unwrap();
    assert_eq!((get(&emulator, "one", &format!("/v1/{second}")).await.status, &direct["done"]), (200, &json!(true)));
    ask(&emulator, "one", Method::DELETE, &format!("/v1/{store}"), Value::Null).await;
    assert_eq!(get(&emulator, "one", &format!("/v1/{document}")).await.status, 403, "its documents go with it");
}

#[tokio::test(start_paused = true)]
async fn a_video_is_made_in_an_operation_and_downloaded_by_its_project() {
    let emulator = builder().build();
    let made =
        post(&emulator, "one", "/v1/models/veo-3:predictLongRunning", json!({ "instances": [{ "prompt": "x" }] }))
            .await;
    let done = get(&emulator, "one", &format!("/v1/{}", made.json()["name"].as_str().unwrap())).await.json();
    let video = &done["response"]["generateVideoResponse"]["generatedSamples"][0]["video"]["uri"];
    let video = video.as_str().unwrap();
    assert_eq!(&get(&emulator, "another", video).await.body[..], b"an emulated video");
    assert_eq!(get(&emulator, "two", video).await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn files_are_registered_where_they_lie() {
    let emulator = builder().build();
    let registered =
        post(&emulator, "one", "/v1/files:register", json!({ "uris": ["gs://b/a", "gs://b/c"] })).await.json();
    let [first, second] = [0, 1].map(|at| registered["files"][at].clone());
    assert_eq!((&first["source"], &second["displayName"]), (&json!("REGISTERED"), &json!("gs://b/c")));
    let path = format!("/v1/{}", first["name"].as_str().unwrap());
    assert_eq!((get(&emulator, "one", &path).await.status, get(&emulator, "two", &path).await.status), (200, 403));
}

// --- tiers ---

#[tokio::test(start_paused = true)]
async fn a_tier_is_read_and_named_in_the_answer() {
    let emulator = builder().build();
    let answer = post(&emulator, "one", GENERATE, prompt("hi", json!({}))).await;
    assert_eq!((answer.tier(), answer.json()["usageMetadata"].get("serviceTier")), (None, None), "nobody asked");
    for member in ["serviceTier", "service_tier"] {
        let answer = post(&emulator, "one", GENERATE, prompt("hi", json!({ member: "flex" }))).await;
        assert_eq!((answer.tier(), &answer.json()["usageMetadata"]["serviceTier"]), (Some("flex"), &json!("flex")));
    }
    let streamed = post(&emulator, "one", STREAM, prompt("hi", json!({ "serviceTier": "priority" }))).await;
    assert_eq!(streamed.tier(), Some("priority"));
    assert_eq!(String::from_utf8_lossy(&streamed.body).matches(r#""serviceTier":"priority""#).count(), 3);
    let interaction = json!({ "model": "gemini-3.8-flash", "input": "hi", "service_tier": "deferred" });
    let answer = post(&emulator, "one", "/v1/interactions", interaction).await;
    assert_eq!((answer.tier(), &answer.json()["service_tier"]), (Some("deferred"), &json!("deferred")));
    assert_eq!(post(&emulator, "one", GENERATE, prompt("hi", json!({ "serviceTier": "gold" }))).await.status, 400);
    let tiers: Vec<_> = emulator.journal().iter().map(|visit| visit.tier).collect();
    let [flex, priority, deferred] = [ServiceTier::Flex, ServiceTier::Priority, ServiceTier::Deferred].map(Some);
    assert_eq!(tiers, [None, flex, flex, priority, deferred, None]);

    let vertex = "/v1/projects/p/locations/l/publishers/google/models/gemini-3.8-flash:generateContent";
    let request = Request::post(vertex).header("authorization", "Bearer one");
    let body = prompt("hi", json!({ "serviceTier": "flex" })).to_string();
    let answer = send(&emulator, request.body(Full::from(body)).unwrap()).await;
    assert_eq!(answer.json()["usageMetadata"]["trafficType"], "ON_DEMAND_FLEX");
}

#[tokio::test(start_paused = true)]
async fn a_script_strikes_one_tier_alone() {
    let emulator = builder().build();
    emulator.trouble(When::first(1).tier(ServiceTier::Flex), Trouble::overloaded());
    emulator.trouble(When::first(1).tier(ServiceTier::Flex), Trouble::slow(Duration::from_secs(200)));
    emulator.trouble(When::always().tier(ServiceTier::Priority), Trouble::downgraded());
    let on = |tier: &str| prompt("hi", json!({ "serviceTier": tier }));
    assert_eq!(post(&emulator, "one", GENERATE, prompt("hi", json!({}))).await.status, 200);
    assert_eq!(post(&emulator, "one", GENERATE, on("standard")).await.status, 200);
    assert_eq!(post(&emulator, "one", GENERATE, on("flex")).await.status, 503);
    let began = Instant::now();
    let late = post(&emulator, "one", GENERATE, on("flex")).await;
    assert_eq!((late.status, late.tier(), began.elapsed()), (200, Some("flex"), Duration::from_secs(200)));
    let downgraded = post(&emulator, "one", GENERATE, on("priority")).await;
    let served = downgraded.json()["usageMetadata"]["serviceTier"].clone();
    assert_eq!((downgraded.tier(), served), (Some("standard"), json!("standard")));
    assert_eq!(emulator.journal().last().unwrap().trouble, Some("downgraded"));
}

// --- what else goes wrong since 2026 ---

#[tokio::test(start_paused = true)]
async fn a_model_is_closed_for_one_project_before_any_quota_is_spent() {
    let emulator = builder().limits(Limits::new().requests_per_day(1)).build();
    emulator.trouble(When::always().project("p1").model("gemini-3.8-flash"), Trouble::model_closed());
    for _ in 0..3 {
        let closed = post(&emulator, "one", GENERATE, prompt("hi", json!({}))).await;
        assert_eq!((closed.status, &closed.json()["error"]["status"]), (404, &json!("NOT_FOUND")));
        let words = "This model models/gemini-3.8-flash is no longer available to new users.";
        assert!(closed.message().starts_with(words), "{}", closed.message());
    }
    assert_eq!(post(&emulator, "two", GENERATE, prompt("hi", json!({}))).await.status, 200);
    let other = GENERATE.replace("3.8-flash", "3.5-flash");
    assert_eq!(post(&emulator, "one", &other, prompt("hi", json!({}))).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn only_grounded_calls_meet_the_grounding_quota() {
    let emulator = builder().build();
    emulator.trouble(When::always().grounded(true), Trouble::grounding_quota());
    for tools in [json!([{ "googleSearch": {} }]), json!([{ "google_search": {} }]), json!([{ "googleMaps": {} }])] {
        let refused = post(&emulator, "one", GENERATE, prompt("hi", json!({ "tools": tools }))).await;
        let details = refused.json()["error"]["details"].clone();
        assert_eq!((refused.status, details.as_array().unwrap().len()), (429, 1));
        assert_eq!(details[0]["@type"], "type.googleapis.com/google.rpc.Help");
    }
    let tools = json!([{ "type": "google_search" }]);
    let interaction = json!({ "model": "gemini-3.8-flash", "input": "hi", "tools": tools });
    assert_eq!(post(&emulator, "one", "/v1/interactions", interaction).await.status, 429);
    let functions = json!([{ "functionDeclarations": [{ "name": "google_search" }] }]);
    assert_eq!(post(&emulator, "one", GENERATE, prompt("hi", json!({ "tools": functions }))).await.status, 200);
    assert_eq!(post(&emulator, "one", GENERATE, prompt("hi", json!({}))).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn money_runs_out_in_two_ways() {
    let emulator = builder().build();
    emulator.trouble(When::first(1), Trouble::spend_limit());
    emulator.trouble(When::first(1), Trouble::spending_cap());
    for (name, words) in
        [("spend_limit", "spend-based rate limit"), ("spending_cap", "exceeded its monthly spending cap")]
    {
        let refused = post(&emulator, "one", GENERATE, prompt("hi", json!({}))).await;
        assert_eq!((refused.status, refused.json()["error"].get("details")), (429, None));
        assert!(refused.message().contains(words), "{}", refused.message());
        assert_eq!(emulator.journal().last().unwrap().trouble, Some(name));
    }
}

#[tokio::test(start_paused = true)]
async fn thoughts_alone_come_before_a_malformed_call() {
    let emulator = builder().build();
    emulator.trouble(When::first(2), Trouble::thoughts_only());
    let answer = post(&emulator, "one", GENERATE, prompt("hi", json!({}))).await.json();
    let candidate = &answer["candidates"][0];
    assert_eq!(candidate["finishReason"], "MALFORMED_FUNCTION_CALL");
    let parts = candidate["content"]["parts"].as_array().unwrap();
    assert_eq!((parts.len(), &parts[0]["thought"]), (1, &json!(true)));
    let body = post(&emulator, "one", STREAM, prompt("hi", json!({}))).await.body;
    let text = String::from_utf8_lossy(&body);
    let chunks: Vec<Value> = text
        .split_terminator("\r\n\r\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    assert_eq!(chunks.len(), 2);
    assert_eq!(chunks[0]["candidates"][0]["content"]["parts"][0]["thought"], true);
    assert_eq!(chunks[0]["candidates"][0].get("finishReason"), None);
    let last = &chunks[1]["candidates"][0];
    assert_eq!(last["content"]["parts"].as_array().unwrap().len(), 1);
    assert!(last["content"]["parts"][0]["thoughtSignature"].is_string());
    assert_eq!(last["finishReason"], "MALFORMED_FUNCTION_CALL");
    emulator.trouble(When::first(1), Trouble::blocked("PUP_LIMITED_DISABLED"));
    let answer = post(&emulator, "one", GENERATE, prompt("hi", json!({}))).await.json();
    assert_eq!(answer["candidates"][0]["finishReason"], "PUP_LIMITED_DISABLED");
}
