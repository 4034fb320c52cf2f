//! The choice of the requests that a trouble strikes.

use std::time::Duration;

use crate::{
    call::{Operation, ServiceTier},
    emulator::wire::credentials::KeyHash,
};

/// The requests that a [`Trouble`](crate::emulator::Trouble) strikes: a trigger, and restrictions.
///
/// A trigger counts the requests that reach it: those that meet its restrictions and that no earlier trouble struck. So
/// `first(2)` followed by `first(1)` of another trouble strikes two requests, then one, and then none.
///
/// Without [`path`](Self::path), only requests that would otherwise be answered count: a request that is refused for
/// its form, its model or its quota does not use up a trouble. Without [`operation`](Self::operation), only calls on a
/// model or an agent count: generating, embedding, counting, and making an interaction.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::emulator::{Capacity, When};
///
/// When::first(2);                                               // the first two requests
/// When::probability(0.3).until(Duration::from_secs(60));        // three in ten, for a minute
/// When::always().model("gemini-2.5-pro").streaming(true);       // the streams of one model
/// When::overload(Capacity::in_flight(8));                       // likelier with more requests in flight
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct When {
    pub(crate) trigger: Trigger,
    from: Duration,
    until: Option<Duration>,
    model: Option<String>,
    project: Option<String>,
    key: Option<KeyHash>,
    operation: Option<Operation>,
    streaming: Option<bool>,
    prompt: Option<String>,
    path: Option<String>,
    tier: Option<ServiceTier>,
    grounded: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trigger {
    Always,
    /// Strikes `take` requests after the first `skip`.
    Span {
        skip: u64,
        take: u64,
    },
    Every(u64),
    Probability(f64),
    Overload(Capacity),
}

/// The load that the upstream takes before it begins to refuse.
///
/// Up to the capacity, no request is struck. Above it, a request is struck with a probability of `1 - capacity / load`,
/// so that about the capacity gets through. Refused requests are load, too: retries without a backoff keep the load up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub(crate) measure: Measure,
    pub(crate) limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    InFlight,
    PerSecond,
}

/// The facts about a request that a script decides by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptFacts<'a> {
    /// The time since the emulator's start.
    pub(crate) now: Duration,
    pub(crate) path: &'a str,
    pub(crate) operation: Operation,
    pub(crate) streaming: bool,
    pub(crate) model: Option<&'a str>,
    pub(crate) project: Option<&'a str>,
    pub(crate) key: Option<KeyHash>,
    pub(crate) prompt: &'a str,
    /// The tier of service that was asked for.
    pub(crate) tier: ServiceTier,
    /// The model may search, or look at maps.
    pub(crate) is_grounded: bool,
    /// The number of requests in flight, this one included.
    pub(crate) in_flight: usize,
}

// === impl When ===

impl When {
    /// Creates a trigger that strikes every request.
    pub fn always() -> Self {
        Self::new(Trigger::Always)
    }

    /// Creates a trigger that strikes the first `requests` requests.
    pub fn first(requests: u64) -> Self {
        Self::new(Trigger::Span { skip: 0, take: requests })
    }

    /// Creates a trigger that strikes one request, counted from 1; 0 strikes none.
    pub fn nth(request: u64) -> Self {
        Self::new(Trigger::Span { skip: request.saturating_sub(1), take: u64::from(request > 0) })
    }

    /// Creates a trigger that strikes all requests but the first `requests`.
    pub fn after(requests: u64) -> Self {
        Self::new(Trigger::Span { skip: requests, take: u64::MAX })
    }

    /// Creates a trigger that strikes every `requests`th request: 3 strikes the third, the sixth and the ninth; 0
    /// strikes none.
    pub fn every(requests: u64) -> Self {
        Self::new(Trigger::Every(requests))
    }

    /// Creates a trigger that strikes at random, by the emulator's seed: never with a probability of 0, always with 1.
    pub fn probability(probability: f64) -> Self {
        Self::new(Trigger::Probability(probability))
    }

    /// Creates a trigger that strikes requests whose prompt contains that text.
    pub fn prompt_contains(text: impl Into<String>) -> Self {
        Self::always().prompt(text)
    }

    /// Creates a trigger that strikes at random, with a probability that grows with the load above a capacity.
    pub fn overload(capacity: Capacity) -> Self {
        Self::new(Trigger::Overload(capacity))
    }

    /// Restricts to requests from that time on, counted from the emulator's start.
    pub fn from(mut self, since_start: Duration) -> Self {
        self.from = since_start;
        self
    }

    /// Restricts to requests before that time, counted from the emulator's start.
    pub fn until(mut self, since_start: Duration) -> Self {
        self.until = Some(since_start);
        self
    }

    /// Restricts to one model, by the name in the request; or to one agent, as `agents/NAME`.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Restricts to one project.
    pub fn project(mut self, name: impl Into<String>) -> Self {
        self.project = Some(name.into());
        self
    }

    /// Restricts to one key, of which only a hash is kept.
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(KeyHash::of(key));
        self
    }

    /// Restricts to one operation.
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Restricts to requests for streams (`true`), or for answers in one piece (`false`).
    pub fn streaming(mut self, streaming: bool) -> Self {
        self.streaming = Some(streaming);
        self
    }

    /// Restricts to prompts that contain that text.
    pub fn prompt(mut self, text: impl Into<String>) -> Self {
        self.prompt = Some(text.into());
        self
    }

    /// Restricts to paths that contain that text, and strikes before any other check: also at paths that the emulator
    /// does not know, requests without a key, and bodies that are not JSON.
    pub fn path(mut self, text: impl Into<String>) -> Self {
        self.path = Some(text.into());
        self
    }

    /// Restricts to requests for one tier of service. A request that names none asks for the standard.
    pub fn tier(mut self, tier: ServiceTier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// Restricts to requests whose tools include Google's search or maps (`true`), or do not (`false`).
    pub fn grounded(mut self, grounded: bool) -> Self {
        self.grounded = Some(grounded);
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
            tier: None,
            grounded: None,
        }
    }

    /// Returns whether the restriction is by path, which is checked first.
    pub(crate) fn is_by_path(&self) -> bool {
        self.path.is_some()
    }

    /// Returns whether a request meets all restrictions.
    pub(crate) fn fits(&self, facts: &ScriptFacts<'_>) -> bool {
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
            && self.tier.is_none_or(|tier| facts.tier == tier)
            && self.grounded.is_none_or(|grounded| grounded == facts.is_grounded)
    }
}

fn calls_a_model(operation: Operation) -> bool {
    use Operation::{BatchEmbedContents, CountTokens, CreateInteraction, EmbedContent, GenerateContent, Predict};
    matches!(operation, GenerateContent | CreateInteraction | EmbedContent | BatchEmbedContents | Predict | CountTokens)
}

// === impl Capacity ===

impl Capacity {
    /// Creates the capacity of `requests` requests at once.
    pub fn in_flight(requests: u32) -> Self {
        Self { measure: Measure::InFlight, limit: requests }
    }

    /// Creates the capacity of `requests` requests a second: those within the last second count.
    pub fn per_second(requests: u32) -> Self {
        Self { measure: Measure::PerSecond, limit: requests }
    }

    /// Returns the probability with which a request is struck under a load.
    pub(crate) fn refusal_probability(self, load: usize) -> f64 {
        match load as f64 {
            load if load <= f64::from(self.limit) => 0.0,
            load => 1.0 - f64::from(self.limit) / load,
        }
    }
}
