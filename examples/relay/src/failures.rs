//! The last failures that callers have seen, kept for whoever asks `/status`.

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

use crate::door;

/// So many are kept; the oldest goes first.
pub(crate) const KEPT: usize = 100;

/// Longer texts are cut.
const LONGEST: usize = 600;

/// A ring of failures, and the layer that fills it. It belongs right inside `ErrorResponseLayer`: there a failure is still
/// what it was, and all that could be done about it has been done.
#[derive(Clone)]
pub(crate) struct Failures(Arc<Shared>);

struct Shared {
    secrets: RwLock<Vec<String>>,
    ring: Mutex<VecDeque<Noted>>,
}

/// One failure. Nothing in it is secret: texts are cleaned before they are kept.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    pub(crate) when: SystemTime,
    pub(crate) at: Instant,
    pub(crate) model: String,
    pub(crate) fault: Fault,
    pub(crate) kind: Kind,
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) attempts: u32,
    /// The fingerprint of the key that was used last.
    pub(crate) key: Option<String>,
    /// The answer had begun.
    pub(crate) in_the_answer: bool,
    /// The relay's own door has refused it: no upstream, and no key of the relay's, has to do with it.
    pub(crate) at_door: bool,
}

impl Failures {
    /// An empty ring.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { secrets: RwLock::default(), ring: Mutex::default() }))
    }

    /// These are overwritten wherever a text repeats them, and so is what was hidden before.
    pub(crate) fn hide<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let mut hidden = self.0.secrets.write();
        for secret in secrets {
            // What is shorter would be found in every text.
            if secret.len() >= 8 && !hidden.iter().any(|known| known == secret) {
                hidden.push(secret.to_owned());
            }
        }
    }

    /// Newest first.
    pub(crate) fn latest(&self) -> Vec<Noted> {
        self.0.ring.lock().iter().rev().cloned().collect()
    }

    /// A text of somebody's, as it may be shown: no key in it, and not too long.
    pub(crate) fn clean(&self, text: &str) -> String {
        // The crate cleans what it says of keys that look like Google's.
        let text = Failure::local(Kind::BadRequest, text).message().to_owned();
        let mut text = self.0.secrets.read().iter().fold(text, |text, secret| text.replace(secret.as_str(), "[key]"));
        if text.len() > LONGEST {
            text.truncate((0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
            text.push('…');
        }
        text
    }

    fn note(&self, asked: &str, outcome: &Outcome, at_door: bool) {
        let Some(failure) = outcome.failure() else { return };
        // Strangers could fill the ring, and drive out of it what callers have seen.
        if at_door && failure.code() == StatusCode::UNAUTHORIZED {
            return;
        }
        let noted = Noted {
            when: clock::wall(),
            at: Instant::now(),
            model: self.clean(outcome.model().unwrap_or(asked)),
            fault: failure.fault(),
            kind: failure.kind(),
            code: failure.code().as_u16(),
            message: self.clean(message(failure, outcome)),
            attempts: outcome.attempts(),
            key: outcome.key().map(str::to_owned),
            in_the_answer: failure.is_after_commit(),
            at_door,
        };
        let mut ring = self.0.ring.lock();
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(noted);
    }
}

/// What was said of it. When the API refuses a request it may quote what it did not understand, and that is the caller's.
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

fn at_door(error: &BoxError) -> bool {
    Error::find(&**error).is_some_and(|error| error.layer() == door::NAME)
}

impl<S> Layer<S> for Failures {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, failures: self.clone() }
    }
}

/// A service whose failures are noted, those that come in the middle of an answer included.
#[derive(Clone)]
pub(crate) struct Watched<S> {
    inner: S,
    failures: Failures,
}

/// A body that notes its end, if it is a bad one.
type WatchedBody<R> = MapErr<R, Box<dyn FnMut(<R as http_body::Body>::Error) -> BoxError + Send>>;

impl<S, B, R> Service<Request<B>> for Watched<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = BoxError, Future: Send + 'static>,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Response = Response<WatchedBody<R>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = Call::new(request.method(), request.uri());
        let asked = call.model().unwrap_or_default().to_owned();
        let (answer, failures) = (self.inner.call(request), self.failures.clone());
        Box::pin(async move {
            let result = answer.await;
            let head = Outcome::of(&result);
            failures.note(&asked, &head, result.as_ref().err().is_some_and(at_door));
            Ok(result?.map(|body| {
                let mut rest = Rest { failures, asked, head };
                let note = move |error: R::Error| {
                    let error = error.into();
                    rest.broke(&error);
                    error
                };
                body.map_err(Box::new(note) as _)
            }))
        })
    }
}

/// What is still to come of an answer. It lives in the answer's body.
struct Rest {
    failures: Failures,
    asked: String,
    /// What was known when the answer began; and once it has failed, how.
    head: Outcome,
}

impl Rest {
    /// It ends in an error.
    fn broke(&mut self, error: &BoxError) {
        let said = Error::find(&**error).and_then(|error| error.outcome().failure().cloned());
        self.failed(said.unwrap_or_else(|| Failure::from_error(&**error)));
    }

    fn failed(&mut self, failure: Failure) {
        if self.head.failure().is_none() {
            self.head = std::mem::take(&mut self.head).with_failure(failure.into_after_commit());
            self.failures.note(&self.asked, &self.head, false);
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        // The upstream may say in the middle of an answer that it has failed.
        if let Some(failure) = self.head.usage().and_then(|usage| usage.report().failure) {
            self.failed(failure);
        }
    }
}
