//! A plain account of what the script should do: a list of charges, and no ring.

use std::collections::BTreeMap;

use super::{Closing, Correct, Dimension, Duration, KeyId, Slot, SlotCharge, Take, TakeReply, Tell, Verdict};

const CLAMP: u64 = u32::MAX as u64;

/// The contents of one key.
#[derive(Clone, Debug, Default)]
pub(in super::super::super) struct PlainContents {
    pub(in super::super::super) key: KeyId,
    /// The requests and the tokens of each slot.
    charges: BTreeMap<u64, (u64, u64)>,
    latest: u64,
    /// The first slot in which anything can be charged.
    from: u64,
    pub(super) day_end: u64,
    pub(super) today: u64,
    base: u64,
    pub(super) learns_until: u64,
    asked_at: u64,
    /// The times of the next look and of the end.
    pub(super) closed_until: (u64, u64),
}

/// Returns the time from which a charge of that slot no longer counts.
fn ends(slot: u64) -> u64 {
    (slot + 1) * 500 + 60_000 + 250
}

impl PlainContents {
    pub(super) fn charges(&self) -> Vec<SlotCharge> {
        let charges = self.charges.iter().filter(|&(_, &charge)| charge != (0, 0));
        charges.map(|(&slot, &(requests, tokens))| SlotCharge { slot: Slot(slot), requests, tokens }).collect()
    }

    /// Returns whether the key's time to live is over, where no day counts.
    pub(in super::super::super) fn is_over(&self, now: u64) -> bool {
        self.key != KeyId(0) && self.latest * 500 + 62_500 < now
    }

    /// Returns the string of the key, as the script writes it.
    pub(in super::super::super) fn bytes(&self) -> Vec<u8> {
        let oldest = self.charges.first_key_value().map_or(self.latest, |(slot, _)| *slot);
        let current = self.charges.get(&self.latest).copied().unwrap_or_default();
        let (requests, tokens) = self.sums();
        let (look, ends) = self.closed_until;
        let mut head = b"TGq1".to_vec();
        head.extend(self.key.0.to_le_bytes());
        [self.latest, oldest, requests, tokens].iter().for_each(|long| head.extend(long.to_le_bytes()));
        [current.0, current.1].iter().for_each(|int| head.extend((*int as u32).to_le_bytes()));
        [self.day_end, self.today, self.base, look, ends, self.learns_until, self.asked_at, 0]
            .iter()
            .for_each(|long| head.extend(long.to_le_bytes()));
        let mut ring = vec![0; 122 * 8];
        for (slot, charge) in self.charges.range(..self.latest) {
            let at = (*slot % 122) as usize * 8;
            ring[at..at + 4].copy_from_slice(&(charge.0 as u32).to_le_bytes());
            ring[at + 4..at + 8].copy_from_slice(&(charge.1 as u32).to_le_bytes());
        }
        head.extend(ring);
        head
    }

    pub(super) fn sums(&self) -> (u64, u64) {
        self.charges.values().fold((0, 0), |sums, charge| (sums.0 + charge.0, sums.1 + charge.1))
    }

    pub(in super::super::super) fn take(&mut self, now: u64, take: &Take) -> TakeReply {
        let of = |key, used, verdict| TakeReply { now_ms: now, key, used, verdict };
        if now >= take.deadline_ms {
            return of(KeyId(0), [0; 3], Verdict::Late);
        }
        if take.known != KeyId(0) && take.known != self.key {
            return of(self.key, [0; 3], Verdict::Lost);
        }
        self.begin(now, take.fresh, take.day_end.0, take.learn);
        self.asked_at = now;
        let (mut requests, mut tokens) = (take.requests.min(CLAMP), take.tokens.min(CLAMP));
        let used = [self.sums().0, self.sums().1, self.today];
        let left = [0, 1, 2].map(|nth| take.limits[nth].map(|limit| i128::from(limit) - i128::from(used[nth])));
        let fits = |nth: usize, amount| left[nth].is_none_or(|left| i128::from(amount) <= left);
        let verdict = if now < self.learns_until {
            Verdict::Learning { wait: Duration::from_millis(self.learns_until - now) }
        } else if now < self.closed_until.1 && now < self.closed_until.0 {
            let [look, ends] = [self.closed_until.0, self.closed_until.1].map(|at| Duration::from_millis(at - now));
            Verdict::Closed { look, ends }
        } else if let Some((wait, dimension)) = [
            (!fits(0, requests)).then(|| (self.wait(now, 0, requests, take.limits[0]), Dimension::RequestsPerMinute)),
            (!fits(1, tokens)).then(|| (self.wait(now, 1, tokens, take.limits[1]), Dimension::InputTokensPerMinute)),
            (!fits(2, requests))
                .then(|| (100.max((self.day_end * 1000).saturating_sub(now)), Dimension::RequestsPerDay)),
        ]
        .into_iter()
        .flatten()
        .reduce(|first, next| if next.0 > first.0 { next } else { first })
        {
            Verdict::Full { dimension, wait: Duration::from_millis(wait) }
        } else {
            let is_look = now < self.closed_until.1;
            let (mut lease_requests, mut lease_tokens) = (0, 0);
            if is_look {
                self.closed_until.0 = self.closed_until.1.min(now + 5000);
            } else {
                let most = |wish: u64, left: Option<i128>, amount: u64| {
                    left.map_or(wish, |left| wish.min(u64::try_from(left).unwrap() - amount))
                };
                lease_requests = most(take.wish_requests.min(CLAMP), left[0], requests);
                lease_requests = most(lease_requests, left[2], requests);
                lease_tokens = most(take.wish_tokens.min(CLAMP), left[1], tokens);
            }
            (requests, tokens) = (requests + lease_requests, tokens + lease_tokens);
            self.today += requests;
            self.charge(self.latest, requests, tokens);
            Verdict::Granted { slot: Slot(self.latest), lease_requests, lease_tokens, is_look }
        };
        of(self.key, [self.sums().0, self.sums().1, self.today], verdict)
    }

    pub(in super::super::super) fn correct(&mut self, now: u64, correct: &Correct) {
        if self.key == KeyId(0) || correct.key != self.key {
            return;
        }
        self.advance(now);
        let back = correct.requests_back.min(CLAMP);
        if let Some(charge) = self.charges.get_mut(&correct.slot.0) {
            charge.0 = charge.0.saturating_sub(back);
            let after = charge.1 + correct.tokens_after.min(CLAMP);
            charge.1 = after.saturating_sub(correct.tokens_before.min(CLAMP)).min(CLAMP);
        } else if (self.from..=self.latest).contains(&correct.slot.0)
            && now.max(self.latest * 500) < ends(correct.slot.0)
        {
            // The clock went back before that slot and has come there again.
            self.charge_more(correct);
        }
        if correct.day_end.0 == self.day_end {
            self.today = self.today.saturating_sub(back);
        }
    }

    pub(in super::super::super) fn tell(&mut self, now: u64, tell: &Tell) -> bool {
        if now >= tell.deadline_ms {
            return false;
        }
        let learn = u64::try_from(tell.learn.as_millis()).unwrap();
        let is_known = tell.known == self.key && self.key != KeyId(0) && !tell.reset;
        if is_known {
            self.begin(now, tell.fresh, tell.day_end.0, tell.learn);
            if now.saturating_sub(self.asked_at) > 1000 && self.learns_until <= now {
                self.learns_until = now + learn;
            }
        } else {
            if tell.reset && tell.known == self.key {
                if self.key != KeyId(0) {
                    self.advance(now);
                }
                let base = if self.day_end == tell.day_end.0 { self.today } else { 0 };
                *self = Self { closed_until: self.closed_until, ..Self::default() };
                self.begin(now, tell.fresh, tell.day_end.0, tell.learn);
                (self.today, self.base) = (base, base);
            }
            self.begin(now, tell.fresh, tell.day_end.0, tell.learn);
        }
        if tell.day_end.0 == self.day_end {
            let told = if is_known { tell.day_untold } else { tell.day_all };
            let repeated = if is_known { 0 } else { told.min(self.base) };
            self.base -= repeated;
            self.today += told - repeated;
        }
        let told = if is_known { &tell.untold } else { &tell.all };
        for charge in told {
            self.from = 0;
            if now.max(self.latest * 500) < ends(charge.slot.0) {
                self.charge(charge.slot.0.min(self.latest), charge.requests.min(CLAMP), charge.tokens.min(CLAMP));
            }
        }
        true
    }

    pub(in super::super::super) fn close(&mut self, now: u64, closing: Closing) {
        if self.key != KeyId(0) {
            self.advance(now);
        }
        if self.closed_until.1 <= now {
            self.closed_until = (0, 0);
        }
        let at = |time: Duration| now + u64::try_from(time.as_millis()).unwrap();
        self.closed_until = (self.closed_until.0.max(at(closing.look)), self.closed_until.1.max(at(closing.ends)));
    }

    pub(in super::super::super) fn open(&mut self, now: u64) {
        if self.closed_until.1 > 0 {
            if self.key != KeyId(0) {
                self.advance(now);
            }
            self.closed_until = (0, 0);
        }
    }

    /// Makes the contents where there are none, moves them to that time, and begins a day.
    fn begin(&mut self, now: u64, fresh: KeyId, asked_end: u64, learn: Duration) {
        if self.key == KeyId(0) {
            let learn = u64::try_from(learn.as_millis()).unwrap();
            let learns_until = if learn > 0 { now + learn } else { 0 };
            let closed_until = self.closed_until;
            *self = Self {
                key: fresh,
                learns_until,
                latest: now / 500,
                from: now / 500,
                day_end: asked_end,
                closed_until,
                ..Self::default()
            };
            return;
        }
        self.advance(now);
        let is_far = |end: u64| end * 1000 > now + 26 * 3_600_000;
        if asked_end > self.day_end {
            let is_over = self.day_end * 1000 <= now;
            if !is_far(asked_end) || is_far(self.day_end) || is_over {
                (self.day_end, self.today, self.base) = (asked_end, 0, 0);
            }
        } else if is_far(self.day_end) && !is_far(asked_end) && asked_end * 1000 > now {
            self.day_end = asked_end;
        }
    }

    fn advance(&mut self, now: u64) {
        let slot = now / 500;
        if slot + 2 < self.latest {
            let (requests, tokens) = self.sums();
            self.charges.clear();
            let back = (self.latest - slot) * 500;
            for time in [&mut self.learns_until, &mut self.asked_at, &mut self.closed_until.0, &mut self.closed_until.1]
            {
                *time = time.saturating_sub(back);
            }
            (self.latest, self.from) = (slot, slot);
            self.charge(slot, requests, tokens);
        }
        self.latest = self.latest.max(slot);
        let now = now.max(self.latest * 500);
        self.charges.retain(|&slot, _| now < ends(slot));
    }

    fn charge(&mut self, slot: u64, requests: u64, tokens: u64) {
        let charge = self.charges.entry(slot).or_default();
        *charge = ((charge.0 + requests).min(CLAMP), (charge.1 + tokens).min(CLAMP));
    }

    fn charge_more(&mut self, correct: &Correct) {
        let more = correct.tokens_after.min(CLAMP).saturating_sub(correct.tokens_before.min(CLAMP));
        self.charge(correct.slot.0, 0, more);
    }

    /// Returns the time until enough of the oldest charges no longer count, in milliseconds.
    fn wait(&self, now: u64, dimension: usize, amount: u64, limit: Option<u64>) -> u64 {
        let of = |charge: &(u64, u64)| if dimension == 0 { charge.0 } else { charge.1 };
        let mut used: u64 = self.charges.values().map(of).sum();
        for (&slot, charge) in &self.charges {
            used -= of(charge);
            if limit.is_some_and(|limit| used + amount <= limit) {
                return ends(slot) - now;
            }
        }
        ends(self.latest) - now
    }
}
