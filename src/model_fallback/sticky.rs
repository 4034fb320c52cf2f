//! The model that a chain's calls begin with.
//!
//! A chain's calls begin with the first choice, the model that they ask for, which is number 0. When the first choice
//! has failed for all callers and another model has answered, the chain moves: calls begin with that other model, so
//! that not each of them pays for finding out. After [`Sticky::duration`] one call at a time probes the first choice. A
//! success of the first choice brings all calls back to it; a failure renews the duration; a probe that has no outcome
//! is handed back. A probe that has not ended after another duration is not waited for.
//!
//! The result of a call counts only for the state in which the call began: an answer that was under way when the chain
//! moved does not bring it back.
//!
//! This is a state machine: it is told the time, and has no timer.

use std::time::Duration;

use tokio::time::Instant;

/// The state of one chain.
#[derive(Debug)]
pub(super) struct Sticky {
    /// The time after which the first choice is probed.
    duration: Duration,
    /// The number of the model that calls begin with.
    at: usize,
    /// The number of times that the chain has left its first choice.
    episode: u64,
    /// The time at which it left. The fields from here on mean something only while it is away.
    since: Option<Instant>,
    /// The time until which no call probes.
    until: Option<Instant>,
    /// The probe that is out, and the time from which it is overdue: it may hang, and is not waited for any longer.
    probing: Option<(Probe, Option<Instant>)>,
    /// The number of probes so far.
    probes: u64,
}

/// The beginning of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The number of the model to begin with.
    pub(super) at: usize,
    /// The probe that this call is, if it is one.
    pub(super) probe: Option<Probe>,
    /// The model that other calls began with at that time.
    chain_at: usize,
    episode: u64,
}

/// The number of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe(u64);

/// The answer that a call has ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// The number of the model that has answered.
    pub(super) by: usize,
    /// A flag: the model that the call began with had failed for all callers.
    pub(super) start_failed: bool,
    /// A flag: the first choice had failed for all callers.
    pub(super) first_failed: bool,
}

/// A change for all calls to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainChange {
    None,
    /// Calls begin with the model of this number.
    MovedTo(usize),
    /// Calls begin with the first choice again.
    BackToFirst,
}

impl Sticky {
    /// Makes a chain that begins with its first choice. With a duration of zero it never moves.
    pub(super) fn new(duration: Duration) -> Self {
        Self { duration, at: 0, episode: 0, since: None, until: None, probing: None, probes: 0 }
    }

    /// Returns the model that calls begin with, and since when, if that is not the first choice.
    pub(super) fn state(&self) -> (usize, Option<Instant>) {
        (self.at, self.since)
    }

    /// Returns whether calls begin with the first choice.
    pub(super) fn is_at_first(&self) -> bool {
        self.at == 0
    }

    /// Begins a call. `now` is called only while the chain is away from its first choice.
    pub(super) fn start(&mut self, now: impl FnOnce() -> Instant) -> Start {
        let (chain_at, episode) = (self.at, self.episode);
        let stays = Start { at: self.at, probe: None, chain_at, episode };
        if self.at == 0 {
            return stays;
        }
        let now = now();
        let is_out = self.probing.is_some_and(|(_, overdue)| overdue.is_none_or(|overdue| now < overdue));
        if is_out || self.until.is_some_and(|until| now < until) {
            return stays;
        }
        self.probes += 1;
        let probe = Probe(self.probes);
        self.probing = Some((probe, now.checked_add(self.duration)));
        Start { at: 0, probe: Some(probe), chain_at, episode }
    }

    /// Ends a probe that has found the first choice still failing for all callers.
    pub(super) fn probe_failed(&mut self, now: Instant, probe: Probe) {
        if self.hand_back(probe) {
            self.until = now.checked_add(self.duration);
        }
    }

    /// Ends a probe that had no outcome or whose call was dropped: the next call may probe. Returns whether the probe
    /// was still out.
    pub(super) fn hand_back(&mut self, probe: Probe) -> bool {
        let was_out = self.probing.is_some_and(|(out, _)| out == probe);
        if was_out {
            self.probing = None;
        }
        was_out
    }

    /// Takes note that a model of the chain has answered a call.
    pub(super) fn answered(&mut self, now: Instant, start: Start, answered: Answered) -> ChainChange {
        if start.episode != self.episode {
            return ChainChange::None;
        }
        let Answered { by, start_failed, first_failed } = answered;
        if by == 0 {
            if self.at == 0 {
                return ChainChange::None;
            }
            (self.at, self.since, self.until, self.probing) = (0, None, None, None);
            return ChainChange::BackToFirst;
        }
        if !start_failed || start.chain_at != self.at || self.duration.is_zero() {
            return ChainChange::None;
        }
        if self.at == 0 {
            self.episode += 1;
            self.since = Some(now);
        }
        if first_failed {
            self.until = now.checked_add(self.duration);
        }
        if std::mem::replace(&mut self.at, by) == by { ChainChange::None } else { ChainChange::MovedTo(by) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DURATION: Duration = Duration::from_secs(30);

    fn by(by: usize, start_failed: bool, first_failed: bool) -> Answered {
        Answered { by, start_failed, first_failed }
    }

    fn away(sticky: &mut Sticky, now: Instant) {
        let start = sticky.start(|| now);
        assert_eq!(sticky.answered(now, start, by(1, true, true)), ChainChange::MovedTo(1));
    }

    #[test]
    fn it_stays_away_for_the_duration_and_then_one_at_a_time_probes() {
        let (mut sticky, began) = (Sticky::new(DURATION), Instant::now());
        away(&mut sticky, began);
        let almost = began + DURATION - Duration::from_nanos(1);
        assert_eq!((sticky.start(|| almost).at, sticky.start(|| almost).probe), (1, None));
        let then = began + DURATION;
        let probe = sticky.start(|| then);
        assert_eq!(probe.at, 0);
        let almost = then + DURATION - Duration::from_nanos(1);
        assert_eq!((sticky.start(|| then).at, sticky.start(|| almost).probe), (1, None));
        assert_eq!(sticky.answered(then, probe, by(0, false, false)), ChainChange::BackToFirst);
        assert_eq!((sticky.start(|| then).at, sticky.state()), (0, (0, None)));
    }

    #[test]
    fn a_probe_that_fails_renews_the_duration_and_one_without_an_outcome_does_not() {
        let (mut sticky, began) = (Sticky::new(DURATION), Instant::now());
        away(&mut sticky, began);
        let probe = sticky.start(|| began + DURATION).probe.unwrap();
        assert!(sticky.hand_back(probe));
        assert!(!sticky.hand_back(probe));
        let probe = sticky.start(|| began + DURATION).probe.unwrap();
        sticky.probe_failed(began + 2 * DURATION, probe);
        assert_eq!(sticky.start(|| began + 3 * DURATION - Duration::from_nanos(1)).probe, None);
        let next = sticky.start(|| began + 3 * DURATION).probe.unwrap();
        // A probe that has ended hands nothing back.
        assert!(!sticky.hand_back(probe));
        assert_eq!(sticky.start(|| began + 3 * DURATION).probe, None);
        assert!(sticky.hand_back(next));
        assert_eq!(sticky.state(), (1, Some(began)));
    }

    #[test]
    fn what_was_under_way_before_changes_nothing() {
        let (mut sticky, now) = (Sticky::new(DURATION), Instant::now());
        let (slow, slower) = (sticky.start(|| now), sticky.start(|| now));
        away(&mut sticky, now);
        assert_eq!(sticky.answered(now, slow, by(0, false, false)), ChainChange::None);
        assert_eq!(sticky.answered(now + DURATION, slower, by(2, true, true)), ChainChange::None);
        assert_eq!(sticky.start(|| now + DURATION).at, 0, "the duration is not renewed by them either");
    }

    #[test]
    fn it_moves_on_while_it_is_away() {
        let (mut sticky, now) = (Sticky::new(DURATION), Instant::now());
        away(&mut sticky, now);
        let starts = [(); 4].map(|()| sticky.start(|| now));
        assert_eq!(
            sticky.answered(now, starts[0], by(2, false, false)),
            ChainChange::None,
            "it had not failed for all"
        );
        assert_eq!(sticky.answered(now, starts[1], by(2, true, false)), ChainChange::MovedTo(2));
        assert_eq!(sticky.answered(now, starts[2], by(3, true, false)), ChainChange::None, "it is not there any more");
        assert_eq!(sticky.start(|| now + DURATION).at, 0, "the duration goes on");
        assert_eq!(sticky.answered(now, starts[3], by(0, true, false)), ChainChange::BackToFirst);
    }

    #[test]
    fn without_a_duration_it_never_leaves() {
        let (mut sticky, now) = (Sticky::new(Duration::ZERO), Instant::now());
        let start = sticky.start(|| now);
        assert_eq!(sticky.answered(now, start, by(1, true, true)), ChainChange::None);
        assert_eq!(sticky.start(|| now).at, 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum ChainEvent {
        Begins,
        Passes(u64),
        Answers { call: usize, answered: Answered },
        ProbeFails { call: usize },
        Drops { call: usize },
    }

    fn events() -> impl Strategy<Value = Vec<ChainEvent>> {
        let event = prop_oneof![
            4 => Just(ChainEvent::Begins),
            2 => (0u64..40).prop_map(ChainEvent::Passes),
            3 => (any::<usize>(), 0usize..4, any::<bool>(), any::<bool>())
                .prop_map(|(call, at, start, first)| ChainEvent::Answers { call, answered: by(at, start, first) }),
            1 => any::<usize>().prop_map(|call| ChainEvent::ProbeFails { call }),
            1 => any::<usize>().prop_map(|call| ChainEvent::Drops { call }),
        ];
        prop::collection::vec(event, 0..60)
    }

    /// A second implementation of the rules, without episodes: each call remembers the changes of the chain since it
    /// began.
    #[derive(Default)]
    struct PlainChain {
        at: usize,
        until: u64,
        /// The call that probes, and the time at which it began.
        probing: Option<(usize, u64)>,
        /// The calls that have not ended: whether the chain has left its first choice since they began, and its model
        /// at that time.
        calls: Vec<Option<(bool, usize)>>,
    }

    proptest! {
        #[test]
        fn it_is_as_the_plain_model(events in events()) {
            let began = Instant::now();
            let at = |secs| began + Duration::from_secs(secs);
            let (mut sticky, mut plain, mut now, mut starts) = (Sticky::new(DURATION), PlainChain::default(), 0, Vec::new());
            for event in events {
                match event {
                    ChainEvent::Passes(secs) => now += secs,
                    ChainEvent::Begins => {
                        let start = sticky.start(|| at(now));
                        let is_out = plain.probing.is_some_and(|(_, began)| now < began + 30);
                        let probes = plain.at != 0 && now >= plain.until && !is_out;
                        prop_assert_eq!(start.probe.is_some(), probes);
                        prop_assert_eq!(start.at, if probes { 0 } else { plain.at });
                        if probes {
                            plain.probing = Some((starts.len(), now));
                        }
                        plain.calls.push(Some((false, plain.at)));
                        starts.push(start);
                    }
                    ChainEvent::Answers { call, answered } if !starts.is_empty() => {
                        let call = call % starts.len();
                        let Some((left_since, was_at)) = plain.calls[call].take() else { continue };
                        let change = sticky.answered(at(now), starts[call], answered);
                        if let Some(probe) = starts[call].probe {
                            sticky.hand_back(probe);
                        }
                        let mut expected = ChainChange::None;
                        if !left_since && answered.by == 0 && plain.at != 0 {
                            expected = ChainChange::BackToFirst;
                            (plain.at, plain.probing) = (0, None);
                        } else if !left_since && answered.by != 0 && answered.start_failed && was_at == plain.at {
                            if plain.at == 0 {
                                plain.calls.iter_mut().flatten().for_each(|(left, _)| *left = true);
                                // While the chain is not away, a call always begins with the first choice.
                                plain.until = 0;
                            }
                            if answered.first_failed {
                                plain.until = now + 30;
                            }
                            if plain.at != answered.by {
                                expected = ChainChange::MovedTo(answered.by);
                            }
                            plain.at = answered.by;
                        }
                        if plain.probing.is_some_and(|(probe, _)| probe == call) {
                            plain.probing = None;
                        }
                        prop_assert_eq!(change, expected);
                    }
                    ChainEvent::ProbeFails { call } if !starts.is_empty() => {
                        let call = call % starts.len();
                        let Some(probe) = starts[call].probe else { continue };
                        sticky.probe_failed(at(now), probe);
                        if plain.probing.is_some_and(|(probe, _)| probe == call) {
                            (plain.probing, plain.until) = (None, now + 30);
                        }
                    }
                    ChainEvent::Drops { call } if !starts.is_empty() => {
                        let call = call % starts.len();
                        plain.calls[call] = None;
                        if let Some(probe) = starts[call].probe {
                            sticky.hand_back(probe);
                        }
                        if plain.probing.is_some_and(|(probe, _)| probe == call) {
                            plain.probing = None;
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(sticky.state().0, plain.at);
                prop_assert_eq!(sticky.state().1.is_some(), plain.at != 0);
            }
        }
    }
}
