//! The log: one line a call on standard error, for people or for machines.

use std::{env, io};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use clap::ValueEnum;
use http::StatusCode;
use tokio::time::Instant;
use tower::BoxError;
use tower_gemini::{
    Outcome,
    call::{Call, Operation, ServiceTier},
    context::{CallProgress, Usage, UsageReport},
    failure::{Failure, Kind},
};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    serve::{
        held::{AtEnd, HoldingBody},
        line_text::{LineFields, LineTime},
    },
    show::CallNews,
};

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// A line of text, for people.
    #[default]
    Pretty,
    /// A line of JSON, for machines.
    Json,
}

/// Starts the log. Fails if `RUST_LOG` cannot be read.
pub(crate) fn start(format: Format) -> Result<(), String> {
    let wanted = env::var("RUST_LOG").unwrap_or_default();
    let wanted = if wanted.trim().is_empty() { "info" } else { &wanted };
    // The event of a failed call is for collectors of traces; here, the call's own line says it.
    let wanted_here = format!("tower_gemini::telemetry::exception=off,{wanted}");
    let filter: EnvFilter =
        wanted_here.parse().map_err(|error| format!("RUST_LOG={wanted:?} cannot be read: {error}"))?;
    // A line is complete without its spans, whose fields would be written for each call. They come with `debug`, `trace`, or
    // a directive for a target.
    let has_spans = !wanted.trim().parse::<LevelFilter>().is_ok_and(|most| most <= LevelFilter::INFO);
    let lines = fmt::layer().with_writer(io::stderr);
    let log = tracing_subscriber::registry().with(filter).with(filter_fn(move |at| has_spans || !at.is_span()));
    match format {
        Format::Json => {
            log.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).init()
        }
        Format::Pretty => log.with(lines.with_ansi(false).compact().with_timer(LineTime).fmt_fields(LineFields)).init(),
    }
    Ok(())
}

/// The most characters of a name that are logged: no model's name is longer.
const LONGEST: usize = 128;

/// Cleans a model's name, which the caller wrote: it may be a key in the wrong place, or as long as a path.
fn shown(model: &str) -> String {
    // A failure of the library has no key in its message.
    let model = Failure::local(Kind::BadRequest, model).message().to_owned();
    match model.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &model[..end]),
        None => model,
    }
}

/// The line of a call. It has neither path nor query, which may hold anything.
pub(crate) struct Line {
    call: Call,
    /// It has the call as its body says, and the attempts, of a caller that went away before an answer came.
    progress: CallProgress,
    /// The name of the caller, and the end of the answer: callers close the connection on reading a failure, before the break
    /// that follows it.
    news: CallNews,
    began: Instant,
    /// The status, unless the caller went away before there was one.
    status: Option<StatusCode>,
    outcome: Outcome,
}

impl Line {
    /// Begins the line of a call. It is logged once the call's answer has ended.
    pub(crate) fn begin(request: &mut Request) -> Self {
        let news = CallNews::default();
        request.extensions_mut().insert(news.clone());
        Self {
            call: Call::new(request.method(), request.uri()),
            progress: CallProgress::watch(request),
            news,
            began: Instant::now(),
            status: None,
            outcome: Outcome::default(),
        }
    }

    /// Takes the outcome of a call, whose answer's body goes on with its line.
    pub(crate) fn answered<R>(mut self, response: http::Response<R>) -> Response
    where
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        self.status = Some(response.status());
        if let Some(outcome) = response.extensions().get::<Outcome>() {
            self.outcome = outcome.clone();
        }
        response.map(|body| Body::new(HoldingBody::new(body, self)))
    }
}

impl AtEnd for Line {
    fn ended(&mut self) {
        self.news.set_ended();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nothing of a line is made where nobody wants it.
        if !tracing::enabled!(target: "relay::call", Level::INFO) {
            return;
        }
        let Self { call, progress, news, began, status, outcome } = self;
        let usage = outcome.usage().map(Usage::report).unwrap_or_default();
        let failure = outcome.failure().or(usage.failure.as_ref());
        // The call as its body says, unless it was turned away before that was read.
        let under_way = progress.call();
        let call = outcome.call().or(under_way.as_ref()).unwrap_or(call);
        let model = call.quota_name().map(shown);
        let answered = usage.model_version.as_deref().or(outcome.model());
        // As a rule it is the same name.
        let answered = if answered == call.quota_name() { model.clone() } else { answered.map(shown) };
        let attempts = if status.is_some() { outcome.attempts() } else { progress.attempts() };
        // An answer that is fetched again has been paid for before.
        let paid = Some(&usage).filter(|_| call.operation() != Operation::Read);
        let tier = Some(call.service_tier()).filter(|tier| *tier != ServiceTier::Standard);
        tracing::info!(
            target: "relay::call",
            caller = news.caller(),
            operation = ?call.operation(),
            model,
            tier = tier.map(ServiceTier::as_str),
            served_tier = usage.service_tier.as_deref().map(shown),
            answered,
            status = status.map(|status| status.as_u16()),
            ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            attempts,
            key = outcome.key(),
            project = outcome.project(),
            tokens_in = paid.and_then(UsageReport::input_tokens),
            tokens_out = paid.and_then(UsageReport::output_tokens),
            tokens_thought = paid.and_then(|usage| usage.thoughts_tokens),
            failure = failure.map(|failure| failure.kind().to_string()),
            // The caller left before the end, and before the upstream said an error.
            gone = !news.has_ended() && usage.failure.is_none(),
            "call"
        );
    }
}
