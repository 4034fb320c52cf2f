//! The last bytes of a stream: they show whether it stands between two events, and whether it has ended. Pure.
//!
//! Nothing is parsed while events pass. Only a silence has to know where it stands, and the last line ends show it: a
//! blank line ends an event wherever it is.

/// The most bytes that are looked at: `[DONE]` with two line ends, or the name of a reason's member.
const MOST: usize = 16;

const DONE: &[u8] = b"[DONE]";

/// The last bytes that have passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    bytes: [u8; MOST],
    len: usize,
    /// Set while these are all bytes so far.
    is_all: bool,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self { bytes: [0; MOST], len: 0, is_all: true }
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        let kept = match data.last_chunk::<MOST>() {
            Some(last) => {
                self.is_all &= self.len == 0 && data.len() == MOST;
                (self.bytes, self.len) = (*last, MOST);
                return;
            }
            None => self.len.min(MOST - data.len()),
        };
        self.is_all &= kept == self.len;
        self.bytes.copy_within(self.len - kept..self.len, 0);
        self.bytes[kept..kept + data.len()].copy_from_slice(data);
        self.len = kept + data.len();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Returns whether the next byte begins an event, for certain: a CR may still get its LF.
    pub(super) fn is_between_events(&self) -> bool {
        let bytes = self.bytes();
        if bytes.is_empty() {
            return true;
        }
        let Some(line) = bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")) else { return false };
        match line.last() {
            Some(last) => matches!(last, b'\n' | b'\r'),
            None => self.is_all,
        }
    }

    /// Returns whether `[DONE]` came last.
    pub(super) fn is_done(&self) -> bool {
        self.bytes().trim_ascii_end().ends_with(DONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(pieces: &[&[u8]]) -> Tail {
        let mut tail = Tail::new();
        pieces.iter().for_each(|piece| tail.push(piece));
        tail
    }

    #[test]
    fn a_blank_line_is_between_events() {
        for (text, between) in [
            ("", true),
            ("\n", true),
            ("\r\n", true),
            ("\r", false),
            ("data: a\n\n", true),
            ("data: a\r\n\r\n", true),
            ("data: a\n\r\n", true),
            ("data: a\r\n\n", true),
            ("data: a\r\r\n", true),
            ("data: a\r\r", false),
            ("data: a\r\n\r", false),
            ("data: a\n", false),
            ("data: a\r\n", false),
            ("data: aaaaaaaaaaaaaaaaaaaaaaa", false),
            ("data: aaaaaaaaaaaaaaaaaaaaaaa\n\n", true),
            (": ping\n", false),
        ] {
            assert_eq!(tail(&[text.as_bytes()]).is_between_events(), between, "{text:?}");
            let single: Vec<_> = text.as_bytes().chunks(1).collect();
            assert_eq!(tail(&single).is_between_events(), between, "{text:?} in bytes");
        }
    }

    #[test]
    fn the_last_event_of_a_chat_is_known() {
        for text in ["data: [DONE]\n\n", "data: [DONE]\r\n\r\n", "data: [DONE]", "[DONE]"] {
            assert!(tail(&[text.as_bytes()]).is_done(), "{text:?}");
        }
        assert!(!tail(&[b"data: [DONE]\n\ndata: {}\n\n"]).is_done());
    }

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(pieces in proptest::collection::vec("[a\r\n]{0,20}", 0..6)) {
            let all = pieces.concat();
            let cut: Vec<_> = pieces.iter().map(String::as_bytes).collect();
            let (cut, whole) = (tail(&cut), tail(&[all.as_bytes()]));
            assert_eq!(cut.bytes(), whole.bytes());
            assert_eq!(cut.is_all, whole.is_all);
            assert_eq!(cut.bytes(), &all.as_bytes()[all.len().saturating_sub(MOST)..]);
        }
    }
}
