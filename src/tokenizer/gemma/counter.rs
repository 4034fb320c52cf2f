//! Cuts texts into stretches, and adds up the stretches' counts.

use std::{fmt, ops::ControlFlow};

use parking_lot::Mutex;

use super::{
    memo::Memo,
    merge::Merger,
    special::Special,
    vocabulary::{LONGEST, NONE, SPACE_SIGN, Vocabulary, is_plain, vocabulary},
};
use crate::{
    request::scan::TextSink,
    tokenizer::{Count, TextCounter},
};

/// The longest run of one whitespace character that is one piece.
const RUN: u64 = 31;

/// A counter that adds up the tokens of texts, one after the other.
///
/// When it is dropped, its memo of words goes to the next counter.
pub struct Counter {
    scan: Scan,
    limit: u64,
    stopped: bool,
}

impl Counter {
    /// The longest stretch without a cut that is merged: 1,024 characters. The longest seen in a document was 150.
    pub const LONGEST_STRETCH: usize = Merger::MOST;

    /// The most characters that are merged in stretches of more than 32: 262,144. Documents have that many in 80 MB.
    pub const ALLOWANCE: usize = 1 << 18;

    pub(super) fn new(special: Special) -> Self {
        let scratch = SPARE.lock().pop().unwrap_or_else(Scratch::with_memo);
        let (vocabulary, unmerged) = (vocabulary(), Count::default());
        let scan = Scan { vocabulary, special, scratch, tokens: 0, unmerged, allowance: Self::ALLOWANCE };
        Self { scan, limit: u64::MAX, stopped: false }
    }

    /// Stops counting once there are more tokens than this. No limit by default.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Counts a text, unless the limit is passed.
    pub fn push(&mut self, text: &str) {
        if !self.stopped {
            self.stopped = self.scan.text(text, self.limit).is_break();
        }
    }

    /// Returns whether there are more tokens than the limit, so that further texts are not counted.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Returns the number of tokens so far.
    pub fn count(&self) -> Count {
        let count = self.scan.count();
        if self.stopped { Count { at_most: u64::MAX, ..count } } else { count }
    }
}

impl TextCounter for Counter {
    fn push(&mut self, text: &str) {
        self.push(text);
    }

    fn count(&self) -> Count {
        self.count()
    }
}

impl TextSink for Counter {
    fn text(&mut self, text: &str) -> bool {
        self.push(text);
        !self.stopped
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").field("count", &self.count()).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let mut spare = SPARE.lock();
        if spare.len() < MOST_SPARE {
            spare.push(std::mem::take(&mut self.scan.scratch));
        }
    }
}

/// The scratch memory that dropped counters leave for the next ones.
static SPARE: Mutex<Vec<Scratch>> = Mutex::new(Vec::new());

/// The most that is left, at 0.8 MB each. More counters run at once only on as many cores.
const MOST_SPARE: usize = 4;

/// The memory that is kept between texts: the memo of words, and the buffers of the merger. The default is empty, and
/// takes the place of scratch memory that was given away.
#[derive(Debug, Default)]
struct Scratch {
    memo: Memo,
    merger: Merger,
}

impl Scratch {
    fn with_memo() -> Self {
        Self { memo: Memo::new(), merger: Merger::default() }
    }
}

/// The scan of a text, which is cut where no piece reaches across. It adds up the counts of the stretches in between.
struct Scan {
    vocabulary: &'static Vocabulary,
    special: Special,
    scratch: Scratch,
    tokens: u64,
    /// The bounds of the stretches that were not merged.
    unmerged: Count,
    /// The rest of [`Counter::ALLOWANCE`].
    allowance: usize,
}

/// The class of a byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Needs only a look for a cut in front of it.
    Plain,
    /// May have no piece.
    Control,
    /// May be a run.
    Space,
    /// Is a run, at least of one.
    Break,
    /// May open a special piece.
    Bracket,
    /// Not ASCII.
    Wide,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'\n' | b'\t' => Class::Break,
            b' ' => Class::Space,
            b'<' | b'[' => Class::Bracket,
            0x80.. => Class::Wide,
            byte if is_plain(byte) => Class::Plain,
            _ => Class::Control,
        };
        byte += 1;
    }
    classes
};

impl Scan {
    fn count(&self) -> Count {
        let mut count = self.unmerged;
        count.add(self.tokens);
        count
    }

    fn is_past(&self, limit: u64) -> bool {
        self.tokens.saturating_add(self.unmerged.at_least) > limit
    }

    /// Adds a text's tokens. It breaks off once there are more than `limit`.
    fn text(&mut self, text: &str, limit: u64) -> ControlFlow<()> {
        let bytes = text.as_bytes();
        // The stretch that is open, and its last character.
        let (mut start, mut last) = (0, 0);
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let (code, length) = match CLASSES[usize::from(byte)] {
                Class::Plain => (u32::from(byte), 1),
                Class::Control if self.vocabulary.character(u32::from(byte)) == NONE => {
                    // Spelt as a byte.
                    self.stretch(text, start, at);
                    self.tokens += 1;
                    at += 1;
                    start = at;
                    continue;
                }
                Class::Control => (u32::from(byte), 1),
                Class::Break => {
                    self.stretch(text, start, at);
                    let run = bytes[at..].iter().take_while(|&&next| next == byte).count();
                    self.tokens += (run as u64).div_ceil(RUN);
                    at += run;
                    start = at;
                    continue;
                }
                Class::Space if !matches!(bytes.get(at + 1), Some(b' ' | 0xe2)) => (u32::from(b' '), 1),
                Class::Space => match self.spaces(bytes, at) {
                    (1, _) => (u32::from(b' '), 1),
                    run => {
                        self.stretch(text, start, at);
                        (at, start) = self.run(bytes, at, run);
                        last = u32::from(b' ');
                        continue;
                    }
                },
                Class::Bracket => match self.special.length(&bytes[at..]) {
                    None => (u32::from(byte), 1),
                    Some(length) => {
                        self.stretch(text, start, at);
                        self.tokens += 1;
                        at += length;
                        start = at;
                        continue;
                    }
                },
                Class::Wide => {
                    let Some(character) = text[at..].chars().next() else { break };
                    let (code, length) = (u32::from(character), character.len_utf8());
                    if character == SPACE_SIGN {
                        match self.spaces(bytes, at) {
                            (1, _) => (u32::from(b' '), length),
                            run => {
                                self.stretch(text, start, at);
                                (at, start) = self.run(bytes, at, run);
                                last = u32::from(b' ');
                                continue;
                            }
                        }
                    } else if self.vocabulary.character(code) == NONE {
                        // A character without a piece is spelt in bytes, a piece each.
                        self.stretch(text, start, at);
                        self.tokens += length as u64;
                        at += length;
                        start = at;
                        continue;
                    } else {
                        (code, length)
                    }
                }
            };
            if start != at && !self.joins(last, code) {
                self.stretch(text, start, at);
                start = at;
                if self.is_past(limit) {
                    return ControlFlow::Break(());
                }
            }
            at += length;
            last = code;
            if length == 1 {
                at += self.rest_of_word(&bytes[at - 1..]);
                last = u32::from(bytes[at - 1]);
            }
        }
        self.stretch(text, start, at);
        if self.is_past(limit) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Returns the number of plain characters behind the first one each of which joins the one before, as the rest of a word
    /// does.
    #[inline]
    fn rest_of_word(&self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(pair) = rest.first_chunk()
            && self.vocabulary.continues_word(*pair)
        {
            rest = &rest[1..];
        }
        bytes.len() - rest.len()
    }

    #[inline]
    fn joins(&self, before: u32, after: u32) -> bool {
        if before < 0x80 && after < 0x80 {
            self.vocabulary.joins_ascii(before as u8, after as u8)
        } else {
            self.vocabulary.may_join(before, after)
        }
    }

    /// Counts the spaces at `from`, and their bytes. SentencePiece's sign for a space is one.
    #[inline]
    fn spaces(&self, bytes: &[u8], from: usize) -> (u64, usize) {
        let (mut count, mut at) = (0, from);
        loop {
            match bytes[at..] {
                [b' ', ..] => at += 1,
                [0xe2, 0x96, 0x81, ..] => at += 3,
                _ => return (count, at - from),
            }
            count += 1;
        }
    }

    /// Adds several spaces in a row: as many whole pieces of them as fit, while a single one left over opens the next
    /// stretch. Returns the offset at which to go on, and the one at which that stretch begins.
    fn run(&mut self, bytes: &[u8], at: usize, (count, length): (u64, usize)) -> (usize, usize) {
        let end = at + length;
        self.tokens += count / RUN;
        match count % RUN {
            0 => (end, end),
            1 => (end, end - if bytes[end - 1] == b' ' { 1 } else { SPACE_SIGN.len_utf8() }),
            _ => {
                self.tokens += 1;
                (end, end)
            }
        }
    }

    /// Adds the count of a stretch.
    #[inline]
    fn stretch(&mut self, text: &str, start: usize, end: usize) {
        let length = end - start;
        if length < 2 {
            // Empty, or one ASCII character.
            self.tokens += length as u64;
            return;
        }
        match self.scratch.memo.find(&text.as_bytes()[start..], length) {
            Some(count) => self.tokens += count,
            None => self.merge(text, start, end),
        }
    }

    /// Merges a stretch that is not remembered.
    #[cold]
    fn merge(&mut self, text: &str, start: usize, end: usize) {
        let stretch = text.get(start..end).unwrap_or_default();
        if stretch.len() > Merger::SHORT {
            let count = stretch.chars().count();
            let long = count > Merger::SHORT;
            if long && (count > Merger::MOST || count > self.allowance) {
                // Each character has a piece, and no piece has more than `LONGEST` characters.
                self.unmerged += Count::between((count as u64).div_ceil(LONGEST), count as u64);
                return;
            }
            if long {
                self.allowance -= count;
            }
        }
        let tokens = self.scratch.merger.merge(self.vocabulary, stretch.chars());
        self.tokens += tokens;
        // It has at most 31 characters, so that the count is always exact.
        if let Some(key) = Memo::key(stretch.as_bytes(), stretch.len()) {
            self.scratch.memo.insert(key, tokens);
        }
    }
}
