//! A memo of the counts of stretches, because words recur.
//!
//! It has two tables of a fixed size, for stretches of up to 15 and of up to 31 bytes. A slot holds the bytes
//! themselves, so that a count is never another stretch's, and a newer stretch replaces the older one. An attacker
//! cannot make it grow, and one who makes it forget costs the next text a few merges.

/// The longest stretch that is remembered, in bytes.
const LONGEST: usize = 31;

const SHORT_BITS: u32 = 15;
const LONG_BITS: u32 = 13;

/// The tables, of 512 KiB and 256 KiB. The default has no slots, and must not be used.
#[derive(Debug, Default)]
pub(super) struct Memo {
    short: Box<[Short]>,
    long: Box<[Long]>,
}

/// A stretch of up to 15 bytes padded with zeros, with its count in the last byte. No stretch of several characters
/// contains a zero, so that its length is not needed.
type Short = [u64; 2];
/// A stretch of up to 31 bytes, in the same form.
type Long = [u64; 4];

/// The bits of the count in the last word.
const COUNT: u64 = 0xff << 56;

/// The key of a stretch.
#[derive(Clone, Copy, Debug)]
pub(super) enum MemoKey {
    Short(Short),
    Long(Long),
}

impl Memo {
    pub(super) fn new() -> Self {
        Self { short: vec![[0; 2]; 1 << SHORT_BITS].into(), long: vec![[0; 4]; 1 << LONG_BITS].into() }
    }

    /// Returns the count of `bytes[..length]`, if it is remembered. The bytes after it only make the look cheap.
    #[inline]
    pub(super) fn find(&self, bytes: &[u8], length: usize) -> Option<u64> {
        if length < 16 { self.short(short_key(bytes, length)) } else { self.get(Self::key(bytes, length)?) }
    }

    /// Makes a key of `bytes[..length]`, if it is not too long to be remembered. The bytes after it only make the copy
    /// cheap.
    #[inline]
    pub(super) fn key(bytes: &[u8], length: usize) -> Option<MemoKey> {
        if length < 16 {
            return Some(MemoKey::Short(short_key(bytes, length)));
        }
        let long = bytes.get(..length).filter(|_| length <= LONGEST)?;
        let words = padded::<32>(long);
        let mut key: Long = [0; 4];
        for (word, bytes) in key.iter_mut().zip(words.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        }
        Some(MemoKey::Long(key))
    }

    #[inline]
    pub(super) fn get(&self, key: MemoKey) -> Option<u64> {
        match key {
            MemoKey::Short(key) => self.short(key),
            MemoKey::Long(key) => {
                let found = self.long[long_slot(key)];
                count_of(found[..3] == key[..3], found[3], key[3])
            }
        }
    }

    #[inline]
    fn short(&self, key: Short) -> Option<u64> {
        let found = self.short[short_slot(key)];
        count_of(found[0] == key[0], found[1], key[1])
    }

    /// Remembers a count, which is never zero and never more than the bytes.
    #[inline]
    pub(super) fn insert(&mut self, key: MemoKey, count: u64) {
        match key {
            MemoKey::Short(key) => self.short[short_slot(key)] = [key[0], key[1] | count << 56],
            MemoKey::Long(key) => self.long[long_slot(key)] = [key[0], key[1], key[2], key[3] | count << 56],
        }
    }
}

/// Returns the count in the last word of a slot, if it is that of the key. An empty slot has no count.
#[inline]
fn count_of(is_same: bool, last: u64, key: u64) -> Option<u64> {
    (is_same && last & !COUNT == key && last & COUNT != 0).then_some(last >> 56)
}

#[inline]
fn short_key(bytes: &[u8], length: usize) -> Short {
    let whole = match bytes.first_chunk::<16>() {
        Some(chunk) => u128::from_le_bytes(*chunk),
        None => u128::from_le_bytes(padded(bytes)),
    };
    let key = whole & ((1u128 << (8 * length)) - 1);
    [key as u64, (key >> 64) as u64]
}

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    padded
}

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn short_slot(key: Short) -> usize {
    let mixed = (key[0].wrapping_mul(ODD) ^ key[1]).wrapping_mul(ODD);
    (mixed >> (64 - SHORT_BITS)) as usize & ((1 << SHORT_BITS) - 1)
}

#[inline]
fn long_slot(key: Long) -> usize {
    let mixed = key.iter().fold(0u64, |mixed, &word| (mixed.rotate_left(29) ^ word).wrapping_mul(ODD));
    (mixed >> (64 - LONG_BITS)) as usize & ((1 << LONG_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stretch_is_taken_for_another() {
        let mut memo = Memo::new();
        // More stretches than slots, which differ in the middle, at the beginning, at the end, or in length.
        for i in 1..50_000 {
            let digits = format!("{i:08}");
            for stretch in [
                format!("aaaaaaaaaaaaaaaa{digits}b"),
                format!("{digits}aaaaaaaaaaaaaaaa"),
                format!("aaaaaaaaaaaaaaaaaaaaaaa{digits}"),
                format!("aaaa{digits}"),
                format!("{digits}aaaaaaa"),
                digits.clone(),
                format!("{}c", "d".repeat(i % 30)).repeat(usize::from(i < 30)),
            ] {
                let Some(key) = Memo::key(stretch.as_bytes(), stretch.len()).filter(|_| !stretch.is_empty()) else {
                    continue;
                };
                assert_eq!(memo.get(key), None, "{stretch}");
                memo.insert(key, 1 + i as u64 % 15);
                assert_eq!(memo.get(key), Some(1 + i as u64 % 15), "{stretch}");
            }
        }
    }

    #[test]
    fn what_stands_behind_a_stretch_changes_nothing() {
        let mut memo = Memo::new();
        for length in 1..=LONGEST {
            let stretch = "é".repeat(20);
            let key = Memo::key(&stretch.as_bytes()[..length], length).unwrap();
            memo.insert(key, length as u64);
            assert_eq!(memo.get(Memo::key(stretch.as_bytes(), length).unwrap()), Some(length as u64));
        }
        assert!(Memo::key(&[b'a'; 40], LONGEST + 1).is_none());
    }
}
