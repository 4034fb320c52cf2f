//! A relay in front of an emulator, and the calls of a good day and of a bad one.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use tower::ServiceExt;
use tower_gemini::{
    client::Client,
    emulator::{Emulator, Server, Trouble, When},
};

use crate::relay_process::{PATIENCE, Relay};

/// A key without the known shape of one.
pub(crate) const KEYS: [&str; 2] = ["first-key-of-the-relay", "second-key-of-the-relay"];
pub(crate) const CALLERS_KEY: &str = "a-callers-own-key";
pub(crate) const SECRET_PROMPT: &str = "what nobody else may read";

/// Settings with one attempt a call, so that callers see each failure, and a breaker that opens soon and stays open.
const SETTINGS: &str = "
[retry]
max_attempts = 1
on_open = \"fail\"
[breaker]
mode = \"consecutive\"
open = \"60s\"
max_open = \"60s\"
";

pub(crate) struct Day {
    pub(crate) emulator: Emulator,
    pub(crate) relay: Relay,
    client: Client<Full<Bytes>>,
    operator: Client<Full<Bytes>>,
    _server: Server,
}

impl Day {
    pub(crate) async fn begin(more: &str) -> Self {
        Self::begin_with(&format!("{SETTINGS}{more}")).await
    }

    /// Begins a day with these settings in place of `SETTINGS`.
    pub(crate) async fn begin_with(settings: &str) -> Self {
        let emulator = Emulator::builder().key(KEYS[0], "p1").key(KEYS[1], "p2").build();
        let server = emulator.serve().await.unwrap();
        let keys = [("first", KEYS[0], "p1"), ("second", KEYS[1], "p2")]
            .map(|(name, key, project)| format!("[[keys]]\nname = {name:?}\nkey = {key:?}\nproject = {project:?}\n"));
        let settings = format!("upstream = {:?}\n{}{settings}", server.uri(), keys.concat());
        let relay = Relay::start(&settings).await;
        let client = Client::builder().base_url(relay.uri()).build().unwrap();
        let operator = Client::builder().base_url(relay.operator_uri()).build().unwrap();
        Self { emulator, relay, client, operator, _server: server }
    }

    /// Gets one of the relay's own pages.
    pub(crate) async fn get(&self, path: &str) -> Response<String> {
        self.send(Request::get(path).body(Full::default()).unwrap()).await.unwrap()
    }

    pub(crate) async fn status(&self) -> serde_json::Value {
        let response = self.get("/status").await;
        assert_eq!(response.status(), StatusCode::OK);
        serde_json::from_str(response.body()).unwrap()
    }

    /// Asks a model, and reads its answer to the end, if it has one.
    pub(crate) async fn ask(&self, model_and_method: &str, prompt: &str) -> StatusCode {
        let body = format!(r#"{{"contents": [{{"parts": [{{"text": "{prompt}"}}]}}]}}"#);
        self.ask_with(model_and_method, body).await
    }

    /// Asks a model with that body.
    pub(crate) async fn ask_with(&self, model_and_method: &str, body: impl Into<Bytes>) -> StatusCode {
        let request = Request::post(format!("/v1beta/models/{model_and_method}"))
            .header("x-goog-api-key", CALLERS_KEY)
            .header("content-type", "application/json")
            .body(Full::from(body.into()))
            .unwrap();
        self.send(request).await.map_or(StatusCode::OK, |response| response.status())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<String>, tower_gemini::BoxError> {
        let client =
            if self.relay.uri_of(request.uri().path()) == self.relay.uri() { &self.client } else { &self.operator };
        let answer = async {
            let (head, body) = client.clone().oneshot(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Response::from_parts(head, String::from_utf8_lossy(&body).into_owned()))
        };
        timeout(PATIENCE, answer).await.expect("no answer")
    }

    /// Makes the day bad: a key leaks, one model is down, an answer breaks off, the API quotes a prompt, and a caller
    /// attacks the page.
    pub(crate) async fn turns_bad(&self) {
        let quote = format!("{SECRET_PROMPT}, with {} and {CALLERS_KEY}", KEYS[0]);
        let says = |code: u16, status: &str, message: &str| {
            let body = serde_json::json!({"error": {"code": code, "message": message, "status": status}}).to_string();
            Trouble::response(http::Response::builder().status(code).body(body).unwrap())
        };
        let flash = "gemini-2.5-flash:generateContent";
        self.emulator.trouble(When::always().key(KEYS[1]), Trouble::leaked_key());
        self.emulator.trouble(When::always().model("gemini-2.5-pro"), Trouble::overloaded());
        self.emulator.trouble(When::prompt_contains("quote this"), says(400, "INVALID_ARGUMENT", &quote));
        let key_only = format!("An internal error at {}", KEYS[0]);
        self.emulator.trouble(When::prompt_contains("and fail"), says(500, "INTERNAL", &key_only));
        self.emulator.trouble(When::prompt_contains("break off"), Trouble::cut(1));
        self.emulator.trouble(When::prompt_contains("say so later"), Trouble::high_demand().in_stream(1));

        let mut calls = 0;
        while self.status().await["keys"][1]["state"] != "disabled" {
            // Calls that begin alike would all go to one project.
            self.ask(flash, &format!("hello {calls}")).await;
            calls += 1;
            assert!(calls < 200, "the leaked key is never tried");
        }
        for _ in 0..8 {
            assert_eq!(self.ask("gemini-2.5-pro:generateContent", "hello").await, StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(self.ask(flash, &format!("quote this: {SECRET_PROMPT}")).await, StatusCode::BAD_REQUEST);
        assert_eq!(self.ask(flash, "and fail").await, StatusCode::INTERNAL_SERVER_ERROR);
        for prompt in ["break off", "say so later"] {
            self.ask("gemini-2.5-flash:streamGenerateContent?alt=sse", prompt).await;
        }
        assert_eq!(self.ask(&format!("{EVIL}:generateContent"), "hello").await, StatusCode::NOT_FOUND);
    }
}

/// The name of a model that is `<img src=x onerror=document.title='owned'>`.
pub(crate) const EVIL: &str = "%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D%27owned%27%3E";
