//! A lenient reader of JSON, for bodies that are not well formed.
//!
//! An error body may be cut anywhere, nested absurdly, quoted in Python's way by a relay, or followed by rubbish. A
//! strict parser refuses all of these, and the one number that mattered is lost. This reader takes what is there: it
//! never fails, looks at each byte once, and keeps at most [`MOST_VALUES`] values and [`MOST_DEPTH`] levels. It
//! remembers which objects were closed, because in a cut object an absent member means nothing.

/// The most levels; deeper containers are skipped. Real error bodies have seven.
const MOST_DEPTH: usize = 24;

/// The most values; the rest of the text is not read. Real error bodies have some hundred.
const MOST_VALUES: usize = 8 * 1024;

/// A JSON value.
#[derive(Debug)]
pub(super) enum Json {
    /// `null`, and everything that was skipped or could not be read.
    Null,
    Bool,
    /// A number, as it was written.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(JsonObject),
}

/// A JSON object, with its members in their order.
#[derive(Debug)]
pub(super) struct JsonObject {
    members: Vec<(String, Json)>,
    closed: bool,
}

impl JsonObject {
    /// Returns the last member of that name that is not null.
    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        let found = |(key, value): &&(String, Json)| key == name && !matches!(value, Json::Null);
        self.members.iter().rev().find(found).map(|(_, value)| value)
    }

    /// Returns the member of the first of these `names` that the object has.
    pub(super) fn any(&self, names: &[&str]) -> Option<&Json> {
        names.iter().find_map(|name| self.get(name))
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.members.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Returns whether the closing brace was seen, so that an absent member is really absent.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Json {
    /// Reads the value that begins with the first byte of `text`, and ignores everything after its end.
    pub(super) fn read(text: &str) -> Self {
        Reader { text, at: 0, values: 0 }.read()
    }

    pub(super) fn as_object(&self) -> Option<&JsonObject> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Returns the elements of an array; any other value is one element.
    pub(super) fn elements(&self) -> &[Self] {
        match self {
            Self::Array(elements) => elements,
            other => std::slice::from_ref(other),
        }
    }

    /// Returns the number, of a number or of a text that is one.
    pub(super) fn as_u64(&self) -> Option<u64> {
        let (Self::Number(text) | Self::Text(text)) = self else {
            return None;
        };
        let text = text.trim();
        text.parse().ok().or_else(|| {
            let float: f64 = text.parse().ok()?;
            // The cast saturates, which is harmless here.
            (float.is_finite() && float >= 0.0).then_some(float as u64)
        })
    }
}

/// A container that has not been closed yet.
enum Open {
    Array(Vec<Json>),
    Object { members: Vec<(String, Json)>, key: Option<String> },
}

impl Open {
    fn close(self, closed: bool) -> Json {
        match self {
            Self::Array(elements) => Json::Array(elements),
            Self::Object { mut members, key } => {
                members.extend(key.map(|key| (key, Json::Null)));
                Json::Object(JsonObject { members, closed })
            }
        }
    }

    fn add(&mut self, value: Json) {
        match self {
            Self::Array(elements) => elements.push(value),
            Self::Object { members, key } => match (key.take(), value) {
                (Some(key), value) => members.push((key, value)),
                (None, Json::Text(text)) => *key = Some(text),
                // A value without a name cannot be looked up.
                (None, _) => {}
            },
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl Reader<'_> {
    fn read(mut self) -> Json {
        let mut stack: Vec<Open> = Vec::new();
        loop {
            let value = match self.text.as_bytes().get(self.at).copied() {
                Some(_) if self.values > MOST_VALUES => return fold(stack),
                None => return fold(stack),
                Some(b'{' | b'[') if stack.len() >= MOST_DEPTH => {
                    self.skip_container();
                    Json::Null
                }
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.values += 1;
                    stack.push(match open {
                        b'{' => Open::Object { members: Vec::new(), key: None },
                        _ => Open::Array(Vec::new()),
                    });
                    continue;
                }
                Some(close @ (b'}' | b']')) => {
                    self.at += 1;
                    // A bracket that closes nothing is ignored; one that closes an outer container ends the inner ones.
                    let fits = |open: &Open| matches!(open, Open::Object { .. }) == (close == b'}');
                    let Some(index) = stack.iter().rposition(fits) else {
                        continue;
                    };
                    let cut = stack.split_off(index + 1);
                    let Some(mut outer) = stack.pop() else {
                        continue;
                    };
                    if !cut.is_empty() {
                        outer.add(fold(cut));
                    }
                    outer.close(true)
                }
                Some(b',') => {
                    self.at += 1;
                    if let Some(Open::Object { members, key }) = stack.last_mut() {
                        members.extend(key.take().map(|key| (key, Json::Null)));
                    }
                    continue;
                }
                Some(quote @ (b'"' | b'\'')) => Json::Text(self.string(quote)),
                Some(b'0'..=b'9' | b'-' | b'a'..=b'z' | b'A'..=b'Z') => match self.word() {
                    Some(value) => value,
                    None => continue,
                },
                Some(_) => {
                    self.at += 1;
                    continue;
                }
            };
            self.values += 1;
            match stack.last_mut() {
                Some(open) => open.add(value),
                None => return value,
            }
        }
    }

    /// Reads a number or a literal. Returns `None` for any other word.
    fn word(&mut self) -> Option<Json> {
        let rest = &self.text[self.at..];
        let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_');
        let length = rest.bytes().take_while(in_word).count().max(1);
        let word = &rest[..length];
        self.at += length;
        if self.at == self.text.len() {
            // The text was cut here: "4" may have been 429.
            return None;
        }
        match word {
            "true" | "false" | "True" | "False" => Some(Json::Bool),
            "null" | "None" => Some(Json::Null),
            _ if word.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Some(Json::Number(word.to_owned())),
            _ => None,
        }
    }

    /// Reads a string and undoes its escapes. A string that was cut ends with the text.
    fn string(&mut self, quote: u8) -> String {
        let mut decoded = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let Some(plain) = memchr::memchr2(quote, b'\\', rest.as_bytes()) else {
                decoded.push_str(rest);
                self.at = self.text.len();
                return decoded;
            };
            decoded.push_str(&rest[..plain]);
            self.at += plain + 1;
            if rest.as_bytes()[plain] == quote {
                return decoded;
            }
            let Some(escaped) = rest[plain + 1..].chars().next() else {
                return decoded;
            };
            self.at += escaped.len_utf8();
            match escaped {
                'n' => decoded.push('\n'),
                't' => decoded.push('\t'),
                'r' => decoded.push('\r'),
                'b' => decoded.push('\u{8}'),
                'f' => decoded.push('\u{c}'),
                'u' => decoded.push(self.unicode()),
                other => decoded.push(other),
            }
        }
    }

    /// Reads the four digits after `\u`, and those of the second surrogate.
    fn unicode(&mut self) -> char {
        let Some(first) = self.four_digits() else {
            return char::REPLACEMENT_CHARACTER;
        };
        if (0xD800..0xDC00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            if let Some(second) = self.four_digits()
                && (0xDC00..0xE000).contains(&second)
            {
                let joined = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                return char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER);
            }
        }
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        let value = u32::from_str_radix(digits, 16).ok()?;
        self.at += 4;
        Some(value)
    }

    /// Skips a container without keeping anything, and without a stack.
    fn skip_container(&mut self) {
        let mut depth = 0usize;
        while let Some(byte) = self.text.as_bytes().get(self.at).copied() {
            match byte {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(next) = memchr::memchr2(b'"', b'\\', &self.text.as_bytes()[self.at..]) {
            let escaped = self.text.as_bytes()[self.at + next] == b'\\';
            self.at = (self.at + next + 1 + usize::from(escaped)).min(self.text.len());
            if !escaped {
                return;
            }
        }
        self.at = self.text.len();
    }
}

/// Undoes one level of escapes: of a JSON string that is printed inside of another text.
pub(super) fn unescaped(text: &str) -> String {
    let (mut plain, mut escaped) = (String::with_capacity(text.len()), false);
    for char in text.chars() {
        match char {
            '\\' if !escaped => escaped = true,
            // The inner escapes are the reader's.
            '"' | '\\' if escaped => {
                plain.push(char);
                escaped = false;
            }
            _ => {
                if std::mem::take(&mut escaped) {
                    plain.push('\\');
                }
                plain.push(char);
            }
        }
    }
    plain
}

/// Closes the containers that the end of the text left open.
fn fold(mut stack: Vec<Open>) -> Json {
    let Some(top) = stack.pop() else {
        return Json::Null;
    };
    let mut value = top.close(false);
    while let Some(mut outer) = stack.pop() {
        outer.add(value);
        value = outer.close(false);
    }
    value
}
