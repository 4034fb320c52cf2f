//! What a call has been charged, until its answer says the real cost.

use std::sync::Arc;

use super::{
    account::CallerCost,
    accounts::CallerCharge,
    limits::{CallerEntry, CallerSettings},
};
use crate::{
    call::ServiceTier,
    context::{Usage, UsageReport},
    failure::Fault,
};

/// What one call has been charged. Dropped, it stays so: a call that was begun may have been sent.
#[derive(Debug)]
pub(super) struct CallerReservation {
    entry: Arc<CallerEntry>,
    charge: CallerCharge,
    bill: Bill,
}

/// The things by which the money of a call is counted.
#[derive(Debug)]
pub(super) struct Bill {
    pub(super) settings: Arc<CallerSettings>,
    pub(super) model: Option<Arc<str>>,
    pub(super) tier: ServiceTier,
    /// Set if the answer is a stream of text, of which the bytes tell something.
    pub(super) is_text: bool,
}

impl CallerReservation {
    pub(super) fn new(entry: Arc<CallerEntry>, charge: CallerCharge, bill: Bill) -> Self {
        Self { entry, charge, bill }
    }

    /// Gives back what a call was charged that has failed: all of it, but for one request where its caller is to blame, so
    /// that nobody sends nonsense for nothing.
    pub(super) fn give_back(self, fault: Fault) {
        let requests = match fault {
            Fault::Caller => self.charge.cost().requests.min(1),
            _ => 0,
        };
        self.entry.settle(self.charge, CallerCost { requests, ..CallerCost::default() });
    }

    /// Keeps the charge until the answer's usage says the real cost.
    pub(super) fn settle_by(self, usage: Usage) -> CallerSettlement {
        CallerSettlement { reservation: self, usage, bytes: 0 }
    }
}

impl Bill {
    /// Returns the cost before the call, which has only its input.
    pub(super) fn before(&self, requests: u64, input: u64) -> CallerCost {
        let model = self.model.as_deref().unwrap_or_default();
        let money = self.settings.prices.cost(model, self.tier, input, 0, 0);
        CallerCost { requests, input, output: 0, money }
    }

    /// Returns the cost that an answer says, as far as it says it. `None`: it says nothing.
    fn after(&self, before: CallerCost, report: &UsageReport, bytes: u64) -> Option<CallerCost> {
        let guessed = Some(bytes / BYTES_PER_TOKEN).filter(|tokens| self.is_text && *tokens > 0);
        if !has_counts(report) && guessed.is_none() {
            return None;
        }
        let prices = &self.settings.prices;
        let input = report.input_tokens().unwrap_or(before.input);
        let output = report.output_tokens().or(guessed).unwrap_or(0);
        let cached = report.cached_tokens.unwrap_or(0);
        // The upstream charges for the model that has answered, where the list knows it, and for the tier that has served.
        let answered = report.model_version.as_deref().filter(|model| prices.price(model).is_some());
        let model = answered.or(self.model.as_deref()).unwrap_or_default();
        let money = prices.cost(model, report.served_tier().unwrap_or(self.tier), input, cached, output);
        Some(CallerCost { requests: before.requests, input, output, money })
    }
}

/// Returns whether the upstream has counted anything.
pub(super) fn has_counts(report: &UsageReport) -> bool {
    report.input_tokens().is_some() || report.output_tokens().is_some()
}

/// The bytes of a stream for each token of its output, where it does not say them: as for requests.
const BYTES_PER_TOKEN: u64 = 3;

/// The guard of a response's body that corrects the charge to the real cost when the body ends or is dropped.
#[derive(Debug)]
pub(super) struct CallerSettlement {
    reservation: CallerReservation,
    usage: Usage,
    /// The bytes that have passed.
    bytes: u64,
}

impl CallerSettlement {
    /// Counts bytes of the answer.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

impl Drop for CallerSettlement {
    fn drop(&mut self) {
        let CallerReservation { entry, charge, bill } = &self.reservation;
        if let Some(cost) = self.usage.read(|report| bill.after(charge.cost(), report, self.bytes)) {
            entry.settle(*charge, cost);
        }
    }
}
