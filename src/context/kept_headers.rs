//! Headers that are kept in case their request is sent again.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The headers of a request in one piece of memory.
///
/// A clone of a map of headers takes two allocations, and one for each value that nothing has shared before; this copy
/// takes one in all, and becomes a map only where the request is sent again. Clones share it, so that several layers that
/// keep one request keep its headers once.
#[derive(Clone)]
pub(crate) struct KeptHeaders {
    number: usize,
    /// The headers in their order: of each its [frame], its name and its value.
    text: Arc<[u8]>,
}

/// The size of what stands before a kept header: the lengths of its name and its value, and whether it is sensitive.
const FRAME: usize = 2 * size_of::<u64>() + 1;

/// The most headers for which a map gets its room at once. Few requests have as many; for more it grows.
const MOST_AT_ONCE: usize = 64;

impl KeptHeaders {
    /// Keeps the headers; a copy that is `known` is shared if it is one of these.
    pub(crate) fn of(headers: &HeaderMap, known: Option<&Self>) -> Self {
        if let Some(known) = known.filter(|known| known.are(headers)) {
            return known.clone();
        }
        let len = headers.iter().map(|(name, value)| FRAME + name.as_str().len() + value.len()).sum();
        let mut text: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        if let Some(mut place) = Arc::get_mut(&mut text) {
            for (name, value) in headers {
                place.put_slice(&frame(name, value));
                place.put_slice(name.as_str().as_bytes());
                place.put_slice(value.as_bytes());
            }
        }
        Self { number: headers.len(), text }
    }

    /// Returns whether they are these headers, in this order.
    fn are(&self, headers: &HeaderMap) -> bool {
        let mut rest = &*self.text;
        let is_next = |(name, value): (&HeaderName, &HeaderValue)| {
            let behind = rest.strip_prefix(&frame(name, value))?.strip_prefix(name.as_str().as_bytes())?;
            rest = behind.strip_prefix(value.as_bytes())?;
            Some(())
        };
        headers.len() == self.number && headers.iter().map(is_next).all(|is_next| is_next.is_some())
    }

    /// Returns the headers as they were. `None`: one of them is none that the `http` crate would make of its text.
    pub(crate) fn to_map(&self) -> Option<HeaderMap> {
        let mut rest = Bytes::from_owner(self.text.clone());
        // A map has a most for its capacity, and panics past it; the number counts each value of a name, and may be larger.
        let mut headers = HeaderMap::with_capacity(self.number.min(MOST_AT_ONCE));
        while rest.has_remaining() {
            let [name, value] = [rest.get_u64(), rest.get_u64()].map(usize::try_from);
            let is_sensitive = rest.get_u8() != 0;
            let name = HeaderName::from_bytes(&rest.split_to(name.ok()?)).ok()?;
            let mut value = HeaderValue::from_maybe_shared(rest.split_to(value.ok()?)).ok()?;
            value.set_sensitive(is_sensitive);
            headers.append(name, value);
        }
        Some(headers)
    }
}

/// Writes what stands before a header.
fn frame(name: &HeaderName, value: &HeaderValue) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let mut place = &mut frame[..];
    place.put_u64(name.as_str().len() as u64);
    place.put_u64(value.len() as u64);
    place.put_u8(value.is_sensitive().into());
    frame
}

/// Nothing of the headers is shown: they have keys in them.
impl std::fmt::Debug for KeptHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptHeaders").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, CONTENT_TYPE};

    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_static("a/b"));
        headers.append("x-goog-api-key", HeaderValue::from_static("AIza"));
        headers.append(CONTENT_TYPE, HeaderValue::from_static(""));
        headers.append(ACCEPT, HeaderValue::from_bytes(b"caf\xe9").unwrap());
        headers.get_mut("x-goog-api-key").unwrap().set_sensitive(true);
        headers
    }

    #[test]
    fn headers_come_back_as_they_were() {
        let headers = headers();
        let again = KeptHeaders::of(&headers, None).to_map().unwrap();
        assert!(headers.iter().eq(again.iter()));
        let marks = |headers: &HeaderMap| headers.values().map(HeaderValue::is_sensitive).collect::<Vec<_>>();
        assert_eq!(marks(&headers), marks(&again));
        assert!(KeptHeaders::of(&HeaderMap::new(), None).to_map().unwrap().is_empty());
    }

    #[test]
    fn any_number_of_values_comes_back() {
        let mut headers = HeaderMap::new();
        for _ in 0..30_000 {
            headers.append("x", HeaderValue::from_static("1"));
        }
        let again = KeptHeaders::of(&headers, None).to_map().unwrap();
        assert!(headers.iter().eq(again.iter()));
    }

    #[test]
    fn a_copy_is_shared_only_of_the_same_headers() {
        let (headers, mut more, mut plain) = (headers(), headers(), headers());
        let kept = KeptHeaders::of(&headers, None);
        let is_shared = |headers: &HeaderMap| Arc::ptr_eq(&kept.text, &KeptHeaders::of(headers, Some(&kept)).text);
        more.append("x", HeaderValue::from_static(""));
        plain.get_mut("x-goog-api-key").unwrap().set_sensitive(false);
        let fewer = headers.iter().take(2).map(|(name, value)| (name.clone(), value.clone())).collect();
        assert!(is_shared(&headers.clone()) && !is_shared(&more) && !is_shared(&plain) && !is_shared(&fewer));
    }

    #[test]
    fn nothing_of_them_is_shown() {
        assert!(!format!("{:?}", KeptHeaders::of(&headers(), None)).contains("AIza"));
    }
}
