//! Merges a stretch of characters, and counts the pieces that are left.
//!
//! Of all neighbours that can merge, those of the lowest rank do, the leftmost first, until none are left. Up to
//! [`Merger::SHORT`] characters, the lowest is searched anew each time, and the pieces behind a merge move up. For
//! longer stretches a merge leaves a gap, and the lowest rank of each [`BLOCK`] is kept.

use super::vocabulary::{NONE, Piece, Vocabulary};

/// The number of candidates that share a minimum.
const BLOCK: usize = 32;

/// A merger, which keeps its buffers for the next stretch.
#[derive(Debug, Default)]
pub(super) struct Merger {
    pieces: Vec<Piece>,
    /// The piece that each piece and the next one merge into; its number is its rank.
    merged: Vec<Piece>,
    lowest: Vec<Piece>,
    before: Vec<u16>,
    after: Vec<u16>,
}

impl Merger {
    /// The most characters of a short stretch, in which pieces move up. Merging one is never too costly.
    pub(super) const SHORT: usize = 32;

    /// The most characters that can be merged at once. The cost of each character grows with this.
    pub(super) const MOST: usize = 1024;

    /// Returns the number of pieces into which the characters are merged. Each character must have a piece.
    pub(super) fn merge(&mut self, vocabulary: &Vocabulary, characters: impl Iterator<Item = char>) -> u64 {
        self.pieces.clear();
        self.merged.clear();
        let mut before = None;
        for character in characters.take(Self::MOST) {
            let code = u32::from(character);
            let piece = vocabulary.character(code);
            if let Some((last, left)) = before {
                self.merged.push(vocabulary.merged_characters(last, code, left, piece));
            }
            before = Some((code, piece));
            self.pieces.push(piece);
        }
        if self.pieces.len() <= Self::SHORT { self.short(vocabulary) } else { self.long(vocabulary) }
    }

    fn short(&mut self, vocabulary: &Vocabulary) -> u64 {
        let (pieces, merged) = (&mut self.pieces, &mut self.merged);
        loop {
            let Some((at, best)) = first_lowest(merged) else { return pieces.len() as u64 };
            pieces[at] = best;
            pieces.remove(at + 1);
            merged.remove(at);
            if let Some(&after) = pieces.get(at + 1) {
                merged[at] = vocabulary.merged(best, after);
            }
            if at > 0 {
                merged[at - 1] = vocabulary.merged(pieces[at - 1], best);
            }
        }
    }

    fn long(&mut self, vocabulary: &Vocabulary) -> u64 {
        let length = self.pieces.len();
        let end = length as u16;
        self.merged.resize(length.next_multiple_of(BLOCK), NONE);
        self.lowest.clear();
        self.lowest.extend(self.merged.chunks_exact(BLOCK).map(lowest));
        self.before.clear();
        self.before.extend((0..end).map(|at| at.wrapping_sub(1)));
        self.after.clear();
        self.after.extend(1..=end);

        let mut left = length as u64;
        while let Some((block, best)) = first_lowest(&self.lowest) {
            let within = self.merged[block * BLOCK..].iter().position(|&piece| piece == best).unwrap_or_default();
            let at = block * BLOCK + within;
            let gone = usize::from(self.after[at]);
            let (before, after) = (self.before[at], self.after[gone]);
            left -= 1;
            self.pieces[at] = best;
            self.after[at] = after;
            self.merged[gone] = NONE;
            self.merged[at] = NONE;
            if after != end {
                self.before[usize::from(after)] = at as u16;
                self.merged[at] = vocabulary.merged(best, self.pieces[usize::from(after)]);
            }
            self.refresh(block);
            if gone / BLOCK != block {
                self.refresh(gone / BLOCK);
            }
            let before = usize::from(before);
            if let Some(&piece) = self.pieces.get(before) {
                self.merged[before] = vocabulary.merged(piece, best);
                self.refresh(before / BLOCK);
            }
        }
        left
    }

    #[inline]
    fn refresh(&mut self, block: usize) {
        self.lowest[block] = lowest(&self.merged[block * BLOCK..][..BLOCK]);
    }
}

#[inline]
fn lowest(pieces: &[Piece]) -> Piece {
    pieces.iter().fold(NONE, |lowest, &piece| lowest.min(piece))
}

/// Returns the lowest piece and its first position.
#[inline]
fn first_lowest(pieces: &[Piece]) -> Option<(usize, Piece)> {
    let (mut at, mut lowest) = (0, NONE);
    for (i, &piece) in pieces.iter().enumerate() {
        if piece < lowest {
            (at, lowest) = (i, piece);
        }
    }
    (lowest != NONE).then_some((at, lowest))
}
