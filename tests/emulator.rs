//! The emulator's promises: Google's shapes, each trouble, the quotas, the journal, and the socket.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as its tests do")]

use std::{
    collections::VecDeque,
    error::Error as StdError,
    io::ErrorKind,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tower::{BoxError, ServiceExt};
use tower_gemini::{
    call::Operation,
    emulator::{
        Capacity, EmulatedModel, Emulator, EmulatorBody, EmulatorBuilder, End, QuotaWindow, Reply, Trouble, When,
    },
    quota::Limits,
};

const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
const ARRAY: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";
const CHAT: &str = "/v1beta/openai/chat/completions";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn prompt(text: &str) -> String {
    json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}).to_string()
}

fn chat(text: &str, stream: bool) -> String {
    let messages = json!([{"role": "user", "content": text}]);
    json!({"model": "gemini-2.5-flash", "messages": messages, "stream": stream}).to_string()
}

fn post(uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(uri).header("x-goog-api-key", "test-key").body(Full::new(body.into())).unwrap()
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).header("x-goog-api-key", "test-key").body(Full::default()).unwrap()
}

fn bearer(method: Method, uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(uri).header("authorization", "Bearer test-key");
    request.body(Full::new(body.into())).unwrap()
}

async fn send(emulator: &Emulator, request: Request<Full<Bytes>>) -> Result<Response<EmulatorBody>, BoxError> {
    emulator.clone().oneshot(request).await
}

async fn ask(emulator: &Emulator, request: Request<Full<Bytes>>) -> (StatusCode, String) {
    let response = send(emulator, request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn ask_json(emulator: &Emulator, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
    let (status, body) = ask(emulator, request).await;
    (status, serde_json::from_str(&body).unwrap())
}

async fn status(emulator: &Emulator) -> u16 {
    ask(emulator, post(GENERATE, prompt("hello"))).await.0.as_u16()
}

/// Reads the frames of a body until it ends, fails, or sends nothing for an hour.
async fn frames(response: Response<EmulatorBody>) -> (Vec<String>, Stop) {
    let mut body = response.into_body();
    let mut frames = Vec::new();
    loop {
        match timeout(secs(3600), body.frame()).await {
            Err(_) => return (frames, Stop::Stalled),
            Ok(None) => return (frames, Stop::Ended),
            Ok(Some(Err(error))) => {
                assert_eq!(io_kind(&*error), Some(ErrorKind::ConnectionReset));
                return (frames, Stop::Reset);
            }
            Ok(Some(Ok(frame))) => {
                frames.push(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap());
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Stop {
    Ended,
    Stalled,
    Reset,
}

fn io_kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    error.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

fn events(body: &str) -> Vec<Value> {
    body.split("\r\n\r\n")
        .filter(|event| !event.is_empty())
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

fn troubled(when: When, trouble: Trouble) -> Emulator {
    Emulator::builder().trouble(when, trouble).build()
}

mod answers {
    use super::*;

    #[tokio::test]
    async fn an_answer_has_the_members_of_the_real_one() {
        let emulator = Emulator::new();
        let (status, answer) = ask_json(&emulator, post(GENERATE, prompt("hello"))).await;
        assert_eq!(status, 200);
        assert_eq!(
            answer["candidates"],
            json!([{
                "content": {"parts": [{"text": "You said: hello"}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
            }])
        );
        assert_eq!(answer["modelVersion"], "gemini-2.5-flash");
        assert_eq!(answer["responseId"].as_str().unwrap().len(), 22);
        assert_eq!(
            answer["usageMetadata"],
            json!({
                "promptTokenCount": 2,
                "candidatesTokenCount": 4,
                "totalTokenCount": 6,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 2}],
            })
        );
    }

    #[tokio::test]
    async fn a_stream_comes_in_events_whose_usage_grows() {
        let emulator = Emulator::builder().chunks(4).build();
        let response = send(&emulator, post(STREAM, prompt("hello, world"))).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let (frames, stop) = frames(response).await;
        assert_eq!((frames.len(), stop), (4, Stop::Ended));
        let events = events(&frames.concat());
        let text: String = events
            .iter()
            .map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap())
            .collect();
        assert_eq!(text, "You said: hello, world");
        let usage: Vec<u64> =
            events.iter().map(|event| event["usageMetadata"]["candidatesTokenCount"].as_u64().unwrap()).collect();
        assert!(usage.is_sorted() && usage[0] < usage[3], "{usage:?}");
        let finished: Vec<bool> =
            events.iter().map(|event| !event["candidates"][0]["finishReason"].is_null()).collect();
        assert_eq!(finished, [false, false, false, true]);
    }

    #[tokio::test]
    async fn without_alt_sse_a_stream_is_one_json_array() {
        let emulator = Emulator::new();
        let (_, answer) = ask_json(&emulator, post(ARRAY, prompt("hello"))).await;
        assert_eq!(answer.as_array().unwrap().len(), 3);
        assert_eq!(answer[2]["candidates"][0]["finishReason"], "STOP");
    }

    #[tokio::test]
    async fn thoughts_are_counted_and_shown_to_who_asks() {
        let emulator = Emulator::builder().thinking().build();
        let (_, answer) = ask_json(&emulator, post(GENERATE, prompt("hello"))).await;
        assert!(answer["usageMetadata"]["thoughtsTokenCount"].as_u64().unwrap() > 0);
        assert_eq!(answer["candidates"][0]["content"]["parts"].as_array().unwrap().len(), 1);
        let wanted = json!({
            "contents": [{"parts": [{"text": "hello"}]}],
            "generationConfig": {"thinkingConfig": {"includeThoughts": true}},
        });
        let (_, answer) = ask_json(&emulator, post(GENERATE, wanted.to_string())).await;
        assert_eq!(answer["candidates"][0]["content"]["parts"][0]["thought"], true);
        let (_, body) = ask(&emulator, post(STREAM, wanted.to_string())).await;
        assert_eq!(events(&body)[0]["candidates"][0]["content"]["parts"][0]["thought"], true);
    }

    #[tokio::test]
    async fn words_are_the_same_for_the_same_prompt_and_seed() {
        let emulator = |seed| Emulator::builder().seed(seed).reply(Reply::Words(12)).build();
        let (one, two, other) = (emulator(1), emulator(1), emulator(2));
        let (_, first) = ask(&one, post(GENERATE, prompt("hello"))).await;
        assert_eq!(first, ask(&two, post(GENERATE, prompt("hello"))).await.1);
        assert_ne!(first, ask(&other, post(GENERATE, prompt("hello"))).await.1);
        let fixed = Emulator::builder().reply(Reply::Text("yes".into())).build();
        assert!(ask(&fixed, post(GENERATE, prompt("hello"))).await.1.contains("\"text\": \"yes\""));
    }

    #[tokio::test]
    async fn tokens_are_counted() {
        let emulator = Emulator::new();
        let uri = "/v1beta/models/gemini-2.5-flash:countTokens";
        let (_, count) = ask_json(&emulator, post(uri, prompt("hello"))).await;
        assert_eq!(count["totalTokens"], 2);
    }

    #[tokio::test]
    async fn texts_are_embedded() {
        let emulator = Emulator::new();
        let embedding = "/v1beta/models/gemini-embedding-001";
        let one = json!({"content": {"parts": [{"text": "hello"}]}, "outputDimensionality": 8});
        let (_, answer) = ask_json(&emulator, post(&format!("{embedding}:embedContent"), one.to_string())).await;
        assert_eq!(answer["embedding"]["values"].as_array().unwrap().len(), 8);
        let batch = json!({"requests": [one, {"content": {"parts": [{"text": "world"}]}}]}).to_string();
        let (_, answer) = ask_json(&emulator, post(&format!("{embedding}:batchEmbedContents"), batch)).await;
        assert_eq!(answer["embeddings"].as_array().unwrap().len(), 2);
        assert_ne!(answer["embeddings"][0], answer["embeddings"][1]);
        let vertex = "/v1/projects/p/locations/l/publishers/google/models/gemini-embedding-001:predict";
        let instances = json!({"instances": [{"content": "hello"}], "parameters": {"outputDimensionality": 8}});
        let (_, answer) = ask_json(&emulator, post(vertex, instances.to_string())).await;
        assert_eq!(answer["predictions"][0]["embeddings"]["values"].as_array().unwrap().len(), 8);
        let (status, _) =
            ask_json(&emulator, post("/v1beta/models/gemini-2.5-pro:embedContent", one.to_string())).await;
        assert_eq!(status, 404);
    }

    #[tokio::test]
    async fn models_are_listed_page_by_page() {
        let emulator = Emulator::new();
        let mut names = Vec::new();
        let mut token = String::new();
        loop {
            let uri = format!("/v1beta/models?pageSize=4&pageToken={token}");
            let (status, page) = ask_json(&emulator, get(&uri)).await;
            assert_eq!(status, 200);
            let models = page["models"].as_array().unwrap();
            assert!(models.len() <= 4);
            names.extend(models.iter().map(|model| model["name"].as_str().unwrap().to_owned()));
            match page["nextPageToken"].as_str() {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        assert!(names.contains(&"models/gemini-2.5-flash".to_owned()) && names.len() > 8);
        let (_, model) = ask_json(&emulator, get("/v1beta/models/gemini-2.5-pro")).await;
        assert_eq!((&model["inputTokenLimit"], &model["outputTokenLimit"]), (&json!(1_048_576), &json!(65_536)));
        assert_eq!(model["displayName"], "Gemini 2.5 Pro");
        assert_eq!(ask(&emulator, get("/v1beta/models/gemini-9")).await.0, 404);
        let (_, list) = ask_json(&emulator, get("/v1beta1/publishers/google/models")).await;
        assert_eq!(list["publisherModels"][0]["name"], "publishers/google/models/gemini-2.5-pro");
    }

    #[tokio::test]
    async fn the_openai_surface_chats_streams_embeds_and_lists() {
        let emulator = Emulator::new();
        let (status, answer) = ask_json(&emulator, bearer(Method::POST, CHAT, chat("hello", false))).await;
        assert_eq!(status, 200);
        assert_eq!(answer["object"], "chat.completion");
        assert_eq!(answer["choices"][0]["message"], json!({"content": "You said: hello", "role": "assistant"}));
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert_eq!(answer["usage"]["total_tokens"], 6);

        let (_, body) = ask(&emulator, bearer(Method::POST, CHAT, chat("hello", true))).await;
        let events: Vec<&str> = body.split("\n\n").filter(|event| !event.is_empty()).collect();
        assert_eq!((events.len(), events[3]), (4, "data: [DONE]"));
        assert!(events[2].contains("\"finish_reason\":\"stop\"") && events[2].contains("chat.completion.chunk"));

        let input = json!({"model": "gemini-embedding-001", "input": ["a", "b"], "dimensions": 4});
        let embed = "/v1beta/openai/embeddings";
        let (_, list) = ask_json(&emulator, bearer(Method::POST, embed, input.to_string())).await;
        assert_eq!(list["data"][1]["embedding"].as_array().unwrap().len(), 4);
        let input =
            json!({"model": "gemini-embedding-001", "input": "a", "dimensions": 3, "encoding_format": "base64"});
        let (_, list) = ask_json(&emulator, bearer(Method::POST, embed, input.to_string())).await;
        assert_eq!(list["data"][0]["embedding"].as_str().unwrap().len(), 16);

        let (_, list) = ask_json(&emulator, bearer(Method::GET, "/v1beta/openai/models", "")).await;
        assert_eq!(list["data"][0], json!({"id": "models/gemini-2.5-pro", "object": "model", "owned_by": "google"}));
        assert_eq!(ask(&emulator, bearer(Method::GET, "/v1beta/openai/models/gemini-2.5-pro", "")).await.0, 200);
    }

    #[tokio::test]
    async fn every_version_and_vertex_are_served() {
        let emulator = Emulator::new();
        for path in [
            "/v1/models/gemini-2.5-flash:generateContent",
            "/v1alpha/models/gemini-2.5-flash:generateContent",
            "/v1beta1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:generateContent",
            "/v1/publishers/google/models/gemini-2.5-flash:generateContent",
        ] {
            assert_eq!(ask(&emulator, post(path, prompt("hello"))).await.0, 200, "{path}");
        }
        assert_eq!(emulator.journal()[2].project.as_deref(), Some("p"));
    }

    #[tokio::test]
    async fn an_alias_answers_as_what_it_resolves_to() {
        let model = EmulatedModel::new("gemini-flash-latest").resolves_to("gemini-3.8-flash");
        let emulator = Emulator::builder().model(model).limits(Limits::new().requests_per_minute(1)).build();
        let uri = "/v1beta/models/gemini-flash-latest:generateContent";
        let (_, answer) = ask_json(&emulator, post(uri, prompt("hello"))).await;
        assert_eq!(answer["modelVersion"], "gemini-3.8-flash");
        let (_, refused) = ask_json(&emulator, post(uri, prompt("hello"))).await;
        assert_eq!(
            refused["error"]["details"][0]["violations"][0]["quotaDimensions"],
            json!({"location": "global", "model": "gemini-3.8-flash"})
        );
    }
}

mod refusals {
    use super::*;

    async fn refused(emulator: &Emulator, request: Request<Full<Bytes>>) -> (u16, String, String) {
        let (status, body) = ask_json(emulator, request).await;
        let error = if body.is_array() { &body[0]["error"] } else { &body["error"] };
        assert_eq!(error["code"], status.as_u16());
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        (status.as_u16(), text("status"), text("message"))
    }

    #[tokio::test]
    async fn wrong_requests_are_refused_in_googles_words() {
        let emulator =
            Emulator::builder().default_models().model(EmulatedModel::new("small").input_token_limit(10)).build();
        let long = post("/v1beta/models/small:generateContent", prompt(&"x".repeat(44)));
        let short = {
            let mut request = post(GENERATE, prompt("hello"));
            request.headers_mut().insert("x-server-timeout", "5".parse().unwrap());
            request
        };
        for (request, status, words) in [
            (post(GENERATE, "{\"contents\": "), 400, "Invalid JSON payload received. Unexpected end of string."),
            (post(GENERATE, "{}"), 400, "* GenerateContentRequest.contents: contents is not specified\n"),
            (long, 400, "The input token count (11) exceeds the maximum number of tokens allowed (10)."),
            (short, 400, "Manually set deadline 5s is too short. Minimum allowed deadline is 10s."),
            (
                post("/v1beta/models/gemini-2.5-flsh:generateContent", prompt("hello")),
                404,
                "models/gemini-2.5-flsh is not found for API version v1beta, or is not supported for generateContent. \
                 Call ListModels to see the list of available models and their supported methods.",
            ),
            (
                post("/v1/projects/p/locations/l/publishers/google/models/none:generateContent", prompt("hello")),
                404,
                "Publisher Model `projects/p/locations/l/publishers/google/models/none` was not found",
            ),
            (
                bearer(Method::POST, CHAT, r#"{"model": "none", "messages": [{"content": "hello"}]}"#),
                404,
                "models/none is not found for API version v1main",
            ),
        ] {
            let (code, _, message) = refused(&emulator, request).await;
            assert_eq!(code, status, "{message}");
            assert!(message.starts_with(words), "{message}");
        }
    }

    #[tokio::test]
    async fn an_unknown_path_is_an_empty_404() {
        let emulator = Emulator::new();
        for uri in ["/", "/v1beta/corpora", "/v1beta/models/gemini-2.5-flash:tune", "/v1beta/interactions/i/a/b"] {
            assert_eq!(ask(&emulator, post(uri, "{}")).await, (StatusCode::NOT_FOUND, String::new()));
        }
    }

    #[tokio::test]
    async fn a_body_past_the_limit_is_refused() {
        let emulator = Emulator::builder().body_limit(100).build();
        let (status, _, message) = refused(&emulator, post(GENERATE, prompt(&"x".repeat(100)))).await;
        assert_eq!((status, &*message), (400, "Request payload size exceeds the limit: 100 bytes."));
    }

    #[tokio::test]
    async fn keys_are_checked_as_google_checks_them() {
        let emulator = Emulator::builder().key("key-a", "project-a").key("key-b", "project-a").build();
        let with = |pairs: &[(&str, &str)], uri: &str| {
            let request = pairs.iter().fold(Request::post(uri), |request, (name, value)| request.header(*name, *value));
            let body = if uri == CHAT { chat("hello", false) } else { prompt("hello") };
            request.body(Full::new(Bytes::from(body))).unwrap()
        };
        let key = |key| [("x-goog-api-key", key)];
        assert_eq!(ask(&emulator, with(&key("key-a"), GENERATE)).await.0, 200);
        assert_eq!(ask(&emulator, with(&[], &format!("{GENERATE}?key=key-b"))).await.0, 200);
        assert_eq!(ask(&emulator, with(&[("authorization", "Bearer key-a")], CHAT)).await.0, 200);
        assert_eq!(emulator.count(|visit| visit.project.as_deref() == Some("project-a")), 3);
        assert_eq!(emulator.journal()[0].key, Some(Emulator::fingerprint("key-a")));

        let vertex = "/v1/publishers/google/models/gemini-2.5-flash:generateContent";
        for (headers, uri, expected) in [
            (&key("other")[..], GENERATE, (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")),
            (&[], GENERATE, (403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers")),
            (&[], vertex, (401, "UNAUTHENTICATED", "Request is missing required authentication credential.")),
            (&[], CHAT, (400, "INVALID_ARGUMENT", "Missing or invalid Authorization header.")),
            (
                &[("authorization", "Bearer key-a")],
                GENERATE,
                (401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
            ),
            (
                &[("authorization", "Bearer key-a"), ("x-goog-api-key", "key-a")],
                CHAT,
                (400, "INVALID_ARGUMENT", "Multiple authentication credentials received. Please pass only one."),
            ),
        ] {
            let (code, status, message) = refused(&emulator, with(headers, uri)).await;
            assert_eq!((code, &*status), (expected.0, expected.1));
            assert!(message.starts_with(expected.2), "{message}");
        }

        let nobody = Emulator::builder().keyless().build();
        assert_eq!(ask(&nobody, with(&[], GENERATE)).await.0, 200);
        assert_eq!(ask(&Emulator::new(), with(&[], GENERATE)).await.0, 403);
        assert_eq!(ask(&Emulator::new(), with(&key("any"), GENERATE)).await.0, 200);
    }

    #[tokio::test]
    async fn an_invalid_key_has_googles_exact_shape() {
        let emulator = Emulator::builder().key("key-a", "p").build();
        let (_, body) = ask_json(&emulator, post(GENERATE, prompt("hello"))).await;
        let message = "API key not valid. Please pass a valid API key.";
        assert_eq!(
            body,
            json!({"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com",
                    "metadata": {"service": "generativelanguage.googleapis.com"},
                },
                {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": message},
            ]}})
        );
        // The surface has an array around the error.
        let (_, body) = ask_json(&emulator, post(ARRAY, prompt("hello"))).await;
        assert_eq!(body[0]["error"]["code"], 400);
        let (_, body) = ask_json(&emulator, bearer(Method::POST, CHAT, chat("hello", true))).await;
        assert_eq!(body[0]["error"]["code"], 400);
    }

    #[test]
    fn nothing_that_is_debugged_shows_a_key() {
        let builder = Emulator::builder()
            .key("very-secret", "p")
            .trouble(When::always().key("very-secret"), Trouble::suspended_key());
        let emulator = builder.clone().build();
        let future = tower::Service::call(&mut emulator.clone(), post(GENERATE, prompt("hello")));
        for text in [
            format!("{builder:?}"),
            format!("{emulator:?}"),
            format!("{future:?}"),
            format!("{:?}", emulator.journal()),
        ] {
            assert!(!text.contains("very-secret") && !text.contains("test-key"), "{text}");
        }
    }
}

mod quotas {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_refuses_in_googles_exact_shape_and_comes_back_at_its_hint() {
        let emulator = Emulator::builder().limits(Limits::new().requests_per_minute(2)).build();
        assert_eq!(status(&emulator).await, 200);
        tokio::time::advance(Duration::from_nanos(17_078_045_493)).await;
        assert_eq!(status(&emulator).await, 200);
        let (code, body) = ask_json(&emulator, post(GENERATE, prompt("hello"))).await;
        assert_eq!(code, 429);
        let model = "gemini-2.5-flash";
        let metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests";
        // Timers tick in milliseconds, so that the clock may be a little past the exact time.
        let message = body["error"]["message"].as_str().unwrap();
        let hint = message.rsplit("Please retry in ").next().unwrap();
        assert!(hint.starts_with("42.92") && hint.ends_with("s."), "{hint}");
        assert!(message.starts_with(
            "You exceeded your current quota, please check your plan and billing details. For more information on this \
             error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: \
             https://ai.dev/rate-limit. \n* Quota exceeded for metric: "
        ));
        assert!(message.contains(&format!("\n* Quota exceeded for metric: {metric}, limit: 2, model: {model}\n")));
        assert_eq!(
            body["error"]["details"],
            json!([
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{
                        "quotaMetric": metric,
                        "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
                        "quotaDimensions": {"location": "global", "model": model},
                        "quotaValue": "2",
                    }],
                },
                {
                    "@type": "type.googleapis.com/google.rpc.Help",
                    "links": [{
                        "description": "Learn more about Gemini API quotas",
                        "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
                    }],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "42s"},
            ])
        );
        // The whole seconds of RetryInfo are too short, and the wait in the message is exact. The refused request cost nothing.
        tokio::time::advance(secs(42)).await;
        assert_eq!(status(&emulator).await, 429);
        tokio::time::advance(Duration::from_millis(922)).await;
        assert_eq!(status(&emulator).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_window_gives_everything_back_at_once() {
        let limits = Limits::new().requests_per_minute(2);
        let emulator = Emulator::builder().limits(limits).window(QuotaWindow::Fixed).build();
        tokio::time::advance(secs(50)).await;
        assert_eq!([status(&emulator).await, status(&emulator).await, status(&emulator).await], [200, 200, 429]);
        tokio::time::advance(secs(10)).await;
        assert_eq!([status(&emulator).await, status(&emulator).await, status(&emulator).await], [200, 200, 429]);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_counted_and_a_poisonous_request_is_told_one_second() {
        let emulator = Emulator::builder().limits(Limits::new().input_tokens_per_minute(10)).paid_tier().build();
        let tokens = |tokens: usize| post(GENERATE, prompt(&"x".repeat(tokens * 4)));
        assert_eq!(ask(&emulator, tokens(8)).await.0, 200);
        let (code, body) = ask_json(&emulator, tokens(3)).await;
        assert_eq!(code, 429);
        let violation = &body["error"]["details"][0]["violations"][0];
        assert_eq!(violation["quotaId"], "GenerateContentPaidTierInputTokensPerModelPerMinute");
        assert_eq!(violation["quotaValue"], "10");
        tokio::time::advance(secs(3600)).await;
        let (_, body) = ask(&emulator, tokens(11)).await;
        assert!(body.contains("Please retry in 1s."), "{body}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_ends_at_midnight_pacific() {
        // 2026-11-21 07:30 UTC: half an hour before midnight in California.
        let half_past = SystemTime::UNIX_EPOCH + secs(1_795_246_200);
        let limits = Limits::new().requests_per_day(1);
        let emulator = Emulator::builder().limits(limits).wall_clock(half_past).build();
        assert_eq!(status(&emulator).await, 200);
        let (_, body) = ask_json(&emulator, post(GENERATE, prompt("hello"))).await;
        let violation = &body["error"]["details"][0]["violations"][0];
        assert_eq!(violation["quotaId"], "GenerateRequestsPerDayPerProjectPerModel-FreeTier");
        tokio::time::advance(secs(29 * 60)).await;
        assert_eq!(status(&emulator).await, 429);
        tokio::time::advance(secs(60)).await;
        assert_eq!([status(&emulator).await, status(&emulator).await], [200, 429]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_of_zero_says_so_by_saying_nothing() {
        let emulator = Emulator::builder().limits_for("gemini-2.5-flash", Limits::new().requests_per_minute(0)).build();
        let (code, body) = ask_json(&emulator, post(GENERATE, prompt("hello"))).await;
        assert_eq!(code, 429);
        assert!(body["error"]["message"].as_str().unwrap().contains("limit: 0, model: gemini-2.5-flash"));
        assert_eq!(body["error"]["details"][0]["violations"][0].get("quotaValue"), None);
        let pro = "/v1beta/models/gemini-2.5-pro:generateContent";
        assert_eq!(ask(&emulator, post(pro, prompt("hello"))).await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_of_one_project_share_and_projects_and_models_do_not() {
        let emulator = Emulator::builder()
            .key("a1", "a")
            .key("a2", "a")
            .key("b", "b")
            .key("rich", "rich")
            .limits(Limits::new().requests_per_minute(1))
            .limits_in("rich", Limits::new())
            .build();
        let with = |key: &str, model: &str| {
            let mut request = post(&format!("/v1beta/models/{model}:generateContent"), prompt("hello"));
            request.headers_mut().insert("x-goog-api-key", key.parse().unwrap());
            request
        };
        for (key, model, expected) in [
            ("a1", "gemini-2.5-flash", 200),
            ("a2", "gemini-2.5-flash", 429),
            ("a2", "gemini-2.5-pro", 200),
            ("b", "gemini-2.5-flash", 200),
            ("rich", "gemini-2.5-flash", 200),
            ("rich", "gemini-2.5-flash", 200),
        ] {
            assert_eq!(ask(&emulator, with(key, model)).await.0, expected, "{key} {model}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counting_and_listing_are_free() {
        let emulator = Emulator::builder().limits(Limits::new().requests_per_minute(0)).build();
        let count = "/v1beta/models/gemini-2.5-flash:countTokens";
        assert_eq!(ask(&emulator, post(count, prompt("hello"))).await.0, 200);
        assert_eq!(ask(&emulator, get("/v1beta/models")).await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn what_quota_refuses_uses_no_scripted_trouble_up() {
        let limits = Limits::new().requests_per_minute(1);
        let emulator = Emulator::builder().limits(limits).trouble(When::nth(2), Trouble::internal()).build();
        assert_eq!([status(&emulator).await, status(&emulator).await], [200, 429]);
        tokio::time::advance(secs(60)).await;
        assert_eq!(status(&emulator).await, 500);
    }
}

mod troubles {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn errors_of_the_api_have_their_status_and_words() {
        for (trouble, code, words) in [
            (Trouble::overloaded(), 503, r#""message": "The model is overloaded. Please try again later.""#),
            (Trouble::overloaded().hint(Duration::from_millis(7_900)), 503, r#""retryDelay": "7s""#),
            (Trouble::high_demand(), 503, "This model is currently experiencing high demand."),
            (Trouble::internal(), 500, r#""status": "INTERNAL""#),
            (Trouble::deadline_exceeded(), 504, "Deadline expired before operation could complete."),
            (Trouble::minute_quota(Duration::from_nanos(42_921_954_507)), 429, "Please retry in 42.921954507s."),
            (Trouble::minute_quota(Duration::from_micros(900_200)), 429, "Please retry in 900.2ms."),
            (Trouble::token_quota(secs(37)), 429, "GenerateContentInputTokensPerModelPerMinute-FreeTier"),
            (Trouble::day_quota(), 429, "GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
            (Trouble::zero_quota(), 429, "limit: 0, model: gemini-2.5-flash"),
            (Trouble::bare_quota(), 429, "Resource has been exhausted (e.g. check quota)."),
            (Trouble::vertex_capacity(), 429, "generative-ai/docs/error-code-429 for more details."),
            (Trouble::invalid_key(), 400, "API_KEY_INVALID"),
            (Trouble::expired_key(), 400, "API key expired. Please renew the API key."),
            (Trouble::suspended_key(), 403, r#""containerInfo": "api_key:test-key""#),
            (Trouble::leaked_key(), 403, "Your API key was reported as leaked."),
            (Trouble::service_disabled(), 403, "SERVICE_DISABLED"),
            (Trouble::html_bad_gateway(), 502, "<!DOCTYPE html>"),
            (Trouble::empty_bad_gateway(), 502, ""),
        ] {
            let name = trouble.name();
            let emulator = troubled(When::always(), trouble);
            let (status, body) = ask(&emulator, post(GENERATE, prompt("hello"))).await;
            assert_eq!(status, code, "{name}");
            assert!(body.contains(words), "{name}: {body}");
            assert_eq!(emulator.journal()[0].trouble, Some(name));
        }
    }

    #[tokio::test]
    async fn a_response_of_your_own_comes_as_it_is_and_stands_in_for_a_path() {
        let response = Response::builder().status(429).header("retry-after", "3").body("busy").unwrap();
        let emulator = troubled(When::always().path("/v1beta/files"), Trouble::response(response));
        let response = send(&emulator, post("/v1beta/files", "whatever")).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"3".parse().unwrap()));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "busy");
        assert_eq!(status(&emulator).await, 200);
    }

    #[tokio::test]
    async fn answers_that_are_none() {
        for (trouble, unary, chat_finish) in [
            (Trouble::empty(), json!([{"content": {"role": "model"}, "finishReason": "STOP", "index": 0}]), "stop"),
            (
                Trouble::malformed_function_call(),
                json!([{
                    "finishReason": "MALFORMED_FUNCTION_CALL",
                    "finishMessage": "Malformed function call: print(default_api.emulated(1)",
                    "index": 0,
                }]),
                "function_call_filter: MALFORMED_FUNCTION_CALL",
            ),
            (Trouble::blocked("SAFETY"), json!([{"finishReason": "SAFETY", "index": 0}]), "content_filter"),
            (Trouble::prompt_blocked("PROHIBITED_CONTENT"), Value::Null, "content_filter"),
        ] {
            let emulator = troubled(When::always(), trouble.clone());
            let (status, body) = ask_json(&emulator, post(GENERATE, prompt("hello"))).await;
            assert_eq!((status, &body["candidates"]), (StatusCode::OK, &unary));
            assert_eq!(body["usageMetadata"]["totalTokenCount"], 2);
            if trouble.name() == "prompt_blocked" {
                assert_eq!(body["promptFeedback"]["blockReason"], "PROHIBITED_CONTENT");
            }
            let (_, body) = ask(&emulator, post(STREAM, prompt("hello"))).await;
            let events = events(&body);
            assert_eq!((events.len(), &events[0]["candidates"]), (1, &unary));
            let (_, body) = ask_json(&emulator, bearer(Method::POST, CHAT, chat("hello", false))).await;
            assert_eq!(body["choices"][0]["finish_reason"], chat_finish);
            assert_eq!(body["choices"][0]["message"].get("content"), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hang_is_for_ever() {
        let emulator = troubled(When::always(), Trouble::hang());
        let hung = timeout(secs(100_000), send(&emulator, post(GENERATE, prompt("hello")))).await;
        assert!(hung.is_err());
        assert_eq!(emulator.journal()[0].end, Some(End::DroppedBeforeHeaders));
        assert_eq!(emulator.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_before_the_headers_is_an_error() {
        let emulator = troubled(When::always(), Trouble::reset().delayed(secs(2)));
        let start = Instant::now();
        let error = send(&emulator, post(GENERATE, prompt("hello"))).await.unwrap_err();
        assert_eq!(io_kind(&*error), Some(ErrorKind::ConnectionReset));
        assert_eq!(start.elapsed(), secs(2));
        assert_eq!(emulator.journal()[0].end, Some(End::Reset));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_breaks_off_after_so_many_chunks_and_never_after_the_last() {
        for (trouble, chunks, stop, end) in [
            (Trouble::stall(1), 1, Stop::Stalled, End::DroppedInBody),
            (Trouble::stall(0), 0, Stop::Stalled, End::DroppedInBody),
            (Trouble::reset_after(2), 2, Stop::Reset, End::Reset),
            (Trouble::cut(1), 1, Stop::Ended, End::Finished),
            (Trouble::cut(0), 0, Stop::Ended, End::Finished),
            (Trouble::cut(9), 2, Stop::Ended, End::Finished),
        ] {
            for (uri, body) in [(STREAM, prompt("hello")), (ARRAY, prompt("hello")), (CHAT, chat("hello", true))] {
                let emulator = troubled(When::always(), trouble.clone());
                let response = send(&emulator, post(uri, body)).await.unwrap();
                let (frames, stopped) = frames(response).await;
                assert_eq!((frames.len(), &stopped), (chunks, &stop), "{trouble:?} {uri}");
                assert!(!frames.concat().contains("STOP") && !frames.concat().contains("\"stop\""));
                assert_eq!(emulator.journal()[0].end, Some(end), "{trouble:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_an_answer_in_one_piece_comes_out() {
        for (trouble, stop) in
            [(Trouble::stall(1), Stop::Stalled), (Trouble::reset_after(1), Stop::Reset), (Trouble::cut(1), Stop::Ended)]
        {
            let emulator = troubled(When::always(), trouble);
            let (frames, stopped) = frames(send(&emulator, post(GENERATE, prompt("hello"))).await.unwrap()).await;
            assert_eq!((frames.len(), stopped), (1, stop));
            assert!(serde_json::from_str::<Value>(&frames.concat()).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_no_chunks_nothing_of_an_answer_in_one_piece_comes_out() {
        for (trouble, stop) in
            [(Trouble::stall(0), Stop::Stalled), (Trouble::reset_after(0), Stop::Reset), (Trouble::cut(0), Stop::Ended)]
        {
            let emulator = troubled(When::always(), trouble);
            let response = send(&emulator, post(GENERATE, prompt("hello"))).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(frames(response).await, (vec![], stop));
        }
    }

    #[tokio::test]
    async fn an_error_comes_inside_a_200_stream() {
        for (trouble, chunks) in [
            (Trouble::overloaded().in_stream(2), 2),
            (Trouble::overloaded().in_stream(0), 0),
            (Trouble::minute_quota(secs(3)).in_stream(9), 2),
        ] {
            let emulator = troubled(When::always(), trouble);
            let (status, body) = ask(&emulator, post(STREAM, prompt("hello"))).await;
            let events = events(&body);
            assert_eq!((status, events.len()), (StatusCode::OK, chunks + 1));
            assert!(events[chunks]["error"]["message"].is_string());

            let (status, array) = ask_json(&emulator, post(ARRAY, prompt("hello"))).await;
            assert_eq!((status, array.as_array().unwrap().len()), (StatusCode::OK, chunks + 1));
            assert!(array[chunks]["error"]["code"].is_number());

            let (_, body) = ask(&emulator, post(CHAT, chat("hello", true))).await;
            assert!(body.contains("data: {\"error\":") && !body.contains("[DONE]"));

            // An answer in one piece has the error as its status.
            assert_ne!(ask(&emulator, post(GENERATE, prompt("hello"))).await.0, 200);
        }
    }

    #[tokio::test]
    async fn a_raw_tail_has_no_data_before_it() {
        let emulator = troubled(When::always(), Trouble::overloaded().as_raw_tail(1));
        let response = send(&emulator, post(STREAM, prompt("hello"))).await.unwrap();
        let (frames, stop) = frames(response).await;
        assert_eq!((frames.len(), stop), (2, Stop::Ended));
        assert!(frames[0].starts_with("data: {"));
        assert!(frames[1].starts_with("{\n  \"error\": {\n    \"code\": 503,\n"));
        let (_, array) = ask_json(&emulator, post(ARRAY, prompt("hello"))).await;
        assert_eq!(array[1]["error"]["code"], 503);
    }

    #[tokio::test(start_paused = true)]
    async fn slowness_is_before_the_headers_or_after_them() {
        let emulator = Emulator::builder()
            .trouble(When::first(1), Trouble::slow(secs(5)))
            .trouble(When::first(1), Trouble::slow_first_token(secs(5)))
            .trouble(When::first(1), Trouble::slow_first_token(secs(5)))
            .trouble(When::first(1), Trouble::overloaded().delayed(secs(5)))
            .build();
        for (uri, headers, first) in [(STREAM, 5, 5), (STREAM, 0, 5), (GENERATE, 5, 5), (GENERATE, 5, 5)] {
            let start = Instant::now();
            let mut response = send(&emulator, post(uri, prompt("hello"))).await.unwrap();
            assert_eq!(start.elapsed(), secs(headers));
            response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(start.elapsed(), secs(first));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn absurd_times_do_not_panic() {
        let trouble =
            Trouble::slow_first_token(Duration::MAX).delayed(Duration::MAX).delayed(Duration::MAX).pings(secs(1));
        let emulator = Emulator::builder()
            .before_headers(secs(1))
            .first_token(Duration::MAX)
            .between_chunks(Duration::MAX)
            .trouble(When::always().until(Duration::MAX), trouble)
            .trouble(When::always(), Trouble::minute_quota(Duration::MAX))
            .build();
        for uri in [GENERATE, STREAM, ARRAY] {
            assert!(timeout(secs(9), send(&emulator, post(uri, prompt("hello")))).await.is_err());
        }
        emulator.clear_troubles();
        emulator.trouble(When::always(), Trouble::minute_quota(Duration::MAX));
        assert_eq!(status(&emulator).await, 429);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_paced_and_pinged() {
        let paced = Trouble::none().paced(10, Duration::from_millis(3));
        let emulator = Emulator::builder().chunks(1).trouble(When::always(), paced).build();
        let start = Instant::now();
        let (pieces, _) = frames(send(&emulator, post(STREAM, prompt("hello"))).await.unwrap()).await;
        assert!(pieces.iter().all(|piece| piece.len() <= 10) && pieces.len() > 10);
        assert_eq!(start.elapsed(), Duration::from_millis(3) * (pieces.len() as u32 - 1));
        assert_eq!(events(&pieces.concat()).len(), 1);

        let emulator = troubled(When::always(), Trouble::slow_first_token(secs(5)).pings(secs(2)));
        let (pieces, _) = frames(send(&emulator, post(STREAM, prompt("hello"))).await.unwrap()).await;
        let pings = pieces.iter().filter(|piece| piece.as_str() == ": ping\r\n\r\n").count();
        assert_eq!((pings, pieces.len()), (2 + 3, 2 + 3 + 3));
        assert_eq!(emulator.journal()[0].trouble, Some("slow_first_token"));

        // A stall with comments is still a stall: the body never ends.
        let emulator = troubled(When::always(), Trouble::stall(1).pings(secs(20)));
        let mut body = send(&emulator, post(STREAM, prompt("hello"))).await.unwrap().into_body();
        for _ in 0..100 {
            body.frame().await.unwrap().unwrap();
        }
        assert_eq!(emulator.elapsed(), secs(98 * 20));
    }

    #[tokio::test]
    async fn a_trouble_is_restricted_to_what_it_is_about() {
        let emulator = Emulator::builder()
            .default_models()
            .key("a", "project-a")
            .key("test-key", "project-b")
            .trouble(When::prompt_contains("poison"), Trouble::internal())
            .trouble(When::always().model("gemini-2.5-pro"), Trouble::overloaded())
            .trouble(When::always().project("project-a"), Trouble::bare_quota())
            .trouble(When::always().operation(Operation::ListModels), Trouble::deadline_exceeded())
            .trouble(When::always().streaming(true), Trouble::empty_bad_gateway())
            .build();
        assert_eq!(status(&emulator).await, 200);
        assert_eq!(ask(&emulator, post(GENERATE, prompt("a poison pill"))).await.0, 500);
        let pro = "/v1beta/models/gemini-2.5-pro:generateContent";
        assert_eq!(ask(&emulator, post(pro, prompt("hello"))).await.0, 503);
        assert_eq!(ask(&emulator, post(STREAM, prompt("hello"))).await.0, 502);
        assert_eq!(ask(&emulator, get("/v1beta/models")).await.0, 504);
        let mut request = post(GENERATE, prompt("hello"));
        request.headers_mut().insert("x-goog-api-key", "a".parse().unwrap());
        assert_eq!(ask(&emulator, request).await.0, 429);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_goes_bad_at_its_time_before_any_quota() {
        let emulator = Emulator::builder()
            .limits(Limits::new().requests_per_minute(1))
            .trouble(When::always().key("test-key").from(secs(10)), Trouble::suspended_key())
            .build();
        assert_eq!([status(&emulator).await, status(&emulator).await], [200, 429]);
        tokio::time::advance(secs(10)).await;
        assert_eq!(status(&emulator).await, 403);
        let mut other = post(GENERATE, prompt("hello"));
        other.headers_mut().insert("x-goog-api-key", "other".parse().unwrap());
        assert_eq!(ask(&emulator, other).await.0, 429);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_has_a_beginning_and_an_end() {
        let when = When::probability(1.0).from(secs(10)).until(secs(20));
        let emulator = troubled(when, Trouble::overloaded());
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(status(&emulator).await);
            tokio::time::advance(secs(5)).await;
        }
        assert_eq!(seen, [200, 200, 503, 503, 200]);
    }

    #[tokio::test]
    async fn the_same_seed_has_the_same_luck() {
        async fn run(seed: u64) -> Vec<u16> {
            let when = When::probability(0.3);
            let emulator = Emulator::builder().seed(seed).trouble(when, Trouble::overloaded()).build();
            let mut seen = Vec::new();
            for _ in 0..200 {
                seen.push(status(&emulator).await);
            }
            seen
        }
        let first = run(7).await;
        assert_eq!(first, run(7).await);
        assert_ne!(first, run(8).await);
        let refused = first.iter().filter(|status| **status == 503).count();
        assert!((40..80).contains(&refused), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn overload_grows_with_requests_in_flight() {
        async fn refused(at_once: usize) -> usize {
            let when = When::overload(Capacity::in_flight(10));
            let emulator =
                Emulator::builder().seed(3).first_token(secs(1)).trouble(when, Trouble::overloaded()).build();
            let statuses = join_all((0..at_once).map(|_| status(&emulator))).await;
            statuses.into_iter().filter(|status| *status == 503).count()
        }
        assert_eq!(refused(10).await, 0);
        let (some, many) = (refused(20).await, refused(200).await);
        assert!(some > 0 && some < 20 && many > 100, "{some} {many}");
    }

    #[tokio::test]
    async fn troubles_come_and_go_at_run_time() {
        let emulator = Emulator::new();
        assert_eq!(status(&emulator).await, 200);
        emulator.trouble(When::always(), Trouble::overloaded());
        assert_eq!(status(&emulator).await, 503);
        emulator.clear_troubles();
        emulator.script(When::always(), [Trouble::internal(), Trouble::none(), Trouble::empty_bad_gateway()]);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(status(&emulator).await);
        }
        assert_eq!(seen, [500, 200, 502, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn time_passes_as_it_was_told() {
        let emulator = Emulator::builder()
            .before_headers(secs(1))
            .first_token(secs(2))
            .between_chunks(secs(3))
            .chunks(3)
            .trouble(When::nth(3), Trouble::overloaded())
            .build();
        let start = Instant::now();
        let mut response = send(&emulator, post(STREAM, prompt("hello"))).await.unwrap();
        let mut times = VecDeque::from([start.elapsed().as_secs()]);
        while let Some(frame) = response.body_mut().frame().await {
            frame.unwrap();
            times.push_back(start.elapsed().as_secs());
        }
        assert_eq!(times, [1, 3, 6, 9]);
        let start = Instant::now();
        assert_eq!((status(&emulator).await, start.elapsed()), (200, secs(9)));
        let start = Instant::now();
        assert_eq!((status(&emulator).await, start.elapsed()), (503, secs(1)));
    }
}

mod journal {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_visit_says_what_was_asked_and_answered() {
        let emulator = Emulator::new();
        tokio::time::advance(secs(3)).await;
        let mut request = post(&format!("{STREAM}&x=1"), prompt("hello"));
        request.headers_mut().insert("accept-encoding", "identity".parse().unwrap());
        request.headers_mut().insert("authorization-like", "secret".parse().unwrap());
        ask(&emulator, request).await;
        let journal = emulator.journal();
        let visit = &journal[0];
        assert_eq!((visit.number, visit.at), (0, secs(3)));
        assert_eq!((visit.method.as_str(), visit.version), ("POST", Version::HTTP_11));
        assert_eq!(visit.path, "/v1beta/models/gemini-2.5-flash:streamGenerateContent");
        assert_eq!(visit.model.as_deref(), Some("gemini-2.5-flash"));
        assert_eq!(visit.operation, Operation::GenerateContent);
        assert_eq!(visit.headers.len(), 1);
        assert_eq!(visit.headers["accept-encoding"], "identity");
        assert_eq!((visit.body_bytes, visit.prompt.trim()), (prompt("hello").len(), "hello"));
        assert_eq!((visit.input_tokens, visit.chunks), (2, 3));
        assert_eq!((visit.status, visit.trouble), (Some(StatusCode::OK), None));
        assert_eq!((visit.end, visit.ended_at), (Some(End::Finished), Some(secs(3))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_call_and_a_dropped_body_are_told_apart() {
        let emulator = Emulator::builder().first_token(secs(9)).build();
        let call = tower::Service::call(&mut emulator.clone(), post(GENERATE, prompt("hello")));
        assert_eq!(emulator.in_flight(), 1);
        drop(call);
        let response = send(&emulator, post(STREAM, prompt("hello"))).await.unwrap();
        assert_eq!((emulator.in_flight(), emulator.journal()[1].is_in_flight()), (1, true));
        drop(response);
        let ends: Vec<_> = emulator.journal().iter().map(|visit| visit.end).collect();
        assert_eq!(ends, [Some(End::DroppedBeforeHeaders), Some(End::DroppedInBody)]);
        assert_eq!(emulator.in_flight(), 0);
    }

    #[tokio::test]
    async fn the_journal_is_bounded() {
        let emulator = Emulator::builder().journal_capacity(3).build();
        for _ in 0..5 {
            status(&emulator).await;
        }
        let numbers: Vec<u64> = emulator.journal().iter().map(|visit| visit.number).collect();
        assert_eq!(numbers, [2, 3, 4]);
    }

    #[tokio::test]
    async fn a_change_wakes_who_waits_for_it() {
        let emulator = Emulator::new();
        let changed = emulator.changed();
        status(&emulator).await;
        changed.await;
        let waiting = emulator.wait_for(|journal| journal.len() == 2);
        tokio::join!(waiting, status(&emulator));
    }
}

mod socket {
    use std::net::SocketAddr;

    use hyper_util::{
        client::legacy::{Client, connect::HttpConnector},
        rt::TokioExecutor,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
        Client::builder(TokioExecutor::new()).http2_only(http2).retry_canceled_requests(false).build_http()
    }

    fn at(uri: String, path: &str) -> Request<Full<Bytes>> {
        post(&format!("{uri}{path}"), prompt("hello"))
    }

    async fn patiently<T>(future: impl Future<Output = T>) -> T {
        timeout(PATIENCE, future).await.unwrap()
    }

    #[tokio::test]
    async fn both_versions_of_http_are_served_on_one_port() {
        let emulator = Emulator::new();
        let server = emulator.serve().await.unwrap();
        for (http2, version) in [(false, Version::HTTP_11), (true, Version::HTTP_2)] {
            let client = client(http2);
            let response = patiently(client.request(at(server.uri(), GENERATE))).await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, version));
            assert!(response.headers().contains_key("content-length"));
            let body = patiently(response.into_body().collect()).await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&body).contains("You said: hello"));
            assert!(emulator.journal().iter().any(|visit| visit.version == version && visit.connection.is_some()));
            let response = patiently(client.request(at(server.uri(), STREAM))).await.unwrap();
            let body = patiently(response.into_body().collect()).await.unwrap().to_bytes();
            assert_eq!(events(&String::from_utf8_lossy(&body)).len(), 3);
        }
        emulator.wait_for(|journal| journal.iter().all(|visit| visit.end == Some(End::Finished))).await;
    }

    #[tokio::test]
    async fn a_hang_ends_when_the_peer_goes_away() {
        let emulator = troubled(When::always(), Trouble::hang());
        let server = emulator.serve().await.unwrap();
        for http2 in [false, true] {
            let client = client(http2);
            let call = tokio::spawn(client.request(at(server.uri(), GENERATE)));
            patiently(
                emulator
                    .wait_for(|journal| journal.iter().any(|visit| visit.is_in_flight() && visit.trouble.is_some())),
            )
            .await;
            call.abort();
            patiently(emulator.wait_for(|journal| journal.iter().all(|visit| !visit.is_in_flight()))).await;
        }
        assert_eq!(emulator.count(|visit| visit.end == Some(End::DroppedBeforeHeaders)), 2);
        assert_eq!(emulator.in_flight(), 0);
    }

    #[tokio::test]
    async fn a_stall_ends_when_the_peer_goes_away() {
        let emulator = troubled(When::always(), Trouble::stall(1));
        let server = emulator.serve().await.unwrap();
        for http2 in [false, true] {
            let client = client(http2);
            let mut response = patiently(client.request(at(server.uri(), STREAM))).await.unwrap();
            let frame = patiently(response.body_mut().frame()).await.unwrap().unwrap();
            assert!(frame.into_data().unwrap().starts_with(b"data: "));
            assert_eq!(emulator.in_flight(), 1);
            drop(response);
            patiently(emulator.wait_for(|journal| journal.iter().all(|visit| !visit.is_in_flight()))).await;
        }
        assert_eq!(emulator.count(|visit| visit.end == Some(End::DroppedInBody) && visit.chunks == 1), 2);
    }

    /// Reads a plain socket to its end.
    async fn raw(addr: SocketAddr, path: &str) -> (String, std::io::Result<()>) {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let body = prompt("hello");
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-goog-api-key: k\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let end = patiently(stream.read_to_end(&mut read)).await.map(drop);
        (String::from_utf8(read).unwrap(), end)
    }

    #[tokio::test]
    async fn a_reset_resets_the_connection() {
        let emulator = Emulator::builder()
            .trouble(When::always().streaming(false), Trouble::reset())
            .trouble(When::always().streaming(true), Trouble::reset_after(1))
            .build();
        let server = emulator.serve().await.unwrap();
        let (read, end) = raw(server.addr(), GENERATE).await;
        assert_eq!((&*read, end.unwrap_err().kind()), ("", ErrorKind::ConnectionReset));
        let (read, end) = raw(server.addr(), STREAM).await;
        assert!(read.contains("data: {\"candidates\""), "{read}");
        assert!(!read.contains("finishReason"));
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(emulator.count(|visit| visit.end == Some(End::Reset)), 2);
    }

    #[tokio::test]
    async fn of_http2_only_the_stream_is_reset() {
        let emulator = Emulator::builder()
            .trouble(When::nth(1), Trouble::reset())
            .trouble(When::first(1), Trouble::reset_after(1))
            .build();
        let server = emulator.serve().await.unwrap();
        let client = client(true);
        assert!(patiently(client.request(at(server.uri(), STREAM))).await.is_err());
        let mut response = patiently(client.request(at(server.uri(), STREAM))).await.unwrap();
        patiently(response.body_mut().frame()).await.unwrap().unwrap();
        assert!(patiently(response.body_mut().frame()).await.unwrap().is_err());
        assert_eq!(patiently(client.request(at(server.uri(), GENERATE))).await.unwrap().status(), 200);
        let connections: Vec<_> = emulator.journal().iter().map(|visit| visit.connection).collect();
        assert_eq!(connections, [Some(0); 3]);
    }

    #[tokio::test]
    async fn a_cut_stream_ends_cleanly() {
        let emulator = troubled(When::always(), Trouble::cut(1));
        let server = emulator.serve().await.unwrap();
        let response = patiently(client(false).request(at(server.uri(), STREAM))).await.unwrap();
        let body = patiently(response.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(events(&String::from_utf8_lossy(&body)).len(), 1);
    }

    #[tokio::test]
    async fn shutting_down_waits_for_requests_and_dropping_does_not() {
        let emulator = Emulator::builder()
            .before_headers(Duration::from_millis(50))
            .trouble(When::nth(2), Trouble::hang())
            .build();
        let server = emulator.serve().await.unwrap();
        let addr = server.addr();
        let call = tokio::spawn(client(false).request(at(server.uri(), GENERATE)));
        patiently(emulator.wait_for(|journal| !journal.is_empty())).await;
        patiently(server.shutdown()).await;
        assert_eq!(patiently(call).await.unwrap().unwrap().status(), 200);
        assert!(TcpStream::connect(addr).await.is_err());

        let server = emulator.serve().await.unwrap();
        let call = tokio::spawn(client(false).request(at(server.uri(), GENERATE)));
        patiently(emulator.wait_for(|journal| journal.iter().any(|visit| visit.trouble == Some("hang")))).await;
        drop(server);
        assert!(patiently(call).await.unwrap().is_err());
        patiently(emulator.wait_for(|journal| journal.iter().all(|visit| !visit.is_in_flight()))).await;
    }

    #[tokio::test]
    async fn a_body_past_the_limit_is_refused_on_the_wire_too() {
        let emulator = EmulatorBuilder::default().body_limit(1_000).build();
        let server = emulator.serve().await.unwrap();
        let request = post(&format!("{}{GENERATE}", server.uri()), prompt(&"x".repeat(2_000)));
        let response = patiently(client(false).request(request)).await.unwrap();
        assert_eq!(response.status(), 400);
    }
}
