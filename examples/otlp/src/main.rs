//! Shows the spans of calls and attempts, exported by OTLP: from the layers through OpenTelemetry to a collector.
//!
//! `cargo run -p otlp` starts a collector on loopback that prints the spans that it gets, makes a call whose first attempt
//! finds the model overloaded and one for a model that does not exist, and ends. The names are those of OpenTelemetry's
//! conventions for generative AI, v0.1.0. For a collector of your own, set its address:
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run -p otlp`.

use std::time::Duration;

use async_trait::async_trait;
use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use prost::Message;
use tokio::{net::TcpListener, runtime::Handle};
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, ClassifyLayer, ReplayLayer, RetryLayer, TelemetryLayer, TimeoutLayer,
    client::Client,
    emulator::{Emulator, Trouble, When},
};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let endpoint = match std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT") {
        Ok(endpoint) => endpoint,
        Err(_) => collector().await?,
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Exporting {
            client: Client::builder().base_url(endpoint.clone()).build()?,
            runtime: Handle::current(),
        })
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()?;
    let resource = Resource::builder().with_service_name("otlp-example").build();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
    let to_opentelemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("tower-gemini"));
    // What the HTTP client says at lower levels would be events of the attempts.
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(to_opentelemetry);
    tracing::subscriber::set_global_default(subscriber)?;

    let emulator = Emulator::builder().trouble(When::first(1), Trouble::overloaded()).build();
    let upstream = emulator.serve().await?;
    let gemini = ServiceBuilder::new()
        .layer(TelemetryLayer::call())
        .layer(TimeoutLayer::total(Duration::from_secs(60)))
        .layer(ReplayLayer::new())
        .layer(RetryLayer::default())
        .layer(TelemetryLayer::attempt())
        .layer(TimeoutLayer::attempt(Duration::from_secs(30)))
        .layer(ClassifyLayer::new())
        .service(Client::builder().base_url(upstream.uri()).build()?);
    let thinking = r#"{"thinkingConfig": {"thinkingLevel": "low"}}"#;
    let body = format!(r#"{{"contents": [{{"parts": [{{"text": "hello"}}]}}], "generationConfig": {thinking}}}"#);
    for model in ["gemini-2.5-flash", "gemini-2.5-flush"] {
        let request = Request::post(format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"))
            .header("x-goog-api-key", "a-key")
            .header("content-type", "application/json")
            .body(Full::from(body.clone()))?;
        let response = gemini.clone().oneshot(request).await?;
        println!("the caller of {model} sees one {}", response.status());
        // The spans end with the body.
        Box::pin(response.into_body()).collect().await?;
    }

    // Waits for the export, on a thread of its own: the export needs the runtime's.
    tokio::task::spawn_blocking(move || provider.shutdown()).await??;
    Ok(())
}

/// The exporter's HTTP client: one of this crate's. The exporter's thread has no runtime and borrows the program's.
#[derive(Clone)]
struct Exporting {
    client: Client<Full<Bytes>>,
    runtime: Handle,
}

impl std::fmt::Debug for Exporting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporting").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Exporting {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let call = self.client.clone().oneshot(request.map(Full::new));
        let answered = self.runtime.spawn(async move {
            let (head, body) = call.await?.into_parts();
            Ok::<_, HttpError>(Response::from_parts(head, body.collect().await?.to_bytes()))
        });
        answered.await?
    }
}

/// Starts a collector that prints the spans that it gets, and returns its address.
async fn collector() -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/v1/traces", post(collect));
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(format!("http://{address}"))
}

async fn collect(body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let mut spans: Vec<_> = scopes.flat_map(|scope| scope.spans).collect();
    spans.sort_by_key(|span| span.start_time_unix_nano);
    for span in spans {
        let took = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
        let place = if span.parent_span_id.is_empty() { "" } else { "  " };
        println!("{place}{} ({took:.1?})", span.name);
        print(place, span.attributes);
        // A call that has failed has an event.
        for event in span.events {
            println!("{place}  ! {}", event.name);
            print(&format!("{place}  "), event.attributes);
        }
    }
    StatusCode::OK
}

/// Prints attributes, without the line of source and the thread that made the span.
fn print(place: &str, attributes: Vec<KeyValue>) {
    let prefixes = ["gen_ai.", "tower_gemini.", "error.", "exception.", "http.", "server."];
    for attribute in attributes {
        if prefixes.iter().any(|start| attribute.key.starts_with(start)) {
            println!("{place}  {} = {}", attribute.key, shown(attribute.value));
        }
    }
}

fn shown(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => format!("{number:.4}"),
        Some(Value::BoolValue(is_so)) => is_so.to_string(),
        other => format!("{other:?}"),
    }
}
