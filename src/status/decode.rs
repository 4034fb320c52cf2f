//! Undoes the compression of an error body.
//!
//! Requests ask for `identity`, but proxies compress all the same, and a day's quota that nobody can read is retried
//! until midnight. An error body is small, so that its beginning is decoded at once: at most
//! [`MOST_READ`](super::MOST_READ) bytes come out, however much a few bytes claim to hold, and a body that was cut gives
//! what it has. The body itself is passed on as it came.

use std::{borrow::Cow, io::Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header::CONTENT_ENCODING};

use super::MOST_READ;

/// The most encodings that are undone, one after the other. Two have been seen: a proxy before a proxy.
const MOST_ENCODINGS: usize = 2;

/// The size of the buffer between brotli's input and its decoder.
const BUFFER: usize = 4 * 1024;

/// Returns the body without its encodings; as it is where it has none, or where it is text all the same, because a
/// client has decoded it and kept the header. `None`: it cannot be read.
pub(crate) fn decoded<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let mut body = Cow::Borrowed(body);
    let mut undone = 0;
    let values = headers.get_all(CONTENT_ENCODING).iter().rev().map(|value| value.to_str().unwrap_or("?"));
    // The last one named was applied last.
    for encoding in values.flat_map(|value| value.rsplit(',')).map(str::trim) {
        if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") || is_text(&body) {
            continue;
        }
        undone += 1;
        if undone > MOST_ENCODINGS {
            return None;
        }
        body = Cow::Owned(undo(encoding, &body)?);
    }
    Some(body)
}

/// Returns whether a body is readable as it is: an empty one, JSON, a page or an event.
fn is_text(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    start.first().is_none_or(|first| matches!(first, b'{' | b'[' | b'<' | b'"'))
        || [&b"data:"[..], b"event:", b"id:", b":"].iter().any(|field| start.starts_with(field))
}

/// Undoes one encoding. `None`: it is not known, or nothing could be decoded.
fn undo(encoding: &str, body: &[u8]) -> Option<Vec<u8>> {
    let is = |name: &str| encoding.eq_ignore_ascii_case(name);
    match encoding {
        _ if is("gzip") || is("x-gzip") => read(MultiGzDecoder::new(body)),
        // The name stands for zlib's format; some servers send what is inside of it.
        _ if is("deflate") => read(ZlibDecoder::new(body)).or_else(|| read(DeflateDecoder::new(body))),
        _ if is("br") => {
            (!is_large_window(body)).then(|| read(brotli_decompressor::Decompressor::new(body, BUFFER)))?
        }
        _ => None,
    }
}

/// Reads the beginning of what comes out. An error ends it: the body may have been cut.
fn read(mut decoder: impl Read) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut piece = [0; BUFFER];
    while out.len() < MOST_READ {
        match decoder.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(length) => out.extend_from_slice(&piece[..length.min(MOST_READ - out.len())]),
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Returns whether a brotli stream has a large window, of up to a gigabyte, which no content encoding may have. The
/// ordinary ones are at most 16 MiB, and no larger than what comes out.
fn is_large_window(body: &[u8]) -> bool {
    body.first().is_some_and(|first| first & 0x7f == 0x11)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use http::HeaderValue;

    use super::*;

    const ERROR: &[u8] = br#"{"error":{"code":429,"message":"no more","status":"RESOURCE_EXHAUSTED"}}"#;
    /// [`ERROR`], as Node.js compresses it.
    const BROTLI: &[u8] = b"\x1b\x47\x00\x80\x9c\x07\xb6\x8d\x7c\xeb\x6c\x5a\xf0\xa9\x0d\x61\x30\xa8\x45\xf6\x68\xfa\xb6\x4c\x11\xd6\x97\xd4\xc9\x61\xa9\x20\x24\xc7\
        \x38\x01\x7f\xbd\x61\x9d\x37\x18\x76\xc0\xce\x4d\x67\x80\x71\x42\xc0\x32\x4e\x7c\x98\x5a\x2f\xb1\x8d\x62\xc7\xdd\xba\xe8\x17\x3f";

    fn headers(encodings: &[&'static str]) -> HeaderMap {
        encodings.iter().map(|encoding| (CONTENT_ENCODING, HeaderValue::from_static(encoding))).collect()
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn whole(encodings: &[&'static str], body: &[u8]) -> Option<Vec<u8>> {
        decoded(&headers(encodings), body).map(Cow::into_owned)
    }

    #[test]
    fn each_encoding_is_undone() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(ERROR).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(ERROR).unwrap();
        for (encodings, body) in [
            (&["gzip"][..], gzip(ERROR)),
            (&["X-GZip"], gzip(ERROR)),
            (&["identity, gzip"], gzip(ERROR)),
            (&["gzip, gzip"], gzip(&gzip(ERROR))),
            (&["gzip", "gzip"], gzip(&gzip(ERROR))),
            (&["deflate"], zlib.finish().unwrap()),
            (&["deflate"], raw.finish().unwrap()),
            (&["br"], BROTLI.to_vec()),
            (&["br, gzip"], gzip(BROTLI)),
            // Decoded by a client that has kept the header.
            (&["gzip"], ERROR.to_vec()),
            (&["br"], b" data: {}\n\n".to_vec()),
        ] {
            let expected = if body.starts_with(b" data") { &body } else { ERROR };
            assert_eq!(whole(encodings, &body).as_deref(), Some(expected), "{encodings:?}");
        }
        assert!(matches!(decoded(&HeaderMap::new(), b"\x1f\x8b"), Some(Cow::Borrowed(b"\x1f\x8b"))));
    }

    #[test]
    fn what_cannot_be_read_is_none_and_what_was_cut_gives_what_it_has() {
        for (encodings, body) in [
            (&["gzip"][..], &b"\x1f\x8b\x08 rubbish"[..]),
            (&["br"], b"\xff\xff\xff"),
            (&["compress"], b"\x1f\x9d\x90"),
            (&["zstd"], b"\x28\xb5\x2f\xfd"),
            (&["gzip, gzip, gzip"], &gzip(&gzip(&gzip(ERROR)))),
        ] {
            assert_eq!(whole(encodings, body), None, "{encodings:?}");
        }
        let long: Vec<u8> = (0..4_000u32)
            .flat_map(|nth| format!("{nth:x} {} ", nth.wrapping_mul(2_654_435_761)).into_bytes())
            .collect();
        let packed = gzip(&long);
        let cut = whole(&["gzip"], &packed[..packed.len() / 2]).unwrap();
        assert!(cut.len() > 1_000 && long.starts_with(&cut));
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let bomb = gzip(&vec![b' '; 40 << 20]);
        assert!(bomb.len() < MOST_READ);
        assert_eq!(whole(&["gzip"], &bomb).unwrap().len(), MOST_READ);
    }

    #[test]
    fn a_window_of_a_gigabyte_is_not_allocated() {
        assert!(is_large_window(&[0x11, 30]) && is_large_window(&[0x91, 30]) && !is_large_window(BROTLI));
        assert_eq!(whole(&["br"], &[0x11, 0x1e, 0x80, 0x01, 0x78, 0x03]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), which in 0usize..4) {
            let encoding = ["gzip", "deflate", "br", "br, gzip"][which];
            let _ = whole(&[encoding], &body);
        }
    }
}
