//! The emulator's interactions: Google's shapes, their streams, their life, and the projects that they belong to.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as its tests do")]

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::{Instant, advance};
use tower::ServiceExt;
use tower_gemini::{
    call::Streaming,
    emulator::{Emulator, EmulatorBuilder, Trouble, When},
    quota::Limits,
};

const INTERACTIONS: &str = "/v1/interactions";
const GENERATE: &str = "/v1/models/gemini-3.8-flash:generateContent";

/// Makes an emulator with two keys of one project, and one of another.
fn builder() -> EmulatorBuilder {
    Emulator::builder().key("one", "p1").key("another", "p1").key("two", "p2")
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// Reads the events, whose type stands both in a line of its own and in the data.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream");
        let mut events = Vec::new();
        for event in self.body.split_terminator("\n\n") {
            let (kind, data) = event.split_once('\n').unwrap();
            let (kind, data) = (kind.strip_prefix("event: ").unwrap(), data.strip_prefix("data: ").unwrap());
            if kind == "done" {
                assert_eq!(data, "[DONE]");
                continue;
            }
            assert!(data.ends_with(&format!(r#","event_type":"{kind}"}}"#)), "as Google does, at the end: {data}");
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["event_type"], kind);
            events.push(data);
        }
        events
    }

    /// Returns the status and the code in words of a refusal.
    fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap().to_owned())
    }
}

async fn send(emulator: &Emulator, key: &str, method: Method, uri: &str, body: impl Into<Bytes>) -> Answer {
    let name = if uri.contains("projects/") { "authorization" } else { "x-goog-api-key" };
    let key = if uri.contains("projects/") { format!("Bearer {key}") } else { key.to_owned() };
    let request = Request::builder().method(method).uri(uri).header(name, key);
    let response = emulator.clone().oneshot(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn create(emulator: &Emulator, key: &str, body: Value) -> Answer {
    send(emulator, key, Method::POST, INTERACTIONS, body.to_string()).await
}

async fn get(emulator: &Emulator, key: &str, uri: &str) -> Answer {
    send(emulator, key, Method::GET, uri, "").await
}

fn asking(text: &str) -> Value {
    json!({ "model": "gemini-3.8-flash", "input": text })
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn path_of(answer: &Answer) -> String {
    format!("{INTERACTIONS}/{}", answer.json()["id"].as_str().unwrap())
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event_type"].as_str().unwrap()).collect()
}

const WHOLE: [&str; 8] = [
    "interaction.created",
    "interaction.status_update",
    "step.start",
    "step.delta",
    "step.delta",
    "step.delta",
    "step.stop",
    "interaction.completed",
];

#[tokio::test(start_paused = true)]
async fn an_interaction_has_the_members_of_the_real_one() {
    let emulator = builder().build();
    let answer = create(&emulator, "one", asking("hello")).await;
    let interaction = answer.json();
    assert_eq!((answer.status, &interaction["object"]), (200, &json!("interaction")));
    assert!(interaction["id"].as_str().unwrap().starts_with("v1_"));
    let rest = ["status", "model"].map(|member| interaction[member].clone());
    assert_eq!(rest, ["completed", "gemini-3.8-flash"]);
    let text = json!([{ "type": "text", "text": "You said: hello" }]);
    assert_eq!(interaction["steps"], json!([{ "type": "model_output", "content": text }]));
    let usage = &interaction["usage"];
    assert_eq!(
        ["total_input_tokens", "total_output_tokens", "total_tokens"].map(|name| usage[name].as_u64()),
        [Some(2), Some(4), Some(6)]
    );
    assert_eq!(usage["input_tokens_by_modality"], json!([{ "modality": "text", "tokens": 2 }]));

    let read = get(&emulator, "another", &path_of(&answer)).await.json();
    assert_eq!(read, interaction);
    let with_input = get(&emulator, "one", &format!("{}?include_input=true", path_of(&answer))).await.json();
    assert_eq!(with_input["steps"][0]["content"][0]["text"], "hello");
    let visit = &emulator.journal()[0];
    assert_eq!((visit.model.as_deref(), visit.streaming), (Some("gemini-3.8-flash"), Streaming::No));
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_the_events_of_the_real_one_and_is_read_again_from_any() {
    let emulator = builder().build();
    let answer = create(&emulator, "one", with(asking("hello"), json!({ "stream": true }))).await;
    let events = answer.events();
    assert_eq!(kinds(&events), WHOLE);
    let deltas: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(deltas, "You said: hello");
    assert_eq!(events[7]["interaction"]["status"], "completed");
    assert_eq!(events[7]["interaction"]["usage"]["total_tokens"], 6);
    assert!(answer.body.ends_with("event: done\ndata: [DONE]\n\n"));

    let path = format!("{INTERACTIONS}/{}", events[0]["interaction"]["id"].as_str().unwrap());
    assert_eq!(get(&emulator, "one", &format!("{path}?stream=true")).await.body, answer.body);
    let third = events[2]["event_id"].as_str().unwrap();
    let rest = get(&emulator, "one", &format!("{path}?stream=true&last_event_id={third}")).await.events();
    assert_eq!(rest, events[3..]);
    assert_eq!(emulator.journal()[1].streaming, Streaming::Sse);
}

#[tokio::test(start_paused = true)]
async fn thoughts_are_a_step_of_their_own() {
    let emulator = builder().thinking().build();
    let steps = create(&emulator, "one", asking("hello")).await.json()["steps"].clone();
    assert_eq!((&steps[0]["type"], &steps[1]["type"]), (&json!("thought"), &json!("model_output")));
    let events = create(&emulator, "one", with(asking("hello"), json!({ "stream": true }))).await.events();
    assert_eq!(events[3]["delta"]["type"], "thought_signature");
    assert_eq!(events[5]["index"], 1);
}

#[tokio::test(start_paused = true)]
async fn all_forms_of_the_path_are_served() {
    let emulator = Emulator::new();
    let vertex = "/v1beta1/projects/p/locations/us-central1";
    for (uri, streams) in [
        ("/v1beta/interactions".to_owned(), false),
        (format!("{vertex}/interactions"), false),
        (format!("{vertex}/interactions:create"), false),
        (format!("{vertex}/interactions:createStream"), true),
        (format!("{vertex}/interactionsHttp"), false),
    ] {
        let answer = send(&emulator, "token", Method::POST, &uri, asking("hi").to_string()).await;
        assert_eq!(answer.status, 200, "{uri}: {}", answer.body);
        let id = match streams {
            true => answer.events()[0]["interaction"]["id"].clone(),
            false => answer.json()["id"].clone(),
        };
        let base = uri.split(":create").next().unwrap().replace("interactionsHttp", "interactions");
        let read = get(&emulator, "token", &format!("{base}/{}", id.as_str().unwrap())).await;
        assert_eq!((read.status, &read.json()["status"]), (200, &json!("completed")), "{uri}");
    }
    assert!(emulator.journal()[2..].iter().all(|visit| visit.project.as_deref() == Some("p")));
}

#[tokio::test(start_paused = true)]
async fn one_in_the_background_runs_until_its_time_has_come() {
    let emulator = builder().background_time(Duration::from_secs(60)).build();
    let made = create(&emulator, "one", with(asking("research"), json!({ "background": true }))).await;
    let path = path_of(&made);
    assert_eq!((&made.json()["status"], made.json().get("usage")), (&json!("in_progress"), None));
    advance(Duration::from_secs(59)).await;
    assert_eq!(get(&emulator, "one", &path).await.json()["status"], "in_progress");

    // Its stream waits for the answer.
    let began = Instant::now();
    let events = get(&emulator, "one", &format!("{path}?stream=true")).await.events();
    assert_eq!((kinds(&events), began.elapsed()), (WHOLE.to_vec(), Duration::from_secs(1)));
    let done = get(&emulator, "one", &path).await.json();
    assert_eq!((&done["status"], done["usage"]["total_tokens"].as_u64()), (&json!("completed"), Some(7)));
    let cancel = format!("{path}/cancel");
    let late = send(&emulator, "one", Method::POST, &cancel, "").await;
    assert_eq!(late.refusal(), (400, "invalid_request".to_owned()));

    for form in ["/cancel", ":cancel"] {
        let made = create(&emulator, "one", with(asking("research"), json!({ "background": true }))).await;
        let cancelled = send(&emulator, "one", Method::POST, &format!("{}{form}", path_of(&made)), "{}").await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
        advance(Duration::from_secs(60)).await;
        assert_eq!(get(&emulator, "one", &path_of(&made)).await.json()["status"], "cancelled");
    }
    let unstored = with(asking("research"), json!({ "background": true, "store": false }));
    assert_eq!(create(&emulator, "one", unstored).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn an_agent_answers_in_place_of_a_model() {
    let emulator = builder().limits_for("agents/deep-research-pro", Limits::new().requests_per_minute(1)).build();
    let ask = |agent: &str| json!({ "agent": agent, "input": "look it up" });
    let answer = create(&emulator, "one", ask("deep-research-pro")).await.json();
    assert_eq!((&answer["agent"], answer.get("model")), (&json!("deep-research-pro"), None));
    assert_eq!(emulator.journal()[0].model.as_deref(), Some("agents/deep-research-pro"));
    assert_eq!(create(&emulator, "one", ask("deep-research-pro")).await.status, 429, "an agent has a quota of its own");
    assert_eq!(create(&emulator, "one", asking("hi")).await.status, 200);

    let own = send(&emulator, "one", Method::POST, "/v1/agents", json!({ "id": "mine" }).to_string()).await;
    assert_eq!((own.status, &own.json()["id"]), (200, &json!("mine")));
    assert_eq!(create(&emulator, "another", ask("mine")).await.status, 200);
    assert_eq!(create(&emulator, "two", ask("mine")).await.refusal(), (404, "not_found".to_owned()));
    assert_eq!(create(&emulator, "one", ask("nobody")).await.refusal(), (404, "not_found".to_owned()));
    let both = with(asking("hi"), json!({ "agent": "mine" }));
    assert_eq!(create(&emulator, "one", both).await.refusal(), (400, "invalid_request".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_interaction_belongs_to_its_project() {
    let emulator = builder().build();
    let made = create(&emulator, "one", asking("hello")).await;
    let (path, id) = (path_of(&made), made.json()["id"].clone());
    let next = |id: &Value| with(asking("and?"), json!({ "previous_interaction_id": id }));
    for answer in [
        get(&emulator, "two", &path).await,
        send(&emulator, "two", Method::DELETE, &path, "").await,
        send(&emulator, "two", Method::POST, &format!("{path}:cancel"), "").await,
        create(&emulator, "two", next(&id)).await,
        create(&emulator, "one", next(&json!("v1_never"))).await,
        get(&emulator, "one", "/v1/interactions/v1_never").await,
    ] {
        assert_eq!(answer.refusal(), (404, "not_found".to_owned()));
    }
    let continued = create(&emulator, "another", next(&id)).await;
    assert_eq!((continued.status, &continued.json()["previous_interaction_id"]), (200, &id));
    assert_eq!(send(&emulator, "another", Method::DELETE, &path, "").await.json(), json!({}));
    assert_eq!(create(&emulator, "one", next(&id)).await.status, 404, "it is gone");

    let unstored = create(&emulator, "one", with(asking("hello"), json!({ "store": false }))).await;
    assert_eq!(get(&emulator, "one", &path_of(&unstored)).await.status, 404, "it was not kept");
    let kept = create(&emulator, "one", asking("hello")).await;
    advance(Duration::from_secs(24 * 3600)).await;
    assert_eq!(get(&emulator, "one", &path_of(&kept)).await.status, 404, "a day on the free tier");
}

#[tokio::test(start_paused = true)]
async fn interactions_and_prompts_share_a_models_quota() {
    let emulator = builder().limits(Limits::new().requests_per_minute(2)).build();
    let prompt = json!({ "contents": [{ "parts": [{ "text": "hi" }] }] }).to_string();
    let decision = json!({ "model": "models/gemini-3.8-flash", "input": "x",
        "questions": { "q": { "type": "noul", "instructions": "y" } } });
    assert_eq!(create(&emulator, "one", asking("hi")).await.status, 200);
    assert_eq!(send(&emulator, "one", Method::POST, GENERATE, prompt.clone()).await.status, 200);
    let refused = create(&emulator, "one", asking("hi")).await;
    assert_eq!(refused.json()["error"]["status"], "RESOURCE_EXHAUSTED", "quota is refused in one shape everywhere");
    assert_eq!(send(&emulator, "one", Method::POST, GENERATE, prompt).await.status, 429);
    assert_eq!(send(&emulator, "one", Method::POST, "/v1/decisions", decision.to_string()).await.status, 429);
    let path = path_of(&create(&emulator, "two", asking("hi")).await);
    for _ in 0..5 {
        assert_eq!(get(&emulator, "two", &path).await.status, 200, "reading is free");
    }
}

#[tokio::test(start_paused = true)]
async fn decisions_answer_their_questions() {
    let emulator = builder().build();
    let questions = json!({
        "is it so": { "type": "noul", "instructions": "y" },
        "which": { "type": "choice", "instructions": "y", "criteria": { "a": "first", "b": "second" } },
        "how much": { "type": "score", "instructions": "y", "criteria": ["none", "some", "all"] },
    });
    let body = json!({ "model": "models/gemini-3.8-flash", "input": "x", "questions": questions }).to_string();
    let answer = send(&emulator, "one", Method::POST, "/v1/decisions", body).await;
    let json = answer.json();
    assert_eq!((answer.status, json["usage"]["total_input_tokens"].as_u64()), (200, Some(1)));
    let answers = &json["answers"];
    assert!((0.5..=1.0).contains(&answers["is it so"]["confidence"].as_f64().unwrap()));
    assert!(["a", "b"].contains(&answers["which"]["choice"].as_str().unwrap()));
    let sum: f64 =
        answers["how much"]["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9);
    assert_eq!(answers["how much"]["legend"]["1"], "some");
    assert_eq!(emulator.journal()[0].model.as_deref(), Some("gemini-3.8-flash"));
    assert_eq!(send(&emulator, "one", Method::POST, "/v1/decisions", "{}").await.refusal().0, 400);
}

// --- troubles ---

#[tokio::test(start_paused = true)]
async fn errors_of_the_service_have_a_code_in_words_and_those_of_the_front_end_do_not() {
    let emulator = builder().build();
    for (trouble, status, code) in [
        (Trouble::overloaded(), 503, json!("service_unavailable")),
        (Trouble::internal(), 500, json!("internal_error")),
        (Trouble::deadline_exceeded(), 504, json!("deadline_exceeded")),
        (Trouble::prohibited(), 400, json!("prohibited_content")),
        (Trouble::bare_quota(), 429, json!("too_many_requests")),
        (Trouble::day_quota(), 429, json!(429)),
        (Trouble::invalid_key(), 400, json!(400)),
        (Trouble::suspended_key(), 403, json!(403)),
        (Trouble::spend_limit(), 429, json!(429)),
        (Trouble::model_closed(), 404, json!("not_found")),
    ] {
        emulator.trouble(When::first(1), trouble.clone());
        let answer = create(&emulator, "one", asking("hi")).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &code), "{}", trouble.name());
    }
    emulator.trouble(When::first(1), Trouble::day_quota());
    let refused = create(&emulator, "one", asking("hi")).await.json();
    let id = &refused["error"]["details"][0]["violations"][0]["quotaId"];
    assert_eq!(id, "GenerateRequestsPerDayPerProjectPerModel-FreeTier");

    // A request for a stream gets the service's error as an event.
    emulator.trouble(When::first(1), Trouble::overloaded());
    let streamed = create(&emulator, "one", with(asking("hi"), json!({ "stream": true }))).await;
    assert_eq!((streamed.status, kinds(&streamed.events())), (503, vec!["error"]));
    assert_eq!(streamed.events()[0]["error"]["code"], "service_unavailable");
    assert_eq!(create(&emulator, "nobody", asking("hi")).await.json()["error"]["code"], 400);
    assert_eq!(create(&emulator, "one", json!({ "model": "gemini-9", "input": "hi" })).await.status, 404);
    assert_eq!(create(&emulator, "one", json!({ "model": "gemini-3.8-flash" })).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_wrong_in_each_way() {
    let emulator = builder().build();
    let streaming = || with(asking("hi"), json!({ "stream": true }));
    emulator.trouble(When::first(1), Trouble::cut(4));
    assert_eq!(kinds(&create(&emulator, "one", streaming()).await.events()), WHOLE[..4]);
    emulator.trouble(When::first(1), Trouble::cut(99));
    assert_eq!(kinds(&create(&emulator, "one", streaming()).await.events()), WHOLE[..7], "never its end");
    emulator.trouble(When::first(1), Trouble::internal().in_stream(2));
    let events = create(&emulator, "one", streaming()).await.events();
    assert_eq!(kinds(&events), ["interaction.created", "interaction.status_update", "error"]);
    assert_eq!(events[2]["error"]["code"], "internal_error");

    // The content filter's line, as it was seen.
    emulator.trouble(When::first(1), Trouble::prohibited().as_raw_tail(2));
    let body = create(&emulator, "one", streaming()).await.body;
    let line = body.rsplit("\n\n").next().unwrap();
    let error: Value = serde_json::from_str(line).unwrap();
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
    assert_eq!(error["error"]["code"], "prohibited_content");
}

#[tokio::test(start_paused = true)]
async fn an_interaction_can_end_without_an_answer() {
    let emulator = builder().build();
    for (trouble, name, status) in [
        (Trouble::failed(), "failed", "failed"),
        (Trouble::unfinished("budget_exceeded"), "unfinished", "budget_exceeded"),
        (Trouble::blocked("SAFETY"), "blocked", "failed"),
        (Trouble::thoughts_only(), "thoughts_only", "incomplete"),
        (Trouble::empty(), "empty", "completed"),
    ] {
        emulator.trouble(When::first(2), trouble.clone());
        let answer = create(&emulator, "one", asking("hi")).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!(status)));
        let outputs =
            answer.json()["steps"].as_array().unwrap().iter().filter(|step| step["type"] == "model_output").count();
        assert_eq!((outputs, trouble.name()), (0, name));
        let events = create(&emulator, "one", with(asking("hi"), json!({ "stream": true }))).await.events();
        assert_eq!(events.last().unwrap()["interaction"]["status"], status);
    }
    emulator.trouble(When::first(1), Trouble::blocked("SAFETY"));
    let failed = create(&emulator, "one", asking("hi")).await.json();
    assert_eq!(failed["errors"][0]["code"], "prohibited_content");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_requires_a_continuation_is_gone_on_with_in_its_project() {
    let emulator = builder().build();
    emulator.trouble(When::first(1), Trouble::continuation());
    let first = create(&emulator, "one", asking("tell me")).await.json();
    assert_eq!(first["status"], "requires_continuation");
    let token = first["continuation_token"].clone();
    // As the SDK goes on: without the input, behind the interaction that the token is of.
    let next =
        json!({ "model": "gemini-3.8-flash", "previous_interaction_id": first["id"], "continuation_token": token });
    assert_eq!(create(&emulator, "two", next.clone()).await.status, 404);
    let alone = json!({ "model": "gemini-3.8-flash", "continuation_token": token });
    assert_eq!(create(&emulator, "two", alone).await.refusal(), (403, "permission_denied".to_owned()));
    let rest = create(&emulator, "one", next).await.json();
    assert_eq!(
        (&rest["status"], &rest["steps"][0]["content"][0]["text"]),
        (&json!("completed"), &json!("You said: tell me"))
    );

    emulator.trouble(When::first(1), Trouble::continuation());
    let prompt = json!({ "contents": [{ "parts": [{ "text": "tell me" }] }] });
    let first = send(&emulator, "one", Method::POST, GENERATE, prompt.to_string()).await.json();
    let candidate = &first["candidates"][0];
    assert_eq!((&candidate["finishReason"], candidate["content"].get("parts")), (&json!("CONTINUATION"), None));
    let next = with(prompt, json!({ "continuationToken": candidate["continuationToken"] })).to_string();
    assert_eq!(send(&emulator, "two", Method::POST, GENERATE, next.clone()).await.status, 403);
    let rest = send(&emulator, "another", Method::POST, GENERATE, next).await.json();
    assert_eq!(rest["candidates"][0]["content"]["parts"][0]["text"], "You said: tell me");
}
