//! The breaker of a request: from a short list of recent requests, or by reading the request.

use http::{Method, Request, Uri};

use super::{CircuitBreakers, breaker::Breaker, breakers::Scoping};
use crate::{
    bounded::MAX_NAME,
    call::{Call, ServiceTier, Shape},
    context::CallRef,
    recent::{Held, Recent},
};

/// Recent requests and their breakers.
///
/// Comparing two paths costs less than reading one.
pub(super) type RecentBreakers = Recent<SameRequests, Breaker>;

/// The requests that have the same breaker as one that has been read.
pub(super) enum SameRequests {
    /// Those with this method, path and authority, whose call no layer outside has read.
    ByUri(Method, Box<str>, Box<str>),
    /// Those whose call has been read by a layer outside, by model, tier and authority.
    ByCall(Box<str>, ServiceTier, Box<str>),
    /// All of them: one breaker for every call.
    All,
}

impl CircuitBreakers {
    /// Returns the breaker that decides on a request. `None`: only the program's function can name it, which reads the
    /// request's [parts](Self::named_breaker_of).
    #[inline]
    pub(super) fn breaker_of<B>(&self, request: &Request<B>) -> Option<Held<Breaker>> {
        let call = CallRef::known_of(request);
        let known = self.recent().find(|requests, _| requests.include(request, call));
        known.or_else(|| self.read_breaker_of(request))
    }

    /// Returns the breaker whose scope the program's function names, and the request.
    pub(super) fn named_breaker_of<B>(&self, request: Request<B>) -> (Held<Breaker>, Request<B>) {
        let (parts, body) = request.into_parts();
        let breaker = match self.scoping() {
            Scoping::By(scope) => {
                let scope = scope(&parts);
                self.breaker(scope.model(), scope.endpoint())
            }
            Scoping::One | Scoping::ModelAndEndpoint => self.breaker("", ""),
        };
        (Held::new(breaker), Request::from_parts(parts, body))
    }

    #[cold]
    fn read_breaker_of<B>(&self, request: &Request<B>) -> Option<Held<Breaker>> {
        let authority = authority(request.uri());
        let endpoint = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (requests, breaker) = match self.scoping() {
            Scoping::By(_) => return None,
            Scoping::One => (SameRequests::All, self.breaker("", "")),
            Scoping::ModelAndEndpoint => {
                let call = CallRef::of(request);
                let (model, tier) = capacity_of(call.shape(), call.quota_name());
                let requests = if call.is_known() {
                    SameRequests::ByCall(model.into(), tier, authority.into())
                } else {
                    SameRequests::ByUri(request.method().clone(), request.uri().path().into(), authority.into())
                };
                (requests, self.breaker(&tier.of_model(model), endpoint))
            }
        };
        // Credentials in an authority are not kept, nor are paths that callers make long. The shared breaker is that of
        // its requests only while there is no room for one of their own.
        let has_credentials = endpoint.len() < authority.len();
        let is_long = matches!(&requests, SameRequests::ByUri(_, path, _) if path.len() > MAX_NAME);
        let is_kept = !has_credentials && !is_long && !self.is_shared(&breaker);
        Some(if is_kept { self.recent().insert(requests, breaker) } else { Held::new(breaker) })
    }
}

impl SameRequests {
    /// Returns whether they include a request whose call a layer outside has read, or has not.
    #[inline]
    fn include<B>(&self, request: &Request<B>, call: Option<&Call>) -> bool {
        match (self, call) {
            (Self::ByUri(method, path, at), None) => {
                **path == *request.uri().path() && **at == *authority(request.uri()) && method == request.method()
            }
            (Self::ByCall(model, tier, at), Some(call)) => {
                (&**model, *tier) == capacity_of(call.shape(), call.quota_name()) && **at == *authority(request.uri())
            }
            (Self::All, _) => true,
            _ => false,
        }
    }
}

/// Returns the model and the tier whose capacity decides on the call, or an empty name. A model without capacity still
/// counts tokens, so that an answer to that must not close its breaker.
fn capacity_of(shape: Shape, model: Option<&str>) -> (&str, ServiceTier) {
    (model.filter(|_| shape.pays_quota()).unwrap_or_default(), shape.tier)
}

/// Returns host and port, with any credentials before them.
#[inline]
fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}
