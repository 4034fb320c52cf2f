//! The script that decides on the server, and its questions and replies.
//!
//! One script has all operations, so that one hash names it. It touches one key, which is a string: see [`Contents`]. Its one
//! argument is what `encode` of an operation returns, and its reply an array of integers.

mod contents;
mod wire;

#[cfg(test)]
pub(super) mod tests;

use std::time::Duration;

use crate::quota::Dimension;

/// The text of the script.
pub(super) const SCRIPT: &str = include_str!("script.lua");

/// The length of a slot, by which charges are counted.
pub(super) const SLOT: Duration = Duration::from_millis(500);

/// The identity of a key's contents, which is chosen anew each time that the key is made. 0: none is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyId(pub(super) u32);

/// The number of a slot: half seconds of the server's clock since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u64);

/// The end of a day, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DayEnd(pub(super) u64);

/// A question: take this amount under these limits, or nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Take {
    /// The contents that the asker has charges of the last minute in; 0 where it has none.
    pub(super) known: KeyId,
    /// The id for the contents if they are made by this question: random, and not 0.
    pub(super) fresh: KeyId,
    /// The server's time, in milliseconds since 1970, from which it is too late: nothing is charged then.
    pub(super) deadline_ms: u64,
    pub(super) requests: u64,
    pub(super) tokens: u64,
    /// The amount that is taken besides, as far as it fits: a lease.
    pub(super) wish_requests: u64,
    pub(super) wish_tokens: u64,
    /// The limits, in the order requests a minute, input tokens a minute, requests a day.
    pub(super) limits: [Option<u64>; 3],
    pub(super) day_end: DayEnd,
    /// The time for which contents that this question makes only learn, where others may have charges that are lost.
    pub(super) learn: Duration,
}

/// The reply to a [`Take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TakeReply {
    /// The server's time in milliseconds since 1970.
    pub(super) now_ms: u64,
    /// The contents that are there now.
    pub(super) key: KeyId,
    /// The requests, the tokens and the day's requests that count now, with what was taken.
    pub(super) used: [u64; 3],
    pub(super) verdict: Verdict,
}

/// The decision on a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is charged in this slot, and of the wish that much. A look has no lease.
    Granted { slot: Slot, lease_requests: u64, lease_tokens: u64, is_look: bool },
    /// It does not fit; it will after that time, if nothing else is charged.
    Full { dimension: Dimension, wait: Duration },
    /// The upstream has closed the scope.
    Closed { look: Duration, ends: Duration },
    /// The contents are new, and learn for that time what was charged before.
    Learning { wait: Duration },
    /// The contents are not those that the asker knows: it has to tell its charges first. (Also where there are none.)
    Lost,
    /// The question came too late.
    Late,
}

/// The charges of an instance that the contents may not know.
///
/// The reply may get lost after the telling was done; told again, it counts twice, which errs to the safe side. So it pays to wait
/// for this reply for longer than for others: until after the deadline.
#[derive(Clone, Debug, Default)]
pub(super) struct Tell {
    /// The server's time, in milliseconds since 1970, from which it is too late: nothing is told then. A server that was stopped
    /// would carry out all that has piled up meanwhile.
    pub(super) deadline_ms: u64,
    /// The contents that the asker knows.
    pub(super) known: KeyId,
    /// The id for contents that are made anew by this.
    pub(super) fresh: KeyId,
    /// True if contents that are still the known ones are not to be trusted (another server answers): they are made anew.
    pub(super) reset: bool,
    /// All charges of the last minute: told where the contents are not the known ones.
    pub(super) all: Vec<SlotCharge>,
    /// Those that the known contents do not have: told where they are still there.
    pub(super) untold: Vec<SlotCharge>,
    pub(super) day_end: DayEnd,
    /// The requests of the day, in the same two sorts.
    pub(super) day_all: u64,
    pub(super) day_untold: u64,
    /// The time for which contents that are made by this only learn; also where nobody has asked for anything in the last second,
    /// because then all were away.
    pub(super) learn: Duration,
}

/// The charges of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotCharge {
    pub(super) slot: Slot,
    pub(super) requests: u64,
    pub(super) tokens: u64,
}

/// The reply to a [`Tell`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TellReply {
    pub(super) now_ms: u64,
    pub(super) key: KeyId,
    /// True if the contents have what was told; false if it came too late.
    pub(super) is_told: bool,
}

/// A correction of a charge; ignored where its contents, slot or day is gone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Correct {
    pub(super) key: KeyId,
    pub(super) slot: Slot,
    pub(super) day_end: DayEnd,
    pub(super) requests_back: u64,
    pub(super) tokens_before: u64,
    pub(super) tokens_after: u64,
}

/// The contents of a key, as the script keeps them: those of the last question, so that some of the charges may be over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) key: KeyId,
    /// The charges that count, the oldest first.
    pub(super) charges: Vec<SlotCharge>,
    pub(super) day_end: DayEnd,
    pub(super) today: u64,
}

pub(super) use self::wire::{encode_close, encode_open};
