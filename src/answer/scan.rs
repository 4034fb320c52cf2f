//! The scan of an answer, one for all layers: its content, its end, its token counts, its error.
//!
//! The answer passes in pieces that may be cut anywhere, and must not be copied or delayed. So this is a push scanner:
//! it takes bytes as they come, remembers where in the JSON it stands, skips what is not looked for at the speed of
//! `memchr`, and keeps only short scalars. It is lenient: at what is not JSON it stops looking, and never fails.

use super::{
    ends::{after_space, end_of_string, is_space, quote_or_escape},
    findings::{Findings, Wanted},
    members::{Node, is_known, is_native},
    repeat::{Blanks, Pattern},
    tokens::CountList,
};
use crate::resource::TokenHash;

/// The most of a string that is kept, in bytes: names are short, and an error's message is cut in reports anyway.
const MAX_TEXT: usize = 512;

/// The longest member name that is looked for, with room to spare.
const MAX_KEY: usize = 28;

/// The deepest path that is followed: top, list, answer, answer (wrapped), candidates, candidate, content, parts, part.
const MAX_PATH: usize = 10;

/// A scanner of one JSON value after another.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    path: [Node; MAX_PATH],
    path_len: usize,
    /// The number of open containers inside the part that is skipped.
    skipped: u32,
    key: [u8; MAX_KEY],
    /// The length of the name; more than [`MAX_KEY`] for one that is not looked for.
    key_len: usize,
    text: Vec<u8>,
    wanted: Wanted,
    /// Set at the beginning of a list that is content unless it is empty.
    awaits_element: bool,
    /// The values in which a repetition of what is scanned may differ.
    blanks: Blanks,
    pub(crate) found: Findings,
}

/// The place in the JSON syntax, by what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value, or the end of an array.
    Value,
    /// A member's name, or the end of an object.
    Key,
    InKey,
    InKeyEscape,
    Colon,
    InString,
    InStringEscape,
    /// A number, `true`, `false` or `null`.
    InScalar,
    /// A comma, or the end of the container.
    After,
    Skip,
    SkipString,
    SkipStringEscape,
    /// The text is not JSON: nothing more is looked for until the next reset.
    Broken,
}

impl Scanner {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            state: State::Value,
            path: [Node::Top; MAX_PATH],
            path_len: 1,
            skipped: 0,
            key: [0; MAX_KEY],
            key_len: 0,
            text: Vec::new(),
            wanted: Wanted::Nothing,
            awaits_element: false,
            blanks: Blanks::default(),
            found: Findings::default(),
        }
    }

    /// Begins a new value; what was found stays.
    pub(crate) fn reset(&mut self) {
        self.state = State::Value;
        self.path_len = 1;
        self.skipped = 0;
        self.awaits_element = false;
        self.blanks.clear();
    }

    /// Takes the beginning of an event, which mostly is all of it. `before` is the event before.
    pub(crate) fn event(&mut self, bytes: &[u8], before: &mut Pattern) {
        self.reset();
        if before.repeats(bytes, &mut self.found) {
            self.state = State::After;
            return;
        }
        before.forget();
        self.push(bytes);
        let is_whole = self.state == State::After && self.path_len == 1;
        if is_whole && self.found.error.is_none() && Pattern::takes(bytes, &self.blanks) {
            before.keep(bytes, &self.blanks);
        }
    }

    /// Returns whether the scan stands between whole values: at the top, or between the elements of the top's array.
    pub(crate) fn is_between_values(&self) -> bool {
        let at_the_top = self.path_len == 1 || (self.path_len == 2 && self.here() == Node::List);
        at_the_top && matches!(self.state, State::Value | State::After)
    }

    /// Returns whether a value has begun and not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Broken && (self.path_len > 1 || !matches!(self.state, State::Value | State::After))
    }

    /// Takes the next bytes, cut wherever they are.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = match self.state {
                State::Key if byte == b'"' => self.members(rest),
                State::Skip => self.skip(bytes),
                State::SkipString => self.skip_string(bytes),
                State::InString => self.string(bytes),
                State::InScalar => self.scalar(bytes),
                State::InKey => self.key(bytes),
                State::InKeyEscape => self.now(State::InKey, rest),
                State::SkipStringEscape => self.now(State::SkipString, rest),
                State::InStringEscape => {
                    self.keep(&[byte]);
                    self.now(State::InString, rest)
                }
                State::Broken => return,
                State::Value | State::Key | State::Colon | State::After => match byte {
                    // The API indents what it does not stream.
                    b' ' | b'\t' | b'\r' | b'\n' => after_space(rest),
                    _ if self.step(byte) => rest,
                    _ => bytes,
                },
            };
        }
    }

    fn now<'b>(&mut self, state: State, rest: &'b [u8]) -> &'b [u8] {
        self.state = state;
        rest
    }

    /// Takes one byte between strings and scalars that is not a space. `false`: the byte has to be looked at again.
    fn step(&mut self, byte: u8) -> bool {
        match (self.state, byte) {
            (State::Colon, b':') => self.state = State::Value,
            (State::Value, b'"' | b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                let (key, len) = (self.key, self.key_len);
                return self.value(key.get(..len).unwrap_or_default(), byte);
            }
            (State::After, b',') => self.state = if self.here().is_array() { State::Value } else { State::Key },
            (State::Value | State::After, b']') if self.here().is_array() => self.close(),
            (State::Key | State::After, b'}') if !self.here().is_array() && self.path_len > 1 => self.close(),
            // One value follows another, as in a raw tail after events.
            (State::After, _) if self.path_len == 1 => {
                self.state = State::Value;
                return false;
            }
            _ => self.state = State::Broken,
        }
        true
    }

    /// Takes members from the first name on, as far as each of them comes in one piece with the first byte of its value, as
    /// nearly all do. Their names are looked at where they stand.
    fn members<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while let Some(end) = quote_or_escape(bytes)
            && let [b'"', b':', b' ', value @ ..] | [b'"', b':', value @ ..] = &bytes[end..]
            && let [first @ (b'"' | b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'), rest @ ..] = value
        {
            let name = if end <= MAX_KEY { &bytes[..end] } else { &[] };
            let rest = if self.value(name, *first) { rest } else { value };
            let rest = match (self.state, rest) {
                (State::InString, rest) if !rest.is_empty() => self.string(rest),
                (State::InScalar, rest) => self.scalar(rest),
                // The first element of a list.
                (State::Value, [b'{', rest @ ..]) => {
                    self.open(&[], false);
                    rest
                }
                (_, rest) => rest,
            };
            bytes = match (self.state, rest) {
                (State::After, [b',', b'"', rest @ ..]) | (State::Key, [b'"', rest @ ..]) => rest,
                (_, rest) => return rest,
            };
        }
        self.key_len = 0;
        self.now(State::InKey, bytes)
    }

    /// Begins the value of the member of that name, or of an array, with its first byte. `false`: the byte has to be looked
    /// at again.
    fn value(&mut self, name: &[u8], first: u8) -> bool {
        match first {
            b'"' => self.begin(name, State::InString),
            b'{' | b'[' => self.open(name, first == b'['),
            _ => {
                self.begin(name, State::InScalar);
                return false;
            }
        }
        true
    }

    /// Begins a string or scalar.
    fn begin(&mut self, name: &[u8], state: State) {
        let here = self.here();
        let wanted = here.wanted(name);
        let is_strange = here == Node::Answer && wanted == Wanted::Nothing && !is_known(name);
        self.wanted = wanted;
        self.found.strange |= is_strange;
        if wanted == Wanted::Continuation {
            self.found.token = TokenHash::default();
        }
        self.text.clear();
        self.state = state;
    }

    /// Opens the container behind the member of that name, or an element of an array.
    fn open(&mut self, name: &[u8], is_array: bool) {
        let here = self.here();
        let is_content = here.is_content(name);
        let mut child = here.child(name, is_array);
        if here == Node::Answer {
            let (is_native, is_known) = (is_native(name), child.is_some() || is_known(name));
            self.found.native |= is_native;
            self.found.strange |= !is_known;
        }
        match child {
            _ if is_content && is_array => self.awaits_element = true,
            _ if is_content && here.is_piece() => self.found.content_seen(),
            _ if is_content => self.found.answer_seen(),
            Some(Node::Error(place)) => child = child.filter(|_| self.found.error_begins(place)),
            Some(Node::Counts(_)) => self.found.listed = CountList::default(),
            Some(piece) if piece.is_piece() => self.found.piece_begins(),
            _ => {}
        }
        match child {
            Some(node) if self.path_len < MAX_PATH => {
                self.path[self.path_len] = node;
                self.path_len += 1;
                self.state = if is_array { State::Value } else { State::Key };
            }
            _ => {
                self.skipped = 1;
                self.state = State::Skip;
            }
        }
    }

    fn close(&mut self) {
        match self.here() {
            Node::Error(place) => self.found.error_ends(place),
            Node::Counts(side) => self.found.list_ends(side),
            Node::CountOf(_) => self.found.listed.element_ends(),
            piece if piece.is_piece() => self.found.piece_ends(),
            _ => {}
        }
        self.path_len -= 1;
        self.state = State::After;
    }

    fn skip<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut at = 0;
        if self.awaits_element {
            let Some(first) = bytes.iter().find(|byte| !is_space(**byte)) else { return &[] };
            self.awaits_element = false;
            if *first != b']' {
                self.found.content_seen();
            }
        }
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => match end_of_string(&bytes[at..]) {
                    Ok(len) => at += len,
                    Err(cut) => return self.now(cut.pick(State::SkipString, State::SkipStringEscape), &[]),
                },
                b'{' | b'[' => self.skipped += 1,
                b'}' | b']' => {
                    self.skipped -= 1;
                    if self.skipped == 0 {
                        return self.now(State::After, &bytes[at..]);
                    }
                }
                _ => {}
            }
        }
        &[]
    }

    fn skip_string<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match end_of_string(bytes) {
            Ok(len) => self.now(State::Skip, &bytes[len..]),
            Err(cut) => self.now(cut.pick(State::SkipString, State::SkipStringEscape), &[]),
        }
    }

    fn key<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let at = quote_or_escape(bytes).unwrap_or(bytes.len());
        let end = self.key_len.saturating_add(at);
        match self.key.get_mut(self.key_len..end) {
            Some(room) => {
                room.copy_from_slice(&bytes[..at]);
                self.key_len = end;
            }
            None => self.key_len = MAX_KEY + 1,
        }
        match bytes.get(at) {
            Some(b'"') => self.state = State::Colon,
            // No name that is looked for contains an escape.
            Some(_) => {
                self.key_len = MAX_KEY + 1;
                self.state = State::InKeyEscape;
            }
            None => return &[],
        }
        &bytes[at + 1..]
    }

    fn string<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        // Content is noticed, and not kept.
        if bytes.first() != Some(&b'"') {
            match self.wanted {
                Wanted::Content => self.found.content_seen(),
                Wanted::Reasoning => self.found.commit_seen(),
                _ => {}
            }
        }
        if self.wanted.is_not_kept() {
            let wanted = std::mem::replace(&mut self.wanted, Wanted::Nothing);
            return match end_of_string(bytes) {
                Ok(len) => {
                    if wanted != Wanted::Nothing && len > 1 {
                        self.blanks.text(bytes.len(), len - 1);
                    }
                    self.now(State::After, &bytes[len..])
                }
                Err(cut) => self.now(cut.pick(State::InString, State::InStringEscape), &[]),
            };
        }
        if self.wanted == Wanted::Continuation {
            return match self.found.token.push(bytes) {
                Some((token, rest)) => {
                    self.wanted = Wanted::Nothing;
                    self.found.continued_by(token);
                    self.now(State::After, rest)
                }
                None => &[],
            };
        }
        let at = quote_or_escape(bytes).unwrap_or(bytes.len());
        match bytes.get(at) {
            Some(b'"') => {
                if let Wanted::Count(_) = self.wanted {
                    self.blanks.spoil();
                }
                self.take(&bytes[..at], Findings::take_string);
                self.state = State::After;
            }
            Some(_) => {
                self.keep(&bytes[..=at]);
                self.state = State::InStringEscape;
            }
            None => {
                self.keep(bytes);
                return &[];
            }
        }
        &bytes[at + 1..]
    }

    fn scalar<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
        let Some(at) = bytes.iter().position(ends) else {
            self.keep(bytes);
            return &[];
        };
        match self.wanted {
            Wanted::Count(kind) if self.text.is_empty() && bytes[0].is_ascii_digit() => {
                self.blanks.count(kind, bytes.len(), at);
            }
            Wanted::Count(_) => self.blanks.spoil(),
            _ => {}
        }
        self.take(&bytes[..at], Findings::take_scalar);
        self.now(State::After, &bytes[at..])
    }

    /// Keeps a piece of what is wanted, until the rest has come.
    fn keep(&mut self, piece: &[u8]) {
        if !self.wanted.is_not_kept() {
            let room = MAX_TEXT.saturating_sub(self.text.len()).min(piece.len());
            self.text.extend_from_slice(&piece[..room]);
        }
    }

    /// Takes a wanted text with its last piece, which is mostly all of it.
    fn take(&mut self, last: &[u8], take: impl FnOnce(&mut Findings, Wanted, &[u8])) {
        let wanted = std::mem::replace(&mut self.wanted, Wanted::Nothing);
        if self.text.is_empty() {
            return take(&mut self.found, wanted, &last[..last.len().min(MAX_TEXT)]);
        }
        self.wanted = wanted;
        self.keep(last);
        self.wanted = Wanted::Nothing;
        take(&mut self.found, wanted, &self.text);
    }

    fn here(&self) -> Node {
        self.path[self.path_len - 1]
    }
}

#[cfg(test)]
mod tests;
