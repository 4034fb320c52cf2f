//! Where a call belongs: its breaker, and how the next call is known to belong there too.

use std::{borrow::Cow, sync::Arc};

use http::{Method, Request, Uri};

use super::{CircuitBreakers, breaker::Breaker, breakers::Scoping};
use crate::{
    call::{Call, Operation, Shape},
    context::CallContext,
};

/// A breaker, and the request that led to it.
///
/// Most callers ask for the same again, and to compare two paths costs less than to read one. Each clone of a service has a
/// cached of its own, so that two threads that share a breaker do not write to the same counter with every call.
#[derive(Debug)]
pub(super) struct CachedBreaker {
    pub(super) breakers: CircuitBreakers,
    pub(super) breaker: Arc<Breaker>,
    led_by: LedBy,
}

#[derive(Clone, Debug)]
enum LedBy {
    /// Method, path and authority.
    Uri(Method, Box<str>, Box<str>),
    /// The model, as a room outside has read it, and the authority.
    Call(Box<str>, Box<str>),
    /// Whatever is asked.
    Anything,
    /// Each request is looked at: only the user's function knows, or the authority has credentials in it, or there was no
    /// room for a breaker of its own, and there may be by now.
    Unknown,
}

impl CachedBreaker {
    pub(super) fn of<B>(breakers: &CircuitBreakers, request: Request<B>) -> (Self, Request<B>) {
        let (uri, authority) = (request.uri(), authority(request.uri()));
        let endpoint = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (led_by, breaker) = match (breakers.scoping(), call_of(&request)) {
            (Scoping::One, _) => (LedBy::Anything, breakers.breaker("", "")),
            (Scoping::By(scope), _) => {
                let (parts, body) = request.into_parts();
                let scope = scope(&parts);
                let breaker = breakers.breaker(scope.model(), scope.endpoint());
                let cached = Self { breakers: breakers.clone(), breaker, led_by: LedBy::Unknown };
                return (cached, Request::from_parts(parts, body));
            }
            (Scoping::ModelAndEndpoint, Some(call)) => {
                let model = capacity_of(call.shape(), call.model());
                (LedBy::Call(model.into(), authority.into()), breakers.breaker(model, endpoint))
            }
            (Scoping::ModelAndEndpoint, None) => {
                let (shape, model): (_, Option<Cow<'_, str>>) = Call::borrowed(request.method(), uri);
                let breaker = breakers.breaker(capacity_of(shape, model.as_deref()), endpoint);
                (LedBy::Uri(request.method().clone(), uri.path().into(), authority.into()), breaker)
            }
        };
        let must_look = endpoint.len() < authority.len() || breakers.is_shared(&breaker);
        let led_by = if must_look { LedBy::Unknown } else { led_by };
        (Self { breakers: breakers.clone(), breaker, led_by }, request)
    }

    /// Whether this request belongs here as well. Where only the user's function knows, it does not.
    pub(super) fn takes<B>(&self, request: &Request<B>) -> bool {
        match (&self.led_by, call_of(request)) {
            (LedBy::Uri(method, path, at), None) => {
                **path == *request.uri().path() && **at == *authority(request.uri()) && method == request.method()
            }
            (LedBy::Call(model, at), Some(call)) => {
                **model == *capacity_of(call.shape(), call.model()) && **at == *authority(request.uri())
            }
            (LedBy::Anything, _) => true,
            _ => false,
        }
    }

    /// Whether other requests can be told to belong here.
    pub(super) fn is_known_by_its_requests(&self) -> bool {
        !matches!(self.led_by, LedBy::Unknown)
    }

    /// The same cached, for another clone of the service.
    pub(super) fn another(&self) -> Self {
        Self { breakers: self.breakers.clone(), breaker: self.breaker.clone(), led_by: self.led_by.clone() }
    }
}

fn call_of<B>(request: &Request<B>) -> Option<&Call> {
    CallContext::of(request).and_then(CallContext::call)
}

/// The model whose capacity decides on the call; none where none does. A model without capacity still counts tokens, and so
/// an answer to that must not close its breaker.
fn capacity_of(shape: Shape, model: Option<&str>) -> &str {
    let generates = shape.pays_quota() || shape.operation == Operation::CreateInteraction;
    model.filter(|_| generates).unwrap_or_default()
}

/// Host and port, and what may stand before them.
#[inline]
fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}
