//! The script: the rules that decide which trouble strikes a request, in the order in which they were added.

use std::{collections::VecDeque, time::Duration};

use super::{
    trouble::Trouble,
    when::{Measure, ScriptFacts, Trigger, When},
};

/// The rules of an emulator, in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    rules: Vec<ScriptRule>,
}

/// A point among the checks of a request at which a trouble can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before all checks, for rules that are restricted by path.
    Path,
    /// After the key was accepted, before any quota is spent: for troubles of the key.
    Key,
    /// After all checks, when the request would be answered.
    Answer,
}

#[derive(Clone, Debug)]
struct ScriptRule {
    when: When,
    troubles: Troubles,
    /// The number of requests that reached the rule.
    reached: u64,
    /// The times of arrival within the last second. Only a rule that measures a rate keeps them.
    arrivals: VecDeque<Duration>,
}

#[derive(Clone, Debug)]
enum Troubles {
    /// One trouble for all requests.
    Same(Trouble),
    /// A trouble for each request, in order.
    List(VecDeque<Trouble>),
}

/// The largest number of arrivals that are kept; above it, nearly every request is struck anyway.
const ARRIVALS: usize = 65_536;

// === impl Script ===

impl Script {
    pub(crate) fn push(&mut self, when: When, trouble: Trouble) {
        self.rules.push(ScriptRule::new(when, Troubles::Same(trouble)));
    }

    pub(crate) fn push_list(&mut self, when: When, troubles: impl IntoIterator<Item = Trouble>) {
        self.rules.push(ScriptRule::new(when, Troubles::List(troubles.into_iter().collect())));
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Returns the trouble that strikes a request, if any, and uses it up.
    pub(crate) fn strike(&mut self, stage: Stage, facts: &ScriptFacts<'_>, rng: &mut fastrand::Rng) -> Option<Trouble> {
        let struck = self.rules.iter_mut().find_map(|rule| rule.strike(stage, facts, rng));
        self.rules.retain(|rule| !rule.is_spent());
        struck
    }
}

// === impl ScriptRule ===

impl ScriptRule {
    fn new(when: When, troubles: Troubles) -> Self {
        Self { when, troubles, reached: 0, arrivals: VecDeque::new() }
    }

    fn strike(&mut self, stage: Stage, facts: &ScriptFacts<'_>, rng: &mut fastrand::Rng) -> Option<Trouble> {
        if self.stage()? != stage || !self.when.fits(facts) {
            return None;
        }
        self.reached += 1;
        let strikes = match self.when.trigger {
            Trigger::Always => true,
            Trigger::Span { skip, take } => self.reached > skip && self.reached - skip <= take,
            Trigger::Every(requests) => requests > 0 && self.reached.is_multiple_of(requests),
            Trigger::Probability(probability) => rng.f64() < probability,
            Trigger::Overload(capacity) => {
                let load = match capacity.measure {
                    Measure::InFlight => facts.in_flight,
                    Measure::PerSecond => self.rate(facts.now),
                };
                rng.f64() < capacity.refusal_probability(load)
            }
        };
        strikes.then(|| self.troubles.next()).flatten()
    }

    fn stage(&self) -> Option<Stage> {
        let next = match &self.troubles {
            Troubles::Same(trouble) => trouble,
            Troubles::List(troubles) => troubles.front()?,
        };
        Some(match next {
            _ if self.when.is_by_path() => Stage::Path,
            trouble if trouble.is_about_the_key() => Stage::Key,
            _ => Stage::Answer,
        })
    }

    fn rate(&mut self, now: Duration) -> usize {
        while self.arrivals.front().is_some_and(|at| *at + Duration::from_secs(1) <= now) {
            self.arrivals.pop_front();
        }
        if self.arrivals.len() < ARRIVALS {
            self.arrivals.push_back(now);
        }
        self.arrivals.len()
    }

    fn is_spent(&self) -> bool {
        match (&self.troubles, self.when.trigger) {
            (Troubles::List(troubles), _) if troubles.is_empty() => true,
            (_, Trigger::Span { skip, take }) => self.reached >= skip.saturating_add(take),
            _ => false,
        }
    }
}

impl Troubles {
    fn next(&mut self) -> Option<Trouble> {
        match self {
            Self::Same(trouble) => Some(trouble.clone()),
            Self::List(troubles) => troubles.pop_front(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::{Operation, ServiceTier},
        emulator::Capacity,
    };

    fn facts(prompt: &str) -> ScriptFacts<'_> {
        ScriptFacts {
            now: Duration::ZERO,
            path: "/v1beta/models/m:generateContent",
            operation: Operation::GenerateContent,
            streaming: false,
            model: Some("m"),
            project: Some("p"),
            key: None,
            prompt,
            tier: ServiceTier::Standard,
            is_grounded: false,
            in_flight: 1,
        }
    }

    fn names(script: &mut Script, requests: usize) -> Vec<&'static str> {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut strike = || script.strike(Stage::Answer, &facts("hi"), &mut rng);
        (0..requests).map(|_| strike().map_or("fine", |trouble| trouble.name())).collect()
    }

    #[test]
    fn troubles_follow_one_another() {
        let mut script = Script::default();
        script.push(When::first(2), Trouble::overloaded());
        script.push(When::first(1), Trouble::internal());
        assert_eq!(names(&mut script, 4), ["overloaded", "overloaded", "internal", "fine"]);
        assert!(script.rules.is_empty());
    }

    #[test]
    fn a_list_is_consumed_in_order() {
        let mut script = Script::default();
        script.push_list(When::always(), [Trouble::overloaded(), Trouble::none(), Trouble::hang()]);
        assert_eq!(names(&mut script, 4), ["overloaded", "none", "hang", "fine"]);
    }

    #[test]
    fn nth_after_and_every_count() {
        for (when, expected) in [
            (When::nth(2), ["fine", "internal", "fine", "fine"]),
            (When::after(2), ["fine", "fine", "internal", "internal"]),
            (When::every(2), ["fine", "internal", "fine", "internal"]),
            (When::every(0), ["fine"; 4]),
            (When::nth(0), ["fine"; 4]),
            (When::probability(0.0), ["fine"; 4]),
            (When::probability(1.0), ["internal"; 4]),
            (When::always().model("other"), ["fine"; 4]),
            (When::always().project("p").streaming(false), ["internal"; 4]),
            (When::prompt_contains("poison"), ["fine"; 4]),
            (When::always().operation(Operation::CountTokens), ["fine"; 4]),
            (When::always().from(Duration::from_secs(1)), ["fine"; 4]),
            (When::always().until(Duration::ZERO), ["fine"; 4]),
            (When::always().tier(ServiceTier::Flex), ["fine"; 4]),
            (When::always().tier(ServiceTier::Standard).grounded(false), ["internal"; 4]),
            (When::always().grounded(true), ["fine"; 4]),
        ] {
            let mut script = Script::default();
            script.push(when.clone(), Trouble::internal());
            assert_eq!(names(&mut script, 4), expected, "{when:?}");
        }
    }

    #[test]
    fn overload_grows_with_load() {
        let capacity = Capacity::per_second(100);
        assert_eq!(capacity.refusal_probability(100), 0.0);
        assert_eq!(capacity.refusal_probability(200), 0.5);
        assert_eq!(capacity.refusal_probability(400), 0.75);

        let mut script = Script::default();
        script.push(When::overload(capacity), Trouble::overloaded());
        let struck = names(&mut script, 100).iter().filter(|name| **name != "fine").count();
        assert_eq!(struck, 0);
        let struck = names(&mut script, 300).iter().filter(|name| **name != "fine").count();
        assert!((130..200).contains(&struck), "{struck}");
    }
}
