//! The script: which trouble strikes a request, in the order in which they were written down.

use std::{collections::VecDeque, time::Duration};

use super::{
    trouble::Trouble,
    when::{Facts, Measure, Trigger, When},
};

/// All troubles, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    rules: Vec<Rule>,
}

/// At which point of a request's way a trouble is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before anything else: only what is restricted by path.
    Door,
    /// Once the key is known, before any quota is touched.
    Key,
    /// When the request would be answered.
    Answer,
}

#[derive(Clone, Debug)]
struct Rule {
    when: When,
    what: What,
    /// Requests that came so far.
    reached: u64,
    /// When requests came within the last second; kept only to measure a rate.
    arrivals: VecDeque<Duration>,
}

#[derive(Clone, Debug)]
enum What {
    Same(Trouble),
    List(VecDeque<Trouble>),
}

/// Arrivals kept to measure a rate; above it, the load is as good as endless.
const ARRIVALS: usize = 65_536;

// === impl Script ===

impl Script {
    pub(super) fn push(&mut self, when: When, trouble: Trouble) {
        self.rules.push(Rule::new(when, What::Same(trouble)));
    }

    pub(super) fn push_list(&mut self, when: When, troubles: impl IntoIterator<Item = Trouble>) {
        self.rules.push(Rule::new(when, What::List(troubles.into_iter().collect())));
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The first trouble that strikes, used up by it.
    pub(super) fn strike(&mut self, stage: Stage, facts: &Facts<'_>, rng: &mut fastrand::Rng) -> Option<Trouble> {
        let struck = self.rules.iter_mut().find_map(|rule| rule.strike(stage, facts, rng));
        self.rules.retain(|rule| !rule.is_spent());
        struck
    }
}

// === impl Rule ===

impl Rule {
    fn new(when: When, what: What) -> Self {
        Self { when, what, reached: 0, arrivals: VecDeque::new() }
    }

    fn strike(&mut self, stage: Stage, facts: &Facts<'_>, rng: &mut fastrand::Rng) -> Option<Trouble> {
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
        strikes.then(|| self.what.next()).flatten()
    }

    fn stage(&self) -> Option<Stage> {
        let next = match &self.what {
            What::Same(trouble) => trouble,
            What::List(troubles) => troubles.front()?,
        };
        Some(match next {
            _ if self.when.is_by_path() => Stage::Door,
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
        match (&self.what, self.when.trigger) {
            (What::List(troubles), _) if troubles.is_empty() => true,
            (_, Trigger::Span { skip, take }) => self.reached >= skip.saturating_add(take),
            _ => false,
        }
    }
}

impl What {
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
    use crate::{call::Operation, emulator::when::Capacity};

    fn facts(prompt: &str) -> Facts<'_> {
        Facts {
            now: Duration::ZERO,
            path: "/v1beta/models/m:generateContent",
            operation: Operation::GenerateContent,
            streaming: false,
            model: Some("m"),
            project: Some("p"),
            key: None,
            prompt,
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
