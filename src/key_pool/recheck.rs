//! Checks of disabled keys: finds out whether they are good again.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::ACCEPT_ENCODING};
use http_body::Body;
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tower_service::Service;

use super::{
    KeyPool,
    health::CheckResult,
    pool::{Shared, log_enabled},
    registry::PooledKey,
};
use crate::{
    body::CappedRead,
    call::Surface,
    context::{BoxError, Outcome},
    failure::{Failure, Fault},
};

/// The path of a check: any good key may read it.
const CHECK: &str = "/v1beta/models?pageSize=1";

/// The time-out of one check.
const MAX_TIME: Duration = Duration::from_secs(30);

/// The most bytes of a refusal that are read.
const MAX_READ: usize = 64 * 1024;

impl KeyPool {
    /// Checks disabled keys until the future is dropped: each is tried with `GET /v1beta/models?pageSize=1`, first
    /// after a minute (5 min where it was leaked, suspended or banned), then after twice the time before, up to 6 h. A
    /// key that is answered is enabled. A key that was disabled by hand is not checked; and a caller's call never tries
    /// a disabled key.
    ///
    /// Spawn the future: the crate spawns nothing itself. The service is the transport, or the part of the stack below
    /// this layer; it adds the host, and no credentials. The future sleeps until the next check is due.
    ///
    /// # Cancellation
    ///
    /// The future can be dropped at any time. While it sleeps it holds the pool, and no readiness of the service.
    pub fn recheck<S, B, R>(&self, service: S) -> impl Future<Output = Infallible> + use<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Default,
        R: Body,
    {
        let shared = self.shared.clone();
        async move {
            let _passes_on = NotifyOnDrop(&shared.disabled);
            loop {
                let (at, key) = match next(&shared) {
                    Some(next) => next,
                    None => {
                        shared.disabled.notified().await;
                        continue;
                    }
                };
                // A key that is disabled meanwhile may be due before.
                if at > Instant::now() && timeout_at(at, shared.disabled.notified()).await.is_ok() {
                    continue;
                }
                // A clone each time: a readiness that was never used is dropped with it.
                let result = timeout(MAX_TIME, check(service.clone(), &key)).await.unwrap_or(CheckResult::Unclear);
                record(&shared, &key, result);
            }
        }
    }
}

/// A notice that another future gets in place of this one: it may have been told of a key, and then be dropped.
struct NotifyOnDrop<'a>(&'a Notify);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Returns the key that is to be checked next, and when.
fn next(shared: &Shared) -> Option<(Instant, Arc<PooledKey>)> {
    let registry = shared.registry.lock();
    let due = registry.entries().filter_map(|entry| Some((entry.health.check_at()?, &entry.key)));
    due.min_by_key(|(at, _)| *at).map(|(at, key)| (at, key.clone()))
}

/// Records the result of a check.
fn record(shared: &Shared, key: &Arc<PooledKey>, result: CheckResult) {
    let mut registry = shared.registry.lock();
    let Some(entry) = registry.entry(key) else { return };
    let is_enabled = entry.change(|health| health.checked(result, Instant::now()));
    if let Some(project) = registry.project(&key.project) {
        project.publish();
    }
    drop(registry);
    if is_enabled {
        log_enabled(key);
    }
}

/// Checks a key with one call.
async fn check<S, B, R>(mut service: S, key: &PooledKey) -> CheckResult
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Default,
    R: Body,
{
    let Some((name, value)) = key.signer.header(Surface::Developer) else { return CheckResult::Unclear };
    // A compressed refusal could not be read.
    let request = Request::get(CHECK).header(ACCEPT_ENCODING, HeaderValue::from_static("identity")).header(name, value);
    let Ok(request) = request.body(B::default()) else { return CheckResult::Unclear };
    if poll_fn(|cx| service.poll_ready(cx)).await.is_err() {
        return CheckResult::Unclear;
    }
    let Ok(response) = service.call(request).await else { return CheckResult::Unclear };
    if response.status().is_success() {
        return CheckResult::Good;
    }
    let (head, body) = response.into_parts();
    let failure = match head.extensions.get().and_then(Outcome::failure) {
        Some(classified) => classified.clone(),
        None => Failure::from_response(head.status, &head.headers, &read(body).await),
    };
    // A refusal without an error body may be a proxy's, which knows no keys.
    if failure.fault() == Fault::Key && failure.has_error_body() { CheckResult::Refused } else { CheckResult::Unclear }
}

/// Reads the beginning of a body.
async fn read<R: Body>(body: R) -> Bytes {
    let (mut body, mut read) = (pin!(body), CappedRead::new(MAX_READ));
    // A body that fails is judged by its beginning, too.
    let _ = poll_fn(|cx| read.poll(cx, body.as_mut())).await;
    read.into_bytes()
}
