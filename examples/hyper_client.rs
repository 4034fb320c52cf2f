//! Shows four layers around a hyper client, with an upstream that is overloaded twice.
//!
//! `cargo run --example hyper_client` needs no network: the upstream is an emulator in this process.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, Outcome,
    classify::ClassifyLayer,
    client::Client,
    emulator::{Emulator, Trouble, When},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let emulator = Emulator::builder().trouble(When::first(2), Trouble::overloaded()).build();
    let upstream = emulator.serve().await?;

    // Without `base_url`, the client calls Google. `Full<Bytes>` can be sent again as it is; other bodies need `ReplayLayer`.
    let client: Client<Full<Bytes>> = Client::builder().base_url(upstream.uri()).build()?;
    let mut gemini = ServiceBuilder::new()
        .layer(TimeoutLayer::total(Duration::from_secs(60)))
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::attempt(Duration::from_secs(30)))
        .layer(ClassifyLayer::new())
        .service(client);

    let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent")
        .header("x-goog-api-key", "a-key")
        .header("content-type", "application/json")
        .body(Full::from(r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#))?;
    let response = gemini.ready().await?.call(request).await?;

    let attempts = response.extensions().get::<Outcome>().map_or(1, Outcome::attempts);
    println!("{} after {attempts} attempts", response.status());
    println!("{}", String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()));
    Ok(())
}
