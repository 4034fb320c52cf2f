//! Leases: more than one call's quota, taken at once for the rest of a slot.
//!
//! A lease is a charge like any other, so that the limit holds whatever becomes of it; what is left of it is given back when
//! its slot is over.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    ledger::{ChargeName, Grain},
    script::SLOT,
    share::LimitsInOrder,
};
use crate::quota::window::Amount;

/// The least limit of requests a minute with leases: below it each call is asked for itself.
const LEAST_LIMIT: u64 = 600;

/// The leases of one scope.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    current: Option<Lease>,
    /// True while a question with a wish is on its way: no other one wishes.
    is_asking: bool,
    demand: Demand,
}

/// The rest of a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) name: ChargeName,
    pub(super) left: Amount,
    /// The end of its slot on the server, or a little earlier.
    pub(super) until: Instant,
}

/// The amounts that were asked for in the current slot and in the one before it.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    grain: Grain,
    now: Amount,
    before: Amount,
}

impl Demand {
    fn add(&mut self, grain: Grain, amount: Amount) {
        if self.grain != grain {
            let is_next = grain.is_after(self.grain);
            *self = Self { grain, now: Amount::default(), before: if is_next { self.now } else { Amount::default() } };
        }
        self.now = self.now.plus(amount);
    }

    /// Returns the larger of the two: the current slot is not over.
    fn a_slot(&self) -> Amount {
        let (requests, tokens) = (self.now.requests.max(self.before.requests), self.now.tokens.max(self.before.tokens));
        Amount { requests, tokens }
    }
}

impl Leases {
    /// Takes an amount from the lease, if there is one that has it. A lease that is over is returned with what is left.
    pub(super) fn take(&mut self, now: Instant, grain: Grain, amount: Amount) -> (Option<ChargeName>, Option<Lease>) {
        self.demand.add(grain, amount);
        let over = self.over(now);
        let taken = self.current.as_mut().filter(|lease| amount.is_within(lease.left)).map(|lease| {
            lease.left = lease.left.minus(amount);
            ChargeName { grain: lease.name.grain, ..lease.name }
        });
        (taken, over)
    }

    /// Returns the lease that is over, with what is left of it.
    pub(super) fn over(&mut self, now: Instant) -> Option<Lease> {
        let over = self.current.take_if(|lease| lease.until <= now)?;
        Some(over).filter(|lease| lease.left != Amount::default())
    }

    /// Ends the lease before its time, because the server does not answer, or closes the scope.
    pub(super) fn end(&mut self) -> Option<Lease> {
        self.current.take().filter(|lease| lease.left != Amount::default())
    }

    /// Returns what a question should wish besides its own amount: nothing where a limit is small or nearly used, so that no
    /// other instance waits for what this one does not need. `rest` is the rest of the server's slot, and `used` what counts.
    pub(super) fn wish(
        &mut self,
        amount: Amount,
        limits: LimitsInOrder,
        used: [u64; 3],
        rest: Duration,
        instances: u32,
    ) -> Amount {
        let is_small = limits[0].is_none_or(|limit| limit < LEAST_LIMIT);
        if is_small || self.is_asking {
            return Amount::default();
        }
        let others = 2 * u64::from(instances.max(1));
        let most = |limit: Option<u64>, used: u64, own: u64| match limit {
            Some(limit) => (limit / 10).min(limit.saturating_sub(used).saturating_sub(own) / others),
            None => u64::MAX,
        };
        let demand = self.demand.a_slot();
        let part = |amount: u64| {
            let rest = rest.min(SLOT).as_millis();
            u64::try_from(u128::from(amount) * rest / SLOT.as_millis()).unwrap_or(u64::MAX)
        };
        let wish = Amount {
            requests: part(demand.requests).min(most(limits[0], used[0], amount.requests)).min(most(
                limits[2],
                used[2],
                amount.requests,
            )),
            tokens: part(demand.tokens).min(most(limits[1], used[1], amount.tokens)),
        };
        // Tokens alone serve no call.
        if wish.requests == 0 {
            return Amount::default();
        }
        self.is_asking = true;
        wish
    }

    /// Notes that the question with a wish is answered, or never will be.
    pub(super) fn asked(&mut self) {
        self.is_asking = false;
    }

    /// Adds a lease, and returns what is left of the one before it. `sent` is the time of the question, and `rest` what the
    /// server said was left of the slot then or later.
    pub(super) fn grant(&mut self, name: ChargeName, lease: Amount, sent: Instant, rest: Duration) -> Option<Lease> {
        let mut lease = Lease { name, left: lease, until: sent + rest.min(SLOT) };
        let before = self.current.take();
        let before = before.filter(|before| before.left != Amount::default());
        let is_same = |before: &Lease| (before.name.key, before.name.slot) == (name.key, name.slot);
        let rest = match before {
            Some(before) if is_same(&before) && before.name.grain == name.grain => {
                lease.left = lease.left.plus(before.left);
                None
            }
            rest => rest,
        };
        self.current = Some(lease);
        rest
    }

    /// Returns whether there is a lease.
    pub(super) fn is_live(&self) -> bool {
        self.current.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redis_store::script::{DayEnd, KeyId, Slot};

    fn name(slot: u64) -> ChargeName {
        ChargeName { grain: Grain::default(), key: KeyId(7), slot: Slot(slot), day_end: DayEnd(3_600) }
    }

    proptest! {
        /// The plain model is the sum: what was leased is what was taken, given back or is still there.
        #[test]
        fn nothing_of_a_lease_is_lost_or_taken_twice(
            steps in prop::collection::vec((0u64..200, 0u8..3, 1u64..5, 0u64..90), 1..100),
        ) {
            let begun = Instant::now();
            let (mut leases, mut now) = (Leases::default(), begun);
            let (mut leased, mut taken, mut back) = (Amount::default(), Amount::default(), Amount::default());
            let mut until = begun;
            for (ms, kind, requests, tokens) in steps {
                now += Duration::from_millis(ms);
                let (amount, slot) = (Amount { requests, tokens }, now.duration_since(begun).as_millis() as u64);
                let rest = Duration::from_millis(500 - slot % 500);
                let over;
                match kind {
                    0 => {
                        over = leases.grant(name(slot / 500), amount, now, rest);
                        leased = leased.plus(amount);
                        until = now + rest;
                    }
                    1 => {
                        let (name, rest) = leases.take(now, Grain::of(begun, now), amount);
                        over = rest;
                        if name.is_some() {
                            prop_assert!(now < until, "nothing is taken from a lease that is over");
                            taken = taken.plus(amount);
                        }
                    }
                    _ => over = leases.over(now),
                }
                back = over.map_or(back, |lease| back.plus(lease.left));
                let left = leases.current.map_or(Amount::default(), |lease| lease.left);
                prop_assert_eq!(taken.plus(back).plus(left), leased);
            }
        }

        #[test]
        fn a_wish_is_at_most_a_tenth_of_the_limit_and_leaves_the_others_theirs(
            asked in prop::collection::vec(0u64..500, 1..20),
            limit in 1u64..10_000, used in 0u64..10_000, rest in 0u64..900, instances in 1u32..9,
        ) {
            let begun = Instant::now();
            let mut leases = Leases::default();
            let one = Amount { requests: 1, tokens: 10 };
            let mut asks = 0;
            let mut last = 0;
            for ms in asked {
                let now = begun + Duration::from_millis(ms);
                last = last.max(ms);
                leases.demand.add(Grain::of(begun, now), one);
                asks += 1;
            }
            let used = used.min(limit);
            let limits = [Some(limit), None, Some(1_000_000)];
            let wish = leases.wish(one, limits, [used, 0, 0], Duration::from_millis(rest), instances);
            prop_assert!(wish.requests <= limit / 10 && wish.requests <= asks);
            prop_assert!(wish.requests * u64::from(instances) * 2 <= limit - used);
            prop_assert!(limit >= 600 || wish == Amount::default());
            let again = leases.wish(one, limits, [used, 0, 0], Duration::from_millis(rest), instances);
            prop_assert_eq!(again, if wish == Amount::default() { wish } else { Amount::default() });
        }
    }

    #[test]
    fn a_steady_demand_is_leased_for_the_rest_of_the_slot() {
        let begun = Instant::now();
        let mut leases = Leases::default();
        let one = Amount { requests: 1, tokens: 10 };
        for nth in 0..50 {
            let now = begun + Duration::from_millis(nth * 10);
            assert!(leases.take(now, Grain::of(begun, now), one).0.is_none());
        }
        let now = begun + Duration::from_millis(505);
        leases.take(now, Grain::of(begun, now), one);
        let rest = Duration::from_millis(250);
        let wish = leases.wish(one, [Some(6_000), None, None], [0, 0, 0], rest, 4);
        assert_eq!(wish, Amount { requests: 25, tokens: 250 });
        leases.asked();
        assert!(leases.grant(name(1), wish, now, rest).is_none() && leases.is_live());
        assert!(leases.take(now, Grain::of(begun, now), one).0.is_some());
        let (taken, over) = leases.take(now + rest, Grain::of(begun, now + rest), one);
        assert!(taken.is_none());
        assert_eq!(over.unwrap().left, Amount { requests: 24, tokens: 240 });
    }

    #[test]
    fn the_last_requests_of_a_day_are_not_leased() {
        let begun = Instant::now();
        let mut leases = Leases::default();
        let one = Amount { requests: 1, tokens: 0 };
        (0..100).for_each(|_| _ = leases.take(begun, Grain::of(begun, begun), one));
        let limits = [Some(6_000), None, Some(1_000)];
        assert_eq!(leases.wish(one, limits, [0, 0, 993], SLOT, 4), Amount::default());
        assert_eq!(leases.wish(one, limits, [0, 0, 900], SLOT, 4), Amount { requests: 12, tokens: 0 });
    }
}
