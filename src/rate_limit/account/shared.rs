//! The knowledge of an account about the store that others ask as well: its last refusal, and the usage of all. Pure: the
//! caller passes the time.

use std::time::Duration;

use tokio::time::Instant;

use super::{Account, Charge};
use crate::{
    quota::{Answer, Closing, Dimension, Grant, Limits, PacificCalendar, Question, StoreCharge},
    rate_limit::{Amount, blocks::Shut, report::SharedReport},
};

/// The longest time between two questions of the waiter that is first: others may give something back, and open a scope.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The same for a scope that is closed for longer than that: an operator may open it before its time.
const ASK_RARELY: Duration = Duration::from_secs(30);

/// The least time between two questions of it.
const ASK_SOON: Duration = Duration::from_millis(100);

/// The time that every refusal holds at least, so that nobody asks in a busy loop.
const LEAST: Duration = Duration::from_millis(2);

/// The time for which nobody waits for a closed scope.
const LONG: Duration = Duration::from_secs(120);

/// The longest time that an answer is believed: no day has as many hours, and no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(48 * 3_600);

/// The knowledge of the store's answers.
#[derive(Debug, Default)]
pub(super) struct StoreView {
    refusal: Option<StoreRefusal>,
    /// The usage of all who ask, and the end of the day and the time at which it was told.
    usage: Option<SharedUsage>,
    /// The time from which the store is asked in spite of this limiter's own block, because others may have opened the
    /// scope. `None`: the store was not told of that block.
    through_at: Option<Instant>,
}

/// The usage of all who ask, with the call that was told it.
#[derive(Clone, Copy, Debug)]
struct SharedUsage {
    minute: Amount,
    today: u64,
    day: u32,
    at: Instant,
}

/// A refusal of the store's, as long as it holds.
#[derive(Clone, Copy, Debug)]
struct StoreRefusal {
    /// The amount that it refused: it holds nothing back that is smaller. Nothing where the scope is closed.
    amount: Amount,
    dimension: Option<Dimension>,
    /// The time of the answer.
    at: Instant,
    /// The time at which the amount fits, or a call may look, if nothing else happens.
    until: Instant,
    /// The time at which the first waiter asks again.
    again: Instant,
    /// The time at which the closing ends by itself; `None` if the scope is not closed.
    ends: Option<Instant>,
}

impl StoreRefusal {
    fn is_long(&self) -> bool {
        self.ends.is_some_and(|ends| ends.saturating_duration_since(self.at) > LONG)
    }

    /// Returns whether it is about a call of this amount.
    fn concerns(&self, amount: Amount) -> bool {
        match self.dimension {
            _ if self.ends.is_some() => true,
            Some(Dimension::RequestsPerMinute | Dimension::RequestsPerDay) => amount.requests >= self.amount.requests,
            Some(Dimension::InputTokensPerMinute) => amount.tokens >= self.amount.tokens,
            None => true,
        }
    }

    /// Returns the time until which a call cannot hope to pass.
    fn hopeless_until(&self) -> Instant {
        self.ends.filter(|_| self.is_long()).unwrap_or(self.until)
    }
}

/// The charge of a call in the store.
#[derive(Debug)]
pub(in crate::rate_limit) struct SharedCharge {
    pub(in crate::rate_limit) charge: StoreCharge,
    pub(in crate::rate_limit) amount: Amount,
    pub(in crate::rate_limit) is_look: bool,
    /// The usage of all others, and of this limiter's other calls, when it was made.
    minute: Amount,
    today: u64,
}

impl SharedCharge {
    pub(in crate::rate_limit) fn new(grant: Grant, amount: Amount) -> Self {
        let minute = Amount { requests: grant.requests, tokens: grant.tokens }.minus(amount);
        let today = grant.today.saturating_sub(amount.requests);
        Self { charge: grant.charge, amount, is_look: grant.is_look, minute, today }
    }

    /// Returns what was used in a dimension beside it.
    pub(super) fn used(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::RequestsPerMinute => self.minute.requests,
            Dimension::InputTokensPerMinute => self.minute.tokens,
            Dimension::RequestsPerDay => self.today,
        }
    }
}

/// The times of a waiter that the store has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) struct HeldBack {
    /// The time at which it fits, if nothing else happens.
    pub(in crate::rate_limit) at: Instant,
    /// The time at which to ask again.
    pub(in crate::rate_limit) again: Instant,
}

/// Returns the time until the store is asked again that has refused a call for `wait`: not all at once.
fn ask_again(wait: Duration, is_closed: bool) -> Duration {
    let again = if is_closed && wait > ASK_RARELY { ASK_RARELY } else { ASK_AGAIN };
    again.mul_f64(0.8 + 0.4 * fastrand::f64())
}

impl Account {
    /// Makes it the account of a scope whose quota a store counts as well.
    pub(in crate::rate_limit) fn share(&mut self) {
        self.store = Some(Box::default());
    }

    /// Holds the whole amount for a call that the store is asked for, unless its last refusal still holds the call back.
    pub(in crate::rate_limit) fn hold_to_ask(
        &mut self,
        now: Instant,
        amount: Amount,
        grounded: bool,
        calendar: PacificCalendar,
    ) -> Result<(Charge, Question), HeldBack> {
        if let Some(refusal) = self.refusal(now).filter(|refusal| now < refusal.again)
            && refusal.concerns(self.clamped(amount, now))
        {
            return Err(HeldBack { at: refusal.hopeless_until(), again: refusal.again });
        }
        let through_at = self.through_at(now);
        let is_through = through_at.is_some_and(|at| now >= at);
        if let Some(blocks) = self.blocks.as_mut().filter(|_| is_through) {
            blocks.yields = true;
        }
        let held = self.hold(now, amount, grounded, calendar);
        if let Some(blocks) = &mut self.blocks {
            blocks.yields = false;
        }
        match held {
            Ok(charge) => {
                let charge = Charge { is_through, ..charge };
                Ok((charge, self.question(now, charge)))
            }
            Err(at) => {
                let again = through_at.filter(|_| !is_through).map_or(at, |through_at| through_at.min(at));
                Err(HeldBack { at, again })
            }
        }
    }

    /// Returns the question for a held amount.
    pub(in crate::rate_limit) fn question(&self, now: Instant, charge: Charge) -> Question {
        Question::new(charge.amount.requests, charge.amount.tokens).limits(self.asked_limits(now))
    }

    /// Returns the time from which the store is asked in spite of this limiter's own block, if there is one.
    fn through_at(&self, now: Instant) -> Option<Instant> {
        let at = self.store.as_ref()?.through_at?;
        self.blocks.as_ref()?.closes_all(now).then_some(at)
    }

    /// Returns how long all calls are blocked, for others who share the quota, who are told of it.
    pub(in crate::rate_limit) fn tell_closing(&mut self, now: Instant) -> Option<Closing> {
        let (ends, look) = self.blocks.as_ref()?.left(now)?;
        self.store.as_mut()?.through_at = Some(now + ask_again(look, true));
        Some(Closing::of(ends).look(look))
    }

    /// Takes note of a block that others are not told of.
    pub(super) fn keep_to_itself(&mut self) {
        if let Some(store) = &mut self.store {
            store.through_at = None;
        }
    }

    /// Returns the limits of a question: those in force. A day's limit that was learned is a block.
    fn asked_limits(&self, now: Instant) -> Limits {
        let [requests, tokens, day] = &self.limits;
        let mut limits = Limits::new();
        limits = requests.in_force(now).map_or(limits, |limit| limits.requests_per_minute(limit));
        limits = tokens.in_force(now).map_or(limits, |limit| limits.input_tokens_per_minute(limit));
        day.configured().map_or(limits, |limit| limits.requests_per_day(limit))
    }

    /// Takes note of a grant. A block that the store was told of is over where the scope is open for all. Returns the
    /// charge, which looks at the own block as well where it looks for all.
    pub(in crate::rate_limit) fn granted(&mut self, now: Instant, mut charge: Charge, grant: Grant) -> Charge {
        let was_told = self.store.as_ref().is_some_and(|store| store.through_at.is_some());
        if let Some(blocks) = &mut self.blocks
            && (charge.is_through || was_told && charge.looks.is_of_all())
        {
            if !grant.is_look {
                blocks.opened(now);
                self.forget_learned_day();
            } else if charge.is_through {
                charge.looks = blocks.look_at_all(charge.looks, now);
            }
        }
        let day = self.day.number;
        if let Some(store) = &mut self.store {
            store.refusal = store.refusal.filter(|refusal| !refusal.concerns(charge.amount));
            if grant.is_look && was_told {
                // The others stay out, here as everywhere.
                store.through_at = Some(now + ask_again(Duration::ZERO, true));
            }
            let minute = Amount { requests: grant.requests, tokens: grant.tokens };
            store.usage = Some(SharedUsage { minute, today: grant.today, day, at: now });
        }
        charge
    }

    /// Takes note of a refusal of the store's. The held amount is refunded by its owner. Returns whether it closes the scope,
    /// and was not known to.
    pub(in crate::rate_limit) fn denied(&mut self, now: Instant, charge: Charge, answer: Answer) -> bool {
        let (dimension, wait, ends) = match answer {
            Answer::Granted(_) => return false,
            Answer::Full { dimension, wait } => (dimension, wait.min(LONGEST), None),
            Answer::Closed(Closing { look, ends }) => {
                let (look, ends) = (look.min(LONGEST), ends.min(LONGEST));
                (None, look, Some(now + ends.max(look)))
            }
        };
        // A turn of the pace that the call has taken stays for the next.
        if let Some(pacer) = &mut self.pacer {
            pacer.give_back(now, charge.amount.requests);
        }
        let known = self.refusal(now).filter(|known| known.ends.is_some()).copied();
        let Some(store) = &mut self.store else { return false };
        let amount = if ends.is_some() { Amount::default() } else { charge.amount };
        let until = now + wait.max(LEAST);
        let again = until.min(now + ask_again(wait, ends.is_some()));
        if charge.is_through {
            store.through_at = Some(again);
        }
        let refusal = StoreRefusal { amount, dimension, at: now, until, again, ends };
        store.refusal = Some(refusal);
        ends.is_some() && known.is_none_or(|known| refusal.is_long() && !known.is_long())
    }

    /// Lets the first waiter ask soon, because this limiter has given something back.
    pub(in crate::rate_limit) fn gave_back(&mut self, now: Instant) {
        if let Some(refusal) = self.store.as_mut().and_then(|store| store.refusal.as_mut())
            && refusal.ends.is_none()
        {
            refusal.again = refusal.again.min(now.max(refusal.at + ASK_SOON));
        }
    }

    /// Forgets that the store has said that the scope is closed.
    pub(super) fn forget_closing(&mut self) {
        if let Some(store) = &mut self.store {
            store.refusal = store.refusal.filter(|refusal| refusal.ends.is_none());
        }
    }

    fn refusal(&self, now: Instant) -> Option<&StoreRefusal> {
        self.store.as_ref()?.refusal.as_ref().filter(|refusal| now < refusal.until)
    }

    /// Returns the time until which the store holds a call of this amount back.
    pub(super) fn denied_until(&self, now: Instant, amount: Amount) -> Option<Instant> {
        let refusal = self.refusal(now).filter(|refusal| refusal.concerns(amount))?;
        Some(refusal.hopeless_until())
    }

    /// Returns the closing by another who asks the store that no call waits for.
    pub(super) fn shut_by_others(&self, now: Instant) -> Option<Shut> {
        let refusal = self.refusal(now).filter(|refusal| refusal.is_long())?;
        refusal.ends.map(|ends| Shut { look_at: refusal.until, ends, grounded: false })
    }

    /// Returns the time until which the scope is closed because another who asks the store was refused.
    pub(in crate::rate_limit) fn closed_by_others(&self, now: Instant) -> Option<Instant> {
        self.refusal(now).filter(|refusal| refusal.ends.is_some()).map(StoreRefusal::hopeless_until)
    }

    /// Returns the dimension that all who ask have used up together, and until when.
    pub(in crate::rate_limit) fn used_up(&self, now: Instant) -> Option<(Option<Dimension>, Instant)> {
        self.refusal(now).filter(|refusal| refusal.ends.is_none()).map(|refusal| (refusal.dimension, refusal.until))
    }

    /// Returns the requests of the day, as far as they are known: of all who ask, where that is more.
    pub(super) fn known_today(&self) -> u64 {
        let usage = self.store.as_ref().and_then(|store| store.usage).filter(|usage| usage.day == self.day.number);
        usage.map_or(self.day.used, |usage| usage.today.max(self.day.used))
    }

    /// Returns the state of the shared quota as it was last told.
    pub(in crate::rate_limit) fn shared_report(&self, now: Instant) -> Option<SharedReport> {
        let store = self.store.as_ref()?;
        let usage = store.usage;
        Some(SharedReport {
            used: usage.map_or([0; 3], |usage| [usage.minute.requests, usage.minute.tokens, usage.today]),
            age: usage.map(|usage| now.saturating_duration_since(usage.at)),
            full_for: self.used_up(now).map(|(_, until)| until - now),
            closed_for: self.closed_by_others(now).map(|until| until - now),
        })
    }
}
