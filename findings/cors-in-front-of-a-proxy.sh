#!/usr/bin/env bash
# tower-http's CorsLayer in front of a proxy: the upstream's word opens what the layer keeps closed, and no OPTIONS gets through.
#
# Guess: the layer's rules are the only ones, a stranger's preflight is refused, and an OPTIONS that is no preflight goes on.
# Is: for an origin that is not allowed, the answer keeps the inner service's own Access-Control-Allow-Origin and -Credentials, so
#   that an upstream that lets every page in, as Google's API does, lets it in here, too. Every OPTIONS, without Origin or
#   Access-Control-Request-Method as well, is answered with 200 in place of the inner service, whoever asks.
# Version: tower-http 0.7.1.
# Matters: a relay that lists the origins of its pages lets all others read what they get, until it takes the upstream's headers out.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
tower-http = { version = "=0.7.1", default-features = false, features = ["cors"] }
http = "1"
tower = { version = "0.5", features = ["util"] }
tokio = { version = "1", features = ["macros", "rt"] }
EOF
cat > src/main.rs <<'EOF'
use http::{HeaderValue, Request, Response};
use tower::{service_fn, Layer, ServiceExt};
use tower_http::cors::CorsLayer;

const EVIL: &str = "https://evil.example";

/// Asks a service that lets every page in, through a layer that lets one in.
async fn ask(request: http::request::Builder) -> Response<String> {
    let upstream = service_fn(|request: Request<()>| async move {
        let origin = request.headers().get("origin").cloned().unwrap_or(HeaderValue::from_static("*"));
        let answer = Response::builder().status(207).header("access-control-allow-origin", origin);
        Ok::<_, std::convert::Infallible>(answer.header("access-control-allow-credentials", "true").body(String::from("upstream")).unwrap())
    });
    let layer = CorsLayer::new().allow_origin(["https://good.example".parse().unwrap()]);
    layer.layer(upstream).oneshot(request.body(()).unwrap()).await.unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let call = ask(Request::post("/").header("origin", EVIL)).await;
    println!("a call of {EVIL}, which is not allowed: {} {:?}", call.status(), call.headers());
    assert_eq!(call.headers()["access-control-allow-origin"], EVIL);
    assert_eq!(call.headers()["access-control-allow-credentials"], "true");
    let preflight = Request::options("/").header("origin", EVIL).header("access-control-request-method", "POST");
    let preflight = ask(preflight).await;
    println!("its preflight: {} {:?}", preflight.status(), preflight.headers());
    assert_eq!(preflight.status(), 200);
    assert!(!preflight.headers().contains_key("access-control-allow-origin"));
    let options = ask(Request::options("/")).await;
    println!("OPTIONS of nobody's page: {} {:?}", options.status(), options.body());
    assert_eq!((options.status().as_u16(), options.body().as_str()), (200, ""));
    println!("tower-http 0.7.1: as expected");
}
EOF
cargo run --quiet
