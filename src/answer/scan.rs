//! One scan of an answer for everybody: has it content, how did it end, what did it cost, is it an error.
//!
//! The answer passes in pieces that may be cut anywhere, and must not be copied or delayed. So this is a push scanner: it
//! takes bytes as they come, remembers where in the JSON it stands, skips what nobody asks for at the speed of `memchr`,
//! and keeps only short scalars. It is lenient: what is no JSON makes it stop looking, never fail.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// The most of a string that is kept, in bytes: names are short, and an error's message is cut in reports anyway.
const MAX_TEXT: usize = 512;

/// The longest member name that is looked for, with room to spare.
const MAX_KEY: usize = 28;

/// The deepest path that is followed: list, answer, candidates, candidate, content, parts, part.
const MAX_PATH: usize = 8;

/// What an answer has shown so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// A part with something in it (thoughts included), or a delta with something in it.
    pub(crate) content: bool,
    /// The reason why a candidate ended.
    pub(crate) finish_reason: Option<Box<str>>,
    /// The verdict on the prompt.
    pub(crate) block_reason: Option<Box<str>>,
    /// The model that answered.
    pub(crate) model_version: Option<Box<str>>,
    /// The latest counts.
    pub(crate) tokens: Tokens,
    /// An `error` member at the top: the answer is a failure.
    pub(crate) error: Option<ErrorFound>,
    /// Counts what has changed, so that a reader sees at a glance whether there is news.
    pub(crate) version: u32,
}

/// Token counts as the upstream gives them, in either dialect; the last ones count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) prompt: Option<u64>,
    pub(crate) candidates: Option<u64>,
    pub(crate) thoughts: Option<u64>,
    pub(crate) cached: Option<u64>,
    pub(crate) tool_use_prompt: Option<u64>,
    pub(crate) total: Option<u64>,
}

/// What an error object in the answer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorFound {
    pub(crate) code: Option<u64>,
    pub(crate) status: Option<Box<str>>,
    pub(crate) message: Option<Box<str>>,
    /// It has been read to its end.
    pub(crate) whole: bool,
}

/// A scanner of one JSON value after another.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    path: [Node; MAX_PATH],
    path_len: usize,
    /// Open containers inside the part that is skipped.
    skipped: u32,
    key: [u8; MAX_KEY],
    /// Over [`MAX_KEY`]: a name that nobody looks for.
    key_len: usize,
    text: Vec<u8>,
    wanted: Wanted,
    pub(crate) found: Findings,
}

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
    /// Not JSON: nothing more is looked for until the next reset.
    Broken,
}

/// A container on the way to something that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Top,
    List,
    Answer,
    Candidates,
    Candidate,
    Content,
    Parts,
    Part,
    Feedback,
    UsageMetadata,
    Error,
    Choices,
    Choice,
    Delta,
}

/// What the string or scalar that is being read is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    /// Content, if it is not empty.
    Content,
    FinishReason,
    BlockReason,
    ModelVersion,
    Count(Count),
    ErrorCode,
    ErrorStatus,
    ErrorMessage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Prompt,
    Candidates,
    Thoughts,
    Cached,
    ToolUsePrompt,
    Total,
}

impl Scanner {
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
            found: Findings::default(),
        }
    }

    /// Begins a new value; what was found stays.
    pub(crate) fn reset(&mut self) {
        self.state = State::Value;
        self.path_len = 1;
        self.skipped = 0;
    }

    /// Whether the scan stands between whole values: at the top, or between the elements of the top's array.
    pub(crate) fn is_between_values(&self) -> bool {
        let at_the_top = self.path_len == 1 || (self.path_len == 2 && self.here() == Node::List);
        at_the_top && matches!(self.state, State::Value | State::After)
    }

    /// Whether another element of the top's array would need a comma first; `None` where none can stand.
    pub(crate) fn needs_comma(&self) -> Option<bool> {
        let in_list = self.path_len == 2 && self.here() == Node::List;
        match self.state {
            State::Value if in_list => Some(false),
            State::After if in_list => Some(true),
            _ => None,
        }
    }

    /// Whether a value has been begun and not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Broken && (self.path_len > 1 || !matches!(self.state, State::Value | State::After))
    }

    /// Takes the next bytes, cut wherever they are.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = match self.state {
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

    /// One byte between strings and scalars, and no space. `false`: it has to be looked at again.
    fn step(&mut self, byte: u8) -> bool {
        match (self.state, byte) {
            (State::Key, b'"') => {
                self.key_len = 0;
                self.state = State::InKey;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Value, b'"') => self.begin(State::InString),
            (State::Value, b'{' | b'[') => self.open(byte),
            (State::Value, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.begin(State::InScalar);
                return false;
            }
            (State::After, b',') => self.state = if self.is_array() { State::Value } else { State::Key },
            (State::Value | State::After, b']') if self.is_array() => self.close(),
            (State::Key | State::After, b'}') if !self.is_array() && self.path_len > 1 => self.close(),
            // One value after another, as in a raw tail after events.
            (State::After, _) if self.path_len == 1 => {
                self.state = State::Value;
                return false;
            }
            _ => self.state = State::Broken,
        }
        true
    }

    /// A string or scalar begins.
    fn begin(&mut self, state: State) {
        self.wanted = self.wanted_here();
        self.text.clear();
        self.state = state;
    }

    fn open(&mut self, opener: u8) {
        let is_array = opener == b'[';
        let child = self.child(is_array);
        if child == Some(Node::Error) {
            self.found.error.get_or_insert_default();
            self.found.version += 1;
        }
        // A call, a file, code: whatever else a part holds is content.
        let holds_content = match self.here() {
            Node::Part => true,
            Node::Delta => matches!(self.key_name(), b"tool_calls" | b"content"),
            _ => false,
        };
        if holds_content {
            self.content_seen();
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
        if self.here() == Node::Error
            && let Some(error) = &mut self.found.error
        {
            error.whole = true;
            self.found.version += 1;
        }
        self.path_len -= 1;
        self.state = State::After;
    }

    fn skip<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut at = 0;
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
        let at = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
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
            // No name that is looked for has an escape.
            Some(_) => {
                self.key_len = MAX_KEY + 1;
                self.state = State::InKeyEscape;
            }
            None => return &[],
        }
        &bytes[at + 1..]
    }

    fn string<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        // Content is only noticed.
        if self.wanted == Wanted::Content && bytes.first() != Some(&b'"') {
            self.content_seen();
            self.wanted = Wanted::Nothing;
        }
        if matches!(self.wanted, Wanted::Nothing | Wanted::Content) {
            return match end_of_string(bytes) {
                Ok(len) => self.now(State::After, &bytes[len..]),
                Err(cut) => self.now(cut.pick(State::InString, State::InStringEscape), &[]),
            };
        }
        let at = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
        match bytes.get(at) {
            Some(b'"') => {
                self.take(&bytes[..at], Self::take_string);
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
        self.take(&bytes[..at], Self::take_scalar);
        self.now(State::After, &bytes[at..])
    }

    /// Keeps a piece of what is wanted, until the rest has come.
    fn keep(&mut self, piece: &[u8]) {
        if !matches!(self.wanted, Wanted::Nothing | Wanted::Content) {
            let room = MAX_TEXT.saturating_sub(self.text.len()).min(piece.len());
            self.text.extend_from_slice(&piece[..room]);
        }
    }

    /// Takes what is wanted with its last piece, which mostly is all of it.
    fn take(&mut self, last: &[u8], take: impl FnOnce(&mut Self, Wanted, &[u8])) {
        let wanted = std::mem::replace(&mut self.wanted, Wanted::Nothing);
        if self.text.is_empty() {
            return take(self, wanted, &last[..last.len().min(MAX_TEXT)]);
        }
        self.wanted = wanted;
        self.keep(last);
        self.wanted = Wanted::Nothing;
        let text = std::mem::take(&mut self.text);
        take(self, wanted, &text);
        self.text = text;
    }

    fn take_string(&mut self, wanted: Wanted, text: &[u8]) {
        let text = unescaped(text);
        let here = self.here();
        let found = &mut self.found;
        let news = match wanted {
            Wanted::FinishReason => set(&mut found.finish_reason, &text),
            Wanted::BlockReason => set(&mut found.block_reason, &text),
            Wanted::ModelVersion => set(&mut found.model_version, &text),
            Wanted::Count(count) => found.tokens.set(count, text.parse().ok()),
            Wanted::ErrorCode => {
                let error = found.error.get_or_insert_default();
                error.code = text.parse().ok();
                error.code.is_some() || set(&mut error.status, &text)
            }
            Wanted::ErrorStatus => set(&mut found.error.get_or_insert_default().status, &text),
            Wanted::ErrorMessage => {
                let error = found.error.get_or_insert_default();
                error.whole |= here == Node::Answer;
                error.message = Some(text.into());
                true
            }
            Wanted::Nothing | Wanted::Content => false,
        };
        found.version += u32::from(news);
    }

    fn take_scalar(&mut self, wanted: Wanted, text: &[u8]) {
        let number = || std::str::from_utf8(text).ok()?.parse().ok();
        let found = &mut self.found;
        let news = match wanted {
            Wanted::Count(count) => found.tokens.set(count, number()),
            Wanted::ErrorCode => {
                found.error.get_or_insert_default().code = number();
                true
            }
            _ => false,
        };
        found.version += u32::from(news);
    }

    fn content_seen(&mut self) {
        if !self.found.content {
            self.found.content = true;
            self.found.version += 1;
        }
    }

    fn here(&self) -> Node {
        self.path[self.path_len - 1]
    }

    fn is_array(&self) -> bool {
        matches!(self.here(), Node::List | Node::Candidates | Node::Parts | Node::Choices)
    }

    fn key_name(&self) -> &[u8] {
        self.key.get(..self.key_len).unwrap_or_default()
    }

    /// The container that opens here, if something that is looked for can be inside.
    fn child(&self, is_array: bool) -> Option<Node> {
        let node = match (self.here(), is_array) {
            (Node::Top, true) => Node::List,
            (Node::Top | Node::List, false) => Node::Answer,
            (Node::Candidates, false) => Node::Candidate,
            (Node::Parts, false) => Node::Part,
            (Node::Choices, false) => Node::Choice,
            (here, is_array) => match (here, self.key_name(), is_array) {
                (Node::Answer, b"candidates", true) => Node::Candidates,
                (Node::Answer, b"choices", true) => Node::Choices,
                (Node::Answer, b"promptFeedback", false) => Node::Feedback,
                (Node::Answer, b"usageMetadata" | b"usage", false) => Node::UsageMetadata,
                (Node::Answer, b"error", false) => Node::Error,
                // Code Assist wraps its answers.
                (Node::Answer, b"response", false) => Node::Answer,
                (Node::Candidate, b"content", false) => Node::Content,
                (Node::Content, b"parts", true) => Node::Parts,
                (Node::Choice, b"delta" | b"message", false) => Node::Delta,
                _ => return None,
            },
        };
        Some(node)
    }

    /// What the scalar that begins here is good for.
    fn wanted_here(&mut self) -> Wanted {
        match (self.here(), self.key_name()) {
            (Node::Part, b"thought" | b"thoughtSignature") => Wanted::Nothing,
            (Node::Part, _) => Wanted::Content,
            (Node::Delta, b"content" | b"refusal" | b"reasoning_content" | b"reasoning") => Wanted::Content,
            (Node::Candidate, b"finishReason") | (Node::Choice, b"finish_reason") => Wanted::FinishReason,
            (Node::Feedback, b"blockReason") => Wanted::BlockReason,
            (Node::Answer, b"modelVersion" | b"model") => Wanted::ModelVersion,
            (Node::Answer, b"error") => Wanted::ErrorMessage,
            (Node::UsageMetadata, b"promptTokenCount" | b"prompt_tokens") => Wanted::Count(Count::Prompt),
            (Node::UsageMetadata, b"candidatesTokenCount" | b"completion_tokens") => Wanted::Count(Count::Candidates),
            (Node::UsageMetadata, b"thoughtsTokenCount") => Wanted::Count(Count::Thoughts),
            (Node::UsageMetadata, b"cachedContentTokenCount") => Wanted::Count(Count::Cached),
            (Node::UsageMetadata, b"toolUsePromptTokenCount") => Wanted::Count(Count::ToolUsePrompt),
            (Node::UsageMetadata, b"totalTokenCount" | b"total_tokens") => Wanted::Count(Count::Total),
            (Node::Error, b"code") => Wanted::ErrorCode,
            (Node::Error, b"status") => Wanted::ErrorStatus,
            (Node::Error, b"message") => Wanted::ErrorMessage,
            _ => Wanted::Nothing,
        }
    }
}

impl Tokens {
    /// `true`: that is news.
    fn set(&mut self, count: Count, value: Option<u64>) -> bool {
        let place = match count {
            Count::Prompt => &mut self.prompt,
            Count::Candidates => &mut self.candidates,
            Count::Thoughts => &mut self.thoughts,
            Count::Cached => &mut self.cached,
            Count::ToolUsePrompt => &mut self.tool_use_prompt,
            Count::Total => &mut self.total,
        };
        std::mem::replace(place, value) != value
    }
}

/// Keeps a text that is not there already: every event of a stream repeats its model. `true`: that is news.
fn set(place: &mut Option<Box<str>>, text: &str) -> bool {
    let news = place.as_deref() != Some(text);
    if news {
        *place = Some(text.into());
    }
    news
}

/// Where the bytes ended, if not a string in them.
enum Cut {
    Inside,
    InEscape,
}

impl Cut {
    fn pick(self, inside: State, in_escape: State) -> State {
        match self {
            Self::Inside => inside,
            Self::InEscape => in_escape,
        }
    }
}

/// How long the rest of a string is, with its quote.
fn end_of_string(bytes: &[u8]) -> Result<usize, Cut> {
    let mut from = 0;
    while let Some(rest) = bytes.get(from..) {
        let at = memchr2(b'"', b'\\', rest).ok_or(Cut::Inside)?;
        if rest[at] == b'"' {
            return Ok(from + at + 1);
        }
        from += at + 2;
    }
    Err(Cut::InEscape)
}

fn after_space(bytes: &[u8]) -> &[u8] {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let end = bytes.iter().position(|byte| !space(byte)).unwrap_or(bytes.len());
    &bytes[end..]
}

/// The text of a string's inside; what was cut in the middle of an escape stays as it stood.
fn unescaped(inside: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(inside);
    if memchr(b'\\', inside).is_none() {
        return text;
    }
    serde_json::from_str(&format!("\"{text}\"")).map_or(text, Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Scanner {
        let mut scanner = Scanner::new();
        scanner.push(text.as_bytes());
        scanner
    }

    #[test]
    fn an_answer_shows_its_content_its_end_and_its_cost() {
        let scanner = scan(
            r#"{"candidates":[{"content":{"parts":[{"text":"hello \"you\""}],"role":"model"},"finishReason":"STOP","index":0}],
            "usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":7,"totalTokenCount":11,"promptTokensDetails":[{"tokenCount":4}]},
            "modelVersion":"gemini-2.5-flash"}"#,
        );
        let found = &scanner.found;
        assert!(found.content && !scanner.is_open());
        assert_eq!(found.finish_reason.as_deref(), Some("STOP"));
        assert_eq!(found.model_version.as_deref(), Some("gemini-2.5-flash"));
        let tokens = Tokens { prompt: Some(4), candidates: Some(7), total: Some(11), ..Tokens::default() };
        assert_eq!(found.tokens, tokens);
        assert_eq!(found.error, None);
    }

    #[test]
    fn only_a_part_with_something_in_it_is_content() {
        let answer =
            |part: &str| scan(&format!(r#"{{"candidates":[{{"content":{{"parts":[{part}]}}}}]}}"#)).found.content;
        assert!(answer(r#"{"text":"x"}"#));
        assert!(answer(r#"{"text":"x","thought":true}"#));
        assert!(answer(r#"{"functionCall":{"name":"f","args":{}}}"#));
        assert!(answer(r#"{"inlineData":{"mimeType":"image/png","data":"AAAA"}}"#));
        assert!(!answer(""));
        assert!(!answer("{}"));
        assert!(!answer(r#"{"text":""}"#));
        assert!(!answer(r#"{"thoughtSignature":"abc","text":""}"#));
        assert!(!scan(r#"{"candidates":[{"content":{"role":"model"},"finishReason":"STOP"}]}"#).found.content);
    }

    #[test]
    fn the_open_ai_dialect_is_read_too() {
        let chunk =
            scan(r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}],"model":"m"}"#);
        assert!(!chunk.found.content);
        assert_eq!(chunk.found.finish_reason, None);
        let whole = scan(
            r#"{"choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"model":"m",
            "usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
        );
        assert!(whole.found.content);
        assert_eq!(whole.found.finish_reason.as_deref(), Some("stop"));
        assert_eq!(whole.found.tokens.prompt, Some(3));
        let call = scan(r#"{"choices":[{"delta":{"tool_calls":[{"id":"c"}]}}]}"#);
        assert!(call.found.content);
    }

    #[test]
    fn an_error_is_found_wherever_it_stands_at_the_top() {
        for text in [
            r#"{"error":{"code":503,"message":"over \u0041 loaded","status":"UNAVAILABLE","details":[{"code":1}]}}"#,
            r#"[{"candidates":[]},{"error":{"status":"UNAVAILABLE","code":"503","message":"over A loaded"}}]"#,
        ] {
            let error = scan(text).found.error.unwrap();
            assert_eq!((error.code, error.status.as_deref()), (Some(503), Some("UNAVAILABLE")));
            assert_eq!(error.message.as_deref(), Some("over A loaded"));
        }
        assert!(scan(r#"{"error":"gone"}"#).found.error.is_some());
        assert_eq!(scan(r#"{"error":null,"candidates":[{"error":{"code":1}}]}"#).found.error, None);
        assert_eq!(
            scan(r#"{"error":{"code":"invalid_request"}}"#).found.error.unwrap().status.as_deref(),
            Some("invalid_request")
        );
    }

    #[test]
    fn what_is_open_and_what_is_whole_is_known() {
        assert!(!scan("").is_open());
        assert!(scan(r#"[{"candidates":[]}"#).is_between_values());
        assert!(scan(r#"[{"candidates":[]}"#).is_open());
        assert!(scan(r#"[{"candidates":[]},"#).is_between_values());
        assert!(!scan(r#"[{"candidates":["#).is_between_values());
        assert!(!scan(r#"[{"candidates":[]}]"#).is_open());
        assert!(!scan("<html>").is_open());
    }

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(cuts in proptest::collection::vec(0usize..400, 0..8)) {
            let text = r#"[{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a\\":["]","}"]}}},{"text":"a\"b"}],"role":"model"},
                "finishReason":"MAX_TOKENS"}],"usageMetadata":{"promptTokenCount":12,"totalTokenCount":34},"modelVersion":"g\u00e9"},
                {"promptFeedback":{"blockReason":"SAFETY"},"a member with quite a long name":{"x":[1,2,{"y":"\\"}]}}]"#.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut scanner = Scanner::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                scanner.push(&text[from..cut]);
                from = cut;
            }
            let found = scanner.found;
            assert!(found.content);
            assert_eq!(found.finish_reason.as_deref(), Some("MAX_TOKENS"));
            assert_eq!(found.block_reason.as_deref(), Some("SAFETY"));
            assert_eq!(found.model_version.as_deref(), Some("gé"));
            assert_eq!((found.tokens.prompt, found.tokens.total), (Some(12), Some(34)));
        }

        #[test]
        fn no_bytes_panic(chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..40), 0..10)) {
            let mut scanner = Scanner::new();
            for chunk in &chunks {
                scanner.push(chunk);
            }
        }

        #[test]
        fn no_json_like_text_panics(text in r#"[\[\]{}",:\\ a0]{0,200}"#) {
            scan(&text);
        }
    }
}
