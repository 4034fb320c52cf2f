//! The ramp: the admission of calls after a probe was answered, by what has been answered since. Pure: the caller
//! passes the time.
//!
//! All that has waited for the recovery comes at once, and an upstream that has just come back must not get all of it.
//! The number of calls in flight is bounded, and never the number of calls in a time: a caller that makes one call
//! after the other is never held back. Each answer raises the bound by one and leaves one place, so that the calls in
//! flight double in the time that an answer takes.
//!
//! An answer may take a minute; a model that sheds load mostly turns calls away within the second. So a call that has
//! been in flight for a step, and for two at most, counts as if it were answered, for as long as it is: otherwise a
//! slow model would be held back for minutes after it has recovered. It gets twice as many calls every two steps then,
//! and reaches its ordinary load no sooner than it would have reached it with the first call on. A step is a second, or
//! as long as the slowest failure of the outage took, up to a minute: a younger call may still end as that one did.
//!
//! The ramp ends when nobody has been refused for ten seconds: those whom it has refused have come back by then, and no
//! herd is left that could be let loose.

use std::time::Duration;

use tokio::time::Instant;

use super::tracker::MINUTE;

/// The time without a refusal after which the ramp is over.
const UNBOUND: Duration = Duration::from_secs(10);

/// The least length of a step.
const SHORTEST_STEP: Duration = Duration::from_secs(1);

/// The calls since a probe was answered.
#[derive(Clone, Debug)]
pub(super) struct Ramp {
    pub(super) since: Instant,
    /// The time of the last refusal; at first that of the beginning.
    refused: Instant,
    /// The calls that were answered since the probe.
    pub(super) answers: u32,
    /// The attempts that failed since the probe.
    pub(super) failed: u32,
    /// The length of a step.
    step: Duration,
    /// The current step, counted from the beginning.
    current: u64,
    /// The calls in flight that were admitted in this step, and in the one before.
    undecided: [u32; 2],
}

impl Ramp {
    /// Begins a ramp after an outage in which a failure took up to `longest`.
    pub(super) fn new(since: Instant, longest: Duration) -> Self {
        let step = longest.clamp(SHORTEST_STEP, MINUTE);
        Self { since, refused: since, answers: 0, failed: 0, step, current: 0, undecided: [0; 2] }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.refused) >= UNBOUND
    }

    /// Takes a place for a call, if there is one. `first`: the places at first. `pending`: the calls in flight.
    pub(super) fn take(&mut self, now: Instant, first: f64, pending: u32) -> bool {
        self.turn(now);
        let undecided = self.undecided[0].saturating_add(self.undecided[1]);
        let accepted = pending.saturating_sub(undecided).saturating_add(self.answers);
        let has_room = f64::from(undecided) < first + f64::from(accepted);
        if has_room {
            self.undecided[0] = self.undecided[0].saturating_add(1);
        } else {
            self.refused = now;
        }
        has_room
    }

    /// Gives the place of a call back that was admitted at `began` and has ended.
    pub(super) fn give_back(&mut self, began: Instant, now: Instant) {
        self.turn(now);
        let age = self.current.saturating_sub(self.step_of(began));
        if let Some(calls) = self.undecided.get_mut(usize::try_from(age).unwrap_or(usize::MAX)) {
            *calls = calls.saturating_sub(1);
        }
    }

    /// Turns to the current step.
    fn turn(&mut self, now: Instant) {
        let current = self.step_of(now);
        let last = match current.saturating_sub(self.current) {
            0 => return,
            1 => self.undecided[0],
            _ => 0,
        };
        (self.current, self.undecided) = (current, [0, last]);
    }

    fn step_of(&self, at: Instant) -> u64 {
        let steps = at.saturating_duration_since(self.since).as_nanos() / self.step.as_nanos();
        u64::try_from(steps).unwrap_or(u64::MAX)
    }
}
