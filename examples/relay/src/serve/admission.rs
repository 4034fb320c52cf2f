//! Admission: the callers' tokens, models and priorities, the number of their calls at a time, and the calls that a relay
//! cannot serve.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use axum::{body::Body, extract::Request};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{AUTHORIZATION, HOST, ORIGIN},
};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tower::{BoxError, Service, ServiceExt, service_fn};
use tower_gemini::{
    CallContext, clock,
    replay::{Oversize, ReplayLayer, ReplayMemory},
    stack::Gemini,
};

use crate::{
    config::{Access, Origins, Token},
    serve::{
        always_ready::AlwaysReady,
        body_timeout::{elapsed_limit, with_timeout},
        headers,
        held::{AtEnd, HoldingBody},
        known::{Known, forward, mark},
        live::{self, LiveApi},
        owners::Separation,
        path::{decoded, has_dots},
        peer::Peer,
        refusal::{full, refusal},
        transport::Transport,
        unread::AnswersUnderWay,
        uploads::{self, SignedAddress, Uploads},
    },
    show::CallNews,
};

/// The most credentials of one request that are looked at; SDKs bring two.
const MOST_CREDENTIALS: usize = 16;

/// The rules, and the calls under way.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    rules: Arc<Access>,
    /// It reads the bodies of calls whose model stands there, for callers that may not use every model.
    reader: ReplayLayer,
    callers: CallsByCaller,
    uploads: Arc<Uploads>,
    /// Who has made which file, cache and batch.
    separation: Separation,
    slots: Option<Arc<Semaphore>>,
    queue: Arc<Semaphore>,
}

/// The number of calls that each caller has under way; a caller without any is not in it.
type CallsByCaller = Arc<Mutex<HashMap<Caller, usize>>>;

/// A caller, as its calls are counted: by its name, or else its token, or else its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Caller {
    Named(Arc<str>),
    Token(Token),
    Address(Option<IpAddr>),
}

impl Caller {
    fn of(known: &Known) -> Self {
        if known.rules.is_named { Self::Named(known.rules.name.clone()) } else { Self::Token(known.token) }
    }
}

impl Admission {
    /// Takes these rules. The calls of the admission before are still counted for each caller; in all they are counted
    /// only if the limits are the same, so that for a while after a change there can be as many old calls as new ones.
    ///
    /// The addresses of uploads are signed with `keys`, the relay's own, which no caller knows. `max_body` is the most
    /// bytes of a body that are read for the model's name, and kept in `memory` meanwhile.
    pub(crate) fn new<'a>(
        rules: Access,
        max_body: usize,
        memory: ReplayMemory,
        keys: impl Iterator<Item = &'a str>,
        before: Option<&Self>,
    ) -> Self {
        let reader = ReplayLayer::new().max_body(max_body).oversize(Oversize::Refuse).keep_in(memory);
        let semaphore = |limit: usize| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        let callers = before.map(|before| before.callers.clone()).unwrap_or_default();
        let uploads = Arc::new(Uploads::new(keys, before.map(|before| &*before.uploads), Instant::now()));
        let separation = before.map(|before| before.separation.clone()).unwrap_or_default();
        match before.filter(|before| before.rules.total == rules.total && before.rules.queued == rules.queued) {
            Some(before) => Self { rules: Arc::new(rules), reader, callers, uploads, ..before.clone() },
            None => {
                let (slots, queue) = (rules.total.map(semaphore), semaphore(rules.queued));
                Self { rules: Arc::new(rules), reader, callers, uploads, separation, slots, queue }
            }
        }
    }

    /// Returns the memory of who has made what.
    pub(crate) fn separation(&self) -> &Separation {
        &self.separation
    }

    /// Lets a call through to `inner`, or refuses it. The call keeps its place until its answer has ended.
    ///
    /// The request is judged before the future is made, and not in it: the future then keeps one copy of the request.
    fn pass(
        self: Arc<Self>,
        mut request: Request,
        mut inner: AlwaysReady<Body>,
    ) -> impl Future<Output = Result<Response<Body>, BoxError>> + Send {
        let entered = self.enter(&mut request);
        async move {
            let Entered { known, of_caller, under_way, news } = entered?;
            let slot = match self.free_slot() {
                Some(slot) => slot,
                None => Box::pin(self.awaited_slot()).await?,
            };
            let place = Place { taken: Some((of_caller, slot)), news };
            // The futures of calls that are read are in a box, so that those of all others are small.
            let answer = match &known {
                Some(caller) if self.rules.separate => {
                    let (of_caller, reader) = (self.separation.of(caller), self.reader.clone());
                    let inner = service_fn(move |request| of_caller.clone().pass(request, &reader, inner.clone()));
                    Box::pin(forward(request, caller.clone(), self.reader.clone(), inner)).await
                }
                Some(caller) if caller.rules.is_bounded() => {
                    Box::pin(forward(request, caller.clone(), self.reader.clone(), inner)).await
                }
                _ => inner.call(request).await,
            };
            let mut response = answer.map_err(|error| match elapsed_limit(&*error) {
                Some(limit) => {
                    let message = format!("nothing more of the request's body came for {limit:?}; send it again");
                    refusal(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", &message)
                }
                None => error,
            })?;
            if let Some(Known { token, .. }) = known {
                self.uploads.sign(response.headers_mut(), &token, clock::wall());
            }
            Ok(response.map(|body| {
                let body = Body::new(HoldingBody::new(body, place));
                match under_way {
                    Some(under_way) => under_way.with_read_timeout(body),
                    None => body,
                }
            }))
        }
    }

    /// Judges a request, and writes into it who makes the call.
    fn enter(&self, request: &mut Request) -> Result<Entered, BoxError> {
        let address = self.uploads.read(request.uri());
        let peer: Option<Peer> = request.extensions_mut().remove();
        let (known, of_caller) = self.judge(request, peer.as_ref(), address.as_ref())?;
        if let Some(address) = address {
            *request.uri_mut() = address.uri;
        }
        mark(request, known.as_ref())?;
        if let (None, Some(peer)) = (&known, &peer) {
            CallContext::update(request.extensions_mut(), |context| context.set_caller(peer.name.clone()));
        }
        with_timeout(request, self.rules.body_timeout);
        let news = request.extensions_mut().remove().unwrap_or_default();
        Ok(Entered { known, of_caller, under_way: peer.map(|peer| peer.under_way), news })
    }

    /// Judges a request that has come to `address`, if it is a signed one. Returns its caller, if it is known, and the
    /// place of the call among those of that caller.
    fn judge(
        &self,
        request: &Request,
        peer: Option<&Peer>,
        address: Option<&SignedAddress>,
    ) -> Result<(Option<Known>, CallerPlace), BoxError> {
        headers::check(request)?;
        if let Some(origin) = self.strange_page(request) {
            let message = Origins::refusal_of(origin.as_bytes());
            return Err(refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", &message));
        }
        let known = self.known(request, address)?;
        if let Some(known) = &known {
            known.sign(request);
        }
        if has_dots(request.uri().path()) {
            let message =
                "the path has a segment of dots, . or .., and would lead elsewhere than it seems; leave it out";
            return Err(refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message));
        }
        if request.extensions().get::<LiveApi>().is_some() {
            return Err(refusal(StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED", live::REFUSAL));
        }
        let caller = known.as_ref().map_or_else(|| Caller::Address(peer.map(|peer| peer.address)), Caller::of);
        Ok((known, self.caller_place(caller)?))
    }

    /// Returns the origin of a page of another site that may not call. No preflight comes before a POST of plain text, and
    /// without tokens it would be let in; that its page cannot read the answer saves no quota. A page behind the same
    /// proxy as the relay is of its site.
    fn strange_page<'a>(&self, request: &'a Request) -> Option<&'a HeaderValue> {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        if reads || !self.rules.callers.is_empty() {
            return None;
        }
        let origin = request.headers().get(ORIGIN).filter(|origin| !self.rules.origins.allow(origin.as_bytes()))?;
        let is_own = match request.headers().get("sec-fetch-site") {
            Some(site) => site == "same-origin" || site == "none",
            // Browsers say it only to addresses that they trust, as those with TLS and loopback.
            None => is_of(origin, request),
        };
        (!is_own).then_some(origin)
    }

    /// Identifies the caller by its token, or refuses it. `address` is the signed one at which the request came, if it
    /// was. Where no token is wanted, nobody is known.
    fn known(&self, request: &Request, address: Option<&SignedAddress>) -> Result<Option<Known>, BoxError> {
        let callers = &self.rules.callers;
        if callers.is_empty() {
            return Ok(None);
        }
        let known = |token: &Token| Some(Known { token: *token, rules: callers.of(token)?.clone() });
        let brought: Vec<_> = credentials(request).into_iter().map(Token::of).collect();
        if let Some(known) = brought.iter().find_map(known) {
            return Ok(Some(known));
        }
        if brought.is_empty()
            && let Some(address) = address.filter(|address| address.admits(request, clock::wall()))
            && let Some(known) = callers.tokens().find(|token| address.is_for(token)).and_then(known)
        {
            return Ok(Some(known));
        }
        let mistake = match (brought.is_empty(), uploads::goes_on(request)) {
            (false, _) => "the one that came is not known",
            (true, true) => "the address of an upload admits its parts only as it was handed out, and for a day",
            (true, false) => "none came with the request",
        };
        Err(refusal(
            StatusCode::UNAUTHORIZED,
            "UNAUTHENTICATED",
            &format!(
                "this relay wants a token of its own, and {mistake}: bring one as the API key (x-goog-api-key, \
                 Authorization: Bearer, or ?key=)"
            ),
        ))
    }

    fn caller_place(&self, caller: Caller) -> Result<CallerPlace, BoxError> {
        let mut callers = self.callers.lock();
        let inside = callers.get(&caller).copied().unwrap_or(0);
        if let Some(limit) = self.rules.per_caller.filter(|limit| inside >= *limit) {
            // The time to try again is added outside.
            let message = format!("{inside} of your {limit} calls at a time are under way");
            return Err(full(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", &message));
        }
        callers.insert(caller.clone(), inside + 1);
        Ok(CallerPlace { caller, callers: self.callers.clone() })
    }

    /// Takes one of the slots of all calls. `None`: all are taken; `Some(None)`: calls are not limited.
    fn free_slot(&self) -> Option<Option<OwnedSemaphorePermit>> {
        match &self.slots {
            Some(slots) => slots.clone().try_acquire_owned().ok().map(Some),
            None => Some(None),
        }
    }

    /// Waits for one of the slots.
    async fn awaited_slot(&self) -> Result<Option<OwnedSemaphorePermit>, BoxError> {
        let (Some(slots), Some(limit)) = (&self.slots, self.rules.total) else { return Ok(None) };
        let busy = |message: String| full(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", &message);
        let Ok(_waits) = self.queue.try_acquire() else {
            let queued = self.rules.queued;
            return Err(busy(format!("the relay is full: {limit} calls are under way and {queued} wait")));
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

/// Makes the service that lets calls through to `layers`.
pub(crate) fn admit(admission: Arc<Admission>, layers: Gemini<Transport>) -> AlwaysReady<Body> {
    let layers = AlwaysReady::around(layers.map_response(|answer: Response<_>| answer.map(Body::new)));
    AlwaysReady::new(move |request| admission.clone().pass(request, layers.clone()))
}

/// A call that has entered, and has no slot yet.
struct Entered {
    known: Option<Known>,
    of_caller: CallerPlace,
    under_way: Option<AnswersUnderWay>,
    news: CallNews,
}

/// The place of a call, taken until its answer has ended. That of one that has failed is free before its last words are
/// out, so that a caller that reads them can call again.
struct Place {
    taken: Option<(CallerPlace, Option<OwnedSemaphorePermit>)>,
    news: CallNews,
}

impl AtEnd for Place {
    fn ended(&mut self) {
        self.taken = None;
        self.news.set_ended();
    }

    fn failed(&mut self) {
        self.ended();
    }
}

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

/// Returns whether an origin is that of the address to which a request was sent.
pub(crate) fn is_of(origin: &HeaderValue, request: &Request) -> bool {
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let host = request.uri().authority().map(|authority| authority.as_str().as_bytes()).or(host);
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, authority)| host.is_some_and(|host| authority.as_bytes().eq_ignore_ascii_case(host)))
}

/// Returns what could be a token, from all places where SDKs put keys.
fn credentials(request: &Request) -> Vec<Vec<u8>> {
    let headers: &HeaderMap = request.headers();
    let keys = headers.get_all("x-goog-api-key").iter().map(HeaderValue::as_bytes);
    let bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    });
    let query = request.uri().query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.strip_prefix("key="));
    let all = keys.chain(bearers).map(<[u8]>::to_vec).chain(pairs.map(decoded));
    all.filter(|credential| !credential.is_empty()).take(MOST_CREDENTIALS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_the_credentials_of_one_request_are_looked_at() {
        let request = Request::get(format!("/v1beta/models?{}", "key=a&".repeat(10_000)));
        let request = request.header("x-goog-api-key", "token").body(Body::empty()).unwrap();
        let credentials = credentials(&request);
        assert_eq!((&credentials[0][..], credentials.len()), (&b"token"[..], MOST_CREDENTIALS));
    }
}
