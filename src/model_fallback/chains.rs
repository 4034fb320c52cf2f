//! The handle of the fallback chains: the order of the models, and the current model of each chain. It outlives the
//! layers made from it.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use super::{
    link::{ChainLink, ChainsOfModel, FallbackModel},
    origins::{Origin, Origins},
    reason::{FallbackReason, Reasons},
    sticky::{Answered, ChainChange, Probe, Start, Sticky},
};
use crate::{
    body::{Resend, in_memory},
    call::{Operation, ServiceTier, Shape},
    clock::FAR,
    context::{CallRef, ConfigError, Usage},
    describe::Describe,
    failure::Failure,
    resource::Resource,
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
    /// The chains, in the order in which they were added.
    chains: Vec<Arc<Chain>>,
    /// The chains of each requested model.
    by_model: HashMap<Arc<str>, ChainsOfModel>,
}

/// The settings and the memory that all chains share.
struct InCommon {
    reasons: Reasons,
    strip: bool,
    /// The models that have answered in the place of others.
    origins: Mutex<Origins>,
}

/// The models that a call to one model may go to.
pub(super) struct Chain {
    common: Arc<InCommon>,
    /// The model that is asked for, those that follow it, and then those that take more input.
    models: Vec<ChainLink>,
    /// The index of the first one that takes more.
    larger: usize,
    /// The state for the calls of each tier: a model that is full in one may have room in another.
    sticky: [Mutex<Sticky>; ServiceTier::ALL.len()],
}

/// A call that has a chain.
pub(super) struct ChainedCall {
    pub(super) chain: Arc<Chain>,
    pub(super) shape: Shape,
    pub(super) body: Bytes,
}

impl FallbackChains {
    /// The default time for which a chain stays with a fallback: 30 s.
    pub const STICKY: Duration = Duration::from_secs(30);

    /// Returns a builder without chains: there are no default ones.
    pub fn builder() -> FallbackChainsBuilder {
        FallbackChainsBuilder::default()
    }

    /// Returns the current state of each chain, in the order in which they were added. Behind a chain follows its state
    /// for the calls of each other service tier that is away from its first choice.
    pub fn snapshot(&self) -> Vec<ChainReport> {
        let now = Instant::now();
        self.shared.chains.iter().flat_map(|chain| chain.reports(now)).collect()
    }

    /// Finds the chain of a call. `None`: the call does not generate content, its model has no chain, or its body
    /// streams and cannot be sent to a second model.
    pub(super) fn of_call<B: Resend<Data = Bytes>>(&self, request: &Request<B>) -> Option<ChainedCall> {
        let call = CallRef::of(request);
        if !matches!(call.operation(), Operation::GenerateContent | Operation::CreateInteraction) {
            return None;
        }
        let chains_of = |model: Option<&str>| self.shared.by_model.get(model?);
        if call.is_known() {
            let at = chains_of(call.model())?.of_tier(call.shape().tier)?;
            return self.chained(at, call.shape(), in_memory(request.body())?);
        }
        if call.model().is_some() {
            chains_of(call.model())?;
        }
        let body = in_memory(request.body())?;
        let call = call.to_call_with(&body);
        let at = chains_of(call.model())?.of_tier(call.service_tier())?;
        self.chained(at, call.shape(), body)
    }

    fn chained(&self, at: usize, shape: Shape, body: Bytes) -> Option<ChainedCall> {
        Some(ChainedCall { chain: self.shared.chains[at].clone(), shape, body })
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
                write!(f, "{link}{model}")?;
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
    pub(super) fn reasons(&self) -> Reasons {
        self.common.reasons
    }

    pub(super) fn strips(&self) -> bool {
        self.common.strip
    }

    /// Remembers the origin of an answer; `collection` is the one that the upstream keeps it in.
    pub(super) fn answered_elsewhere(&self, usage: Usage, collection: Option<&'static str>, origin: Origin) {
        self.common.origins.lock().note(usage, collection, origin);
    }

    /// Returns the origin of the answer that a call goes on from. `None`: no other model than the one asked for has given
    /// it, as far as is known.
    pub(super) fn origin(&self, continued: &Resource) -> Option<Origin> {
        self.common.origins.lock().of(continued)
    }

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

    /// Finds the model that an answer is of; first in the tier in which it was asked.
    pub(super) fn position(&self, tier: ServiceTier, origin: &Origin) -> Option<usize> {
        let meets = |link: &ChainLink| link.for_tier(tier) == (&*origin.model, origin.tier);
        let same = self.models.iter().position(meets);
        same.or_else(|| self.models.iter().position(|link| link.name == origin.model))
    }

    fn sticky(&self, tier: ServiceTier) -> &Mutex<Sticky> {
        &self.sticky[tier as usize]
    }

    /// Begins a call of this tier. Returns its first model, and a lease if the call probes the first choice.
    pub(super) fn start(self: &Arc<Self>, tier: ServiceTier) -> (Start, Option<Lease>) {
        let start = self.sticky(tier).lock().start(Instant::now);
        (start, start.probe.map(|probe| Lease { chain: self.clone(), tier, probe }))
    }

    /// Takes note that a model has answered a call, and logs the change that follows; `why` is the failure behind it.
    pub(super) fn answered(&self, tier: ServiceTier, start: Start, answered: Answered, why: Option<&Failure>) {
        if !self.all().contains(&answered.by) {
            return;
        }
        let change = {
            let mut sticky = self.sticky(tier).lock();
            // The usual answer changes nothing, and needs no look at the clock.
            if answered.by == 0 && sticky.is_at_first() {
                return;
            }
            sticky.answered(Instant::now(), start, answered)
        };
        let model = || self.models[0].label(tier);
        match change {
            ChainChange::None => {}
            ChainChange::BackToFirst => {
                let model = &*model();
                tracing::info!(model, "fallback ended: calls go to the model that they ask for")
            }
            ChainChange::MovedTo(at) => {
                let model = &*model();
                let (to, reason) = (&*self.models[at].label(tier), why.map(|why| why.kind().as_str()));
                tracing::warn!(model, to, reason, "fallback began: calls go to another model first");
            }
        }
    }

    /// Returns the state for the calls of the chain's own tier, and for those of each other tier that is away.
    fn reports(&self, now: Instant) -> impl Iterator<Item = ChainReport> {
        let own = self.models[0].tier.unwrap_or_default();
        let others = ServiceTier::ALL.into_iter().filter(move |tier| *tier != own);
        [own].into_iter().chain(others).filter_map(move |tier| {
            let (at, since) = self.sticky(tier).lock().state();
            (tier == own || since.is_some()).then(|| ChainReport {
                model: self.models[0].label(tier),
                current: self.models[at].label(tier),
                away_for: since.map(|since| now.saturating_duration_since(since)),
            })
        })
    }
}

/// The right to probe the first choice, held by one call. When it is dropped, the next call may probe.
pub(super) struct Lease {
    chain: Arc<Chain>,
    tier: ServiceTier,
    probe: Probe,
}

impl Lease {
    /// Reports that the first choice still fails for all callers.
    pub(super) fn failed(self) {
        self.chain.sticky(self.tier).lock().probe_failed(Instant::now(), self.probe);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.chain.sticky(self.tier).lock().hand_back(self.probe);
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
    /// Returns the name of the model that is asked for; behind an `@` the service tier of the calls, if it is not the
    /// standard one.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the name of the model that its calls go to first; behind an `@` the service tier in which they do, if it is
    /// not the standard one.
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
    chains: Vec<(FallbackModel, Vec<FallbackModel>)>,
    larger: Vec<(FallbackModel, Vec<FallbackModel>)>,
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
        chains.flat_map(|(model, next)| next.iter().chain([model])).map(FallbackModel::name)
    }

    /// Returns whether there is no chain in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.larger.is_empty()
    }

    /// Adds a chain: calls to `model` fall back to the `next` models, in that order. Names are bare: `gemini-2.5-pro`.
    ///
    /// A name may have a service tier behind it, `gemini-2.5-pro@priority`: a next model is then asked in that tier, else
    /// in the call's own; the chain of a `model` with a tier is for calls of that tier, and goes before one without.
    pub fn chain(
        mut self,
        model: impl Into<FallbackModel>,
        next: impl IntoIterator<Item = impl Into<FallbackModel>>,
    ) -> Self {
        self.chains.push((model.into(), next.into_iter().map(Into::into).collect()));
        self
    }

    /// Adds larger models: calls to `model` whose context is too long for it, and no others, go to the `next` models,
    /// in that order.
    pub fn larger(
        mut self,
        model: impl Into<FallbackModel>,
        next: impl IntoIterator<Item = impl Into<FallbackModel>>,
    ) -> Self {
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
    /// Fails for a chain without a next model, a model that is twice in one chain in the same service tier, a second chain
    /// of the same model and tier, and a name that cannot stand in a path.
    pub fn build(self) -> Result<FallbackChains, ConfigError> {
        let Self { chains, larger, reasons, sticky, strip } = self;
        let sticky = sticky.min(FAR);
        let mut built: Vec<(Vec<ChainLink>, usize)> = Vec::new();
        let mut by_model: HashMap<Arc<str>, ChainsOfModel> = HashMap::new();
        for (model, next) in &chains {
            let links = checked("chain", model, next)?;
            let of_model = by_model.entry(links[0].name.clone()).or_default();
            if of_model.entry(model.tier(), built.len()).1 {
                return Err(ConfigError::new(format!("{model} has two chains: write all its models into one")));
            }
            let end = links.len();
            built.push((links, end));
        }
        let mut seen = Vec::new();
        for (model, next) in &larger {
            let links = checked("larger", model, next)?;
            if seen.contains(&model) {
                return Err(ConfigError::new(format!("{model} has two lists of larger models: write all into one")));
            }
            seen.push(model);
            let of_model = by_model.entry(links[0].name.clone()).or_default();
            match of_model.entry(model.tier(), built.len()) {
                (at, true) => built[at].0.extend(links.into_iter().skip(1)),
                (_, false) => built.push((links, 1)),
            }
        }
        let sticky = || std::array::from_fn(|_| Mutex::new(Sticky::new(sticky)));
        let common = Arc::new(InCommon { reasons, strip, origins: Mutex::new(Origins::new()) });
        let chain = |(models, larger)| Arc::new(Chain { common: common.clone(), models, larger, sticky: sticky() });
        let chains = built.into_iter().map(chain).collect();
        Ok(FallbackChains { shared: Arc::new(Shared { chains, by_model }) })
    }
}

/// Checks the names of one list, the model that is asked for first.
fn checked(list: &str, model: &FallbackModel, next: &[FallbackModel]) -> Result<Vec<ChainLink>, ConfigError> {
    let refused = |what: &str| Err(ConfigError::new(format!("{list} of {:?}: {what}", model.to_string())));
    if next.is_empty() {
        return refused("it names no next model");
    }
    let mut links: Vec<ChainLink> = Vec::with_capacity(next.len() + 1);
    for named in std::iter::once(model).chain(next) {
        let Some(link) = ChainLink::new(named) else {
            let name = named.name();
            return refused(&format!("{name:?} cannot be a model's bare name, such as gemini-2.5-flash"));
        };
        // In a chain for calls of one tier, a name without a tier means that one.
        let tier = |link: &ChainLink| link.tier.or(model.tier());
        if links.iter().any(|known| known.name == link.name && tier(known) == tier(&link)) {
            return refused(&format!("{named} is in it twice"));
        }
        links.push(link);
    }
    Ok(links)
}
