//! The charges that this instance has made in the last minute: the server may lose them, and is told them again.
//!
//! They are kept by times of our own clock, which no server can set back. A charge is *told* if the contents that are known by
//! their id have it, and *untold* if only this instance knows it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::script::{Correct, DayEnd, KeyId, SLOT, Slot, SlotCharge, Tell};
use crate::quota::{Correction, StoreCharge, window::Amount};

/// The number of slots for which a charge is kept, a slot longer than the server counts it.
const KEPT: u64 = 123;

/// The number of slots for which contents with a charge of ours must be there: the server keeps them a second longer.
const SURE: u64 = 119;

/// A slot of our own clock, counted from the beginning of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grain(u64);

impl Grain {
    /// Returns the slot of a time.
    pub(super) fn of(begun: Instant, now: Instant) -> Self {
        Self((now.saturating_duration_since(begun).as_millis() / SLOT.as_millis()) as u64)
    }

    /// Returns whether this slot follows that one.
    pub(super) fn is_after(self, other: Self) -> bool {
        self.0 == other.0 + 1
    }

    /// Returns the last moment of the slot.
    fn end(self, begun: Instant) -> Instant {
        let nth = u32::try_from(self.0 + 1).unwrap_or(u32::MAX);
        begun + SLOT * nth - Duration::from_millis(1)
    }
}

/// The name of a charge, as [`StoreCharge`] carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChargeName {
    pub(super) grain: Grain,
    /// The contents and the slot on the server. Key 0: the charge was made by this instance's share.
    pub(super) key: KeyId,
    pub(super) slot: Slot,
    pub(super) day_end: DayEnd,
}

impl ChargeName {
    /// The bits of a slot, enough until 2106; above them stands the grain.
    const SLOT_BITS: u32 = 33;
    const HOUR: u64 = 3_600;

    pub(super) fn pack(self) -> StoreCharge {
        let slot = self.slot.0 & ((1 << Self::SLOT_BITS) - 1);
        // Midnight Pacific is a whole hour.
        StoreCharge(
            (self.grain.0 << Self::SLOT_BITS) | slot,
            (u64::from(self.key.0) << 32) | (self.day_end.0 / Self::HOUR),
        )
    }

    pub(super) fn unpack(charge: StoreCharge) -> Self {
        Self {
            grain: Grain(charge.0 >> Self::SLOT_BITS),
            slot: Slot(charge.0 & ((1 << Self::SLOT_BITS) - 1)),
            key: KeyId((charge.1 >> 32) as u32),
            day_end: DayEnd((charge.1 & 0xffff_ffff) * Self::HOUR),
        }
    }
}

/// The charges of this instance for one scope.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnLedger {
    /// The charges by slot, the oldest first; none is empty for long.
    cells: VecDeque<LedgerCell>,
    /// The contents that have the told charges; 0: none.
    known: KeyId,
    day: OwnDay,
}

#[derive(Clone, Copy, Debug, Default)]
struct LedgerCell {
    grain: Grain,
    told: Amount,
    untold: Amount,
    /// The slot that charges of this cell were told in, and the contents.
    told_in: (KeyId, Slot),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OwnDay {
    end: DayEnd,
    all: u64,
    untold: u64,
}

/// The charges that are being told, so that they can be marked as told when the server has them.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    pub(super) tell: Tell,
    cells: Vec<(Grain, Slot, Amount)>,
}

impl OwnLedger {
    /// Returns the contents in which charges of ours must be, where the key has to be there still.
    pub(super) fn known(&self, now: Grain, day_counts: Option<DayEnd>) -> KeyId {
        let is_young = self.cells.back().is_some_and(|cell| now.0.saturating_sub(cell.grain.0) <= SURE);
        let has_day = day_counts.is_some_and(|day| day == self.day.end) && self.day.all > 0;
        if is_young || has_day { self.known } else { KeyId(0) }
    }

    /// Notes the contents that the server has now.
    pub(super) fn knows(&mut self, key: KeyId) {
        self.known = key;
    }

    /// Returns whether no charge is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Returns whether there are charges that only this instance knows.
    pub(super) fn has_untold(&self) -> bool {
        self.day.untold > 0 || self.cells.iter().any(|cell| cell.untold != Amount::default())
    }

    /// Returns whether no charge counts any more, the day's aside.
    pub(super) fn is_old(&self, now: Grain) -> bool {
        self.cells.back().is_none_or(|cell| cell.grain.0 + KEPT < now.0)
    }

    /// Forgets what no longer counts.
    pub(super) fn expire(&mut self, now: Grain) {
        while self.cells.front().is_some_and(|cell| cell.grain.0 + KEPT < now.0) {
            self.cells.pop_front();
        }
    }

    /// Adds a charge that the server has made.
    pub(super) fn charge_told(&mut self, now: Grain, day: DayEnd, amount: Amount) {
        let cell = self.cell(now);
        cell.told = cell.told.plus(amount);
        self.day(day).all += amount.requests;
    }

    /// Adds a charge that only this instance knows.
    pub(super) fn charge_untold(&mut self, now: Grain, day: DayEnd, amount: Amount) {
        let cell = self.cell(now);
        cell.untold = cell.untold.plus(amount);
        let day = self.day(day);
        (day.all, day.untold) = (day.all + amount.requests, day.untold + amount.requests);
    }

    fn cell(&mut self, now: Grain) -> &mut LedgerCell {
        self.expire(now);
        let is_new = self.cells.back().is_none_or(|cell| cell.grain < now);
        if is_new {
            self.cells.push_back(LedgerCell { grain: now, ..LedgerCell::default() });
        }
        let last = self.cells.len() - 1;
        &mut self.cells[last]
    }

    fn day(&mut self, end: DayEnd) -> &mut OwnDay {
        if self.day.end < end {
            self.day = OwnDay { end, ..OwnDay::default() };
        }
        &mut self.day
    }

    /// Corrects a charge, and returns what the server has to correct.
    pub(super) fn correct(&mut self, charge: ChargeName, by: Correction) -> Option<Correct> {
        let at = self.cells.binary_search_by_key(&charge.grain, |cell| cell.grain).ok();
        let mut cell = at.map(|at| &mut self.cells[at]);
        let told_in = cell.as_ref().map_or_else(Default::default, |cell| cell.told_in);
        let mut back = Amount { requests: by.requests_back, tokens: by.tokens_before };
        let mut after = Amount { requests: 0, tokens: by.tokens_after };
        let mut untold_back = 0;
        if let Some(cell) = &mut cell {
            // Charges of one slot are not told apart: those of the share come off what is untold, as far as that goes.
            if charge.key == KeyId(0) && cell.untold != Amount::default() {
                let off = back.min(cell.untold);
                untold_back = off.requests;
                cell.untold = cell.untold.minus(off).plus(after);
                (back, after) = (back.minus(off), Amount::default());
            }
            cell.told = cell.told.minus(back).plus(after);
        }
        if self.day.end == charge.day_end {
            self.day.all = self.day.all.saturating_sub(by.requests_back);
            self.day.untold = self.day.untold.saturating_sub(untold_back);
        }
        if (back, after) == Default::default() || self.known == KeyId(0) {
            return None;
        }
        let slot = match told_in {
            // The contents that it was made in are still the ones that count.
            _ if charge.key == self.known => charge.slot,
            // It was told since.
            (key, slot) if key == self.known => slot,
            _ => return None,
        };
        Some(Correct {
            key: self.known,
            slot,
            day_end: charge.day_end,
            requests_back: back.requests,
            tokens_before: back.tokens,
            tokens_after: after.tokens,
        })
    }

    /// Returns what has to be told: everything to contents that are not the known ones, else what is untold. `slot_of` says
    /// in which slot of the server a time is, rather too late than too early.
    pub(super) fn tell(
        &mut self,
        now: Grain,
        begun: Instant,
        day: DayEnd,
        slot_of: impl Fn(Instant) -> Slot,
    ) -> Telling {
        self.expire(now);
        let slot_of = |grain: Grain| slot_of(grain.end(begun));
        let charge = |slot, amount: Amount| SlotCharge { slot, requests: amount.requests, tokens: amount.tokens };
        let (mut all, mut untold, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for cell in &self.cells {
            let slot = slot_of(cell.grain);
            if cell.told.plus(cell.untold) != Amount::default() {
                all.push(charge(slot, cell.told.plus(cell.untold)));
                cells.push((cell.grain, slot, cell.untold));
            }
            if cell.untold != Amount::default() {
                untold.push(charge(slot, cell.untold));
            }
        }
        let today = *self.day(day);
        let (day_all, day_untold) = if today.end == day { (today.all, today.untold) } else { (0, 0) };
        let known = self.known;
        let tell = Tell { known, all, untold, day_end: day, day_all, day_untold, ..Tell::default() };
        Telling { tell, cells }
    }

    /// Marks what was told as known by the contents that the server has now.
    pub(super) fn told(&mut self, telling: &Telling, key: KeyId) {
        let is_new = key != self.known;
        self.known = key;
        for (grain, slot, untold) in &telling.cells {
            let Ok(at) = self.cells.binary_search_by_key(grain, |cell| cell.grain) else { continue };
            let cell = &mut self.cells[at];
            // It may have been corrected meanwhile.
            let moved = untold.min(cell.untold);
            cell.untold = cell.untold.minus(moved);
            cell.told = cell.told.plus(moved);
            if is_new || *untold != Amount::default() {
                cell.told_in = (key, *slot);
            }
        }
        if self.day.end == telling.tell.day_end {
            self.day.untold = self.day.untold.saturating_sub(telling.tell.day_untold);
        }
    }

    /// Returns the sum of all charges that are kept.
    #[cfg(test)]
    fn sum(&self) -> Amount {
        self.cells.iter().fold(Amount::default(), |sum, cell| sum.plus(cell.told).plus(cell.untold))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: DayEnd = DayEnd(1_795_248_000);

    /// A server that counts by slot, and may lose everything.
    #[derive(Default)]
    struct ModelServer {
        key: u32,
        slots: std::collections::BTreeMap<u64, (u64, u64)>,
        today: u64,
    }

    impl ModelServer {
        fn tell(&mut self, tell: &Tell) -> KeyId {
            let same = KeyId(self.key) == tell.known && !tell.reset;
            let (charges, day) = if same { (&tell.untold, tell.day_untold) } else { (&tell.all, tell.day_all) };
            for charge in charges {
                let slot = self.slots.entry(charge.slot.0).or_default();
                *slot = (slot.0 + charge.requests, slot.1 + charge.tokens);
            }
            self.today += day;
            KeyId(self.key)
        }

        fn correct(&mut self, by: Correct) {
            if by.key != KeyId(self.key) {
                return;
            }
            if let Some(slot) = self.slots.get_mut(&by.slot.0) {
                slot.0 = slot.0.saturating_sub(by.requests_back);
                slot.1 = (slot.1 + by.tokens_after).saturating_sub(by.tokens_before);
                self.today = self.today.saturating_sub(by.requests_back);
            }
        }

        fn sum(&self) -> (u64, u64) {
            self.slots.values().fold((0, 0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1))
        }
    }

    #[derive(Clone, Debug)]
    enum LedgerStep {
        Wait(u64),
        Take(u64, u64),
        Share(u64, u64),
        Correct(usize, u64),
        Refund(usize),
        Tell,
        Lose,
    }

    fn steps() -> impl Strategy<Value = Vec<LedgerStep>> {
        use LedgerStep::*;
        let step = prop_oneof![
            4 => (0u64..3_000).prop_map(Wait),
            6 => (1u64..3, 0u64..60).prop_map(|(requests, tokens)| Take(requests, tokens)),
            4 => (1u64..3, 0u64..60).prop_map(|(requests, tokens)| Share(requests, tokens)),
            3 => (0usize..50, 0u64..80).prop_map(|(which, tokens)| Correct(which, tokens)),
            2 => (0usize..50).prop_map(Refund),
            2 => Just(Tell),
            1 => Just(Lose),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// The plain model is the list of all calls with what each counts in the end; nothing expires within the test.
        #[test]
        fn what_is_told_is_what_was_charged_whatever_is_lost_between(steps in steps()) {
            let begun = Instant::now();
            let slot_of = |time: Instant| Slot(3_590_000_000 + time.duration_since(begun).as_millis() as u64 / 500);
            let (mut server, mut ledger) = (ModelServer { key: 1, ..ModelServer::default() }, OwnLedger::default());
            let mut calls: Vec<(ChargeName, Amount, bool)> = Vec::new();
            let mut now = begun;
            for step in steps {
                let at = Grain::of(begun, now);
                match step {
                    // Not so long that anything expires in 60 steps.
                    LedgerStep::Wait(ms) => now += Duration::from_millis(ms / 4),
                    LedgerStep::Take(requests, tokens) => {
                        let amount = Amount { requests, tokens };
                        let known = ledger.known(at, Some(DAY));
                        if known != KeyId(0) && known != KeyId(server.key) {
                            let telling = ledger.tell(at, begun, DAY, slot_of);
                            let key = server.tell(&telling.tell);
                            ledger.told(&telling, key);
                        }
                        let slot = server.slots.entry(slot_of(now).0).or_default();
                        *slot = (slot.0 + requests, slot.1 + tokens);
                        server.today += requests;
                        ledger.knows(KeyId(server.key));
                        ledger.charge_told(at, DAY, amount);
                        let name = ChargeName { grain: at, key: KeyId(server.key), slot: slot_of(now), day_end: DAY };
                        calls.push((ChargeName::unpack(name.pack()), amount, false));
                    }
                    LedgerStep::Share(requests, tokens) => {
                        let amount = Amount { requests, tokens };
                        ledger.charge_untold(at, DAY, amount);
                        let name = ChargeName { grain: at, key: KeyId(0), slot: Slot(0), day_end: DAY };
                        calls.push((ChargeName::unpack(name.pack()), amount, false));
                    }
                    LedgerStep::Correct(which, tokens) if !calls.is_empty() => {
                        let len = calls.len();
                        let (name, amount, gone) = &mut calls[which % len];
                        if *gone { continue; }
                        if let Some(correct) = ledger.correct(*name, Correction::settle(amount.tokens, tokens)) {
                            server.correct(correct);
                        }
                        amount.tokens = tokens;
                    }
                    LedgerStep::Refund(which) if !calls.is_empty() => {
                        let len = calls.len();
                        let (name, amount, gone) = &mut calls[which % len];
                        if *gone { continue; }
                        if let Some(correct) = ledger.correct(*name, Correction::refund(amount.requests, amount.tokens)) {
                            server.correct(correct);
                        }
                        (*amount, *gone) = (Amount::default(), true);
                    }
                    LedgerStep::Correct(..) | LedgerStep::Refund(_) => {}
                    LedgerStep::Tell => {
                        let telling = ledger.tell(at, begun, DAY, slot_of);
                        let key = server.tell(&telling.tell);
                        ledger.told(&telling, key);
                        prop_assert!(!ledger.has_untold());
                    }
                    LedgerStep::Lose => server = ModelServer { key: server.key + 1, ..ModelServer::default() },
                }
                let all = calls.iter().fold(Amount::default(), |sum, (_, amount, _)| sum.plus(*amount));
                prop_assert_eq!(ledger.sum(), all);
                prop_assert_eq!(ledger.day.all, all.requests);
            }
            let telling = ledger.tell(Grain::of(begun, now), begun, DAY, slot_of);
            let key = server.tell(&telling.tell);
            ledger.told(&telling, key);
            let all = ledger.sum();
            prop_assert_eq!(server.sum(), (all.requests, all.tokens));
            prop_assert_eq!(server.today, all.requests);
        }

        #[test]
        fn memory_is_bounded_and_nothing_is_forgotten_that_counts(gaps in prop::collection::vec(0u64..900, 0..2_000)) {
            let begun = Instant::now();
            let mut ledger = OwnLedger::default();
            let mut now = begun;
            for gap in gaps {
                now += Duration::from_millis(gap);
                ledger.charge_untold(Grain::of(begun, now), DAY, Amount { requests: 1, tokens: 0 });
                prop_assert!(ledger.cells.len() <= 124);
                prop_assert!(ledger.cells.iter().all(|cell| cell.grain.end(begun) + Duration::from_secs(62) > now));
            }
            ledger.expire(Grain::of(begun, now + Duration::from_millis(60_750)));
            prop_assert_eq!(ledger.is_empty(), now == begun && ledger.sum() == Amount::default());
            ledger.expire(Grain::of(begun, now + Duration::from_secs(63)));
            prop_assert!(ledger.is_empty());
        }
    }

    #[test]
    fn contents_are_asked_for_only_while_the_server_keeps_them() {
        let mut ledger = OwnLedger::default();
        ledger.knows(KeyId(7));
        assert_eq!(ledger.known(Grain(5), None), KeyId(0));
        ledger.charge_told(Grain(5), DAY, Amount { requests: 1, tokens: 0 });
        assert_eq!(ledger.known(Grain(5 + 119), None), KeyId(7));
        assert_eq!(ledger.known(Grain(5 + 120), None), KeyId(0));
        // They stay to the day's end if that counts.
        assert_eq!(ledger.known(Grain(5 + 9_000), Some(DAY)), KeyId(7));
        assert_eq!(ledger.known(Grain(5 + 9_000), Some(DayEnd(DAY.0 + 86_400))), KeyId(0));
    }
}
