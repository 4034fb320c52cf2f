//! The settings that a layer hands to its services, and the policies among them.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use http::Request;
use tokio::time::Instant;

use super::{calibration::Calibration, count_cache::CountCache};
use crate::{
    context::{CallContext, Deadline},
    models::ModelTable,
    request::readers::Readers,
    tokenizer::CountTokens,
};

/// The settings of one layer. Clones share the model table, the calibration and the cached counts.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) models: ModelTable,
    pub(super) unknown_model: UnknownModel,
    pub(super) max_output: MaxOutputPolicy,
    pub(super) ask: AskUpstream,
    pub(super) ask_timeout: Duration,
    pub(super) fail_closed: bool,
    pub(super) counter: Option<Arc<dyn CountTokens>>,
    pub(super) calibration: Calibration,
    pub(super) counts: CountCache,
    pub(super) readers: Readers,
    /// Set once somebody has asked for the tokens of a request that fits, as a limiter does whose limits are of tokens: from then
    /// on they are counted with the reading.
    pub(super) asked: Arc<AtomicBool>,
}

/// The treatment of a call to a model that a fresh list lacks, while the list has a model with nearly that name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownModel {
    /// The call is refused, and the refusal names the nearest models. The default.
    #[default]
    Refuse,
    /// The call is forwarded, and the upstream judges it.
    Forward,
}

/// The treatment of a `maxOutputTokens` that is out of the model's range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxOutputPolicy {
    /// The number is not checked.
    Off,
    /// The number is sent unchanged, and a warning is logged (`tracing`). The default, because not every surface
    /// refuses such a number.
    #[default]
    Warn,
    /// The nearest number that the model takes is sent instead. Needs a body in memory, as every check does.
    Clamp,
    /// The call is refused.
    Refuse,
}

/// The cases in which the upstream counts a request (`countTokens`: it costs a round trip, but no quota of generating).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskUpstream {
    /// No case. A request that cannot be decided locally is forwarded, or refused if the layer fails closed.
    Never,
    /// The cases that cannot be decided locally: the count is too near to the limit, or the request has media that
    /// cannot be counted locally. The default.
    #[default]
    NearLimit,
    /// Every call that generates. Choose it if the exact cost is worth a round trip to you.
    Always,
}

impl Settings {
    /// Creates the default settings.
    pub(super) fn new(models: ModelTable, ask_timeout: Duration) -> Self {
        Self {
            models,
            unknown_model: UnknownModel::default(),
            max_output: MaxOutputPolicy::default(),
            ask: AskUpstream::default(),
            ask_timeout,
            fail_closed: false,
            counter: crate::tokenizer::default_counter(),
            calibration: Calibration::default(),
            counts: CountCache::default(),
            readers: Readers::default(),
            asked: Arc::default(),
        }
    }

    /// Returns when to stop waiting for an answer of the upstream: after `ask_timeout`, but never past the deadline.
    pub(super) fn give_up<B>(&self, request: &Request<B>) -> Instant {
        let deadline = CallContext::of(request).and_then(CallContext::deadline);
        let timeout = Deadline::after(self.ask_timeout);
        deadline.map_or(timeout, |deadline| deadline.min(timeout)).instant()
    }
}
