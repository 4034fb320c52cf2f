//! What an emulator is told before it starts.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Emulator, Shared, answer::Reply, credentials::Keyring, model::Model, quota::Window, script::Script,
    trouble::Trouble, when::When,
};
use crate::quota::Limits;

/// Builds an [`Emulator`]. Everything has a default: [`Emulator::new`] answers everybody, at once.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::{
///     emulator::{Emulator, Model, Trouble, When, Window},
///     quota::Limits,
/// };
///
/// let emulator = Emulator::builder()
///     .seed(7)
///     .key("test-key-a", "project-a")
///     .model(Model::new("gemini-2.5-flash").input_token_limit(1_048_576))
///     .limits(Limits::new().requests_per_minute(10))
///     .window(Window::Sliding)
///     .first_token(Duration::from_millis(80))
///     .between_chunks(Duration::from_millis(10))
///     .chunks(4)
///     .trouble(When::first(2), Trouble::overloaded())
///     .trouble(When::prompt_contains("poison"), Trouble::internal())
///     .build();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct EmulatorBuilder {
    settings: Settings,
    script: Script,
    started_wall: Option<SystemTime>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) seed: u64,
    pub(super) keys: Keyring,
    pub(super) keyless: bool,
    pub(super) models: Vec<Model>,
    limits: Limits,
    limits_for: HashMap<String, Limits>,
    limits_in: HashMap<String, Limits>,
    pub(super) window: Window,
    pub(super) paid: bool,
    pub(super) before_headers: Duration,
    pub(super) first_token: Duration,
    pub(super) between_chunks: Duration,
    pub(super) chunks: usize,
    pub(super) reply: Reply,
    pub(super) thinking: bool,
    pub(super) body_limit: usize,
    pub(super) journal_capacity: usize,
}

// === impl EmulatorBuilder ===

impl EmulatorBuilder {
    /// Starts its clock.
    pub fn build(mut self) -> Emulator {
        if self.settings.models.is_empty() {
            self.settings.models = Model::defaults();
        }
        let started_wall = self.started_wall.unwrap_or_else(crate::clock::wall);
        Emulator { shared: Arc::new(Shared::new(self.settings, self.script, started_wall)) }
    }

    // --- who may ask, and what ---

    /// A good key, and the project that pays for it. Keys of one project share its quota. Without any, every key is good.
    pub fn key(mut self, key: &str, project: &str) -> Self {
        self.settings.keys.insert(key, project);
        self
    }

    /// Answers requests without any credential, too. Google does not.
    pub fn keyless(mut self) -> Self {
        self.settings.keyless = true;
        self
    }

    /// A model. Without any, the ones that Google had in 2026: 2.5 Pro, Flash and Flash-Lite, some of 3, their `-latest`
    /// names, and `gemini-embedding-001`.
    pub fn model(mut self, model: Model) -> Self {
        self.settings.models.retain(|known| known.name != model.name);
        self.settings.models.push(model);
        self
    }

    /// The models of an emulator that was given none, to which others can be added.
    pub fn default_models(self) -> Self {
        Model::defaults().into_iter().fold(self, Self::model)
    }

    // --- quota ---

    /// What each project may ask of each model. Default: anything.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// What each project may ask of that model, instead of the general limits.
    pub fn limits_for(mut self, model: impl Into<String>, limits: Limits) -> Self {
        self.settings.limits_for.insert(model.into(), limits);
        self
    }

    /// What that project may ask of each model, instead of any other limits.
    pub fn limits_in(mut self, project: impl Into<String>, limits: Limits) -> Self {
        self.settings.limits_in.insert(project.into(), limits);
        self
    }

    /// How minutes are counted. Default: [`Window::Sliding`].
    pub fn window(mut self, window: Window) -> Self {
        self.settings.window = window;
        self
    }

    /// Names quotas as those of the paid tier. Default: the free one.
    pub fn paid_tier(mut self) -> Self {
        self.settings.paid = true;
        self
    }

    /// What time it is at the start, so that midnight Pacific comes when a test wants it. Default: the wall clock's.
    /// From there tokio's clock goes on.
    pub fn wall_clock(mut self, at_start: SystemTime) -> Self {
        self.started_wall = Some(at_start);
        self
    }

    // --- the answer ---

    /// What is answered. Default: [`Reply::Echo`].
    pub fn reply(mut self, reply: Reply) -> Self {
        self.settings.reply = reply;
        self
    }

    /// Thinks before it answers: thoughts are counted, and shown to those who ask for them (`includeThoughts`).
    pub fn thinking(mut self) -> Self {
        self.settings.thinking = true;
        self
    }

    /// In how many pieces an answer is streamed; fewer if it has fewer characters. Default: 3.
    pub fn chunks(mut self, chunks: usize) -> Self {
        self.settings.chunks = chunks.max(1);
        self
    }

    /// The time until any headers go out. Default: none.
    pub fn before_headers(mut self, time: Duration) -> Self {
        self.settings.before_headers = time;
        self
    }

    /// The time from there until the first piece of a generated answer. Default: none. A stream's headers do not wait for
    /// it; an answer in one piece does, and for the time between the pieces, too.
    pub fn first_token(mut self, time: Duration) -> Self {
        self.settings.first_token = time;
        self
    }

    /// The time between two pieces of a generated answer. Default: none.
    pub fn between_chunks(mut self, time: Duration) -> Self {
        self.settings.between_chunks = time;
        self
    }

    // --- what goes wrong ---

    /// The seed of everything that is left to chance. Default: 0. Under one seed, the same requests in the same order have
    /// the same luck.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// Something that goes wrong. Troubles are looked at in this order, and the first that strikes is the only one.
    pub fn trouble(mut self, when: When, trouble: Trouble) -> Self {
        self.script.push(when, trouble);
        self
    }

    /// Troubles that are consumed in order, one for each request that `when` strikes.
    pub fn script(mut self, when: When, troubles: impl IntoIterator<Item = Trouble>) -> Self {
        self.script.push_list(when, troubles);
        self
    }

    // --- bounds ---

    /// The largest request. Default: 100 MiB.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.settings.body_limit = bytes;
        self
    }

    /// So many visits the journal remembers. Default: 10,000.
    pub fn journal_capacity(mut self, visits: usize) -> Self {
        self.settings.journal_capacity = visits;
        self
    }
}

impl Default for EmulatorBuilder {
    fn default() -> Self {
        let settings = Settings {
            seed: 0,
            keys: Keyring::default(),
            keyless: false,
            models: Vec::new(),
            limits: Limits::new(),
            limits_for: HashMap::new(),
            limits_in: HashMap::new(),
            window: Window::default(),
            paid: false,
            before_headers: Duration::ZERO,
            first_token: Duration::ZERO,
            between_chunks: Duration::ZERO,
            chunks: 3,
            reply: Reply::default(),
            thinking: false,
            body_limit: 100 * 1024 * 1024,
            journal_capacity: 10_000,
        };
        Self { settings, script: Script::default(), started_wall: None }
    }
}

// === impl Settings ===

impl Settings {
    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(super) fn limits(&self, project: &str, model: &str) -> Limits {
        let special = self.limits_in.get(project).or_else(|| self.limits_for.get(model));
        special.copied().unwrap_or(self.limits)
    }
}
