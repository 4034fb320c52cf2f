//! The upstream: a service whose answers a pure model decides, and a log of what it was asked.

use std::{
    convert::Infallible,
    future::{Future, pending, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tower::Service;

/// The time that every 503 takes.
pub(crate) const REFUSING: Duration = Duration::from_millis(200);

/// The time that every 429 takes.
pub(crate) const COUNTING: Duration = Duration::from_millis(200);

/// The header with a call's input tokens, which this upstream believes.
const TOKENS: &str = "x-tokens";

/// The behaviour of an upstream. It is told the time since the beginning of the run.
pub(crate) trait Model: Send + 'static {
    /// Decides on one attempt.
    fn ask(&mut self, at: Duration, attempt: &Asked) -> Reply;
}

/// An attempt, as the upstream sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) tokens: u64,
}

/// The reply to an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// An answer, after this time.
    Answer(Duration),
    /// A 503, after [`REFUSING`].
    Overloaded,
    /// A 429, after [`COUNTING`].
    Quota(Exceeded),
    /// No reply at all.
    Hang,
}

/// The quota that a 429 names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exceeded {
    pub(crate) id: &'static str,
    pub(crate) value: u64,
    /// The wait that it asks for; Google cuts it to whole seconds.
    pub(crate) retry_in: Duration,
}

/// The quota of requests a minute, as Google names it.
pub(crate) const REQUESTS: &str = "GenerateRequestsPerMinutePerProjectPerModel";
/// The quota of input tokens a minute.
pub(crate) const INPUT_TOKENS: &str = "GenerateContentPaidTierInputTokensPerModelPerMinute";
/// The quota of requests a day.
pub(crate) const DAY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

/// The parts of a failed answer that the peers read in its body, with the names that they look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) hint: Option<Duration>,
    pub(crate) of_a_day: bool,
}

/// An attempt in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) at: Duration,
    /// True if it gets an answer.
    pub(crate) answers: bool,
}

/// The service. Clones are the same upstream.
#[derive(Clone)]
pub(crate) struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    begun: Instant,
    model: Mutex<Box<dyn Model>>,
    log: Mutex<Vec<Attempt>>,
}

impl Upstream {
    /// Creates the upstream; the run begins now.
    pub(crate) fn new(model: impl Model) -> Self {
        let shared = Shared { begun: Instant::now(), model: Mutex::new(Box::new(model)), log: Mutex::new(Vec::new()) };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the instant at which the run began.
    pub(crate) fn begun(&self) -> Instant {
        self.shared.begun
    }

    /// Returns all attempts so far, the oldest first.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.shared.log.lock().clone()
    }
}

/// Makes the request of a call with so many input tokens.
pub(crate) fn request(tokens: u64) -> Request<Full<Bytes>> {
    let mut request =
        Request::post("https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent")
            .body(Full::from(r#"{"contents":[{"role":"user","parts":[{"text":"Say hello."}]}]}"#))
            .expect("a request");
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(TOKENS, tokens.into());
    request
}

impl<B> Service<Request<B>> for Upstream {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let tokens = request.headers()[TOKENS].to_str().ok().and_then(|tokens| tokens.parse().ok());
        let asked = Asked { tokens: tokens.expect("a number of tokens") };
        let at = self.shared.begun.elapsed();
        let reply = self.shared.model.lock().ask(at, &asked);
        let answers = matches!(reply, Reply::Answer(_));
        self.shared.log.lock().push(Attempt { at, answers });
        let (after, response) = match reply {
            Reply::Hang => return Box::pin(pending()),
            Reply::Answer(after) => (after, answer(asked.tokens)),
            Reply::Overloaded => (REFUSING, overloaded()),
            Reply::Quota(exceeded) => (COUNTING, too_many(exceeded)),
        };
        if after.is_zero() {
            return Box::pin(ready(Ok(response)));
        }
        Box::pin(async move {
            sleep(after).await;
            Ok(response)
        })
    }
}

fn answer(tokens: u64) -> Response<Full<Bytes>> {
    let all = tokens + 2;
    let body = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"Hello!"}}],"role":"model"}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":{tokens},"candidatesTokenCount":2,"totalTokenCount":{all}}},"modelVersion":"gemini-2.5-flash"}}"#
    );
    json(200, body)
}

fn overloaded() -> Response<Full<Bytes>> {
    let body =
        r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#;
    refused(json(503, body.to_owned()), None, false)
}

fn too_many(exceeded: Exceeded) -> Response<Full<Bytes>> {
    let Exceeded { id, value, retry_in } = exceeded;
    let (exact, whole) = (retry_in.as_secs_f64(), retry_in.as_secs());
    let body = format!(
        r#"{{"error":{{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. Please retry in {exact}s.","status":"RESOURCE_EXHAUSTED","details":[{{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaMetric":"generativelanguage.googleapis.com/generate_content_requests","quotaId":"{id}","quotaDimensions":{{"location":"global","model":"gemini-2.5-flash"}},"quotaValue":"{value}"}}]}},{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{whole}s"}}]}}}}"#
    );
    refused(json(429, body), Some(Duration::from_secs(whole)), id.contains("PerDay"))
}

fn json(status: u16, body: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json; charset=UTF-8");
    response.body(Full::from(body)).expect("a response")
}

fn refused(mut response: Response<Full<Bytes>>, hint: Option<Duration>, of_a_day: bool) -> Response<Full<Bytes>> {
    let status = response.status().as_u16();
    response.extensions_mut().insert(Refusal { status, hint, of_a_day });
    response
}
