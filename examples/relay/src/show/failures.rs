//! The last failures that callers have seen, kept for `/status`.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, combinators::MapErr};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};
use tower_gemini::{
    Error, Outcome,
    call::Call,
    clock,
    failure::{Failure, Fault, Kind},
};

/// The number of failures that are kept; the oldest goes first.
pub(crate) const KEPT: usize = 100;

/// The length, in bytes, at which texts are cut.
const LONGEST: usize = 600;

/// A ring of failures, and the layer that fills it. It belongs right inside `ErrorResponseLayer`: there a failure is
/// still an error, and every layer that could do something about it has done so.
#[derive(Clone)]
pub(crate) struct Failures(Arc<Ring>);

struct Ring {
    /// The layer whose refusals are the relay's own.
    admission: &'static str,
    secrets: RwLock<Vec<String>>,
    records: Mutex<VecDeque<FailureRecord>>,
}

/// One failure. Nothing in it is secret: texts are cleaned before they are kept.
#[derive(Clone, Debug)]
pub(crate) struct FailureRecord {
    pub(crate) time: SystemTime,
    pub(crate) at: Instant,
    pub(crate) model: String,
    pub(crate) fault: Fault,
    pub(crate) kind: Kind,
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) attempts: u32,
    /// The fingerprint of the key that was used last.
    pub(crate) key: Option<String>,
    /// The answer had begun before it failed.
    pub(crate) in_the_answer: bool,
    /// The relay's own admission has refused the call: neither the upstream nor a key of the relay has to do with it.
    pub(crate) at_admission: bool,
}

impl Failures {
    /// Makes an empty ring. `admission` is the name of the layer whose refusals are the relay's own.
    pub(crate) fn new(admission: &'static str) -> Self {
        Self(Arc::new(Ring { admission, secrets: RwLock::default(), records: Mutex::default() }))
    }

    /// Hides these secrets, and those that were hidden before, wherever a text repeats them.
    pub(crate) fn hide<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let mut hidden = self.0.secrets.write();
        for secret in secrets {
            // A shorter one would be found in every text.
            if secret.len() >= 8 && !hidden.iter().any(|known| known == secret) {
                hidden.push(secret.to_owned());
            }
        }
    }

    /// Returns the failures, the newest first.
    pub(crate) fn latest(&self) -> Vec<FailureRecord> {
        self.0.records.lock().iter().rev().cloned().collect()
    }

    /// Cleans a text from any source, so that it may be shown: it has no key in it, and is not too long.
    pub(crate) fn clean(&self, text: &str) -> String {
        // A failure of the library has nothing in its message that looks like a key of Google's.
        let text = Failure::local(Kind::BadRequest, text).message().to_owned();
        let mut text = self.0.secrets.read().iter().fold(text, |text, secret| text.replace(secret.as_str(), "[key]"));
        if text.len() > LONGEST {
            text.truncate((0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
            text.push('…');
            // A truncated text keeps the room that it had, and a hundred of them are kept.
            text.shrink_to_fit();
        }
        text
    }

    /// Returns whether the relay's own admission made the error.
    fn is_own(&self, error: &BoxError) -> bool {
        Error::find(&**error).is_some_and(|error| error.layer() == self.0.admission)
    }

    fn record(&self, requested_model: &str, outcome: &Outcome, at_admission: bool) {
        let Some(failure) = outcome.failure() else { return };
        // Strangers could fill the ring, and drive out of it the failures that callers have seen.
        if at_admission && matches!(failure.code(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return;
        }
        let record = FailureRecord {
            time: clock::wall(),
            at: Instant::now(),
            model: self.clean(outcome.model().or_else(|| outcome.call()?.quota_name()).unwrap_or(requested_model)),
            fault: failure.fault(),
            kind: failure.kind(),
            code: failure.code().as_u16(),
            message: self.clean(message(failure, outcome)),
            attempts: outcome.attempts(),
            key: outcome.key().map(str::to_owned),
            in_the_answer: failure.is_after_commit(),
            at_admission,
        };
        let mut records = self.0.records.lock();
        if records.len() == KEPT {
            records.pop_front();
        }
        records.push_back(record);
    }
}

/// Returns the message to show. An API that refuses a request may quote the part that it did not understand, and that
/// is the caller's alone.
fn message<'a>(failure: &'a Failure, outcome: &Outcome) -> &'a str {
    let quotes_nothing = matches!(
        failure.kind(),
        Kind::ContextTooLong | Kind::ModelNotFound | Kind::LocationUnsupported | Kind::IpBlocked | Kind::OutputLimit
    );
    match failure.fault() == Fault::Caller && outcome.was_sent() && !quotes_nothing {
        true => "(not shown: the API's words may quote the request; the caller has got them)",
        false => failure.message(),
    }
}

impl<S> Layer<S> for Failures {
    type Service = RecordFailures<S>;

    fn layer(&self, inner: S) -> RecordFailures<S> {
        RecordFailures { inner, failures: self.clone() }
    }
}

/// A service whose failures are recorded, those in the middle of an answer included.
#[derive(Clone)]
pub(crate) struct RecordFailures<S> {
    inner: S,
    failures: Failures,
}

/// A body that records an error at its end.
type RecordedBody<R> = MapErr<R, Box<dyn FnMut(<R as http_body::Body>::Error) -> BoxError + Send>>;

impl<S, B, R> Service<Request<B>> for RecordFailures<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = BoxError, Future: Send + 'static>,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Response = Response<RecordedBody<R>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = Call::new(request.method(), request.uri());
        let requested_model = call.model().unwrap_or_default().to_owned();
        let (answer, failures) = (self.inner.call(request), self.failures.clone());
        Box::pin(async move {
            let result = answer.await;
            let head = Outcome::of(&result);
            failures.record(&requested_model, &head, result.as_ref().err().is_some_and(|error| failures.is_own(error)));
            Ok(result?.map(|body| {
                let mut rest = AnswerRest { failures, requested_model, head };
                let record = move |error: R::Error| {
                    let error = error.into();
                    rest.ended_in(&error);
                    error
                };
                body.map_err(Box::new(record) as _)
            }))
        })
    }
}

/// The rest of an answer, which may still fail. It lives in the answer's body.
struct AnswerRest {
    failures: Failures,
    requested_model: String,
    /// The outcome when the answer began, and later its failure.
    head: Outcome,
}

impl AnswerRest {
    /// Records that the answer ends in an error.
    fn ended_in(&mut self, error: &BoxError) {
        let failure = Error::find(&**error).and_then(|error| error.outcome().failure().cloned());
        self.failed(failure.unwrap_or_else(|| Failure::from_error(&**error)));
    }

    fn failed(&mut self, failure: Failure) {
        if self.head.failure().is_none() {
            self.head = std::mem::take(&mut self.head).with_failure(failure.into_after_commit());
            self.failures.record(&self.requested_model, &self.head, false);
        }
    }
}

impl Drop for AnswerRest {
    fn drop(&mut self) {
        // The upstream may say in the middle of an answer that it has failed.
        if let Some(failure) = self.head.usage().and_then(|usage| usage.report().failure) {
            self.failed(failure);
        }
    }
}
