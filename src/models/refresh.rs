//! Fetches the upstream's list of models.
//!
//! A list counts only when it was read to its end: half of one would make the other half's names look wrong. Everything
//! is bounded, because the answer is not trusted.

use std::{
    convert::Infallible,
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, uri::PathAndQuery};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service;

use super::{
    Model, ModelTable,
    list::{self, MAX_MODELS},
};
use crate::{
    body::{CappedRead, Extent},
    context::BoxError,
    redact::redact,
};

/// The most pages of one list. Google puts all its models on one.
const MAX_PAGES: usize = 32;

/// The most bytes of one list, all pages together.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The longest that one refresh may take, all pages together.
const MAX_TIME: Duration = Duration::from_secs(60);

/// The delay before a failed refresh is tried again. It doubles with each failure in a row …
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(30);

/// … up to this delay.
pub(super) const LAST_RETRY: Duration = Duration::from_secs(3_600);

impl ModelTable {
    /// Asks the upstream for its list (`GET /v1beta/models?pageSize=1000`, page by page), and replaces the one before:
    /// in one step, and only if the whole list was good. Returns the number of models on it.
    ///
    /// The service adds the credentials and the host. The list is fresh from the time of asking. Models that were
    /// [set by hand](Self::insert) and limits that were [learned](Self::learn_input_limit) stay.
    ///
    /// # Errors
    ///
    /// Fails where the service fails, or answers anything but 200 and a list of models: at least one, at most 2,048, on
    /// at most 32 pages of 4 MiB together, within 60 s. The table stays as it was.
    ///
    /// # Cancellation
    ///
    /// A future that is dropped before its end has changed nothing.
    pub fn refresh<S, B, R>(&self, service: S) -> impl Future<Output = Result<usize, RefreshError>> + use<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
        S::Error: Into<BoxError>,
        B: Default,
        R: Body,
        R::Error: Into<BoxError>,
    {
        let table = self.clone();
        async move {
            let asked_at = Instant::now();
            let fetched = timeout(MAX_TIME, fetch(service, &table.shared.settings.list_path)).await;
            match fetched.unwrap_or(Err(RefreshError::of(RefreshFault::TooSlow))) {
                Ok(models) => {
                    let count = models.len();
                    table.publish(models, asked_at);
                    Ok(count)
                }
                Err(error) => {
                    let text = redact(&error.chain()).into();
                    let mut state = table.shared.state.write();
                    (state.failures, state.last_failure) = (state.failures.saturating_add(1), Some(text));
                    Err(error)
                }
            }
        }
    }

    /// Refreshes at once, and then again after each `every` (at least 30 s; [6 h](Self::REFRESH_EVERY) is a good
    /// choice).
    ///
    /// After a failure it tries again in 30 s, 1 min, 2 min, … up to an hour, but no later than after `every`. Spawn
    /// the future: the crate spawns nothing itself. The [snapshot](Self::snapshot) has the last error.
    ///
    /// # Cancellation
    ///
    /// It can be dropped at any time: the table keeps its list. While it sleeps, it holds the table, but no readiness
    /// of the service.
    pub fn refresh_every<S, B, R>(&self, service: S, every: Duration) -> impl Future<Output = Infallible> + use<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Default,
        R: Body,
        R::Error: Into<BoxError>,
    {
        let (table, every) = (self.clone(), every.max(FIRST_RETRY));
        async move {
            let mut retry = FIRST_RETRY;
            loop {
                // A clone each time: a readiness that was never used goes with it.
                match table.refresh(service.clone()).await {
                    Ok(_) => {
                        retry = FIRST_RETRY;
                        sleep(every).await;
                    }
                    Err(_) => {
                        sleep(retry.min(every)).await;
                        retry = (retry * 2).min(LAST_RETRY);
                    }
                }
            }
        }
    }
}

async fn fetch<S, B, R>(mut service: S, path: &PathAndQuery) -> Result<Vec<Model>, RefreshError>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Default,
    R: Body,
    R::Error: Into<BoxError>,
{
    let (mut models, mut left, mut token) = (Vec::new(), MAX_BYTES, None);
    for _ in 0..MAX_PAGES {
        let request = request(path, token.as_deref())?;
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(RefreshError::upstream)?;
        let response = service.call(request).await.map_err(RefreshError::upstream)?;
        if response.status() != StatusCode::OK {
            return Err(RefreshError::of(RefreshFault::Status(response.status())));
        }
        let body = read(response.into_body(), &mut left).await?;
        let page = list::page(&body).map_err(|why| RefreshError::of(RefreshFault::Unreadable(redact(&why).into())))?;
        models.extend(page.models);
        if models.len() > MAX_MODELS {
            return Err(RefreshError::of(RefreshFault::TooManyModels));
        }
        match page.next {
            Some(next) => token = Some(next),
            None if models.is_empty() => return Err(RefreshError::of(RefreshFault::Empty)),
            None => return Ok(models),
        }
    }
    Err(RefreshError::of(RefreshFault::TooManyPages))
}

fn request<B: Default>(path: &PathAndQuery, token: Option<&str>) -> Result<Request<B>, RefreshError> {
    let mut uri = format!("{path}{}pageSize=1000", if path.query().is_some() { '&' } else { '?' });
    if let Some(token) = token {
        uri.push_str("&pageToken=");
        for byte in token.bytes() {
            match byte {
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' => uri.push(byte.into()),
                _ => uri.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    // A compressed answer could not be read.
    let identity = (header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let request = Request::get(uri).header(identity.0, identity.1).body(B::default());
    request.map_err(RefreshError::upstream)
}

/// Reads the whole body, if it has at most `left` bytes, and takes them off.
async fn read<R>(body: R, left: &mut usize) -> Result<Bytes, RefreshError>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    let too_large = || RefreshError::of(RefreshFault::TooLarge);
    if body.size_hint().lower() > *left as u64 {
        return Err(too_large());
    }
    let (mut body, mut read) = (pin!(body), CappedRead::new(*left));
    match poll_fn(|cx| read.poll(cx, body.as_mut())).await.map_err(RefreshError::upstream)? {
        Extent::Whole => {
            *left = read.left();
            Ok(read.into_bytes())
        }
        Extent::Beginning => Err(too_large()),
    }
}

/// The error of a [refresh](ModelTable::refresh), which has changed nothing.
pub struct RefreshError {
    kind: RefreshFault,
    source: Option<BoxError>,
}

#[derive(Debug)]
enum RefreshFault {
    Upstream,
    Status(StatusCode),
    Unreadable(Box<str>),
    Empty,
    TooLarge,
    TooManyModels,
    TooManyPages,
    TooSlow,
}

// === impl RefreshError ===

impl RefreshError {
    fn of(kind: RefreshFault) -> Self {
        Self { kind, source: None }
    }

    fn upstream(error: impl Into<BoxError>) -> Self {
        Self { kind: RefreshFault::Upstream, source: Some(error.into()) }
    }

    /// Returns the status of an answer that was not a list.
    pub fn status(&self) -> Option<StatusCode> {
        match self.kind {
            RefreshFault::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Returns the error and its source in one line.
    fn chain(&self) -> String {
        self.source.as_ref().map_or_else(|| self.to_string(), |source| format!("{self}: {source}"))
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            RefreshFault::Upstream => f.write_str("the list of models could not be fetched"),
            RefreshFault::Status(status) => write!(f, "the list of models was answered with {status}"),
            RefreshFault::Unreadable(why) => write!(f, "the list of models cannot be read: {why}"),
            RefreshFault::Empty => f.write_str("there is no model on the list of models"),
            RefreshFault::TooLarge => write!(f, "the list of models has more than {MAX_BYTES} bytes"),
            RefreshFault::TooManyModels => write!(f, "the list of models has more than {MAX_MODELS} models"),
            RefreshFault::TooManyPages => write!(f, "the list of models has more than {MAX_PAGES} pages"),
            RefreshFault::TooSlow => write!(f, "the list of models took more than {} s", MAX_TIME.as_secs()),
        }
    }
}

impl fmt::Debug for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Other crates put whole URLs into their errors, keys included.
        let source = self.source.as_ref().map(|source| redact(&format!("{source:?}")).into_owned());
        f.debug_struct("RefreshError").field("kind", &self.kind).field("source", &source).finish()
    }
}

impl StdError for RefreshError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
