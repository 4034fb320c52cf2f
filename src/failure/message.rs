//! The message of a failure: a text, or words that are written when somebody reads them.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    sync::{Arc, OnceLock},
};

use crate::redact::redact;

/// The words of a refusal by a layer. They are written when they are read: most refusals are waited out or counted, and
/// nobody reads what they say.
pub(crate) trait Words: Fn(&mut fmt::Formatter<'_>, Reader) -> fmt::Result + Send + Sync {}

impl<W: Fn(&mut fmt::Formatter<'_>, Reader) -> fmt::Result + Send + Sync> Words for W {}

/// The reader of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The operator of the server, who may know its projects and callers.
    Operator,
    /// The caller, who may know nothing of either.
    Caller,
}

/// The message of a failure, which is cheap to clone.
#[derive(Clone)]
pub(super) enum Message {
    Text(Arc<str>),
    Words(Arc<Written<dyn Words>>),
}

/// Words, and what they say to each reader, once it was read.
pub(super) struct Written<W: ?Sized> {
    texts: [OnceLock<String>; 2],
    words: W,
}

impl Message {
    /// Makes the message that these words write.
    pub(super) fn of_words(words: impl Words + 'static) -> Self {
        Self::Words(Arc::new(Written { texts: Default::default(), words }))
    }

    /// Returns the text for a reader.
    pub(super) fn text(&self, reader: Reader) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Words(written) => written.texts[reader as usize].get_or_init(|| written.write(reader)),
        }
    }

    /// Calls `read` with the text for a reader. Words that nobody has read yet are written on the stack, and not kept:
    /// for an error that is rendered, and read no more.
    pub(super) fn read<T>(&self, reader: Reader, read: impl FnOnce(&str) -> T) -> T {
        let mut room = [0; 512];
        let text = match self {
            Self::Words(written) if written.texts[reader as usize].get().is_none() => {
                written.write_into(&mut room, reader)
            }
            _ => None,
        };
        read(text.unwrap_or_else(|| self.text(reader)))
    }
}

impl Written<dyn Words> {
    #[cold]
    fn write(&self, reader: Reader) -> String {
        // Enough for nearly all of them.
        let mut text = String::with_capacity(256);
        let _ = write!(text, "{}", For(&self.words, reader));
        match redact(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(clean) => clean,
        }
    }

    /// Writes the words into a piece of memory. `None`: there is too little of it, the words fail, or a secret would
    /// have to go.
    fn write_into<'a>(&self, room: &'a mut [u8], reader: Reader) -> Option<&'a str> {
        let mut written = Room { room, len: 0 };
        write!(written, "{}", For(&self.words, reader)).ok()?;
        let text = written.text()?;
        matches!(redact(text), Cow::Borrowed(_)).then_some(text)
    }
}

/// A piece of memory that is written from its beginning. (`io::Write` panics where the words fail.)
struct Room<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl<'a> Room<'a> {
    /// Returns what was written.
    fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.room.get(..self.len)?).ok()
    }
}

impl fmt::Write for Room<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.room.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Words for a reader.
struct For<'a>(&'a dyn Words, Reader);

impl fmt::Display for For<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f, self.1)
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::Text(Arc::default())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(Reader::Operator), f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::failure::{Failure, Kind};

    use super::*;

    #[test]
    fn words_are_written_once_for_each_reader_and_redacted() {
        let times = Arc::new(AtomicU32::new(0));
        let counter = times.clone();
        let failure = Failure::in_words(Kind::RateLimited, move |f: &mut fmt::Formatter<'_>, reader: Reader| {
            counter.fetch_add(1, Ordering::Relaxed);
            let whom = if reader == Reader::Operator { "AIzaSyA-0123456789_abcdefghijklmnopqrst" } else { "you" };
            write!(f, "no room for {whom}")
        });
        assert_eq!(times.load(Ordering::Relaxed), 0, "nobody has read it");
        let other = failure.clone().with_hint(std::time::Duration::from_secs(1));
        for failure in [&failure, &other] {
            assert_eq!((failure.message(), failure.caller_message()), ("no room for [redacted]", "no room for you"));
        }
        assert!(failure.same_as(&other) && format!("{failure:?}").contains("no room for [redacted]"));
        assert_eq!(times.load(Ordering::Relaxed), 2);
        assert_eq!(failure.with_caller_message("none").caller_message(), "none");
    }

    #[test]
    fn words_that_are_read_once_are_not_kept() {
        for (words, expected) in [
            ("no room".to_owned(), "no room".to_owned()),
            ("AIzaSyA-0123456789_abcdefghijklmnopqrst".to_owned(), "[redacted]".to_owned()),
            ("long ".repeat(200), "long ".repeat(200)),
        ] {
            let is_kept = expected != "no room";
            let failure =
                Failure::in_words(Kind::RateLimited, move |f: &mut fmt::Formatter<'_>, _| f.write_str(&words));
            failure.read_caller_message(|text| assert_eq!(text, expected));
            let Message::Words(written) = &failure.message else { panic!("{failure:?}") };
            assert_eq!(written.texts[Reader::Caller as usize].get().is_some(), is_kept);
            assert_eq!(failure.caller_message(), expected);
            failure.read_caller_message(|text| assert_eq!(text, expected));
        }
    }

    #[test]
    fn words_that_fail_say_what_they_have_written() {
        let failing = |f: &mut fmt::Formatter<'_>, _| f.write_str("half").and(Err(fmt::Error));
        let failure = Failure::in_words(Kind::RateLimited, failing);
        failure.read_caller_message(|text| assert_eq!(text, "half"));
        assert_eq!(failure.message(), "half");
    }

    #[test]
    fn words_may_fill_their_room() {
        for (len, is_kept) in [(0, false), (511, false), (512, false), (513, true)] {
            let expected = "é".repeat(len / 2) + &"x".repeat(len % 2);
            let words = expected.clone();
            let failure =
                Failure::in_words(Kind::RateLimited, move |f: &mut fmt::Formatter<'_>, _| f.write_str(&words));
            failure.read_caller_message(|text| assert_eq!(text, expected));
            let Message::Words(written) = &failure.message else { panic!("{failure:?}") };
            assert_eq!(written.texts[Reader::Caller as usize].get().is_some(), is_kept, "{len}");
        }
    }
}
