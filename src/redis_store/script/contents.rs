//! The contents of a key, read from outside.

use super::{Contents, DayEnd, KeyId, Slot, SlotCharge};

/// The length of the header.
const HEAD: usize = 112;

/// The number of slots in the ring.
const RING: u64 = 122;

/// The first bytes of each key's contents.
const MAGIC: u32 = u32::from_le_bytes(*b"TGq1");

impl Contents {
    /// Reads the string of a key; `None` if it is none of the script's, or if nobody has charged anything yet.
    pub(in super::super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, ring) = bytes.split_at_checked(HEAD)?;
        let int = |at| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let long = |at| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
        if int(0)? != MAGIC || int(4)? == 0 {
            return None;
        }
        let (current, oldest) = (long(8)?, long(16)?);
        let count = current.checked_sub(oldest).filter(|&count| count < RING)?;
        let mut charges = Vec::new();
        let mut charge = |slot, requests: u32, tokens: u32| {
            if (requests, tokens) != (0, 0) {
                charges.push(SlotCharge { slot: Slot(slot), requests: requests.into(), tokens: tokens.into() });
            }
        };
        for slot in (0..count).map(|nth| oldest + nth) {
            let at = usize::try_from(slot % RING).ok()? * 8;
            let &[r0, r1, r2, r3, t0, t1, t2, t3] = ring.get(at..)?.first_chunk()?;
            charge(slot, u32::from_le_bytes([r0, r1, r2, r3]), u32::from_le_bytes([t0, t1, t2, t3]));
        }
        charge(current, int(40)?, int(44)?);
        Some(Self { key: KeyId(int(4)?), charges, day_end: DayEnd(long(48)?), today: long(56)? })
    }

    /// Reads the closing of a key's string: the server's times of the look and of the end, in milliseconds since 1970; 0 where
    /// there is none. `None` if it is none of the script's.
    pub(in super::super) fn closing(bytes: &[u8]) -> Option<[u64; 2]> {
        if bytes.is_empty() {
            return Some([0; 2]);
        }
        let long = |at| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let is_ours = bytes.len() >= HEAD && bytes.starts_with(&MAGIC.to_le_bytes());
        if is_ours { Some([long(72)?, long(80)?]) } else { None }
    }
}
