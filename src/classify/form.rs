//! The form of an answer: JSON, or server-sent events. Its first bytes decide, because a proxy's `Content-Type` may be
//! wrong, or not there.

use super::events::Events;
use crate::answer::scan::Scanner;

/// The names of the fields that an event may have. Each begins with another letter.
const FIELDS: [&[u8]; 4] = [b"data", b"event", b"id", b"retry"];

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The form of one answer, and the part of it that its scan needs.
#[derive(Debug)]
pub(super) enum AnswerForm {
    /// Nothing has come that says it.
    Unknown(Opening),
    Json,
    /// In a box, because an answer in one piece has no use for its memory.
    Events(Box<Events>),
    /// Text that is neither, such as a proxy's page.
    Text,
}

/// The first bytes of an answer.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// The number of bytes of a byte order mark that have been seen.
    mark: usize,
    /// The name of a field that begins the answer, as far as it has come.
    name: &'static [u8],
}

/// The form that the first bytes show.
enum Shown {
    Json,
    /// Events, the first of which begins with these bytes.
    Events(&'static [u8]),
    Text,
}

impl AnswerForm {
    /// Takes the next bytes. `are_named`: the names of events mean something.
    pub(super) fn push(&mut self, mut bytes: &[u8], scanner: &mut Scanner, are_named: bool) {
        if let Self::Unknown(opening) = self {
            let Some((shown, rest)) = opening.push(bytes) else { return };
            bytes = rest;
            *self = match shown {
                Shown::Json => Self::Json,
                Shown::Text => Self::Text,
                Shown::Events(name) => {
                    let mut events = Events::new(are_named);
                    events.push(name, scanner);
                    Self::Events(events.into())
                }
            };
        }
        match self {
            Self::Events(events) => events.push(bytes, scanner),
            Self::Json => scanner.push(bytes),
            Self::Unknown(_) | Self::Text => {}
        }
    }

    pub(super) fn are_events(&self) -> bool {
        matches!(self, Self::Events(_))
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Text)
    }

    /// Returns whether the end mark of OpenAI's dialect has been seen.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Events(events) if events.is_done())
    }
}

/// Returns whether an answer of that type may be JSON or events all the same. Media and protobuf (`alt=proto`) are good
/// answers that cannot be read here, and so is the script around an answer for which `callback=` asks.
pub(super) fn may_be_read(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().as_bytes();
    let names = |word: &str| essence.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    essence.is_empty() || ["json", "text/", "html", "octet-stream"].into_iter().any(names) && !names("javascript")
}

impl Opening {
    /// Takes the next bytes. Returns the form once it is known, and the bytes from which the scan goes on.
    fn push<'b>(&mut self, bytes: &'b [u8]) -> Option<(Shown, &'b [u8])> {
        for (at, &byte) in bytes.iter().enumerate() {
            let rest = &bytes[at..];
            if !self.name.is_empty() {
                let field = FIELDS.into_iter().find(|field| field.starts_with(self.name))?;
                match field.get(..self.name.len() + 1) {
                    Some(longer) if longer.ends_with(&[byte]) => self.name = longer,
                    None if matches!(byte, b':' | b'\r' | b'\n') => return Some((Shown::Events(field), rest)),
                    _ => return Some((Shown::Text, rest)),
                }
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if BYTE_ORDER_MARK.get(self.mark) == Some(&byte) => self.mark += 1,
                b'{' | b'[' => return Some((Shown::Json, rest)),
                b':' => return Some((Shown::Events(b""), rest)),
                _ => match FIELDS.iter().find(|field| field.first() == Some(&byte)) {
                    Some(field) => self.name = &field[..1],
                    None => return Some((Shown::Text, rest)),
                },
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str, size: usize) -> &'static str {
        let (mut form, mut scanner) = (AnswerForm::Unknown(Opening::default()), Scanner::new());
        text.as_bytes().chunks(size).for_each(|piece| form.push(piece, &mut scanner, false));
        match form {
            AnswerForm::Unknown(_) => "unknown",
            AnswerForm::Json => "json",
            AnswerForm::Events(_) => "events",
            AnswerForm::Text => "text",
        }
    }

    #[test]
    fn the_first_bytes_say_the_form_wherever_they_are_cut() {
        for (expected, texts) in [
            ("unknown", &["", " \r\n", "\u{feff}", "da", "retry"][..]),
            ("json", &["{", "[{}]", "\n\n  {", "\u{feff}{", " \u{feff}\n["]),
            (
                "events",
                &["data: {}", "data\n", "\n\ndata:{", "event: x", "id:", "retry: 5", ": ping", "\u{feff}data: a"],
            ),
            ("text", &["<html>", "data {", "dat:", "error code: 1020", "ide: x", "null", "\"a\"", "\u{0}", "é"]),
        ] {
            for text in texts {
                for size in [1, 2, 3, 100] {
                    assert_eq!(form(text, size), expected, "{text:?} by {size}");
                }
            }
        }
    }
}
