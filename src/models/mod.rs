//! The table of models: their names, their limits, and their methods.
//!
//! A name that is in no list is *unknown*, not wrong: models appear every few weeks, and the upstream serves some that
//! no list names. A name is refused only by a list that was read from the upstream within
//! [`fresh_for`](ModelTableBuilder::fresh_for), and only if it looks like a typing error in one of the names on it.

mod demand;
mod learned;
mod list;
mod model;
mod nearest;
mod refresh;
mod report;
mod seed;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use parking_lot::RwLock;
use tokio::time::Instant;

use self::{
    demand::Demand,
    learned::Learned,
    model::bare,
    nearest::{MAX_NAME, nearest},
};
pub use self::{
    model::{Methods, Model, Source},
    refresh::RefreshError,
    report::{ModelReport, ModelTableReport},
};
use crate::call::Operation;

/// The most models that can be set by hand.
const MAX_SET: usize = 1_024;

/// The table of models and their limits. It begins with the list that this crate was built with, is replaced by the
/// upstream's own list, and learns lower limits from refusals.
///
/// It is a cheap handle: all clones are the same table. Reading holds a lock for one look into a map.
///
/// Names are bare (`gemini-2.5-flash`) or behind `models/`, and are compared byte by byte: neither aliases nor version
/// suffixes are resolved, because their limits may differ. The upstream's list holds for its own surface and for the
/// key that asked: do not judge calls to Vertex by the Developer API's list.
///
/// ```
/// use tower_gemini::{call::Operation, models::{Model, ModelTable, ModelVerdict, Source}};
///
/// let table = ModelTable::new();
/// let limit = table.effective_input_limit("gemini-2.5-pro").unwrap();
/// assert_eq!((limit.tokens, limit.source), (1_048_576, Source::Seed));
///
/// // "The input token count (314175) exceeds the maximum number of tokens allowed (131072)."
/// table.learn_input_limit("gemini-2.5-pro", 131_072);
/// assert_eq!(table.effective_input_limit("gemini-2.5-pro").unwrap().tokens, 131_072);
///
/// // Until a list was read, an unknown name may well be right.
/// assert!(matches!(table.verdict("gemini-2.5-flsh", Operation::GenerateContent), ModelVerdict::Unknown));
/// table.insert(Model::new("my-model").with_input_limit(8_192));
/// assert!(matches!(table.verdict("my-model", Operation::GenerateContent), ModelVerdict::Known(_)));
/// ```
///
/// The upstream's list, through any service that adds the credentials:
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderValue, Request};
/// use http_body_util::Full;
/// use tower::ServiceBuilder;
/// use tower_gemini::{call::Operation, emulator::Emulator, models::{ModelTable, ModelVerdict}};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_gemini::BoxError> {
/// let upstream = ServiceBuilder::new()
///     .map_request(|mut request: Request<Full<Bytes>>| {
///         request.headers_mut().insert("x-goog-api-key", HeaderValue::from_static("your-key"));
///         request
///     })
///     .service(Emulator::builder().build());
///
/// let table = ModelTable::new();
/// table.refresh(upstream.clone()).await?;
/// match table.verdict("gemini-2.5-flsh", Operation::GenerateContent) {
///     ModelVerdict::Missing { nearest } => assert_eq!(&*nearest[0], "gemini-2.5-flash"),
///     other => panic!("{other:?}"),
/// }
///
/// // Refreshes every six hours, for as long as the program runs.
/// tokio::spawn(table.refresh_every(upstream, ModelTable::REFRESH_EVERY));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ModelTable {
    shared: Arc<Shared>,
}

struct Shared {
    settings: ModelTableBuilder,
    state: RwLock<State>,
    demand: Demand,
}

type ModelNames = HashMap<Arc<str>, Arc<Model>>;

struct State {
    /// Replaced as a whole, so that near names are looked for without the lock.
    names: Arc<ModelNames>,
    /// The number of them that were set by hand.
    set: usize,
    /// The time at which the upstream was asked for the list in force.
    listed_at: Option<Instant>,
    learned: Learned,
    /// The number of refreshes that failed since the last good one, and the error of the last.
    failures: u32,
    last_failure: Option<Box<str>>,
}

impl ModelTable {
    /// The month of the built-in list.
    pub const SEED_DATE: &str = seed::DATE;

    /// The time for which a list from the upstream is fresh by default: 24 h.
    pub const FRESH_FOR: Duration = Duration::from_secs(24 * 3_600);

    /// The time for which a learned limit holds by default: 24 h. The upstream does not say when it raises a limit, so
    /// the old one is tried again daily.
    pub const LEARNED_FOR: Duration = Duration::from_secs(24 * 3_600);

    /// A good period for [`refresh_every`](Self::refresh_every): 6 h, so that three refreshes may fail before the list
    /// is stale.
    pub const REFRESH_EVERY: Duration = Duration::from_secs(6 * 3_600);

    /// Makes a table of the built-in list, with the default settings.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts a table of the built-in list, with settings of your own.
    pub fn builder() -> ModelTableBuilder {
        ModelTableBuilder::default()
    }

    /// Returns the model of exactly that name from the newest list, however old the list is.
    pub fn lookup(&self, name: &str) -> Option<Arc<Model>> {
        self.shared.state.read().get(name).cloned()
    }

    /// Judges a call of `operation` to this model.
    ///
    /// It refuses ([`Missing`](ModelVerdict::Missing), [`MethodUnsupported`](ModelVerdict::MethodUnsupported)) only by
    /// a fresh list or by a model that was set by hand. It costs as much as [`lookup`](Self::lookup) where the name is
    /// known, and else a look at each known name. The name is not remembered.
    pub fn verdict(&self, name: &str, operation: Operation) -> ModelVerdict {
        let state = self.shared.state.read();
        if let Some(model) = state.get(name).cloned() {
            let Some(supported) = model.refuses(operation) else { return ModelVerdict::Known(model) };
            let certain = match model.source() {
                Source::Set => true,
                Source::Listed => self.is_fresh_in(&state),
                Source::Seed | Source::Learned => false,
            };
            return match certain {
                true => ModelVerdict::MethodUnsupported { model, supported },
                false => ModelVerdict::Known(model),
            };
        }
        if !self.is_fresh_in(&state) {
            return ModelVerdict::Unknown;
        }
        let names = state.names.clone();
        drop(state);
        let nearest = nearest(bare(name), names.keys());
        if nearest.is_empty() { ModelVerdict::Unknown } else { ModelVerdict::Missing { nearest } }
    }

    /// Returns the known names that were probably meant by a name that is not known, the nearest only, however old the
    /// list is. Empty where the name is known, or may well be a new model's.
    pub fn nearest(&self, name: &str) -> Vec<Arc<str>> {
        let names = self.shared.state.read().names.clone();
        if names.contains_key(bare(name)) { Vec::new() } else { nearest(bare(name), names.keys()) }
    }

    /// Returns the most input tokens that the upstream takes for this model: the listed limit, or a lower one that it
    /// has named in a refusal. `None` where neither is known.
    pub fn effective_input_limit(&self, name: &str) -> Option<Limit> {
        self.shared.state.read().limit(bare(name), self.shared.settings.learned_for)
    }

    /// Remembers a limit that the upstream has named in a refusal, for as long as
    /// [`learned_for`](ModelTableBuilder::learned_for) says. It replaces the limit that was learned before for this
    /// model.
    ///
    /// A learned limit above the listed one has no effect. Returns `false` where the number cannot be a limit (under
    /// 256 tokens), or the name cannot be a model's (empty, or over 128 bytes). Limits of 1,024 names are remembered;
    /// past that, the oldest is forgotten.
    pub fn learn_input_limit(&self, name: &str, tokens: u64) -> bool {
        let now = Instant::now();
        self.shared.state.write().learned.learn(bare(name), tokens, now, self.shared.settings.learned_for)
    }

    /// Sets a model by hand. It goes before a listed one of the same name, and no refresh changes it.
    ///
    /// Returns `false` where the name is empty or over 128 bytes, or 1,024 models have been set already.
    pub fn insert(&self, model: Model) -> bool {
        let name = model.shared_name();
        if name.is_empty() || name.len() > MAX_NAME {
            return false;
        }
        let model = Arc::new(model.with_source(Source::Set));
        let mut state = self.shared.state.write();
        let is_new = state.names.get(&name).is_none_or(|known| known.source() != Source::Set);
        if is_new && state.set >= MAX_SET {
            return false;
        }
        state.set += usize::from(is_new);
        Arc::make_mut(&mut state.names).insert(name, model);
        true
    }

    /// Returns whether the list came from the upstream within [`fresh_for`](ModelTableBuilder::fresh_for), so that
    /// names can be refused by it.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_in(&self.shared.state.read())
    }

    fn is_fresh_in(&self, state: &State) -> bool {
        let fresh_for = self.shared.settings.fresh_for;
        state.listed_at.is_some_and(|at| Instant::now().saturating_duration_since(at) < fresh_for)
    }

    /// Replaces the list in one step, unless the one in force was asked for later.
    fn publish(&self, models: Vec<Model>, asked_at: Instant) {
        let mut names: ModelNames = models.into_iter().map(|model| (model.shared_name(), Arc::new(model))).collect();
        let mut state = self.shared.state.write();
        if state.listed_at.is_some_and(|at| at > asked_at) {
            return;
        }
        let set = state.names.iter().filter(|(_, model)| model.source() == Source::Set);
        names.extend(set.map(|(name, model)| (name.clone(), model.clone())));
        let before = std::mem::replace(&mut state.names, Arc::new(names));
        (state.listed_at, state.failures, state.last_failure) = (Some(asked_at), 0, None);
        drop(state);
        // Freed outside of the lock, as this may be the last handle of the old list.
        drop(before);
    }
}

impl Default for ModelTable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ModelTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models = self.shared.state.read().names.len();
        f.debug_struct("ModelTable").field("settings", &self.shared.settings).field("models", &models).finish()
    }
}

/// The verdict of a [`ModelTable`] on a name and an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelVerdict {
    /// There is such a model, and it is not known to refuse the operation.
    Known(Arc<Model>),
    /// The name is not known, so the upstream should judge.
    Unknown,
    /// A fresh list has no such model, and the name looks like a typing error in one that it has.
    Missing {
        /// The names that were probably meant: one to three, equally near, in alphabetical order.
        nearest: Vec<Arc<str>>,
    },
    /// There is such a model, but it does not have the method.
    MethodUnsupported {
        /// The model.
        model: Arc<Model>,
        /// The methods that it has.
        supported: Methods,
    },
}

/// The input limit of a model, and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limit {
    /// The most input tokens; of a model that [shares its limit](Model::shares_limit), of input and output together.
    pub tokens: u64,
    /// The source of the limit.
    pub source: Source,
}

/// The settings of a [`ModelTable`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ModelTableBuilder {
    fresh_for: Duration,
    learned_for: Duration,
    list_path: PathAndQuery,
}

impl ModelTableBuilder {
    /// Sets the time for which a list is fresh, from the time at which it was asked for. Default:
    /// [24 h](ModelTable::FRESH_FOR). With zero no list is fresh, so that none refuses anything.
    pub fn fresh_for(mut self, time: Duration) -> Self {
        self.fresh_for = time;
        self
    }

    /// Sets the time for which a learned limit holds. Default: [24 h](ModelTable::LEARNED_FOR). With zero nothing is
    /// learned.
    pub fn learned_for(mut self, time: Duration) -> Self {
        self.learned_for = time;
        self
    }

    /// Sets the path of the upstream's list, with a prefix if need be: `/relay/v1beta/models`. Default:
    /// `/v1beta/models`.
    pub fn list_path(mut self, path: PathAndQuery) -> Self {
        self.list_path = path;
        self
    }

    /// Builds the table, with the built-in list in it.
    pub fn build(self) -> ModelTable {
        let names = seed::models().map(|model| (model.shared_name(), model)).collect();
        let state = State {
            names: Arc::new(names),
            set: 0,
            listed_at: None,
            learned: Learned::default(),
            failures: 0,
            last_failure: None,
        };
        ModelTable { shared: Arc::new(Shared { settings: self, state: RwLock::new(state), demand: Demand::default() }) }
    }
}

impl Default for ModelTableBuilder {
    fn default() -> Self {
        Self {
            fresh_for: ModelTable::FRESH_FOR,
            learned_for: ModelTable::LEARNED_FOR,
            list_path: PathAndQuery::from_static("/v1beta/models"),
        }
    }
}

// === impl State ===

impl State {
    fn get(&self, name: &str) -> Option<&Arc<Model>> {
        let name = bare(name);
        // A longer name is not worth its hash.
        (name.len() <= MAX_NAME).then(|| self.names.get(name)).flatten()
    }

    fn limit(&self, name: &str, learned_for: Duration) -> Option<Limit> {
        let listed =
            self.get(name).and_then(|model| Some(Limit { tokens: model.input_limit()?, source: model.source() }));
        let learned =
            self.learned.get(name, Instant::now, learned_for).map(|tokens| Limit { tokens, source: Source::Learned });
        // On a tie the listed one wins.
        listed.into_iter().chain(learned).min_by_key(|limit| limit.tokens)
    }
}
