//! A request's call, borrowed from its context or else read from its URI.

use std::{borrow::Cow, sync::Arc};

use http::{Method, Request, Uri};

use super::CallContext;
use crate::call::{Call, Operation, Shape, shared_again};

/// A call, as its request shows it: from the [`CallContext`] where a room outside has read the call, else from the URI.
///
/// It borrows from the request, and allocates only where the URI escapes the model's name or puts a collection before
/// it.
#[derive(Clone, Debug)]
pub(crate) struct CallRef<'a> {
    shape: Shape,
    name: Option<Cow<'a, str>>,
    known: Option<&'a Call>,
}

impl<'a> CallRef<'a> {
    /// Reads the call that a request makes.
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        Self::with(CallContext::of(request), request)
    }

    /// Reads the call of a request whose context has been looked up already.
    pub(crate) fn with<B>(context: Option<&'a CallContext>, request: &'a Request<B>) -> Self {
        Self::in_parts(context, request.method(), request.uri())
    }

    /// Reads the call of a request that is in parts.
    pub(crate) fn in_parts(context: Option<&'a CallContext>, method: &Method, uri: &'a Uri) -> Self {
        match context.and_then(CallContext::call) {
            Some(call) => Self { shape: call.shape(), name: call.quota_name().map(Cow::Borrowed), known: Some(call) },
            None => {
                let (shape, name) = Call::borrowed(method, uri);
                Self { shape, name, known: None }
            }
        }
    }

    /// Returns the call that a room outside has read from URI and body, without looking at the URI.
    #[inline]
    pub(crate) fn known_of<B>(request: &'a Request<B>) -> Option<&'a Call> {
        CallContext::of(request).and_then(CallContext::call)
    }

    /// Returns the plain facts of the call.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Returns the operation.
    pub(crate) fn operation(&self) -> Operation {
        self.shape.operation
    }

    /// Returns whether the call spends the quota that is counted a model.
    pub(crate) fn pays_quota(&self) -> bool {
        self.shape.pays_quota()
    }

    /// Returns the model's name. `None` for an interaction with an agent.
    pub(crate) fn model(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| !self.shape.agent)
    }

    /// Returns the name under which quota is counted: the model, or `agents/{agent}`.
    pub(crate) fn quota_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the name under which capacity is known: the quota's name, with the tier where it is not the standard one.
    pub(crate) fn capacity_name(&self) -> Option<Cow<'_, str>> {
        self.quota_name().map(|name| self.shape.tier.of_model(name))
    }

    /// Returns whether a room outside has read the call, its body included, so that there is nothing more to be found.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Returns the name under which quota is counted, shared. `last`, the name that the call before had, is used again
    /// where it is the same.
    pub(crate) fn shared_quota_name(&self, last: Option<Arc<str>>) -> Option<Arc<str>> {
        match self.known {
            Some(call) => call.shared_quota_name(),
            None => Some(shared_again(last, self.quota_name()?)),
        }
    }

    /// Returns the call itself.
    pub(crate) fn to_call(&self) -> Call {
        self.known.cloned().unwrap_or_else(|| Call::from_parts(self.shape, self.quota_name().map(Arc::from)))
    }

    /// Returns the call itself, with what only the body says where no room outside has read it.
    pub(crate) fn to_call_with(&self, body: &[u8]) -> Call {
        if self.is_known() { self.to_call() } else { self.to_call().read_body(body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "/v1beta/openai/chat/completions";

    #[test]
    fn the_context_is_believed_before_the_uri() {
        let mut request = Request::post("/v1beta/models/tuned%2d1:generateContent").body(()).unwrap();
        let call = CallRef::of(&request);
        assert_eq!((call.model(), call.is_known(), call.pays_quota()), (Some("tuned-1"), false, true));
        assert_eq!(call.to_call(), Call::new(request.method(), request.uri()));

        let known = Call::new(request.method(), &CHAT.parse().unwrap()).with_model("m");
        CallContext::update(request.extensions_mut(), |context| context.set_call(known.clone()));
        let call = CallRef::of(&request);
        assert_eq!((call.model(), call.is_known(), call.shape()), (Some("m"), true, known.shape()));
        assert_eq!(call.to_call_with(br#"{"model": "other"}"#), known);
    }

    #[test]
    fn a_body_is_read_where_nobody_has() {
        let request = Request::post(CHAT).body(()).unwrap();
        let call = CallRef::of(&request);
        assert_eq!((call.model(), call.operation()), (None, Operation::GenerateContent));
        assert_eq!(call.to_call_with(br#"{"model": "other"}"#).model(), Some("other"));
    }

    #[test]
    fn a_name_is_shared_with_the_call_before() {
        let request = Request::post("/v1beta/models/m:generateContent").body(()).unwrap();
        let call = CallRef::of(&request);
        let last = call.shared_quota_name(None).unwrap();
        assert!(Arc::ptr_eq(&last, &call.shared_quota_name(Some(last.clone())).unwrap()));
        assert_eq!(call.shared_quota_name(Some("n".into())).as_deref(), Some("m"));
    }
}
