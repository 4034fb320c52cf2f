//! The handle: which model comes after which, and where each chain stands. It outlives the layers made from it.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use tokio::time::Instant;

use super::{
    reason::{Reason, Reasons},
    sticky::{Answered, Change, Probe, Start, Sticky},
};
use crate::{
    body::{Resend, in_memory},
    call::{Call, Operation},
    context::{CallContext, ConfigError},
    describe::Describe,
    failure::Failure,
    sync::Mutex,
};

/// As good as for ever, and still a time that the clock can count to.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// Which model comes after which: the state of any number of [`ModelFallbackLayer`](super::ModelFallbackLayer)s.
///
/// A cheap handle: all clones are the same chains, and stay on the same models.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::model_fallback::{FallbackChains, Reason};
///
/// let chains = FallbackChains::builder()
///     .chain("gemini-2.5-pro", ["gemini-2.5-flash", "gemini-2.5-flash-lite"])
///     .larger("gemma-3-27b-it", ["gemini-2.5-flash"])
///     .on(Reason::ModelNotFound, true)
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
    /// In the order in which they were given.
    chains: Vec<Arc<Chain>>,
    by_model: HashMap<Arc<str>, usize>,
}

/// The models of one that can be asked for.
pub(super) struct Chain {
    /// The one that is asked for, those that follow it, and then those that take more.
    models: Vec<Model>,
    /// Where the larger ones begin.
    larger: usize,
    sticky: Mutex<Sticky>,
}

/// A model's name, and the same for a header.
pub(super) struct Model {
    pub(super) name: Arc<str>,
    pub(super) header: HeaderValue,
}

impl FallbackChains {
    /// How long a chain stays on a fallback by default.
    pub const STICKY: Duration = Duration::from_secs(30);

    /// FallbackChains of your own: there are no others.
    pub fn builder() -> FallbackChainsBuilder {
        FallbackChainsBuilder::default()
    }

    /// Where each chain stands, in the order in which they were given.
    pub fn snapshot(&self) -> Vec<ChainReport> {
        let now = Instant::now();
        self.shared.chains.iter().map(|chain| chain.report(now)).collect()
    }

    /// The chain of a call, if it asks a model that has one to generate.
    pub(super) fn of_call<B: Resend<Data = Bytes>>(&self, request: &Request<B>) -> Option<&Arc<Chain>> {
        if let Some(call) = CallContext::of(request).and_then(CallContext::call) {
            return self.of(call.operation(), call.model()?);
        }
        let (shape, model) = Call::borrowed(request.method(), request.uri());
        match model {
            Some(model) => self.of(shape.operation, &model),
            None if shape.operation == Operation::GenerateContent => {
                let call = Call::new(request.method(), request.uri()).read_body(&in_memory(request.body())?);
                self.of(call.operation(), call.model()?)
            }
            None => None,
        }
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
    /// A model by its number: 0 is the one that is asked for.
    pub(super) fn model(&self, at: usize) -> &Model {
        &self.models[at]
    }

    /// The numbers of the model that is asked for and of those that follow it.
    pub(super) fn all(&self) -> Range<usize> {
        0..self.larger
    }

    /// The numbers of those that take more.
    pub(super) fn larger(&self) -> Range<usize> {
        self.larger..self.models.len()
    }

    /// A call begins: where, and whether it is the one that probes the first choice.
    pub(super) fn start(self: &Arc<Self>) -> (Start, Option<Lease>) {
        let start = self.sticky.lock().start(Instant::now);
        (start, start.probe.map(|probe| Lease { chain: self.clone(), probe }))
    }

    /// A call was answered.
    pub(super) fn answered(&self, start: Start, answered: Answered, why: Option<&Failure>) {
        if !self.all().contains(&answered.by) {
            return;
        }
        let change = self.sticky.lock().answered(Instant::now(), start, answered);
        let model = &*self.models[0].name;
        match change {
            Change::Nothing => {}
            Change::Home => tracing::info!(model, "calls go to the model that they ask for again"),
            Change::Away(at) => {
                let (to, reason) = (&*self.models[at].name, why.map(|why| why.kind().as_str()));
                tracing::warn!(model, to, reason, "calls go to another model");
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

/// What the one call that probes the first choice holds. Dropped, the next call may be one.
pub(super) struct Lease {
    chain: Arc<Chain>,
    probe: Probe,
}

impl Lease {
    /// The first choice is failing still, for everybody.
    pub(super) fn failed(self) {
        self.chain.sticky.lock().probe_failed(Instant::now(), self.probe);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.chain.sticky.lock().hand_back(self.probe);
    }
}

/// Where a chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    model: Arc<str>,
    current: Arc<str>,
    away_for: Option<Duration>,
}

impl ChainReport {
    /// The model that is asked for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The model that its calls go to first.
    pub fn current(&self) -> &str {
        &self.current
    }

    /// For how long they have not gone to the one that is asked for. `None` where they do.
    pub fn away_for(&self) -> Option<Duration> {
        self.away_for
    }
}

/// Settings of [`FallbackChains`].
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
    /// Each model in it, by name.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        let chains = self.chains.iter().chain(&self.larger);
        chains.flat_map(|(model, next)| next.iter().chain([model])).map(String::as_str)
    }

    /// Whether there is no chain in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.larger.is_empty()
    }

    /// Calls to `model` move to the `next` ones, in that order. Bare names: `gemini-2.5-pro`.
    pub fn chain(mut self, model: impl Into<String>, next: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.chains.push((model.into(), next.into_iter().map(Into::into).collect()));
        self
    }

    /// Calls to `model` whose context is too long for it, and no others, move to the `next` ones, in that order.
    pub fn larger(mut self, model: impl Into<String>, next: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.larger.push((model.into(), next.into_iter().map(Into::into).collect()));
        self
    }

    /// Whether a reason moves calls. Default: as in the table at [`Reason`].
    pub fn on(mut self, reason: Reason, moves: bool) -> Self {
        self.reasons.set(reason, moves);
        self
    }

    /// How long calls stay on the fallback before one of them probes the first choice. Zero: each call begins with the
    /// first choice. Default: [`STICKY`](FallbackChains::STICKY), 30 s.
    pub fn sticky(mut self, duration: Duration) -> Self {
        self.sticky = duration;
        self
    }

    /// Whether what the next model rejects is taken out of the request, so that it can be asked. Default: it is not, and
    /// such a model is skipped. The table is at the [module](super).
    pub fn strip(mut self, strip: bool) -> Self {
        self.strip = strip;
        self
    }

    /// The chains.
    ///
    /// # Errors
    ///
    /// For a chain without a next model, a model that is twice in one, a second chain of the same model, and a name that
    /// cannot stand in a path.
    pub fn build(self) -> Result<FallbackChains, ConfigError> {
        let Self { chains, larger, reasons, sticky, strip } = self;
        let sticky = sticky.min(FAR);
        let mut built: Vec<(Vec<Model>, usize)> = Vec::new();
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

/// The names of one list, the one that is asked for first.
fn checked(list: &str, model: &str, next: &[String]) -> Result<Vec<Model>, ConfigError> {
    let refused = |what: &str| Err(ConfigError::new(format!("{list} of {model:?}: {what}")));
    if next.is_empty() {
        return refused("it names no next model");
    }
    let mut models: Vec<Model> = Vec::with_capacity(next.len() + 1);
    for name in std::iter::once(model).chain(next.iter().map(String::as_str)) {
        let plain = Call::uri_with_model(&Uri::from_static("/v1/models/m:generateContent"), name).is_some();
        let Some(header) = HeaderValue::from_str(name).ok().filter(|_| plain) else {
            return refused(&format!("{name:?} cannot be a model's bare name, such as gemini-2.5-flash"));
        };
        if models.iter().any(|known| &*known.name == name) {
            return refused(&format!("{name} is in it twice"));
        }
        models.push(Model { name: name.into(), header });
    }
    Ok(models)
}
