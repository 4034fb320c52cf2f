//! The script's argument and its replies.

use std::time::Duration;

use super::{Correct, DayEnd, KeyId, Slot, SlotCharge, Take, TakeReply, Tell, TellReply, Verdict};
use crate::quota::{Closing, Dimension};

/// The largest number that the script's numbers, which are floats of 64 bits, tell from the next one.
const LARGEST: u64 = 1 << 53;

/// The longest time of a closing, in milliseconds: 34 years, so that no sum exceeds [`LARGEST`].
const LONGEST_MS: u64 = 1 << 40;

/// The most requests of a day that are told, so that no sum of instances exceeds [`LARGEST`].
const MOST_OF_A_DAY: u64 = 1 << 48;

/// The operations, as the script numbers them.
#[derive(Clone, Copy)]
enum Operation {
    Take = 1,
    Correct = 2,
    Tell = 3,
    Close = 4,
    Open = 5,
}

/// An argument of the script's, packed from numbers in the order of their bytes from the least.
struct Argument(Vec<u8>);

impl Argument {
    /// Begins with what all operations have. A `deadline_ms` of [`LARGEST`] is none.
    fn new(operation: Operation, deadline_ms: u64, ids: [KeyId; 2], day_end: DayEnd, learn: Duration) -> Self {
        let [known, fresh] = ids.map(|id| id.0.into());
        Self(vec![operation as u8]).long(deadline_ms).int(known).int(fresh).long(day_end.0).int(millis(learn))
    }

    fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn int(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
        self
    }

    fn long(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.min(LARGEST).to_le_bytes());
        self
    }

    fn charges(self, charges: &[SlotCharge]) -> Self {
        charges.iter().fold(self, |argument, &SlotCharge { slot, requests, tokens }| {
            argument.long(slot.0).int(requests).int(tokens)
        })
    }
}

impl Take {
    /// Returns the script's argument. Amounts over `u32::MAX` are taken as that.
    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let ids = [self.known, self.fresh];
        let argument = Argument::new(Operation::Take, self.deadline_ms, ids, self.day_end, self.learn);
        let argument = argument.int(self.requests).int(self.tokens).int(self.wish_requests).int(self.wish_tokens);
        self.limits.iter().fold(argument, |argument, limit| argument.long(limit.unwrap_or(LARGEST))).0
    }
}

impl Correct {
    /// Returns the script's argument.
    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let ids = [self.key, KeyId(0)];
        let argument = Argument::new(Operation::Correct, LARGEST, ids, self.day_end, Duration::ZERO);
        argument.long(self.slot.0).int(self.requests_back).int(self.tokens_before).int(self.tokens_after).0
    }
}

impl Tell {
    /// Returns the script's argument.
    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let ids = [self.known, self.fresh];
        let argument = Argument::new(Operation::Tell, self.deadline_ms, ids, self.day_end, self.learn);
        let [all, untold] = [self.day_all, self.day_untold].map(|requests| requests.min(MOST_OF_A_DAY));
        let argument = argument.byte(self.reset.into()).long(all).long(untold);
        let argument = argument.int(self.all.len() as u64).int(self.untold.len() as u64);
        argument.charges(&self.all).charges(&self.untold).0
    }
}

/// Returns the script's argument for a closing. Where the scope is closed already, the later times are kept.
pub(in super::super) fn encode_close(closing: Closing) -> Vec<u8> {
    let argument = Argument::new(Operation::Close, LARGEST, Default::default(), DayEnd(0), Duration::ZERO);
    let [look, ends] = [closing.look, closing.ends.max(closing.look)].map(|time| millis(time).min(LONGEST_MS));
    argument.long(look).long(ends).0
}

/// Returns the script's argument for the end of a closing.
pub(in super::super) fn encode_open() -> Vec<u8> {
    Argument::new(Operation::Open, LARGEST, Default::default(), DayEnd(0), Duration::ZERO).0
}

impl TakeReply {
    /// Reads the script's reply; `None` if it is another script's.
    pub(in super::super) fn decode(reply: &[i64]) -> Option<Self> {
        let (&[code, now, id], rest) = reply.split_first_chunk()?;
        let (used, verdict) = match (code, rest) {
            (4, []) => ([0; 3], Verdict::Lost),
            (5, []) => ([0; 3], Verdict::Late),
            (_, &[requests, tokens, today, ref rest @ ..]) => {
                let verdict = match (code, rest) {
                    (0, &[slot, requests, tokens, looks]) => Verdict::Granted {
                        slot: Slot(number(slot)?),
                        lease_requests: number(requests)?,
                        lease_tokens: number(tokens)?,
                        is_look: looks == 1,
                    },
                    (1, &[dimension, wait]) => Verdict::Full { dimension: of_code(dimension)?, wait: time(wait)? },
                    (2, &[look, ends]) => Verdict::Closed { look: time(look)?, ends: time(ends)? },
                    (3, &[wait]) => Verdict::Learning { wait: time(wait)? },
                    _ => return None,
                };
                ([number(requests)?, number(tokens)?, number(today)?], verdict)
            }
            _ => return None,
        };
        Some(Self { now_ms: number(now)?, key: key_id(id)?, used, verdict })
    }
}

impl TellReply {
    /// Reads the script's reply; `None` if it is another script's.
    pub(in super::super) fn decode(reply: &[i64]) -> Option<Self> {
        let &[code @ (0 | 5), now, id] = reply else { return None };
        Some(Self { now_ms: number(now)?, key: key_id(id)?, is_told: code == 0 })
    }
}

fn of_code(code: i64) -> Option<Dimension> {
    match code {
        0 => Some(Dimension::RequestsPerMinute),
        1 => Some(Dimension::InputTokensPerMinute),
        2 => Some(Dimension::RequestsPerDay),
        _ => None,
    }
}

fn number(value: i64) -> Option<u64> {
    u64::try_from(value).ok()
}

fn key_id(value: i64) -> Option<KeyId> {
    u32::try_from(value).ok().map(KeyId)
}

fn time(ms: i64) -> Option<Duration> {
    number(ms).map(Duration::from_millis)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
