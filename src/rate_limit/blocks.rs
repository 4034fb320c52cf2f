//! The blocks of one scope by the upstream's refusals: of all its calls, and of those that search the web or maps, which
//! have a quota of their own. Pure: the caller passes the time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    block::{Block, BlockMemory, Claim, Look, Passage},
    clock::TimeAnchor,
    failure::Kind,
};

/// The blocks of one scope.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    all: Option<Block>,
    grounded: Option<Block>,
    /// True while a call is let past the block of all calls, to ask others whether it still holds.
    pub(super) yields: bool,
}

/// The blocks of one scope in a form that outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct BlocksMemory {
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<BlockMemory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grounded: Option<BlockMemory>,
}

impl BlocksMemory {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A block of a scope at a moment: the belief in a refusal of the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockReport {
    /// The kind of the refusal.
    pub kind: Kind,
    /// True if only calls that search the web or maps are blocked.
    pub grounded: bool,
    /// The time until the block ends by itself.
    pub ends: Duration,
    /// The time until one call may look whether the refusal still holds; its success ends the block.
    pub look: Duration,
}

/// The looks that one call makes, one at each block that it passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looks {
    all: Option<Look>,
    grounded: Option<Look>,
}

/// A block that no call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shut {
    /// The time of the next look.
    pub(super) look_at: Instant,
    /// The time at which the block ends by itself.
    pub(super) ends: Instant,
    /// True if only calls that search the web or maps are blocked.
    pub(super) grounded: bool,
}

impl Looks {
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Returns whether one is at the block of all calls.
    pub(super) fn is_of_all(self) -> bool {
        self.all.is_some()
    }
}

impl Blocks {
    /// Takes note of a refusal, of all calls or of grounded ones only.
    pub(super) fn refused(&mut self, claim: Claim, grounded: bool, now: Instant, midnight: Instant) {
        let block = if grounded { &mut self.grounded } else { &mut self.all };
        match block {
            Some(block) => block.refused(claim, now, midnight),
            None => *block = Some(Block::new(claim, now, midnight)),
        }
    }

    /// Decides on a call: the strictest block that applies to it counts.
    pub(super) fn passage(&self, now: Instant, grounded: bool) -> Passage {
        self.of(grounded).fold(Passage::Free, |passage, block| passage.and(block.passage(now)))
    }

    /// Returns the time until which a call cannot hope to pass, if there is one.
    pub(super) fn closed_until(&self, now: Instant, grounded: bool) -> Option<Instant> {
        self.of(grounded).filter_map(|block| block.closed_until(now)).max()
    }

    /// Returns the time until which all calls are blocked, as far as that is shown: a long block lasts while one call looks
    /// at it, too.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        let block = self.all.as_ref()?;
        let lasts = block.is_long() && now < block.ends();
        if lasts { Some(block.ends()) } else { block.closed_until(now) }
    }

    /// Returns the block that no call waits for: a long one, or one of grounded calls, which must not stand before plain
    /// ones in a queue.
    pub(super) fn shut(&self, now: Instant, grounded: bool) -> Option<Shut> {
        let shut = |block: &Option<Block>, always: bool, grounded| {
            let block = block.as_ref().filter(|block| always || block.is_long())?;
            match block.passage(now) {
                Passage::Closed(look_at) => Some(Shut { look_at, ends: block.ends(), grounded }),
                Passage::Free | Passage::Look => None,
            }
        };
        let all = shut(&self.all, false, false);
        all.or_else(|| shut(&self.grounded, true, true).filter(|_| grounded))
    }

    /// Begins a look at each block that lets the call pass.
    pub(super) fn begin_looks(&mut self, now: Instant, grounded: bool) -> Looks {
        let look = |block: &mut Option<Block>| {
            // Every call looks at a block that has ended and is remembered: a success ends that, too.
            let block = block.as_mut().filter(|block| !matches!(block.passage(now), Passage::Closed(_)));
            block.map(|block| block.begin_look(now))
        };
        let all = look(&mut self.all);
        Looks { all, grounded: if grounded { look(&mut self.grounded) } else { None } }
    }

    /// Ends looks that have shown nothing.
    pub(super) fn end_looks(&mut self, looks: Looks) {
        for (block, look) in [(&mut self.all, looks.all), (&mut self.grounded, looks.grounded)] {
            if let (Some(block), Some(look)) = (block, look) {
                block.end_look(look);
            }
        }
    }

    /// Ends the blocks whose look has succeeded. Returns whether there was one.
    pub(super) fn succeeded(&mut self, looks: Looks, now: Instant) -> bool {
        let mut any = false;
        for (block, look) in [(&mut self.all, looks.all), (&mut self.grounded, looks.grounded)] {
            if let Some(look) = look
                && block.as_ref().is_some_and(|block| block.ends_with(look, now))
            {
                *block = None;
                any = true;
            }
        }
        any
    }

    /// Ends the block of all calls, because others have seen it end.
    pub(super) fn opened(&mut self, now: Instant) {
        self.all = self.all.take().filter(|block| now >= block.ends());
    }

    /// Adds a look at the block of all calls, which others have found due.
    pub(super) fn look_at_all(&mut self, looks: Looks, now: Instant) -> Looks {
        Looks { all: self.all.as_mut().map(|block| block.begin_look(now)).or(looks.all), ..looks }
    }

    /// Returns whether the block of all calls lets none pass now.
    pub(super) fn closes_all(&self, now: Instant) -> bool {
        self.all.as_ref().is_some_and(|block| matches!(block.passage(now), Passage::Closed(_)))
    }

    /// Returns the times until the block of all calls ends by itself, and until one call may look.
    pub(super) fn left(&self, now: Instant) -> Option<(Duration, Duration)> {
        self.all.as_ref()?.left(now)
    }

    /// Forgets the blocks that have ended, as far as they are not remembered. Returns whether none is left.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        for block in [&mut self.all, &mut self.grounded] {
            *block = block.take().filter(|block| now < block.forgotten_at());
        }
        self.all.is_none() && self.grounded.is_none()
    }

    /// Returns the blocks in the form that is kept.
    pub(super) fn memory(&self, anchor: TimeAnchor, now: Instant) -> BlocksMemory {
        let memory = |block: &Option<Block>| block.as_ref()?.memory(anchor, now);
        BlocksMemory { all: memory(&self.all), grounded: memory(&self.grounded) }
    }

    /// Takes up the blocks of another process. `None`: there is none that is still believed.
    pub(super) fn restored(memory: &BlocksMemory, anchor: TimeAnchor, now: Instant) -> Option<Self> {
        let block = |memory: &Option<BlockMemory>| Block::restored(memory.as_ref()?, anchor, now);
        let blocks = Self { all: block(&memory.all), grounded: block(&memory.grounded), yields: false };
        (blocks.all.is_some() || blocks.grounded.is_some()).then_some(blocks)
    }

    /// Returns the blocks that have not ended.
    pub(super) fn report(&self, now: Instant) -> Vec<BlockReport> {
        let blocks = [(&self.all, false), (&self.grounded, true)];
        let report = |(block, grounded): (&Option<Block>, bool)| {
            let block = block.as_ref()?;
            let (ends, look) = block.left(now)?;
            Some(BlockReport { kind: block.kind(), grounded, ends, look })
        };
        blocks.into_iter().filter_map(report).collect()
    }

    /// Returns whether all calls are blocked.
    pub(super) fn blocks_all(&self, now: Instant) -> bool {
        self.all.as_ref().is_some_and(|block| now < block.ends())
    }

    fn of(&self, grounded: bool) -> impl Iterator<Item = &Block> {
        let all = self.all.iter().filter(|_| !self.yields);
        all.chain(self.grounded.iter().filter(move |_| grounded))
    }
}
