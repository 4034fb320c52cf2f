//! What the circuit breaker says to the log. A process of its own: `tracing` asks only once who listens to an event, and a
//! test in another thread that comes first answers for all.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use tower::{Layer, Service, service_fn};
use tower_gemini::{
    CircuitBreakerLayer,
    circuit_breaker::{Breakers, Trip},
};

#[tokio::test(start_paused = true)]
async fn a_transition_is_an_event_with_its_reason_in_numbers() {
    let events = Events::default();
    let _default = tracing::subscriber::set_default(events.clone());
    let breakers = Breakers::builder().trip(Trip::consecutive(2)).build().unwrap();
    let mut service = CircuitBreakerLayer::new(breakers).layer(service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::builder().status(503).body(Full::<Bytes>::default()).unwrap())
    }));
    for _ in 0..3 {
        let request = Request::post("/v1beta/models/gemini-2.5-pro:generateContent").body(Full::default()).unwrap();
        let _ = service.call(request).await;
    }
    let events = events.0.lock();
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

/// Keeps each event as one line.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_gemini::circuit_breaker")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line.push_str(&format!(" {field}={value:?}"));
        });
        self.0.lock().push(line);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
