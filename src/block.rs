//! Blocks: how long a refusal for quota is believed.
//!
//! A refusal names an end, and the end is often wrong: a minute's quota says "in 30 min", a day's says "in 5 s", a day's
//! comes after one call and is gone a minute later, because a tier was granted or a quota reset. Whoever believes it to
//! the letter parks a project for hours that would serve, and whoever does not asks in vain every five seconds.
//!
//! So a block is a belief, and it is looked at again: when a look is due, one call passes while the others stay out. Its
//! success ends the block, and another refusal doubles the time until the next look. Where the refusals say nothing, any
//! answer to a call that has passed ends the block. A [`Claim`] is what a refusal claims, as far as its kind can last:
//!
//! | kind | believed | a look after |
//! |---|---|---|
//! | a minute's quota | as long as it says | 2 min, and every 2 min |
//! | unnamed, with a wait | as long as it says | 5 min, and every 5 min |
//! | unnamed, without one | 1 s, doubling to 20 min | the same; those that wait for the look wait as long again, 30 s at most |
//! | a minute's quota, without one | 1 s, doubling to 1 min | the same |
//! | a day's quota | until midnight Pacific, or as long as it says (25 h at most) | 15 s, doubling to 1 h |
//! | the same, where our own count agrees | the same | 30 min, then each hour |
//! | a limit of 0; a model closed for the project | until midnight Pacific | 1 h |
//! | the grounding quota, for grounded calls only | until midnight Pacific | 15 s, doubling to 1 h |
//! | spending within some minutes | 25 h | as long as it says, 10 min at most |
//! | no billing, no credits, a monthly cap, a limited account | 25 h | as long as it says, 1 h at most |
//!
//! Pure: it is told the time.

mod memory;

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

pub(crate) use self::memory::BlockMemory;
use crate::failure::{Failure, Kind};

/// The longest time that anything is believed: the longest day has 25 hours.
const LONGEST: Duration = Duration::from_secs(25 * 3_600);

/// The time between looks at a minute's quota: a minute for the quota, and another one for clocks that differ.
const MINUTES: Duration = Duration::from_secs(120);

/// The time between looks at a quota that is not named.
const UNNAMED: Duration = Duration::from_secs(300);

/// The time until the first look at a quota whose refusal may be a mistake.
const DOUBTED: Duration = Duration::from_secs(15);

/// The time until the first look at a quota whose refusal our own count confirms.
const CONFIRMED: Duration = Duration::from_secs(1_800);

/// The longest time between two looks, whatever is claimed.
const RARE: Duration = Duration::from_secs(3_600);

/// The time over which spending is summed up.
const ROLLING: Duration = Duration::from_secs(600);

/// The first block by refusals that say nothing. It doubles as long as no success comes, so that a refusal by mistake
/// costs a second, and a day's quota some eighty refusals.
const UNSAID: Duration = Duration::from_secs(1);

/// The longest block by refusals that name no quota.
const LONGEST_UNNAMED: Duration = Duration::from_secs(20 * 60);

/// The longest block by refusals of a minute's quota that say nothing more.
const LONGEST_MINUTE: Duration = Duration::from_secs(60);

/// The longest time for which a look is waited for: one that is not refused by then is probably being served, or hangs.
pub(crate) const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// The claim of a refusal, as far as it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    kind: Kind,
    lasts: Lasts,
    /// The time until the first look.
    look: Duration,
    /// The longest time until a look.
    longest: Duration,
    is_long: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasts {
    For(Duration),
    UntilMidnight,
    /// As long as it is until the look would be due.
    Unsaid,
}

impl Claim {
    /// Reads what a refusal claims. `None`: it is about no quota.
    pub(crate) fn of(failure: &Failure) -> Option<Self> {
        // "In 0 s" says nothing: the project would be asked again at once.
        let hint = failure.hint().map(|hint| hint.sufficient()).filter(|hint| !hint.is_zero());
        let within = |most: Duration| hint.unwrap_or(most).min(most);
        let claim = match failure.kind() {
            kind if kind.is_minutes() => Self::short(hint, MINUTES, LONGEST_MINUTE),
            Kind::QuotaUnknown => Self::short(hint, UNNAMED, LONGEST_UNNAMED),
            Kind::QuotaDay => Self::long(hint.map_or(Lasts::UntilMidnight, Lasts::For), DOUBTED),
            Kind::QuotaGrounding if failure.same_key_may_help() => Self::short(hint, MINUTES, LONGEST_MINUTE),
            Kind::QuotaGrounding => Self::long(Lasts::UntilMidnight, DOUBTED),
            Kind::QuotaZero | Kind::ModelClosed => Self::long(Lasts::UntilMidnight, RARE),
            Kind::QuotaSpend if failure.same_key_may_help() => {
                let look = within(ROLLING);
                Self { kind: Kind::QuotaSpend, lasts: Lasts::For(LONGEST), look, longest: ROLLING, is_long: false }
            }
            Kind::QuotaSpend | Kind::BillingRequired | Kind::AccountLimited => {
                Self::long(Lasts::For(LONGEST), within(RARE))
            }
            _ => return None,
        };
        Some(Self { kind: failure.kind(), ..claim })
    }

    /// Makes the claim of a day's quota whose end is not named.
    pub(crate) fn day() -> Self {
        Self::long(Lasts::UntilMidnight, DOUBTED)
    }

    /// Makes the claim of a short quota. `longest` is the longest block where there is no hint.
    fn short(hint: Option<Duration>, look: Duration, longest: Duration) -> Self {
        let Some(hint) = hint else {
            return Self { kind: Kind::QuotaUnknown, lasts: Lasts::Unsaid, look: UNSAID, longest, is_long: false };
        };
        // A wait that was cut to the longest one may have been any longer one.
        let lasts = if hint < look { hint } else { LONGEST };
        Self { kind: Kind::QuotaUnknown, lasts: Lasts::For(lasts), look, longest: look, is_long: false }
    }

    fn long(lasts: Lasts, look: Duration) -> Self {
        Self { kind: Kind::QuotaDay, lasts, look, longest: RARE, is_long: true }
    }

    /// Makes it a claim that our own count agrees with, so that a look would be in vain.
    pub(crate) fn confirmed(self) -> Self {
        if self.is_long { Self { look: self.look.max(CONFIRMED.min(self.longest)), ..self } } else { self }
    }
}

/// A block by refusals, from the first of them to the answer that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The kind of the refusal that it is believed for.
    kind: Kind,
    /// The time from which every call may pass.
    ends: Instant,
    /// The time from which one call may pass.
    look_at: Instant,
    /// The time that the last refusal has added until the look.
    step: Duration,
    is_long: bool,
    /// True if the refusals do not say how long they last: then the step is all that is known, and outlives the block.
    is_unsaid: bool,
    look: Option<(Look, Instant)>,
    looks: u32,
}

/// The number of a look: one that took too long does not end the next one, and proves nothing after another refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look(NonZeroU32);

/// The decision on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It may pass, as every other call may.
    Free,
    /// It may pass alone, and looks for the others.
    Look,
    /// It stays out until then at least: the next look, or the end.
    Closed(Instant),
}

impl Passage {
    /// Returns what is left of a passage where another block decides as well: the strictest counts.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Closed(one), Self::Closed(other)) => Self::Closed(one.max(other)),
            (closed @ Self::Closed(_), _) | (_, closed @ Self::Closed(_)) => closed,
            (Self::Free, Self::Free) => Self::Free,
            _ => Self::Look,
        }
    }
}

impl Block {
    /// Begins a block. `midnight` is the next one in California.
    pub(crate) fn new(claim: Claim, now: Instant, midnight: Instant) -> Self {
        // A look at an earlier block of the same scope must not be taken for one at this.
        let looks = fastrand::u32(..);
        let (kind, step) = (claim.kind, Duration::ZERO);
        let mut block =
            Self { kind, ends: now, look_at: now, step, is_long: false, is_unsaid: false, look: None, looks };
        block.renew(claim, now, midnight);
        block
    }

    /// Takes note of a further refusal. If the refused call has looked, its look has been [ended](Self::end_look) before.
    pub(crate) fn refused(&mut self, claim: Claim, now: Instant, midnight: Instant) {
        if now >= self.forgotten_at() {
            // A new event, long after the last one.
            self.step = Duration::ZERO;
        }
        match self.passage(now) {
            // Calls that are refused together are one event, and so are those that come late, while another call looks.
            Passage::Closed(_) => self.refused_together(claim, now, midnight),
            Passage::Free | Passage::Look => self.renew(claim, now, midnight),
        }
    }

    /// Takes note of a refusal of a call that was sent before the block or its look: the longest claim counts.
    fn refused_together(&mut self, claim: Claim, now: Instant, midnight: Instant) {
        let is_alike = self.is_alike(claim);
        if self.look.is_some() && is_alike && self.is_unsaid {
            // It says nothing that the look will not tell.
            return;
        }
        let mut other = Self { step: Duration::ZERO, ..*self };
        other.renew(claim, now, midnight);
        if other.ends <= self.ends {
            return;
        }
        (self.kind, self.ends, self.is_unsaid) = (other.kind, other.ends, other.is_unsaid);
        self.step = if is_alike { self.step.max(other.step) } else { other.step };
        if !is_alike || self.look.is_none() {
            self.is_long |= other.is_long;
            self.look_at = self.look_at.max(other.look_at);
            // A look at one sort of quota says nothing of another.
            self.look = None;
        }
    }

    /// Returns whether a claim is of the same sort, so that its refusal confirms the block.
    fn is_alike(&self, claim: Claim) -> bool {
        self.is_long == claim.is_long && self.is_unsaid == (claim.lasts == Lasts::Unsaid)
    }

    fn renew(&mut self, claim: Claim, now: Instant, midnight: Instant) {
        if !self.is_alike(claim) {
            // The step of another sort of quota says nothing of this one.
            self.step = Duration::ZERO;
        }
        self.step = (self.step * 2).clamp(claim.look, claim.longest.max(claim.look));
        let far = now + LONGEST;
        self.ends = match claim.lasts {
            Lasts::For(time) => now + time.min(LONGEST),
            Lasts::UntilMidnight => midnight.min(far),
            // One call looks. A refusal is quick, and the others do not wait for long for an answer.
            Lasts::Unsaid => now + self.step + self.step.min(LONGEST_LOOK),
        };
        self.look_at = (now + self.step).min(self.ends);
        (self.kind, self.is_long) = (claim.kind, claim.is_long);
        self.is_unsaid = claim.lasts == Lasts::Unsaid;
        self.look = None;
    }

    /// Decides on a call.
    #[inline]
    pub(crate) fn passage(&self, now: Instant) -> Passage {
        if now >= self.ends {
            return Passage::Free;
        }
        if now < self.look_at {
            return Passage::Closed(self.look_at);
        }
        match self.look {
            Some((_, since)) if now < since + LONGEST_LOOK => Passage::Closed((since + LONGEST_LOOK).min(self.ends)),
            _ => Passage::Look,
        }
    }

    /// Returns the time from which a call may hope to pass; `None`: it may pass now. A long block is not hoped to end
    /// with a look.
    pub(crate) fn closed_until(&self, now: Instant) -> Option<Instant> {
        match self.passage(now) {
            Passage::Closed(_) if self.is_long => Some(self.ends),
            Passage::Closed(at) => Some(at),
            Passage::Free | Passage::Look => None,
        }
    }

    /// Returns the times until the block ends by itself, and until one call may look; `None`: it has ended.
    pub(crate) fn left(&self, now: Instant) -> Option<(Duration, Duration)> {
        let ends = self.ends.saturating_duration_since(now);
        (!ends.is_zero()).then(|| (ends, self.look_at.saturating_duration_since(now)))
    }

    /// Returns the time at which the block has ended for every call.
    pub(crate) fn ends(&self) -> Instant {
        self.ends
    }

    /// Returns the time from which it is not remembered any more: the next refusal begins a new block.
    pub(crate) fn forgotten_at(&self) -> Instant {
        if self.is_unsaid { self.ends + RARE } else { self.ends }
    }

    /// Returns the kind of the refusal that it is believed for.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether its refusals do not say how long they last. Any answer to a call that has passed refutes such a
    /// block, however late it comes: where answers are slow and a few calls are refused for no reason, the refusals would
    /// follow each other sooner than the answers to the calls between them.
    pub(crate) fn is_unsaid(&self) -> bool {
        self.is_unsaid
    }

    /// Returns whether the block lasts longer than anybody waits.
    pub(crate) fn is_long(&self) -> bool {
        self.is_long
    }

    /// Begins a look. The passage has been [`Look`](Passage::Look).
    pub(crate) fn begin_look(&mut self, now: Instant) -> Look {
        self.looks = self.looks.wrapping_add(1);
        let look = Look(NonZeroU32::MIN.saturating_add(self.looks));
        self.look = Some((look, now));
        look
    }

    /// Ends a look that has shown nothing: the next call looks.
    pub(crate) fn end_look(&mut self, look: Look) {
        if self.look.is_some_and(|(under_way, _)| under_way == look) {
            self.look = None;
        }
    }

    /// Returns whether the success of a look ends the block: only that of the current one does, but any once the block
    /// lets all calls pass, or where the [refusals say nothing](Self::is_unsaid).
    pub(crate) fn ends_with(&self, look: Look, now: Instant) -> bool {
        self.is_unsaid || now >= self.ends || self.look.is_some_and(|(under_way, _)| under_way == look)
    }
}

#[cfg(test)]
mod tests;
