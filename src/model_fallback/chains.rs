//! The handle of the fallback chains: the order of the models, and the current model of each chain. It outlives the
//! layers made from it.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use tokio::time::Instant;

use super::{
    reason::{FallbackReason, Reasons},
    sticky::{Answered, ChainChange, Probe, Start, Sticky},
};
use crate::{
    body::{Resend, in_memory},
    call::{Call, Operation},
    clock::FAR,
    context::{CallRef, ConfigError},
    describe::Describe,
    failure::Failure,
    sync::Mutex,
};

/// The chains of models and their state, for any number of [`ModelFallbackLayer`](super::ModelFallbackLayer)s.
///
/// A cheap handle: all clones share the same chains, and their current models.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::model_fallback::{FallbackChains, FallbackReason};
///
/// let chains = FallbackChains::builder()
///     .chain("gemini-2.5-pro", ["gemini-2.5-flash", "gemini-2.5-flash-lite"])
///     .larger("gemma-3-27b-it", ["gemini-2.5-flash"])
///     .on(FallbackReason::ModelNotFound, true)
///     .sticky(Duration::from_secs(60))
///     .build()?;
/// assert_eq!(chains.snapshot()[0].current(), "gemini-2.5-pro");
/// # Ok::<_, tower_gemini::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct FallbackChains {
    shared: Arc<Shared>,
}

struct Shared {
    reasons: Reasons,
    strip: bool,
    /// The chains, in the order in which they were added.
    chains: Vec<Arc<Chain>>,
    /// The index of each requested model's chain.
    by_model: HashMap<Arc<str>, usize>,
}

/// The models that a call to one model may go to.
pub(super) struct Chain {
    /// The model that is asked for, those that follow it, and then those that take more input.
    models: Vec<ChainLink>,
    /// The index of the first one that takes more.
    larger: usize,
    sticky: Mutex<Sticky>,
}

/// A model of a chain: its name, as text and as a header's value.
pub(super) struct ChainLink {
    pub(super) name: Arc<str>,
    pub(super) header: HeaderValue,
}

impl FallbackChains {
    /// The default time for which a chain stays with a fallback: 30 s.
    pub const STICKY: Duration = Duration::from_secs(30);

    /// Returns a builder without chains: there are no default ones.
    pub fn builder() -> FallbackChainsBuilder {
        FallbackChainsBuilder::default()
    }

    /// Returns the current state of each chain, in the order in which they were added.
    pub fn snapshot(&self) -> Vec<ChainReport> {
        let now = Instant::now();
        self.shared.chains.iter().map(|chain| chain.report(now)).collect()
    }

    /// Finds the chain of a call. `None`: the call does not generate content, or its model has no chain.
    pub(super) fn of_call<B: Resend<Data = Bytes>>(&self, request: &Request<B>) -> Option<&Arc<Chain>> {
        let call = CallRef::of(request);
        if let Some(model) = call.model() {
            return self.of(call.operation(), model);
        }
        if call.is_known() || call.operation() != Operation::GenerateContent {
            return None;
        }
        let call = call.to_call_with(&in_memory(request.body())?);
        self.of(call.operation(), call.model()?)
    }

    fn of(&self, operation: Operation, model: &str) -> Option<&Arc<Chain>> {
        let at = self.shared.by_model.get(model).filter(|_| operation == Operation::GenerateContent)?;
        Some(&self.shared.chains[*at])
    }

    pub(super) fn reasons(&self) -> Reasons {
        self.shared.reasons
    }

    pub(super) fn strips(&self) -> bool {
        self.shared.strip
    }
}

impl Describe for FallbackChains {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, chain) in self.shared.chains.iter().enumerate() {
            f.write_str(if nth > 0 { "; " } else { "" })?;
            for (at, model) in chain.models.iter().enumerate() {
                let link = match at {
                    0 => "",
                    at if at == chain.larger => ", and where it is too long for it, ",
                    _ => " -> ",
                };
                write!(f, "{link}{}", model.name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FallbackChains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.snapshot()).finish()
    }
}

impl Chain {
    /// Returns a model by its number: 0 is the one that is asked for.
    pub(super) fn model(&self, at: usize) -> &ChainLink {
        &self.models[at]
    }

    /// Returns the numbers of the model that is asked for and of those that follow it.
    pub(super) fn all(&self) -> Range<usize> {
        0..self.larger
    }

    /// Returns the numbers of the models that take more input.
    pub(super) fn larger(&self) -> Range<usize> {
        self.larger..self.models.len()
    }

    /// Begins a call. Returns its first model, and a lease if the call probes the first choice.
    pub(super) fn start(self: &Arc<Self>) -> (Start, Option<Lease>) {
        let start = self.sticky.lock().start(Instant::now);
        (start, start.probe.map(|probe| Lease { chain: self.clone(), probe }))
    }

    /// Takes note that a model has answered a call, and logs the change that follows; `why` is the failure behind it.
    pub(super) fn answered(&self, start: Start, answered: Answered, why: Option<&Failure>) {
        if !self.all().contains(&answered.by) {
            return;
        }
        let change = self.sticky.lock().answered(Instant::now(), start, answered);
        let model = &*self.models[0].name;
        match change {
            ChainChange::None => {}
            ChainChange::BackToFirst => {
                tracing::info!(model, "fallback ended: calls go to the model that they ask for")
            }
            ChainChange::MovedTo(at) => {
                let (to, reason) = (&*self.models[at].name, why.map(|why| why.kind().as_str()));
                tracing::warn!(model, to, reason, "fallback began: calls go to another model first");
            }
        }
    }

    fn report(&self, now: Instant) -> ChainReport {
        let (at, since) = self.sticky.lock().state();
        ChainReport {
            model: self.models[0].name.clone(),
            current: self.models[at].name.clone(),
            away_for: since.map(|since| now.saturating_duration_since(since)),
        }
    }
}

/// The right to probe the first choice, held by one call. When it is dropped, the next call may probe.
pub(super) struct Lease {
    chain: Arc<Chain>,
    probe: Probe,
}

impl Lease {
    /// Reports that the first choice still fails for all callers.
    pub(super) fn failed(self) {
        self.chain.sticky.lock().probe_failed(Instant::now(), self.probe);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.chain.sticky.lock().hand_back(self.probe);
    }
}

/// The current state of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    model: Arc<str>,
    current: Arc<str>,
    away_for: Option<Duration>,
}

impl ChainReport {
    /// Returns the name of the model that is asked for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the name of the model that its calls go to first.
    pub fn current(&self) -> &str {
        &self.current
    }

    /// Returns the time since calls left the first choice. `None`: they go to the model that is asked for.
    pub fn away_for(&self) -> Option<Duration> {
        self.away_for
    }
}

/// A builder of [`FallbackChains`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct FallbackChainsBuilder {
    chains: Vec<(String, Vec<String>)>,
    larger: Vec<(String, Vec<String>)>,
    reasons: Reasons,
    sticky: Duration,
    strip: bool,
}

impl Default for FallbackChainsBuilder {
    fn default() -> Self {
        let (chains, larger, reasons) = Default::default();
        Self { chains, larger, reasons, sticky: FallbackChains::STICKY, strip: false }
    }
}

impl FallbackChainsBuilder {
    /// Returns the name of each model in it.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        let chains = self.chains.iter().chain(&self.larger);
        chains.flat_map(|(model, next)| next.iter().chain([model])).map(String::as_str)
    }

    /// Returns whether there is no chain in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.larger.is_empty()
    }

    /// Adds a chain: calls to `model` fall back to the `next` models, in that order. Names are bare: `gemini-2.5-pro`.
    pub fn chain(mut self, model: impl Into<String>, next: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.chains.push((model.into(), next.into_iter().map(Into::into).collect()));
        self
    }

    /// Adds larger models: calls to `model` whose context is too long for it, and no others, go to the `next` models,
    /// in that order.
    pub fn larger(mut self, model: impl Into<String>, next: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.larger.push((model.into(), next.into_iter().map(Into::into).collect()));
        self
    }

    /// Sets whether calls fall back for this reason. Default: the table at [`FallbackReason`].
    pub fn on(mut self, reason: FallbackReason, moves: bool) -> Self {
        self.reasons.set(reason, moves);
        self
    }

    /// Sets the time for which calls stay with the fallback before one of them probes the first choice. Zero: each call
    /// begins with the first choice. Default: [`STICKY`](FallbackChains::STICKY), 30 s.
    pub fn sticky(mut self, duration: Duration) -> Self {
        self.sticky = duration;
        self
    }

    /// Sets whether the parts of a request that the next model rejects are cut out, so that it can be asked. The table
    /// is at the [module](super#what-is-not-moved). Default: false, and such a model is skipped.
    pub fn strip(mut self, strip: bool) -> Self {
        self.strip = strip;
        self
    }

    /// Builds the chains.
    ///
    /// # Errors
    ///
    /// Fails for a chain without a next model, a model that is twice in one chain, a second chain of the same model,
    /// and a name that cannot stand in a path.
    pub fn build(self) -> Result<FallbackChains, ConfigError> {
        let Self { chains, larger, reasons, sticky, strip } = self;
        let sticky = sticky.min(FAR);
        let mut built: Vec<(Vec<ChainLink>, usize)> = Vec::new();
        let mut by_model = HashMap::new();
        for (model, next) in &chains {
            let names = checked("chain", model, next)?;
            if by_model.insert(names[0].name.clone(), built.len()).is_some() {
                return Err(ConfigError::new(format!("{model} has two chains: write all its models into one")));
            }
            let end = names.len();
            built.push((names, end));
        }
        let mut seen = Vec::new();
        for (model, next) in &larger {
            let names = checked("larger", model, next)?;
            if seen.contains(&model) {
                return Err(ConfigError::new(format!("{model} has two lists of larger models: write all into one")));
            }
            seen.push(model);
            match by_model.get(&**model) {
                Some(at) => built[*at].0.extend(names.into_iter().skip(1)),
                None => {
                    by_model.insert(names[0].name.clone(), built.len());
                    built.push((names, 1));
                }
            }
        }
        let chain = |(models, larger)| Arc::new(Chain { models, larger, sticky: Mutex::new(Sticky::new(sticky)) });
        let chains = built.into_iter().map(chain).collect();
        Ok(FallbackChains { shared: Arc::new(Shared { reasons, strip, chains, by_model }) })
    }
}

/// Checks the names of one list, the model that is asked for first.
fn checked(list: &str, model: &str, next: &[String]) -> Result<Vec<ChainLink>, ConfigError> {
    let refused = |what: &str| Err(ConfigError::new(format!("{list} of {model:?}: {what}")));
    if next.is_empty() {
        return refused("it names no next model");
    }
    let mut models: Vec<ChainLink> = Vec::with_capacity(next.len() + 1);
    for name in std::iter::once(model).chain(next.iter().map(String::as_str)) {
        let plain = Call::uri_with_model(&Uri::from_static("/v1/models/m:generateContent"), name).is_some();
        let Some(header) = HeaderValue::from_str(name).ok().filter(|_| plain) else {
            return refused(&format!("{name:?} cannot be a model's bare name, such as gemini-2.5-flash"));
        };
        if models.iter().any(|known| &*known.name == name) {
            return refused(&format!("{name} is in it twice"));
        }
        models.push(ChainLink { name: name.into(), header });
    }
    Ok(models)
}
