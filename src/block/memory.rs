//! A block in a form that outlives the process.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Block, LONGEST, LONGEST_LOOK, LONGEST_UNNAMED, RARE};
use crate::{clock::TimeAnchor, failure::Kind};

/// A block with its times in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockMemory {
    kind: Box<str>,
    ends: u64,
    look: u64,
    step_ms: u64,
    #[serde(default)]
    long: bool,
    #[serde(default)]
    unsaid: bool,
}

impl Block {
    /// Returns the block in the form that is kept. `None`: nobody remembers it any more.
    pub(crate) fn memory(&self, anchor: TimeAnchor, now: Instant) -> Option<BlockMemory> {
        (now < self.forgotten_at()).then(|| BlockMemory {
            kind: self.kind.as_str().into(),
            ends: anchor.seconds_at(self.ends),
            look: anchor.seconds_at(self.look_at),
            step_ms: u64::try_from(self.step.as_millis()).unwrap_or(u64::MAX),
            long: self.is_long,
            unsaid: self.is_unsaid,
        })
    }

    /// Takes up a block of another process: for no longer than a refusal of this moment would be believed, whatever was
    /// kept. A look that was under way has ended with that process. `None`: it is over, or of no kind that is believed.
    pub(crate) fn restored(memory: &BlockMemory, anchor: TimeAnchor, now: Instant) -> Option<Self> {
        let kind = *Kind::ALL.iter().find(|kind| kind.as_str() == &*memory.kind && is_believed(**kind))?;
        let longest = if memory.unsaid { LONGEST_UNNAMED + LONGEST_LOOK } else { LONGEST };
        let ends = anchor.time_of(memory.ends).min(now + longest);
        let block = Self {
            kind,
            ends,
            look_at: anchor.time_of(memory.look).min(now + RARE).min(ends),
            step: Duration::from_millis(memory.step_ms).min(RARE),
            is_long: memory.long,
            is_unsaid: memory.unsaid,
            look: None,
            looks: fastrand::u32(..),
        };
        (now < block.forgotten_at()).then_some(block)
    }
}

#[cfg(feature = "redis")]
impl Block {
    /// Returns whether it is believed as the other is. Looks that are under way make no difference.
    pub(crate) fn is_same_belief(&self, other: &Self) -> bool {
        let plain = |block: &Self| Self { look: None, looks: 0, ..*block };
        plain(self) == plain(other)
    }

    /// Puts the next look off: whoever was refused looks first, and its result is known by then.
    #[must_use]
    pub(crate) fn look_later(self, by: Duration, now: Instant) -> Self {
        Self { look_at: (self.look_at.max(now) + by).min(self.ends.max(self.look_at)), ..self }
    }

    /// Returns the time that the last refusal has added until the look.
    pub(crate) fn step(&self) -> Duration {
        self.step
    }
}

/// Returns whether refusals of that kind make blocks.
fn is_believed(kind: Kind) -> bool {
    let names_no_day = kind.is_minutes() || kind == Kind::QuotaUnknown;
    let lasts = matches!(kind, Kind::QuotaDay | Kind::QuotaZero | Kind::QuotaGrounding | Kind::QuotaSpend)
        || matches!(kind, Kind::ModelClosed | Kind::BillingRequired | Kind::AccountLimited);
    names_no_day || lasts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::Claim;

    fn claims() -> impl Strategy<Value = Claim> {
        let secs = (0u64..100_000).prop_map(Duration::from_secs);
        (secs, 0..3).prop_map(|(hint, which)| match which {
            0 => Claim::day(),
            1 => Claim::day().confirmed(),
            _ => {
                Claim::short(Some(hint).filter(|hint| hint.as_secs() % 2 == 0), super::super::UNNAMED, LONGEST_UNNAMED)
            }
        })
    }

    proptest! {
        #[test]
        fn a_restored_block_decides_as_the_old_one_would_have(
            refusals in prop::collection::vec((claims(), 0u64..4_000), 1..6),
            more in prop::collection::vec((claims(), 0u64..4_000), 0..4),
            down in 0u64..2_000,
        ) {
            let (began, elsewhere) = (Instant::now(), Instant::now() + Duration::from_secs(1 << 20));
            let midnight = began + Duration::from_secs(50_000);
            let mut at = 0;
            let mut block = Block::new(Claim::day(), began, midnight);
            for (claim, after) in refusals {
                at += after;
                block.refused(claim, began + Duration::from_secs(at), midnight);
            }
            let now = began + Duration::from_secs(at);
            let kept = block.memory(TimeAnchor::new(5_000, now), now);
            // The clock of the next process says something else.
            at += down;
            let (then, shift) = (elsewhere + Duration::from_secs(at), elsewhere - began);
            let restored = kept.and_then(|kept| Block::restored(&kept, TimeAnchor::new(5_000 + down, then), then));
            let Some(mut restored) = restored else {
                prop_assert!(then - shift >= block.forgotten_at());
                return Ok(());
            };
            let same = |block: &Block, restored: &Block, at: Instant| {
                (block.left(at), block.kind(), block.is_long(), block.is_unsaid())
                    == (restored.left(at + shift), restored.kind(), restored.is_long(), restored.is_unsaid())
                    && block.closed_until(at).map(|at| at + shift) == restored.closed_until(at + shift)
            };
            for second in [0, 1, 14, 15, 60, 600, 3_600, 40_000, 90_001] {
                let later = then - shift + Duration::from_secs(second);
                prop_assert!(same(&block, &restored, later), "{block:?} {restored:?} {second}");
            }
            // And goes on alike.
            for (claim, after) in more {
                at += after;
                let now = began + Duration::from_secs(at);
                block.refused(claim, now, midnight);
                restored.refused(claim, now + shift, midnight + shift);
                prop_assert!(same(&block, &restored, now), "{block:?} {restored:?}");
            }
        }

        #[test]
        fn whatever_was_kept_a_block_is_believed_no_longer_than_a_refusal_of_now(
            kind in 0..Kind::ALL.len(), ends: u64, look: u64, step_ms: u64, long: bool, unsaid: bool, near in 0u64..200_000,
        ) {
            let now = Instant::now() + Duration::from_secs(1 << 20);
            let anchor = TimeAnchor::new(100_000, now);
            for ends in [ends, near] {
                let kept = BlockMemory { kind: Kind::ALL[kind].as_str().into(), ends, look, step_ms, long, unsaid };
                let Some(block) = Block::restored(&kept, anchor, now) else { continue };
                prop_assert!(block.ends <= now + LONGEST && block.look_at <= now + RARE && block.step <= RARE);
                prop_assert!(block.look_at <= block.ends && is_believed(block.kind));
                prop_assert!(block.forgotten_at() > now);
                prop_assert!(!block.is_unsaid || block.ends <= now + LONGEST_UNNAMED + LONGEST_LOOK);
            }
        }
    }

    #[test]
    fn a_kind_that_nobody_knows_is_no_block() {
        let now = Instant::now();
        let kept = |kind: &str| BlockMemory {
            kind: kind.into(),
            ends: 1_100,
            look: 1_050,
            step_ms: 1_000,
            long: true,
            unsaid: false,
        };
        let is_block = |kind| Block::restored(&kept(kind), TimeAnchor::new(1_000, now), now).is_some();
        assert!(is_block("quota_day"));
        for kind in ["quota_of_tomorrow", "", "key_leaked", "overloaded"] {
            assert!(!is_block(kind), "{kind}");
        }
    }
}
