//! The token costs of images, audio and video, by the API's published table, as far as their first bytes tell.
//!
//! An image costs 258 tokens; a large one is cut into tiles of 258 each, at most sixteen of them. A second of audio
//! costs 32, a page of a PDF 258, a second of video 263. An image's size stands in its first bytes; the length of a
//! video, or the number of pages of a PDF, cannot be seen without reading it: both are guessed from the number of
//! bytes, generously where an upper bound is asked for. Media that are only named, by a URL or as a file, cannot be
//! counted here.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The tokens of a tile.
const TILE: u64 = 258;

/// The most tokens of one image: sixteen tiles and an overview, or the highest media resolution of the third
/// generation.
const MOST_FOR_AN_IMAGE: u64 = 17 * TILE;

/// The bytes of an image's base64 that are decoded to find its size: a JPEG may begin with 64 KiB of camera data.
const HEAD: usize = 96 * 1024;

/// Everything in a request that is not text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Media {
    /// The best estimate of its tokens.
    pub(crate) estimate: u64,
    /// The upper bound of the tokens of what can be counted.
    pub(crate) at_most: u64,
    /// The number of media that cannot be counted here.
    pub(crate) uncounted: u32,
    /// The medium that is being read: its type may come before or after its data.
    current: Blob,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Blob {
    medium: Option<Medium>,
    bytes: u64,
    image: Option<u64>,
}

/// The kind of medium that a MIME type names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    Image,
    Audio,
    Video,
    Document,
    /// Text as a file, which costs what its text costs.
    Text,
}

impl Media {
    /// Begins a blob.
    pub(crate) fn begin(&mut self) {
        self.current = Blob::default();
    }

    /// Takes the blob's type.
    pub(crate) fn mime_type(&mut self, name: &str) {
        self.current.medium = medium(name);
    }

    /// Takes the blob itself, in base64.
    pub(crate) fn data(&mut self, base64: &[u8]) {
        self.current.bytes = base64.len() as u64 / 4 * 3;
        self.current.image = tokens_of_image(base64);
    }

    /// Ends the blob.
    pub(crate) fn end(&mut self) {
        let Blob { medium, bytes, image } = std::mem::take(&mut self.current);
        match (medium, image) {
            (Some(Medium::Image) | None, Some(tokens)) => self.add(tokens, Some(MOST_FOR_AN_IMAGE)),
            (Some(Medium::Image), None) => self.add(TILE, (bytes > 0).then_some(MOST_FOR_AN_IMAGE)),
            // 16 kB a second is compressed audio of good quality; less than 1 kB a second is unheard of.
            (Some(Medium::Audio), _) if bytes > 0 => self.add(bytes / 500, Some(bytes / 25)),
            // The upper bound is a video of 26 kB a second, and pages of 1 kB each. Smaller ones are rare, and left to
            // the upstream.
            (Some(Medium::Video), _) if bytes > 0 => {
                self.add((bytes / 475).max(TILE), Some((bytes / 100).max(4 * TILE)))
            }
            (Some(Medium::Document), _) if bytes > 0 => {
                self.add((bytes / 200).max(TILE), Some((bytes / 4).max(4 * TILE)))
            }
            (Some(Medium::Text), _) if bytes > 0 => self.add(bytes / 3, Some(bytes)),
            _ => self.add(TILE, None),
        }
    }

    /// Takes an image by its URL: `data:image/png;base64,…`, or a place elsewhere.
    pub(crate) fn image_url(&mut self, url: &str) {
        self.begin();
        self.current.medium = Some(Medium::Image);
        if let Some((_, base64)) = url.strip_prefix("data:").and_then(|data| data.split_once(";base64,")) {
            self.data(base64.as_bytes());
        }
        self.end();
    }

    fn add(&mut self, estimate: u64, at_most: Option<u64>) {
        self.estimate = self.estimate.saturating_add(estimate);
        match at_most {
            Some(at_most) => self.at_most = self.at_most.saturating_add(at_most),
            None => self.uncounted = self.uncounted.saturating_add(1),
        }
    }
}

fn medium(mime_type: &str) -> Option<Medium> {
    let (kind, name) = mime_type.split_once('/').unwrap_or((mime_type, ""));
    match (kind, name) {
        ("image", _) => Some(Medium::Image),
        ("audio", _) | ("wav" | "mp3", "") => Some(Medium::Audio),
        ("video", _) => Some(Medium::Video),
        ("text", _) => Some(Medium::Text),
        ("application", _) => Some(Medium::Document),
        _ => None,
    }
}

/// Returns the tokens of an image, if the first bytes tell its size.
fn tokens_of_image(base64: &[u8]) -> Option<u64> {
    let head = &base64[..base64.len().min(HEAD)];
    let head = &head[..head.len() / 4 * 4];
    let mut bytes = vec![0; head.len() / 4 * 3];
    let read = STANDARD.decode_slice(head, &mut bytes).ok()?;
    let size = imagesize::blob_size(&bytes[..read]).ok()?;
    Some(tiles(size.width as u64, size.height as u64) * TILE)
}

/// Returns the number of tiles of an image. A small one is one tile; larger ones are cut into squares of two thirds of
/// the shorter side, 256 to 768 pixels.
fn tiles(width: u64, height: u64) -> u64 {
    if width <= 384 && height <= 384 {
        return 1;
    }
    let side = (width.min(height) * 2 / 3).clamp(256, 768);
    (width.div_ceil(side) * height.div_ceil(side)).clamp(1, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a PNG of that size.
    fn png(width: u32, height: u32) -> String {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
        STANDARD.encode(bytes)
    }

    fn blob(mime_type: &str, data: &str) -> Media {
        let mut media = Media::default();
        media.begin();
        media.data(data.as_bytes());
        media.mime_type(mime_type);
        media.end();
        media
    }

    #[test]
    fn an_image_costs_its_tiles() {
        for (width, height, tokens) in
            [(384, 384, 258), (385, 385, 4 * 258), (1024, 768, 4 * 258), (4000, 4000, 16 * 258)]
        {
            let media = blob("image/png", &png(width, height));
            assert_eq!((media.estimate, media.at_most, media.uncounted), (tokens, 17 * 258, 0), "{width}x{height}");
        }
        let mut by_url = Media::default();
        by_url.image_url(&format!("data:image/png;base64,{}", png(10, 10)));
        assert_eq!((by_url.estimate, by_url.uncounted), (258, 0));
        by_url.image_url("https://example.com/cat.png");
        assert_eq!((by_url.estimate, by_url.uncounted), (2 * 258, 1));
    }

    #[test]
    fn what_cannot_be_counted_is_said_to_be_uncounted() {
        let data = "A".repeat(4 * 1000);
        for (mime_type, estimate, at_most, uncounted) in [
            ("image/heic", 258, 17 * 258, 0),
            ("audio/mp3", 6, 120, 0),
            ("video/mp4", 258, 1032, 0),
            ("application/pdf", 258, 1032, 0),
            ("text/plain", 1000, 3000, 0),
            ("what/ever", 258, 0, 1),
        ] {
            let media = blob(mime_type, &data);
            assert_eq!((media.estimate, media.at_most, media.uncounted), (estimate, at_most, uncounted), "{mime_type}");
        }
        // A file by its name only.
        let mut media = Media::default();
        media.begin();
        media.mime_type("video/mp4");
        media.end();
        assert_eq!(media.uncounted, 1);
    }

    #[test]
    fn rubbish_is_no_image() {
        for data in ["", "A", "====", "not base64 at all", "AAAAAAAA"] {
            assert_eq!(tokens_of_image(data.as_bytes()), None, "{data}");
        }
    }
}
