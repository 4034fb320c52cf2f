use std::{fmt, sync::Arc, time::Duration};

use http::Request;
use tokio::time::Instant;
use tower_layer::Layer;

use super::{TokenPrecheck, calibration::Calibration, count_cache::Asked};
use crate::{
    context::{CallContext, Deadline},
    describe::{Describe, LEFT_OUT},
    models::ModelTable,
    tokenizer::CountTokens,
};

/// Refuses what would be a 400 anyway, before it is sent. See the [module](super) for what is refused.
///
/// Clones, and all services made from one layer, share the models, the calibration and the counts that were asked for.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct TokenPrecheckLayer {
    settings: Option<Settings>,
}

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
    pub(super) asked: Asked,
}

/// What becomes of a call to a model that a fresh list does not have, while it has one of nearly that name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownModel {
    /// It is refused with the nearest names. The default.
    #[default]
    Refuse,
    /// It is forwarded: the upstream judges.
    Forward,
}

/// What becomes of a `maxOutputTokens` that the model does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxOutputPolicy {
    /// Nobody looks at it.
    Off,
    /// It is sent as it is, and a warning is logged (`tracing`). The default: not every surface refuses it.
    #[default]
    Warn,
    /// It is sent as the nearest number that the model takes. Needs a body in memory, as every check does.
    Clamp,
    /// It is refused.
    Refuse,
}

/// When the upstream is asked to count (`countTokens`: it costs no quota of generating, but a round trip).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskUpstream {
    /// Never: what cannot be decided here is forwarded, or refused where the layer fails closed.
    Never,
    /// Where nothing here can decide, because the count is too near to the limit or there is media that nobody here can
    /// count. The default.
    #[default]
    NearLimit,
    /// Always, for calls that generate: the exact cost is worth a round trip to you.
    Always,
}

impl Settings {
    /// When nobody waits any longer for what the upstream is asked: never past the deadline.
    pub(super) fn give_up<B>(&self, request: &Request<B>) -> Instant {
        let deadline = CallContext::of(request).and_then(CallContext::deadline);
        let patience = Deadline::after(self.ask_timeout);
        deadline.map_or(patience, |deadline| deadline.min(patience)).instant()
    }
}

impl TokenPrecheckLayer {
    /// How long an answer to `countTokens` is waited for by default.
    pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

    /// Checks against these models. [`TokenPrecheckLayer::default`] knows those that are built in.
    pub fn new(models: ModelTable) -> Self {
        let settings = Settings {
            models,
            unknown_model: UnknownModel::default(),
            max_output: MaxOutputPolicy::default(),
            ask: AskUpstream::default(),
            ask_timeout: Self::ASK_TIMEOUT,
            fail_closed: false,
            counter: crate::tokenizer::default_counter(),
            calibration: Calibration::default(),
            asked: Asked::default(),
        };
        Self { settings: Some(settings) }
    }

    /// A layer that checks nothing, of the same type: for where it is optional.
    pub fn disabled() -> Self {
        Self { settings: None }
    }

    /// What becomes of a misspelt model. Default: [`UnknownModel::Refuse`].
    pub fn unknown_model(self, unknown: UnknownModel) -> Self {
        self.with(|settings| settings.unknown_model = unknown)
    }

    /// What becomes of an output limit out of range. Default: [`MaxOutputPolicy::Warn`].
    pub fn max_output(self, policy: MaxOutputPolicy) -> Self {
        self.with(|settings| settings.max_output = policy)
    }

    /// When the upstream is asked to count. Default: [`AskUpstream::NearLimit`].
    pub fn ask_upstream(self, ask: AskUpstream) -> Self {
        self.with(|settings| settings.ask = ask)
    }

    /// How long its answer is waited for. Default: [`ASK_TIMEOUT`](Self::ASK_TIMEOUT).
    pub fn ask_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.ask_timeout = timeout)
    }

    /// Refuses what cannot be counted and may be too long, instead of sending it. Default: it is sent.
    pub fn fail_closed(self) -> Self {
        self.with(|settings| settings.fail_closed = true)
    }

    /// Counts with this. Default: the exact counter where the feature `tokenizer` is on, else bytes alone.
    pub fn counter(self, counter: impl CountTokens) -> Self {
        self.with(|settings| settings.counter = Some(Arc::new(counter)))
    }

    /// Counts nothing here: what bytes alone do not decide, the upstream is asked, and the cost is an estimate.
    pub fn without_counter(self) -> Self {
        self.with(|settings| settings.counter = None)
    }

    /// The models that it knows. `None` where it is disabled.
    pub fn models(&self) -> Option<&ModelTable> {
        self.settings.as_ref().map(|settings| &settings.models)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        if let Some(settings) = &mut self.settings {
            change(settings);
        }
        self
    }
}

impl Default for TokenPrecheckLayer {
    fn default() -> Self {
        Self::new(ModelTable::default())
    }
}

impl Describe for TokenPrecheckLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(settings) = &self.settings else { return f.write_str(LEFT_OUT) };
        let counts = if settings.counter.is_some() { "counts tokens" } else { "goes by bytes" };
        let asks = match settings.ask {
            AskUpstream::Never => "asks nobody",
            AskUpstream::NearLimit => "asks the upstream near a limit",
            AskUpstream::Always => "asks the upstream each time",
        };
        let unknown = match settings.unknown_model {
            UnknownModel::Refuse => "refused",
            UnknownModel::Forward => "forwarded",
        };
        write!(f, "{counts}, {asks}; misspelt models are {unknown}")
    }
}

impl<S> Layer<S> for TokenPrecheckLayer {
    type Service = TokenPrecheck<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TokenPrecheck { inner, settings: self.settings.clone().map(Arc::new) }
    }
}
