//! Where a chain's calls begin.
//!
//! A chain is at home as long as its calls begin with the model that they ask for, which is number 0. When that has failed
//! for everybody and another one has answered, it goes away: calls begin at the other one, so that not each of them pays
//! for finding out. After a while one call, and one at a time, probes the first choice again; one that has been at it for
//! another while is not waited for. A success of the first choice
//! brings everybody home, a failure renews the while; a probe that comes to nothing is handed back.
//!
//! What a call finds out counts only if it began in the state that it speaks of: an answer that was under way when the
//! chain went away brings nobody home.
//!
//! This is a state machine: it is told the time, and has no timer.

use std::time::Duration;

use tokio::time::Instant;

/// The state of one chain.
#[derive(Debug)]
pub(super) struct Sticky {
    duration: Duration,
    /// Where calls begin.
    at: usize,
    /// How often it has gone away.
    episode: u64,
    /// The rest means something only while it is away.
    since: Option<Instant>,
    until: Option<Instant>,
    /// Which probe is out, and when it has been for too long: it may hang, and nobody waits for it for ever.
    probing: Option<(Probe, Option<Instant>)>,
    probes: u64,
}

/// How a call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// With which model.
    pub(super) at: usize,
    /// As the one that probes the first choice.
    pub(super) probe: Option<Probe>,
    /// Where the chain was.
    away_at: usize,
    episode: u64,
}

/// Which probe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe(u64);

/// How a call has ended: with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// By which model.
    pub(super) by: usize,
    /// The model that the call began with had failed for everybody.
    pub(super) start_failed: bool,
    /// The first choice had.
    pub(super) first_failed: bool,
}

/// What has changed for all calls to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// They begin at that model.
    Away(usize),
    /// They begin with the first choice again.
    Home,
}

impl Sticky {
    /// A chain at home. With a duration of zero it never leaves.
    pub(super) fn new(duration: Duration) -> Self {
        Self { duration, at: 0, episode: 0, since: None, until: None, probing: None, probes: 0 }
    }

    /// Where calls begin now, and since when if that is not the first choice.
    pub(super) fn state(&self) -> (usize, Option<Instant>) {
        (self.at, self.since)
    }

    /// A call begins. `now` is asked only while the chain is away.
    pub(super) fn start(&mut self, now: impl FnOnce() -> Instant) -> Start {
        let (away_at, episode) = (self.at, self.episode);
        let stays = Start { at: self.at, probe: None, away_at, episode };
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
        Start { at: 0, probe: Some(probe), away_at, episode }
    }

    /// The probe has found the first choice still failing for everybody.
    pub(super) fn probe_failed(&mut self, now: Instant, probe: Probe) {
        if self.hand_back(probe) {
            self.until = now.checked_add(self.duration);
        }
    }

    /// The probe came to nothing, or its call was dropped: the next call may be one. Says whether it was still out.
    pub(super) fn hand_back(&mut self, probe: Probe) -> bool {
        let was_out = self.probing.is_some_and(|(out, _)| out == probe);
        if was_out {
            self.probing = None;
        }
        was_out
    }

    /// A call was answered by a model of the chain.
    pub(super) fn answered(&mut self, now: Instant, start: Start, answered: Answered) -> Change {
        if start.episode != self.episode {
            return Change::Nothing;
        }
        let Answered { by, start_failed, first_failed } = answered;
        if by == 0 {
            if self.at == 0 {
                return Change::Nothing;
            }
            (self.at, self.since, self.until, self.probing) = (0, None, None, None);
            return Change::Home;
        }
        if !start_failed || start.away_at != self.at || self.duration.is_zero() {
            return Change::Nothing;
        }
        if self.at == 0 {
            self.episode += 1;
            self.since = Some(now);
        }
        if first_failed {
            self.until = now.checked_add(self.duration);
        }
        if std::mem::replace(&mut self.at, by) == by { Change::Nothing } else { Change::Away(by) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHILE: Duration = Duration::from_secs(30);

    fn by(by: usize, start_failed: bool, first_failed: bool) -> Answered {
        Answered { by, start_failed, first_failed }
    }

    fn away(sticky: &mut Sticky, now: Instant) {
        let start = sticky.start(|| now);
        assert_eq!(sticky.answered(now, start, by(1, true, true)), Change::Away(1));
    }

    #[test]
    fn it_stays_away_for_a_while_and_then_one_at_a_time_probes() {
        let (mut sticky, began) = (Sticky::new(WHILE), Instant::now());
        away(&mut sticky, began);
        let almost = began + WHILE - Duration::from_nanos(1);
        assert_eq!((sticky.start(|| almost).at, sticky.start(|| almost).probe), (1, None));
        let then = began + WHILE;
        let probe = sticky.start(|| then);
        assert_eq!(probe.at, 0);
        let almost = then + WHILE - Duration::from_nanos(1);
        assert_eq!((sticky.start(|| then).at, sticky.start(|| almost).probe), (1, None));
        assert_eq!(sticky.answered(then, probe, by(0, false, false)), Change::Home);
        assert_eq!((sticky.start(|| then).at, sticky.state()), (0, (0, None)));
    }

    #[test]
    fn a_probe_that_fails_renews_the_while_and_one_that_comes_to_nothing_does_not() {
        let (mut sticky, began) = (Sticky::new(WHILE), Instant::now());
        away(&mut sticky, began);
        let probe = sticky.start(|| began + WHILE).probe.unwrap();
        assert!(sticky.hand_back(probe));
        assert!(!sticky.hand_back(probe));
        let probe = sticky.start(|| began + WHILE).probe.unwrap();
        sticky.probe_failed(began + 2 * WHILE, probe);
        assert_eq!(sticky.start(|| began + 3 * WHILE - Duration::from_nanos(1)).probe, None);
        let next = sticky.start(|| began + 3 * WHILE).probe.unwrap();
        // An old one hands nothing back.
        assert!(!sticky.hand_back(probe));
        assert_eq!(sticky.start(|| began + 3 * WHILE).probe, None);
        assert!(sticky.hand_back(next));
        assert_eq!(sticky.state(), (1, Some(began)));
    }

    #[test]
    fn what_was_under_way_before_changes_nothing() {
        let (mut sticky, now) = (Sticky::new(WHILE), Instant::now());
        let (slow, slower) = (sticky.start(|| now), sticky.start(|| now));
        away(&mut sticky, now);
        assert_eq!(sticky.answered(now, slow, by(0, false, false)), Change::Nothing);
        assert_eq!(sticky.answered(now + WHILE, slower, by(2, true, true)), Change::Nothing);
        assert_eq!(sticky.start(|| now + WHILE).at, 0, "the while is not renewed by them either");
    }

    #[test]
    fn it_moves_on_while_it_is_away() {
        let (mut sticky, now) = (Sticky::new(WHILE), Instant::now());
        away(&mut sticky, now);
        let starts = [(); 4].map(|()| sticky.start(|| now));
        assert_eq!(sticky.answered(now, starts[0], by(2, false, false)), Change::Nothing, "it had not failed for all");
        assert_eq!(sticky.answered(now, starts[1], by(2, true, false)), Change::Away(2));
        assert_eq!(sticky.answered(now, starts[2], by(3, true, false)), Change::Nothing, "it is not there any more");
        assert_eq!(sticky.start(|| now + WHILE).at, 0, "the while goes on");
        assert_eq!(sticky.answered(now, starts[3], by(0, true, false)), Change::Home);
    }

    #[test]
    fn without_a_while_it_never_leaves() {
        let (mut sticky, now) = (Sticky::new(Duration::ZERO), Instant::now());
        let start = sticky.start(|| now);
        assert_eq!(sticky.answered(now, start, by(1, true, true)), Change::Nothing);
        assert_eq!(sticky.start(|| now).at, 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begins,
        Passes(u64),
        Answers { call: usize, answered: Answered },
        ProbeFails { call: usize },
        Drops { call: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Begins),
            2 => (0u64..40).prop_map(Step::Passes),
            3 => (any::<usize>(), 0usize..4, any::<bool>(), any::<bool>())
                .prop_map(|(call, at, start, first)| Step::Answers { call, answered: by(at, start, first) }),
            1 => any::<usize>().prop_map(|call| Step::ProbeFails { call }),
            1 => any::<usize>().prop_map(|call| Step::Drops { call }),
        ];
        prop::collection::vec(step, 0..60)
    }

    /// The rules once more, without episodes: each call remembers what it has seen happen to the chain since it began.
    #[derive(Default)]
    struct Plain {
        at: usize,
        until: u64,
        /// Which call, and when it began.
        probing: Option<(usize, u64)>,
        /// Calls that have not ended: whether the chain has left home since they began, and where it was when they did.
        calls: Vec<Option<(bool, usize)>>,
    }

    proptest! {
        #[test]
        fn it_is_as_the_plain_model(steps in steps()) {
            let began = Instant::now();
            let at = |secs| began + Duration::from_secs(secs);
            let (mut sticky, mut plain, mut now, mut starts) = (Sticky::new(WHILE), Plain::default(), 0, Vec::new());
            for step in steps {
                match step {
                    Step::Passes(secs) => now += secs,
                    Step::Begins => {
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
                    Step::Answers { call, answered } if !starts.is_empty() => {
                        let call = call % starts.len();
                        let Some((left_since, was_at)) = plain.calls[call].take() else { continue };
                        let change = sticky.answered(at(now), starts[call], answered);
                        if let Some(probe) = starts[call].probe {
                            sticky.hand_back(probe);
                        }
                        let mut expected = Change::Nothing;
                        if !left_since && answered.by == 0 && plain.at != 0 {
                            expected = Change::Home;
                            (plain.at, plain.probing) = (0, None);
                        } else if !left_since && answered.by != 0 && answered.start_failed && was_at == plain.at {
                            if plain.at == 0 {
                                plain.calls.iter_mut().flatten().for_each(|(left, _)| *left = true);
                                // A call at home always begins with the first choice.
                                plain.until = 0;
                            }
                            if answered.first_failed {
                                plain.until = now + 30;
                            }
                            if plain.at != answered.by {
                                expected = Change::Away(answered.by);
                            }
                            plain.at = answered.by;
                        }
                        if plain.probing.is_some_and(|(probe, _)| probe == call) {
                            plain.probing = None;
                        }
                        prop_assert_eq!(change, expected);
                    }
                    Step::ProbeFails { call } if !starts.is_empty() => {
                        let call = call % starts.len();
                        let Some(probe) = starts[call].probe else { continue };
                        sticky.probe_failed(at(now), probe);
                        if plain.probing.is_some_and(|(probe, _)| probe == call) {
                            (plain.probing, plain.until) = (None, now + 30);
                        }
                    }
                    Step::Drops { call } if !starts.is_empty() => {
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
