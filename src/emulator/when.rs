//! With which requests it goes wrong.

use std::time::Duration;

use super::credentials::Fingerprint;
use crate::call::Operation;

/// With which requests something goes wrong: a trigger, and what it is restricted to.
///
/// A trigger counts the requests that reach it: those that fit its restrictions and that no earlier trouble struck. So
/// `first(2)` followed by another `first(1)` is "twice this, once that, then fine".
///
/// Unless [`path`](Self::path) says otherwise, only requests that would otherwise be answered are looked at: what is
/// refused for its form, its model or its quota uses no scripted trouble up. Unless [`operation`](Self::operation) says
/// otherwise, only calls on a model are: generating, embedding, counting.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::emulator::{Capacity, When};
///
/// When::first(2);                                               // twice, then fine
/// When::probability(0.3).until(Duration::from_secs(60));        // a bad minute
/// When::always().model("gemini-2.5-pro").streaming(true);       // one model, and only its streams
/// When::overload(Capacity::in_flight(8));                       // the more requests, the likelier
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct When {
    pub(super) trigger: Trigger,
    from: Duration,
    until: Option<Duration>,
    model: Option<String>,
    project: Option<String>,
    key: Option<Fingerprint>,
    operation: Option<Operation>,
    streaming: Option<bool>,
    prompt: Option<String>,
    path: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trigger {
    Always,
    /// From the one after `skip`, so many.
    Span {
        skip: u64,
        take: u64,
    },
    Every(u64),
    Probability(f64),
    Overload(Capacity),
}

/// How much the upstream can take before it begins to refuse.
///
/// Up to the capacity nothing is refused; above it, a request is struck with probability `1 - capacity / load`, so that
/// about the capacity gets through. What is refused counts as load too: retrying without backing off keeps it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub(super) measure: Measure,
    pub(super) limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    InFlight,
    PerSecond,
}

/// What is known of a request when it is asked whether something goes wrong with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// Since the emulator's start.
    pub(super) now: Duration,
    pub(super) path: &'a str,
    pub(super) operation: Operation,
    pub(super) streaming: bool,
    pub(super) model: Option<&'a str>,
    pub(super) project: Option<&'a str>,
    pub(super) key: Option<Fingerprint>,
    pub(super) prompt: &'a str,
    /// Requests in flight, this one included.
    pub(super) in_flight: usize,
}

// === impl When ===

impl When {
    /// Every time.
    pub fn always() -> Self {
        Self::new(Trigger::Always)
    }

    /// The first so many requests.
    pub fn first(requests: u64) -> Self {
        Self::new(Trigger::Span { skip: 0, take: requests })
    }

    /// Just that one, counted from 1.
    pub fn nth(request: u64) -> Self {
        Self::new(Trigger::Span { skip: request.saturating_sub(1), take: u64::from(request > 0) })
    }

    /// All but the first so many.
    pub fn after(requests: u64) -> Self {
        Self::new(Trigger::Span { skip: requests, take: u64::MAX })
    }

    /// Every so manyth: 3 strikes the third, the sixth, the ninth. 0 never strikes.
    pub fn every(requests: u64) -> Self {
        Self::new(Trigger::Every(requests))
    }

    /// By chance, from the emulator's seed: 0 is never, 1 is always.
    pub fn probability(probability: f64) -> Self {
        Self::new(Trigger::Probability(probability))
    }

    /// Whenever that text stands in the prompt.
    pub fn prompt_contains(text: impl Into<String>) -> Self {
        Self::always().prompt(text)
    }

    /// The more load, the likelier.
    pub fn overload(capacity: Capacity) -> Self {
        Self::new(Trigger::Overload(capacity))
    }

    /// Not before that time, counted from the emulator's start.
    pub fn from(mut self, since_start: Duration) -> Self {
        self.from = since_start;
        self
    }

    /// Only before that time, counted from the emulator's start.
    pub fn until(mut self, since_start: Duration) -> Self {
        self.until = Some(since_start);
        self
    }

    /// Only that model, by the name that the request asks for.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Only that project.
    pub fn project(mut self, name: impl Into<String>) -> Self {
        self.project = Some(name.into());
        self
    }

    /// Only that key. What is kept is its fingerprint.
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(Fingerprint::of(key));
        self
    }

    /// Only that operation.
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only streams, or only what is answered in one piece.
    pub fn streaming(mut self, streaming: bool) -> Self {
        self.streaming = Some(streaming);
        self
    }

    /// Only prompts with that text in them.
    pub fn prompt(mut self, text: impl Into<String>) -> Self {
        self.prompt = Some(text.into());
        self
    }

    /// Only paths with that text in them, and before anything else is looked at: paths that the emulator does not know,
    /// requests without a key, bodies that are no JSON.
    pub fn path(mut self, text: impl Into<String>) -> Self {
        self.path = Some(text.into());
        self
    }

    fn new(trigger: Trigger) -> Self {
        Self {
            trigger,
            from: Duration::ZERO,
            until: None,
            model: None,
            project: None,
            key: None,
            operation: None,
            streaming: None,
            prompt: None,
            path: None,
        }
    }

    pub(super) fn is_by_path(&self) -> bool {
        self.path.is_some()
    }

    pub(super) fn fits(&self, facts: &Facts<'_>) -> bool {
        let operation = match (self.operation, &self.path) {
            (Some(operation), _) => operation == facts.operation,
            (None, Some(_)) => true,
            (None, None) => calls_a_model(facts.operation),
        };
        operation
            && facts.now >= self.from
            && self.until.is_none_or(|until| facts.now < until)
            && self.streaming.is_none_or(|streaming| streaming == facts.streaming)
            && self.key.is_none_or(|key| facts.key == Some(key))
            && self.model.as_deref().is_none_or(|model| facts.model == Some(model))
            && self.project.as_deref().is_none_or(|project| facts.project == Some(project))
            && self.path.as_deref().is_none_or(|path| facts.path.contains(path))
            && self.prompt.as_deref().is_none_or(|text| facts.prompt.contains(text))
    }
}

fn calls_a_model(operation: Operation) -> bool {
    use Operation::{BatchEmbedContents, CountTokens, EmbedContent, GenerateContent, Predict};
    matches!(operation, GenerateContent | EmbedContent | BatchEmbedContents | Predict | CountTokens)
}

// === impl Capacity ===

impl Capacity {
    /// So many requests at once.
    pub fn in_flight(requests: u32) -> Self {
        Self { measure: Measure::InFlight, limit: requests }
    }

    /// So many requests within the last second.
    pub fn per_second(requests: u32) -> Self {
        Self { measure: Measure::PerSecond, limit: requests }
    }

    pub(super) fn refusal_probability(self, load: usize) -> f64 {
        match load as f64 {
            load if load <= f64::from(self.limit) => 0.0,
            load => 1.0 - f64::from(self.limit) / load,
        }
    }
}
