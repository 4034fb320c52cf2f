//! The builder of an emulator.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::handle::Emulator;
use crate::{
    emulator::{
        script::{reply::Reply, rules::Script, trouble::Trouble, when::When},
        state::{models::EmulatedModel, quota::QuotaWindow, settings::Settings, shared::Shared},
    },
    quota::Limits,
};

/// A builder of an [`Emulator`]. Everything has a default: [`Emulator::new`] answers every request at once.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::{
///     emulator::{EmulatedModel, Emulator, QuotaWindow, Trouble, When},
///     quota::Limits,
/// };
///
/// let emulator = Emulator::builder()
///     .seed(7)
///     .key("test-key-a", "project-a")
///     .model(EmulatedModel::new("gemini-2.5-flash").input_token_limit(1_048_576))
///     .limits(Limits::new().requests_per_minute(10))
///     .window(QuotaWindow::Sliding)
///     .first_token(Duration::from_millis(80))
///     .between_chunks(Duration::from_millis(10))
///     .chunks(4)
///     .trouble(When::first(2), Trouble::overloaded())
///     .trouble(When::prompt_contains("poison"), Trouble::internal())
///     .build();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct EmulatorBuilder {
    settings: Settings,
    script: Script,
    started_wall: Option<SystemTime>,
}

// === impl Emulator ===

impl Emulator {
    /// Makes an emulator without troubles: every key is valid, there are no limits, and every answer comes at once.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder of an emulator.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }
}

impl Default for Emulator {
    fn default() -> Self {
        Self::new()
    }
}

// === impl EmulatorBuilder ===

impl EmulatorBuilder {
    /// Builds the emulator, and starts its clock.
    pub fn build(mut self) -> Emulator {
        if self.settings.models.is_empty() {
            self.settings.models = EmulatedModel::defaults();
        }
        let started_wall = self.started_wall.unwrap_or_else(crate::clock::wall);
        Emulator { shared: Arc::new(Shared::new(self.settings, self.script, started_wall)) }
    }

    // --- keys and models ---

    /// Adds a valid key and its project, whose quota it spends. Keys of one project share its quota. Default: without
    /// any, every key is valid.
    pub fn key(mut self, key: &str, project: &str) -> Self {
        self.settings.keys.insert(key, project);
        self
    }

    /// Admits requests without a credential, which Google refuses.
    pub fn keyless(mut self) -> Self {
        self.settings.keyless = true;
        self
    }

    /// Adds a model. Default: without any, the models that Google had in 2026, which are 2.5 Pro, Flash and Flash-Lite,
    /// some of 3, their `-latest` names, and `gemini-embedding-001`.
    pub fn model(mut self, model: EmulatedModel) -> Self {
        self.settings.models.retain(|known| known.name != model.name);
        self.settings.models.push(model);
        self
    }

    /// Adds the models of an emulator that is configured without any, so that others can be added to them.
    pub fn default_models(self) -> Self {
        EmulatedModel::defaults().into_iter().fold(self, Self::model)
    }

    // --- quota ---

    /// Sets the limits of each project on each model. Default: no limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Sets the limits of each project on one model, in place of the general limits.
    pub fn limits_for(mut self, model: impl Into<String>, limits: Limits) -> Self {
        self.settings.limits_for.insert(model.into(), limits);
        self
    }

    /// Sets the limits of one project on each model, in place of all other limits.
    pub fn limits_in(mut self, project: impl Into<String>, limits: Limits) -> Self {
        self.settings.limits_in.insert(project.into(), limits);
        self
    }

    /// Sets the counting of a minute's quota. Default: [`QuotaWindow::Sliding`].
    pub fn window(mut self, window: QuotaWindow) -> Self {
        self.settings.window = window;
        self
    }

    /// Names quotas as those of the paid tier. Default: the free tier.
    pub fn paid_tier(mut self) -> Self {
        self.settings.paid = true;
        self
    }

    /// Sets the wall time at the start, so that midnight Pacific comes when a test wants it. Tokio's clock goes on from
    /// there. Default: the wall clock's time.
    pub fn wall_clock(mut self, at_start: SystemTime) -> Self {
        self.started_wall = Some(at_start);
        self
    }

    // --- the answer ---

    /// Sets the text of answers. Default: [`Reply::Echo`].
    pub fn reply(mut self, reply: Reply) -> Self {
        self.settings.reply = reply;
        self
    }

    /// Adds a thought to each answer: always counted, and shown in answers to requests with `includeThoughts`.
    pub fn thinking(mut self) -> Self {
        self.settings.thinking = true;
        self
    }

    /// Sets the number of pieces in which an answer is streamed; fewer if it has fewer characters. Default: 3.
    pub fn chunks(mut self, chunks: usize) -> Self {
        self.settings.chunks = chunks.max(1);
        self
    }

    /// Sets the time until the headers are sent. Default: 0.
    pub fn before_headers(mut self, time: Duration) -> Self {
        self.settings.before_headers = time;
        self
    }

    /// Sets the time from the headers to the first piece of a generated answer. Default: 0. A stream's headers do not
    /// wait for it; the headers of an answer in one piece do, and for the time between the pieces, too.
    pub fn first_token(mut self, time: Duration) -> Self {
        self.settings.first_token = time;
        self
    }

    /// Sets the time between two pieces of a generated answer. Default: 0.
    pub fn between_chunks(mut self, time: Duration) -> Self {
        self.settings.between_chunks = time;
        self
    }

    /// Sets the time that a batch takes, and an interaction in the background: until then, both are under way. Default:
    /// 0, with which whoever looks finds them done.
    pub fn background_time(mut self, time: Duration) -> Self {
        self.settings.background = time;
        self
    }

    // --- troubles ---

    /// Sets the seed of all random decisions. Default: 0. Under one seed, the same requests in the same order get the
    /// same responses.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// Adds a trouble. Troubles are tried in the order in which they were added, and only the first one strikes.
    pub fn trouble(mut self, when: When, trouble: Trouble) -> Self {
        self.script.push(when, trouble);
        self
    }

    /// Adds a list of troubles, which is used up in order, one for each request that `when` strikes.
    pub fn script(mut self, when: When, troubles: impl IntoIterator<Item = Trouble>) -> Self {
        self.script.push_list(when, troubles);
        self
    }

    // --- bounds ---

    /// Sets the largest body of a request, in bytes. Default: 100 MiB.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.settings.body_limit = bytes;
        self
    }

    /// Sets the number of visits that the journal keeps. Default: 10,000.
    pub fn journal_capacity(mut self, visits: usize) -> Self {
        self.settings.journal_capacity = visits;
        self
    }
}
