//! Tests of the circuit breaker's log events, in a process of their own: `tracing` asks only once whether a subscriber
//! wants an event, and a test in another thread that comes first answers for all.

#[path = "support/events.rs"]
mod events;

use std::convert::Infallible;

use bytes::Bytes;
use events::Events;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service, service_fn};
use tower_gemini::{
    CircuitBreakerLayer,
    circuit_breaker::{CircuitBreakers, Trip},
};

#[tokio::test(start_paused = true)]
async fn a_transition_is_an_event_with_its_reason_in_numbers() {
    let events = Events::of("circuit_breaker");
    let _default = tracing::subscriber::set_default(events.clone());
    let breakers = CircuitBreakers::builder().trip(Trip::consecutive(2)).build().unwrap();
    let mut service = CircuitBreakerLayer::new(breakers).layer(service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::builder().status(503).body(Full::<Bytes>::default()).unwrap())
    }));
    for _ in 0..3 {
        let request = Request::post("/v1beta/models/gemini-2.5-pro:generateContent").body(Full::default()).unwrap();
        let _ = service.call(request).await;
    }
    let events = events.lines();
    let [event] = &events[..] else { panic!("{events:?}") };
    for words in [
        "WARN",
        "model=\"gemini-2.5-pro\"",
        "from=closed",
        "to=open",
        "reason=2 of 2 requests failed in 0.0ns",
        "open_for_ms=",
    ] {
        assert!(event.contains(words), "no {words} in {event}");
    }
}
