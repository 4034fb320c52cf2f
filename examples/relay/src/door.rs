//! Who comes in: with which token, how many at a time, and with what the relay cannot do.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::AUTHORIZATION};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tower::{BoxError, Service, ServiceExt};
use tower_gemini::{Error, failure::Failure};

use crate::{
    held::{AtEnd, Held},
    live::LiveApi,
    server::Peer,
    slow,
    unread::unless_read,
};

/// The name of this part in what callers are told.
pub(crate) const NAME: &str = "relay";

/// When it makes sense to come again to a relay that is full: answers take seconds.
const AGAIN: Duration = Duration::from_secs(1);

/// What is allowed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// Of each token, its digest. None: whoever comes.
    pub(crate) tokens: Vec<Token>,
    pub(crate) per_caller: Option<usize>,
    pub(crate) in_all: Option<usize>,
    pub(crate) queued: usize,
    /// The longest wait in the queue.
    pub(crate) wait: Duration,
    /// How long a request's body may be silent.
    pub(crate) body_timeout: Duration,
    /// How long a caller may leave an answer unread.
    pub(crate) unread_timeout: Duration,
}

/// What is kept of a token. Digests are compared, not tokens: how much of two digests agrees, which is all that the time of
/// a comparison can tell, says nothing of a token that is not known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token([u8; 32]);

impl Token {
    pub(crate) fn of(token: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// The rules, and who is inside.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    rules: Arc<Rules>,
    callers: Callers,
    slots: Option<Arc<Semaphore>>,
    queue: Arc<Semaphore>,
}

/// How many calls each caller has under way; nobody without any is in it.
type Callers = Arc<Mutex<HashMap<Caller, usize>>>;

/// By token, or else by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Caller {
    Token(Token),
    Address(Option<IpAddr>),
}

impl Door {
    /// A door with these rules. Those inside of the one before go on being counted; in all only as long as their number is
    /// the same, so that after a change there can be as many of the old calls as there are new ones.
    pub(crate) fn new(rules: Rules, before: Option<&Self>) -> Self {
        let slots = |limit: usize| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        let callers = before.map(|before| before.callers.clone()).unwrap_or_default();
        match before.filter(|before| before.rules.in_all == rules.in_all && before.rules.queued == rules.queued) {
            Some(before) => Self { rules: Arc::new(rules), callers, ..before.clone() },
            None => {
                let (in_all, queue) = (rules.in_all.map(slots), slots(rules.queued));
                Self { rules: Arc::new(rules), callers, slots: in_all, queue }
            }
        }
    }

    /// A call on its way through.
    pub(crate) async fn pass<S, R>(self, request: Request, inner: S) -> Result<Response<Body>, BoxError>
    where
        S: Service<Request, Response = Response<R>, Error = BoxError>,
        R: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let own = self.enter(&request)?;
        let place = Place { _own: own, _slot: self.slot().await? };
        let request = slow::hurry(request, self.rules.body_timeout);
        let response = inner.oneshot(request).await.map_err(|error| match slow::limit(&*error) {
            Some(limit) => {
                let message = format!("nothing more of the request's body came for {limit:?}; send it again");
                refusal(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", &message)
            }
            None => error,
        })?;
        let unread = self.rules.unread_timeout;
        Ok(response.map(|body| unless_read(Body::new(Held::new(Body::new(body), place)), unread)))
    }

    fn enter(&self, request: &Request) -> Result<OwnPlace, BoxError> {
        let caller = self.caller(request)?;
        if request.extensions().get::<LiveApi>().is_some() {
            return Err(refusal(
                StatusCode::NOT_IMPLEMENTED,
                "UNIMPLEMENTED",
                "the Live API (BidiGenerateContent, a WebSocket) does not go through this relay: connect to Google \
                 directly, or use generateContent or streamGenerateContent here",
            ));
        }
        self.own_place(caller)
    }

    /// Who it is, if it may come in.
    fn caller(&self, request: &Request) -> Result<Caller, BoxError> {
        if self.rules.tokens.is_empty() {
            let peer = request.extensions().get::<Peer>();
            return Ok(Caller::Address(peer.map(|Peer(address)| address.ip().to_canonical())));
        }
        let brought: Vec<_> = credentials(request).into_iter().map(Token::of).collect();
        if let Some(token) = brought.iter().find(|token| self.rules.tokens.contains(token)) {
            return Ok(Caller::Token(*token));
        }
        let what = if brought.is_empty() { "none came with the request" } else { "the one that came is not known" };
        Err(refusal(
            StatusCode::UNAUTHORIZED,
            "UNAUTHENTICATED",
            &format!(
                "this relay wants a token of its own, and {what}: bring it as the API key (x-goog-api-key, \
                 Authorization: Bearer, or ?key=)"
            ),
        ))
    }

    fn own_place(&self, caller: Caller) -> Result<OwnPlace, BoxError> {
        let mut callers = self.callers.lock();
        let inside = callers.get(&caller).copied().unwrap_or(0);
        if let Some(limit) = self.rules.per_caller.filter(|limit| inside >= *limit) {
            let message =
                format!("{inside} calls of yours are under way, of at most {limit}: come again when one has ended");
            return Err(full(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", &message));
        }
        callers.insert(caller, inside + 1);
        Ok(OwnPlace { caller, callers: self.callers.clone() })
    }

    async fn slot(&self) -> Result<Option<OwnedSemaphorePermit>, BoxError> {
        let (Some(slots), Some(limit)) = (&self.slots, self.rules.in_all) else { return Ok(None) };
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return Ok(Some(slot));
        }
        let busy = |what: String| full(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", &what);
        let Ok(_waits) = self.queue.try_acquire() else {
            let queued = self.rules.queued;
            return Err(busy(format!("the relay is full: {limit} calls are under way and {queued} wait; come again")));
        };
        match timeout(self.rules.wait, slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Some(slot)),
            // Nobody closes them; and whoever has waited for so long has no time left for an answer.
            _ => Err(busy(format!("the relay is full: waited {:?} for one of {limit} calls to end", self.rules.wait))),
        }
    }
}

/// A call's place, until its answer has ended.
struct Place {
    _own: OwnPlace,
    _slot: Option<OwnedSemaphorePermit>,
}

impl AtEnd for Place {}

struct OwnPlace {
    caller: Caller,
    callers: Callers,
}

impl Drop for OwnPlace {
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

/// Whatever could be a token, where SDKs put keys.
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

/// A value of a query, as it was before it was escaped.
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

/// An error of the relay's own, in Google's words; the layer outside of it puts it into the caller's envelope.
fn refusal(code: StatusCode, status: &str, message: &str) -> BoxError {
    Error::refusal(NAME, failure(code, status, message)).into()
}

/// The same, where coming again will help.
fn full(code: StatusCode, status: &str, message: &str) -> BoxError {
    Error::refusal(NAME, failure(code, status, message).with_hint(AGAIN)).into()
}

fn failure(code: StatusCode, status: &str, message: &str) -> Failure {
    let error = json!({ "error": { "code": code.as_u16(), "status": status, "message": message } });
    Failure::from_response(code, &HeaderMap::new(), error.to_string().as_bytes())
}
