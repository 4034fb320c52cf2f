//! Makes `src/tokenizer/gemma/gemma.bin` from the vocabulary in the crate `splintr-vocab-gemma4`, or checks it.
//!
//! ```sh
//! cargo run --release --bin pack -- <file>          # writes
//! cargo run --release --bin pack -- --check <file>  # compares
//! ```
//!
//! The file has the characters that have a piece of their own, and for each longer piece the two pieces from which it is
//! merged last, in the order of merging. It leaves out the special pieces, the bytes, and the runs of spaces, tabs and
//! newlines, which the counter knows by rule.
//!
//! A piece can be cut in two at several places, and the vocabulary lists each cut at which both halves are pieces. Only one
//! of them ever happens. No earlier merge reaches over the ends of the piece, or the piece could not arise; so its inside is
//! merged as if it stood alone, and the last merge is always the same.

use std::{
    collections::{BTreeSet, HashMap},
    process::ExitCode,
};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (check, file) = match arguments.next().as_deref() {
        Some("--check") => (true, arguments.next()),
        first => (false, first.map(str::to_owned)),
    };
    let Some(file) = file else {
        eprintln!("pack [--check] <file>");
        return ExitCode::FAILURE;
    };
    let packed = pack();
    if !check {
        std::fs::write(&file, &packed).expect("the file can be written");
        println!("{file}: {} bytes", packed.len());
    } else if std::fs::read(&file).expect("the file can be read") == packed {
        println!("{file} is what the vocabulary gives");
    } else {
        eprintln!("{file} differs from what the vocabulary gives");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn pack() -> Vec<u8> {
    let pieces = vocabulary(splintr_vocab_gemma4::GEMMA4_VOCAB_PACKED);
    let order = merges(splintr_vocab_gemma4::GEMMA4_MERGES_PACKED);
    let merged: Vec<&str> = order.iter().map(|&id| pieces[id]).filter(|piece| !is_run(piece)).collect();

    // A character has a piece of its own, or no merge could begin with it.
    let is_character = |piece: &&&str| piece.chars().count() == 1 && !is_run(piece);
    let characters: BTreeSet<char> = pieces.iter().filter(is_character).flat_map(|piece| piece.chars()).collect();
    assert!(merged.iter().flat_map(|piece| piece.chars()).all(|character| characters.contains(&character)));

    let ranks: HashMap<&str, usize> = merged.iter().copied().zip(0..).collect();
    let halves: Vec<(&str, &str, &str)> =
        merged.iter().filter_map(|piece| halves(piece, &ranks).map(|(left, right)| (*piece, left, right))).collect();
    let mut ids: HashMap<String, u32> = characters.iter().map(char::to_string).zip(0..).collect();
    ids.extend(halves.iter().map(|(piece, ..)| piece.to_string()).zip(characters.len() as u32..));
    let pairs: Vec<(u32, u32)> = halves.iter().map(|(_, left, right)| (ids[*left], ids[*right])).collect();
    let lost = merged.len() - pairs.len();
    println!("{} characters, {} merges, {lost} pieces that no text gives", characters.len(), pairs.len());
    assert!(characters.len() + pairs.len() < 1 << 18);

    let mut packed = Vec::new();
    packed.extend((characters.len() as u32).to_le_bytes());
    // Each character is its distance from the one before: seven bits a byte, the low ones first, the last without a mark.
    let mut last = 0;
    for character in characters {
        let mut step = character as u32 - std::mem::replace(&mut last, character as u32);
        while step > 0x7f {
            packed.push(step as u8 | 0x80);
            step >>= 7;
        }
        packed.push(step as u8);
    }
    // Each pair takes 36 of 40 bits.
    for (left, right) in pairs {
        packed.extend(&(u64::from(left) | u64::from(right) << 18).to_le_bytes()[..5]);
    }
    packed
}

/// Returns the two pieces from which the piece is merged last, or `None` if its characters merge into others.
fn halves<'a>(piece: &'a str, ranks: &HashMap<&str, usize>) -> Option<(&'a str, &'a str)> {
    let mut bounds: Vec<usize> = piece.char_indices().map(|(at, _)| at).chain([piece.len()]).collect();
    loop {
        let merges = bounds.windows(3).enumerate();
        let next = merges.filter_map(|(i, three)| Some((*ranks.get(&piece[three[0]..three[2]])?, i))).min();
        match (next, &bounds[..]) {
            (Some(_), [_, cut, _]) => return Some(piece.split_at(*cut)),
            (Some((_, i)), _) => _ = bounds.remove(i + 1),
            (None, _) => return None,
        }
    }
}

fn is_run(piece: &str) -> bool {
    let first = piece.chars().next();
    matches!(first, Some('\n' | '\t' | '▁'))
        && piece.chars().all(|c| Some(c) == first)
        && (piece.len() > 3 || first != Some('▁'))
}

/// Reads `magic`, the number of pieces, and for each its id, its length and its bytes.
fn vocabulary(packed: &'static [u8]) -> Vec<&'static str> {
    let mut rest = &packed[8..];
    let count = u32::from_le_bytes(rest[..4].try_into().expect("four bytes"));
    rest = &rest[4..];
    (0..count)
        .map(|id| {
            assert_eq!(number(&mut rest), id as usize);
            let length = number(&mut rest);
            let (piece, after) = rest.split_at(length);
            rest = after;
            std::str::from_utf8(piece).expect("pieces are text")
        })
        .collect()
}

/// Reads `magic`, the number of merges, and for each its id and the place of its cut.
fn merges(packed: &[u8]) -> Vec<usize> {
    let mut rest = &packed[8..];
    let count = u32::from_le_bytes(rest[..4].try_into().expect("four bytes"));
    rest = &rest[4..];
    (0..count).map(|_| (number(&mut rest), number(&mut rest)).0).collect()
}

fn number(rest: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = rest[0];
        *rest = &rest[1..];
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}
