//! The log events of the fallback. A process of its own: `tracing` asks only once who listens to an event, and a test in
//! another thread that comes first answers for all.

#[path = "support/events.rs"]
mod events;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use events::Events;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service, service_fn};
use tower_gemini::{ModelFallbackLayer, model_fallback::FallbackChains};

const KEY: &str = "AIzaSyA-0123456789_abcdefghijklmnopqrst";

#[tokio::test(start_paused = true)]
async fn a_move_staying_and_going_back_are_events() {
    let events = Events::of("model_fallback");
    let _default = tracing::subscriber::set_default(events.clone());
    let is_down = Arc::new(AtomicBool::new(true));
    let down = is_down.clone();
    let chains =
        FallbackChains::builder().chain("gemini-2.5-pro", ["gemini-3-flash", "gemini-2.5-flash"]).build().unwrap();
    let mut service = ModelFallbackLayer::new(chains).layer(service_fn(move |request: Request<Full<Bytes>>| {
        let fails = down.load(SeqCst) && request.uri().path().contains("pro");
        async move {
            let status = if fails { 503 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
        }
    }));
    let call = || {
        Request::post(format!("/v1beta/models/gemini-2.5-pro:generateContent?key={KEY}"))
            .body(Full::from(r#"{"contents":[{"parts":[{"functionCall":{"name":"whispered"}}]}]}"#))
            .unwrap()
    };
    // The chain moves, stays there, and comes back after a probe.
    service.call(call()).await.unwrap();
    service.call(call()).await.unwrap();
    is_down.store(false, SeqCst);
    tokio::time::advance(Duration::from_secs(30)).await;
    service.call(call()).await.unwrap();
    service.call(call()).await.unwrap();

    let expected: [&[&str]; 4] = [
        &["DEBUG", "to=\"gemini-3-flash\"", "what=\"a function call without thoughtSignature\""],
        &[
            "INFO",
            "from=\"gemini-2.5-pro\"",
            "to=\"gemini-2.5-flash\"",
            "attempts=1",
            "message=falling back to another model",
        ],
        &["WARN", "to=\"gemini-2.5-flash\"", "message=fallback began: calls go to another model first"],
        &["INFO", "message=fallback ended: calls go to the model that they ask for"],
    ];
    let events = events.lines();
    assert_eq!(events.len(), expected.len(), "{events:#?}");
    for (event, words) in events.iter().zip(expected) {
        for words in words.iter().chain(&["model=\"gemini-2.5-pro\""]) {
            assert!(event.contains(words), "no {words} in {event}");
        }
        assert!(!event.contains("AIza") && !event.contains("whispered"), "{event}");
    }
    assert!(
        events[1].contains("reason=\"overloaded\"") || events[1].contains("reason=\"unavailable\""),
        "{}",
        events[1]
    );
}
