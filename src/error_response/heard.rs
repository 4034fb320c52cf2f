//! The content of a failed answer, as far as an SDK could read it: an error object, an answer, or nothing. Pure.

use serde_json::{Map, Value};

use crate::answer::{
    Findings,
    scan::Scanner,
    sse::{Listener, Splitter},
};

/// The content of a body of a failed call.
#[derive(Debug)]
pub(super) struct Heard {
    /// The JSON values of the body: its elements or events, as far as they are whole.
    values: Vec<Value>,
    form: Form,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing but white space, or comments of a stream.
    Empty,
    /// One value, whole.
    Value,
    /// A list, whole.
    List,
    /// Values without a list around them or with more behind them, or a value or list that is cut off.
    Pieces,
    Events,
    /// No JSON.
    Text,
}

impl Heard {
    pub(super) fn new(body: &[u8]) -> Self {
        let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        match text {
            [] => Self { values: Vec::new(), form: Form::Empty },
            [b'{' | b'[', ..] => {
                let whole: Option<Value> = serde_json::from_slice(text).ok();
                match whole {
                    Some(Value::Array(values)) => Self { values, form: Form::List },
                    Some(value) => Self { values: vec![value], form: Form::Value },
                    None => Self { values: pieces(text), form: Form::Pieces },
                }
            }
            _ if is_field(first_line(text)) => {
                let values = events(text);
                let has_data = lines(text).any(|line| !line.is_empty() && !line.starts_with(b":"));
                Self { values, form: if has_data { Form::Events } else { Form::Empty } }
            }
            _ => Self { values: Vec::new(), form: Form::Text },
        }
    }

    /// Scans a body as the judgement next to the transport would: for content, and for what is cut off.
    pub(super) fn scan(&self, body: &[u8]) -> Findings {
        let mut scanner = Scanner::new();
        match self.form {
            Form::Value | Form::List | Form::Pieces => {
                scanner.push(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body));
            }
            Form::Events => Splitter::new().push(body, &mut Scanning { scanner: &mut scanner, has_begun: false }),
            Form::Empty | Form::Text => {}
        }
        scanner.found
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Returns the envelope of the first error, if there is one: an object whose member `error` says something.
    pub(super) fn error(&self) -> Option<&Map<String, Value>> {
        self.values.iter().filter_map(Value::as_object).find(|envelope| match envelope.get("error") {
            Some(Value::Object(error)) => {
                ["code", "message", "status"].iter().any(|name| error.get(*name).is_some_and(|value| !value.is_null()))
            }
            Some(Value::String(message)) => !message.is_empty(),
            _ => false,
        })
    }

    /// Returns whether an interaction is told of, with its status: an answer, whatever that is.
    pub(super) fn is_interaction(&self) -> bool {
        let is = |value: &Value| value.as_object().is_some_and(Self::tells_of_interaction);
        self.values.iter().any(|value| is(value) || value.get("interaction").is_some_and(is) && is_last(value))
    }

    /// Returns whether an object is an interaction, which tells of its failure in a member `error`.
    pub(super) fn tells_of_interaction(object: &Map<String, Value>) -> bool {
        object.get("id").is_some_and(Value::is_string) && object.contains_key("status")
    }

    /// Returns whether the answer gives a reason for having no content, so that its caller learns of it: a finish reason,
    /// or one for which the prompt was blocked. `STOP` is none: by it the answer would be whole.
    pub(super) fn has_reason(&self) -> bool {
        let is_reason = |reason: &str| {
            !reason.is_empty() && !reason.eq_ignore_ascii_case("STOP") && !reason.ends_with("REASON_UNSPECIFIED")
        };
        let named = |value: &Value, names: [&str; 2]| {
            names.iter().any(|name| value.get(*name).and_then(Value::as_str).is_some_and(is_reason))
        };
        self.values.iter().any(|value| {
            let blocked = ["promptFeedback", "prompt_feedback"].iter().filter_map(|name| value.get(*name));
            let ends = ["candidates", "choices"].iter().filter_map(|name| value.get(*name)?.as_array()).flatten();
            blocked.into_iter().any(|feedback| named(feedback, ["blockReason", "block_reason"]))
                || ends.into_iter().any(|candidate| named(candidate, ["finishReason", "finish_reason"]))
        })
    }

    /// Says what came, where it was neither an error nor an answer: for the message of the error in its place. `None`: it
    /// has members that are neither.
    pub(super) fn in_words(&self, streams: bool) -> Option<&'static str> {
        let is_bare = |value: &Value| match value {
            Value::Object(members) => members.is_empty(),
            Value::Array(elements) => elements.is_empty(),
            _ => false,
        };
        Some(match (self.form, &self.values[..]) {
            (Form::Empty, _) if streams => "an empty stream",
            (Form::Empty, _) => "an empty body",
            (Form::Value, [value]) if is_bare(value) => "{}",
            (Form::List, []) => "[]",
            (Form::List, values) if values.iter().all(is_bare) => "[{}]",
            (Form::Events, values) if values.iter().all(is_bare) => "a stream of empty events",
            (Form::Pieces, _) => "JSON that is cut off",
            (Form::Text, _) => "text that is no JSON",
            (Form::Value | Form::List | Form::Events, _) => return None,
        })
    }
}

/// The scan of a body of events, one after the other.
struct Scanning<'a> {
    scanner: &'a mut Scanner,
    /// Set once the current event, or the raw text between two, has begun.
    has_begun: bool,
}

impl Listener for Scanning<'_> {
    fn data(&mut self, piece: &[u8]) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.scanner.reset();
        }
        self.scanner.push(piece);
    }

    fn raw(&mut self, piece: &[u8]) {
        self.data(piece);
    }

    fn dispatch(&mut self) {
        self.has_begun = false;
    }
}

/// Returns whether an event of an interaction is its last one.
fn is_last(event: &Value) -> bool {
    event.get("event_type").and_then(Value::as_str) == Some("interaction.completed")
}

/// Reads all values that are whole, whatever list or commas are around them.
fn pieces(mut text: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    loop {
        let skipped = text.iter().take_while(|byte| byte.is_ascii_whitespace() || matches!(byte, b'[' | b']' | b','));
        text = &text[skipped.count()..];
        let mut next = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
        let Some(Ok(value)) = next.next() else { return values };
        text = &text[next.byte_offset()..];
        values.push(value);
    }
}

/// Reads the data of all events, and the JSON that stands bare between them.
fn events(text: &[u8]) -> Vec<Value> {
    let (mut values, mut data, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines(text).chain([&b""[..]]) {
        if let Some(payload) = line.strip_prefix(b"data:").filter(|_| bare.is_empty()) {
            data.extend_from_slice(payload);
            data.push(b'\n');
        } else if !bare.is_empty() || line.starts_with(b"{") || line.starts_with(b"[") {
            bare.extend_from_slice(line);
            bare.push(b'\n');
        } else if line.is_empty() {
            values.extend(serde_json::from_slice::<Value>(&std::mem::take(&mut data)).ok());
        }
    }
    values.extend(serde_json::from_slice::<Value>(&data).ok());
    values.extend(pieces(&bare));
    // The OpenAI-compatible surface sends errors in lists, as events too.
    let elements = |value| if let Value::Array(elements) = value { elements } else { vec![value] };
    values.into_iter().flat_map(elements).collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .flat_map(|line| line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b'\r'))
}

fn first_line(text: &[u8]) -> &[u8] {
    lines(text).next().unwrap_or_default()
}

fn is_field(line: &[u8]) -> bool {
    [&b":"[..], b"data:", b"event:", b"id:", b"retry:"].iter().any(|field| line.starts_with(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: &str = r#"{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}"#;

    #[test]
    fn an_error_is_found_in_whatever_is_around_it() {
        for body in [
            BUSY.to_owned(),
            format!("\u{feff} {BUSY}\n"),
            format!("[{BUSY}]"),
            format!("[{BUSY}"),
            format!("[{{\"usageMetadata\":{{}}}}\n,\n{BUSY}"),
            format!("{{}}\n{BUSY}"),
            format!("data: {BUSY}\n\n"),
            format!("data: {BUSY}"),
            format!("data: [{BUSY}]\n\n"),
            format!("data:{BUSY}\r\n\r\n"),
            format!(": hi\n\ndata: {{}}\n\nevent: error\ndata: {BUSY}\n\n"),
            format!("data: {{}}\n\n{BUSY}\n"),
            format!("data: {{}}\n\n{}", BUSY.replace(",", ",\n")),
            format!("data: {}\n\n", BUSY.replace(",", ",\ndata: ")),
        ] {
            let heard = Heard::new(body.as_bytes());
            assert_eq!(heard.error().expect(&body)["error"]["code"], 503, "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read(text in "([\\[\\]{},:\"\n\r a]|data:|event: |\"error\":|\"code\":1|\\PC){0,24}") {
            let heard = Heard::new(text.as_bytes());
            let _ = (heard.is_interaction(), heard.has_reason(), heard.in_words(true), heard.scan(text.as_bytes()));
        }

        #[test]
        fn an_error_is_found_behind_whatever_is_whole(
            before in proptest::collection::vec("(\\{\\}|\\{\"a\":\\[1,\"[\\]\\[{}:, ]{0,4}\"\\]\\}|\\{\"error\":null\\})", 0..4),
            code in 400_u16..600,
            gap in "[ \n\r\t]{0,3}",
        ) {
            let values: Vec<_> = before.into_iter().chain([format!("{{\"error\":{{\"code\":{code}}}}}")]).collect();
            let list = format!("[{}]", values.join(&format!("{gap},{gap}")));
            let events: String = values.iter().map(|value| format!("event: x\ndata: {value}\n\n: hi\n")).collect();
            let cut = list.strip_suffix(']').unwrap().to_owned() + &gap;
            for (body, form) in [(list, Form::List), (events, Form::Events), (cut, Form::Pieces)] {
                let heard = Heard::new(body.as_bytes());
                proptest::prop_assert_eq!(heard.form(), form, "{}", body);
                proptest::prop_assert_eq!(heard.error().map(|error| error["error"]["code"] == code), Some(true), "{}", body);
            }
        }
    }

    #[test]
    fn content_is_found_in_every_form_of_an_answer() {
        let text = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}"#;
        let call = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]}}]}"#;
        let chat = r#"{"choices":[{"delta":{"content":"hi"}}]}"#;
        let tools = r#"{"choices":[{"message":{"tool_calls":[{"function":{"name":"f"}}]}}]}"#;
        let thought = r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}]}}]}"#;
        for (value, expected) in
            [(text, true), (call, true), (chat, true), (tools, true), (thought, false), ("{}", false)]
        {
            let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(value).unwrap()).unwrap();
            for body in [
                value.to_owned(),
                format!("\u{feff} {pretty}"),
                format!("[{{}},{value}]"),
                format!("[{value},{{\"can"),
                format!("data: {{}}\n\ndata: {value}\r\n\r\n"),
                format!(": hi\nevent: x\ndata: {}\n\n", pretty.replace('\n', "\ndata: ")),
            ] {
                let heard = Heard::new(body.as_bytes());
                assert_eq!(heard.scan(body.as_bytes()).answer, expected, "{body}");
            }
        }
    }

    #[test]
    fn what_is_no_error_is_named() {
        for (body, streams, words) in [
            ("", true, "an empty stream"),
            (" \n", false, "an empty body"),
            (": ping\n\n: ping\n\n", true, "an empty stream"),
            ("{}", false, "{}"),
            ("[]", true, "[]"),
            ("[{}]", true, "[{}]"),
            ("data: {}\n\n", true, "a stream of empty events"),
            ("data: {\"usageMetadata\":{}}\n\n", true, ""),
            (r#"{"candidates":[{"content":{"par"#, false, "JSON that is cut off"),
            (r#"{"error":{}}"#, false, ""),
            ("<html>", false, "text that is no JSON"),
        ] {
            let heard = Heard::new(body.as_bytes());
            assert!(heard.error().is_none() && !heard.has_reason(), "{body}");
            assert_eq!(heard.in_words(streams).unwrap_or_default(), words, "{body}");
        }
    }

    #[test]
    fn an_answer_that_says_why_it_ended_is_one() {
        for body in [
            r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#,
            r#"{"candidates":[{"finishReason":"MAX_TOKENS"}]}"#,
            r#"[{"candidates":[{"content":{}}]},{"candidates":[{"finishReason":"OTHER"}]}]"#,
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
        ] {
            assert!(Heard::new(body.as_bytes()).has_reason(), "{body}");
        }
        let open = r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}]},"finishReason":null}]}"#;
        assert!(!Heard::new(open.as_bytes()).has_reason());
        for unsaid in ["STOP", "stop", "FINISH_REASON_UNSPECIFIED"] {
            let body = format!(r#"{{"candidates":[{{"content":{{}},"finishReason":"{unsaid}"}}]}}"#);
            assert!(!Heard::new(body.as_bytes()).has_reason(), "{unsaid}");
        }
        let failed = r#"{"id":"v1_i","object":"interaction","status":"failed","error":{"code":"x","message":"y"}}"#;
        assert!(Heard::new(failed.as_bytes()).is_interaction());
        let created = "data: {\"event_type\":\"interaction.created\",\"interaction\":{\"id\":\"v1_i\",\"status\":\"in_progress\"}}\n\n";
        assert!(!Heard::new(created.as_bytes()).is_interaction(), "it has only begun");
        assert!(Heard::new(created.replace("created", "completed").as_bytes()).is_interaction());
    }
}
