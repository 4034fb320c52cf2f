//! The current states of all breakers of a handle, as metrics.

use super::{CircuitBreakers, State};
use crate::{
    call::ServiceTier,
    observe::{Observe, Reading, Value},
};

impl State {
    /// All states, in the order of their numbers.
    const ALL: [Self; 6] =
        [Self::Closed, Self::Open, Self::HalfOpen, Self::Ramping, Self::ForcedOpen, Self::ForcedClosed];
}

/// The number of times that a breaker has entered each state, by the state's number.
pub(super) type Entered = [u32; State::ALL.len()];

impl Observe for CircuitBreakers {
    fn observe(&self, record: &mut dyn FnMut(Reading<'_>)) {
        for (scope, state, entered) in self.histories() {
            // Metrics know models by their own names.
            let (model, tier) = ServiceTier::split(scope.model());
            for each in State::ALL {
                let labels = [
                    ("server.address", scope.endpoint()),
                    ("state", each.as_str()),
                    ("tower_gemini.service_tier", tier.map_or("", ServiceTier::as_str)),
                ];
                let labels = &labels[..2 + usize::from(tier.is_some())];
                let mut record = |name, value| record(Reading { name, value, model, labels });
                record("tower_gemini.breaker.state", Value::Gauge(f64::from(u8::from(state == each))));
                let times = entered[each as usize];
                if times > 0 {
                    record("tower_gemini.breaker.transitions", Value::Counter(times.into()));
                }
            }
        }
    }
}
