//! The state of one project and model: decides on a question as far as this instance can, and takes note of answers.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    health::{DecideBy, RETURN},
    lease::{Lease, Leases},
    ledger::{ChargeName, Grain, OwnLedger, Telling},
    script::{Contents, Correct, DayEnd, KeyId, SLOT, Slot, Take, TakeReply, Verdict},
    server_clock::ServerClock,
    share::{LimitsInOrder, OwnShare, Sharers},
};
use crate::quota::{Answer, Closing, Correction, Dimension, Grant, Limits, Question, StoreCharge, window::Amount};

/// The time for which new contents only learn, so that each instance has told what it has charged before any takes.
pub(super) const LEARN: Duration = Duration::from_secs(1);

/// The wait until the charges that the server has lost are told again.
const TELL_WAIT: Duration = Duration::from_millis(50);

/// The time after which another call looks, where the one before it has not come back.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The time within which an order to the server reaches it, or never will.
const FOUND_LATELY: Duration = Duration::from_millis(400);

/// The time for which a grant counts as the cause of a refusal by the upstream.
const RECENT: Duration = Duration::from_secs(60);

/// The state of one project and model.
#[derive(Debug)]
pub(super) struct ScopeState {
    begun: Instant,
    pub(super) ledger: OwnLedger,
    leases: Leases,
    share: OwnShare,
    clock: ServerClock,
    closed: Option<ClosedFor>,
    /// The part of the fullest limit that was used at the last grant, in percent.
    fullness: Option<(Instant, Option<u64>)>,
    /// The time of the last question; `None` before the first.
    asked: Option<Instant>,
    /// True while the charges are being told.
    pub(super) is_telling: bool,
    /// True if the contents are another server's, even if they have the known id.
    pub(super) is_reset: bool,
}

/// A closing that this instance knows of.
#[derive(Clone, Copy, Debug)]
struct ClosedFor {
    look: Instant,
    ends: Instant,
    /// The time at which this was last found.
    found: Instant,
}

/// All that a decision depends on besides the scope.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecideContext {
    pub(super) now: Instant,
    pub(super) by: DecideBy,
    pub(super) instances: u32,
    /// The end of the day, and the time until then.
    pub(super) day: (DayEnd, Duration),
    pub(super) leases: bool,
    /// The time for which contents that are made now only learn.
    pub(super) learn: Duration,
    /// The time for which an answer is awaited.
    pub(super) timeout: Duration,
    /// The server's clock; unknown where each key has a server of its own.
    pub(super) clock: ServerClock,
}

/// The decision on a question, or the question to the server.
#[derive(Debug)]
pub(super) enum Decision {
    /// It is decided.
    Done(Decided),
    /// The server has to be asked.
    Ask { take: Take, hold: Option<Instant> },
}

/// An answer, and the way in which it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) answer: Answer,
    pub(super) by: DecidedBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecidedBy {
    Memory,
    Lease,
    Share,
    Server,
}

/// The outcome of a reply.
#[derive(Debug)]
pub(super) enum Replied {
    Answer {
        answer: Answer,
        is_lease: bool,
    },
    /// The charges have to be told first; the answer is for the meantime.
    Lost(Answer),
    Late,
}

impl ScopeState {
    pub(super) fn new(begun: Instant) -> Self {
        Self {
            begun,
            ledger: OwnLedger::default(),
            leases: Leases::default(),
            share: OwnShare::default(),
            clock: ServerClock::default(),
            closed: None,
            fullness: None,
            asked: None,
            is_telling: false,
            is_reset: false,
        }
    }

    fn grain(&self, now: Instant) -> Grain {
        Grain::of(self.begun, now)
    }

    /// Returns the clock of the scope's server: that of the one server, or else what its own answers tell.
    fn clock(&self, of_all: ServerClock) -> ServerClock {
        if of_all.is_known() { of_all } else { self.clock }
    }

    /// Decides on a question, or asks. What is left of a lease that is over comes with it.
    pub(super) fn decide(&mut self, question: &Question, cx: &DecideContext) -> (Decision, Option<Correct>) {
        let now = cx.now;
        self.asked = Some(now);
        let amount = amount_of(question);
        let done = |answer, by| Decision::Done(Decided { answer, by });
        self.closed.take_if(|closed| closed.ends <= now);
        if let Some(closed) = self.closed.filter(|closed| closed.look > now) {
            let answer = Answer::Closed(Closing { look: closed.look - now, ends: closed.ends - now });
            return (done(answer, DecidedBy::Memory), None);
        }
        let (leased, over) = self.leases.take(now, self.grain(now), amount);
        let rest = over.and_then(|lease| self.give_back(lease));
        if let Some(name) = leased {
            let used = self.share.totals(now, cx.day.0);
            let grant = self.grant(name, used, (now, question.limits), false);
            return (done(Answer::Granted(grant), DecidedBy::Lease), rest);
        }
        let hold = match cx.by {
            DecideBy::Share(_) => return (Decision::Done(self.by_share(question, cx)), rest),
            DecideBy::Server => None,
            DecideBy::Both(until) => {
                if let Err((dimension, wait)) = self.allows(question, cx) {
                    let answer = Answer::Full { dimension: Some(dimension), wait: wait.min(until - now) };
                    return (done(answer, DecidedBy::Share), rest);
                }
                Some(until)
            }
        };
        let limits = limits_of(question.limits);
        let mut wish = Amount::default();
        if cx.leases && hold.is_none() && self.closed.is_none() {
            let left = self
                .clock(cx.clock)
                .at_most(now)
                .map_or(SLOT, |server| SLOT.saturating_sub(Duration::from_millis(server % SLOT.as_millis() as u64)));
            wish = self.leases.wish(amount, limits, self.share.seen(now, cx.day.0), left, cx.instances);
        }
        let take = Take {
            known: self.ledger.known(self.grain(now), question.limits.get(Dimension::RequestsPerDay).map(|_| cx.day.0)),
            fresh: fresh_id(),
            deadline_ms: self.clock(cx.clock).deadline(now, cx.timeout),
            requests: amount.requests,
            tokens: amount.tokens,
            wish_requests: wish.requests,
            wish_tokens: wish.tokens,
            limits,
            day_end: cx.day.0,
            learn: cx.learn,
        };
        (Decision::Ask { take, hold }, rest)
    }

    fn allows(&mut self, question: &Question, cx: &DecideContext) -> Result<(), (Dimension, Duration)> {
        let since = if let DecideBy::Share(since) = cx.by { Some(since) } else { None };
        let sharers = Sharers { instances: cx.instances, since };
        self.share.allows(cx.now, amount_of(question), limits_of(question.limits), cx.day, sharers)
    }

    /// Decides by this instance's share.
    pub(super) fn by_share(&mut self, question: &Question, cx: &DecideContext) -> Decided {
        let (now, amount) = (cx.now, amount_of(question));
        let answer = match self.allows(question, cx) {
            Ok(()) => {
                self.share.charge(now, amount, cx.day.0);
                self.ledger.charge_untold(self.grain(now), cx.day.0, amount);
                let is_look = self.closed.is_some();
                if let Some(closed) = &mut self.closed {
                    closed.look = (now + LOOK_AGAIN).min(closed.ends);
                }
                let name = ChargeName { grain: self.grain(now), key: KeyId(0), slot: Slot(0), day_end: cx.day.0 };
                let used = self.share.totals(now, cx.day.0);
                Answer::Granted(self.grant(name, used, (now, question.limits), is_look))
            }
            Err((dimension, wait)) => Answer::Full { dimension: Some(dimension), wait },
        };
        Decided { answer, by: DecidedBy::Share }
    }

    fn grant(&mut self, name: ChargeName, used: [u64; 3], (now, limits): (Instant, Limits), is_look: bool) -> Grant {
        let [requests, tokens, today] = used;
        self.fullness = Some((now, fullness(used, limits_of(limits))));
        Grant { charge: name.pack(), requests, tokens, today, is_look }
    }

    /// Takes note of the server's reply.
    pub(super) fn replied(
        &mut self,
        question: &Question,
        (take, hold): (&Take, Option<Instant>),
        reply: &TakeReply,
        sent: Instant,
        cx: &DecideContext,
    ) -> (Replied, Option<Correct>) {
        let now = cx.now;
        self.clock.learn(reply.now_ms, sent, now);
        let TakeReply { key, used, .. } = *reply;
        let full = |dimension, wait| Replied::Answer { answer: Answer::Full { dimension, wait }, is_lease: false };
        if !matches!(reply.verdict, Verdict::Lost | Verdict::Late) {
            self.share.replied(now, used, take.day_end);
        }
        let replied = match reply.verdict {
            Verdict::Granted { slot, lease_requests, lease_tokens, is_look } => {
                let amount = amount_of(question);
                let lease = Amount { requests: lease_requests, tokens: lease_tokens };
                self.ledger.knows(key);
                self.ledger.charge_told(self.grain(now), take.day_end, amount.plus(lease));
                if let Some(until) = hold {
                    self.share.hold(until, amount);
                }
                match &mut self.closed {
                    Some(closed) if is_look => (closed.look, closed.found) = ((now + LOOK_AGAIN).min(closed.ends), now),
                    closed => *closed = None,
                }
                let name = ChargeName { grain: self.grain(now), key, slot, day_end: take.day_end };
                let end = slot.0.saturating_add(1).saturating_mul(SLOT.as_millis() as u64);
                let left = Duration::from_millis(end.saturating_sub(reply.now_ms));
                let rest = if lease == Amount::default() { None } else { self.leases.grant(name, lease, sent, left) };
                let rest = rest.and_then(|rest| self.give_back(rest));
                let grant = self.grant(name, used, (now, question.limits), is_look);
                let is_lease = lease != Amount::default();
                return (Replied::Answer { answer: Answer::Granted(grant), is_lease }, rest);
            }
            Verdict::Full { dimension, wait } => full(Some(dimension), wait),
            Verdict::Learning { wait } => full(None, wait),
            Verdict::Closed { look, ends } => {
                self.closed = Some(ClosedFor { look: now + look, ends: now + ends, found: now });
                Replied::Answer { answer: Answer::Closed(Closing { look, ends }), is_lease: false }
            }
            Verdict::Lost => Replied::Lost(Answer::Full { dimension: None, wait: TELL_WAIT }),
            Verdict::Late => Replied::Late,
        };
        (replied, None)
    }

    /// Notes that the server has not answered a question.
    pub(super) fn unanswered(&mut self, question: &Question, cx: &DecideContext) {
        self.share.unanswered(cx.now, amount_of(question), cx.instances);
    }

    /// Learns the totals of an answer that came too late.
    pub(super) fn late(&mut self, now: Instant, used: [u64; 3], day: DayEnd) {
        if used != [0; 3] {
            self.share.replied(now, used, day);
        }
    }

    /// Notes that a question with a wish has come to an end.
    pub(super) fn asked_wish(&mut self) {
        self.leases.asked();
    }

    /// Returns the correction that gives back what is left of a lease.
    fn give_back(&mut self, lease: Lease) -> Option<Correct> {
        self.ledger.correct(lease.name, Correction::refund(lease.left.requests, lease.left.tokens))
    }

    /// Gives back what is left of a lease that is over.
    pub(super) fn sweep(&mut self, now: Instant) -> Option<Correct> {
        self.leases.over(now).and_then(|lease| self.give_back(lease))
    }

    /// Corrects a charge, and returns what the server has to correct.
    pub(super) fn correct(&mut self, now: Instant, charge: StoreCharge, by: Correction) -> Option<Correct> {
        let name = ChargeName::unpack(charge);
        if name.key == KeyId(0) {
            let tokens = by.tokens_before.saturating_sub(by.tokens_after);
            self.share.give_back(Amount { requests: by.requests_back, tokens }, name.day_end);
            let more = by.tokens_after.saturating_sub(by.tokens_before);
            self.share.charge(now, Amount { requests: 0, tokens: more }, name.day_end);
        }
        self.ledger.correct(name, by)
    }

    /// Returns the time since the last question.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        self.asked.map(|at| now.saturating_duration_since(at))
    }

    /// Closes the scope here, and returns how full it was at the last grant, if there was one lately, and what is left of a lease.
    pub(super) fn close(&mut self, now: Instant, closing: Closing) -> (Option<Option<u64>>, Option<Correct>) {
        let far = |time: Duration| now + time.min(crate::clock::FAR);
        let (look, ends) = (far(closing.look), far(closing.ends.max(closing.look)));
        let known = self.closed.filter(|known| known.ends > now);
        let known = known.unwrap_or(ClosedFor { look, ends, found: now });
        self.closed = Some(ClosedFor { look: look.max(known.look), ends: ends.max(known.ends), found: now });
        let rest = self.leases.end().and_then(|lease| self.give_back(lease));
        let recent = self.fullness.filter(|(at, _)| now.saturating_duration_since(*at) < RECENT);
        (recent.map(|(_, fullness)| fullness), rest)
    }

    pub(super) fn open(&mut self) {
        self.closed = None;
    }

    /// Learns from the contents what all have charged.
    pub(super) fn mirrored(&mut self, sent: Instant, contents: &Contents, clock: ServerClock) {
        let clock = self.clock(clock);
        self.share.mirrored(sent, contents, &clock, self.is_reset);
    }

    /// Returns whether charges of this instance are in other contents than those that the server has.
    pub(super) fn misses(&self, now: Instant, key: Option<KeyId>) -> bool {
        let known = self.ledger.known(self.grain(now), None);
        known != KeyId(0) && Some(known) != key
    }

    /// Learns from the contents whether the scope is closed. What was found here so lately that the server may not know it yet
    /// stays.
    pub(super) fn mirrored_closing(&mut self, sent: Instant, [look, ends]: [u64; 2], clock: ServerClock) {
        let clock = self.clock(clock);
        let Some(server) = clock.at_least(sent) else { return };
        if self.closed.is_some_and(|closed| closed.found + FOUND_LATELY > sent) {
            return;
        }
        let at = |ms: u64| sent + Duration::from_millis(ms.saturating_sub(server)).min(crate::clock::FAR);
        self.closed = (ends > server).then(|| ClosedFor { look: at(look), ends: at(ends), found: sent });
    }

    /// Returns the times of the look and of the end, where the scope is closed.
    pub(super) fn closed(&self, now: Instant) -> Option<(Instant, Instant)> {
        self.closed.filter(|closed| closed.ends > now).map(|closed| (closed.look, closed.ends))
    }

    /// Returns what has to be told.
    pub(super) fn tell(&mut self, now: Instant, day: DayEnd, timeout: Duration, clock: ServerClock) -> Telling {
        let known = self.clock(clock);
        let slot_of = |time: Instant| known.slot_at(time.min(now)).unwrap_or(Slot(u64::MAX >> 11));
        let (grain, begun) = (self.grain(now), self.begun);
        let mut telling = self.ledger.tell(grain, begun, day, slot_of);
        telling.tell.fresh = fresh_id();
        telling.tell.reset = self.is_reset;
        telling.tell.learn = LEARN;
        telling.tell.deadline_ms = known.deadline(now, timeout);
        telling
    }

    /// Notes that all of it is told.
    pub(super) fn told(&mut self, now: Instant, telling: &Telling, key: KeyId) {
        self.ledger.told(telling, key);
        self.share.told(now + RETURN);
        self.is_reset = false;
    }

    /// Returns whether the server has to be told, because it is new or was lost.
    pub(super) fn has_charges(&self) -> bool {
        !self.ledger.is_empty() || self.ledger.has_untold()
    }

    /// Returns whether nothing would be lost with this state.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.ledger.is_old(self.grain(now))
            && !self.ledger.has_untold()
            && self.closed.is_none_or(|closed| closed.ends <= now)
            && self.share.is_empty(now)
            && !self.leases.is_live()
    }
}

/// Returns an id for contents that may be made: random, and not 0.
fn fresh_id() -> KeyId {
    KeyId(fastrand::u32(1..))
}

fn amount_of(question: &Question) -> Amount {
    Amount { requests: question.requests, tokens: question.tokens }
}

fn limits_of(limits: Limits) -> LimitsInOrder {
    [
        limits.get(Dimension::RequestsPerMinute),
        limits.get(Dimension::InputTokensPerMinute),
        limits.get(Dimension::RequestsPerDay),
    ]
}

/// Returns the part of the fullest limit that is used, in percent; `None` without a limit.
fn fullness(used: [u64; 3], limits: LimitsInOrder) -> Option<u64> {
    let parts = used.into_iter().zip(limits).filter_map(|(used, limit)| {
        Some(u64::try_from(u128::from(used) * 100 / u128::from(limit?.max(1))).unwrap_or(u64::MAX))
    });
    parts.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: DayEnd = DayEnd(1_795_248_000);
    const SERVER: u64 = 1_795_000_000_000;

    fn cx(now: Instant, by: DecideBy) -> DecideContext {
        DecideContext {
            now,
            by,
            instances: 4,
            day: (DAY, Duration::from_secs(3_600)),
            leases: true,
            learn: Duration::ZERO,
            timeout: Duration::from_millis(20),
            clock: ServerClock::default(),
        }
    }

    fn question(limit: u64) -> Question {
        Question::new(1, 10).limits(Limits::new().requests_per_minute(limit))
    }

    /// Asks, and has the server reply 2 ms later.
    fn ask(state: &mut ScopeState, limit: u64, now: Instant, by: DecideBy, reply: (u64, Verdict)) -> Replied {
        let (decision, _) = state.decide(&question(limit), &cx(now, by));
        let Decision::Ask { take, hold } = decision else { panic!("{decision:?}") };
        let (used, verdict) = reply;
        let reply = TakeReply { now_ms: SERVER, key: KeyId(7), used: [used, used * 10, used], verdict };
        let later = cx(now + Duration::from_millis(2), by);
        state.replied(&question(limit), (&take, hold), &reply, now, &later).0
    }

    fn granted(lease: u64) -> Verdict {
        Verdict::Granted { slot: Slot(SERVER / 500), lease_requests: lease, lease_tokens: lease * 10, is_look: false }
    }

    #[test]
    fn what_was_granted_is_known_to_be_there_and_has_to_be_told_if_it_is_not() {
        let now = Instant::now();
        let mut state = ScopeState::new(now);
        assert!(!state.has_charges());
        let replied = ask(&mut state, 60, now, DecideBy::Server, (1, granted(0)));
        assert!(matches!(replied, Replied::Answer { answer: Answer::Granted(_), is_lease: false }));
        let (decision, _) = state.decide(&question(60), &cx(now, DecideBy::Server));
        assert!(matches!(decision, Decision::Ask { take: Take { known: KeyId(7), .. }, .. }), "{decision:?}");
        let replied = ask(&mut state, 60, now, DecideBy::Server, (0, Verdict::Lost));
        assert!(matches!(replied, Replied::Lost(Answer::Full { dimension: None, .. })), "{replied:?}");
        let telling = state.tell(now, DAY, Duration::from_millis(100), ServerClock::default());
        assert_eq!((telling.tell.all.len(), telling.tell.untold.len(), telling.tell.day_all), (1, 0, 1));
        assert!(telling.tell.fresh != KeyId(0) && telling.tell.known == KeyId(7));
        state.told(now, &telling, KeyId(8));
        let (decision, _) = state.decide(&question(60), &cx(now, DecideBy::Server));
        assert!(matches!(decision, Decision::Ask { take: Take { known: KeyId(8), .. }, .. }), "{decision:?}");
    }

    #[test]
    fn a_closing_is_answered_from_memory_until_its_look_and_ends_with_what_the_server_says() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut state = ScopeState::new(now);
        state.close(now, Closing { look: second, ends: second * 60 });
        let (decision, _) = state.decide(&question(60), &cx(now, DecideBy::Share(now)));
        let closed = Answer::Closed(Closing { look: second, ends: second * 60 });
        assert!(matches!(decision, Decision::Done(Decided { answer, .. }) if answer == closed), "{decision:?}");
        // While the server is away, one call of this instance looks.
        let away = DecideBy::Share(now - second * 5);
        let looks = |decision| {
            let (Decision::Done(Decided { answer, .. }), _) = decision else { panic!() };
            matches!(answer, Answer::Granted(grant) if grant.is_look)
        };
        assert!(looks(state.decide(&question(600), &cx(now + second, away))));
        assert!(!looks(state.decide(&question(600), &cx(now + second, away))));
        // A look that is due is asked for, and another instance may have opened the scope.
        let later = now + second * 10;
        ask(&mut state, 60, later, DecideBy::Server, (2, granted(0)));
        assert!(state.closed(later).is_none());
        let closed = Verdict::Closed { look: second * 3, ends: second * 9 };
        ask(&mut state, 60, later, DecideBy::Server, (2, closed));
        let mut clock = ServerClock::default();
        clock.learn(SERVER, later, later);
        // A finding of a moment ago stays, and then the server's counts.
        state.mirrored_closing(later + second / 4, [0, 0], clock);
        assert!(state.closed(later).is_some());
        state.mirrored_closing(later + second, [0, 0], clock);
        assert!(state.closed(later).is_none());
        state.mirrored_closing(later + second, [SERVER + 2_000, SERVER + 8_000], clock);
        let (look, ends) = state.closed(later).unwrap();
        assert!(look <= later + second * 2 && ends <= later + second * 8 && ends > later + second * 7);
    }

    #[test]
    fn while_others_may_be_away_a_call_has_to_fit_into_the_share_and_on_the_server() {
        let now = Instant::now();
        let mut state = ScopeState::new(now);
        let by = DecideBy::Both(now + Duration::from_secs(1));
        for used in 1..=12 {
            ask(&mut state, 60, now, by, (0, granted(0)));
            assert_eq!(state.share.totals(now, DAY)[0], used);
        }
        let (decision, _) = state.decide(&question(60), &cx(now, by));
        let Decision::Done(Decided { answer: Answer::Full { wait, .. }, .. }) = decision else {
            panic!("{decision:?}")
        };
        assert_eq!(wait, Duration::from_secs(1));
    }

    #[test]
    fn a_lease_serves_without_the_server_and_its_rest_is_given_back_in_whatever_state() {
        let now = Instant::now();
        let mut state = ScopeState::new(now);
        let replied = ask(&mut state, 6_000, now, DecideBy::Server, (6, granted(5)));
        assert!(matches!(replied, Replied::Answer { is_lease: true, .. }));
        for by in [DecideBy::Server, DecideBy::Share(now)] {
            let (decision, _) = state.decide(&question(6_000), &cx(now, by));
            assert!(matches!(decision, Decision::Done(Decided { by: DecidedBy::Lease, .. })), "{decision:?}");
        }
        let rest = state.sweep(now + Duration::from_secs(1)).unwrap();
        assert_eq!((rest.key, rest.requests_back, rest.tokens_before), (KeyId(7), 3, 30));
        assert!(state.has_charges() && !state.is_forgettable(now + Duration::from_secs(1)));
        assert!(state.is_forgettable(now + Duration::from_secs(63)));
    }
}
