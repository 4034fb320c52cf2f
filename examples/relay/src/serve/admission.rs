//! Admission: the callers' tokens, the number of their calls at a time, and the calls that a relay cannot serve.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::AUTHORIZATION};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tower::{BoxError, Service, ServiceExt};
use tower_gemini::{Error, failure::Failure};

use crate::{
    config::{Access, Token},
    serve::{
        body_timeout::{elapsed_limit, with_timeout},
        held::{AtEnd, HoldingBody},
        live::LiveApi,
        peer::Peer,
        unread::with_read_timeout,
        uploads::Uploads,
    },
};

/// The name of this layer in its errors.
pub(crate) const NAME: &str = "relay";

/// The time after which a caller may try a full relay again: answers take seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The rules, and the calls under way.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    rules: Arc<Access>,
    callers: CallsByCaller,
    uploads: Arc<Mutex<Uploads>>,
    slots: Option<Arc<Semaphore>>,
    queue: Arc<Semaphore>,
}

/// The number of calls that each caller has under way; a caller without any is not in it.
type CallsByCaller = Arc<Mutex<HashMap<Caller, usize>>>;

/// A caller: its token, or else its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Caller {
    Token(Token),
    Address(Option<IpAddr>),
}

impl Admission {
    /// Takes these rules. The calls of the admission before are still counted for each caller; in all they are counted
    /// only if the limits are the same, so that for a while after a change there can be as many old calls as new ones.
    pub(crate) fn new(rules: Access, before: Option<&Self>) -> Self {
        let semaphore = |limit: usize| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        let callers = before.map(|before| before.callers.clone()).unwrap_or_default();
        let uploads = before.map(|before| before.uploads.clone()).unwrap_or_default();
        match before.filter(|before| before.rules.total == rules.total && before.rules.queued == rules.queued) {
            Some(before) => Self { rules: Arc::new(rules), callers, uploads, ..before.clone() },
            None => {
                let (slots, queue) = (rules.total.map(semaphore), semaphore(rules.queued));
                Self { rules: Arc::new(rules), callers, uploads, slots, queue }
            }
        }
    }

    /// Lets a call through to `inner`, or refuses it. The call keeps its place until its answer has ended.
    pub(crate) async fn pass<S, R>(self, request: Request, inner: S) -> Result<Response<Body>, BoxError>
    where
        S: Service<Request, Response = Response<R>, Error = BoxError>,
        R: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let of_caller = self.enter(&request)?;
        let caller = of_caller.caller;
        let place = Place { _of_caller: of_caller, _slot: self.slot().await? };
        let request = with_timeout(request, self.rules.body_timeout);
        let response = inner.oneshot(request).await.map_err(|error| match elapsed_limit(&*error) {
            Some(limit) => {
                let message = format!("nothing more of the request's body came for {limit:?}; send it again");
                refusal(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", &message)
            }
            None => error,
        })?;
        if let Caller::Token(token) = caller {
            self.uploads.lock().hand_out(&response, token, Instant::now());
        }
        let unread = self.rules.unread_timeout;
        Ok(response.map(|body| with_read_timeout(Body::new(HoldingBody::new(Body::new(body), place)), unread)))
    }

    fn enter(&self, request: &Request) -> Result<CallerPlace, BoxError> {
        let caller = self.caller(request)?;
        if request.extensions().get::<LiveApi>().is_some() {
            return Err(refusal(
                StatusCode::NOT_IMPLEMENTED,
                "UNIMPLEMENTED",
                "the Live API (BidiGenerateContent, a WebSocket) does not go through this relay: connect to Google \
                 directly, or use generateContent or streamGenerateContent here",
            ));
        }
        self.caller_place(caller)
    }

    /// Identifies the caller, or refuses it.
    fn caller(&self, request: &Request) -> Result<Caller, BoxError> {
        if self.rules.tokens.is_empty() {
            let peer = request.extensions().get::<Peer>();
            return Ok(Caller::Address(peer.map(|Peer(address)| address.ip().to_canonical())));
        }
        let brought: Vec<_> = credentials(request).into_iter().map(Token::of).collect();
        if let Some(token) = brought.iter().find(|token| self.rules.tokens.contains(token)) {
            return Ok(Caller::Token(*token));
        }
        if brought.is_empty()
            && let Some(token) = self.uploads.lock().caller_of(request, Instant::now())
            && self.rules.tokens.contains(&token)
        {
            return Ok(Caller::Token(token));
        }
        let mistake = if brought.is_empty() { "none came with the request" } else { "the one that came is not known" };
        Err(refusal(
            StatusCode::UNAUTHORIZED,
            "UNAUTHENTICATED",
            &format!(
                "this relay wants a token of its own, and {mistake}: bring it as the API key (x-goog-api-key, \
                 Authorization: Bearer, or ?key=)"
            ),
        ))
    }

    fn caller_place(&self, caller: Caller) -> Result<CallerPlace, BoxError> {
        let mut callers = self.callers.lock();
        let inside = callers.get(&caller).copied().unwrap_or(0);
        if let Some(limit) = self.rules.per_caller.filter(|limit| inside >= *limit) {
            let message =
                format!("{inside} of your {limit} calls at a time are under way: try again when one has ended");
            return Err(full(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", &message));
        }
        callers.insert(caller, inside + 1);
        Ok(CallerPlace { caller, callers: self.callers.clone() })
    }

    async fn slot(&self) -> Result<Option<OwnedSemaphorePermit>, BoxError> {
        let (Some(slots), Some(limit)) = (&self.slots, self.rules.total) else { return Ok(None) };
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return Ok(Some(slot));
        }
        let busy = |message: String| full(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", &message);
        let Ok(_waits) = self.queue.try_acquire() else {
            let queued = self.rules.queued;
            return Err(busy(format!("the relay is full: {limit} calls are under way and {queued} wait; try again")));
        };
        match timeout(self.rules.max_wait, slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Some(slot)),
            // The semaphore is never closed; and a call that has waited for all of its time has none left for an answer.
            _ => Err(busy(format!(
                "the relay is full: waited {:?} for one of {limit} calls to end",
                self.rules.max_wait
            ))),
        }
    }
}

/// The place of a call, taken until its answer has ended.
struct Place {
    _of_caller: CallerPlace,
    _slot: Option<OwnedSemaphorePermit>,
}

impl AtEnd for Place {}

struct CallerPlace {
    caller: Caller,
    callers: CallsByCaller,
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        let mut callers = self.callers.lock();
        if let Some(inside) = callers.get_mut(&self.caller) {
            *inside -= 1;
            if *inside == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

/// Returns everything that could be a token, from all places where SDKs put keys.
fn credentials(request: &Request) -> Vec<Vec<u8>> {
    let headers: &HeaderMap = request.headers();
    let keys = headers.get_all("x-goog-api-key").iter().map(HeaderValue::as_bytes);
    let bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    });
    let query = request.uri().query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.strip_prefix("key="));
    keys.chain(bearers).map(<[u8]>::to_vec).chain(pairs.map(decoded)).collect()
}

/// Decodes the percent escapes of a query's value, as bytes: a token need not be text.
fn decoded(text: &str) -> Vec<u8> {
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [high, low, after @ ..] if *first == b'%' => hex(high).zip(hex(low)).map(|digits| (digits, after)),
            _ => None,
        };
        match escaped {
            Some(((high, low), after)) => {
                decoded.extend(u8::try_from(high << 4 | low));
                rest = after;
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

/// Makes an error of the relay's own, in Google's words; the layer outside puts it into the caller's envelope.
fn refusal(code: StatusCode, status: &str, message: &str) -> BoxError {
    Error::refusal(NAME, failure(code, status, message)).into()
}

/// Makes the same error with the time after which trying again will help.
fn full(code: StatusCode, status: &str, message: &str) -> BoxError {
    Error::refusal(NAME, failure(code, status, message).with_hint(RETRY_AFTER)).into()
}

fn failure(code: StatusCode, status: &str, message: &str) -> Failure {
    let error = json!({ "error": { "code": code.as_u16(), "status": status, "message": message } });
    Failure::from_response(code, &HeaderMap::new(), error.to_string().as_bytes())
}
