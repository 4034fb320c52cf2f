//! The trouble that strikes a request, and the response if there is no answer for it to alter.

use std::time::Duration;

use super::exchange::{ApiCaller, Exchange};
use crate::{
    call::{Operation, Streaming},
    emulator::{
        script::{
            plan::{BodyPlan, ResponsePlan},
            rules::Stage,
            trouble::Trouble,
            trouble_kind::{ErrorPlace, ScriptedError, TroubleKind},
            when::ScriptFacts,
        },
        state::{keyring::DEFAULT_PROJECT, models::EmulatedModel, shared::State},
        wire::{
            credentials::{KeyHash, RequestCredential},
            decisions::DecisionRequest,
            errors::ApiError,
            quota_names::{ExceededLimit, QuotaNames},
        },
    },
    quota::Dimension,
};

impl Exchange<'_> {
    /// Returns the trouble that strikes at this point, uses it up, and notes it in the journal.
    pub(super) fn strike(&self, stage: Stage, caller: Option<&ApiCaller<'_>>, text: &str) -> Option<Trouble> {
        let credential = RequestCredential::of(&self.head.headers, self.head.uri.query());
        let now = self.shared.elapsed();
        let mut state = self.shared.state.lock();
        let facts = ScriptFacts {
            now,
            path: self.head.uri.path(),
            operation: self.operation(),
            streaming: self.streaming != Streaming::No,
            model: self.called,
            project: caller.map(|caller| &*caller.project),
            key: credential.secret().map(KeyHash::of),
            prompt: text,
            tier: self.tier.unwrap_or_default(),
            is_grounded: self.is_grounded,
            in_flight: state.journal.in_flight(),
        };
        let State { script, rng, .. } = &mut *state;
        let struck = script.strike(stage, &facts, rng)?;
        drop(state);
        let name = Some(struck.name()).filter(|name| *name != "none");
        self.guard.write(|visit| visit.trouble = name);
        Some(struck)
    }

    /// Plans the response of a trouble that leaves no answer; `None` if the trouble needs an answer to alter.
    pub(super) fn unanswered(
        &self,
        trouble: &Trouble,
        caller: Option<&ApiCaller<'_>>,
        model: Option<&EmulatedModel>,
    ) -> Option<ResponsePlan> {
        let after = self.shared.settings.before_headers.saturating_add(trouble.delay);
        match &trouble.kind {
            TroubleKind::Hang => Some(ResponsePlan::Hang),
            TroubleKind::Reset => Some(ResponsePlan::Reset { after }),
            TroubleKind::Response(response) => Some(ResponsePlan::Answer {
                after,
                status: response.status,
                headers: response.headers.clone(),
                body: BodyPlan::whole(response.body.clone()).shaped(Some(trouble), false, self.linger),
            }),
            TroubleKind::Error { error, hint, place } => {
                let is_in_stream = *place != ErrorPlace::Status && self.streaming != Streaming::No;
                (!is_in_stream).then(|| self.refuse(&self.api_error(error, *hint, caller, model), after))
            }
            TroubleKind::None
            | TroubleKind::SlowFirstToken(_)
            | TroubleKind::Break { .. }
            | TroubleKind::Empty(_)
            | TroubleKind::Downgraded => None,
        }
    }

    /// Returns the API error that a script asks for.
    pub(super) fn api_error(
        &self,
        error: &ScriptedError,
        hint: Option<Duration>,
        caller: Option<&ApiCaller<'_>>,
        model: Option<&EmulatedModel>,
    ) -> ApiError {
        let project = caller.map_or(DEFAULT_PROJECT, |caller| &*caller.project);
        let quota = |dimension, otherwise, retry_in| {
            let limit = match otherwise {
                0 => 0,
                _ => self.configured_limit(dimension, project, model).unwrap_or(otherwise),
            };
            let exceeded = [ExceededLimit { dimension, limit }];
            ApiError::quota_exceeded(&exceeded, &self.called_quota_names(model), retry_in)
        };
        let error = match error {
            ScriptedError::Overloaded => ApiError::overloaded(),
            ScriptedError::HighDemand => ApiError::high_demand(),
            ScriptedError::Internal => ApiError::internal(),
            ScriptedError::DeadlineExceeded => ApiError::deadline_exceeded(),
            ScriptedError::MinuteQuota(retry_in) => quota(Dimension::RequestsPerMinute, 10, *retry_in),
            ScriptedError::TokenQuota(retry_in) => quota(Dimension::InputTokensPerMinute, 250_000, *retry_in),
            ScriptedError::DayQuota => quota(Dimension::RequestsPerDay, 500, Duration::from_millis(5_250)),
            ScriptedError::ZeroQuota => quota(Dimension::RequestsPerMinute, 0, Duration::from_millis(38_863)),
            ScriptedError::BareQuota => ApiError::bare_quota(),
            ScriptedError::VertexCapacity => ApiError::vertex_capacity(),
            ScriptedError::InvalidKey => ApiError::invalid_key(),
            ScriptedError::ExpiredKey => ApiError::expired_key(),
            ScriptedError::SuspendedKey => {
                ApiError::suspended_key(caller.and_then(|caller| caller.key).unwrap_or_default(), project)
            }
            ScriptedError::LeakedKey => ApiError::leaked_key(),
            ScriptedError::ServiceDisabled => ApiError::service_disabled(project),
            ScriptedError::GroundingQuota => ApiError::grounding_quota(),
            ScriptedError::SpendLimit => ApiError::spend_limit(project),
            ScriptedError::SpendingCap => ApiError::spending_cap(),
            ScriptedError::ModelClosed => ApiError::model_closed(self.called.unwrap_or_default()),
            ScriptedError::Prohibited => ApiError::prohibited(),
        };
        match hint {
            Some(hint) => error.with_retry_info(hint),
            None => error,
        }
    }

    fn configured_limit(&self, dimension: Dimension, project: &str, model: Option<&EmulatedModel>) -> Option<u64> {
        let model = model.map_or(self.called.unwrap_or_default(), |model| &model.name);
        self.shared.settings.limits(project, model).get(dimension)
    }

    /// Returns the quota names of a model, or of a name in the request that is not a model's.
    fn called_quota_names<'a>(&'a self, model: Option<&'a EmulatedModel>) -> QuotaNames<'a> {
        self.quota_names(model.map_or(self.called.unwrap_or_default(), |model| &model.resolved))
    }

    /// Returns the operation that a script knows the call by: a decision generates.
    fn operation(&self) -> Operation {
        match DecisionRequest::is_at(self.head.uri.path()) {
            true => Operation::GenerateContent,
            false if self.creates_interaction => Operation::CreateInteraction,
            false => self.call.operation(),
        }
    }
}
