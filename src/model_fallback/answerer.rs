//! The models of a chain that can answer a request: any, or only the one that its resources are of.

use http::{Request, header::CONTENT_ENCODING};

use super::chains::Chain;
use crate::{
    call::ServiceTier,
    resource::{Mention, Mentions, Resource},
};

/// The models that can answer a request.
pub(super) enum Answerer {
    /// Only this one.
    To(usize),
    /// Any. `names_nothing`: its body names no resource.
    Any { names_nothing: bool },
}

impl Answerer {
    /// Finds the model that alone can answer the request, if there is only one: the one that has given what it goes on
    /// from, or else the one that is asked for.
    pub(super) fn of<B>(chain: &Chain, tier: ServiceTier, request: &Request<B>, body: &[u8]) -> Self {
        let encoding = request.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
            || Resource::in_uri(request.uri()).is_some()
        {
            return Self::To(0);
        }
        let (mut names_nothing, mut is_pinned) = (true, false);
        for Mention { resource, is_certain } in Mentions::new(body) {
            names_nothing = false;
            if !is_certain && !resource.is_continuation() {
                continue;
            }
            if resource.is_passing()
                && let Some(origin) = chain.origin(&resource)
                && let Some(at) = chain.position(tier, &origin)
            {
                return Self::To(at);
            }
            is_pinned = true;
        }
        if is_pinned { Self::To(0) } else { Self::Any { names_nothing } }
    }
}
