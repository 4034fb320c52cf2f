//! Measures what one call costs in each layer, beside tower's and tower-resilience's counterparts.
//!
//! # How it measures
//!
//! The upstream is a service that is always ready and answers at once from memory, so that the rest of a call's time is the
//! layer's. One measured call is: `poll_ready`, `call`, the future polled to its end, the answer's body read frame by frame
//! to its end, everything dropped. The request is made outside of the clock, anew for each call and from fresh strings, as a
//! client or a server makes it: a POST with three headers and 2 KiB of JSON in a `Full<Bytes>`. The answer has six headers
//! and 2 KiB of JSON, or 20 server-sent events. No runtime is driven: all futures are ready at the first poll, except in
//! rows that name a timer.
//!
//! Criterion measures one service after the other, and prints its own results. The table at the end is measured separately:
//! on a machine with other load, two rows are comparable only if they were measured at the same time. So the services of a
//! group take turns, half a millisecond each, and a row is the median of its turns. "over bare" is the row minus the row of
//! the group's bare service: the price of the layer. Allocations are counted on one warm call, by a counting allocator that
//! stays in place while the clock runs, for all services alike.
//!
//! The last group is the scan that `ClassifyLayer` does while an answer passes: its throughput is that of the whole call,
//! in bytes of the answer over time.
//!
//! `cargo bench -p benches` runs all groups, `cargo bench -p benches -- unary` one of them, and
//! `cargo bench -p benches -- --test` each once. The table comes at the end of each of these.

use std::{
    convert::Infallible,
    fmt::Write as _,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use criterion::Criterion;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, retry::Policy};
use tower_gemini::{
    CircuitBreakerLayer, ClassifyLayer, ErrorResponseLayer, KeepAliveLayer, KeyPoolLayer, ModelFallbackLayer,
    RateLimitLayer, ReplayLayer, RetryLayer, RetryPolicy, TelemetryLayer, TimeoutLayer,
    circuit_breaker::{CircuitBreakers, Trip, Window},
    key_pool::{ApiKey, Key, KeyPool, KeyPoolBuilder},
    model_fallback::FallbackChains,
    quota::Limits,
    rate_limit::Limiter,
    retry::Rule,
};
use tower_resilience::{
    circuitbreaker::CircuitBreakerLayer as CircuitLayer, ratelimiter::RateLimiterLayer,
    retry::RetryLayer as OtherRetryLayer, timelimiter::TimeLimiterLayer,
};
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;

const LIMIT: Duration = Duration::from_secs(180);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _clock = runtime.enter();
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    let mut bench = Bench { criterion, runtime: &runtime, rows: Vec::new() };
    unary(&mut bench);
    limiting(&mut bench);
    pooling(&mut bench);
    breaking(&mut bench);
    falling_back(&mut bench);
    failing(&mut bench);
    events(&mut bench);
    telemetry(&mut bench);
    scan(&mut bench);
    bench.criterion.final_summary();
    println!("{}", table(&bench.rows));
}

// === the groups ===

/// Measures an answer in one piece.
fn unary(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("unary", &upstream);
    group.call("bare", upstream.clone());
    group.call("tower::timeout", tower::timeout::TimeoutLayer::new(LIMIT).layer(upstream.clone()));
    let limiter = TimeLimiterLayer::builder().timeout_duration(LIMIT).build();
    group.call("tower_resilience::timelimiter", limiter.layer(upstream.clone()));
    group.call("TimeoutLayer::attempt", TimeoutLayer::attempt(LIMIT).layer(upstream.clone()));
    group.call("TimeoutLayer::total", TimeoutLayer::total(LIMIT).layer(upstream.clone()));
    group.call("tower::retry", tower::retry::RetryLayer::new(ThreeTries(3)).layer(upstream.clone()));
    group.call("tower_resilience::retry", other_retry().layer(upstream.clone()));
    group.call("RetryLayer", RetryLayer::default().layer(upstream.clone()));
    group.call("ClassifyLayer", ClassifyLayer::new().layer(upstream.clone()));
    group.call("ReplayLayer", ReplayLayer::new().layer(upstream.clone()));
    group.call("ErrorResponseLayer", ErrorResponseLayer::new().layer(upstream.clone()));
    let theirs = ServiceBuilder::new().timeout(LIMIT).retry(ThreeTries(3)).timeout(LIMIT).service(upstream.clone());
    group.call("tower: timeout, retry, timeout", theirs);
    group.call("all five rooms", stack(upstream));
    group.measure();
}

/// Measures a limiter that always has room, in three dimensions; the peer's counts one.
fn limiting(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("rate limits", &upstream);
    group.call("bare", upstream.clone());
    let theirs = RateLimiterLayer::builder().limit_for_period(ROOM as usize).refresh_period(MINUTE).build();
    let theirs = theirs.expect("good settings");
    group.call("tower_resilience::ratelimiter", theirs.layer(upstream.clone()));
    group.call("RateLimitLayer", RateLimitLayer::new(limiter()).layer(upstream.clone()));
    group.call("RateLimitLayer, a clone a call", Cloned(RateLimitLayer::new(limiter()).layer(upstream.clone())));
    group.call("RateLimitLayer::disabled", RateLimitLayer::disabled().layer(upstream));
    group.measure();
}

/// Measures a pool of good keys: of one, and of one for each of five projects, between which the limiter's headroom decides.
fn pooling(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("key pools", &upstream);
    group.call("bare", upstream.clone());
    group.call("KeyPoolLayer, 1 key", KeyPoolLayer::new(proven(keys(1), &upstream)).layer(upstream.clone()));
    group.call("KeyPoolLayer, 5 projects", KeyPoolLayer::new(proven(keys(5), &upstream)).layer(upstream.clone()));
    let limiter = limiter();
    let five = proven(keys(5).headroom(limiter.clone()), &upstream);
    group.call("KeyPoolLayer, 5 projects, headroom", KeyPoolLayer::new(five.clone()).layer(upstream.clone()));
    let limited = RateLimitLayer::new(limiter).layer(upstream.clone());
    group.call("KeyPoolLayer, 5 projects, RateLimitLayer", KeyPoolLayer::new(five.clone()).layer(limited));
    group.call("ReplayLayer", ReplayLayer::new().layer(upstream.clone()));
    let inside = KeyPoolLayer::new(five).layer(upstream.clone());
    group.call("ReplayLayer, KeyPoolLayer, 5 projects, headroom", ReplayLayer::new().layer(inside));
    group.call("KeyPoolLayer::disabled", KeyPoolLayer::disabled().layer(upstream));
    group.measure();
}

fn keys(projects: usize) -> KeyPoolBuilder {
    let key =
        |nth| Key::new(ApiKey::new(format!("AIza-nobodys-{nth}")).expect("a good key")).project(format!("p{nth}"));
    // The calls are all alike, and would stay with the projects that had the first of them: the others' keys would not be proven.
    (0..projects).fold(KeyPool::builder().cache_affinity(None), |pool, nth| pool.key(key(nth)))
}

/// Makes a pool whose keys have all been used with success.
fn proven(pool: KeyPoolBuilder, upstream: &Upstream) -> KeyPool {
    let pool = pool.build().expect("good keys");
    let mut service = KeyPoolLayer::new(pool.clone()).layer(upstream.clone());
    (0..100).for_each(|_| spin(one_call(&mut service, upstream.request())));
    pool
}

/// Measures a breaker that is closed, over an upstream that answers: on one thread, and on two threads that share it.
fn breaking(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("circuit breakers", &upstream);
    group.call("bare", upstream.clone());
    let (theirs, _) = CircuitLayer::builder().build_with_handle().expect("good settings");
    let ours = CircuitBreakerLayer::new(breakers(&upstream, Trip::default()));
    group.call("tower_resilience::circuitbreaker", theirs.layer(upstream.clone()));
    group.call("CircuitBreakerLayer", ours.layer(upstream.clone()));
    group.call("CircuitBreakerLayer, a clone a call", Cloned(ours.layer(upstream.clone())));
    let by_rate = Trip::failure_rate(0.5, Window::Calls(100));
    let by_rate = CircuitBreakerLayer::new(breakers(&upstream, by_rate));
    group.call("CircuitBreakerLayer, failure rate", by_rate.layer(upstream.clone()));
    group.call("CircuitBreakerLayer::disabled", CircuitBreakerLayer::disabled().layer(upstream.clone()));
    for (threads, [bare, theirs_, ours_]) in [
        (1, ["bare, one thread", "tower_resilience, one thread", "CircuitBreakerLayer, one thread"]),
        (2, ["bare, two threads", "tower_resilience, two threads", "CircuitBreakerLayer, two threads"]),
    ] {
        group.threads(bare, threads, || upstream.apart());
        group.threads(theirs_, threads, || theirs.layer(upstream.apart()));
        let service = ours.layer(upstream.apart());
        group.threads(ours_, threads, move || {
            let mut clone = service.clone();
            *clone.get_mut() = service.get_ref().apart();
            clone
        });
    }
    group.measure();
}

/// Measures a first choice that answers, for models without a chain and with one.
fn falling_back(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let mut group = bench.group("fallbacks", &upstream);
    let chains =
        |model| FallbackChains::builder().chain(model, ["gemini-2.5-flash-lite"]).build().expect("good settings");
    group.call("bare", upstream.clone());
    group.call(
        "ModelFallbackLayer, no chain",
        ModelFallbackLayer::new(chains("gemini-2.5-pro")).layer(upstream.clone()),
    );
    group.call("ModelFallbackLayer", ModelFallbackLayer::new(chains("gemini-2.5-flash")).layer(upstream.clone()));
    group.call("RetryLayer", RetryLayer::default().layer(upstream.clone()));
    group.call("ModelFallbackLayer::disabled", ModelFallbackLayer::disabled().layer(upstream));
    group.measure();
}

/// Makes circuit breakers that have seen enough successes to be stable.
fn breakers(upstream: &Upstream, trip: Trip) -> CircuitBreakers {
    let breakers = CircuitBreakers::builder().trip(trip).build().expect("good settings");
    let mut service = CircuitBreakerLayer::new(breakers.clone()).layer(upstream.clone());
    (0..100).for_each(|_| spin(one_call(&mut service, upstream.request())));
    breakers
}

const MINUTE: Duration = Duration::from_secs(60);

/// A limit that no run reaches.
const ROOM: u64 = 1 << 40;

fn limiter() -> Limiter {
    let limits = Limits::new().requests_per_minute(ROOM).input_tokens_per_minute(ROOM).requests_per_day(ROOM);
    Limiter::builder().limits(limits).build()
}

/// A service that is cloned for each call, as axum's routers do.
struct Cloned<S>(S);

impl<S: Service<Sent> + Clone> Service<Sent> for Cloned<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Sent) -> S::Future {
        self.0.clone().call(request)
    }
}

/// Measures a 503 that is followed by the answer, without a delay between the two.
fn failing(bench: &mut Bench<'_>) {
    let upstream = Upstream::failing();
    let mut group = bench.group("503, then 200", &upstream);
    group.call("bare, twice", Twice(upstream.clone()));
    group.call("tower::retry", tower::retry::RetryLayer::new(ThreeTries(3)).layer(upstream.clone()));
    // Even a delay of zero is a timer, which takes at least one tick.
    group.call("tower_resilience::retry (a timer ran)", other_retry().layer(upstream.clone()));
    group.call("RetryLayer", at_once().layer(upstream.clone()));
    group.call("all five rooms", stack(upstream));
    group.measure();
}

/// Measures 20 server-sent events, each in a frame of its own.
fn events(bench: &mut Bench<'_>) {
    let upstream = Upstream::events(20, 40);
    let mut group = bench.group("20 events", &upstream);
    group.call("bare", upstream.clone());
    group.call("TimeoutLayer::attempt", TimeoutLayer::attempt(LIMIT).layer(upstream.clone()));
    group.call("ClassifyLayer", ClassifyLayer::new().layer(upstream.clone()));
    group.call("ErrorResponseLayer", ErrorResponseLayer::new().layer(upstream.clone()));
    group.call("KeepAliveLayer", KeepAliveLayer::new(LIMIT).layer(upstream.clone()));
    group.call("all five rooms", stack(upstream));
    group.measure();
}

/// Measures spans and metrics of a call and its one attempt, without and with a subscriber and a recorder.
fn telemetry(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let classified = || ClassifyLayer::new().layer(upstream.clone());
    let recorded = || TelemetryLayer::call().layer(TelemetryLayer::attempt().layer(classified()));
    // First, because asking for a subscriber costs more once a program has had one.
    let mut group = bench.group("telemetry, nobody listens", &upstream);
    group.call("bare: ClassifyLayer", classified());
    group.call("TelemetryLayer::disabled", TelemetryLayer::disabled().layer(classified()));
    group.call("call", TelemetryLayer::call().layer(classified()));
    group.call("call and attempt", recorded());
    group.measure();

    let registry = || Dispatch::new(tracing_subscriber::registry());
    let tracer = SdkTracerProvider::builder().build().tracer("bench");
    let to_opentelemetry = tracing_opentelemetry::layer().with_tracer(tracer);
    let opentelemetry = Dispatch::new(tracing_subscriber::registry().with(to_opentelemetry));
    let mut group = bench.group("telemetry, listened to", &upstream);
    group.call("bare: ClassifyLayer", classified());
    group.call_within("spans, kept and dropped", recorded(), heard_by(Some(registry()), None));
    group.call_within("spans, to OpenTelemetry", recorded(), heard_by(Some(opentelemetry.clone()), None));
    group.call_within("metrics, to Prometheus", recorded(), heard_by(None, Some(prometheus())));
    group.call_within("both", recorded(), heard_by(Some(opentelemetry), Some(prometheus())));
    group.measure();
}

fn prometheus() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

/// Makes a runner of calls with that subscriber and recorder, which lets the recorder tidy up outside of the clock.
fn heard_by(spans: Option<Dispatch>, metrics: Option<PrometheusRecorder>) -> impl Fn(&mut dyn FnMut()) {
    move |run| {
        let spans = spans.clone().unwrap_or_else(Dispatch::none);
        tracing::dispatcher::with_default(&spans, || match &metrics {
            Some(recorder) => {
                metrics::with_local_recorder(recorder, run);
                recorder.handle().run_upkeep();
            }
            None => run(),
        });
    }
}

/// Measures the scan of answers of several kinds.
fn scan(bench: &mut Bench<'_>) {
    for (name, upstream) in [
        ("unary, 1 MiB of prose", Upstream::text(&prose(1 << 20))),
        ("unary, 1 MiB of code", Upstream::text(&code(1 << 20))),
        ("unary, 1 MiB, pretty-printed", Upstream::pretty(1 << 20)),
        ("unary, 1 MiB image", Upstream::text(&"iVBORw0KGgoAAAANSUhEUgAA".repeat((1 << 20) / 24))),
        ("1000 events of 1 token", Upstream::events(1000, 4)),
        ("1000 events of 400 bytes", Upstream::events(1000, 100)),
    ] {
        let mut group = bench.group(name, &upstream);
        group.call("bare", upstream.clone());
        group.call("ClassifyLayer", ClassifyLayer::new().layer(upstream));
        group.measure();
    }
}

fn stack(upstream: Upstream) -> impl Service<Sent, Response = Response<impl Body>, Error = Infallible> {
    ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(TimeoutLayer::total(TimeoutLayer::TOTAL))
        .layer(ReplayLayer::new())
        .layer(at_once())
        .layer(TimeoutLayer::attempt(LIMIT))
        .layer(ClassifyLayer::new())
        .service(upstream)
}

fn at_once() -> RetryLayer {
    RetryLayer::new(
        RetryPolicy::default().on(StatusCode::SERVICE_UNAVAILABLE, Rule::attempts(3).base_delay(Duration::ZERO)),
    )
}

fn other_retry() -> OtherRetryLayer<Sent, Response<Frames>, Infallible> {
    OtherRetryLayer::builder()
        .max_attempts(3)
        .fixed_backoff(Duration::ZERO)
        .retry_on_response(|response: &Response<Frames>| response.status().is_server_error())
        .build()
}

/// The simplest policy for `tower::retry`: three tries, at once, on any 5xx.
#[derive(Clone)]
struct ThreeTries(u32);

impl<R, E> Policy<Sent, Response<R>, E> for ThreeTries {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Sent, result: &mut Result<Response<R>, E>) -> Option<Self::Future> {
        let failed = result.as_ref().is_ok_and(|response| response.status().is_server_error());
        self.0 -= u32::from(failed);
        (failed && self.0 > 0).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Sent) -> Option<Sent> {
        Some(request.clone())
    }
}

/// The loop of a caller who sends again by hand.
#[derive(Clone)]
struct Twice(Upstream);

impl Service<Sent> for Twice {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Frames>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Sent>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Sent) -> Self::Future {
        black_box(self.0.call(Request::new(())).into_inner().is_ok());
        self.0.call(request)
    }
}

// === the upstream ===

type Sent = Request<Full<Bytes>>;

/// A service that answers at once. One that is to fail answers every other call with a 503.
#[derive(Clone)]
struct Upstream {
    frames: Arc<[Bytes]>,
    content_type: &'static str,
    uri: &'static str,
    failing: Option<Arc<AtomicU32>>,
}

impl Upstream {
    const UNARY: &'static str =
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent";
    const EVENTS: &'static str =
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";

    fn unary() -> Self {
        Self::text(&prose(1600))
    }

    fn failing() -> Self {
        Self { failing: Some(Arc::default()), ..Self::unary() }
    }

    /// Makes an upstream with a unary answer of this text, in the frames of 16 KiB that HTTP/2 makes.
    fn text(text: &str) -> Self {
        Self::of(Self::UNARY, "application/json; charset=UTF-8", Self::cut(answer(text, 400)))
    }

    /// Makes an upstream with an answer of short parts, indented as the API does it: mostly white space.
    fn pretty(len: usize) -> Self {
        let part = "          {\n            \"text\": \"Sixteen letters.\"\n          }";
        let parts = vec![part; len / part.len()].join(",\n");
        let text = format!(
            "{{\n  \"candidates\": [\n    {{\n      \"content\": {{\n        \"parts\": [\n{parts}\n        ]\n      }},\n      \
             \"finishReason\": \"STOP\"\n    }}\n  ]\n}}\n"
        );
        Self::of(Self::UNARY, "application/json; charset=UTF-8", Self::cut(text))
    }

    /// Makes an upstream with a stream of `events` events of `tokens` tokens each.
    fn events(events: usize, tokens: usize) -> Self {
        let text = prose(tokens * 4);
        let event = |nth: usize| {
            let answer = answer(&text, nth);
            let answer = if nth == events { answer } else { answer.replace(r#","finishReason":"STOP""#, "") };
            Bytes::from(format!("data: {answer}\r\n\r\n"))
        };
        Self::of(Self::EVENTS, "text/event-stream", (1..=events).map(event).collect())
    }

    fn of(uri: &'static str, content_type: &'static str, frames: Vec<Bytes>) -> Self {
        Self { frames: frames.into(), content_type, uri, failing: None }
    }

    fn cut(text: String) -> Vec<Bytes> {
        let whole = Bytes::from(text);
        (0..whole.len()).step_by(16_384).map(|at| whole.slice(at..whole.len().min(at + 16_384))).collect()
    }

    /// Makes a copy with frames of its own, so that two threads do not share their reference counters.
    fn apart(&self) -> Self {
        let frames = self.frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect();
        Self { frames, ..self.clone() }
    }

    fn len(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }

    /// Makes a request as it comes fresh from a client: nothing in it is shared or static.
    fn request(&self) -> Sent {
        Request::post(self.uri)
            .header(header::CONTENT_TYPE, value("application/json"))
            .header(header::USER_AGENT, value("google-genai-sdk/1.38.0 gl-python/3.12"))
            .header("x-goog-api-key", value("AIzaSyA-0123456789_abcdefghijklmnopqrst"))
            .body(Full::new(Bytes::from(REQUEST.with(String::clone))))
            .expect("a good request")
    }
}

thread_local! {
    static REQUEST: String =
        format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}],"role":"user"}}]}}"#, prose(1980));
}

fn value(text: &str) -> HeaderValue {
    text.parse().expect("a good value")
}

/// Makes an answer with this text.
fn answer(text: &str, tokens: usize) -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},"finishReason":"STOP","index":0,"safetyRatings":[{{"category":"HARM_CATEGORY_HATE_SPEECH","probability":"NEGLIGIBLE"}}]}}],"usageMetadata":{{"promptTokenCount":512,"candidatesTokenCount":{tokens},"totalTokenCount":{},"promptTokensDetails":[{{"modality":"TEXT","tokenCount":512}}]}},"modelVersion":"gemini-2.5-flash","responseId":"nXuqaMnTIOqHnsEPgsqF8AU"}}"#,
        512 + tokens
    )
}

/// Makes text with a line end now and then.
fn prose(len: usize) -> String {
    const LINE: &str = r"Every failure is somebody's fault, and each layer acts on one fault only; the layer next to the transport reads a failure once.\n";
    LINE.repeat(len.div_ceil(LINE.len()))
}

/// Makes text full of escapes.
fn code(len: usize) -> String {
    const LINE: &str = r#"    fn name(&self) -> &str {\n        println!(\"{}\", \u003cSelf\u003e::NAME);\n"#;
    LINE.repeat(len.div_ceil(LINE.len()))
}

impl<B> Service<Request<B>> for Upstream {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Frames>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(request);
        let fails = self.failing.as_ref().is_some_and(|calls| calls.fetch_add(1, Ordering::Relaxed) % 2 == 0);
        let mut response = Response::new(if fails {
            Frames::One(Some(Bytes::from_static(BUSY)))
        } else {
            Frames::Several { frames: self.frames.clone(), next: 0 }
        });
        if fails {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, self.content_type),
            (header::DATE, "Tue, 06 Oct 2026 10:00:00 GMT"),
            (header::SERVER, "scaffolding on HTTPServer2"),
            (header::VARY, "Origin, X-Origin, Referer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        ready(Ok(response))
    }
}

const BUSY: &[u8] = br#"{
  "error": {
    "code": 503,
    "message": "The model is overloaded. Please try again later.",
    "status": "UNAVAILABLE"
  }
}
"#;

/// An answer's body, of unknown length as the API's chunked answers are.
enum Frames {
    One(Option<Bytes>),
    Several { frames: Arc<[Bytes]>, next: usize },
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.get_mut() {
            Self::One(frame) => frame.take(),
            Self::Several { frames, next } => {
                *next += 1;
                frames.get(*next - 1).cloned()
            }
        };
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::One(frame) => frame.is_none(),
            Self::Several { frames, next } => *next >= frames.len(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

// === the measurement ===

/// The number of turns of each service in a group.
const TURNS: usize = 60;

/// The length of a turn.
const TURN: Duration = Duration::from_micros(500);

struct Bench<'a> {
    criterion: Criterion,
    runtime: &'a tokio::runtime::Runtime,
    rows: Vec<Row>,
}

struct Row {
    group: &'static str,
    name: &'static str,
    nanos: f64,
    allocations: u64,
    bytes: usize,
    frames: usize,
}

/// Services that are compared with each other.
struct Group<'a, 'b> {
    bench: &'a mut Bench<'b>,
    name: &'static str,
    upstream: Upstream,
    cases: Vec<Case<'b>>,
}

struct Case<'a> {
    name: &'static str,
    allocations: u64,
    /// Makes the given number of calls and returns the time that they took.
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'b> Bench<'b> {
    fn group<'a>(&'a mut self, name: &'static str, upstream: &Upstream) -> Group<'a, 'b> {
        Group { bench: self, name, upstream: upstream.clone(), cases: Vec::new() }
    }
}

impl<'b> Group<'_, 'b> {
    fn call<S, R>(&mut self, name: &'static str, service: S)
    where
        S: Service<Sent, Response = Response<R>> + 'b,
        R: Body,
    {
        self.call_within(name, service, |run| run());
    }

    /// Adds a service whose calls are all run by `around`.
    fn call_within<S, R>(&mut self, name: &'static str, mut service: S, around: impl Fn(&mut dyn FnMut()) + 'b)
    where
        S: Service<Sent, Response = Response<R>> + 'b,
        R: Body,
    {
        let (runtime, upstream) = (self.bench.runtime, self.upstream.clone());
        let mut allocations = 0;
        around(&mut || {
            // Twice to be warm, once to be counted.
            (0..2).for_each(|_| drive(runtime, one_call(&mut service, upstream.request())));
            let request = upstream.request();
            let counted = allocation_counter::measure(|| drive(runtime, one_call(&mut service, request)));
            allocations = counted.count_total;
        });
        let mut timed = move |calls: u64| {
            let mut elapsed = Duration::ZERO;
            let mut left = calls;
            while left > 0 {
                // As many as stay in the cache.
                let requests: Vec<_> = (0..left.min(64)).map(|_| upstream.request()).collect();
                left -= requests.len() as u64;
                let begun = now();
                requests.into_iter().for_each(|request| drive(runtime, one_call(&mut service, request)));
                elapsed += begun.elapsed();
            }
            elapsed
        };
        let run = move |calls: u64| {
            let mut elapsed = Duration::ZERO;
            around(&mut || elapsed = timed(calls));
            elapsed
        };
        self.cases.push(Case { name, allocations, run: Box::new(run) });
    }

    /// Adds a service that is called on several threads at once, each with a service of its own; a call's time is the one that
    /// its thread sees.
    fn threads<S, R>(&mut self, name: &'static str, threads: usize, service: impl Fn() -> S)
    where
        S: Service<Sent, Response = Response<R>> + Send + 'b,
        R: Body,
    {
        let upstream = self.upstream.clone();
        let mut services: Vec<_> = (0..threads).map(|_| service()).collect();
        let run = move |calls: u64| {
            let barrier = Barrier::new(services.len());
            std::thread::scope(|scope| {
                let running: Vec<_> = services
                    .iter_mut()
                    .map(|service| scope.spawn(|| on_a_thread(service, &upstream, &barrier, calls)))
                    .collect();
                let elapsed = running.into_iter().map(|thread| thread.join().expect("a thread that ends"));
                elapsed.sum::<Duration>() / threads as u32
            })
        };
        self.cases.push(Case { name, allocations: 0, run: Box::new(run) });
    }

    fn measure(self) {
        let Self { bench, name, upstream, mut cases } = self;
        let mut group = bench.criterion.benchmark_group(name);
        let mut calls_made = 0;
        cases.retain_mut(|case| {
            let before = calls_made;
            group.bench_function(case.name, |bencher| {
                bencher.iter_custom(|calls| {
                    calls_made += calls;
                    (case.run)(calls)
                });
            });
            // A filter on the command line skips some.
            calls_made > before
        });
        group.finish();
        // `--test` makes one call each.
        let turns = if calls_made > cases.len() as u64 { TURNS } else { 1 };
        let rows = take_turns(&mut cases, turns).into_iter().zip(&cases).map(|(nanos, case)| Row {
            group: name,
            name: case.name,
            nanos,
            allocations: case.allocations,
            bytes: upstream.len(),
            frames: upstream.frames.len(),
        });
        bench.rows.extend(rows);
    }
}

/// Makes calls while the other threads make theirs.
fn on_a_thread<S, R>(service: &mut S, upstream: &Upstream, barrier: &Barrier, calls: u64) -> Duration
where
    S: Service<Sent, Response = Response<R>>,
    R: Body,
{
    let mut elapsed = Duration::ZERO;
    let mut left = calls;
    while left > 0 {
        let requests: Vec<_> = (0..left.min(64)).map(|_| upstream.request()).collect();
        left -= requests.len() as u64;
        barrier.wait();
        let begun = now();
        requests.into_iter().for_each(|request| spin(one_call(service, request)));
        elapsed += begun.elapsed();
    }
    elapsed
}

/// Polls a future to its end: nothing here waits, except for a lock that another thread holds.
fn spin(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    while future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        std::thread::yield_now();
    }
}

/// Returns the median of each case, in nanoseconds a call.
fn take_turns(cases: &mut [Case<'_>], turns: usize) -> Vec<f64> {
    let calls: Vec<_> = cases
        .iter_mut()
        .map(|case| {
            let one = (case.run)(1).as_nanos().max(1);
            if turns > 1 { (TURN.as_nanos() / one).clamp(1, 10_000) as u64 } else { 1 }
        })
        .collect();
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..turns {
        for ((case, calls), samples) in cases.iter_mut().zip(&calls).zip(&mut samples) {
            samples.push((case.run)(*calls).as_nanos() as f64 / *calls as f64);
        }
    }
    samples.iter_mut().map(|samples| median(samples)).collect()
}

async fn one_call<S, R>(service: &mut S, request: Sent)
where
    S: Service<Sent, Response = Response<R>>,
    R: Body,
{
    let Ok(service) = service.ready().await else { panic!("the upstream is always ready") };
    let Ok(response) = service.call(request).await else { panic!("the upstream always answers") };
    assert!(response.status().is_success(), "a layer gave the failure back");
    let mut body = pin!(response.into_body());
    while let Some(frame) = body.frame().await {
        black_box(frame.is_ok());
    }
}

/// Polls once, which is nearly always enough.
fn drive(runtime: &tokio::runtime::Runtime, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        runtime.block_on(future);
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:<30} {:<38} {:>10} {:>10} {:>7} {:>10} {:>9} {:>7}\n",
        "group", "service", "ns", "over bare", "allocs", "over bare", "ns/frame", "MB/s"
    );
    let mut bare: Option<&Row> = None;
    for row in rows {
        if bare.is_none_or(|bare| bare.group != row.group) {
            bare = row.name.starts_with("bare").then_some(row);
            text.push('\n');
        }
        let (ns, allocations) = bare.map_or((0.0, 0), |bare| (bare.nanos, bare.allocations));
        let more = row.nanos - ns;
        let _ = write!(
            text,
            "{:<30} {:<38} {:>10.0} {more:>10.0} {:>7} {:>10}",
            row.group,
            row.name,
            row.nanos,
            row.allocations,
            row.allocations.saturating_sub(allocations),
        );
        if row.frames > 1 && !row.name.starts_with("bare") {
            let speed = if row.nanos > 0.0 { row.bytes as f64 * 1e3 / row.nanos } else { 0.0 };
            let _ = write!(text, " {:>9.1} {speed:>7.0}", more / row.frames as f64);
        }
        text.push('\n');
    }
    text
}
