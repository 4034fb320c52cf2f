//! The origins of answers: the models that have given them in the place of the one that was asked for.
//!
//! A later call may go on from such an answer, by a token or by its id, and names the model that its caller has asked for;
//! only the one that has answered can go on.

use std::{collections::VecDeque, sync::Arc};

use crate::{bounded::ByAge, call::ServiceTier, context::Usage, resource::Resource};

/// The most names of answers that are kept. Most go on within seconds.
const MAX_KNOWN: usize = 4_096;

/// The most answers that are watched while they pass.
const MAX_PASSING: usize = 1_024;

/// The model that has given an answer, and the service tier in which it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) model: Arc<str>,
    pub(super) tier: ServiceTier,
}

/// The origins that are known. An answer hands out its names while its body passes, out of this layer's sight: they are
/// read from its usage once it has ended, or when a call asks for them.
pub(super) struct Origins {
    known: ByAge<Resource, Origin>,
    passing: VecDeque<Passing>,
}

/// An answer whose body may still pass.
struct Passing {
    usage: Usage,
    /// The collection in which the upstream keeps it.
    collection: Option<&'static str>,
    origin: Origin,
}

impl Origins {
    pub(super) fn new() -> Self {
        Self { known: ByAge::new(MAX_KNOWN), passing: VecDeque::new() }
    }

    /// Begins to watch an answer.
    pub(super) fn note(&mut self, usage: Usage, collection: Option<&'static str>, origin: Origin) {
        // Two looks for each new answer keep no more of them here than are under way, at a cost that does not grow.
        for _ in 0..2 {
            match self.passing.pop_front() {
                Some(answer) if answer.usage.is_settled() => self.learn(&answer),
                Some(answer) => self.passing.push_back(answer),
                None => break,
            }
        }
        if self.passing.len() >= MAX_PASSING
            && let Some(answer) = self.passing.pop_front()
        {
            self.learn(&answer);
        }
        self.passing.push_back(Passing { usage, collection, origin });
    }

    /// Returns the origin of the answer of that name.
    pub(super) fn of(&self, name: &Resource) -> Option<Origin> {
        let hands_out = |answer: &&Passing| answer.usage.handed_out(answer.collection).contains(name);
        // The latest is the likeliest.
        let passing = || self.passing.iter().rev().find(hands_out).map(|answer| &answer.origin);
        self.known.get(name).or_else(passing).cloned()
    }

    fn learn(&mut self, answer: &Passing) {
        for name in answer.usage.handed_out(answer.collection) {
            self.known.insert(name, answer.origin.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(model: &str) -> Origin {
        Origin { model: model.into(), tier: ServiceTier::Standard }
    }

    fn named(id: &str) -> Usage {
        let usage = Usage::default();
        usage.update(|report| report.response_id = Some(id.into()));
        usage
    }

    fn interaction(id: &str) -> Resource {
        Resource::new("interactions", id).unwrap()
    }

    #[test]
    fn a_name_is_known_while_the_answer_passes_and_afterwards() {
        let mut origins = Origins::new();
        let usage = Usage::default();
        origins.note(usage.clone(), Some("interactions"), origin("flash"));
        assert_eq!(origins.of(&interaction("a")), None);
        usage.update(|report| report.response_id = Some("a".into()));
        assert_eq!(origins.of(&interaction("a")), Some(origin("flash")));
        usage.end();
        origins.note(named("b"), None, origin("lite"));
        assert_eq!(origins.passing.len(), 1);
        assert_eq!(origins.of(&interaction("a")), Some(origin("flash")));
        assert_eq!(origins.of(&interaction("b")), None, "it is kept in no collection");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut origins = Origins::new();
        let under_way: Vec<_> = (0..2 * MAX_PASSING).map(|nth| named(&format!("u{nth}"))).collect();
        for usage in &under_way {
            origins.note(usage.clone(), Some("interactions"), origin("flash"));
        }
        assert_eq!(origins.passing.len(), MAX_PASSING);
        assert!((0..under_way.len()).all(|nth| origins.of(&interaction(&format!("u{nth}"))).is_some()));
        drop(under_way);
        for nth in 0..2 * MAX_KNOWN {
            origins.note(named(&format!("n{nth}")), Some("interactions"), origin("flash"));
        }
        assert!(origins.passing.len() <= 2, "those that have ended are not watched: {}", origins.passing.len());
        assert_eq!(origins.known.len(), MAX_KNOWN);
        assert_eq!(origins.of(&interaction("n0")), None);
        assert!(origins.of(&interaction(&format!("n{}", 2 * MAX_KNOWN - 1))).is_some());
    }
}
