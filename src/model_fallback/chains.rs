//! The handle of the fallback chains: the order of the models, and the current model of each chain. It outlives the
//! layers made from it.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use super::{
    FallbackChainsBuilder,
    answerer::Answerer,
    link::{ChainLink, ChainsOfModel},
    origins::{Origin, Origins},
    reason::Reasons,
    sticky::{Answered, ChainChange, Probe, Start, Sticky},
};
use crate::{
    body::{Resend, in_memory},
    call::{Operation, ServiceTier, Shape},
    context::{CallRef, Usage},
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
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    /// The chains, in the order in which they were added.
    pub(super) chains: Vec<Arc<Chain>>,
    /// The chains of each requested model. Most programs have a few, and comparing names is faster than hashing one then.
    pub(super) by_model: BTreeMap<Arc<str>, ChainsOfModel>,
}

/// The settings and the memory that all chains share.
pub(super) struct InCommon {
    pub(super) reasons: Reasons,
    pub(super) strip: bool,
    /// The models that have answered in the place of others.
    pub(super) origins: Mutex<Origins>,
}

/// The models that a call to one model may go to.
pub(super) struct Chain {
    pub(super) common: Arc<InCommon>,
    /// The model that is asked for, those that follow it, and then those that take more input.
    pub(super) models: Vec<ChainLink>,
    /// The index of the first one that takes more.
    pub(super) larger: usize,
    /// The state for the calls of each tier: a model that is full in one may have room in another.
    pub(super) sticky: [Mutex<Sticky>; ServiceTier::ALL.len()],
}

/// A call that has a chain.
pub(super) struct ChainedCall {
    pub(super) chain: Arc<Chain>,
    pub(super) shape: Shape,
    pub(super) answerer: Answerer,
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
        let of_model = chains_of(call.model());
        // A model that the URI names is the call's, whatever its body says.
        if call.model().is_some() || call.is_known() {
            of_model?;
        }
        let body = in_memory(request.body())?;
        let (shape, of_model) = if call.is_known() {
            (call.shape(), of_model?)
        } else {
            let call = call.to_call_with(&body);
            (call.shape(), chains_of(call.model())?)
        };
        let chain = self.shared.chains[of_model.of_tier(shape.tier)?].clone();
        let answerer = Answerer::of(&chain, shape.tier, request, &body);
        Some(ChainedCall { chain, shape, answerer })
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
