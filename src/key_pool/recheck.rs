//! Looks whether disabled keys are good again.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use http::{HeaderValue, Request, Response, header::ACCEPT_ENCODING};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use super::{
    KeyPool,
    health::CheckResult,
    pool::{Shared, tell_enabled},
    registry::PooledKey,
};
use crate::{
    call::Surface,
    context::{BoxError, Outcome},
    failure::{Failure, Fault},
};

/// What is asked with the key: any good one may.
const LOOK: &str = "/v1beta/models?pageSize=1";

/// The most that one look may take.
const MAX_TIME: Duration = Duration::from_secs(30);

/// The most of a refusal that is read.
const MAX_READ: usize = 64 * 1024;

impl KeyPool {
    /// Looks at disabled keys for ever: each is tried with `GET /v1beta/models?pageSize=1`, first after a minute (5 min where
    /// it was leaked, suspended or banned), then after twice as long each time, up to 6 h. One that is answered serves
    /// again. One that was disabled by hand is not looked at; nor does a caller's call ever try one.
    ///
    /// Spawn it: the crate spawns nothing itself. The service is the transport, or what stands around it below this layer;
    /// it adds the host, and no credentials. It sleeps until the next look is due.
    ///
    /// # Cancellation
    ///
    /// Drop it at any time. It holds the pool, and no readiness of the service's, while it sleeps.
    pub fn recheck<S, B, R>(&self, service: S) -> impl Future<Output = Infallible> + use<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Default,
        R: Body,
    {
        let shared = self.shared.clone();
        async move {
            loop {
                let (at, key) = match next(&shared) {
                    Some(next) => next,
                    None => {
                        shared.disabled.notified().await;
                        continue;
                    }
                };
                // Whoever is disabled meanwhile may be due before.
                if at > Instant::now() && timeout_at(at, shared.disabled.notified()).await.is_ok() {
                    continue;
                }
                // A clone each time: a readiness that was never used goes with it.
                let found = timeout(MAX_TIME, look(service.clone(), &key)).await.unwrap_or(CheckResult::Unclear);
                tell(&shared, &key, found);
            }
        }
    }
}

/// The key that is to be looked at next, and when.
fn next(shared: &Shared) -> Option<(Instant, Arc<PooledKey>)> {
    let registry = shared.registry.lock();
    let due = registry.entries().filter_map(|entry| Some((entry.health.check_at()?, &entry.key)));
    due.min_by_key(|(at, _)| *at).map(|(at, key)| (at, key.clone()))
}

fn tell(shared: &Shared, key: &Arc<PooledKey>, found: CheckResult) {
    let mut registry = shared.registry.lock();
    let Some(entry) = registry.entry(key) else { return };
    let serves = entry.change(|health| health.checked(found, Instant::now()));
    if let Some(project) = registry.project(&key.project) {
        project.note();
    }
    drop(registry);
    if serves {
        tell_enabled(key);
    }
}

async fn look<S, B, R>(mut service: S, key: &PooledKey) -> CheckResult
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Default,
    R: Body,
{
    let Some((name, value)) = key.signer.header(Surface::Developer) else { return CheckResult::Unclear };
    // What is compressed could not be read.
    let request = Request::get(LOOK).header(ACCEPT_ENCODING, HeaderValue::from_static("identity")).header(name, value);
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
        Some(judged) => judged.clone(),
        None => Failure::from_response(head.status, &head.headers, &read(body).await),
    };
    // A proxy on the way knows no keys.
    if failure.fault() == Fault::Key && failure.has_error_body() { CheckResult::Refused } else { CheckResult::Unclear }
}

/// The beginning of a body.
async fn read<R: Body>(body: R) -> BytesMut {
    let (mut body, mut read) = (pin!(body), BytesMut::new());
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            let fits = data.remaining().min(MAX_READ - read.len());
            read.put(data.take(fits));
        }
        if read.len() == MAX_READ {
            break;
        }
    }
    read
}
