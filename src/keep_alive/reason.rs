//! Finds the reason for which an answer has ended, which a candidate or the prompt's feedback names. Pure.
//!
//! Nothing may be sent after it: the answer is whole, and its end has to be a clean one. The bytes are searched for the
//! end of the member's name and not parsed; within a text the name cannot stand like this, because a quotation mark
//! there is escaped. If it is a text of its own, or its value has not come, the answer counts as ended: that costs a
//! stream its keep-alive, and nothing else.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The common end of `"finishReason"` and `"blockReason"`, in both spellings.
const NAME_END: &[u8] = b"eason\"";

/// The names up to that end.
const NAMES: [&[u8]; 4] = [b"\"finishR", b"\"finish_r", b"\"blockR", b"\"block_r"];

/// The bytes of the longest name.
const LONGEST: usize = 15;

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NAME_END));

/// Returns whether a reason stands in the data that comes after `tail`, or is cut by the place between them.
pub(super) fn is_named(tail: &[u8], data: &[u8]) -> bool {
    // A name has no line end in it, and nearly every frame begins with an event.
    let is_seam = tail.last().is_some_and(|last| !matches!(last, b'\n' | b'\r'));
    if is_seam {
        const AHEAD: usize = LONGEST + 48;
        let mut seam = [0; LONGEST + AHEAD];
        let (before, after) = (&tail[tail.len().saturating_sub(LONGEST)..], &data[..data.len().min(AHEAD)]);
        let len = before.len() + after.len();
        seam[..before.len()].copy_from_slice(before);
        seam[before.len()..len].copy_from_slice(after);
        if is_in(&seam[..len], before.len()) {
            return true;
        }
    }
    is_in(data, data.len())
}

/// Returns whether a reason stands in these bytes, whose name begins before `until`.
fn is_in(bytes: &[u8], until: usize) -> bool {
    FINDER.find_iter(bytes).any(|at| {
        let name = NAMES.iter().find(|name| bytes[..at].ends_with(name));
        name.is_some_and(|name| at - name.len() < until) && !is_unset(&bytes[at + NAME_END.len()..])
    })
}

/// Returns whether a value says that there is no reason yet.
fn is_unset(after_name: &[u8]) -> bool {
    let Some(value) = after_name.trim_ascii_start().strip_prefix(b":") else { return false };
    let value = value.trim_ascii_start();
    match value.strip_prefix(b"\"") {
        Some(text) => {
            let end = memchr::memchr(b'"', text);
            end.is_some_and(|end| end == 0 || text[..end].ends_with(b"_UNSPECIFIED"))
        }
        None => value.starts_with(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep_alive::tail::Tail;

    fn found(pieces: &[&[u8]]) -> bool {
        let mut tail = Tail::new();
        pieces.iter().fold(false, |found, piece| {
            let now = is_named(tail.bytes(), piece);
            tail.push(piece);
            found | now
        })
    }

    #[test]
    fn a_reason_is_found_wherever_it_is_cut() {
        for (text, ended) in [
            (r#"{"candidates":[{"content":{},"finishReason":"STOP"}]}"#, true),
            (r#"{"candidates":[{"finish_reason" : "MAX_TOKENS"}]}"#, true),
            (r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, true),
            (r#"{"candidates":[{"finishReason":"FINISH_REASON_UNSPECIFIED"},{"finishReason":"STOP"}]}"#, true),
            (r#"{"candidates":[{"content":{"parts":[{"text":"\"finishReason\":\"STOP\""}]}}]}"#, false),
            (r#"{"candidates":[{"content":{"parts":[{"text":"the finishReason is a reason"}]}}]}"#, false),
            (r#"{"reason":"STOP","unreason":1}"#, false),
        ] {
            assert_eq!(found(&[text.as_bytes()]), ended, "{text}");
            for at in 0..=text.len() {
                let (first, second) = text.as_bytes().split_at(at);
                assert_eq!(found(&[first, second]), ended, "{text} at {at}");
            }
            let single: Vec<_> = text.as_bytes().chunks(1).collect();
            assert_eq!(found(&single), ended, "{text} in bytes");
        }
    }

    #[test]
    fn a_reason_that_is_not_set_is_none() {
        for value in ["null", r#""FINISH_REASON_UNSPECIFIED""#, r#""""#, "\n null"] {
            let text = format!(r#"{{"candidates":[{{"finishReason": {value}}}]}}"#);
            assert!(!found(&[text.as_bytes()]), "{text}");
        }
    }
}
