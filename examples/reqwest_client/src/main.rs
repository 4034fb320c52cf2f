//! Shows all layers around reqwest, for programs that have a client of it already.
//!
//! `cargo run -p reqwest_client` needs no network: the upstream is an emulator in this process.
//!
//! reqwest's client is a tower service of its own request and response types; an adapter of two lines makes it one of
//! http's, as the layers want it.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    GeminiLayer, Outcome,
    body::ReplayBody,
    emulator::{Emulator, Trouble, When},
    key_pool::{ApiKey, Key},
};

/// The body that is sent: the caller's, as `ReplayLayer` keeps it.
type Sent = ReplayBody<Full<Bytes>>;

/// Adapts a client of reqwest to the layers. Its requests need whole addresses, for which `base` is put before each path.
fn adapted(
    client: reqwest::Client,
    base: String,
) -> impl Service<Request<Sent>, Response = http::Response<reqwest::Body>, Error = BoxError, Future: Send> + Clone {
    ServiceBuilder::new()
        .map_response(http::Response::<reqwest::Body>::from)
        .map_err(BoxError::from)
        .service(client)
        .filter(move |request: Request<Sent>| {
            let (mut parts, body) = request.into_parts();
            parts.uri = format!("{base}{}", parts.uri).parse()?;
            let request = Request::from_parts(parts, reqwest::Body::wrap(body));
            Ok::<_, BoxError>(reqwest::Request::try_from(request)?)
        })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let emulator = Emulator::builder()
        .key("a-key-of-yours", "p1")
        .trouble(When::always().model("gemini-2.5-pro"), Trouble::overloaded())
        .build();
    let upstream = emulator.serve().await?;

    let gemini = GeminiLayer::interactive()
        .key(Key::new(ApiKey::new("a-key-of-yours")?).project("p1"))
        .fallback("gemini-2.5-pro", ["gemini-2.5-flash"])
        .build()?;
    println!("{}", gemini.describe());
    // reqwest's own retries are turned off, or attempts would be miscounted.
    let client = reqwest::Client::builder().retry(reqwest::retry::never()).no_proxy().build()?;
    let service = gemini.layer(adapted(client, upstream.uri()));

    let request = Request::post("/v1beta/models/gemini-2.5-pro:generateContent")
        .header("content-type", "application/json")
        .body(Full::from(r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#))?;
    let response = service.oneshot(request).await?;

    let attempts = response.extensions().get::<Outcome>().map_or(1, Outcome::attempts);
    println!("{} by {:?} after {attempts} attempts", response.status(), response.headers()["x-gemini-model"]);
    println!("{}", String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()));
    Ok(())
}
