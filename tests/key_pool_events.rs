//! The log events of the key pool. A process of its own: `tracing` asks only once who listens to an event, and a test in
//! another thread that comes first answers for all.

#[path = "support/events.rs"]
mod events;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use events::Events;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tower::{Layer, Service, service_fn};
use tower_gemini::{
    KeyPoolLayer,
    key_pool::{ApiKey, Key, KeyPool},
};

#[tokio::test(start_paused = true)]
async fn a_key_that_goes_and_returns_is_an_event_and_the_key_is_in_none() {
    let events = Events::of("key_pool");
    let _default = tracing::subscriber::set_default(events.clone());
    let key = ApiKey::new("AIza-nobodys").unwrap();
    let shown = format!("key=\"{}\" name=\"first\" project=\"p1\"", key.fingerprint());
    let pool = KeyPool::builder().key(Key::new(key).project("p1").name("first")).build().unwrap();
    let upstream = service_fn(|request: Request<Full<Bytes>>| async move {
        let leaked =
            r#"{"error":{"code":403,"message":"Your API key was reported as leaked.","status":"PERMISSION_DENIED"}}"#;
        let (status, body) = if request.method() == "GET" { (200, "{}") } else { (403, leaked) };
        Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::from(body)).unwrap())
    });
    let mut service = KeyPoolLayer::new(pool.clone()).layer(tower_gemini::ClassifyLayer::new().layer(upstream));
    let request = Request::post("/v1beta/models/gemini-2.5-pro:generateContent").body(Full::default()).unwrap();
    let _ = service.call(request).await;

    let transport = service_fn(|request: Request<Empty<Bytes>>| async move {
        assert_eq!(request.uri(), "/v1beta/models?pageSize=1");
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let recheck = tokio::time::timeout(Duration::from_secs(301), pool.recheck(transport));
    assert!(recheck.await.is_err(), "it never ends");
    pool.disable(&ApiKey::new("AIza-nobodys").unwrap().fingerprint());

    let events = events.lines();
    assert_eq!(events.len(), 3, "{events:?}");
    for (event, words) in
        events.iter().zip([["WARN", "reason=key_leaked"], ["INFO", "key re-enabled"], ["WARN", "reason=by hand"]])
    {
        assert!(event.contains(&shown) && words.iter().all(|word| event.contains(word)), "{event}");
        assert!(!event.contains("AIza"), "{event}");
    }
}
