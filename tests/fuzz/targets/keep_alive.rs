//! Keeps a stream alive: whatever its cuts and silences, a reader of server-sent events gets the same events as without.
//!
//! The input is a stream's bytes. The cuts and the silences follow from a hash of it, so that the seeds are plain text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_gemini::fuzzing;

/// A byte order mark belongs before everything, and so a comment may not come before it.
const BOM: &[u8] = b"\xef\xbb\xbf";

fuzz_target!(|bytes: &[u8]| {
    if bytes.is_empty() {
        return;
    }
    let whole = events(bytes);
    for gemini in [true, false] {
        if !gemini && bytes.starts_with(&BOM[..1]) {
            continue;
        }
        let single: Vec<_> = bytes.chunks(1).map(|piece| (piece, 1)).collect();
        for pieces in [single, pieces(bytes), vec![(bytes, 1)]] {
            let (kept, is_open) = fuzzing::keep_alive(&pieces, gemini);
            assert_eq!(events(&kept), whole, "{:?} became {:?}", text(bytes), text(&kept));
            assert!(gemini || !is_open);
            assert_eq!(comments(&kept) > comments(bytes), !gemini, "{:?}", text(&kept));
        }
        let (kept, _) = fuzzing::keep_alive(&[(bytes, 0)], gemini);
        assert_eq!(kept, bytes, "without a silence");
    }
});

/// Returns the data of the events that have any. White space before it means nothing, because it is JSON.
fn events(bytes: &[u8]) -> Vec<Vec<u8>> {
    let events = fuzzing::split(&[bytes]).events.into_iter();
    events.map(|data| data.trim_ascii_start().to_vec()).filter(|data| !data.is_empty()).collect()
}

fn comments(bytes: &[u8]) -> usize {
    bytes.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| *line == b": ping").count()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Cuts the bytes into a few pieces at random, with up to three silences before each.
fn pieces(mut bytes: &[u8]) -> Vec<(&[u8], usize)> {
    let mut hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let most = 1 + bytes.len() / 2;
    let mut pieces = vec![(&bytes[..0], 1)];
    while !bytes.is_empty() && pieces.len() < 12 {
        hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (piece, rest) = bytes.split_at((hash >> 33) as usize % most.min(bytes.len() + 1));
        pieces.push((piece, (hash >> 20) as usize % 4));
        bytes = rest;
    }
    pieces.push((bytes, 1));
    pieces
}
