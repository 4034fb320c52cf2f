//! The blocks of a project by the upstream's refusals: of a model, of its grounded calls, of a model that the project may
//! not have, and of all that costs money. Pure: the caller passes the time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{KeyModelReport, KeySpendingReport, KeyState, Part};
use crate::{
    block::{Block, BlockMemory, Claim, Look, Passage},
    bounded::{MAX_NAME, make_room},
    call::{Idempotency, Shape},
    clock::TimeAnchor,
    failure::Kind,
};

/// The most models of a project that are remembered to be blocked, of each kind. Only refusals add to them.
pub(super) const MAX_MODELS: usize = 1_024;

/// The needs of a call that a block may deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs<'a> {
    pub(super) model: &'a str,
    /// True if the call counts against a model's quota.
    pub(super) pays: bool,
    /// True if it searches the web or maps.
    pub(super) grounded: bool,
    /// True if it may cost money: it pays, or it makes something.
    pub(super) spends: bool,
}

impl<'a> Needs<'a> {
    pub(super) fn of(shape: Shape, model: &'a str) -> Self {
        let pays = shape.pays_quota();
        Self { model, pays, grounded: shape.grounded, spends: pays || shape.idempotency != Idempotency::Safe }
    }

    /// Returns whether a block of that part concerns the call.
    fn concern(&self, part: Part) -> bool {
        match part {
            Part::Model => self.pays,
            Part::Grounded => self.pays && self.grounded,
            Part::Closed => self.spends && !self.model.is_empty(),
            Part::Spending => self.spends,
        }
    }
}

/// The blocks of a project.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The blocks of models, by the parts that have one for each.
    models: [HashMap<Arc<str>, Block>; 3],
    spending: Option<Block>,
}

/// A block of a project in a form that outlives the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MarkMemory {
    /// The part, as reports name it.
    part: Box<str>,
    /// The model; empty where the part has none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    model: Box<str>,
    block: BlockMemory,
}

/// The looks that one call makes, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProjectLooks([Option<Look>; 4]);

/// A block, as the error for a call shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Obstruction {
    pub(super) part: Part,
    /// The kind of the refusal that it comes from.
    pub(super) kind: Kind,
    pub(super) state: KeyState,
    /// The time until the next look, or until the end.
    pub(super) look: Duration,
    /// True if nobody waits for its end, and a look comes before.
    pub(super) is_lasting: bool,
}

impl ProjectLooks {
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.spending.is_none() && self.models.iter().all(HashMap::is_empty)
    }

    fn get(&self, part: Part, model: &str) -> Option<&Block> {
        match part {
            Part::Spending => self.spending.as_ref(),
            _ => self.models[part as usize].get(model),
        }
    }

    fn get_mut(&mut self, part: Part, model: &str) -> Option<&mut Block> {
        match part {
            Part::Spending => self.spending.as_mut(),
            _ => self.models[part as usize].get_mut(model),
        }
    }

    fn remove(&mut self, part: Part, model: &str) {
        match part {
            Part::Spending => self.spending = None,
            _ => drop(self.models[part as usize].remove(model)),
        }
    }

    /// Iterates over the blocks that concern a call, each with its part.
    fn parts_of(&self, needs: Needs<'_>) -> impl Iterator<Item = (Part, &Block)> {
        Part::ALL
            .into_iter()
            .filter(move |part| needs.concern(*part))
            .filter_map(move |part| Some((part, self.get(part, needs.model)?)))
    }

    /// Iterates over the blocks that concern a call.
    fn of(&self, needs: Needs<'_>) -> impl Iterator<Item = &Block> {
        self.parts_of(needs).map(|(_, block)| block)
    }

    /// Decides on a call.
    pub(super) fn passage(&self, needs: Needs<'_>, now: Instant) -> Passage {
        self.of(needs).fold(Passage::Free, |passage, block| passage.and(block.passage(now)))
    }

    /// Returns the time for which a call cannot hope to pass; zero: it may pass.
    pub(super) fn left(&self, needs: Needs<'_>, now: Instant) -> Duration {
        let until = self.of(needs).filter_map(|block| block.closed_until(now)).max();
        until.map_or(Duration::ZERO, |until| until - now)
    }

    /// The same for a call that was refused here before: it has looked at what lasts for hours, and does not look again.
    pub(super) fn left_after_refusal(&self, needs: Needs<'_>, now: Instant) -> Duration {
        let lasting = self.of(needs).filter(|block| block.is_long() && block.passage(now) != Passage::Free);
        let lasting = lasting.map(|block| block.ends() - now).max().unwrap_or_default();
        self.left(needs, now).max(lasting)
    }

    /// Returns the block that holds a call up for longest.
    pub(super) fn obstruction(&self, needs: Needs<'_>, now: Instant) -> Option<Obstruction> {
        let closed = self.parts_of(needs).filter_map(|(part, block)| match block.passage(now) {
            Passage::Closed(at) => Some((part, block, at)),
            Passage::Free | Passage::Look => None,
        });
        let (part, block, at) = closed.max_by_key(|(_, block, at)| (block.is_long(), *at))?;
        let is_lasting = block.is_long() && at < block.ends();
        Some(Obstruction { part, kind: block.kind(), state: state(block, now)?, look: at - now, is_lasting })
    }

    /// Takes note that the upstream has refused a call in that part.
    pub(super) fn block(&mut self, part: Part, model: &Arc<str>, claim: Claim, now: Instant, midnight: Instant) {
        if let Some(block) = self.get_mut(part, model) {
            return block.refused(claim, now, midnight);
        }
        // No real model has such a name, and a path may be long.
        if model.len() > MAX_NAME {
            return;
        }
        let block = Block::new(claim, now, midnight);
        if part == Part::Spending {
            self.spending = Some(block);
            return;
        }
        let models = &mut self.models[part as usize];
        // Blocks that have ended go first, or else the one that ends first.
        make_room(models, MAX_MODELS, |block| block.ends() > now, Block::ends);
        models.insert(model.clone(), block);
    }

    /// Begins a look at each block whose look is due. The passage has been [`Look`](Passage::Look).
    pub(super) fn begin_looks(&mut self, needs: Needs<'_>, now: Instant) -> ProjectLooks {
        let mut looks = ProjectLooks::default();
        for part in Part::ALL.into_iter().filter(|part| needs.concern(*part)) {
            let block = self.get_mut(part, needs.model).filter(|block| block.passage(now) == Passage::Look);
            looks.0[part as usize] = block.map(|block| block.begin_look(now));
        }
        looks
    }

    /// Ends looks that have shown nothing.
    pub(super) fn end_looks(&mut self, model: &str, looks: ProjectLooks) {
        for (part, look) in Part::ALL.into_iter().zip(looks.0) {
            if let (Some(block), Some(look)) = (self.get_mut(part, model), look) {
                block.end_look(look);
            }
        }
    }

    /// Takes note of an answer: forgets the blocks that its looks have refuted, and those that have ended.
    pub(super) fn succeeded(&mut self, needs: Needs<'_>, looks: ProjectLooks, now: Instant) {
        for (part, look) in Part::ALL.into_iter().zip(looks.0).filter(|(part, _)| needs.concern(*part)) {
            let refuted = |block: &Block| {
                look.is_some_and(|look| block.ends_with(look, now)) || block.ends() <= now || block.is_unsaid()
            };
            if self.get(part, needs.model).is_some_and(refuted) {
                self.remove(part, needs.model);
            }
        }
    }

    /// Forgets all blocks.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the blocks of a model.
    pub(super) fn clear_model(&mut self, model: &str) {
        for models in &mut self.models {
            models.remove(model);
        }
    }

    /// Returns the blocks in the form that is kept, by part and name.
    pub(super) fn memory(&self, anchor: TimeAnchor, now: Instant) -> Vec<MarkMemory> {
        let parts = Part::ALL.into_iter().zip(&self.models);
        let of_models =
            parts.flat_map(|(part, models)| models.iter().map(move |(model, block)| (part, &**model, block)));
        let spending = self.spending.iter().map(|block| (Part::Spending, "", block));
        let mut blocks: Vec<_> = of_models.chain(spending).collect();
        blocks.sort_unstable_by_key(|(part, model, _)| (*part as usize, *model));
        let memory = |(part, model, block): (Part, &str, &Block)| {
            Some(MarkMemory { part: part.as_str().into(), model: model.into(), block: block.memory(anchor, now)? })
        };
        blocks.into_iter().filter_map(memory).collect()
    }

    /// Takes up the blocks of another process that are still believed, where this one has none.
    pub(super) fn restore(&mut self, memory: &[MarkMemory], anchor: TimeAnchor, now: Instant) {
        for MarkMemory { part, model, block } in memory {
            let Some(part) = Part::ALL.into_iter().find(|known| known.as_str() == &**part) else { continue };
            let Some(block) = Block::restored(block, anchor, now) else { continue };
            if part == Part::Spending {
                self.spending.get_or_insert(block);
                continue;
            }
            let models = &mut self.models[part as usize];
            if models.len() < MAX_MODELS && model.len() <= MAX_NAME {
                models.entry(Arc::from(&**model)).or_insert(block);
            }
        }
    }

    /// Iterates over all blocks, each with its part and model.
    #[cfg(feature = "redis")]
    pub(super) fn all(&self) -> impl Iterator<Item = (Part, Option<&Arc<str>>, &Block)> {
        let parts = Part::ALL.into_iter().zip(&self.models);
        let of_models =
            parts.flat_map(|(part, models)| models.iter().map(move |(model, block)| (part, Some(model), block)));
        of_models.chain(self.spending.iter().map(|block| (Part::Spending, None, block)))
    }

    /// Returns the block of a part.
    #[cfg(feature = "redis")]
    pub(super) fn block_of(&self, part: Part, model: &str) -> Option<&Block> {
        self.get(part, model)
    }

    /// Takes up a block of another process in place of this one's, unless this one's lasts longer.
    #[cfg(feature = "redis")]
    pub(super) fn learn(&mut self, part: Part, model: &Arc<str>, told: Block, now: Instant) {
        // Times that are told are rounded up to seconds.
        const ROUNDED: Duration = Duration::from_secs(2);
        match self.get_mut(part, model) {
            Some(own) if own.ends() > told.ends() + ROUNDED => {}
            Some(own) => *own = told,
            None if part == Part::Spending => self.spending = Some(told),
            None if model.len() <= MAX_NAME => {
                let models = &mut self.models[part as usize];
                make_room(models, MAX_MODELS, |block| block.ends() > now, Block::ends);
                models.insert(model.clone(), told);
            }
            None => {}
        }
    }

    /// Forgets the block of a part.
    #[cfg(feature = "redis")]
    pub(super) fn forget(&mut self, part: Part, model: &str) {
        self.remove(part, model);
    }

    /// Reports the rest of the whole project, where all that costs money is blocked.
    pub(super) fn spending(&self, now: Instant) -> Option<KeySpendingReport> {
        let block = self.spending.as_ref()?;
        Some(KeySpendingReport { state: state(block, now)?, reason: block.kind(), look: look(block, now) })
    }

    /// Reports the models that are blocked, by name: of several blocks of one model the one that lasts longest. A block
    /// of grounded calls stands for itself, as the others are served.
    pub(super) fn report(&self, now: Instant) -> Vec<KeyModelReport> {
        let parts = [Part::Model, Part::Grounded, Part::Closed];
        let blocks =
            parts.into_iter().zip(&self.models).flat_map(|(part, models)| models.iter().map(move |of| (part, of)));
        let mut reports: Vec<(KeyModelReport, Instant)> = blocks
            .filter_map(|(part, (model, block))| {
                let (state, reason, look) = (state(block, now)?, block.kind(), look(block, now));
                Some((KeyModelReport { model: model.clone(), state, part, reason, look }, block.ends()))
            })
            .collect();
        let is_grounded = |report: &KeyModelReport| report.part == Part::Grounded;
        reports.sort_by(|(one, ends), (other, other_ends)| {
            let by_name = one.model.cmp(&other.model).then(is_grounded(one).cmp(&is_grounded(other)));
            by_name.then(other_ends.cmp(ends))
        });
        reports.dedup_by(|(other, _), (one, _)| one.model == other.model && is_grounded(one) == is_grounded(other));
        reports.into_iter().map(|(report, _)| report).collect()
    }
}

/// Returns the state of a block in the form that reports show. `None`: it lets calls pass.
fn state(block: &Block, now: Instant) -> Option<KeyState> {
    match block.passage(now) {
        Passage::Free => None,
        _ if block.is_long() => Some(KeyState::Exhausted { left: block.ends() - now }),
        Passage::Look => None,
        Passage::Closed(at) => Some(KeyState::Cooling { left: at - now }),
    }
}

/// Returns the time until one call may pass.
fn look(block: &Block, now: Instant) -> Duration {
    match block.passage(now) {
        Passage::Closed(at) => at - now,
        Passage::Free | Passage::Look => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests;
