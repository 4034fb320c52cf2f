//! The tables of Gemma's vocabulary: the pieces of characters, the merges of two pieces, and the pairs of characters
//! that never stand together inside a piece.
//!
//! Pieces are numbered for this purpose: first the characters, then the merged pieces, in the order of merging. So a
//! piece's number is its rank, and of two merges the one with the lower number comes first.

use std::sync::LazyLock;

/// The packed vocabulary, made by `tests/tokenizer`, which describes its format.
static PACKED: &[u8] = include_bytes!("gemma.bin");

/// SentencePiece's sign for a space. A text that contains it is read as if it had spaces there.
pub(super) const SPACE_SIGN: char = '\u{2581}';

/// The longest piece that is not a run of spaces, tabs or newlines, in characters.
pub(super) const LONGEST: u64 = 16;

/// A piece, as its rank.
pub(super) type Piece = u32;

/// The absence of a piece.
pub(super) const NONE: Piece = u32::MAX;

/// Returns the vocabulary, which is the same for Gemma 3 and Gemma 4. It takes about 5 MB, and is made once.
pub(super) fn vocabulary() -> &'static Vocabulary {
    static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| Vocabulary::unpack(PACKED));
    &VOCABULARY
}

/// A bit for each pair of bytes. Those of bytes that are not ASCII are never set.
type BytePairs = Box<[u64; 1 << 10]>;

#[derive(Debug)]
pub(super) struct Vocabulary {
    characters: Characters,
    pairs: Pairs,
    /// The pairs of ASCII characters that stand together in a piece.
    joined_ascii: BytePairs,
    /// Those of them whose second character is plain, as in the rest of a word.
    words: BytePairs,
    /// The pieces into which pairs of ASCII characters merge.
    merged_ascii: Box<[Piece]>,
    joined: Joined,
}

impl Vocabulary {
    fn unpack(packed: &[u8]) -> Self {
        let characters = number(packed, 0);
        let mut rest = packed.get(4..).unwrap_or_default();

        let mut vocabulary = Self {
            characters: Characters::new(),
            pairs: Pairs::new(),
            joined_ascii: Box::new([0; 1 << 10]),
            words: Box::new([0; 1 << 10]),
            merged_ascii: vec![NONE; 128 * 128].into(),
            joined: Joined::new(),
        };
        let mut codes = Vec::with_capacity(characters as usize);
        let mut code = 0;
        for piece in 0..characters {
            let (step, after) = distance(rest);
            rest = after;
            code += step;
            let character = if code == u32::from(SPACE_SIGN) { u32::from(' ') } else { code };
            vocabulary.characters.insert(character, piece);
            codes.push(character);
        }
        vocabulary.characters.same(u32::from(SPACE_SIGN), u32::from(' '));

        // Finds the character at an end of a piece: it is the one at that end of its half, down to a single character.
        let end = |mut piece: Piece, half: fn((Piece, Piece)) -> Piece| loop {
            match piece.checked_sub(characters).map(|at| at as usize * 5) {
                Some(at) => piece = half(halves(rest.get(at..at + 5)?)),
                None => return codes.get(piece as usize).copied(),
            }
        };
        for (pair, piece) in rest.chunks_exact(5).zip(characters..) {
            let (left, right) = halves(pair);
            vocabulary.pairs.insert(left, right, piece);
            if let (Some(before @ ..0x80), Some(after @ ..0x80)) = (codes.get(left as usize), codes.get(right as usize))
            {
                vocabulary.merged_ascii[(before << 7 | after) as usize] = piece;
            }
            // Two characters stand together in a piece where some merge has brought them together.
            if let (Some(before), Some(after)) = (end(left, |(_, right)| right), end(right, |(left, _)| left)) {
                vocabulary.join(before, after);
            }
        }
        vocabulary
    }

    fn join(&mut self, before: u32, after: u32) {
        if before < 0x80 && after < 0x80 {
            let pair = [before as u8, after as u8];
            insert(&mut self.joined_ascii, pair);
            if is_plain(pair[1]) {
                insert(&mut self.words, pair);
            }
        }
        self.joined.insert(before, after);
    }

    /// Returns the piece of a character, or [`NONE`] for one that is spelt in bytes.
    #[inline]
    pub(super) fn character(&self, code: u32) -> Piece {
        self.characters.get(code)
    }

    /// Returns the piece into which two pieces merge, or [`NONE`].
    #[inline]
    pub(super) fn merged(&self, left: Piece, right: Piece) -> Piece {
        self.pairs.get(left, right)
    }

    /// Returns the piece into which two characters merge, or [`NONE`]. It is the same as for their pieces, but faster.
    #[inline]
    pub(super) fn merged_characters(&self, before: u32, after: u32, left: Piece, right: Piece) -> Piece {
        if before < 0x80 && after < 0x80 {
            self.merged_ascii[(before << 7 | after) as usize & 0x3fff]
        } else {
            self.merged(left, right)
        }
    }

    /// Returns whether any piece has these two ASCII characters side by side.
    #[inline]
    pub(super) fn joins_ascii(&self, before: u8, after: u8) -> bool {
        contains(&self.joined_ascii, [before, after])
    }

    /// Returns whether two bytes are ASCII characters, of which the second is plain and joins the first.
    #[inline]
    pub(super) fn continues_word(&self, pair: [u8; 2]) -> bool {
        contains(&self.words, pair)
    }

    /// Returns whether some piece may have these two characters side by side. It is rarely true of a pair that none
    /// has.
    #[inline]
    pub(super) fn may_join(&self, before: u32, after: u32) -> bool {
        self.joined.may_contain(before, after)
    }
}

/// Returns whether a byte is an ASCII character that needs only a look for a cut in front of it: it is no control character, no
/// white space, and opens no special piece.
pub(super) const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'<' && byte != b'['
}

fn insert(pairs: &mut BytePairs, pair: [u8; 2]) {
    let at = usize::from(u16::from_le_bytes(pair));
    pairs[at / 64] |= 1 << (at % 64);
}

#[inline]
fn contains(pairs: &BytePairs, pair: [u8; 2]) -> bool {
    let at = usize::from(u16::from_le_bytes(pair));
    pairs[at / 64] >> (at % 64) & 1 != 0
}

/// Unpacks the two halves of a piece, from 36 of 40 bits.
fn halves(pair: &[u8]) -> (Piece, Piece) {
    let pair = u64::from(number(pair, 0)) | u64::from(pair[4]) << 32;
    ((pair & 0x3_ffff) as Piece, (pair >> 18) as Piece)
}

/// Returns the halves of all pieces, in the order of merging.
#[cfg(test)]
pub(super) fn halves_for_tests() -> Vec<(Piece, Piece)> {
    let characters = (0..number(PACKED, 0)).fold(&PACKED[4..], |rest, _| distance(rest).1);
    characters.chunks_exact(5).map(halves).collect()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Reads a number of seven bits a byte, the low ones first; all but the last byte are marked.
fn distance(bytes: &[u8]) -> (u32, &[u8]) {
    let length = bytes.iter().take_while(|&&byte| byte >= 0x80).count() + 1;
    let (number, rest) = bytes.split_at(length.min(bytes.len()));
    (number.iter().rev().fold(0, |value, &byte| value << 7 | u32::from(byte & 0x7f)), rest)
}

/// The pieces of characters, in pages of 128 code points. The first page is empty.
#[derive(Debug)]
struct Characters {
    pages: Box<[u16]>,
    pieces: Vec<u16>,
}

impl Characters {
    const PAGE: usize = 128;
    const NONE: u16 = u16::MAX;

    fn new() -> Self {
        Self { pages: vec![0; 0x11_0000 / Self::PAGE].into(), pieces: vec![Self::NONE; Self::PAGE] }
    }

    fn insert(&mut self, code: u32, piece: Piece) {
        let Some(page) = self.pages.get_mut(code as usize / Self::PAGE) else { return };
        if *page == 0 {
            *page = (self.pieces.len() / Self::PAGE) as u16;
            self.pieces.resize(self.pieces.len() + Self::PAGE, Self::NONE);
        }
        self.pieces[usize::from(*page) * Self::PAGE + code as usize % Self::PAGE] = piece as u16;
    }

    fn same(&mut self, code: u32, other: u32) {
        self.insert(code, self.get(other));
    }

    #[inline]
    fn get(&self, code: u32) -> Piece {
        let page = self.pages.get(code as usize / Self::PAGE).copied().unwrap_or_default();
        match self.pieces.get(usize::from(page) * Self::PAGE + code as usize % Self::PAGE) {
            Some(&piece) if piece != Self::NONE => Piece::from(piece),
            _ => NONE,
        }
    }
}

/// The merges: a hash table with open addressing, less than half full. A slot has both pieces and their result in 54
/// bits, or zero.
#[derive(Debug)]
struct Pairs {
    slots: Box<[u64]>,
    /// A bit for each pair by another part of its hash. Most look-ups end here, in a cache that is too small for the
    /// slots.
    filter: Box<[u64]>,
}

impl Pairs {
    const BITS: u32 = 19;
    const MASK: usize = (1 << Self::BITS) - 1;
    const FILTER_BITS: u32 = 21;

    fn new() -> Self {
        Self { slots: vec![0; 1 << Self::BITS].into(), filter: vec![0; 1 << (Self::FILTER_BITS - 6)].into() }
    }

    fn insert(&mut self, left: Piece, right: Piece, piece: Piece) {
        let key = Self::key(left, right);
        let mut at = Self::slot(key);
        let bit = Self::bit(key);
        self.filter[bit / 64] |= 1 << (bit % 64);
        while self.slots[at] != 0 {
            at = (at + 1) & Self::MASK;
        }
        self.slots[at] = key << 18 | u64::from(piece);
    }

    #[inline]
    fn get(&self, left: Piece, right: Piece) -> Piece {
        let key = Self::key(left, right);
        let bit = Self::bit(key);
        if self.filter[bit / 64] >> (bit % 64) & 1 == 0 {
            return NONE;
        }
        let mut at = Self::slot(key);
        loop {
            let found = self.slots[at & Self::MASK];
            if found >> 18 == key && found != 0 {
                return (found & 0x3_ffff) as Piece;
            }
            if found == 0 {
                return NONE;
            }
            at += 1;
        }
    }

    #[inline]
    fn key(left: Piece, right: Piece) -> u64 {
        u64::from(left) << 18 | u64::from(right)
    }

    #[inline]
    fn bit(key: u64) -> usize {
        (key.wrapping_mul(0xd6e8_feb8_6659_fd93) >> (64 - Self::FILTER_BITS)) as usize
    }

    #[inline]
    fn slot(key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::BITS)) as usize
    }
}

/// A set of pairs of characters, in one hashed bit each. As 3 % of the bits are set, 3 % of the absent pairs are found.
#[derive(Debug)]
struct Joined {
    bits: Box<[u64]>,
}

impl Joined {
    const BITS: u32 = 20;

    fn new() -> Self {
        Self { bits: vec![0; 1 << (Self::BITS - 6)].into() }
    }

    fn insert(&mut self, before: u32, after: u32) {
        let at = Self::at(before, after);
        self.bits[at / 64] |= 1 << (at % 64);
    }

    #[inline]
    fn may_contain(&self, before: u32, after: u32) -> bool {
        let at = Self::at(before, after);
        self.bits[at / 64] >> (at % 64) & 1 != 0
    }

    #[inline]
    fn at(before: u32, after: u32) -> usize {
        let key = u64::from(before) << 21 | u64::from(after);
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::BITS)) as usize
    }
}
