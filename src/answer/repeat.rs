//! The events that repeat the one before.
//!
//! The events of a stream have the same members, and nearly all of them the same values but for a text and a few counts. One
//! that differs from the event before in nothing else shows what that one has shown, and its own counts. So it is compared,
//! which takes less than a scan.

use super::{
    ends::end_of_string,
    findings::{Findings, number},
    tokens::TokenKind,
};

/// The most values in which a repetition may differ.
const MAX_BLANKS: usize = 6;

/// The most bytes of an event that are kept.
const MAX_PATTERN: usize = 2048;

/// The longest number that is read: no number of 19 digits is too large.
const MAX_DIGITS: usize = 19;

/// The values of an event in which a repetition may differ.
#[derive(Debug, Default)]
pub(super) struct Blanks {
    list: [Blank; MAX_BLANKS],
    len: usize,
    /// Set if a repetition could show something else.
    is_spoilt: bool,
}

/// A value in which a repetition may differ.
#[derive(Clone, Copy, Debug, Default)]
struct Blank {
    /// The number of bytes from its first byte to the end of the event.
    left: u32,
    len: u32,
    use_: BlankUse,
}

#[derive(Clone, Copy, Debug, Default)]
enum BlankUse {
    /// A text that only has to be there: the inside of a string.
    #[default]
    Text,
    Count(TokenKind),
}

impl Blanks {
    pub(super) fn clear(&mut self) {
        (self.len, self.is_spoilt) = (0, false);
    }

    /// Notes a text that is not empty. `left` is the number of bytes from its first one to the end of the event.
    pub(super) fn text(&mut self, left: usize, len: usize) {
        self.add(left, len, BlankUse::Text);
    }

    /// Notes a number.
    pub(super) fn count(&mut self, kind: TokenKind, left: usize, len: usize) {
        self.add(left, len, BlankUse::Count(kind));
    }

    /// Notes something that a repetition would have to be scanned for.
    pub(super) fn spoil(&mut self) {
        self.is_spoilt = true;
    }

    fn add(&mut self, left: usize, len: usize, use_: BlankUse) {
        match (self.list.get_mut(self.len), u32::try_from(left), u32::try_from(len)) {
            (Some(place), Ok(left), Ok(len)) => (*place, self.len) = (Blank { left, len, use_ }, self.len + 1),
            _ => self.is_spoilt = true,
        }
    }
}

/// The event before, without the values in which a repetition may differ.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    /// Empty if no event is known to have been the one before.
    bytes: Vec<u8>,
    /// The places of the values, and their use.
    blanks: [(usize, BlankUse); MAX_BLANKS],
    len: usize,
}

impl Pattern {
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
    }

    /// Keeps an event that was scanned to its end.
    pub(super) fn keep(&mut self, event: &[u8], blanks: &Blanks) {
        self.bytes.clear();
        self.len = blanks.len;
        let mut from = 0;
        for (place, blank) in self.blanks.iter_mut().zip(&blanks.list[..blanks.len]) {
            let at = event.len() - blank.left as usize;
            self.bytes.extend_from_slice(&event[from..at]);
            *place = (self.bytes.len(), blank.use_);
            from = at + blank.len as usize;
        }
        self.bytes.extend_from_slice(&event[from..]);
    }

    /// Returns whether an event may be kept.
    pub(super) fn takes(event: &[u8], blanks: &Blanks) -> bool {
        let texts: usize = blanks.list[..blanks.len].iter().map(|blank| blank.len as usize).sum();
        !blanks.is_spoilt && event.len() - texts <= MAX_PATTERN
    }

    /// Takes an event that repeats the one before. Returns whether it does.
    pub(super) fn repeats(&self, event: &[u8], found: &mut Findings) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        let blanks = &self.blanks[..self.len];
        let mut counts = [0; MAX_BLANKS];
        let (mut from, mut rest) = (0, event);
        for ((at, use_), count) in blanks.iter().zip(&mut counts) {
            let Some(value) = rest.strip_prefix(&self.bytes[from..*at]) else { return false };
            let len = match use_ {
                BlankUse::Text => end_of_string(value).unwrap_or(0).saturating_sub(1),
                BlankUse::Count(_) => {
                    let len = value.iter().take(MAX_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
                    *count = number(&value[..len]).unwrap_or_default();
                    len
                }
            };
            if len == 0 {
                return false;
            }
            (from, rest) = (*at, &value[len..]);
        }
        if rest != &self.bytes[from..] {
            return false;
        }
        for ((_, use_), count) in blanks.iter().zip(counts) {
            if let BlankUse::Count(kind) = use_ {
                found.counted(*kind, count);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::scan::Scanner, *};

    /// Scans events with the pattern, and says which of them were repetitions.
    fn repeated(events: &[String]) -> (Scanner, Vec<bool>) {
        let (mut scanner, mut before) = (Scanner::new(), Pattern::default());
        let is_repeated = |event: &String| {
            let is_repeated = before.repeats(event.as_bytes(), &mut Findings::default());
            scanner.event(event.as_bytes(), &mut before);
            is_repeated
        };
        let repeated = events.iter().map(is_repeated).collect();
        (scanner, repeated)
    }

    fn event(text: &str, count: &str) -> String {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}},"index":0}}],"usageMetadata":{{"totalTokenCount":{count}}},"modelVersion":"m"}}"#
        )
    }

    #[test]
    fn an_event_that_differs_in_its_text_and_its_counts_is_a_repetition() {
        let texts = [("a", "1"), (r#"b \"c\""#, "22"), ("", "23"), ("d", "24"), ("e", "1.5"), ("f", "25"), ("g", "26")];
        let (scanner, repeated) = repeated(&texts.map(|(text, count)| event(text, count)));
        assert_eq!(repeated, [false, true, false, false, false, true, true]);
        assert_eq!((scanner.found.tokens.total, scanner.found.answer), (Some(26), true));
        assert!(!scanner.is_open() && scanner.is_between_values());
    }

    #[test]
    fn a_pattern_is_bounded() {
        let long = format!(r#"{{"x":"{}"}}"#, "a".repeat(MAX_PATTERN));
        let texts = event(&"a".repeat(10 * MAX_PATTERN), "1");
        let counts = format!(r#"{{"usage":{{{}}}}}"#, [r#""total_tokens":1"#; MAX_BLANKS + 1].join(","));
        for (event, is_kept) in [(long, false), (texts, true), (counts, false)] {
            assert_eq!(repeated(&[event.clone(), event]).1, [false, is_kept]);
        }
    }

    /// Events in three dialects, some of which repeat the one before.
    fn events() -> impl Strategy<Value = Vec<String>> {
        let text = prop::sample::select(vec!["", "a", r"b\\", r#"a \"b\" \u00e9"#, "a longer text than the others"]);
        let count =
            prop::sample::select(vec!["0", "17", "018", "99999999999999999999", "-1", "1.5", "null", r#""9""#, "{}"]);
        let event = (0..9, text.clone(), text, count.clone(), count).prop_map(|(form, text, other, count, second)| match form {
            0 | 1 => event(text, count),
            2 => format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}","thought":true}},{{"text":"{other}"}}]}}}}],"usageMetadata":{{"promptTokenCount":{count},"totalTokenCount":{second},"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{second}}}]}}}}"#),
            3 => format!(r#"{{"choices":[{{"delta":{{"content":"{text}","reasoning_content":"{other}"}}}}],"usage":{{"total_tokens":{count},"total_tokens":{second}}}}}"#),
            4 => format!(r#"{{"event_type":"step.delta","delta":{{"text":"{text}"}},"usage":{{"total_tokens":{count},"input_tokens_details":{{"cached_tokens":{second},"text_tokens":{count}}}}}}}"#),
            5 => format!(r#"{{"candidates":[{{"content":{{"parts":[{{"functionCall":{{"name":"{text}"}}}}]}},"finishReason":"{other}"}}],"continuationToken":"{other}"}}"#),
            6 => format!(r#"{{"error":{{"code":{count},"message":"{text}"}},"errors":[{{"code":{second}}}]}}"#),
            7 => format!(r#"{{"modelVersion":"{text}","strange":"{other}","errors":[{{"message":"{other}"}}]}} {count}"#),
            _ => format!(r#"[{{"choices":[{{"text":"{text}"}}]}},{{"usage":{{"total_tokens":{count} }}}}"#),
        });
        let repeated = (event, 1..4_usize).prop_map(|(event, times)| vec![event; times]);
        prop::collection::vec(repeated, 0..12).prop_map(|events| events.concat())
    }

    proptest! {
        #[test]
        fn repetitions_show_what_a_scan_shows(events in events()) {
            let mut plain = Scanner::new();
            for event in &events {
                plain.reset();
                plain.push(event.as_bytes());
            }
            let (mut short, _) = repeated(&events);
            // An event that says a count twice changes it twice.
            (plain.found.version, short.found.version) = (0, 0);
            prop_assert_eq!(format!("{:?}", plain.found), format!("{:?}", short.found));
            let state = |scanner: &Scanner| (scanner.is_open(), scanner.is_between_values());
            prop_assert_eq!(state(&plain), state(&short));
        }
    }
}
