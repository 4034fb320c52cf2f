//! How things stand with all breakers of a handle.

use super::{CircuitBreakers, State};
use crate::observe::{Observe, Reading, Value};

impl State {
    /// All states, in the order of their numbers.
    const ALL: [Self; 6] =
        [Self::Closed, Self::Open, Self::HalfOpen, Self::Ramping, Self::ForcedOpen, Self::ForcedClosed];
}

/// How often a breaker has come to each state, by the state's number.
pub(super) type Entered = [u32; State::ALL.len()];

impl Observe for CircuitBreakers {
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>)) {
        for (scope, state, entered) in self.histories() {
            for each in State::ALL {
                let labels = [("server.address", scope.endpoint()), ("state", each.as_str())];
                let mut say = |name, value| say(Reading { name, value, model: scope.model(), labels: &labels });
                say("tower_gemini.breaker.state", Value::Gauge(f64::from(u8::from(state == each))));
                let times = entered[each as usize];
                if times > 0 {
                    say("tower_gemini.breaker.transitions", Value::Counter(times.into()));
                }
            }
        }
    }
}
