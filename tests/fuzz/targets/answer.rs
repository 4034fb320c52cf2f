//! Reads an answer in pieces, with the splitter, the scanner, the watch over both, the masker, the framer, and the gate. However
//! the bytes are cut, they find the same as in one piece; and no byte passes the gate before its item is whole, or later.
//!
//! The input is an answer's bytes. The cuts follow from a hash of it, so that the seeds are plain text.

#![no_main]

use http::{HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;
use tower_gemini::fuzzing;

const CALLS: [(&str, &str); 8] = [
    ("/v1beta/models/m:generateContent", "application/json"),
    ("/v1beta/models/m:streamGenerateContent", "application/json"),
    ("/v1beta/models/m:streamGenerateContent?alt=sse", "text/event-stream"),
    ("/v1beta/openai/chat/completions", "text/event-stream"),
    ("/v1beta/interactions", "text/event-stream"),
    ("/v1beta/interactions", "application/json"),
    ("/v1beta/models/m:batchEmbedContents", "application/json"),
    ("/v1/projects/p/locations/l/publishers/google/models/m:streamRawPredict", "text/event-stream"),
];

fuzz_target!(|bytes: &[u8]| {
    let calls = CALLS.map(|(uri, content_type)| (Uri::from_static(uri), HeaderValue::from_static(content_type)));
    let found = |pieces: &[&[u8]]| {
        let watched = calls.clone().map(|(uri, content_type)| fuzzing::watch(&uri, content_type, pieces));
        (fuzzing::split(pieces), fuzzing::scan(pieces), watched, fuzzing::mask(pieces), fuzzing::frame(pieces), fuzzing::gate(pieces))
    };
    let whole = found(&[bytes]);
    assert_eq!(whole.3.len(), bytes.len(), "masking keeps the length");
    assert_eq!(whole.5, bytes, "the gate changes nothing");
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(found(&single), whole, "cut into single bytes");
    let cut = pieces(bytes);
    assert_eq!(found(&cut), whole, "cut into {:?}", cut.iter().map(|piece| piece.len()).collect::<Vec<_>>());
});

/// Cuts the bytes into a few pieces at random; some of them are empty.
fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let most = 1 + bytes.len() / 2;
    let mut pieces = Vec::new();
    while !bytes.is_empty() && pieces.len() < 12 {
        hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (piece, rest) = bytes.split_at((hash >> 33) as usize % most.min(bytes.len() + 1));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}
