//! The charge of a call, until its answer says the real cost.

use std::sync::Arc;

use super::{
    account::CallerCost,
    accounts::CallerCharge,
    limits::{CallerEntry, CallerSettings},
    scopes::{CallerScopes, CallerStoreCharge},
};
use crate::{
    call::{Operation, ServiceTier, Shape, Streaming},
    context::{CallFlag, Usage, UsageReport},
    failure::Fault,
};

/// The charge of one call. Dropped, it stays, because a call that was begun may have been sent; or it is given back where
/// somebody inside would have told.
#[derive(Debug)]
pub(super) struct CallerReservation {
    entry: Arc<CallerEntry>,
    charge: CallerCharge,
    bill: Bill,
    /// The charges in the store: of the caller, and of the caller for the model. Boxed: without a store, nothing is slower
    /// for it.
    shared: [Option<Box<CallerStoreCharge>>; 2],
    unsettled: Unsettled,
}

/// The fate of a charge that is dropped before it is settled.
#[derive(Debug)]
enum Unsettled {
    /// It stays.
    Stays,
    /// It stays if that flag is set by then: the call was sent.
    StaysIf(CallFlag),
    /// It is given back.
    GivenBack,
}

/// The things by which the money of a call is counted.
#[derive(Debug)]
pub(super) struct Bill {
    pub(super) settings: Arc<CallerSettings>,
    pub(super) model: Option<Arc<str>>,
    pub(super) tier: ServiceTier,
    pub(super) guess: OutputGuess,
}

/// The answers whose bytes tell something of an output that they do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputGuess {
    /// Not this one: vectors are no output, and what others generate is not known.
    Never,
    /// One in one piece that was not read to its end: there it says its tokens.
    Unread,
    /// A stream, also one that has ended.
    Stream,
}

impl OutputGuess {
    /// Returns the guess for a call of that shape.
    pub(super) fn of(shape: Shape) -> Self {
        match (shape.operation, shape.streaming) {
            (Operation::GenerateContent | Operation::CreateInteraction, Streaming::No) => Self::Unread,
            (Operation::GenerateContent | Operation::CreateInteraction, _) => Self::Stream,
            _ => Self::Never,
        }
    }
}

impl CallerReservation {
    pub(super) fn new(entry: Arc<CallerEntry>, charge: CallerCharge, bill: Bill) -> Self {
        Self { entry, charge, bill, shared: [None, None], unsettled: Unsettled::Stays }
    }

    /// Keeps the charge of a call that is dropped only if that flag is set by then.
    pub(super) fn lasts_if_sent(&mut self, sent: CallFlag) {
        self.unsettled = Unsettled::StaysIf(sent);
    }

    /// Holds the charge of a call that the store is asked for: it is given back unless the call goes, and so is [kept](Self::kept).
    pub(super) fn held(mut self) -> Self {
        self.unsettled = Unsettled::GivenBack;
        self
    }

    /// Takes charge of what the store has granted.
    pub(super) fn charged(&mut self, at: usize, charge: CallerStoreCharge) {
        self.shared[at] = Some(Box::new(charge));
    }

    pub(super) fn scopes(&self) -> &CallerScopes {
        self.entry.scopes()
    }

    pub(super) fn caller(&self) -> &Arc<str> {
        self.entry.caller()
    }

    /// Corrects the charge to the real cost, here and in the store.
    fn settle(&self, cost: CallerCost) {
        self.entry.settle(self.charge, cost);
        if let Some(store) = &self.bill.settings.store {
            for charge in self.shared.iter().flatten() {
                charge.settle(&**store, self.scopes(), cost);
            }
        }
    }

    /// Keeps the charge from now on: the call goes, or it has an answer, or an error, by which it will be settled.
    pub(super) fn kept(mut self) -> Self {
        self.keep();
        self
    }

    /// Keeps the charge as [`kept`](Self::kept) does, and leaves the reservation in its place.
    pub(super) fn keep(&mut self) {
        self.unsettled = Unsettled::Stays;
    }

    /// Gives back what a call was charged that has failed: all of it, but for one request where its caller is to blame, so
    /// that nobody sends nonsense for nothing.
    pub(super) fn give_back(self, fault: Fault) {
        let requests = match fault {
            Fault::Caller => self.charge.cost().requests.min(1),
            _ => 0,
        };
        self.kept().settle(CallerCost { requests, ..CallerCost::default() });
    }

    /// Keeps the charge until the answer's usage says the real cost.
    pub(super) fn settle_by(self, usage: Usage) -> CallerSettlement {
        CallerSettlement { reservation: self, usage, bytes: 0, generated: 0, has_ended: false }
    }
}

impl Drop for CallerReservation {
    fn drop(&mut self) {
        let stays = match &self.unsettled {
            Unsettled::Stays => true,
            Unsettled::StaysIf(sent) => sent.is_set(),
            Unsettled::GivenBack => false,
        };
        if !stays {
            self.settle(CallerCost::default());
        }
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
    fn after(&self, before: CallerCost, report: &UsageReport, bytes: u64, has_ended: bool) -> Option<CallerCost> {
        let may_guess = match self.guess {
            OutputGuess::Never => false,
            OutputGuess::Unread => !has_ended,
            OutputGuess::Stream => true,
        };
        let guessed = (bytes / BYTES_PER_TOKEN).min(MOST_GUESSED);
        let guessed = Some(guessed).filter(|tokens| may_guess && *tokens > 0);
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

/// The bytes of an answer for each token of its output, where it does not say them: as for requests.
const BYTES_PER_TOKEN: u64 = 3;

/// The most output tokens that bytes are taken for: an image in an answer has megabytes and few tokens, and no model's
/// limit of output is higher.
const MOST_GUESSED: u64 = 65_536;

/// The guard of a response's body that corrects the charge to the real cost when the body ends or is dropped.
#[derive(Debug)]
pub(super) struct CallerSettlement {
    reservation: CallerReservation,
    usage: Usage,
    /// The bytes that have passed.
    bytes: u64,
    /// The bytes that are known to have been generated, passed or not.
    generated: u64,
    /// Set once the body was read to its end.
    has_ended: bool,
}

impl CallerSettlement {
    /// Takes the length of the body, as far as it is known. What comes in one piece was generated before its first byte
    /// came.
    pub(super) fn begins(&mut self, length: u64) {
        self.generated = if self.reservation.bill.guess == OutputGuess::Unread { length } else { 0 };
    }

    /// Counts bytes of the answer.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Settles the charge of an answer that was read to its end.
    pub(super) fn ends(mut self) {
        self.has_ended = true;
    }
}

impl Drop for CallerSettlement {
    fn drop(&mut self) {
        let CallerReservation { charge, bill, .. } = &self.reservation;
        let bytes = self.bytes.max(self.generated);
        if let Some(cost) = self.usage.read(|report| bill.after(charge.cost(), report, bytes, self.has_ended)) {
            self.reservation.settle(cost);
        }
    }
}
