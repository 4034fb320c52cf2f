//! Shows the layers in an axum server, whose callers see only answers and errors in Google's shape.
//!
//! `cargo run --example axum_service` serves on loopback, with an emulator as its upstream that is overloaded twice, sends
//! itself one request, and ends. The program `relay` is the same for real use.

use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError,
    classify::ClassifyLayer,
    client::Client,
    emulator::{Emulator, Trouble, When},
    error_response::ErrorResponseLayer,
    replay::ReplayLayer,
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let emulator = Emulator::builder().trouble(When::first(2), Trouble::overloaded()).build();
    let upstream = emulator.serve().await?;

    let gemini = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new()) // axum takes no errors
        .layer(TimeoutLayer::total(Duration::from_secs(60)))
        .layer(ReplayLayer::new()) // axum's bodies stream, and could be sent only once
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::attempt(Duration::from_secs(30)))
        .layer(ClassifyLayer::new())
        .service(Client::builder().base_url(upstream.uri()).build()?);
    let app = Router::new().route_service("/v1beta/{*rest}", gemini);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, app).into_future());

    let caller: Client<Full<Bytes>> = Client::builder().base_url(format!("http://{address}")).build()?;
    let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent")
        .header("x-goog-api-key", "a-key")
        .header("content-type", "application/json")
        .body(Full::from(r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#))?;
    let response = caller.oneshot(request).await?;

    println!("the caller sees one {}, where the upstream gave:", response.status());
    for visit in emulator.journal() {
        println!("  {}", visit.status.map_or_else(|| "nothing".to_owned(), |status| status.to_string()));
    }
    println!("{}", String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()));
    Ok(())
}
