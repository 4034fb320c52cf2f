//! The layer and its settings.

use std::{fmt, sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{
    service::TokenPrecheck,
    settings::{AskUpstream, MaxOutputPolicy, Settings, UnknownModel},
};
use crate::{
    describe::{Describe, LEFT_OUT},
    models::ModelTable,
    tokenizer::CountTokens,
};

/// A layer that refuses a request before it is sent, if the upstream would answer it with 400. The [module](super)
/// lists the checks.
///
/// Clones, and all services made from one layer, share the model table, the calibration and the cached counts.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct TokenPrecheckLayer {
    settings: Option<Settings>,
}

impl TokenPrecheckLayer {
    /// The default time to wait for an answer to `countTokens`: 5 s.
    pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

    /// Creates a layer that checks against these models. [`TokenPrecheckLayer::default`] uses the built-in table.
    pub fn new(models: ModelTable) -> Self {
        Self { settings: Some(Settings::new(models, Self::ASK_TIMEOUT)) }
    }

    /// Creates a layer that checks nothing. It has the same type, for stacks where the check is optional.
    pub fn disabled() -> Self {
        Self { settings: None }
    }

    /// Sets the treatment of a misspelt model. Default: [`UnknownModel::Refuse`].
    pub fn unknown_model(self, unknown: UnknownModel) -> Self {
        self.with(|settings| settings.unknown_model = unknown)
    }

    /// Sets the treatment of an output limit that is out of range. Default: [`MaxOutputPolicy::Warn`].
    pub fn max_output(self, policy: MaxOutputPolicy) -> Self {
        self.with(|settings| settings.max_output = policy)
    }

    /// Sets the cases in which the upstream is asked to count. Default: [`AskUpstream::NearLimit`].
    pub fn ask_upstream(self, ask: AskUpstream) -> Self {
        self.with(|settings| settings.ask = ask)
    }

    /// Sets the time to wait for the upstream's count, never past the deadline. Default:
    /// [`ASK_TIMEOUT`](Self::ASK_TIMEOUT).
    pub fn ask_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.ask_timeout = timeout)
    }

    /// Refuses a request that may be too long and cannot be counted. By default it is sent, and the upstream judges it.
    pub fn fail_closed(self) -> Self {
        self.with(|settings| settings.fail_closed = true)
    }

    /// Sets the local counter. Default: the exact counter if the feature `tokenizer` is on, else none.
    ///
    /// By this counter no text may have more tokens than bytes: a request whose bytes fit into the limit is sent without a
    /// count.
    pub fn counter(self, counter: impl CountTokens) -> Self {
        self.with(|settings| settings.counter = Some(Arc::new(counter)))
    }

    /// Removes the local counter: a request that its length does not decide is counted by the upstream, and every cost
    /// is an estimate.
    pub fn without_counter(self) -> Self {
        self.with(|settings| settings.counter = None)
    }

    /// Returns the model table, or `None` if the layer is disabled.
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
        let counts = if settings.counter.is_some() { "counts tokens" } else { "goes by length" };
        let asks = match settings.ask {
            AskUpstream::Never => "never asks the upstream",
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
