//! The builder of the chains, and its checks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    chains::{Chain, FallbackChains, InCommon, Shared},
    link::{ChainLink, ChainsOfModel, FallbackModel},
    origins::Origins,
    reason::{FallbackReason, Reasons},
    sticky::Sticky,
};
use crate::{clock::FAR, context::ConfigError, sync::Mutex};

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
        let mut by_model: BTreeMap<Arc<str>, ChainsOfModel> = BTreeMap::new();
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
