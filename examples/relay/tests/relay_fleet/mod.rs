//! Several relays in front of one emulator, which share a store, and their callers.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;
use tower_gemini::{
    call::Operation,
    client::Client,
    emulator::{Emulator, Server},
};

use crate::relay_process::{PATIENCE, Relay};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// The relays' key, which all of them have.
const KEY: &str = "key-of-the-relays";

/// The longest that a call waits for its quota and its answer.
const LONGEST: Duration = Duration::from_secs(290);

/// Relays that share a store, and their upstream.
pub(crate) struct Fleet {
    pub(crate) emulator: Emulator,
    _server: Server,
    pub(crate) relays: Vec<Relay>,
    clients: Vec<Client<Full<Bytes>>>,
    operators: Vec<Client<Full<Bytes>>>,
}

impl Fleet {
    /// Starts so many relays with these settings, and the store at that address.
    pub(crate) async fn start(relays: usize, store: &str, settings: &str) -> Self {
        let emulator = Emulator::builder().key(KEY, "p1").journal_capacity(50_000).build();
        let server = emulator.serve().await.unwrap();
        let settings = format!(
            "upstream = {:?}\n[[keys]]\nkey = {KEY:?}\nproject = \"p1\"\n[store]\nredis = {store:?}\n{settings}",
            server.uri()
        );
        let relays = join_all((0..relays).map(|_| Relay::start(&settings))).await;
        let client = |uri: String| Client::builder().base_url(uri).build().unwrap();
        let clients = relays.iter().map(|relay| client(relay.uri())).collect();
        let operators = relays.iter().map(|relay| client(relay.operator_uri())).collect();
        Self { emulator, _server: server, relays, clients, operators }
    }

    /// Makes a call of a model through one of the relays, and returns its status, and the answer of one that fails.
    pub(crate) async fn call(&self, relay: usize, model: &str) -> Result<(), String> {
        let body = Full::from(r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#);
        let request = Request::post(format!("/v1beta/models/{model}:generateContent")).body(body).unwrap();
        let client = self.clients[relay % self.clients.len()].clone();
        let answer = async {
            let first = client.clone().oneshot(request.clone()).await;
            let response = match first {
                // The relay has just closed the connection, which was idle, and never saw the call.
                Err(error) if error.to_string().contains("Canceled") => client.oneshot(request).await,
                first => first,
            };
            let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            match head.status {
                StatusCode::OK => Ok(()),
                status => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
            }
        };
        timeout(LONGEST, answer).await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    /// Returns what each of the relays says in `/status`.
    pub(crate) async fn status(&self) -> Vec<Value> {
        join_all(self.operators.iter().map(async |operator| {
            let request = Request::get("/status").body(Full::default()).unwrap();
            let response = timeout(PATIENCE, operator.clone().oneshot(request)).await.expect("no status").unwrap();
            let body = timeout(PATIENCE, response.into_body().collect()).await.expect("no end").unwrap().to_bytes();
            serde_json::from_slice(&body).unwrap()
        }))
        .await
    }

    /// Returns the store, as each of the relays sees it.
    pub(crate) async fn stores(&self) -> Vec<Value> {
        self.status().await.into_iter().map(|mut status| status["store"].take()).collect()
    }

    /// Wishes something of one of the relays, as its operator.
    pub(crate) async fn wish(&self, relay: usize, path: &str) {
        let request = Request::post(path).header("x-relay-operator", "1").body(Full::default()).unwrap();
        let response =
            timeout(PATIENCE, self.operators[relay].clone().oneshot(request)).await.expect("no answer").unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }

    /// Waits until all relays see the store like that, and returns how long it took.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Duration {
        self.until_status(what, |status| is_so(&status["store"])).await
    }

    /// Waits until all relays say that in `/status`, and returns how long it took.
    pub(crate) async fn until_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Duration {
        let begun = Instant::now();
        loop {
            let all = self.status().await;
            if all.iter().all(&is_so) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {all:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all relays are connected and know of each other, and returns how long it took.
    pub(crate) async fn until_connected(&self) -> Duration {
        let all = self.relays.len() as u64;
        self.until("connected", |store| store["connected"] == true && store["instances"].as_u64() == Some(all)).await
    }

    /// Returns the sum of a count of all relays.
    pub(crate) async fn sum(&self, count: &str) -> u64 {
        self.stores().await.iter().map(|store| store[count].as_u64().unwrap_or_else(|| panic!("{store}"))).sum()
    }

    /// Returns the times at which calls of a model have arrived at the upstream, in their order.
    pub(crate) fn arrivals(&self, model: &str) -> Vec<Duration> {
        let visits = self.emulator.journal();
        let is_it =
            |operation: Operation, named: Option<&str>| operation == Operation::GenerateContent && named == Some(model);
        let mut times: Vec<_> = visits
            .iter()
            .filter(|visit| is_it(visit.operation, visit.model.as_deref()))
            .map(|visit| visit.at)
            .collect();
        times.sort_unstable();
        times
    }
}

/// Returns the most arrivals in any 60 s, and when those began.
pub(crate) fn fullest_minute(times: &[Duration]) -> (usize, Duration) {
    let (mut first, mut most) = (0, (0, Duration::ZERO));
    for (last, time) in times.iter().enumerate() {
        while *time - times[first] >= MINUTE {
            first += 1;
        }
        most = most.max((last - first + 1, times[first]));
    }
    most
}

#[test]
fn the_fullest_minute_may_begin_anywhere() {
    let at = |seconds: &[u64]| seconds.iter().map(|second| Duration::from_secs(*second)).collect::<Vec<_>>();
    assert_eq!(fullest_minute(&at(&[])), (0, Duration::ZERO));
    assert_eq!(fullest_minute(&at(&[0, 59, 60])), (2, Duration::from_secs(59)));
    assert_eq!(fullest_minute(&at(&[0, 50, 70, 100, 109, 160])), (4, Duration::from_secs(50)));
}
