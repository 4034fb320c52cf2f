//! The name of a charge, by which it is corrected or refunded.

use crate::rate_limit::{Amount, blocks::Looks, window::EntryNumber};

/// The amount that a call has taken, to be corrected or refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) struct Charge {
    /// The window's entry that holds the charge; `None` while the amount is only held.
    pub(super) entry: Option<EntryNumber>,
    pub(super) amount: Amount,
    pub(super) day: u32,
    /// The looks that the call makes for the others.
    pub(super) looks: Looks,
    /// True if it is held in spite of this limiter's own block, for a question to the store.
    pub(super) is_through: bool,
}

impl Charge {
    /// Returns whether the amount is charged, and not only held.
    pub(in crate::rate_limit) fn is_sent(&self) -> bool {
        self.entry.is_some()
    }

    /// Returns the amount, as far as it counts.
    pub(in crate::rate_limit) fn amount(&self) -> Amount {
        self.amount
    }

    /// Returns whether its call looks whether a block still holds.
    pub(in crate::rate_limit) fn is_look(&self) -> bool {
        !self.looks.is_empty()
    }

    /// Returns whether its call looks for all others, and not only for those that search the web or maps.
    pub(in crate::rate_limit) fn looks_for_all(&self) -> bool {
        self.looks.is_of_all()
    }

    /// Takes the looks out, because they have ended.
    pub(in crate::rate_limit) fn without_looks(self) -> Self {
        Self { looks: Looks::default(), ..self }
    }
}
