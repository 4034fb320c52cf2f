//! One request on its way through the checks, and the two simplest responses to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::request::Parts;

use crate::{
    call::{Call, Operation, ServiceTier, Streaming, Surface},
    emulator::{
        script::{
            plan::{BodyPlan, EVENTS, JSON, ResponsePlan},
            trouble::Trouble,
            trouble_kind::TroubleKind,
        },
        state::{shared::Shared, visit_guard::VisitGuard},
        wire::{
            errors::{ApiError, ErrorEnvelope},
            path::is_on_vertex,
            quota_names::QuotaNames,
        },
    },
};

/// A request on its way through the checks.
pub(super) struct Exchange<'a> {
    pub(super) guard: &'a VisitGuard,
    pub(super) shared: &'a Shared,
    pub(super) head: &'a Parts,
    pub(super) call: &'a Call,
    /// The dialect of errors: that of the Interactions API, or that of the surface.
    pub(super) is_coded: bool,
    pub(super) creates_interaction: bool,
    pub(super) streaming: Streaming,
    /// The model that is called, or the agent, as `agents/NAME`.
    pub(super) called: Option<&'a str>,
    /// The tier of service that the request asks for.
    pub(super) tier: Option<ServiceTier>,
    pub(super) is_grounded: bool,
    /// The pause before a reset in which earlier bytes are sent; `None` in process.
    pub(super) linger: Option<Duration>,
}

/// The caller, once its credential was accepted.
pub(super) struct ApiCaller<'a> {
    pub(super) project: Arc<str>,
    pub(super) key: Option<&'a str>,
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Plans an error of the API, `after` a time or the time until any headers, whichever is longer.
    pub(super) fn refuse(&self, error: &ApiError, after: Duration) -> ResponsePlan {
        let (surface, streaming) = (self.surface(), self.streaming);
        let envelope = match (surface, streaming) {
            (_, Streaming::Sse) if self.is_coded => ErrorEnvelope::CodedEvent,
            _ if self.is_coded => ErrorEnvelope::Coded,
            (Surface::OpenAi, _) | (_, Streaming::Array) => ErrorEnvelope::Array,
            _ => ErrorEnvelope::Object,
        };
        let streaming = if self.is_coded && error.is_of_front_end() { Streaming::No } else { streaming };
        let content_type = match (surface, streaming) {
            (Surface::OpenAi, _) | (_, Streaming::No | Streaming::Array) => JSON,
            (_, Streaming::Sse) => EVENTS,
        };
        ResponsePlan::error(after.max(self.shared.settings.before_headers), error, envelope, content_type)
    }

    /// Plans an answer in one piece `after` a time, with the trouble that such an answer can have.
    pub(super) fn whole(&self, body: Bytes, after: Duration, trouble: Option<&Trouble>) -> ResponsePlan {
        let mut body = BodyPlan::whole(body);
        let mut after = after.saturating_add(trouble.map_or(Duration::ZERO, |trouble| trouble.delay));
        match trouble.map(|trouble| &trouble.kind) {
            Some(TroubleKind::SlowFirstToken(delay)) => after = after.saturating_add(*delay),
            Some(TroubleKind::Break { after, how }) => body = body.broken(*after, *how),
            _ => {}
        }
        ResponsePlan::answer(after, JSON, body.shaped(trouble, false, self.linger))
    }

    /// Returns the surface that was called; that of an interaction is the one of its host.
    pub(super) fn surface(&self) -> Surface {
        match self.call.surface() {
            Surface::Interactions if is_on_vertex(self.head.uri.path()) => Surface::Vertex,
            Surface::Interactions => Surface::Developer,
            surface => surface,
        }
    }

    /// Returns the names of a model's or agent's quotas for this call.
    pub(super) fn quota_names<'a>(&self, model: &'a str) -> QuotaNames<'a> {
        let embeds = matches!(self.call.operation(), Operation::EmbedContent | Operation::BatchEmbedContents);
        QuotaNames { model, embeds, paid: self.shared.settings.paid }
    }
}
